// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Steering inside the kernel: the built-in policy of crates/steer, from the packet to one AF_XDP socket
// for each (queue, ring).
//
//   walk.h      where a walk stands, what it found, what steps do
//   link.h tags.h ip.h tunnel.h   one step a protocol
//   fragment.h  where first fragments went
//   hash.h      the default hash, version 1
//   card.h      what the card knows of a packet
//   flowyard.bpf.h  what a user's program shares with this one
//
// Three programs follow one another by tail calls: `root` is what sits on the interface, `steer` fills the
// tag head, `deliver` chooses the socket. A user's program may stand before `steer` and before `deliver`;
// where none stands, `steer` delivers by itself. In the place of `root` may stand `root_card`, which asks the card
// first what it knows of the packet, and is bound to its device for that; it is in no array of programs, and goes on to
// the same ones.
//
// Every answer is that of user space, or none: what could differ is marked, with a reason, and goes to the
// socket behind those of the rings, where user space decides.

#include "tags.h"
#include "tunnel.h"
#include "fragment.h"
#include "hash.h"
#include "card.h"

#define BUCKETS 4096
// Bytes from where a walk ends that its last step may have looked at and missed: an IPv6 header, with room.
#define LOOKAHEAD 64

// Sockets of each queue: one for each ring, and one more for what is marked.
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

// Bucket to ring, as crates/steer/src/table.rs: one entry, so that a new table comes by one call.
struct table {
	__u16 ring[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct table);
} table SEC(".maps");

// Rings; set by the loader.
const volatile __u32 rings = 1;
// What happens to packets for which there is no socket: an action of XDP. Set by the loader.
const volatile __u32 fallback = XDP_PASS;
// Most bytes of a frame that a socket without several buffers takes. Set by the loader.
const volatile __u32 longest_bytes = 0xffffffff;

// Reads one header.
static __always_inline int step(struct xdp_md *ctx, struct walk *w, int layer)
{
	switch (layer) {
	case ETH: return step_eth(ctx, w);
	case VLAN: return step_vlan(ctx, w);
	case LLC: return step_llc(ctx, w);
	case MPLS: return step_mpls(ctx, w);
	case CONTROL_WORD: return step_control_word(w);
	case PPPOE: return step_pppoe(ctx, w);
	case PPP: return step_ppp(ctx, w);
	case MACSEC: return step_macsec(ctx, w);
	case CISCO_METADATA: return step_cisco_metadata(ctx, w);
	case VN_TAG: case E_TAG: case BACKBONE: case FABRIC_PATH: return step_tag(ctx, w, layer);
	case IPV4: return step_ipv4(ctx, w);
	case IPV6: return step_ipv6(ctx, w);
	case EXTENSION: return step_extension(ctx, w);
	case AH: return step_ah(ctx, w);
	case FRAGMENT6: return step_fragment6(ctx, w);
	case TCP: return step_tcp(ctx, w);
	case UDP: return step_udp(ctx, w);
	case PORTS: return step_ports(ctx, w);
	case ICMP: return step_icmp(ctx, w);
	case ICMPV6: return step_icmpv6(ctx, w);
	case ESP: return step_esp(ctx, w);
	case GRE: return step_gre(ctx, w);
	case ERSPAN: return step_erspan(ctx, w);
	case ETHER_IP: return step_ether_ip(ctx, w);
	case GTP: return step_gtp(ctx, w);
	case VXLAN: return step_vxlan(ctx, w);
	case GENEVE: return step_geneve(ctx, w);
	case L2TP: return step_l2tp(ctx, w);
	case UDP_ENCAP: return step_udp_encap(ctx, w);
	case WIREGUARD: return step_wireguard(ctx, w);
	default: return MARK(FLOWYARD_MARK_PROTOCOL);
	}
}

// Headers from the outside in, until there is a reason to stop.
static __always_inline int walk_down(struct xdp_md *ctx, struct walk *w)
{
	int next = ETH, i;

#pragma clang loop unroll(disable)
	for (i = 0; i < MAX_STEPS; i++) {
		next = step(ctx, w, next);
		if (w->at > FARTHEST)
			return MARK(FLOWYARD_MARK_OFFSET);
		if (IS_STOP(next) || IS_MARK(next))
			return next;
	}
	return MARK(FLOWYARD_MARK_STEPS);
}

// The hash of the conversation, as crates/steer/src/conversation.rs makes it of what the walk found;
// negative if its bytes are not there.
static __always_inline __s64 hash_of(struct xdp_md *ctx, const struct level *key, int by_addresses)
{
	__u16 sport = by_addresses ? 0 : key->sport, dport = by_addresses ? 0 : key->dport;
	__u8 *h;

	switch (key->family) {
	case 4:
		h = bytes_at(ctx, key->l3, 20);
		if (h)
			return hash_short((__u64)be32(h + 12) << 16 | sport, (__u64)be32(h + 16) << 16 | dport,
					  key->proto | 4 << 8);
		break;
	case 6:
		h = bytes_at(ctx, key->l3, 40);
		if (h)
			return hash_v6(h + 8, sport, dport, key->proto | 6 << 8);
		break;
	default:
		h = bytes_at(ctx, 0, 14);
		if (h)
			return hash_short((__u64)be32(h + 6) << 16 | be16(h + 10), (__u64)be32(h) << 16 | be16(h + 4),
					  2 << 8);
	}
	return -1;
}

// What the walk came to: fills all of `tag` but `user`. Never reads bytes that are not there.
static __always_inline void conclude(struct xdp_md *ctx, struct walk *w, int end, struct flowyard_tag *tag)
{
	const struct level *flow = &w->level[0], *key = flow;
	int quotes = w->quoting && w->level[1].family, by_addresses, i;
	__u32 linear = ctx->data_end - ctx->data;
	struct table *rings_of;
	__u32 zero = 0;
	__s64 hash = -1;

	if (w->several && (end == STOP(TRUNCATED) || w->at + LOOKAHEAD > linear))
		end = MARK(FLOWYARD_MARK_SEVERAL);
	if (quotes)
		key = &w->level[1];
	by_addresses = key->peers == PEERS_ALWAYS || (key->peers == PEERS_TUNNEL && end != STOP(NOT_TUNNEL));
	if (!IS_MARK(end)) {
		if (key->fragment == LATER) {
			hash = recall(ctx, key->l3, key->frag);
			if (hash < 0)
				end = MARK(FLOWYARD_MARK_FIRST);
		} else {
			hash = hash_of(ctx, key, by_addresses);
			if (hash < 0)
				end = MARK(FLOWYARD_MARK_OFFSET);
		}
	}
#pragma clang loop unroll(disable)
	for (i = 0; i < MAX_FIRSTS; i++) {
		__u32 l3 = w->first[i].l3, frag = w->first[i].frag;

		if (i >= w->firsts)
			break;
		if (!IS_MARK(end))
			learn(ctx, l3, frag, hash);
		else if (end != MARK(FLOWYARD_MARK_FIRST))
			forget(ctx, l3, frag); // it goes by what user space decides, and so do those that follow it
	}
	rings_of = bpf_map_lookup_elem(&table, &zero);
	*tag = (struct flowyard_tag){
		.hash = IS_MARK(end) ? 0 : hash,
		.ring = rings_of && !IS_MARK(end) ? rings_of->ring[(__u32)hash & (BUCKETS - 1)] : 0,
		.stop = IS_STOP(end) && w->quoting ? QUOTED : end & 0xff,
		.depth = w->depth,
		.outer_l3 = flow->family ? w->outer_l3 : NO_OFFSET,
		.inner_l3 = flow->family ? flow->l3 : NO_OFFSET,
		.inner_l4 = flow->family ? flow->l4 : NO_OFFSET,
		.protocol = flow->proto,
		.kind = flow->fragment | (flow->family == 6) << 3 | !!quotes << 4 | (IS_MARK(end) ? FLOWYARD_MARKED : 0),
		.tunnel_id = w->tunnel_id,
		.tunnel_kind = w->tunnel_kind,
		.hash_version = HASH_VERSION,
		.vlan = w->vlan,
	};
}

// Hands the packet to the socket of its ring, or to that for marked ones.
static __always_inline int hand_over(struct xdp_md *ctx, const struct flowyard_tag *tag, int several,
				     struct flowyard_counts *counts)
{
	__u32 place = ctx->rx_queue_index * (rings + 1);
	long action;

	if (flowyard_is_marked(tag)) {
		place += rings;
		counts->of[FLOWYARD_MARKED_BY + (tag->stop & 7)]++;
	} else if (tag->ring < rings) {
		place += tag->ring;
	} else {
		place = 0xffffffff; // the user's program chose a ring that there is not
	}
	action = bpf_redirect_map(&sockets, place, fallback);
	if (action != XDP_REDIRECT) {
		counts->of[FLOWYARD_PASSED]++;
	} else if (!several && ctx->data_end - ctx->data > longest_bytes) {
		counts->of[FLOWYARD_TOO_LONG]++;
		action = XDP_DROP;
	} else {
		counts->of[FLOWYARD_REDIRECTED]++;
	}
	return action;
}

static __always_inline int root(struct xdp_md *ctx)
{
	flowyard_count(ctx, FLOWYARD_SEEN);
	bpf_tail_call(ctx, &flowyard_slots, FLOWYARD_HOST);
	bpf_tail_call(ctx, &flowyard_slots, FLOWYARD_BEFORE);
	bpf_tail_call(ctx, &flowyard_slots, FLOWYARD_STEER);
	// The kernel empties the slots when their owner goes.
	flowyard_count(ctx, FLOWYARD_UNSERVED);
	return fallback;
}

// The same, with what the card tells before a head that is zero. Where there is no room for both, without.
static __always_inline int root_card(struct xdp_md *ctx)
{
	note_card(ctx, sizeof(struct flowyard_tag));
	return root(ctx);
}

// The bit of `kind` that says whether what the card tells lies before the head.
static __always_inline __u8 card_bit(struct xdp_md *ctx)
{
	return card && flowyard_card(ctx) ? FLOWYARD_CARD : 0;
}

static __always_inline int steer(struct xdp_md *ctx, int several)
{
	struct flowyard_card *told = card ? flowyard_card(ctx) : (void *)0;
	struct flowyard_counts *counts = flowyard_counted(ctx);
	struct walk w = { .headers_left = MAX_DEPTH };
	struct flowyard_tag found, *tag;
	__u64 user = 0;

	if (!counts)
		return fallback; // a queue beyond those that the interface had when this was loaded
	counts->of[FLOWYARD_STEERED]++;
	w.end = ctx->data_end - ctx->data;
	if (several)
		w.several = bpf_xdp_get_buff_len(ctx) > w.end;
	if (told && told->flags & FLOWYARD_CARD_VLAN) { // the outermost tag, though it is not in the frame
		w.has_vlan = 1;
		w.vlan = told->vlan;
	}
	conclude(ctx, &w, walk_down(ctx, &w), &found);

	// Room for the head, unless the user's program has made it.
	tag = flowyard_tag(ctx);
	if (tag)
		user = tag->user;
	else if (!(tag = flowyard_make_tag(ctx))) {
		counts->of[FLOWYARD_NO_ROOM]++;
		return fallback;
	}
	found.user = user;
	found.kind |= card_bit(ctx);
	*tag = found;

	bpf_tail_call(ctx, &flowyard_slots, FLOWYARD_AFTER);
	counts->of[FLOWYARD_STRAIGHT]++;
	return hand_over(ctx, &found, several, counts);
}

static __always_inline int deliver(struct xdp_md *ctx, int several)
{
	struct flowyard_counts *counts = flowyard_counted(ctx);
	struct flowyard_tag *tag = flowyard_tag(ctx), copy;

	if (!counts)
		return fallback;
	counts->of[FLOWYARD_RETURNED]++;
	if (!tag) {
		counts->of[FLOWYARD_PASSED]++; // the user's program took the head away
		return fallback;
	}
	if (card) // the user's program may have made another head
		tag->kind = (tag->kind & ~FLOWYARD_CARD) | card_bit(ctx);
	copy = *tag;
	return hand_over(ctx, &copy, several, counts);
}

// For drivers whose frames fit in one buffer.
SEC("xdp") int root_one(struct xdp_md *ctx) { return root(ctx); }
SEC("xdp") int root_card_one(struct xdp_md *ctx) { return root_card(ctx); }
SEC("xdp") int steer_one(struct xdp_md *ctx) { return steer(ctx, 0); }
SEC("xdp") int deliver_one(struct xdp_md *ctx) { return deliver(ctx, 0); }

// For larger MTUs, and for the stack, which merges frames: one may span several buffers.
SEC("xdp.frags") int root_several(struct xdp_md *ctx) { return root(ctx); }
SEC("xdp.frags") int root_card_several(struct xdp_md *ctx) { return root_card(ctx); }
SEC("xdp.frags") int steer_several(struct xdp_md *ctx) { return steer(ctx, 1); }
SEC("xdp.frags") int deliver_several(struct xdp_md *ctx) { return deliver(ctx, 1); }

// The kernel's word for MIT, which is one of the licences of this file.
char _license[] SEC("license") = "Dual MIT/GPL";
