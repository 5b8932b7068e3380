//! Packets through a pipeline, lap by lap: what all two-sided contenders have in common.
//!
//! A pipeline holds [`BUFFERS`] packets. Before each lap, outside the clock, other packets are laid
//! into its buffers; then all of them go through once: sorted, on four rings, taken, looked at,
//! returned. The lap ends when the consumer has seen all and every buffer is home.

use std::hint::spin_loop;

use crate::laps::{Meter, meet};
use crate::machine;
use crate::packets::Packets;

/// Packets on hand: buffers of a pipeline, and packets of a lap.
pub const BUFFERS: usize = 4096;
/// Slots of each ring out.
pub const SLOTS: u32 = 1024;
/// Packets that the sorting side takes at a time.
pub const BATCH: usize = 64;

/// The side that sorts packets and sends them.
pub trait Sorting {
    /// Lays packet `at` into buffer number `buffer`.
    fn load(&mut self, buffer: usize, bytes: &[u8]);
    /// Takes home what was returned, sorts at most [`BATCH`] packets and sends them.
    fn turn(&mut self);
    /// Whether all packets were sent and all buffers are home.
    fn all_home(&self) -> bool;
}

/// The side that looks at packets and returns them.
pub trait Looking: Send {
    /// Looks at what has come, on all four rings; answers how many packets it was.
    fn turn(&mut self) -> usize;
}

/// Lays the packets of lap `lap` out.
pub fn load(packets: &Packets, lap: usize, mut lay: impl FnMut(usize, &[u8])) {
    for buffer in 0..BUFFERS {
        lay(buffer, packets.get(lap * BUFFERS + buffer));
    }
}

/// Laps in which all packets go through once.
pub fn laps(packets: &Packets) -> usize {
    packets.len() / BUFFERS
}

/// Sorting here, looking on core `other`.
pub fn two_cores(packets: &Packets, other: usize, mut sorting: impl Sorting, looking: impl Looking) -> Option<f64> {
    let (mut leader, follower) = meet();
    std::thread::scope(|scope| {
        scope.spawn(move || follow(other, follower, looking));
        for lap in 0..laps(packets) {
            load(packets, lap, |buffer, bytes| sorting.load(buffer, bytes));
            leader.begin();
            while !sorting.all_home() {
                sorting.turn();
            }
            leader.end(BUFFERS);
        }
        leader.sample()
    })
}

/// The looking side's thread.
pub fn follow(core: usize, mut follower: crate::laps::Follower, mut looking: impl Looking) {
    machine::pin(core);
    while follower.next_lap() {
        let mut seen = 0;
        while seen < BUFFERS {
            let now = looking.turn();
            if now == 0 {
                spin_loop();
            }
            seen += now;
        }
        assert_eq!(seen, BUFFERS, "a packet came twice");
        looking.turn(); // returns what it still holds
        follower.done();
    }
}

/// Both on this core, by turns.
pub fn one_core(packets: &Packets, mut sorting: impl Sorting, mut looking: impl Looking) -> Option<f64> {
    let mut meter = Meter::new();
    for lap in 0..laps(packets) {
        load(packets, lap, |buffer, bytes| sorting.load(buffer, bytes));
        meter.time(BUFFERS, || {
            let mut seen = 0;
            while seen < BUFFERS || !sorting.all_home() {
                sorting.turn();
                seen += looking.turn();
            }
        });
    }
    meter.sample()
}
