//! The yard as a service: found by its name, asked and changed while it runs, watched by a service manager, with few
//! privileges, ended in order.

mod program;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowyard_testkit::net::{Injector, Namespace, Veth, is_root, numbered_frame, skipped};
use program::*;
use serde_json::Value;

/// Until `what` is so. The time is the test's patience, nothing that it asserts.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("run").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().expect("kill runs").success());
}

fn answer(output: &std::process::Output) -> Value {
    assert!(output.status.success(), "{}", errors(output));
    json(output)
}

/// A name that no other test's yard has.
fn name(what: &str) -> String {
    format!("test-{what}-{}", std::process::id())
}

#[test]
fn a_service_manager_hears_ready_alive_reloading_and_stopping_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nverdict = 'built-in'\n").expect("written");
    let child = command(&["gen:mix?rate=1000", "--json", "--steer", &format!("rules:{}", rules.display())])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .spawn()
        .expect("it starts");
    let hear = || {
        let mut buffer = [0; 4096];
        let len = manager.recv(&mut buffer).expect("a word");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let first = hear();
    assert!(first.contains("READY=1") && first.contains("STATUS="), "{first}");
    let alive = |mut times: u32| {
        while times > 0 {
            let word = hear();
            assert!(word.contains("WATCHDOG=1") || word.contains("STATUS="), "{word}");
            times -= u32::from(word.contains("WATCHDOG=1"));
        }
    };
    alive(3);
    signal(&child, "-HUP");
    let later = |begins: &str| loop {
        let word = hear();
        if word.contains(begins) {
            return word;
        }
        assert!(word.contains("WATCHDOG=1") || word.contains("STATUS="), "{word}");
    };
    assert!(later("RELOADING=1").contains("MONOTONIC_USEC="));
    later("READY=1");
    alive(1);
    signal(&child, "-TERM");
    later("STOPPING=1");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && json(&output)["sums_agree"] == true, "{}", errors(&output));
}

/// A plug-in with this as its `steer`, or `None` where there is no compiler.
fn plugin(dir: &Path, steer: &str) -> Option<String> {
    if Command::new("cc").arg("--version").stdout(Stdio::null()).status().is_err() {
        skipped(module_path!(), line!(), "needs a C compiler");
        return None;
    }
    let (source, object) = (dir.join("p.c"), dir.join("p.so"));
    let text = format!(
        r#"
#include <flowyard_plugin.h>
#include <stdlib.h>
#include <unistd.h>
static void *open_(const struct flowyard_host *host, const char *config, size_t len, char *error, size_t size)
{{ (void)host; (void)config; (void)len; (void)error; (void)size; return calloc(1, 8); }}
static void close_(void *state) {{ free(state); }}
static int steer(void *state, struct flowyard_batch *batch) {{ uint64_t *packets = state; {steer} return 0; }}
static const struct flowyard_plugin plugin = {{
    .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "p", .open = open_, .close = close_, .steer = steer,
}};
FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) {{ return &plugin; }}
"#
    );
    std::fs::write(&source, text).expect("written");
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/../yard/include");
    let built =
        Command::new("cc").args(["-O1", "-fPIC", "-shared", "-I", include, "-o"]).arg(&object).arg(&source).output();
    let built = built.expect("cc runs");
    assert!(built.status.success(), "{}", errors(&built));
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("changed");
    Some(format!("plugin:{}", object.display()))
}

#[test]
fn a_dispatcher_that_stands_still_is_not_called_alive() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(stuck) = plugin(dir.path(), "*packets += batch->count; for (;;) pause();") else { return };
    let path = dir.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    let mut child = command(&["gen:mix?rate=1000", "gen:vxlan?rate=1000", "--dispatchers", "2", "--steer", &stuck])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "20000")
        .spawn()
        .expect("it starts");
    let mut words = Vec::new();
    let mut buffer = [0; 4096];
    until("it is ready", || match manager.recv(&mut buffer) {
        Ok(len) => String::from_utf8_lossy(&buffer[..len]).contains("READY=1"),
        Err(_) => false,
    });
    // The program itself goes on all the time, and would say so a hundred times a second.
    while let Ok(len) = manager.recv(&mut buffer) {
        words.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        assert!(words.len() < 100, "{words:?}");
    }
    assert!(child.try_wait().expect("asked").is_none(), "it runs");
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[test]
fn a_plug_in_in_a_process_of_its_own_is_started_again_without_privileges() {
    if !is_root() {
        skipped(module_path!(), line!(), "needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let Some(crashes) = plugin(dir.path(), "*packets += batch->count; if (*packets > 500) abort();") else { return };
    let name = name("isolate");
    let args = [
        "gen:mix?rate=2000",
        "--user",
        "65534",
        "--name",
        &name,
        "--control",
        "--json",
        "--isolate",
        "--steer",
        &crashes,
    ];
    let child = command(&args).spawn().expect("it starts");
    let ctl = |args: &[&str]| flowyard(&[&["ctl", "--name", &name], args].concat());
    until("the control socket", || ctl(&["status"]).status.success());
    until("a second process", || {
        let status = answer(&ctl(&["status"]));
        let own = status["functions"][0]["own"].as_array().expect("a list");
        own.iter().any(|own| own["name"] == "process restarts" && own["count"].as_u64() > Some(0))
    });
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("it ends");
    assert!(errors(&output).contains("starting programs stays"), "{}", errors(&output));
    assert_eq!(json(&output)["sums_agree"], true);
    let _ = std::fs::remove_dir(Path::new("/run/flowyard").join(&name));
}

#[test]
fn the_one_yard_that_runs_needs_no_name() {
    let dir = tempfile::tempdir().expect("a folder");
    // As a user of its own, so that no other yard is seen.
    let as_user = |command: &mut Command| {
        command.env("XDG_RUNTIME_DIR", dir.path());
        if is_root() {
            std::os::unix::process::CommandExt::uid(command, 65533);
        }
    };
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).expect("changed");
    let start = |name: &str| {
        let mut command = command(&["gen:mix?rate=1000", "--json", "--control", "--name", name]);
        as_user(&mut command);
        command.spawn().expect("it starts")
    };
    let ctl = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("ctl").args(args).stdin(Stdio::null());
        as_user(&mut command);
        command.output().expect("it runs")
    };
    assert!(errors(&ctl(&["status"])).contains("flowyard/yard/control.sock"), "where one would be");
    let first = start("first");
    until("the first", || ctl(&["status"]).status.success());
    assert_eq!(answer(&ctl(&["status"]))["name"], "first");
    let second = start("second");
    until("the second", || ctl(&["--name", "second", "status"]).status.success());
    let refused = ctl(&["status"]);
    assert!(!refused.status.success() && errors(&refused).contains("first, second"), "{}", errors(&refused));
    for child in [first, second] {
        signal(&child, "-TERM");
        assert!(child.wait_with_output().expect("it ends").status.success());
    }
}

#[test]
fn a_yard_is_found_by_its_name_asked_and_changed() {
    found_asked_and_changed("ctl", &["--dispatchers", "2"]);
}

#[test]
fn so_is_one_whose_rings_are_read_by_those_who_receive() {
    found_asked_and_changed("ctl-local", &["--local", "--dispatchers", "2"]);
}

fn found_asked_and_changed(label: &str, threads: &[&str]) {
    let name = name(label);
    let ports = ["gen:mix?rate=20000", "gen:vxlan?rate=20000"];
    let line = [&ports[..], &["--name", &name, "--control", "--json", "-n", "3"], threads].concat();
    let child = command(&line);
    let mut child = { child }.spawn().expect("it starts");
    let ctl = |args: &[&str]| flowyard(&[&["ctl", "--name", &name], args].concat());
    until("the control socket", || ctl(&["status"]).status.success());
    assert_eq!(answer(&ctl(&["status"]))["name"], name.as_str());
    until("packets on every ring", || {
        let counters = answer(&ctl(&["counters", "--json"]));
        let rings = counters["rings"].as_array().expect("a list").clone();
        rings.len() == 3
            && rings.iter().all(|ring| ring["packets"].as_u64() > Some(0) && ring["dropped"]["ring-full"] == 0)
    });
    let table = ctl(&["counters"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("packets") && table.lines().count() == 6 && table.contains("received"), "{table}");
    let rings = answer(&ctl(&["rings", "--json"]));
    assert_eq!((rings[2]["weight"].as_u64(), rings[2]["slots"].as_u64()), (Some(1), Some(2048)), "of two dispatchers");
    assert_eq!(rings[0]["consumer"], "there");
    assert!(String::from_utf8_lossy(&ctl(&["rings"]).stdout).contains("weight"));

    let changed = answer(&ctl(&["weights", "1,0,1"]));
    assert_eq!((changed["moved"].as_u64(), changed["of"].as_u64()), (Some(1365), Some(4096)), "a third, and no more");
    let of_ring =
        |ring: usize| answer(&ctl(&["counters", "--json"]))["rings"][ring]["packets"].as_u64().expect("a number");
    let (before, other) = (of_ring(1), of_ring(0));
    until("more packets", || of_ring(0) > other + 1000);
    assert_eq!(of_ring(1), before, "a ring of weight 0 gets nothing");
    assert_eq!(answer(&ctl(&["weights"]))[0]["weights"], serde_json::json!([1, 0, 1]));
    for (args, says) in [
        (&["weights", "1,1"][..], "2 weights for 3 rings"),
        (&["weights", "a"], "no weights"),
        (&["weights", "1,1,1", "--group", "ids"], "no group \"ids\""),
        (&["log-level", "loud"], "possible values"),
    ] {
        let output = ctl(args);
        assert!(!output.status.success() && errors(&output).contains(says), "{args:?}: {}", errors(&output));
    }

    assert_eq!(answer(&ctl(&["log-level"]))["level"], "info");
    assert_eq!(answer(&ctl(&["log-level", "error"]))["level"], "error");
    answer(&ctl(&["weights", "1,1,1"])); // said at info: not said

    // As curl does it.
    let socket = errors(&flowyard(&["run", "gen:mix", "--name", &name, "--control"]));
    let socket = socket.split([' ', ':']).find(|word| word.ends_with("control.sock")).expect(&socket).to_owned();
    let mut stream = UnixStream::connect(&socket).expect("connected");
    stream.write_all(b"GET /rings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/json"), "{text}");

    signal(&child, "-TERM");
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && json(&output)["sums_agree"] == true, "{said}");
    assert_eq!(said.matches("weights are").count(), 1, "{said}");
    assert!(!Path::new(&socket).exists(), "the socket is removed");
    let _ = std::fs::remove_dir(Path::new(&socket).parent().expect("a folder"));
}

#[test]
fn what_is_said_has_priorities_in_the_journal() {
    let output = command(&["gen:mix?packets=10", "--log-level", "debug"])
        .env("JOURNAL_STREAM", "1:2")
        .output()
        .expect("it runs");
    let said = errors(&output);
    assert!(
        said.lines().count() > 1 && said.lines().all(|line| line.starts_with("<6>") || line.starts_with("<7>")),
        "{said}"
    );
    let quiet = command(&["gen:mix?packets=10", "--log-level", "warn"]).output().expect("it runs");
    assert!(errors(&quiet).is_empty(), "{}", errors(&quiet));
}

/// A consumer that does not read: a capture that goes into a pipe which nobody empties.
#[test]
fn the_first_signal_drains_what_waits_and_a_second_ends_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().join("out");
    std::fs::create_dir(&out).expect("made");
    let fifo = out.join("ring-00.pcapng");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let folder = out.display().to_string();
    let start = |dir: &Path| {
        let yard = Yard::spawn(
            dir,
            &["gen:mix?rate=200000", "-n", "1", "--ring-slots", "64", "--buffers", "512", "-o", &folder, "--quiet"],
        );
        let reader = std::fs::OpenOptions::new().read(true).open(&fifo).expect("a pipe"); // waits for the writer
        let rings = || yard.ctl(&["rings", "--json"]);
        until("the ring is full and packets wait behind it", || {
            let output = rings();
            output.status.success() && json(&output)[0]["backlog"].as_u64() > Some(0)
        });
        (yard, reader)
    };
    // In order, if the consumer goes on: what the ring held is delivered, what it had no time for is named.
    let (yard, mut reader) = start(dir.path());
    let mut taken = Vec::new();
    yard.signal("-TERM");
    reader.read_to_end(&mut taken).expect("read");
    let socket = yard.socket.clone();
    let output = yard.child.wait_with_output().expect("it ends");
    let report = json(&output);
    assert!(output.status.success() && report["sums_agree"] == true && report["buffers_missing"] == 0, "{report}");
    assert!(report["delivered"].as_u64() > Some(64), "{report}");
    assert!(!socket.exists(), "the socket is removed");
    // If it never does, a second signal ends the program.
    let (mut yard, reader) = start(dir.path());
    yard.signal("-TERM");
    until("it stops receiving", || !yard.ctl(&["counters", "--json"]).status.success() || stopped(&yard));
    assert!(yard.child.try_wait().expect("asked").is_none(), "its consumer is stuck, so it waits");
    yard.signal("-TERM");
    let status = yard.child.wait().expect("it ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(15), "by the signal");
    drop(reader);
}

/// Whether the dispatchers have ended: then no ring answers.
fn stopped(yard: &Yard) -> bool {
    let output = yard.ctl(&["rings", "--json"]);
    !output.status.success() || json(&output).as_array().is_some_and(Vec::is_empty)
}

#[test]
fn a_yard_without_privileges_runs_on_and_restores_the_interface() {
    if !is_root() {
        skipped(module_path!(), line!(), "needs root");
        return;
    }
    let name = name("user");
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth { queues: 1, ..Veth::default() }).expect("root may");
    let shown = || {
        namespace.run(|| {
            let output = Command::new("ip").args(["link", "show", "fy0"]).output().expect("ip runs");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    let user = ["--user", "65534:65534", "--name", &name, "--control", "--json", "-n", "2"];
    let child = namespace.run(|| command(&[&["xdp:fy0"], &user[..]].concat()).spawn().expect("it starts"));
    let ctl = |args: &[&str]| flowyard(&[&["ctl", "--name", &name], args].concat());
    until("the control socket", || ctl(&["status"]).status.success());
    assert!(shown().contains("xdp"));
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("it runs");
    let mut threads = 0;
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).expect("readable");
        for line in [
            "Uid:\t65534\t65534\t65534\t65534",
            "Gid:\t65534\t65534\t65534\t65534",
            "Groups:\t65534 ",
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            assert!(status.lines().any(|l| l == line), "{line:?} is not in {status}");
        }
        threads += 1;
    }
    assert!(threads >= 4, "{threads} threads: dispatcher, two consumers, control and the first");

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            namespace.run(|| {
                let injector = Injector::open("fy1").expect("root may");
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let frames: Vec<_> = (number..number + 32).map(|n| numbered_frame(n as u16 % 50, n, 100)).collect();
                    injector.send(&frames).expect("the interface is up");
                    number += 32;
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        });
        until("packets flow", || answer(&ctl(&["counters", "--json"]))["delivered"].as_u64() > Some(1000));
        answer(&ctl(&["weights", "3,1"]));
        stop.store(true, Ordering::Relaxed);
    });
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("it ends");
    let report = json(&output);
    assert!(output.status.success() && report["sums_agree"] == true && report["buffers_missing"] == 0, "{report}");
    for word in ["user 65534:65534", "no capabilities", "system calls denied"] {
        assert!(errors(&output).contains(word), "{}", errors(&output));
    }
    assert!(!shown().contains("xdp"), "the interface is as before");
    let folder = Path::new("/run/flowyard").join(&name);
    assert!(!folder.join("control.sock").exists(), "the socket is removed");
    // The next owner takes away what was left.
    let next = namespace.run(|| command(&["xdp:fy0", "--for", "0.1", "--json"]).output().expect("it runs"));
    assert!(next.status.success(), "{}", errors(&next));
    let _ = std::fs::remove_dir(folder);
}

#[test]
fn files_outside_what_is_needed_are_out_of_reach() {
    if !is_root() {
        skipped(module_path!(), line!(), "needs root");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("changed");
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nverdict = 'built-in'\n").expect("written");
    let name = name("files");
    let steer = format!("rules:{}", rules.display());
    let child =
        command(&["gen:mix?rate=1000", "--user", "65534", "--name", &name, "--control", "--json", "--steer", &steer])
            .spawn()
            .expect("it starts");
    let ctl = |args: &[&str]| flowyard(&[&["ctl", "--name", &name], args].concat());
    until("the control socket", || ctl(&["status"]).status.success());
    // Its rules it reads again.
    std::fs::write(&rules, "[[rule]]\nverdict = 'drop'\n").expect("written");
    assert!(ctl(&["reload"]).status.success(), "{}", errors(&ctl(&["reload"])));
    // A link to what it was not told of leads nowhere, though the file is for everybody.
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(elsewhere.path(), std::fs::Permissions::from_mode(0o755)).expect("changed");
    let other = elsewhere.path().join("other.toml");
    std::fs::write(&other, "[[rule]]\nverdict = 'built-in'\n").expect("written");
    std::fs::remove_file(&rules).expect("removed");
    std::os::unix::fs::symlink(&other, &rules).expect("linked");
    let refused = ctl(&["reload"]);
    assert!(!refused.status.success() && errors(&refused).contains("Permission denied"), "{}", errors(&refused));
    signal(&child, "-TERM");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", errors(&output));
    let _ = std::fs::remove_dir(Path::new("/run/flowyard").join(&name));
}

/// What systemd has to say of a unit.
fn verified(dir: &Path, unit: &str) -> String {
    let path = dir.join("flowyard@.service");
    std::fs::write(&path, unit.replace("/usr/bin/flowyard", PROGRAM)).expect("written");
    let instance = dir.join("flowyard@test.service");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&instance).output().expect("it runs");
    let said = errors(&output);
    let lines = said.lines().filter(|line| line.contains("flowyard@"));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_unit_is_one_and_says_what_run_takes() {
    let unit = include_str!("../../../contrib/flowyard@.service");
    let help = String::from_utf8_lossy(&flowyard(&["run", "--help"]).stdout).into_owned();
    let start = unit.lines().find(|line| line.starts_with("ExecStart=")).expect("a start");
    for option in start.split_whitespace().filter(|word| word.starts_with("--")) {
        assert!(help.contains(option), "run has no {option}");
    }
    if Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status().is_err() {
        skipped(module_path!(), line!(), "needs systemd-analyze");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(verified(dir.path(), unit), "");
    assert!(verified(dir.path(), &unit.replace("WatchdogSec=", "WatchdogSecs=")).contains("WatchdogSecs"));
}
