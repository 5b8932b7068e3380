//! The commonest ways down in a straight line.
//!
//! What most traffic is made of: Ethernet, VLAN tags, MPLS, PPPoE, IPv4 without options, IPv6 without extension
//! headers, GRE, VXLAN, GTP-U, one in another in any order, ending in TCP, UDP or an ICMP query. At the first thing
//! that is anything else, damage included, it gives up, and the walk begins from the start: so it need not know what
//! is rare, and says nothing that [`walk`](crate::walk) does not. That both agree on every packet is what the tests
//! of every protocol, of random and damaged packets, and of real captures check.
//!
//! Cost: about a third of the walk's instructions.

use crate::dissection::{Dissection, Family, Ports, TunnelKind};
use crate::wire::{eth, gre, gtp, icmp, icmpv6, ipv4, ipv6, mpls, old_lan, pppoe, transport, udp, vlan, vxlan};
use crate::{Frame, KeyIds, KeyLevel, Layer, LinkType, Policy, Stop};

/// Most headers that are read here, and most tags or labels in a row.
const MOST_HEADERS: u8 = 16;
const MOST_TAGS: u8 = 4;
/// Most IP headers.
const MOST_DEPTH: u8 = 4;
/// What the policy must allow for all of that never to be too much.
const STEPS: u8 = MOST_HEADERS * (MOST_TAGS + 1) + 1;

const TYPE_V4: u16 = 0x0800;
const TYPE_V6: u16 = 0x86dd;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_SERVICE_VLAN: u16 = 0x88a8;
const TYPE_PPPOE: u16 = 0x8864;
const TYPE_MPLS: u16 = 0x8847;
const TYPE_BRIDGED: u16 = 0x6558;

const PROTO_ICMP: u8 = 1;
const PROTO_V4: u8 = 4;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const PROTO_V6: u8 = 41;
const PROTO_GRE: u8 = 47;
const PROTO_ICMPV6: u8 = 58;

/// What is read next.
#[derive(Clone, Copy)]
enum Next {
    Eth,
    Mpls,
    Pppoe,
    V4,
    V6,
}

/// What is left of a frame, and where that begins.
#[derive(Clone, Copy)]
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What was met on the way.
#[derive(Clone, Copy)]
struct Way {
    depth: u8,
    outer_l3: u16,
    vlan: Option<u16>,
    tunnel: Option<(TunnelKind, u32)>,
}

/// An IP header.
#[derive(Clone, Copy)]
struct Ip {
    family: Family,
    proto: u8,
    l3: usize,
    l4: usize,
}

/// How the way ends.
#[derive(Clone, Copy)]
struct Upper {
    ports: Ports,
    sport: u16,
    dport: u16,
    stop: Stop,
}

impl Policy {
    /// Whether nothing in this policy concerns what is read here.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.leave_alone.is_empty()
            && self.key == KeyLevel::Innermost
            && self.key_ids == KeyIds::NONE
            && !(self.key_vlan | self.key_vni)
            && self.max_steps >= STEPS
            && self.max_depth >= MOST_DEPTH
    }
}

/// Dissects a frame of a quick kind into a fresh [`Dissection::new`]: the same as [`dissect`](crate::dissect) finds.
/// Answers false, and writes nothing, if it is of no such kind, or if the policy wants more.
#[inline(always)]
pub(crate) fn quick(frame: &Frame<'_>, policy: &Policy, found: &mut Dissection) -> bool {
    way_down(frame, policy, found).is_some()
}

#[inline(always)]
fn way_down(frame: &Frame<'_>, policy: &Policy, found: &mut Dissection) -> Option<()> {
    if frame.link != LinkType::ETHERNET || frame.bytes.len() > usize::from(u16::MAX) || !policy.is_plain() {
        return None;
    }
    let mut rest = Rest { bytes: frame.bytes, at: 0 };
    let mut way = Way { depth: 0, outer_l3: 0, vlan: frame.stripped_vlan, tunnel: None };
    let ip = match rest.ethernet(&mut way)? {
        Next::V4 => rest.ipv4()?,
        Next::V6 => rest.ipv6()?,
        next => return deeper(rest, next, way, policy, found),
    };
    (way.depth, way.outer_l3) = (1, ip.l3 as u16);
    match rest.upper(&ip, policy) {
        Some(upper) => end(way, ip, upper, rest, found),
        None => return tunnelled(rest, ip, way, policy, found),
    }
    Some(())
}

/// Writes down what was found.
#[inline(always)]
fn end(way: Way, ip: Ip, upper: Upper, rest: Rest<'_>, found: &mut Dissection) {
    let flow = &mut found.flow;
    (flow.l3, flow.l4, flow.sport, flow.dport) = (ip.l3 as u16, ip.l4 as u16, upper.sport, upper.dport);
    (flow.family, flow.proto, flow.ports) = (ip.family, ip.proto, upper.ports);
    (found.depth, found.outer_l3, found.vlan, found.tunnel) = (way.depth, way.outer_l3, way.vlan, way.tunnel);
    (found.stop, found.has_mac) = (upper.stop, true);
    (found.payload, found.payload_end) = (rest.at as u16, (rest.at + rest.bytes.len()) as u16);
}

#[inline(never)]
fn tunnelled(mut rest: Rest<'_>, ip: Ip, mut way: Way, policy: &Policy, found: &mut Dissection) -> Option<()> {
    let next = rest.tunnel(&ip, &mut way, policy)?;
    deeper(rest, next, way, policy, found)
}

/// What is in a tunnel, and in a tunnel in that.
#[inline(never)]
fn deeper(mut rest: Rest<'_>, mut next: Next, mut way: Way, policy: &Policy, found: &mut Dissection) -> Option<()> {
    for _ in 0..MOST_HEADERS - 2 {
        let ip = match next {
            Next::Eth => {
                next = rest.ethernet(&mut way)?;
                continue;
            }
            Next::Mpls => {
                next = rest.mpls(&mut way)?;
                continue;
            }
            Next::Pppoe => {
                next = rest.pppoe(&mut way)?;
                continue;
            }
            Next::V4 => rest.ipv4()?,
            Next::V6 => rest.ipv6()?,
        };
        way.enter(&ip)?;
        if let Some(upper) = rest.upper(&ip, policy) {
            end(way, ip, upper, rest, found);
            return Some(());
        }
        next = rest.tunnel(&ip, &mut way, policy)?;
    }
    None
}

impl Way {
    /// Notes an IP header.
    #[inline(always)]
    fn enter(&mut self, ip: &Ip) -> Option<()> {
        if self.depth == 0 {
            self.outer_l3 = ip.l3 as u16;
        }
        self.depth += 1;
        (self.depth <= MOST_DEPTH).then_some(())
    }
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

impl<'a> Rest<'a> {
    #[inline(always)]
    fn header<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.bytes.first_chunk()
    }

    #[inline(always)]
    fn skip(&mut self, len: usize) -> Option<()> {
        self.bytes = self.bytes.get(len..)?;
        self.at += len;
        Some(())
    }

    #[inline(always)]
    fn clip(&mut self, len: usize) {
        self.bytes = self.bytes.get(..len).unwrap_or(self.bytes);
    }

    /// Ethernet and its VLAN tags.
    #[inline(always)]
    fn ethernet(&mut self, way: &mut Way) -> Option<Next> {
        let header: &[u8; eth::LEN] = self.header()?;
        if old_lan::is_isl(header) {
            return None;
        }
        let mut kind = word(header, 12);
        self.skip(eth::LEN)?;
        let mut tags = MOST_TAGS;
        while kind == TYPE_VLAN || kind == TYPE_SERVICE_VLAN {
            let tag: &[u8; vlan::LEN] = self.header()?;
            way.vlan = way.vlan.or(Some(word(tag, 0)));
            kind = word(tag, 2);
            self.skip(vlan::LEN)?;
            tags = tags.checked_sub(1)?;
        }
        by_type(kind)
    }

    #[inline(always)]
    fn mpls(&mut self, way: &mut Way) -> Option<Next> {
        let mut tags = MOST_TAGS;
        let label = loop {
            let entry = u32::from_be_bytes(*self.header::<{ mpls::LEN }>()?);
            self.skip(mpls::LEN)?;
            if entry & mpls::BOTTOM != 0 {
                break entry >> 12;
            }
            tags = tags.checked_sub(1)?;
        };
        // Anything that might be Ethernet after all is looked at with more care.
        if label == mpls::LABEL_GAL || matches!(word(self.bytes, 12), TYPE_V4 | TYPE_V6) {
            return None;
        }
        way.tunnel = Some((TunnelKind::Mpls, label));
        self.by_nibble()
    }

    #[inline(always)]
    fn pppoe(&mut self, way: &mut Way) -> Option<Next> {
        let header: &[u8; pppoe::LEN + 2] = self.header()?;
        if header[..2] != [pppoe::VERSION_AND_TYPE, pppoe::CODE_SESSION] {
            return None;
        }
        way.tunnel = Some((TunnelKind::Pppoe, word(header, 2).into()));
        self.skip(pppoe::LEN)?;
        self.clip(word(header, 4).into());
        self.skip(2)?;
        match word(header, 6) {
            0x0021 => Some(Next::V4),
            0x0057 => Some(Next::V6),
            _ => None,
        }
    }

    #[inline(always)]
    fn ipv4(&mut self) -> Option<Ip> {
        let header: &[u8; ipv4::MIN_LEN] = self.header()?;
        let (total, fragment) = (usize::from(word(header, 2)), word(header, 6));
        let whole = fragment & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0;
        if header[0] != 0x45 || !whole || total < ipv4::MIN_LEN {
            return None;
        }
        let l3 = self.at;
        self.clip(total);
        self.skip(ipv4::MIN_LEN)?;
        Some(Ip { family: Family::V4, proto: header[ipv4::PROTOCOL], l3, l4: self.at })
    }

    #[inline(always)]
    fn ipv6(&mut self) -> Option<Ip> {
        let header: &[u8; ipv6::LEN] = self.header()?;
        let payload = usize::from(word(header, 4));
        if header[0] >> 4 != 6 || payload == 0 {
            return None;
        }
        let l3 = self.at;
        self.skip(ipv6::LEN)?;
        self.clip(payload);
        Some(Ip { family: Family::V6, proto: header[6], l3, l4: self.at })
    }

    /// What ends the way; `None`, and nothing is read, for what may go on.
    #[inline(always)]
    fn upper(&mut self, ip: &Ip, policy: &Policy) -> Option<Upper> {
        match ip.proto {
            PROTO_TCP => self.tcp(),
            PROTO_UDP => self.udp(policy),
            PROTO_ICMP | PROTO_ICMPV6 => self.query(ip),
            _ => None,
        }
    }

    #[inline(always)]
    fn tcp(&mut self) -> Option<Upper> {
        let header: &[u8; transport::TCP_MIN_LEN] = self.header()?;
        let len = usize::from(header[transport::TCP_OFFSET] >> 4) * 4;
        if len < transport::TCP_MIN_LEN {
            return None;
        }
        self.skip(len)?;
        let (sport, dport) = (word(header, 0), word(header, 2));
        Some(Upper { ports: Ports::Transport, sport, dport, stop: Stop::Transport })
    }

    #[inline(always)]
    fn udp(&mut self, policy: &Policy) -> Option<Upper> {
        let header: &[u8; udp::LEN] = self.header()?;
        let (sport, dport, len) = (word(header, 0), word(header, 2), usize::from(word(header, 4)));
        if len < udp::LEN || policy.udp_tunnels.may_be_special(sport, dport) {
            return None;
        }
        self.clip(len);
        self.skip(udp::LEN)?;
        Some(Upper { ports: Ports::Transport, sport, dport, stop: Stop::Transport })
    }

    #[inline(always)]
    fn query(&mut self, ip: &Ip) -> Option<Upper> {
        let header: &[u8; icmp::LEN] = self.header()?;
        let query = if ip.proto == PROTO_ICMP { icmp::is_query(header[0]) } else { icmpv6::is_query(header[0]) };
        if !query {
            return None;
        }
        self.skip(icmp::LEN)?;
        Some(Upper { ports: Ports::IcmpId, sport: word(header, 4), dport: word(header, 4), stop: Stop::Icmp })
    }

    /// What an IP header carries that is no end of the way.
    #[inline(always)]
    fn tunnel(&mut self, ip: &Ip, way: &mut Way, policy: &Policy) -> Option<Next> {
        match ip.proto {
            PROTO_UDP => self.udp_tunnel(way, policy),
            PROTO_GRE => self.gre(way),
            PROTO_V4 => Some(Next::V4),
            PROTO_V6 => Some(Next::V6),
            _ => None,
        }
    }

    #[inline(always)]
    fn gre(&mut self, way: &mut Way) -> Option<Next> {
        let header: &[u8; gre::LEN] = self.header()?;
        let (flags, protocol) = (word(header, 0), word(header, 2));
        if flags & (gre::VERSION | gre::ROUTING) != 0 {
            return None;
        }
        self.skip(gre::LEN)?;
        if flags & gre::CHECKSUM != 0 {
            self.skip(4)?;
        }
        let mut key = 0;
        if flags & gre::KEY != 0 {
            key = u32::from_be_bytes(*self.header()?);
            self.skip(4)?;
        }
        if flags & gre::SEQUENCE != 0 {
            self.skip(4)?;
        }
        way.tunnel = Some((TunnelKind::Gre, key));
        if protocol == TYPE_BRIDGED { Some(Next::Eth) } else { by_type(protocol).filter(|n| !matches!(n, Next::Pppoe)) }
    }

    #[inline(always)]
    fn udp_tunnel(&mut self, way: &mut Way, policy: &Policy) -> Option<Next> {
        let header: &[u8; udp::LEN] = self.header()?;
        let len = usize::from(word(header, 4));
        if len < udp::LEN {
            return None;
        }
        self.clip(len);
        self.skip(udp::LEN)?;
        match policy.udp_tunnels.find(word(header, 0), word(header, 2))? {
            Layer::Vxlan => self.vxlan(way),
            Layer::Gtp => self.gtp(way),
            _ => None,
        }
    }

    #[inline(always)]
    fn vxlan(&mut self, way: &mut Way) -> Option<Next> {
        let header: &[u8; vxlan::LEN] = self.header()?;
        if header[0] & !vxlan::GROUP != vxlan::VALID {
            return None;
        }
        way.tunnel = Some((TunnelKind::Vxlan, u32::from_be_bytes(*header.last_chunk()?) >> 8));
        self.skip(vxlan::LEN)?;
        Some(Next::Eth)
    }

    #[inline(always)]
    fn gtp(&mut self, way: &mut Way) -> Option<Next> {
        let header: &[u8; gtp::LEN] = self.header()?;
        let user = header[0] & !gtp::OPTIONS == gtp::VERSION_1 << 5 | gtp::NOT_PRIME;
        if !user || header[1] != gtp::MESSAGE_USER {
            return None;
        }
        way.tunnel = Some((TunnelKind::Gtp, u32::from_be_bytes(*header.last_chunk()?)));
        self.skip(gtp::LEN)?;
        self.clip(word(header, 2).into());
        if header[0] & gtp::OPTIONS != 0 {
            let options: &[u8; gtp::OPTIONS_LEN] = self.header()?;
            self.skip(gtp::OPTIONS_LEN)?;
            if header[0] & gtp::EXTENSION != 0 {
                self.skip(gtp::extensions_len(options[3], self.bytes).ok()?)?;
            }
        }
        self.by_nibble()
    }

    /// What an IP packet begins with, where nothing else says its version.
    #[inline(always)]
    fn by_nibble(&self) -> Option<Next> {
        match self.bytes.first()? >> 4 {
            4 => Some(Next::V4),
            6 => Some(Next::V6),
            _ => None,
        }
    }
}

#[inline(always)]
fn by_type(kind: u16) -> Option<Next> {
    match kind {
        TYPE_V4 => Some(Next::V4),
        TYPE_V6 => Some(Next::V6),
        TYPE_PPPOE => Some(Next::Pppoe),
        TYPE_MPLS => Some(Next::Mpls),
        _ => None,
    }
}
