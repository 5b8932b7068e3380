//! Native plug-ins, built here by the machine's C compiler and loaded: what they are shown, what follows what they
//! say, what is refused and in which words, and that they are replaced while packets flow.

mod built;
mod common;
#[path = "../include/flowyard_plugin.rs"]
mod flowyard_plugin;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use built::*;
use common::*;
use flowyard::function::{Chain, Failure, Limits, Packet, Verdict, closure};
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard::mem::{Grant, Tag, Wait};
use flowyard::steer::TunnelKind;
use flowyard::{Aside, Group, Yard, YardConfig, plugin};

/// What loading it says, in words.
fn refused(path: &Path) -> String {
    plugin::load(path, "", no_tables).expect_err("no plug-in").to_string()
}

#[test]
fn the_header_says_what_the_rust_file_says() {
    use flowyard_plugin as ours;
    let dir = folder();
    let program = dir.path().join("layout");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", INCLUDE, "-o"]).arg(&program);
    if !compiles(cc.arg(Path::new(SOURCES).join("layout.c"))) {
        return;
    }
    let output = Command::new(&program).output().expect("it runs");
    let printed = String::from_utf8(output.stdout).expect("text");
    let theirs: BTreeMap<&str, i64> = printed
        .lines()
        .map(|line| line.split_once(' ').expect("two words"))
        .map(|(name, n)| (name, n.parse().expect("a number")))
        .collect();
    let mut known = HashSet::new();
    let mut same = |name: &'static str, ours: i64| {
        assert_eq!(theirs.get(name), Some(&ours), "{name}");
        assert!(known.insert(name), "{name} twice");
    };
    macro_rules! layout {
        ($type:ident $name:literal: $($field:ident)*) => {
            same($name, size_of::<ours::$type>() as i64);
            $(same(
                concat!($name, ".", stringify!($field)),
                std::mem::offset_of!(ours::$type, $field) as i64,
            );)*
        };
    }
    layout!(Tag "tag": hash ring stop depth outer_l3 inner_l3 inner_l4 protocol kind tunnel_id tunnel_kind hash_version
            vlan user time_ns flags wire_len len port queue card_hash stripped_vlan link);
    layout!(Place "place": buffer region offset len);
    layout!(Batch "batch": count verdicts tags buffers places copies buffer_bytes buffer_count place_bytes
            annotation_bytes decided corrected zero);
    layout!(Verdict "verdict": kind zero ring value slice pull zero2);
    layout!(Host "host": abi size rings annotation_bytes dispatcher dispatchers table_open table_get);
    layout!(Plugin "plugin": abi size name state_version zero open close steer check control tick adopt counter);
    macro_rules! constants {
        ($($prefix:literal $module:ident: $($name:ident)*;)*) => {
            $($(same(concat!($prefix, stringify!($name)), i64::from(ours::$module::$name));)*)*
        };
    }
    constants! {
        "" flags: CHECKSUM_PARTIAL CHECKSUM_VALID GSO VLAN_STRIPPED TRUNCATED HARDWARE_TIME CARD_HASH FRAGMENT_FALLBACK
                  OUTGOING VLAN_SERVICE;
        "CLOCK_" clock: NONE REALTIME RECORDED HARDWARE GENERATED;
        "" kind: FRAGMENT_MASK FRAGMENT_NONE FRAGMENT_FIRST FRAGMENT_LATER INNER_IPV6 ICMP_ERROR ICMP_QUOTE;
        "TUNNEL_" tunnel: NONE IP GRE PPTP GTP VXLAN PPPOE MPLS GENEVE L2TP OTHER;
        "" verdict: BUILT_IN HASH RING DROP SHUNT EVERY_RING HOST;
        "" lookup: FOUND ABSENT BUSY;
    }
    same("PLUGIN_ABI", ours::ABI.into());
    same("BATCH", ours::BATCH as i64);
    same("COPY_BYTES", ours::COPY_BYTES as i64);
    same("NO_OFFSET", ours::NO_OFFSET.into());
    let forgotten: Vec<_> = theirs.keys().filter(|name| !known.contains(*name)).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

#[test]
fn the_header_is_good_for_cpp() {
    let dir = folder();
    let source = dir.path().join("plugin.cc");
    let text = r#"
        #include <flowyard_plugin.h>
        static int steer(void *, flowyard_batch *batch) {
            flowyard_packet packet = flowyard_packet_at(batch, 0);
            flowyard_mark(batch, 0, packet.bytes_len);
            flowyard_decide(batch, 0)->kind = FLOWYARD_DROP;
            flowyard_correct(batch, 0)->vlan = 1;
            return 0;
        }
        static const struct flowyard_plugin plugin = {
            FLOWYARD_PLUGIN_ABI, sizeof plugin, "cpp", 0, 0, nullptr, nullptr, steer, nullptr, nullptr, nullptr,
            nullptr, nullptr };
        FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) { return &plugin; }
    "#;
    fs::write(&source, text).expect("room on disk");
    let to = dir.path().join("cpp.so");
    let mut cpp = Command::new("c++");
    cpp.args(["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I", INCLUDE, "-o"]);
    if compiles(cpp.arg(&to).arg(&source)) {
        assert_eq!(load(&to, "").name(), "cpp");
    }
}

#[test]
fn what_is_no_plug_in_is_refused_with_file_reason_and_way_out() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    let said = refused(&at("absent.so"));
    assert!(said.contains("absent.so: cannot be read: No such file") && said.contains("is the path right?"), "{said}");
    assert!(refused(dir.path()).contains("is not a file"));
    fs::write(at("script.so"), "#!/bin/sh\n").expect("room on disk");
    let said = refused(&at("script.so"));
    assert!(said.contains("script.so: is not an ELF shared object") && said.contains("cc -shared -fPIC"), "{said}");
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("abi", &["-DABI=99"], &["is built for version 99 of the interface, and this yard has 2", "build it anew"]),
        ("size", &["-DSIZE=40"], &["has 40 bytes, not 48 or more", "sizeof"]),
        ("odd", &["-DSIZE=99"], &["has 99 bytes"]),
        ("null", &["-DNO_STRUCT"], &["answers 0x0"]),
        ("steer", &["-DNO_STEER"], &["has no function `steer`"]),
        ("name", &["-DNAME=\"a b\""], &["gives itself the name \"a b\""]),
        ("nameless", &["-DNAME=NULL"], &["gives itself no name"]),
        ("undefined", &["-include", "nowhere.h"], &["cannot be loaded", "undefined symbol: nowhere"]),
        (
            "symbol",
            &["-Dflowyard_plugin=something_else"],
            &["has no symbol `flowyard_plugin`", "FLOWYARD_PLUGIN_EXPORT"],
        ),
    ];
    fs::write(at("nowhere.h"), "extern int nowhere; __attribute__((used)) static int *there = &nowhere;")
        .expect("room");
    let include = format!("-I{}", dir.path().display());
    for (name, flags, words) in cases {
        let flags: Vec<&str> = flags.iter().copied().chain([include.as_str(), "-Wno-nonnull", "-Wno-unused"]).collect();
        let Some(path) = build(&dir, "probe.c", &format!("{name}.so"), &flags) else { return };
        let said = refused(&path);
        assert!(said.contains(&path.display().to_string()), "{name}: {said}");
        words.iter().for_each(|words| assert!(said.contains(words), "{name}: {said}"));
        assert!(!said.contains("/proc/self"), "the path that the user knows: {said}");
    }
    let whole = build(&dir, "probe.c", "whole.so", &[]).expect("a compiler: it was there just now");
    let bytes = fs::read(&whole).expect("just built");
    fs::write(at("half.so"), &bytes[..bytes.len() / 8]).expect("room on disk");
    let said = refused(&at("half.so"));
    assert!(said.contains("is cut off") && said.contains("rename it"), "{said}");
}

#[test]
fn an_instance_that_cannot_be_had_is_refused_in_the_plug_ins_own_words() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let cases = [
        ("open-fails", "cannot be opened: dispatcher 0 of 1, 4 rings, 64 bytes: no"),
        ("open-fails-silently", "the plug-in does not say why"),
        ("open-fails-at-length", "cannot be opened: xxxx"),
        ("check-fails", "fails its own check: it would not work"),
        ("table=t", r#"there is no table "t""#),
    ];
    for (config, words) in cases {
        let said = refused_to_open(load(&path, config));
        assert!(said.contains(words) && said.contains("probe.so"), "{config}: {said}");
    }
    assert!(refused_to_open(load(&path, "a\0b")).contains("has a byte 0 in it"));
    let chain = Chain::function(vec![load(&path, ""), load(&path, "check-fails")]);
    assert!(refused_to_open(chain).contains("probe: it would not work"));
    let Some(stateless) = build(&dir, "empty.c", "empty.so", &[]) else { return };
    assert!(refused_to_open(load(&stateless, "x")).contains("takes no configuration"));
    // A running yard keeps what it has.
    let (yard, readers) = Yard::open(&with(load(&path, "")), &specs(&["gen:mix?packets=20000"])).expect("it opens");
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r))).collect();
    let running = yard.start().expect("threads start");
    running.functions().reload(Some(&load(&path, "check-fails"))).expect_err("refused");
    let report = join(running);
    let seen: Vec<Seen> = consumers.into_iter().map(|c| c.join().expect("no panic")).collect();
    assert_lossless(&report, &seen, 20_000);
    assert!(seen.iter().flat_map(|s| &s.tags).all(|tag| tag.user == 1 << 48 | 1));
}

#[test]
fn failures_are_counted_and_the_built_in_policy_holds() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let ports = ["gen:mix?packets=20000"];
    let (_, built_in) = run(&YardConfig::default(), &ports);
    let always = Limits { failures: u32::MAX, budget: Duration::from_secs(100) };
    let run_probe = |config: &str, limits: Limits| {
        let mut function = load(&path, config);
        function.limits = limits;
        let (report, seen) = run(&with(function), &ports);
        assert_lossless(&report, &seen, 20_000);
        for (seen, built_in) in seen.iter().zip(&built_in) {
            assert_eq!(seen.tags.len(), built_in.tags.len(), "{config}: the ring is the built-in one");
        }
        (report.function.expect("counted"), seen)
    };
    let (counts, seen) = run_probe("refuse", always);
    assert_eq!((counts.failed(Failure::Refused), counts.built_in), (20_000, 20_000));
    assert!(seen.iter().zip(&built_in).all(|(a, b)| a.tags == b.tags), "what it wrote into tags is undone");
    let (counts, _) = run_probe("ring=9", always);
    assert_eq!((counts.failed(Failure::BadRing), counts.built_in), (20_000, 20_000));
    let (counts, _) = run_probe("pull=9999", always);
    assert_eq!(counts.failed(Failure::BadEdit), 20_000);
    let slow = Limits { budget: Duration::from_micros(100), failures: 5 };
    let (counts, _) = run_probe("slow-ms=1", slow);
    assert!(counts.failed(Failure::OverBudget) >= 5 && counts.switched_off == 1, "{counts:?}");
}

#[test]
fn what_it_writes_reaches_the_consumer_and_in_a_chain_it_comes_after_others() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    // What the yard says of a packet stands right for who comes after, whatever was written there: the probe looks.
    let first = closure(|packet: &mut Packet<'_>| {
        *packet.tag_mut() = Tag { ring: u16::MAX, hash_version: 77, ..Tag::default() };
        packet.mark(1 << 60);
        Verdict::BuiltIn
    });
    for annotation_bytes in [0, 64, 256] {
        let chain = Chain::function(vec![first.clone(), load(&path, "generation=3 ring=1")]);
        assert_eq!(chain.name(), "closure → probe");
        let config = YardConfig { annotation_bytes, ..with(chain) };
        let opened = Yard::open(&config, &specs(&["gen:mix?packets=10000"])).expect("it opens");
        let (report, seen) = run_with(opened, |mut reader| {
            let mut packets = 0;
            while reader.wait(None) != Wait::Ended {
                while let Some(packet) = reader.next() {
                    let tag = packet.tag();
                    assert_eq!(tag.user, 1 << 60 | 1 << 48 | 3 << 8 | 1);
                    assert_eq!((tag.len as usize, tag.ring, tag.hash), (packet.len(), 1, packet.slot().hash));
                    assert_ne!(tag.hash_version, 77);
                    let sum = packet.data().iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
                    if annotation_bytes > 0 {
                        assert_eq!(packet.annotation::<u64>().expect("room"), sum);
                    }
                    packets += 1;
                }
            }
            packets
        });
        assert_eq!(seen, [0, 10_000, 0, 0]);
        assert!(report.sums_agree());
    }
}

#[test]
fn tables_are_asked_without_being_torn_or_missed() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    // By the built-in ring: 0 to ring 3, 1 to ring 2, of 2 nothing is known, 3 stays.
    let table = Table::create("rings", Shape::new(Kind::Array, 4, 4, 4).expect("a shape")).expect("memory");
    for (index, ring) in [(0u32, 3u32), (1, 2), (3, 3)] {
        table.set(&index.to_le_bytes(), &ring.to_le_bytes()).expect("room");
    }
    let ports = ["gen:mix?packets=20000"];
    let (built_in, _) = run(&YardConfig::default(), &ports);
    let function = plugin::load(&path, "table=rings key=4 value=4", move |_| Some(table.clone())).expect("loads");
    let (report, _) = run(&with(function), &ports);
    let packets = |report: &flowyard::Report| report.rings.iter().map(|r| r.packets).collect::<Vec<_>>();
    let was = packets(&built_in);
    assert_eq!(packets(&report), [0, 0, was[1], was[0] + was[3]]);
    assert_eq!(report.asides[Aside::Verdict as usize], was[2]);
}

#[test]
fn a_groups_plug_in_reads_what_the_yards_wrote_and_changes_nothing() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let group = Group { function: Some(load(&path, "group")), ..Group::new("second", 3) };
    let config = YardConfig { groups: vec![group], ..with(load(&path, "generation=1")) };
    let opened = Yard::open(&config, &specs(&["gen:mix?packets=20000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let mut packets = 0;
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let sum = packet.data().iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
                assert_eq!((packet.annotation::<u64>().expect("room"), packet.tag().user), (sum, 1 << 48 | 1 << 8 | 1));
                packets += 1;
            }
        }
        packets
    });
    assert_eq!(seen[..4].iter().sum::<u64>(), 20_000);
    assert_eq!(seen[4..].iter().sum::<u64>(), 20_000);
    assert!(seen[4..].iter().all(|packets| *packets > 5_000), "{seen:?}");
    assert!(report.sums_agree());
}

#[test]
fn where_a_foreign_process_may_write_it_works_on_copies() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let (yard, readers) = Yard::open(&with(load(&path, "")), &specs(&["gen:mix?packets=5000"])).expect("it opens");
    let _foreign = yard.region().grant(Grant::Write).expect("not sealed yet");
    let consumers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                let mut packets = 0;
                while reader.wait(None) != Wait::Ended {
                    while let Some(packet) = reader.next() {
                        let bytes = packet.data().iter();
                        let sum = bytes.fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add((*b).into()));
                        assert_eq!(packet.annotation::<u64>().expect("room"), sum);
                        assert_eq!(packet.tag().user, 1 << 48 | 1);
                        packets += 1;
                    }
                }
                packets
            })
        })
        .collect();
    let report = join(yard.start().expect("threads start"));
    let seen: u64 = consumers.into_iter().map(|c| c.join().expect("no assertion failed")).sum();
    assert_eq!((seen, report.delivered()), (5000, 5000));
}

#[test]
fn requests_are_answered_and_counters_told() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let opened = Yard::open(&with(load(&path, "")), &specs(&["gen:mix?rate=20000&seconds=60"]));
    let (yard, readers) = opened.expect("it opens");
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r))).collect();
    let running = yard.start().expect("threads start");
    let ask = |request: &[u8]| running.functions().control(request).expect("it runs").remove(0);
    assert_eq!(ask(b"hello\0you"), Ok(b"hello\0you".to_vec()));
    assert_eq!(ask(b""), Ok(Vec::new()));
    assert_eq!(ask(b"no"), Err("not today".into()));
    assert!(ask(b"much").expect_err("too much").contains("65537 bytes, for which there is no room"));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = &running.functions().status()[0];
        let own: HashMap<_, _> = status.own.iter().cloned().collect();
        assert_eq!((own.len(), status.name.as_deref()), (3, Some("probe")));
        if own["ticks"] >= 2 && own["seen"] > 0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{own:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.stop();
    assert!(join(running).sums_agree());
    consumers.into_iter().for_each(|c| drop(c.join().expect("no panic")));
}

/// The lines that instances wrote when they were closed: generation, build, packets seen.
fn closed(file: &Path) -> Vec<[u64; 3]> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let numbers = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        [words[1], words[3], words[5]].map(|n| n.parse().expect("a number"))
    };
    text.lines().map(numbers).collect()
}

#[test]
fn two_hundred_replacements_under_load_lose_nothing_and_carry_their_state_over() {
    const RELOADS: u64 = 200;
    let dir = folder();
    // In one place, as a user would do it: one build after the other takes the same name.
    let place = dir.path().join("plugin.so");
    let Some(one) = build(&dir, "probe.c", "one.so", &["-DBUILD=1"]) else { return };
    let Some(two) = build(&dir, "probe.c", "two.so", &["-DBUILD=2"]) else { return };
    let file = dir.path().join("closed");
    let version = |generation: u64| {
        let next = dir.path().join("next.so");
        fs::copy(if generation.is_multiple_of(2) { &one } else { &two }, &next).expect("room on disk");
        fs::rename(&next, &place).expect("the same folder");
        load(&place, &format!("generation={generation} file={}", file.display()))
    };
    let config = YardConfig { dispatchers: 2, ..with(version(0)) };
    let (yard, readers) =
        Yard::open(&config, &specs(&["gen:mix?packets=1000000000", "gen:mix?packets=1000000000&seed=7"]))
            .expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers
        .into_iter()
        .map(|mut reader| {
            std::thread::spawn(move || {
                let (mut packets, mut newest, mut changes) = (0u64, [0; 2], 0);
                while reader.wait(None) != Wait::Ended {
                    while let Some(packet) = reader.next() {
                        let tag = packet.tag();
                        assert_eq!(tag.user >> 48, 1, "by exactly one instance");
                        let (generation, build) = (tag.user >> 8 & 0xffff, tag.user & 0xff);
                        assert_eq!(build, 1 + generation % 2, "its own code with its own state");
                        let last = &mut newest[usize::from(tag.port)];
                        assert!(generation >= *last, "in order: {last} then {generation}");
                        changes += u64::from(generation != *last);
                        *last = generation;
                        packets += 1;
                    }
                }
                (packets, changes)
            })
        })
        .collect();
    for generation in 1..=RELOADS {
        running.functions().reload(Some(&version(generation))).expect("it takes over");
    }
    assert!(!running.is_finished(), "under load to the end");
    running.stop();
    let report = join(running);
    let seen: Vec<_> = consumers.into_iter().map(|c| c.join().expect("no assertion failed")).collect();
    assert!(report.sums_agree() && report.buffers_missing == 0 && report.violations == 0, "{report:?}");
    assert_eq!(report.delivered(), seen.iter().map(|s| s.0).sum::<u64>());
    assert!(seen.iter().all(|s| s.1 > 50), "versions changed while packets flowed: {seen:?}");
    let counts = report.function.expect("counted");
    assert_eq!((counts.reloads, counts.failures), (2 * RELOADS, [0; Failure::ALL.len()]));
    // Each of two instances a version closed once, the old build by its own code; the last ones have seen all.
    let mut closed = closed(&file);
    closed.sort();
    let expected = (0..=RELOADS).flat_map(|generation| [[generation, 1 + generation % 2]; 2]);
    assert_eq!(closed.iter().map(|line| [line[0], line[1]]).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let last: u64 = closed.iter().filter(|line| line[0] == RELOADS).map(|line| line[2]).sum();
    assert_eq!((last, counts.packets), (report.received(), report.received()), "the count was carried over");
    drop(config); // the first version
    let mapped = fs::read_to_string("/proc/self/maps").expect("Linux");
    assert_eq!(mapped.matches("flowyard-plugin-plugin.so").count(), 0, "no library is left behind");
}

#[test]
fn state_is_adopted_by_the_same_name_and_version_only() {
    let dir = folder();
    let Some(old) = build(&dir, "probe.c", "old.so", &[]) else { return };
    let others: [(&str, &[&str], bool); 3] = [
        ("same.so", &["-DBUILD=2"], true),
        ("renamed.so", &["-DNAME=\"other\""], false),
        ("later.so", &["-DSTATE_VERSION=2"], false),
    ];
    for (name, flags, adopted) in others {
        let new = build(&dir, "probe.c", name, flags).expect("a compiler: it was there just now");
        let opened = Yard::open(&with(load(&old, "")), &specs(&["gen:mix?rate=20000&seconds=60"]));
        let (yard, readers) = opened.expect("it opens");
        let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r))).collect();
        let running = yard.start().expect("threads start");
        // By way of a function that is no plug-in at all there is nothing to adopt.
        running.functions().reload(Some(&load(&new, ""))).expect("it takes over");
        let own = |name: &str| {
            let own = running.functions().status().remove(0).own;
            own.into_iter().find(|(known, _)| known == name).map(|(_, n)| n)
        };
        assert_eq!(own("adopted"), Some(u64::from(adopted)), "{name}");
        running.functions().reload(Some(&closure(|_: &mut Packet<'_>| Verdict::BuiltIn))).expect("it takes over");
        running.functions().reload(Some(&load(&new, ""))).expect("it takes over");
        assert_eq!(own("adopted"), Some(0), "{name}");
        running.stop();
        assert!(join(running).sums_agree());
        consumers.into_iter().for_each(|c| drop(c.join().expect("no panic")));
    }
}

#[test]
fn a_file_overwritten_or_removed_while_loaded_does_no_harm() {
    let dir = folder();
    let Some(path) = build(&dir, "probe.c", "probe.so", &[]) else { return };
    let file = dir.path().join("closed");
    let function = load(&path, &format!("file={}", file.display()));
    let opened = Yard::open(&with(function.clone()), &specs(&["gen:mix?packets=100000"]));
    let (yard, readers) = opened.expect("it opens");
    // In place, as a compiler or cp does it: the same inode.
    let len = fs::metadata(&path).expect("just built").len();
    fs::write(&path, vec![0xcc; len as usize]).expect("room on disk");
    let (report, seen) = run_with((yard, readers), take_all);
    assert_lossless(&report, &seen, 100_000);
    assert!(seen.iter().flat_map(|s| &s.tags).all(|tag| tag.user == 1 << 48 | 1));
    assert!(refused(&path).contains("is not an ELF shared object"), "loaded anew it is what it is now");
    fs::File::create(&path).expect("it is cut to nothing");
    assert!(refused(&path).contains("is empty"));
    fs::remove_file(&path).expect("it is there");
    let (report, seen) = run(&with(function), &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    assert_eq!(closed(&file), [[0, 1, 100_000], [0, 1, 10_000]], "each instance closed once");
}

/// Two conversations of two customers in the private tunnel, and what is not of it.
fn tunnelled() -> Vec<(Vec<u8>, u64)> {
    let sums = |bytes: &[u8]| {
        let sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
        !((sum & 0xffff) + (sum >> 16)) as u16
    };
    let ip = |protocol: u8, from: [u8; 4], to: [u8; 4], payload: &[u8]| {
        let mut packet = vec![0x45, 0];
        packet.extend((20 + payload.len() as u16).to_be_bytes());
        packet.extend([0, 9, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(from.iter().chain(&to));
        let sum = sums(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(payload);
        packet
    };
    let udp = |from: u16, to: u16, payload: &[u8]| {
        let mut datagram = Vec::new();
        [from, to, 8 + payload.len() as u16, 0].iter().for_each(|word| datagram.extend(word.to_be_bytes()));
        datagram.extend(payload);
        datagram
    };
    let mut frames = Vec::new();
    for n in 0..4000u32 {
        let (customer, flow, backward) = ((n % 2) as u16 + 1, (n / 2 % 50) as u16, n % 3 == 0);
        let (mut hosts, mut ports) = ([[10, 0, 0, 1], [10, 0, 0, 2]], [20_000 + flow, 443]);
        // The outside says nothing of the conversation: another port for each packet.
        let mut ends = [[172, 16, 0, 1], [172, 16, 0, 2]];
        if backward {
            hosts.reverse();
            ports.reverse();
            ends.reverse();
        }
        let inner = ip(17, hosts[0], hosts[1], &udp(ports[0], ports[1], &n.to_be_bytes()));
        let mut header = vec![0xf7, 0x0d, 1, 0];
        header.extend((inner.len() as u16).to_be_bytes());
        header.extend(customer.to_be_bytes());
        header.extend(&inner);
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend(ip(17, ends[0], ends[1], &udp(50_000 + n as u16 % 5000, 47_000, &header)));
        frames.push((frame, u64::from(n)));
    }
    frames
}

#[test]
fn a_plug_in_in_rust_takes_a_private_tunnel_off() {
    let dir = folder();
    let project = Path::new(EXAMPLES).join("private_tunnel");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--quiet", "--manifest-path"]).arg(project.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(dir.path()).env_remove("RUSTFLAGS");
    if !compiles(&mut cargo) {
        return;
    }
    let path = dir.path().join("debug/libprivate_tunnel.so");
    assert!(refused_to_open(load(&path, "port = many")).contains(r#"cannot read "port = many": write port = 47000"#));
    let capture = dir.path().join("tunnel.pcapng");
    write_capture(&capture, &tunnelled());
    let opened = Yard::open(&with(load(&path, "port = 47000")), &specs(&[&pcap(&capture)])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let mut seen = Vec::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let (tag, slot, bytes) = (packet.tag(), packet.slot(), packet.data());
                let stripped = 14 + 20 + 8 + 8;
                assert_eq!((tag.inner_l3, tag.inner_l4, tag.outer_l3), (stripped, stripped + 20, 14));
                assert_eq!((slot.l3, slot.l4), (tag.inner_l3, tag.inner_l4));
                assert_eq!(
                    (tag.tunnel_id, tag.tunnel_kind, tag.protocol),
                    (tag.user as u32, TunnelKind::Other as u8, 17)
                );
                assert_eq!((bytes[0], bytes.len(), tag.len), (0x45, 32, 32), "from the inner header on");
                let (a, b) = (&bytes[12..16], &bytes[16..20]);
                let (port_a, port_b) = (&bytes[20..22], &bytes[22..24]);
                let ends = if a < b { [a, b, port_a, port_b] } else { [b, a, port_b, port_a] };
                seen.push((tag.ring, tag.user, ends.concat(), tag.time_ns));
            }
        }
        seen
    });
    assert_eq!(report.delivered(), 4000);
    assert_eq!(report.function.expect("counted").built_in, 0);
    let mut rings: HashMap<(u64, Vec<u8>), HashSet<u16>> = HashMap::new();
    for (ring, customer, ends, time_ns) in seen.into_iter().flatten() {
        assert_eq!(customer, time_ns % 2 + 1);
        rings.entry((customer, ends)).or_default().insert(ring);
    }
    assert_eq!(rings.len(), 100, "50 conversations of two customers");
    assert!(rings.values().all(|rings| rings.len() == 1), "both directions");
    let apart = |n: u16| {
        let of = |customer| rings.iter().find(|((c, e), _)| *c == customer && e[8..10] == (20_000 + n).to_be_bytes());
        of(1).map(|(_, r)| r) != of(2).map(|(_, r)| r)
    };
    assert!((0..50).filter(|n| apart(*n)).count() > 20, "the same addresses of two customers are two conversations");
}
