//! The plug-in that steers by subscriber, as its own makefile builds it where nothing of Flowyard is but the
//! header: on captures and on a live interface, read by a second stage in the buffers that the first one had.

mod built;
mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Instant;

use built::*;
use common::*;
use flowyard::function::{Failure, Function};
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard::mem::{Consumer, Packet, Tag, Wait, flags};
use flowyard::port::traffic::{Carrier, GenPacket, Mix, MixOptions, PacketKind};
use flowyard::{Report, RingReader, Running, Stage, Yard, YardConfig, plugin};
use flowyard_testkit::net::{Injector, Namespace, Veth};
use flowyard_testkit::require_root;
use tempfile::TempDir;

/// Frames sent before it is waited for them to arrive: fewer than any queue holds.
const CHUNK: usize = 256;

/// Builds and installs the example as a user does: its folder copied, the header in a folder of its own.
fn build_subscriber(dir: &TempDir) -> Option<PathBuf> {
    let [include, mine, installed] = ["include", "mine", "installed"].map(|name| dir.path().join(name));
    fs::create_dir(&include).expect("room on disk");
    fs::create_dir(&mine).expect("room on disk");
    fs::copy(Path::new(INCLUDE).join("flowyard_plugin.h"), include.join("flowyard_plugin.h")).expect("room on disk");
    for file in ["Makefile", "subscriber.c", "subscriber.h"] {
        fs::copy(Path::new(EXAMPLES).join("subscriber").join(file), mine.join(file)).expect("room on disk");
    }
    let assign = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut make = Command::new("make");
    make.arg("-C").arg(&mine).arg("install");
    make.args([assign("INCLUDE", &include), assign("DESTDIR", &installed), "CFLAGS=-O1 -Werror".into()]);
    let cc = compiles(Command::new("cc").arg("--version"));
    (cc && compiles(&mut make)).then(|| installed.join("usr/local/lib/flowyard/subscriber.so"))
}

/// A frame and the truth about it: whose it is.
struct Sent {
    bytes: Vec<u8>,
    packet: GenPacket,
    who: String,
}

/// Frames of a mix, every one different from all others.
fn sent(options: &MixOptions, packets: usize) -> Vec<Sent> {
    let mut mix = Mix::new(options);
    let mut frame = [0; Mix::FRAME_BYTES];
    let (mut known, mut frames) = (HashSet::new(), Vec::new());
    while frames.len() < packets {
        let packet = mix.next(&mut frame);
        let bytes = frame[..packet.len].to_vec();
        let conversation = mix.conversation(packet.conversation);
        let who = match conversation.carrier {
            Carrier::Pppoe => format!("session {:02x?}", &bytes[16..18]),
            _ => conversation.client.to_string(),
        };
        if known.insert(bytes.clone()) {
            frames.push(Sent { bytes, packet, who });
        }
    }
    frames
}

/// `struct subscriber` of the example, as a consumer reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, zerocopy::FromBytes)]
#[repr(C)]
struct Subscriber {
    id: u32,
    by: u8,
    direction: u8,
    session: u16,
    teid: u32,
    zero: u32,
}

/// A packet as a second consumer saw it, behind a stage.
struct Seen {
    ring: u16,
    bytes: Vec<u8>,
    tag: Tag,
    subscriber: Subscriber,
}

impl Seen {
    /// Whether it is a fragment for which time ran out: a machine stood still for 100 ms. It says so.
    fn is_late(&self) -> bool {
        self.tag.has(flags::FRAGMENT_FALLBACK)
    }
}

/// Where a packet lies: its buffer, and the address of its first byte.
type Place = (u32, usize);

fn place(packet: &Packet<'_>) -> Place {
    (packet.buffer_index(), packet.data().as_ptr() as usize)
}

/// Consumes a ring in two stages, and proves that the second reads what the first had, in place.
fn in_two_stages(reader: RingReader) -> Vec<Seen> {
    let ring = reader.ring();
    let (mut stage, end) = Stage::new(reader, 256).expect("a stage");
    let mut second = Consumer::attach_local(end).expect("attached");
    let (tell, passed) = mpsc::channel::<Place>();
    let second = std::thread::spawn(move || {
        let region = second.region().clone();
        let (area, buffer_bytes) = (region.buffer_area(), region.geometry().buffer_bytes);
        let mut seen = Vec::new();
        while second.wait(None) != Wait::Ended {
            while let Some(packet) = second.next() {
                let (buffer, at) = place(&packet);
                assert_eq!(passed.recv(), Ok((buffer, at)), "the buffer that the first stage had");
                let start = area.0.as_ptr() as usize + buffer as usize * buffer_bytes;
                assert!(start + buffer_bytes <= area.0.as_ptr() as usize + area.1, "of the region");
                assert!(start <= at && at + packet.data().len() <= start + buffer_bytes, "in that buffer");
                let subscriber = packet.annotation::<Subscriber>().expect("16 of 64 bytes");
                seen.push(Seen { ring, bytes: packet.data().to_vec(), tag: packet.tag(), subscriber });
            }
        }
        seen
    });
    while stage.wait(None) != Wait::Ended {
        while let Some(packet) = stage.next() {
            tell.send(place(&packet)).expect("the second stage lives");
            stage.pass_waiting(None).expect("passed on");
        }
    }
    let counters = stage.finish(None);
    let seen = second.join().expect("no assertion failed");
    assert_eq!((counters.passed, counters.returned), (seen.len() as u64, seen.len() as u64));
    assert_eq!((counters.violations, counters.quarantined), (0, 0));
    seen
}

/// Runs a yard on a port, each ring in two stages; `feed` is called once it runs, and ends it if need be.
fn run_in_stages(config: &YardConfig, port: &str, feed: impl FnOnce(&Running)) -> (Report, Vec<Seen>) {
    let (yard, readers) = Yard::open(config, &specs(&[port])).unwrap_or_else(|e| panic!("{e}"));
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| in_two_stages(r))).collect();
    let running = yard.start().expect("threads start");
    feed(&running);
    let report = join(running);
    let seen: Vec<Seen> = consumers.into_iter().flat_map(|c| c.join().expect("no assertion failed")).collect();
    assert!(report.sums_agree() && report.buffers_missing == 0 && report.violations == 0, "{report:?}");
    assert_eq!((report.delivered(), report.errors.len()), (seen.len() as u64, 0));
    assert_eq!(report.function.expect("counted").failures, [0; Failure::ALL.len()]);
    (report, seen)
}

fn run_capture(config: &YardConfig, sent: &[Sent], dir: &TempDir) -> (Report, Vec<Seen>) {
    let capture = dir.path().join("access.pcapng");
    let frames: Vec<_> = sent.iter().map(|s| (s.bytes.clone(), s.packet.time_ns)).collect();
    write_capture(&capture, &frames);
    run_in_stages(config, &pcap(&capture), |_| ())
}

/// Sends all frames over a cable of two queues to a yard of two dispatchers.
fn run_live(config: &YardConfig, sent: &[Sent]) -> (Report, Vec<Seen>) {
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth { queues: 2, ..Veth::default() }).expect("root may");
    let config = YardConfig { dispatchers: 2, ..config.clone() };
    namespace.run(|| {
        run_in_stages(&config, "xdp:fy0", |running| {
            let injector = Injector::open("fy1").expect("root may");
            let mut through = 0;
            for chunk in sent.chunks(CHUNK) {
                let frames: Vec<&[u8]> = chunk.iter().map(|s| &s.bytes[..]).collect();
                injector.send(&frames).expect("the interface is up");
                through += frames.len() as u64;
                let deadline = Instant::now() + PATIENCE;
                let received = || running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>();
                while received() < through {
                    assert!(Instant::now() < deadline, "{} of {through} frames arrived", received());
                    std::thread::yield_now();
                }
            }
            running.stop();
        })
    })
}

/// Each packet that was seen, with the truth about it; all that were sent were seen, once.
fn with_truth<'a>(sent: &'a [Sent], seen: &'a [Seen]) -> Vec<(&'a Seen, &'a Sent)> {
    let mut waiting: HashMap<&[u8], &Sent> = sent.iter().map(|s| (&s.bytes[..], s)).collect();
    let both: Vec<_> =
        seen.iter().map(|s| (s, waiting.remove(&s.bytes[..]).expect("sent, and not seen twice"))).collect();
    assert!(waiting.is_empty(), "{} of {} did not arrive", waiting.len(), sent.len());
    both
}

/// Addresses of clients of generated traffic; servers are outside.
const USERS: &str = "# who they are\nusers = 10.0.0.0/9\n\n users=2001:db8:a::/105 # and these\n";

#[test]
fn subscribers_keep_to_one_ring_in_both_directions_and_consumers_read_who_they_are() {
    let dir = folder();
    let Some(path) = build_subscriber(&dir) else { return };
    let sent = sent(&MixOptions { flows: 400, ..MixOptions::default() }, 30_000);
    let config = YardConfig { rings: 7, ..with(load(&path, USERS)) };
    let (_, seen) = run_capture(&config, &sent, &dir);
    let mut rings: HashMap<&str, HashSet<u16>> = HashMap::new();
    let mut ids: HashMap<&str, HashSet<u32>> = HashMap::new();
    let (mut by, mut nobody) = ([0; 4], 0);
    for (Seen { ring, tag, subscriber, .. }, Sent { packet, who, .. }) in with_truth(&sent, &seen) {
        rings.entry(who).or_default().insert(*ring);
        by[usize::from(subscriber.by)] += 1;
        assert_eq!(u64::from(subscriber.id), tag.user);
        if subscriber.id == 0 {
            // Nothing of the conversation can be seen in it: it follows its datagram's first piece.
            assert_eq!(packet.kind, PacketKind::OuterLaterFragment, "{packet:?}");
            nobody += 1;
            continue;
        }
        ids.entry(who).or_default().insert(subscriber.id);
        if subscriber.direction > 0 && packet.kind != PacketKind::IcmpError {
            assert_eq!(subscriber.direction == 2, packet.backward, "{packet:?} of {who}");
        }
    }
    let several: Vec<_> = rings.iter().filter(|(_, rings)| rings.len() > 1).collect();
    assert!(several.is_empty(), "subscribers on several rings: {several:?}");
    assert!(ids.values().all(|ids| ids.len() == 1));
    let distinct: HashSet<u32> = ids.values().flatten().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "an id for each");
    let used: HashSet<u16> = rings.values().flatten().copied().collect();
    assert_eq!(used.len(), 7);
    assert!(by[1] > 1000 && by[2] == 0 && by[3] > 10_000 && nobody > 100, "{by:?}, nobody {nobody}");
}

/// A key of the example's table.
fn key(by: u8, session: u16, teid: u32, address: &[u8]) -> [u8; 24] {
    let mut key = [0; 24];
    key[0] = by;
    key[2..4].copy_from_slice(&session.to_be_bytes());
    key[4..8].copy_from_slice(&teid.to_be_bytes());
    key[8..8 + address.len()].copy_from_slice(address);
    key
}

/// By conversation: the id of its subscriber, 0 if unknown, and what it is known by.
type Known = HashMap<u32, (u32, u8)>;

/// The table, as whoever runs the access network would fill it: from what is seen here of each
/// conversation, a number each. Every fifth is unknown to it.
fn table_of(sent: &[Sent]) -> (Table, Known) {
    let table = Table::create("subscribers", Shape::new(Kind::Hash, 24, 4, 4096).expect("a shape")).expect("memory");
    let mut known = Known::new();
    let set = |key: [u8; 24], id: u32| table.set(&key, &id.to_le_bytes()).expect("room");
    for Sent { bytes, packet, .. } in sent {
        let conversation = packet.conversation;
        let id = if conversation % 5 == 4 { 0 } else { conversation / 5 + 100 };
        let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
        let whole_outside = !matches!(packet.kind, PacketKind::OuterFirstFragment | PacketKind::OuterLaterFragment);
        if ethertype == 0x8864 {
            known.insert(conversation, (id, 1));
            let (session, client) = (u16::from_be_bytes([bytes[16], bytes[17]]), if packet.backward { 0 } else { 6 });
            if id > 0 && packet.kind != PacketKind::IcmpError {
                set(key(1, session, 0, &bytes[client..client + 6]), id);
            }
            continue;
        }
        let (addresses, udp) = if ethertype == 0x0800 { (30..34, 34) } else { (38..54, 54) };
        let gtp = bytes[udp..].get(2..4) == Some(&2152u16.to_be_bytes()) && bytes[udp - 11] != 6;
        let is_gtp = gtp && bytes.get(udp + 9) == Some(&0xff) && bytes[udp + 8] >> 4 == 3;
        if is_gtp && whole_outside {
            known.insert(conversation, (id, 2));
            let teid = u32::from_be_bytes(bytes[udp + 12..udp + 16].try_into().expect("4 bytes"));
            if id > 0 {
                set(key(2, 0, teid, &bytes[addresses]), id);
            }
        }
    }
    (table, known)
}

/// Traffic of an access network, and the plug-in with the table that knows its subscribers.
fn access_network(dir: &TempDir, packets: usize) -> Option<(Vec<Sent>, Known, Function)> {
    let path = build_subscriber(dir)?;
    let only = vec![Carrier::Pppoe, Carrier::Gtp, Carrier::Plain];
    let sent = sent(&MixOptions { flows: 300, only, ..MixOptions::default() }, packets);
    let (table, known) = table_of(&sent);
    let found = move |name: &str| (name == "people").then(|| table.clone());
    Some((sent, known, plugin::load(&path, "table = people", found).expect("loads")))
}

/// That each packet carried the id that the table has for it, and that all of one subscriber came to one ring.
fn assert_ids(sent: &[Sent], known: &Known, seen: &[Seen], report: &Report) {
    let late = report.sorter.expired + report.sorter.given_up;
    assert_eq!(seen.iter().filter(|s| s.is_late()).count() as u64, late, "{:?}", report.sorter);
    let (mut rings, mut by): (HashMap<u32, HashSet<u16>>, _) = (HashMap::new(), [0; 3]);
    for (seen, Sent { packet, .. }) in with_truth(sent, seen) {
        let (id, how) = known.get(&packet.conversation).copied().unwrap_or_default();
        let subscriber = seen.subscriber;
        assert_eq!(u64::from(subscriber.id), seen.tag.user);
        if packet.kind == PacketKind::OuterLaterFragment {
            assert_eq!(subscriber.id, 0, "nothing of the tunnel can be seen in it: {packet:?}");
        } else {
            assert_eq!((subscriber.id, subscriber.by), (id, if id > 0 { how } else { 0 }), "{packet:?}");
            by[usize::from(how)] += u64::from(id > 0);
        }
        if id > 0 && !seen.is_late() {
            rings.entry(id).or_default().insert(seen.ring);
        }
    }
    assert!(rings.values().all(|rings| rings.len() == 1), "{rings:?}");
    assert!(by[1] > 1000 && by[2] > 1000 && rings.len() > 30, "{by:?} of {}", rings.len());
    assert!(report.function.expect("counted").built_in > 1000, "nobody's packets");
}

#[test]
fn subscribers_of_a_capture_are_whom_a_shared_table_says() {
    let dir = folder();
    let Some((sent, known, function)) = access_network(&dir, 20_000) else { return };
    let (report, seen) = run_capture(&with(function), &sent, &dir);
    assert_eq!((report.received(), report.delivered()), (20_000, 20_000));
    assert_ids(&sent, &known, &seen, &report);
}

#[test]
fn subscribers_on_a_live_interface_are_whom_a_shared_table_says() {
    require_root!();
    let _alone = alone();
    let dir = folder();
    let Some((sent, known, function)) = access_network(&dir, 20_000) else { return };
    let (report, seen) = run_live(&with(function), &sent);
    assert_eq!((report.received(), report.delivered(), report.lost_before()), (20_000, 20_000, 0), "{report:?}");
    let queues: HashSet<u16> = seen.iter().map(|s| s.tag.queue).collect();
    assert_eq!(queues.len(), 2, "both queues are used");
    assert_ids(&sent, &known, &seen, &report);
}

#[test]
fn the_example_says_what_it_cannot_do_with_its_configuration() {
    let dir = folder();
    let Some(path) = build_subscriber(&dir) else { return };
    let cases = [
        ("", "who are the users?"),
        ("users = 10.0.0.0", "users = 10.0.0.0: write 10.0.0.0/8"),
        ("users = 10.0.0.0/33", "at most /32"),
        ("users = ten/8", "ten is no address"),
        ("user = 1.2.3.4/5", r#"cannot read "user = 1.2.3.4/5""#),
        ("table = absent", r#"there is no table "absent"; make it before"#),
    ];
    for (config, words) in cases {
        let said = refused_to_open(load(&path, config));
        assert!(said.contains(words) && said.contains("subscriber.so"), "{config:?}: {said}");
    }
    let narrow = YardConfig { annotation_bytes: 0, ..with(load(&path, USERS)) };
    let said = Yard::open(&narrow, &specs(&["gen:mix?packets=10"])).err().expect("no annotation").to_string();
    assert!(said.contains("needs 16 bytes of annotation, and the yard has 0"), "{said}");
    let small =
        |_: &str| Some(Table::create("small", Shape::new(Kind::Hash, 4, 8, 16).expect("shape")).expect("memory"));
    let said = refused_to_open(plugin::load(&path, "table = small", small).expect("loads"));
    assert!(said.contains("is hash:key=4,value=8,entries=16, but the plug-in wants key=24, value=4"), "{said}");
}
