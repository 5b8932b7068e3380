//! Unmodified programs on the rings of a live yard: tcpdump and ngrep as Debian builds them.

mod served;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use flowyard::port::traffic::{Mix, MixOptions};
use flowyard::{Absent, Group, YardConfig};
use flowyard_testkit::net::{Injector, Namespace, Veth, number_of, numbered_frame};
use flowyard_testkit::require_root;
use served::{Served, has, library, output};

/// A program with the library preloaded, which finds the yard.
fn preloaded(program: &str, yard: &Served) -> Command {
    let mut command = Command::new(program);
    command.env("LD_PRELOAD", library("libflowyard_pcap.so")).env("FLOWYARD_RUNTIME_DIR", yard.folder());
    command
}

/// It would give up being root, and may not write the test's folder then.
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

/// Magic, link type and frames of a capture file of libpcap's own format.
fn capture(file: &Path) -> (u32, u32, Vec<Vec<u8>>) {
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

/// The yard hears of the end of its consumers, and has all of its buffers back.
fn assert_whole(yard: Served) {
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn tcpdump_writes_what_a_ring_has() {
    if !has("tcpdump", "rings for tcpdump") {
        return;
    }
    let yard = Served::start(1, "gen:mix?rate=20000");
    let file = yard.folder().join("all.pcap");
    let name = file.to_str().expect("text");
    let out = tcpdump(&yard, &["-i", "flowyard:edge/0", "-w", name, "-c", "300"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("300 packets captured"), "{}", text(&out.stderr));
    let (magic, link, frames) = capture(&file);
    assert_eq!((magic, link, frames.len()), (0xa1b2_c3d4, 1, 300));
    assert!(frames.iter().all(|frame| frame.len() >= 60));

    // A filter, nanoseconds, a snap length.
    let arguments = ["-i", "flowyard:edge/0", "--nano", "-s", "80", "-w", name, "-c", "50", "udp and not port 53"];
    let out = tcpdump(&yard, &arguments);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let (magic, _, frames) = capture(&file);
    assert_eq!((magic, frames.len()), (0xa1b2_3c4d, 50));
    assert!(frames.iter().all(|frame| frame.len() <= 80) && frames.iter().any(|frame| frame.len() == 80));

    // As tcpdump without the library sees it.
    let count = |filter: &str| {
        let out = Command::new("tcpdump").args(["--count", "-r", name, filter]).output().expect("it runs");
        text(&out.stdout).trim().to_owned()
    };
    assert_eq!((count("udp").as_str(), count("port 53").as_str()), ("50 packets", "0 packets"));
    assert_whole(yard);
}

#[test]
fn tcpdump_ends_with_the_yard() {
    if !has("tcpdump", "the end of a yard for tcpdump") {
        return;
    }
    let yard = Served::start(1, "gen:mix?packets=1000");
    let out = tcpdump(&yard, &["-n", "-i", "flowyard:edge/0"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("1000 packets captured"), "{}", text(&out.stderr));
    assert_whole(yard);
}

#[test]
fn a_signal_ends_tcpdump_while_it_waits() {
    if !has("tcpdump", "signals for tcpdump") {
        return;
    }
    let yard = Served::start(1, "gen:mix?rate=1");
    // Nothing of that kind comes: it sleeps when the signal does, or is about to.
    let mut command = preloaded("tcpdump", &yard);
    let child = command.args(["-Z", "root", "-n", "-i", "flowyard:edge/0", "arp"]);
    let mut child = child.stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert!(lines.any(|line| line.contains("listening on flowyard:edge/0")));
    let number = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(number, rustix::process::Signal::INT).expect("it is a child");
    assert!(lines.any(|line| line.contains("0 packets captured")));
    assert!(child.wait().expect("it is a child").success());
    assert_whole(yard);
}

#[test]
fn tcpdump_lists_rings_beside_interfaces() {
    if !has("tcpdump", "a list of rings for tcpdump") {
        return;
    }
    let config =
        YardConfig { rings: 2, groups: vec![Group::new("ids", 1)], absent: Absent::Drop, ..YardConfig::default() };
    let yard = Served::of(&config, "gen:mix?rate=1000");
    let without = Command::new("tcpdump").arg("-D").output().expect("it runs");
    let out = tcpdump(&yard, &["-D"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let (listed, without) = (text(&out.stdout), text(&without.stdout));
    for ring in ["edge/0 ", "edge/1 ", "edge/ids/0 "] {
        assert!(listed.contains(&format!("flowyard:{ring}")), "{listed}");
    }
    assert_eq!(listed.lines().count(), without.lines().count() + 3, "{listed}");
    assert!(listed.contains("Running"), "{listed}");
    assert_whole(yard);
}

#[test]
fn what_cannot_be_opened_is_said() {
    if !has("tcpdump", "errors for tcpdump") {
        return;
    }
    let yard = Served::start(1, "gen:mix?rate=1000");
    for (arguments, why) in [
        (&["-i", "flowyard:edge/7"][..], "there is none: it has 0 to 0"),
        (&["-i", "flowyard:nowhere/0"], "cannot reach the yard"),
        (&["-i", "flowyard:edge"], "names no ring"),
        (&["-i", "flowyard:edge/0", "nonsense and more"], "syntax error"),
        (&["-i", "flowyard:edge/0", "-I"], "monitor mode"),
        (&["-i", "flowyard:edge/0", "-y", "PPP"], "link type"),
    ] {
        let out = tcpdump(&yard, arguments);
        assert!(!out.status.success(), "{arguments:?}");
        assert!(text(&out.stderr).contains(why), "{arguments:?}: {}", text(&out.stderr));
    }
    assert_whole(yard);
}

#[test]
fn ngrep_finds_what_it_looks_for() {
    if !has("ngrep", "rings for ngrep") {
        return;
    }
    let yard = Served::start(1, "gen:mix?rate=20000");
    let out = output(preloaded("ngrep", &yard).args(["-d", "flowyard:edge/0", "-n", "20", "-q", "-t", "", "udp"]));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let found = text(&out.stdout).lines().filter(|line| line.starts_with("U ")).count();
    assert_eq!(found, 20, "{}{}", text(&out.stdout), text(&out.stderr));
    assert_whole(yard);
}

/// A capture of libpcap's own format.
fn written(link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 262_144, link] {
        bytes.extend_from_slice(&u32::to_le_bytes(number));
    }
    for (at, frame) in frames.iter().enumerate() {
        let len = frame.len() as u32;
        [at as u32, 7, len, len].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(frame);
    }
    bytes
}

#[test]
fn packets_of_several_buffers_are_whole() {
    if !has("tcpdump", "packets of several buffers for tcpdump") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from.pcap"), folder.path().join("to.pcap"));
    let lengths = [60, 9000, 2000, 65_000, 4096, 1500];
    let frames: Vec<Vec<u8>> = lengths.iter().map(|len| numbered_frame(3, *len as u64, *len)).collect();
    std::fs::write(&from, written(1, &frames)).expect("written");
    let yard = Served::start(1, &format!("pcap:{}", from.display()));
    let out = tcpdump(&yard, &["-i", "flowyard:edge/0", "-w", to.to_str().expect("text"), "udp"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(std::fs::read(&from).expect("a capture"), std::fs::read(&to).expect("a capture"));
    assert_whole(yard);
}

#[test]
fn the_link_type_is_that_of_the_packets() {
    if !has("tcpdump", "link types for tcpdump") {
        return;
    }
    const RAW: u32 = 101;
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("from.pcap"), folder.path().join("to.pcap"));
    let packets: Vec<Vec<u8>> = (0..50).map(|number| numbered_frame(3, number, 200)[14..].to_vec()).collect();
    std::fs::write(&from, written(RAW, &packets)).expect("written");
    let yard = Served::start(1, &format!("pcap:{}", from.display()));
    let out = tcpdump(&yard, &["-i", "flowyard:edge/0", "-w", to.to_str().expect("text"), "udp dst port 4000"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("link-type RAW"), "{}", text(&out.stderr));
    assert_eq!(std::fs::read(&from).expect("a capture"), std::fs::read(&to).expect("a capture"));
    assert_whole(yard);
}

#[test]
fn vlan_tags_that_were_taken_off_are_put_back() {
    require_root!();
    if !has("tcpdump", "VLAN tags for tcpdump") {
        return;
    }
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    let yard = wire.run(|| Served::start(1, "packet:fy0"));
    let file = yard.folder().join("vlan.pcap");
    let sent: Vec<Vec<u8>> = (0..30).map(|number| tagged(numbered_frame(1, number, 100), 42)).collect();
    let arguments = ["-i", "flowyard:edge/0", "-w", file.to_str().expect("text"), "-c", "30", "vlan 42 and udp"];
    let out = std::thread::scope(|scope| {
        let out = scope.spawn(|| tcpdump(&yard, &arguments));
        yard.until_read();
        wire.run(|| Injector::open("fy1").expect("as root").send(&sent).expect("sent"));
        out.join().expect("no panic")
    });
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(capture(&file).2, sent);
    assert_whole(yard);
}

/// With a VLAN tag.
fn tagged(mut frame: Vec<u8>, vlan: u8) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, 0, vlan]);
    frame
}

/// What the other process is to do.
const TASK: &str = "FLOWYARD_TEST_YARD";

/// The other process: a yard to be killed. This same test binary, run with a folder in its environment.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(TASK) else { return };
    let config = YardConfig { rings: 1, absent: Absent::Hold, ..YardConfig::default() };
    let _yard = Served::at(&config, "gen:mix?rate=5000", Path::new(&folder));
    std::thread::sleep(served::PATIENCE);
}

#[test]
fn a_yard_that_is_killed_is_an_error() {
    if !has("tcpdump", "a killed yard for tcpdump") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut yard = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--quiet"])
        .env(TASK, folder.path())
        .spawn()
        .expect("it runs");
    let mut command = Command::new("tcpdump");
    command.env("LD_PRELOAD", library("libflowyard_pcap.so")).env("FLOWYARD_RUNTIME_DIR", folder.path());
    command.args(["-Z", "root", "-n", "-l", "-i", "flowyard:edge/0"]);
    let socket = folder.path().join("edge/attach.sock");
    let deadline = std::time::Instant::now() + served::PATIENCE;
    while !socket.exists() {
        assert!(std::time::Instant::now() < deadline, "the yard does not come");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut tcpdump = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // It has packets: so it is attached.
    let mut lines = BufReader::new(tcpdump.stdout.take().expect("piped")).lines();
    assert!(lines.next().expect("a packet").is_ok());
    yard.kill().expect("a child");
    yard.wait().expect("a child");
    lines.for_each(drop);
    let out = tcpdump.wait_with_output().expect("a child");
    assert!(!out.status.success());
    assert!(text(&out.stderr).contains("is gone without a word"), "{}", text(&out.stderr));
}

#[test]
fn interfaces_are_the_real_librarys() {
    require_root!();
    if !has("tcpdump", "interfaces for tcpdump with the library preloaded") {
        return;
    }
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    let yard = Served::start(1, "gen:mix?rate=10");
    let file = yard.folder().join("wire.pcap");
    let mut command = preloaded("tcpdump", &yard);
    command.args(["-Z", "root", "-i", "fy0", "-w", file.to_str().expect("text"), "-c", "20", "udp dst port 4000"]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let out = wire.run(|| {
        let sender = Injector::open("fy1").expect("as root");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Until it has enough: when it begins to listen nobody knows.
                for number in 0.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    sender.send(&[numbered_frame(1, number, 100)]).expect("sent");
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            });
            let out = output(&mut command);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            out
        })
    });
    assert!(out.status.success(), "{}", text(&out.stderr));
    let frames = capture(&file).2;
    assert_eq!(frames.len(), 20);
    assert!(frames.iter().all(|frame| number_of(frame).is_some()));
    assert_whole(yard);
}

/// What the guide of docs/attach.md comes to: several workers as they are, of an ordinary user, on a live interface. Which
/// conversation a frame is of the generator knows, and nobody else is asked.
#[test]
fn workers_of_an_ordinary_user_have_whole_conversations() {
    require_root!();
    if !has("tcpdump", "workers") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const WORKERS: u16 = 4;
    const NOBODY: u32 = 65534;
    let mut mix = Mix::new(&MixOptions { flows: 200, seed: 11, ..MixOptions::default() });
    let mut frame = [0; Mix::FRAME_BYTES];
    let mut conversations: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut frames = Vec::new();
    while frames.len() < 4000 {
        let packet = mix.next(&mut frame);
        let bytes = frame[..packet.len].to_vec();
        if packet.len <= 1514 && conversations.insert(bytes.clone(), packet.conversation).is_none() {
            frames.push(bytes); // no frame twice: what a worker has is told by its bytes
        }
    }
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { queues: 2, ..Veth::default() }).expect("as root");
    wire.run(|| {
        let config = YardConfig { rings: WORKERS, absent: Absent::Hold, dispatchers: 2, ..YardConfig::default() };
        let ours = tempfile::tempdir().expect("a folder"); // outlives the yard
        let yard = Served::at(&config, "xdp:fy0", ours.path());
        let folder = ours.path().to_owned();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("ours");
        let preload = folder.join("preload.so");
        std::fs::copy(library("libflowyard_pcap.so"), &preload).expect("room");
        let file = |ring: u16| folder.join(format!("{ring}.pcap"));
        let mut workers: Vec<_> = (0..WORKERS)
            .map(|ring| {
                let mut command = Command::new("tcpdump");
                command.args(["-n", "-q", "-i", &format!("flowyard:edge/{ring}"), "-w"]).arg(file(ring));
                command.env("LD_PRELOAD", &preload).env("FLOWYARD_RUNTIME_DIR", &folder).uid(NOBODY).gid(NOBODY);
                command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
            })
            .collect();
        yard.until_read_by(WORKERS.into());
        let injector = Injector::open("fy1").expect("as root");
        let mut sent = 0;
        for chunk in frames.chunks(200) {
            injector.send(chunk).expect("the wire takes it");
            sent += chunk.len() as u64;
            yard.until_received(sent);
        }
        yard.until_delivered(sent); // told to end, a yard lets go at once of fragments that wait
        let report = yard.report();
        assert!(report.sums_agree() && (report.violations, report.buffers_missing) == (0, 0), "{report:?}");
        assert_eq!((report.received(), report.delivered(), report.lost_before()), (sent, sent, 0), "{report:?}");
        let mut of_worker: HashMap<u32, u16> = HashMap::new();
        for ring in 0..WORKERS {
            assert!(workers[usize::from(ring)].wait().expect("a child").success(), "it ends with the yard");
            let (_, _, got) = capture(&file(ring));
            assert_eq!(got.len() as u64, report.rings[usize::from(ring)].packets, "ring {ring}");
            assert!(got.len() > frames.len() / 12, "each has a share: {}", got.len());
            for bytes in got {
                let conversation = conversations.remove(&bytes).expect("sent, and not seen before");
                assert_eq!(
                    *of_worker.entry(conversation).or_insert(ring),
                    ring,
                    "conversation {conversation} is whole"
                );
            }
        }
        assert!(conversations.is_empty() && of_worker.len() > 100, "every frame is with one of them");
    });
}
