//! Which UDP ports are more than numbers: those that carry tunnels, and those whose flows go by
//! addresses.

use crate::Layer;
use crate::dissection::Peers;
use crate::wire::gtp::PORT_CONTROL;

/// Bytes of the index, a power of two: with the built-in list, one in a hundred of the other ports shares its byte with one of it.
const INDEX: usize = 2048;
/// In place of a number: several ports have this remainder.
const SEVERAL: u8 = u8::MAX;

/// For each remainder of a port number, the number of the entry whose port has it, plus 1; 0 without one. Bytes, and not
/// bits: every TCP and UDP packet asks for two.
#[derive(Clone, PartialEq, Eq)]
struct Index([u8; INDEX]);

impl core::fmt::Debug for Index {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Index").finish_non_exhaustive()
    }
}

/// What is known of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    port: u16,
    /// The tunnel behind it.
    tunnel: Option<Layer>,
    /// Whether the tunnel answers from it.
    answers: bool,
    by_addresses: bool,
}

/// Which UDP ports carry which tunnels, and which carry control traffic that goes by addresses: at
/// most [`UdpTunnels::CAPACITY`] entries.
///
/// A port is looked up as destination first, then as source where the protocol answers from it.
/// The header behind the port must verify before it is believed. A look-up reads one byte of an
/// index for each port, and the list only if one is not 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpTunnels {
    entries: [Entry; UdpTunnels::CAPACITY],
    len: usize,
    index: Index,
}

/// What a look-up says.
#[derive(Clone, Copy)]
pub(crate) struct Special {
    pub(crate) tunnel: Option<Layer>,
    pub(crate) peers: Peers,
}

impl UdpTunnels {
    /// How many ports can be registered.
    pub const CAPACITY: usize = 32;

    /// No port is special.
    pub const NONE: UdpTunnels = UdpTunnels {
        entries: [Entry { port: 0, tunnel: None, answers: false, by_addresses: false }; UdpTunnels::CAPACITY],
        len: 0,
        index: Index([0; INDEX]),
    };

    /// Registers `layer` behind `port`; with `answers`, behind the same source port too. A port
    /// that is registered already gets the new layer. Returns whether there was room.
    pub const fn set(&mut self, port: u16, layer: Layer, answers: bool) -> bool {
        let Some(index) = self.place(port) else {
            return false;
        };
        self.entries[index].tunnel = Some(layer);
        self.entries[index].answers = answers;
        true
    }

    /// Whether flows with this port at either end go by addresses alone, so that all that two hosts
    /// have to say to each other there stays together. Returns whether there was room.
    pub const fn set_by_addresses(&mut self, port: u16, by_addresses: bool) -> bool {
        let Some(index) = self.place(port) else {
            return false;
        };
        self.entries[index].by_addresses = by_addresses;
        true
    }

    /// The entry of a port, a new one where there was none.
    const fn place(&mut self, port: u16) -> Option<usize> {
        let mut index = 0;
        while index < self.len && self.entries[index].port != port {
            index += 1;
        }
        if index == UdpTunnels::CAPACITY {
            return None;
        }
        if index == self.len {
            self.len += 1;
            self.entries[index] = Entry { port, tunnel: None, answers: false, by_addresses: false };
            let place = &mut self.index.0[port as usize & (INDEX - 1)];
            *place = if *place == 0 { self.len as u8 } else { SEVERAL };
        }
        Some(index)
    }

    /// Takes the tunnel behind `port` out of the list. Returns whether there was one.
    pub fn unset(&mut self, port: u16) -> bool {
        let old = self.clone();
        *self = UdpTunnels::NONE;
        let mut found = false;
        for mut entry in old.known().iter().copied() {
            if entry.port == port {
                found = entry.tunnel.take().is_some();
            }
            if entry.tunnel.is_none() && !entry.by_addresses {
                continue;
            }
            if let Some(place) = self.place(entry.port).and_then(|index| self.entries.get_mut(index)) {
                *place = entry;
            }
        }
        found
    }

    fn known(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    /// The registered tunnels: (port, layer, whether the protocol answers from it).
    pub fn iter(&self) -> impl Iterator<Item = (u16, Layer, bool)> + '_ {
        self.known().iter().filter_map(|entry| Some((entry.port, entry.tunnel?, entry.answers)))
    }

    /// The ports whose flows go by addresses.
    pub fn by_addresses(&self) -> impl Iterator<Item = u16> + '_ {
        self.known().iter().filter(|entry| entry.by_addresses).map(|entry| entry.port)
    }

    /// The layer that is registered for a datagram between these ports.
    #[inline]
    pub fn find(&self, source: u16, destination: u16) -> Option<Layer> {
        let by_destination = self.entry(destination).and_then(|entry| entry.tunnel);
        by_destination.or_else(|| self.entry(source).filter(|entry| entry.answers)?.tunnel)
    }

    /// What there is to know about a datagram between these ports.
    #[inline(always)]
    pub(crate) fn special(&self, source: u16, destination: u16) -> Option<Special> {
        if self.may_be_special(source, destination) == 0 {
            return None;
        }
        Some(self.search(source, destination))
    }

    /// Not 0 if there may be something to know: a look at the index alone.
    #[inline(always)]
    pub(crate) fn may_be_special(&self, source: u16, destination: u16) -> u8 {
        self.place_of(source) | self.place_of(destination)
    }

    #[inline(always)]
    fn place_of(&self, port: u16) -> u8 {
        self.index.0[usize::from(port) & (INDEX - 1)]
    }

    #[inline]
    fn entry(&self, port: u16) -> Option<&Entry> {
        let place = self.place_of(port);
        if place == SEVERAL {
            return self.entry_of_several(port);
        }
        self.entries.get(usize::from(place).wrapping_sub(1)).filter(|entry| entry.port == port)
    }

    #[cold]
    #[inline(never)]
    fn entry_of_several(&self, port: u16) -> Option<&Entry> {
        self.known().iter().find(|entry| entry.port == port)
    }

    fn search(&self, source: u16, destination: u16) -> Special {
        let (to, from) = (self.entry(destination), self.entry(source));
        let by_destination = to.and_then(|entry| entry.tunnel);
        let by_source = from.filter(|entry| entry.answers).and_then(|entry| entry.tunnel);
        let by_addresses = [to, from].into_iter().flatten().any(|entry| entry.by_addresses);
        let tunnel = by_destination.or(by_source);
        let peers = match tunnel {
            _ if by_addresses => Peers::Always,
            // Control, which answers to the port that asked.
            Some(Layer::Gtp) if source == PORT_CONTROL || destination == PORT_CONTROL => Peers::No,
            Some(layer) if scatters(layer) => Peers::Tunnel,
            _ => Peers::No,
        };
        Special { tunnel, peers }
    }
}

/// Whether the ends of a tunnel choose source ports at will, another one each way, to scatter what
/// it carries: the ports of such a tunnel say nothing about its conversation.
fn scatters(tunnel: Layer) -> bool {
    matches!(
        tunnel,
        Layer::Gtp | Layer::Vxlan | Layer::VxlanGpe | Layer::Geneve | Layer::Mpls | Layer::Gre | Layer::Lisp
    )
}

impl Default for UdpTunnels {
    fn default() -> Self {
        crate::wire::udp_port::TUNNELS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_set_found_and_unset() {
        let mut ports = UdpTunnels::NONE;
        assert_eq!(ports.find(1, 4789), None);
        assert!(ports.set(4789, Layer::Vxlan, false));
        assert!(ports.set(2152, Layer::Gtp, true));
        assert_eq!(ports.find(1, 4789), Some(Layer::Vxlan));
        assert_eq!(ports.find(4789, 1), None);
        assert_eq!(ports.find(2152, 1), Some(Layer::Gtp));
        assert!(ports.set_by_addresses(4789, true));
        assert!(ports.unset(4789));
        assert!(!ports.unset(4789));
        assert!(ports.by_addresses().eq([4789]));
        assert_eq!(ports.find(1, 4789), None);
        assert_eq!(ports.find(1, 2152), Some(Layer::Gtp));
    }

    #[test]
    fn ports_of_one_remainder_are_told_apart() {
        let [a, b, c] = [4789, 4789 + INDEX as u16, 4789 + 2 * INDEX as u16];
        let mut ports = UdpTunnels::NONE;
        assert!(ports.set(a, Layer::Vxlan, false) && ports.set(b, Layer::Gtp, true));
        assert_eq!(
            (ports.find(1, a), ports.find(1, b), ports.find(1, c)),
            (Some(Layer::Vxlan), Some(Layer::Gtp), None)
        );
        assert_eq!((ports.find(b, 1), ports.find(a, 1)), (Some(Layer::Gtp), None));
        assert!(ports.special(1, c).is_some_and(|s| s.tunnel.is_none() && s.peers == Peers::No));
        assert!(ports.set_by_addresses(c, true));
        assert!(ports.special(c, 1).is_some_and(|s| s.tunnel.is_none() && s.peers == Peers::Always));
        assert!(ports.unset(a));
        assert_eq!((ports.find(1, a), ports.find(1, b)), (None, Some(Layer::Gtp)));
        assert!(ports.by_addresses().eq([c]));
    }

    #[test]
    fn the_list_is_bounded() {
        let mut ports = UdpTunnels::NONE;
        for port in 0..UdpTunnels::CAPACITY as u16 {
            assert!(ports.set(port, Layer::Vxlan, false));
        }
        assert!(!ports.set(999, Layer::Vxlan, false));
        assert!(ports.set(3, Layer::Gtp, false));
    }
}
