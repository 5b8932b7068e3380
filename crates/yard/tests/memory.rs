//! A yard takes its region, its rings, and not much more, whatever comes through it.

mod common;

use common::*;
use flowyard::mem::Wait;
use flowyard::{RingReader, Yard, YardConfig};

/// What a yard may take beside its region and rings.
const BESIDE: u64 = 32 << 20;

/// Most memory that this process ever had, in bytes (proc(5): `VmHWM`, in KiB).
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
    kib << 10
}

fn count(mut reader: RingReader) -> u64 {
    let mut packets = 0;
    loop {
        while reader.next().is_some() {
            packets += 1;
        }
        if reader.wait(None) == Wait::Ended {
            return packets;
        }
    }
}

#[test]
fn no_more_than_region_rings_and_32_mib() {
    let config = YardConfig { rings: 16, ring_slots: 4096, ..YardConfig::default() };
    let before = peak_bytes();
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=300000&flows=1000"])).expect("memory");
    let geometry = opened.0.region().geometry();
    let region = u64::from(geometry.buffers) * geometry.buffer_bytes as u64;
    // Slots of 32 bytes out, twice as many of 16 back.
    let of_rings = u64::from(config.rings) * u64::from(config.ring_slots) * 64;
    let (report, packets) = run_with(opened, count);
    assert_eq!((report.delivered(), packets.iter().sum::<u64>()), (300_000, 300_000));
    let took = peak_bytes() - before;
    assert!(took <= region + of_rings + BESIDE, "{took} bytes, {region} of them the region's, {of_rings} the rings'");
    println!("{took} bytes, {region} of them the region's, {of_rings} the rings'");
}
