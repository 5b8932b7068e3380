//! Packets cost no allocation: not in the dispatcher, not in consumers, not in a stage.
//!
//! Every thread counts its own allocations. The dispatcher's are read from inside it, by a port that
//! wraps a real one, at two moments between which packets flow.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::*;
use flowyard::mem::{Consumer, Region, Stock, Wait};
use flowyard::port::traffic::MixOptions;
use flowyard::port::{Opener, Port, PortCounters, PortError, PortInfo, Progress, Received, prepare};
use flowyard::{RingReader, Stage, Yard, YardConfig};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of the calling thread so far.
fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn count() {
    // Not there any more while the thread is being taken down.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing (a
// thread-local of a constant without a destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract, and `at` came from System.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps alloc_zeroed's contract.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps realloc's contract, and `at` came from System.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the dispatcher's thread had allocated when a port had given so many packets.
#[derive(Debug, Default)]
struct Window {
    from: AtomicU64,
    to: AtomicU64,
    /// Times that the dispatcher went to sleep meanwhile: that may allocate.
    sleeps: AtomicU64,
}

/// Packets before the window opens, and before it closes.
const WARM: u64 = 4_000;
const DONE: u64 = 24_000;
const PACKETS: u64 = 25_000;
/// Slots that hold all of it: the dispatcher never has to wait for a consumer.
const ROOM: u32 = 32_768;

struct Watched {
    inner: Box<dyn Opener>,
    window: Arc<Window>,
}

struct WatchedPort {
    inner: Box<dyn Port>,
    window: Arc<Window>,
    packets: u64,
}

impl Opener for Watched {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }
    fn open(self: Box<Self>, region: &Region, stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let inner = self.inner.open(region, stock)?;
        Ok(Box::new(WatchedPort { inner, window: self.window, packets: 0 }))
    }
}

impl Port for WatchedPort {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }
    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let before = self.packets;
        let progress = self.inner.receive(stock, batch, limit);
        self.packets += batch.iter().filter(|received| !received.more).count() as u64;
        let passed = |mark| before < mark && self.packets >= mark;
        if passed(WARM) {
            self.window.sleeps.store(0, Ordering::Relaxed);
            self.window.from.store(allocations(), Ordering::Relaxed);
        }
        if passed(DONE) {
            self.window.to.store(allocations(), Ordering::Relaxed);
        }
        progress
    }
    fn fds(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        if self.packets < DONE {
            self.window.sleeps.fetch_add(1, Ordering::Relaxed); // asked before every sleep, and only then
        }
        self.inner.fds()
    }
    fn counters(&mut self) -> PortCounters {
        self.inner.counters()
    }
    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        self.inner.close(stock)
    }
}

/// Allocations and sleeps of the dispatcher, and allocations of each consumer, while `PACKETS` of
/// `port` come through.
fn measure(port: &str, config: &YardConfig, consume: impl Fn(RingReader) -> u64 + Sync) -> (u64, u64, Vec<u64>) {
    let window = Arc::new(Window::default());
    let inner = prepare(&spec(port), 1).expect("a good port").remove(0);
    let opened = Yard::open_over(config, Box::new(Watched { inner, window: window.clone() })).expect("memory");
    let (report, consumers) = run_with(opened, consume);
    assert_eq!((report.delivered(), report.buffers_missing), (PACKETS, 0));
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    assert!(read(&window.from) > 0, "the dispatcher's thread allocates as it starts, and is counted");
    (read(&window.to) - read(&window.from), read(&window.sleeps), consumers)
}

/// Takes everything without sleeping; answers what it allocated after its first packets.
fn spin(mut reader: RingReader) -> u64 {
    let (mut packets, mut before) = (0u64, allocations());
    loop {
        while let Some(mut packet) = reader.next() {
            packets += 1;
            packet.set_annotation(&packets).expect("there is room");
            assert!(packet.tag().len > 0 && !packet.data().is_empty());
            if packets == 64 {
                before = allocations();
            }
        }
        if reader.consumers().iter_mut().all(Consumer::is_ended) {
            return allocations() - before;
        }
        std::thread::yield_now();
    }
}

/// Takes everything, and sleeps while there is nothing.
fn sleep(mut reader: RingReader) -> u64 {
    let before = allocations();
    while reader.wait(None) != Wait::Ended {
        while reader.next().is_some() {}
    }
    allocations() - before
}

fn roomy() -> YardConfig {
    YardConfig { rings: 2, ring_slots: ROOM, ..YardConfig::default() }
}

#[test]
fn generated_traffic() {
    let port = format!("gen:mix?packets={PACKETS}");
    assert_eq!(measure(&port, &roomy(), spin), (0, 0, vec![0, 0]));
    assert_eq!(measure(&port, &roomy(), sleep), (0, 0, vec![0, 0]));
}

#[test]
fn a_capture() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("traffic.pcapng");
    write_capture(&path, &generated(&MixOptions::default(), PACKETS as usize));
    assert_eq!(measure(&pcap(&path), &roomy(), spin), (0, 0, vec![0, 0]));
}

#[test]
fn functions_groups_and_every_verdict() {
    use flowyard::Group;
    use flowyard::function::{Packet, Verdict, closure};
    let function = closure(|packet: &mut Packet<'_>| {
        packet.mark(1);
        packet.annotate(&[1u64; 4]);
        packet.slice(200);
        match packet.hash() % 16 {
            0 => Verdict::Drop,
            1 => Verdict::Shunt { milliseconds: 1 },
            2 => Verdict::EveryRing,
            3 => Verdict::Hash(7),
            4 => Verdict::Ring(1),
            _ => Verdict::BuiltIn,
        }
    });
    let of_group =
        closure(|packet: &mut Packet<'_>| if packet.len() > 500 { Verdict::Ring(0) } else { Verdict::BuiltIn });
    let group = Group { function: Some(of_group), ..Group::new("second", 1) };
    for groups in [vec![], vec![group]] {
        let window = Arc::new(Window::default());
        let inner = prepare(&spec(&format!("gen:mix?packets={PACKETS}")), 1).expect("a good port").remove(0);
        let config = YardConfig { function: Some(function.clone()), groups, ..roomy() };
        let opened = Yard::open_over(&config, Box::new(Watched { inner, window: window.clone() })).expect("memory");
        let (report, _) = run_with(opened, sleep);
        assert!(report.sums_agree() && report.buffers_missing == 0 && report.aside() > 1000, "{report:?}");
        let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
        assert!(read(&window.from) > 0);
        let (allocated, sleeps) = (read(&window.to) - read(&window.from), read(&window.sleeps));
        assert!(allocated <= 2 * sleeps, "{allocated} allocations, {sleeps} sleeps");
    }
}

#[test]
fn full_rings_and_backlogs() {
    let config = YardConfig { rings: 2, ring_slots: 8, ..YardConfig::default() };
    let (dispatcher, sleeps, consumers) = measure(&format!("gen:mix?packets={PACKETS}"), &config, spin);
    // Each sleep lists the few descriptors that it waits for.
    assert!(dispatcher <= 2 * sleeps, "{dispatcher} allocations, {sleeps} sleeps");
    assert_eq!(consumers, [0, 0]);
}

#[test]
fn workers() {
    let window = Arc::new(Window::default());
    let inner = prepare(&spec(&format!("gen:mix?packets={PACKETS}")), 1).expect("a good port").remove(0);
    let port = Box::new(Watched { inner, window: window.clone() });
    let (yard, mut workers) = Yard::open_local_over(&roomy(), vec![port]).expect("memory");
    let running = yard.start().expect("no thread is needed");
    let mut packets = 0u64;
    workers.remove(0).run(|_, packet| {
        packets += 1;
        packet.set_annotation(&packets).expect("there is room");
    });
    assert_eq!((join(running).delivered(), packets), (PACKETS, PACKETS));
    let read = |n: &AtomicU64| n.load(Ordering::Relaxed);
    assert!(read(&window.from) > 0, "the worker's thread is counted");
    assert_eq!((read(&window.to) - read(&window.from), read(&window.sleeps)), (0, 0));
}

#[test]
fn a_stage() {
    let pass_on = |reader: RingReader| {
        let (mut stage, end) = Stage::new(reader, 1024).expect("a pipe");
        let mut next = Consumer::attach_local(end).expect("the same process");
        let (mut packets, mut before) = (0u64, allocations());
        let mut taken = 0;
        loop {
            while stage.next().is_some() {
                packets += 1;
                assert_eq!(stage.pass(), Ok(()));
                if packets % 64 == 0 {
                    stage.flush();
                    while next.next().is_some() {
                        taken += 1;
                    }
                }
                if packets == 128 {
                    before = allocations();
                }
            }
            if stage.wait(Some(std::time::Duration::ZERO)) == Wait::Ended {
                break;
            }
            std::thread::yield_now();
        }
        let allocated = allocations() - before;
        while next.next().is_some() {
            taken += 1;
        }
        assert_eq!(taken, packets);
        drop(next);
        assert_eq!(stage.finish(None).returned, packets);
        allocated
    };
    assert_eq!(measure(&format!("gen:mix?packets={PACKETS}"), &roomy(), pass_on).2, [0, 0]);
}
