/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The default hash, version 1: crates/steer/src/hash.rs describes it, conversation.rs orders the ends. */
#ifndef FLOWYARD_HASH_H
#define FLOWYARD_HASH_H

#include "walk.h"

#define HASH_VERSION 1

/* What the hash is seeded with; set by the loader. */
const volatile __u64 seed = 0;

/* The product of two words under keys K[i] = c ^ half of the seed. */
static __always_inline __u64 product(__u64 key, __u32 even, __u32 odd, __u32 a, __u32 b)
{
	return (__u64)(a ^ even ^ (__u32)key) * (__u64)(b ^ odd ^ (__u32)(key >> 32));
}

static __always_inline __u64 rotl(__u64 x)
{
	return x << 23 | x >> 41;
}

static __always_inline __u32 hash_end(__u64 key, __u64 x)
{
	x = product(key, 0xc0ac29b7, 0xc97c50dd, x, x >> 32);
	x = product(key, 0x3f84d5b5, 0xb5470917, x, x >> 32);
	return (__u32)x ^ (__u32)(x >> 32);
}

/* Of two ends with one address word each, as (address << 16 | port), given in any order; `what` as there. */
static __always_inline __u32 hash_short(__u64 a, __u64 b, __u32 what)
{
	__u64 key = seed, low = a < b ? a : b, high = a < b ? b : a, x;

	x = product(key, 0x243f6a88, 0x85a308d3, (__u32)low << 16 | (__u16)high, what);
	x = rotl(x) ^ product(key, 0x13198a2e, 0x03707344, low >> 16, high >> 16);
	return hash_end(key, x);
}

static __always_inline __u64 be64(const __u8 *at)
{
	return (__u64)be32(at) << 32 | be32(at + 4);
}

/* Of two IPv6 ends: both addresses as they are in the header. */
static __always_inline __u32 hash_v6(const __u8 *addresses, __u16 sport, __u16 dport, __u32 what)
{
	__u64 a0 = be64(addresses), a1 = be64(addresses + 8), b0 = be64(addresses + 16), b1 = be64(addresses + 24);
	__u64 key = seed, x;

	if (b0 < a0 || (b0 == a0 && (b1 < a1 || (b1 == a1 && dport < sport)))) {
		__u64 t0 = a0, t1 = a1;
		__u16 port = sport;

		a0 = b0; a1 = b1; sport = dport;
		b0 = t0; b1 = t1; dport = port;
	}
	x = product(key, 0x243f6a88, 0x85a308d3, (__u32)sport << 16 | dport, what);
	x = rotl(x) ^ product(key, 0x13198a2e, 0x03707344, a0 >> 32, b0 >> 32);
	x = rotl(x) ^ product(key, 0xa4093822, 0x299f31d0, a0, b0);
	x = rotl(x) ^ product(key, 0x082efa98, 0xec4e6c89, a1 >> 32, b1 >> 32);
	x = rotl(x) ^ product(key, 0x452821e6, 0x38d01377, a1, b1);
	return hash_end(key, x);
}

#endif
