/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Steps of links: crates/steer/src/wire/{eth,ethertype,vlan,llc,mpls,pw,pppoe,ppp}.rs. */
#ifndef FLOWYARD_LINK_H
#define FLOWYARD_LINK_H

#include "walk.h"

/* What is behind an EtherType (IANA "IEEE 802 Numbers"). */
static __always_inline int ethertype(__u16 type)
{
	switch (type) {
	case 0x0800: return IPV4;
	case 0x86dd: return IPV6;
	case 0x8100: case 0x9100: case 0x9200: case 0x9300: case 0x88a8: return VLAN;
	case 0x8847: case 0x8848: return MPLS;
	case 0x8864: return PPPOE;
	case 0x8863: return STOP(CONTROL); /* PPPoE discovery */
	case 0x880b: return PPP;
	case 0x6558: return ETH;
	case 0x0806: case 0x8035: return STOP(NOT_IP); /* ARP, RARP */
	case 0x8903: return FABRIC_PATH;
	case 0x8909: return CISCO_METADATA;
	case 0x8926: return VN_TAG;
	case 0x893f: return E_TAG;
	case 0x88e5: return MACSEC;
	case 0x88e7: return BACKBONE;
	case 0x894f: case 0x22f3: case 0x6559: case 0: /* NSH, TRILL, Frame Relay; no type at all */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	default: return STOP(UNKNOWN_ETHERTYPE);
	}
}

/* What follows a field that is a type, or the length of an LLC frame (IEEE 802.3 clause 3.2.6). */
static __always_inline int type_or_length(struct walk *w, __u16 type)
{
	if (type >= 0x0600)
		return ethertype(type);
	if (type)
		clip(w, type);
	return LLC;
}

/* IEEE 802.3 clause 3.2. */
STEP step_eth(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 14);
	if (!h)
		return STOP(TRUNCATED);
	/* Cisco ISL. */
	if ((h[0] & 0xfd) == 1 && !h[1] && h[2] == 0x0c && !h[3] && !h[4])
		return MARK(FLOWYARD_MARK_PROTOCOL);
	w->at += 14;
	return type_or_length(w, be16(h + 12));
}

/* IEEE 802.1Q clause 9.6. */
STEP step_vlan(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	if (!w->has_vlan) {
		w->has_vlan = 1;
		w->vlan = be16(h);
	}
	w->at += 4;
	return type_or_length(w, be16(h + 2));
}

/* IEEE 802.2; SNAP as RFC 1042 and IEEE 802.1H. */
STEP step_llc(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;
	__u32 organisation;
	__u16 type;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 3);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] != 0xaa || h[1] != 0xaa || h[2] != 3) {
		w->at += 3;
		return h[0] == 6 && h[2] == 3 ? IPV4 : STOP(NOT_IP);
	}
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	organisation = be32(h + 2) & 0xffffff;
	type = be16(h + 6);
	w->at += 8;
	if (organisation == 0 || organisation == 0xf8)
		return ethertype(type);
	/* Bridged frames (RFC 2427 section 4.2). */
	return organisation == 0x80c2 && (type == 1 || type == 7) ? ETH : STOP(NOT_IP);
}

/* Whether an IPv4 header is believable here (crates/steer/src/wire/ipv4.rs). */
static __always_inline int plausible4(const __u8 *h)
{
	__u32 len = (h[0] & 15) * 4, total = be16(h + 2);

	return h[0] >> 4 == 4 && len >= 20 && (total >= len || total == 0);
}

/* RFC 3032 section 2.1; what is under the bottom label: RFC 4928 section 3. */
STEP step_mpls(struct xdp_md *ctx, struct walk *w)
{
	__u32 entry;
	__u16 type;
	__u8 *h;
	int ip = 0;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	entry = be32(h);
	w->at += 4;
	if (!(entry & 0x100))
		return MPLS;
	tunnel(w, TUNNEL_MPLS, entry >> 12);
	if (entry >> 12 == 13) /* the generic associated channel (RFC 5586 section 4) */
		return STOP(CONTROL);
	h = header(ctx, w, 1);
	if (!h)
		return STOP(TRUNCATED);
	switch (h[0] >> 4) {
	case 0:
		return CONTROL_WORD;
	case 1:
		return STOP(CONTROL);
	case 4:
		h = header(ctx, w, 20);
		if (h && plausible4(h))
			ip = IPV4;
		break;
	case 6:
		if (header(ctx, w, 40))
			ip = IPV6;
		break;
	}
	h = header(ctx, w, 14);
	if (!h)
		return STOP(OPAQUE);
	type = be16(h + 12);
	/* A hardware address can begin with 4 or 6, and an IP address can look like a type. */
	if (ip)
		return type == 0x0800 || type == 0x86dd ? MARK(FLOWYARD_MARK_AMBIGUOUS) : ip;
	/* A pseudo-wire without a control word, if its type is a known one. */
	if (!type)
		return MARK(FLOWYARD_MARK_AMBIGUOUS);
	return ethertype(type) == STOP(UNKNOWN_ETHERTYPE) ? STOP(OPAQUE) : ETH;
}

/* RFC 4385 section 3. */
static __always_inline int step_control_word(struct walk *w)
{
	return skip(w, 4) ? ETH : STOP(TRUNCATED);
}

/* RFC 2516 section 4. */
STEP step_pppoe(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 6);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] != 0x11)
		return STOP(MALFORMED);
	tunnel(w, TUNNEL_PPPOE, be16(h + 2));
	w->at += 6;
	if (h[1])
		return STOP(CONTROL);
	clip(w, be16(h + 4));
	return PPP;
}

/* RFC 1661 section 2; in HDLC-like framing RFC 1662 section 3.1. */
STEP step_ppp(struct xdp_md *ctx, struct walk *w)
{
	__u16 begin, protocol;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 2);
	if (!h)
		return STOP(TRUNCATED);
	begin = be16(h);
	if (begin == 0x0f00 || begin == 0x8f00) /* Cisco HDLC */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	if (begin == 0xff03)
		w->at += 2;
	h = header(ctx, w, 1);
	if (!h)
		return STOP(TRUNCATED);
	protocol = h[0];
	if (protocol & 1) { /* compressed to a byte (RFC 1661 section 6.5) */
		w->at += 1;
	} else {
		h = header(ctx, w, 2);
		if (!h)
			return STOP(TRUNCATED);
		protocol = be16(h);
		w->at += 2;
	}
	switch (protocol) {
	case 0x0021: return IPV4;
	case 0x0057: return IPV6;
	case 0x0281: case 0x0283: return MPLS;
	case 0x0031: return ETH;
	case 0x003d: return STOP(MULTILINK);
	case 0x0053: case 0x0055: return STOP(ENCRYPTED);
	case 0x00fb: case 0x00fd: case 0x002d: case 0x002f: return STOP(COMPRESSED);
	}
	return protocol >= 0x8000 ? STOP(CONTROL) : STOP(UNKNOWN_ETHERTYPE);
}

#endif
