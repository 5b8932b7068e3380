//! Live traffic that the kernel steers: on every ring what user space would put there, to the packet; and what is
//! lost is lost by name.

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::wire::*;
use common::*;
use flowyard::kernel::UserSlot;
use flowyard::mem::Wait;
use flowyard::steer::{FlowHash, Policy, SYMMETRIC_KEY, ToeplitzKey};
use flowyard::{Group, Report, RingReader, Stage, Yard, YardConfig};
use flowyard_testkit::net::{Injector, number_of, numbered_frame, skipped};
use flowyard_testkit::require_root;

/// Two ports, by which the two directions of conversations come.
const TWO: Case = Case { second: Some("xdp:fy2"), ..CASE };

/// Queues and rings: all that matters between one of each and four times sixteen.
const SHAPES: [(u32, u16); 11] =
    [(1, 1), (1, 4), (1, 16), (2, 1), (2, 4), (2, 16), (4, 1), (4, 2), (4, 4), (4, 8), (4, 16)];

#[test]
fn what_the_kernel_cannot_do_is_refused_with_the_reason() {
    let kernel = || YardConfig { kernel: true, ..YardConfig::default() };
    let refusal = |config: &YardConfig, ports: &[&str]| {
        Yard::open(config, &specs(ports)).map(drop).expect_err("it is refused").to_string()
    };
    for (config, ports, says) in [
        (kernel(), ["gen:mix"].as_slice(), "use xdp:IF"),
        (kernel(), &["xdp:lo", "xdp:lo/0?generic"], "two ports on the interface lo: name it once"),
        (YardConfig { groups: vec![Group::new("ids", 2)], ..kernel() }, &["xdp:lo"], "2 groups of rings: leave it out"),
        (YardConfig { host: Some("tap0".into()), ..kernel() }, &["xdp:lo"], "tap0"),
    ] {
        let refusal = refusal(&config, ports);
        assert!(refusal.contains(says) && refusal.contains("kernel"), "{refusal}");
    }
    require_root!();
    let _alone = alone();
    let namespace = CASE.namespace();
    let toeplitz = FlowHash::Toeplitz(ToeplitzKey::new(&SYMMETRIC_KEY).expect("a key"));
    for (config, says) in [
        (YardConfig { hash: toeplitz, ..kernel() }, "Toeplitz"),
        (YardConfig { policy: Policy { key_vlan: true, ..Policy::default() }, ..kernel() }, "policy.key_vlan"),
        (YardConfig { buffers: Some(3000), ..kernel() }, "more than 3136, 2624 for the kernel's rings and 512"),
    ] {
        let refusal = namespace.run(|| refusal(&config, &["xdp:fy0"]));
        assert!(refusal.contains(says), "{refusal}");
    }
    let enough = YardConfig { buffers: Some(3137), ..kernel() };
    namespace.run(|| Yard::open(&enough, &specs(&["xdp:fy0"])).map(drop)).expect("so many are enough");

    // Of several ports: all are xdp:, and the stock is enough for the queues of all of them, however they are shared out.
    let namespace = TWO.namespace();
    let few = YardConfig { buffers: Some(5760), ..kernel() };
    for (config, ports, says) in [
        (&kernel(), ["xdp:fy0", "packet:fy2"], "\"packet:fy2\": cannot be steered in the kernel; use xdp:IF"),
        (&few, ["xdp:fy0", "xdp:fy2"], "more than 5760, 5248 for the kernel's rings and 512"),
    ] {
        let refusal = namespace.run(|| refusal(config, &ports));
        assert!(refusal.contains(says), "{refusal}");
    }
    let ports = specs(&["xdp:fy0", "xdp:fy2?ring=64"]);
    for (dispatchers, buffers) in [(1, 2624 + 384 + 512 + 1), (2, 2624 + 384 + 1024 + 2)] {
        let enough = YardConfig { dispatchers, buffers: Some(buffers), ..kernel() };
        namespace.run(|| Yard::open(&enough, &ports).map(drop)).expect("so many are enough");
    }
}

/// Every shape on one place: conversations whole, sums to the packet, and tags those of user space.
fn every_shape(port: &'static str, mtu: u32, frames: &[Vec<u8>]) {
    let mut user = HashMap::new();
    for (queues, rings) in SHAPES {
        let case = Case { port, queues, rings, mtu, ..CASE };
        let user = user.entry(rings).or_insert_with(|| in_user_space(case, frames));
        check_kernel(case, frames, user);
    }
}

/// The mix, and frames of up to three buffers.
fn long_frames() -> Vec<Vec<u8>> {
    let long = (0..1000u64).map(|n| numbered_frame(n as u16 % 250, n, 60 + n as usize * 149 % 8955));
    frames().into_iter().take(2000).chain(long).collect()
}

#[test]
fn in_the_driver() {
    require_root!();
    every_shape("xdp:fy0?native", 1500, &frames());
}

#[test]
fn in_the_driver_that_is_asked_what_it_knows() {
    require_root!();
    every_shape("xdp:fy0?native&metadata", 1500, &frames());
}

#[test]
fn in_the_stack() {
    require_root!();
    every_shape("xdp:fy0?generic", 1500, &frames());
}

#[test]
fn in_the_driver_frames_of_several_buffers() {
    require_root!();
    every_shape("xdp:fy0?native", 9000, &long_frames());
}

#[test]
fn in_the_stack_frames_of_several_buffers() {
    require_root!();
    every_shape("xdp:fy0?generic", 9000, &long_frames());
}

/// The two directions of each conversation by an interface of its own, fragments of one datagram by both, errors by
/// the other than what they quote: as if all had come by one.
fn by_two_interfaces(port: &'static str, second: &'static str) {
    let frames = frames();
    let both = frames.iter().map(|frame| way_of(frame)).sum::<usize>();
    assert!(both > FRAMES / 4 && both < FRAMES * 3 / 4, "{both} of {FRAMES} by the second");
    for rings in [1, 4, 16] {
        let case = Case { port, second: Some(second), rings, ..CASE };
        let user = in_user_space(case, &frames);
        for (queues, dispatchers, relay) in [(1, 1, false), (2, 1, false), (2, 2, false), (2, 1, true), (1, 2, true)] {
            check_kernel(Case { queues, dispatchers, relay, ..case }, &frames, &user);
        }
    }
}

#[test]
fn by_two_interfaces_in_the_driver() {
    require_root!();
    by_two_interfaces("xdp:fy0?native", "xdp:fy2?native");
}

#[test]
fn by_two_interfaces_in_the_stack() {
    require_root!();
    by_two_interfaces("xdp:fy0?generic", "xdp:fy2?generic");
}

#[test]
fn by_two_interfaces_one_in_the_driver_and_one_in_the_stack() {
    require_root!();
    by_two_interfaces("xdp:fy0?native", "xdp:fy2?generic&ring=256");
}

/// One of two interfaces is deleted: that is told, and the other goes on.
#[test]
fn an_interface_that_goes_leaves_the_other_alone() {
    require_root!();
    let _alone = alone();
    let frames: Vec<Vec<u8>> = (0..CHUNK as u64).map(|n| numbered_frame(n as u16 % 64, n, 60)).collect();
    for relay in [false, true] {
        let case = Case { kernel: true, relay, ..TWO };
        let namespace = case.namespace();
        namespace.run(|| {
            let (yard, readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
            let consumers: Vec<_> =
                readers.into_iter().map(|reader| std::thread::spawn(move || consume(reader, case.rings))).collect();
            let running = yard.start().expect("threads");
            let wait = |count: usize| {
                let deadline = Instant::now() + PATIENCE;
                while running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>() < count as u64 {
                    assert!(Instant::now() < deadline, "{count} frames arrive");
                    std::thread::yield_now();
                }
            };
            let wire = Wire::of(case);
            wire.0.iter().for_each(|end| end.send(&frames).expect("the interface is up"));
            wait(2 * frames.len());
            namespace.command("ip link del fy2").expect("root may");
            std::thread::sleep(Duration::from_millis(300));
            wire.0[0].send(&frames).expect("the interface is up");
            wait(3 * frames.len());
            running.stop();
            let report = join(running);
            let got: usize = consumers.into_iter().map(|c| c.join().expect("no panic").0.len()).sum();
            assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
            assert!(
                matches!(&report.errors[..], [one] if one.contains("fy2") && one.contains("deleted")),
                "{report:?}"
            );
            let packets: Vec<u64> = report.ports.iter().map(|(_, counters)| counters.packets).collect();
            assert_eq!((got, &packets[..]), (3 * frames.len(), &[512, 256][..]), "{report:?}");
        });
    }
}

#[test]
fn shared_out_among_dispatchers_or_relayed_it_is_the_same() {
    require_root!();
    let frames = frames();
    let user = in_user_space(CASE, &frames);
    for port in ["xdp:fy0?native", "xdp:fy0?generic"] {
        for (queues, dispatchers, relay) in [(4, 2, false), (1, 1, true), (4, 2, true)] {
            check_kernel(Case { port, queues, dispatchers, relay, ..CASE }, &frames, &user);
        }
    }
}

/// Sends `frames` a few at a time, waiting for those that the other rings get. Answers the report.
fn with_a_ring_that(
    case: Case,
    frames: &[Vec<u8>],
    treat: impl FnOnce(RingReader) -> Option<RingReader> + Send,
) -> (Report, Vec<u64>) {
    let rings = sorted(frames, RINGS);
    let (arrived, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (arrived, done) = (&arrived, &done);
    case.namespace().run(|| {
        let (yard, mut readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
        let first = treat(readers.remove(0));
        let running = yard.start().expect("threads");
        std::thread::scope(|scope| {
            let consumers: Vec<_> = readers
                .into_iter()
                .map(|mut reader| {
                    scope.spawn(move || {
                        let mut seen = 0;
                        while reader.wait(None) != Wait::Ended {
                            while reader.next().is_some() {
                                seen += 1;
                                arrived.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        seen
                    })
                })
                .collect();
            let injector = Injector::open("fy1").expect("root may");
            let mut expected = 0;
            for (chunk, rings) in frames.chunks(CHUNK).zip(rings.chunks(CHUNK)) {
                injector.send(chunk).expect("the interface is up");
                expected += rings.iter().filter(|ring| **ring != 0).count() as u64;
                let deadline = Instant::now() + PATIENCE;
                while arrived.load(Ordering::Relaxed) < expected {
                    assert!(Instant::now() < deadline, "{arrived:?} of {expected} arrived");
                    std::thread::yield_now();
                }
            }
            running.stop();
            let report = join(running);
            done.store(true, Ordering::Relaxed);
            drop(first);
            (report, consumers.into_iter().map(|c| c.join().expect("no panic")).collect())
        })
    })
}

/// A ring that nobody empties loses its own packets and no others.
#[test]
fn a_ring_that_stands_still_leaves_the_others_alone() {
    require_root!();
    let _alone = alone();
    let frames: Vec<Vec<u8>> = (0..20_000).map(|n| numbered_frame(n as u16 % 64, n, 60)).collect();
    let of_first = sorted(&frames, RINGS).iter().filter(|ring| **ring == 0).count() as u64;
    for relay in [false, true] {
        let case = Case { kernel: true, relay, ..CASE };
        let (report, got) = with_a_ring_that(case, &frames, Some);
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert_eq!(report.received() + report.lost_before(), frames.len() as u64, "{report:?}");
        assert_eq!(got.iter().sum::<u64>() + of_first, frames.len() as u64, "{report:?}");
        assert!(report.rings[1..].iter().all(|ring| ring.dropped_total() == 0), "{report:?}");
        // Whether it is the kernel's ring that is full, or the yard's: all but what these hold is lost.
        let lost = |name| report.ports[0].1.lost.iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| *count);
        assert_eq!(lost("unaccounted") + lost("no-buffer"), 0, "{report:?}");
        assert!(lost("ring-full") + report.rings[0].dropped_total() > 1000, "{report:?}");
    }
}

/// What comes for a reader that is gone is counted as that, and buffers go on to be used.
#[test]
fn a_reader_that_goes_is_named() {
    require_root!();
    let _alone = alone();
    let frames: Vec<Vec<u8>> = (0..20_000).map(|n| numbered_frame(n as u16 % 64, n, 60)).collect();
    let of_first = sorted(&frames, RINGS).iter().filter(|ring| **ring == 0).count() as u64;
    let (report, got) = with_a_ring_that(Case { kernel: true, ..CASE }, &frames, |_gone| None);
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.received() + report.lost_before(), report.buffers_missing), (frames.len() as u64, 0));
    assert_eq!(got.iter().sum::<u64>() + of_first, frames.len() as u64, "{report:?}");
    assert!(dropped(&report, flowyard::Drop::ConsumerGone) > 1000, "{report:?}");
}

/// A packet that a reader still holds when the yard ends stays as it is, and is told as missing.
#[test]
fn what_a_reader_holds_at_the_end_stays_its_own() {
    require_root!();
    let _alone = alone();
    let case = Case { kernel: true, rings: 1, ..CASE };
    case.namespace().run(|| {
        let (yard, mut readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
        let running = yard.start().expect("threads");
        let frames: Vec<Vec<u8>> = (0..10).map(|n| numbered_frame(1, n, 60)).collect();
        Injector::open("fy1").expect("root may").send(&frames).expect("the interface is up");
        let reader = &mut readers[0];
        assert_eq!(reader.wait(Some(PATIENCE)), Wait::Ready);
        let packet = reader.next().expect("it is ready");
        let before = (packet.data().to_vec(), packet.tag());
        running.stop();
        let report = join(running);
        assert!(report.sums_agree() && report.buffers_missing > 0, "{report:?}");
        assert_eq!(report.received() + report.lost_before(), 10, "{report:?}");
        assert_eq!((packet.data().to_vec(), packet.tag()), before);
        assert_eq!(number_of(packet.data()), Some(0));
    });
}

#[test]
fn what_is_read_from_the_kernel_cannot_be_passed_on() {
    require_root!();
    let _alone = alone();
    let case = Case { kernel: true, ..CASE };
    case.namespace().run(|| {
        let (yard, mut readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
        let refusal = Stage::new(readers.remove(0), 64).map(drop).expect_err("it is refused").to_string();
        assert!(refusal.contains("YardConfig::relay"), "{refusal}");
        drop(yard);
        let relayed = Case { relay: true, ..case };
        let (_yard, mut readers) = Yard::open(&relayed.config(), &relayed.specs()).expect("root may");
        Stage::new(readers.remove(0), 64).expect("what is relayed can");
    });
}

#[test]
fn a_flood_is_lost_by_name_alone_and_ends_within_a_second() {
    require_root!();
    let _alone = alone();
    let frames = frames();
    for (relay, second) in [(false, None), (true, None), (false, TWO.second), (true, TWO.second)] {
        let queues = if second.is_some() { 2 } else { 4 };
        let case = Case { queues, kernel: true, relay, second, ..CASE };
        let namespace = case.namespace();
        let before = state(&namespace);
        // On a machine that does other things as well, one of three will do.
        assert!((0..3).any(|_| namespace.run(|| flood(case, &frames)).as_secs() < 1), "relay: {relay}, {second:?}");
        assert_same_state(&before, &state(&namespace));
    }
}

/// The object of a user's program for the slot behind steering, of which only the body is told. `None`, and a word
/// about it, without clang.
fn user_program(dir: &Path, name: &str, body: &str) -> Option<Vec<u8>> {
    let (source, object) = (dir.join(format!("{name}.bpf.c")), dir.join(format!("{name}.o")));
    let text = format!(
        "#include \"flowyard.bpf.h\"\n\
         static __always_inline int {name}(struct xdp_md *ctx) {{\n\
         struct flowyard_tag *tag = flowyard_tag(ctx);\n\
         if (!tag) return flowyard_verdict(ctx, XDP_ABORTED);\n\
         {body}\n\
         return flowyard_go_on(ctx, FLOWYARD_DELIVER); }}\n\
         FLOWYARD_PROGRAM({name})\n\
         char _license[] SEC(\"license\") = \"Dual MIT/GPL\";\n"
    );
    std::fs::write(&source, text).expect("written");
    let mut clang = Command::new("clang");
    clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-I"]);
    clang.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel/bpf"));
    clang.arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH));
    match clang.arg("-c").arg(source).arg("-o").arg(&object).status() {
        Ok(built) => assert!(built.success(), "{body}"),
        Err(_) => {
            skipped(module_path!(), line!(), "needs clang");
            return None;
        }
    }
    Some(std::fs::read(object).expect("an object"))
}

/// Swaps of the user's program while packets come.
const SWAPS: u64 = 10_000;
/// What the second of the two does to the hash.
const MARK: u32 = 0x5a5a_5a5a;

/// Two programs change places 10,000 times in a yard at work: every packet sent arrives, by exactly one of them, on
/// the ring that this one says.
fn programs_change_places(case: Case) {
    let _alone = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let moved = format!(
        "tag->user = 2; flowyard_set_hash(tag, tag->hash ^ {MARK}u); flowyard_to_ring(tag, (tag->ring + 1) % {RINGS});"
    );
    let Some(first) = user_program(dir.path(), "first", "tag->user = 1;") else { return };
    let Some(second) = user_program(dir.path(), "second", &moved) else { return };
    let frames: Vec<Vec<u8>> = (0..CHUNK as u64).map(|n| numbered_frame(n as u16, n, 60)).collect();
    let expected = judged_by_policy(&frames, RINGS);
    let (arrived, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let seen = [AtomicU64::new(0), AtomicU64::new(0)];
    let sent = case.namespace().run(|| {
        let (yard, readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
        let running = yard.start().expect("threads");
        let kernel = running.kernel().expect("it steers").clone();
        let lock = || kernel.lock().expect("nobody panicked");
        let one = lock().prepare("first", &first).expect("the verifier agrees");
        let mut next = lock().prepare("second", &second).expect("the verifier agrees");
        assert!(lock().install(UserSlot::After, one).expect("it is installed").is_none());
        let swapping = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for mut reader in readers {
                let (arrived, wrong, seen, expected) = (&arrived, &wrong, &seen, &expected);
                let ring_number = reader.ring();
                scope.spawn(move || {
                    while reader.wait(None) != Wait::Ended {
                        while let Some(packet) = reader.next() {
                            let tag = packet.tag();
                            let number = number_of(packet.data()).expect("one of ours") as usize;
                            let (ring, hash) = expected[number];
                            let right = match tag.user {
                                1 => (tag.ring, tag.hash) == (ring, hash),
                                2 => (tag.ring, tag.hash) == ((ring + 1) % RINGS, hash ^ MARK),
                                _ => false,
                            };
                            wrong.fetch_add(u64::from(!right || ring_number != tag.ring), Ordering::Relaxed);
                            seen[usize::from(tag.user == 2)].fetch_add(1, Ordering::Relaxed);
                            arrived.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            let swapper = scope.spawn(|| {
                for _ in 0..SWAPS {
                    next = lock().install(UserSlot::After, next).expect("it is installed").expect("never empty");
                }
                swapping.store(false, Ordering::Relaxed);
            });
            let wire = Wire::of(case);
            let (mut sent, deadline) = (0, Instant::now() + PATIENCE);
            while swapping.load(Ordering::Relaxed) {
                for end in &wire.0 {
                    end.send(&frames).expect("the interface is up");
                    sent += frames.len() as u64;
                }
                while arrived.load(Ordering::Relaxed) < sent {
                    assert!(Instant::now() < deadline, "{arrived:?} of {sent} arrived");
                    std::thread::yield_now();
                }
            }
            swapper.join().expect("no panic");
            running.stop();
            let report = join(running);
            assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
            assert_eq!((report.received(), report.lost_before(), report.dropped()), (sent, 0, 0), "{report:?}");
            for (_, counters) in &report.ports {
                let note = |name: &str| counters.notes.iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| *n);
                assert_eq!((note("passed-to-host"), note("ended-in-users-program")), (0, 0), "{report:?}");
                assert_eq!(counters.packets, sent / wire.0.len() as u64, "each has its own");
            }
            sent
        })
    });
    let [first, second] = seen.map(AtomicU64::into_inner);
    println!("{SWAPS} swaps while {sent} packets came: {first} by the first program, {second} by the second");
    assert_eq!((wrong.into_inner(), first + second), (0, sent));
    assert!(first > 0 && second > 0);
}

#[test]
fn programs_change_places_while_packets_come() {
    require_root!();
    programs_change_places(Case { kernel: true, ..CASE });
}

#[test]
fn programs_change_places_on_two_interfaces_while_packets_come() {
    require_root!();
    programs_change_places(Case { kernel: true, port: "xdp:fy0?native", second: Some("xdp:fy2?generic"), ..CASE });
}

/// More sockets than files that may be open are refused before memory is taken.
#[test]
fn more_sockets_than_files_are_refused() {
    require_root!();
    let _alone = alone();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let case = Case { queues: 8, ..CASE };
    if limit.is_none_or(|limit| limit > 36_000) {
        return skipped(module_path!(), line!(), "needs a limit of open files below 36,000");
    }
    let config = YardConfig { rings: 4096, kernel: true, ..YardConfig::default() };
    let open = || Yard::open(&config, &specs(&["xdp:fy0"])).map(drop).expect_err("refused").to_string();
    let refusal = case.namespace().run(open);
    assert!(refusal.contains("40968 open files") && refusal.contains("ulimit -n"), "{refusal}");
    // One alone would do.
    if let Some(limit) = limit {
        let config = YardConfig { rings: (limit / 12) as u16, ..config };
        let open = || Yard::open(&config, &specs(&["xdp:fy0", "xdp:fy2"])).map(drop).expect_err("refused").to_string();
        let refusal = Case { queues: 8, ..TWO }.namespace().run(open);
        assert!(refusal.contains("xdp:fy2") && refusal.contains("of the ports before it"), "{refusal}");
    }
}

/// Memory for very many rings is asked for in measure, and refused by name where there is not that much.
#[test]
fn very_many_rings_take_what_they_need() {
    require_root!();
    let _alone = alone();
    CASE.namespace().run(|| {
        let config = YardConfig { rings: 512, kernel: true, ..YardConfig::default() };
        let (yard, _readers) = Yard::open(&config, &specs(&["xdp:fy0"])).expect("root may");
        assert!(yard.region().geometry().file_bytes() < 512 << 20, "{}", yard.region());
        drop(yard);
        // 30 GiB: where there are more, there is nothing to refuse.
        let memory = std::fs::read_to_string("/proc/meminfo").expect("it is there");
        let free = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB"));
        if free.and_then(|kib| kib.trim().parse::<u64>().ok()).is_none_or(|kib| kib > 30 << 20) {
            return skipped(module_path!(), line!(), "needs a machine with less than 30 GiB of free memory");
        }
        let huge = YardConfig { rings: 120, ring_slots: 1 << 17, relay: true, ..config };
        let refusal = Yard::open(&huge, &specs(&["xdp:fy0"])).map(drop).expect_err("refused").to_string();
        assert!(refusal.contains("memory") && refusal.contains("ring"), "{refusal}");
    });
}
