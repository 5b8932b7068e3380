//! A batch costs no allocation on our side of the sandbox.
#![allow(unsafe_code)]

#[path = "../../yard/tests/common/mod.rs"]
mod common;
mod guests;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use flowyard::function::{Batch, Failure, Function, Steer};
use flowyard::mem::tables::{Kind, Shape, Table};
use guests::*;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; counting allocates nothing (a
// thread-local of a constant without a destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract, and `at` came from System.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Counts what its inner function allocates after the first calls.
struct Watched {
    inner: Box<dyn Steer>,
    calls: u64,
    allocations: u64,
}

impl Steer for Watched {
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        let before = ALLOCATIONS.with(Cell::get);
        let said = self.inner.steer(batch);
        self.calls += 1;
        if self.calls > 10 {
            self.allocations += ALLOCATIONS.with(Cell::get) - before;
        }
        said
    }
    fn counters(&self) -> Vec<(String, u64)> {
        vec![("calls".into(), self.calls), ("allocations".into(), self.allocations)]
    }
}

#[test]
fn a_batch_allocates_nothing() {
    let text = each_with(
        r#"(import "flowyard" "table_open" (func $table (param i32 i32 i32 i32) (result i32)))
           (import "flowyard" "table_get" (func $get (param i32 i32 i32 i32 i32) (result i32)))
           (func (export "open") (param i32 i32 i32) (result i32)
             (call $table (i32.const 0) (i32.const 1) (i32.const 4) (i32.const 8)))"#,
        r#"(i64.store (i32.load offset=84 (local.get $p)) (i64.const 5))
           (drop (call $get (i32.const 0) (i32.const 0) (i32.const 4) (i32.add (local.get $p) (i32.const 24)) (i32.const 8)))
           (i32.store8 offset=64 (local.get $p) (i32.const 2))"#,
    );
    let table = Table::create("t", Shape::new(Kind::Array, 4, 8, 4).expect("possible")).expect("memory");
    let inner = flowyard_wasm::load(&Written::text(&text).path, "", move |_| Some(table.clone())).expect("it loads");
    let watched = Function::new("watched", move |s| {
        Ok(Box::new(Watched { inner: inner.instance(s)?, calls: 0, allocations: 0 }))
    });
    let (report, seen) = run(&with(watched), &["gen:mix?packets=20000"]);
    assert_lossless(&report, &seen, 20_000);
    assert_eq!(seen[0].packets, 20_000);
    let own = |name: &str| report.own.iter().find(|(n, _)| n == name).map(|(_, n)| *n);
    assert!(own("calls") > Some(100), "{:?}", report.own);
    assert_eq!(own("allocations"), Some(0));
}
