//! The program as a user meets it: what it prints, what it refuses and how, how it ends.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");

fn flowyard(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).stdin(Stdio::null()).output().expect("the program runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A capture of generated traffic.
fn capture(dir: &Path, name: &str, packets: u32) -> String {
    let file = dir.join(name).display().to_string();
    let made = flowyard(&["gen", &format!("gen:mix?packets={packets}&flows=200"), "-w", &file, "-q"]);
    assert!(made.status.success(), "{}", errors(&made));
    file
}

#[test]
fn run_on_built_in_traffic_says_that_nothing_was_split() {
    let output = flowyard(&["run", "gen:mix?packets=50000"]);
    let text = out(&output);
    assert!(output.status.success(), "{text}{}", errors(&output));
    assert!(text.contains("received 50,000 = delivered 50,000 + dropped 0; the sums agree"), "{text}");
    assert!(text.contains("split conversations: 0 of 1,000; a card's own RSS (4 queues) would have split"), "{text}");
}

#[test]
fn the_figures_come_as_json_too() {
    let output = flowyard(&["run", "gen:mix?packets=20000&flows=300", "--rings", "3", "--json"]);
    let figures: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(figures["received"], 20000);
    assert_eq!((&figures["split"], &figures["conversations"]), (&Value::from(0), &Value::from(300)));
    assert!(figures["split_by_card"].as_u64().is_some_and(|n| n > 100), "{figures}");
    assert_eq!(figures["rings"].as_array().map(Vec::len), Some(3));
    assert_eq!(figures["sums_agree"], true);
}

/// Whoever reads the rings, the same packets come to them, and are written in the same order.
#[test]
fn rings_read_by_those_who_receive_are_the_same_rings() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = format!("pcap:{}", capture(dir.path(), "in.pcapng", 4000));
    let run = |name: &str, more: &[&str]| {
        let to = dir.path().join(name);
        let line = ["run", &file, "--json", "-q", "-n", "3", "-o", to.to_str().expect("text")];
        let output = flowyard(&[&line[..], more].concat());
        assert!(output.status.success(), "{}", errors(&output));
        let mut figures: serde_json::Value = serde_json::from_str(&out(&output)).expect("one object");
        figures.as_object_mut().expect("an object").remove("seconds");
        let rings = (0..3).map(|ring| std::fs::read(to.join(format!("ring-0{ring}.pcapng"))).expect("written"));
        (figures, rings.collect::<Vec<_>>())
    };
    let expected = run("dispatch", &[]);
    assert_eq!(expected.0["delivered"], 4000);
    assert!(run("one", &["--local"]) == expected);
    assert!(run("three", &["--local", "--dispatchers", "3"]) == expected);
    let output = flowyard(&["run", &file, "--local", "--attach"]);
    assert!(!output.status.success() && errors(&output).contains("--local"), "{}", errors(&output));
}

/// The program's own consumers send nothing; that there is a way out shows all the same.
#[test]
fn ways_out_are_opened_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("out.pcapng");
    let port = format!("pcap:{}?write", file.display());
    let refused = flowyard(&["run", "gen:mix?packets=100", &port]);
    assert!(!refused.status.success() && errors(&refused).contains("--transmit"), "{}", errors(&refused));
    assert!(!file.exists(), "nothing was made before it was refused");
    let output = flowyard(&["run", "gen:mix?packets=100", &port, "--transmit", "--json"]);
    let figures: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!((&figures["delivered"], &figures["sums_agree"]), (&Value::from(100), &Value::from(true)));
    assert_eq!(figures["transmitted"][1]["port"], format!("pcap:{}", file.display()));
    assert_eq!((&figures["transmitted"][1]["asked"], &figures["no_such_port"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(figures["transmitted"][0]["refused"]["receive-only"], 0);
    assert!(flowyard(&["inspect", &file.display().to_string()]).status.success(), "it is a capture, an empty one");
}

/// The generator knows which conversation each packet belongs to, and says so in its comment; so the
/// claim does not rest on the dissector that did the sorting.
#[test]
fn split_keeps_whole_what_the_generator_says_belongs_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("truth.pcapng").display().to_string();
    let made = flowyard(&["gen", "gen:mix?packets=30000&flows=500", "-w", &file, "--truth", "-q"]);
    assert!(made.status.success(), "{}", errors(&made));
    let parts = dir.path().join("parts").display().to_string();
    let split = flowyard(&["split", &file, "--rings", "8", "-o", &parts]);
    assert!(split.status.success(), "{}", errors(&split));
    let mut ring_of = std::collections::HashMap::new();
    let mut total = 0;
    for ring in 0..8 {
        let path = Path::new(&parts).join(format!("truth-{ring:02}.pcapng"));
        let mut reader = flowyard::port::capture::CaptureReader::open(&path).expect("a capture");
        while let Some(record) = reader.next().expect("whole") {
            let conversation = record.comment().into_owned();
            assert!(conversation.starts_with("conversation "));
            assert_eq!(*ring_of.entry(conversation.clone()).or_insert(ring), ring, "{conversation} is on two rings");
            total += 1;
        }
    }
    assert_eq!(total, 30000);
    assert!(ring_of.len() > 450, "most conversations spoke");
}

#[test]
fn inspect_prints_the_lines_that_are_promised() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), "a.pcapng", 3000);
    let output = flowyard(&["inspect", "--json", "--rings", "5", &file]);
    assert!(output.status.success());
    let lines: Vec<Value> = out(&output).lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(lines.len(), 3000);
    for (n, line) in lines.iter().enumerate() {
        let keys: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        let mut promised =
            ["frame", "ring", "hash", "stack", "src", "dst", "proto", "sport", "dport", "fragment", "ids", "stop"];
        promised.sort_unstable();
        assert_eq!(keys, promised);
        assert_eq!(line["frame"], n as u64 + 1, "in order");
        assert!(line["ring"].as_u64().is_some_and(|r| r < 5));
        assert_eq!(line["hash"].as_str().map(str::len), Some(8));
    }
    let shown = out(&flowyard(&["inspect", "--frame", "7", "--rings", "5", &file]));
    assert!(shown.starts_with("frame 7: ") && shown.contains("dissection ended: "), "{shown}");
    assert!(shown.contains(&format!("ring {}: ", lines[6]["ring"])), "{shown}");
    assert_eq!(out(&flowyard(&["inspect", &file])).lines().count(), 3001);
}

#[test]
fn a_seed_or_key_changes_rings_and_the_same_one_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), "a.pcapng", 500);
    let with = |extra: &[&str]| out(&flowyard(&[&["inspect", "--json", &file], extra].concat()));
    assert_eq!(with(&[]), with(&[]));
    assert_ne!(with(&[]), with(&["--seed", "7"]));
    assert_ne!(with(&[]), with(&["--hash", "toeplitz"]));
    assert_eq!(with(&["--seed", "0x10"]), with(&["--seed", "16"]));
    assert_ne!(with(&["--key", "outermost"]), with(&[]));
}

#[test]
fn classic_and_packed_captures_are_read_from_files_and_pipes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (next, classic) = (capture(dir.path(), "a.pcapng", 400), capture(dir.path(), "a.pcap", 400));
    let lines = |args: &[&str]| out(&flowyard(args)).lines().count();
    assert_eq!(lines(&["inspect", "--json", &next]), 400);
    assert_eq!(lines(&["inspect", "--json", &classic]), 400);
    let piped = Command::new(PROGRAM)
        .args(["inspect", "--json", "-"])
        .stdin(std::fs::File::open(&next).expect("open"))
        .output()
        .expect("the program runs");
    assert_eq!(out(&piped).lines().count(), 400);
}

#[test]
fn what_is_readable_before_damage_is_delivered_and_the_status_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), "a.pcapng", 1000);
    let bytes = std::fs::read(&file).expect("read");
    let cut = dir.path().join("cut.pcapng").display().to_string();
    std::fs::write(&cut, &bytes[..bytes.len() / 2 + 3]).expect("write");
    for verb in [vec!["inspect", "--json", &cut], vec!["split", &cut, "-o", dir.path().to_str().expect("UTF-8")]] {
        let output = flowyard(&verb);
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(errors(&output).lines().count(), 1);
        assert!(errors(&output).contains("is damaged at byte"), "{}", errors(&output));
    }
    let lines = out(&flowyard(&["inspect", "--json", &cut])).lines().count() as u64;
    assert!(lines > 300);
    let run = flowyard(&["run", "--json", "-q", &format!("pcap:{cut}")]);
    assert_eq!(run.status.code(), Some(1));
    let figures: Value = serde_json::from_str(&out(&run)).expect("JSON");
    assert_eq!((&figures["delivered"], &figures["split"]), (&lines.into(), &0.into()));
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    for (args, says) in [
        (vec!["run", "eth0"], "xdp:eth0"),
        (vec!["run", "nic:eth0"], "kinds are xdp:"),
        (vec!["run", "xdp:no-such-if"], "no interface"),
        (vec!["run", "gen:mix?packet=7"], "options are"),
        (vec!["run", "pcap:/no/such/file"], "/no/such/file"),
        (vec!["run", "--ring-slots", "1000", "gen:mix?packets=1"], "a power of two"),
        (vec!["run", "--annotation", "100", "gen:mix?packets=1"], "0, 64, 128, 192 or 256"),
        (vec!["run", "--weights", "1,2,3", "gen:mix?packets=1"], "number of rings"),
        (vec!["run", "--rings", "0"], "1..=4096"),
        (vec!["run", "--for", "soon"], "number of seconds"),
        (vec!["inspect", "/no/such/file"], "/no/such/file"),
        (vec!["inspect", PROGRAM], "pcap and pcapng are read"),
        (vec!["split", "/dev/null"], "empty"),
        (vec!["gen"], "--write"),
        (vec!["bench", "--cores", "0,9999"], "may not run there"),
        (vec!["bench", "--cores", "0"], "such as 0,1"),
        (vec!["bench", "--seconds", "0"], "0.01 to 3600"),
        (vec!["gen", "gen:mix", "--to", "xdp:lo"], "packet:lo"),
        (vec!["run", "--seed", "7", "--hash", "toeplitz"], "--seed belongs"),
        (vec!["frobnicate"], "unrecognized subcommand"),
    ] {
        let output = flowyard(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(says), "{args:?}: {}", errors(&output));
        assert!(!errors(&output).contains("panicked"));
    }
}

#[test]
fn split_does_not_overwrite_its_own_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), "a-00.pcapng", 10);
    std::fs::rename(&file, dir.path().join("a.pcapng-00.pcapng")).expect("rename");
    std::fs::hard_link(dir.path().join("a.pcapng-00.pcapng"), dir.path().join("x-00.pcapng")).expect("link");
    let input = dir.path().join("x-00.pcapng").display().to_string();
    let again = dir.path().join("x.pcapng");
    std::os::unix::fs::symlink(&input, &again).expect("link");
    let output = flowyard(&["split", again.to_str().expect("UTF-8"), "-o", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(2), "{}", out(&output));
    assert!(errors(&output).contains("overwrite"), "{}", errors(&output));
}

#[test]
fn an_interrupt_ends_it_within_a_second_with_all_figures() {
    let child = Command::new(PROGRAM)
        .args(["run", "gen:mix?seconds=60", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    std::thread::sleep(Duration::from_millis(700));
    let told = Instant::now();
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().expect("kill").success());
    let output = child.wait_with_output().expect("wait");
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    let figures: Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(figures["sums_agree"], true, "{figures}");
    assert!(figures["received"].as_u64().is_some_and(|n| n > 0), "{figures}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = capture(dir.path(), "a.pcapng", 20000);
    let mut child = Command::new(PROGRAM)
        .args(["inspect", &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", errors(&output));
}

/// That there are figures, and of what; not how large they are.
#[test]
fn the_machine_is_measured() {
    let figures: Value =
        serde_json::from_str(&out(&flowyard(&["bench", "--seconds", "0.01", "--json"]))).expect("JSON");
    let carriers: Vec<&str> =
        figures["steering"].as_array().expect("a list").iter().filter_map(|one| one["carrier"].as_str()).collect();
    assert_eq!(carriers, ["plain", "vlan", "qinq", "pppoe", "gre", "gtp", "vxlan", "mpls", "mix"]);
    let all = figures["steering"].as_array().into_iter().chain(figures["handing_over"].as_array()).flatten();
    for one in all {
        let figure = |name: &str| one["figure"][name].as_f64().expect("a number");
        assert!(figure("ns") > 0.0 && figure("ns_10") <= figure("ns") && figure("ns") <= figure("ns_90"), "{one}");
    }
    let text = out(&flowyard(&["bench", "--seconds", "0.01"]));
    assert!(text.contains("Steering, on core") && text.lines().any(|line| line.starts_with(" mix")), "{text}");
}
