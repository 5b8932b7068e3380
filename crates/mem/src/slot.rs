//! Slots: what a ring carries from the yard to a consumer and back. Never a pointer.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`Slot::flags`].
pub mod slot_flags {
    /// The packet goes on in the next slot.
    pub const MORE: u16 = 1 << 0;
    /// This slot continues the packet of the slot before it.
    pub const CONTINUES: u16 = 1 << 1;
    /// The packet was cut to a snap length: fewer bytes than were on the wire.
    pub const TRUNCATED: u16 = 1 << 2;
    /// The layer-4 checksum is not yet filled in.
    pub const CHECKSUM_PARTIAL: u16 = 1 << 3;
    /// Several segments merged into one frame: longer than the MTU.
    pub const GSO: u16 = 1 << 4;
    /// A VLAN tag was taken off; the tag has its value.
    pub const VLAN_STRIPPED: u16 = 1 << 5;
    /// Goes by addresses only, because the first fragment did not come in time.
    pub const FRAGMENT_FALLBACK: u16 = 1 << 6;
    /// Others hold the same buffer: who changes it copies it first.
    pub const SHARED: u16 = 1 << 7;
}

/// What the sender of a slot wants done with its buffer. Byte [`Slot::verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Yard to consumer: look at it. Consumer to yard: done with it, free it.
    Free = 0,
    /// Consumer to yard: send it out of port [`Slot::port`]. All slots of a packet say so, in order, with MORE and
    /// CONTINUES as they came; flags that tell of offloads stand for what is still undone.
    Transmit = 1,
}

/// One entry of a ring out: 32 bytes, of which the first 16 are also the entry of a ring back.
///
/// ```text
///  0 buffer u32 | 4 offset u16 | 6 len u16 | 8 hash u32 | 12 flags u16 | 14 verdict u8 | 15 port u8
/// 16 total u32  | 20 l3 u16 | 22 l4 u16    | 24 time ns u64
/// ```
///
/// What rides here and why: see ARCHITECTURE.md, "Slots".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Slot {
    /// Index of the buffer in its region.
    pub buffer: u32,
    /// Where in the buffer this segment starts.
    pub offset: u16,
    /// Bytes of this segment.
    pub len: u16,
    /// Symmetric hash of the conversation.
    pub hash: u32,
    /// Bits of [`slot_flags`].
    pub flags: u16,
    /// [`Verdict`], as a number.
    pub verdict: u8,
    /// Number of the port: where it came from, or where to send it.
    pub port: u8,
    /// Captured bytes of the packet, over all its segments.
    pub total: u32,
    /// Offset of the innermost IP header from the packet's start as received, or [`NO_OFFSET`](crate::NO_OFFSET).
    pub l3: u16,
    /// Offset of the innermost layer-4 header, or [`NO_OFFSET`](crate::NO_OFFSET).
    pub l4: u16,
    /// Nanoseconds, by the clock that the tag names.
    pub time_ns: u64,
}

/// Words of a slot of a ring out.
pub const SLOT_WORDS: usize = 4;
/// Words of a slot of a ring back.
pub const RETURN_WORDS: usize = 2;

const _: () = assert!(size_of::<Slot>() == SLOT_WORDS * 8);

impl Slot {
    /// As the words that a ring out carries.
    #[inline]
    pub fn to_words(self) -> [u64; SLOT_WORDS] {
        zerocopy::transmute!(self)
    }

    /// From the words that a ring out carried.
    #[inline]
    pub fn from_words(words: [u64; SLOT_WORDS]) -> Slot {
        zerocopy::transmute!(words)
    }

    /// The first half: what a ring back carries.
    #[inline]
    pub fn to_return(self) -> [u64; RETURN_WORDS] {
        let [a, b, ..] = self.to_words();
        [a, b]
    }

    /// From the first half; the rest is zero.
    #[inline]
    pub fn from_return([a, b]: [u64; RETURN_WORDS]) -> Slot {
        Slot::from_words([a, b, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_abi() {
        let slot = Slot {
            buffer: 0x0403_0201,
            offset: 0x0605,
            len: 0x0807,
            hash: 0x0c0b_0a09,
            flags: 0x0e0d,
            verdict: 0x0f,
            port: 0x10,
            total: 0x1413_1211,
            l3: 0x1615,
            l4: 0x1817,
            time_ns: 0x201f_1e1d_1c1b_1a19,
        };
        let expected: Vec<u8> = (1..=32).collect();
        assert_eq!(slot.as_bytes(), expected);
        assert_eq!(Slot::from_words(slot.to_words()), slot);
        let half = Slot::from_return(slot.to_return());
        assert_eq!((half.buffer, half.port, half.total), (slot.buffer, slot.port, 0));
    }
}
