//! What makes the key: how deep to look, what joins the key, which UDP ports carry tunnels.

use crate::Layer;

/// Which IP header of a packet makes the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KeyLevel {
    /// The innermost one that can be read: the user's own flow, whatever carries it.
    #[default]
    Innermost,
    /// The outermost one: the tunnel, as a router sees it.
    Outermost,
    /// The n-th, counted from 1 at the outermost; the innermost where there are fewer.
    Nth(u8),
}

impl KeyLevel {
    /// The number of the IP header that makes the key, 255 for the innermost.
    pub(crate) fn number(self) -> u8 {
        match self {
            KeyLevel::Innermost => u8::MAX,
            KeyLevel::Outermost => 1,
            KeyLevel::Nth(n) => n.max(1),
        }
    }
}

/// What to do with IP fragments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fragments {
    /// Later fragments go where the first one went.
    #[default]
    Follow,
    /// All fragments, first ones too, go by addresses and protocol: no memory is needed, but a
    /// conversation that is fragmented only now and then is split in two.
    AddressesOnly,
}

/// Which UDP ports carry which tunnels: at most [`UdpTunnels::CAPACITY`] entries.
///
/// A port is looked up as destination first, then as source where the protocol answers from it.
/// The header behind the port must verify before it is believed. A look-up reads one bit of a
/// filter, and the list only if that bit is set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpTunnels {
    filter: [u64; 16],
    entries: [(u16, Layer, bool); UdpTunnels::CAPACITY],
    len: usize,
}

impl UdpTunnels {
    /// How many ports can be registered.
    pub const CAPACITY: usize = 32;

    /// No port carries a tunnel.
    pub const NONE: UdpTunnels =
        UdpTunnels { filter: [0; 16], entries: [(0, Layer::Udp, false); UdpTunnels::CAPACITY], len: 0 };

    /// Registers `layer` behind `port`; with `answers`, behind the same source port too. A port
    /// that is registered already gets the new layer. Returns whether there was room.
    pub const fn set(&mut self, port: u16, layer: Layer, answers: bool) -> bool {
        let mut index = 0;
        while index < self.len && self.entries[index].0 != port {
            index += 1;
        }
        if index == UdpTunnels::CAPACITY {
            return false;
        }
        if index == self.len {
            self.len += 1;
        }
        self.entries[index] = (port, layer, answers);
        self.filter[(port as usize >> 6) & 15] |= 1 << (port & 63);
        true
    }

    /// Takes `port` out of the list. Returns whether it was in it.
    pub fn unset(&mut self, port: u16) -> bool {
        let old = self.clone();
        *self = UdpTunnels::NONE;
        for (other, layer, answers) in old.iter().filter(|entry| entry.0 != port) {
            self.set(other, layer, answers);
        }
        self.len < old.len
    }

    /// The registered ports: (port, layer, whether the protocol answers from it).
    pub fn iter(&self) -> impl Iterator<Item = (u16, Layer, bool)> + '_ {
        self.entries.iter().take(self.len).copied()
    }

    /// The layer that is registered for a datagram between these ports.
    #[inline]
    pub fn find(&self, source: u16, destination: u16) -> Option<Layer> {
        if !self.maybe(source) && !self.maybe(destination) {
            return None;
        }
        self.search(source, destination)
    }

    #[inline]
    fn maybe(&self, port: u16) -> bool {
        self.filter[(port as usize >> 6) & 15] >> (port & 63) & 1 != 0
    }

    fn search(&self, source: u16, destination: u16) -> Option<Layer> {
        let entries = self.entries.get(..self.len).unwrap_or(&[]);
        let by_destination = entries.iter().find(|entry| entry.0 == destination);
        let by_source = || entries.iter().find(|entry| entry.0 == source && entry.2);
        by_destination.or_else(by_source).map(|entry| entry.1)
    }
}

impl Default for UdpTunnels {
    fn default() -> Self {
        crate::wire::udp_port::TUNNELS
    }
}

/// What makes the key of a packet. [`Policy::default`] is the built-in policy: the innermost flow,
/// nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Which IP header makes the key.
    pub key: KeyLevel,
    /// How many IP headers one packet may have before dissection stops with
    /// [`Stop::Depth`](crate::Stop::Depth), a quoted packet's own included.
    pub max_depth: u8,
    /// How many headers of any kind may be read: the bound on work for one packet.
    pub max_steps: u8,
    /// The outermost VLAN identifier joins the key. Off by default: tags may differ by direction.
    pub key_vlan: bool,
    /// The innermost virtual network identifier (VXLAN, GENEVE, NVGRE) joins the key. Off by
    /// default.
    pub key_vni: bool,
    /// What to do with fragments.
    pub fragments: Fragments,
    /// Which UDP ports carry tunnels.
    pub udp_tunnels: UdpTunnels,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            key: KeyLevel::Innermost,
            max_depth: 8,
            max_steps: 192,
            key_vlan: false,
            key_vni: false,
            fragments: Fragments::Follow,
            udp_tunnels: UdpTunnels::default(),
        }
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
        assert!(ports.unset(4789));
        assert!(!ports.unset(4789));
        assert_eq!(ports.find(1, 4789), None);
        assert_eq!(ports.find(1, 2152), Some(Layer::Gtp));
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
