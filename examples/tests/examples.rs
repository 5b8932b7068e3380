//! The examples run, and print what they promise.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

/// Runs an example; answers its standard output. Panics unless it succeeds.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it was just built");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// The number behind `before` on the first line that has it.
fn number(text: &str, before: &str) -> u64 {
    let from = text.find(before).unwrap_or_else(|| panic!("no {before:?} in:\n{text}")) + before.len();
    let digits: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before:?} in:\n{text}"))
}

#[test]
fn count() {
    let out = run(env!("CARGO_BIN_EXE_count"), &["gen:mix?packets=20000"]);
    let rings: u64 = (0..4).map(|ring| number(&out, &format!("ring {ring}: "))).sum();
    assert_eq!((rings, number(&out, "received "), number(&out, "dropped ")), (20_000, 20_000, 0), "{out}");
    assert!((0..4).all(|ring| number(&out, &format!("ring {ring}: ")) > 2000), "{out}");
}

#[test]
fn count_of_several_ports() {
    let out = run(env!("CARGO_BIN_EXE_count"), &["gen:mix?packets=1000", "gen:vxlan?packets=500&seed=2"]);
    assert_eq!(number(&out, "delivered "), 1500, "{out}");
}

#[test]
fn a_port_that_cannot_be_is_said() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_count")).arg("pcap:/no/such/file").output().expect("it was just built");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file"));
}

#[test]
fn workers() {
    let out = run(env!("CARGO_BIN_EXE_workers"), &["gen:mix?packets=10000", "gen:mix?packets=10000&seed=2"]);
    let rings: u64 = (0..4).map(|ring| number(&out, &format!("worker {}, ring {ring}: ", ring / 2))).sum();
    assert_eq!((rings, number(&out, "received "), number(&out, "dropped ")), (20_000, 20_000, 0), "{out}");
}

#[test]
fn annotate() {
    // Frames under 300 bytes: no fragments, so every conversation can be found again.
    let out = run(env!("CARGO_BIN_EXE_annotate"), &["gen:mix?packets=20000&size=60-299"]);
    assert!(out.contains("all rings: 20000 of 20000 packets wrapped, 20000 found again, 0 wrong"), "{out}");
    let out = run(env!("CARGO_BIN_EXE_annotate"), &["gen:mix?packets=20000"]);
    assert!(out.contains("20000 of 20000 packets wrapped") && out.contains(", 0 wrong"), "{out}");
}

#[test]
fn stages_share_buffers_across_processes() {
    let out = run(env!("CARGO_BIN_EXE_stages"), &["gen:mix?packets=50000"]);
    assert!(out.contains("yard: received 50000, delivered 50000, dropped 0, 0 buffers missing, 0 violations"), "{out}");
    assert!(out.contains("first stage: 50000 packets, 50000 passed on, 50000 buffers came back"), "{out}");
    assert!(out.contains("second stage: 50000 packets in ") && out.contains(", 0 annotations wrong"), "{out}");
    assert!(number(&out, "50000 packets in ") > 1, "{out}");

    // Each packet lay in the same buffer in both processes.
    let mut first = HashMap::new();
    for line in out.lines().filter(|l| l.starts_with("first stage (")) {
        first.insert(number(line, "Found { number: "), number(line, "into buffer "));
    }
    let second: Vec<&str> = out.lines().filter(|l| l.starts_with("second stage (")).collect();
    assert_eq!((first.len(), second.len()), (4, 4), "{out}");
    for line in second {
        assert_eq!(first[&number(line, "Found { number: ")], number(line, "buffer "), "{out}");
        assert_eq!(number(line, "buffer: "), number(line, "buffer "), "{out}");
    }
    assert_ne!(number(&out, "first stage (process "), number(&out, "second stage (process "));
}

#[test]
fn killing_the_second_stage_hurts_nobody_else() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stages"))
        .arg("gen:mix?packets=4000&rate=2000")
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was just built");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("second stage (process ") {
        line.clear();
        assert_ne!(lines.read_line(&mut line).expect("text"), 0, "it ended too soon");
    }
    let second = number(&line, "process ");
    let killed = Command::new("kill").args(["-KILL", &second.to_string()]).status().expect("kill is there");
    assert!(killed.success());

    let mut out = String::new();
    lines.read_to_string(&mut out).expect("text");
    // It says that its second stage failed, but nothing else did.
    assert_eq!(child.wait().expect("it runs").code(), Some(1), "{out}");
    assert!(out.contains("yard: received 4000, delivered 4000, dropped 0, 0 buffers missing, 0 violations"), "{out}");
    assert!(number(&out, " packets, ") < 4000 && out.contains("first stage: 4000 packets"), "{out}");
}
