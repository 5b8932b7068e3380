//! What a module says of packets is carried out, and what it is shown is true.

#[path = "../../yard/tests/common/mod.rs"]
mod common;
mod guests;

use std::collections::HashMap;

use common::*;
use flowyard::function::{Chain, Failure, Packet, Verdict, closure};
use flowyard::mem::{Grant, Wait, flags};
use flowyard::port::traffic::MixOptions;
use flowyard::{Aside, Group, RingReader, Yard, YardConfig};
use guests::*;

#[test]
fn a_ring_or_a_hash_is_where_it_goes_and_the_mark_and_annotation_go_along() {
    let text = each(
        r#"(i64.store offset=24 (local.get $p)
             (i64.or (i64.shl (i64.load32_u (local.get $p)) (i64.const 8)) (i64.const 7)))
           (i64.store (i32.load offset=84 (local.get $p)) (i64.load offset=24 (local.get $p)))
           (if (i32.and (i32.load (local.get $p)) (i32.const 1))
             (then (i32.store8 offset=64 (local.get $p) (i32.const 1))
                   (i32.store offset=68 (local.get $p) (i32.rotl (i32.load (local.get $p)) (i32.const 9))))
             (else (i32.store8 offset=64 (local.get $p) (i32.const 2))
                   (i32.store16 offset=66 (local.get $p) (i32.const 3))))"#,
    );
    let opened = Yard::open(&with(guest(&text)), &specs(&["gen:mix?packets=20000"])).expect("it opens");
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
    assert!(report.sums_agree() && report.delivered() == 20_000 && report.buffers_missing == 0, "{report:?}");
    assert_eq!(seen.iter().map(|s| s.0 + s.1).sum::<u64>(), 20_000);
    assert!(seen[..3].iter().all(|s| s.0 == 0 && s.1 > 1000) && seen[3].0 > 5000, "{seen:?}");
    assert_eq!(report.function.expect("counted").failures, [0; 9]);
}

#[test]
fn what_it_drops_is_gone_and_counted() {
    let text = each(
        r#"(if (i32.eq (i32.load8_u offset=14 (local.get $p)) (i32.const 17))
             (then (i32.store8 offset=64 (local.get $p) (i32.const 3))))"#,
    );
    let (report, seen) = run(&with(guest(&text)), &["gen:mix?packets=20000"]);
    assert_whole(&report, &seen);
    let dropped = report.asides[Aside::Verdict as usize];
    assert!(dropped > 1000 && report.delivered() + dropped == 20_000, "{report:?}");
    assert!(seen.iter().flat_map(|s| &s.tags).all(|tag| tag.protocol != 17 || tag.kind & 3 == 2));
}

#[test]
fn slice_and_pull_are_carried_out() {
    let text = each(
        r#"(i32.store offset=72 (local.get $p) (i32.const 40))
           (i32.store16 offset=76 (local.get $p) (i32.const 14))"#,
    );
    let frames = generated(&MixOptions::default(), 500);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("edit.pcapng");
    write_capture(&path, &frames);
    let frames: HashMap<u64, Vec<u8>> = frames.into_iter().map(|(bytes, time)| (time, bytes)).collect();
    let opened = Yard::open(&with(guest(&text)), &specs(&[&pcap(&path)])).expect("it opens");
    let (report, _) = run_with(opened, |mut reader| {
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let whole = &frames[&packet.tag().time_ns][14..];
                assert_eq!(packet.data(), &whole[..whole.len().min(40)]);
                assert_eq!(packet.tag().has(flags::TRUNCATED), whole.len() > 40);
            }
        }
    });
    assert!(report.sums_agree() && report.delivered() == 500);
    assert_eq!(report.function.expect("counted").failures, [0; 9]);
}

/// Sums the bytes up that a packet is shown with into its mark, and notes their number and the segment's length.
const SUM: &str = r#"
    (local.set $i (i32.const 0)) (local.set $n (i32.const 0))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $i) (i32.load16_u offset=88 (local.get $p))))
      (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 31))
        (i32.load8_u (i32.add (i32.load offset=80 (local.get $p)) (local.get $i)))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br $next)))
    (i32.store offset=24 (local.get $p) (local.get $n))
    (i32.store16 offset=28 (local.get $p) (i32.load16_u offset=88 (local.get $p)))
    (i32.store16 offset=30 (local.get $p) (i32.load16_u offset=92 (local.get $p)))"#;

#[test]
fn as_many_of_the_bytes_are_shown_as_it_asks_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("lengths.pcapng");
    let mut frames = generated(&MixOptions::default(), 600);
    for (at, (frame, time)) in frames.iter_mut().enumerate() {
        frame.resize([60, 191, 192, 193, 1400][at % 5], 0xee);
        *time = at as u64;
    }
    write_capture(&path, &frames);
    for (asked, shown) in
        [(None, 192), (Some(0), 0), (Some(1), 1), (Some(192), 192), (Some(1000), 1000), (Some(-1), 4096)]
    {
        let asks = asked.map(|n| format!("(func (export \"packet_bytes\") (result i32) (i32.const {n}))"));
        let function = guest(&each_with(&asks.unwrap_or_default(), SUM));
        let opened = Yard::open(&with(function), &specs(&[&pcap(&path)])).expect("it opens");
        let (report, counts) = run_with(opened, |mut reader| {
            let mut count = 0;
            while reader.wait(None) != Wait::Ended {
                while let Some(packet) = reader.next() {
                    let whole = &frames[packet.tag().time_ns as usize].0;
                    let bytes = &whole[..whole.len().min(shown)];
                    let sum = bytes.iter().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add((*b).into()));
                    let user = packet.tag().user;
                    let found = (user as u32, (user >> 32) as u16 as usize, (user >> 48) as usize);
                    assert_eq!(found, (sum, bytes.len(), whole.len()), "{asked:?}");
                    count += 1;
                }
            }
            count
        });
        assert!(report.sums_agree() && counts.iter().sum::<u64>() == 600, "{report:?}");
    }
}

#[test]
fn annotations_of_any_size_go_in_and_out() {
    // Adds one to the first and the last byte that it is shown.
    let body = r#"
        (local.set $i (i32.load offset=84 (local.get $p)))
        (local.set $n (i32.load16_u offset=90 (local.get $p)))
        (i64.store offset=24 (local.get $p) (i64.extend_i32_u (local.get $n)))
        (if (local.get $n) (then
          (i32.store8 (local.get $i) (i32.add (i32.load8_u (local.get $i)) (i32.const 1)))
          (local.set $i (i32.add (local.get $i) (i32.sub (local.get $n) (i32.const 1))))
          (i32.store8 (local.get $i) (i32.add (i32.load8_u (local.get $i)) (i32.const 1)))))"#;
    for (annotation_bytes, asked, shown) in [
        (0usize, None, 0usize),
        (64, None, 64),
        (256, None, 256),
        (256, Some(8), 8),
        (64, Some(0), 0),
        (64, Some(999), 64),
    ] {
        let first = closure(|packet: &mut Packet<'_>| {
            packet.annotation().fill(5);
            Verdict::BuiltIn
        });
        let asks = asked.map(|n| format!("(func (export \"annotation_bytes\") (result i32) (i32.const {n}))"));
        let chain = Chain::function(vec![first, guest(&each_with(&asks.unwrap_or_default(), body))]);
        let config = YardConfig { annotation_bytes, ..with(chain) };
        let opened = Yard::open(&config, &specs(&["gen:mix?packets=2000"])).expect("it opens");
        let (report, _) = run_with(opened, |mut reader| {
            while reader.wait(None) != Wait::Ended {
                while let Some(packet) = reader.next() {
                    assert_eq!(packet.tag().user as usize, shown);
                    let mut expected = vec![5; annotation_bytes];
                    if shown > 0 {
                        expected[0] += 1;
                        expected[shown - 1] += 1;
                    }
                    let found = match annotation_bytes {
                        64 => packet.annotation::<[u8; 64]>().expect("64 bytes").to_vec(),
                        256 => packet.annotation::<[[u8; 64]; 4]>().expect("256 bytes").as_flattened().to_vec(),
                        _ => Vec::new(),
                    };
                    assert_eq!(found, expected, "{annotation_bytes} {asked:?}");
                }
            }
        });
        assert!(report.sums_agree() && report.delivered() == 2000, "{report:?}");
    }
}

#[test]
fn where_a_foreign_process_may_write_it_works_on_copies_of_copies() {
    let text =
        each(&format!("{SUM} (i64.store (i32.load offset=84 (local.get $p)) (i64.load offset=24 (local.get $p)))"));
    let (yard, readers) = Yard::open(&with(guest(&text)), &specs(&["gen:mix?packets=5000"])).expect("it opens");
    let _foreign = yard.region().grant(Grant::Write).expect("not sealed yet");
    let (report, seen) = run_with((yard, readers), |mut reader| {
        let mut packets = 0;
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let bytes = &packet.data()[..packet.len().min(192)];
                let sum = bytes.iter().fold(0u32, |n, b| n.wrapping_mul(31).wrapping_add((*b).into()));
                let user = packet.tag().user;
                assert_eq!((user as u32, packet.annotation::<u64>().expect("64 bytes")), (sum, user));
                packets += 1;
            }
        }
        packets
    });
    assert_eq!((seen.iter().sum::<u64>(), report.delivered()), (5000, 5000));
    assert_eq!(report.function.expect("counted").failures, [0; 9]);
}

#[test]
fn a_group_may_have_one_and_changes_nothing_by_it() {
    let scribbles = each(
        r#"(i64.store offset=24 (local.get $p) (i64.const 6))
           (i64.store (i32.load offset=84 (local.get $p)) (i64.const 6))
           (i32.store8 offset=64 (local.get $p) (i32.const 2))
           (i32.store16 offset=66 (local.get $p) (i32.const 1))"#,
    );
    let group = Group { function: Some(guest(&scribbles)), ..Group::new("beside", 2) };
    let mark = each(
        "(i64.store offset=24 (local.get $p) (i64.const 5)) (i64.store (i32.load offset=84 (local.get $p)) (i64.const 5))",
    );
    let config = YardConfig { groups: vec![group], ..with(guest(&mark)) };
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=5000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader: RingReader| {
        let mut packets = 0;
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                assert_eq!((packet.tag().user, packet.annotation::<u64>().expect("64 bytes")), (5, 5));
                packets += 1;
            }
        }
        packets
    });
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!((seen[..4].iter().sum::<u64>(), seen[4], seen[5]), (5000, 0, 5000));
}

#[test]
fn verdicts_that_cannot_be_are_counted_and_the_built_in_policy_holds() {
    let ports = ["gen:mix?packets=10000"];
    let (_, plain) = run(&YardConfig { rings: 4, ..YardConfig::default() }, &ports);
    for (kind, ring, failure) in
        [(2, 4, Failure::BadRing), (2, 65_535, Failure::BadRing), (99, 0, Failure::BadVerdict), (6, 0, Failure::NoHost)]
    {
        let text = each(&format!(
            "(i32.store8 offset=64 (local.get $p) (i32.const {kind})) (i32.store16 offset=66 (local.get $p) (i32.const {ring}))"
        ));
        let (report, seen) = run(&with(guest(&text).with_limits(NEVER)), &ports);
        assert_lossless(&report, &seen, 10_000);
        assert!(seen == plain, "tags and rings are those of the built-in policy");
        assert_eq!(report.function.expect("counted").failed(failure), 10_000);
    }
    // A pull of more than there is, and all of the record filled with ones.
    let text = each("(memory.fill (local.get $p) (i32.const 255) (i32.const 96))");
    let (report, seen) = run(&with(guest(&text).with_limits(NEVER)), &ports);
    assert_lossless(&report, &seen, 10_000);
    let counts = report.function.expect("counted");
    assert_eq!((counts.failed(Failure::BadVerdict), counts.failed(Failure::BadEdit)), (10_000, 10_000));
    assert_eq!(seen.iter().map(|s| s.packets).collect::<Vec<_>>(), plain.iter().map(|s| s.packets).collect::<Vec<_>>());
    assert!(seen.iter().flat_map(|s| &s.tags).all(|t| t.user == u64::MAX && t.len < 1 << 16 && t.link == 1));
}

#[test]
fn functions_before_it_in_a_chain_have_spoken() {
    let tcp = closure(
        |packet: &mut Packet<'_>| {
            if packet.dissection().proto() == Some(6) { Verdict::Ring(1) } else { Verdict::BuiltIn }
        },
    );
    let rest = each(
        r#"(if (i32.eqz (i32.load8_u offset=64 (local.get $p)))
             (then (i32.store8 offset=64 (local.get $p) (i32.const 2))
                   (i32.store16 offset=66 (local.get $p) (i32.const 2))))"#,
    );
    let (report, seen) = run(&with(Chain::function(vec![tcp, guest(&rest)])), &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    assert_eq!(seen[0].packets + seen[3].packets, 0);
    assert!(seen[1].tags.iter().all(|t| t.protocol == 6) && seen[1].packets > 100 && seen[2].packets > 100);
}
