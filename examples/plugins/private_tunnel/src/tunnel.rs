//! The tunnel's header and what is behind it. Bytes in, words out: no pointers here.

use std::ops::Range;

use crate::flowyard_plugin::{NO_OFFSET, Tag, kind, tunnel};

/// The UDP port that such packets go to.
pub const PORT: u16 = 47_000;

const UDP: u8 = 17;
const UDP_DESTINATION: Range<usize> = 2..4; // RFC 768
const UDP_BYTES: usize = 8;

/// Our own header.
const MAGIC: Range<usize> = 0..2;
const VERSION: usize = 2;
const LENGTH: Range<usize> = 4..6;
const CUSTOMER: Range<usize> = 6..8;
const HEADER_BYTES: usize = 8;
const IS_MAGIC: u16 = 0xf70d;
const IS_VERSION: u8 = 1;

/// What a packet of the tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inside {
    /// Offset of the inner IP header: what is in front comes off.
    pub l3: u16,
    /// The same for both directions of a conversation of a customer.
    pub hash: u32,
    l4: u16,
    protocol: u8,
    kind: u8,
    customer: u16,
}

/// Looks whether a packet is one of the tunnel's. `tag` says what the yard found: UDP, and where.
pub fn look(bytes: &[u8], tag: &Tag, port: u16) -> Option<Inside> {
    if tag.protocol != UDP || tag.inner_l4 == NO_OFFSET || tag.kind & kind::ICMP_ERROR != 0 {
        return None;
    }
    let udp = bytes.get(tag.inner_l4.into()..)?;
    if number(udp.get(UDP_DESTINATION)?) != port {
        return None;
    }
    let header = udp.get(UDP_BYTES..UDP_BYTES + HEADER_BYTES)?;
    if number(&header[MAGIC]) != IS_MAGIC || header[VERSION] != IS_VERSION {
        return None;
    }
    let packet = udp.get(UDP_BYTES + HEADER_BYTES..)?;
    let packet = &packet[..packet.len().min(number(&header[LENGTH]).into())]; // behind it is padding
    let l3 = tag.inner_l4.checked_add((UDP_BYTES + HEADER_BYTES) as u16)?;
    let customer = number(&header[CUSTOMER]);
    let ip = Ip::read(packet)?;
    let l4 = ip.l4.and_then(|at| l3.checked_add(at)).unwrap_or(NO_OFFSET);
    Some(Inside { l3, l4, hash: ip.hash(packet, customer), protocol: ip.protocol, kind: ip.kind, customer })
}

impl Inside {
    /// Makes the tag say what is inside. Offsets count from the start as received.
    pub fn correct(&self, tag: &mut Tag) {
        tag.inner_l3 = self.l3;
        tag.inner_l4 = self.l4;
        tag.protocol = self.protocol;
        tag.kind = self.kind;
        tag.tunnel_kind = tunnel::OTHER;
        tag.tunnel_id = self.customer.into();
        tag.user = self.customer.into();
    }
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// An IP header, as far as it matters here.
struct Ip {
    source: Range<usize>,
    destination: Range<usize>,
    protocol: u8,
    kind: u8,
    /// `None` in later fragments.
    l4: Option<u16>,
}

impl Ip {
    fn read(packet: &[u8]) -> Option<Ip> {
        match packet.first()? >> 4 {
            4 => Ip::read_v4(packet),
            6 => Ip::read_v6(packet),
            _ => None,
        }
    }

    /// RFC 791 section 3.1.
    fn read_v4(packet: &[u8]) -> Option<Ip> {
        let header_bytes = u16::from(packet.first()? & 15) * 4;
        if header_bytes < 20 || packet.len() < header_bytes.into() {
            return None;
        }
        let fragment = number(&packet[6..8]);
        let kind = fragment_kind(fragment & 0x1fff, fragment & 0x2000 != 0);
        let l4 = (kind != kind::FRAGMENT_LATER).then_some(header_bytes);
        Some(Ip { source: 12..16, destination: 16..20, protocol: packet[9], kind, l4 })
    }

    /// RFC 8200 sections 3 and 4.
    fn read_v6(packet: &[u8]) -> Option<Ip> {
        const MOST_EXTENSIONS: usize = 8;
        let (mut next, mut at) = (*packet.get(6)?, 40);
        let mut ip = Ip { source: 8..24, destination: 24..40, protocol: next, kind: kind::INNER_IPV6, l4: Some(40) };
        packet.get(..40)?;
        for _ in 0..MOST_EXTENSIONS {
            let header_bytes = match next {
                44 => {
                    let fragment = number(packet.get(at + 2..at + 4)?);
                    ip.kind = kind::INNER_IPV6 | fragment_kind(fragment >> 3, fragment & 1 != 0);
                    8
                }
                0 | 43 | 60 => (usize::from(*packet.get(at + 1)?) + 1) * 8,
                _ => break,
            };
            next = *packet.get(at)?;
            at += header_bytes;
            if ip.kind & kind::FRAGMENT_MASK == kind::FRAGMENT_LATER {
                break;
            }
        }
        ip.protocol = next;
        ip.l4 = u16::try_from(at).ok().filter(|_| ip.kind & kind::FRAGMENT_MASK != kind::FRAGMENT_LATER);
        Some(ip)
    }

    /// Customer, protocol and the two ends in order. Fragments go by addresses alone, the first like the
    /// others: together with each other, though not with the whole packets of their conversation.
    fn hash(&self, packet: &[u8], customer: u16) -> u32 {
        let ports = match self.protocol {
            6 | 17 | 33 | 132 | 136 if self.kind & kind::FRAGMENT_MASK == kind::FRAGMENT_NONE => {
                self.l4.and_then(|at| packet.get(at.into()..usize::from(at) + 4))
            }
            _ => None,
        };
        let ports = ports.unwrap_or(&[0; 4]);
        let mut ends = [(&packet[self.source.clone()], &ports[..2]), (&packet[self.destination.clone()], &ports[2..])];
        ends.sort();
        let [(low, low_port), (high, high_port)] = ends;
        let customer = customer.to_be_bytes();
        let all = [&customer[..], &[self.protocol], low, low_port, high, high_port];
        mix(all.into_iter().flatten().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
            (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3) // FNV-1a
        }))
    }
}

fn fragment_kind(offset: u16, more: bool) -> u8 {
    match (offset, more) {
        (0, false) => kind::FRAGMENT_NONE,
        (0, true) => kind::FRAGMENT_FIRST,
        _ => kind::FRAGMENT_LATER,
    }
}

/// Spreads what FNV leaves in the low bits.
fn mix(hash: u64) -> u32 {
    let hash = (hash ^ hash >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// UDP to the tunnel's port at offset 4, with an IPv4 packet of TCP in it.
    fn packet(customer: u16, ends: [([u8; 4], u16); 2], fragment: u16) -> (Vec<u8>, Tag) {
        let mut bytes = vec![0xee; 4];
        bytes.extend([0x12, 0x34, 0xb7, 0x98, 0, 0, 0, 0]);
        bytes.extend([0xf7, 0x0d, 1, 0, 0, 24]);
        bytes.extend(customer.to_be_bytes());
        bytes.extend([0x45, 0, 0, 24, 0, 1]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, 6, 0, 0]);
        bytes.extend(ends.iter().flat_map(|end| end.0));
        bytes.extend(ends.iter().flat_map(|end| end.1.to_be_bytes()));
        bytes.extend([0; 22]); // padding
        (bytes, Tag { protocol: 17, inner_l4: 4, ..Tag::default() })
    }

    fn seen(customer: u16, ends: [([u8; 4], u16); 2], fragment: u16) -> Inside {
        let (bytes, tag) = packet(customer, ends, fragment);
        look(&bytes, &tag, PORT).expect("one of the tunnel's")
    }

    const A: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
    const B: ([u8; 4], u16) = ([10, 0, 0, 2], 443);

    #[test]
    fn both_directions_share_a_hash_and_customers_do_not() {
        let there = seen(7, [A, B], 0);
        assert_eq!((there.l3, there.l4, there.protocol, there.customer), (20, 40, 6, 7));
        assert_eq!(there.hash, seen(7, [B, A], 0).hash);
        assert_ne!(there.hash, seen(8, [A, B], 0).hash);
        assert_ne!(there.hash, seen(7, [(A.0, B.1), (B.0, A.1)], 0).hash);
    }

    #[test]
    fn fragments_stay_with_each_other() {
        let (first, later) = (seen(7, [A, B], 0x2000), seen(7, [A, B], 0x0003));
        assert_eq!((first.hash, first.kind, first.l4), (later.hash, kind::FRAGMENT_FIRST, 40));
        assert_eq!((later.kind, later.l4), (kind::FRAGMENT_LATER, NO_OFFSET));
    }

    #[test]
    fn what_is_cut_or_something_else_is_left_alone() {
        let (bytes, tag) = packet(7, [A, B], 0);
        for len in 0..40 {
            assert_eq!(look(&bytes[..len], &tag, PORT), None, "{len}");
        }
        for at in [6, 12, 13, 14, 20] {
            let mut other = bytes.clone();
            other[at] ^= 0xf0;
            assert_eq!(look(&other, &tag, PORT), None, "byte {at}");
        }
        assert_eq!(look(&bytes, &Tag { protocol: 6, ..tag }, PORT), None);
        assert_eq!(look(&bytes, &Tag { inner_l4: NO_OFFSET, ..tag }, PORT), None);
        assert_eq!(look(&bytes, &Tag { inner_l4: 60_000, ..tag }, PORT), None);
    }
}
