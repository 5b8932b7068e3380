//! Ways out against the real kernel, on interfaces in namespaces of their own: what was sent arrives byte for byte, and
//! every packet that was asked for is sent, or refused by one name.

use std::time::{Duration, Instant};

use flowyard_mem::{Geometry, Region, Stock, flags};
use flowyard_port::capture::CaptureReader;
use flowyard_port::capture::PcapOutput;
use flowyard_port::{
    Arrival, Departure, Leaving, Port, PortSpec, Progress, Received, Refusal, TransmitCounters, Transmitter, prepare,
};
use flowyard_testkit::conformance::{Expectation, port_conformance};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame};
use flowyard_testkit::require_root;

/// A port open for both ways, with a region and stock of its own.
struct Yard {
    port: Box<dyn Port>,
    out: Option<Box<dyn Transmitter>>,
    region: Region,
    stock: Stock,
    batch: Vec<Received>,
}

/// A packet that arrived.
#[derive(Debug, Clone)]
struct Packet {
    bytes: Vec<u8>,
    arrival: Arrival,
}

const QUIET: Duration = Duration::from_millis(300);

impl Yard {
    fn open(name: &str) -> Yard {
        let spec: PortSpec = name.parse().expect("a good name");
        let mut opener = prepare(&spec, 1).expect("it is there").remove(0);
        opener.ask_transmission().expect("it has a way out");
        let buffer_bytes = opener.info().buffer_bytes;
        let geometry = Geometry::new(buffer_bytes, 128, 8192).expect("geometry");
        let (region, mut stock) = Region::create("test", geometry).expect("memory");
        let mut port = opener.open(&region, &mut stock).expect("as root");
        let out = port.transmitter().expect("as root");
        assert!(port.transmitter().expect("as root").is_none() || !name.starts_with("xdp"), "a ring has one owner");
        Yard { port, out, region, stock, batch: Vec::new() }
    }

    fn out(&mut self) -> &mut dyn Transmitter {
        self.out.as_mut().expect("it has a way out").as_mut()
    }

    /// Lays a packet out in buffers, of `piece` bytes each, and sends it.
    fn send_in(&mut self, bytes: &[u8], departure: &Departure, piece: usize) {
        let mut packet = laid_out(&self.region, &mut self.stock, bytes, piece);
        self.out.as_mut().expect("it has a way out").send(&mut packet, departure, &mut self.stock);
        assert!(packet.is_empty());
    }

    fn send(&mut self, bytes: &[u8], departure: &Departure) {
        self.send_in(bytes, departure, self.region.geometry().packet_capacity());
    }

    fn flush(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.out.as_mut().expect("it has a way out").flush(&mut self.stock) {
            assert!(Instant::now() < deadline, "the kernel takes what it is given");
        }
    }

    fn receive(&mut self, into: &mut Vec<Packet>) {
        let progress = self.port.receive(&mut self.stock, &mut self.batch, 64).expect("the interface is there");
        assert!(!matches!(progress, Progress::Ended));
        let (mut bytes, mut scratch) = (Vec::new(), [0u8; 4096]);
        for received in self.batch.drain(..) {
            let at = (usize::from(received.offset), usize::from(received.segment_len));
            bytes.extend_from_slice(self.region.peek(&received.buffer, at.0, at.1, &mut scratch));
            self.stock.put(received.buffer);
            if !received.more {
                into.push(Packet { bytes: std::mem::take(&mut bytes), arrival: received.arrival });
            }
        }
    }

    /// Receives until `count` packets came or nothing does.
    fn collect(&mut self, count: usize) -> Vec<Packet> {
        let (mut packets, mut last) = (Vec::new(), Instant::now());
        while packets.len() < count && last.elapsed() < QUIET {
            let before = packets.len();
            self.receive(&mut packets);
            if packets.len() > before {
                last = Instant::now();
            }
        }
        packets
    }

    /// Closes both, and checks that all buffers are home and the sums agree.
    fn close(mut self) -> TransmitCounters {
        let (counters, done) = self.out.take().expect("once").close(&mut self.stock);
        done.expect("nothing failed");
        self.port.close(&mut self.stock).expect("nothing to restore");
        assert_eq!(self.stock.len(), self.stock.capacity(), "every buffer is home");
        assert!(counters.sums_agree(), "{counters:?}");
        counters
    }
}

fn laid_out(region: &Region, stock: &mut Stock, bytes: &[u8], piece: usize) -> Vec<Leaving> {
    let at = region.geometry().packet_offset();
    bytes
        .chunks(piece.max(1))
        .map(|piece| {
            let mut buffer = stock.take().expect("enough");
            assert!(region.write(&mut buffer, at, piece));
            Leaving { buffer, offset: at as u16, len: piece.len() as u16 }
        })
        .collect()
}

const ETHERNET: Departure = Departure {
    flags: 0,
    stripped_vlan: 0,
    segment_bytes: 0,
    link: 1,
    time_ns: 0,
    clock: flowyard_mem::Clock::None,
    cut_bytes: 0,
};

fn refused(counters: &TransmitCounters) -> Vec<(&'static str, u64)> {
    let each = Refusal::ALL.iter().zip(counters.refused);
    each.filter(|(_, n)| *n > 0).map(|(why, n)| (why.name(), n)).collect()
}

/// A TCP segment of `len` payload bytes, with its checksum finished or as the host's stack leaves it to a card.
fn tcp(len: usize, v6: bool, finished: bool) -> Vec<u8> {
    let payload: Vec<u8> = (0..len as u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    let start = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let start = if v6 { start.ipv6([0xfd; 16], [0xfe; 16], 64) } else { start.ipv4([10, 9, 0, 1], [10, 9, 0, 2], 64) };
    let mut frame = Vec::new();
    start.tcp(1000, 2000, 77, 500).ack(5).psh().write(&mut frame, &payload).expect("room");
    if !finished {
        let (addresses, at) = if v6 { (22..54, 54) } else { (26..34, 34) };
        let words = frame[addresses].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let mut sum = words.sum::<u32>() + 6 + 20 + len as u32;
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        frame[at + 16..at + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    }
    frame
}

/// The payload of TCP segments of [`tcp`] in order, each with a right checksum.
fn payload(packets: &[Packet], headers: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        let frame = etherparse::SlicedPacket::from_ethernet(&packet.bytes[headers..]).expect("well formed");
        let Some(etherparse::TransportSlice::Tcp(tcp)) = &frame.transport else { panic!("{frame:?}") };
        assert_eq!(tcp.sequence_number(), 77 + bytes.len() as u32);
        let right = match frame.net.as_ref().expect("IP") {
            etherparse::NetSlice::Ipv4(v4) => {
                tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination()).expect("length")
            }
            etherparse::NetSlice::Ipv6(v6) => {
                tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination()).expect("length")
            }
            other => panic!("{other:?}"),
        };
        if !packet.arrival.flags & flags::CHECKSUM_PARTIAL != 0 {
            assert_eq!(tcp.checksum(), right);
        }
        bytes.extend_from_slice(tcp.payload());
    }
    bytes
}

/// A wire with both ends in one namespace.
fn wire(mtu: u32, offloads: bool) -> Namespace {
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { queues: 2, mtu, offloads, ..Veth::default() }).expect("as root");
    wire
}

const LIVE: [&str; 3] = ["packet:fy0", "xdp:fy0?native", "xdp:fy0?generic"];

#[test]
fn what_is_sent_arrives_byte_for_byte_and_in_order() {
    require_root!();
    for (mtu, offloads) in [(1500, false), (1500, true), (9000, false)] {
        for name in LIVE {
            wire(mtu, offloads).run(|| {
                let mut far = Yard::open("packet:fy1?incoming");
                let mut near = Yard::open(name);
                let longest = mtu as usize + 14 - 60;
                let frames: Vec<_> =
                    (0..3000u64).map(|n| numbered_frame(3, n, 60 + n as usize * 37 % (longest + 1))).collect();
                let mut seen = 0u64;
                for chunk in frames.chunks(200) {
                    chunk.iter().for_each(|frame| near.send(frame, &ETHERNET));
                    near.flush();
                    for packet in far.collect(chunk.len()) {
                        assert!(packet.bytes == frames[seen as usize], "{name}: frame {seen}");
                        seen += 1;
                    }
                }
                let counters = near.close();
                assert_eq!((seen, counters.asked, counters.sent), (3000, 3000, 3000), "{name}: {counters:?}");
                assert_eq!(counters.bytes, frames.iter().map(|f| f.len() as u64).sum::<u64>());
                far.close();
            });
        }
    }
}

#[test]
fn what_one_sends_does_not_come_back_in() {
    require_root!();
    wire(1500, false).run(|| {
        let mut near = Yard::open("packet:fy0");
        (0..49).for_each(|n| near.send(&numbered_frame(1, n, 100), &ETHERNET));
        // One that the stack has to take apart, without offloads.
        let merged = Departure { flags: flags::GSO | flags::CHECKSUM_PARTIAL, segment_bytes: 1390, ..ETHERNET };
        near.send(&tcp(30_000, false, false), &merged);
        near.flush();
        Injector::open("fy1").expect("as root").send(&[numbered_frame(1, 99, 100)]).expect("it is up");
        let came = near.collect(10);
        assert_eq!(came.iter().map(|p| number_of(&p.bytes)).collect::<Vec<_>>(), [Some(99)]);
        assert_eq!(near.close().sent, 50);
    });
}

#[test]
fn unfinished_checksums_are_finished() {
    require_root!();
    let partial = Departure { flags: flags::CHECKSUM_PARTIAL, ..ETHERNET };
    for offloads in [false, true] {
        for name in LIVE {
            wire(1500, offloads).run(|| {
                let mut far = Yard::open("packet:fy1?incoming");
                let mut near = Yard::open(name);
                for v6 in [false, true] {
                    near.send(&tcp(1000, v6, false), &partial);
                    near.send(&tcp(1000, v6, false), &ETHERNET); // nobody told: AF_XDP cannot
                    near.send(&tcp(1000, v6, true), &ETHERNET);
                }
                // Not TCP or UDP, and said to be unfinished: what would finish it?
                let mut other = tcp(100, false, false);
                other[23] = 132;
                near.send(&other, &partial);
                near.flush();
                let came = far.collect(6);
                assert_eq!(came.len(), 6);
                for (n, packet) in came.iter().enumerate() {
                    let open = packet.arrival.flags & flags::CHECKSUM_PARTIAL != 0;
                    // A kernel whose cards finish checksums passes them on as they are.
                    assert_eq!(open, offloads && name.starts_with("packet") && n % 3 < 2, "{name}, {n}");
                    assert_eq!(packet.bytes == tcp(1000, n >= 3, true), !open, "{name}, {n}");
                }
                let counters = near.close();
                assert_eq!(refused(&counters), [("checksum", 1)], "{name}");
                assert_eq!(counters.checksums, if name.starts_with("packet") { 0 } else { 4 }, "{name}");
                far.close();
            });
        }
    }
}

/// An inner frame in VXLAN between 192.0.2.1 and 192.0.2.2, without an outer checksum.
fn wrapped(inner: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let body = [&[8, 0, 0, 0, 0, 0, 77, 0], inner].concat();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
        .udp(50_000, 4789)
        .write(&mut frame, &body)
        .expect("room");
    frame[40..42].fill(0);
    frame
}

#[test]
fn merged_frames_go_on_as_they_are_or_in_parts() {
    require_root!();
    let merged = Departure { flags: flags::GSO | flags::CHECKSUM_PARTIAL, segment_bytes: 1390, ..ETHERNET };
    for offloads in [false, true] {
        for name in LIVE {
            wire(1500, offloads).run(|| {
                let mut far = Yard::open("packet:fy1?incoming");
                let mut near = Yard::open(name);
                for v6 in [false, true] {
                    let whole = tcp(30_000, v6, false);
                    let kernel_merges = offloads && name.starts_with("packet");
                    near.send(&whole, &merged);
                    near.flush();
                    let came = far.collect(if kernel_merges { 1 } else { 22 });
                    assert!(payload(&came, 0) == payload_of(&whole, v6), "{name}, {v6}");
                    assert_eq!(came.len(), if kernel_merges { 1 } else { 30_000usize.div_ceil(1390) }, "{name}");
                    if kernel_merges {
                        assert_eq!((came[0].arrival.flags & flags::GSO, came[0].arrival.card_hash), (flags::GSO, 1390));
                    }

                    near.send(&wrapped(&whole), &merged);
                    near.flush();
                    let came = far.collect(22);
                    assert!(payload(&came, 50) == payload_of(&whole, v6), "{name}, {v6}, in a tunnel");
                    assert!(came.iter().all(|p| p.bytes.len() <= 1514), "the tunnel's headers count");
                }
                let counters = near.close();
                let apart = if name.starts_with("packet") { 2 } else { 4 };
                assert_eq!((counters.sent, counters.taken_apart), (4, apart), "{name}: {counters:?}");
                far.close();
            });
        }
    }
}

fn payload_of(whole: &[u8], v6: bool) -> Vec<u8> {
    whole[if v6 { 74 } else { 54 }..].to_vec()
}

#[test]
fn vlan_tags_that_were_taken_off_are_put_back() {
    require_root!();
    for name in LIVE {
        wire(1500, false).run(|| {
            let mut far = Yard::open("packet:fy1?incoming");
            let mut near = Yard::open(name);
            let tagged = Departure { flags: flags::VLAN_STRIPPED, stripped_vlan: 0x2005, ..ETHERNET };
            let service = Departure { flags: flags::VLAN_STRIPPED | flags::VLAN_SERVICE, ..tagged };
            let frame = numbered_frame(1, 7, 1510);
            near.send(&frame, &tagged);
            near.send(&frame, &service);
            near.send_in(&frame, &tagged, 700);
            near.send(&frame[..11], &tagged);
            near.flush();
            let came = far.collect(3);
            // The kernel takes tags off again before packet sockets see them, and tells.
            let told =
                |p: &Packet| (p.arrival.flags & (flags::VLAN_STRIPPED | flags::VLAN_SERVICE), p.arrival.stripped_vlan);
            let expected = [tagged, service, tagged].map(|d| (d.flags, 0x2005));
            assert_eq!(came.iter().map(told).collect::<Vec<_>>(), expected, "{name}");
            assert!(came.iter().all(|p| p.bytes == frame), "{name}");
            assert_eq!(refused(&near.close()), [("malformed", 1)], "{name}");
            far.close();
        });
    }
}

#[test]
fn what_cannot_be_sent_is_refused_by_name() {
    require_root!();
    for name in LIVE {
        let wire = wire(1500, false);
        wire.run(|| {
            let mut near = Yard::open(name);
            let frame = numbered_frame(1, 7, 1514);
            near.send(&frame, &ETHERNET);
            near.send(&numbered_frame(1, 7, 1515), &ETHERNET);
            near.send(&frame, &Departure { link: 101, ..ETHERNET });
            near.send(&frame, &Departure { flags: flags::TRUNCATED, ..ETHERNET });
            near.send(&frame, &Departure { flags: flags::GSO, ..ETHERNET }); // UDP, and nobody knows where it ends
            near.flush();
            wire.command("ip link set fy0 down").expect("as root");
            std::thread::sleep(Duration::from_millis(150)); // it is looked at a few times a second
            near.send(&frame, &ETHERNET);
            near.flush();
            wire.command("ip link set fy0 up").expect("as root");
            std::thread::sleep(Duration::from_millis(150));
            near.send(&frame, &ETHERNET);
            near.flush();
            wire.command("ip link set fy1 down").expect("as root"); // up, and nobody at the other end
            std::thread::sleep(Duration::from_millis(150));
            near.send(&frame, &ETHERNET);
            near.flush();
            let counters = near.close();
            let expected = [("too-long", 1), ("link-down", 2), ("merged", 1), ("link-type", 1), ("truncated", 1)];
            assert_eq!((refused(&counters), counters.sent), (expected.to_vec(), 2), "{name}");
        });
    }
}

#[test]
fn a_full_queue_is_refused_and_not_waited_for() {
    require_root!();
    let wire = wire(1500, false);
    if wire.command("tc qdisc add dev fy0 root tbf rate 8kbit burst 2k limit 3000").is_err() {
        flowyard_testkit::net::skipped(module_path!(), line!(), "this kernel has no token bucket (sch_tbf)");
        return;
    }
    wire.run(|| {
        let mut near = Yard::open("packet:fy0");
        (0..100).for_each(|n| near.send(&numbered_frame(1, n, 1000), &ETHERNET));
        let counters = near.close();
        assert!((1..=10).contains(&counters.sent), "{counters:?}");
        assert_eq!(refused(&counters), [("queue-full", 100 - counters.sent)]);
    });
}

#[test]
fn an_interface_that_is_gone_is_said() {
    require_root!();
    let wire = wire(1500, false);
    wire.run(|| {
        let mut near = Yard::open("packet:fy0");
        wire.command("ip link del fy0").expect("as root");
        (0..3).for_each(|n| near.send(&numbered_frame(1, n, 100), &ETHERNET));
        near.flush();
        (0..3).for_each(|n| near.send(&numbered_frame(1, n, 100), &ETHERNET));
        let counters = near.out().counters();
        assert_eq!((counters.asked, counters.sent), (6, 0));
        assert_eq!(refused(&counters), [("gone", 6)]);
    });
}

#[test]
fn a_ring_that_is_overrun_is_emptied_and_loses_nothing() {
    require_root!();
    wire(1500, false).run(|| {
        let mut far = Yard::open("packet:fy1?incoming&blocks=256");
        let mut near = Yard::open("xdp:fy0?ring=64");
        (0..4000u64).for_each(|n| near.send(&numbered_frame(1, n, 200), &ETHERNET));
        near.flush();
        let came = far.collect(4000);
        assert!(came.iter().map(|p| number_of(&p.bytes)).eq((0..4000).map(Some)), "{} came", came.len());
        assert_eq!(near.close().sent, 4000);
        far.close();
    });
}

#[test]
fn several_dispatchers_send_by_one_port() {
    require_root!();
    for name in LIVE {
        wire(1500, false).run(|| {
            let mut far = Yard::open("packet:fy1?incoming");
            let mut near = Yard::open(name);
            let mut other = near.out().another().expect("as root");
            for n in 0..100 {
                near.send(&numbered_frame(1, 2 * n, 300), &ETHERNET);
                let mut packet = laid_out(&near.region, &mut near.stock, &numbered_frame(2, 2 * n + 1, 300), 300);
                other.send(&mut packet, &ETHERNET, &mut near.stock);
            }
            near.flush();
            other.flush(&mut near.stock);
            let mut came: Vec<_> = far.collect(200).iter().filter_map(|p| number_of(&p.bytes)).collect();
            came.sort_unstable();
            assert!(came.iter().copied().eq(0..200), "{name}: {came:?}");
            assert_eq!(other.close(&mut near.stock).0.sent, 100);
            assert_eq!(near.close().sent, 100, "{name}");
        });
    }
}

#[test]
fn a_tap_device_is_a_port() {
    require_root!();
    let host = Namespace::new().expect("as root");
    host.command("ip tuntap add ty0 mode tap").expect("as root");
    host.command("ip link set ty0 up").expect("as root");
    host.run(|| {
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                host.run(|| {
                    let injector = Injector::open("ty0").expect("as root");
                    let mut n = 0;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let frames: Vec<_> =
                            (0..20u64).map(|m| numbered_frame(1, n + m, 60 + (n + m) as usize % 1400)).collect();
                        let _ = injector.send(&frames); // nobody has the device while the suite opens the next one
                        n += 20;
                        std::thread::sleep(Duration::from_millis(5));
                        if n % 4000 == 0 {
                            std::thread::sleep(Duration::from_millis(1200)); // the suite ends a run in silence
                        }
                    }
                });
            });
            let spec: PortSpec = "tap:ty0".parse().expect("a good name");
            let silence = Duration::from_millis(500);
            let expectation = Expectation { repeatable: false, silence, ..Expectation::default() };
            let run = port_conformance(&mut || prepare(&spec, 1).expect("a name").remove(0), expectation);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(run.packets > 0, "{run:?}");
        });
    });
}

#[test]
fn a_tap_device_takes_and_gives_frames_with_their_offloads() {
    require_root!();
    for finished in [false, true] {
        let host = Namespace::new().expect("as root");
        host.run(|| {
            let mut near = Yard::open(if finished { "tap:ty1?finished" } else { "tap:ty1" });
            let mut far = Yard::open("packet:ty1");
            let frames: Vec<_> = (0..500u64).map(|n| numbered_frame(1, n, 60 + n as usize * 29 % 1455)).collect();
            frames.iter().for_each(|frame| near.send(frame, &ETHERNET));
            let came = far.collect(500);
            assert!(came.iter().map(|p| &p.bytes).eq(&frames), "{} came to the host", came.len());
            frames.iter().for_each(|frame| far.send(frame, &ETHERNET));
            far.flush();
            let came = near.collect(500);
            assert!(came.iter().map(|p| &p.bytes).eq(&frames), "{} came from the host", came.len());

            // Merged, from the host and to it.
            let merged = Departure { flags: flags::GSO | flags::CHECKSUM_PARTIAL, segment_bytes: 1390, ..ETHERNET };
            let whole = tcp(30_000, false, false);
            far.send(&whole, &merged);
            far.flush();
            let came = near.collect(22);
            assert!(payload(&came, 0) == payload_of(&whole, false));
            assert_eq!(came.len(), if finished { 22 } else { 1 }, "the host was told what this port takes");
            assert_eq!(came[0].arrival.card_hash, if finished { 0 } else { 1390 });
            near.send(&whole, &merged);
            let came = far.collect(1);
            assert_eq!((came[0].bytes == whole, came[0].arrival.card_hash), (true, 1390));
            let counters = near.close();
            assert_eq!((counters.sent, counters.refused_total()), (501, 0));
        });
    }
}

#[test]
fn a_capture_file_takes_what_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.pcapng");
    let spec: PortSpec = format!("pcap:{}?write", path.display()).parse().expect("a good name");
    assert!(spec.only_sends());
    let (region, mut stock) = Region::create("test", Geometry::new(2048, 0, 64).expect("geometry")).expect("memory");
    let mut out = PcapOutput::new(&spec).expect("options").open(&region).expect("a folder");
    let mut other = out.another().expect("the same file");
    let mut send = |out: &mut dyn Transmitter, bytes: &[u8], departure: Departure, piece| {
        out.send(&mut laid_out(&region, &mut stock, bytes, piece), &departure, &mut stock);
    };
    let first = numbered_frame(1, 1, 1514);
    send(&mut *out, &first, Departure { time_ns: 1_600_000_000_000_000_007, ..ETHERNET }, 500);
    let cut = Departure { time_ns: 5, flags: flags::TRUNCATED, cut_bytes: 1414, ..ETHERNET };
    send(&mut *other, &first[..100], cut, 2000);
    send(&mut *out, &tcp(100, true, false), ETHERNET, 2000);
    let tagged = Departure { flags: flags::VLAN_STRIPPED, stripped_vlan: 5, ..ETHERNET };
    send(&mut *out, &first, tagged, 2000);
    let mut sum = other.close(&mut stock).0;
    sum.add(&out.close(&mut stock).0);
    assert_eq!((sum.asked, sum.sent, sum.checksums, stock.len()), (4, 4, 1, stock.capacity()));

    let mut reader = CaptureReader::open(&path).expect("a capture");
    let mut records = Vec::new();
    while let Some(record) = reader.next().expect("sound") {
        records.push((record.bytes.to_vec(), record.time_ns, record.wire_len));
    }
    assert!(records[0] == (first.clone(), 1_600_000_000_000_000_007, 1514));
    assert!(records[1] == (first[..100].to_vec(), 5, 1514));
    assert!(records[2].0 == tcp(100, true, true), "finished in the file");
    let back = [&first[..12], &[0x81, 0, 0, 5], &first[12..]].concat();
    assert!(records[3] == (back, 0, 1518));

    let unread = prepare(&spec, 1).err().expect("nothing is received from it").to_string();
    assert!(unread.contains("?write"), "{unread}");
    let nowhere: PortSpec = "pcap:/nowhere/at/all.pcapng?write".parse().expect("a good name");
    let error = PcapOutput::new(&nowhere).expect("options").open(&region).err().expect("no folder").to_string();
    assert!(error.contains("/nowhere/at/all.pcapng") && error.contains("folder"), "{error}");
}
