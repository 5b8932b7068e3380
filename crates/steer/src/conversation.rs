//! What is hashed: both directions of an exchange under one value.
//!
//! The ends are ordered as (address, port) pairs, compared as numbers, address first. Sorting
//! addresses and ports each for themselves would merge different flows.

use crate::dissection::{Dissection, Family, Level};
use crate::wire::{eth, ipv4, ipv6};

/// A conversation: what both directions of an exchange have in common.
///
/// `Copy`, `Eq`, `Hash` and `Ord`, so it can be the key of a set. `extra` holds what the policy
/// adds to the key, 0 by default.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Conversation {
    /// Two IPv4 ends.
    V4 {
        /// The lower (address, port), in host order.
        low: (u32, u16),
        /// The higher (address, port), in host order.
        high: (u32, u16),
        /// Upper-layer protocol.
        proto: u8,
        /// What the policy adds.
        extra: u64,
    },
    /// Two IPv6 ends.
    V6 {
        /// The lower (address, port): the address as two 64-bit halves in host order.
        low: ([u64; 2], u16),
        /// The higher (address, port).
        high: ([u64; 2], u16),
        /// Upper-layer protocol.
        proto: u8,
        /// What the policy adds.
        extra: u64,
    },
    /// No IP: two hardware addresses.
    Mac {
        /// The lower address, 48 bits.
        low: u64,
        /// The higher address, 48 bits.
        high: u64,
        /// What the policy adds.
        extra: u64,
    },
    /// Neither IP nor hardware addresses: everything of a link type stays together.
    Link {
        /// The link type.
        link: u16,
        /// What the policy adds.
        extra: u64,
    },
}

impl Conversation {
    #[inline(always)]
    pub(crate) fn of(dissection: &Dissection, bytes: &[u8]) -> Conversation {
        let extra = dissection.extra;
        if let Some(conversation) = Conversation::of_level(dissection.key(), bytes, extra) {
            return conversation;
        }
        Conversation::without_ip(dissection, bytes)
    }

    /// The conversation of one IP header; `None` without one.
    #[inline(always)]
    pub(crate) fn of_level(level: &Level, bytes: &[u8], extra: u64) -> Option<Conversation> {
        match level.family {
            Family::V4 => Conversation::of_v4(level, bytes, extra),
            Family::V6 => Conversation::of_v6(level, bytes, extra),
            Family::None => None,
        }
    }

    /// The conversation of a header that is known to be IPv6; `None` if the bytes are others.
    #[inline(always)]
    pub(crate) fn of_v6(level: &Level, bytes: &[u8], extra: u64) -> Option<Conversation> {
        let header = bytes.get(level.l3.into()..)?;
        let both = header.get(ipv6::ADDRESSES)?.first_chunk()?;
        Some(Conversation::between_v6(both, (level.sport, level.dport), level.proto, extra))
    }

    /// The conversation of a header that is known to be IPv4; `None` if the bytes are others.
    #[inline(always)]
    pub(crate) fn of_v4(level: &Level, bytes: &[u8], extra: u64) -> Option<Conversation> {
        let header = bytes.get(level.l3.into()..)?;
        let both = header.get(ipv4::ADDRESSES)?.first_chunk()?;
        Some(Conversation::between_v4(both, (level.sport, level.dport), level.proto, extra))
    }

    /// The conversation of the addresses of an IPv4 header, source before destination, and of its ports: both 0 where
    /// there are none.
    #[inline(always)]
    pub(crate) fn between_v4(both: &[u8; 8], ports: (u16, u16), proto: u8, extra: u64) -> Conversation {
        let both = u64::from_be_bytes(*both);
        let (src, dst) = ((both >> 32) as u32, both as u32);
        Conversation::v4((src, ports.0), (dst, ports.1), proto, extra)
    }

    /// The same of an IPv6 header.
    #[inline(always)]
    pub(crate) fn between_v6(both: &[u8; 32], ports: (u16, u16), proto: u8, extra: u64) -> Conversation {
        let word = |at: usize| {
            let bytes = both.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        let (src, dst) = ([word(0), word(8)], [word(16), word(24)]);
        Conversation::v6((src, ports.0), (dst, ports.1), proto, extra)
    }

    /// The conversation of two IPv4 ends, given in any order.
    #[inline(always)]
    pub fn v4(a: (u32, u16), b: (u32, u16), proto: u8, extra: u64) -> Conversation {
        let pack = |(address, port): (u32, u16)| u64::from(address) << 16 | u64::from(port);
        let unpack = |end: u64| ((end >> 16) as u32, end as u16);
        let (a, b) = (pack(a), pack(b));
        Conversation::V4 { low: unpack(a.min(b)), high: unpack(a.max(b)), proto, extra }
    }

    /// The conversation of two IPv6 ends, given in any order.
    #[inline(always)]
    pub fn v6(a: ([u64; 2], u16), b: ([u64; 2], u16), proto: u8, extra: u64) -> Conversation {
        let number = |half: [u64; 2]| u128::from(half[0]) << 64 | u128::from(half[1]);
        let (x, y) = (number(a.0), number(b.0));
        // Exchanged by mask: which end is lower is as random as addresses are, so a branch would be
        // foretold wrongly every other time.
        let exchange = (y < x) | ((x == y) & (b.1 < a.1));
        let mask = 0u64.wrapping_sub(exchange.into());
        let turn = |i: usize| (a.0[i] ^ b.0[i]) & mask;
        let (first, second, ports) = (turn(0), turn(1), (a.1 ^ b.1) & mask as u16);
        Conversation::V6 {
            low: ([a.0[0] ^ first, a.0[1] ^ second], a.1 ^ ports),
            high: ([b.0[0] ^ first, b.0[1] ^ second], b.1 ^ ports),
            proto,
            extra,
        }
    }

    /// The conversation of two hardware addresses (48 bits each), given in any order.
    pub fn mac(a: u64, b: u64, extra: u64) -> Conversation {
        Conversation::Mac { low: a.min(b), high: a.max(b), extra }
    }

    #[cold]
    fn without_ip(dissection: &Dissection, bytes: &[u8]) -> Conversation {
        let extra = dissection.extra;
        let link = Conversation::Link { link: dissection.link.0, extra };
        if !dissection.has_mac {
            return link;
        }
        let header = bytes.get(dissection.mac.into()..).unwrap_or(&[]);
        let address = |field: eth::Field| {
            let bytes = header.get(field)?;
            Some(bytes.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
        };
        match (address(eth::DST), address(eth::SRC)) {
            (Some(dst), Some(src)) => Conversation::mac(src, dst, extra),
            _ => link,
        }
    }
}
