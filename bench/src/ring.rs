//! The ring alone: entries of 16 and 32 bytes in batches of 32, beside `rte_ring` and `rtrb`.
//!
//! What an entry says is hidden from the compiler, one entry at a time: slots are made and understood
//! singly, and a loop that fills a ring with 0, 1, 2 … can be turned into something that is not a ring.
//!
//! Ours lies in a memfd and checks every index that the peer shows; the others live on the heap of one process and
//! trust both sides. It is also mapped once for each side, as two processes have it: what one has just written
//! then lies at another address for the other, and costs a miss a line. `rte_ring` (one producer, one consumer) copies bursts
//! from and to an array of the caller, or *in place* lets them be written and read where they lie; of its places
//! one stays empty.

use std::hint::{black_box, spin_loop};

use flowyard_mem::bench_support::{RingReader, RingWriter, ring, ring_mapped_twice};
use rtrb::RingBuffer;

use crate::figures::{self, ratio};
use crate::laps::{Meter, meet};
use crate::machine;
use crate::peers::dpdk::ring::Entries::{self, Copied, InPlace};
use crate::peers::dpdk::{Dpdk, dpdk};
use crate::rounds::{self, Contender, Setting};

/// Entries of each ring.
const SLOTS: u32 = 1024;
/// Entries of a batch.
const BATCH: usize = 32;
/// Entries of a lap, and laps of a turn.
const LAP: usize = 1 << 16;
const LAPS: usize = 12;

/// What is set against what, by place in both lists of contenders.
const OURS: [figures::Ratio; 6] = [ratio(0, 1), ratio(2, 3), ratio(2, 0), ratio(3, 1), ratio(4, 1), ratio(4, 0)];
/// The same where DPDK is.
const DPDK: [figures::Ratio; 7] =
    [ratio(0, 5), ratio(2, 6), ratio(0, 7), ratio(2, 8), ratio(1, 7), ratio(3, 8), ratio(4, 5)];

/// Runs and prints.
pub fn run(setting: &Setting) {
    let ratios = [&OURS[..], if dpdk().is_some() { &DPDK } else { &[] }].concat();
    if let Some(core) = setting.other {
        let mut contenders = vec![
            Contender::new("flowyard, 16 bytes", move |_: &()| two_cores(core, ours::<2>())),
            Contender::new("rtrb, 16 bytes", move |_: &()| two_cores(core, rtrb::<2>())),
            Contender::new("flowyard, 32 bytes", move |_: &()| two_cores(core, ours::<4>())),
            Contender::new("rtrb, 32 bytes", move |_: &()| two_cores(core, rtrb::<4>())),
            Contender::new("flowyard mapped twice, 16 bytes", move |_: &()| two_cores(core, ours_mapped_twice::<2>())),
        ];
        if let Some(dpdk) = dpdk() {
            let narrow = |name, how| Contender::new(name, move |_: &()| bursts_on_two_cores::<2>(core, dpdk, how));
            let wide = |name, how| Contender::new(name, move |_: &()| bursts_on_two_cores::<4>(core, dpdk, how));
            contenders.extend([
                narrow("rte_ring, 16 bytes", Copied),
                wide("rte_ring, 32 bytes", Copied),
                narrow("rte_ring in place, 16 bytes", InPlace),
                wide("rte_ring in place, 32 bytes", InPlace),
            ]);
        }
        let outcome = rounds::run(setting, true, &mut (), |()| {}, &contenders);
        figures::print("Ring", "entry", &outcome, &ratios);
    } else {
        println!("\n## Ring\n\nSkipped between two cores: there is one.");
    }
    let mut contenders = vec![
        Contender::new("flowyard, 16 bytes", |_: &()| one_core(ours::<2>())),
        Contender::new("rtrb, 16 bytes", |_: &()| one_core(rtrb::<2>())),
        Contender::new("flowyard, 32 bytes", |_: &()| one_core(ours::<4>())),
        Contender::new("rtrb, 32 bytes", |_: &()| one_core(rtrb::<4>())),
        Contender::new("flowyard mapped twice, 16 bytes", |_: &()| one_core(ours_mapped_twice::<2>())),
    ];
    if let Some(dpdk) = dpdk() {
        let narrow = |name, how| Contender::new(name, move |_: &()| bursts_on_one_core::<2>(dpdk, how));
        let wide = |name, how| Contender::new(name, move |_: &()| bursts_on_one_core::<4>(dpdk, how));
        contenders.extend([
            narrow("rte_ring, 16 bytes", Copied),
            wide("rte_ring, 32 bytes", Copied),
            narrow("rte_ring in place, 16 bytes", InPlace),
            wide("rte_ring in place, 32 bytes", InPlace),
        ]);
    }
    let outcome = rounds::run(setting, false, &mut (), |()| {}, &contenders);
    figures::print("Ring", "entry", &outcome, &ratios);
}

/// Writes a batch beginning with number `n`; false if there is no room for it now.
trait Write: Send {
    fn batch(&mut self, n: u64) -> bool;
}

/// Reads a batch and answers the sum of its words; `None` if there is none now.
trait Read: Send {
    fn batch(&mut self) -> Option<u64>;
}

#[inline]
fn entry<const W: usize>(n: u64) -> [u64; W] {
    let n = black_box(n);
    std::array::from_fn(|word| n.wrapping_add(word as u64))
}

/// What all words of a lap add up to.
fn expected<const W: usize>() -> u64 {
    (0..LAP as u64).flat_map(entry::<W>).fold(0, u64::wrapping_add)
}

#[inline]
fn sum<const W: usize>(sum: u64, entry: [u64; W]) -> u64 {
    sum.wrapping_add(black_box(entry.into_iter().fold(0, u64::wrapping_add)))
}

struct Pair<A, B> {
    writer: A,
    reader: B,
    expected: u64,
}

fn ours<const W: usize>() -> Pair<RingWriter<W>, RingReader<W>> {
    let (writer, reader) = ring::<W>(SLOTS).expect("memory for a small ring");
    Pair { writer, reader, expected: expected::<W>() }
}

fn ours_mapped_twice<const W: usize>() -> Pair<RingWriter<W>, RingReader<W>> {
    let (writer, reader) = ring_mapped_twice::<W>(SLOTS).expect("memory for a small ring");
    Pair { writer, reader, expected: expected::<W>() }
}

fn rtrb<const W: usize>() -> Pair<rtrb::Producer<[u64; W]>, rtrb::Consumer<[u64; W]>> {
    let (writer, reader) = RingBuffer::new(SLOTS as usize);
    Pair { writer, reader, expected: expected::<W>() }
}

impl<const W: usize> Write for RingWriter<W> {
    #[inline]
    fn batch(&mut self, n: u64) -> bool {
        if self.reserve(BATCH as u32) < BATCH as u32 {
            return false;
        }
        self.fill_batch(BATCH as u32, |at| entry(n + at as u64));
        self.commit();
        true
    }
}

impl<const W: usize> Read for RingReader<W> {
    #[inline]
    fn batch(&mut self) -> Option<u64> {
        if self.reserve() < BATCH as u32 {
            return None;
        }
        let mut total = 0;
        self.take_batch(BATCH as u32, |entry| total = sum(total, entry));
        self.release();
        Some(total)
    }
}

impl<const W: usize> Write for rtrb::Producer<[u64; W]> {
    #[inline]
    fn batch(&mut self, n: u64) -> bool {
        let Ok(chunk) = self.write_chunk_uninit(BATCH) else { return false };
        chunk.fill_from_iter((n..n + BATCH as u64).map(entry));
        true
    }
}

impl<const W: usize> Read for rtrb::Consumer<[u64; W]> {
    #[inline]
    fn batch(&mut self) -> Option<u64> {
        let chunk = self.read_chunk(BATCH).ok()?;
        let (first, second) = chunk.as_slices();
        let total = first.iter().chain(second).fold(0, |total, entry| sum(total, *entry));
        chunk.commit_all();
        Some(total)
    }
}

/// One side on each core.
fn two_cores<A: Write, B: Read>(core: usize, pair: Pair<A, B>) -> Option<f64> {
    let Pair { mut writer, mut reader, expected } = pair;
    let send = || {
        let mut n = 0;
        while n < LAP as u64 {
            if writer.batch(n) {
                n += BATCH as u64;
            } else {
                spin_loop();
            }
        }
    };
    let take = move || {
        let (mut total, mut batches) = (0u64, 0);
        while batches < LAP / BATCH {
            match reader.batch() {
                Some(sum) => (total, batches) = (total.wrapping_add(sum), batches + 1),
                None => spin_loop(),
            }
        }
        total
    };
    apart(core, send, take, expected)
}

/// Both sides on one core, a batch in and the batch out.
fn one_core<A: Write, B: Read>(pair: Pair<A, B>) -> Option<f64> {
    let Pair { mut writer, mut reader, expected } = pair;
    let lap = || {
        let mut total = 0u64;
        for n in (0..LAP as u64).step_by(BATCH) {
            assert!(writer.batch(n), "there is room");
            total = total.wrapping_add(reader.batch().expect("a batch was written"));
        }
        total
    };
    alone(lap, expected)
}

/// As [`two_cores`], with both loops in C.
fn bursts_on_two_cores<const W: usize>(core: usize, dpdk: &Dpdk, entries: Entries) -> Option<f64> {
    let (mut sender, mut taker) = dpdk.ring::<W>(SLOTS, entries);
    apart(core, || sender.send(LAP), move || taker.take(LAP), expected::<W>())
}

/// As [`one_core`], with the loop in C.
fn bursts_on_one_core<const W: usize>(dpdk: &Dpdk, entries: Entries) -> Option<f64> {
    let (mut sender, mut taker) = dpdk.ring::<W>(SLOTS, entries);
    alone(|| sender.by_turns(&mut taker, LAP), expected::<W>())
}

/// Laps in which `send` sends all entries here and `take` takes them on `core`, and answers their sum.
fn apart(core: usize, mut send: impl FnMut(), mut take: impl FnMut() -> u64 + Send, expected: u64) -> Option<f64> {
    let (mut leader, mut follower) = meet();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            machine::pin(core);
            while follower.next_lap() {
                assert_eq!(take(), expected, "entries were lost or changed");
                follower.done();
            }
        });
        for _ in 0..LAPS {
            leader.begin();
            send();
            leader.end(LAP);
        }
        leader.sample()
    })
}

/// Laps on this core.
fn alone(mut lap: impl FnMut() -> u64, expected: u64) -> Option<f64> {
    let mut meter = Meter::new();
    for _ in 0..LAPS {
        let mut total = 0;
        meter.time(LAP, || total = lap());
        assert_eq!(black_box(total), expected, "entries were lost or changed");
    }
    meter.sample()
}
