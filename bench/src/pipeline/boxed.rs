//! Boxed packets over `rtrb`: what a Rust program does that has no shared memory.
//!
//! Four rings out and four back, chunks as large as there are packets, staged per ring so that a ring's
//! index is written once a batch.

use std::hint::black_box;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::flow::{BATCH, BUFFERS, Looking, SLOTS, Sorting};
use crate::steer::RINGS;

/// A packet that owns its bytes: 16 bytes in a ring.
struct Packet {
    bytes: Box<[u8; BYTES]>,
    len: u16,
    hash: u32,
}

/// As large as ours.
const BYTES: usize = 2048;
/// Where packets start, as in our buffers.
const START: usize = 320;

/// Both sides; `sort` answers hash and ring.
pub fn pair<F: FnMut(&[u8]) -> (u32, usize)>(sort: F) -> (Sorter<F>, Looker) {
    let rings = usize::from(RINGS);
    let (out, taken): (Vec<_>, Vec<_>) = (0..rings).map(|_| RingBuffer::new(SLOTS as usize)).unzip();
    let (returned, back): (Vec<_>, Vec<_>) = (0..rings).map(|_| RingBuffer::new(BUFFERS)).unzip();
    let packet = |_| Packet { bytes: Box::new([0; BYTES]), len: 0, hash: 0 };
    let stages = || (0..rings).map(|_| Vec::with_capacity(BATCH)).collect();
    let sorter = Sorter { sort, packets: (0..BUFFERS).map(packet).collect(), left: 0, stages: stages(), out, back };
    (sorter, Looker { inlets: taken.into_iter().zip(returned).collect(), stage: Vec::with_capacity(BATCH), sum: 0 })
}

/// The sorting side.
pub struct Sorter<F> {
    sort: F,
    /// Those at home; the first `left` are still to be sent in this lap.
    packets: Vec<Packet>,
    left: usize,
    /// Sorted packets of a batch, by ring.
    stages: Vec<Vec<Packet>>,
    out: Vec<Producer<Packet>>,
    back: Vec<Consumer<Packet>>,
}

impl<F: FnMut(&[u8]) -> (u32, usize)> Sorting for Sorter<F> {
    fn load(&mut self, buffer: usize, bytes: &[u8]) {
        // Sent from the back: what was laid out first goes first, as in the others.
        let packet = &mut self.packets[BUFFERS - 1 - buffer];
        packet.bytes[START..START + bytes.len()].copy_from_slice(bytes);
        packet.len = bytes.len() as u16;
        self.left = BUFFERS;
    }

    fn turn(&mut self) {
        for back in &mut self.back {
            if let Ok(chunk) = back.read_chunk(back.slots()) {
                self.packets.extend(chunk);
            }
        }
        let batch = self.left.min(BATCH);
        // The last of those to be sent; returned ones, which lie behind, take their places.
        for at in (self.left - batch..self.left).rev() {
            let mut packet = self.packets.swap_remove(at);
            let (hash, ring) = (self.sort)(&packet.bytes[START..][..packet.len.into()]);
            packet.hash = hash;
            self.stages[ring].push(packet);
        }
        self.left -= batch;
        for (stage, out) in self.stages.iter_mut().zip(&mut self.out) {
            let count = stage.len().min(out.slots());
            if let Ok(chunk) = out.write_chunk_uninit(count) {
                chunk.fill_from_iter(stage.drain(..count));
            }
        }
    }

    fn all_home(&self) -> bool {
        self.left == 0 && self.packets.len() == BUFFERS
    }
}

/// The looking side.
pub struct Looker {
    inlets: Vec<(Consumer<Packet>, Producer<Packet>)>,
    stage: Vec<Packet>,
    sum: u64,
}

impl Looking for Looker {
    fn turn(&mut self) -> usize {
        let mut seen = 0;
        for (taken, returned) in &mut self.inlets {
            let Ok(chunk) = taken.read_chunk(taken.slots().min(BATCH)) else { continue };
            for packet in chunk {
                self.sum ^= u64::from(packet.hash);
                self.sum ^= packet.bytes[START..].first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                self.stage.push(packet);
            }
            seen += self.stage.len();
            let back = returned.write_chunk_uninit(self.stage.len()).expect("room for every packet");
            back.fill_from_iter(self.stage.drain(..));
        }
        black_box(self.sum);
        seen
    }
}
