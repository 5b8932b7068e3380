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
//! What is met on the way is one word, and all is told at the place where it is found, so that little of it is ever in
//! memory; nothing whose address is taken may hold it, not even for a seldom case.
//!
//! Cost: less than half of the walk's instructions.

use core::hint::select_unpredictable;

use crate::dissection::{Dissection, Family, Peers, Ports, TunnelKind};
use crate::hash::Keys;
use crate::udp_tunnels::Special;
use crate::wire::{eth, gre, gtp, icmp, icmpv6, ipv4, ipv6, mpls, old_lan, pppoe, transport, udp, vlan, vxlan};
use crate::{Conversation, Frame, KeyIds, KeyLevel, Layer, LinkType, Policy, Stop};

/// Most tags in a row, and most labels above the bottom one.
const MOST_TAGS: u8 = 4;
/// Most IP headers; behind each there may be UDP and what is in that.
const MOST_DEPTH: u8 = 4;
/// What the policy must allow for all of that never to be too much: above each IP header Ethernet, tags, PPPoE or labels, and
/// behind it UDP and a tunnel's header.
const STEPS: u8 = MOST_DEPTH * (2 * MOST_TAGS + 5);

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

/// A bit for each protocol whose end is told where its IP header is read, if its ports are not special.
const ENDS: u64 = 1 << PROTO_TCP | 1 << PROTO_UDP;
/// All bits for the protocols whose ports may be special. To look it up is not to ask: compilers make branches of questions, and
/// one of two protocols is as random as traffic.
static BY_PORTS: [u8; 256] = {
    let mut by_ports = [0; 256];
    by_ports[PROTO_UDP as usize] = u8::MAX;
    by_ports
};

/// What is read next.
#[derive(Clone, Copy)]
enum Next {
    Eth,
    Mpls,
    Pppoe,
    V4,
    V6,
}

/// What was met on the way, as a tag has it: a tunnel's identifier in 32 bits, its kind in 8, and the TCI of the outermost
/// VLAN tag in the highest 16. One word, so that it stays in a register.
#[derive(Clone, Copy)]
pub(crate) struct Met(u64);

impl Met {
    /// Set if there was a VLAN tag, whatever its TCI.
    const TAGGED: u64 = 1 << 40;

    #[inline(always)]
    pub(crate) fn new(vlan: Option<u16>) -> Met {
        Met(u64::from(vlan.unwrap_or(0)) << 48 | u64::from(vlan.is_some()) << 40)
    }

    /// A tag: of several the outermost counts.
    #[inline(always)]
    fn tag(&mut self, tci: u16) {
        if self.0 & Met::TAGGED == 0 {
            self.0 |= u64::from(tci) << 48 | Met::TAGGED;
        }
    }

    /// A tunnel: of several the innermost counts.
    #[inline(always)]
    fn tunnel(&mut self, kind: TunnelKind, id: u32) {
        self.0 = self.0 & (0xffff << 48 | Met::TAGGED) | (kind as u64) << 32 | u64::from(id);
    }

    /// As the third word of a [glance](crate::Glance).
    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        self.0 & !Met::TAGGED
    }

    #[inline(always)]
    fn vlan(self) -> Option<u16> {
        (self.0 & Met::TAGGED != 0).then_some((self.0 >> 48) as u16)
    }

    #[inline(always)]
    fn innermost(self) -> Option<(TunnelKind, u32)> {
        // All that `tunnel` is called with.
        const KINDS: [TunnelKind; 5] =
            [TunnelKind::Gre, TunnelKind::Gtp, TunnelKind::Vxlan, TunnelKind::Pppoe, TunnelKind::Mpls];
        let kind = (self.0 >> 32) as u8;
        KINDS.into_iter().find(|&known| known as u8 == kind).map(|kind| (kind, self.0 as u32))
    }
}

/// The addresses of an IP header, source and destination.
#[derive(Clone, Copy)]
pub(crate) enum Ends {
    V4(u32, u32),
    V6([u64; 2], [u64; 2]),
}

/// What was found: as much as [`Dissection`] says of such a packet. Offsets are in bytes from the start of the frame.
#[derive(Clone, Copy)]
pub(crate) struct Quick {
    pub(crate) l3: u32,
    pub(crate) l4: u32,
    pub(crate) outer_l3: u32,
    pub(crate) depth: u8,
    pub(crate) proto: u8,
    pub(crate) met: Met,
    pub(crate) ends: Ends,
    pub(crate) upper: Upper,
}

impl Quick {
    /// Into a [blank](Dissection::BLANK) dissection.
    #[inline(always)]
    pub(crate) fn write(&self, found: &mut Dissection) {
        let (flow, upper) = (&mut found.flow, &self.upper);
        (flow.l3, flow.l4) = (self.l3 as u16, self.l4 as u16);
        (flow.sport, flow.dport) = ((upper.ports >> 16) as u16, upper.ports as u16);
        (flow.family, flow.proto, flow.ports) = (self.family(), self.proto, upper.kind);
        (found.depth, found.outer_l3, found.stop, found.has_mac) = (self.depth, self.outer_l3 as u16, upper.stop, true);
        (found.vlan, found.tunnel) = (self.met.vlan(), self.met.innermost());
        (found.payload, found.payload_end) = (upper.payload as u16, upper.payload_end as u16);
    }

    #[inline(always)]
    fn family(&self) -> Family {
        match self.ends {
            Ends::V4(..) => Family::V4,
            Ends::V6(..) => Family::V6,
        }
    }

    /// The hash of its conversation, by the default hash under these keys.
    #[inline(always)]
    pub(crate) fn hash(&self, keys: &Keys) -> u32 {
        match self.ends {
            Ends::V4(src, dst) => keys.between_v4(src, dst, self.upper.ports, self.proto),
            Ends::V6(src, dst) => keys.between_v6(src, dst, self.upper.ports, self.proto),
        }
    }

    /// Its conversation. Always inlined: a reference that escapes would keep all of it in memory, for those too who only hash.
    #[inline(always)]
    pub(crate) fn conversation(&self) -> Conversation {
        let (sport, dport) = ((self.upper.ports >> 16) as u16, self.upper.ports as u16);
        match self.ends {
            Ends::V4(src, dst) => Conversation::v4((src, sport), (dst, dport), self.proto, 0),
            Ends::V6(src, dst) => Conversation::v6((src, sport), (dst, dport), self.proto, 0),
        }
    }
}

/// How the way ends.
#[derive(Clone, Copy)]
pub(crate) struct Upper {
    /// Source and destination, the source in the high half; the identifier of an ICMP query in both.
    pub(crate) ports: u32,
    payload: u32,
    payload_end: u32,
    kind: Ports,
    pub(crate) stop: Stop,
}

/// How far the way down is, and what was met on it.
#[derive(Clone, Copy)]
struct Way<'a> {
    /// The frame, up to where what is being read ends.
    bytes: &'a [u8],
    /// Where the next header begins: beyond the end where there is none, and nothing is read there. Of 32 bits, so that
    /// no sum with a length overflows, and none is checked for it.
    at: u32,
    /// Where the last IP header is, and the first.
    l3: u32,
    outer_l3: u32,
    /// How many there were.
    depth: u8,
    met: Met,
}

/// What is behind an IP header.
#[derive(Clone, Copy)]
enum Behind {
    /// The end, and all is told.
    End,
    /// Something of this protocol that may go on.
    More(u8),
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
    fn found(&mut self, found: Quick);
}

/// Into a [blank](Dissection::BLANK) one.
impl Sink for Dissection {
    #[inline(always)]
    fn found(&mut self, found: Quick) {
        found.write(self);
    }
}

/// Dissects a frame of a quick kind, and tells `sink`: the same as [`dissect`](crate::dissect) finds. Answers `None`, and
/// tells nothing, if it is of no such kind, or if the policy wants more.
#[inline(always)]
pub(crate) fn quick<S: Sink>(frame: &Frame<'_>, policy: &Policy, sink: &mut S) -> Option<()> {
    if !policy.is_plain() || !may_be_quick(frame) {
        return None;
    }
    quick_plain(frame.bytes, Met::new(frame.stripped_vlan), policy, sink)
}

/// Whether a frame may be of a quick kind, as far as is said of it beside its bytes.
#[inline(always)]
pub(crate) fn may_be_quick(frame: &Frame<'_>) -> bool {
    (frame.link == LinkType::ETHERNET) & (frame.bytes.len() <= usize::from(u16::MAX))
}

/// The same of the bytes of a frame that [may be quick](may_be_quick), for a policy that is known to be
/// [plain](Policy::is_plain); `met` is what came beside the bytes.
#[inline(always)]
pub(crate) fn quick_plain<S: Sink>(bytes: &[u8], met: Met, policy: &Policy, sink: &mut S) -> Option<()> {
    let mut way = Way { bytes, at: 0, l3: 0, outer_l3: 0, depth: 0, met };
    let next = way.ethernet()?;
    match way.ip::<true, S>(next, policy, sink)? {
        Behind::End => Some(()),
        Behind::More(proto) => deeper(way, proto, policy, sink),
    }
}

/// What is behind an IP header if it was not told at once: a tunnel, and a tunnel in that; seldomer ends.
#[inline(never)]
fn deeper<S: Sink>(mut way: Way<'_>, mut proto: u8, policy: &Policy, sink: &mut S) -> Option<()> {
    loop {
        let mut next = if proto == PROTO_UDP {
            let ports = way.ports()?;
            match policy.udp_tunnels.find((ports >> 16) as u16, ports as u16) {
                Some(layer) => way.udp_tunnel(layer)?,
                None => return way.unlisted(ports, policy, sink),
            }
        } else if proto == PROTO_GRE {
            way.gre()?
        } else if (proto == PROTO_ICMP) | (proto == PROTO_ICMPV6) {
            return way.query(proto, sink);
        } else {
            match proto {
                PROTO_V4 => Next::V4,
                PROTO_V6 => Next::V6,
                _ => return None,
            }
        };
        if let Next::Eth = next {
            next = way.ethernet()?;
        }
        match way.ip::<false, S>(next, policy, sink)? {
            Behind::End => return Some(()),
            Behind::More(more) => proto = more, // no more often than headers may be deep
        }
    }
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

#[inline(always)]
fn v4_ends(both: &[u8; 8]) -> Ends {
    let both = u64::from_be_bytes(*both);
    Ends::V4((both >> 32) as u32, both as u32)
}

#[inline(always)]
fn v6_ends(both: &[u8; 32]) -> Ends {
    let half = |at| u64::from_be_bytes(*part(both, at));
    Ends::V6([half(0), half(8)], [half(16), half(24)])
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
            self.met.tag(word(tag, 0));
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
        self.met.tunnel(TunnelKind::Mpls, label);
        self.by_nibble()
    }

    #[inline(always)]
    fn pppoe(&mut self) -> Option<Next> {
        let header: &[u8; pppoe::LEN + 2] = self.header()?;
        if header[..2] != [pppoe::VERSION_AND_TYPE, pppoe::CODE_SESSION] {
            return None;
        }
        self.met.tunnel(TunnelKind::Pppoe, word(header, 2).into());
        self.skip(pppoe::LEN);
        self.clip(word(header, 4).into());
        self.skip(2);
        match word(header, 6) {
            0x0021 => Some(Next::V4),
            0x0057 => Some(Next::V6),
            _ => None,
        }
    }

    /// An IP header, which there may be a PPPoE session or labels before.
    #[inline(always)]
    fn ip<const OUTERMOST: bool, S: Sink>(&mut self, next: Next, policy: &Policy, sink: &mut S) -> Option<Behind> {
        let next = match next {
            Next::Pppoe => self.pppoe()?,
            Next::Mpls => self.mpls()?,
            next => next,
        };
        match next {
            Next::V4 => self.ipv4::<OUTERMOST, S>(policy, sink),
            Next::V6 => self.ipv6::<OUTERMOST, S>(policy, sink),
            _ => None,
        }
    }

    /// IPv4, and what is behind it if that is the end.
    #[inline(always)]
    fn ipv4<const OUTERMOST: bool, S: Sink>(&mut self, policy: &Policy, sink: &mut S) -> Option<Behind> {
        // An upper-layer header has 8 bytes at least.
        let header: &[u8; ipv4::MIN_LEN + udp::LEN] = self.header()?;
        let whole = word(header, 6) & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET) == 0;
        if (header[0] != 0x45) | !whole {
            return None;
        }
        self.deepen::<OUTERMOST>()?;
        self.clip(word(header, 2).into());
        self.skip(ipv4::MIN_LEN);
        Some(self.upper(header[ipv4::PROTOCOL], v4_ends(part(header, ipv4::ADDRESSES.start)), policy, sink))
    }

    /// The same of IPv6.
    #[inline(always)]
    fn ipv6<const OUTERMOST: bool, S: Sink>(&mut self, policy: &Policy, sink: &mut S) -> Option<Behind> {
        let header: &[u8; ipv6::LEN + udp::LEN] = self.header()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        self.deepen::<OUTERMOST>()?;
        self.skip(ipv6::LEN);
        self.clip(word(header, 4).into());
        Some(self.upper(header[6], v6_ends(part(header, ipv6::ADDRESSES.start)), policy, sink))
    }

    /// Notes an IP header.
    #[inline(always)]
    fn deepen<const OUTERMOST: bool>(&mut self) -> Option<()> {
        self.l3 = self.at;
        if OUTERMOST {
            (self.outer_l3, self.depth) = (self.at, 1);
        } else {
            self.depth += 1;
        }
        (self.depth <= MOST_DEPTH).then_some(())
    }

    /// What is behind an IP header: told, if that is the end of the way.
    #[inline(always)]
    fn upper<S: Sink>(&self, proto: u8, ends: Ends, policy: &Policy, sink: &mut S) -> Behind {
        // One look, and not one for each.
        if (proto < 64) & (ENDS >> (proto & 63) & 1 != 0)
            && let Some(upper) = self.transport(proto, policy)
        {
            self.tell(proto, ends, upper, sink);
            return Behind::End;
        }
        Behind::More(proto)
    }

    #[inline(always)]
    fn tell<S: Sink>(&self, proto: u8, ends: Ends, upper: Upper, sink: &mut S) {
        let Way { l3, at: l4, outer_l3, depth, met, .. } = *self;
        sink.found(Quick { l3, l4, outer_l3, depth, proto, met, ends, upper });
    }

    /// TCP, or UDP between ports that are not special.
    #[inline(always)]
    fn transport(&self, proto: u8, policy: &Policy) -> Option<Upper> {
        let ports = self.ports()?;
        // A tunnel is told first: it goes on, and the rest is not for it.
        if policy.udp_tunnels.may_be_special((ports >> 16) as u16, ports as u16) & BY_PORTS[usize::from(proto)] != 0 {
            return None;
        }
        self.between(ports, proto == PROTO_TCP)
    }

    #[inline(always)]
    fn ports(&self) -> Option<u32> {
        let header: &[u8; udp::LEN] = self.header()?;
        Some(u32::from_be_bytes(*part(header, 0)))
    }

    /// TCP or UDP between these ports, which it has.
    #[inline(always)]
    fn between(&self, ports: u32, tcp: bool) -> Option<Upper> {
        let header: &[u8; udp::LEN] = self.header()?;
        let (udp_len, all) = (u32::from(word(header, 4)), self.bytes.len() as u32);
        let offset = self.bytes.get(self.here() + transport::TCP_OFFSET).copied().unwrap_or(0);
        let tcp_len = u32::from(offset >> 4) * 4;
        let tcp_fits = (tcp_len >= transport::TCP_MIN_LEN as u32) & (self.at + tcp_len <= all);
        if !select_unpredictable(tcp, tcp_fits, udp_len >= udp::LEN as u32) {
            return None;
        }
        let payload = self.at + select_unpredictable(tcp, tcp_len, udp::LEN as u32);
        let payload_end = select_unpredictable(tcp, all, all.min(self.at + udp_len));
        Some(Upper { ports, payload, payload_end, kind: Ports::Transport, stop: Stop::Transport })
    }

    /// UDP between ports that carry no tunnel, if that is all: one of them only looked as if it were listed, or is for the other
    /// direction.
    #[cold]
    #[inline(never)]
    fn unlisted<S: Sink>(self, ports: u32, policy: &Policy, sink: &mut S) -> Option<()> {
        match policy.udp_tunnels.special((ports >> 16) as u16, ports as u16) {
            None | Some(Special { tunnel: None, peers: Peers::No }) => {}
            Some(_) => return None,
        }
        self.tell(PROTO_UDP, self.ends()?, self.between(ports, false)?, sink);
        Some(())
    }

    /// The addresses of the IP header that was read last.
    #[inline(always)]
    fn ends(&self) -> Option<Ends> {
        let ip = self.bytes.get(self.l3 as usize..)?;
        Some(match ip.first()? >> 4 {
            4 => v4_ends(part(ip, ipv4::ADDRESSES.start)),
            _ => v6_ends(part(ip, ipv6::ADDRESSES.start)),
        })
    }

    /// An ICMP query.
    #[inline(always)]
    fn query<S: Sink>(&self, proto: u8, sink: &mut S) -> Option<()> {
        let header = self.header::<{ icmp::LEN }>()?;
        let query = if proto == PROTO_ICMP { icmp::is_query(header[0]) } else { icmpv6::is_query(header[0]) };
        if !query {
            return None;
        }
        let (id, payload, payload_end) =
            (u32::from(word(header, 4)), self.at + icmp::LEN as u32, self.bytes.len() as u32);
        let upper = Upper { ports: id << 16 | id, payload, payload_end, kind: Ports::IcmpId, stop: Stop::Icmp };
        self.tell(proto, self.ends()?, upper, sink);
        Some(())
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
        self.met.tunnel(TunnelKind::Gre, key);
        if protocol == TYPE_BRIDGED { Some(Next::Eth) } else { by_type(protocol).filter(|n| !matches!(n, Next::Pppoe)) }
    }

    #[inline(always)]
    fn udp_tunnel(&mut self, layer: Layer) -> Option<Next> {
        let header: &[u8; udp::LEN] = self.header()?;
        let len = usize::from(word(header, 4));
        if len < udp::LEN {
            return None;
        }
        self.clip(len);
        self.skip(udp::LEN);
        match layer {
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
        self.met.tunnel(TunnelKind::Vxlan, u32::from_be_bytes(*header.last_chunk()?) >> 8);
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
        self.met.tunnel(TunnelKind::Gtp, u32::from_be_bytes(*header.last_chunk()?));
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
