/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a program in the kernel shares with Flowyard: for your own program in one of the two slots, and
 * for Flowyard's own (steer.bpf.c).
 *
 *   packet -> [slot BEFORE: yours] -> STEER: dissect, hash, ring, tag head -> [slot AFTER: yours] -> DELIVER -> socket
 *
 * A program of yours ends in one of two ways:
 *
 *   - `return flowyard_go_on(ctx, FLOWYARD_STEER)` from BEFORE, `... FLOWYARD_DELIVER)` from AFTER: a tail
 *     call, so nothing of yours runs after it;
 *   - `return flowyard_verdict(ctx, XDP_DROP)`, or XDP_PASS, XDP_TX: the packet is yours, and counted so.
 *     A plain `return XDP_DROP` does the same, but is counted without its action.
 *
 * Write it as a function and name it to the slot, which makes the two programs that Flowyard chooses from
 * (frames in one buffer, frames in several):
 *
 *   static __always_inline int mine(struct xdp_md *ctx) { ... }
 *   FLOWYARD_PROGRAM(mine)
 *
 * In AFTER, the tag head lies right before the packet: `flowyard_tag(ctx)`. You may change its `user`, by
 * `flowyard_set_hash` its hash, and by `flowyard_to_ring` where it goes. A packet that the program in the kernel could not decide
 * is marked (`flowyard_is_marked`): leave it so, and user space decides; or choose a ring yourself. In
 * BEFORE there is no head yet; `flowyard_make_tag` makes one, whose `user` STEER keeps. With a head of its
 * own that says a ring, BEFORE may go on to DELIVER at once: nothing is dissected then.
 *
 * Where the port was asked for what the card knows (`xdp:IF?metadata`), that lies right before the head:
 * `flowyard_card(ctx)`. Both are there from the start then; make a head by `flowyard_make_tag` all the same.
 *
 * A frame has its first bytes between `data` and `data_end`; where it spans several buffers, the rest is
 * reached by bpf_xdp_load_bytes() alone.
 */
#ifndef FLOWYARD_BPF_H
#define FLOWYARD_BPF_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* The first 32 bytes of a tag, host order: `flowyard_mem::Tag` says what each field is. */
struct flowyard_tag {
	__u32 hash;
	__u16 ring;
	__u8 stop;  /* of a marked packet: the enum flowyard_mark */
	__u8 depth;
	__u16 outer_l3, inner_l3, inner_l4; /* bytes from the packet's start; 0xffff: none */
	__u8 protocol;
	__u8 kind; /* 0-1 fragment (1 first, 2 later), 3 IPv6, 4 quotes a packet, 7 FLOWYARD_MARKED */
	__u32 tunnel_id;
	__u8 tunnel_kind;
	__u8 hash_version;
	__u16 vlan;
	__u64 user; /* yours */
};

_Static_assert(sizeof(struct flowyard_tag) == 32, "every kernel takes 32 bytes of metadata");

/* Bits of `kind`; no tag that a consumer sees has them. */
#define FLOWYARD_MARKED 0x80 /* the program could not decide, user space does */
#define FLOWYARD_CARD 0x40 /* a struct flowyard_card lies right before the head; set where the packet is delivered */

/* What the card knows of a packet, host order. What it has not told is zero. */
struct flowyard_card {
	__u64 time_ns; /* by the card's own clock */
	__u32 hash;
	__u16 vlan;  /* TCI of the tag that it took off */
	__u16 flags; /* what it has told: enum flowyard_card_flag */
};

_Static_assert(sizeof(struct flowyard_card) == 16, "before the head of the tag, 48 bytes in all");

/* Bits of `flags`, as `flowyard_mem::flags` has them. */
enum flowyard_card_flag {
	FLOWYARD_CARD_VLAN = 1 << 3,
	FLOWYARD_CARD_TIME = 1 << 5,
	FLOWYARD_CARD_HASH = 1 << 6,
	FLOWYARD_CARD_SERVICE = 1 << 9, /* that tag's TPID was 0x88a8 rather than 0x8100 */
};

/* Flowyard's program for one socket a queue has no use for what follows. */
#ifndef FLOWYARD_TYPES_ONLY

/* Why a packet is marked. */
enum flowyard_mark {
	FLOWYARD_MARK_PROTOCOL = 0,  /* a protocol that the program does not read */
	FLOWYARD_MARK_FIRST = 1,     /* a later fragment whose first one has not come by */
	FLOWYARD_MARK_AMBIGUOUS = 2, /* bytes under an MPLS label that can be read in two ways */
	FLOWYARD_MARK_STEPS = 3,     /* more headers than the program reads */
	FLOWYARD_MARK_OFFSET = 4,    /* a header farther into the packet than the program reads */
	FLOWYARD_MARK_SEVERAL = 5,   /* a header that may reach beyond the first buffer */
	FLOWYARD_MARKS = 6,
};

/* Entries of flowyard_slots. */
enum flowyard_slot {
	FLOWYARD_BEFORE = 0,  /* yours, or empty */
	FLOWYARD_STEER = 1,
	FLOWYARD_AFTER = 2,   /* yours, or empty */
	FLOWYARD_DELIVER = 3,
	FLOWYARD_HOST = 4,    /* Flowyard's, or empty: picks out what the host's stack is to have, before all others */
	FLOWYARD_SLOTS = 5,
};

/*
 * What is counted, for each queue and processor. Always:
 *   SEEN = TO_HOST + UNSERVED + NO_ROOM + STRAIGHT + RETURNED + what ended in your programs
 *   STRAIGHT + RETURNED = REDIRECTED + PASSED + TOO_LONG
 */
enum flowyard_count {
	FLOWYARD_SEEN = 0,
	FLOWYARD_STEERED = 1,    /* dissected */
	FLOWYARD_STRAIGHT = 2,   /* delivered by STEER itself: AFTER is empty */
	FLOWYARD_RETURNED = 3,   /* delivered after your program */
	FLOWYARD_REDIRECTED = 4, /* given to a socket; what that then loses, it counts itself */
	FLOWYARD_PASSED = 5,     /* there is no such socket: the fallback action */
	FLOWYARD_TOO_LONG = 6,   /* longer than a socket takes: dropped */
	FLOWYARD_NO_ROOM = 7,    /* the driver has no room for metadata: the fallback action */
	FLOWYARD_VERDICT = 8,    /* + action, up to 4: what your programs returned by flowyard_verdict() */
	FLOWYARD_TO_HOST = 13,   /* picked out for the host's stack */
	FLOWYARD_UNSERVED = 14,  /* the owner is gone and has left the program: the fallback action */
	FLOWYARD_MARKED_BY = 16, /* + enum flowyard_mark */
	FLOWYARD_COUNTS = 24,
};

struct flowyard_counts {
	__u64 of[FLOWYARD_COUNTS];
};

/* Programs that follow one another. The loader puts Flowyard's own in the place of this declaration. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, FLOWYARD_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} flowyard_slots SEC(".maps");

/* Counters of each queue; the loader sizes it to the interface's queues. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flowyard_counts);
} flowyard_counts SEC(".maps");

/* This queue's counters on this processor; NULL for a queue that came up later. */
static __always_inline struct flowyard_counts *flowyard_counted(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;

	return bpf_map_lookup_elem(&flowyard_counts, &queue);
}

static __always_inline void flowyard_count(struct xdp_md *ctx, enum flowyard_count which)
{
	struct flowyard_counts *counts = flowyard_counted(ctx);

	if (counts && which < FLOWYARD_COUNTS)
		counts->of[which]++;
}

/* Ends your program, and counts how. */
static __always_inline int flowyard_verdict(struct xdp_md *ctx, enum xdp_action action)
{
	if (action <= XDP_REDIRECT)
		flowyard_count(ctx, FLOWYARD_VERDICT + action);
	return action;
}

/* Ends your program and has Flowyard's go on: FLOWYARD_STEER or FLOWYARD_DELIVER. */
static __always_inline int flowyard_go_on(struct xdp_md *ctx, enum flowyard_slot slot)
{
	bpf_tail_call(ctx, &flowyard_slots, slot);
	return XDP_ABORTED; /* not reached while Flowyard runs */
}

/* The tag head right before the packet; NULL if there is none. Look again after bpf_xdp_adjust_*(). */
static __always_inline struct flowyard_tag *flowyard_tag(struct xdp_md *ctx)
{
	void *head = (void *)(long)ctx->data_meta;
	void *packet = (void *)(long)ctx->data;

	if (packet - head == sizeof(struct flowyard_card) + sizeof(struct flowyard_tag))
		head += sizeof(struct flowyard_card);
	else if (packet - head != sizeof(struct flowyard_tag))
		return (void *)0;
	if (head + sizeof(struct flowyard_tag) > packet)
		return (void *)0;
	return head;
}

/* What the card knows of the packet; NULL if nobody asked it. Look again after bpf_xdp_adjust_*(). */
static __always_inline struct flowyard_card *flowyard_card(struct xdp_md *ctx)
{
	void *card = (void *)(long)ctx->data_meta;
	void *packet = (void *)(long)ctx->data;
	const __u32 bytes = sizeof(struct flowyard_card) + sizeof(struct flowyard_tag);

	if (packet - card != bytes || card + bytes > packet)
		return (void *)0;
	return card;
}

/* A tag head, all zero, in the place of whatever lies before the packet, what the card knows excepted; NULL if the
 * driver has no room. */
static __always_inline struct flowyard_tag *flowyard_make_tag(struct xdp_md *ctx)
{
	long before = (long)ctx->data - (long)ctx->data_meta;
	struct flowyard_tag *tag = flowyard_tag(ctx);

	if (!tag) {
		if (bpf_xdp_adjust_meta(ctx, (int)before - (int)sizeof(*tag)))
			return 0;
		tag = flowyard_tag(ctx);
	}
	if (tag)
		__builtin_memset(tag, 0, sizeof(*tag));
	return tag;
}

static __always_inline int flowyard_is_marked(const struct flowyard_tag *tag)
{
	return tag->kind & FLOWYARD_MARKED;
}

/* Gives the packet a hash of your own, by which its ring was or was not chosen. */
static __always_inline void flowyard_set_hash(struct flowyard_tag *tag, __u32 hash)
{
	tag->hash = hash;
	tag->hash_version = 0;
}

/* Sends the packet to this ring, whatever Flowyard says. A ring that is none is no socket: the fallback. */
static __always_inline void flowyard_to_ring(struct flowyard_tag *tag, __u16 ring)
{
	tag->ring = ring;
	tag->kind &= ~FLOWYARD_MARKED;
}

/* Makes the programs `name_one` and `name_several` of the function `name`: one of them is loaded. */
#define FLOWYARD_PROGRAM(name)                                              \
	SEC("xdp") int name##_one(struct xdp_md *ctx) { return name(ctx); } \
	SEC("xdp.frags") int name##_several(struct xdp_md *ctx) { return name(ctx); }

#endif /* FLOWYARD_TYPES_ONLY */
#endif
