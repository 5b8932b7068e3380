//! The examples of the README work as they stand there.

use std::path::Path;
use std::process::{Command, Stdio};

const README: &str = include_str!("../../../README.md");

/// The first block of this language that has `part` in it.
fn block(language: &str, part: &str) -> &'static str {
    let fence = format!("```{language}\n");
    let blocks = README.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("\n```").next());
    blocks
        .into_iter()
        .find(|block| block.contains(part))
        .unwrap_or_else(|| panic!("README has no {language} with {part}"))
}

/// Runs the README's command of this beginning in `dir`, with our program for `flowyard`.
fn run(dir: &Path, begins: &str) -> String {
    let lines = README.lines().map(|line| line.split("  #").next().unwrap_or(line).trim());
    let line =
        lines.into_iter().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("no {begins} in README"));
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../yard/include");
    let line = line.replacen("flowyard ", &format!("{} ", env!("CARGO_BIN_EXE_flowyard")), 1);
    let line = line.replace("-I crates/yard/include", &format!("-I {include}"));
    let output =
        Command::new("sh").args(["-c", &line]).current_dir(dir).stdin(Stdio::null()).output().expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}\n{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Packets of a ring, from the table that `run` prints.
fn packets(text: &str, ring: usize) -> u64 {
    let row =
        text.lines().find(|line| line.split_whitespace().next() == Some(&ring.to_string())).expect("a row a ring");
    row.split_whitespace().nth(1).and_then(|n| n.replace(',', "").parse().ok()).expect("a count")
}

#[test]
fn rules() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("rules.toml"), block("toml", "[[rule]]")).expect("written");
    if !["/usr/lib", "/lib"].iter().any(|lib| has_libpcap(Path::new(lib), 2)) {
        eprintln!("SKIPPED: no libpcap for the filter");
        return;
    }
    let text = run(dir.path(), "flowyard run gen:mix?packets=100000 --steer rules:");
    assert!(text.contains("the sums agree") && text.contains("split conversations: 0 of"), "{text}");
}

fn has_libpcap(folder: &Path, depth: u8) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().starts_with("libpcap.so")
            || depth > 0 && entry.path().is_dir() && has_libpcap(&entry.path(), depth - 1)
    })
}

#[test]
fn plug_in() {
    let dir = tempfile::tempdir().expect("a directory");
    if Command::new("cc").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: no C compiler");
        return;
    }
    std::fs::write(dir.path().join("udp-first.c"), block("c", "flowyard_plugin.h")).expect("written");
    run(dir.path(), "cc -O2 -fPIC");
    let text = run(dir.path(), "flowyard run gen:mix?packets=100000 --steer plugin:");
    assert!(text.contains("the sums agree") && text.contains("100,000 packets shown"), "{text}");
    assert!(packets(&text, 0) > 2 * packets(&text, 1), "UDP went to ring 0: {text}");
    if !["/usr/lib", "/lib"].iter().any(|lib| has_libpcap(Path::new(lib), 2)) {
        eprintln!("SKIPPED: no libpcap for the filter");
        return;
    }
    std::fs::write(dir.path().join("rules.toml"), block("toml", "[[rule]]")).expect("written");
    let text = run(dir.path(), "flowyard run gen:mix?packets=50000 --steer rules:");
    assert!(text.contains("the sums agree") && packets(&text, 0) > 2 * packets(&text, 1), "{text}");
}

#[test]
#[cfg(feature = "wasm")]
fn web_assembly() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("udp-first.wat"), block("wat", "(export \"steer\")")).expect("written");
    let text = run(dir.path(), "flowyard run gen:mix?packets=100000 --steer wasm:");
    assert!(text.contains("the sums agree") && text.contains("100,000 packets shown"), "{text}");
    assert!(packets(&text, 0) > 2 * packets(&text, 1), "UDP went to ring 0: {text}");
}
