//! Steering in the kernel as a user meets it: what is refused and why, where it says that it steers, and the user's
//! own program loaded while packets come.

mod program;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};
use program::*;

#[test]
fn what_the_kernel_cannot_steer_is_refused_with_the_reason() {
    for (args, says) in [
        (&["run", "gen:mix", "--steer", "kernel"][..], "use xdp:IF"),
        (&["run", "xdp:lo", "--steer", "kernel", "--group", "a:1", "--group", "b:2"], "2 groups of rings"),
        (&["run", "xdp:lo", "--steer", "kernel", "--steer", "rules:r.toml"], "together with r.toml"),
        (&["run", "xdp:lo", "xdp:lo", "--steer", "kernel"], "two ports on the interface lo"),
        (&["run", "gen:mix", "--relay"], "add --steer kernel"),
    ] {
        let output = flowyard(args);
        assert!(!output.status.success() && errors(&output).contains(says), "{args:?}: {}", errors(&output));
    }
}

#[test]
fn the_kernel_steers_and_says_so() {
    flowyard_testkit::require_root!();
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth { queues: 2, ..Veth::default() }).expect("root may");
    let output = namespace.run(|| {
        let mut child = Command::new(PROGRAM)
            .args(["run", "xdp:fy0", "--steer", "kernel", "--rings", "4", "--for", "3", "--verify"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let steering = said.by_ref().map_while(Result::ok).find(|line| line.starts_with("steering: "));
        assert!(steering.is_some_and(|line| line.contains("in the kernel")), "it says where");
        let frames: Vec<_> = (0..400).map(|n| numbered_frame(n as u16 % 40, n, 100)).collect();
        Injector::open("fy1").expect("root may").send(&frames).expect("the interface is up");
        let rest = std::thread::spawn(move || said.map_while(Result::ok).collect::<Vec<_>>());
        let output = child.wait_with_output().expect("it ends");
        drop(rest.join());
        output
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("the sums agree"), "{text}");
    assert!(
        text.contains("xdp:fy0, steered-in-kernel: 400") && text.contains("split conversations: 0 of 40"),
        "{text}"
    );
}

/// An object for a slot of the kernel that drops every packet. `None`, and a word about it, without clang.
fn dropping(dir: &Path) -> Option<PathBuf> {
    if Command::new("clang").arg("--version").stdout(Stdio::null()).status().is_err() {
        flowyard_testkit::net::skipped(module_path!(), line!(), "needs clang");
        return None;
    }
    let (source, object) = (dir.join("dropping.bpf.c"), dir.join("dropping.o"));
    let text = "#include \"flowyard.bpf.h\"\n\
        static __always_inline int mine(struct xdp_md *ctx) { return flowyard_verdict(ctx, XDP_DROP); }\n\
        FLOWYARD_PROGRAM(mine)\n\
        char _license[] SEC(\"license\") = \"Dual MIT/GPL\";\n";
    std::fs::write(&source, text).expect("written");
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernel/bpf");
    let built = Command::new("clang")
        .args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-I", header])
        .arg(format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH))
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(&object)
        .status();
    assert!(built.expect("clang runs").success());
    Some(object)
}

#[test]
fn a_users_program_is_put_into_the_kernel_and_taken_out_while_packets_come() {
    flowyard_testkit::require_root!();
    let dir = tempfile::tempdir().expect("a directory");
    let Some(object) = dropping(dir.path()) else { return };
    let garbage = dir.path().join("garbage.o");
    std::fs::write(&garbage, b"no object").expect("written");
    let socket = dir.path().join("yard.sock").display().to_string();
    let ctl = |args: &[&str]| flowyard(&[&["ctl", "--socket", &socket, "bpf"], args].concat());
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth::default()).expect("root may");
    namespace.veth(&Veth { name: "fy2", peer: "fy3", ..Veth::default() }).expect("root may");
    let output = namespace.run(|| {
        let mut child = Command::new(PROGRAM)
            .args([
                "run",
                "xdp:fy0?native",
                "xdp:fy2?generic",
                "--steer",
                "kernel",
                "--rings",
                "4",
                "--json",
                "--quiet",
            ])
            .arg(format!("--control={socket}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the program runs");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ctl(&["list"]).status.success() {
            assert!(Instant::now() < deadline && child.try_wait().is_ok_and(|ended| ended.is_none()), "it serves");
            std::thread::sleep(Duration::from_millis(20));
        }
        let frames: Vec<_> = (0..100).map(|n| numbered_frame(n as u16 % 40, n, 100)).collect();
        let send = |seen: u64| {
            for (end, half) in ["fy1", "fy3"].into_iter().zip(frames.chunks(50)) {
                Injector::open(end).expect("root may").send(half).expect("the interface is up");
            }
            while json(&ctl(&["list"]))["seen"].as_u64().is_none_or(|n| n < seen) {
                assert!(Instant::now() < deadline, "{seen} are seen");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        send(100);
        let object = object.display().to_string();
        let loaded = ctl(&["load", "after", &object]);
        assert_eq!(json(&loaded)["program"], "dropping", "{}", errors(&loaded));
        send(200);
        let refused = ctl(&["load", "after", &garbage.display().to_string()]);
        assert!(!refused.status.success() && errors(&refused).contains("garbage"), "{}", errors(&refused));
        let listed = json(&ctl(&["list"]));
        assert_eq!((&listed["slots"][1]["program"], &listed["verdicts"]["dropped"]), (&"dropping".into(), &100.into()));
        assert_eq!(json(&ctl(&["unload", "after"]))["taken_out"], "dropping");
        send(300);
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        child.wait_with_output().expect("it ends")
    });
    let report = json(&output);
    assert_eq!((&report["received"], &report["sums_agree"]), (&200.into(), &true.into()), "{report:#}");
    for port in 0..2 {
        let notes = &report["ports"][port]["notes"];
        let counted = (&notes["steered-in-kernel"], &notes["ended-in-users-program"]);
        assert_eq!(counted, (&100.into(), &50.into()), "{report:#}");
    }
}
