//! Ways of receiving: each opens what it needs on its interface, counts what it sees, and ends when it is told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flowyard::mem::{Geometry, Packet, Region, Wait};
use flowyard::{RingReader, Work, Yard, YardConfig};
use flowyard_port::{PortSpec, Progress, prepare};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;

/// Rings, and sockets that share by hash.
pub const RINGS: u16 = 4;
/// Longest sleep of a loop, in nanoseconds: as long as a dispatcher's.
const SLEEP_NS: i64 = 50_000_000;

/// A counter on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, packets: u64) {
        self.0.fetch_add(packets, Ordering::Relaxed); // Relaxed: a figure, read for itself alone
    }
}

/// What every way is given.
#[derive(Debug, Default)]
pub struct Task {
    /// Its interface.
    pub interface: String,
    /// How often a plain loop looks in vain before it sleeps.
    pub looks: u32,
    /// Where to count, by thread.
    pub packets: [Count; RINGS as usize],
    /// All threads are there, packets may come.
    pub ready: AtomicBool,
    /// End it; the way's first thread is unparked after that is set.
    pub stop: AtomicBool,
}

impl Task {
    /// Packets counted so far.
    pub fn seen(&self) -> u64 {
        self.packets.iter().map(|count| count.0.load(Ordering::Relaxed)).sum()
    }

    fn port(&self, kind: &str) -> PortSpec {
        let native = if kind == "xdp" { "?native" } else { "" };
        format!("{kind}:{}{native}", self.interface).parse().expect("a name")
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn await_end(&self) {
        self.ready.store(true, Ordering::Relaxed);
        while !self.is_over() {
            std::thread::park();
        }
    }

    /// Has `turn` look for packets until the end; after so many looks in vain it sleeps on the descriptor.
    pub fn run_loop<D: AsFd>(&self, device: &mut D, mut turn: impl FnMut(&mut D) -> u64) {
        self.ready.store(true, Ordering::Relaxed);
        let mut vain = 0;
        while !self.is_over() {
            let seen = turn(device);
            if seen > 0 {
                self.packets[0].add(seen);
                vain = 0;
                continue;
            }
            vain += 1;
            if vain > self.looks {
                let mut polled = [PollFd::new(device, PollFlags::IN)];
                let _ = rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: SLEEP_NS }));
                vain = 0;
            }
            std::hint::spin_loop();
        }
    }
}

fn config() -> YardConfig {
    YardConfig { name: "bench".into(), rings: RINGS, pin: false, ..YardConfig::default() }
}

/// Steered in the kernel, one thread for all rings.
pub fn kernel_one_thread(task: &Task) {
    one_thread(task, &YardConfig { kernel: true, ..config() });
}

/// Steered in the kernel, a thread a ring.
pub fn kernel_threads(task: &Task) {
    thread_a_ring(task, &YardConfig { kernel: true, ..config() });
}

/// The same, and a dispatcher takes packets from the kernel.
pub fn relayed(task: &Task) {
    thread_a_ring(task, &YardConfig { kernel: true, relay: true, ..config() });
}

/// A dispatcher, and one thread for all rings.
pub fn dispatch_one_thread(task: &Task) {
    one_thread(task, &config());
}

/// A dispatcher, and a thread a ring.
pub fn dispatch_threads(task: &Task) {
    thread_a_ring(task, &config());
}

/// Dispatcher and reader in one thread.
pub fn worker(task: &Task) {
    local(task, task.port("xdp"));
}

/// The same over a packet socket.
pub fn packet_worker(task: &Task) {
    local(task, task.port("packet"));
}

/// What a worker does: as readers do.
struct Drops<'a> {
    task: &'a Task,
    sum: u32,
}

impl Work for Drops<'_> {
    fn packet(&mut self, _: u16, packet: &mut Packet<'_>) {
        self.sum ^= packet.slot().hash;
    }

    fn turned(&mut self, packets: usize) {
        if packets > 0 {
            self.task.packets[0].add(packets as u64);
            std::hint::black_box(self.sum);
        }
    }
}

fn local(task: &Task, port: PortSpec) {
    let (yard, workers) = Yard::open_local(&config(), &[port]).expect("as root");
    std::thread::scope(|scope| {
        for worker in workers {
            scope.spawn(move || worker.run_work(Drops { task, sum: 0 }));
        }
        run_until_over(yard, task);
    });
}

fn thread_a_ring(task: &Task, config: &YardConfig) {
    let (yard, readers) = Yard::open(config, &[task.port("xdp")]).expect("as root");
    std::thread::scope(|scope| {
        for (mut reader, packets) in readers.into_iter().zip(&task.packets) {
            scope.spawn(move || {
                let mut sum = 0;
                while reader.wait(None) != Wait::Ended {
                    sum ^= drop_all(&mut reader, packets);
                }
                std::hint::black_box(sum);
            });
        }
        run_until_over(yard, task);
    });
}

fn one_thread(task: &Task, config: &YardConfig) {
    let (yard, mut readers) = Yard::open(config, &[task.port("xdp")]).expect("as root");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sum = 0;
            while RingReader::wait_any(&mut readers, None) != Wait::Ended {
                for (reader, packets) in readers.iter_mut().zip(&task.packets) {
                    sum ^= drop_all(reader, packets);
                }
            }
            std::hint::black_box(sum);
        });
        run_until_over(yard, task);
    });
}

fn drop_all(reader: &mut RingReader, packets: &Count) -> u32 {
    let (mut seen, mut sum) = (0, 0);
    while let Some(packet) = reader.next() {
        sum ^= packet.slot().hash;
        seen += 1;
    }
    if seen > 0 {
        packets.add(seen);
    }
    sum
}

fn run_until_over(yard: Yard, task: &Task) {
    let running = yard.start().expect("a thread");
    task.await_end();
    running.stop();
    let report = running.join();
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
}

/// Four packet sockets (TPACKET_V3) among which the kernel shares packets by hash, with a thread each.
pub fn packet_sockets(task: &Task) {
    let openers = prepare(&task.port("packet"), RINGS.into()).expect("an interface");
    let geometry = Geometry::new(2048, 64, 1024).expect("a geometry");
    std::thread::scope(|scope| {
        for (opener, packets) in openers.into_iter().zip(&task.packets) {
            scope.spawn(move || {
                let (region, mut stock) = Region::create("bench", geometry).expect("memory");
                let mut port = opener.open(&region, &mut stock).expect("as root");
                let mut batch = Vec::with_capacity(256);
                while !task.is_over() {
                    let progress = port.receive(&mut stock, &mut batch, 64).expect("the interface stays");
                    if !batch.is_empty() {
                        packets.add(batch.len() as u64);
                    }
                    batch.drain(..).for_each(|received| stock.put(received.buffer));
                    if let Progress::Idle { .. } = progress {
                        let fds = port.fds();
                        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
                        let wait = Timespec { tv_sec: 0, tv_nsec: SLEEP_NS };
                        let _ = rustix::event::poll(&mut polled, Some(&wait));
                    }
                }
                port.close(&mut stock).expect("it lets go");
            });
        }
        task.await_end();
    });
}
