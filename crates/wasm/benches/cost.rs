//! What a module costs a packet, over no function: time of the processor that the dispatcher's thread uses a packet of
//! generated traffic, rounds of all contenders interleaved. And what it costs to load one, and to start it anew.
//!
//! ```text
//! cargo bench -p flowyard-wasm [-- ROUNDS]
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowyard::function::{Function, Packet, Surroundings, Verdict, closure};
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard::mem::{Region, Stock, Wait};
use flowyard::port::{Opener, Port, PortCounters, PortError, PortInfo, Progress, Received, prepare};
use flowyard::{Yard, YardConfig};
use flowyard_wasm::load;
use rustix::time::{ClockId, clock_gettime};

/// Packets before the measurement begins, and until it ends.
const WARM: u64 = 100_000;
const DONE: u64 = 1_100_000;

fn main() {
    let rounds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(7usize);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dscp = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/wasm/dscp.wat");
    let dscp = std::fs::read_to_string(dscp).expect("it is there");
    let tags_only = format!("{} {}", asks("packet_bytes", 0), asks("annotation_bytes", 0));
    let ring = "(i32.store8 offset=64 (local.get $p) (i32.const 2))
        (i32.store16 offset=66 (local.get $p) (i32.shr_u (i32.load (local.get $p)) (i32.const 30)))";
    let marks = "(i64.store offset=24 (local.get $p) (i64.load32_u (local.get $p)))
        (i64.store (i32.load offset=84 (local.get $p)) (i64.load32_u (local.get $p)))";
    let looks = "(i32.store (i32.const 0) (i32.load8_u offset=14 (local.get $p)))
        (drop (call $get (global.get $t) (i32.const 0) (i32.const 4) (i32.add (local.get $p) (i32.const 24)) (i32.const 8)))";
    let module = |name: &str, text: &str| wasm(folder.path(), name, text);
    let contenders: Vec<(&str, Option<Function>)> = vec![
        ("no function", None),
        ("closure, a ring by the hash", Some(closure(|p: &mut Packet<'_>| Verdict::Ring((p.hash() >> 30) as u16)))),
        ("module, tags only: says nothing", Some(module("nothing", &each(&tags_only, "")))),
        ("module, tags only: a ring by the hash", Some(module("ring", &each(&tags_only, ring)))),
        (
            "module, 64 bytes shown, a ring",
            Some(module("ring64", &each(&(asks("packet_bytes", 64) + &asks("annotation_bytes", 0)), ring))),
        ),
        ("module, 192 bytes shown, a ring", Some(module("ring192", &each(&asks("annotation_bytes", 0), ring)))),
        ("module, 192 bytes and annotation, marks", Some(module("marks", &each("", marks)))),
        (
            "module, 4096 bytes shown, a ring",
            Some(module("ring4096", &each(&(asks("packet_bytes", 4096) + &asks("annotation_bytes", 0)), ring))),
        ),
        (
            "module, tags only: looks up in an array",
            Some(module("looks", &each(&(TABLE.to_owned() + &tags_only), looks))),
        ),
        ("sample dscp.wat", Some(module("dscp", &dscp))),
    ];
    let mut figures = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for at in 0..contenders.len() {
            let at = (at + round * 3) % contenders.len();
            figures[at].push(measure(contenders[at].1.clone()));
        }
    }
    println!("{:<44} {:>8} {:>8} {:>8} {:>10}", "ns of processor a packet", "least", "median", "most", "over none");
    let none = figures[0].clone();
    for ((name, _), figures) in contenders.iter().zip(&figures) {
        let mut over: Vec<f64> = figures.iter().zip(&none).map(|(with, without)| with - without).collect();
        let mut sorted = figures.clone();
        sorted.sort_by(f64::total_cmp);
        over.sort_by(f64::total_cmp);
        let (least, median, most) = (sorted[0], sorted[rounds / 2], sorted[rounds - 1]);
        println!("{name:<44} {least:>8.1} {median:>8.1} {most:>8.1} {:>10.1}", over[rounds / 2]);
    }
    loading(folder.path(), &dscp);
}

/// Runs and answers nanoseconds of the dispatcher's thread a packet.
fn measure(function: Option<Function>) -> f64 {
    let spent = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let spec = format!("gen:mix?packets={}", DONE + 10_000).parse().expect("a good name");
    let inner = prepare(&spec, 1).expect("a good port").remove(0);
    let config = YardConfig { rings: 4, ring_slots: 4096, function, pin: false, ..YardConfig::default() };
    let watched = Watched { inner, spent: spent.clone() };
    let (yard, readers) = Yard::open_over(&config, Box::new(watched)).expect("memory for a yard");
    std::thread::scope(|scope| {
        for mut reader in readers {
            scope.spawn(move || {
                while reader.wait(None) != Wait::Ended {
                    while reader.next().is_some() {}
                }
            });
        }
        let report = yard.start().expect("a thread").join();
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert!(report.function.is_none_or(|counts| counts.failures.iter().sum::<u64>() == 0), "{report:?}");
    });
    let [from, to] = [0, 1].map(|at: usize| spent[at].load(Ordering::Relaxed));
    (to - from) as f64 / (DONE - WARM) as f64
}

/// A port that notes when how much time was spent in its thread.
struct Watched {
    inner: Box<dyn Opener>,
    spent: Arc<[AtomicU64; 2]>,
}

struct WatchedPort {
    inner: Box<dyn Port>,
    spent: Arc<[AtomicU64; 2]>,
    packets: u64,
}

impl Opener for Watched {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }
    fn open(self: Box<Self>, region: &Region, stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let inner = self.inner.open(region, stock)?;
        Ok(Box::new(WatchedPort { inner, spent: self.spent, packets: 0 }))
    }
}

impl Port for WatchedPort {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }
    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let before = self.packets;
        let progress = self.inner.receive(stock, batch, limit);
        self.packets += batch.len() as u64;
        for (mark, spent) in [WARM, DONE].into_iter().zip(&*self.spent) {
            if before < mark && self.packets >= mark {
                let now = clock_gettime(ClockId::ThreadCPUTime);
                spent.store(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64, Ordering::Relaxed);
            }
        }
        progress
    }
    fn counters(&mut self) -> PortCounters {
        self.inner.counters()
    }
    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        self.inner.close(stock)
    }
}

/// What it takes to compile a module, and to make an instance.
fn loading(folder: &Path, text: &str) {
    let surroundings = Surroundings { dispatcher: 0, dispatchers: 1, rings: 4, annotation_bytes: 64 };
    let function = wasm(folder, "loading", text);
    let path = folder.join("loading.wasm");
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let time = |work: &dyn Fn()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    let load = || drop(load(&path, "", |_| None));
    let start = || drop(function.instance(&surroundings));
    println!("load dscp.wat: {:?}", median((0..21).map(|_| time(&load)).collect()));
    println!("make and drop an instance of it: {:?}", median((0..201).map(|_| time(&start)).collect()));
}

fn wasm(folder: &Path, name: &str, text: &str) -> Function {
    let path = folder.join(name).with_extension("wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"))).expect("room on disk");
    let shape = Shape::new(Kind::Array, 4, 8, 256).expect("possible");
    let table = Table::create("t", shape).expect("memory for a table");
    for protocol in 0..256u32 {
        table.set(&protocol.to_le_bytes(), &u64::from(protocol).to_le_bytes()).expect("room");
    }
    load(&path, "", move |_| Some(table.clone())).unwrap_or_else(|e| panic!("{e}"))
}

const TABLE: &str = r#"(import "flowyard" "table_open" (func $table (param i32 i32 i32 i32) (result i32)))
    (import "flowyard" "table_get" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (global $t (mut i32) (i32.const -1))
    (func (export "open") (param i32 i32 i32) (result i32)
      (global.set $t (call $table (i32.const 64) (i32.const 1) (i32.const 4) (i32.const 8))) (i32.const 0))"#;

/// Asks for so many bytes.
fn asks(what: &str, bytes: u32) -> String {
    format!("(func (export \"{what}\") (result i32) (i32.const {bytes}))")
}

/// A module that does `body` for each packet, at `$p`.
fn each(more: &str, body: &str) -> String {
    format!(
        r#"(module {more} (memory (export "memory") 1)
        (func (export "abi") (result i32) (i32.const 1))
        (func (export "steer") (param $p i32) (param $count i32) (result i32)
          (local $end i32)
          (local.set $end (i32.add (local.get $p) (i32.mul (local.get $count) (i32.const 96))))
          (loop $each
            {body}
            (local.set $p (i32.add (local.get $p) (i32.const 96)))
            (br_if $each (i32.lt_u (local.get $p) (local.get $end))))
          (i32.const 0)))"#
    )
}
