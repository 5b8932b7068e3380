//! Packets that consumers have sent: through files, between namespaces, and refused.

mod common;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::*;
use flowyard::mem::{PacketError, Wait};
use flowyard::port::Refusal;
use flowyard::port::capture::CaptureReader;
use flowyard::port::traffic::MixOptions;
use flowyard::{Group, Report, RingReader, Yard, YardConfig};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame};
use flowyard_testkit::require_root;

fn transmitting() -> YardConfig {
    YardConfig { transmit: true, ..YardConfig::default() }
}

/// Sends every packet out of the port that `to` says for the one it came by.
fn forward(mut reader: RingReader, to: impl Fn(u8) -> u8) -> u64 {
    let mut packets = 0;
    while reader.wait(None) != Wait::Ended {
        while let Some(mut packet) = reader.next() {
            let port = to(packet.slot().port);
            packet.transmit(port).expect("nobody else holds it");
            packets += 1;
        }
    }
    packets
}

fn refused(report: &Report, port: usize) -> Vec<(&'static str, u64)> {
    let each = Refusal::ALL.iter().zip(report.transmitted[port].refused);
    each.filter(|(_, n)| *n > 0).map(|(why, n)| (why.name(), n)).collect()
}

fn frames_of(path: &std::path::Path) -> Vec<(Vec<u8>, u64, u32)> {
    let mut reader = CaptureReader::open(path).expect("a capture");
    let mut frames = Vec::new();
    while let Some(record) = reader.next().expect("sound") {
        frames.push((record.bytes.to_vec(), record.time_ns, record.wire_len));
    }
    frames
}

#[test]
fn a_capture_goes_through_byte_for_byte_with_its_times_and_each_flow_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("in.pcapng"), folder.path().join("out.pcapng"));
    let frames = generated(&MixOptions::default(), 20_000);
    write_capture(&from, &frames);
    let ports = [pcap(&from), format!("{}?write", pcap(&to))];
    let opened = Yard::open(&transmitting(), &ports.map(|port| spec(&port))).expect("files");
    assert_eq!(opened.0.ports()[1].mode, "written");
    let (report, rings) = run_with(opened, |mut reader| {
        let mut sent = VecDeque::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(mut packet) = reader.next() {
                sent.push_back((packet.segments().flatten().copied().collect::<Vec<u8>>(), packet.slot().time_ns));
                packet.transmit(1).expect("nobody else holds it");
            }
        }
        sent
    });
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing, report.no_such_port), (0, 0, 0));
    assert_eq!((report.delivered(), report.sent(), refused(&report, 1)), (20_000, 20_000, vec![]));

    // Rings overtake one another; what one ring sends stays in order.
    let (mut rings, mut frames) = (rings, frames);
    for (n, (bytes, time_ns, wire_len)) in frames_of(&to).into_iter().enumerate() {
        assert_eq!(wire_len as usize, bytes.len());
        let frame = (bytes, time_ns);
        let ring = rings.iter_mut().find(|ring| ring.front() == Some(&frame));
        assert!(ring.and_then(VecDeque::pop_front).is_some(), "frame {n} was sent by nobody, or overtook another");
        let place = frames.iter().position(|one| *one == frame).unwrap_or_else(|| panic!("frame {n} never came"));
        frames.remove(place);
    }
    assert!(rings.iter().all(VecDeque::is_empty) && frames.is_empty());
}

#[test]
fn start_and_length_are_those_that_push_and_pull_have_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let to = folder.path().join("out.pcapng");
    let frames = generated(&MixOptions::default(), 900);
    let from = folder.path().join("in.pcapng");
    write_capture(&from, &frames);
    let ports = [pcap(&from), format!("{}?write", pcap(&to))];
    let config = YardConfig { rings: 1, ..transmitting() };
    let opened = Yard::open(&config, &ports.map(|port| spec(&port))).expect("files");
    let (report, expected) = run_with(opened, |mut reader| {
        let mut expected: Vec<Vec<u8>> = Vec::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(mut packet) = reader.next() {
                let whole: Vec<u8> = packet.segments().flatten().copied().collect();
                expected.push(match expected.len() % 3 {
                    0 => {
                        packet.pull(14).expect("Ethernet");
                        whole[14..].to_vec()
                    }
                    1 => {
                        packet.push(4).expect("headroom");
                        packet.data_mut().expect("ours")[..4].copy_from_slice(b"mark");
                        [b"mark", &whole[..]].concat()
                    }
                    _ => whole,
                });
                packet.transmit(1).expect("nobody else holds it");
            }
        }
        expected
    });
    assert!(report.sums_agree() && report.sent() == 900, "{report:?}");
    assert!(frames_of(&to).iter().map(|(bytes, ..)| bytes).eq(&expected[0]));
}

#[test]
fn what_cannot_go_out_is_refused_by_name_and_nothing_is_lost_for_it() {
    let (report, packets) = run_with(
        Yard::open(&transmitting(), &specs(&["gen:mix?packets=5000", "gen:mix?packets=1000&seed=3"]))
            .expect("no files"),
        |reader| forward(reader, |from| if from == 0 { 1 } else { 200 }),
    );
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!((packets.iter().sum::<u64>(), report.violations), (6000, 0));
    assert_eq!((refused(&report, 1), report.no_such_port), (vec![("receive-only", 5000)], 1000));
}

#[test]
fn a_yard_that_does_not_transmit_frees_and_says() {
    let opened = Yard::open(&YardConfig::default(), &specs(&["gen:mix?packets=500"])).expect("no files");
    let (report, _) = run_with(opened, |reader| forward(reader, |_| 0));
    assert_eq!((report.violations, report.buffers_missing, report.transmitted.len()), (500, 0, 0));
}

#[test]
fn what_others_hold_is_not_sent() {
    let config = YardConfig { groups: vec![Group::new("second", 2)], ..transmitting() };
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=500"])).expect("no files");
    let (report, _) = run_with(opened, |mut reader| {
        while reader.wait(None) != Wait::Ended {
            while let Some(mut packet) = reader.next() {
                assert_eq!(packet.transmit(0), Err(PacketError::Shared));
            }
        }
    });
    assert_eq!((report.violations, report.delivered(), report.transmitted[0].asked), (0, 1000, 0));
}

#[test]
fn what_cannot_be_is_refused_when_the_yard_is_opened() {
    let why = |config: &YardConfig, ports: &[&str]| {
        Yard::open(config, &specs(ports)).map(drop).expect_err("it cannot be").to_string()
    };
    let text = why(&YardConfig::default(), &["gen:mix", "pcap:/tmp/x.pcap?write"]);
    assert!(text.contains("pcap:/tmp/x.pcap") && text.contains("--transmit"), "{text}");
    let text = why(&transmitting(), &["pcap:/tmp/x.pcap?write"]);
    assert!(text.contains("ports that packets come from is 0"), "{text}");
    require_root!();
    let place = Namespace::new().expect("as root");
    place.veth(&Veth::default()).expect("as root");
    let direct = YardConfig { kernel: true, ..transmitting() };
    let text = place.run(|| why(&direct, &["xdp:fy0"]));
    assert!(text.contains("xdp:fy0") && text.contains("--relay"), "{text}");
}

/// Says `bytes` bytes each way between two namespaces, and checks them.
fn converse(server: &Namespace, client: &Namespace, bytes: usize) {
    let speech = move |salt: usize| (0..bytes).map(move |n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8 ^ salt as u8);
    let exchange = move |mut stream: TcpStream, own: usize, other: usize| {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut out = stream.try_clone().expect("a second handle");
        let sender = std::thread::spawn(move || {
            let said: Vec<u8> = speech(own).collect();
            out.write_all(&said).expect("the other side reads");
            out.shutdown(Shutdown::Write).expect("still open");
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the other side speaks");
        assert!(heard.len() == bytes && heard.into_iter().eq(speech(other)), "byte for byte");
        sender.join().expect("no panic");
    };
    let listener = server.run(|| TcpListener::bind((Ipv4Addr::new(10, 3, 0, 1), 5001)).expect("an address"));
    listener.set_nonblocking(true).expect("it is ours");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Instant::now() + PATIENCE;
            let stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) => assert!(Instant::now() < deadline, "no client"),
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            stream.set_nonblocking(false).expect("it is ours");
            exchange(stream, 1, 2);
        });
        client.run(|| {
            let address = (Ipv4Addr::new(10, 3, 0, 1), 5001).into();
            exchange(TcpStream::connect_timeout(&address, PATIENCE).expect("it listens"), 2, 1);
        });
    });
}

/// A bridge of two ports between two hosts.
fn bridge(ports: [&str; 2], queues: u32, dispatchers: usize, offloads: bool) -> Report {
    let _alone = alone();
    let [one, two, between] = [0; 3].map(|_| Namespace::new().expect("as root"));
    for (host, name, address) in [(&one, "to-one", "10.3.0.1/24"), (&two, "to-two", "10.3.0.2/24")] {
        let veth = Veth { name, peer: "eth", queues, offloads, ..Veth::default() };
        between.veth_to(host, &veth).expect("as root");
        host.command(&format!("ip addr add {address} dev eth")).expect("as root");
    }
    let config = YardConfig { rings: 2, ring_slots: 4096, dispatchers, ..transmitting() };
    let (running, consumers) = between.run(|| {
        let (yard, readers) = Yard::open(&config, &specs(&ports)).expect("as root");
        let forward = |reader| std::thread::spawn(move || forward(reader, |from| 1 - from));
        let consumers: Vec<_> = readers.into_iter().map(forward).collect();
        (yard.start().expect("threads"), consumers)
    });
    converse(&one, &two, 5 << 20);
    running.stop();
    let report = join(running);
    let packets: u64 = consumers.into_iter().map(|consumer| consumer.join().expect("no panic")).sum();
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing), (0, 0), "{report:?}");
    assert_eq!(report.transmitted.iter().map(|t| t.asked).sum::<u64>(), packets, "{report:?}");
    report
}

/// Sends numbered frames to a yard that returns them by the port they came by, and takes what comes back.
fn reflected(config: &YardConfig, port: &str, frames: u64) -> Report {
    let _alone = alone();
    let place = Namespace::new().expect("as root");
    place.veth(&Veth { queues: 2, ..Veth::default() }).expect("as root");
    place.run(|| {
        let (yard, readers) = Yard::open(config, &[spec(port)]).expect("as root");
        let consumers: Vec<_> =
            readers.into_iter().map(|reader| std::thread::spawn(|| forward(reader, |from| from))).collect();
        let running = yard.start().expect("threads");
        let ear = flowyard_testkit::net::listen("fy1").expect("as root");
        let injector = Injector::open("fy1").expect("as root");
        let (mut came, mut bytes) = (vec![0; frames as usize], vec![0; 2048]);
        for first in (0..frames).step_by(50) {
            let sent: Vec<_> = (first..first + 50).map(|n| numbered_frame(n as u16 % 20, n, 400)).collect();
            injector.send(&sent).expect("it is up");
            // The ear hears both ways: what is sent and what comes back.
            let deadline = Instant::now() + Duration::from_secs(5);
            while came[first as usize..first as usize + 50].iter().any(|n| *n < 2) && Instant::now() < deadline {
                if let Ok(len) = rustix::io::read(&ear, &mut bytes)
                    && let Some(n) = number_of(&bytes[..len])
                {
                    assert!(bytes[..len] == numbered_frame(n as u16 % 20, n, 400), "unchanged");
                    came[n as usize] += 1;
                }
            }
        }
        assert!(came.iter().all(|n| *n == 2), "each came back, once");
        running.stop();
        let report = join(running);
        consumers.into_iter().for_each(|consumer| _ = consumer.join().expect("no panic"));
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert_eq!((report.sent(), report.violations, report.buffers_missing), (frames, 0, 0), "{report:?}");
        report
    })
}

#[test]
fn what_the_kernel_steers_goes_out_where_it_is_relayed() {
    require_root!();
    for dispatchers in [1, 2] {
        let config = YardConfig { kernel: true, relay: true, dispatchers, ..transmitting() };
        let report = reflected(&config, "xdp:fy0?native&ring=64", 1000);
        let steered = report.ports[0].1.notes.iter().find(|(name, _)| name.starts_with("steered-in-"));
        assert!(steered.is_some_and(|(_, n)| *n > 0), "{report:?}");
    }
    reflected(&transmitting(), "packet:fy0", 1000);
}

#[test]
fn a_host_talks_to_a_tap_device_of_the_yards() {
    require_root!();
    let _alone = alone();
    for offloads in [false, true] {
        let [far, between] = [0; 2].map(|_| Namespace::new().expect("as root"));
        let veth = Veth { name: "to-far", peer: "eth", offloads, ..Veth::default() };
        between.veth_to(&far, &veth).expect("as root");
        far.command("ip addr add 10.3.0.2/24 dev eth").expect("as root");
        let config = YardConfig { rings: 2, ring_slots: 4096, ..transmitting() };
        let (running, consumers) = between.run(|| {
            let (yard, readers) =
                Yard::open(&config, &specs(&["packet:to-far?blocks=128", "tap:ty0"])).expect("as root");
            let forward = |reader| std::thread::spawn(move || forward(reader, |from| 1 - from));
            let consumers: Vec<_> = readers.into_iter().map(forward).collect();
            (yard.start().expect("threads"), consumers)
        });
        between.command("ip addr add 10.3.0.1/24 dev ty0").expect("the device is there");
        converse(&between, &far, 5 << 20);
        running.stop();
        let report = join(running);
        consumers.into_iter().for_each(|consumer| _ = consumer.join().expect("no panic"));
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert!(report.transmitted.iter().all(|t| t.asked > 100 && t.refused_total() == 0), "{report:?}");
        assert_eq!((report.violations, report.buffers_missing), (0, 0), "{report:?}");
    }
}

#[test]
fn two_hosts_talk_through_a_bridge_of_a_few_lines() {
    require_root!();
    let packet = ["packet:to-one?blocks=128", "packet:to-two?blocks=128"];
    let xdp = ["xdp:to-one?native", "xdp:to-two?native"];
    // With as many queues as dispatchers each has one of each port; with fewer, one sends by a packet socket what
    // another receives.
    for (ports, queues, dispatchers) in
        [(packet, 1, 1), (packet, 1, 2), (xdp, 1, 1), (xdp, 2, 2), (xdp, 1, 2), ([packet[0], xdp[1]], 1, 1)]
    {
        for offloads in [false, true] {
            let report = bridge(ports, queues, dispatchers, offloads);
            assert!(report.sent() > 100, "{ports:?}: {report:?}");
            for port in 0..ports.len() {
                assert_eq!(refused(&report, port), [], "{ports:?}, {queues}, {dispatchers}, {offloads}");
            }
        }
    }
}
