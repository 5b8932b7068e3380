/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Steps of IP and what is right behind it:
 * crates/steer/src/wire/{ip_protocol,ipv4,ipv6,ipv6_ext,frag6,transport,icmp,icmpv6,encrypted}.rs. */
#ifndef FLOWYARD_IP_H
#define FLOWYARD_IP_H

#include "link.h"

/* What is behind a protocol number (IANA "Assigned Internet Protocol Numbers"). Extension headers: only
 * IPv6 has them. */
static __always_inline int ip_protocol(__u8 family, __u8 proto)
{
	switch (proto) {
	case 6: return TCP;
	case 17: return UDP;
	case 1: return ICMP;
	case 4: return IPV4;
	case 33: case 132: case 136: return PORTS; /* DCCP, SCTP, UDP-Lite */
	case 41: return IPV6;
	case 47: return GRE;
	case 50: return ESP;
	case 51: return AH;
	case 58: return ICMPV6;
	case 59: return STOP(NO_NEXT_HEADER);
	case 97: return ETHER_IP;
	case 108: return STOP(COMPRESSED);
	case 115: return L2TP;
	case 137: return MPLS;
	case 143: return ETH;
	case 0: case 43: case 60: case 135: case 139: case 140:
		return family == 6 ? EXTENSION : STOP(UNKNOWN_PROTOCOL);
	case 44: return family == 6 ? FRAGMENT6 : STOP(UNKNOWN_PROTOCOL);
	default: return STOP(UNKNOWN_PROTOCOL);
	}
}

/* RFC 791 section 3.1. */
STEP step_ipv4(struct xdp_md *ctx, struct walk *w)
{
	__u32 len, total, start;
	__u16 word;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 20);
	if (!h)
		return STOP(TRUNCATED);
	len = (h[0] & 15) * 4;
	if (h[0] >> 4 != 4 || len < 20) {
		/* IPv6 where IPv4 was announced, as some captures have it. */
		return h[0] >> 4 == 6 && header(ctx, w, 40) ? IPV6 : STOP(MALFORMED);
	}
	total = be16(h + 2);
	word = be16(h + 6);
	start = w->at;
	if (!enter(w, 4, h[9]))
		return STOP(DEPTH);
	if (total >= len)
		clip(w, total);
	else if (total) /* 0 is segmentation offload */
		return STOP(MALFORMED);
	if (!skip(w, len))
		return STOP(TRUNCATED);
	upper(w, h[9]);
	if (word & 0x3fff && !fragment(w, start, word & 0x1fff))
		return STOP(LATER_FRAGMENT);
	return ip_protocol(4, h[9]);
}

/* RFC 8200 section 3. */
STEP step_ipv6(struct xdp_md *ctx, struct walk *w)
{
	__u16 payload;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 40);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] >> 4 != 6)
		return STOP(MALFORMED);
	payload = be16(h + 4);
	if (!enter(w, 6, h[6]))
		return STOP(DEPTH);
	w->at += 40;
	if (payload) /* 0 is a jumbogram (RFC 2675) or segmentation offload */
		clip(w, payload);
	upper(w, h[6]);
	return ip_protocol(6, h[6]);
}

/* RFC 8200 section 4; mobility, host identity and shim6 headers carry nothing where next header is 59. */
STEP step_extension(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h, proto;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h || !skip(w, (h[1] + 1) * 8))
		return STOP(TRUNCATED);
	proto = level(w)->proto;
	if (h[0] == 59 && (proto == 135 || proto == 139 || proto == 140))
		return STOP(CONTROL);
	upper(w, h[0]);
	return ip_protocol(level(w)->family, h[0]);
}

/* RFC 4302 section 2. */
STEP step_ah(struct xdp_md *ctx, struct walk *w)
{
	__u32 len;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 12);
	if (!h)
		return STOP(TRUNCATED);
	len = (h[1] + 2) * 4;
	if (len < 12)
		return STOP(MALFORMED);
	if (!skip(w, len))
		return STOP(TRUNCATED);
	upper(w, h[0]);
	return ip_protocol(level(w)->family, h[0]);
}

/* RFC 8200 section 4.5; an atomic fragment is the whole datagram (RFC 6946). */
STEP step_fragment6(struct xdp_md *ctx, struct walk *w)
{
	__u32 start;
	__u16 word;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 8);
	if (!h)
		return STOP(TRUNCATED);
	word = be16(h + 2);
	start = w->at;
	w->at += 8;
	upper(w, h[0]);
	if (word & 0xfff9 && !fragment(w, start, word & 0xfff8))
		return STOP(LATER_FRAGMENT);
	return ip_protocol(6, h[0]);
}

/* RFC 9293 section 3.1. */
STEP step_tcp(struct xdp_md *ctx, struct walk *w)
{
	__u32 len;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	ports(w, be16(h), be16(h + 2));
	h = header(ctx, w, 13);
	if (!h)
		return STOP(TRUNCATED);
	len = (h[12] >> 4) * 4;
	if (len < 20)
		return STOP(MALFORMED);
	return skip(w, len) ? STOP(TRANSPORT) : STOP(TRUNCATED);
}

/* SCTP (RFC 9260 section 3.1), UDP-Lite (RFC 3828 section 3.1), DCCP (RFC 4340 section 5.1). */
STEP step_ports(struct xdp_md *ctx, struct walk *w)
{
	__u32 len;
	__u8 *h, proto;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 4);
	if (!h)
		return STOP(TRUNCATED);
	ports(w, be16(h), be16(h + 2));
	proto = level(w)->proto;
	if (proto == 132) {
		len = 12;
	} else if (proto == 136) {
		len = 8;
	} else {
		h = header(ctx, w, 5);
		if (!h)
			return STOP(TRUNCATED);
		len = h[4] * 4;
	}
	return skip(w, len) ? STOP(TRANSPORT) : STOP(TRUNCATED);
}

/* A query or its answer: the identifier stands for both ports. */
static __always_inline int icmp_query(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h = header(ctx, w, 6);
	__u16 id;

	if (!h)
		return STOP(TRUNCATED);
	id = be16(h + 4);
	ports(w, id, id);
	return skip(w, 8) ? STOP(ICMP_END) : STOP(TRUNCATED);
}

/* An error: what follows is the beginning of the packet that it is about. */
static __always_inline int icmp_error(struct walk *w, int quoted)
{
	if (!skip(w, 8))
		return STOP(TRUNCATED);
	if (w->quoting)
		return STOP(ICMP_END);
	w->quoting = 1;
	return quoted;
}

/* RFC 792, RFC 950. */
STEP step_icmp(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 1);
	if (!h)
		return STOP(TRUNCATED);
	switch (h[0]) {
	case 3: case 4: case 5: case 11: case 12:
		return icmp_error(w, IPV4);
	case 0: case 8: case 13: case 14: case 15: case 16: case 17: case 18:
		return icmp_query(ctx, w);
	default:
		return STOP(ICMP_END);
	}
}

/* RFC 4443 sections 2.1 to 4. */
STEP step_icmpv6(struct xdp_md *ctx, struct walk *w)
{
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 1);
	if (!h)
		return STOP(TRUNCATED);
	switch (h[0]) {
	case 1: case 2: case 3: case 4:
		return icmp_error(w, IPV6);
	case 128: case 129:
		return icmp_query(ctx, w);
	default:
		return STOP(ICMP_END);
	}
}

/* RFC 4303 section 2. */
static __always_inline int step_esp(struct xdp_md *ctx, struct walk *w)
{
	return header(ctx, w, 4) ? STOP(ENCRYPTED) : STOP(TRUNCATED);
}

#endif
