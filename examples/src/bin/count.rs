//! A yard in thirty lines: packets from any ports, one consumer thread a ring, and what each got.
//!
//! ```text
//! cargo run --release -p flowyard-examples --bin count                      # built-in traffic
//! cargo run --release -p flowyard-examples --bin count -- pcap:trace.pcapng
//! ```
//!
//! A live port (`xdp:eth0`, `packet:eth0`) never ends by itself: `Running::stopper` gives a flag that a
//! signal handler can set.
#![deny(unsafe_code)]

use flowyard::mem::Wait;
use flowyard::port::PortSpec;
use flowyard::{RingReader, Yard, YardConfig};

fn count(mut ring: RingReader) -> u64 {
    let mut packets = 0;
    while ring.wait(None) != Wait::Ended {
        while let Some(packet) = ring.next() {
            packets += u64::from(!packet.is_empty()); // look at packet.data(), packet.tag(), …
        }
    }
    packets
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut ports = std::env::args().skip(1).map(|name| name.parse()).collect::<Result<Vec<PortSpec>, _>>()?;
    if ports.is_empty() {
        ports.push("gen:mix".parse()?);
    }
    let (yard, rings) = Yard::open(&YardConfig::default(), &ports)?;
    let consumers: Vec<_> = rings.into_iter().map(|ring| std::thread::spawn(move || count(ring))).collect();
    let report = yard.start()?.join();
    for (ring, consumer) in consumers.into_iter().enumerate() {
        println!("ring {ring}: {} packets", consumer.join().expect("it only counts"));
    }
    println!("received {}, delivered {}, dropped {}", report.received(), report.delivered(), report.dropped());
    report.errors.into_iter().try_for_each(|error| Err(error.into()))
}
