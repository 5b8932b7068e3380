/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Asking the card what it knows of a packet: the kernel's functions for that (net/core/xdp.c,
 * Documentation/networking/xdp-rx-metadata.rst), which only a program that is bound to its device may call.
 *
 * They are called by numbers of our own, which no helper has; the loader (crates/kernel/src/bound.rs) puts
 * those of the running kernel in their place. What the card does not tell is not called, and the verifier
 * takes it for dead code: so a program that is not bound can be loaded as well, and is told nothing.
 */
#ifndef FLOWYARD_CARD_H
#define FLOWYARD_CARD_H

#include "flowyard.bpf.h"
#include <bpf/bpf_endian.h>

/* `bound::CALLS` has the same numbers. */
static int (*const card_time)(const struct xdp_md *, __u64 *time_ns) = (void *)0x7f000001;
static int (*const card_hash)(const struct xdp_md *, __u32 *hash, __u32 *type) = (void *)0x7f000002;
static int (*const card_vlan)(const struct xdp_md *, __be16 *tpid, __u16 *tci) = (void *)0x7f000003;

/* What the card can be asked for, as bits of enum flowyard_card_flag; 0: nothing lies before the head. Set by the
 * loader. */
const volatile __u32 card_tells = 0;
/* Whether there is room made for it at all. Set by the loader. */
const volatile __u32 card = 0;

/* Asks the card. A time of 0 is none: drivers answer so where they stamp no packets. */
static __always_inline struct flowyard_card ask_card(struct xdp_md *ctx)
{
	struct flowyard_card told = {};
	__u32 hash = 0, type = 0;
	__be16 tpid = 0;
	__u64 time = 0;
	__u16 tci = 0;

	if (card_tells & FLOWYARD_CARD_TIME && !card_time(ctx, &time) && time) {
		told.time_ns = time;
		told.flags |= FLOWYARD_CARD_TIME;
	}
	/* enum xdp_rss_hash_type (include/net/xdp.h) is 0 where no header was hashed. */
	if (card_tells & FLOWYARD_CARD_HASH && !card_hash(ctx, &hash, &type) && (hash | type)) {
		told.hash = hash;
		told.flags |= FLOWYARD_CARD_HASH;
	}
	if (card_tells & FLOWYARD_CARD_VLAN && !card_vlan(ctx, &tpid, &tci)) {
		told.vlan = tci;
		told.flags |= FLOWYARD_CARD_VLAN | (tpid == bpf_htons(0x88a8) ? FLOWYARD_CARD_SERVICE : 0);
	}
	return told;
}

/* Bytes that stand before the packet. */
static __always_inline int before_packet(struct xdp_md *ctx)
{
	void *packet = (void *)(long)ctx->data, *meta = (void *)(long)ctx->data_meta;
	long bytes = packet - meta;

	/* The verifier has pointers subtracted in 64 bits alone, and the compiler would do with 32. */
	asm volatile("" : "+r"(bytes));
	return bytes;
}

/* Makes room before the packet for what the card tells and `behind` more bytes, which are zero, in the place of
 * whatever was there; false if the driver has none. */
static __always_inline int note_card(struct xdp_md *ctx, const __u32 behind)
{
	struct flowyard_card told = ask_card(ctx), *at;
	void *packet;

	if (bpf_xdp_adjust_meta(ctx, before_packet(ctx) - (int)(sizeof(told) + behind)))
		return 0;
	at = (void *)(long)ctx->data_meta;
	packet = (void *)(long)ctx->data;
	if ((void *)at + sizeof(told) + behind > packet)
		return 0;
	*at = told;
	__builtin_memset(at + 1, 0, behind);
	return 1;
}

#endif
