//! `xdp:` ports against the real kernel, on veth pairs in namespaces of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowyard_mem::{Geometry, Region, Stock};
use flowyard_port::{Opener, Port, PortCounters, PortError, PortSpec, Progress, Received, prepare};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame};
use flowyard_testkit::require_root;

fn openers(name: &str, parts: usize) -> Result<Vec<Box<dyn Opener>>, PortError> {
    prepare(&name.parse::<PortSpec>()?, parts)
}

/// An open port with a region and stock of its own.
struct Bench {
    port: Box<dyn Port>,
    region: Region,
    stock: Stock,
    batch: Vec<Received>,
}

/// A packet copied out of its buffers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    bytes: Vec<u8>,
    queue: u16,
    segments: usize,
    time_ns: u64,
}

impl Bench {
    fn open(name: &str, buffers: usize) -> Result<Bench, PortError> {
        let opener = openers(name, 1)?.remove(0);
        let geometry = Geometry::new(opener.info().buffer_bytes, 64, buffers)?;
        let (region, mut stock) = Region::create("test", geometry)?;
        let port = opener.open(&region, &mut stock)?;
        Ok(Bench { port, region, stock, batch: Vec::with_capacity(512) })
    }

    /// One call; packets go to `into` and their buffers home.
    fn receive(&mut self, into: &mut Vec<Packet>) -> Result<Progress, PortError> {
        let progress = self.port.receive(&mut self.stock, &mut self.batch, 256)?;
        let (mut bytes, mut segments) = (Vec::new(), 0);
        let mut scratch = [0u8; 4096];
        for received in self.batch.drain(..) {
            let at = (usize::from(received.offset), usize::from(received.segment_len));
            if segments == 0 {
                assert_eq!(at.0, self.region.geometry().packet_offset(), "where a packet starts");
            }
            bytes.extend_from_slice(self.region.peek(&received.buffer, at.0, at.1, &mut scratch));
            segments += 1;
            self.stock.put(received.buffer);
            if !received.more {
                let arrival = received.arrival;
                assert_eq!((arrival.len as usize, arrival.wire_len as usize), (bytes.len(), bytes.len()));
                into.push(Packet {
                    bytes: std::mem::take(&mut bytes),
                    queue: arrival.queue,
                    segments,
                    time_ns: arrival.time_ns,
                });
                segments = 0;
            }
        }
        assert_eq!(segments, 0, "all segments of a packet come in one batch");
        Ok(progress)
    }

    /// Receives until `count` packets are there or nothing has come for `patience`.
    fn collect(&mut self, count: usize, patience: Duration) -> Vec<Packet> {
        let mut packets = Vec::new();
        let mut last = Instant::now();
        while packets.len() < count && last.elapsed() < patience {
            let before = packets.len();
            self.receive(&mut packets).expect("the interface is there");
            if packets.len() > before {
                last = Instant::now();
            } else {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        packets
    }

    /// Closes; every buffer must be home.
    fn close(mut self) -> PortCounters {
        let counters = self.port.close(&mut self.stock).expect("the interface can be restored");
        assert_eq!(self.stock.len(), self.stock.capacity(), "every buffer is home");
        counters
    }
}

#[allow(dead_code)]
fn count(list: &[(&'static str, u64)], name: &str) -> u64 {
    list.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("there is no counter {name}")).1
}

const QUIET: Duration = Duration::from_millis(500);

fn frames(count: u64, flows: u64, len: impl Fn(u64) -> usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| numbered_frame((n % flows) as u16, n, len(n))).collect()
}

/// Every frame once, unchanged.
fn assert_same(sent: &[Vec<u8>], packets: &[Packet]) {
    let mut found = BTreeMap::new();
    for packet in packets {
        let number = number_of(&packet.bytes).expect("only our own frames are on this wire");
        assert!(found.insert(number, packet).is_none(), "frame {number} arrived twice");
    }
    assert_eq!(found.len(), sent.len(), "frames that arrived");
    for (number, packet) in found {
        assert!(packet.bytes == sent[number as usize], "frame {number} changed on the way");
    }
}

#[test]
fn every_frame_arrives_once_and_unchanged_on_every_kind_of_queue() {
    require_root!();
    for (queues, mode, mtu, offloads) in [
        (1, "native", 1500, false),
        (4, "native", 1500, true),
        (4, "generic", 1500, false),
        (1, "generic", 1500, true),
        (4, "native", 9000, false),
        (2, "generic", 9000, true),
        (4, "native", 3000, false),
    ] {
        let wire = Namespace::new().expect("as root");
        wire.veth(&Veth { queues, mtu, offloads, ..Veth::default() }).expect("as root");
        wire.run(|| {
            let what = format!("{queues} queues, {mode}, MTU {mtu}, offloads {offloads}");
            let mut bench = Bench::open(&format!("xdp:fy0?{mode}"), 16384).expect(&what);
            let mode_got = bench.port.info().mode.clone();
            assert!(mode_got.contains(mode) && mode_got.contains("copy"), "{what}: {mode_got}");
            let sent = frames(4000, 64, |n| 60 + (n as usize * 37) % (mtu as usize + 14 - 60 + 1));
            let injector = Injector::open("fy1").expect("as root");
            let mut packets = Vec::new();
            for chunk in sent.chunks(200) {
                injector.send(chunk).expect("the wire takes it");
                packets.extend(bench.collect(chunk.len(), QUIET));
            }
            assert_same(&sent, &packets);
            let used: std::collections::BTreeSet<u16> = packets.iter().map(|p| p.queue).collect();
            // In generic mode veth takes what came on the first two queues for the first one's.
            let least = if mode == "generic" { queues.max(2) - 1 } else { queues } as usize;
            assert!((least..=queues as usize).contains(&used.len()), "{what}: packets came on {used:?}");
            let most = packets.iter().map(|p| p.segments).max();
            assert_eq!(most > Some(1), mtu == 9000, "{what}: {most:?} segments; {mode_got}");
            assert!(packets.iter().all(|p| p.time_ns > 1_700_000_000_000_000_000), "{what}: wall-clock time");
            let counters = bench.close();
            assert_eq!((counters.packets, counters.lost_total()), (4000, 0), "{what}: {counters:?}");
        });
    }
}
