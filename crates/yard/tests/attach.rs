//! Consumers in processes of their own: what they get, and that nobody else notices when they die, misbehave, or ask
//! for what they may not have.

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{PATIENCE, dropped, join, specs, take_all};
use flowyard::attach::{Allow, Attach, AttachError, Attached, End, Server, Serving};
use flowyard::mem::{Consumer, Grant, Wait, handover};
use flowyard::{Absent, Drop as Lost, Group, RingReader, Running, Stage, Yard, YardConfig};
use flowyard_testkit::require_root;

/// What a child does, where it connects, and to which ring.
const TASK: &str = "FLOWYARD_TEST_TASK";
const SOCKET: &str = "FLOWYARD_TEST_SOCKET";
const RING: &str = "FLOWYARD_TEST_RING";

/// The other process: this same test binary, run with a task in its environment.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else { return };
    let socket = PathBuf::from(std::env::var(SOCKET).expect("a socket"));
    let ring = std::env::var(RING).expect("a ring");
    let wanted = Attach::at(&socket, &ring).called("the-child");
    match task.as_str() {
        "count" => {
            let mut ring = wanted.now().expect("attached");
            println!("attached");
            let (packets, sum) = count(&mut ring);
            println!("{packets} {sum} {:?}", ring.end());
        }
        "waits-for-the-next-yard" => {
            let mut ring = wanted.now().expect("attached");
            println!("attached");
            let (packets, _) = count(&mut ring);
            println!("{packets} {:?}", ring.end());
            drop(ring);
            let mut ring = wanted.within(Some(PATIENCE)).expect("attached anew");
            println!("attached anew");
            let (packets, _) = count(&mut ring);
            println!("{packets} {:?}", ring.end());
        }
        "until-killed" => {
            let mut ring = wanted.within(Some(PATIENCE)).expect("attached");
            println!("attached");
            count(&mut ring);
        }
        "stands-still" => {
            let mut ring = wanted.now().expect("attached");
            println!("attached");
            while ring.next().is_none() {
                ring.wait(None);
            }
            std::thread::sleep(PATIENCE);
        }
        "refused" => println!("{}", wanted.now().expect_err("refused")),
        "scribble" => scribble(wanted.now().expect("attached")),
        "reopen" => {
            let ring = wanted.now().expect("attached");
            // The region, and one pipe for the one dispatcher: nobody else's.
            assert_eq!(
                (memory_files().len(), writable_mappings().len()),
                (1, 1),
                "the region by its file, its own pipe"
            );
            println!("{}", reopened(ring));
        }
        "stage" => stage(wanted.write(true).stage(true).now().expect("attached")),
        "later" => later(),
        "come-and-go" => come_and_go(&socket),
        "be-the-yard" => {
            let folder = tempfile::tempdir().expect("a folder");
            let config = YardConfig { rings: 1, ..YardConfig::default() };
            let served = serve_at(config, "gen:mix?rate=5000", &[], |_| true, &socket, folder);
            println!("serving");
            until("it is killed", || served.running.is_finished());
        }
        other => panic!("no task {other}"),
    }
}

/// Takes everything: packets, and the sum of their bytes' number.
fn count(ring: &mut RingReader) -> (u64, u64) {
    let (mut packets, mut sum) = (0, 0);
    loop {
        while let Some(packet) = ring.next() {
            let tag = packet.tag();
            assert_eq!((tag.hash, tag.ring), (packet.slot().hash, ring_of(&packet)), "tag and slot of one packet");
            packets += 1;
            sum += packet.len() as u64;
        }
        if ring.wait(None) == Wait::Ended {
            return (packets, sum);
        }
    }
}

fn ring_of(packet: &flowyard::mem::Packet<'_>) -> u16 {
    packet.tag().ring
}

/// Numbers packets, and passes them on to a process of its own.
fn stage(ring: Attached) {
    let (mut stage, end) = Stage::new(ring.into_reader(), 64).expect("room");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("sockets");
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "child", "--nocapture", "--quiet"]).env(TASK, "later").stdin(OwnedFd::from(theirs));
    let mut child = command.spawn().expect("the child runs");
    let parts = stage.hand_over(end, Grant::Read).expect("descriptors");
    handover::send(&ours, b"", Some(parts)).expect("it listens");
    let mut number = 0u64;
    while stage.wait(None) != Wait::Ended {
        while let Some(mut packet) = stage.next() {
            let index = u64::from(packet.buffer_index());
            packet.set_annotation(&[number, index]).expect("it may");
            number += 1;
            let _ = stage.pass_waiting(None);
        }
    }
    stage.finish(None);
    assert!(child.wait().expect("a child").success());
}

/// Reads what a stage passes on; holds one packet for long, and looks whether it stays as it is.
fn later() {
    use std::os::fd::AsFd;
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("the socket");
    let message = handover::receive(&socket).and_then(handover::Message::of_our_version).expect("a message");
    let mut consumer = Consumer::attach(message.parts.expect("descriptors"), Grant::Read).expect("attached");
    println!("attached");
    let mut expected = 0u64;
    while consumer.wait(None) != Wait::Ended {
        while let Some(packet) = consumer.next() {
            let told = packet.annotation::<[u64; 2]>().expect("it fits");
            assert_eq!(told, [expected, u64::from(packet.buffer_index())], "the stage's word of this packet");
            expected += 1;
            if expected == 500 {
                println!("holding");
                let (bytes, tag) = (packet.data().to_vec(), packet.tag());
                for _ in 0..800 {
                    std::thread::sleep(Duration::from_millis(1));
                    let now = packet.annotation::<[u64; 2]>().expect("it fits");
                    assert_eq!((packet.data(), packet.tag(), now), (&bytes[..], tag, told), "it has changed");
                }
                println!("unchanged");
            }
        }
    }
    assert!(expected >= 500, "{expected}");
    println!("done");
}

#[test]
fn what_a_killed_stage_passed_on_stays_until_the_next_one_is_done() {
    // So few buffers that each is used again within milliseconds.
    let config = YardConfig { rings: 1, ring_slots: 64, buffers: Some(600), ..YardConfig::default() };
    let served = serve(config, "gen:mix?rate=200000", &["*+write"], |_| true);
    let mut stage = Process::start("stage", served.server.path(), "0");
    stage.expect("attached");
    stage.expect("holding");
    stage.child.kill().expect("it can be killed");
    stage.child.wait().expect("a child");
    // The ring goes on with another consumer, and all buffers that may be are used again and again.
    let mut next = Attach::at(served.server.path(), "0").within(Some(PATIENCE)).expect("vacant again");
    let (mut packets, mut buffers) = (0, std::collections::HashSet::new());
    until("packets come", || {
        while let Some(packet) = next.next() {
            packets += 1;
            buffers.insert(packet.buffer_index());
        }
        packets > 20_000
    });
    assert!(buffers.len() > 30, "{} buffers were used", buffers.len());
    let next = std::thread::spawn(move || count(&mut next));
    stage.expect("unchanged");
    stage.expect("done");
    std::io::Read::read_to_end(&mut stage.lines, &mut Vec::new()).expect("a pipe"); // until it has ended
    std::thread::sleep(Duration::from_millis(200)); // the yard has heard of it
    served.running.stop();
    let report = join(served.running);
    next.join().expect("no panic");
    assert!(report.sums_agree() && report.violations == 0, "{report:?}");
    assert_eq!(report.buffers_missing, 0, "all came home, once nobody looked at them any more");
}

/// Every descriptor of this process that is a memory file, with its length.
fn memory_files() -> Vec<(i32, u64)> {
    let listed = std::fs::read_dir("/proc/self/fd").expect("proc is there");
    let fds = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_ours = |fd: &i32| {
        let to = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        to.is_ok_and(|to| to.to_string_lossy().contains("memfd:flowyard"))
    };
    fds.filter(is_ours).map(|fd| (fd, std::fs::metadata(format!("/proc/self/fd/{fd}")).expect("open").len())).collect()
}

/// Mappings of this process that are memory files: start and length of those it may write.
fn writable_mappings() -> Vec<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("proc is there");
    let of_ours = maps.lines().filter(|line| line.contains("memfd:flowyard"));
    of_ours
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (range, rights) = (words.next()?, words.next()?);
            let (from, to) = range.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).ok();
            rights.contains('w').then_some((hex(from)?, hex(to)? - hex(from)?))
        })
        .collect()
}

/// Writes random bytes over all it can reach, again and again.
#[allow(unsafe_code)]
fn scribble(ring: Attached) {
    println!("attached");
    let mut state = u64::from(std::process::id()) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mappings = writable_mappings();
    assert!(!mappings.is_empty(), "its own pipe, at least");
    let mut bytes = 0u64;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        for (start, len) in &mappings {
            for _ in 0..4096 {
                let at = start + (random() as usize % (len / 8)) * 8;
                // SAFETY: within a mapping that this process may write, 8-byte aligned; who reads it is prepared.
                unsafe { (at as *const std::sync::atomic::AtomicU64).as_ref() }
                    .expect("not null")
                    .store(random(), std::sync::atomic::Ordering::Relaxed);
                bytes += 8;
            }
        }
        for (fd, _) in memory_files() {
            let path = format!("/proc/self/fd/{fd}");
            let _ = std::fs::OpenOptions::new().write(true).truncate(true).open(path);
        }
    }
    println!("{bytes}");
    std::mem::forget(ring); // its end would look at what was scribbled over
}

/// Every way to a writable region that a consumer could think of.
#[allow(unsafe_code)]
fn reopened(ring: Attached) -> String {
    let mut found = Vec::new();
    let largest = memory_files().into_iter().max_by_key(|(_, len)| *len).expect("the region");
    let path = format!("/proc/self/fd/{}", largest.0);
    for (how, options) in [
        ("write", std::fs::OpenOptions::new().write(true)),
        ("append", std::fs::OpenOptions::new().append(true)),
        ("read and write", std::fs::OpenOptions::new().read(true).write(true)),
    ] {
        let Ok(file) = options.open(&path) else { continue };
        let file = OwnedFd::from(file);
        if rustix::io::pwrite(&file, b"mine", 4096 + 256).is_ok() {
            found.push(format!("pwrite after opening for {how}"));
        }
        if rustix::fs::ftruncate(&file, 4096).is_ok() {
            found.push("truncate".into());
        }
        // SAFETY: a fresh mapping of a file, unmapped by the end of this process.
        let map = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        };
        found.extend(map.ok().map(|_| format!("map after opening for {how}")));
    }
    let region = ring.about().to_string();
    let protect = writable_mappings().iter().any(|(_, len)| *len as u64 >= largest.1);
    found.extend(protect.then(|| "mapped for writing".to_owned()));
    format!("{region}: {found:?}")
}

/// Held while a process is started, and while a yard finds out who has left its rings: a process that is being started has
/// copies of all our descriptors until its program runs, and by these a consumer would seem to be there.
static FORKING: Mutex<()> = Mutex::new(());

/// A yard of `rings` rings of which nobody in this process reads those that `vacant` says.
struct Served {
    running: Running,
    server: Server,
    readers: Vec<std::thread::JoinHandle<common::Seen>>,
    _folder: tempfile::TempDir,
}

fn serve(config: YardConfig, port: &str, allow: &[&str], vacant: impl Fn(usize) -> bool) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("attach.sock");
    serve_at(config, port, allow, vacant, &path, folder)
}

fn serve_at(
    config: YardConfig,
    port: &str,
    allow: &[&str],
    vacant: impl Fn(usize) -> bool,
    path: &Path,
    folder: tempfile::TempDir,
) -> Served {
    let forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
    let (yard, readers) = Yard::open(&config, &specs(&[port])).expect("it opens");
    let kept = readers.into_iter().enumerate().filter(|(at, _)| !vacant(*at)).map(|(_, reader)| reader);
    let readers = kept.map(|reader| std::thread::spawn(move || take_all(reader))).collect();
    let running = yard.start().expect("threads start");
    until("dispatchers have seen who is not there", || {
        running.live().iter().all(|live| live.turns.load(std::sync::atomic::Ordering::Relaxed) > 0)
    });
    drop(forking);
    let groups = std::iter::once(String::new()).chain(config.groups.iter().map(|g| g.name.clone())).collect();
    let allow: Vec<Allow> = allow.iter().map(|rule| rule.parse().expect("a rule")).collect();
    let server = running.serve(path, Serving { name: "test".into(), groups, allow }).expect("a socket");
    Served { running, server, readers, _folder: folder }
}

/// A child that is killed with its test.
struct Process {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(task: &str, socket: &Path, ring: &str) -> Process {
        Process::start_as(Command::new(std::env::current_exe().expect("this test")), task, socket, ring)
    }

    fn start_as(mut command: Command, task: &str, socket: &Path, ring: &str) -> Process {
        let _forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = command
            .args(["--exact", "child", "--nocapture", "--quiet"])
            .envs([(TASK, task), (RING, ring)])
            .env(SOCKET, socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the child runs");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Process { child, lines }
    }

    /// The next line that is the child's own and not of the test's harness.
    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("a pipe") > 0, "the child has ended");
            let line = line.trim();
            if !line.is_empty() && !line.starts_with("running ") && !line.starts_with("test ") {
                return line.to_owned();
            }
        }
    }

    fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is a child");
    }

    fn end(mut self) {
        assert!(self.child.wait().expect("it is a child").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for what will be. Panics instead of hanging.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "it never came about that {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_packet_of_a_ring_reaches_its_process_once() {
    let config = YardConfig { rings: 3, absent: Absent::Hold, dispatchers: 2, ..YardConfig::default() };
    let served = serve(config, "gen:mix?packets=60000", &[], |ring| ring != 1);
    let socket = served.server.path().to_owned();
    // Nothing is lost meanwhile: the generator waits.
    let mut children: Vec<Process> = ["0", "2"].map(|ring| Process::start("count", &socket, ring)).into();
    children.iter_mut().for_each(|child| child.expect("attached"));
    let report = join(served.running);
    assert!(report.sums_agree() && report.delivered() == 60_000 && report.violations == 0, "{report:?}");
    assert_eq!(report.buffers_missing, 0);
    for (mut child, ring) in children.into_iter().zip([0, 2]) {
        let counted = report.rings[ring];
        child.expect(&format!("{} {} InOrder", counted.packets, counted.bytes));
        child.end();
    }
    for reader in served.readers {
        assert_eq!(reader.join().expect("no panic").packets, report.rings[1].packets);
    }
}

#[test]
fn groups_have_names_and_each_ring_one_reader() {
    let config = YardConfig { rings: 2, groups: vec![Group::new("ids", 2)], ..YardConfig::default() };
    let served = serve(config, "gen:mix?rate=20000", &[], |outlet| outlet != 0);
    let at = |ring: &str| Attach::at(served.server.path(), ring).now();
    let mut one = at("ids/1").expect("vacant");
    assert_eq!((one.about().to_string(), one.about().rings, one.ring()), ("test/ids/1".into(), 2, 1));
    assert_eq!(one.about().ports, ["gen:mix"]);
    assert_eq!(one.wait(Some(PATIENCE)), Wait::Ready);
    let refused = |ring: &str| match at(ring) {
        Err(AttachError::Refused { why, .. }) => why,
        other => panic!("{ring}: {other:?}"),
    };
    assert!(refused("ids/1").contains(&format!("process {}", std::process::id())), "{}", refused("ids/1"));
    assert!(refused("0").contains("own process"), "{}", refused("0"));
    assert_eq!(refused("ids/2"), "there is none: it has 0 to 1, ids/0 to 1");
    assert!(refused("recorder/0").contains("there is none"));
    let who = served.server.consumers();
    assert_eq!(
        who.iter().map(|w| (w.ring.as_str(), w.pid, w.write)).collect::<Vec<_>>(),
        [("ids/1", std::process::id(), false)]
    );
    drop(one);
    drop(Attach::at(served.server.path(), "ids/1").within(Some(PATIENCE)).expect("vacant again"));
    until("nobody is there", || served.server.consumers().is_empty());
    served.running.stop();
    let report = join(served.running);
    assert!(report.sums_agree() && (report.violations, report.buffers_missing) == (0, 0), "{report:?}");
}

#[test]
fn consumers_killed_at_any_moment_cost_nobody_else_a_packet() {
    // 1000 of them where time is not short.
    let kills: u32 = std::env::var("FLOWYARD_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(240);
    for absent in [Absent::Drop, Absent::Redistribute, Absent::Hold] {
        let config = YardConfig { rings: 3, absent, dispatchers: 2, ..YardConfig::default() };
        // Two dispatchers, and a source that goes on: rings 0 and 2 have threads of this process.
        let served = serve(config, "gen:mix?rate=300000", &[], |ring| ring == 1);
        let mut longest = Duration::ZERO;
        for n in 0..kills / 3 {
            let mut child = Process::start("until-killed", served.server.path(), "1");
            child.expect("attached");
            std::thread::sleep(Duration::from_micros(u64::from(n) * 7919 % 6000));
            let killed = Instant::now();
            child.kill();
            until("its ring is vacant", || served.server.consumers().is_empty());
            longest = longest.max(killed.elapsed());
        }
        println!("{absent:?}: {} kills, the ring vacant after {longest:?} at most", kills / 3);
        let mut last = Attach::at(served.server.path(), "1").now().expect("it can attach again and go on");
        let mut packets = 0;
        until("packets come", || {
            while last.next().is_some() {
                packets += 1;
            }
            packets > 1000
        });
        served.running.stop();
        let last = std::thread::spawn(move || count(&mut last));
        let report = join(served.running);
        last.join().expect("no panic");
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert_eq!((report.buffers_missing, report.violations), (0, 0), "{absent:?}: every buffer came home");
        for ring in [0, 2] {
            assert_eq!(report.rings[ring].dropped_total(), 0, "{absent:?}: ring {ring} lost nothing");
        }
        assert!(report.rings[1].abandoned > 0, "some died with packets in their hands");
        assert_eq!(dropped(&report, Lost::RingFull), 0, "{absent:?}");
        assert_eq!(absent == Absent::Drop, dropped(&report, Lost::ConsumerGone) > 0, "{absent:?} {report:?}");
        for reader in served.readers {
            reader.join().expect("no panic");
        }
    }
}

/// Counters of a yard as it runs: received, delivered, dropped.
fn live(running: &Running) -> (u64, u64, u64) {
    use std::sync::atomic::Ordering::Relaxed;
    running.live().iter().fold((0, 0, 0), |(r, d, l), live| {
        (r + live.received.load(Relaxed), d + live.delivered.load(Relaxed), l + live.dropped.load(Relaxed))
    })
}

#[test]
fn a_consumer_that_stands_still_fills_its_own_ring_and_nothing_else() {
    // A source that cannot wait is what this is about: a live interface.
    require_root!();
    let wire = flowyard_testkit::net::Namespace::new().expect("as root");
    wire.veth(&flowyard_testkit::net::Veth::default()).expect("as root");
    wire.run(|| {
        let config = YardConfig { rings: 2, ring_slots: 256, buffers: Some(6000), ..YardConfig::default() };
        let served = serve(config, "packet:fy0", &[], |ring| ring == 1);
        let mut child = Process::start("stands-still", served.server.path(), "1");
        child.expect("attached");
        let injector = flowyard_testkit::net::Injector::open("fy1").expect("as root");
        let frames: Vec<Vec<u8>> = common::generated(&flowyard::port::traffic::MixOptions::default(), 2000)
            .into_iter()
            .map(|(frame, _)| frame)
            .filter(|frame| frame.len() <= 1514)
            .collect();
        let mut sent = 0;
        until("its backlog has been cut", || {
            for chunk in frames.chunks(100) {
                injector.send(chunk).expect("the wire takes it");
                sent += chunk.len() as u64;
                until("they are in", || live(&served.running).0 >= sent);
            }
            live(&served.running).2 > 0
        });
        served.running.stop();
        let report = join(served.running);
        assert!(report.sums_agree() && report.violations == 0 && report.lost_before() == 0, "{report:?}");
        assert_eq!(report.received(), sent);
        assert!(report.rings[1].dropped[Lost::RingFull as usize] > 0, "{report:?}");
        assert_eq!(report.rings[0].dropped_total(), 0, "the other goes on at full speed");
        for reader in served.readers {
            assert_eq!(reader.join().expect("no panic").packets, report.rings[0].packets);
        }
        child.kill();
    });
}

#[test]
fn a_hostile_consumer_harms_nobody_else() {
    let config = YardConfig { rings: 3, ..YardConfig::default() };
    let served = serve(config, "gen:mix?rate=100000", &[], |ring| ring != 0);
    let mut honest = Attach::at(served.server.path(), "2").now().expect("vacant");
    let honest = std::thread::spawn(move || (count(&mut honest), honest.end()));
    let mut hostile = Process::start("scribble", served.server.path(), "1");
    hostile.expect("attached");
    let scribbled: u64 = hostile.line().parse().expect("a number");
    assert!(scribbled > 1_000_000, "{scribbled} bytes");
    hostile.end();
    // And its ring is as good as new for the next.
    let mut next = Attach::at(served.server.path(), "1").within(Some(PATIENCE)).expect("vacant again");
    let mut packets = 0;
    until("packets come", || {
        while next.next().is_some() {
            packets += 1;
        }
        packets > 1000
    });
    let next = std::thread::spawn(move || count(&mut next));
    served.running.stop();
    let report = join(served.running);
    next.join().expect("no panic");
    assert!(report.sums_agree() && report.errors.is_empty() && report.violations > 0, "{report:?}");
    assert_eq!(report.buffers_missing, 0, "every buffer came home");
    let full = |ring: usize| report.rings[ring].dropped[Lost::RingFull as usize];
    assert_eq!((report.rings[0].dropped_total(), full(2)), (0, 0), "{report:?}"); // ring 2 had nobody at first
    let ((packets, bytes), end) = honest.join().expect("no panic");
    assert_eq!((packets, bytes, end), (report.rings[2].packets, report.rings[2].bytes, End::InOrder));
    for reader in served.readers {
        assert_eq!(reader.join().expect("no panic").packets, report.rings[0].packets);
    }
}

#[test]
fn who_may_only_read_cannot_write_by_any_route() {
    let served = serve(YardConfig { rings: 1, ..YardConfig::default() }, "gen:mix?rate=1000", &[], |_| true);
    let mut child = Process::start("reopen", served.server.path(), "0");
    child.expect("test/0: []");
    child.end();
    served.running.stop();
    join(served.running);
}

#[test]
fn users_get_what_they_may_and_no_more() {
    require_root!();
    use std::os::unix::process::CommandExt;
    // A folder that anybody may enter, and this test's program where anybody may run it.
    let folder = tempfile::tempdir().expect("a folder");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("ours");
    let program = folder.path().join("consumer");
    std::fs::copy(std::env::current_exe().expect("this test"), &program).expect("room");
    let path = folder.path().join("attach.sock");
    let as_user = |uid: u32, gid: u32| {
        let mut command = Command::new(&program);
        command.uid(uid).gid(gid).current_dir("/");
        command
    };
    // Writers are let in, so the region is not sealed: what is kept from writing is so by its mode alone.
    let allow = ["4000=0", "@5000=1", "4000=2+write"];
    let config = YardConfig { rings: 4, ..YardConfig::default() };
    let served = serve_at(config, "gen:mix?rate=5000", &allow, |_| true, &path, folder);
    for (uid, gid, ring, answer) in [
        (4000, 4000, "1", "--allow 4000=1"),
        (4001, 4001, "0", "--allow 4001=0"),
        (4001, 5000, "0", "may not read"),
        (4000, 4000, "9", "there is none: it has 0 to 3"),
    ] {
        let mut child = Process::start_as(as_user(uid, gid), "refused", &path, ring);
        let said = child.line();
        assert!(said.contains(answer) && said.contains("refuses ring"), "{uid} {ring}: {said}");
        child.end();
    }
    for (uid, gid, ring) in [(4000, 4000, "0"), (4001, 5000, "1")] {
        let mut child = Process::start_as(as_user(uid, gid), "reopen", &path, ring);
        child.expect(&format!("test/{ring}: []"));
        child.end();
    }
    // Root reads by right of its own, and writes by none.
    let writes = Attach::at(&path, "3").write(true).now();
    assert!(matches!(&writes, Err(AttachError::Refused { why, .. }) if why.contains("+write")), "{writes:?}");
    served.running.stop();
    let report = join(served.running);
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn a_writer_writes_and_steering_goes_on_with_copies() {
    let config = YardConfig { rings: 1, ..YardConfig::default() };
    let served = serve(config, "gen:mix?rate=20000", &["*+write"], |_| true);
    let mut ring = Attach::at(served.server.path(), "0").write(true).now().expect("allowed");
    let mut written = 0;
    until("packets were written", || {
        while let Some(mut packet) = ring.next() {
            packet.set_annotation(&0xfeed_u64).expect("it may");
            packet.data_mut().expect("it may").fill(0xee);
            assert_eq!(packet.annotation::<u64>(), Ok(0xfeed));
            written += 1;
        }
        written > 1000
    });
    drop(ring);
    let mut reads = Attach::at(served.server.path(), "0").within(Some(PATIENCE)).expect("vacant again");
    until("a packet comes", || {
        reads.next().is_some_and(|mut packet| {
            packet.data_mut().expect_err("for reading");
            true
        })
    });
    drop(reads);
    served.running.stop();
    let report = join(served.running);
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn a_killed_yard_is_heard_of_and_its_return_can_be_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("attach.sock");
    let mut yard = Process::start("be-the-yard", &path, "0");
    yard.expect("serving");
    let mut child = Process::start("waits-for-the-next-yard", &path, "0");
    child.expect("attached");
    yard.kill();
    assert!(child.line().ends_with("Lost"));
    let config = YardConfig { rings: 1, ..YardConfig::default() };
    let served = serve_at(config, "gen:mix?rate=5000", &[], |_| true, &path, folder);
    child.expect("attached anew");
    until("packets come", || live(&served.running).1 > 100);
    served.running.stop();
    let report = join(served.running);
    child.expect(&format!("{} InOrder", report.rings[0].packets));
    child.end();
}

#[test]
fn two_versions_refuse_each_other_in_words() {
    use flowyard::mem::abi::{ABI_VERSION, MAGIC};
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
    let served = serve(YardConfig { rings: 1, ..YardConfig::default() }, "gen:mix?rate=1000", &[], |_| true);
    let socket = || {
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a socket")
    };
    // A client of tomorrow.
    let client = socket();
    rustix::net::connect(&client, &SocketAddrUnix::new(served.server.path()).expect("short")).expect("it listens");
    let later = [&MAGIC[..], &(ABI_VERSION + 1).to_ne_bytes(), br#"{"ring":"0"}"#].concat();
    rustix::net::send(&client, &later, SendFlags::empty()).expect("sent");
    let mut answer = [0; 4096];
    let (len, _) = rustix::net::recv(&client, &mut answer, RecvFlags::empty()).expect("an answer");
    let said = String::from_utf8_lossy(&answer[12..len]).into_owned();
    for version in [ABI_VERSION, ABI_VERSION + 1] {
        assert!(said.contains("Refused") && said.contains(&version.to_string()), "{said}");
    }
    // A yard of tomorrow.
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("later.sock");
    let listener = socket();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).expect("short")).expect("free");
    rustix::net::listen(&listener, 1).expect("it listens");
    let yard = std::thread::spawn(move || {
        let peer = rustix::net::accept(&listener).expect("a client");
        rustix::net::recv(&peer, &mut [0; 4096], RecvFlags::empty()).expect("its hello");
        rustix::net::send(&peer, &[&MAGIC[..], &(ABI_VERSION + 1).to_ne_bytes()].concat(), SendFlags::empty())
            .expect("sent");
    });
    let error = Attach::at(&path, "0").now().expect_err("another version").to_string();
    yard.join().expect("no panic");
    for version in [ABI_VERSION, ABI_VERSION + 1] {
        assert!(error.contains(&version.to_string()) && error.contains("same Flowyard version"), "{error}");
    }
    // Peers that talk nonsense, or nothing at all, keep nobody else from being served.
    let mut silent = Vec::new();
    for n in 0..200 {
        let peer = socket();
        if rustix::net::connect(&peer, &SocketAddrUnix::new(served.server.path()).expect("short")).is_ok() {
            if n % 2 == 0 {
                let _ = rustix::net::send(&peer, b"GET / HTTP/1.1", SendFlags::NOSIGNAL);
            }
            silent.push(peer);
        }
    }
    drop(Attach::at(served.server.path(), "0").now().expect("served all the same"));
    served.running.stop();
    join(served.running);
}

/// Open descriptors, and mapped kilobytes, of this process.
fn held() -> (usize, u64) {
    let fds = std::fs::read_dir("/proc/self/fd").expect("proc is there").count();
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    (fds, line.trim().trim_end_matches("kB").trim().parse().expect("a number"))
}

#[test]
fn many_come_and_go_and_nothing_grows() {
    const RINGS: u16 = 64;
    // In a process of its own, where no other test opens anything.
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Process::start("come-and-go", &folder.path().join("attach.sock"), "0");
    child.expect(&format!("{RINGS} rings"));
    child.end();
}

fn come_and_go(path: &Path) {
    const RINGS: u16 = 64;
    let folder = tempfile::tempdir().expect("a folder");
    let config = YardConfig { rings: RINGS, ring_slots: 64, absent: Absent::Redistribute, ..YardConfig::default() };
    let served = serve_at(config, "gen:mix?rate=100000", &[], |_| true, path, folder);
    let mut before = (0, 0);
    // For minutes where time is not short.
    let rounds: u32 = std::env::var("FLOWYARD_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    for round in 0..rounds {
        let all: Vec<Attached> = (0..RINGS)
            .map(|ring| Attach::at(path, &ring.to_string()).within(Some(PATIENCE)).expect("vacant"))
            .collect();
        let mut all = all;
        let delivered = live(&served.running).1;
        until("packets flow", || {
            all.iter_mut().for_each(|ring| while ring.next().is_some() {});
            live(&served.running).1 > delivered + 2000
        });
        drop(all);
        until("all are gone", || served.server.consumers().is_empty());
        if round == 1 {
            before = held();
        }
    }
    let after = held();
    assert!(after.0 <= before.0 + 1 && after.1 <= before.1 + 4096, "descriptors and kB: {before:?}, {after:?}");
    served.running.stop();
    let report = join(served.running);
    assert!(report.sums_agree() && (report.violations, report.buffers_missing) == (0, 0), "{report:?}");
    println!("{RINGS} rings");
}
