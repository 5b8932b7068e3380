//! What the program says of a packet: the 32 bytes right before it.

use flowyard_mem::Tag;
use zerocopy::FromBytes;

/// Bytes of metadata before each packet that the program has seen: the head of its tag.
pub const HEAD_BYTES: usize = 32;

/// Bit of `kind`: the packet is marked (`FLOWYARD_MARKED` in flowyard.bpf.h).
const MARKED: u8 = 0x80;
/// Bit of `kind`: what the card knows lies right before the head (`FLOWYARD_CARD`).
const CARD: u8 = 0x40;

macro_rules! marks {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why the program left a packet to user space. The numbers are those of `enum flowyard_mark`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Mark {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Mark {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Mark] = &[$(Mark::$variant,)*];

            /// The name that counters carry.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mark::$variant => $name,)*
                }
            }
        }
    };
}

marks! {
    /// A protocol that the program does not read.
    Protocol = 0, "protocol";
    /// A later fragment whose first one has not come by.
    First = 1, "first-fragment";
    /// Bytes under an MPLS label that can be read in two ways.
    Ambiguous = 2, "ambiguous";
    /// More headers than the program reads (48).
    Steps = 3, "steps";
    /// A header farther into the packet than the program reads (16 KiB).
    Offset = 4, "offset";
    /// A header that may reach beyond the first of several buffers.
    Several = 5, "several-buffers";
}

/// What the program says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its tag, the part that steering finds out: what the port knows (time, lengths, …) is zero. Ring and
    /// hash may be the choice of the user's program.
    Ring(Tag),
    /// User space decides. Only `user` of the tag counts, which the user's program may have written.
    Marked(Mark, Tag),
}

impl Answer {
    /// Reads the head before a packet. A reason that this version does not know reads as
    /// [`Mark::Protocol`].
    pub fn read(head: &[u8; HEAD_BYTES]) -> Answer {
        let mut bytes = [0; size_of::<Tag>()];
        for (to, from) in bytes.iter_mut().zip(head) {
            *to = *from;
        }
        let mut tag = Tag::read_from_bytes(&bytes).unwrap_or_default();
        tag.kind &= !CARD;
        if tag.kind & MARKED == 0 {
            return Answer::Ring(tag);
        }
        let mark = Mark::ALL.get(usize::from(tag.stop)).copied().unwrap_or(Mark::Protocol);
        Answer::Marked(mark, Tag { user: tag.user, ..Tag::default() })
    }
}

/// Whether what the card knows ([`CardWord`](crate::CardWord)) lies right before this head.
#[inline]
pub fn card_before(head: &[u8; HEAD_BYTES]) -> bool {
    const KIND: usize = 15;
    head[KIND] & CARD != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The enumeration of this name in flowyard.bpf.h holds this number.
    fn header_has(name: &str, number: usize) -> bool {
        let text = crate::USER_HEADER;
        text.lines().any(|line| line.trim_start().starts_with(&format!("{name} = {number},")))
    }

    #[test]
    fn the_header_counts_alike() {
        let names = ["PROTOCOL", "FIRST", "AMBIGUOUS", "STEPS", "OFFSET", "SEVERAL"];
        assert!(names.iter().enumerate().all(|(n, name)| header_has(&format!("FLOWYARD_MARK_{name}"), n)));
        assert!(header_has("FLOWYARD_MARKS", Mark::ALL.len()));
        assert!(header_has("FLOWYARD_COUNTS", crate::counts::PLACES));
        assert!(header_has("FLOWYARD_TO_HOST", crate::counts::TO_HOST));
        assert!(header_has("FLOWYARD_UNSERVED", crate::counts::UNSERVED));
        assert!(crate::USER_HEADER.contains(&format!("FLOWYARD_MARKED {MARKED:#x}")));
        assert!(crate::USER_HEADER.contains(&format!("FLOWYARD_CARD {CARD:#x}")));
    }

    #[test]
    fn heads_are_read_as_tags() {
        let mut head = [0; HEAD_BYTES];
        head[..4].copy_from_slice(&0x0102_0304_u32.to_ne_bytes());
        head[4..6].copy_from_slice(&7u16.to_ne_bytes());
        head[24..].copy_from_slice(&99u64.to_ne_bytes());
        let expected = Tag { hash: 0x0102_0304, ring: 7, user: 99, ..Tag::default() };
        assert_eq!(Answer::read(&head), Answer::Ring(expected));
        head[15] = CARD;
        assert_eq!(Answer::read(&head), Answer::Ring(expected), "a consumer never sees that bit");
        assert!(card_before(&head));
        head[15] = MARKED;
        assert!(!card_before(&head));
        for mark in Mark::ALL {
            head[6] = *mark as u8;
            assert_eq!(Answer::read(&head), Answer::Marked(*mark, Tag { user: 99, ..Tag::default() }));
        }
        head[6] = 200;
        assert!(matches!(Answer::read(&head), Answer::Marked(Mark::Protocol, _)));
    }
}
