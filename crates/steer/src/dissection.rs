//! What dissection found: offsets into the frame and small facts, no bytes copied.
//!
//! All offsets are bytes from the start of the frame. A `Dissection` is meaningful only together
//! with the bytes that it was made from; given others it returns nonsense, but never panics.

use core::net::IpAddr;

use crate::conversation::Conversation;
use crate::fragment::Datagram;
use crate::{Frame, LinkType, Stop};

/// The version of an IP header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Family {
    /// No IP header.
    #[default]
    None = 0,
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// What part of an IP datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum Fragment {
    /// The whole of it.
    #[default]
    None = 0,
    /// Its first piece, which has the transport header.
    First = 1,
    /// Any other piece.
    Later = 2,
}

impl Fragment {
    /// The name that `inspect` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Fragment::None => "none",
            Fragment::First => "first",
            Fragment::Later => "later",
        }
    }
}

/// What the two port fields of a [`Level`] hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub(crate) enum Ports {
    /// Nothing.
    #[default]
    None = 0,
    /// Transport ports.
    Transport = 1,
    /// The identifier of an ICMP query, twice.
    IcmpId = 2,
}

/// Whether the key of a [`Level`] goes without its ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub(crate) enum Peers {
    /// It goes with them.
    #[default]
    No = 0,
    /// Without them, if the tunnel behind them is one.
    Tunnel = 1,
    /// Without them.
    Always = 2,
}

/// A tunnel protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum TunnelKind {
    /// IP in IP, identifier 0.
    Ip = 1,
    /// GRE, identified by its key (0 without one).
    Gre = 2,
    /// Enhanced GRE, identified by its call.
    Pptp = 3,
    /// GTP-U, identified by its endpoint.
    Gtp = 4,
    /// VXLAN, identified by its network.
    Vxlan = 5,
    /// PPPoE, identified by its session.
    Pppoe = 6,
    /// MPLS, identified by its bottom label.
    Mpls = 7,
    /// GENEVE, identified by its network.
    Geneve = 8,
    /// L2TP, identified by its session.
    L2tp = 9,
    /// Any other.
    Other = 10,
}

/// One IP header on the way down and what belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Level {
    pub(crate) l3: u16,
    pub(crate) l4: u16,
    pub(crate) frag: u16,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) family: Family,
    pub(crate) proto: u8,
    pub(crate) fragment: Fragment,
    pub(crate) ports: Ports,
    pub(crate) peers: Peers,
    pub(crate) quoted: bool,
}

impl Level {
    /// Where the IP header starts.
    pub fn l3_offset(&self) -> usize {
        self.l3.into()
    }

    /// Where the upper-layer header starts.
    pub fn l4_offset(&self) -> usize {
        self.l4.into()
    }

    /// IPv4 or IPv6; `None` for a level that was never reached.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The upper-layer protocol, after IPv6 extension headers and AH.
    pub fn proto(&self) -> u8 {
        self.proto
    }

    /// Source port, where the transport has ports and they were captured.
    pub fn sport(&self) -> Option<u16> {
        (self.ports == Ports::Transport).then_some(self.sport)
    }

    /// Destination port, where the transport has ports and they were captured.
    pub fn dport(&self) -> Option<u16> {
        (self.ports == Ports::Transport).then_some(self.dport)
    }

    /// Whether either port is this one.
    pub(crate) fn has_port(&self, port: u16) -> bool {
        self.sport == port || self.dport == port
    }

    /// The identifier of an ICMP query or answer.
    pub fn icmp_id(&self) -> Option<u16> {
        (self.ports == Ports::IcmpId).then_some(self.sport)
    }

    /// What part of its datagram this is.
    pub fn fragment(&self) -> Fragment {
        self.fragment
    }

    /// Whether an ICMP error quotes this header.
    pub fn is_quoted(&self) -> bool {
        self.quoted
    }

    /// The addresses, copied out of the frame; `None` without an IP header there.
    pub fn addresses(&self, bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let header = bytes.get(self.l3_offset()..)?;
        match self.family {
            Family::None => None,
            Family::V4 => {
                let [s, d] = pair::<4>(header.get(crate::wire::ipv4::ADDRESSES)?)?;
                Some((IpAddr::from(s), IpAddr::from(d)))
            }
            Family::V6 => {
                let [s, d] = pair::<16>(header.get(crate::wire::ipv6::ADDRESSES)?)?;
                Some((IpAddr::from(s), IpAddr::from(d)))
            }
        }
    }

    /// The flow of this level; `None` without an IP header there.
    pub fn flow(&self, bytes: &[u8]) -> Option<Flow> {
        let (src, dst) = self.addresses(bytes)?;
        Some(Flow { src, dst, proto: self.proto, sport: self.sport(), dport: self.dport() })
    }

    /// The datagram that this level is a fragment of; `None` if it is none.
    pub fn datagram(&self, bytes: &[u8]) -> Option<Datagram> {
        if self.fragment == Fragment::None {
            return None;
        }
        Datagram::read(self, bytes)
    }
}

fn pair<const N: usize>(both: &[u8]) -> Option<[[u8; N]; 2]> {
    Some([*both.first_chunk()?, *both.last_chunk()?])
}

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Flow {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Upper-layer protocol.
    pub proto: u8,
    /// Source port, `None` where there is none.
    pub sport: Option<u16>,
    /// Destination port, `None` where there is none.
    pub dport: Option<u16>,
}

/// How many first fragments on the way down are remembered.
pub(crate) const MAX_FIRSTS: usize = 4;

/// What dissection found in one frame. Small and `Copy`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dissection {
    pub(crate) flow: Level,
    /// The level that makes the key, where it is not `flow`.
    pub(crate) other: Level,
    pub(crate) key_is_other: bool,
    pub(crate) firsts: [(u16, u16); MAX_FIRSTS],
    pub(crate) first_count: u8,
    pub(crate) depth: u8,
    pub(crate) stop: Stop,
    pub(crate) has_mac: bool,
    pub(crate) awaits: bool,
    pub(crate) outer_l3: u16,
    pub(crate) mac: u16,
    pub(crate) payload: u16,
    pub(crate) payload_end: u16,
    pub(crate) link: LinkType,
    pub(crate) vlan: Option<u16>,
    pub(crate) tunnel: Option<(TunnelKind, u32)>,
    pub(crate) extra: u64,
}

impl Dissection {
    /// Takes the ports out of the key: conversations of a tunnel whose ends choose ports at will, and
    /// control traffic, go by addresses. What the packet's own flow is stays as it was.
    #[cold]
    #[inline(never)]
    pub(crate) fn key_by_addresses(&mut self, stop: Stop) {
        let mut key = *self.key();
        if key.peers == Peers::Tunnel && stop == Stop::NotTunnel {
            return;
        }
        (key.sport, key.dport, key.ports) = (0, 0, Ports::None);
        self.other = key;
        self.key_is_other = true;
    }

    /// Nothing looked at.
    pub(crate) const BLANK: Dissection = {
        let nothing = Level {
            l3: 0,
            l4: 0,
            frag: 0,
            sport: 0,
            dport: 0,
            family: Family::None,
            proto: 0,
            fragment: Fragment::None,
            ports: Ports::None,
            peers: Peers::No,
            quoted: false,
        };
        Dissection {
            flow: nothing,
            other: nothing,
            key_is_other: false,
            firsts: [(0, 0); MAX_FIRSTS],
            first_count: 0,
            depth: 0,
            stop: Stop::Transport,
            has_mac: false,
            awaits: false,
            outer_l3: 0,
            mac: 0,
            payload: 0,
            payload_end: 0,
            link: LinkType(0),
            vlan: None,
            tunnel: None,
            extra: 0,
        }
    };

    /// Nothing found yet.
    #[inline(always)]
    pub(crate) fn new(frame: &Frame<'_>) -> Self {
        Dissection { link: frame.link, vlan: frame.stripped_vlan, ..Dissection::BLANK }
    }

    /// The level that makes the key; its family is `None` without an IP header.
    #[inline(always)]
    pub(crate) fn key(&self) -> &Level {
        if self.key_is_other { self.uncommon_key() } else { &self.flow }
    }

    /// Out of line, so that the common case is a branch and no chain of conditional moves.
    #[cold]
    #[inline(never)]
    fn uncommon_key(&self) -> &Level {
        &self.other
    }

    /// Why dissection ended.
    pub fn stop(&self) -> Stop {
        self.stop
    }

    /// How many IP headers were read, quoted ones not counted.
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The innermost IP header, never one that an ICMP error quotes.
    pub fn innermost(&self) -> Option<&Level> {
        (self.flow.family != Family::None).then_some(&self.flow)
    }

    /// The header that makes the key: by default the quoted one of an ICMP error, else the
    /// innermost.
    pub fn key_level(&self) -> Option<&Level> {
        let key = self.key();
        (key.family != Family::None).then_some(key)
    }

    /// Where the outermost IP header starts.
    pub fn outer_l3_offset(&self) -> Option<usize> {
        (self.flow.family != Family::None).then_some(self.outer_l3.into())
    }

    /// Where the innermost IP header starts.
    pub fn l3_offset(&self) -> Option<usize> {
        self.innermost().map(Level::l3_offset)
    }

    /// Where the upper-layer header of the innermost IP header starts.
    pub fn l4_offset(&self) -> Option<usize> {
        self.innermost().map(Level::l4_offset)
    }

    /// Where what was not understood begins: the application's bytes, usually.
    pub fn payload_offset(&self) -> usize {
        self.payload.into()
    }

    /// Where the payload ends: padding after it does not count.
    pub fn payload_end(&self) -> usize {
        self.payload_end.into()
    }

    /// The family of the innermost IP header.
    pub fn family(&self) -> Family {
        self.flow.family
    }

    /// The upper-layer protocol of the innermost IP header.
    pub fn proto(&self) -> Option<u8> {
        self.innermost().map(Level::proto)
    }

    /// Innermost source port.
    pub fn sport(&self) -> Option<u16> {
        self.flow.sport()
    }

    /// Innermost destination port.
    pub fn dport(&self) -> Option<u16> {
        self.flow.dport()
    }

    /// The identifier of an innermost ICMP query or answer.
    pub fn icmp_id(&self) -> Option<u16> {
        self.flow.icmp_id()
    }

    /// What part of its datagram the innermost IP header is.
    pub fn fragment(&self) -> Fragment {
        self.flow.fragment
    }

    /// The innermost tunnel and its identifier.
    pub fn tunnel(&self) -> Option<(TunnelKind, u32)> {
        self.tunnel
    }

    /// The outermost VLAN tag: the one that hardware took off if there was one.
    pub fn vlan(&self) -> Option<u16> {
        self.vlan
    }

    /// The link type of the frame.
    pub fn link(&self) -> LinkType {
        self.link
    }

    /// The innermost flow; `None` without an IP header.
    pub fn flow(&self, bytes: &[u8]) -> Option<Flow> {
        self.flow.flow(bytes)
    }

    /// The flow that an ICMP error quotes; `None` if it quotes none that can be read.
    pub fn quoted(&self, bytes: &[u8]) -> Option<Flow> {
        let key = self.key();
        if key.quoted { key.flow(bytes) } else { None }
    }

    /// Whether this is an ICMP error that quotes a packet it could read.
    #[inline]
    pub fn is_icmp_error(&self) -> bool {
        self.key().quoted
    }

    /// The conversation that is hashed, the same for both directions.
    #[inline(always)]
    pub fn conversation(&self, bytes: &[u8]) -> Conversation {
        Conversation::of(self, bytes)
    }

    /// The datagram whose first fragment decides where this packet goes: set when the header that
    /// makes the key is a later fragment.
    #[inline]
    pub fn awaited(&self, bytes: &[u8]) -> Option<Datagram> {
        if self.awaits { Datagram::read(self.key(), bytes) } else { None }
    }

    /// Whether [`awaited`](Dissection::awaited) has anything to look for.
    #[inline]
    pub fn is_awaiting(&self) -> bool {
        self.awaits
    }

    /// Whether first fragments were met on the way down.
    #[inline]
    pub fn has_first_fragments(&self) -> bool {
        self.first_count > 0
    }

    /// The datagrams whose first fragments were met on the way down, outermost first; at most 4.
    pub fn first_fragments<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = Datagram> + 'a {
        let firsts = self.firsts.iter().take(self.first_count.into());
        firsts.filter_map(|&(l3, frag)| Datagram::at(l3, frag, bytes))
    }
}
