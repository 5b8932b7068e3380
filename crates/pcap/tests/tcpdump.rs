//! Unmodified programs on the rings of a live yard: tcpdump and ngrep as Debian builds them.

mod served;

use std::process::{Command, Output};

use flowyard_testkit::require_root;
use served::{Served, has, library, output};

/// A program with the library preloaded.
fn preloaded(program: &str, yard: &Served) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library("libflowyard_pcap.so")).env("FLOWYARD_RUNTIME_DIR", yard.folder());
    command
}

fn tcpdump(yard: &Served, arguments: &[&str]) -> Output {
    let mut command = preloaded("tcpdump", yard);
    if flowyard_testkit::net::is_root() {
        command.args(["-Z", "root"]);
    }
    output(command.args(arguments))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The frames of a capture file of libpcap's own format.
fn frames(file: &std::path::Path) -> (u32, u32, Vec<Vec<u8>>) {
    let bytes = std::fs::read(file).expect("a capture");
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let (mut at, mut frames) = (24, Vec::new());
    while at < bytes.len() {
        let len = number(at + 8) as usize;
        frames.push(bytes[at + 16..at + 16 + len].to_vec());
        at += 16 + len;
    }
    (number(0), number(20), frames)
}

#[test]
fn tcpdump_writes_what_the_ring_has() {
    if !has("tcpdump", "rings for tcpdump") {
        return;
    }
    let yard = Served::start(1, "gen:mix?rate=20000");
    let file = yard.folder().join("all.pcap");
    let out = tcpdump(&yard, &["-i", "flowyard:edge/0", "-w", file.to_str().expect("text"), "-c", "300"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("300 packets captured"), "{}", text(&out.stderr));
    let (magic, link, frames) = frames(&file);
    assert_eq!((magic, link, frames.len()), (0xa1b2_c3d4, 1, 300));
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}
