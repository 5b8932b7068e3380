//! The yard's dispatcher and its consumer by turns on one core: no cache line travels, so that what is added to a
//! packet's way shows, however little it is.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowyard::function::Function;
use flowyard::mem::{Region, Stock};
use flowyard::port::{Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};
use flowyard::{Yard, YardConfig};

use super::port::Laid;
use crate::flow::{self, BATCH, BUFFERS, SLOTS};
use crate::laps::Meter;
use crate::packets::Packets;
use crate::steer::RINGS;

/// Runs all packets through a yard with or without a function.
pub fn measure(packets: &Arc<Packets>, function: Option<Function>) -> Option<f64> {
    let config = YardConfig {
        function,
        name: "bench".into(),
        rings: RINGS,
        ring_slots: SLOTS,
        annotation_bytes: 64,
        buffers: Some(BUFFERS),
        pin: false,
        ..YardConfig::default()
    };
    let lap = Arc::new(Lap::default());
    let info = PortInfo {
        name: "bench:laps".into(),
        mode: "packets that lie in their buffers".into(),
        can_wait: true,
        live: false,
        longest_packet: 1514,
        buffers_held: BUFFERS,
        buffer_bytes: 2048,
    };
    let port = Closed { info, packets: packets.clone(), lap: lap.clone() };
    let (yard, mut readers) = Yard::open_over(&config, Box::new(port)).expect("memory for a yard");
    let mut dispatcher = yard.by_hand();
    let mut meter = Meter::new();
    let mut sum = 0;
    for _ in 0..flow::laps(packets) {
        lap.wanted.store(true, Ordering::Relaxed);
        dispatcher.turn(); // lays packets out
        meter.time(BUFFERS, || {
            while !lap.done.load(Ordering::Relaxed) {
                dispatcher.turn();
                for reader in &mut readers {
                    for _ in 0..BATCH {
                        let Some(packet) = reader.next() else { break };
                        sum ^= u64::from(packet.slot().hash);
                        sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                    }
                }
            }
        });
    }
    black_box(sum);
    drop(readers);
    let report = dispatcher.end();
    assert!(report.errors.is_empty() && report.delivered() == packets.len() as u64, "{report:?}");
    meter.sample()
}

/// What the one who holds the clock and the port say to each other.
#[derive(Default)]
struct Lap {
    wanted: AtomicBool,
    done: AtomicBool,
}

struct Closed {
    info: PortInfo,
    packets: Arc<Packets>,
    lap: Arc<Lap>,
}

impl Opener for Closed {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(Open { laid: Laid::new(region), closed: *self }))
    }
}

struct Open {
    closed: Closed,
    laid: Laid,
}

impl Port for Open {
    fn info(&self) -> &PortInfo {
        &self.closed.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        if !self.laid.take_home(stock) {
            return Ok(self.laid.give(batch, limit));
        }
        let wanted = self.closed.lap.wanted.swap(false, Ordering::Relaxed);
        self.closed.lap.done.store(!wanted, Ordering::Relaxed);
        if wanted {
            self.laid.load(&self.closed.packets);
        }
        Ok(Progress::Idle { wait_ns: Some(0) })
    }

    fn counters(&mut self) -> PortCounters {
        self.laid.counters()
    }

    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        Ok(self.laid.close(stock))
    }
}
