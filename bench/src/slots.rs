//! What rides in the slot: 16 or 32 bytes, and what a consumer then has to fetch from the buffer.
//!
//! The same pipeline on two cores with slots of either size. A consumer that needs time, offsets of
//! the headers and total length finds them in a slot of 32 bytes, or else in the tag: one more cache
//! line that the other core has just written. Each with and without a look at the packet's first bytes.
//! The ledger is left out: it is the same for both.
//!
//! *Sorted beforehand*: tags and slots are made outside the clock, so that what is timed is what moves
//! between the cores. *Sorted by steer*: as in a yard, where the sorting side has more to do.

use std::hint::black_box;

use flowyard::mem::{Buffer, Geometry, Region, Slot, Tag};
use flowyard::steer::{Classifier, FragmentTable, Frame, LinkType};
use flowyard_mem::bench_support::{BufferReader, BufferWriter, buffer_ring};

use crate::figures::{self, ratio};
use crate::flow::{self, BATCH, BUFFERS, Looking, SLOTS, Sorting};
use crate::label;
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::rounds::{self, Contender, Setting};
use crate::steer::{RINGS, classifier};

/// What a consumer needs beyond buffer, length, hash and flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// Time, header offsets and total length: from the slot if it has them, else from the tag.
    More,
}

/// One of the pipelines compared.
#[derive(Debug, Clone, Copy)]
struct Variant {
    needs: Needs,
    /// Whether the consumer reads the packet's first bytes.
    first_bytes: bool,
    /// Whether the producer writes the tag.
    tag: bool,
    /// Whether it classifies within the clock.
    sorts: bool,
}

const fn beforehand(needs: Needs, first_bytes: bool, tag: bool) -> Variant {
    Variant { needs, first_bytes, tag, sorts: false }
}

const fn by_steer(needs: Needs) -> Variant {
    Variant { needs, first_bytes: true, tag: true, sorts: true }
}

/// Runs and prints.
pub fn run(setting: &Setting) {
    let Some(core) = setting.other else {
        println!("\n## Slots\n\nSkipped: it takes two cores.");
        return;
    };
    use Needs::{More, Nothing};
    let narrow = move |name, v| Contender::new(name, move |p: &Packets| measure::<2>(p, core, v));
    let wide = move |name, v| Contender::new(name, move |p: &Packets| measure::<4>(p, core, v));
    let contenders = [
        narrow("16 bytes, slot only", beforehand(Nothing, false, true)),
        wide("32 bytes, slot only", beforehand(Nothing, false, true)),
        narrow("16 bytes, more from the tag", beforehand(More, false, true)),
        wide("32 bytes, more from the slot", beforehand(More, false, true)),
        narrow("16 bytes, slot and first bytes", beforehand(Nothing, true, true)),
        wide("32 bytes, slot and first bytes", beforehand(Nothing, true, true)),
        narrow("16 bytes, more from the tag, first bytes", beforehand(More, true, true)),
        wide("32 bytes, more from the slot, first bytes", beforehand(More, true, true)),
        narrow("16 bytes, slot only, no tag written", beforehand(Nothing, false, false)),
        wide("32 bytes, more from the slot, no tag written", beforehand(More, false, false)),
        wide("32 bytes, more from the slot, first bytes, no tag written", beforehand(More, true, false)),
    ];
    let mut packets = Packets::make(COUNT, &[], is_ordinary);
    let outcome = rounds::run(setting, true, &mut packets, Packets::shuffle, &contenders);
    let ratios =
        [ratio(1, 0), ratio(3, 2), ratio(5, 4), ratio(7, 6), ratio(8, 0), ratio(9, 3), ratio(10, 7), ratio(9, 2)];
    figures::print("Slots, sorted beforehand", "packet", &outcome, &ratios);
    let contenders = [
        narrow("16 bytes, slot and first bytes", by_steer(Nothing)),
        wide("32 bytes, slot and first bytes", by_steer(Nothing)),
        narrow("16 bytes, more from the tag, first bytes", by_steer(More)),
        wide("32 bytes, more from the slot, first bytes", by_steer(More)),
    ];
    let outcome = rounds::run(setting, true, &mut packets, Packets::shuffle, &contenders);
    figures::print("Slots, sorted by steer", "packet", &outcome, &[ratio(1, 0), ratio(3, 2)]);
}

fn measure<const W: usize>(packets: &Packets, core: usize, variant: Variant) -> Option<f64> {
    let geometry = Geometry::new(2048, 64, BUFFERS).expect("a usual geometry");
    let (region, mut stock) = Region::create("bench-slots", geometry).expect("memory for 8 MiB of buffers");
    let mut home: Vec<Option<Buffer>> = std::iter::repeat_with(|| stock.take()).take(BUFFERS).collect();
    home.sort_by_key(|buffer| buffer.as_ref().map(Buffer::index));
    let mut sorter = Sorter {
        steer: Steer { classifier: classifier(), memory: FragmentTable::default() },
        at: BUFFERS,
        home: BUFFERS,
        labels: vec![Label::default(); BUFFERS],
        start: geometry.packet_offset(),
        buffers: home,
        outlets: Vec::new(),
        variant,
        sum: 0,
        region: region.clone(),
    };
    let mut inlets = Vec::new();
    for _ in 0..RINGS {
        let (out, taken) = buffer_ring::<W>(&region, SLOTS).expect("memory for a ring");
        let (returned, back) = buffer_ring::<2>(&region, 2 * SLOTS).expect("memory for a ring");
        sorter.outlets.push(Outlet { out, back });
        inlets.push(Inlet { taken, returned });
    }
    flow::two_cores(packets, core, sorter, Looker { region, inlets, variant, sum: 0 })
}

struct Outlet<const W: usize> {
    out: BufferWriter<W>,
    back: BufferReader<2>,
}

/// Ring, tag and slot of a packet.
#[derive(Debug, Clone, Copy, Default)]
struct Label {
    ring: u16,
    tag: Tag,
    slot: Slot,
}

struct Steer {
    classifier: Classifier,
    memory: FragmentTable,
}

impl Steer {
    /// Classifies packet number `index` of the lap, which starts at `start` of its buffer.
    #[inline]
    fn label(&mut self, index: usize, bytes: &[u8], start: usize) -> Label {
        let (len, time_ns) = (bytes.len() as u16, index as u64);
        let verdict = self.classifier.classify(&Frame::new(bytes, LinkType::ETHERNET), &mut self.memory, time_ns);
        let decision = verdict.decision();
        let tag = label::tag(decision, len, time_ns);
        Label { ring: decision.ring, tag, slot: label::slot(&tag, start) }
    }
}

struct Sorter<const W: usize> {
    region: Region,
    steer: Steer,
    /// By index; those that are out are missing.
    buffers: Vec<Option<Buffer>>,
    labels: Vec<Label>,
    start: usize,
    outlets: Vec<Outlet<W>>,
    variant: Variant,
    sum: u8,
    /// The next buffer to send in this lap, and how many are home.
    at: usize,
    home: usize,
}

impl<const W: usize> Sorter<W> {
    fn reclaim(&mut self) {
        for outlet in &mut self.outlets {
            if outlet.back.reserve() == 0 {
                continue;
            }
            while let Some((buffer, _)) = outlet.back.take() {
                let index = buffer.index() as usize;
                self.buffers[index] = Some(buffer);
                self.home += 1;
            }
            outlet.back.release();
        }
    }

    fn send(&mut self, ring: usize, buffer: Buffer, slot: Slot) {
        let words = slot.to_words();
        while self.outlets[ring].out.reserve(1) == 0 {
            self.outlets[ring].out.commit();
            self.reclaim();
        }
        self.home -= 1;
        self.outlets[ring].out.send(buffer, std::array::from_fn(|word| words[word]));
    }
}

impl<const W: usize> Sorting for Sorter<W> {
    fn load(&mut self, buffer: usize, bytes: &[u8]) {
        let token = self.buffers[buffer].as_mut().expect("all buffers are home between laps");
        assert!(self.region.write(token, self.start, bytes), "a packet fits its buffer");
        self.labels[buffer] = self.steer.label(buffer, bytes, self.start);
        self.at = 0;
    }

    fn turn(&mut self) {
        self.reclaim();
        for index in self.at..(self.at + BATCH).min(BUFFERS) {
            let mut buffer = self.buffers[index].take().expect("each is sent once a lap");
            let mut label = self.labels[index];
            let bytes = self.region.peek(&buffer, self.start, label.slot.len.into(), &mut []);
            if self.variant.sorts {
                label = self.steer.label(index, bytes, self.start);
            } else {
                self.sum ^= bytes[0];
            }
            if self.variant.tag {
                self.region.set_tag(&mut buffer, &label.tag);
            }
            self.send(label.ring.into(), buffer, label.slot);
        }
        self.at = (self.at + BATCH).min(BUFFERS);
        for outlet in &mut self.outlets {
            outlet.out.commit();
        }
        black_box(self.sum);
    }

    fn all_home(&self) -> bool {
        self.at == BUFFERS && self.home == BUFFERS
    }
}

struct Inlet<const W: usize> {
    taken: BufferReader<W>,
    returned: BufferWriter<2>,
}

struct Looker<const W: usize> {
    region: Region,
    inlets: Vec<Inlet<W>>,
    variant: Variant,
    sum: u64,
}

impl<const W: usize> Looking for Looker<W> {
    fn turn(&mut self) -> usize {
        let mut seen = 0;
        for inlet in &mut self.inlets {
            let ready = inlet.taken.reserve().min(32);
            for _ in 0..ready {
                let Some((buffer, words)) = inlet.taken.take() else { break };
                self.sum ^= look(&self.region, &buffer, &words, self.variant);
                assert!(inlet.returned.reserve(1) > 0, "the ring back has twice the places");
                inlet.returned.send(buffer, [words[0], words[1]]);
            }
            if ready > 0 {
                inlet.returned.commit();
                inlet.taken.release();
            }
            seen += ready as usize;
        }
        black_box(self.sum);
        seen
    }
}

#[inline]
fn look<const W: usize>(region: &Region, buffer: &Buffer, words: &[u64; W], variant: Variant) -> u64 {
    let mut sum = words[0] ^ words[1];
    if variant.needs == Needs::More {
        sum ^= if W == 4 {
            words[2] ^ words[3]
        } else {
            let tag = region.tag(buffer);
            tag.time_ns ^ u64::from(tag.len) ^ u64::from(tag.inner_l3) << 32 ^ u64::from(tag.inner_l4) << 48
        };
    }
    if variant.first_bytes {
        let slot = Slot::from_return([words[0], words[1]]);
        let bytes = region.peek(buffer, slot.offset.into(), slot.len.into(), &mut []);
        sum ^= bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }
    sum
}
