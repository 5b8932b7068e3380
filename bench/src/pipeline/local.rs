//! Workers that read their own rings: one on one core; two, each on its own, where every packet comes to the worker
//! whose ring it is for, as from a card whose queues agree with the rings.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flowyard::bench_support::WorkerByHand;
use flowyard::mem::Packet;
use flowyard::port::Opener;
use flowyard::steer::{Frame, Glance, LinkType};
use flowyard::{Work, Worker, Yard, YardConfig};

use super::alone::{Closed, Lap};
use super::shipped;
use crate::flow::{self, BUFFERS};
use crate::laps::{Meter, meet};
use crate::machine;
use crate::packets::Packets;
use crate::steer::classifier;

/// What a worker does: as the readers of all other contenders.
#[derive(Default)]
struct Look {
    seen: usize,
    sum: u64,
}

impl Work for Look {
    #[inline]
    fn packet(&mut self, _: u16, packet: &mut Packet<'_>) {
        self.seen += 1;
        self.sum ^= u64::from(packet.slot().hash);
        self.sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
    }
}

/// A worker, and the port that it reads.
struct Driven {
    worker: WorkerByHand<Look>,
    lap: Arc<Lap>,
}

impl Driven {
    fn new(worker: Worker, lap: Arc<Lap>) -> Driven {
        Driven { worker: worker.by_hand(Look::default()), lap }
    }

    /// Lays the packets of lap `lap` out.
    fn load(&mut self, lap: usize) {
        self.lap.number.store(lap, Ordering::Relaxed);
        self.lap.wanted.store(true, Ordering::Relaxed);
        self.worker.turn();
    }

    /// Has them all go their way.
    fn go(&mut self) {
        while !self.lap.done.load(Ordering::Relaxed) {
            self.worker.turn();
        }
    }

    fn end(mut self, laps: usize) {
        let Look { seen, sum } = *self.worker.work();
        black_box(sum);
        let report = self.worker.end();
        assert!(report.errors.is_empty() && report.delivered() == seen as u64, "{report:?}");
        assert_eq!(seen, laps * BUFFERS);
    }
}

/// Runs all packets `times` through one worker, untimed.
pub fn run(packets: &Arc<Packets>, times: usize) {
    let mut one = open_one(packets);
    let laps = flow::laps(packets);
    for lap in 0..times * laps {
        one.load(lap % laps);
        one.go();
    }
    one.end(times * laps);
}

fn open_one(packets: &Arc<Packets>) -> Driven {
    let lap = Arc::new(Lap::default());
    let (_, mut workers) = open(vec![Closed::new(packets, &lap)]);
    Driven::new(workers.remove(0), lap)
}

/// As many workers as ports.
fn open(ports: Vec<Closed>) -> (Yard, Vec<Worker>) {
    let config = YardConfig { buffers: Some(ports.len() * BUFFERS), ..shipped::config() };
    let ports = ports.into_iter().map(|port| Box::new(port) as Box<dyn Opener>).collect();
    Yard::open_local_over(&config, ports).expect("memory for a yard")
}

/// One worker, and all rings its own: nanoseconds a packet.
pub fn one(packets: &Arc<Packets>) -> Option<f64> {
    let (mut one, mut meter) = (open_one(packets), Meter::new());
    for lap in 0..flow::laps(packets) {
        one.load(lap);
        meter.time(BUFFERS, || one.go());
    }
    one.end(flow::laps(packets));
    meter.sample()
}

/// Two workers, the second on core `other`: nanoseconds for each of the packets of both.
pub fn two(packets: &Arc<Packets>, other: usize) -> Option<f64> {
    let classifier = classifier();
    let glancer = classifier.glancer()?;
    let mut places = [Vec::new(), Vec::new()];
    for at in 0..packets.len() {
        let (mut glance, frame) = (Glance::default(), Frame::new(packets.get(at), LinkType::ETHERNET));
        let seen = glancer.glance(&frame, &mut glance);
        places[usize::from(glance.ring() >= crate::steer::RINGS / 2)].extend(seen.then_some(at as u32));
    }
    let laps = places.iter().map(|places| places.len() / BUFFERS).min()?;
    let state: [Arc<Lap>; 2] = Default::default();
    let ports = places.into_iter().zip(&state).map(|(places, lap)| Closed::of(packets, lap, places)).collect();
    let (_yard, workers) = open(ports);
    let mut workers = workers.into_iter().zip(state);
    let (Some((here, lap)), Some((there, its_lap))) = (workers.next(), workers.next()) else { return None };
    let (mut leader, mut follower) = meet();
    std::thread::scope(|scope| {
        let follow = scope.spawn(move || {
            machine::pin(other);
            let mut there = Driven::new(there, its_lap);
            for lap in 0..laps {
                there.load(lap);
                assert!(follower.next_lap(), "as many laps on both sides");
                there.go();
                follower.done();
            }
            there.end(laps);
        });
        let mut here = Driven::new(here, lap);
        for lap in 0..laps {
            here.load(lap);
            leader.begin();
            here.go();
            leader.end(2 * BUFFERS);
        }
        here.end(laps);
        follow.join().expect("the other worker ends");
    });
    leader.sample()
}
