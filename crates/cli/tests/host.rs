//! What goes on to the host's own stack while the yard has an interface: a connection lives on, and all else is steered.

mod program;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};
use program::*;
use serde_json::Value;

/// Two namespaces and a cable between them; the yard is to have the end called fy0. Another cable, of fy2, ends here.
fn wire() -> (Namespace, Namespace) {
    let (here, there) = (Namespace::new().expect("root may"), Namespace::new().expect("root may"));
    here.veth_to(&there, &Veth { queues: 2, ..Veth::default() }).expect("root may");
    here.veth(&Veth { name: "fy2", peer: "fy3", ..Veth::default() }).expect("root may");
    here.command("ip addr add 10.8.0.1/24 dev fy0").expect("root may");
    there.command("ip addr add 10.8.0.2/24 dev fy1").expect("root may");
    (here, there)
}

fn spawn(args: &[&str]) -> Child {
    Command::new(PROGRAM)
        .args(["run", "--rings", "4", "--json", "--quiet", "--no-verify"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the program runs")
}

fn start(args: &[&str]) -> Child {
    let child = spawn(args);
    let deadline = Instant::now() + Duration::from_secs(20);
    let shown = || Command::new("ip").args(["link", "show", "fy0"]).output().expect("ip runs");
    while !String::from_utf8_lossy(&shown().stdout).contains("xdp") {
        assert!(Instant::now() < deadline, "its program comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Sockets follow the program at once.
    std::thread::sleep(Duration::from_millis(300));
    child
}

fn end(child: Child) -> Value {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
    json(&child.wait_with_output().expect("it ends"))
}

fn frames(count: u64) -> Vec<Vec<u8>> {
    (0..count).map(|n| numbered_frame(n as u16 % 40, n, 100)).collect()
}

/// Sends lines there and back until `rounds` have come; answers how many did.
fn talk(to: &str, rounds: usize) -> usize {
    let address = to.parse().expect("an address");
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return 0 };
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    let mut answer = [0; 64];
    (0..rounds).take_while(|_| stream.write_all(&[7; 64]).is_ok() && stream.read_exact(&mut answer).is_ok()).count()
}

#[test]
fn a_connection_that_the_filter_matches_lives_on_while_all_else_is_steered() {
    flowyard_testkit::require_root!();
    for (port, more) in [
        ("xdp:fy0?native", &[][..]),
        ("xdp:fy0?native", &["--steer", "kernel"]),
        ("xdp:fy0?generic", &["--steer", "kernel"]),
        ("xdp:fy0?native", &["xdp:fy2?native", "--steer", "kernel"]),
    ] {
        let (here, there) = wire();
        here.run(|| {
            let listener = TcpListener::bind("10.8.0.1:2222").expect("its address");
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut bytes = [0; 64];
                    while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&bytes).is_ok() {}
                }
            });
            let child = start(&[&[port, "--host", "arp or tcp port 2222"], more].concat());
            let rounds = there.run(|| {
                let injector = Injector::open("fy1").expect("root may");
                std::thread::scope(|scope| {
                    let talking = scope.spawn(|| there.run(|| talk("10.8.0.1:2222", 200)));
                    for chunk in frames(2000).chunks(50) {
                        injector.send(chunk).expect("sent");
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    talking.join().expect("it talks")
                })
            });
            let mut question = vec![0xff; 60];
            question[12..14].copy_from_slice(&[8, 6]); // the filter has what asks for addresses, too
            Injector::open("fy3").expect("root may").send(&[vec![question; 5], frames(7)].concat()).expect("sent");
            std::thread::sleep(Duration::from_millis(100));
            let report = end(child);
            let own = &report["ports"][0];
            if let Some(second) = report["ports"].get(1) {
                assert_eq!((&second["packets"], &second["notes"]["to-host"]), (&7.into(), &5.into()), "{report:#}");
            }
            assert_eq!(rounds, 200, "{port} {more:?}: {report:#}");
            assert_eq!(own["packets"], 2000, "{port} {more:?}: no more and no less is steered: {report:#}");
            assert!(own["notes"]["to-host"].as_u64() >= Some(200), "{port} {more:?}: {report:#}");
            assert!(own["mode"].as_str().is_some_and(|mode| mode.contains("tcp port 2222")), "{report:#}");
        });
    }
}

#[test]
fn without_a_filter_the_rings_have_it_all_and_with_none_the_rest_is_dropped() {
    flowyard_testkit::require_root!();
    for more in [&[][..], &["--steer", "kernel"]] {
        let (here, there) = wire();
        here.run(|| {
            let child = start(&[&["xdp:fy0"], more].concat());
            assert_eq!(there.run(|| talk("10.8.0.1:2222", 1)), 0, "the host hears of nothing");
            let report = end(child);
            assert!(report["ports"][0]["packets"].as_u64() > Some(0), "the rings have it: {report:#}");

            for (host, lost, noted) in [("pass", false, true), ("none", true, false)] {
                let child = start(&[&["xdp:fy0/0", "--host", host], more].concat());
                there.run(|| Injector::open("fy1").expect("root may").send(&frames(400)).expect("sent"));
                std::thread::sleep(Duration::from_millis(200));
                let report = end(child);
                let own = &report["ports"][0];
                let figure = |value: &Value| value.as_u64().expect("a counter");
                let (dropped, passed) = (figure(&own["lost"]["not-to-host"]), figure(&own["notes"]["passed-to-host"]));
                assert_eq!((dropped > 0, passed > 0), (lost, noted), "{host} {more:?}: {report:#}");
                let all = figure(&own["packets"]) + dropped + passed;
                assert!((400..440).contains(&all), "{host} {more:?}: {report:#}"); // and questions for addresses
            }
        });
    }
}

#[test]
fn what_cannot_be_is_refused_with_words() {
    for (args, says) in [
        (&["xdp:lo", "--host", "tcp port frog"][..], "tcp port frog"),
        (&["packet:lo", "--host", "arp"], "keeps nothing from the host's stack"),
        (&["gen:mix", "--host", "none"], "no host's stack behind it"),
        (&["xdp:lo", "--host", "arp", "--host", "none"], "another --host"),
        (&["xdp:lo", "--host", "tap:t0"], "a function sends there"),
    ] {
        let output = flowyard(&[&["run"], args].concat());
        assert!(!output.status.success() && errors(&output).contains(says), "{args:?}: {}", errors(&output));
    }
}
