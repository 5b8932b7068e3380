//! No dispatcher: each worker receives from its share of the queues and reads its share of the rings, in one thread. A
//! packet changes threads only if it came by another worker's queue than its ring's.
//!
//! ```text
//! cargo run --release -p flowyard-examples --bin workers                       # built-in traffic
//! sudo target/release/workers xdp:eth0
//! ```
#![deny(unsafe_code)]

use flowyard::port::PortSpec;
use flowyard::{Worker, Yard, YardConfig};

/// Each has two rings.
const WORKERS: usize = 2;

fn count(worker: Worker) {
    let (number, rings) = (worker.number(), worker.rings());
    let mut packets = [0u64; 2 * WORKERS];
    worker.run(|ring, packet| {
        packets[usize::from(ring)] += u64::from(!packet.is_empty()); // look at packet.data(), packet.tag(), …
    });
    rings.for_each(|ring| println!("worker {number}, ring {ring}: {} packets", packets[usize::from(ring)]));
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut ports = std::env::args().skip(1).map(|name| name.parse()).collect::<Result<Vec<PortSpec>, _>>()?;
    if ports.is_empty() {
        ports = vec!["gen:mix?seed=1".parse()?, "gen:mix?seed=2".parse()?];
    }
    let config = YardConfig { rings: 2 * WORKERS as u16, dispatchers: WORKERS, ..YardConfig::default() };
    let (yard, workers) = Yard::open_local(&config, &ports)?;
    let threads: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(move || count(worker))).collect();
    let report = yard.start()?.join();
    threads.into_iter().for_each(|thread| thread.join().expect("it only counts"));
    println!("received {}, delivered {}, dropped {}", report.received(), report.delivered(), report.dropped());
    report.errors.into_iter().try_for_each(|error| Err(error.into()))
}
