//! The packets: what every contender is given.
//!
//! Made by the generator of `gen:`, in both directions of many conversations over all carriers, and
//! reshuffled between rounds: a loop over few packets, or over many in one order, teaches the branch
//! predictor what comes next and measures nothing.

use flowyard::port::traffic::{Carrier, GenPacket, Mix, MixOptions, PacketKind};

use crate::random::Random;

/// Different packets of a set.
pub const COUNT: usize = 1 << 16;
/// Conversations that they belong to.
pub const FLOWS: u32 = 1024;

/// A set of packets in an order that changes.
#[derive(Debug)]
pub struct Packets {
    bytes: Vec<u8>,
    /// Offset, length and conversation of each.
    places: Vec<(u32, u16, u32)>,
    order: Vec<u32>,
    random: Random,
}

impl Packets {
    /// `count` packets of those `carriers` (all, if none are given) that `wanted` accepts.
    pub fn make(count: usize, carriers: &[Carrier], wanted: impl Fn(&GenPacket) -> bool) -> Packets {
        let mut mix = Mix::new(&MixOptions { flows: FLOWS, only: carriers.to_vec(), ..MixOptions::default() });
        let mut packets = Packets {
            bytes: Vec::new(),
            places: Vec::with_capacity(count),
            order: (0..count as u32).collect(),
            random: Random::new(0x7061_636b_6574),
        };
        let mut frame = [0; Mix::FRAME_BYTES];
        while packets.places.len() < count {
            let packet = mix.next(&mut frame);
            if wanted(&packet) {
                packets.places.push((packets.bytes.len() as u32, packet.len as u16, packet.conversation));
                packets.bytes.extend_from_slice(&frame[..packet.len]);
            }
        }
        packets
    }

    /// Puts them in another order.
    pub fn shuffle(&mut self) {
        self.random.shuffle(&mut self.order);
    }

    /// Begins elsewhere, in the same order: for fragments, which follow each other.
    pub fn rotate(&mut self) {
        let by = self.random.next() as usize % self.order.len();
        self.order.rotate_left(by);
    }

    /// Packets.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The packet at place `at` of the order.
    #[inline]
    pub fn get(&self, at: usize) -> &[u8] {
        let (start, len, _) = self.places[self.order[at] as usize];
        &self.bytes[start as usize..][..usize::from(len)]
    }

    /// The conversation of that packet, as its maker knows it.
    pub fn conversation(&self, at: usize) -> u32 {
        self.places[self.order[at] as usize].2
    }

    /// Their mean length in bytes.
    pub fn mean_bytes(&self) -> usize {
        self.bytes.len() / self.places.len()
    }
}

/// Whether a packet is whole and its own: neither a fragment nor an error about another.
pub fn is_ordinary(packet: &GenPacket) -> bool {
    matches!(packet.kind, PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo)
}

/// Carriers that every parser sees through.
pub const NO_TUNNELS: [Carrier; 3] = [Carrier::Plain, Carrier::Vlan, Carrier::Qinq];
