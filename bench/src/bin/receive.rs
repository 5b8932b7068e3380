//! Receiving and dropping 64-byte frames on a veth pair, by every way in: `xdp:` native and generic,
//! `packet:`, and a plain `recv` loop on a packet socket, interleaved in one run.
//!
//! One core does all the work of receiving: the kernel's part (a NAPI thread pinned there) and ours.
//! The sender has the other core and sends as fast as it can. What is told is packets for each
//! second of processor time that the two threads used, so that a busy machine disturbs it little.
//! As root:
//!
//! ```text
//! cargo run --release -p flowyard-bench --bin receive [ROUNDS]
//! ```

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use flowyard_mem::{Geometry, Region};
use flowyard_port::{Outgoing, PacketSink, PortSpec, Progress, Sink, prepare};
use flowyard_testkit::net::{Namespace, Veth, is_root, numbered_frame};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

const SPAN: Duration = Duration::from_secs(2);
const RECEIVER: usize = 1;
const SENDER: usize = 0;
const WAYS: [&str; 4] = ["xdp:fy0?native", "xdp:fy0?generic", "packet:fy0", "recv"];

fn main() {
    if !is_root() {
        eprintln!("receive: needs root: it makes a network namespace and loads an XDP program");
        std::process::exit(1);
    }
    let rounds = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut rates = vec![Vec::new(); WAYS.len()];
    for _ in 0..rounds {
        for (way, rates) in WAYS.iter().zip(&mut rates) {
            rates.push(measure(way));
        }
    }
    println!("{:<18} {:>9} {:>9} {:>9}   of recv", "Mpps of processor", "median", "least", "most");
    for rates in &mut rates {
        rates.sort_by(f64::total_cmp);
    }
    let base = rates[WAYS.len() - 1][rounds / 2];
    for (way, rates) in WAYS.iter().zip(&rates) {
        let (least, most, median) = (rates[0], rates[rounds - 1], rates[rounds / 2]);
        println!("{way:<18} {median:>9.3} {least:>9.3} {most:>9.3}   {:.2}", median / base);
    }
}

/// Packets that `way` receives in a microsecond of processor time.
fn measure(way: &str) -> f64 {
    let wire = Namespace::new().expect("a namespace");
    wire.veth(&Veth::default()).expect("a veth pair");
    // Without XDP, veth uses NAPI only for the sake of GRO.
    wire.command("ethtool -K fy0 gro on").expect("veth has GRO");
    let (stop, packets, thread) = (AtomicBool::new(false), AtomicU64::new(0), AtomicI32::new(0));
    wire.run(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(None, RECEIVER);
                thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
                if way == "recv" { plain(&stop, &packets) } else { port(way, &stop, &packets) }
            });
            std::thread::sleep(Duration::from_millis(300));
            let napi = wire.pin_napi("fy0", RECEIVER);
            scope.spawn(|| send(&stop));
            std::thread::sleep(Duration::from_millis(200));
            let now = || {
                let ns = [napi, thread.load(Ordering::Relaxed)].map(used_ns).iter().sum::<u64>();
                (packets.load(Ordering::Relaxed), ns)
            };
            let before = now();
            std::thread::sleep(SPAN);
            let after = now();
            stop.store(true, Ordering::Relaxed);
            (after.0 - before.0) as f64 * 1e3 / (after.1 - before.1) as f64
        })
    })
}

/// Nanoseconds that a thread has run.
fn used_ns(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).expect("a live thread");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds")
}

fn pin(thread: Option<Pid>, core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(thread, &set).expect("two cores");
}

fn send(stop: &AtomicBool) {
    pin(None, SENDER);
    let mut sink = PacketSink::open(&"packet:fy1".parse::<PortSpec>().expect("a name")).expect("the other end");
    let frames: Vec<_> = (0..64).map(|n| numbered_frame(n, u64::from(n), 64)).collect();
    while !stop.load(Ordering::Relaxed) {
        for bytes in &frames {
            let packet = Outgoing { bytes, time_ns: 0, wire_len: 64, link: 1, comment: "" };
            sink.send(&packet).expect("the other end is up");
        }
    }
}

/// Receives through a port and drops.
fn port(way: &str, stop: &AtomicBool, packets: &AtomicU64) {
    let opener = prepare(&way.parse::<PortSpec>().expect("a name"), 1).expect("an interface").remove(0);
    let geometry = Geometry::new(2048, 64, 8192).expect("a geometry");
    let (region, mut stock) = Region::create("bench", geometry).expect("memory");
    let mut port = opener.open(&region, &mut stock).expect("as root");
    let mut batch = Vec::with_capacity(256);
    count(stop, packets, || {
        let progress = port.receive(&mut stock, &mut batch, 256).expect("the interface stays");
        let received = batch.len() as u64;
        batch.drain(..).for_each(|received| stock.put(received.buffer));
        if let Progress::Idle { .. } = progress {
            let fds = port.fds();
            let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let _ = rustix::event::poll(&mut polled, Some(&wait));
        }
        received
    })
}

/// Receives with one `recv` a packet and drops.
fn plain(stop: &AtomicBool, packets: &AtomicU64) {
    let socket = flowyard_testkit::net::listen("fy0").expect("as root");
    let mut bytes = [0u8; 2048];
    count(stop, packets, || {
        rustix::net::recv(&socket, &mut bytes[..], rustix::net::RecvFlags::empty()).map_or(0, |_| 1)
    })
}

/// Calls `receive` until told to stop, counting what it answers.
fn count(stop: &AtomicBool, packets: &AtomicU64, mut receive: impl FnMut() -> u64) {
    while !stop.load(Ordering::Relaxed) {
        packets.fetch_add(receive(), Ordering::Relaxed);
    }
}
