//! The ring alone: entries of 16 and 32 bytes in batches of 32, beside `rtrb`.
//!
//! What an entry says is hidden from the compiler, one entry at a time: slots are made and understood
//! singly, and a loop that fills a ring with 0, 1, 2 … can be turned into something that is not a ring.
//!
//! Ours lies in a memfd that is mapped twice and checks every index that the peer shows; `rtrb` lives
//! on the heap of one process and trusts both sides.

use std::hint::{black_box, spin_loop};

use flowyard_mem::bench_support::{RingReader, RingWriter, ring};
use rtrb::RingBuffer;

use crate::figures::{self, ratio};
use crate::laps::{Meter, meet};
use crate::machine;
use crate::rounds::{self, Contender, Setting};

/// Entries of each ring.
const SLOTS: u32 = 1024;
/// Entries of a batch.
const BATCH: usize = 32;
/// Entries of a lap, and laps of a turn.
const LAP: usize = 1 << 16;
const LAPS: usize = 12;

/// Runs and prints.
pub fn run(setting: &Setting) {
    if let Some(core) = setting.other {
        let contenders = [
            Contender::new("flowyard, 16 bytes", move |_: &()| apart(core, ours::<2>())),
            Contender::new("rtrb, 16 bytes", move |_: &()| apart(core, rtrb::<2>())),
            Contender::new("flowyard, 32 bytes", move |_: &()| apart(core, ours::<4>())),
            Contender::new("rtrb, 32 bytes", move |_: &()| apart(core, rtrb::<4>())),
        ];
        let outcome = rounds::run(setting, true, &mut (), |()| {}, &contenders);
        figures::print("Ring", "entry", &outcome, &[ratio(0, 1), ratio(2, 3), ratio(2, 0), ratio(3, 1)]);
    } else {
        println!("\n## Ring\n\nSkipped between two cores: there is one.");
    }
    let contenders = [
        Contender::new("flowyard, 16 bytes", |_: &()| alone(ours::<2>())),
        Contender::new("rtrb, 16 bytes", |_: &()| alone(rtrb::<2>())),
        Contender::new("flowyard, 32 bytes", |_: &()| alone(ours::<4>())),
        Contender::new("rtrb, 32 bytes", |_: &()| alone(rtrb::<4>())),
    ];
    let outcome = rounds::run(setting, false, &mut (), |()| {}, &contenders);
    figures::print("Ring", "entry", &outcome, &[ratio(0, 1), ratio(2, 3), ratio(2, 0), ratio(3, 1)]);
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
        for n in n..n + BATCH as u64 {
            self.fill(entry(n));
        }
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
        for _ in 0..BATCH {
            total = sum(total, self.take()?);
        }
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
fn apart<A: Write, B: Read>(core: usize, pair: Pair<A, B>) -> Option<f64> {
    let Pair { mut writer, mut reader, expected } = pair;
    let (mut leader, mut follower) = meet();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            machine::pin(core);
            while follower.next_lap() {
                let (mut total, mut batches) = (0u64, 0);
                while batches < LAP / BATCH {
                    match reader.batch() {
                        Some(sum) => (total, batches) = (total.wrapping_add(sum), batches + 1),
                        None => spin_loop(),
                    }
                }
                assert_eq!(total, expected, "entries were lost or changed");
                follower.done();
            }
        });
        for _ in 0..LAPS {
            leader.begin();
            let mut n = 0;
            while n < LAP as u64 {
                if writer.batch(n) {
                    n += BATCH as u64;
                } else {
                    spin_loop();
                }
            }
            leader.end(LAP);
        }
        leader.sample()
    })
}

/// Both sides on one core, a batch in and the batch out.
fn alone<A: Write, B: Read>(pair: Pair<A, B>) -> Option<f64> {
    let Pair { mut writer, mut reader, expected } = pair;
    let mut meter = Meter::new();
    for _ in 0..LAPS {
        let mut total = 0u64;
        meter.time(LAP, || {
            for n in (0..LAP as u64).step_by(BATCH) {
                assert!(writer.batch(n), "there is room");
                total = total.wrapping_add(reader.batch().expect("a batch was written"));
            }
        });
        assert_eq!(black_box(total), expected, "entries were lost or changed");
    }
    meter.sample()
}
