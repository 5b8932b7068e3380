//! The user's steering function: every verdict, what follows it, what happens when it fails, and that it
//! can be replaced while packets flow.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use flowyard::function::{
    BATCH, Batch, Chain, Failure, Function, FunctionError, Limits, Packet, Steer, Surroundings, Verdict, closure,
};
use flowyard::mem::{PacketError, Tag, Wait, flags};
use flowyard::port::traffic::MixOptions;
use flowyard::steer::Policy;
use flowyard::{Aside, Group, Report, RingReader, Witness, Yard, YardConfig};

fn with(function: Function) -> YardConfig {
    YardConfig { rings: 4, function: Some(function), ..YardConfig::default() }
}

fn aside(report: &Report, why: Aside) -> u64 {
    report.asides[why as usize]
}

/// Runs and answers how many conversations were split, as the consumers saw it.
fn split(config: &YardConfig, ports: &[&str]) -> (Report, u64) {
    let opened = Yard::open(config, &specs(ports)).expect("it opens");
    let (report, witnesses) = run_with(opened, |mut reader| {
        let mut witness = Witness::new(config.rings).with_policy(&Policy::default());
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                witness.see_packet(&packet);
            }
        }
        witness
    });
    assert!(report.sums_agree(), "{report:?}");
    (report, Witness::compare(&witnesses).split)
}

#[test]
fn a_ring_or_a_hash_is_where_it_goes_and_the_mark_and_annotation_go_along() {
    let by_ring = closure(|packet: &mut Packet<'_>| {
        let mark = u64::from(packet.hash()) << 8 | 7;
        packet.mark(mark);
        assert!(packet.annotate(&mark) && !packet.annotate(&[0u64; 9]), "64 bytes");
        if packet.hash().is_multiple_of(2) { Verdict::Ring(3) } else { Verdict::Hash(packet.hash().rotate_left(9)) }
    });
    let opened = Yard::open(&with(by_ring), &specs(&["gen:mix?packets=20000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let (ring, mut evens, mut odds) = (reader.ring(), 0, 0);
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let tag = packet.tag();
                assert_eq!((tag.ring, tag.user & 0xff, packet.slot().hash), (ring, 7, tag.hash));
                assert_eq!(packet.annotation::<u64>().expect("64 bytes"), tag.user);
                let built_in = (tag.user >> 8) as u32;
                match built_in % 2 {
                    0 => {
                        assert_eq!((ring, tag.hash), (3, built_in));
                        evens += 1;
                    }
                    _ => {
                        assert_eq!((tag.hash, tag.hash_version), (built_in.rotate_left(9), 0));
                        odds += 1;
                    }
                }
            }
        }
        (evens, odds)
    });
    assert!(report.sums_agree() && report.delivered() == 20_000);
    assert_eq!(seen.iter().map(|s| s.0 + s.1).sum::<u64>(), 20_000);
    assert!(seen[..3].iter().all(|s| s.0 == 0 && s.1 > 1000) && seen[3].0 > 5000, "{seen:?}");
}

#[test]
fn fragments_follow_a_verdict_of_their_first_whatever_it_is_and_whoever_saw_it() {
    // The function decides by what later fragments do not have: it is silent on those.
    let elsewhere = |verdict: fn(&Packet<'_>) -> Verdict| {
        closure(
            move |packet: &mut Packet<'_>| {
                if packet.dissection().is_awaiting() { Verdict::BuiltIn } else { verdict(packet) }
            },
        )
    };
    let by_ring = elsewhere(|packet| Verdict::Ring((packet.ring() + 1) % 4));
    let by_hash = elsewhere(|packet| Verdict::Hash(packet.hash().wrapping_mul(0x9e37_79b1).rotate_left(7)));
    for function in [by_ring, by_hash] {
        for (dispatchers, ports) in
            [(1, &["gen:mix?packets=60000"][..]), (2, &["gen:mix?packets=30000", "gen:mix?packets=30000&seed=1"])]
        {
            let config = YardConfig { dispatchers, ..with(function.clone()) };
            let (report, split) = split(&config, ports);
            assert_eq!((split, report.delivered()), (0, 60_000), "{dispatchers} dispatchers");
            let counts = report.function.expect("counted");
            assert!(
                counts.packets == 60_000 && counts.built_in == 0,
                "later fragments were sent after the first: {counts:?}"
            );
            assert!(report.sorter.held > 50, "some had to wait: {:?}", report.sorter);
        }
    }
    // And away: whoever drops the first fragments of UDP drops all of their datagrams.
    let no_udp =
        elsewhere(|packet| if packet.dissection().proto() == Some(17) { Verdict::Drop } else { Verdict::BuiltIn });
    let (report, seen) = run(&with(no_udp), &["gen:mix?packets=60000"]);
    assert!(report.sums_agree() && aside(&report, Aside::Verdict) > 10_000, "{report:?}");
    let tags = || seen.iter().flat_map(|s| &s.tags);
    let (later, other): (Vec<&Tag>, Vec<&Tag>) = tags().partition(|tag| tag.kind & 3 == 2);
    assert!(other.iter().all(|tag| tag.protocol != 17) && later.len() > 100);
    // What is left of later fragments are those of tunnels that carry something else.
    let conversations: std::collections::HashSet<u32> = other.iter().map(|tag| tag.hash).collect();
    assert!(later.iter().all(|tag| conversations.contains(&tag.hash)), "a later fragment without its first");
}

#[test]
fn a_shunted_flow_is_not_shown_again_in_both_directions_until_its_time_is_over() {
    let shown = Arc::new(AtomicU64::new(0));
    let counter = shown.clone();
    let shunt = closure(move |_: &mut Packet<'_>| {
        counter.fetch_add(1, Ordering::Relaxed);
        Verdict::Shunt { milliseconds: 3_600_000 }
    });
    let (report, seen) = run(&with(shunt), &["gen:mix?packets=30000&flows=100"]);
    assert_whole(&report, &seen);
    assert_eq!((report.delivered(), aside(&report, Aside::Shunted)), (0, 30_000));
    let (shown, counts) = (shown.load(Ordering::Relaxed), report.function.expect("counted"));
    assert_eq!(counts.packets, shown);
    assert!((100..2000).contains(&shown), "each conversation once, and some later fragments: {shown}");
    assert!(counts.flows_shunted >= 100);
    // For a moment only: then it is asked again.
    let brief = closure(|_: &mut Packet<'_>| Verdict::Shunt { milliseconds: 1 });
    let (report, _) = run(&with(brief), &["gen:mix?packets=30000&flows=100"]);
    assert!(report.function.expect("counted").packets > shown, "{report:?}");
}

#[test]
fn every_ring_gets_the_same_buffer_and_none_may_change_it() {
    let config = with(closure(|_: &mut Packet<'_>| Verdict::EveryRing));
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=5000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader: RingReader| {
        let mut buffers = Vec::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(mut packet) = reader.next() {
                assert!(packet.is_shared());
                assert_eq!(packet.data_mut().err(), Some(PacketError::Shared));
                assert_eq!(packet.set_annotation(&1u64).err(), Some(PacketError::Shared));
                buffers.push((packet.tag().time_ns, packet.buffer_index()));
            }
        }
        buffers
    });
    assert!(report.sums_agree() && report.buffers_missing == 0 && report.violations == 0, "{report:?}");
    assert_eq!((report.delivered(), report.copies, report.received()), (20_000, 15_000, 5000));
    assert!(seen.iter().all(|s| s.len() == 5000 && *s == seen[0]), "the same buffers in the same order");
}

#[test]
fn slice_and_pull_are_carried_out_over_all_segments_and_checked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("edit.pcapng");
    let mut frames = generated(&MixOptions::default(), 600);
    for (at, (frame, time)) in frames.iter_mut().enumerate() {
        frame.resize([60, 1000, 4000, 9000][at % 4], 0xee);
        (0..frame.len()).for_each(|n| frame[n] = if n < 60 { frame[n] } else { n as u8 });
        *time = at as u64;
    }
    write_capture(&path, &frames);
    for (pull, slice) in [(14u16, 0u32), (0, 64), (14, 500), (20, 3000), (1, 1)] {
        let edit = closure(move |packet: &mut Packet<'_>| {
            packet.pull(pull);
            packet.slice(slice);
            Verdict::BuiltIn
        });
        let opened = Yard::open(&with(edit), &specs(&[&pcap(&path)])).expect("it opens");
        let (report, counts) = run_with(opened, |mut reader| {
            let mut count = 0;
            while reader.wait(None) != Wait::Ended {
                while let Some(packet) = reader.next() {
                    let tag = packet.tag();
                    let whole = &frames[tag.time_ns as usize].0;
                    let kept = if slice == 0 {
                        whole.len() - usize::from(pull)
                    } else {
                        (whole.len() - usize::from(pull)).min(slice as usize)
                    };
                    let expected = &whole[usize::from(pull)..][..kept];
                    let bytes: Vec<u8> = packet.segments().flatten().copied().collect();
                    assert!(
                        bytes == expected,
                        "pull {pull} slice {slice}: {} bytes, not {}",
                        bytes.len(),
                        expected.len()
                    );
                    assert_eq!((tag.len as usize, packet.slot().total as usize), (kept, kept));
                    assert_eq!(tag.has(flags::TRUNCATED), kept < whole.len() - usize::from(pull));
                    assert_eq!(tag.wire_len as usize, whole.len());
                    count += 1;
                }
            }
            count
        });
        assert!(report.sums_agree() && report.buffers_missing == 0 && counts.iter().sum::<u64>() == 600, "{report:?}");
        assert_eq!(report.function.expect("counted").failures, [0; 9]);
    }
    let too_far = closure(|packet: &mut Packet<'_>| {
        packet.pull(60);
        Verdict::BuiltIn
    });
    let (report, seen) = run(&with(too_far), &[&pcap(&path)]);
    assert_lossless(&report, &seen, 600);
    assert_eq!(report.function.expect("counted").failed(Failure::BadEdit), 150, "those of 60 bytes");
}

#[test]
fn functions_of_a_chain_decide_in_order() {
    let (a, b) = (AtomicU64::new(0).into(), AtomicU64::new(0).into());
    let link = |seen: &Arc<AtomicU64>, mine: fn(&Packet<'_>) -> bool, verdict| {
        let seen = seen.clone();
        closure(move |packet: &mut Packet<'_>| {
            seen.fetch_add(1, Ordering::Relaxed);
            if mine(packet) { verdict } else { Verdict::BuiltIn }
        })
    };
    let tcp = link(&a, |p| p.dissection().proto() == Some(6), Verdict::Ring(1));
    let rest = link(&b, |_| true, Verdict::Ring(2));
    let (report, seen) = run(&with(Chain::function(vec![tcp, rest])), &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    assert_eq!(a.load(Ordering::Relaxed), 10_000);
    assert_eq!((b.load(Ordering::Relaxed), seen[0].packets + seen[3].packets), (seen[2].packets, 0));
    assert!(seen[1].tags.iter().all(|t| t.protocol == 6) && seen[2].packets > 100 && seen[1].packets > 100);
}

/// A function that does what a closure of whole batches says.
struct Whole<F>(F);

impl<F: FnMut(&mut Batch<'_>) -> Result<(), Failure> + Send> Steer for Whole<F> {
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        self.0(batch)
    }
}

fn whole<F>(limits: Limits, f: F) -> Function
where
    F: FnMut(&mut Batch<'_>) -> Result<(), Failure> + Clone + Send + Sync + 'static,
{
    Function::new("whole", move |_| Ok(Box::new(Whole(f.clone())))).with_limits(limits)
}

#[test]
fn what_was_said_of_one_batch_is_forgotten_in_the_next() {
    let ports = ["gen:mix?packets=20000"];
    let (_, plain) = run(&YardConfig { rings: 4, ..YardConfig::default() }, &ports);
    let built_in: HashMap<u64, u16> =
        plain.iter().zip(0..).flat_map(|(seen, ring)| seen.tags.iter().map(move |tag| (tag.time_ns, ring))).collect();
    let mut call = 0;
    let every_other = whole(Limits::default(), move |batch| {
        call += 1;
        for at in (0..batch.len()).filter(|_| call % 2 == 0) {
            batch.packet(at).mark(1);
            batch.packet(at).decide(Verdict::Ring(3));
        }
        Ok(())
    });
    let (report, seen) = run(&with(every_other), &ports);
    assert_lossless(&report, &seen, 20_000);
    let mut left = 0;
    for (tag, ring) in seen.iter().zip(0..).flat_map(|(seen, ring)| seen.tags.iter().map(move |tag| (tag, ring))) {
        // A later fragment of which nothing is said goes where its first one was sent.
        let follows = tag.kind & 3 == 2 && ring == 3;
        assert!(follows || ring == if tag.user == 1 { 3 } else { built_in[&tag.time_ns] }, "{tag:?}");
        left += u32::from(tag.user == 0);
    }
    assert!((5000..15_000).contains(&left), "{left}");
}

#[test]
fn what_a_link_scribbles_into_tags_does_not_mislead_the_next() {
    let scribbler = closure(|packet: &mut Packet<'_>| {
        let nonsense = Tag { port: 7, wire_len: 0, len: 9, flags: flags::FRAGMENT_FALLBACK, link: 3, ..*packet.tag() };
        *packet.tag_mut() = nonsense;
        Verdict::BuiltIn
    });
    let text = "[[rule]]\nport_number = 0\nlength = '1-'\nlink = 1\nprotocol = 'tcp'\nverdict = 'ring 2'\n";
    let rules = || flowyard::rules::parse(text).expect("good rules").function();
    let ports = ["gen:mix?packets=20000"];
    let (alone, seen_alone) = run(&with(rules()), &ports);
    let (chained, seen) = run(&with(Chain::function(vec![scribbler, rules()])), &ports);
    assert_lossless(&chained, &seen, 20_000);
    assert!(seen == seen_alone && seen[2].packets > 5000, "{alone:?} {chained:?}");
}

/// That the built-in policy held: as without a function.
fn assert_built_in(function: Function) -> flowyard::function::FunctionCounts {
    let ports = ["gen:mix?packets=20000"];
    let (_, plain) = run(&YardConfig { rings: 4, ..YardConfig::default() }, &ports);
    let (report, seen) = run(&with(function), &ports);
    assert_lossless(&report, &seen, 20_000);
    assert!(seen == plain, "tags and rings are those of the built-in policy");
    report.function.expect("counted")
}

#[test]
fn verdicts_that_cannot_be_are_counted_and_the_built_in_policy_holds() {
    let never = Limits { failures: u32::MAX, ..Limits::default() };
    let counts = assert_built_in(closure(|_: &mut Packet<'_>| Verdict::Ring(4)).with_limits(never));
    assert_eq!((counts.failed(Failure::BadRing), counts.built_in, counts.switched_off), (20_000, 20_000, 0));
    let counts = assert_built_in(closure(|_: &mut Packet<'_>| Verdict::Host).with_limits(never));
    assert_eq!(counts.failed(Failure::NoHost), 20_000);
    let counts = assert_built_in(whole(never, |batch| {
        batch.verdicts().iter_mut().for_each(|raw| raw.kind = 99);
        Ok(())
    }));
    assert_eq!(counts.failed(Failure::BadVerdict), 20_000);
}

#[test]
fn a_function_that_fails_takes_nothing_with_it_and_is_switched_off() {
    let limits = Limits { failures: 3, ..Limits::default() };
    // What it wrote before it failed does not hold.
    let scribble = |batch: &mut Batch<'_>| {
        batch.each(|packet| {
            packet.mark(99);
            packet.tag_mut().inner_l4 = 1;
            packet.decide(Verdict::Ring(0));
            packet.slice(1);
        });
    };
    let counts = assert_built_in(whole(limits, move |batch| {
        scribble(batch);
        Err(Failure::Refused)
    }));
    assert_eq!(
        (counts.failed(Failure::Refused), counts.packets, counts.switched_off),
        (counts.packets, counts.packets, 1)
    );
    assert!(counts.packets <= 3 * BATCH as u64 + 200, "after three calls: {counts:?}");

    std::panic::set_hook(Box::new(|_| {})); // many panics, all meant
    let counts = assert_built_in(whole(limits, move |batch| {
        scribble(batch);
        batch.packet(BATCH + 1);
        Ok(())
    }));
    assert_eq!((counts.failed(Failure::Panicked), counts.switched_off), (counts.packets, 1));

    // Three failures in a row, not in all: a function that fails every other time stays.
    let mut calls = 0;
    let counts = assert_built_in(whole(limits, move |_| {
        calls += 1;
        if calls % 2 == 0 { Err(Failure::Refused) } else { Ok(()) }
    }));
    assert!(counts.switched_off == 0 && counts.failed(Failure::Refused) > 5000, "{counts:?}");
}

#[test]
fn a_call_over_its_time_goes_by_the_built_in_policy_and_is_counted() {
    let limits = Limits { budget: Duration::from_millis(2), failures: u32::MAX };
    let mut calls = 0;
    let counts = assert_built_in_but(whole(limits, move |batch| {
        calls += 1;
        let late = calls % 50 == 1;
        if late {
            std::thread::sleep(Duration::from_millis(8));
        }
        batch.each(|packet| packet.decide(if late { Verdict::Ring(1) } else { Verdict::BuiltIn }));
        Ok(())
    }));
    // One that was disturbed from outside is excused: how many are on time is not ours to say.
    assert!(counts.failed(Failure::OverBudget) >= 64 && counts.switched_off == 0, "{counts:?}");
}

/// As [`assert_built_in`], but for the few packets of calls that were excused.
fn assert_built_in_but(function: Function) -> flowyard::function::FunctionCounts {
    let ports = ["gen:mix?packets=20000"];
    let (_, plain) = run(&YardConfig { rings: 4, ..YardConfig::default() }, &ports);
    let (report, seen) = run(&with(function), &ports);
    assert_lossless(&report, &seen, 20_000);
    let moved: i64 =
        (0..4).filter(|ring| *ring != 1).map(|ring| plain[ring].packets as i64 - seen[ring].packets as i64).sum();
    assert!((0..200).contains(&moved), "at most the first late call was excused: {moved} went to ring 1");
    report.function.expect("counted")
}

fn versioned(version: u64, wrong: bool) -> Function {
    Function::new(&format!("version {version}"), move |s: &Surroundings| {
        if wrong && s.dispatcher + 1 == s.dispatchers {
            return Err(FunctionError::new("wrong", "meant to be"));
        }
        let marked = move |packet: &mut Packet<'_>| {
            // Added, not set: a packet that two versions saw shows.
            let sum = packet.tag().user + (1 << 32) + version;
            packet.mark(sum);
            Verdict::BuiltIn
        };
        Ok(Box::new(marked))
    })
}

#[test]
fn a_thousand_replacements_under_load_lose_nothing_and_every_packet_is_seen_once() {
    let config = YardConfig { dispatchers: 2, ..with(versioned(0, false)) };
    let ports = ["gen:mix", "gen:mix?seed=7"];
    let (yard, readers) = Yard::open(&config, &specs(&ports)).expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                let mut witness = Witness::new(4).with_policy(&Policy::default());
                let (mut packets, mut newest, mut kinds) = (0u64, HashMap::new(), 0);
                while reader.wait(None) != Wait::Ended {
                    while let Some(packet) = reader.next() {
                        witness.see_packet(&packet);
                        let tag = packet.tag();
                        assert_eq!(tag.user >> 32, 1, "by exactly one version");
                        let version = tag.user as u32;
                        let last = newest.insert(tag.port, version).unwrap_or(0);
                        assert!(version >= last || tag.kind & 3 != 0, "in order: {last} then {version}");
                        kinds += u32::from(version != last);
                        packets += 1;
                    }
                }
                (packets, kinds, witness)
            })
        })
        .collect();
    for version in 1..=1000 {
        running.functions().reload(Some(&versioned(version, false))).expect("it takes over");
        if version % 100 == 0 {
            let refused = running.functions().reload(Some(&versioned(77, true))).expect_err("one instance fails");
            assert!(refused.to_string().contains("meant to be"));
            let status = &running.functions().status()[0];
            assert_eq!(status.name, Some(format!("version {version}")), "the old one stays");
            assert_eq!(status.counts.reloads, 2 * version);
        }
    }
    running.stop();
    let report = join(running);
    let seen: Vec<_> = consumers.into_iter().map(|c| c.join().expect("no assertion failed")).collect();
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!(report.delivered(), seen.iter().map(|s| s.0).sum::<u64>());
    assert!(seen.iter().all(|s| s.1 > 100), "the versions did change while packets flowed");
    let witnesses: Vec<_> = seen.into_iter().map(|s| s.2).collect();
    assert_eq!(Witness::compare(&witnesses).split, 0);
    assert_eq!(report.function.expect("counted").reloads, 2000);
}

#[test]
fn a_function_comes_and_goes_and_answers_while_packets_flow() {
    struct Answers(u64);
    impl Steer for Answers {
        fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
            self.0 += batch.len() as u64;
            Ok(())
        }
        fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
            match request {
                b"count" => Ok(self.0.to_string().into_bytes()),
                b"panic" => panic!("meant to be"),
                _ => Err("count is all I know".into()),
            }
        }
        fn adopt(&mut self, old: &mut dyn Steer) {
            if let Some(old) = old.as_any().and_then(|old| old.downcast_mut::<Answers>()) {
                self.0 = old.0;
            }
        }
        fn as_any(&mut self) -> Option<&mut dyn std::any::Any> {
            Some(self)
        }
        fn counters(&self) -> Vec<(String, u64)> {
            vec![("seen".into(), self.0)]
        }
    }
    let answers = Function::new("answers", |_| Ok(Box::new(Answers(0))));
    let config = YardConfig { rings: 4, ..YardConfig::default() };
    let (yard, readers) = Yard::open(&config, &specs(&["gen:mix"])).expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r).packets)).collect();
    let functions = running.functions();
    assert_eq!(functions.control(b"count").expect("it runs"), [Err("no function is loaded".to_owned())]);
    let mut before = 0;
    for _ in 0..5 {
        functions.reload(Some(&answers)).expect("it takes over");
        std::thread::sleep(Duration::from_millis(20));
        let count = functions.control(b"count").expect("it runs").remove(0).expect("it knows");
        let count: u64 = String::from_utf8(count).expect("digits").parse().expect("digits");
        assert!(count > before, "carried over: {before} then {count}");
        before = count;
        assert!(functions.control(b"panic").expect("it runs")[0].is_err());
        assert!(functions.control(b"what").expect("it runs")[0].as_ref().is_err_and(|e| e.contains("all I know")));
    }
    let status = &functions.status()[0];
    assert!(status.own[0].0 == "seen" && status.own[0].1 >= before && status.counts.packets >= before, "{status:?}");
    functions.reload(None).expect("it goes");
    assert_eq!(functions.status()[0].name, None);
    let functions = functions.clone();
    running.stop();
    let report = join(running);
    assert_eq!(report.delivered(), consumers.into_iter().map(|c| c.join().expect("no panic")).sum::<u64>());
    assert!(report.sums_agree());
    assert!(functions.reload(Some(&answers)).is_err_and(|e| e.to_string().contains("has ended")));
}

#[test]
fn every_group_sees_every_packet_in_the_same_buffers() {
    let recorder = Group::new("recorder", 1);
    let by_port = Group {
        function: Some(closure(|packet: &mut Packet<'_>| {
            assert_eq!(packet.tag().user, 5, "what the yard's function wrote is there to read");
            packet.annotation().fill(9); // a copy: nobody else sees it
            packet.mark(6);
            packet.slice(1);
            match packet.dissection().proto() {
                Some(6) => Verdict::Ring(2),
                Some(17) => Verdict::Drop,
                _ => Verdict::BuiltIn,
            }
        })),
        ..Group::new("by-port", 3)
    };
    let mark = closure(|packet: &mut Packet<'_>| {
        packet.mark(5);
        assert!(packet.annotate(&[7u8; 64]));
        Verdict::BuiltIn
    });
    let config = YardConfig { groups: vec![recorder, by_port], ..with(mark) };
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=20000"])).expect("it opens");
    assert_eq!(opened.1.iter().map(RingReader::ring).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 0, 1, 2]);
    let (report, seen) = run_with(opened, |mut reader| {
        let (mut packets, mut protocols) = (0u64, HashMap::<u8, u64>::new());
        let mut lens = 0;
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let tag = packet.tag();
                assert!(tag.user == 5 && packet.annotation::<[u8; 64]>().expect("64 bytes") == [7; 64]);
                packets += 1;
                lens += packet.len() as u64;
                *protocols.entry(tag.protocol).or_default() += 1;
            }
        }
        (packets, protocols, lens)
    });
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    let sum = |range: std::ops::Range<usize>| seen[range].iter().map(|s| s.0).sum::<u64>();
    assert_eq!((sum(0..4), sum(4..5)), (20_000, 20_000));
    assert_eq!(sum(5..8) + aside(&report, Aside::GroupVerdict), 20_000);
    assert_eq!(report.copies, 40_000);
    assert_eq!(seen[..4].iter().map(|s| s.2).sum::<u64>(), seen[4].2, "whole packets");
    assert!(!seen[5].1.contains_key(&6) && !seen[6].1.contains_key(&6) && seen[7].1[&6] > 1000);
    assert!(aside(&report, Aside::GroupVerdict) > 1000);
}

#[test]
fn a_slow_group_costs_the_others_nothing() {
    // Generated traffic waits for whoever is slow; a live port would not. Here: a group whose consumer is gone.
    let config = YardConfig { groups: vec![Group::new("gone", 1)], rings: 2, ..YardConfig::default() };
    let (yard, mut readers) = Yard::open(&config, &specs(&["gen:mix?packets=20000"])).expect("it opens");
    drop(readers.pop());
    let (report, seen) = run_with((yard, readers), take_all);
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!(seen.iter().map(|s| s.packets).sum::<u64>(), 20_000);
    assert_eq!(report.rings[2].packets + report.rings[2].dropped_total(), 20_000);
    assert!(dropped(&report, flowyard::Drop::ConsumerGone) > 10_000);
}

/// A function that panics wherever it is called but for packets.
struct Trap;

impl Steer for Trap {
    fn steer(&mut self, _: &mut Batch<'_>) -> Result<(), Failure> {
        Ok(())
    }
    fn tick(&mut self) {
        panic!("over a tick");
    }
    fn counters(&self) -> Vec<(String, u64)> {
        panic!("over its counters");
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        panic!("over its end");
    }
}

#[test]
fn a_panic_between_batches_ends_no_dispatcher_and_counts_as_a_failed_round() {
    let trap = || {
        let limits = Limits { failures: 3, ..Limits::default() };
        Function::new("trap", |_| Ok(Box::new(Trap))).with_limits(limits)
    };
    let (yard, readers) = Yard::open(&with(trap()), &specs(&["gen:mix?seconds=1"])).expect("it opens");
    let consumers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                while reader.wait(None) != Wait::Ended {
                    while reader.next().is_some() {}
                }
            })
        })
        .collect();
    let running = yard.start().expect("it starts");
    assert_eq!(running.functions().status().len(), 1);
    running.functions().reload(Some(&trap())).expect("it is replaced");
    let report = running.join();
    consumers.into_iter().for_each(|consumer| consumer.join().expect("no panic"));
    assert!(report.errors.is_empty() && report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    let counts = report.function.expect("counted");
    assert!(counts.failed(Failure::Panicked) >= 3 && report.received() > 0, "{counts:?}");
}
