//! Rings for other programs as a user meets them: `flowyard attach`, tcpdump, tshark, and Wireshark's extcap.

mod program;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use flowyard_testkit::require_root;
use program::*;
use serde_json::Value;

/// A program that finds the yards of `dir`.
fn command(dir: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env("FLOWYARD_RUNTIME_DIR", dir);
    command.stdin(Stdio::null());
    command
}

fn attach(dir: &Path, args: &[&str]) -> Output {
    command(dir, PROGRAM, &[&["attach"], args].concat()).output().expect("the program runs")
}

fn start(dir: &Path, args: &[&str]) -> Child {
    let mut command = command(dir, PROGRAM, &[&["attach"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

fn there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("SKIPPED: no {program}");
    }
    there
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_ring_gets_what_inspect_says_and_the_yard_and_its_consumers_agree() {
    let dir = tempfile::tempdir().expect("a folder");
    let capture = dir.path().join("in.pcapng").display().to_string();
    assert!(flowyard(&["gen", "gen:mix?packets=5000&flows=200", "-w", &capture]).status.success());
    let yard = Yard::start(
        dir.path(),
        &["--attach", "--absent", "hold", "--rings", "3", "--annotation", "128", &format!("pcap:{capture}")],
    );
    // They wait for readers: no packet is lost, however late these come.
    // Into files: a pipe that nobody empties would stop a reader, and with it all others of a source that waits.
    let read = |ring: usize| {
        let to = std::fs::File::create(dir.path().join(ring.to_string())).expect("a file");
        let mut command = command(dir.path(), PROGRAM, &["attach", &format!("yard/{ring}"), "--json", "-q"]);
        command.stdout(to).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let readers: Vec<Child> = (0..3).map(read).collect();
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut lines = Vec::new();
    for (ring, reader) in readers.into_iter().enumerate() {
        let output = reader.wait_with_output().expect("it ends with the yard");
        assert!(output.status.success(), "{}", errors(&output));
        let all = std::fs::read_to_string(dir.path().join(ring.to_string())).expect("written");
        lines.push(all.lines().count() as u64);
        for line in all.lines() {
            let mut frame: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(frame["ring"], ring);
            frame["frame"] = 0.into();
            *seen.entry(frame.to_string()).or_default() += 1;
        }
    }
    let output = yard.child.wait_with_output().expect("it has ended");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rings = figures["rings"].as_array().expect("rings");
    assert_eq!(rings.iter().map(|r| r["packets"].as_u64().expect("a number")).collect::<Vec<_>>(), lines);
    assert!(rings.iter().all(|r| r["abandoned"] == 0), "{figures}");
    let inspected = flowyard(&["inspect", "--json", "--rings", "3", &capture]);
    for line in text(&inspected.stdout).lines() {
        let mut frame: Value = serde_json::from_str(line).expect("JSON");
        frame["frame"] = 0.into();
        let left = seen.get_mut(&frame.to_string()).unwrap_or_else(|| panic!("not seen: {frame}"));
        *left -= 1;
    }
    assert!(seen.values().all(|left| *left == 0), "and nothing else was");
}

#[test]
fn captures_have_the_packets_and_what_is_known_of_them() {
    if !there("tshark") || !there("tcpdump") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let yard = Yard::start(dir.path(), &["--attach", "--rings", "2", "gen:mix?rate=5000&only=vxlan,plain"]);
    let file = dir.path().join("share.pcapng").display().to_string();
    let output = attach(dir.path(), &["yard/1", "-n", "200", "-w", &file]);
    assert!(output.status.success() && errors(&output).contains("200 packets"), "{}", errors(&output));
    let lua = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contrib/wireshark/flowyard.lua");
    let script = format!("lua_script:{lua}");
    let fields = ["flowyard.ring", "flowyard.hash", "flowyard.tunnel", "frame.interface_name", "vxlan.vni"];
    let mut args = vec!["-r", &file, "-X", &script, "-T", "fields"];
    fields.iter().for_each(|field| args.extend(["-e", field]));
    let output = command(dir.path(), "tshark", &args).output().expect("tshark runs");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 200, "{}", errors(&output));
    let mut tunnels = 0;
    for line in lines.lines() {
        let [ring, hash, tunnel, port, vni] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
        assert!(ring == "1" && hash.starts_with("0x") && hash.len() == 10 && port == "gen:mix/0", "{line}");
        // It does not look into a tunnel's fragments, of which Flowyard knows by the first.
        assert!(vni.is_empty() || tunnel == vni, "as tshark reads it itself: {line}");
        tunnels += u32::from(!tunnel.is_empty());
    }
    assert!((20..200).contains(&tunnels), "{tunnels} of 200");
    // As a stream, into a program that has had enough before the yard has.
    let mut reader = start(dir.path(), &["yard/0", "-q", "-w", "-"]);
    let from = reader.stdout.take().expect("piped");
    let output =
        command(dir.path(), "tcpdump", &["-nr", "-", "-q", "-c", "50", "udp"]).stdin(from).output().expect("it runs");
    let times = text(&output.stdout).lines().filter(|line| line.starts_with("00:")).count();
    assert_eq!(times, 50, "{}{}", text(&output.stdout), errors(&output));
    let output = reader.wait_with_output().expect("a child");
    assert!(output.status.success(), "that nobody reads any more is no failure: {}", errors(&output));
    let (figures, _, _) = yard.end();
    assert_eq!(figures["sums_agree"], true, "{figures}");
}

#[test]
fn rings_are_interfaces_of_tshark() {
    if !there("tshark") {
        return;
    }
    require_root!();
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().expect("a folder");
    let options = ["--attach", "--allow", "65534", "--rings", "2", "--name", "edge", "gen:mix?rate=5000"];
    let yard = Yard::start(dir.path(), &options);
    // Root's Wireshark takes extcap programs from the system's folder alone (get_extcap_dir, wsutil/filesystem.c).
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    let copy = dir.path().join("flowyard");
    std::fs::copy(PROGRAM, &copy).expect("room");
    let copy = copy.display().to_string();
    let as_user = |program: &str, args: &[&str]| {
        let mut command = command(dir.path(), program, args);
        command.uid(65534).gid(65534).current_dir("/").env("HOME", dir.path());
        command.env("WIRESHARK_EXTCAP_DIR", dir.path().join(".local/lib/wireshark/extcap"));
        command
    };
    let installed = as_user(&copy, &["extcap", "--install"]).output().expect("it runs");
    assert!(installed.status.success(), "{}", errors(&installed));
    assert!(dir.path().join(".local/lib/wireshark/plugins/flowyard.lua").is_file());
    let listed = text(&as_user("tshark", &["-D"]).output().expect("tshark runs").stdout);
    for ring in ["edge/0", "edge/1"] {
        assert!(listed.contains(&format!("flowyard:{ring} (Flowyard ring {ring})")), "{listed}");
    }
    let args = ["-i", "flowyard:edge/1", "-c", "100", "-T", "fields", "-e", "flowyard.ring"];
    let output = as_user("tshark", &args).output().expect("tshark runs");
    let all = text(&output.stdout);
    assert_eq!(all.lines().filter(|line| *line == "1").count(), 100, "{all}{}", errors(&output));
    let wrong = ["extcap", "--capture", "--extcap-interface", "eth0", "--fifo", "x"];
    let output = as_user(&copy, &wrong).output().expect("it runs");
    assert!(!output.status.success() && errors(&output).contains("none of our interfaces"), "{}", errors(&output));
    let (figures, _, _) = yard.end();
    assert_eq!(figures["sums_agree"], true, "{figures}");
}

#[test]
fn rings_are_listed_taken_once_and_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let nobody = attach(dir.path(), &[]);
    assert!(!nobody.status.success() && errors(&nobody).contains("flowyard run … --attach"), "{}", errors(&nobody));
    let unreached = attach(dir.path(), &["yard/0"]);
    assert!(!unreached.status.success() && errors(&unreached).contains("attach.sock"), "{}", errors(&unreached));
    let waits = start(dir.path(), &["yard/ids/1", "--wait", "-n", "10"]);
    let yard = Yard::start(dir.path(), &["--attach", "--group", "ids:2", "--group", "all:1", "gen:mix?rate=5000"]);
    let output = waits.wait_with_output().expect("a child");
    assert!(output.status.success() && text(&output.stdout).lines().count() == 10, "{}", errors(&output));
    let mut holder = start(dir.path(), &["yard/all/0", "-w", "/dev/null"]);
    let list = || text(&attach(dir.path(), &[]).stdout);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !list().contains("read by flowyard") {
        assert!(std::time::Instant::now() < deadline, "{}", list());
    }
    assert!(list().contains("yard/ids/0               free") && list().lines().count() == 3, "{}", list());
    let taken = attach(dir.path(), &["yard/all/0"]);
    let process = format!("(process {}) reads it", holder.id());
    assert!(!taken.status.success() && errors(&taken).contains(&process), "{}", errors(&taken));
    let consumers = json(&yard.ctl(&["consumers"]));
    assert_eq!((&consumers[0]["ring"], &consumers[0]["pid"]), (&"all/0".into(), &holder.id().into()), "{consumers}");
    for (args, says) in [
        (&["yard"][..], "names no ring"),
        (&["yard/9"], "there is none: it has ids/0 to 1, all/0 to 0"),
        (&["yard/0", "-w", "x", "--json"], "cannot be used with"),
    ] {
        let output = attach(dir.path(), args);
        assert!(!output.status.success() && errors(&output).contains(says), "{args:?}: {}", errors(&output));
    }
    holder.kill().expect("it can be killed");
    holder.wait().expect("a child");
    let output = attach(dir.path(), &["yard/all/0", "-n", "1", "--wait"]);
    assert!(output.status.success(), "{}", errors(&output));
    // A yard that is killed is a failure of those who did not say that they wait.
    let left = start(dir.path(), &["yard/all/0"]);
    while !list().contains("read by flowyard") {
        assert!(std::time::Instant::now() < deadline, "{}", list());
    }
    yard.signal("-KILL");
    // Its output is read to the end: whose reader goes away ends in peace, whatever becomes of the yard.
    let output = left.wait_with_output().expect("a child");
    assert!(!output.status.success() && errors(&output).contains("gone without a word"), "{}", errors(&output));
    let mut child = yard.child;
    child.wait().expect("a child");
}
