//! A program in C that calls what there is to call, on rings of a live yard: with the library preloaded, and linked.

mod served;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flowyard::function::{Verdict, closure};
use flowyard::{Absent, YardConfig};
use served::{PATIENCE, Served, has, library};

/// Builds it. `None`, and a word about it, without a compiler or libpcap's headers.
fn program(folder: &Path, flags: &[&str]) -> Option<PathBuf> {
    if !has("cc", "a program in C with libpcap") {
        return None;
    }
    if !Path::new("/usr/include/pcap/pcap.h").exists() {
        flowyard_testkit::net::skipped(module_path!(), line!(), "no pcap/pcap.h (libpcap-dev)");
        return None;
    }
    let to = folder.join("calls");
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&to);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/calls.c")).args(flags).arg("-lpcap");
    let out = cc.output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(to)
}

fn judge(flags: &[&str], preload: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = program(folder.path(), flags) else { return };
    // All to ring 0: what a ring does that has nothing is looked at as well.
    let function = Some(closure(|_| Verdict::Ring(0)));
    let config = YardConfig { rings: 2, absent: Absent::Hold, function, ..YardConfig::default() };
    let yard = Served::of(&config, "gen:mix?rate=20000");
    let mut command = Command::new("timeout"); // instead of hanging
    command.arg(PATIENCE.as_secs().to_string()).arg(program).arg(folder.path().join("out.pcap"));
    // Cargo puts folders there that may have the library of an earlier build.
    command.env_remove("LD_LIBRARY_PATH");
    command.env("FLOWYARD_RUNTIME_DIR", yard.folder()).env("MALLOC_PERTURB_", "165");
    if preload {
        command.env("LD_PRELOAD", library("libflowyard_pcap.so"));
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        said.push(line.expect("text"));
        if said.last().is_some_and(|line| line == "until the end") {
            yard.stop();
        }
    }
    assert_eq!(said, ["until the end", "right"]);
    assert!(child.wait().expect("it is a child").success());
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn every_call_works_with_the_library_preloaded() {
    judge(&[], true);
}

#[test]
fn every_call_works_with_the_library_linked() {
    let library = library("libflowyard_pcap.so");
    let folder = library.parent().expect("a folder").display().to_string();
    judge(&["-L", &folder, "-l:libflowyard_pcap.so", &format!("-Wl,-rpath,{folder}")], false);
}
