//! The headers of a frame that is about to leave, and the checksums among them.
//!
//! An unfinished checksum is found by what stands in its place: the sum of the pseudo-header alone, as
//! `CHECKSUM_PARTIAL` leaves it (include/linux/skbuff.h, "checksumming on output"). That is looked for in every
//! packet, because AF_XDP does not tell. A finished one that looks the same by chance (one in 65536) is computed
//! again, to the same value.

use std::sync::LazyLock;

use flowyard_steer::{Frame, Layer, LinkType, Observer, Policy, dissect};

/// Most headers that are looked at.
const MOST: usize = 24;

/// The way down: the usual one, made once.
static POLICY: LazyLock<Policy> = LazyLock::new(Policy::default);

// RFC 791, section 3.1
const IPV4_LENGTH: std::ops::Range<usize> = 2..4;
const IPV4_ID: std::ops::Range<usize> = 4..6;
const IPV4_FRAGMENT: std::ops::Range<usize> = 6..8;
const IPV4_PROTOCOL: usize = 9;
const IPV4_CHECKSUM: std::ops::Range<usize> = 10..12;
const IPV4_ADDRESSES: std::ops::Range<usize> = 12..20;
const IPV4_BYTES: usize = 20;
// RFC 8200, section 3
const IPV6_LENGTH: std::ops::Range<usize> = 4..6;
const IPV6_ADDRESSES: std::ops::Range<usize> = 8..40;
const IPV6_BYTES: usize = 40;
/// RFC 9293, section 3.1.
const TCP_CHECKSUM: usize = 16;
const TCP_NUMBER: u8 = 6;
/// RFC 768.
const UDP_LENGTH: std::ops::Range<usize> = 4..6;
const UDP_CHECKSUM: usize = 6;
const UDP_NUMBER: u8 = 17;

/// A header: what, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub layer: Layer,
    pub at: usize,
}

/// The headers of a frame from the outside in, as far as they are the packet's own: what an ICMP error quotes is not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Headers {
    found: [Header; MOST],
    count: usize,
    ended: bool,
}

impl Observer for Headers {
    fn layer(&mut self, layer: Layer, offset: usize, _len: usize) {
        self.ended |= matches!(layer, Layer::Icmp | Layer::Icmpv6) || self.count == MOST;
        if !self.ended {
            self.found[self.count] = Header { layer, at: offset };
            self.count += 1;
        }
    }
}

/// A layer-4 checksum: where what it covers begins, where it stands, and the sum of its pseudo-header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Checksum {
    /// First byte covered.
    pub start: usize,
    /// From there to the checksum.
    pub offset: usize,
    /// Bytes covered.
    pub len: usize,
    /// Sum of the pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1), folded.
    pub pseudo: u16,
}

impl Headers {
    /// Those of a frame that begins with link type `link`.
    pub(crate) fn of(bytes: &[u8], link: u16) -> Headers {
        let none = Header { layer: Layer::Raw, at: 0 };
        let mut headers = Headers { found: [none; MOST], count: 0, ended: false };
        dissect(&Frame::new(bytes, LinkType(link)), &POLICY, &mut headers);
        headers
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Header] {
        &self.found[..self.count]
    }

    /// The checksum of header number `at`, if it is TCP or UDP in an IP packet that is whole.
    pub(crate) fn checksum(&self, at: usize, bytes: &[u8]) -> Option<Checksum> {
        self.checksum_in(at, bytes, bytes.len())
    }

    /// As [`Headers::checksum`], of a frame of `frame_len` bytes of which `bytes` has the headers.
    fn checksum_in(&self, at: usize, bytes: &[u8], frame_len: usize) -> Option<Checksum> {
        let Header { layer, at: start } = self.all().get(at).copied()?;
        let (offset, number) = match layer {
            Layer::Tcp => (TCP_CHECKSUM, TCP_NUMBER),
            Layer::Udp => (UDP_CHECKSUM, UDP_NUMBER),
            _ => return None,
        };
        let is_ip = |header: &&Header| matches!(header.layer, Layer::Ip | Layer::Ipv6);
        let ip = self.all()[..at].iter().rev().find(is_ip)?;
        let header = bytes.get(ip.at..)?;
        let (end, addresses) = match ip.layer {
            Layer::Ip => {
                let fragment = u16_at(header, IPV4_FRAGMENT)? & 0x3fff != 0;
                if fragment || *header.get(IPV4_PROTOCOL)? != number {
                    return None;
                }
                (ip.at + usize::from(u16_at(header, IPV4_LENGTH)?), header.get(IPV4_ADDRESSES)?)
            }
            _ => {
                if self.all()[..at].iter().any(|h| h.layer == Layer::Frag6 && h.at > ip.at) {
                    return None;
                }
                (ip.at + IPV6_BYTES + usize::from(u16_at(header, IPV6_LENGTH)?), header.get(IPV6_ADDRESSES)?)
            }
        };
        let len = end.checked_sub(start).filter(|len| *len >= offset + 2 && end <= frame_len)?;
        let pseudo = fold(sum(addresses) + u64::from(number) + len as u64);
        Some(Checksum { start, offset, len, pseudo })
    }

    /// The checksum that is not filled in, if one is: the outermost, for one alone can be.
    pub(crate) fn unfinished(&self, bytes: &[u8]) -> Option<Checksum> {
        self.unfinished_in(bytes, bytes.len())
    }

    /// As [`Headers::unfinished`], of a frame of `frame_len` bytes of which `bytes` has the headers.
    pub(crate) fn unfinished_in(&self, bytes: &[u8], frame_len: usize) -> Option<Checksum> {
        let found = (0..self.count).filter_map(|at| self.checksum_in(at, bytes, frame_len));
        let mut open = found.filter(|sum| u16_at(bytes, sum.place()) == Some(sum.pseudo));
        open.next()
    }
}

impl Checksum {
    /// Where it stands.
    pub(crate) fn place(&self) -> std::ops::Range<usize> {
        self.start + self.offset..self.start + self.offset + 2
    }

    /// What it has to be, over what `bytes` holds now; whatever stands in its place.
    pub(crate) fn value(&self, bytes: &[u8]) -> [u8; 2] {
        let covered = bytes.get(self.start..self.start + self.len).unwrap_or(&[]);
        let old = u16_at(bytes, self.place()).unwrap_or(0);
        let total = sum(covered) + u64::from(!old) + u64::from(self.pseudo);
        // Taking the old value off leaves the same sum: 0xffff is zero in this arithmetic (RFC 1624, section 3).
        match !fold(total) {
            // RFC 768: zero would mean that there is none. For TCP both are right.
            0 if self.offset == UDP_CHECKSUM => [0xff, 0xff],
            value => value.to_be_bytes(),
        }
    }

    /// Fills it in.
    pub(crate) fn complete(&self, bytes: &mut [u8]) {
        let value = self.value(bytes);
        bytes[self.place()].copy_from_slice(&value);
    }
}

impl Header {
    /// Writes the length of this header's packet, of which the frame has all up to `end`; and for a part of a larger
    /// one the number `part` onto its identification. Answers false if the header is not all there.
    pub(crate) fn set_length(&self, bytes: &mut [u8], end: usize, part: u16) -> bool {
        let Some((header, len)) = bytes.get_mut(self.at..).zip(end.checked_sub(self.at)) else { return false };
        match self.layer {
            Layer::Ip if header.len() >= IPV4_BYTES => {
                let (Ok(len), own) = (u16::try_from(len), usize::from(header[0] & 15) * 4) else { return false };
                if own < IPV4_BYTES || header.len() < own {
                    return false;
                }
                let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(part);
                header[IPV4_LENGTH].copy_from_slice(&len.to_be_bytes());
                header[IPV4_ID].copy_from_slice(&id.to_be_bytes());
                header[IPV4_CHECKSUM].copy_from_slice(&[0, 0]);
                let checksum = !fold(sum(&header[..own]));
                header[IPV4_CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
                true
            }
            Layer::Ipv6 if header.len() >= IPV6_BYTES => {
                let Some(len) = len.checked_sub(IPV6_BYTES).and_then(|len| u16::try_from(len).ok()) else {
                    return false;
                };
                header[IPV6_LENGTH].copy_from_slice(&len.to_be_bytes());
                true
            }
            Layer::Udp if header.len() >= UDP_CHECKSUM + 2 => {
                let Ok(len) = u16::try_from(len) else { return false };
                header[UDP_LENGTH].copy_from_slice(&len.to_be_bytes());
                true
            }
            _ => !matches!(self.layer, Layer::Ip | Layer::Ipv6 | Layer::Udp),
        }
    }
}

/// Sum of 16-bit words in network order (RFC 1071); an odd byte at the end is the upper half of one.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum();
    let (pairs, odd) = rest.as_chunks::<2>();
    let pairs: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    total + pairs + odd.first().map_or(0, |byte| u64::from(*byte) << 8)
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn u16_at(bytes: &[u8], at: std::ops::Range<usize>) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame with IPv4, UDP and `payload`, its checksum finished or not.
    fn frame(payload: &[u8], finished: bool) -> Vec<u8> {
        let mut builder = Vec::new();
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(1000, 2000)
            .write(&mut builder, payload)
            .expect("room");
        if !finished {
            let len = 8 + payload.len() as u64;
            let pseudo = fold(sum(&builder[26..34]) + 17 + len);
            builder[40..42].copy_from_slice(&pseudo.to_be_bytes());
        }
        builder
    }

    #[test]
    fn what_is_filled_in_is_what_another_library_writes() {
        for len in [0, 1, 2, 3, 17, 100, 1472] {
            let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
            let (right, mut open) = (frame(&payload, true), frame(&payload, false));
            assert_eq!(Headers::of(&right, 1).unfinished(&right), None);
            let found = Headers::of(&open, 1).unfinished(&open).expect("it is open");
            assert_eq!((found.start, found.offset), (34, 6));
            found.complete(&mut open);
            assert_eq!(open, right);
            found.complete(&mut open);
            assert_eq!(open, right, "once more changes nothing");
        }
    }

    #[test]
    fn padding_is_not_covered_and_fragments_have_none() {
        let mut open = frame(b"x", false);
        let right = frame(b"x", true);
        open.resize(60, 0xaa);
        Headers::of(&open, 1).unfinished(&open).expect("it is open").complete(&mut open);
        assert_eq!(open[..right.len()], right);
        let mut fragment = frame(b"some bytes", false);
        fragment[20] = 0x20; // more fragments
        assert_eq!(Headers::of(&fragment, 1).unfinished(&fragment), None);
    }

    #[test]
    fn any_cut_of_a_frame_is_looked_at_without_harm() {
        let whole = frame(b"some bytes", false);
        for len in 0..whole.len() {
            assert_eq!(Headers::of(&whole[..len], 1).unfinished(&whole[..len]), None, "{len}: its packet is not whole");
        }
    }
}
