//! What rules ask of a packet, gathered once.

use flowyard_mem::Tag;
use flowyard_steer::{Dissection, Family, Fragment, Level, TunnelKind};

use super::set::Ends;

/// The packet has an IP header.
pub(super) const IP: u64 = 1 << 12;
/// Its transport has ports, and they were captured.
pub(super) const PORTS: u64 = 1 << 13;
/// The flow's family is IPv4.
pub(super) const V4: u64 = 1 << 14;
/// The flow's family is IPv6.
pub(super) const V6: u64 = 1 << 15;
/// Stands for "no VLAN", beside the identifiers 0 to 4095.
pub(super) const NO_VLAN: u32 = 4096;

/// A part of the word: where it is, and how many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part(u32, u32);

pub(super) const PROTOCOL: Part = Part(0, 8);
/// 0 none, 1 first, 2 later.
pub(super) const FRAGMENT: Part = Part(8, 2);
/// 1 for an ICMP error that quotes a packet.
pub(super) const ICMP_ERROR: Part = Part(10, 1);
/// 0 none, else `TunnelKind`.
pub(super) const TUNNEL: Part = Part(16, 4);
pub(super) const STOP: Part = Part(20, 8);
/// The outermost VLAN's identifier, or [`NO_VLAN`].
pub(super) const VLAN: Part = Part(32, 13);
/// The yard's port.
pub(super) const PORT_NUMBER: Part = Part(48, 16);

impl Part {
    pub(super) fn mask(self) -> u64 {
        ((1 << self.1) - 1) << self.0
    }

    /// `value` at its place in a word.
    #[inline]
    pub(super) fn at_place(self, value: u32) -> u64 {
        u64::from(value) << self.0 & self.mask()
    }

    /// The value of the part in `word`.
    #[inline]
    pub(super) fn of(self, word: u64) -> u32 {
        ((word & self.mask()) >> self.0) as u32
    }
}

/// The number of a kind of fragment in [`FRAGMENT`].
pub(super) const fn fragment_number(fragment: Fragment) -> u32 {
    match fragment {
        Fragment::None => 0,
        Fragment::First => 1,
        Fragment::Later => 2,
    }
}

/// Says that there is no IP header.
const NOWHERE: usize = usize::MAX;
/// Length of the fixed IPv6 header (RFC 8200 section 3).
pub(super) const IPV6_HEADER: usize = 40;
/// Length of the ICMP header in front of what an error quotes (RFC 792, RFC 4443 section 3).
const ICMP_HEADER: usize = 8;

/// The facts of a packet. The flow is the one that makes the built-in key: the innermost, or for an ICMP
/// error the one that it quotes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) word: u64,
    pub(super) sport: u16,
    pub(super) dport: u16,
    /// The flow's addresses, if they are IPv4: 0 until [`Facts::read_addresses`].
    pub(super) src: u32,
    pub(super) dst: u32,
    pub(super) link: u16,
    pub(super) wire_len: u32,
    pub(super) tunnel_id: u32,
    /// An ICMP error that came in no tunnel: what it quotes is judged in its place.
    pub(super) bare_error: bool,
    /// Where the flow's IP header starts.
    flow_l3: usize,
    /// Where its transport header starts.
    flow_l4: usize,
    /// Where the outermost IP header starts; that of the quotation, for a bare error.
    outer_l3: usize,
}

/// The level that rules ask about, if there is one. A key may do without ports that the packet has: rules see them.
#[inline]
pub(super) fn flow_level(found: &Dissection) -> Option<&Level> {
    let (key, innermost) = (found.key_level()?, found.innermost()?);
    Some(if key.l3_offset() == innermost.l3_offset() { innermost } else { key })
}

/// The outermost VLAN's identifier, or [`NO_VLAN`].
#[inline]
pub(super) fn vlan(found: &Dissection) -> u32 {
    found.vlan().map_or(NO_VLAN, |tci| u32::from(tci & 0xfff))
}

impl Facts {
    /// Those of no packet.
    pub(super) const NONE: Facts = Facts {
        word: 0,
        sport: 0,
        dport: 0,
        src: 0,
        dst: 0,
        link: 0,
        wire_len: 0,
        tunnel_id: 0,
        bare_error: false,
        flow_l3: NOWHERE,
        flow_l4: NOWHERE,
        outer_l3: NOWHERE,
    };

    /// What is known of a packet without its bytes.
    #[inline]
    pub(super) fn read(found: &Dissection, tag: &Tag) -> Facts {
        let mut facts = Facts {
            word: PORT_NUMBER.at_place(tag.port.into()) | STOP.at_place(found.stop() as u32),
            link: found.link().0,
            wire_len: tag.wire_len,
            ..Facts::NONE
        };
        facts.word |= VLAN.at_place(vlan(found));
        if let Some((kind, id)) = found.tunnel() {
            facts.word |= TUNNEL.at_place(kind as u32);
            facts.tunnel_id = id;
        }
        let (Some(level), Some(key), Some(innermost)) = (flow_level(found), found.key_level(), found.innermost())
        else {
            return facts;
        };
        facts.word |= IP | PROTOCOL.at_place(level.proto().into());
        facts.word |= if level.family() == Family::V4 { V4 } else { V6 };
        if let (Some(sport), Some(dport)) = (level.sport(), level.dport()) {
            (facts.sport, facts.dport) = (sport, dport);
            facts.word |= PORTS;
        }
        let fragment = match level.fragment() {
            Fragment::None if found.has_first_fragments() => Fragment::First,
            fragment => fragment,
        };
        facts.word |= FRAGMENT.at_place(fragment_number(fragment));
        (facts.flow_l3, facts.flow_l4) = (level.l3_offset(), level.l4_offset());
        facts.outer_l3 = found.outer_l3_offset().unwrap_or(NOWHERE);
        let mut deepest = innermost;
        if found.is_icmp_error() {
            facts.word |= ICMP_ERROR.at_place(1);
            deepest = key;
            if found.depth() == 1 {
                facts.bare_error = true;
                facts.outer_l3 = innermost.l4_offset() + ICMP_HEADER;
            }
        }
        // One IP header in another, with no name between them.
        if found.tunnel().is_none() && deepest.l3_offset() != facts.outer_l3 {
            facts.word |= TUNNEL.at_place(TunnelKind::Ip as u32);
        }
        facts
    }

    /// Reads the flow's addresses, where they are IPv4, to be compared at once.
    #[inline]
    pub(super) fn read_addresses(&mut self, bytes: &[u8]) {
        if let Some(Ends::V4(src, dst)) = self.ends(bytes) {
            (self.src, self.dst) = (src, dst);
        } else {
            self.word &= !V4; // not captured: no network has them
        }
    }

    #[inline]
    pub(super) fn part(&self, part: Part) -> u32 {
        part.of(self.word)
    }

    #[inline]
    pub(super) fn has(&self, bits: u64) -> bool {
        self.word & bits == bits
    }

    /// Whether all pieces of the flow's datagram show its protocol and addresses: the protocol carries no tunnel
    /// and quotes no packet, so nothing is to be found further in.
    pub(super) fn shows_its_flow(&self) -> bool {
        self.has(IP) && matches!(self.part(PROTOCOL), 6 | 33 | 132 | 136) // TCP, DCCP, SCTP, UDP-Lite
    }

    /// The flow's addresses.
    #[inline]
    pub(super) fn ends(&self, bytes: &[u8]) -> Option<Ends> {
        addresses(self.flow(bytes)?)
    }

    /// The addresses of the outermost IP header.
    #[inline]
    pub(super) fn outer_ends(&self, bytes: &[u8]) -> Option<Ends> {
        addresses(self.outermost(bytes)?)
    }

    /// The packet from the flow's IP header on.
    #[inline]
    pub(super) fn flow<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.flow_l3..)
    }

    /// The packet from the flow's transport header on, if other headers stand between that and the IP header: IPv6
    /// extension headers, AH. `None` for later fragments, which have none.
    #[inline]
    pub(super) fn transport_apart<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let header = match self.flow(bytes)?.first()? {
            first if first >> 4 == 4 => usize::from(first & 15) * 4,
            _ => IPV6_HEADER,
        };
        let apart = self.flow_l4 > self.flow_l3 + header && self.part(FRAGMENT) != fragment_number(Fragment::Later);
        if apart { bytes.get(self.flow_l4..) } else { None }
    }

    /// The packet from the outermost IP header on.
    #[inline]
    pub(super) fn outermost<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.outer_l3..)
    }
}

/// The addresses of an IP header (RFC 791 section 3.1, RFC 8200 section 3).
#[inline]
fn addresses(header: &[u8]) -> Option<Ends> {
    match header.first()? >> 4 {
        4 => {
            let both = u64::from_be_bytes(*header.get(12..)?.first_chunk()?);
            Some(Ends::V4((both >> 32) as u32, both as u32))
        }
        6 => {
            let address = |at: usize| Some(u128::from_be_bytes(*header.get(at..)?.first_chunk()?));
            Some(Ends::V6(address(8)?, address(24)?))
        }
        _ => None,
    }
}
