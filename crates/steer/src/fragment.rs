//! Fragments: which datagram a packet is a piece of.

use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

use crate::dissection::{Family, Level};
use crate::wire::{frag6, ipv4, ipv6};

/// What identifies a fragmented IP datagram (RFC 791 section 3.2, RFC 8200 section 4.5), and which
/// piece of it the packet at hand is.
///
/// `Copy`; `Eq`, `Ord` and `Hash` go by what identifies the datagram: its pieces are equal.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    identity: Identity,
    piece: Piece,
}

/// A piece of a datagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Piece {
    /// Where it begins in the datagram's payload, in bytes.
    pub offset_bytes: u16,
    /// How long it is, in bytes.
    pub len_bytes: u16,
    /// Whether the datagram ends with it.
    pub last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Identity {
    /// Source address; IPv4 in the first four bytes.
    src: [u8; 16],
    /// Destination address.
    dst: [u8; 16],
    /// Identification.
    id: u32,
    family: Family,
    /// Protocol for IPv4; 0 for IPv6, where the identification alone tells.
    proto: u8,
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

impl Eq for Datagram {}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Datagram {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity.cmp(&other.identity)
    }
}

impl Hash for Datagram {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity.hash(state);
    }
}

impl Datagram {
    /// The datagram of a level that is a fragment.
    #[inline]
    pub(crate) fn read(level: &Level, bytes: &[u8]) -> Option<Datagram> {
        Datagram::at(level.l3, level.frag, bytes)
    }

    /// The datagram whose IP header starts at `l3` and whose fragment fields are at `frag`: the
    /// same place for IPv4, the fragment header for IPv6.
    pub(crate) fn at(l3: u16, frag: u16, bytes: &[u8]) -> Option<Datagram> {
        if l3 == frag {
            Datagram::read_v4(bytes.get(l3.into()..)?)
        } else {
            Datagram::read_v6(bytes.get(l3.into()..)?, bytes.get(frag.into()..)?, frag - l3)
        }
    }

    fn read_v4(header: &[u8]) -> Option<Datagram> {
        let header: &[u8; ipv4::MIN_LEN] = header.first_chunk()?;
        let total = u16::from_be_bytes([header[2], header[3]]);
        let word = u16::from_be_bytes([header[6], header[7]]);
        let mut identity = Identity {
            src: [0; 16],
            dst: [0; 16],
            id: u16::from_be_bytes(*header.get(ipv4::ID)?.first_chunk()?).into(),
            family: Family::V4,
            proto: header[ipv4::PROTOCOL],
        };
        identity.src[..4].copy_from_slice(header.get(ipv4::SRC)?);
        identity.dst[..4].copy_from_slice(header.get(ipv4::DST)?);
        let piece = Piece {
            offset_bytes: (word & ipv4::OFFSET) << 3,
            len_bytes: total.saturating_sub(u16::from(header[0] & 15) * 4),
            last: word & ipv4::MORE_FRAGMENTS == 0,
        };
        Some(Datagram { identity, piece })
    }

    /// `distance` is that of the fragment header from the fixed header, in bytes.
    fn read_v6(header: &[u8], fragment: &[u8], distance: u16) -> Option<Datagram> {
        let header: &[u8; ipv6::LEN] = header.first_chunk()?;
        let fragment: &[u8; frag6::LEN] = fragment.first_chunk()?;
        let payload = u16::from_be_bytes([header[4], header[5]]);
        let before = (distance + frag6::LEN as u16).saturating_sub(ipv6::LEN as u16);
        let word = u16::from_be_bytes([fragment[2], fragment[3]]);
        let identity = Identity {
            src: *header.get(ipv6::SRC)?.first_chunk()?,
            dst: *header.get(ipv6::DST)?.first_chunk()?,
            id: u32::from_be_bytes(*fragment.get(frag6::ID)?.first_chunk()?),
            family: Family::V6,
            proto: 0,
        };
        let piece = Piece {
            offset_bytes: word & frag6::OFFSET,
            len_bytes: payload.saturating_sub(before),
            last: word & frag6::MORE_FRAGMENTS == 0,
        };
        Some(Datagram { identity, piece })
    }

    /// Which piece of the datagram the packet at hand is: no part of the identity.
    pub fn piece(&self) -> Piece {
        self.piece
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        self.identity.family
    }

    /// The identification field: 16 bits for IPv4, 32 for IPv6.
    pub fn id(&self) -> u32 {
        self.identity.id
    }

    /// The addresses, source first; IPv4 in the first four bytes.
    pub fn addresses(&self) -> [[u8; 16]; 2] {
        [self.identity.src, self.identity.dst]
    }

    /// The protocol, which is part of the identity for IPv4; 0 for IPv6, where it is not.
    pub fn proto(&self) -> u8 {
        self.identity.proto
    }

    /// A number to find it by in a table.
    pub(crate) fn place(&self) -> u64 {
        let word = |bytes: &[u8; 16], at: usize| {
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        let identity = &self.identity;
        let family = identity.family as u64;
        let mut x = u64::from(identity.id) << 16 | u64::from(identity.proto) << 8 | family;
        for part in [&identity.src, &identity.dst] {
            for at in [0, 8] {
                x = (x ^ word(part, at)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x ^= x >> 29;
            }
        }
        x ^ x >> 32
    }
}
