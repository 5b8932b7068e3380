//! Receiving and dropping 64-byte frames over veth: dispatch in user space, steering in the kernel, packet sockets that
//! share by hash, and a bare AF_XDP loop, by turns in one run.
//!
//! One core does all the work of receiving: the kernel's part (a NAPI thread that is put there) and all threads of
//! ours. The sender has the other core and sends as fast as it can. What is told is processor time of the first core a
//! packet received, so that a busy machine disturbs it little: its inverse is packets a second and core *used*. What
//! the sender's system call does is counted for nobody. Four rings everywhere, but for the bare loop, which has one
//! socket.

mod bare;
mod wire;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use flowyard::mem::{Geometry, Region, Wait};
use flowyard::{RingReader, Yard, YardConfig};
use flowyard_port::{PortSpec, Progress, prepare};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::rounds::{self, Contender, Setting};
use crate::{figures, machine};
use wire::Wire;

/// Rings, and sockets that share by hash.
const RINGS: u16 = 4;
/// Conversations.
const FLOWS: u16 = 256;
/// How long each is measured in each round, once it runs.
const SPAN: Duration = Duration::from_millis(700);
const WARM_UP: Duration = Duration::from_millis(300);

/// Say what each measurement was made of.
static DETAILS: AtomicBool = AtomicBool::new(false);

/// What every contender is given: where to count, and when to end.
struct Task<'a> {
    packets: &'a [AtomicU64],
    stop: &'a AtomicBool,
}

/// Runs and prints.
pub fn run(setting: &Setting, only: Option<usize>) {
    let Some(sender) = setting.other.filter(|_| flowyard_testkit::net::is_root()) else {
        println!("\n## Live\n\nNot run: it needs root, and two cores.");
        return;
    };
    let receiver = setting.core;
    let on_wire = move |receive: fn(&Task<'_>)| move |_: &()| measure(receiver, sender, receive);
    let mut contenders = vec![
        Contender::new("steered in the kernel, one thread for all rings", on_wire(one_thread)),
        Contender::new("steered in the kernel, a thread a ring", on_wire(|task| yard(task, true, false))),
        Contender::new("steered in the kernel, relayed", on_wire(|task| yard(task, true, true))),
        Contender::new("dispatch in user space", on_wire(|task| yard(task, false, false))),
        Contender::new("4 packet sockets, by hash", on_wire(packet_sockets)),
    ];
    let has_bare = bare::is_possible();
    if has_bare {
        contenders.push(Contender::new("bare AF_XDP loop", on_wire(bare::receive)));
    } else {
        println!("\nNo bare loop: it needs clang and libbpf's headers.");
    }
    if let Some(only) = only {
        DETAILS.store(true, Ordering::Relaxed);
        contenders = contenders.into_iter().skip(only).take(1).collect();
    }
    let rounds = setting.rounds.div_ceil(10); // seconds each
    let outcome = rounds::run(&Setting { rounds, ..*setting }, false, &mut (), |_| (), &contenders);
    let mut ratios = if only.is_some() {
        Vec::new()
    } else {
        vec![
            figures::ratio(0, 3),
            figures::ratio(0, 4),
            figures::ratio(1, 3),
            figures::ratio(1, 4),
            figures::ratio(1, 2),
        ]
    };
    if has_bare && only.is_none() {
        ratios.splice(0..0, (0..5).map(|way| figures::ratio(way, 5)));
    }
    figures::print("Live, 64-byte frames over veth", "packet and core used", &outcome, &ratios);
}

/// Nanoseconds of processor time a packet that `receive` takes in.
fn measure(receiver: usize, sender: usize, receive: fn(&Task<'_>)) -> Option<f64> {
    let wire = Wire::new();
    let packets: Vec<AtomicU64> = (0..RINGS).map(|_| AtomicU64::new(0)).collect();
    let (stop, sent) = (AtomicBool::new(false), AtomicBool::new(false));
    let sending_thread = AtomicI32::new(0);
    wire.namespace.run(|| {
        std::thread::scope(|scope| {
            let task = Task { packets: &packets, stop: &stop };
            let others: HashSet<i32> = wire::threads().collect();
            let body = move || {
                machine::pin(receiver); // and all threads that it starts
                receive(&task);
            };
            scope.spawn(body);
            std::thread::sleep(WARM_UP);
            let kernel = wire.namespace.pin_napi("fy0", receiver);
            let sending = scope.spawn(|| {
                sending_thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
                machine::pin(sender);
                wire::send(&sent, FLOWS);
            });
            std::thread::sleep(WARM_UP);
            let sending_thread = sending_thread.load(Ordering::Relaxed);
            let ours = wire::threads().filter(|thread| !others.contains(thread) && *thread != sending_thread);
            let ours: Vec<i32> = ours.collect();
            let now = || {
                let used = |threads: &[i32]| threads.iter().map(|thread| wire::used_ns(*thread)).sum::<u64>();
                let received = packets.iter().map(|ring| ring.load(Ordering::Relaxed)).sum::<u64>();
                let switches = ours.iter().map(|thread| wire::switches(*thread)).sum();
                [received, used(&ours), used(&[kernel]), wire.received(), switches]
            };
            let (before, stolen) = (now(), machine::stolen_ticks());
            std::thread::sleep(SPAN);
            let after = now();
            let disturbed = machine::stolen_ticks() - stolen > 3;
            // Receivers end first, while there is something to wake them.
            stop.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            sent.store(true, Ordering::Relaxed);
            drop(sending.join());
            let [received, ours, kernel, came, switches] = std::array::from_fn(|at| (after[at] - before[at]) as f64);
            if DETAILS.load(Ordering::Relaxed) {
                println!(
                    "{:.0} kpps of {:.0} that came; a packet {:.0} ns in the kernel's thread, {:.0} ns in ours; {:.0} packets a switch to one of them; {:.0} % of the core",
                    received / SPAN.as_secs_f64() / 1e3,
                    came / SPAN.as_secs_f64() / 1e3,
                    kernel / received,
                    ours / received,
                    received / switches,
                    (ours + kernel) / SPAN.as_nanos() as f64 * 100.0
                );
            }
            (received > 1000.0 && !disturbed).then(|| (ours + kernel) / received)
        })
    })
}

/// A yard with a thread a ring.
fn yard(task: &Task<'_>, kernel: bool, relay: bool) {
    let config = YardConfig { name: "bench".into(), rings: RINGS, kernel, relay, pin: false, ..YardConfig::default() };
    let port: PortSpec = "xdp:fy0?native".parse().expect("a name");
    let (yard, readers) = Yard::open(&config, &[port]).expect("as root");
    std::thread::scope(|scope| {
        for (mut reader, packets) in readers.into_iter().zip(task.packets) {
            let name = format!("ring-{}", reader.ring());
            let body = move || {
                let mut sum = 0;
                while reader.wait(None) != Wait::Ended {
                    let mut seen = 0;
                    while let Some(packet) = reader.next() {
                        sum ^= packet.slot().hash;
                        seen += 1;
                    }
                    packets.fetch_add(seen, Ordering::Relaxed);
                }
                std::hint::black_box(sum);
            };
            std::thread::Builder::new().name(name).spawn_scoped(scope, body).expect("a thread");
        }
        run_until_stopped(yard, task);
    });
}

/// A yard whose rings one thread reads, as the bare loop has one.
fn one_thread(task: &Task<'_>) {
    let config = YardConfig { name: "bench".into(), rings: RINGS, kernel: true, pin: false, ..YardConfig::default() };
    let port: PortSpec = "xdp:fy0?native".parse().expect("a name");
    let (yard, mut readers) = Yard::open(&config, &[port]).expect("as root");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut sum = 0;
            while RingReader::wait_any(&mut readers, None) != Wait::Ended {
                for (reader, packets) in readers.iter_mut().zip(task.packets) {
                    let mut seen = 0;
                    while let Some(packet) = reader.next() {
                        sum ^= packet.slot().hash;
                        seen += 1;
                    }
                    packets.fetch_add(seen, Ordering::Relaxed);
                }
            }
            std::hint::black_box(sum);
        });
        run_until_stopped(yard, task);
    });
}

/// Four packet sockets (TPACKET_V3) among which the kernel shares packets by hash, with a thread each.
fn packet_sockets(task: &Task<'_>) {
    let port: PortSpec = "packet:fy0".parse().expect("a name");
    let openers = prepare(&port, RINGS.into()).expect("an interface");
    let geometry = Geometry::new(2048, 64, 1024).expect("a geometry");
    std::thread::scope(|scope| {
        for (opener, packets) in openers.into_iter().zip(task.packets) {
            scope.spawn(move || {
                let (region, mut stock) = Region::create("bench", geometry).expect("memory");
                let mut port = opener.open(&region, &mut stock).expect("as root");
                let mut batch = Vec::with_capacity(256);
                while !task.stop.load(Ordering::Relaxed) {
                    let progress = port.receive(&mut stock, &mut batch, 64).expect("the interface stays");
                    packets.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    batch.drain(..).for_each(|received| stock.put(received.buffer));
                    if let Progress::Idle { .. } = progress {
                        let fds = port.fds();
                        let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
                        let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                        let _ = rustix::event::poll(&mut polled, Some(&wait));
                    }
                }
                port.close(&mut stock).expect("it lets go");
            });
        }
    });
}

fn run_until_stopped(yard: Yard, task: &Task<'_>) {
    let running = yard.start().expect("a thread");
    until(task.stop);
    running.stop();
    let report = running.join();
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
}

fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
}
