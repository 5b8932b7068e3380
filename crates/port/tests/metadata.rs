//! `xdp:IF?metadata` against the real kernel: what veth's driver tells of a packet stands in what arrives.
//!
//! veth tells the hash of the stack and the VLAN tag that stands beside the packet, which is how one comes that a bridge
//! has forwarded. Of time it says 0, which counts as none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowyard_kernel::{CardCalls, CardFacts, Classic, HostFilter, ToHost};
use flowyard_mem::{Clock, Geometry, Region, Stock, flags};
use flowyard_port::{Arrival, InKernel, Opener, Port, PortCounters, PortSpec, Received, prepare_to_host};
use flowyard_steer::{Classifier, FlowHash, Policy, Table};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame, skipped};
use flowyard_testkit::require_root;

/// Ends the calling test, reported as skipped, where not everything can be asked.
macro_rules! require_everything {
    () => {
        require_root!();
        if CardCalls::find().map(|calls| calls.facts()).ok() != Some(CardFacts::ALL) {
            skipped(module_path!(), line!(), "needs a kernel that has everything to ask for (Linux 6.8)");
            return;
        }
    };
}

/// A packet copied out of its buffers.
struct Packet {
    bytes: Vec<u8>,
    arrival: Arrival,
}

/// An open port with a region and stock of its own.
struct Bench {
    port: Box<dyn Port>,
    region: Region,
    stock: Stock,
    batch: Vec<Received>,
}

impl Bench {
    fn open(opener: Box<dyn Opener>) -> Bench {
        let geometry = Geometry::new(opener.info().buffer_bytes, 64, 8192).expect("a geometry");
        let (region, mut stock) = Region::create("test", geometry).expect("memory");
        let port = opener.open(&region, &mut stock).unwrap_or_else(|e| panic!("{e}"));
        Bench { port, region, stock, batch: Vec::with_capacity(512) }
    }

    fn mode(&self) -> &str {
        &self.port.info().mode
    }

    fn collect(&mut self, count: usize) -> Vec<Packet> {
        let (mut packets, mut bytes, mut scratch) = (Vec::new(), Vec::new(), [0; 4096]);
        let deadline = Instant::now() + Duration::from_secs(3);
        while packets.len() < count && Instant::now() < deadline {
            self.port.receive(&mut self.stock, &mut self.batch, 256).expect("the interface is there");
            for Received { buffer, offset, segment_len, more, arrival } in self.batch.drain(..) {
                bytes.extend_from_slice(self.region.peek(&buffer, offset.into(), segment_len.into(), &mut scratch));
                self.stock.put(buffer);
                if !more {
                    packets.push(Packet { bytes: std::mem::take(&mut bytes), arrival });
                }
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        packets
    }

    fn close(mut self) -> PortCounters {
        let counters = self.port.close(&mut self.stock).expect("the interface can be restored");
        assert_eq!(self.stock.len(), self.stock.capacity(), "every buffer is home");
        counters
    }
}

fn count(counters: &PortCounters, name: &str) -> u64 {
    counters.notes.iter().chain(&counters.lost).find(|(n, _)| *n == name).map_or(0, |(_, n)| *n)
}

fn opener(name: &str, steering: Option<&InKernel>, host: &ToHost) -> Box<dyn Opener> {
    let spec: PortSpec = name.parse().expect("a port's name");
    prepare_to_host(&spec, 1, steering, host).unwrap_or_else(|e| panic!("{e}")).remove(0)
}

fn in_kernel(direct: bool) -> InKernel {
    let hash = FlowHash::Default { seed: 7 };
    let classifier = Classifier { policy: Policy::default(), hash, table: Table::even(2).expect("2 rings") };
    InKernel::new(Arc::new(classifier), direct)
}

/// fy0, and before its other end a bridge: what is sent by `in0` comes to fy0 with its VLAN tag beside it.
fn wire(queues: u32) -> Namespace {
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { queues, ..Veth::default() }).expect("as root");
    wire.veth(&Veth { name: "in0", peer: "in1", ..Veth::default() }).expect("as root");
    for line in [
        "ip link add br0 type bridge mcast_snooping 0", // it joins groups otherwise, and says so
        "ip link set in1 master br0",
        "ip link set fy1 master br0",
        "ip link set br0 up",
        "ethtool -K fy1 tx-vlan-offload on",
    ] {
        wire.command(line).expect(line);
    }
    wire
}

/// Numbered frames, every other one with a VLAN tag of its number, 802.1ad where that is divisible by 4.
fn frames(count: u64) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| {
            let mut frame = numbered_frame((n % 16) as u16, n, 100);
            let tpid: [u8; 2] = if n % 4 == 0 { [0x88, 0xa8] } else { [0x81, 0] };
            if n % 2 == 0 {
                frame.splice(12..12, [tpid, (n as u16 + 1).to_be_bytes()].concat());
            }
            frame
        })
        .collect()
}

/// What the driver knows is told of every packet, and the packet is as it was but for the tag.
fn assert_told(packets: &[Packet], sent: u64) {
    assert_eq!(packets.len() as u64, sent);
    let mut flows = std::collections::BTreeMap::new();
    for Packet { bytes, arrival } in packets {
        let number = number_of(bytes).expect("without a tag it is one of ours");
        assert_eq!(bytes[..], numbered_frame((number % 16) as u16, number, 100), "frame {number}");
        let stripped = arrival.flags & flags::VLAN_STRIPPED != 0;
        assert_eq!(stripped, number.is_multiple_of(2), "frame {number}: {arrival:?}");
        let vlan = if stripped { number as u16 + 1 } else { 0 };
        assert_eq!(arrival.stripped_vlan, vlan, "frame {number}: {arrival:?}");
        assert_eq!(arrival.flags & flags::VLAN_SERVICE != 0, number.is_multiple_of(4), "frame {number}: {arrival:?}");
        assert!(arrival.flags & flags::CARD_HASH != 0, "frame {number}: {arrival:?}");
        let untagged = if stripped { None } else { Some(flows.entry(number % 16).or_insert(arrival.card_hash)) };
        assert!(untagged.is_none_or(|hash| *hash == arrival.card_hash), "a flow has one hash"); // which has the tag in it
        // veth has no clock.
        assert!(arrival.flags & flags::HARDWARE_TIME == 0 && arrival.clock == Clock::Realtime, "{arrival:?}");
        assert!(arrival.time_ns > 1_700_000_000_000_000_000);
    }
    let hashes: std::collections::BTreeSet<_> = flows.values().collect();
    assert!(hashes.len() > 4, "flows have hashes of their own: {hashes:?}");
}

#[test]
fn what_the_driver_knows_arrives_with_every_packet() {
    require_everything!();
    for (queues, steering, host, mtu) in [
        (1, None, false, 1500),
        (2, None, true, 1500),
        (1, None, false, 9000),
        (2, Some(in_kernel(false)), false, 1500),
        (1, Some(in_kernel(false)), false, 9000),
    ] {
        let wire = wire(queues);
        let what = format!("{queues} queues, steered in the kernel: {}, filter: {host}, {mtu}", steering.is_some());
        for interface in ["fy0", "fy1", "in0", "in1"] {
            wire.command(&format!("ip link set {interface} mtu {mtu}")).expect("as root");
        }
        wire.run(|| {
            // A filter that nothing matches: everything goes on.
            let never = || HostFilter::new("less 0", vec![Classic { code: 6, jt: 0, jf: 0, k: 0 }]).expect("a filter");
            let host = if host { ToHost::Filter(never()) } else { ToHost::Pass };
            let opener = opener("xdp:fy0?metadata&native", steering.as_ref(), &host);
            let mut bench = Bench::open(opener);
            assert!(bench.mode().contains("the card tells time, hash, VLAN"), "{what}: {}", bench.mode());
            let injector = Injector::open("in0").expect("as root");
            let sent = frames(400);
            let mut packets = Vec::new();
            for chunk in sent.chunks(100) {
                injector.send(chunk).expect("the wire takes it");
                packets.extend(bench.collect(chunk.len()));
            }
            assert_told(&packets, 400);
            let counters = bench.close();
            assert_eq!((counters.packets, counters.lost_total()), (400, 0), "{what}: {counters:?}");
            assert_eq!(count(&counters, "of-which-without-metadata"), 0, "{what}: {counters:?}");
        });
    }
}

/// Readers take their packets from the kernel, and those of new queues, by a program that was loaded anew.
#[test]
fn direct_readers_have_it_in_the_tag_of_new_queues_too() {
    require_everything!();
    let wire = wire(4);
    for interface in ["fy0", "fy1"] {
        wire.command(&format!("ethtool -L {interface} rx 2 tx 2")).expect("veth has channels");
    }
    wire.run(|| {
        let steering = in_kernel(true);
        let opener = opener("xdp:fy0?metadata&ring=256", Some(&steering), &ToHost::Pass);
        let mut bench = Bench::open(opener);
        assert!(bench.mode().starts_with("2 queues") && bench.mode().contains("the card tells"), "{}", bench.mode());
        for interface in ["fy0", "fy1"] {
            wire.command(&format!("ethtool -L {interface} rx 4 tx 4")).expect("more queues may come");
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while !bench.mode().starts_with("4 queues") && Instant::now() < deadline {
            bench.collect(1);
        }
        let mut readers = bench.port.readers(3);
        let sent = frames(400);
        Injector::open("in0").expect("as root").send(&sent).expect("the wire takes it");
        let (mut packets, mut queues) = (Vec::new(), std::collections::BTreeSet::new());
        let deadline = Instant::now() + Duration::from_secs(3);
        while packets.len() < sent.len() && Instant::now() < deadline {
            for reader in &mut readers {
                while let Some(packet) = reader.next() {
                    let (tag, slot) = (packet.tag(), *packet.slot());
                    assert_eq!((tag.port, slot.time_ns), (3, tag.time_ns));
                    let stripped = slot.flags & flowyard_mem::slot_flags::VLAN_STRIPPED != 0;
                    assert_eq!(stripped, tag.has(flags::VLAN_STRIPPED));
                    assert_eq!(tag.vlan, tag.stripped_vlan, "the outermost tag is the one that was taken off");
                    assert_eq!((tag.kind, tag.hash_version), (0, 1));
                    queues.insert(tag.queue);
                    let arrival = Arrival {
                        time_ns: tag.time_ns,
                        clock: tag.clock(),
                        flags: tag.flags & 0x00ff_ffff,
                        stripped_vlan: tag.stripped_vlan,
                        card_hash: tag.card_hash,
                        ..Arrival::default()
                    };
                    packets.push(Packet { bytes: packet.data().to_vec(), arrival });
                }
            }
        }
        assert_told(&packets, 400);
        assert!(queues.iter().any(|queue| *queue >= 2), "new queues are used: {queues:?}");
        drop(readers);
        let counters = bench.close();
        assert_eq!((counters.packets, counters.lost_total()), (400, 0), "{counters:?}");
    });
}

/// Half of the packets are picked out for the host's stack by a program in between.
#[test]
fn the_host_has_its_packets_as_ever() {
    require_everything!();
    for steering in [None, Some(in_kernel(false))] {
        let wire = wire(1);
        wire.run(|| {
            // Odd source ports, which begin at 10000.
            let odd = [(0x30, 0, 0, 35), (0x54, 0, 0, 1), (0x15, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 0)];
            let odd = odd.map(|(code, jt, jf, k)| Classic { code, jt, jf, k }).to_vec();
            let host = ToHost::Filter(HostFilter::new("odd source ports", odd).expect("a filter"));
            let mut bench = Bench::open(opener("xdp:fy0?metadata", steering.as_ref(), &host));
            assert!(bench.mode().contains("the card tells"), "{}", bench.mode());
            Injector::open("in0").expect("as root").send(&frames(200)).expect("the wire takes it");
            assert_eq!(bench.collect(100).len(), 100);
            let counters = bench.close();
            assert_eq!((counters.packets, count(&counters, "to-host")), (100, 100), "{counters:?}");
        });
    }
}

/// The next owner puts a program of another kind into the link that was left, and back.
#[test]
fn a_program_that_asks_takes_the_place_of_one_that_does_not() {
    require_everything!();
    let wire = wire(1);
    let folder = tempfile::tempdir().expect("a directory");
    wire.run(|| {
        for (metadata, keep) in [("", "keep&"), ("&metadata", "keep&"), ("&metadata", "keep&"), ("", "")] {
            let name = format!("xdp:fy0?{keep}journal={}{metadata}", folder.path().display());
            let mut bench = Bench::open(opener(&name, None, &ToHost::Pass));
            assert_eq!(bench.mode().contains("the card tells"), !metadata.is_empty(), "{}", bench.mode());
            Injector::open("in0").expect("as root").send(&frames(20)).expect("the wire takes it");
            let packets = bench.collect(20);
            if metadata.is_empty() {
                assert!(packets.iter().all(|packet| packet.arrival.flags == 0 && packet.arrival.card_hash == 0));
                assert_eq!(packets.len(), 20);
            } else {
                let stripped = packets.iter().filter(|packet| packet.arrival.flags & flags::VLAN_STRIPPED != 0);
                assert_eq!((stripped.count(), packets.len()), (10, 20));
            }
            assert_eq!(bench.close().lost_total(), 0);
        }
    });
}

/// Where nobody can be asked the ordinary program does its work, and the mode says why.
#[test]
fn what_cannot_be_had_is_said_and_nothing_else_suffers() {
    require_everything!();
    let spec: PortSpec = "xdp:lo?metadata&generic".parse().expect("a name");
    let refused = prepare_to_host(&spec, 1, None, &ToHost::Pass).err().expect("both are asked for").to_string();
    assert!(refused.contains("metadata") && refused.contains("leave out"), "{refused}");

    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.command("ip link add mv0 link fy0 type macvlan mode passthru").expect("a macvlan");
    wire.command("ip link set mv0 up").expect("as root");
    wire.command("ip tuntap add ta0 mode tap").expect("a TAP device");
    wire.command("ip link set ta0 up").expect("as root");
    wire.run(|| {
        for (name, why) in [("mv0", "in the stack (generic)"), ("ta0", "its driver tells XDP programs nothing")] {
            let bench = Bench::open(opener(&format!("xdp:{name}?metadata"), None, &ToHost::Pass));
            let said = bench.mode();
            assert!(said.contains("no metadata from the card") && said.contains(why), "{name}: {said}");
            bench.close();
        }
        let mut bench = Bench::open(opener("xdp:mv0?metadata", Some(&in_kernel(false)), &ToHost::Pass));
        Injector::open("fy1").expect("as root").send(&[numbered_frame(1, 1, 100)]).expect("the wire takes it");
        let packets = bench.collect(1);
        assert_eq!(packets.first().map(|packet| packet.arrival.flags), Some(0));
        bench.close();
    });
}
