//! A module that fails, in whatever way, costs its own packets their verdict and nobody anything else.

#[path = "../../yard/tests/common/mod.rs"]
mod common;
mod guests;

use std::time::{Duration, Instant};

use common::*;
use flowyard::function::{BATCH, Failure, Function, FunctionCounts, Limits};
use flowyard::mem::Wait;
use flowyard::{Report, Witness, Yard, YardConfig};
use flowyard_wasm::Sandbox;
use guests::*;

/// That the built-in policy held for all packets: as without a function.
fn assert_built_in(function: Function) -> (FunctionCounts, Report) {
    let ports = ["gen:mix?packets=20000"];
    let (_, plain) = run(&YardConfig { rings: 4, ..YardConfig::default() }, &ports);
    let (report, seen) = run(&with(function), &ports);
    assert_lossless(&report, &seen, 20_000);
    assert!(seen == plain, "tags and rings are those of the built-in policy");
    (report.function.expect("counted"), report)
}

fn own(report: &Report, name: &str) -> u64 {
    report.own.iter().filter(|(n, _)| n.contains(name)).map(|(_, count)| count).sum()
}

/// Calls itself for ever, with something to keep.
const ENDLESS_RECURSION: &str = "(func $deeper (param $n i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get $n) (i32.const 1))) (local.get $n)))";

#[test]
fn every_trap_is_counted_by_its_reason_and_the_function_is_switched_off() {
    let traps = [
        ("", "(unreachable)", "unreachable"),
        ("", "(i32.load (i32.const 0x7fffffff))", "out of bounds memory access"),
        ("", "(i32.store (i32.const -4) (i32.const 1)) (i32.const 0)", "out of bounds memory access"),
        ("", "(memory.fill (i32.const 0) (i32.const 1) (i32.const -1)) (i32.const 0)", "out of bounds memory access"),
        (ENDLESS_RECURSION, "(call $deeper (i32.const 0))", "call stack exhausted"),
        ("", "(i32.div_u (i32.const 1) (i32.sub (local.get $count) (local.get $count)))", "divide by zero"),
        ("(table 1 funcref)", "(call_indirect (result i32) (i32.const 0))", "uninitialized element"),
        (
            r#"(import "flowyard" "table_get" (func $get (param i32 i32 i32 i32 i32) (result i32)))"#,
            "(call $get (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 4))",
            "a table that it did not open",
        ),
        (
            r#"(import "flowyard" "say" (func $say (param i32 i32)))"#,
            "(call $say (i32.const -1) (i32.const 2)) (i32.const 0)",
            "out of bounds memory access",
        ),
    ];
    for (more, trap, reason) in traps {
        let limits = Limits { failures: 3, ..Limits::default() };
        let function = guest(&steer_with(more, &format!("{SCRIBBLE} {trap}")));
        let (counts, report) = assert_built_in(function.with_limits(limits));
        assert_eq!((counts.failed(Failure::Trapped), counts.switched_off), (counts.packets, 1), "{trap}");
        assert!(counts.packets <= 3 * BATCH as u64 + 200, "after three calls: {counts:?}");
        assert!((3..=8).contains(&own(&report, reason)), "{reason}: {report:?}");
        assert_eq!(own(&report, "restarts"), own(&report, reason), "{report:?}");
    }
}

#[test]
fn a_refusal_is_no_trap_and_takes_nothing_over() {
    let (counts, report) = assert_built_in(guest(&steer(&format!("{SCRIBBLE} (i32.const 7)"))).with_limits(NEVER));
    assert_eq!((counts.failed(Failure::Refused), own(&report, "restarts")), (20_000, 0));
}

#[test]
fn annotations_of_a_failed_call_are_as_they_were() {
    // The first packet of each batch is scribbled on; every other call traps afterwards.
    let text = each_with(
        "",
        &format!(
            r#"{SCRIBBLE}
            (i32.store offset=72 (local.get $packets) (i32.const 0))
            (if (i32.and (i32.load8_u (local.get $packets)) (i32.const 1)) (then (unreachable)))"#
        ),
    );
    let opened =
        Yard::open(&with(guest(&text).with_limits(NEVER)), &specs(&["gen:mix?packets=20000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let (mut marked, mut all) = (0, 0);
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                all += 1;
                if packet.tag().user == 99 {
                    assert_eq!(packet.annotation::<u64>().expect("64 bytes"), 77);
                    marked += 1;
                }
            }
        }
        (marked, all)
    });
    assert!(report.sums_agree() && seen.iter().map(|s| s.1).sum::<u64>() == 20_000, "{report:?}");
    let marked: u64 = seen.iter().map(|s| s.0).sum();
    assert!(marked > 20 && report.function.expect("counted").failed(Failure::Trapped) > 2000, "{marked} {report:?}");
}

#[test]
fn after_a_trap_nothing_is_remembered() {
    // Counts its calls in a global and in memory, and traps at the fifth.
    let text = steer(
        r#"(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
           (i32.store (i32.const 16) (i32.add (i32.load (i32.const 16)) (i32.const 1)))
           (if (i32.eq (global.get $calls) (i32.const 5)) (then (unreachable)))
           (i32.store offset=24 (local.get $packets) (global.get $calls))
           (i32.store offset=28 (local.get $packets) (i32.load (i32.const 16)))
           (i32.const 0)"#,
    );
    let (report, seen) = run(&with(guest(&text).with_limits(NEVER)), &["gen:mix?packets=20000"]);
    assert_lossless(&report, &seen, 20_000);
    let mut marks: Vec<u64> = seen.iter().flat_map(|s| &s.tags).map(|t| t.user).collect();
    marks.sort_unstable();
    marks.dedup();
    assert_eq!(marks, [0, 1 << 32 | 1, 2 << 32 | 2, 3 << 32 | 3, 4 << 32 | 4]);
    assert!(own(&report, "restarts") > 20, "{report:?}");
}

#[test]
fn an_endless_loop_is_stopped_within_its_time_and_the_others_go_on() {
    let sandbox = Sandbox { call_time: Duration::from_millis(20), ..Sandbox::default() };
    // Only the instance of the first dispatcher loops.
    let text = steer_with(
        r#"(global $mine (mut i32) (i32.const 0))
           (func (export "open") (param $host i32) (param i32 i32) (result i32)
             (global.set $mine (i32.load offset=16 (local.get $host))) (i32.const 0))"#,
        r#"(if (i32.eqz (global.get $mine)) (then (loop $ever (br $ever))))
           (i64.store offset=24 (local.get $packets) (i64.const 5))
           (i32.const 0)"#,
    );
    let limits = Limits { failures: 3, ..Limits::default() };
    let config = YardConfig { dispatchers: 2, ..with(guest_in(&sandbox, &text).with_limits(limits)) };
    let began = Instant::now();
    let (report, seen) = run(&config, &["gen:mix?packets=20000", "gen:mix?packets=20000&seed=3"]);
    assert_lossless(&report, &seen, 40_000);
    let counts = report.function.expect("counted");
    assert!((3..=8).contains(&own(&report, "ran longer than it may")), "{report:?}");
    assert_eq!((counts.switched_off, counts.failed(Failure::Trapped) > 0), (1, true), "{counts:?}");
    let marked: std::collections::HashSet<u16> =
        seen.iter().flat_map(|s| &s.tags).filter(|t| t.user == 5).map(|t| t.port).collect();
    assert_eq!(marked.len(), 1, "by the instance of one dispatcher");
    // Three to eight times 20 to 30 ms, on a machine that may be busy.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn failing_costs_no_more_than_a_share_of_the_time() {
    // Loops at every other call: never three in a row, so the yard would keep it.
    let text = steer_with(
        "",
        r#"(if (i32.and (i32.load8_u (local.get $packets)) (i32.const 1)) (then (loop $ever (br $ever))))
           (i32.const 0)"#,
    );
    let sandbox = Sandbox { call_time: Duration::from_millis(2), ..Sandbox::default() };
    let (counts, report) = assert_built_in(guest_in(&sandbox, &text).with_limits(NEVER));
    let stopped = own(&report, "ran longer than it may");
    assert!((5..=60).contains(&stopped) && own(&report, "given up") == 1, "{report:?}");
    assert!(counts.failed(Failure::Trapped) > stopped * 64, "the rest without being asked: {counts:?}");
}

#[test]
fn memory_grows_to_the_limit_and_no_further() {
    // Grows by a page a call, and says how many it has and what the last attempt answered.
    let text = steer(
        r#"(i32.store offset=28 (local.get $packets) (memory.grow (i32.const 1)))
           (i32.store offset=24 (local.get $packets) (memory.size))
           (i32.const 0)"#,
    );
    let sandbox = Sandbox { memory_bytes: 1 << 20, ..Sandbox::default() };
    let (report, seen) = run(&with(guest_in(&sandbox, &text)), &["gen:mix?packets=20000"]);
    assert_lossless(&report, &seen, 20_000);
    let marks: Vec<u64> = seen.iter().flat_map(|s| &s.tags).map(|t| t.user).filter(|user| *user > 0).collect();
    assert_eq!(marks.iter().map(|user| *user as u32).max(), Some(16 + 1), "1 MiB and one page of the yard's");
    assert!(marks.iter().filter(|user| *user >> 32 == 0xffff_ffff).count() > 50, "refused, and goes on");
    assert_eq!(report.function.expect("counted").failures, [0; 9]);
}

#[test]
fn one_that_cannot_be_opened_again_is_given_up() {
    // The number of tables that could be asked for tells the second opening from the first.
    let text = steer_with(
        r#"(import "flowyard" "table_open" (func $table (param i32 i32 i32 i32) (result i32)))
           (func (export "open") (param i32 i32 i32) (result i32)
             (i32.ne (call $table (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const -1)))"#,
        "(unreachable)",
    );
    let asked = std::sync::atomic::AtomicU64::new(0);
    let shape = flowyard::mem::tables::Shape::new(flowyard::mem::tables::Kind::Array, 4, 4, 1).expect("possible");
    let table = flowyard::mem::tables::Table::create("one", shape).expect("memory");
    let find = move |_: &str| (asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0).then(|| table.clone());
    let function = flowyard_wasm::load(&Written::text(&text).path, "", find).expect("it loads").with_limits(NEVER);
    let (counts, report) = assert_built_in(function);
    assert_eq!(counts.failed(Failure::Trapped), 20_000);
    assert_eq!((own(&report, "not started again"), own(&report, "restarts"), own(&report, "given up")), (1, 0, 1));
}

#[test]
fn versions_change_under_load_and_every_packet_is_marked_by_exactly_one() {
    // Added, not set: a packet that two versions saw shows.
    let version = |version: u32| {
        let body = format!(
            "(i64.store offset=24 (local.get $p) (i64.add (i64.load offset=24 (local.get $p)) (i64.const {})))",
            (1u64 << 32) + u64::from(version)
        );
        let traps =
            if version % 3 == 2 { "(if (i32.eqz (i32.load8_u (local.get $p))) (then (unreachable)))" } else { "" };
        guest(&each(&format!("{body} {traps}"))).with_limits(NEVER)
    };
    let config = YardConfig { dispatchers: 2, ..with(version(0)) };
    let (yard, readers) = Yard::open(&config, &specs(&["gen:mix", "gen:mix?seed=7"])).expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                let mut witness = Witness::new(4);
                let (mut packets, mut unmarked, mut newest) = (0u64, 0u64, [0; 2]);
                while reader.wait(None) != Wait::Ended {
                    while let Some(packet) = reader.next() {
                        witness.see_packet(&packet);
                        let tag = packet.tag();
                        packets += 1;
                        if tag.user == 0 {
                            unmarked += 1; // of a batch that trapped
                            continue;
                        }
                        let (version, last) = (tag.user as u32, &mut newest[usize::from(tag.port)]);
                        assert_eq!(tag.user >> 32, 1, "by exactly one version");
                        assert!(version >= *last || tag.kind & 3 != 0, "in order: {last} then {version}");
                        *last = version.max(*last);
                    }
                }
                (packets, unmarked, newest, witness)
            })
        })
        .collect();
    for n in 1..=30 {
        running.functions().reload(Some(&version(n))).expect("it takes over");
        let bad = try_guest(&Sandbox::default(), "(module)", "").expect_err("no guest");
        assert!(bad.to_string().contains("exports no `memory`"), "{bad}");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.stop();
    let report = join(running);
    let seen: Vec<_> = consumers.into_iter().map(|c| c.join().expect("no assertion failed")).collect();
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    assert_eq!(report.delivered(), seen.iter().map(|s| s.0).sum::<u64>());
    let counts = report.function.expect("counted");
    assert_eq!(counts.reloads, 60);
    assert_eq!(counts.failed(Failure::Trapped), seen.iter().map(|s| s.1).sum::<u64>());
    assert!(seen.iter().any(|s| s.2.iter().all(|newest| *newest > 25)), "the versions did change");
    let witnesses: Vec<_> = seen.into_iter().map(|s| s.3).collect();
    assert_eq!(Witness::compare(&witnesses).split, 0);
}
