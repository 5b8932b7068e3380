//! The commonest ways down in a straight line.
//!
//! What most traffic is made of: Ethernet, VLAN tags, MPLS, PPPoE, IPv4 without options, IPv6 without extension
//! headers, GRE, VXLAN, GTP-U, one in another in any order, ending in TCP, UDP or an ICMP query. At the first thing
//! that is anything else, damage included, it gives up, and the walk begins from the start: so it need not know what
//! is rare, and says nothing that [`walk`](crate::walk) does not. That both agree on every packet is what the tests
//! of every protocol, of random and damaged packets, and of real captures check.
//!
//! What is asked of every packet and comes out one way or the other at random is computed both ways and chosen, not
//! branched on (TCP or UDP, which end is lower); one comparison with the end of the frame serves all fields of a header.
//!
//! Cost: about a fifth of the walk's instructions.

use core::hint::select_unpredictable;

use crate::dissection::{Dissection, Family, Ports, TunnelKind};
use crate::wire::{eth, gre, gtp, icmp, icmpv6, ipv4, ipv6, mpls, old_lan, pppoe, transport, udp, vlan, vxlan};
use crate::{Conversation, Frame, KeyIds, KeyLevel, Layer, LinkType, Policy, Stop};

/// Most tags or labels in a row.
const MOST_TAGS: u8 = 4;
/// Most IP headers; behind each there may be UDP and what is in that.
const MOST_DEPTH: u8 = 4;
/// Most headers of other kinds below the first ones, and IP headers, together.
const MOST_STAGES: u8 = 12;
/// What the policy must allow for all of that never to be too much.
const STEPS: u8 = (MOST_STAGES + 2) * (MOST_TAGS + 1) + 2 * MOST_DEPTH;

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

/// What was found: as much as [`Dissection`] says of such a packet.
#[derive(Clone, Copy)]
pub(crate) struct Quick {
    pub(crate) l3: u16,
    pub(crate) l4: u16,
    pub(crate) outer_l3: u16,
    sport: u16,
    dport: u16,
    payload: u16,
    payload_end: u16,
    pub(crate) family: Family,
    pub(crate) proto: u8,
    pub(crate) depth: u8,
    ports: Ports,
    pub(crate) stop: Stop,
    pub(crate) vlan: Option<u16>,
    pub(crate) tunnel: Option<(TunnelKind, u32)>,
}

impl Quick {
    /// Into a [blank](Dissection::BLANK) dissection.
    #[inline(always)]
    pub(crate) fn write(&self, found: &mut Dissection) {
        let flow = &mut found.flow;
        (flow.l3, flow.l4, flow.sport, flow.dport) = (self.l3, self.l4, self.sport, self.dport);
        (flow.family, flow.proto, flow.ports) = (self.family, self.proto, self.ports);
        (found.depth, found.outer_l3, found.vlan, found.tunnel) = (self.depth, self.outer_l3, self.vlan, self.tunnel);
        (found.stop, found.has_mac) = (self.stop, true);
        (found.payload, found.payload_end) = (self.payload, self.payload_end);
    }
}

/// How far the way down is, and what was met on it.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The frame, up to where what is being read ends.
    bytes: &'a [u8],
    /// Where the next header begins: beyond the end where there is none, and nothing is read there. Of 32 bits, so that
    /// no sum with a length overflows, and none is checked for it.
    at: u32,
    depth: u8,
    outer_l3: u16,
    vlan: Option<u16>,
    tunnel: Option<(TunnelKind, u32)>,
}

/// The addresses of an IP header, source and destination.
#[derive(Clone, Copy)]
enum Addresses<'a> {
    V4(&'a [u8; 8]),
    V6(&'a [u8; 32]),
}

/// An IP header.
#[derive(Clone, Copy)]
struct Ip<'a> {
    addresses: Addresses<'a>,
    proto: u8,
    l3: usize,
}

/// Where the way is.
#[derive(Clone, Copy)]
enum Stage<'a> {
    /// Before this header.
    Header(Next),
    /// Behind an IP header that does not end it.
    Within(Ip<'a>),
}

/// How the way ends.
#[derive(Clone, Copy)]
struct Upper {
    ports: Ports,
    sport: u16,
    dport: u16,
    payload: usize,
    payload_end: usize,
    stop: Stop,
}

impl Policy {
    /// Whether nothing in this policy concerns what is read here.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.leave_alone.is_empty()
            && self.key == KeyLevel::Innermost
            && self.key_ids == KeyIds::NONE
            && !(self.key_vlan | self.key_vni)
            && self.max_steps >= STEPS
            && self.max_depth >= MOST_DEPTH
    }
}

/// Who is told what was found: at the place where it is, so that it need not be gathered in memory first.
pub(crate) trait Sink {
    fn found(&mut self, found: Quick, conversation: &Conversation);
}

/// Into a [blank](Dissection::BLANK) one.
impl Sink for Dissection {
    #[inline(always)]
    fn found(&mut self, found: Quick, _: &Conversation) {
        found.write(self);
    }
}

/// Dissects a frame of a quick kind, and tells `sink`: the same as [`dissect`](crate::dissect) finds. Answers `None`, and
/// tells nothing, if it is of no such kind, or if the policy wants more.
#[inline(always)]
pub(crate) fn quick<S: Sink>(frame: &Frame<'_>, policy: &Policy, sink: &mut S) -> Option<()> {
    if policy.is_plain() { quick_plain(frame, policy, sink) } else { None }
}

/// The same for a policy that is known to be [plain](Policy::is_plain).
#[inline(always)]
pub(crate) fn quick_plain<S: Sink>(frame: &Frame<'_>, policy: &Policy, sink: &mut S) -> Option<()> {
    if frame.link != LinkType::ETHERNET || frame.bytes.len() > usize::from(u16::MAX) {
        return None;
    }
    let (vlan, bytes) = (frame.stripped_vlan, frame.bytes);
    let mut way = Way { bytes, at: 0, depth: 0, outer_l3: 0, vlan, tunnel: None };
    match way.ethernet()? {
        Next::V4 => {
            let ip = way.ipv4()?;
            way.outermost(ip, policy, sink)
        }
        Next::V6 => {
            let ip = way.ipv6()?;
            way.outermost(ip, policy, sink)
        }
        next => deeper(way, Stage::Header(next), policy, sink),
    }
}

/// What is below the first headers: in a tunnel, and in a tunnel in that.
#[inline(never)]
fn deeper<'a, S: Sink>(mut way: Way<'a>, mut at: Stage<'a>, policy: &Policy, sink: &mut S) -> Option<()> {
    for _ in 0..MOST_STAGES {
        let next = match at {
            Stage::Header(next) => next,
            Stage::Within(ip) => way.tunnel(&ip, policy)?,
        };
        let ip = match next {
            Next::V4 => way.ipv4()?,
            Next::V6 => way.ipv6()?,
            Next::Eth => {
                at = Stage::Header(way.ethernet()?);
                continue;
            }
            Next::Mpls => {
                at = Stage::Header(way.mpls()?);
                continue;
            }
            Next::Pppoe => {
                at = Stage::Header(way.pppoe()?);
                continue;
            }
        };
        if way.depth == 0 {
            way.outer_l3 = ip.l3 as u16;
        }
        way.depth += 1;
        if way.depth > MOST_DEPTH {
            return None;
        }
        if let Some(upper) = way.upper(&ip, policy) {
            way.end(&ip, &upper, sink);
            return Some(());
        }
        at = Stage::Within(ip);
    }
    None
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// `N` of the bytes of a header, from `at`, which the caller knows to be in it.
#[inline(always)]
fn part<const N: usize>(header: &[u8], at: usize) -> &[u8; N] {
    header.get(at..).and_then(<[u8]>::first_chunk).unwrap_or(&[0; N])
}

impl<'a> Way<'a> {
    #[inline(always)]
    fn header<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.bytes.get(self.here()..self.here() + N)?.first_chunk()
    }

    #[inline(always)]
    fn here(&self) -> usize {
        self.at as usize
    }

    #[inline(always)]
    fn skip(&mut self, len: usize) {
        self.at += len as u32;
    }

    /// Forgets what lies beyond `len` bytes from here.
    #[inline(always)]
    fn clip(&mut self, len: usize) {
        self.bytes = self.bytes.get(..self.here() + len).unwrap_or(self.bytes);
    }

    /// The outermost IP header, and what is behind it.
    #[inline(always)]
    fn outermost<S: Sink>(mut self, ip: Ip<'a>, policy: &Policy, sink: &mut S) -> Option<()> {
        (self.depth, self.outer_l3) = (1, ip.l3 as u16);
        match self.upper(&ip, policy) {
            Some(upper) => self.end(&ip, &upper, sink),
            None => return deeper(self, Stage::Within(ip), policy, sink),
        }
        Some(())
    }

    /// Tells all that was found.
    #[inline(always)]
    fn end<S: Sink>(&self, ip: &Ip<'_>, upper: &Upper, sink: &mut S) {
        let ports = (upper.sport, upper.dport);
        let (family, len, conversation) = match ip.addresses {
            Addresses::V4(both) => (Family::V4, ipv4::MIN_LEN, Conversation::between_v4(both, ports, ip.proto, 0)),
            Addresses::V6(both) => (Family::V6, ipv6::LEN, Conversation::between_v6(both, ports, ip.proto, 0)),
        };
        let found = Quick {
            l3: ip.l3 as u16,
            l4: (ip.l3 + len) as u16,
            outer_l3: self.outer_l3,
            sport: upper.sport,
            dport: upper.dport,
            payload: upper.payload as u16,
            payload_end: upper.payload_end as u16,
            family,
            proto: ip.proto,
            depth: self.depth,
            ports: upper.ports,
            stop: upper.stop,
            vlan: self.vlan,
            tunnel: self.tunnel,
        };
        sink.found(found, &conversation);
    }

    /// Ethernet and its VLAN tags.
    #[inline(always)]
    fn ethernet(&mut self) -> Option<Next> {
        let header: &[u8; eth::LEN] = self.header()?;
        if old_lan::is_isl(header) {
            return None;
        }
        let mut kind = word(header, 12);
        self.skip(eth::LEN);
        let mut tags = MOST_TAGS;
        while kind == TYPE_VLAN || kind == TYPE_SERVICE_VLAN {
            let tag: &[u8; vlan::LEN] = self.header()?;
            self.vlan = self.vlan.or(Some(word(tag, 0)));
            kind = word(tag, 2);
            self.skip(vlan::LEN);
            tags = tags.checked_sub(1)?;
        }
        by_type(kind)
    }

    #[inline(always)]
    fn mpls(&mut self) -> Option<Next> {
        let mut tags = MOST_TAGS;
        let label = loop {
            let entry = u32::from_be_bytes(*self.header::<{ mpls::LEN }>()?);
            self.skip(mpls::LEN);
            if entry & mpls::BOTTOM != 0 {
                break entry >> 12;
            }
            tags = tags.checked_sub(1)?;
        };
        // Anything that might be Ethernet after all is looked at with more care.
        if label == mpls::LABEL_GAL || matches!(word(self.bytes, self.here() + 12), TYPE_V4 | TYPE_V6) {
            return None;
        }
        self.tunnel = Some((TunnelKind::Mpls, label));
        self.by_nibble()
    }

    #[inline(always)]
    fn pppoe(&mut self) -> Option<Next> {
        let header: &[u8; pppoe::LEN + 2] = self.header()?;
        if header[..2] != [pppoe::VERSION_AND_TYPE, pppoe::CODE_SESSION] {
            return None;
        }
        self.tunnel = Some((TunnelKind::Pppoe, word(header, 2).into()));
        self.skip(pppoe::LEN);
        self.clip(word(header, 4).into());
        self.skip(2);
        match word(header, 6) {
            0x0021 => Some(Next::V4),
            0x0057 => Some(Next::V6),
            _ => None,
        }
    }

    #[inline(always)]
    fn ipv4(&mut self) -> Option<Ip<'a>> {
        let header: &[u8; ipv4::MIN_LEN] = self.header()?;
        let (total, fragment) = (usize::from(word(header, 2)), word(header, 6));
        let whole = fragment & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0;
        if (header[0] != 0x45) | !whole | (total < ipv4::MIN_LEN) {
            return None;
        }
        let l3 = self.here();
        self.clip(total);
        self.skip(ipv4::MIN_LEN);
        let addresses = Addresses::V4(part(header, ipv4::ADDRESSES.start));
        Some(Ip { addresses, proto: header[ipv4::PROTOCOL], l3 })
    }

    #[inline(always)]
    fn ipv6(&mut self) -> Option<Ip<'a>> {
        let header: &[u8; ipv6::LEN] = self.header()?;
        let payload = usize::from(word(header, 4));
        if (header[0] >> 4 != 6) | (payload == 0) {
            return None;
        }
        let l3 = self.here();
        self.skip(ipv6::LEN);
        self.clip(payload);
        let addresses = Addresses::V6(part(header, ipv6::ADDRESSES.start));
        Some(Ip { addresses, proto: header[6], l3 })
    }

    /// What ends the way; `None`, and nothing is read, for what may go on.
    #[inline(always)]
    fn upper(&self, ip: &Ip<'_>, policy: &Policy) -> Option<Upper> {
        match ip.proto {
            PROTO_TCP | PROTO_UDP => self.transport(ip.proto == PROTO_TCP, policy),
            PROTO_ICMP | PROTO_ICMPV6 => self.query(ip.proto == PROTO_ICMP),
            _ => None,
        }
    }

    /// TCP, or UDP.
    #[inline(always)]
    fn transport(&self, tcp: bool, policy: &Policy) -> Option<Upper> {
        let header: &[u8; udp::LEN] = self.header()?;
        let (sport, dport, udp_len) = (word(header, 0), word(header, 2), usize::from(word(header, 4)));
        let offset = self.bytes.get(self.here() + transport::TCP_OFFSET).copied().unwrap_or(0);
        let tcp_len = usize::from(offset >> 4) * 4;
        let all = self.bytes.len();
        let special = policy.udp_tunnels.may_be_special(sport, dport);
        let len = select_unpredictable(tcp, tcp_len, udp::LEN);
        let end = select_unpredictable(tcp, all, all.min(self.here() + udp_len));
        let refused = (tcp & (tcp_len < transport::TCP_MIN_LEN)) | (!tcp & ((udp_len < udp::LEN) | special));
        let payload = self.here() + len;
        if refused | (payload > end) {
            return None;
        }
        Some(Upper { ports: Ports::Transport, sport, dport, payload, payload_end: end, stop: Stop::Transport })
    }

    #[inline(always)]
    fn query(&self, v4: bool) -> Option<Upper> {
        let header: &[u8; icmp::LEN] = self.header()?;
        let query = if v4 { icmp::is_query(header[0]) } else { icmpv6::is_query(header[0]) };
        if !query {
            return None;
        }
        let (id, payload, payload_end) = (word(header, 4), self.here() + icmp::LEN, self.bytes.len());
        Some(Upper { ports: Ports::IcmpId, sport: id, dport: id, payload, payload_end, stop: Stop::Icmp })
    }

    /// What an IP header carries that is no end of the way.
    #[inline(always)]
    fn tunnel(&mut self, ip: &Ip<'_>, policy: &Policy) -> Option<Next> {
        match ip.proto {
            PROTO_UDP => self.udp_tunnel(policy),
            PROTO_GRE => self.gre(),
            PROTO_V4 => Some(Next::V4),
            PROTO_V6 => Some(Next::V6),
            _ => None,
        }
    }

    #[inline(always)]
    fn gre(&mut self) -> Option<Next> {
        let header: &[u8; gre::LEN] = self.header()?;
        let (flags, protocol) = (word(header, 0), word(header, 2));
        if flags & (gre::VERSION | gre::ROUTING) != 0 {
            return None;
        }
        self.skip(gre::LEN);
        if flags & gre::CHECKSUM != 0 {
            self.skip(4);
        }
        let mut key = 0;
        if flags & gre::KEY != 0 {
            key = u32::from_be_bytes(*self.header()?);
            self.skip(4);
        }
        if flags & gre::SEQUENCE != 0 {
            self.skip(4);
        }
        self.tunnel = Some((TunnelKind::Gre, key));
        if protocol == TYPE_BRIDGED { Some(Next::Eth) } else { by_type(protocol).filter(|n| !matches!(n, Next::Pppoe)) }
    }

    #[inline(always)]
    fn udp_tunnel(&mut self, policy: &Policy) -> Option<Next> {
        let header: &[u8; udp::LEN] = self.header()?;
        let len = usize::from(word(header, 4));
        if len < udp::LEN {
            return None;
        }
        self.clip(len);
        self.skip(udp::LEN);
        match policy.udp_tunnels.find(word(header, 0), word(header, 2))? {
            Layer::Vxlan => self.vxlan(),
            Layer::Gtp => self.gtp(),
            _ => None,
        }
    }

    #[inline(always)]
    fn vxlan(&mut self) -> Option<Next> {
        let header: &[u8; vxlan::LEN] = self.header()?;
        if header[0] & !vxlan::GROUP != vxlan::VALID {
            return None;
        }
        self.tunnel = Some((TunnelKind::Vxlan, u32::from_be_bytes(*header.last_chunk()?) >> 8));
        self.skip(vxlan::LEN);
        Some(Next::Eth)
    }

    #[inline(always)]
    fn gtp(&mut self) -> Option<Next> {
        let header: &[u8; gtp::LEN] = self.header()?;
        let user = header[0] & !gtp::OPTIONS == gtp::VERSION_1 << 5 | gtp::NOT_PRIME;
        if !user || header[1] != gtp::MESSAGE_USER {
            return None;
        }
        self.tunnel = Some((TunnelKind::Gtp, u32::from_be_bytes(*header.last_chunk()?)));
        self.skip(gtp::LEN);
        self.clip(word(header, 2).into());
        if header[0] & gtp::OPTIONS != 0 {
            let options: &[u8; gtp::OPTIONS_LEN] = self.header()?;
            self.skip(gtp::OPTIONS_LEN);
            if header[0] & gtp::EXTENSION != 0 {
                self.skip(gtp::extensions_len(options[3], self.bytes.get(self.here()..)?).ok()?);
            }
        }
        self.by_nibble()
    }

    /// What an IP packet begins with, where nothing else says its version.
    #[inline(always)]
    fn by_nibble(&self) -> Option<Next> {
        match self.bytes.get(self.here())? >> 4 {
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
