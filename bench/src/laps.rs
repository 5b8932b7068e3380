//! Laps: short timed stretches, each kept only if nobody took the core meanwhile.
//!
//! A sample of a contender is many laps of well under a millisecond; its figure is the median lap.
//! Between laps, outside the clock, packets are laid out anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::machine;

/// Collects the laps of one contender's turn.
#[derive(Debug)]
pub struct Meter {
    laps: Vec<f64>,
    disturbed: usize,
    stolen: u64,
}

impl Meter {
    /// Begins a turn.
    pub fn new() -> Meter {
        Meter { laps: Vec::with_capacity(64), disturbed: 0, stolen: machine::stolen_ticks() }
    }

    /// Notes a lap of `items` that took `ns`; `clean` unless a thread of it lost its core. A lap during
    /// which the hypervisor took time, or since the one before, is no better.
    pub fn lap(&mut self, items: usize, ns: u64, clean: bool) {
        let stolen = machine::stolen_ticks();
        if clean && stolen == self.stolen {
            self.laps.push(ns as f64 / items as f64);
        } else {
            self.disturbed += 1;
        }
        self.stolen = stolen;
    }

    /// Times what the calling thread does for `items`.
    pub fn time(&mut self, items: usize, work: impl FnOnce()) {
        let switches = machine::involuntary_switches();
        let start = Instant::now();
        work();
        let ns = start.elapsed().as_nanos() as u64;
        self.lap(items, ns, machine::involuntary_switches() == switches);
    }

    /// Nanoseconds an item: the median of the undisturbed laps. `None` if they are fewer than a quarter.
    pub fn sample(mut self) -> Option<f64> {
        if self.laps.is_empty() || self.laps.len() * 3 < self.disturbed {
            return None;
        }
        self.laps.sort_by(f64::total_cmp);
        Some(self.laps[self.laps.len() / 2])
    }
}

/// A counter on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicU64);

/// What leader and follower share. Laps count from 1.
#[derive(Debug, Default)]
struct Meeting {
    /// Written by the leader: the lap that has begun; `OVER` after the last.
    begun: Line,
    /// Written by the follower: the lap that it stands ready for.
    ready: Line,
    /// Written by the follower: the lap that it has done.
    done: Line,
    /// Written by the follower before `done`: whether it kept its core.
    undisturbed: Line,
}

const OVER: u64 = u64::MAX;

/// The side of a two-core lap that holds the clock.
#[derive(Debug)]
pub struct Leader {
    meeting: Arc<Meeting>,
    lap: u64,
    switches: u64,
    start: Instant,
    meter: Option<Meter>,
}

/// The other side.
#[derive(Debug)]
pub struct Follower {
    meeting: Arc<Meeting>,
    lap: u64,
    switches: u64,
}

/// A pair whose two sides run laps together on two cores.
pub fn meet() -> (Leader, Follower) {
    let meeting = Arc::new(Meeting::default());
    let leader =
        Leader { meeting: meeting.clone(), lap: 0, switches: 0, start: Instant::now(), meter: Some(Meter::new()) };
    (leader, Follower { meeting, lap: 0, switches: 0 })
}

impl Leader {
    /// Waits for the follower, and begins a lap.
    pub fn begin(&mut self) {
        self.lap += 1;
        while self.meeting.ready.0.load(Ordering::Acquire) < self.lap {
            std::hint::spin_loop(); // pairs with the Release in `Follower::next_lap`
        }
        self.switches = machine::involuntary_switches();
        self.start = Instant::now();
        self.meeting.begun.0.store(self.lap, Ordering::Release);
    }

    /// Ends the lap of `items` if the follower has done its part; answers whether.
    pub fn try_end(&mut self, items: usize) -> bool {
        if self.meeting.done.0.load(Ordering::Acquire) < self.lap {
            return false; // pairs with the Release in `Follower::done`
        }
        let ns = self.start.elapsed().as_nanos() as u64;
        // Relaxed: ordered by `done`.
        let clean =
            self.meeting.undisturbed.0.load(Ordering::Relaxed) == 1 && machine::involuntary_switches() == self.switches;
        if let Some(meter) = &mut self.meter {
            meter.lap(items, ns, clean);
        }
        true
    }

    /// Waits for the follower, and ends the lap.
    pub fn end(&mut self, items: usize) {
        while !self.try_end(items) {
            std::hint::spin_loop();
        }
    }

    /// The figure of all laps.
    pub fn sample(mut self) -> Option<f64> {
        self.meter.take().and_then(Meter::sample)
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.meeting.begun.0.store(OVER, Ordering::Release);
    }
}

impl Follower {
    /// Waits for the next lap; false when there is none.
    pub fn next_lap(&mut self) -> bool {
        self.lap += 1;
        self.switches = machine::involuntary_switches();
        self.meeting.ready.0.store(self.lap, Ordering::Release);
        loop {
            match self.meeting.begun.0.load(Ordering::Acquire) {
                OVER => return false,
                lap if lap >= self.lap => return true,
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Says that this side has done its part of the lap.
    pub fn done(&mut self) {
        let undisturbed = machine::involuntary_switches() == self.switches;
        self.meeting.undisturbed.0.store(undisturbed.into(), Ordering::Relaxed); // ordered by `done`
        self.meeting.done.0.store(self.lap, Ordering::Release);
    }
}
