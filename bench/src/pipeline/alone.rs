//! The yard's dispatcher and its consumer by turns on one core: no cache line travels, so that what is added to a
//! packet's way shows, however little it is.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flowyard::bench_support::ByHand;
use flowyard::function::{Function, Steer, Surroundings};
use flowyard::mem::{Region, Stock};
use flowyard::port::{Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};
use flowyard::{RingReader, Yard, YardConfig};

use super::port::{self, Laid};
use crate::flow::{self, BATCH, BUFFERS, SLOTS};
use crate::machine;
use crate::packets::Packets;
use crate::random::Random;
use crate::steer::RINGS;

/// What of a yard a curve is drawn over.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rings.
    pub rings: u16,
    /// Slots of each.
    pub slots: u32,
    /// Annotation bytes in front of every packet.
    pub annotation: usize,
    /// Whether the dispatcher's turns are timed alone.
    pub turns_alone: bool,
    /// Whether the consumer reads all of the tag.
    pub tags: bool,
}

/// As all other comparisons have it.
pub const USUAL: Shape = Shape { rings: RINGS, slots: SLOTS, annotation: 64, turns_alone: false, tags: false };

/// Packets of a lap that are not timed.
const WARM_UP: usize = BUFFERS / 4;

/// Runs all packets `times` through a yard of this shape with or without a function.
pub fn run(packets: &Arc<Packets>, shape: Shape, function: Option<&Function>, times: usize) {
    let mut alone = Alone::open(packets, shape);
    alone.dispatcher.replace(function.map(instance));
    for lap in 0..times * flow::laps(packets) {
        alone.lap(lap % flow::laps(packets));
    }
    alone.end(times * packets.len());
}

/// Runs all packets through a yard, lap by lap: nanoseconds a packet, the median of the undisturbed laps.
pub fn measure(packets: &Arc<Packets>) -> Option<f64> {
    measure_as(packets, USUAL)
}

/// The same for a yard of this shape.
pub fn measure_as(packets: &Arc<Packets>, shape: Shape) -> Option<f64> {
    let mut alone = Alone::open(packets, shape);
    let mut took: Vec<f64> = (0..flow::laps(packets)).filter_map(|lap| alone.lap(lap)).collect();
    alone.end(packets.len());
    took.sort_by(f64::total_cmp);
    (took.len() * 4 >= flow::laps(packets)).then(|| took[took.len() / 2])
}

/// Runs all packets `times` through one yard, each lap with each of `functions` in turn, in an order drawn anew: same
/// memory, same packets, and as near in time as can be. Answers what each lap took with each of them, in nanoseconds a
/// packet; `None` if the core was taken away meanwhile.
pub fn rotate(packets: &Arc<Packets>, functions: &[Option<Function>], times: usize) -> Vec<Vec<Option<f64>>> {
    let mut alone = Alone::open(packets, USUAL);
    let mut instances: Vec<_> = functions.iter().map(|function| function.as_ref().map(instance)).collect();
    let mut order: Vec<usize> = (0..functions.len()).collect();
    let mut random = Random::new(0x726f_7461_7465);
    let laps = times * flow::laps(packets);
    let rotation = |lap| {
        random.shuffle(&mut order);
        let mut took = vec![None; functions.len()];
        for &at in &order {
            alone.dispatcher.replace(instances[at].take());
            took[at] = alone.lap(lap % flow::laps(packets));
            instances[at] = alone.dispatcher.replace(None);
        }
        took
    };
    let all = (0..laps).map(rotation).collect();
    alone.end(times * packets.len() * functions.len());
    all
}

fn instance(function: &Function) -> Box<dyn Steer> {
    let surroundings = Surroundings { dispatcher: 0, dispatchers: 1, rings: RINGS, annotation_bytes: USUAL.annotation };
    function.instance(&surroundings).unwrap_or_else(|e| panic!("{e}"))
}

/// A yard whose dispatcher and consumer take turns.
struct Alone {
    dispatcher: ByHand,
    readers: Vec<RingReader>,
    laps: Arc<Lap>,
    turns_alone: bool,
    tags: bool,
    sum: u64,
}

impl Alone {
    fn open(packets: &Arc<Packets>, shape: Shape) -> Alone {
        let config = YardConfig {
            name: "bench".into(),
            rings: shape.rings,
            ring_slots: shape.slots,
            annotation_bytes: shape.annotation,
            buffers: Some(BUFFERS),
            pin: false,
            ..YardConfig::default()
        };
        let laps = Arc::new(Lap::default());
        let port = Closed::new(packets, &laps);
        let (yard, readers) = Yard::open_over(&config, Box::new(port)).expect("memory for a yard");
        let Shape { turns_alone, tags, .. } = shape;
        Alone { dispatcher: yard.by_hand(), readers, laps, turns_alone, tags, sum: 0 }
    }

    /// Lays the packets of lap `lap` out and times their way, once the first [`WARM_UP`] have gone it: the function was
    /// another one before.
    fn lap(&mut self, lap: usize) -> Option<f64> {
        self.laps.number.store(lap, Ordering::Relaxed);
        self.laps.wanted.store(true, Ordering::Relaxed);
        self.dispatcher.turn(); // lays packets out
        let (stolen, switches) = (machine::stolen_ticks(), machine::involuntary_switches());
        let (mut start, mut before, mut seen) = (Instant::now(), 0, 0);
        let mut reading = Duration::ZERO;
        while !self.laps.done.load(Ordering::Relaxed) {
            self.dispatcher.turn();
            let read = self.turns_alone.then(Instant::now);
            for reader in &mut self.readers {
                for _ in 0..BATCH {
                    let Some(packet) = reader.next() else { break };
                    seen += 1;
                    self.sum ^= u64::from(packet.slot().hash);
                    if self.tags {
                        black_box(packet.tag());
                    }
                    self.sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                }
            }
            reading += read.map_or(Duration::ZERO, |read| read.elapsed());
            if before == 0 && seen >= WARM_UP {
                (start, before, reading) = (Instant::now(), seen, Duration::ZERO);
            }
        }
        let ns = (start.elapsed() - reading).as_nanos() as f64 / (seen - before) as f64;
        let clean = machine::stolen_ticks() == stolen && machine::involuntary_switches() == switches;
        clean.then_some(ns)
    }

    fn end(self, packets: usize) {
        black_box(self.sum);
        drop(self.readers);
        let report = self.dispatcher.end();
        assert!(report.errors.is_empty() && report.delivered() == packets as u64, "{report:?}");
    }
}

/// What the one who holds the clock and the port say to each other.
#[derive(Default)]
pub struct Lap {
    pub wanted: AtomicBool,
    /// Which packets.
    pub number: AtomicUsize,
    pub done: AtomicBool,
}

/// The port before the yard opens it: lays a lap out when it is wanted, and gives it.
pub struct Closed {
    info: PortInfo,
    packets: Arc<Packets>,
    /// Places of the packets that it gives; all in order, if none are named.
    only: Option<Vec<u32>>,
    lap: Arc<Lap>,
}

impl Closed {
    /// Of all packets.
    pub fn new(packets: &Arc<Packets>, lap: &Arc<Lap>) -> Closed {
        Closed { info: port::info("bench:laps"), packets: packets.clone(), only: None, lap: lap.clone() }
    }

    /// Of those at these places.
    pub fn of(packets: &Arc<Packets>, lap: &Arc<Lap>, places: Vec<u32>) -> Closed {
        Closed { only: Some(places), ..Closed::new(packets, lap) }
    }
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
            let Closed { packets, only, lap, .. } = &self.closed;
            let lap = lap.number.load(Ordering::Relaxed);
            match only {
                None => self.laid.load_lap(packets, lap),
                Some(only) => self.laid.load_each(|at| packets.get(only[lap * BUFFERS + at] as usize)),
            }
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
