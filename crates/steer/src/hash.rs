//! From a conversation to 32 bits: the default hash, version 1, or Toeplitz.
//!
//! # The default hash, version 1
//!
//! Computable wherever a 32×32→64-bit multiply is: Rust, C, eBPF. All words are 32 bits unsigned,
//! all products 64 bits; `^` is exclusive or, `rotl` rotates 64 bits to the left, `lo` and `hi` are
//! the halves of 64 bits.
//!
//! **Words.** The ends of the conversation are ordered as (address, port), the address first, as
//! numbers in network order. An IPv4 address is one word `a[0]`; an IPv6 address is four, `a[0]` the
//! first four bytes. A port that is not there is 0; the identifier of an ICMP query is both ports.
//!
//! ```text
//! ports = low.port << 16 | high.port
//! what  = protocol | kind << 8        kind: 4 IPv4, 6 IPv6, 2 hardware addresses, 1 link
//! ```
//!
//! Without IP, `a[0]` of an end is the first four bytes of its hardware address, `port` the last
//! two, and the protocol is 0. For a link, all is 0 but `low.a[0]` = the link type.
//!
//! **Keys.** `S = lo(seed)`, `T = hi(seed)`; `K[i] = C[i] ^ S` for even `i`, `C[i] ^ T` for odd, `C`
//! as in [`CONSTANTS`].
//!
//! **Mixing.** For `n` address words (4 for IPv6, else 1):
//!
//! ```text
//! x = (ports ^ K[0]) * (what ^ K[1])
//! for i in 0..n:  x = rotl(x, 23) ^ (low.a[i] ^ K[2 + 2i]) * (high.a[i] ^ K[3 + 2i])
//! if extra != 0:  x = rotl(x, 23) ^ (lo(extra) ^ K[10]) * (hi(extra) ^ K[11])
//! x = (lo(x) ^ K[12]) * (hi(x) ^ K[13])
//! x = (lo(x) ^ K[14]) * (hi(x) ^ K[15])
//! hash = lo(x) ^ hi(x)
//! ```
//!
//! `extra` is what the policy adds to the key: the outermost VLAN identifier plus 1 in the high
//! half (0: no tag, or a priority tag, whose identifier is 0), the virtual network in the low half; 0 by default. Further identifiers
//! ([`KeyId`]) are taken in first, in the order in which headers have them, starting from 0:
//!
//! ```text
//! extra = rotl(extra, 23) ^ ((value ^ C[0]) * (number ^ C[1]))      number: that of the `KeyId`
//! ```
//!
//! and VLAN and virtual network are then exclusive-ored on.
//!
//! # Quality
//!
//! χ² over 2^20 conversations of consecutive addresses and ports, as standard deviations from what a
//! random function gives (`cargo run -p flowyard-steer --release --example hash_quality`). Linear
//! hashes are too even on such input (below −3) or collapse (far above); neither is chance, and it is
//! the pattern of the addresses that decides which.
//!
//! | conversations | hash | 16 buckets | 64 | 4096 |
//! |---|---|---|---|---|
//! | 4096 clients × 256 ports, one server | default | −0.0 | +1.0 | −1.6 |
//! | | Toeplitz, Microsoft's key | −2.7 | −5.6 | −45 |
//! | | Toeplitz, symmetric key | −2.7 | −5.6 | +11541 |
//! | 1024 clients × 1024 servers, fixed ports | default | −0.9 | −0.1 | +0.6 |
//! | | Toeplitz, Microsoft's key | −2.7 | −5.6 | −45 |
//! | | Toeplitz, symmetric key | −2.7 | −5.6 | +34715 |
//! | IPv6, 1024 × 1024 last words | default | −0.4 | −0.5 | +1.5 |
//! | | Toeplitz, Microsoft's key | −2.7 | −5.6 | −45 |
//! | | Toeplitz, symmetric key | −2.7 | −5.6 | +34715 |
//!
//! # Vectors
//!
//! | conversation | seed | hash |
//! |---|---|---|
//! | 10.0.0.1:1000 – 192.168.7.9:2000, TCP | 0 | `0x4e1b_53a3` |
//! | 10.0.0.1:1000 – 192.168.7.9:2000, TCP | `FIXED_SEED` | `0x0adb_93ff` |
//! | [2001:db8::1]:1000 – [2001:db8::2]:2000, UDP | `FIXED_SEED` | `0x8ae8_e75c` |
//! | as the second, `extra` = (101 << 32) ^ 5000 | `FIXED_SEED` | `0xe595_dac6` |
//! | 02:00:00:00:00:01 – 02:00:00:00:00:02 | `FIXED_SEED` | `0x9eaa_b04e` |
//! | link type 147 | `FIXED_SEED` | `0x9a65_a864` |

use core::hint::select_unpredictable;

use crate::toeplitz::ToeplitzKey;
use crate::{Conversation, KeyId};

/// The version of the default hash: it changes when any output does.
pub const HASH_VERSION: u32 = 1;

/// The seed of `inspect`, `split` and clusters, where every run must agree.
pub const FIXED_SEED: u64 = 0x666c_6f77_7961_7264;

/// The constants `C` of the default hash: the first 512 bits of the fraction of π.
pub const CONSTANTS: [u32; 16] = [
    0x243f_6a88,
    0x85a3_08d3,
    0x1319_8a2e,
    0x0370_7344,
    0xa409_3822,
    0x299f_31d0,
    0x082e_fa98,
    0xec4e_6c89,
    0x4528_21e6,
    0x38d0_1377,
    0xbe54_66cf,
    0x34e9_0c6c,
    0xc0ac_29b7,
    0xc97c_50dd,
    0x3f84_d5b5,
    0xb547_0917,
];

/// How a conversation becomes 32 bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlowHash {
    /// The default hash with this seed.
    Default {
        /// Any 64 bits; random per yard, [`FIXED_SEED`] where runs must agree.
        seed: u64,
    },
    /// Toeplitz, to match a card. The ordered ends are hashed, so only a symmetric key agrees with
    /// a card in both directions.
    Toeplitz(ToeplitzKey),
}

impl Default for FlowHash {
    fn default() -> Self {
        FlowHash::Default { seed: FIXED_SEED }
    }
}

impl FlowHash {
    /// The hash of a conversation. 4 multiplies for IPv4 and 7 for IPv6 with the default hash;
    /// a table look-up per byte with Toeplitz.
    #[inline(always)]
    pub fn hash(&self, conversation: &Conversation) -> u32 {
        match self {
            FlowHash::Default { seed } => default_hash(*seed, conversation),
            // By value: a reference that escapes would keep the conversation in memory for both.
            FlowHash::Toeplitz(key) => toeplitz(key, *conversation),
        }
    }
}

#[inline(never)]
fn toeplitz(key: &ToeplitzKey, conversation: Conversation) -> u32 {
    key.hash_conversation(&conversation)
}

/// The default hash, version 1.
#[inline(always)]
pub fn default_hash(seed: u64, conversation: &Conversation) -> u32 {
    Keys::of(seed).hash(conversation)
}

/// Takes an identifier into `extra`. For each `id` another value gives another result.
#[cold]
#[inline(never)]
pub(crate) fn join(extra: u64, id: KeyId, value: u32) -> u64 {
    let product = u64::from(value ^ CONSTANTS[0]) * u64::from(id as u32 ^ CONSTANTS[1]);
    extra.rotate_left(23) ^ product
}

/// The keys `K` of the default hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys([u32; 16]);

impl Keys {
    /// Of this seed. Who hashes many conversations makes them once.
    #[inline(always)]
    pub(crate) fn of(seed: u64) -> Keys {
        let mut keys = CONSTANTS;
        for (at, key) in keys.iter_mut().enumerate() {
            *key ^= if at & 1 == 0 { seed as u32 } else { (seed >> 32) as u32 };
        }
        Keys(keys)
    }

    #[inline(always)]
    fn hash(&self, conversation: &Conversation) -> u32 {
        let ports = |low: u16, high: u16| u32::from(low) << 16 | u32::from(high);
        match *conversation {
            Conversation::V4 { low, high, proto, extra } => {
                let x = self.begin(ports(low.1, high.1), proto, 4);
                self.end(self.address(x, 0, low.0, high.0), extra)
            }
            Conversation::V6 { low, high, proto, extra } => {
                let x = self.begin(ports(low.1, high.1), proto, 6);
                self.end(self.addresses(x, low.0, high.0), extra)
            }
            Conversation::Mac { low, high, extra } => {
                let x = self.begin(ports(low as u16, high as u16), 0, 2);
                self.end(self.address(x, 0, (low >> 16) as u32, (high >> 16) as u32), extra)
            }
            Conversation::Link { link, extra } => {
                let x = self.begin(0, 0, 1);
                self.end(self.address(x, 0, link.into(), 0), extra)
            }
        }
    }

    /// The hash of the conversation between two IPv4 ends, given in any order, where nothing joins the key: `ports` that of
    /// `a` in the high half. The same as [`Conversation::v4`] has.
    #[inline(always)]
    pub(crate) fn between_v4(&self, a: u32, b: u32, ports: u32, proto: u8) -> u32 {
        let turned = ports.rotate_left(16);
        let ports = if a == b { ports.min(turned) } else { select_unpredictable(a < b, ports, turned) };
        let x = self.begin(ports, proto, 4);
        self.end(self.address(x, 0, a.min(b), a.max(b)), 0)
    }

    /// The same of IPv6 ends, each address as two halves.
    #[inline(always)]
    pub(crate) fn between_v6(&self, a: [u64; 2], b: [u64; 2], ports: u32, proto: u8) -> u32 {
        let number = |half: [u64; 2]| u128::from(half[0]) << 64 | u128::from(half[1]);
        let turned = ports.rotate_left(16);
        let (x, y) = (number(a), number(b));
        let ports = if x == y { ports.min(turned) } else { select_unpredictable(x < y, ports, turned) };
        // Exchanged by mask, as in `Conversation::v6`.
        let mask = 0u64.wrapping_sub((y < x).into());
        let turn = [(a[0] ^ b[0]) & mask, (a[1] ^ b[1]) & mask];
        let (low, high) = ([a[0] ^ turn[0], a[1] ^ turn[1]], [b[0] ^ turn[0], b[1] ^ turn[1]]);
        let x = self.begin(ports, proto, 6);
        self.end(self.addresses(x, low, high), 0)
    }

    /// The product of two words under keys `K[EVEN]` and `K[EVEN + 1]`.
    #[inline(always)]
    fn product(&self, even: usize, a: u32, b: u32) -> u64 {
        u64::from(a ^ self.0[even & 14]) * u64::from(b ^ self.0[even & 14 | 1])
    }

    #[inline(always)]
    fn begin(&self, ports: u32, proto: u8, kind: u32) -> u64 {
        self.product(0, ports, u32::from(proto) | kind << 8)
    }

    #[inline(always)]
    fn address(&self, x: u64, index: usize, low: u32, high: u32) -> u64 {
        x.rotate_left(23) ^ self.product(2 + 2 * index, low, high)
    }

    #[inline(always)]
    fn addresses(&self, x: u64, low: [u64; 2], high: [u64; 2]) -> u64 {
        let x = self.address(x, 0, (low[0] >> 32) as u32, (high[0] >> 32) as u32);
        let x = self.address(x, 1, low[0] as u32, high[0] as u32);
        let x = self.address(x, 2, (low[1] >> 32) as u32, (high[1] >> 32) as u32);
        self.address(x, 3, low[1] as u32, high[1] as u32)
    }

    #[inline(always)]
    fn end(&self, mut x: u64, extra: u64) -> u32 {
        if extra != 0 {
            x = x.rotate_left(23) ^ self.product(10, extra as u32, (extra >> 32) as u32);
        }
        x = self.product(12, x as u32, (x >> 32) as u32);
        x = self.product(14, x as u32, (x >> 32) as u32);
        x as u32 ^ (x >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a conversation between, the hash is the same; also where a host talks to itself, and only ports say who is who.
    #[test]
    fn ends_in_any_order_hash_as_their_conversation() {
        let keys = Keys::of(FIXED_SEED);
        let halves = [0, 1, 0xffff_ffff, 1 << 32, u64::MAX];
        for (sport, dport) in [(0u16, 0u16), (80, 80), (80, 5000), (5000, 80), (0xffff, 1)] {
            let ports = u32::from(sport) << 16 | u32::from(dport);
            for (a, b) in halves.into_iter().flat_map(|a| halves.map(|b| (a, b))) {
                let (x, y) = (a as u32, b as u32);
                let of_v4 = keys.hash(&Conversation::v4((x, sport), (y, dport), 6, 0));
                assert_eq!(keys.between_v4(x, y, ports, 6), of_v4, "{x} {y} {ports:x}");
                assert_eq!(keys.between_v4(y, x, ports.rotate_left(16), 6), of_v4);
                for (c, d) in [([7, a], [7, b]), ([a, 7], [b, 7]), ([a, b], [b, a])] {
                    let of_v6 = keys.hash(&Conversation::v6((c, sport), (d, dport), 17, 0));
                    assert_eq!(keys.between_v6(c, d, ports, 17), of_v6, "{c:x?} {d:x?} {ports:x}");
                    assert_eq!(keys.between_v6(d, c, ports.rotate_left(16), 17), of_v6);
                }
            }
        }
    }
}
