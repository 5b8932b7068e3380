//! What a network card would do: receive side scaling over the outer headers.
//!
//! Used to report what hardware would have split; Flowyard itself never sorts by it.

use crate::toeplitz::ToeplitzKey;
use crate::{Frame, LinkType};

/// The entries of the indirection table that most cards have.
const INDIRECTION: u32 = 128;
/// VLAN tags that a card skips.
const MAX_TAGS: usize = 2;

/// The queue of a card with `queues` queues (0 counts as 1): Microsoft's key or any other over the
/// outermost IP header, found behind Ethernet and at most two VLAN tags; addresses and ports for
/// TCP and UDP, addresses alone for fragments and other protocols; what is not IP goes to queue 0.
/// The indirection table has 128 entries, dealt evenly.
pub fn card_rss(key: &ToeplitzKey, frame: &Frame<'_>, queues: u16) -> u16 {
    let queues = u32::from(queues.max(1));
    let hash = card_hash(key, frame).unwrap_or(0);
    (hash % INDIRECTION % queues) as u16
}

/// The hash that such a card would report; `None` for what it cannot hash.
pub fn card_hash(key: &ToeplitzKey, frame: &Frame<'_>) -> Option<u32> {
    if frame.link != LinkType::ETHERNET {
        return match frame.bytes.first()? >> 4 {
            4 if frame.link == LinkType::RAW || frame.link == LinkType::IPV4 => hash_v4(key, frame.bytes),
            6 if frame.link == LinkType::RAW || frame.link == LinkType::IPV6 => hash_v6(key, frame.bytes),
            _ => None,
        };
    }
    let mut rest = frame.bytes.get(12..)?;
    for _ in 0..=MAX_TAGS {
        let &[high, low] = rest.first_chunk()?;
        match u16::from_be_bytes([high, low]) {
            0x8100 | 0x88a8 | 0x9100 => rest = rest.get(4..)?,
            0x0800 => return hash_v4(key, rest.get(2..)?),
            0x86dd => return hash_v6(key, rest.get(2..)?),
            _ => return None,
        }
    }
    None
}

fn hash_v4(key: &ToeplitzKey, packet: &[u8]) -> Option<u32> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let src = header.get(12..)?.first_chunk()?;
    let dst = header.get(16..)?.first_chunk()?;
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let len = usize::from(header[0] & 15) * 4;
    let ports = if fragment { None } else { ports(header[9], packet.get(len..)) };
    Some(key.hash_v4(*src, *dst, ports))
}

fn hash_v6(key: &ToeplitzKey, packet: &[u8]) -> Option<u32> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let src = header.get(8..)?.first_chunk()?;
    let dst = header.get(24..)?.first_chunk()?;
    Some(key.hash_v6(*src, *dst, ports(header[6], packet.get(40..))))
}

fn ports(protocol: u8, rest: Option<&[u8]>) -> Option<(u16, u16)> {
    if protocol != 6 && protocol != 17 {
        return None;
    }
    let &[s0, s1, d0, d1] = rest?.first_chunk()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::*;

    #[test]
    fn as_a_card_sees_it() {
        let key = ToeplitzKey::microsoft();
        let hash = |bytes: &[u8]| card_hash(&key, &Frame::new(bytes, LinkType::ETHERNET));
        let whole = Some(key.hash_v4(A4, B4, Some((1000, 2000))));
        let addresses = Some(key.hash_v4(A4, B4, None));
        assert_eq!(hash(&eth(0x0800, &tcp4())), whole);
        assert_eq!(hash(&eth(0x88a8, &vlan(1, 0x8100, &vlan(2, 0x0800, &tcp4())))), whole);
        assert_eq!(hash(&eth(0x0800, &ipv4_piece(A4, B4, 6, 1, 0x2000, &tcp(1000, 2000, &[])))), addresses);
        assert_eq!(hash(&eth(0x0800, &ipv4(A4, B4, 47, &gre(0, 0x0800, &tcp4())))), addresses);
        assert_eq!(hash(&eth(0x86dd, &tcp6())), Some(key.hash_v6(A6, B6, Some((1000, 2000)))));
        assert_eq!(hash(&eth(0x8864, &pppoe(1, &ppp(0x21, &tcp4())))), None);
        let frame = eth(0x0806, &[0; 28]);
        assert_eq!(card_rss(&key, &Frame::new(&frame, LinkType::ETHERNET), 16), 0);
    }
}
