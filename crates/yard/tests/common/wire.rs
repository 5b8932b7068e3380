//! What the tests of live interfaces share: a veth pair, frames sent through a yard on it, and what must be true of
//! what came.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowyard::mem::{Clock, Packet, Tag, Wait, flags};
use flowyard::port::traffic::MixOptions;
use flowyard::steer::{Classifier, Decision, FlowHash, Fragment, Frame, LinkType, Policy, Table, dissect};
use flowyard::{Report, RingReader, SharedFragments, Sorter, Witness, Worker, Yard, YardConfig};
use flowyard_testkit::net::{Injector, Namespace, Veth};

use super::*;

pub const RINGS: u16 = 4;
/// Not the fixed one: a yard on live traffic draws its own.
pub const HASH: FlowHash = FlowHash::Default { seed: 0x5eed_1177 };
pub const FRAMES: usize = 4000;
/// Frames sent before it is waited for them to arrive: fewer than any queue holds.
pub const CHUNK: usize = 256;
/// The same of frames in several buffers.
const LONG_CHUNK: usize = 64;

#[derive(Clone, Copy)]
pub struct Case {
    pub port: &'static str,
    /// A second port, on fy2: then a conversation comes by both, as [`way_of`] says.
    pub second: Option<&'static str>,
    pub queues: u32,
    pub offloads: bool,
    pub dispatchers: usize,
    pub mtu: u32,
    pub rings: u16,
    pub kernel: bool,
    pub relay: bool,
    /// The dispatchers' threads read the rings.
    pub local: bool,
}

pub const CASE: Case = Case {
    port: "xdp:fy0",
    second: None,
    queues: 1,
    offloads: false,
    dispatchers: 1,
    mtu: 1500,
    rings: RINGS,
    kernel: false,
    relay: false,
    local: false,
};

impl Case {
    pub fn namespace(self) -> Namespace {
        let namespace = Namespace::new().expect("root may");
        let veth = Veth { queues: self.queues, offloads: self.offloads, mtu: self.mtu, ..Veth::default() };
        namespace.veth(&veth).expect("root may");
        if self.second.is_some() {
            namespace.veth(&Veth { name: "fy2", peer: "fy3", ..veth }).expect("root may");
        }
        namespace
    }

    pub fn specs(self) -> Vec<PortSpec> {
        [Some(self.port), self.second].into_iter().flatten().map(spec).collect()
    }

    pub fn config(self) -> YardConfig {
        let Case { rings, dispatchers, kernel, relay, .. } = self;
        YardConfig { rings, hash: HASH, dispatchers, kernel, relay, ..YardConfig::default() }
    }
}

/// Which of two interfaces a frame is sent by: each direction of a conversation has its own, as behind a passive tap,
/// so an error comes by another than what it quotes; and so does a later fragment than its first.
pub fn way_of(frame: &[u8]) -> usize {
    let dissection = dissect(&Frame::new(frame, LinkType::ETHERNET), &Policy::default(), &mut ());
    usize::from((frame[6..12] > frame[..6]) != (dissection.fragment() == Fragment::Later))
}

/// The sending ends.
pub struct Wire(pub Vec<Injector>);

impl Wire {
    pub fn of(case: Case) -> Wire {
        let ends = ["fy1", "fy3"].into_iter().take(1 + usize::from(case.second.is_some()));
        Wire(ends.map(|end| Injector::open(end).expect("root may")).collect())
    }

    /// Sends them in their order, each by its way.
    pub fn send(&self, frames: &[Vec<u8>]) {
        match &self.0[..] {
            [only] => only.send(frames).expect("the interface is up"),
            ends => {
                for part in frames.chunk_by(|one, next| way_of(one) == way_of(next)) {
                    ends[way_of(&part[0])].send(part).expect("the interface is up");
                }
            }
        };
    }
}

/// What a consumer got.
pub struct Got {
    pub bytes: Vec<u8>,
    pub tag: Tag,
}

/// What came to one ring.
pub type OfRing = (Vec<Got>, Witness);

pub fn frames() -> Vec<Vec<u8>> {
    let options = MixOptions { flows: 300, seed: 7, ..MixOptions::default() };
    generated(&options, FRAMES).into_iter().map(|(frame, _)| frame).collect()
}

/// Ring and hash of each frame: what `inspect` would print with this seed.
pub fn judged_by_policy(frames: &[Vec<u8>], rings: u16) -> Vec<(u16, u32)> {
    let classifier =
        Classifier { policy: Policy::default(), hash: HASH, table: Table::even(rings).expect("some rings") };
    let mut sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
    let mut found = vec![(u16::MAX, 0); frames.len()];
    for (at, frame) in frames.iter().enumerate() {
        let emit = |at: usize, decision: &Decision, _| found[at] = (decision.ring, decision.hash);
        sorter.sort(&Frame::new(frame, LinkType::ETHERNET), at as u64, at, emit);
    }
    assert_eq!(sorter.waiting(), 0, "every later fragment has its first");
    found
}

/// The ring of each frame.
pub fn sorted(frames: &[Vec<u8>], rings: u16) -> Vec<u16> {
    judged_by_policy(frames, rings).into_iter().map(|(ring, _)| ring).collect()
}

/// The frame as it was sent: with the VLAN tag that the kernel took off.
pub fn as_sent(packet: &Packet<'_>, tag: &Tag) -> Vec<u8> {
    let mut bytes = packet.segments().flatten().copied().collect::<Vec<u8>>();
    if tag.has(flags::VLAN_STRIPPED) {
        let kind: u16 = if tag.has(flags::VLAN_SERVICE) { 0x88a8 } else { 0x8100 };
        bytes.splice(12..12, [kind.to_be_bytes(), tag.stripped_vlan.to_be_bytes()].concat());
    }
    bytes
}

pub fn consume(mut reader: RingReader, rings: u16) -> OfRing {
    let mut of_ring = (Vec::new(), Witness::new(rings));
    while reader.wait(None) != Wait::Ended {
        while let Some(packet) = reader.next() {
            take(&mut of_ring, &packet);
        }
    }
    of_ring
}

/// The same of each ring of a worker.
pub fn work(worker: Worker, rings: u16) -> Vec<OfRing> {
    let own = worker.rings();
    let mut of_rings: Vec<OfRing> = own.clone().map(|_| (Vec::new(), Witness::new(rings))).collect();
    worker.run(|ring, packet| take(&mut of_rings[usize::from(ring - own.start)], packet));
    of_rings
}

fn take((got, witness): &mut OfRing, packet: &Packet<'_>) {
    let tag = packet.tag();
    assert_eq!((tag.len as usize, packet.slot().total as usize), (packet.len(), packet.len()));
    witness.see_packet(packet);
    got.push(Got { bytes: as_sent(packet, &tag), tag });
}

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64)
}

/// All that can be asked about both interfaces, once the kernel has noticed that they are up.
pub fn state(namespace: &Namespace) -> String {
    let deadline = Instant::now() + PATIENCE;
    while namespace.command("ip link show").expect("root may").contains("LOWERLAYERDOWN") {
        assert!(Instant::now() < deadline, "the link does not come up");
        std::thread::sleep(Duration::from_millis(5));
    }
    ["ip -d link show", "ethtool -k fy0", "ethtool -k fy1", "ethtool -l fy0"]
        .map(|line| namespace.command(line).expect("the interfaces are there"))
        .concat()
}

pub fn assert_same_state(before: &str, after: &str) {
    let differing: Vec<_> = before.lines().zip(after.lines()).filter(|(before, after)| before != after).collect();
    assert!(before == after, "the interface is not as it was: {differing:#?}");
}

/// Moves this thread to another processor at every turn: by that the kernel picks the queue of what a packet
/// socket sends.
pub fn send_from(turn: usize) {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut set = rustix::thread::CpuSet::new();
    set.set(turn % processors);
    let _ = rustix::thread::sched_setaffinity(None, &set); // where that is not ours to say, the kernel moves it
}

/// Sends all frames through a yard, in pieces that fit its queues.
pub fn through_a_yard(case: Case, frames: &[Vec<u8>]) -> (Report, Vec<OfRing>, [u64; 2]) {
    let (yard, consumers) = if case.local {
        let (yard, workers) = Yard::open_local(&case.config(), &case.specs()).expect("root may");
        (yard, workers.into_iter().map(|worker| std::thread::spawn(move || work(worker, case.rings))).collect())
    } else {
        let (yard, readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
        let consume = |reader| std::thread::spawn(move || vec![consume(reader, case.rings)]);
        (yard, readers.into_iter().map(consume).collect::<Vec<_>>())
    };
    let running = yard.start().expect("threads");
    let from = now_ns();
    let wire = Wire::of(case);
    let mut sent = 0;
    for (turn, chunk) in frames.chunks(if case.mtu > 1500 { LONG_CHUNK } else { CHUNK }).enumerate() {
        send_from(turn);
        wire.send(chunk);
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
    (report, consumers.into_iter().flat_map(|c| c.join().expect("no panic")).collect(), [from, until])
}

/// Answers what consumers got: all that there is, each with its ring.
pub fn check(case: Case, frames: &[Vec<u8>]) -> Vec<Got> {
    let _alone = alone();
    let namespace = case.namespace();
    let before = state(&namespace);
    let (report, consumers, [from, until]) = namespace.run(|| through_a_yard(case, frames));
    assert_same_state(&before, &state(&namespace));

    assert!(report.sums_agree(), "{report:?}");
    assert_eq!((report.received(), report.lost_before(), report.dropped()), (frames.len() as u64, 0, 0), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing, &report.errors), (0, 0, &Vec::new()));
    if case.kernel {
        assert_steered(&report);
    }

    // Where time ran out for a fragment (a machine that stood still for 100 ms) it says so.
    let late = report.sorter.expired + report.sorter.given_up;
    let mut expected: HashMap<&[u8], Vec<u16>> = HashMap::new();
    for (frame, ring) in frames.iter().zip(sorted(frames, case.rings)) {
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
        let port = if case.second.is_some() { way_of(bytes) as u16 } else { 0 };
        assert_eq!((tag.link, tag.port, tag.clock()), (1, port, Clock::Realtime));
        assert_eq!(tag.wire_len, tag.len);
        assert!((from..=until).contains(&tag.time_ns), "{} is not between {from} and {until}", tag.time_ns);
        assert!(u32::from(tag.queue) < case.queues);
        queues.insert(tag.queue);
    }
    assert!(expected.values().all(Vec::is_empty), "every frame arrived");
    assert_eq!(fallbacks, late, "{:?}", report.sorter);

    let (got, witnesses): (Vec<_>, Vec<_>) = consumers.into_iter().unzip();
    assert!(
        got.iter().all(|ring| ring.len() > frames.len() / (6 * usize::from(case.rings))),
        "all rings have their share"
    );
    let findings = Witness::compare(&witnesses);
    assert!(findings.split <= late && findings.conversations > 100, "{findings:?}");
    if case.port.starts_with("xdp") {
        // In the stack, veth's packets show the queue before their own: of two, the first alone.
        let several = case.queues > if case.port.contains("generic") { 2 } else { 1 };
        assert_eq!((queues.len() > 1, stripped), (several, 0), "all queues are used, and tags are left in");
    }
    got.into_iter().flatten().collect()
}

/// That the kernel has steered what came, but for what it marked, and that its sums agree with each port's.
pub fn assert_steered(report: &Report) {
    for (_, counters) in &report.ports {
        let note = |wanted: &str| counters.notes.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, n)| *n);
        let marked: u64 = counters.notes.iter().filter(|(name, _)| name.starts_with("marked-")).map(|(_, n)| n).sum();
        assert_eq!(note("steered-in-kernel") + note("steered-in-user-space"), counters.packets, "{counters:?}");
        assert_eq!(note("redirected"), counters.packets + counters.lost_total(), "{counters:?}");
        assert!(marked * 10 < counters.packets, "{counters:?}");
        if counters.lost_total() == 0 {
            assert_eq!(note("steered-in-user-space"), marked, "{counters:?}");
        }
    }
}

/// What is known of a packet, but for when and where it came.
pub fn judged(got: Vec<Got>) -> Vec<(Vec<u8>, Tag)> {
    let plain = |got: Got| (got.bytes, Tag { time_ns: 0, queue: 0, ..got.tag });
    let mut judged: Vec<_> = got.into_iter().map(plain).collect();
    judged.sort_by(|a, b| (&a.0, a.1.hash).cmp(&(&b.0, b.1.hash)));
    judged
}

/// The same traffic steered in user space, which comes the same from any number of queues.
pub fn in_user_space(case: Case, frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Tag)> {
    judged(check(Case { kernel: false, queues: 1, dispatchers: 1, ..case }, frames))
}

/// Checks what the kernel steers, and holds every tag against that of the same traffic steered in user space.
pub fn check_kernel(case: Case, frames: &[Vec<u8>], user: &[(Vec<u8>, Tag)]) {
    let kernel = judged(check(Case { kernel: true, ..case }, frames));
    assert_eq!(kernel.len(), user.len());
    for (kernel, user) in kernel.iter().zip(user) {
        assert_eq!(kernel.0, user.0);
        if !(kernel.1.has(flags::FRAGMENT_FALLBACK) || user.1.has(flags::FRAGMENT_FALLBACK)) {
            assert_eq!(kernel.1, user.1, "{:02x?}", kernel.0);
        }
    }
}

/// Answers how long it took to end while the flood went on.
pub fn flood(case: Case, frames: &[Vec<u8>]) -> Duration {
    let (yard, readers) = Yard::open(&case.config(), &case.specs()).expect("root may");
    let consumers: Vec<_> =
        readers.into_iter().map(|reader| std::thread::spawn(move || consume(reader, case.rings))).collect();
    let running = yard.start().expect("a thread");
    let (flooding, sent) = (AtomicBool::new(true), AtomicU64::new(0));
    let (ending, report) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let wire = Wire::of(case);
            while flooding.load(Ordering::Relaxed) {
                wire.send(frames);
                sent.fetch_add(frames.len() as u64, Ordering::Relaxed);
            }
        });
        let deadline = Instant::now() + PATIENCE;
        while sent.load(Ordering::Relaxed) < 100_000 {
            assert!(Instant::now() < deadline, "frames are sent");
            std::thread::sleep(Duration::from_millis(5));
        }
        let told = Instant::now();
        running.stop();
        let report = join(running);
        let ending = told.elapsed();
        flooding.store(false, Ordering::Relaxed);
        (ending, report)
    });
    let (got, witnesses): (Vec<_>, Vec<_>) = consumers.into_iter().map(|c| c.join().expect("no panic")).unzip();
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing), (0, 0), "{report:?}");
    assert_eq!(got.iter().map(Vec::len).sum::<usize>() as u64, report.delivered());
    assert!(report.received() + report.lost_before() <= sent.load(Ordering::Relaxed) && report.received() > 1000);
    let lost = report.ports.iter().flat_map(|(_, counters)| &counters.lost);
    assert_eq!(lost.filter(|(name, _)| *name == "unaccounted").map(|(_, n)| n).sum::<u64>(), 0, "{report:?}");
    // A later fragment whose first one was lost, or came too late, goes by addresses: no other is parted.
    let fallbacks = got.iter().flatten().filter(|g| g.tag.has(flags::FRAGMENT_FALLBACK)).count() as u64;
    let findings = Witness::compare(&witnesses);
    assert!(findings.split <= fallbacks, "{findings:?}, {fallbacks} by addresses");
    ending
}
