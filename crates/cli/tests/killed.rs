//! Owners of an interface that are killed under load, at any time: the next one finds what was left, traffic flows
//! again, and what the wire carried is accounted for to the packet.

mod program;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};
use program::*;
use serde_json::Value;

/// Times that an owner is killed, for each way of running.
const KILLS: u64 = 12;

fn run(ports: &[String], more: &[&str]) -> Child {
    Command::new(PROGRAM)
        .arg("run")
        .args(ports)
        .args(["--rings", "4", "--no-verify", "--json", "--quiet"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program runs")
}

/// Ends it in order and answers its figures.
fn ended(child: Child) -> Value {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    json(&child.wait_with_output().expect("it ends"))
}

/// A column of /proc/net/dev.
fn of_interface(name: &str, column: usize) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("/proc is there");
    let line = table.lines().find_map(|l| l.trim().strip_prefix(&format!("{name}:"))).expect("it is there");
    line.split_whitespace().nth(column).and_then(|n| n.parse().ok()).expect("a number")
}

/// The interfaces, and the other ends of their wires.
const INTERFACES: [(&str, &str); 2] = [("fy0", "fy1"), ("fy2", "fy3")];

/// Sends by so many wires, at a pace that the machine keeps up with, until told to stop; says how many went by each.
fn load(wires: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let ends = INTERFACES[..wires].iter().map(|(_, end)| Injector::open(end).expect("root may"));
    let ends: Vec<Injector> = ends.collect();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let frames: Vec<_> = (number..number + 32).map(|n| numbered_frame(n as u16 % 50, n, 100)).collect();
        for end in &ends {
            end.send(&frames).expect("the interface is up");
        }
        number += 32;
        sent.store(number, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Some number up to `most`: differs from run to run, and is printed where it matters.
fn any(state: &mut u64, most: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % most
}

fn note(report: &Value, port: usize, name: &str) -> u64 {
    report["ports"][port]["notes"][name].as_u64().unwrap_or_else(|| panic!("there is no {name}: {report:#}"))
}

/// Interfaces with a program.
fn with_programs() -> usize {
    let has = |(name, _): &&(&str, &str)| {
        let shown = Command::new("ip").args(["link", "show", name]).output().expect("ip runs");
        String::from_utf8_lossy(&shown.stdout).contains("xdp")
    };
    INTERFACES.iter().filter(has).count()
}

/// Waits until it has put its programs on so many interfaces.
fn begun(mut child: Child, count: usize) -> Child {
    let deadline = Instant::now() + Duration::from_secs(10);
    while with_programs() < count {
        assert!(Instant::now() < deadline && child.try_wait().is_ok_and(|ended| ended.is_none()), "it comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Waits until the interface has its program and what was sent arrives.
fn serves(sent: &AtomicU64) {
    let from = sent.load(Ordering::Relaxed);
    while sent.load(Ordering::Relaxed) < from + 64 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until so many journals name this process.
fn owns(folder: &Path, child: &mut Child, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let line = format!("\nowner {} ", child.id());
    let named = || {
        let files = std::fs::read_dir(folder).expect("the folder").flatten();
        let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
        texts.filter(|text| text.contains(&line)).count() >= count
    };
    while !named() {
        assert!(Instant::now() < deadline && child.try_wait().is_ok_and(|ended| ended.is_none()), "it comes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills owners of these ports, on fy0 and fy2, at any time, and answers the report of the last, which ends in order, and
/// what was sent by each wire.
fn killed_again_and_again(folder: &Path, ports: &[String], more: &[&str]) -> (Value, Vec<u64>) {
    let seed = Instant::now().elapsed().as_nanos() as u64
        ^ std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    println!("{ports:?} {more:?}: seed {seed}");
    let mut state = seed;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let namespace = Namespace::new().expect("root may");
    let (count, interfaces) = (ports.len(), &INTERFACES[..ports.len()]);
    for (name, peer) in interfaces.iter().copied() {
        namespace.veth(&Veth { name, peer, queues: 2, ..Veth::default() }).expect("root may");
    }
    namespace.run(|| {
        // The first one begins when nothing has been sent, so that nothing is missed before it.
        let first = begun(run(ports, more), count);
        let inside = &namespace;
        std::thread::scope(|scope| {
            let loading = scope.spawn(|| inside.run(|| load(count, &stop, &sent)));
            let mut child = first;
            for kill in 0..KILLS {
                // Some while they start, most while they run; of these some surely, however slow the machine.
                if kill % 3 == 1 {
                    owns(folder, &mut child, count);
                }
                let wait = if kill % 3 == 2 { any(&mut state, 150) } else { 250 + any(&mut state, 350) };
                std::thread::sleep(Duration::from_millis(wait));
                child.kill().expect("killed");
                if kill % 2 == 0 {
                    child.wait().expect("it is gone"); // else the next one comes while it goes
                    std::thread::sleep(Duration::from_millis(any(&mut state, 40)));
                    child = run(ports, more);
                } else {
                    let next = run(ports, more);
                    child.wait().expect("it is gone");
                    child = next;
                }
            }
            owns(folder, &mut child, count);
            std::thread::sleep(Duration::from_millis(500));
            serves(&sent);
            stop.store(true, Ordering::Relaxed);
            loading.join().expect("it sends");
            std::thread::sleep(Duration::from_millis(100));
            let report = ended(child);
            let wires =
                interfaces.iter().map(|(_, end)| sent.load(Ordering::Relaxed) - of_interface(end, 11)).collect();
            if ports[0].contains("keep&") {
                assert_eq!(with_programs(), count, "the programs stay when their owner ends in order");
                let ports: Vec<String> = ports.iter().map(|port| port.replace("keep&", "")).collect();
                let last = run(&ports, &[more, &["--for", "0.3"]].concat());
                let last = json(&last.wait_with_output().expect("it ends"));
                for port in 0..count {
                    assert!(last["ports"][port]["mode"].as_str().is_some_and(|m| m.contains("took over")), "{last:#}");
                    assert_eq!(note(&last, port, "before-owners"), 0, "the one before ended in order: {last:#}");
                }
            }
            assert_eq!(with_programs(), 0, "nothing stays on the interfaces");
            (report, wires)
        })
    })
}

fn nothing_is_left(journal: &Path) {
    let left: Vec<_> = std::fs::read_dir(journal).expect("the folder").flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Kills owners of so many interfaces, and holds each port's figures against its wire.
fn killed_owners_are_accounted_for(interfaces: usize, ways: &[(&str, &[&str])]) {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = format!("journal={}", folder.path().display());
    for (options, more) in ways {
        let ports: Vec<String> =
            INTERFACES[..interfaces].iter().map(|(name, _)| format!("xdp:{name}{options}{journal}")).collect();
        let (report, wires) = killed_again_and_again(folder.path(), &ports, more);
        for (at, (port, wire)) in ports.iter().zip(wires).enumerate() {
            let own = &report["ports"][at];
            let lost: u64 = own["lost"].as_object().expect("counters").values().filter_map(Value::as_u64).sum();
            let now = own["packets"].as_u64().expect("a number") + lost + note(&report, at, "passed-to-host");
            let before: Vec<u64> = ["received", "lost", "unread", "passed-to-host", "unseen"]
                .map(|what| note(&report, at, &format!("before-{what}")))
                .into();
            println!("{port} {more:?}: {wire} on the wire, {now} came to the last, before it {before:?}");
            assert!(own["packets"].as_u64() > Some(0) && before[0] > 0, "traffic flows: {report:#}");
            assert!(note(&report, at, "before-owners") > KILLS / 4, "they are told: {report:#}");
            let told = now + before.iter().sum::<u64>();
            // To the packet where the program stays. Where it goes with its owner, veth may throw away what is on its own
            // rings at that moment, and counts it nowhere.
            let untold = if *options == "?" { KILLS * 16 } else { 0 };
            assert!(told <= wire && told + untold >= wire, "{port} {more:?}: {told} of {wire}: {report:#}");
        }
        nothing_is_left(folder.path());
    }
}

#[test]
fn what_killed_owners_lost_is_told_to_the_packet() {
    flowyard_testkit::require_root!();
    let kernel: &[&str] = &["--steer", "kernel"];
    killed_owners_are_accounted_for(1, &[("?", &[]), ("?", kernel), ("?keep&", &[]), ("?keep&", kernel)]);
}

#[test]
fn what_killed_owners_of_two_interfaces_lost_is_told_to_the_packet() {
    flowyard_testkit::require_root!();
    let kernel: &[&str] = &["--steer", "kernel"];
    killed_owners_are_accounted_for(
        2,
        &[("?", kernel), ("?keep&", kernel), ("?keep&", &["--steer", "kernel", "--relay"])],
    );
}
