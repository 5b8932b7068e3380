//! What a call of a module costs a packet: the time in it, copies in and out included, of batches of generated traffic that
//! have just been sorted. The median over all batches, so that a busy machine disturbs it little; rounds of all contenders
//! interleaved. And what it costs to load a module, and to start it anew.
//!
//! ```text
//! cargo bench -p flowyard-wasm [-- ROUNDS] [PART OF A NAME]
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flowyard::function::{BATCH, Batch, Failure, Function, Limits, Packet, Steer, Surroundings, Verdict, closure};
use flowyard::mem::Wait;
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard::steer::{Frame, LinkType, Policy, dissect};
use flowyard::{Yard, YardConfig};
use flowyard_wasm::load;

/// Packets a round.
const PACKETS: u64 = 500_000;
/// Calls that are not looked at, at the beginning of each round.
const WARM: usize = 200;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let rounds = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(7usize);
    let only = arguments.iter().find(|a| a.parse::<usize>().is_err());
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
    let mut contenders: Vec<(&str, Function)> = vec![
        ("closure, a ring by the hash", closure(|p: &mut Packet<'_>| Verdict::Ring((p.hash() >> 30) as u16))),
        ("closure, dissects again (for scale)", dissects()),
        ("module, tags only: says nothing", module("nothing", &each(&tags_only, ""))),
        ("module, tags only: a ring by the hash", module("ring", &each(&tags_only, ring))),
        (
            "module, 64 bytes shown, a ring",
            module("ring64", &each(&(asks("packet_bytes", 64) + &asks("annotation_bytes", 0)), ring)),
        ),
        ("module, 192 bytes shown, a ring", module("ring192", &each(&asks("annotation_bytes", 0), ring))),
        ("module, 192 bytes and annotation, marks", module("marks", &each("", marks))),
        (
            "module, 4096 bytes shown, a ring",
            module("ring4096", &each(&(asks("packet_bytes", 4096) + &asks("annotation_bytes", 0)), ring)),
        ),
        ("module, tags only: looks up in an array", module("looks", &each(&(TABLE.to_owned() + &tags_only), looks))),
        ("sample dscp.wat", module("dscp", &dscp)),
    ];
    contenders.retain(|(name, _)| only.is_none_or(|only| name.contains(only.as_str())));
    let mut figures = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for at in 0..contenders.len() {
            let at = (at + round * 3) % contenders.len();
            figures[at].push(measure(contenders[at].1.clone()));
        }
    }
    println!("{:<44} {:>8} {:>8} {:>8}", "ns a packet in full batches", "least", "median", "most");
    for ((name, _), figures) in contenders.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let (least, median, most) = (figures[0], figures[rounds / 2], figures[rounds - 1]);
        println!("{name:<44} {least:>8.1} {median:>8.1} {most:>8.1}");
    }
    loading(folder.path(), &dscp);
}

/// What the yard did already.
fn dissects() -> Function {
    let policy = Policy::default();
    closure(move |packet: &mut Packet<'_>| {
        let link = LinkType(packet.tag().link);
        let found = dissect(&Frame::new(packet.bytes(), link), &policy, &mut ());
        if found.depth() > 200 { Verdict::Drop } else { Verdict::BuiltIn }
    })
}

/// Runs and answers the median of nanoseconds a packet, of the full batches.
fn measure(function: Function) -> f64 {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let timed = calls.clone();
    let timed = Function::new("timed", move |surroundings| {
        let times = Vec::with_capacity(PACKETS as usize);
        Ok(Box::new(Timed { inner: function.instance(surroundings)?, times, calls: timed.clone() }))
    });
    // A machine that stands still for a moment is not the function's fault, and no part of the median.
    let timed = timed.with_limits(Limits { budget: Duration::from_secs(5), ..Limits::default() });
    let config = YardConfig { rings: 4, ring_slots: 4096, function: Some(timed), ..YardConfig::default() };
    let ports = [format!("gen:mix?packets={PACKETS}").parse().expect("a good name")];
    let (yard, readers) = Yard::open(&config, &ports).expect("memory for a yard");
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
    let mut calls = std::mem::take(&mut *calls.lock().unwrap_or_else(PoisonError::into_inner));
    let calls = calls.get_mut(WARM..).expect("enough full batches");
    calls.sort_unstable();
    calls[calls.len() / 2] as f64 / BATCH as f64
}

/// Notes how long the calls of its inner function on full batches take.
struct Timed {
    inner: Box<dyn Steer>,
    times: Vec<u64>,
    calls: Arc<Mutex<Vec<u64>>>,
}

impl Steer for Timed {
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        let full = batch.len() == BATCH;
        let began = Instant::now();
        for _ in 0..16 {
            self.inner.steer(batch)?;
        }
        let took = began.elapsed() / 16;
        let said = self.inner.steer(batch);
        if full {
            self.times.push(took.as_nanos() as u64);
        }
        said
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner) = std::mem::take(&mut self.times);
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
