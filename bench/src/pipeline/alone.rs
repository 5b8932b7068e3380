//! The yard's dispatcher and its consumer by turns on one core: no cache line travels, so that what is added to a
//! packet's way shows, however little it is.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowyard::function::Function;
use flowyard::mem::{Buffer, Clock, Region, Stock};
use flowyard::port::{Arrival, Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};
use flowyard::{Yard, YardConfig};

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
        Ok(Box::new(Open {
            start: region.geometry().packet_offset(),
            region: region.clone(),
            lens: vec![0; BUFFERS],
            home: Vec::with_capacity(BUFFERS),
            ready: Vec::with_capacity(BUFFERS),
            counters: PortCounters::default(),
            laps: 0,
            closed: *self,
        }))
    }
}

struct Open {
    closed: Closed,
    region: Region,
    start: usize,
    /// By buffer index.
    lens: Vec<u16>,
    home: Vec<Buffer>,
    ready: Vec<Buffer>,
    laps: usize,
    counters: PortCounters,
}

impl Port for Open {
    fn info(&self) -> &PortInfo {
        &self.closed.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        while let Some(buffer) = stock.take() {
            self.home.push(buffer);
        }
        if self.home.len() == BUFFERS {
            self.closed.lap.done.store(true, Ordering::Relaxed);
            if self.closed.lap.wanted.swap(false, Ordering::Relaxed) {
                self.closed.lap.done.store(false, Ordering::Relaxed);
                std::mem::swap(&mut self.home, &mut self.ready);
                self.ready.sort_by_key(|buffer| std::cmp::Reverse(buffer.index()));
                flow::load(&self.closed.packets, self.laps, |at, bytes| {
                    let buffer = &mut self.ready[BUFFERS - 1 - at];
                    assert!(self.region.write(buffer, self.start, bytes), "a packet fits its buffer");
                    self.lens[buffer.index() as usize] = bytes.len() as u16;
                });
                self.laps += 1;
            }
            return Ok(Progress::Idle { wait_ns: Some(0) });
        }
        while batch.len() < limit {
            let Some(buffer) = self.ready.pop() else { break };
            let len = self.lens[buffer.index() as usize];
            self.counters.packets += 1;
            self.counters.bytes += u64::from(len);
            let arrival = Arrival {
                time_ns: self.counters.packets,
                clock: Clock::Generated,
                len: len.into(),
                wire_len: len.into(),
                link: 1,
                number: self.counters.packets,
                ..Arrival::default()
            };
            batch.push(Received { buffer, offset: self.start as u16, segment_len: len, more: false, arrival });
        }
        Ok(Progress::Ready)
    }

    fn counters(&mut self) -> PortCounters {
        self.counters.clone()
    }

    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        self.home.into_iter().chain(self.ready).for_each(|buffer| stock.put(buffer));
        Ok(self.counters)
    }
}
