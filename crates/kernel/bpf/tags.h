/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Steps of what switches put between Ethernet and its payload:
 * crates/steer/src/wire/{macsec,cmd,port_tag,pbb,fabric}.rs. */
#ifndef FLOWYARD_TAGS_H
#define FLOWYARD_TAGS_H

#include "link.h"

/* A header of `len` bytes, a type or length the last two of them. */
static __always_inline int before_type(struct xdp_md *ctx, struct walk *w, __u32 len)
{
	__u8 *h = header(ctx, w, len);

	if (!h)
		return STOP(TRUNCATED);
	w->at += len;
	return type_or_length(w, be16(h + len - 2));
}

/* VN-tag; the E-tag of IEEE 802.1BR clause 7.5; MAC in MAC (IEEE 802.1Q clause 9.7); FabricPath. */
STEP step_tag(struct xdp_md *ctx, struct walk *w, int layer)
{
	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	switch (layer) {
	case VN_TAG: return before_type(ctx, w, 6);
	case E_TAG: return before_type(ctx, w, 8);
	case BACKBONE: return before_type(ctx, w, 18);
	default: return skip(w, 2) ? ETH : STOP(TRUNCATED);
	}
}

/* IEEE 802.1AE clause 9: the end, unless the frame is only signed. */
STEP step_macsec(struct xdp_md *ctx, struct walk *w)
{
	__u32 left;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 6);
	if (!h || !skip(w, h[0] & 0x20 ? 14 : 6)) /* with a channel identifier */
		return STOP(TRUNCATED);
	if (h[0] & 0x0c)
		return STOP(ENCRYPTED);
	left = w->end - w->at;
	w->end = left > 16 ? w->end - 16 : w->at; /* the integrity check value */
	return before_type(ctx, w, 2);
}

/* Cisco metadata (draft-smith-kandula-sxp section 10): options in units of 4 bytes, the type behind them; in
 * GRE, before. */
STEP step_cisco_metadata(struct xdp_md *ctx, struct walk *w)
{
	__u16 type;
	__u8 *h;

	if (!w)
		return MARK(FLOWYARD_MARK_PROTOCOL);
	h = header(ctx, w, 2);
	if (!h)
		return STOP(TRUNCATED);
	if (h[0] == 1)
		return skip(w, 2 + h[1] * 4) ? before_type(ctx, w, 2) : STOP(TRUNCATED);
	h = header(ctx, w, 4);
	if (!h || !skip(w, 4 + h[3] * 4))
		return STOP(TRUNCATED);
	type = be16(h);
	return type_or_length(w, type);
}

#endif
