/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The way down, as crates/steer/src/walk.rs goes it: where a walk stands, what it has found, and what
 * its steps do. Field for field and stop for stop the same, for the default policy; what could come out
 * differently is a MARK and never an answer.
 *
 * Steps are global functions: the verifier judges each of them once, for any walk whatever, and the loop
 * that calls them costs it nothing more, however deep it goes. That is why each takes care that offsets
 * are in bounds, though the walk before it did.
 */
#ifndef FLOWYARD_WALK_H
#define FLOWYARD_WALK_H

#include "flowyard.bpf.h"
#include <bpf/bpf_endian.h>

/* What a step returns: a layer, STOP(why), or MARK(why). */
#define STOP(why) (0x100 | (why))
#define MARK(why) (0x200 | (why))
#define IS_STOP(step) ((step) & 0x100)
#define IS_MARK(step) ((step) & 0x200)

/* One global function a protocol. */
#define STEP __attribute__((noinline)) int

/* Headers that start farther into the packet are not read. The verifier wants it below 65535 less the
 * longest header. */
#define FARTHEST 0x3fff

/* `flowyard_steer::Policy`'s default. */
#define MAX_DEPTH 8
/* Fewer than the policy allows: packets with more are marked. */
#define MAX_STEPS 48
/* `flowyard_steer::dissection::MAX_FIRSTS`. */
#define MAX_FIRSTS 4

#define NO_OFFSET 0xffff

/* `flowyard_steer::Stop`, those that can come out here. */
enum stop {
	TRANSPORT = 0,
	LATER_FRAGMENT = 1,
	ICMP_END = 2,
	QUOTED = 3,
	TRUNCATED = 4,
	MALFORMED = 5,
	DEPTH = 6,
	ENCRYPTED = 8,
	COMPRESSED = 9,
	UNKNOWN_ETHERTYPE = 10,
	UNKNOWN_PROTOCOL = 11,
	CONTROL = 13,
	NOT_IP = 14,
	MULTILINK = 15,
	OPAQUE = 16,
	NO_NEXT_HEADER = 19,
	NOT_TUNNEL = 20,
};

/* What comes next. */
enum layer {
	ETH, VLAN, LLC, MPLS, CONTROL_WORD, PPPOE, PPP,
	MACSEC, CISCO_METADATA, VN_TAG, E_TAG, BACKBONE, FABRIC_PATH,
	IPV4, IPV6, EXTENSION, AH, FRAGMENT6, TCP, UDP, PORTS, ICMP, ICMPV6, ESP,
	GRE, ERSPAN, ETHER_IP, GTP, VXLAN, GENEVE, L2TP, UDP_ENCAP, WIREGUARD,
};

/* `flowyard_steer::TunnelKind`. */
enum tunnel {
	TUNNEL_GRE = 2,
	TUNNEL_PPTP = 3,
	TUNNEL_GTP = 4,
	TUNNEL_VXLAN = 5,
	TUNNEL_PPPOE = 6,
	TUNNEL_MPLS = 7,
	TUNNEL_GENEVE = 8,
	TUNNEL_L2TP = 9,
	TUNNEL_OTHER = 10,
};

enum fragment { WHOLE = 0, FIRST = 1, LATER = 2 };

/* Whether a key goes without its ports: never, if the tunnel behind them is one, always. */
enum peers { PEERS_NO = 0, PEERS_TUNNEL = 1, PEERS_ALWAYS = 2 };

/* One IP header on the way down and what belongs to it. */
struct level {
	__u16 l3, l4;
	__u16 frag; /* where the fragment fields are */
	__u16 sport, dport;
	__u8 family; /* 4, 6, or 0 for none */
	__u8 proto;
	__u8 fragment;
	__u8 peers;
};

struct walk {
	__u32 at;  /* where the header being read starts */
	__u32 end; /* where what its carrier carries ends */
	__u32 tunnel_id;
	__u16 outer_l3;
	__u16 vlan;
	struct level level[2]; /* the innermost flow; what an ICMP error quotes */
	struct {
		__u16 l3, frag;
	} first[MAX_FIRSTS]; /* first fragments passed on the way */
	__u8 firsts;
	__u8 depth;
	__u8 headers_left;
	__u8 quoting;
	__u8 has_vlan;
	__u8 tunnel_kind;
	__u8 several; /* the frame goes on in other buffers */
	__u8 unused;
};

static __always_inline __u16 be16(const __u8 *at)
{
	return bpf_ntohs(*(const __be16 *)at);
}

static __always_inline __u32 be32(const __u8 *at)
{
	return bpf_ntohl(*(const __be32 *)at);
}

/* `len` bytes of the packet from offset `at`; NULL if they are not there. */
static __always_inline __u8 *bytes_at(struct xdp_md *ctx, __u32 at, __u32 len)
{
	__u8 *packet = (void *)(long)ctx->data;
	__u8 *end = (void *)(long)ctx->data_end;

	if (at > FARTHEST)
		return 0;
	/* The bound again, in the register that is added: the compiler may have compared another. */
	asm volatile("" : "+r"(at));
	packet += at & FARTHEST;
	return packet + len > end ? 0 : packet;
}

/* The first `len` bytes of the header being read; NULL if fewer are left. A walk that stands too far is
 * marked by whoever called the step. */
static __always_inline __u8 *header(struct xdp_md *ctx, const struct walk *w, __u32 len)
{
	__u32 at = w->at;

	return at + len > w->end ? 0 : bytes_at(ctx, at, len);
}

/* Moves on. False if fewer bytes are left. */
static __always_inline int skip(struct walk *w, __u32 len)
{
	if (w->at + len > w->end)
		return 0;
	w->at += len;
	return 1;
}

/* Forgets what lies beyond `len` bytes from here: padding, trailers. */
static __always_inline void clip(struct walk *w, __u32 len)
{
	if (w->at + len < w->end)
		w->end = w->at + len;
}

static __always_inline struct level *level(struct walk *w)
{
	return &w->level[w->quoting & 1];
}

static __always_inline void tunnel(struct walk *w, __u8 kind, __u32 id)
{
	w->tunnel_kind = kind;
	w->tunnel_id = id;
}

/* Enters an IP header. False if there were too many. */
static __always_inline int enter(struct walk *w, __u8 family, __u8 proto)
{
	struct level *l = level(w);

	if (!w->headers_left)
		return 0;
	w->headers_left--;
	if (!w->quoting) {
		if (!w->depth)
			w->outer_l3 = w->at;
		w->depth++;
	}
	*l = (struct level){ .l3 = w->at, .family = family, .proto = proto };
	return 1;
}

/* The upper layer of this level is `proto` and starts here. */
static __always_inline void upper(struct walk *w, __u8 proto)
{
	struct level *l = level(w);

	l->proto = proto;
	l->l4 = w->at;
}

static __always_inline void ports(struct walk *w, __u16 sport, __u16 dport)
{
	struct level *l = level(w);

	l->sport = sport;
	l->dport = dport;
}

/* This level is a fragment, described at `frag`. False if dissection ends with it. */
static __always_inline int fragment(struct walk *w, __u32 frag, int later)
{
	struct level *l = level(w);

	l->frag = frag;
	l->fragment = later ? LATER : FIRST;
	if (later)
		return 0;
	if (!w->quoting && w->firsts < MAX_FIRSTS) {
		__u32 place = w->firsts & (MAX_FIRSTS - 1);

		w->first[place].l3 = l->l3;
		w->first[place].frag = frag;
		w->firsts++;
	}
	return 1;
}

#endif
