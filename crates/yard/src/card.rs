//! A model of a network card's receive-side scaling: what it reads of a frame, and which queue it
//! puts it on.
//!
//! The card finds the outermost IP header behind Ethernet and at most two VLAN tags; it hashes the
//! addresses, and the ports where they follow at once and the packet is whole. It looks into no
//! tunnel, and what shows it no IP header goes to the first entry of its table. A capture without
//! Ethernet headers (cooked, raw, loopback) is taken as if Ethernet had been around its IP packets;
//! of any other link type the card knows nothing.
//!
//! It shares no code with the dissector that Flowyard sorts by.

use std::hash::{DefaultHasher, Hash, Hasher};

use flowyard_port::{HashedFields, Rss, RssFields, RssTransform};
use flowyard_steer::{Frame, KeyTooShort, LinkType, ToeplitzKey};

/// Entries of the indirection table that most cards have.
const ENTRIES: u16 = 128;
/// VLAN tags that a card skips.
const MOST_TAGS: usize = 2;
const V4: usize = 0;
const V6: usize = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// A card.
///
/// ```
/// use flowyard::{Card, steer::{Frame, LinkType, ToeplitzKey}};
/// let card = Card::new(ToeplitzKey::microsoft(), 8);
/// let packet = [0x45, 0, 0, 24, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 4, 0];
/// let sight = card.see(&Frame::new(&packet, LinkType::RAW)).expect("an IP header");
/// assert!(sight.ports && card.queue(Some(&sight)) < 8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    key: ToeplitzKey,
    table: Vec<u32>,
    queues: u32,
    fields: RssFields,
    transform: RssTransform,
}

/// What a card reads of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Where the IP header is that it reads, in bytes from the start of the frame.
    pub l3_offset: usize,
    /// Whether that header is a piece of a datagram.
    pub fragment: bool,
    /// Whether ports are part of what it hashes.
    pub ports: bool,
    family: usize,
    fields: HashedFields,
    /// Addresses, IPv4 in the first four bytes; what is not hashed is 0.
    ends: [([u8; 16], [u8; 2]); 2],
}

impl Sight {
    /// A number for what the card reads, the same when source and destination are swapped: frames
    /// that differ only by direction have the same.
    pub fn without_direction(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let [a, b] = self.ends;
        (self.family, a.min(b), a.max(b)).hash(&mut hasher);
        hasher.finish()
    }
}

impl Card {
    /// A card of `queues` queues (0 counts as 1) that hashes addresses and ports of TCP and UDP,
    /// addresses of everything else, and deals its table of 128 entries, or one a queue, evenly.
    pub fn new(key: ToeplitzKey, queues: u16) -> Card {
        let queues = u32::from(queues.max(1));
        let table = (0..queues.max(ENTRIES.into())).map(|entry| entry % queues).collect();
        Card { key, table, queues, fields: RssFields::default(), transform: RssTransform::None }
    }

    /// The card behind an interface.
    ///
    /// # Errors
    /// Its key is too short for IPv6.
    pub fn of_interface(rss: &Rss) -> Result<Card, KeyTooShort> {
        let key = ToeplitzKey::new(&rss.key)?;
        let table = if rss.table.is_empty() { vec![0] } else { rss.table.clone() };
        let queues = table.iter().max().map_or(1, |most| most.saturating_add(1)).max(rss.queues);
        Ok(Card { key, table, queues, fields: rss.fields, transform: rss.transform })
    }

    /// The same card with another key, and nothing done to the words before hashing.
    pub fn with_key(&self, key: ToeplitzKey) -> Card {
        Card { key, transform: RssTransform::None, ..self.clone() }
    }

    /// How many queues it has.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// What it reads of a frame; `None` where it finds no IP header.
    pub fn see(&self, frame: &Frame<'_>) -> Option<Sight> {
        let (family, l3_offset) = ip_header(frame)?;
        let packet = frame.bytes.get(l3_offset..)?;
        if family == V4 { self.see_v4(packet, l3_offset) } else { self.see_v6(packet, l3_offset) }
    }

    fn see_v4(&self, packet: &[u8], l3_offset: usize) -> Option<Sight> {
        let header: &[u8; 20] = packet.first_chunk()?;
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0; // MF and offset, RFC 791 section 3.1
        let transport = packet.get(usize::from(header[0] & 15) * 4..).unwrap_or(&[]);
        let address = |at: usize| {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&header[at..at + 4]);
            address
        };
        Some(self.sight(V4, l3_offset, fragment, header[9], [address(12), address(16)], transport))
    }

    fn see_v6(&self, packet: &[u8], l3_offset: usize) -> Option<Sight> {
        let header: &[u8; 40] = packet.first_chunk()?;
        let fragment = header[6] == 44; // RFC 8200 section 4.5
        let address = |at: usize| std::array::from_fn(|n| header[at + n]);
        Some(self.sight(V6, l3_offset, fragment, header[6], [address(8), address(24)], &packet[40..]))
    }

    fn sight(
        &self,
        family: usize,
        l3_offset: usize,
        fragment: bool,
        protocol: u8,
        addresses: [[u8; 16]; 2],
        transport: &[u8],
    ) -> Sight {
        let transport: Option<&[u8; 4]> = transport.first_chunk().filter(|_| !fragment);
        let by_flow = match (protocol, transport) {
            (TCP, Some(_)) => self.fields.tcp[family],
            (UDP, Some(_)) => self.fields.udp[family],
            (SCTP, Some(_)) => self.fields.sctp[family],
            _ => self.fields.other[family],
        };
        // Ports are hashed only of the three that have them where they are looked for.
        let known = [TCP, UDP, SCTP].contains(&protocol);
        let [s0, s1, d0, d1] = transport.copied().filter(|_| known).unwrap_or_default();
        let [mut src, mut dst] = addresses.map(|address| (address, [0; 2]));
        (src.1, dst.1) = ([s0, s1], [d0, d1]);
        for (end, address, port) in
            [(&mut src, HashedFields::SRC, HashedFields::SPORT), (&mut dst, HashedFields::DST, HashedFields::DPORT)]
        {
            end.0 = if by_flow.has(address) { end.0 } else { [0; 16] };
            end.1 = if by_flow.has(port) { end.1 } else { [0; 2] };
        }
        let ports = by_flow.ports() && known && transport.is_some();
        Sight { l3_offset, fragment, ports, family, fields: by_flow, ends: [src, dst] }
    }

    /// The hash it computes.
    pub fn hash(&self, sight: &Sight) -> u32 {
        let [mut src, mut dst] = sight.ends;
        if self.transform != RssTransform::None {
            let (a, b) = (src, dst);
            let xor = |x: u8, y: u8| x ^ y;
            let or = if self.transform == RssTransform::OrXor { |x: u8, y: u8| x | y } else { xor };
            let both = |f: fn(u8, u8) -> u8| {
                (std::array::from_fn(|n| f(a.0[n], b.0[n])), std::array::from_fn(|n| f(a.1[n], b.1[n])))
            };
            (src, dst) = (both(or), both(xor));
        }
        // The words that are hashed stand one behind the other; the others take no room.
        let (mut input, mut len) = ([0u8; 36], 0);
        let mut push = |bit: u8, word: &[u8]| {
            if sight.fields.has(bit) {
                input[len..len + word.len()].copy_from_slice(word);
                len += word.len();
            }
        };
        let address_bytes = if sight.family == V4 { 4 } else { 16 };
        push(HashedFields::SRC, &src.0[..address_bytes]);
        push(HashedFields::DST, &dst.0[..address_bytes]);
        push(HashedFields::SPORT, &src.1);
        push(HashedFields::DPORT, &dst.1);
        self.key.hash(&input[..len])
    }

    /// The queue for what it sees: the first entry of the table where it sees nothing to hash.
    pub fn queue(&self, sight: Option<&Sight>) -> u32 {
        let hash = sight.map_or(0, |sight| self.hash(sight));
        self.table[hash as usize % self.table.len()]
    }
}

/// Family and offset of the outermost IP header, where a card finds one.
fn ip_header(frame: &Frame<'_>) -> Option<(usize, usize)> {
    let bytes = frame.bytes;
    let by_type = |at: usize, behind: usize| match bytes.get(at..at + 2)? {
        [0x08, 0x00] => Some((V4, behind)),
        [0x86, 0xdd] => Some((V6, behind)),
        _ => None,
    };
    let by_version = |at: usize| match bytes.get(at)? >> 4 {
        4 => Some((V4, at)),
        6 => Some((V6, at)),
        _ => None,
    };
    match frame.link {
        LinkType::ETHERNET => {
            let mut at = 12;
            for _ in 0..MOST_TAGS {
                match bytes.get(at..at + 2)? {
                    [0x81 | 0x91, 0x00] | [0x88, 0xa8] => at += 4,
                    _ => break,
                }
            }
            by_type(at, at + 2)
        }
        LinkType::LINUX_SLL => by_type(14, 16),
        LinkType::LINUX_SLL2 => by_type(0, 20),
        LinkType::RAW | LinkType::OLD_RAW_BSD | LinkType::OLD_RAW_OPENBSD | LinkType::IPV4 | LinkType::IPV6 => {
            by_version(0)
        }
        LinkType::NULL | LinkType::LOOP => by_version(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::{MICROSOFT_KEY, SYMMETRIC_KEY, card_hash, card_rss};
    use proptest::prelude::*;

    /// A UDP packet behind Ethernet; `word` is flags and fragment offset.
    fn udp(src: u8, sport: u16, dst: u8, dport: u16, word: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 9]);
        frame.extend(word.to_be_bytes());
        frame.extend([64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
        frame.extend([sport.to_be_bytes(), dport.to_be_bytes(), [0, 8], [0, 0]].concat());
        frame
    }

    fn queue(card: &Card, bytes: &[u8]) -> u32 {
        card.queue(card.see(&Frame::new(bytes, LinkType::ETHERNET)).as_ref())
    }

    fn rss(transform: RssTransform) -> Rss {
        Rss {
            key: MICROSOFT_KEY.to_vec(),
            table: (0..64).rev().collect(),
            queues: 64,
            fields: RssFields::default(),
            fields_told: true,
            transform,
        }
    }

    #[test]
    fn directions_differ_unless_key_or_transform_are_symmetric() {
        let there = |n: u16| udp(1, 1000 + n, 2, 53, 0);
        let back = |n: u16| udp(2, 53, 1, 1000 + n, 0);
        let whole = |card: &Card| (0..100).filter(|&n| queue(card, &there(n)) == queue(card, &back(n))).count();
        let plain = Card::of_interface(&rss(RssTransform::None)).expect("40 bytes");
        assert!(whole(&plain) < 10);
        assert_eq!(whole(&plain.with_key(ToeplitzKey::new(&SYMMETRIC_KEY).expect("40 bytes"))), 100);
        for transform in [RssTransform::Xor, RssTransform::OrXor] {
            assert_eq!(whole(&Card::of_interface(&rss(transform)).expect("40 bytes")), 100);
        }
        let see = |bytes: &[u8]| plain.see(&Frame::new(bytes, LinkType::ETHERNET)).expect("IP").without_direction();
        assert_eq!(see(&there(1)), see(&back(1)));
        assert_ne!(see(&there(1)), see(&there(2)));
        assert_ne!(see(&there(1)), see(&udp(1, 1001, 2, 53, 0x2000)));
    }

    #[test]
    fn an_interface_s_own_table_and_fields_are_followed() {
        let mut rss = rss(RssTransform::None);
        let key = ToeplitzKey::microsoft();
        let card = Card::of_interface(&rss).expect("40 bytes");
        let expected = 63 - key.hash_v4([10, 0, 0, 1], [10, 0, 0, 2], Some((7, 53))) % 64;
        assert_eq!(queue(&card, &udp(1, 7, 2, 53, 0)), expected);
        rss.fields.udp[V4] = HashedFields::ADDRESSES;
        let card = Card::of_interface(&rss).expect("40 bytes");
        assert_eq!(queue(&card, &udp(1, 7, 2, 53, 0)), queue(&card, &udp(1, 8, 2, 53, 0x2000)));
        rss.fields.udp[V4] = HashedFields::NONE;
        assert_eq!(queue(&Card::of_interface(&rss).expect("40 bytes"), &udp(1, 7, 2, 53, 0)), 63);
        rss.key.truncate(16);
        assert!(Card::of_interface(&rss).is_err());
        // No card has so many, but nobody falls over it.
        let rss = Rss { table: vec![u32::MAX], ..self::rss(RssTransform::None) };
        assert_eq!(Card::of_interface(&rss).expect("40 bytes").queues(), u32::MAX);
    }

    #[test]
    fn what_shows_no_ip_header_goes_to_the_first_entry() {
        let card = Card::of_interface(&rss(RssTransform::None)).expect("40 bytes");
        let mut frame = udp(1, 7, 2, 53, 0);
        frame[12..14].copy_from_slice(&[0x88, 0x64]);
        assert_eq!(queue(&card, &frame), 63);
        assert_eq!(queue(&card, &[]), 63);
    }

    #[test]
    fn packets_without_ethernet_are_taken_as_if_it_had_been_there() {
        let card = Card::new(ToeplitzKey::microsoft(), 64);
        let ethernet = udp(1, 7, 2, 53, 0);
        let ip = &ethernet[14..];
        let cooked = [&[0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0], ip].concat();
        let cooked2 = [&[8, 0][..], &[0; 18], ip].concat();
        let null = [&[2, 0, 0, 0], ip].concat();
        for (link, bytes) in [
            (LinkType::RAW, ip),
            (LinkType::LINUX_SLL, &cooked),
            (LinkType::LINUX_SLL2, &cooked2),
            (LinkType::NULL, &null),
        ] {
            let sight = card.see(&Frame::new(bytes, link));
            assert_eq!(card.queue(sight.as_ref()), queue(&card, &ethernet), "{}", link.name());
        }
        assert_eq!(card.see(&Frame::new(ip, LinkType::PPP)), None);
    }

    proptest! {
        /// The usual card is the one that the rest of the workspace counts by.
        #[test]
        fn agrees_with_the_usual_card(
            kind in 0usize..4, tags in 0usize..3, mut packet in proptest::collection::vec(any::<u8>(), 0..80), queues in 1u16..64,
        ) {
            if let Some(first) = packet.first_mut() {
                *first = if kind < 2 { 0x45 } else { 0x60 };
            }
            let mut frame = vec![0; 12];
            frame.extend([0x81, 0, 0, 5].repeat(tags));
            frame.extend(if kind < 2 { [8, 0] } else { [0x86, 0xdd] });
            if let Some(protocol) = packet.get_mut(if kind < 2 { 9 } else { 6 }) {
                *protocol = [6, 17, 47, 44][kind];
            }
            frame.extend(packet);
            let key = ToeplitzKey::microsoft();
            let frame = Frame::new(&frame, LinkType::ETHERNET);
            let card = Card::new(key.clone(), queues);
            let sight = card.see(&frame);
            prop_assert_eq!(sight.map(|s| card.hash(&s)), card_hash(&key, &frame));
            prop_assert_eq!(card.queue(sight.as_ref()), u32::from(card_rss(&key, &frame, queues)));
        }

        #[test]
        fn never_panics(link in 0u16..300, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let card = Card::new(ToeplitzKey::microsoft(), 4);
            prop_assert!(card.queue(card.see(&Frame::new(&bytes, LinkType(link))).as_ref()) < 4);
        }
    }
}
