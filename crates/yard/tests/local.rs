//! Workers that read their own rings: same rings, hashes and tags as the sorter alone gives, all sums exact, and nobody
//! hurt by one that panics, stops or never runs.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::*;
use flowyard::function::{Packet as Shown, Verdict, closure};
use flowyard::mem::Packet;
use flowyard::port::traffic::{Mix, MixOptions};
use flowyard::steer::{Classifier, Decision, FlowHash, Frame, LinkType, Policy, Table};
use flowyard::{Absent, Drop, Group, Report, Running, SharedFragments, Sorter, Work, Worker, Yard, YardConfig};

fn workers(workers: usize, rings: u16) -> YardConfig {
    YardConfig { rings, dispatchers: workers, ..YardConfig::default() }
}

/// Runs all workers to the end, each with what `see` makes of its packets; answers what was seen, by ring.
fn run_local(config: &YardConfig, ports: &[&str]) -> (Report, Vec<Seen>) {
    let (yard, workers) = Yard::open_local(config, &specs(ports)).unwrap_or_else(|e| panic!("{ports:?}: {e}"));
    see_all(yard, workers, config.rings, |_| ())
}

/// The same of a yard that is open; `meanwhile` has it while it runs.
fn see_all(yard: Yard, workers: Vec<Worker>, rings: u16, meanwhile: impl FnOnce(&Running)) -> (Report, Vec<Seen>) {
    let running = yard.start().expect("no thread is needed");
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(|| see(worker))).collect();
        meanwhile(&running);
        let report = join(running);
        let mut seen = vec![Seen::default(); rings.into()];
        for (ring, of_ring) in threads.into_iter().flat_map(|thread| thread.join().expect("no worker panics")) {
            seen[usize::from(ring)] = of_ring;
        }
        (report, seen)
    })
}

/// What a worker saw, by ring.
fn see(worker: Worker) -> Vec<(u16, Seen)> {
    let rings = worker.rings();
    let mut seen: Vec<_> = rings.clone().map(|ring| (ring, Seen::default())).collect();
    worker.run(|ring, packet: &mut Packet<'_>| {
        assert!(rings.contains(&ring), "another's ring");
        seen[usize::from(ring - rings.start)].1.see(packet);
    });
    seen
}

/// Ring and hash of each packet, in the order of each ring, as `inspect` has them.
fn alone(options: &MixOptions, packets: usize, rings: u16) -> Vec<Vec<(u32, u64, u32)>> {
    let table = Table::even(rings).expect("rings");
    let classifier = Classifier { policy: Policy::default(), hash: FlowHash::default(), table };
    let mut sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
    let (mut mix, mut frame) = (Mix::new(options), [0; Mix::FRAME_BYTES]);
    let mut found = vec![Vec::new(); rings.into()];
    let mut emit = |(time_ns, len): (u64, usize), decision: &Decision, _| {
        found[usize::from(decision.ring)].push((decision.hash, time_ns, len as u32));
    };
    for _ in 0..packets {
        let packet = mix.next(&mut frame);
        let seen = Frame::new(&frame[..packet.len], LinkType::ETHERNET);
        sorter.sort(&seen, packet.time_ns, (packet.time_ns, packet.len), &mut emit);
    }
    sorter.finish(&mut emit);
    found
}

fn of_port(seen: &Seen, port: u16) -> Vec<(u32, u64, u32)> {
    let tags = seen.tags.iter().filter(|tag| tag.port == port);
    tags.map(|tag| (tag.hash, tag.time_ns, tag.len)).collect()
}

#[test]
fn each_packet_comes_to_the_ring_that_inspect_says_in_its_order() {
    for (count, rings) in [(1, 1), (1, 4), (2, 4), (2, 5), (4, 4), (4, 64)] {
        let (report, seen) =
            run_local(&workers(count, rings), &["gen:mix?packets=20000&seed=1", "gen:mix?packets=20000&seed=2"]);
        assert_lossless(&report, &seen, 40_000);
        assert!(report.sorter.held > 50 && report.sorter.followed > 50, "fragments came out of order: {report:?}");
        for port in 0..2u16 {
            let options = MixOptions { seed: u64::from(port) + 1, ..MixOptions::default() };
            for (ring, expected) in alone(&options, 20_000, rings).into_iter().enumerate() {
                assert!(of_port(&seen[ring], port) == expected, "{count} workers, port {port}, ring {ring} of {rings}");
            }
        }
    }
}

#[test]
fn workers_and_dispatchers_count_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mixed.pcapng");
    let frames = of_many_buffers(3000);
    write_capture(&path, &frames);
    for ring_slots in [1024, 4] {
        let config = |count| YardConfig { ring_slots, ..workers(count, 4) };
        let (of_dispatcher, expected) = run(&config(1), &[&pcap(&path)]);
        for count in [1, 2, 4] {
            let (report, seen) = run_local(&config(count), &[&pcap(&path)]);
            assert_whole(&report, &seen);
            assert_eq!((report.received(), report.rings), (3000, of_dispatcher.rings.clone()), "{count} workers");
            assert!(seen == expected, "{count} workers, {ring_slots} slots: packets of several buffers among them");
        }
    }
}

#[test]
fn the_smallest_rings_and_stocks_lose_nothing() {
    for (ring_slots, buffers) in [(2, None), (8, None), (1024, Some(4)), (1024, Some(130))] {
        for count in [1, 2, 4] {
            let config = YardConfig { ring_slots, buffers, ..workers(count, 4) };
            let (report, seen) = run_local(&config, &["gen:mix?packets=3000", "gen:mix?packets=3000&seed=2"]);
            assert_lossless(&report, &seen, 6000);
        }
    }
}

#[test]
fn a_function_sends_packets_to_other_workers_to_all_and_to_none() {
    let function = closure(|packet: &mut Shown<'_>| match packet.hash() % 8 {
        0 => Verdict::Drop,
        1 => Verdict::EveryRing,
        2 => Verdict::Ring(3),
        3 => Verdict::Ring(0),
        4 => Verdict::Hash(packet.hash().rotate_left(7)),
        _ => Verdict::BuiltIn,
    });
    let config = |count| YardConfig { function: Some(function.clone()), ..workers(count, 4) };
    let (expected, _) = run(&config(1), &["gen:mix?packets=10000"]);
    assert!(expected.copies > 3000 && expected.aside() > 300, "{expected:?}");
    for count in [1, 2, 4] {
        for ring_slots in [1024, 4] {
            let config = YardConfig { ring_slots, ..config(count) };
            let (report, seen) = run_local(&config, &["gen:mix?packets=10000"]);
            assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
            assert_eq!((report.violations, report.buffers_missing), (0, 0));
            assert_eq!(
                (&report.rings, report.asides, report.copies),
                (&expected.rings, expected.asides, expected.copies)
            );
            let packets: Vec<u64> = seen.iter().map(|seen| seen.packets).collect();
            assert_eq!(packets, report.rings.iter().map(|ring| ring.packets).collect::<Vec<_>>());
        }
    }
}

#[test]
fn what_is_shared_cannot_be_written_and_what_is_own_can() {
    let function = closure(|packet: &mut Shown<'_>| {
        packet.annotate(&7u64);
        if packet.hash().is_multiple_of(2) { Verdict::EveryRing } else { Verdict::BuiltIn }
    });
    let config = YardConfig { function: Some(function), ..workers(1, 3) };
    let (yard, mut workers) = Yard::open_local(&config, &specs(&["gen:mix?packets=4000"])).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let (mut own, mut shared) = (0, 0);
    workers.remove(0).run(|_, packet| {
        assert_eq!(packet.annotation::<u64>(), Ok(7));
        if packet.is_shared() {
            assert!(packet.data_mut().is_err() && packet.set_annotation(&8u64).is_err());
            shared += 1;
        } else {
            packet.set_annotation(&8u64).expect("64 bytes");
            packet.data_mut().expect("own")[0] ^= 1;
            assert_eq!(packet.annotation::<u64>(), Ok(8));
            own += 1;
        }
    });
    let report = join(running);
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert!(own > 1000 && shared > 3000 && shared % 3 == 0 && own + shared == report.delivered(), "{own} {shared}");
}

/// What a worker that panics had, and what comes for it from then on, is lost under a name; nobody else's is.
#[test]
fn one_that_panics_hurts_nobody() {
    let ports = ["gen:mix?packets=30000&rate=300000&seed=1", "gen:mix?packets=30000&rate=300000&seed=2"];
    let (_, undisturbed) = run_local(&workers(2, 4), &ports);
    let (yard, workers) = Yard::open_local(&workers(2, 4), &specs(&ports)).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let (report, seen) = std::thread::scope(|scope| {
        let mut workers = workers.into_iter();
        let (first, second) = (workers.next().expect("two"), workers.next().expect("two"));
        let panics = scope.spawn(|| {
            let mut packets = 0;
            let run = || {
                first.run(|_, _| {
                    packets += 1;
                    assert!(packets < 1000, "as it should");
                });
            };
            (catch_unwind(AssertUnwindSafe(run)).is_err(), packets)
        });
        let other = scope.spawn(|| see(second));
        let report = join(running);
        assert_eq!(panics.join().expect("caught"), (true, 1000));
        (report, other.join().expect("hurt"))
    });
    assert!(report.sums_agree(), "{report:?}");
    assert_eq!((report.received(), report.violations, report.buffers_missing), (60_000, 0, 0));
    assert!(report.errors.len() == 1 && report.errors[0].contains("worker 0"), "{:?}", report.errors);
    for (ring, seen) in seen {
        for port in 0..2 {
            let undisturbed = &undisturbed[usize::from(ring)];
            assert!(of_port(&seen, port) == of_port(undisturbed, port), "ring {ring}: another's panic shows");
        }
    }
    let gone = dropped(&report, Drop::ConsumerGone);
    assert!(gone > 0 && gone == report.dropped() && report.rings[2..].iter().all(|ring| ring.dropped_total() == 0));
    let delivered: u64 = report.rings[..2].iter().map(|ring| ring.packets - ring.abandoned).sum();
    assert!((1000 - 1..=1000).contains(&delivered), "what was seen, but for the one it had: {report:?}");
}

/// Whatever is to become of packets for rings that nobody reads.
#[test]
fn the_rings_of_one_that_panics_are_as_those_of_any_consumer_that_dies() {
    for absent in [Absent::Drop, Absent::Redistribute] {
        for ring_slots in [1024, 16] {
            let config = YardConfig { absent, ring_slots, ..workers(2, 4) };
            let (yard, workers) =
                Yard::open_local(&config, &specs(&["gen:mix?packets=20000", "gen:mix?packets=20000"])).expect("memory");
            let running = yard.start().expect("no thread is needed");
            let (report, seen) = std::thread::scope(|scope| {
                let work = |worker: Worker| {
                    let (number, mut packets) = (worker.number(), 0u64);
                    let run = || {
                        worker.run(|_, _| {
                            assert!(number == 1 || packets < 1000, "as it should");
                            packets += 1;
                        });
                    };
                    let panicked = catch_unwind(AssertUnwindSafe(run)).is_err();
                    assert_eq!(panicked, number == 0);
                    packets
                };
                let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
                let report = join(running);
                (report, threads.into_iter().map(|thread| thread.join().expect("caught")).collect::<Vec<u64>>())
            });
            assert!(report.sums_agree() && report.received() == 40_000, "{absent:?}: {report:?}");
            assert_eq!((report.violations, report.buffers_missing), (0, 0), "{absent:?}");
            let delivered = |rings: std::ops::Range<usize>| {
                report.rings[rings].iter().map(|ring| ring.packets - ring.abandoned).sum::<u64>()
            };
            assert!(seen[0] == 1000 && (1000..=1001).contains(&delivered(0..2)), "{absent:?}: {report:?}");
            assert_eq!(seen[1], delivered(2..4), "{absent:?}");
            let (gone, moved) = (dropped(&report, Drop::ConsumerGone), absent == Absent::Redistribute);
            assert_eq!((gone > 0, report.dropped()), (!moved, gone), "{absent:?}: {report:?}");
        }
    }
}

#[test]
fn one_that_is_never_run_leaves_its_rings_to_nobody() {
    let (yard, mut workers) = Yard::open_local(&workers(2, 2), &specs(&["gen:mix?packets=20000"])).expect("memory");
    let running = yard.start().expect("no thread is needed");
    drop(workers.pop());
    let (mut seen, worker) = (0, workers.remove(0));
    worker.run(|_, _| seen += 1);
    let report = join(running);
    assert!(report.sums_agree() && report.errors.len() == 1, "{report:?}");
    assert_eq!((report.received(), report.rings[0].packets, report.buffers_missing), (20_000, seen, 0));
    let [_, of_nobody] = report.rings[..] else { panic!("two rings") };
    assert!(of_nobody.dropped[Drop::ConsumerGone as usize] + of_nobody.packets + seen == 20_000, "{report:?}");
    assert_eq!(of_nobody.packets, of_nobody.abandoned);
}

#[test]
fn stopping_ends_all_workers_with_exact_sums() {
    for count in [1, 3] {
        let ports = vec!["gen:mix?packets=1000000000"; 2];
        let (yard, workers) = Yard::open_local(&workers(count, 4), &specs(&ports)).expect("memory");
        let (report, seen) = see_all(yard, workers, 4, |running| {
            let deadline = Instant::now() + PATIENCE;
            let delivered = || running.live().iter().map(|l| l.delivered.load(Ordering::Relaxed)).sum::<u64>();
            while delivered() < 10_000 {
                assert!(Instant::now() < deadline, "packets flow");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(running.live().len(), count);
            assert_eq!(running.rings().status().len(), 4, "asked while it runs");
            running.stop();
        });
        assert_whole(&report, &seen);
        assert!(report.received() >= 10_000 && report.dropped() == dropped(&report, Drop::Shutdown));
    }
}

/// What was handed over counts as delivered: a worker that is told to stop sees it before it goes, however long that takes.
#[test]
fn a_slow_one_that_is_stopped_sees_all_that_was_delivered() {
    let (yard, workers) = Yard::open_local(&workers(2, 4), &specs(&["gen:mix?packets=1000000000"])).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let seen = AtomicU64::new(0);
    let report = std::thread::scope(|scope| {
        for worker in workers {
            let (seen, slow) = (&seen, worker.number() == 1);
            scope.spawn(move || {
                worker.run(|_, _| {
                    seen.fetch_add(1, Ordering::Relaxed);
                    if slow {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            });
        }
        let delivered = || running.live().iter().map(|live| live.delivered.load(Ordering::Relaxed)).sum::<u64>();
        let deadline = Instant::now() + PATIENCE;
        // More than can be seen in the time that a yard waits for consumers once it was told to stop.
        while delivered() < seen.load(Ordering::Relaxed) + 1000 {
            assert!(Instant::now() < deadline, "packets flow");
            std::thread::sleep(Duration::from_millis(1));
        }
        running.stop();
        join(running)
    });
    assert!(report.sums_agree() && report.rings.iter().all(|ring| ring.abandoned == 0), "{report:?}");
    assert_eq!(seen.into_inner(), report.delivered());
}

/// A slow worker's share waits, and the others' does not: a source that can wait loses nothing.
#[test]
fn a_slow_one_only_slows_sources_that_can_wait() {
    let config = YardConfig { ring_slots: 16, ..workers(2, 2) };
    let (yard, workers) = Yard::open_local(&config, &specs(&["gen:mix?packets=3000"])).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let seen: u64 = std::thread::scope(|scope| {
        let slow = |worker: Worker| {
            let mut seen = 0u64;
            let slow = worker.number() == 1;
            worker.run(|_, _| {
                seen += 1;
                if slow && seen.is_multiple_of(16) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            seen
        };
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || slow(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    let report = join(running);
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!((report.delivered(), seen), (3000, 3000));
}

#[test]
fn weights_are_changed_while_packets_flow() {
    let (yard, workers) = Yard::open_local(&workers(2, 2), &specs(&["gen:mix?packets=1000000000"])).expect("memory");
    let (report, seen) = see_all(yard, workers, 2, |running| {
        let deadline = Instant::now() + PATIENCE;
        let packets = || running.rings().status().iter().map(|ring| ring.counters.packets).collect::<Vec<_>>();
        assert!(running.rings().reweigh(0, &[0, 1]).expect("two weights") > 1000);
        let before = packets();
        while packets()[1] < before[1] + 10_000 {
            assert!(Instant::now() < deadline, "packets flow");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(packets()[0], before[0], "all by the other ring, which is another worker's");
        running.stop();
    });
    assert_whole(&report, &seen);
}

#[test]
fn what_packets_are_returned_for_is_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (folder.path().join("from.pcapng"), folder.path().join("to.pcapng"));
    let mut frames = generated(&MixOptions::default(), 2000);
    frames.iter_mut().step_by(100).for_each(|(frame, _)| frame.resize(5000, 1));
    write_capture(&from, &frames);
    for count in [1, 2] {
        let config = YardConfig { transmit: true, ..workers(count, 2) };
        let ports = specs(&[&pcap(&from), &format!("{}?write", pcap(&to))]);
        let (yard, workers) = Yard::open_local(&config, &ports).expect("files");
        let running = yard.start().expect("no thread is needed");
        std::thread::scope(|scope| {
            for worker in workers {
                scope.spawn(|| worker.run(|_, packet| packet.transmit(1).expect("a way back")));
            }
        });
        let report = join(running);
        assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
        assert_eq!((report.transmitted[1].asked, report.transmitted[1].sent, report.violations), (2000, 2000, 0));
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let refused = |config: YardConfig, ports: &[&str], word: &str| {
        let error = Yard::open_local(&config, &specs(ports)).err().expect(word).to_string();
        assert!(error.contains(word), "{error}");
    };
    let gen_ = ["gen:mix?packets=1"];
    refused(YardConfig { groups: vec![Group::new("second", 2)], ..workers(2, 4) }, &gen_, "2 groups");
    refused(YardConfig { kernel: true, ..workers(2, 4) }, &["xdp:lo"], "in the kernel");
    refused(YardConfig { absent: Absent::Hold, ..workers(1, 1) }, &gen_, "nobody could come");
    refused(workers(3, 2), &gen_, "2 rings for 3 workers");
    refused(workers(0, 2), &gen_, "number of dispatchers");
    let (yard, workers) = Yard::open_local(&workers(1, 1), &specs(&gen_)).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error =
        running.serve(&folder.path().join("socket"), flowyard::attach::Serving::default()).expect_err("no ring");
    assert!(error.to_string().contains("workers read all rings"), "{error}");
    drop(workers);
    assert!(join(running).sums_agree());
}

/// Idle workers sleep, and what one hands over wakes the other.
#[test]
fn what_is_handed_over_wakes_who_sleeps() {
    struct Counting {
        packets: usize,
        /// In turns with packets, in all turns.
        turns: (usize, usize),
    }
    impl Work for &mut Counting {
        fn packet(&mut self, _: u16, _: &mut Packet<'_>) {
            self.packets += 1;
        }
        fn turned(&mut self, packets: usize) {
            self.turns = (self.turns.0 + usize::from(packets > 0), self.turns.1 + 1);
        }
    }
    let (yard, workers) = Yard::open_local(&workers(2, 2), &specs(&["gen:mix?packets=300&rate=1000"])).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let work = |worker: Worker| {
        let mut counting = Counting { packets: 0, turns: (0, 0) };
        worker.run_work(&mut counting);
        counting
    };
    let counted: Vec<Counting> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers.into_iter().map(|worker| scope.spawn(move || work(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let report = join(running);
    assert_eq!((report.delivered(), report.buffers_missing), (300, 0));
    for Counting { packets, turns: (with, all) } in counted {
        // A millisecond between packets is some thousands of turns for who never sleeps.
        assert!(packets > 100 && with > 10 && all < 500_000, "{packets} packets, {with} turns of {all}");
    }
}
