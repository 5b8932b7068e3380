//! Classic pcap: a 24-byte header, then records of 16 bytes (Kuznetzov's: 24) and the packet
//! (draft-ietf-opsawg-pcap).

use std::ops::Range;

/// Bytes of the file's header.
pub(super) const FILE_HEADER: usize = 24;
const VERSION_MAJOR: Range<usize> = 4..6;
const VERSION_MINOR: Range<usize> = 6..8;
const SNAPLEN: Range<usize> = 16..20;
/// Bits 0–15 link type, 26 "FCS length is known", 28–31 that length in 16-bit words.
const LINK: Range<usize> = 20..24;

const SECONDS: Range<usize> = 0..4;
const FRACTION: Range<usize> = 4..8;
const CAPTURED_LEN: Range<usize> = 8..12;
const WIRE_LEN: Range<usize> = 12..16;

/// How records of a file are to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pcap {
    big_endian: bool,
    /// Nanoseconds of one unit of the fraction.
    unit_ns: u64,
    /// Bytes in front of each packet.
    pub(super) header_len: usize,
    pub(super) link: u16,
    pub(super) snaplen: u32,
    pub(super) fcs_len: Option<u8>,
    /// Versions up to 2.2 have the two lengths the other way round, 2.3 has both kinds.
    minor: u16,
}

/// What a record's header says.
pub(super) struct Head {
    pub(super) time_ns: u64,
    pub(super) captured_len: u32,
    pub(super) wire_len: u32,
}

fn word(bytes: &[u8], at: Range<usize>, big_endian: bool) -> u32 {
    let Some(b) = bytes.get(at).and_then(|b| b.first_chunk()) else { return 0 };
    if big_endian { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) }
}

fn half(bytes: &[u8], at: Range<usize>, big_endian: bool) -> u16 {
    let Some(b) = bytes.get(at).and_then(|b| b.first_chunk()) else { return 0 };
    if big_endian { u16::from_be_bytes(*b) } else { u16::from_le_bytes(*b) }
}

/// Byte order, nanoseconds of the fraction's unit, and record header length of each magic.
fn magic(head: &[u8]) -> Option<(bool, u64, usize)> {
    let kind = |number: u32| match number {
        0xa1b2_c3d4 => Some((1_000, 16)),
        0xa1b2_3c4d => Some((1, 16)),
        // Alexey Kuznetzov's, with interface index, protocol and packet type behind each header.
        0xa1b2_cd34 => Some((1_000, 24)),
        _ => None,
    };
    let first = *head.first_chunk()?;
    let little = kind(u32::from_le_bytes(first)).map(|(unit, len)| (false, unit, len));
    little.or_else(|| kind(u32::from_be_bytes(first)).map(|(unit, len)| (true, unit, len)))
}

impl Pcap {
    /// Whether these first bytes begin a pcap file.
    pub(super) fn recognises(head: &[u8]) -> bool {
        magic(head).is_some()
    }

    /// Reads the file's header.
    pub(super) fn parse(head: &[u8; FILE_HEADER]) -> Result<Pcap, String> {
        let (big_endian, unit_ns, header_len) = magic(head).ok_or("not a pcap file")?;
        let (major, minor) = (half(head, VERSION_MAJOR, big_endian), half(head, VERSION_MINOR, big_endian));
        if major != 2 && major != 543 {
            return Err(format!("pcap version {major}.{minor} is not known; 2.4 is"));
        }
        let link = word(head, LINK, big_endian);
        Ok(Pcap {
            big_endian,
            unit_ns,
            header_len,
            link: link as u16,
            snaplen: word(head, SNAPLEN, big_endian),
            fcs_len: (link & 1 << 26 != 0).then_some(((link >> 28) * 2) as u8),
            minor,
        })
    }

    /// Reads a record's header, the first 16 bytes of `bytes`.
    #[inline]
    pub(super) fn head(&self, bytes: &[u8; 16]) -> Head {
        let field = |at| word(bytes, at, self.big_endian);
        let (mut captured_len, mut wire_len) = (field(CAPTURED_LEN), field(WIRE_LEN));
        if self.minor < 3 || (self.minor == 3 && captured_len > wire_len) {
            std::mem::swap(&mut captured_len, &mut wire_len);
        }
        let time_ns = u64::from(field(SECONDS)) * 1_000_000_000 + u64::from(field(FRACTION)) * self.unit_ns;
        Head { time_ns, captured_len, wire_len }
    }
}
