//! What a steering function says of a packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Where the built-in policy would put it, or the next function of a chain.
    #[default]
    BuiltIn,
    /// By this hash through the table: conversations that share it stay together.
    Hash(u32),
    /// To this ring.
    Ring(u16),
    /// Nowhere; counted as `verdict`.
    Drop,
    /// Nowhere, and neither the rest of its conversation, both directions, for this many milliseconds of
    /// packet time; counted as `shunted`. The function does not see these packets.
    Shunt {
        /// How long.
        milliseconds: u32,
    },
    /// To every ring. The buffer is shared, not copied.
    EveryRing,
    /// To the host's network stack, where the yard has a way to it; counted as `host`.
    Host,
}

/// A verdict and what to do to the packet, as plug-ins write it: 16 bytes. Anything may stand here; it
/// is checked when it is carried out.
///
/// ```text
/// 0 kind u8 | 1 zero u8 | 2 ring u16 | 4 value u32 (hash, or milliseconds) | 8 slice u32 | 12 pull u16 | 14 zero u16
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawVerdict {
    /// Which verdict: [`RawVerdict::BUILT_IN`] and so on.
    pub kind: u8,
    /// Zero.
    pub zero: u8,
    /// The ring, for [`RawVerdict::RING`].
    pub ring: u16,
    /// The hash, for [`RawVerdict::HASH`]; milliseconds, for [`RawVerdict::SHUNT`].
    pub value: u32,
    /// Bytes to keep of the packet, from its start after `pull`; 0 for all.
    pub slice: u32,
    /// Bytes to take off the packet's start.
    pub pull: u16,
    /// Zero.
    pub zero2: u16,
}

const _: () = assert!(size_of::<RawVerdict>() == 16);

impl RawVerdict {
    /// [`Verdict::BuiltIn`].
    pub const BUILT_IN: u8 = 0;
    /// [`Verdict::Hash`].
    pub const HASH: u8 = 1;
    /// [`Verdict::Ring`].
    pub const RING: u8 = 2;
    /// [`Verdict::Drop`].
    pub const DROP: u8 = 3;
    /// [`Verdict::Shunt`].
    pub const SHUNT: u8 = 4;
    /// [`Verdict::EveryRing`].
    pub const EVERY_RING: u8 = 5;
    /// [`Verdict::Host`].
    pub const HOST: u8 = 6;

    /// Sets where the packet goes, and leaves `slice` and `pull` as they are.
    #[inline]
    pub fn set(&mut self, verdict: Verdict) {
        let (kind, ring, value) = match verdict {
            Verdict::BuiltIn => (Self::BUILT_IN, 0, 0),
            Verdict::Hash(hash) => (Self::HASH, 0, hash),
            Verdict::Ring(ring) => (Self::RING, ring, 0),
            Verdict::Drop => (Self::DROP, 0, 0),
            Verdict::Shunt { milliseconds } => (Self::SHUNT, 0, milliseconds),
            Verdict::EveryRing => (Self::EVERY_RING, 0, 0),
            Verdict::Host => (Self::HOST, 0, 0),
        };
        (self.kind, self.ring, self.value) = (kind, ring, value);
    }

    /// The verdict, or `None` if there is none of this kind.
    #[inline]
    pub fn get(&self) -> Option<Verdict> {
        Some(match self.kind {
            Self::BUILT_IN => Verdict::BuiltIn,
            Self::HASH => Verdict::Hash(self.value),
            Self::RING => Verdict::Ring(self.ring),
            Self::DROP => Verdict::Drop,
            Self::SHUNT => Verdict::Shunt { milliseconds: self.value },
            Self::EVERY_RING => Verdict::EveryRing,
            Self::HOST => Verdict::Host,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_survives_being_written_down() {
        let all = [
            Verdict::BuiltIn,
            Verdict::Hash(0xdead_beef),
            Verdict::Ring(4095),
            Verdict::Drop,
            Verdict::Shunt { milliseconds: 60_000 },
            Verdict::EveryRing,
            Verdict::Host,
        ];
        for verdict in all {
            let mut raw = RawVerdict { slice: 96, pull: 8, ring: 7, value: 9, ..RawVerdict::default() };
            raw.set(verdict);
            assert_eq!((raw.get(), raw.slice, raw.pull), (Some(verdict), 96, 8));
        }
        for kind in 7..=255 {
            assert_eq!(RawVerdict { kind, ..RawVerdict::default() }.get(), None);
        }
    }
}
