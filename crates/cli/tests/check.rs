//! Configuration files as a user meets them: checked, refused with the line, and run from.

mod program;

use std::path::Path;

use program::*;

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_example_as_printed_is_good() {
    let dir = tempfile::tempdir().expect("a folder");
    let example = flowyard(&["check", "--example"]);
    assert!(example.status.success(), "{}", errors(&example));
    let file = written(dir.path(), "flowyard.toml", &said(&example));
    let check = flowyard(&["check", &file]);
    assert!(check.status.success() && errors(&check).is_empty(), "{}", errors(&check));
    assert_eq!(said(&check), format!("{file}: good\n"));
    assert!(said(&flowyard(&["check", "--quiet", &file])).is_empty());
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = written(dir.path(), "a.toml", "[memory]\nring-slot = 512\n");
    for verb in [&["check", &file][..], &["run", "-c", &file]] {
        let output = flowyard(verb);
        let text = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        for word in ["a.toml:2:1: there is no ring-slot in [memory]", "ring-slot = 512", "did you mean ring-slots?"] {
            assert!(text.contains(word), "{text} lacks {word}");
        }
        assert!(text.lines().any(|line| line.contains("───┬") || line.contains("^^^^")), "{text} has no caret");
    }
}

#[test]
fn what_a_file_names_is_looked_at_and_nothing_opened() {
    let dir = tempfile::tempdir().expect("a folder");
    let good =
        written(dir.path(), "good.toml", "ports = ['xdp:fynone0']\noutput = 'out'\n[service]\ncontrol = 'c.sock'\n");
    let check = flowyard(&["check", &good]);
    assert!(check.status.success() && errors(&check).contains("warning") && errors(&check).contains("fynone0"));
    assert!(!dir.path().join("out").exists() && !dir.path().join("c.sock").exists());
    written(dir.path(), "rules.toml", "[[rule]]\nverdict = 'dorp'\n");
    written(dir.path(), "plugin.so", "no plug-in\n");
    for (text, words) in [
        ("[function]\nsteer = 'rules:rules.toml'", &["rules.toml", "line 2", "dorp"][..]),
        ("[function]\nsteer = 'plugin:plugin.so'", &["plugin.so"]),
        ("ports = ['xdp:fynone0?cppy']", &["cppy", "copy"]),
        ("ports = ['pcap:none.pcap']", &["none.pcap"]),
        ("ports = ['gen:mix']\n[memory]\nring-slots = 1000", &["1000", "power of two"]),
        ("ports = ['gen:mix']\n[memory]\ndispatchers = 65", &["65", "1 to 64"]),
        ("ports = ['gen:mix']\n[memory]\nannotation = 65", &["65", "64, 128"]),
        ("[sorting]\nrings = 2\nweights = [1, 2, 3]", &["3", "number of rings"]),
        ("[function]\ntable-file = ['users=users.csv']", &["users"]),
        ("ports = ['gen:mix']\n[memory]\nrelay = true", &["--relay", "kernel"]),
    ] {
        let file = written(dir.path(), "bad.toml", text);
        let output = flowyard(&["check", &file]);
        assert_eq!(output.status.code(), Some(2), "{text}: {}{}", said(&output), errors(&output));
        for word in [&["bad.toml"], words].concat() {
            assert!(errors(&output).contains(word), "{text}: {} lacks {word}", errors(&output));
        }
    }
}

#[test]
fn a_yard_runs_from_a_file_that_names_others_beside_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let gen_cmd =
        flowyard(&["gen", "gen:mix?packets=100", "--write", &dir.path().join("a.pcap").display().to_string()]);
    assert!(gen_cmd.status.success(), "{}", errors(&gen_cmd));
    let text = "name = 'file'\nports = ['pcap:a.pcap']\njson = true\noutput = 'out'\n[sorting]\nrings = 2\n[policy]\nmax_depth = 3\n";
    let file = written(dir.path(), "flowyard.toml", text);
    let report = json(&flowyard(&["run", "--config", &file]));
    assert_eq!((report["received"].as_u64(), report["rings"].as_array().map(Vec::len)), (Some(100), Some(2)));
    assert!(dir.path().join("out/ring-01.pcapng").exists());
    let report = json(&flowyard(&["run", "--config", &file, "gen:mix?packets=7", "-n", "3"]));
    assert_eq!((report["received"].as_u64(), report["rings"].as_array().map(Vec::len)), (Some(7), Some(3)));
}
