// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The XDP program of `xdp:` ports: hands each packet to the AF_XDP socket of the queue it came on.
//
// A packet on a queue without a socket goes on to the host's own stack (unless the loader says otherwise), so
// that nothing is lost while sockets open and close, or when only one queue was asked for. A packet longer than a
// socket can take is dropped here, where it can be named, rather than in the kernel, where it
// would be one among other drops. Each packet that the program sees raises exactly one counter.
//
// User space maps `counters` and reads it without a system call.
//
// The programs whose names begin with `card` ask the card first what it knows of the packet, and put that right before
// it; they are bound to their device for that. Two of them make no tail call: only from 6.16 on, or where that was taken
// over, does the kernel let a bound program make one.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define FLOWYARD_TYPES_ONLY
#include "card.h"

// One cache line a queue: two queues never write the same line.
struct counter {
	__u64 redirected; // handed to a socket; what the socket then lost, it counts itself
	__u64 passed;     // no socket on the queue: the fallback action
	__u64 too_long;   // longer than `longest_bytes`: dropped
	__u64 to_host;    // picked out for the host's stack, by the program in `slots`
	__u64 no_room;    // of `passed`: the driver had no room for what the card knows
	__u64 unused[3];
};

// Socket of each queue. Sized by the loader to the interface's queues.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

// Counters of each queue. Sized like `sockets`.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

// Where a program stands that picks out what the host's stack is to have, and what that goes on to. Emptied by the
// kernel when their owner goes.
enum { PICK, REDIRECT, SLOTS };
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} slots SEC(".maps");

// What happens to packets for which there is no socket: an action of XDP. Set by the loader.
const volatile __u32 fallback = XDP_PASS;
// Whether a program stands in `slots`. Set by the loader.
const volatile __u32 picks = 0;
// Most bytes of a frame that a socket without several buffers takes. Set by the loader.
const volatile __u32 longest_bytes = 0xffffffff;

// Takes away what stands before the packet: the stack merges none before which different things stand.
static __always_inline void forget_card(struct xdp_md *ctx)
{
	bpf_xdp_adjust_meta(ctx, before_packet(ctx));
}

static __always_inline int redirect_packet(struct xdp_md *ctx, int several)
{
	__u32 queue = ctx->rx_queue_index;
	struct counter *count = bpf_map_lookup_elem(&counters, &queue);
	long action;

	if (!count)
		return fallback; // a queue beyond those that the interface had when this was loaded
	action = bpf_redirect_map(&sockets, queue, fallback);
	// Atomic: in generic mode two processors may work on one queue.
	if (action != XDP_REDIRECT) {
		__sync_fetch_and_add(&count->passed, 1);
		if (card)
			forget_card(ctx);
		return action;
	}
	if (!several && ctx->data_end - ctx->data > longest_bytes) {
		__sync_fetch_and_add(&count->too_long, 1);
		return XDP_DROP;
	}
	__sync_fetch_and_add(&count->redirected, 1);
	return action;
}

// There was no room for what the card knows, and who reads the packet cannot tell.
static __always_inline int no_room(struct xdp_md *ctx)
{
	__u32 queue = ctx->rx_queue_index;
	struct counter *count = bpf_map_lookup_elem(&counters, &queue);

	if (count) {
		__sync_fetch_and_add(&count->passed, 1);
		__sync_fetch_and_add(&count->no_room, 1);
	}
	return fallback;
}

// For drivers whose frames fit in one buffer.
SEC("xdp")
int flowyard_xdp(struct xdp_md *ctx)
{
	if (picks)
		bpf_tail_call(ctx, &slots, PICK);
	return redirect_packet(ctx, 0);
}

SEC("xdp")
int card_xdp(struct xdp_md *ctx)
{
	return note_card(ctx, 0) ? redirect_packet(ctx, 0) : no_room(ctx);
}

SEC("xdp")
int card_pick_xdp(struct xdp_md *ctx)
{
	if (!note_card(ctx, 0))
		return no_room(ctx);
	bpf_tail_call(ctx, &slots, PICK);
	return redirect_packet(ctx, 0);
}

// What was not picked out goes on here.
SEC("xdp")
int redirect_xdp(struct xdp_md *ctx)
{
	return redirect_packet(ctx, 0);
}

// For larger MTUs, and for the stack, which merges frames: one may span several buffers.
SEC("xdp.frags")
int flowyard_frags(struct xdp_md *ctx)
{
	if (picks)
		bpf_tail_call(ctx, &slots, PICK);
	return redirect_packet(ctx, 1);
}

SEC("xdp.frags")
int card_frags(struct xdp_md *ctx)
{
	return note_card(ctx, 0) ? redirect_packet(ctx, 1) : no_room(ctx);
}

SEC("xdp.frags")
int card_pick_frags(struct xdp_md *ctx)
{
	if (!note_card(ctx, 0))
		return no_room(ctx);
	bpf_tail_call(ctx, &slots, PICK);
	return redirect_packet(ctx, 1);
}

SEC("xdp.frags")
int redirect_frags(struct xdp_md *ctx)
{
	return redirect_packet(ctx, 1);
}

// The kernel's word for MIT, which is one of the licences of this file.
char _license[] SEC("license") = "Dual MIT/GPL";
