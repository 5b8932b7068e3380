//! How far apart two cores are: a flag thrown to and fro.
//!
//! Virtual cores are moved about by their host: now they share a cache, now they do not, and what
//! crosses between them costs several times more. A figure of two cores is worth nothing without
//! saying which it was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::machine;

/// Where two cores stood to each other during a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Distance {
    /// There was only one.
    One,
    /// They share a cache.
    Near,
    /// They do not.
    Far,
    /// That was not asked.
    Any,
    /// It changed meanwhile: the round is discarded.
    Moved,
}

impl Distance {
    /// As it appears in tables.
    pub fn name(self) -> &'static str {
        match self {
            Distance::One => "one core",
            Distance::Near => "two cores, near",
            Distance::Far => "two cores, far",
            Distance::Any => "two cores, near or far",
            Distance::Moved => "two cores, moved",
        }
    }

    /// From what the probe said before and after.
    pub fn of(before_ns: f64, after_ns: f64) -> Distance {
        match (before_ns < NEAR_NS, after_ns < NEAR_NS) {
            (true, true) => Distance::Near,
            (false, false) => Distance::Far,
            _ => Distance::Moved,
        }
    }
}

/// One way takes 30–80 ns through a shared cache and 150–250 ns without one, on every machine that we
/// have seen; nothing lies between.
const NEAR_NS: f64 = 110.0;

#[derive(Default)]
#[repr(align(128))]
struct Flag(AtomicU64);

/// Nanoseconds that a change takes from core `here`, where the caller runs, to core `there`: the
/// median of 40 times 50 exchanges.
pub fn one_way_ns(there: usize) -> f64 {
    const TIMES: u64 = 40;
    const EXCHANGES: u64 = 50;
    let (to, fro) = (Flag::default(), Flag::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            machine::pin(there);
            for n in 1..=TIMES * EXCHANGES {
                await_value(&to, n);
                fro.0.store(n, Ordering::Release);
            }
        });
        let mut n = 0;
        let mut times: Vec<f64> = (0..TIMES)
            .map(|_| {
                let start = Instant::now();
                for _ in 0..EXCHANGES {
                    n += 1;
                    to.0.store(n, Ordering::Release);
                    await_value(&fro, n);
                }
                start.elapsed().as_nanos() as f64 / (2 * EXCHANGES) as f64
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

fn await_value(flag: &Flag, value: u64) {
    while flag.0.load(Ordering::Acquire) < value {
        std::hint::spin_loop(); // pairs with the Release on the other side
    }
}
