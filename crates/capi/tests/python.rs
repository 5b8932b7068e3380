//! Python's module on the rings of a live yard, where it was built: `python/build.sh`, or into a folder that
//! `FLOWYARD_PYTHON` names.

#[path = "../../pcap/tests/served/mod.rs"]
mod served;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flowyard::function::{Verdict, closure};
use flowyard::{Absent, YardConfig};
use served::{PATIENCE, Served, has};

#[test]
fn the_module_does_what_its_tests_ask() {
    let python = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../python"));
    let built = std::env::var_os("FLOWYARD_PYTHON").map_or(python.clone(), PathBuf::from);
    if !built.join("flowyard.abi3.so").exists() {
        flowyard_testkit::net::skipped(module_path!(), line!(), "Python's module was not built: python/build.sh");
        return;
    }
    if !has("python3", "Python's module") {
        return;
    }
    // All to ring 0: what a ring does that has nothing is looked at as well.
    let function = Some(closure(|_| Verdict::Ring(0)));
    let config = YardConfig { rings: 2, annotation_bytes: 64, absent: Absent::Hold, function, ..YardConfig::default() };
    let yard = Served::of(&config, "gen:mix?rate=50000");
    let mut child = Command::new("timeout") // instead of hanging
        .arg(PATIENCE.as_secs().to_string())
        .args(["python3", "-W", "error"])
        .arg(python.join("tests/test_flowyard.py"))
        .env("PYTHONPATH", built)
        .env("FLOWYARD_RUNTIME_DIR", yard.folder())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        println!("{line}");
        if line == "until the end" {
            yard.stop();
        }
    }
    assert!(child.wait().expect("it is a child").success());
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}
