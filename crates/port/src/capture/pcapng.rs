//! pcapng: blocks of type, length, body and length again; sections, interfaces, packets
//! (draft-ietf-opsawg-pcapng).
//!
//! This file knows the layout of blocks; walking them is the reader's.

use std::ops::Range;

use super::record::{Interface, OPT_COMMENT, Options, text};

/// Header and trailing length: the shortest block.
pub(super) const BLOCK_LEAST: usize = 12;

pub(super) const SECTION: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE: u32 = 1;
pub(super) const OBSOLETE_PACKET: u32 = 2;
pub(super) const SIMPLE_PACKET: u32 = 3;
pub(super) const ENHANCED_PACKET: u32 = 6;

/// Whether a block of type `kind` is no packet and yet has a frame number in Wireshark.
pub(super) const fn is_numbered_event(kind: u32) -> bool {
    // systemd journal; custom blocks; sysdig's events.
    matches!(kind, 9 | 0xbad | 0x4000_0bad | 0x204 | 0x208 | 0x210 | 0x216 | 0x221)
}

const BYTE_ORDER: Range<usize> = 8..12;
const VERSION_MAJOR: Range<usize> = 12..14;
const SECTION_OPTIONS: usize = 24;
/// Bytes of a section header needed to know its byte order.
pub(super) const SECTION_LEAST: usize = 28;

const IDB_LINK: Range<usize> = 8..10;
const IDB_SNAPLEN: Range<usize> = 12..16;
const IDB_OPTIONS: usize = 16;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FCSLEN: u16 = 13;
const IF_TSOFFSET: u16 = 14;

const EPB_INTERFACE: Range<usize> = 8..12;
const EPB_TIME_HIGH: Range<usize> = 12..16;
const EPB_TIME_LOW: Range<usize> = 16..20;
const EPB_CAPTURED_LEN: Range<usize> = 20..24;
const EPB_WIRE_LEN: Range<usize> = 24..28;
const EPB_DATA: usize = 28;
const PB_INTERFACE: Range<usize> = 8..10;
const SPB_WIRE_LEN: Range<usize> = 8..12;
const SPB_DATA: usize = 12;

/// Longest name or description that is kept: far beyond any interface's, far below what a file
/// can claim.
const LONGEST_NAME: usize = 255;

/// Byte order of the section that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) big_endian: bool,
}

impl Order {
    #[inline]
    pub(super) fn word(self, bytes: &[u8], at: Range<usize>) -> u32 {
        let Some(b) = bytes.get(at).and_then(|b| b.first_chunk()) else { return 0 };
        if self.big_endian { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) }
    }

    #[inline]
    fn half(self, bytes: &[u8], at: Range<usize>) -> u16 {
        let Some(b) = bytes.get(at).and_then(|b| b.first_chunk()) else { return 0 };
        if self.big_endian { u16::from_be_bytes(*b) } else { u16::from_le_bytes(*b) }
    }

    fn options(self, block: &[u8], at: usize) -> Options<'_> {
        let end = block.len().saturating_sub(4);
        Options { bytes: block.get(at..end).unwrap_or(&[]), big_endian: self.big_endian }
    }
}

/// Reads the byte order of a section header's first twelve bytes.
pub(super) fn byte_order(block: &[u8]) -> Result<Order, String> {
    match block.get(BYTE_ORDER) {
        Some([0x4d, 0x3c, 0x2b, 0x1a]) => Ok(Order { big_endian: false }),
        Some([0x1a, 0x2b, 0x3c, 0x4d]) => Ok(Order { big_endian: true }),
        other => Err(format!("a section's byte-order mark is {:02x?}", other.unwrap_or(&[]))),
    }
}

/// Reads byte order and version of a section header's first bytes.
pub(super) fn section_order(block: &[u8]) -> Result<Order, String> {
    let order = byte_order(block)?;
    match order.half(block, VERSION_MAJOR) {
        1 => Ok(order),
        major => Err(format!("pcapng version {major} is not known; 1 is")),
    }
}

/// The comments of a section header.
pub(super) fn section_comments(order: Order, block: &[u8]) -> Vec<String> {
    order.options(block, SECTION_OPTIONS).comments().map(|c| c.into_owned()).collect()
}

/// How an interface's time stamps become nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resolution {
    scale: Scale,
    offset_s: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// A unit is this many nanoseconds.
    Times(u64),
    /// A nanosecond is this many units; 0 for more than fit 64 bits.
    Divide(u64),
    /// A unit is 2^-n seconds.
    Binary(u8),
}

impl Resolution {
    /// From `if_tsresol` and `if_tsoffset`.
    fn new(tsresol: u8, offset_s: i64) -> Resolution {
        let scale = match tsresol {
            0x80.. => Scale::Binary(tsresol & 0x7f),
            0..=9 => Scale::Times(10u64.pow(9 - u32::from(tsresol))),
            _ => Scale::Divide(10u64.checked_pow(u32::from(tsresol) - 9).unwrap_or(0)),
        };
        Resolution { scale, offset_s }
    }

    /// Nanoseconds since 1970, as near as 64 bits hold.
    #[inline]
    pub(super) fn nanoseconds(self, units: u64) -> u64 {
        let since = match self.scale {
            Scale::Times(ns) => units.saturating_mul(ns),
            Scale::Divide(per_ns) => units.checked_div(per_ns).unwrap_or(0),
            Scale::Binary(bits) => u64::try_from((u128::from(units) * 1_000_000_000) >> bits).unwrap_or(u64::MAX),
        };
        if self.offset_s == 0 {
            return since;
        }
        let all = i128::from(since) + i128::from(self.offset_s) * 1_000_000_000;
        u64::try_from(all.max(0)).unwrap_or(u64::MAX)
    }
}

/// Reads an interface description.
pub(super) fn interface(order: Order, block: &[u8]) -> Result<(Interface, Resolution), String> {
    if block.len() < IDB_OPTIONS + 4 {
        return Err(format!("an interface description of {} bytes is too short", block.len()));
    }
    let mut interface = Interface {
        link: order.half(block, IDB_LINK),
        snaplen: order.word(block, IDB_SNAPLEN),
        ..Interface::default()
    };
    let (mut tsresol, mut offset_s) = (6, 0);
    for (code, value) in order.options(block, IDB_OPTIONS).iter() {
        match (code, value) {
            (IF_NAME, name) => interface.name = short_text(name),
            (IF_DESCRIPTION, description) => interface.description = short_text(description),
            (IF_TSRESOL, [resolution, ..]) => tsresol = *resolution,
            (IF_FCSLEN, [len, ..]) => interface.fcs_len = Some(*len),
            (IF_TSOFFSET, value) => {
                if let Some(b) = value.first_chunk() {
                    offset_s = if order.big_endian { i64::from_be_bytes(*b) } else { i64::from_le_bytes(*b) };
                }
            }
            (OPT_COMMENT, _) | (_, _) => {}
        }
    }
    Ok((interface, Resolution::new(tsresol, offset_s)))
}

fn short_text(value: &[u8]) -> String {
    text(&value[..value.len().min(LONGEST_NAME)]).into_owned()
}

/// Where in its block a packet lies, and what is recorded of it. `interface` is the section's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) interface: u32,
    pub(super) units: u64,
    pub(super) captured_len: u32,
    pub(super) wire_len: u32,
    /// Where the packet's bytes begin in the block.
    pub(super) data: usize,
    pub(super) has_time: bool,
    pub(super) has_options: bool,
}

/// Reads the fixed part of a packet block, which has been checked against nothing but its length.
/// A simple packet's captured length is its wire length, to be cut to the interface's snap length.
#[inline]
pub(super) fn packet(order: Order, kind: u32, block: &[u8]) -> Result<Packet, String> {
    if kind == SIMPLE_PACKET {
        let wire_len = order.word(block, SPB_WIRE_LEN);
        return if block.len() < SPB_DATA + 4 {
            Err(format!("a simple packet block of {} bytes is too short", block.len()))
        } else {
            let captured_len = wire_len;
            Ok(Packet {
                interface: 0,
                units: 0,
                captured_len,
                wire_len,
                data: SPB_DATA,
                has_time: false,
                has_options: false,
            })
        };
    }
    if block.len() < EPB_DATA + 4 {
        return Err(format!("a packet block of {} bytes is too short", block.len()));
    }
    let interface = if kind == ENHANCED_PACKET {
        order.word(block, EPB_INTERFACE)
    } else {
        u32::from(order.half(block, PB_INTERFACE))
    };
    Ok(Packet {
        interface,
        units: u64::from(order.word(block, EPB_TIME_HIGH)) << 32 | u64::from(order.word(block, EPB_TIME_LOW)),
        captured_len: order.word(block, EPB_CAPTURED_LEN),
        wire_len: order.word(block, EPB_WIRE_LEN),
        data: EPB_DATA,
        has_time: true,
        has_options: true,
    })
}

#[cfg(test)]
mod tests {
    use super::Resolution;

    #[test]
    fn every_resolution_becomes_nanoseconds() {
        for (tsresol, offset_s, units, expect) in [
            (6, 0, 1_700_000_000_000_001, 1_700_000_000_000_001_000),
            (9, 0, 1_700_000_000_000_000_001, 1_700_000_000_000_000_001),
            (0, 0, 1_700_000_000, 1_700_000_000_000_000_000),
            (12, 0, 1_999, 1),
            (0x80 | 20, 0, 3 << 19, 1_500_000_000),
            (0x80, 0, 2, 2_000_000_000),
            (6, 10, 1, 10_000_001_000),
            (6, -10, 1, 0),
            (127, 0, u64::MAX, 0),
            (0xff, 0, u64::MAX, 0),
            (0, i64::MAX, u64::MAX, u64::MAX),
            (0, i64::MIN, u64::MAX, 0),
        ] {
            assert_eq!(
                Resolution::new(tsresol, offset_s).nanoseconds(units),
                expect,
                "{tsresol:#x} {offset_s} {units}"
            );
        }
    }
}
