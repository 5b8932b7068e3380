/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A user's program in the kernel: rings by VLAN, whatever the packets hold.
 *
 * It stands in the slot after steering. `vlans` says for each VLAN which ring, or to drop; the application
 * fills it, at any time. A VLAN of which it says nothing goes as Flowyard says. The packet's number within
 * its VLAN, counted for each processor, becomes the tag's user word.
 */
#include "flowyard.bpf.h"

/* What the application says of a VLAN. */
struct vlan {
	__u16 ring;
	__u8 known; /* 0: nothing */
	__u8 drop;
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct vlan);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

static __always_inline int by_vlan(struct xdp_md *ctx)
{
	struct flowyard_tag *tag = flowyard_tag(ctx);
	struct vlan *vlan;
	__u64 *number;
	__u32 id;

	if (!tag)
		return flowyard_go_on(ctx, FLOWYARD_DELIVER);
	id = tag->vlan & 0xfff;
	number = bpf_map_lookup_elem(&packets, &id);
	if (number)
		tag->user = ++*number;
	vlan = bpf_map_lookup_elem(&vlans, &id);
	if (vlan && vlan->known) {
		if (vlan->drop)
			return flowyard_verdict(ctx, XDP_DROP);
		flowyard_to_ring(tag, vlan->ring);
	}
	return flowyard_go_on(ctx, FLOWYARD_DELIVER);
}

FLOWYARD_PROGRAM(by_vlan)

char _license[] SEC("license") = "Dual MIT/GPL";
