//! What the tests of whole yards share: consumers that note what they get, captures, a deadline.
#![allow(dead_code, reason = "no test file uses all of it")]

pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flowyard::mem::{Packet, Tag, Wait};
use flowyard::port::capture::{CaptureWriter, Interface};
use flowyard::port::traffic::{Mix, MixOptions};
use flowyard::port::{Opener, Outgoing, Port, PortCounters, PortError, PortInfo, PortSpec, Progress, Received};
use flowyard::{Drop, Report, RingReader, Running, Yard, YardConfig};

/// Time in which anything that ends at all has ended.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Joins a yard that is about to end by itself. Panics instead of hanging.
pub fn join(running: Running) -> Report {
    let deadline = Instant::now() + PATIENCE;
    while !running.is_finished() {
        assert!(Instant::now() < deadline, "the yard does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.join()
}

pub fn spec(name: &str) -> PortSpec {
    name.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

pub fn specs(names: &[&str]) -> Vec<PortSpec> {
    names.iter().map(|name| spec(name)).collect()
}

/// Held by a test while it is alone with the kernel. A program that another thread is starting has
/// copies of our descriptors until it runs: an interface would stay taken for as long.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a consumer saw of its ring.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    pub packets: u64,
    pub bytes: u64,
    pub tags: Vec<Tag>,
}

impl Seen {
    pub fn see(&mut self, packet: &Packet<'_>) {
        let tag = packet.tag();
        assert_eq!((packet.slot().hash, packet.slot().total as usize), (tag.hash, packet.len()));
        assert_eq!(packet.len(), packet.segments().map(<[u8]>::len).sum::<usize>());
        self.packets += 1;
        self.bytes += packet.len() as u64;
        self.tags.push(tag);
    }
}

/// Takes everything.
pub fn take_all(mut reader: RingReader) -> Seen {
    let mut seen = Seen::default();
    loop {
        while let Some(packet) = reader.next() {
            seen.see(&packet);
        }
        if reader.wait(None) == Wait::Ended {
            return seen;
        }
    }
}

/// Runs a yard to its end, with a thread a ring that does `consume`.
pub fn run_with<T: Send>(
    opened: (Yard, Vec<RingReader>),
    consume: impl Fn(RingReader) -> T + Sync,
) -> (Report, Vec<T>) {
    let (yard, readers) = opened;
    std::thread::scope(|scope| {
        let consumers: Vec<_> = readers.into_iter().map(|reader| scope.spawn(|| consume(reader))).collect();
        let report = join(yard.start().expect("threads start"));
        (report, consumers.into_iter().map(|c| c.join().expect("no consumer panics")).collect())
    })
}

/// Runs a yard on ports to its end.
pub fn run(config: &YardConfig, ports: &[&str]) -> (Report, Vec<Seen>) {
    let opened = Yard::open(config, &specs(ports)).unwrap_or_else(|e| panic!("{ports:?}: {e}"));
    run_with(opened, take_all)
}

pub fn dropped(report: &Report, why: Drop) -> u64 {
    report.rings.iter().map(|r| r.dropped[why as usize]).sum()
}

/// That every sum agrees, nothing is missing, and consumers saw what was delivered to them.
pub fn assert_whole(report: &Report, seen: &[Seen]) {
    assert!(report.sums_agree(), "{report:?}");
    assert_eq!((report.violations, report.buffers_missing, &report.errors), (0, 0, &Vec::new()));
    for (ring, (counted, seen)) in report.rings.iter().zip(seen).enumerate() {
        assert_eq!((counted.packets, counted.bytes), (seen.packets, seen.bytes), "ring {ring}");
        assert!(seen.tags.iter().all(|tag| usize::from(tag.ring) == ring), "ring {ring}");
    }
    assert_eq!(seen.len(), report.rings.len());
}

/// As [`assert_whole`], and that not one packet was lost.
pub fn assert_lossless(report: &Report, seen: &[Seen], packets: u64) {
    assert_whole(report, seen);
    assert_eq!((report.received(), report.delivered(), report.lost_before()), (packets, packets, 0));
}

/// The first `packets` frames of generated traffic.
pub fn generated(options: &MixOptions, packets: usize) -> Vec<(Vec<u8>, u64)> {
    let mut mix = Mix::new(options);
    let mut frame = [0; Mix::FRAME_BYTES];
    std::iter::repeat_with(|| {
        let packet = mix.next(&mut frame);
        (frame[..packet.len].to_vec(), packet.time_ns)
    })
    .take(packets)
    .collect()
}

/// The same of the usual mix, with every fiftieth frame of another length: none, one byte, around what a buffer holds, and
/// many buffers.
pub fn of_many_buffers(packets: usize) -> Vec<(Vec<u8>, u64)> {
    let mut frames = generated(&MixOptions::default(), packets);
    for (at, (frame, _)) in frames.iter_mut().enumerate().filter(|(at, _)| at % 50 == 0) {
        frame.resize([0, 1, 1727, 1728, 1729, 9000, 65_000, 262_144][at / 50 % 8], 0x5a);
    }
    frames
}

/// Writes an Ethernet capture.
pub fn write_capture(path: &Path, frames: &[(Vec<u8>, u64)]) {
    let mut writer = CaptureWriter::create(path).expect("a temporary file");
    let interface = writer.interface(&Interface::of_link(1)).expect("Ethernet");
    for (bytes, time_ns) in frames {
        let packet = Outgoing { bytes, time_ns: *time_ns, wire_len: bytes.len() as u32, link: 1, comment: "" };
        writer.write(interface, &packet).expect("room on disk");
    }
    writer.finish().expect("room on disk");
}

pub fn pcap(path: &Path) -> String {
    format!("pcap:{}", path.display())
}

/// The captures of the folder that FLOWYARD_CORPUS names, in order; none, and a word about it, without.
pub fn corpus(module: &str) -> Vec<PathBuf> {
    let Some(folder) = std::env::var_os("FLOWYARD_CORPUS") else {
        flowyard_testkit::net::skipped(module, line!(), "set FLOWYARD_CORPUS to a folder with captures/");
        return Vec::new();
    };
    let folder = Path::new(&folder).join("captures");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = files.map(|f| f.expect("a readable folder").path()).collect();
    files.sort();
    files
}

/// A source that cannot wait, made of one that can: what there is no buffer for is lost to it, as to
/// an interface, and counted there.
pub struct Impatient {
    info: PortInfo,
    inner: Box<dyn Opener>,
    before: Before,
}

/// Called before anything is received, with the number of packets so far. May hold the dispatcher up.
pub type Before = Box<dyn FnMut(u64) + Send>;

impl Impatient {
    pub fn over(name: &str) -> Box<Impatient> {
        Impatient::held_up(name, Box::new(|_| ()))
    }

    pub fn held_up(name: &str, before: Before) -> Box<Impatient> {
        let inner = flowyard::port::prepare(&spec(name), 1).expect("a good name").remove(0);
        Box::new(Impatient { info: PortInfo { can_wait: false, ..inner.info().clone() }, inner, before })
    }
}

impl Opener for Impatient {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(
        self: Box<Self>,
        region: &flowyard::mem::Region,
        stock: &mut flowyard::mem::Stock,
    ) -> Result<Box<dyn Port>, PortError> {
        let inner = self.inner.open(region, stock)?;
        Ok(Box::new(ImpatientPort { info: self.info, inner, before: self.before }))
    }
}

struct ImpatientPort {
    info: PortInfo,
    inner: Box<dyn Port>,
    before: Before,
}

impl Port for ImpatientPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        stock: &mut flowyard::mem::Stock,
        batch: &mut Vec<Received>,
        limit: usize,
    ) -> Result<Progress, PortError> {
        let packets = self.inner.counters().packets;
        (self.before)(packets);
        self.inner.receive(stock, batch, limit)
    }

    fn counters(&mut self) -> PortCounters {
        self.inner.counters()
    }

    fn close(self: Box<Self>, stock: &mut flowyard::mem::Stock) -> Result<PortCounters, PortError> {
        self.inner.close(stock)
    }
}
