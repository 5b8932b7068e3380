//! Live traffic from a kernel interface: every frame that is sent arrives once, unchanged, on the right
//! ring, with the right tag; and the interface is left as it was.
//!
//! The frames are crafted, because this kernel may lack the devices that would make them: VLAN, QinQ,
//! PPPoE, GRE, GTP-U, VXLAN, MPLS, in both directions, with fragments of inner and outer packets in and
//! out of order, and ICMP errors. `live_vxlan.rs` has the kernel's own traffic.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use common::*;
use flowyard::mem::{Clock, Packet, Tag, Wait, flags};
use flowyard::port::traffic::MixOptions;
use flowyard::steer::{Classifier, FlowHash, Frame, LinkType, Policy, Table};
use flowyard::{Report, RingReader, SharedFragments, Sorter, Witness, Yard, YardConfig};
use flowyard_testkit::net::{Injector, Namespace, Veth};
use flowyard_testkit::require_root;

const RINGS: u16 = 4;
/// Not the fixed one: a yard on live traffic draws its own.
const HASH: FlowHash = FlowHash::Default { seed: 0x5eed_1177 };
const FRAMES: usize = 4000;
/// Frames sent before it is waited for them to arrive: fewer than any queue holds.
const CHUNK: usize = 256;

#[derive(Clone, Copy)]
struct Case {
    port: &'static str,
    queues: u32,
    offloads: bool,
    dispatchers: usize,
}

/// What a consumer got.
struct Got {
    bytes: Vec<u8>,
    tag: Tag,
}

fn frames() -> Vec<Vec<u8>> {
    let options = MixOptions { flows: 300, seed: 7, ..MixOptions::default() };
    generated(&options, FRAMES).into_iter().map(|(frame, _)| frame).collect()
}

/// The ring of each frame: what `inspect` would print with this seed.
fn sorted(frames: &[Vec<u8>]) -> Vec<u16> {
    let classifier =
        Classifier { policy: Policy::default(), hash: HASH, table: Table::even(RINGS).expect("four rings") };
    let mut sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
    let mut rings = vec![u16::MAX; frames.len()];
    for (at, frame) in frames.iter().enumerate() {
        sorter.sort(&Frame::new(frame, LinkType::ETHERNET), at as u64, at, |at, decision, _| rings[at] = decision.ring);
    }
    assert_eq!(sorter.waiting(), 0, "every later fragment has its first");
    rings
}

/// The frame as it was sent: with the VLAN tag that the kernel took off.
fn as_sent(packet: &Packet<'_>, tag: &Tag) -> Vec<u8> {
    let mut bytes = packet.segments().flatten().copied().collect::<Vec<u8>>();
    if tag.has(flags::VLAN_STRIPPED) {
        let kind: u16 = if tag.has(flags::VLAN_SERVICE) { 0x88a8 } else { 0x8100 };
        bytes.splice(12..12, [kind.to_be_bytes(), tag.stripped_vlan.to_be_bytes()].concat());
    }
    bytes
}

fn consume(mut reader: RingReader) -> (Vec<Got>, Witness) {
    let (mut got, mut witness) = (Vec::new(), Witness::new(RINGS));
    while reader.wait(None) != Wait::Ended {
        while let Some(packet) = reader.next() {
            let tag = packet.tag();
            assert_eq!((tag.len as usize, packet.slot().total as usize), (packet.len(), packet.len()));
            witness.see_packet(&packet);
            got.push(Got { bytes: as_sent(&packet, &tag), tag });
        }
    }
    (got, witness)
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64)
}

/// All that can be asked about both interfaces, once the kernel has noticed that they are up.
fn state(namespace: &Namespace) -> String {
    let deadline = Instant::now() + PATIENCE;
    while namespace.command("ip link show").expect("root may").contains("LOWERLAYERDOWN") {
        assert!(Instant::now() < deadline, "the link does not come up");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    ["ip -d link show", "ethtool -k fy0", "ethtool -k fy1", "ethtool -l fy0"]
        .map(|line| namespace.command(line).expect("the interfaces are there"))
        .concat()
}

fn assert_same_state(before: &str, after: &str) {
    let differing: Vec<_> = before.lines().zip(after.lines()).filter(|(before, after)| before != after).collect();
    assert!(before == after, "the interface is not as it was: {differing:#?}");
}

/// Sends all frames through a yard, in pieces that fit its queues.
fn through_a_yard(case: Case, frames: &[Vec<u8>]) -> (Report, Vec<(Vec<Got>, Witness)>, [u64; 2]) {
    let config = YardConfig { rings: RINGS, hash: HASH, dispatchers: case.dispatchers, ..YardConfig::default() };
    let (yard, readers) = Yard::open(&config, &[spec(case.port)]).expect("root may");
    let consumers: Vec<_> = readers.into_iter().map(|reader| std::thread::spawn(|| consume(reader))).collect();
    let running = yard.start().expect("threads");
    let from = now_ns();
    let injector = Injector::open("fy1").expect("root may");
    let mut sent = 0;
    for chunk in frames.chunks(CHUNK) {
        injector.send(chunk).expect("the interface is up");
        sent += chunk.len() as u64;
        let deadline = Instant::now() + PATIENCE;
        let received = || running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>();
        while received() < sent {
            assert!(Instant::now() < deadline, "{} of {sent} frames arrived", received());
            std::thread::yield_now();
        }
    }
    let until = now_ns();
    running.stop();
    let report = join(running);
    (report, consumers.into_iter().map(|c| c.join().expect("no panic")).collect(), [from, until])
}

fn check(case: Case) {
    let frames = frames();
    let namespace = Namespace::new().expect("root may");
    namespace.veth(&Veth { queues: case.queues, offloads: case.offloads, ..Veth::default() }).expect("root may");
    let before = state(&namespace);
    let (report, consumers, [from, until]) = namespace.run(|| through_a_yard(case, &frames));
    assert_same_state(&before, &state(&namespace));

    assert!(report.sums_agree(), "{report:?}");
    assert_eq!((report.received(), report.lost_before(), report.dropped()), (FRAMES as u64, 0, 0), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing, &report.errors), (0, 0, &Vec::new()));

    // Where time ran out for a fragment (a machine that stood still for 100 ms) it says so.
    let late = report.sorter.expired + report.sorter.given_up;
    let mut expected: HashMap<&[u8], Vec<u16>> = HashMap::new();
    for (frame, ring) in frames.iter().zip(sorted(&frames)) {
        expected.entry(frame).or_default().push(ring);
    }
    let (mut queues, mut fallbacks, mut stripped) = (HashSet::new(), 0, 0);
    for (ring, Got { bytes, tag }) in
        consumers.iter().enumerate().flat_map(|(ring, (got, _))| got.iter().map(move |g| (ring, g)))
    {
        let rings = expected.get_mut(&bytes[..]).unwrap_or_else(|| panic!("nobody sent {bytes:02x?}"));
        let ring_expected = rings.pop().unwrap_or_else(|| panic!("arrived twice: {bytes:02x?}"));
        let fallback = tag.has(flags::FRAGMENT_FALLBACK);
        assert!(fallback || (ring, tag.ring) == (ring_expected.into(), ring_expected), "ring {ring}, {tag:?}");
        fallbacks += u64::from(fallback);
        stripped += u64::from(tag.has(flags::VLAN_STRIPPED));
        assert_eq!((tag.link, tag.port, tag.clock()), (1, 0, Clock::Realtime));
        assert_eq!(tag.wire_len, tag.len);
        assert!((from..=until).contains(&tag.time_ns), "{} is not between {from} and {until}", tag.time_ns);
        assert!(u32::from(tag.queue) < case.queues);
        queues.insert(tag.queue);
    }
    assert!(expected.values().all(Vec::is_empty), "every frame arrived");
    assert_eq!(fallbacks, late, "{:?}", report.sorter);

    let (got, witnesses): (Vec<_>, Vec<_>) = consumers.into_iter().unzip();
    assert!(got.iter().all(|ring| ring.len() > FRAMES / 20), "all rings have their share");
    let findings = Witness::compare(&witnesses);
    assert!(findings.split <= late && findings.conversations > 200, "{findings:?}");
    if case.port.starts_with("xdp") {
        assert_eq!((queues.len() > 1, stripped), (case.queues > 1, 0), "all queues are used, and tags are left in");
    } else {
        assert!(stripped > 0, "the kernel takes VLAN tags off, and tells");
    }
}

#[test]
fn xdp_in_the_driver() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (1, true, 1), (4, false, 1), (4, true, 1), (4, false, 2)] {
        check(Case { port: "xdp:fy0?native", queues, offloads, dispatchers });
    }
}

#[test]
fn xdp_in_the_stack() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (1, true, 1), (4, false, 1), (4, true, 1), (4, false, 2)] {
        check(Case { port: "xdp:fy0?generic", queues, offloads, dispatchers });
    }
}

#[test]
fn packet_sockets() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (4, true, 1), (4, false, 2)] {
        check(Case { port: "packet:fy0", queues, offloads, dispatchers });
    }
}
