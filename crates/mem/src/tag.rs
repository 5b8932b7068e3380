//! The tag: the cache line that Flowyard fills in front of every packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offset value that says "there is none".
pub const NO_OFFSET: u16 = u16::MAX;

/// Which clock a time was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Clock {
    /// No time.
    #[default]
    None = 0,
    /// Nanoseconds since 1970-01-01 UTC, read by the kernel or by us (CLOCK_REALTIME).
    Realtime = 1,
    /// As recorded in a capture file, in nanoseconds since 1970-01-01 UTC.
    Recorded = 2,
    /// The network card's own clock, in nanoseconds: of its PTP clock, wherever that stands (`phc_ctl`, `ptp4l`).
    Hardware = 3,
    /// Made up by a generator: nanoseconds since its start.
    Generated = 4,
}

/// What was left undone to, or taken from, a packet before we got it. Bits of [`Tag::flags`].
pub mod flags {
    /// The layer-4 checksum is not yet filled in (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `TP_STATUS_CSUMNOTREADY`).
    pub const CHECKSUM_PARTIAL: u32 = 1 << 0;
    /// A card verified the checksum (`TP_STATUS_CSUM_VALID`).
    pub const CHECKSUM_VALID: u32 = 1 << 1;
    /// Several segments merged into one frame (GSO/GRO): longer than the MTU.
    pub const GSO: u32 = 1 << 2;
    /// The outermost VLAN tag was taken off; its value is in [`super::Tag::stripped_vlan`].
    pub const VLAN_STRIPPED: u32 = 1 << 3;
    /// The packet was cut to a snap length: fewer bytes than were on the wire.
    pub const TRUNCATED: u32 = 1 << 4;
    /// The time is the card's own.
    pub const HARDWARE_TIME: u32 = 1 << 5;
    /// [`super::Tag::card_hash`] holds the hash that the card computed.
    pub const CARD_HASH: u32 = 1 << 6;
    /// The packet goes by a fallback (addresses only), because its first fragment did not come in time.
    pub const FRAGMENT_FALLBACK: u32 = 1 << 7;
    /// Sent by this host rather than received (`PACKET_OUTGOING`).
    pub const OUTGOING: u32 = 1 << 8;
    /// The TPID of the stripped VLAN was 0x88a8 rather than 0x8100.
    pub const VLAN_SERVICE: u32 = 1 << 9;
}

/// 64 bytes in front of the headroom, written by the yard before a consumer sees the packet.
///
/// The first 32 bytes, the head, are what steering finds out (an XDP program can write them as
/// metadata); the rest is what the port knows. Offsets count from the packet's start *as received*
/// (buffer offset A+256), so they stay true when headers are pushed or pulled.
///
/// ```text
///  0 hash u32 | 4 ring u16 | 6 stop u8 | 7 depth u8 | 8 l3 | 10 inner l3 | 12 inner l4 | 14 protocol u8 | 15 kind u8
/// 16 tunnel id u32 | 20 tunnel kind u8 | 21 hash version u8 | 22 vlan u16 | 24 user u64
/// 32 time ns u64 | 40 flags u32 | 44 wire length u32 | 48 length u32 | 52 port u16 | 54 queue u16
/// 56 card hash u32 | 60 stripped vlan u16 | 62 link type u16
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Tag {
    /// Symmetric hash of the conversation.
    pub hash: u32,
    /// Ring of the yard-level decision.
    pub ring: u16,
    /// Why dissection ended: `flowyard_steer::Stop`, as a number.
    pub stop: u8,
    /// Number of IP headers passed.
    pub depth: u8,
    /// Offset of the outermost IP header, or [`NO_OFFSET`].
    pub outer_l3: u16,
    /// Offset of the innermost IP header, or [`NO_OFFSET`].
    pub inner_l3: u16,
    /// Offset of the innermost layer-4 header, or [`NO_OFFSET`].
    pub inner_l4: u16,
    /// Innermost IP protocol number (after extension headers).
    pub protocol: u8,
    /// Bits: 0–1 fragment (0 none, 1 first, 2 later), 2 zero, 3 innermost is IPv6,
    /// 4 is an ICMP error that quotes a packet, 6 and 7 never (a head from the kernel has 7 where user space is to decide,
    /// 6 where what the card knows lies before it).
    pub kind: u8,
    /// Identifier of the innermost tunnel (VNI, TEID, GRE key, session, label), host order; 0 without one.
    pub tunnel_id: u32,
    /// Kind of the innermost tunnel: `flowyard_steer::TunnelKind`, as a number; 0 none.
    pub tunnel_kind: u8,
    /// Version of the default hash that `hash` was made with; 0 Toeplitz or a user's own.
    pub hash_version: u8,
    /// Outermost VLAN's TCI, in the frame or stripped from it; 0 without one.
    pub vlan: u16,
    /// The user's own mark; 0 until a function of the user's writes it.
    pub user: u64,

    /// Nanoseconds, by the clock that [`Tag::clock`] names.
    pub time_ns: u64,
    /// Bits of [`flags`]; the top byte is the [`Clock`].
    pub flags: u32,
    /// Bytes that were on the wire.
    pub wire_len: u32,
    /// Bytes captured, over all segments.
    pub len: u32,
    /// Number of the port, in the order in which the yard opened them.
    pub port: u16,
    /// Hardware queue, or the interface number in a capture file.
    pub queue: u16,
    /// The card's hash, where `flags` says so; for a merged frame (GSO, which has none) payload bytes of each packet
    /// that it was made of, 0 where that is not known.
    pub card_hash: u32,
    /// TCI that hardware took off, where `flags` says so.
    pub stripped_vlan: u16,
    /// Pcap link type of the packet's first byte (Ethernet 1, raw 101 …), below 65536.
    pub link: u16,
}

const _: () = assert!(size_of::<Tag>() == crate::abi::TAG_BYTES);

impl Tag {
    /// From its words, as they lie in memory.
    #[inline]
    pub fn from_words(words: [u64; crate::abi::TAG_BYTES / 8]) -> Tag {
        zerocopy::transmute!(words)
    }

    /// Which clock `time_ns` is by; a number that this version does not know reads as none.
    pub fn clock(&self) -> Clock {
        match self.flags >> 24 {
            1 => Clock::Realtime,
            2 => Clock::Recorded,
            3 => Clock::Hardware,
            4 => Clock::Generated,
            _ => Clock::None,
        }
    }

    /// Sets the clock that `time_ns` is by.
    pub fn set_clock(&mut self, clock: Clock) {
        self.flags = self.flags & 0x00ff_ffff | (clock as u32) << 24;
    }

    /// Whether all of `bits` (of [`flags`]) are set.
    pub fn has(&self, bits: u32) -> bool {
        self.flags & bits == bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_shares_a_word_with_flags_and_disturbs_none() {
        for clock in [Clock::None, Clock::Realtime, Clock::Recorded, Clock::Hardware, Clock::Generated] {
            let mut tag = Tag { flags: flags::GSO | flags::VLAN_SERVICE, ..Tag::default() };
            tag.set_clock(Clock::Hardware);
            tag.set_clock(clock);
            assert_eq!(tag.clock(), clock);
            assert!(tag.has(flags::GSO | flags::VLAN_SERVICE) && !tag.has(flags::TRUNCATED));
        }
    }

    #[test]
    fn offsets_are_abi() {
        use std::mem::offset_of;
        let at = [
            (offset_of!(Tag, hash), 0),
            (offset_of!(Tag, ring), 4),
            (offset_of!(Tag, outer_l3), 8),
            (offset_of!(Tag, tunnel_id), 16),
            (offset_of!(Tag, user), 24),
            (offset_of!(Tag, time_ns), 32),
            (offset_of!(Tag, flags), 40),
            (offset_of!(Tag, port), 52),
            (offset_of!(Tag, card_hash), 56),
            (offset_of!(Tag, link), 62),
        ];
        for (found, frozen) in at {
            assert_eq!(found, frozen);
        }
    }
}
