//! `xdp:` ports against the real kernel, on veth pairs in namespaces of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flowyard_mem::{Geometry, Region, Stock};
use flowyard_port::{Opener, Port, PortCounters, PortError, PortSpec, Progress, Received, prepare};
use flowyard_testkit::conformance::{Expectation, port_conformance};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame, skipped};
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

/// Whether this kernel's sockets take frames of that MTU: those that need several buffers, from Linux 6.6 on. Where not,
/// that much of the test is reported as skipped.
fn takes(mtu: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("every kernel has one");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse::<u32>().ok());
    let takes = mtu <= 3562 || (numbers.next(), numbers.next()) >= (Some(6), Some(6));
    if !takes {
        skipped(module_path!(), line!(), &format!("MTU {mtu} takes Linux 6.6, and this is {}", release.trim()));
    }
    takes
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
        if !takes(mtu) {
            continue;
        }
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

/// Frames that `name` could not send because the other end's queue was full.
fn not_sent(wire: &Namespace, name: &str) -> u64 {
    let table = wire.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("/proc is there");
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{name}:"))).expect("the interface is there");
    line.split_whitespace().nth(11).and_then(|n| n.parse().ok()).expect("tx_dropped is the twelfth column")
}

/// What `ip -d link` says of fy0 that a port could leave behind.
fn left_on(wire: &Namespace) -> (bool, bool) {
    let shown = wire.command("ip -d link show fy0").expect("ip runs");
    (shown.contains("xdp"), !shown.contains("promiscuity 0"))
}

/// Waits until nothing of a port is left on fy0; the kernel tidies up behind a killed process.
fn assert_restored(wire: &Namespace, after: &str) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while left_on(wire) != (false, false) {
        assert!(Instant::now() < deadline, "after {after}: (program, promiscuous) = {:?}", left_on(wire));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn wire(queues: u32) -> Namespace {
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { queues, ..Veth::default() }).expect("as root");
    wire
}

#[test]
fn what_is_not_received_in_time_is_counted_once() {
    require_root!();
    for (mode, queues, buffers, pause_us) in
        [("native", 4, 64, 0), ("generic", 2, 64, 0), ("native", 1, 4096, 2000), ("native", 2, 200, 500)]
    {
        let wire = wire(queues);
        wire.run(|| {
            let what = format!("{mode}, {queues} queues, {buffers} buffers, {pause_us} µs pauses");
            let mut bench = Bench::open(&format!("xdp:fy0?{mode}&ring=256"), buffers).expect(&what);
            const SENT: u64 = 20_000;
            let received = std::thread::scope(|scope| {
                let sender = scope.spawn(|| {
                    Injector::open("fy1").expect("as root").send(&frames(SENT, 32, |_| 200)).expect("sent");
                });
                let mut packets = Vec::new();
                let mut quiet = Instant::now();
                while !sender.is_finished() || quiet.elapsed() < QUIET {
                    let before = packets.len();
                    bench.receive(&mut packets).expect("alive");
                    if packets.len() > before {
                        quiet = Instant::now();
                    }
                    std::thread::sleep(Duration::from_micros(pause_us));
                }
                packets.len() as u64
            });
            let counters = bench.close();
            assert_eq!(counters.packets, received, "{what}");
            let accounted = counters.packets + counters.lost_total() + not_sent(&wire, "fy1");
            assert_eq!(accounted, SENT, "{what}: {counters:?}, not sent {}", not_sent(&wire, "fy1"));
            assert_eq!(count(&counters.lost, "unaccounted"), 0, "{what}");
            println!("{what}: {counters:?}");
        });
    }
}

#[test]
fn packets_that_nobody_received_before_the_close_are_counted() {
    require_root!();
    let wire = wire(2);
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0", 8192).expect("as root");
        Injector::open("fy1").expect("as root").send(&frames(300, 16, |_| 100)).expect("sent");
        std::thread::sleep(Duration::from_millis(50));
        let some = bench.collect(1, QUIET).len() as u64;
        let counters = bench.close();
        assert_eq!((counters.packets, count(&counters.lost, "undelivered")), (some, 300 - some), "{counters:?}");
        assert_eq!(counters.lost_total(), 300 - some);
    });
}

#[test]
fn frames_too_long_for_a_buffer_are_named() {
    require_root!();
    let wire = wire(1);
    wire.run(|| {
        // In the driver, and with a region whose buffers are smaller than the MTU needs later.
        let mut bench = Bench::open("xdp:fy0?native", 4096).expect("as root");
        wire.command("ip link set fy0 mtu 1900").expect("veth takes what fits a page");
        wire.command("ip link set fy1 mtu 1900").expect("veth takes what fits a page");
        let injector = Injector::open("fy1").expect("as root");
        let sent = frames(20, 1, |n| if n % 2 == 0 { 100 } else { 1800 });
        injector.send(&sent).expect("sent");
        assert_eq!(bench.collect(20, QUIET).len(), 10);
        let counters = bench.close();
        assert_eq!(count(&counters.lost, "too-long"), 10, "{counters:?}");
        assert_eq!(counters.lost_total(), 10);
    });
}

#[test]
fn merged_datagrams_arrive_apart_from_the_driver_and_whole_from_the_stack() {
    require_root!();
    let (here, there) = (Namespace::new().expect("as root"), Namespace::new().expect("as root"));
    here.veth_to(&there, &Veth { offloads: true, ..Veth::default() }).expect("as root");
    there.command("ip addr add 10.9.0.2/24 dev fy1").expect("as root");
    there.command("ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev fy1").expect("as root");
    let payload: Vec<u8> = (0..56_000u32).map(|n| (n * 7 / 3) as u8).collect();
    for (mode, expected) in [("native", 40), ("generic", 1)] {
        here.run(|| {
            let mut bench = Bench::open(&format!("xdp:fy0?{mode}"), 8192).expect("as root");
            there.run(|| {
                flowyard_testkit::net::send_merged(([10, 9, 0, 1], 9).into(), &payload, 1400).expect("sent");
            });
            let packets = bench.collect(expected, QUIET);
            assert_eq!(packets.len(), expected, "{mode}");
            let together: Vec<u8> = packets.iter().flat_map(|p| &p.bytes[42..]).copied().collect();
            assert!(together == payload, "{mode}: every byte, in order");
            assert_eq!(bench.close().lost_total(), 0, "{mode}");
        });
    }
}

#[test]
fn one_queue_leaves_the_others_to_the_host() {
    require_root!();
    let wire = wire(4);
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0/2", 4096).expect("as root");
        assert!(bench.port.info().mode.starts_with("1 queue,"), "{}", bench.port.info().mode);
        Injector::open("fy1").expect("as root").send(&frames(400, 64, |_| 100)).expect("sent");
        let packets = bench.collect(400, QUIET);
        assert!(!packets.is_empty() && packets.iter().all(|p| p.queue == 2));
        let counters = bench.close();
        assert_eq!(counters.lost_total(), 0);
        assert_eq!(counters.packets + count(&counters.notes, "passed-to-host"), 400, "{counters:?}");
    });
}

#[test]
fn parts_split_the_queues_and_share_the_program() {
    require_root!();
    let wire = wire(4);
    wire.run(|| {
        let all = openers("xdp:fy0", 3).expect("as root");
        assert_eq!(all.len(), 3);
        assert_eq!(openers("xdp:fy0/1", 3).expect("as root").len(), 1);
        // One region for all, as the yard does it.
        let geometry = Geometry::new(2048, 0, 3 * 8192).expect("a good geometry");
        let (region, mut stock) = Region::create("test", geometry).expect("memory");
        let mut stocks = vec![stock.split(8192).expect("all home"), stock.split(8192).expect("all home"), stock];
        let mut ports: Vec<_> = all
            .into_iter()
            .zip(&mut stocks)
            .map(|(opener, stock)| opener.open(&region, stock).expect("as root"))
            .collect();
        assert_eq!(ports.iter().map(|p| p.fds().len()).collect::<Vec<_>>(), [2, 1, 1]);
        Injector::open("fy1").expect("as root").send(&frames(2000, 64, |_| 100)).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        let mut total = 0;
        for (part, (port, stock)) in ports.iter_mut().zip(&mut stocks).enumerate() {
            let mut batch = Vec::new();
            while port.receive(stock, &mut batch, 4096).expect("alive") == Progress::Ready {}
            assert!(batch.iter().all(|r| r.arrival.queue as usize % 3 == part), "part {part} has queues of its own");
            total += batch.len();
            batch.drain(..).for_each(|r| stock.put(r.buffer));
        }
        assert_eq!(total, 2000);
        // The program stays until the last port lets go.
        for (left, (port, stock)) in ports.into_iter().zip(&mut stocks).enumerate() {
            assert!(left_on(&wire).0, "{left} closed");
            port.close(stock).expect("restored");
            assert_eq!(stock.len(), stock.capacity());
        }
        assert_restored(&wire, "the last close");
    });
}

#[test]
fn the_interface_is_as_it_was_however_a_port_ends() {
    require_root!();
    let wire = wire(2);
    let name = "xdp:fy0?promisc";
    wire.run(|| {
        assert_restored(&wire, "nothing yet");
        let bench = Bench::open(name, 4096).expect("as root");
        assert_eq!(left_on(&wire), (true, true), "program and promiscuous mode are on");
        bench.close();
        assert_restored(&wire, "close");

        drop(Bench::open(name, 4096).expect("at once again: EBUSY is waited out"));
        assert_restored(&wire, "drop");

        let panicked = std::panic::catch_unwind(|| {
            let _bench = Bench::open(name, 4096).expect("again");
            panic!("on purpose");
        });
        assert!(panicked.is_err());
        assert_restored(&wire, "panic");

        // A second program on one queue makes opening all of them fail halfway.
        let holder = Bench::open("xdp:fy0/1", 4096).expect("again");
        let error = Bench::open("xdp:fy0", 4096).map(|_| ()).expect_err("a program is there").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        holder.close();
        assert_restored(&wire, "error");
    });
}

#[test]
fn a_killed_process_leaves_nothing_and_the_queues_come_free() {
    require_root!();
    let wire = wire(2);
    let mut child = wire.run(|| {
        std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child_that_holds_a_port", "--ignored", "--nocapture"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("this test again")
    });
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("piped")));
    assert!(lines.any(|line| line.is_ok_and(|l| l.contains("holding"))), "the child opens the port");
    assert_eq!(left_on(&wire), (true, true));
    child.kill().expect("SIGKILL");
    child.wait().expect("it is ours");
    assert_restored(&wire, "kill -9");
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0", 4096).expect("the queues come free");
        Injector::open("fy1").expect("as root").send(&frames(100, 16, |_| 100)).expect("sent");
        assert_eq!(bench.collect(100, QUIET).len(), 100);
    });
}

#[test]
#[ignore = "the child of a_killed_process_leaves_nothing_and_the_queues_come_free"]
fn child_that_holds_a_port() {
    let Ok(_bench) = Bench::open("xdp:fy0?promisc", 4096) else { return };
    println!("holding");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_link_flap_is_survived() {
    require_root!();
    for mode in ["native", "generic"] {
        let wire = wire(4);
        wire.run(|| {
            let mut bench = Bench::open(&format!("xdp:fy0?{mode}"), 16384).expect("as root");
            let injector = Injector::open("fy1").expect("as root");
            for round in 0..3 {
                injector.send(&frames(200, 32, |_| 100)).expect("sent");
                assert_eq!(bench.collect(200, QUIET).len(), 200, "{mode}, round {round}");
                for end in ["fy0", "fy1"] {
                    wire.command(&format!("ip link set {end} down")).expect("as root");
                    assert!(bench.collect(1, Duration::from_millis(150)).is_empty());
                    wire.command(&format!("ip link set {end} up")).expect("as root");
                    assert!(bench.collect(1, Duration::from_millis(150)).is_empty());
                }
            }
            let counters = bench.close();
            assert_eq!(count(&counters.notes, "link-down"), 6, "{counters:?}");
            assert_eq!(counters.lost_total(), 0);
        });
    }
}

#[test]
fn new_queues_are_served() {
    require_root!();
    let wire = wire(4);
    wire.command("ethtool -L fy0 rx 2 tx 2").expect("veth has channels");
    wire.command("ethtool -L fy1 rx 2 tx 2").expect("veth has channels");
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0?native", 32768).expect("as root");
        assert!(bench.port.info().mode.starts_with("2 queues"), "{}", bench.port.info().mode);
        wire.command("ethtool -L fy0 rx 4 tx 4").expect("more queues may come");
        wire.command("ethtool -L fy1 rx 4 tx 4").expect("more queues may come");
        bench.collect(1, Duration::from_millis(300));
        assert!(bench.port.info().mode.starts_with("4 queues"), "{}", bench.port.info().mode);
        let sent = frames(1000, 64, |_| 100);
        Injector::open("fy1").expect("as root").send(&sent).expect("sent");
        let packets = bench.collect(1000, QUIET);
        assert_same(&sent, &packets);
        assert_eq!(packets.iter().map(|p| p.queue).collect::<std::collections::BTreeSet<_>>().len(), 4);
        // The kernel does not take a queue away under a socket.
        let refused = wire.command("ethtool -L fy0 rx 2 tx 2");
        println!("taking queues away: {refused:?}");
        let counters = bench.close();
        assert_eq!((count(&counters.notes, "queues-added"), counters.lost_total()), (2, 0), "{counters:?}");
    });
}

#[test]
fn a_deleted_interface_is_an_error_and_then_the_end() {
    require_root!();
    for mode in ["native", "generic"] {
        let wire = wire(2);
        wire.run(|| {
            let mut bench = Bench::open(&format!("xdp:fy0?promisc&{mode}"), 4096).expect("as root");
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
            assert_eq!(bench.receive(&mut packets).expect("the end is no error"), Progress::Ended);
            bench.close();
        });
    }
}

#[test]
fn somebody_elses_program_is_told_with_the_way_out() {
    require_root!();
    let wire = wire(1);
    let object = concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/redirect.bpf.o");
    for (attach, word) in [("xdpdrv", "xdpdrv"), ("xdpgeneric", "xdpgeneric")] {
        wire.command(&format!("ip link set dev fy0 {attach} object {object} section xdp")).expect("iproute2 loads it");
        wire.run(|| {
            let error = Bench::open("xdp:fy0", 4096).map(|_| ()).expect_err("a program is there").to_string();
            assert!(error.contains("flowyard_xdp") && error.contains("XDP program"), "{error}");
            assert!(error.contains(&format!("ip link set dev fy0 {word} off")), "{error}");
        });
        wire.command(&format!("ip link set dev fy0 {word} off")).expect("the way out works");
        wire.run(|| Bench::open("xdp:fy0", 4096).map(Bench::close).expect("nothing is in the way"));
    }
}

#[test]
fn without_privileges_the_missing_ones_are_named() {
    require_root!();
    let wire = wire(1);
    let output = wire.run(|| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(std::env::current_exe().expect("this test"));
        command.args(["--exact", "child_without_privileges", "--ignored", "--nocapture"]);
        command.output().expect("setpriv is there")
    });
    let said = String::from_utf8_lossy(&output.stdout);
    for word in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "packet:", "sudo"] {
        assert!(said.contains(word), "{word} is missing in: {said} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
#[ignore = "the child of without_privileges_the_missing_ones_are_named"]
fn child_without_privileges() {
    for name in ["xdp:fy0", "packet:fy0"] {
        if let Err(error) = Bench::open(name, 4096) {
            println!("{error}");
        }
    }
}

#[test]
fn bad_names_and_options_say_what_to_write() {
    for (name, expect) in [
        ("xdp:nosuch0", "there is no interface"),
        ("xdp:lo/7", "queues 0 to 0"),
        ("xdp:lo?native&generic", "both native and generic"),
        ("xdp:lo?zerocopy&generic", "zerocopy in generic"),
        ("xdp:lo?ring=100", "power of two"),
        ("xdp:lo?copy=1", "takes no value"),
        ("xdp:lo?rign=64", "options are"),
    ] {
        let error = openers(name, 1).map(|_| ()).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    }
}

#[test]
fn descriptors_wake_a_sleeping_receiver() {
    require_root!();
    let wire = wire(2);
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0", 8192).expect("as root");
        assert!(matches!(bench.receive(&mut Vec::new()).expect("alive"), Progress::Idle { wait_ns: Some(_) }));
        let slept = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                Injector::open("fy1").expect("as root").send(&frames(1, 1, |_| 100)).expect("sent");
            });
            let fds = bench.port.fds();
            let mut polled: Vec<_> =
                fds.iter().map(|fd| rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)).collect();
            let since = Instant::now();
            let wait = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut polled, Some(&wait)).expect("poll"), 1);
            since.elapsed()
        });
        assert!((Duration::from_millis(90)..Duration::from_secs(2)).contains(&slept), "{slept:?}");
        assert_eq!(bench.collect(1, QUIET).len(), 1);
    });
}

#[test]
fn a_program_taken_off_meanwhile_is_an_error() {
    require_root!();
    let wire = wire(1);
    wire.run(|| {
        let mut bench = Bench::open("xdp:fy0", 4096).expect("as root");
        let Ok(links) = wire.command("bpftool link list") else {
            flowyard_testkit::net::skipped(module_path!(), line!(), "needs bpftool");
            return;
        };
        let ours = links.lines().rfind(|l| l.contains("xdp")).and_then(|l| l.split(':').next()).expect("a link");
        wire.command(&format!("bpftool link detach id {ours}")).expect("as root");
        let deadline = Instant::now() + Duration::from_secs(2);
        let error = loop {
            match bench.receive(&mut Vec::new()) {
                Err(error) => break error.to_string(),
                Ok(_) => assert!(Instant::now() < deadline, "it goes unnoticed"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(error.contains("no longer on fy0"), "{error}");
    });
}

#[test]
fn an_interface_that_is_down_is_opened_and_works_once_it_is_up() {
    require_root!();
    for mode in ["native", "generic"] {
        let wire = wire(2);
        wire.command("ip link set fy0 down").expect("as root");
        wire.run(|| {
            let mut bench = Bench::open(&format!("xdp:fy0?{mode}"), 8192).expect("down is no error");
            wire.command("ip link set fy0 up").expect("as root");
            std::thread::sleep(Duration::from_millis(50));
            Injector::open("fy1").expect("as root").send(&frames(100, 16, |_| 100)).expect("sent");
            assert_eq!(bench.collect(100, QUIET).len(), 100, "{mode}");
        });
    }
}

#[test]
fn a_driver_without_xdp_is_served_by_the_stack_and_the_mode_says_why() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.run(|| {
        let mut bench = Bench::open("xdp:lo", 4096).expect("as root");
        let mode = bench.port.info().mode.clone();
        assert!(mode.starts_with("1 queue, generic (native: ") && mode.contains("copy"), "{mode}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback is up");
        socket.send_to(b"over loopback", "127.0.0.1:9").expect("loopback is up");
        let packets = bench.collect(1, QUIET);
        assert!(packets.len() == 1 && packets[0].bytes.ends_with(b"over loopback"));
        let error = Bench::open("xdp:lo?native", 64).map(|_| ()).expect_err("loopback has no XDP").to_string();
        assert!(error.contains("XDP program"), "{error}");
        let since = Instant::now();
        bench.close();
        assert!(since.elapsed() < Duration::from_secs(1), "closing took {:?}", since.elapsed());
        let error = Bench::open("xdp:lo?native", 64).map(|_| ()).expect_err("loopback has no XDP").to_string();
        assert!(error.contains("leave out zerocopy or native"), "{error}");
    });
}

/// What `ip` says of an interface of this thread's namespace.
fn shown(name: &str) -> String {
    let shown = std::process::Command::new("ip").args(["-d", "link", "show", name]).output().expect("ip runs");
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[test]
fn keeps_what_every_port_promises() {
    require_root!();
    for (name, mtu) in [("xdp:fy0?native&ring=256", 1500), ("xdp:fy0?generic&ring=256", 9000), ("xdp:fy0/1", 1500)] {
        if !takes(mtu) {
            continue;
        }
        let wire = Namespace::new().expect("as root");
        wire.veth(&Veth { queues: 2, mtu, ..Veth::default() }).expect("as root");
        wire.run(|| {
            let sent = frames(600, 64, |n| 60 + (n as usize * 37) % (mtu as usize - 46));
            let mut make = || {
                let (opener, sent) = (openers(name, 1).expect("as root").remove(0), sent.clone());
                std::thread::spawn(move || {
                    let injector = Injector::open("fy1").expect("as root");
                    let (before, after) = sent.split_at(20);
                    injector.send(before).expect("sent");
                    // Most once the program is there, however long opening takes: seconds on an emulated machine.
                    let deadline = Instant::now() + Duration::from_secs(10);
                    while !shown("fy0").contains("prog/xdp") && Instant::now() < deadline {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    for some in after.chunks(20) {
                        injector.send(some).expect("sent");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
                opener
            };
            let expected = Expectation { repeatable: false, silence: QUIET, ..Expectation::default() };
            let seen = port_conformance(&mut make, expected);
            assert!(seen.packets > 0 && (seen.most_segments > 1) == (mtu > 1500), "{name}: {seen:?}");
        });
    }
}
