//! Received = delivered + every named drop, whatever consumers do; and no buffer is missing.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use flowyard::mem::{Wait, slot_flags};
use flowyard::port::traffic::MixOptions;
use flowyard::{Drop, Group, RingReader, Running, Yard, YardConfig};

fn rings(rings: u16) -> YardConfig {
    YardConfig { rings, ..YardConfig::default() }
}

#[test]
fn generated_traffic_over_one_three_and_many_rings() {
    for count in [1, 3, 64] {
        let (report, seen) = run(&rings(count), &["gen:mix?packets=20000"]);
        assert_lossless(&report, &seen, 20_000);
        assert!(seen.iter().all(|s| s.packets > 0), "{count} rings, all with something");
    }
}

#[test]
fn several_ports_and_dispatchers_come_to_every_ring_as_one() {
    for dispatchers in [1, 2, 3] {
        let config = YardConfig { dispatchers, ..rings(3) };
        let (report, seen) = run(&config, &["gen:mix?packets=5000", "gen:vxlan?packets=4000", "gen:gtp?packets=3000"]);
        assert_lossless(&report, &seen, 12_000);
        assert_eq!(report.ports.iter().map(|(_, c)| c.packets).collect::<Vec<_>>(), [5000, 4000, 3000]);
        for (port, packets) in [5000, 4000, 3000].into_iter().enumerate() {
            let of_port = seen.iter().flat_map(|s| &s.tags).filter(|tag| usize::from(tag.port) == port).count();
            assert_eq!(of_port, packets, "port {port} by the tags");
        }
    }
}

#[test]
fn captures_with_packets_of_many_buffers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mixed.pcapng");
    let frames = of_many_buffers(3000);
    write_capture(&path, &frames);
    let bytes: usize = frames.iter().map(|(f, _)| f.len()).sum();
    for (config, times) in [(rings(4), 1), (YardConfig { annotation_bytes: 256, ..rings(2) }, 3)] {
        let (report, seen) = run(&config, &[&format!("{}?times={times}", pcap(&path))]);
        assert_lossless(&report, &seen, 3000 * times);
        assert_eq!(seen.iter().map(|s| s.bytes).sum::<u64>(), bytes as u64 * times);
    }
    // Rings too short for some packets: those are named.
    let (report, seen) = run(&YardConfig { ring_slots: 4, ..rings(4) }, &[&pcap(&path)]);
    assert_whole(&report, &seen);
    let long = frames.iter().filter(|(f, _)| f.len() > 4 * 1728).count() as u64;
    assert_eq!((dropped(&report, Drop::TooLong), report.delivered()), (long, 3000 - long));
}

#[test]
fn segments_arrive_in_order_and_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("long.pcapng");
    let frames: Vec<_> = (0..200u64).map(|n| (vec![n as u8; 64 + 97 * n as usize], n)).collect();
    write_capture(&path, &frames);
    let config = YardConfig { ring_slots: 16, ..rings(1) };
    let opened = Yard::open(&config, &[spec(&pcap(&path))]).expect("it was just written");
    let (report, counts) = run_with(opened, |mut reader| {
        let mut next = 0;
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let bytes: Vec<u8> = packet.segments().flatten().copied().collect();
                assert_eq!((&bytes, packet.tag().time_ns), (&frames[next].0, next as u64));
                assert_eq!(packet.is_segmented(), packet.slot().flags & slot_flags::MORE != 0);
                next += 1;
            }
        }
        next
    });
    assert_eq!((counts, report.delivered(), report.buffers_missing), (vec![200], 200, 0));
}

#[test]
fn weights_share_conversations_out() {
    let config = YardConfig { weights: Some(vec![1, 0, 3]), ..rings(3) };
    let (report, seen) = run(&config, &["gen:mix?packets=20000&flows=4000"]);
    assert_lossless(&report, &seen, 20_000);
    let [one, none, three] = [0, 1, 2].map(|ring| seen[ring].packets);
    assert!(none == 0 && one > 2500 && three > 2 * one, "{one} {none} {three}");
}

#[test]
fn sources_that_can_wait_lose_nothing_on_the_smallest_rings() {
    for (ring_slots, dispatchers) in [(2, 1), (8, 1), (2, 2), (8, 2)] {
        let config = YardConfig { ring_slots, dispatchers, ..rings(4) };
        let (report, seen) = run(&config, &["gen:mix?packets=5000", "gen:mix?packets=5000&seed=2"]);
        assert_lossless(&report, &seen, 10_000);
    }
}

/// Whether there is room for them at once, for some of them, or they wait: packets come to a ring in one order.
#[test]
fn what_a_ring_gets_and_in_which_order_is_no_matter_of_its_size() {
    let port = "gen:mix?packets=4000";
    for groups in [vec![], vec![Group::new("second", 2)]] {
        let config = YardConfig { groups, ..rings(3) };
        let (report, roomy) = run(&config, &[port]);
        assert!(report.sums_agree() && report.dropped() == 0, "{report:?}");
        for ring_slots in [2, 4, 32] {
            // Of a source that cannot wait, so that more comes while packets wait.
            let small = YardConfig { ring_slots, buffers: Some(8192), ..config.clone() };
            let opened = Yard::open_over(&small, Impatient::over(port)).expect("memory");
            let (report, seen) = run_with(opened, |mut reader| {
                let mut seen = Seen::default();
                while reader.wait(None) != Wait::Ended {
                    while let Some(packet) = reader.next() {
                        seen.see(&packet);
                        if seen.packets % 256 == 0 {
                            std::thread::sleep(Duration::from_millis(1)); // its ring fills, its packets wait
                        }
                    }
                }
                seen
            });
            assert!(report.sums_agree() && report.dropped() == 0, "{report:?}");
            assert_eq!((report.violations, report.buffers_missing, seen.len()), (0, 0, roomy.len()));
            for (ring, (seen, roomy)) in seen.iter().zip(&roomy).enumerate() {
                assert!(seen == roomy, "ring {ring} of {ring_slots} slots");
            }
        }
    }
}

#[test]
fn sources_that_can_wait_lose_nothing_of_the_smallest_stock() {
    for (buffers, dispatchers) in [(2, 1), (16, 1), (100, 1), (129, 1), (40, 2)] {
        let config = YardConfig { buffers: Some(buffers), dispatchers, ..rings(4) };
        let (report, seen) = run(&config, &["gen:mix?packets=3000", "gen:vxlan?packets=3000"]);
        assert_lossless(&report, &seen, 6000);
    }
}

#[test]
fn a_slow_consumer_only_slows_a_source_that_can_wait() {
    let config = YardConfig { ring_slots: 16, ..rings(3) };
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=3000"])).expect("memory");
    let (report, seen) = run_with(opened, |mut reader| {
        let slow = reader.ring() == 1;
        let mut seen = Seen::default();
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                seen.see(&packet);
                if slow && seen.packets % 16 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
        seen
    });
    assert_lossless(&report, &seen, 3000);
}

/// Reads nothing until told; then everything.
fn stalled(reader: RingReader, go_on: &AtomicBool) -> Seen {
    while !go_on.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    take_all(reader)
}

#[test]
fn a_stalled_consumer_loses_only_its_own_packets() {
    // Enough to spare for the other rings, too little for all that the stalled one does not take.
    let config = YardConfig { ring_slots: 64, buffers: Some(1600), ..rings(4) };
    let opened = Yard::open_over(&config, Impatient::over("gen:mix?packets=10000&rate=10000")).expect("memory");
    let go_on = AtomicBool::new(false);
    let (yard, readers) = opened;
    let (report, seen) = std::thread::scope(|scope| {
        let consumers: Vec<_> = readers
            .into_iter()
            .map(|r| scope.spawn(|| if r.ring() == 2 { stalled(r, &go_on) } else { take_all(r) }))
            .collect();
        let running = yard.start().expect("a thread");
        let deadline = Instant::now() + PATIENCE;
        while running.live()[0].received.load(Ordering::Relaxed) < 10_000 {
            assert!(Instant::now() < deadline, "a source that cannot wait is held up");
            std::thread::sleep(Duration::from_millis(1));
        }
        go_on.store(true, Ordering::Relaxed);
        let report = join(running);
        (report, consumers.into_iter().map(|c| c.join().expect("no panic")).collect::<Vec<_>>())
    });
    assert_whole(&report, &seen);
    assert_eq!(report.received(), 10_000);
    let full: Vec<u64> = report.rings.iter().map(|r| r.dropped[Drop::RingFull as usize]).collect();
    assert!(full[2] > 500 && full[2] == report.dropped(), "{full:?}");
}

#[test]
fn a_consumer_that_dies_takes_nothing_of_the_others() {
    let port = "gen:mix?packets=20000&rate=100000";
    let (_, undisturbed) = run(&rings(4), &[port]);
    let dies = |mut reader: RingReader| {
        if reader.ring() != 1 {
            return take_all(reader);
        }
        let mut seen = Seen::default();
        while seen.packets < 100 && reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next().filter(|_| seen.packets < 100) {
                seen.see(&packet);
            }
        }
        seen // and the reader is dropped
    };
    let small = YardConfig { ring_slots: 32, ..rings(4) };
    let patient = Yard::open(&small, &specs(&[port])).expect("memory");
    let impatient = Yard::open_over(&small, Impatient::over(port)).expect("memory");
    for opened in [patient, impatient] {
        let (report, seen) = run_with(opened, dies);
        assert!(report.sums_agree(), "{report:?}");
        assert_eq!((report.received(), report.violations, report.buffers_missing), (20_000, 0, 0));
        assert_eq!(dropped(&report, Drop::ConsumerGone), report.dropped());
        assert_eq!(report.rings[1].dropped_total() + report.rings[1].packets, undisturbed[1].packets);
        assert!(seen[1].packets == 100 && report.rings[1].dropped_total() > 0, "{report:?}");
        for ring in [0, 2, 3] {
            assert!(seen[ring] == undisturbed[ring], "ring {ring} got other packets than without the death");
        }
    }
}

#[test]
fn what_a_consumer_returned_before_it_died_is_no_violation() {
    // The dispatcher stands still while the consumer takes a whole ring, returns it, and dies.
    let (full, fill) = std::sync::mpsc::channel();
    let (die, died) = std::sync::mpsc::channel();
    let stand_still = move |packets| {
        if packets == 2048 {
            full.send(()).expect("the consumer waits");
            died.recv().expect("the consumer dies");
            std::thread::sleep(Duration::from_millis(120)); // longer than between looks at consumers
        }
    };
    let port = Impatient::held_up("gen:mix?packets=4096", Box::new(stand_still));
    let (yard, mut readers) = Yard::open_over(&rings(1), port).expect("memory");
    let mut reader = readers.remove(0);
    let consumer = std::thread::spawn(move || {
        fill.recv().expect("the dispatcher fills the ring");
        let mut taken = 0;
        while reader.next().is_some() {
            taken += 1;
        }
        drop(reader);
        die.send(()).expect("the dispatcher waits");
        taken
    });
    let report = join(yard.start().expect("a thread"));
    assert_eq!(consumer.join().expect("no panic"), 1024);
    assert!(report.sums_agree(), "{report:?}");
    assert_eq!((report.received(), report.violations, report.buffers_missing), (4096, 0, 0));
}

#[test]
fn all_consumers_gone_and_the_yard_still_ends() {
    let (yard, readers) = Yard::open(&rings(3), &specs(&["gen:mix?packets=50000"])).expect("memory");
    drop(readers);
    let report = join(yard.start().expect("a thread"));
    assert!(report.sums_agree() && report.received() == 50_000, "{report:?}");
    assert_eq!(report.buffers_missing, 0);
}

#[test]
fn a_reader_kept_after_the_end_keeps_no_buffer() {
    let (yard, readers) = Yard::open(&rings(2), &specs(&["gen:mix?packets=1000"])).expect("memory");
    let consume = |mut reader: RingReader| {
        while reader.wait(None) != Wait::Ended {
            while reader.next().is_some() {}
        }
        reader
    };
    let consumers: Vec<_> = readers.into_iter().map(|reader| std::thread::spawn(move || consume(reader))).collect();
    let running = yard.start().expect("a thread");
    let readers: Vec<_> = consumers.into_iter().map(|c| c.join().expect("no panic")).collect();
    let report = join(running);
    assert_eq!((report.delivered(), report.buffers_missing, readers.len()), (1000, 0, 2));
}

/// Starts, waits until the yard is stuck, stops it; answers how long that took.
fn stop_when_stuck(running: &Running) -> Duration {
    let deadline = Instant::now() + PATIENCE;
    let progress = || running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>();
    let mut before = (progress(), Instant::now());
    while before.1.elapsed() < Duration::from_millis(100) {
        assert!(Instant::now() < deadline, "nobody reads, and it never gets stuck");
        std::thread::sleep(Duration::from_millis(5));
        if progress() != before.0 {
            before = (progress(), Instant::now());
        }
    }
    let told = Instant::now();
    running.stop();
    while !running.is_finished() {
        assert!(Instant::now() < deadline, "it does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
    told.elapsed()
}

#[test]
fn a_full_yard_stops_within_a_second() {
    let mut fastest = Duration::MAX;
    for attempt in 0..3 {
        let config = YardConfig { ring_slots: 64, ..rings(4) };
        let (yard, readers) = Yard::open(&config, &specs(&["gen:mix?packets=10000000"])).expect("memory");
        let running = yard.start().expect("a thread");
        fastest = fastest.min(stop_when_stuck(&running));
        let report = running.join();
        assert!(report.sums_agree(), "{report:?}");
        // Rings hold what nobody took, and what waited behind them is named.
        assert!(dropped(&report, Drop::Shutdown) > 0 && dropped(&report, Drop::Shutdown) == report.dropped());
        assert_eq!(report.buffers_missing, report.delivered(), "attempt {attempt}: one buffer each is on a ring");
        drop(readers);
        if fastest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("three attempts took {fastest:?} and more");
}

#[test]
fn stopping_delivers_what_consumers_still_take() {
    let (yard, readers) = Yard::open(&rings(4), &specs(&["gen:mix?packets=1000000000"])).expect("memory");
    let (report, seen) = std::thread::scope(|scope| {
        let consumers: Vec<_> = readers.into_iter().map(|reader| scope.spawn(|| take_all(reader))).collect();
        let running = yard.start().expect("a thread");
        let deadline = Instant::now() + PATIENCE;
        while running.live()[0].delivered.load(Ordering::Relaxed) < 10_000 {
            assert!(Instant::now() < deadline, "packets flow");
            std::thread::sleep(Duration::from_millis(1));
        }
        running.stop();
        let live = running.live()[0].clone();
        let report = join(running);
        assert_eq!(live.received.load(Ordering::Relaxed), report.received());
        assert_eq!(live.delivered.load(Ordering::Relaxed), report.delivered());
        (report, consumers.into_iter().map(|c| c.join().expect("no panic")).collect::<Vec<_>>())
    });
    assert_whole(&report, &seen);
    assert!(report.received() >= 10_000);
}

#[test]
fn what_was_readable_of_a_damaged_capture_is_delivered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cut.pcapng");
    write_capture(&path, &generated(&MixOptions::default(), 1000));
    let whole = std::fs::metadata(&path).expect("just written").len();
    std::fs::File::options().write(true).open(&path).and_then(|f| f.set_len(whole * 2 / 3)).expect("cut");
    let (report, seen) = run(&rings(2), &[&pcap(&path)]);
    assert_eq!(report.errors.len(), 1, "{report:?}");
    let report = flowyard::Report { errors: Vec::new(), ..report };
    assert_whole(&report, &seen);
    assert!((500..1000).contains(&report.delivered()) && report.dropped() == 0, "{report:?}");
}
