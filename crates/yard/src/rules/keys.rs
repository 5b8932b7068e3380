//! The match keys of a rule: what a packet must be for the rule to match it.
//!
//! A key that is left out matches every packet. A key asks one fact and holds a set of what it may be; so
//! whether one rule leaves nothing for another ([`Keys::cover`]) is a question of sets.

use flowyard_steer::Stop;

use super::facts::{self, Facts, Part};
use super::filter::Filter;
use super::set::{Nets, Ranges};

/// A match key. Those that are sets of numbers come first; in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Protocol,
    Port,
    Sport,
    Dport,
    Vlan,
    Tunnel,
    TunnelId,
    Fragment,
    Stop,
    Link,
    PortNumber,
    Length,
    IcmpError,
    Net,
    OuterNet,
    Filter,
}

/// How many keys are sets of numbers.
const SETS: usize = 13;

impl Key {
    pub(super) const ALL: [Key; 16] = [
        Key::Protocol,
        Key::Port,
        Key::Sport,
        Key::Dport,
        Key::Vlan,
        Key::Tunnel,
        Key::TunnelId,
        Key::Fragment,
        Key::Stop,
        Key::Link,
        Key::PortNumber,
        Key::Length,
        Key::IcmpError,
        Key::Net,
        Key::OuterNet,
        Key::Filter,
    ];

    /// Its name in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Key::Protocol => "protocol",
            Key::Port => "port",
            Key::Sport => "sport",
            Key::Dport => "dport",
            Key::Vlan => "vlan",
            Key::Tunnel => "tunnel",
            Key::TunnelId => "tunnel_id",
            Key::Fragment => "fragment",
            Key::Stop => "stop",
            Key::Link => "link",
            Key::PortNumber => "port_number",
            Key::Length => "length",
            Key::IcmpError => "icmp_error",
            Key::Net => "net",
            Key::OuterNet => "outer_net",
            Key::Filter => "filter",
        }
    }

    /// Where the facts' word has it, if it does.
    pub(super) fn part(self) -> Option<Part> {
        Some(match self {
            Key::Protocol => facts::PROTOCOL,
            Key::Vlan => facts::VLAN,
            Key::Tunnel => facts::TUNNEL,
            Key::Fragment => facts::FRAGMENT,
            Key::Stop => facts::STOP,
            Key::PortNumber => facts::PORT_NUMBER,
            Key::IcmpError => facts::ICMP_ERROR,
            _ => return None,
        })
    }

    /// The largest value of a set of numbers that every packet has: a key that holds all asks nothing.
    fn largest(self) -> Option<u32> {
        Some(match self {
            Key::Vlan => facts::NO_VLAN,
            Key::Tunnel => TUNNELS.len() as u32 - 1,
            Key::Fragment => 2,
            Key::Stop => Stop::ALL.len() as u32 - 1,
            Key::Link | Key::PortNumber => u16::MAX.into(),
            Key::Length => u32::MAX,
            Key::IcmpError => 1,
            _ => return None,
        })
    }
}

/// Tunnels by their name; the position is the number, 0 none.
pub(super) const TUNNELS: [&str; 11] =
    ["none", "ip", "gre", "pptp", "gtp", "vxlan", "pppoe", "mpls", "geneve", "l2tp", "other"];

/// What is certain of a rule and a later fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certain {
    Yes,
    No,
    /// The rest of the datagram is needed to tell.
    Unknown,
}

/// The match keys of a rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Keys {
    sets: [Option<Ranges<u32>>; SETS],
    pub(super) net: Option<Nets>,
    pub(super) outer_net: Option<Nets>,
    pub(super) filter: Option<Filter>,
}

impl Keys {
    /// Sets a key that is a set of numbers. One that every packet passes is as if left out.
    pub(super) fn set(&mut self, key: Key, set: Ranges<u32>) {
        let everything = key.largest().map(|largest| [(0, largest)].into_iter().collect::<Ranges<u32>>());
        if let Some(place) = self.sets.get_mut(key as usize) {
            *place = Some(set).filter(|set| everything.is_none_or(|everything| !set.covers(&everything)));
        }
    }

    /// The set of a key, if it is one of numbers and there.
    pub(super) fn get(&self, key: Key) -> Option<&Ranges<u32>> {
        self.sets.get(key as usize)?.as_ref()
    }

    /// The keys that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = Key> {
        Key::ALL.into_iter().filter(|&key| match key {
            Key::Net => self.net.is_some(),
            Key::OuterNet => self.outer_net.is_some(),
            Key::Filter => self.filter.is_some(),
            key => self.get(key).is_some(),
        })
    }

    /// Whether a packet passes one key.
    #[inline]
    pub(super) fn pass(&self, key: Key, facts: &Facts, bytes: &[u8]) -> bool {
        let set = || self.get(key);
        let holds = |number: u32| set().is_none_or(|set| set.contains(number));
        let (sport, dport) = (u32::from(facts.sport), u32::from(facts.dport));
        match key {
            Key::Protocol => facts.has(facts::IP) && holds(facts.part(facts::PROTOCOL)),
            Key::Port => facts.has(facts::PORTS) && (holds(sport) || holds(dport)),
            Key::Sport => facts.has(facts::PORTS) && holds(sport),
            Key::Dport => facts.has(facts::PORTS) && holds(dport),
            Key::TunnelId => facts.part(facts::TUNNEL) != 0 && holds(facts.tunnel_id),
            Key::Link => holds(facts.link.into()),
            Key::Length => holds(facts.wire_len),
            Key::Net => self.net.as_ref().is_none_or(|net| facts.ends(bytes).is_some_and(|ends| net.has_either(ends))),
            Key::OuterNet => {
                let outer = self.outer_net.as_ref();
                outer.is_none_or(|net| facts.outer_ends(bytes).is_some_and(|ends| net.has_either(ends)))
            }
            Key::Filter => self.filter.as_ref().is_none_or(|filter| filter.matches(facts, bytes)),
            _ => key.part().is_none_or(|part| holds(facts.part(part))),
        }
    }

    /// Whether a later fragment passes, as far as its first one, which is judged by itself, would as well. What
    /// a later fragment does not show is not certain: ports, and of a datagram that may hold a tunnel or
    /// quote a packet, all of the flow.
    pub(super) fn pass_fragment(&self, facts: &Facts, bytes: &[u8]) -> Certain {
        let mut certain = Certain::Yes;
        for key in self.present() {
            let passes = self.pass(key, facts, bytes);
            let known = match key {
                Key::Vlan | Key::Link | Key::PortNumber | Key::Length | Key::OuterNet => true,
                Key::Protocol | Key::Net | Key::Tunnel | Key::TunnelId | Key::IcmpError => facts.shows_its_flow(),
                // Asked for later fragments: these are meant. Asked for others: the first one may be.
                Key::Fragment | Key::Stop => passes,
                Key::Port | Key::Sport | Key::Dport | Key::Filter => false,
            };
            match (known, passes) {
                (true, true) => {}
                (true, false) => return Certain::No,
                (false, _) => certain = Certain::Unknown,
            }
        }
        certain
    }

    /// The key that keeps these from matching any packet, and why.
    pub(super) fn contradiction(&self) -> Option<(Key, &'static str)> {
        let ports = [Key::Port, Key::Sport, Key::Dport].into_iter().find(|&key| self.get(key).is_some());
        let may_be = |key: Key, numbers: &[u32]| {
            self.get(key).is_none_or(|set| numbers.iter().any(|&number| set.contains(number)))
        };
        if let Some(key) = ports {
            if !may_be(Key::Protocol, &[6, 17, 33, 132, 136]) {
                return Some((key, "only tcp, udp, udplite, sctp and dccp have ports"));
            }
            if !may_be(Key::Fragment, &[0, 1]) {
                return Some((key, "later fragments have no ports"));
            }
        }
        if self.get(Key::TunnelId).is_some() && self.get(Key::Tunnel).is_some_and(|set| set.single() == Some(0)) {
            return Some((Key::TunnelId, "tunnel = \"none\" has no identifier"));
        }
        None
    }

    /// Whether every packet that passes `other` passes these.
    pub(super) fn cover(&self, other: &Keys) -> bool {
        self.present().all(|key| match key {
            Key::Net => covered(&self.net, &other.net, Nets::covers),
            Key::OuterNet => covered(&self.outer_net, &other.outer_net, Nets::covers),
            Key::Filter => covered(&self.filter, &other.filter, Filter::eq),
            Key::Port => [Key::Port, Key::Sport, Key::Dport].iter().any(|&of| self.covers_set(key, other, of)),
            key => self.covers_set(key, other, key),
        })
    }

    fn covers_set(&self, key: Key, other: &Keys, of: Key) -> bool {
        matches!((self.get(key), other.get(of)), (Some(mine), Some(theirs)) if mine.covers(theirs))
    }
}

fn covered<T>(mine: &Option<T>, theirs: &Option<T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => covers(mine, theirs),
        (None, _) => true,
        (Some(_), None) => false,
    }
}
