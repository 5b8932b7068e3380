/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The memory of where first fragments went: crates/steer/src/{fragment,fragment_table}.rs, in a map that
 * the processors share, and user space with them: it takes part where a packet was marked.
 *
 * Two processors at pieces of one datagram may count one of them late, never lose the datagram: an
 * identifier that is reused within the age may then be followed once too often. An entry that the map
 * gives to another datagram while it is being read is told by `check`: the packet is marked then.
 */
#ifndef FLOWYARD_FRAGMENT_H
#define FLOWYARD_FRAGMENT_H

#include "walk.h"

/* `FragmentTable::AGE_NS`. */
#define AGE_NS 30000000000ull

/* What identifies a datagram (RFC 791 section 3.2, RFC 8200 section 4.5). */
struct datagram {
	__be32 src[4], dst[4]; /* IPv4 in the first */
	__u32 id;
	__u8 family;
	__u8 proto; /* 0 for IPv6 */
	__u16 zero;
};

/* Which piece of it a packet is: offset in bytes, with its lowest bit set on the last piece, and length. */
struct piece {
	__u16 offset_last, len;
};

struct first {
	__u64 used_ns;
	__u64 seen_bytes;
	__u32 check;       /* of the datagram; before `hash`, so that it is written before */
	__u32 total_bytes; /* 0: its last piece has not gone by */
	__u32 hash;
	__u32 newest; /* a struct piece */
};

/* The loader may size it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct datagram);
	__type(value, struct first);
} firsts SEC(".maps");

/* The datagram whose IP header is at `l3` and whose fragment fields are at `frag`; false if not there. */
static __always_inline int read_datagram(struct xdp_md *ctx, __u32 l3, __u32 frag, struct datagram *of,
					 struct piece *piece)
{
	__u16 word, payload, before;
	__u8 *h, *f;
	int i;

	__builtin_memset(of, 0, sizeof(*of));
	if (l3 == frag) {
		h = bytes_at(ctx, l3, 20);
		if (!h)
			return 0;
		of->src[0] = *(__be32 *)(h + 12);
		of->dst[0] = *(__be32 *)(h + 16);
		of->id = be16(h + 4);
		of->family = 4;
		of->proto = h[9];
		word = be16(h + 6);
		payload = be16(h + 2);
		before = (h[0] & 15) * 4;
		piece->offset_last = (__u16)(word << 3) | !(word & 0x2000);
	} else {
		h = bytes_at(ctx, l3, 40);
		f = bytes_at(ctx, frag, 8);
		if (!h || !f)
			return 0;
		for (i = 0; i < 4; i++) {
			of->src[i] = *(__be32 *)(h + 8 + 4 * i);
			of->dst[i] = *(__be32 *)(h + 24 + 4 * i);
		}
		of->id = be32(f + 4);
		of->family = 6;
		word = be16(f + 2);
		payload = be16(h + 4);
		before = frag - l3 + 8 - 40;
		piece->offset_last = (word & 0xfff8) | !(word & 1);
	}
	piece->len = payload > before ? payload - before : 0;
	return 1;
}

/* A number that tells datagrams apart. */
static __always_inline __u32 check_of(const struct datagram *of)
{
	__u32 x = of->id ^ (of->family << 8 | of->proto);
	int i;

	for (i = 0; i < 4; i++) {
		x = (x << 5 | x >> 27) ^ bpf_ntohl(of->src[i]);
		x = (x << 5 | x >> 27) ^ bpf_ntohl(of->dst[i]);
	}
	return x;
}

/* The first fragment of the datagram at these places went by `hash`. */
__attribute__((noinline)) int learn(struct xdp_md *ctx, __u32 l3, __u32 frag, __u32 hash)
{
	struct first first = {};
	struct datagram of;
	struct piece piece;

	if (!read_datagram(ctx, l3, frag, &of, &piece))
		return 0;
	first.used_ns = bpf_ktime_get_ns();
	first.check = check_of(&of);
	first.hash = hash;
	first.seen_bytes = piece.len;
	first.newest = (__u32)piece.offset_last << 16 | piece.len;
	bpf_map_update_elem(&firsts, &of, &first, BPF_ANY);
	return 1;
}

/* Forgets it: user space decides about the first fragment. */
__attribute__((noinline)) int forget(struct xdp_md *ctx, __u32 l3, __u32 frag)
{
	struct datagram of;
	struct piece piece;

	if (read_datagram(ctx, l3, frag, &of, &piece))
		bpf_map_delete_elem(&firsts, &of);
	return 0;
}

/* Where the first fragment of the datagram at these places went; negative if that is not known. */
__attribute__((noinline)) __s64 recall(struct xdp_md *ctx, __u32 l3, __u32 frag)
{
	__u64 now = bpf_ktime_get_ns();
	struct first *first;
	struct datagram of;
	struct piece piece;
	__u32 newest, hash;

	if (!read_datagram(ctx, l3, frag, &of, &piece))
		return -1;
	first = bpf_map_lookup_elem(&firsts, &of);
	if (!first || (now > first->used_ns && now - first->used_ns > AGE_NS))
		return -1;
	newest = (__u32)piece.offset_last << 16 | piece.len;
	if (newest != first->newest) {
		/* All of it went by: this is a piece of another that reuses the identifier. */
		if (first->total_bytes && first->seen_bytes >= first->total_bytes)
			return -1;
		first->newest = newest;
		__sync_fetch_and_add(&first->seen_bytes, piece.len);
		if (piece.offset_last & 1)
			first->total_bytes = (piece.offset_last & 0xfff8) + piece.len;
	}
	first->used_ns = now;
	hash = *(volatile __u32 *)&first->hash;
	return *(volatile __u32 *)&first->check == check_of(&of) ? (__s64)hash : -1;
}

#endif
