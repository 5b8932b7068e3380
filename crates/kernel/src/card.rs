//! What the card knows of a packet: the 16 bytes that a program bound to it writes.
//!
//! ```text
//!  0 time ns u64 | 8 hash u32 | 12 vlan u16 | 14 flags u16      (struct flowyard_card in flowyard.bpf.h)
//! ```

use std::fmt;

use flowyard_mem::flags;

/// Bytes of metadata that hold it.
pub const CARD_BYTES: usize = 16;

/// What a card can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CardFacts {
    /// When the packet came, in nanoseconds by the card's own clock.
    pub time: bool,
    /// Its hash, that of its receive-side scaling.
    pub hash: bool,
    /// The VLAN tag that it took off.
    pub vlan: bool,
}

impl CardFacts {
    /// All of them.
    pub const ALL: CardFacts = CardFacts { time: true, hash: true, vlan: true };

    /// As the kernel tells them (`enum netdev_xdp_rx_metadata` in linux/netdev.h).
    pub fn of_driver(bits: u64) -> CardFacts {
        CardFacts { time: bits & 1 != 0, hash: bits & 2 != 0, vlan: bits & 4 != 0 }
    }

    /// Whether there is any.
    pub fn any(self) -> bool {
        self.time | self.hash | self.vlan
    }

    /// Those that both have.
    pub fn and(self, other: CardFacts) -> CardFacts {
        CardFacts { time: self.time & other.time, hash: self.hash & other.hash, vlan: self.vlan & other.vlan }
    }

    /// Those that this has and `other` has not.
    pub fn without(self, other: CardFacts) -> CardFacts {
        CardFacts { time: self.time & !other.time, hash: self.hash & !other.hash, vlan: self.vlan & !other.vlan }
    }

    /// As bits of [`flowyard_mem::flags`].
    pub fn flags(self) -> u32 {
        let of = |on, bit| if on { bit } else { 0 };
        of(self.time, flags::HARDWARE_TIME) | of(self.hash, flags::CARD_HASH) | of(self.vlan, flags::VLAN_STRIPPED)
    }
}

impl fmt::Display for CardFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.time, "time"), (self.hash, "hash"), (self.vlan, "VLAN")];
        let had: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
        f.write_str(if had.is_empty() { "nothing".into() } else { had.join(", ") }.as_str())
    }
}

/// What a card has told of one packet. What it has not is zero, and its flag is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CardWord {
    /// Nanoseconds by the card's own clock, if `flags` has HARDWARE_TIME.
    pub time_ns: u64,
    /// Its hash, if `flags` has CARD_HASH.
    pub hash: u32,
    /// TCI of the VLAN tag that it took off, if `flags` has VLAN_STRIPPED.
    pub vlan: u16,
    /// Bits of [`flowyard_mem::flags`], those that a card can set.
    pub flags: u32,
}

impl CardWord {
    /// As a program writes it.
    pub fn bytes(&self) -> [u8; CARD_BYTES] {
        let mut bytes = [0; CARD_BYTES];
        let (time, hash) = (self.time_ns.to_ne_bytes(), self.hash.to_ne_bytes());
        let rest = [self.vlan.to_ne_bytes(), (self.flags as u16).to_ne_bytes()];
        for (to, from) in bytes.iter_mut().zip(time.into_iter().chain(hash).chain(rest.into_iter().flatten())) {
            *to = from;
        }
        bytes
    }

    /// Reads it. The bytes may be anybody's: flags that are none of a card's are not taken over.
    #[inline]
    pub fn read(bytes: &[u8; CARD_BYTES]) -> CardWord {
        const KNOWN: u32 = flags::HARDWARE_TIME | flags::CARD_HASH | flags::VLAN_STRIPPED | flags::VLAN_SERVICE;
        let [t0, t1, t2, t3, t4, t5, t6, t7, h0, h1, h2, h3, v0, v1, f0, f1] = *bytes;
        let flags = u32::from(u16::from_ne_bytes([f0, f1])) & KNOWN;
        // A user's program may have put its own bytes there.
        let told = |flag| flags & flag != 0;
        CardWord {
            time_ns: if told(flags::HARDWARE_TIME) { u64::from_ne_bytes([t0, t1, t2, t3, t4, t5, t6, t7]) } else { 0 },
            hash: if told(flags::CARD_HASH) { u32::from_ne_bytes([h0, h1, h2, h3]) } else { 0 },
            vlan: if told(flags::VLAN_STRIPPED) { u16::from_ne_bytes([v0, v1]) } else { 0 },
            flags,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_card_has_told_is_read_and_nothing_else() {
        let mut bytes = [0; CARD_BYTES];
        assert_eq!(CardWord::read(&bytes), CardWord::default());
        bytes[..8].copy_from_slice(&1_700_000_000_123_456_789u64.to_ne_bytes());
        bytes[8..12].copy_from_slice(&0x0102_0304u32.to_ne_bytes());
        bytes[12..14].copy_from_slice(&0x2007u16.to_ne_bytes());
        bytes[14..].copy_from_slice(&u16::MAX.to_ne_bytes());
        let flags = flags::HARDWARE_TIME | flags::CARD_HASH | flags::VLAN_STRIPPED | flags::VLAN_SERVICE;
        let told = CardWord { time_ns: 1_700_000_000_123_456_789, hash: 0x0102_0304, vlan: 0x2007, flags };
        assert_eq!(CardWord::read(&bytes), told);
        assert_eq!(CardWord::read(&told.bytes()), told);
    }

    #[test]
    fn facts_are_named_and_numbered_as_the_header_has_them() {
        assert_eq!(CardFacts::of_driver(0b111), CardFacts::ALL);
        assert_eq!(CardFacts::of_driver(0b010).to_string(), "hash");
        assert_eq!(CardFacts::ALL.to_string(), "time, hash, VLAN");
        assert_eq!(CardFacts::default().to_string(), "nothing");
        assert_eq!(CardFacts::ALL.without(CardFacts::of_driver(0b010)).to_string(), "time, VLAN");
        for (name, bit) in [
            ("FLOWYARD_CARD_VLAN", flags::VLAN_STRIPPED),
            ("FLOWYARD_CARD_TIME", flags::HARDWARE_TIME),
            ("FLOWYARD_CARD_HASH", flags::CARD_HASH),
            ("FLOWYARD_CARD_SERVICE", flags::VLAN_SERVICE),
        ] {
            let line = format!("{name} = 1 << {},", bit.trailing_zeros());
            assert!(crate::USER_HEADER.contains(&line), "{line}");
        }
    }
}
