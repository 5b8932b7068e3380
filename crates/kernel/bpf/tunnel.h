/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Steps of tunnels over IP and UDP:
 * crates/steer/src/wire/{udp,udp_port,gre,erspan,etherip,gtp,vxlan,geneve,l2tp,encrypted}.rs. */
#ifndef FLOWYARD_TUNNEL_H
#define FLOWYARD_TUNNEL_H

#include "ip.h"

#define GTP_CONTROL 2123
/* udp_tunnel() knows no such port. */
#define NO_TUNNEL (-1)

/* The tunnel behind a UDP port (IANA "Service Name and Transport Protocol Port Number Registry"), as
 * destination or, where the protocol answers from it, as source. */
static __always_inline int udp_tunnel(__u16 port, int is_source)
{
	switch (port) {
	case 2152: case GTP_CONTROL: return GTP;
	case 3386: case 5246: return STOP(CONTROL); /* GTP', CAPWAP control */
	case 1701: return L2TP;
	case 4500: return UDP_ENCAP;
	case 51820: return WIREGUARD;
	case 3544: case 4341: case 5072: case 5247: /* Teredo, LISP, AYIYA, CAPWAP */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	}
	if (is_source)
		return NO_TUNNEL;
	switch (port) {
	case 4789: case 8472: return VXLAN;
	case 6081: return GENEVE;
	case 4754: return GRE;
	case 4790: case 6635: /* VXLAN-GPE, MPLS */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	}
	return NO_TUNNEL;
}

/* RFC 768. */
STEP step_udp(struct xdp_md *ctx, struct walk *w)
{
	__u16 source, destination, len;
	int tunnel;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	source = be16(h);
	destination = be16(h + 2);
	ports(w, source, destination);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	len = be16(h + 4);
	if (len >= 8) /* 0 is a jumbogram (RFC 2675) or segmentation offload */
		clip(w, len);
	/* A length that ends within the header cannot be: it is at least 8. */
	w->at += 8;
	tunnel = udp_tunnel(destination, 0);
	if (tunnel == NO_TUNNEL)
		tunnel = udp_tunnel(source, 1);
	/* Control traffic of GTP goes by addresses, and so do tunnels whose ends choose ports at will. */
	if (source == GTP_CONTROL || destination == GTP_CONTROL)
		level(w)->peers = PEERS_ALWAYS;
	else if (tunnel == GTP || tunnel == VXLAN || tunnel == GENEVE || tunnel == GRE)
		level(w)->peers = PEERS_TUNNEL;
	if (tunnel == NO_TUNNEL)
		return STOP(TRANSPORT);
	if (tunnel == GRE) {
		/* RFC 8086 section 3: version 0, nothing reserved, a known protocol. */
		h = header(ctx, w, 4);
		if (!h || be16(h) & 0x4fff || ethertype(be16(h + 2)) == STOP(UNKNOWN_ETHERTYPE))
			return STOP(NOT_TUNNEL);
	}
	return tunnel;
}

#define GRE_CHECKSUM 0x8000
#define GRE_ROUTING 0x4000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_ACKNOWLEDGMENT 0x0080

/* RFC 2784, RFC 2890. */
static __always_inline int gre_plain(struct xdp_md *ctx, struct walk *w, __u16 flags, __u16 protocol)
{
	__u32 key = 0;
	__u8 *h;

	if (flags & GRE_ROUTING) /* source routes (RFC 1701 section 2) */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	if (flags & GRE_CHECKSUM && !skip(w, 4))
		return STOP(TRUNCATED);
	if (flags & GRE_KEY) {
		h = header(ctx, w, 4);
		if (!h)
			return STOP(TRUNCATED);
		key = be32(h);
		w->at += 4;
	}
	if (flags & GRE_SEQUENCE && !skip(w, 4))
		return STOP(TRUNCATED);
	tunnel(w, TUNNEL_GRE, key);
	if (protocol == 0x88be || protocol == 0x22eb) /* type I is told by having no sequence number */
		return protocol == 0x88be && !(flags & GRE_SEQUENCE) ? ETH : ERSPAN;
	return ethertype(protocol);
}

/* Enhanced GRE, which PPTP uses (RFC 2637 section 4.1). */
static __always_inline int gre_enhanced(struct xdp_md *ctx, struct walk *w, __u16 flags)
{
	__u16 payload;
	__u8 *h;

	if (!(flags & GRE_KEY))
		return STOP(MALFORMED);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	payload = be16(h);
	tunnel(w, TUNNEL_PPTP, be16(h + 2));
	w->at += 4;
	if (flags & GRE_SEQUENCE && !skip(w, 4))
		return STOP(TRUNCATED);
	if (flags & GRE_ACKNOWLEDGMENT && !skip(w, 4))
		return STOP(TRUNCATED);
	clip(w, payload);
	return payload ? PPP : STOP(CONTROL);
}

/* MikroTik's Ethernet over IP: length, and tunnel with the least significant byte first. */
static __always_inline int gre_eoip(struct xdp_md *ctx, struct walk *w, __u16 flags)
{
	__u8 *h;

	if (flags & GRE_CHECKSUM && !skip(w, 4))
		return STOP(TRUNCATED);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	tunnel(w, TUNNEL_GRE, h[2] | h[3] << 8);
	w->at += 4;
	clip(w, be16(h));
	return ETH;
}

STEP step_gre(struct xdp_md *ctx, struct walk *w)
{
	__u16 flags, protocol;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	flags = be16(h);
	protocol = be16(h + 2);
	w->at += 4;
	if ((flags & 7) > 1)
		return STOP(MALFORMED);
	if (flags & 1 && protocol == 0x880b)
		return gre_enhanced(ctx, w, flags);
	if (flags & 1 && protocol == 0x6400)
		return gre_eoip(ctx, w, flags);
	return gre_plain(ctx, w, flags, protocol);
}

/* Types II and III (draft-foschiano-erspan-03 section 4). */
STEP step_erspan(struct xdp_md *ctx, struct walk *w)
{
	__u32 len = 8;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] >> 4 == 2) {
		h = header(ctx, w, 12);
		if (!h)
			return STOP(TRUNCATED);
		len = h[11] & 1 ? 20 : 12;
	} else if (h[0] >> 4 != 1) {
		return STOP(MALFORMED);
	}
	return skip(w, len) ? ETH : STOP(TRUNCATED);
}

/* RFC 3378 section 3; some have the nibbles the other way round. */
STEP step_ether_ip(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 2);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] != 0x30 && h[0] != 0x03)
		return STOP(MALFORMED);
	tunnel(w, TUNNEL_OTHER, 0);
	w->at += 2;
	return ETH;
}

/* User plane: 3GPP TS 29.281 section 5.1. */
STEP step_gtp(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h, flags, kind;
	__u32 len;
	int i;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	flags = h[0];
	if (flags >> 5 == 2 && (level(w)->sport == GTP_CONTROL || level(w)->dport == GTP_CONTROL))
		return STOP(CONTROL);
	if (flags >> 5 != 1 || !(flags & 0x10))
		return STOP(NOT_TUNNEL);
	w->at += 8;
	if (h[1] != 255) /* a T-PDU */
		return STOP(CONTROL);
	clip(w, be16(h + 2));
	tunnel(w, TUNNEL_GTP, be32(h + 4));
	if (flags & 7) {
		h = header(ctx, w, 4);
		if (!h)
			return STOP(TRUNCATED);
		kind = flags & 4 ? h[3] : 0;
		w->at += 4;
		/* Extension headers (section 5.2.1): length in units of 4 bytes first, next type last. */
		for (i = 0; kind; i++) {
			if (i == 8)
				return STOP(MALFORMED);
			h = header(ctx, w, 1);
			if (!h)
				return STOP(TRUNCATED);
			len = h[0] * 4;
			if (!len)
				return STOP(MALFORMED);
			if (!skip(w, len - 1))
				return STOP(TRUNCATED);
			h = header(ctx, w, 1);
			if (!h)
				return STOP(TRUNCATED);
			kind = h[0];
			w->at += 1;
		}
	}
	h = header(ctx, w, 1);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] >> 4 == 4) {
		h = header(ctx, w, 20);
		return h && plausible4(h) ? IPV4 : STOP(OPAQUE);
	}
	return h[0] >> 4 == 6 && header(ctx, w, 40) ? IPV6 : STOP(OPAQUE);
}

/* RFC 7348 section 5. */
STEP step_vxlan(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] == 0x0c) /* the generic protocol extension on this port */
		return MARK(FLOWYARD_MARK_PROTOCOL);
	if ((h[0] & 0x7f) != 0x08)
		return STOP(NOT_TUNNEL);
	tunnel(w, TUNNEL_VXLAN, be32(h + 4) >> 8);
	w->at += 8;
	return ETH;
}

/* RFC 8926 section 3.4. */
STEP step_geneve(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;
	int next;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	next = ethertype(be16(h + 2));
	if (h[0] & 0xc0 || next == STOP(UNKNOWN_ETHERTYPE))
		return STOP(NOT_TUNNEL);
	tunnel(w, TUNNEL_GENEVE, be32(h + 4) >> 8);
	return skip(w, 8 + (h[0] & 0x3f) * 4) ? next : STOP(TRUNCATED);
}

/* What a session of version 3 carries is known to its ends alone (RFC 3931 section 4.1). */
static __always_inline int l2tp_3(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h = header(ctx, w, 4);
	__u32 session;

	if (!h)
		return STOP(TRUNCATED);
	session = be32(h);
	w->at += 4;
	if (!session)
		return STOP(CONTROL);
	tunnel(w, TUNNEL_L2TP, session);
	return STOP(OPAQUE);
}

/* Version 2: RFC 2661 section 3.1. */
STEP step_l2tp(struct xdp_md *ctx, struct walk *w)
{
	__u32 id;
	__u16 flags;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	if (level(w)->proto == 115)
		return l2tp_3(ctx, w);
	h = header(ctx, w, 2);
	if (!h)
		return STOP(TRUNCATED);
	flags = be16(h);
	if ((flags & 15) == 3) {
		if (flags & 0x8000)
			return STOP(CONTROL);
		if (flags != 3)
			return STOP(NOT_TUNNEL);
		return skip(w, 4) ? l2tp_3(ctx, w) : STOP(TRUNCATED);
	}
	if ((flags & 15) != 2 || flags & 0x34f0)
		return STOP(NOT_TUNNEL);
	if (!skip(w, flags & 0x4000 ? 4 : 2)) /* length */
		return STOP(TRUNCATED);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	id = be32(h);
	w->at += 4;
	if (flags & 0x8000)
		return STOP(CONTROL);
	if (flags & 0x0800 && !skip(w, 4)) /* sequence */
		return STOP(TRUNCATED);
	if (flags & 0x0200) { /* offset */
		h = header(ctx, w, 2);
		if (!h || !skip(w, 2 + be16(h)))
			return STOP(TRUNCATED);
	}
	tunnel(w, TUNNEL_L2TP, id);
	return PPP;
}

/* ESP behind NAT (RFC 3948 section 2), key exchange behind its marker, and what keeps the binding alive. */
STEP step_udp_encap(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 1);
	if (h && h[0] == 0xff && w->end - w->at == 1)
		return STOP(CONTROL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	return be32(h) ? STOP(ENCRYPTED) : STOP(CONTROL);
}

/* Message types 1 to 4, least significant byte first (protocol section 5.4). */
static __always_inline int step_wireguard(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h = header(ctx, w, 4);

	if (!h)
		return STOP(TRUNCATED);
	return h[0] >= 1 && h[0] <= 4 && !h[1] && !h[2] && !h[3] ? STOP(ENCRYPTED) : STOP(NOT_TUNNEL);
}

#endif
