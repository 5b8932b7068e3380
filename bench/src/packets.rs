//! The packets: what every contender is given.
//!
//! Made by the generator of `gen:`, in both directions of many conversations over all carriers, and
//! reshuffled between rounds: a loop over few packets, or over many in one order, teaches the branch
//! predictor what comes next and measures nothing.
//!
//! Each lies in a buffer of 2 KiB, as a card leaves it, on huge pages where the kernel gives them: on small
//! ones most of the time is the processor's, looking for pages.

use flowyard::port::traffic::{Carrier, GenPacket, Mix, MixOptions, PacketKind};

use memmap2::{Advice, MmapMut};

use crate::random::Random;

/// Different packets of a set.
pub const COUNT: usize = 1 << 16;
/// Conversations that they belong to.
pub const FLOWS: u32 = 1024;
/// Bytes from one packet's buffer to the next.
pub const BUFFER_BYTES: usize = 2048;
/// Where packets start in their buffers, as in ours.
pub const START: usize = 320;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// A set of packets in an order that changes.
#[derive(Debug)]
pub struct Packets {
    memory: MmapMut,
    /// Where buffers begin in it.
    base: usize,
    /// Length and conversation of each.
    about: Vec<(u16, u32)>,
    order: Vec<u32>,
    random: Random,
    mbufs: bool,
}

impl Packets {
    /// `count` packets of those `carriers` (all, if none are given) that `wanted` accepts.
    pub fn make(count: usize, carriers: &[Carrier], wanted: impl Fn(&GenPacket) -> bool) -> Packets {
        Packets::of(&mut Packets::mix(FLOWS, carriers), count, wanted)
    }

    /// What packets of so many conversations are made by.
    pub fn mix(flows: u32, carriers: &[Carrier]) -> Mix {
        Mix::new(&MixOptions { flows, only: carriers.to_vec(), ..MixOptions::default() })
    }

    /// The next `count` packets of `mix` that `wanted` accepts.
    pub fn of(mix: &mut Mix, count: usize, wanted: impl Fn(&GenPacket) -> bool) -> Packets {
        let memory = MmapMut::map_anon(count * BUFFER_BYTES + HUGE).expect("memory for packets");
        let _ = memory.advise(Advice::HugePage); // without them it is slower for all
        let mut packets = Packets {
            base: memory.as_ptr().align_offset(HUGE),
            memory,
            about: Vec::with_capacity(count),
            order: (0..count as u32).collect(),
            random: Random::new(0x7061_636b_6574),
            mbufs: false,
        };
        let mut frame = [0; Mix::FRAME_BYTES];
        while packets.about.len() < count {
            let packet = mix.next(&mut frame);
            if wanted(&packet) {
                let start = packets.base + packets.about.len() * BUFFER_BYTES + START;
                packets.memory[start..][..packet.len].copy_from_slice(&frame[..packet.len]);
                packets.about.push((packet.len as u16, packet.conversation));
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
        let len = self.about[self.order[at] as usize].0;
        &self.buffer(at)[START..][..len.into()]
    }

    /// The buffer in which that packet lies.
    #[inline]
    pub fn buffer(&self, at: usize) -> &[u8] {
        let start = self.base + self.order[at] as usize * BUFFER_BYTES;
        &self.memory[start..][..BUFFER_BYTES]
    }

    /// The conversation of that packet, as its maker knows it.
    pub fn conversation(&self, at: usize) -> u32 {
        self.about[self.order[at] as usize].1
    }

    /// Their mean length in bytes.
    pub fn mean_bytes(&self) -> usize {
        self.about.iter().map(|(len, _)| usize::from(*len)).sum::<usize>() / self.about.len()
    }

    /// All buffers, with the length of the packet that starts at [`START`] of each.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = (&mut [u8], usize)> {
        let buffers = self.memory[self.base..].chunks_exact_mut(BUFFER_BYTES);
        buffers.zip(&self.about).map(|(buffer, (len, _))| (buffer, usize::from(*len)))
    }

    /// Notes that there is an mbuf before every packet.
    pub fn set_mbufs(&mut self) {
        self.mbufs = true;
    }

    /// Whether there is an mbuf before every packet.
    pub fn have_mbufs(&self) -> bool {
        self.mbufs
    }
}

/// Whether a packet is whole and its own: neither a fragment nor an error about another.
pub fn is_ordinary(packet: &GenPacket) -> bool {
    matches!(packet.kind, PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo)
}

/// Carriers that every parser sees through.
pub const NO_TUNNELS: [Carrier; 3] = [Carrier::Plain, Carrier::Vlan, Carrier::Qinq];
