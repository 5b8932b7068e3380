//! `packet:` ports against the real kernel, on interfaces in namespaces of their own.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use flowyard_mem::{Clock, Geometry, Region, Stock, flags};
use flowyard_port::{
    Arrival, Outgoing, PacketSink, Port, PortCounters, PortError, PortSpec, Progress, Received, Sink, prepare,
};
use flowyard_testkit::conformance::{Expectation, port_conformance};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame, open_tun};
use flowyard_testkit::require_root;

/// An open port with a region and stock of its own.
struct Bench {
    port: Box<dyn Port>,
    region: Region,
    stock: Stock,
    batch: Vec<Received>,
}

/// A packet copied out of its buffers.
#[derive(Debug, Clone)]
struct Packet {
    bytes: Vec<u8>,
    segments: usize,
    arrival: Arrival,
}

impl Packet {
    fn has(&self, bits: u32) -> bool {
        self.arrival.flags & bits == bits
    }
}

fn open_all(name: &str, parts: usize, buffers: usize) -> Result<Vec<Bench>, PortError> {
    let openers = prepare(&name.parse::<PortSpec>()?, parts)?;
    openers
        .into_iter()
        .map(|opener| {
            let (region, mut stock) = Region::create("test", Geometry::new(2048, 128, buffers)?)?;
            let port = opener.open(&region, &mut stock)?;
            Ok(Bench { port, region, stock, batch: Vec::with_capacity(512) })
        })
        .collect()
}

impl Bench {
    fn open(name: &str, buffers: usize) -> Result<Bench, PortError> {
        Ok(open_all(name, 1, buffers)?.remove(0))
    }

    fn receive(&mut self, into: &mut Vec<Packet>) -> Result<Progress, PortError> {
        let progress = self.port.receive(&mut self.stock, &mut self.batch, 64)?;
        let (mut bytes, mut segments) = (Vec::new(), 0);
        let mut scratch = [0u8; 4096];
        for received in self.batch.drain(..) {
            let at = (usize::from(received.offset), usize::from(received.segment_len));
            bytes.extend_from_slice(self.region.peek(&received.buffer, at.0, at.1, &mut scratch));
            segments += 1;
            self.stock.put(received.buffer);
            if !received.more {
                assert_eq!(received.arrival.len as usize, bytes.len());
                into.push(Packet { bytes: std::mem::take(&mut bytes), segments, arrival: received.arrival });
                segments = 0;
            }
        }
        Ok(progress)
    }

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

    fn close(mut self) -> PortCounters {
        let counters = self.port.close(&mut self.stock).expect("nothing to restore");
        assert_eq!(self.stock.len(), self.stock.capacity(), "every buffer is home");
        counters
    }
}

const QUIET: Duration = Duration::from_millis(300);

fn spec(name: &str) -> PortSpec {
    name.parse().expect("a good name")
}

fn send(sink: &mut PacketSink, bytes: &[u8], link: u16) -> Result<(), PortError> {
    sink.send(&Outgoing { bytes, time_ns: 0, wire_len: bytes.len() as u32, link, comment: "" })
}

#[test]
fn every_frame_that_a_sink_sends_arrives_once_and_unchanged() {
    require_root!();
    for mtu in [1500, 9000] {
        let wire = Namespace::new().expect("as root");
        wire.veth(&Veth { queues: 2, mtu, ..Veth::default() }).expect("as root");
        wire.run(|| {
            let mut bench = Bench::open("packet:fy0?incoming", 2048).expect("as root");
            let mut sink = PacketSink::open(&spec("packet:fy1")).expect("as root");
            let frames: Vec<_> =
                (0..5000).map(|n| numbered_frame(n as u16, n, 60 + n as usize % (mtu as usize - 46))).collect();
            let mut packets = Vec::new();
            for chunk in frames.chunks(500) {
                chunk.iter().for_each(|frame| send(&mut sink, frame, 1).expect("the interface takes it"));
                sink.flush().expect("the interface takes it");
                packets.extend(bench.collect(chunk.len(), QUIET));
            }
            let mut seen = vec![false; frames.len()];
            for packet in &packets {
                let number = number_of(&packet.bytes).expect("ours") as usize;
                assert!(!std::mem::replace(&mut seen[number], true), "frame {number} came twice");
                assert!(packet.bytes == frames[number], "frame {number} changed");
                let arrival = packet.arrival;
                assert_eq!((arrival.flags, arrival.link, arrival.clock), (0, 1, Clock::Realtime));
            }
            assert_eq!(packets.len(), frames.len());
            assert_eq!(packets.iter().any(|p| p.segments > 1), mtu > 2048);
            let too_long = send(&mut sink, &vec![0; mtu as usize + 19], 1).and_then(|()| sink.flush());
            assert!(too_long.is_err_and(|e| e.to_string().contains("raise the MTU")));
            assert!(send(&mut sink, &frames[0], 101).is_err(), "raw IP on Ethernet");
            let counters = bench.close();
            assert_eq!((counters.packets, counters.lost_total()), (5000, 0), "{counters:?}");
        });
    }
}

#[test]
fn what_does_not_fit_the_ring_is_counted() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        // Few buffers, so that the ring holds more than they take even where its timer handed over a block early.
        let mut bench = Bench::open("packet:fy0?block=128&blocks=2", 8).expect("as root");
        let injector = Injector::open("fy1").expect("as root");
        let frames: Vec<_> = (0..3000).map(|n| numbered_frame(1, n, 1514)).collect();
        injector.send(&frames).expect("the wire takes it");
        let mut packets = Vec::new();
        let mut kept = Vec::new();
        // Hold on to buffers until the stock runs out, then let them go.
        while bench.port.receive(&mut bench.stock, &mut kept, usize::MAX).expect("alive") != Progress::NoBuffers {}
        assert_eq!((kept.len(), bench.stock.len()), (8, 0));
        let first = kept.len() as u64;
        kept.drain(..).for_each(|received| bench.stock.put(received.buffer));
        bench.receive(&mut packets).expect("alive");
        let counters = bench.close();
        assert_eq!(counters.packets, first + packets.len() as u64);
        let lost = |name| counters.lost.iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
        assert!(lost("kernel-ring-full") > 0 && lost("undelivered") > 0, "{counters:?}");
        assert_eq!(counters.packets + counters.lost_total(), 3000, "{counters:?}");
    });
}

#[test]
fn a_stripped_vlan_is_told() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let mut bench = Bench::open("packet:fy0", 64).expect("as root");
        let injector = Injector::open("fy1").expect("as root");
        let plain = numbered_frame(1, 7, 100);
        let tagged = |tpid: [u8; 2], tci: u16| {
            let tag = [&tpid[..], &tci.to_be_bytes()].concat();
            [&plain[..12], &tag, &plain[12..]].concat()
        };
        injector.send(&[tagged([0x81, 0], 0x6123), tagged([0x88, 0xa8], 42), plain.clone()]).expect("sent");
        let packets = bench.collect(3, QUIET);
        let told: Vec<_> = packets.iter().map(|p| (p.arrival.flags, p.arrival.stripped_vlan)).collect();
        assert_eq!(told, [(flags::VLAN_STRIPPED, 0x6123), (flags::VLAN_STRIPPED | flags::VLAN_SERVICE, 42), (0, 0)]);
        assert!(packets.iter().all(|p| p.bytes == plain), "the rest of the frame is as it was");
    });
}

#[test]
fn segments_that_the_kernel_merged_are_told_and_whole() {
    require_root!();
    let (here, there) = (Namespace::new().expect("as root"), Namespace::new().expect("as root"));
    here.veth_to(&there, &Veth { offloads: true, ..Veth::default() }).expect("as root");
    here.command("ip addr add 10.9.0.1/24 dev fy0").expect("as root");
    there.command("ip addr add 10.9.0.2/24 dev fy1").expect("as root");
    const BYTES: usize = 2_000_000;
    let packets = here.run(|| {
        let mut bench = Bench::open("packet:fy0", 4096).expect("as root");
        let listener = std::net::TcpListener::bind("10.9.0.1:5000").expect("the address is there");
        let reader = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("to its end");
            all.len()
        });
        there.run(|| {
            let mut stream = std::net::TcpStream::connect("10.9.0.1:5000").expect("someone listens");
            stream.write_all(&vec![0x5a; BYTES]).expect("someone reads");
        });
        assert_eq!(reader.join().expect("the reader"), BYTES);
        let packets = bench.collect(usize::MAX, QUIET);
        let counters = bench.close();
        assert_eq!(counters.lost_total(), 0, "{counters:?}");
        packets
    });
    let data: Vec<_> = packets.iter().filter(|p| !p.has(flags::OUTGOING) && p.bytes.len() > 1514).collect();
    assert!(!data.is_empty(), "veth merges segments when offloads are on");
    for packet in &data {
        assert!(packet.has(flags::GSO | flags::CHECKSUM_PARTIAL), "{:#x}", packet.arrival.flags);
        assert!(packet.segments > 1 && packet.bytes[200..] == vec![0x5a; packet.bytes.len() - 200]);
    }
    let payload: usize = packets
        .iter()
        .filter(|p| !p.has(flags::OUTGOING) && p.bytes[12..14] == [8, 0])
        .map(|p| {
            let total = usize::from(u16::from_be_bytes([p.bytes[16], p.bytes[17]]));
            total - 20 - usize::from(p.bytes[46] >> 4) * 4
        })
        .sum();
    assert!(payload >= BYTES, "every byte was seen: {payload}");
    assert!(packets.iter().any(|p| p.has(flags::OUTGOING)), "our own acknowledgements are seen");
}

#[test]
fn loopback_gives_each_packet_once_and_outgoing_ones_are_told_elsewhere() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let mut bench = Bench::open("packet:lo", 64).expect("as root");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        socket.send_to(b"once", "127.0.0.1:9").expect("loopback is up");
        let packets = bench.collect(usize::MAX, QUIET);
        let once: Vec<_> = packets.iter().filter(|p| p.bytes.ends_with(b"once") && p.bytes[23] == 17).collect();
        assert_eq!(once.len(), 1, "{packets:?}");
        assert!(once[0].has(flags::CHECKSUM_PARTIAL), "nobody fills checksums in on loopback");

        let (mut both, mut incoming) =
            (Bench::open("packet:fy0", 64).expect("as root"), Bench::open("packet:fy0?incoming", 64).expect("as root"));
        Injector::open("fy0").expect("as root").send(&[numbered_frame(0, 5, 60)]).expect("sent");
        Injector::open("fy1").expect("as root").send(&[numbered_frame(0, 6, 60)]).expect("sent");
        let told = |packets: Vec<Packet>| -> Vec<_> {
            packets.iter().map(|p| (number_of(&p.bytes), p.has(flags::OUTGOING))).collect()
        };
        assert_eq!(told(both.collect(2, QUIET)), [(Some(5), true), (Some(6), false)]);
        assert_eq!(told(incoming.collect(2, QUIET)), [(Some(6), false)]);
    });
}

#[test]
fn interfaces_without_ethernet_give_raw_packets() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.command("ip tuntap add dev tun0 mode tun").expect("as root");
    wire.run(|| {
        let error = Bench::open("xdp:tun0", 64).map(|_| ()).expect_err("not Ethernet").to_string();
        assert!(error.contains("packet:tun0"), "{error}");
    });
    wire.command("ip addr add 10.9.9.1/24 dev tun0").expect("as root");
    wire.command("ip link set tun0 up").expect("as root");
    wire.run(|| {
        let mut bench = Bench::open("packet:tun0", 64).expect("as root");
        let tun = open_tun("tun0").expect("as root");
        let socket = std::net::UdpSocket::bind("10.9.9.1:7").expect("the address is there");
        // The device takes packets a moment after it has its carrier.
        let deadline = Instant::now() + Duration::from_secs(5);
        let out = loop {
            socket.send_to(b"out", "10.9.9.2:9").expect("there is a route");
            if let Some(packet) = bench.collect(1, Duration::from_millis(50)).pop() {
                break packet;
            }
            assert!(Instant::now() < deadline, "nothing came");
        };
        drop(tun);
        assert_eq!((out.arrival.link, out.bytes[0], out.has(flags::OUTGOING)), (101, 0x45, true));
        assert!(out.bytes.ends_with(b"out"));
    });
}

#[test]
fn parts_share_the_packets_between_them() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let mut parts = open_all("packet:fy0", 2, 2048).expect("as root");
        let frames: Vec<_> = (0..1000).map(|n| numbered_frame(n as u16 % 100, n, 60)).collect();
        Injector::open("fy1").expect("as root").send(&frames).expect("sent");
        let got: Vec<Vec<Packet>> = parts.iter_mut().map(|part| part.collect(1000, QUIET)).collect();
        assert_eq!(got[0].len() + got[1].len(), 1000);
        assert!(got.iter().all(|g| g.len() > 100), "{} and {}", got[0].len(), got[1].len());
        let flow = |p: &Packet| p.bytes[34..36].to_vec();
        assert!(got[0].iter().all(|a| got[1].iter().all(|b| flow(a) != flow(b))), "a flow stays with one part");
        let counters: Vec<_> = parts.into_iter().map(Bench::close).collect();
        assert_eq!(counters.iter().map(|c| c.packets + c.lost_total()).sum::<u64>(), 1000);
    });
}

#[test]
fn a_flap_is_survived_and_deletion_is_an_error() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let mut bench = Bench::open("packet:fy0?promisc", 256).expect("as root");
        assert!(wire.command("ip -d link show fy0").expect("ip runs").contains("promiscuity 1"));
        let injector = Injector::open("fy1").expect("as root");
        injector.send(&[numbered_frame(0, 1, 60)]).expect("sent");
        assert_eq!(bench.collect(1, QUIET).len(), 1);
        wire.command("ip link set fy0 down").expect("as root");
        assert!(bench.collect(1, QUIET).is_empty());
        wire.command("ip link set fy0 up").expect("as root");
        std::thread::sleep(Duration::from_millis(50));
        injector.send(&[numbered_frame(0, 2, 60)]).expect("sent");
        assert_eq!(bench.collect(1, QUIET).len(), 1, "after the flap");
        wire.command("ip link del fy0").expect("as root");
        let mut packets = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(2);
        let error = loop {
            match bench.receive(&mut packets) {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(Instant::now() < deadline, "deletion goes unnoticed"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(error.contains("fy0 was deleted"), "{error}");
        assert_eq!(bench.receive(&mut packets).expect("ended is no error"), Progress::Ended);
        assert_eq!(bench.close().packets, 2);
    });
}

#[test]
fn bad_names_and_options_say_what_to_write() {
    for (name, expect) in [
        ("packet:nosuch0", "there is no interface"),
        ("packet:lo?promsic", "options are"),
        ("packet:lo?blocks=1", "2 to 4096"),
        ("packet:lo?block=100", "power of two"),
        ("packet:lo?fanout=x", "0 to 65535"),
    ] {
        let error = prepare(&spec(name), 1).map(|_| ()).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    }
}

#[test]
fn keeps_what_every_port_promises() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { mtu: 9000, ..Veth::default() }).expect("as root");
    wire.run(|| {
        let sent: Vec<_> = (0..600).map(|n| numbered_frame(1, n, 60 + (n as usize * 37) % 8900)).collect();
        let mut make = || {
            let opener = prepare(&spec("packet:fy0?block=512&blocks=16"), 1).expect("as root").remove(0);
            let sent = sent.clone();
            std::thread::spawn(move || {
                let injector = Injector::open("fy1").expect("as root");
                // Some before the port is open, most after.
                for some in sent.chunks(20) {
                    injector.send(some).expect("sent");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            opener
        };
        let expected = Expectation { repeatable: false, silence: QUIET, ..Expectation::default() };
        let seen = port_conformance(&mut make, expected);
        assert!(seen.packets > 0 && seen.most_segments > 1, "{seen:?}");
    });
}
