//! What is refused, in which words; what `open`, `control`, `tick` and tables do.

#[path = "../../yard/tests/common/mod.rs"]
mod common;
mod guests;

use std::time::Duration;

use common::*;
use flowyard::Yard;
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard_wasm::{Sandbox, load};
use guests::*;

#[test]
fn what_is_no_module_for_this_yard_is_refused_in_words() {
    let files: [(&[u8], &str); 9] = [
        (b"", "begins with \"\""),
        (b"\x7fELF\x02\x01\x01\0\0\0", "is not a WebAssembly module: it begins with \"\\x7fELF"),
        (b"(module)", "exports no `memory`"),
        (b" ;; words\n(module", "is no valid module: expected `)`"),
        (b"(((((((((((", "x.wasm:1:2"),
        (b"(modul\xff", "is no valid module"),
        (b"\0asm\x01\0", "is cut off after 6 bytes"),
        (b"\0asm\x0d\0\x01\0", "is no core module"),
        (b"\0asm\x01\0\0\0\xff\xff", "is no valid module"),
    ];
    for (bytes, words) in files {
        let written = Written::bytes("x.wasm", bytes);
        let error = load(&written.path, "", no_tables).expect_err("refused").to_string();
        assert!(error.contains(words) && error.contains("wasm:/") && error.contains("x.wasm"), "{words}: {error}");
    }
    let missing = load("/nowhere/x.wasm".as_ref(), "", no_tables).expect_err("not there").to_string();
    assert!(missing.contains("wasm:/nowhere/x.wasm") && missing.contains("is the path right?"), "{missing}");
    let folder = load("/".as_ref(), "", no_tables).expect_err("a folder").to_string();
    assert!(folder.contains("is not a file"), "{folder}");
}

#[test]
fn what_is_missing_or_too_much_has_a_name() {
    let memory = r#"(memory (export "memory") 1)"#;
    let abi = r#"(func (export "abi") (result i32) (i32.const 1))"#;
    let steer_only = r#"(func (export "steer") (param i32 i32) (result i32) (i32.const 0))"#;
    let module = |parts: &[&str]| format!("(module {})", parts.join("\n"));
    let cases = [
        (module(&[abi, steer_only]), "exports no `memory`"),
        (module(&[memory, steer_only]), "exports no function `abi` with the type () -> (i32)"),
        (module(&[memory, abi]), "exports no function `steer` with the type (i32, i32) -> (i32)"),
        (
            module(&[memory, abi, r#"(func (export "steer") (param i64) (result i32) (i32.const 0))"#]),
            "exports `steer` with the type (i64) -> (i32), not (i32, i32) -> (i32)",
        ),
        (
            module(&[memory, abi, r#"(global (export "steer") i32 (i32.const 0))"#]),
            "exports a `steer` that is no function",
        ),
        (
            module(&[memory, abi, steer_only, r#"(func (export "open") (param i32 i32) (result i32) (i32.const 0))"#]),
            "exports `open` with the type (i32, i32) -> (i32), not (i32, i32, i32) -> (i32)",
        ),
        (
            module(&[
                r#"(import "env" "now" (func (result i64))) (import "wasi_snapshot_preview1" "fd_write" (func (param i32)))"#,
                memory,
                abi,
                steer_only,
            ]),
            "imports env.now, wasi_snapshot_preview1.fd_write, and there are only flowyard.say, flowyard.table_open, \
             flowyard.table_get: build it for wasm32-unknown-unknown, not for WASI",
        ),
        (
            module(&[r#"(import "flowyard" "say" (func (param i64)))"#, memory, abi, steer_only]),
            "incompatible import type",
        ),
        (module(&[r#"(memory (export "memory") i64 1)"#, abi, steer_only]), "is no valid module"),
        (module(&[memory, "(memory 1)", abi, steer_only]), "is no valid module"),
        (module(&[r#"(memory (export "memory") 1 1 shared)"#, abi, steer_only]), "is no valid module"),
        (
            module(&[memory, r#"(func (export "abi") (result i32) (i32.const 2))"#, steer_only]),
            "is built for version 2 of the interface, and this yard has 1",
        ),
        (
            module(&[r#"(memory (export "memory") 1 1)"#, abi, steer_only]),
            "its memory of 1 pages cannot grow by 1, for packets: let it, or state no maximum",
        ),
        (module(&[r#"(memory (export "memory") 300)"#, abi, steer_only]), "exceeds memory limits"),
        (module(&["(table 100000 funcref)", memory, abi, steer_only]), "exceeds table limits"),
        (module(&[memory, abi, steer_only, "(func $f (unreachable)) (start $f)"]), "cannot start: wasm `unreachable`"),
        (module(&[memory, abi, steer_only, "(func $f (loop $e (br $e))) (start $f)"]), "ran longer than it may"),
        (
            module(&[
                memory,
                abi,
                steer_only,
                r#"(func (export "open") (param i32 i32 i32) (result i32) (loop $e (br $e)) (i32.const 0))"#,
            ]),
            "its `open` was stopped: ran longer than it may",
        ),
        (
            module(&[
                memory,
                abi,
                steer_only,
                r#"(func (export "open") (param i32 i32 i32) (result i32) (i32.const 9))"#,
            ]),
            "its `open` refuses: 9",
        ),
    ];
    for (text, words) in cases {
        let error = refused(&text, "");
        assert!(error.contains(words), "not {words:?}:\n{error}\n{text}");
    }
    let error = refused(&steer("(i32.const 0)"), "a=1");
    assert!(error.contains("takes no configuration, but is given one"), "{error}");
}

/// Repeats the configuration as its refusal.
const SAYS_CONFIG: &str = r#"(import "flowyard" "say" (func $say (param i32 i32)))
    (func (export "open") (param $host i32) (param $config i32) (param $len i32) (result i32)
      (if (i32.ne (i32.load offset=8 (local.get $host)) (i32.const 4)) (then (unreachable)))
      (if (i32.ne (i32.load offset=12 (local.get $host)) (i32.const 64)) (then (unreachable)))
      (if (i32.ne (i32.load offset=20 (local.get $host)) (i32.const 1)) (then (unreachable)))
      (call $say (local.get $config) (local.get $len)) (local.get $len))"#;

#[test]
fn open_is_told_where_it_is_and_its_configuration() {
    let text = steer_with(SAYS_CONFIG, "(i32.const 0)");
    let error = refused(&text, "no such\ncustomer: 7");
    assert!(error.ends_with("its `open` refuses: no such customer: 7"), "{error}");
    assert!(try_guest(&Sandbox::default(), &text, "").expect("it loads").instance(&surroundings()).is_ok());
    let long = "x".repeat(70_000);
    assert!(refused(&text, &long).contains("has 70000 bytes, and at most 65512"));
    let longest = "y".repeat(65_512);
    assert!(refused(&text, &longest).contains(&"y".repeat(500)));
}

#[test]
fn requests_are_answered_between_batches() {
    // "s…": what it is called with, turned round by one; "t": traps; "r": refuses; "o": answers from beyond its memory.
    let text = steer_with(
        r#"(import "flowyard" "say" (func $say (param i32 i32)))
        (data (i32.const 64) "not today")
        (func (export "tick") (global.set $calls (i32.add (global.get $calls) (i32.const 1))))
        (func (export "control") (param $at i32) (param $len i32) (result i64)
          (local $kind i32)
          (local.set $kind (i32.load8_u (local.get $at)))
          (if (i32.eq (local.get $kind) (i32.const 116)) (then (unreachable)))
          (if (i32.eq (local.get $kind) (i32.const 114)) (then
            (call $say (i32.const 64) (i32.const 9)) (return (i64.const -1))))
          (if (i32.eq (local.get $kind) (i32.const 111)) (then (return (i64.const 0x7fffffff00000010))))
          (if (i32.eq (local.get $kind) (i32.const 99)) (then
            (i32.store8 (i32.const 32) (i32.gt_u (global.get $calls) (i32.const 0)))
            (return (i64.const 0x0000002000000001))))
          (i64.or
            (i64.shl (i64.extend_i32_u (i32.add (local.get $at) (i32.const 1))) (i64.const 32))
            (i64.extend_i32_u (i32.sub (local.get $len) (i32.const 1)))))"#,
        "(i32.const 0)",
    );
    let (yard, readers) = Yard::open(&with(guest(&text)), &specs(&["gen:mix"])).expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r).packets)).collect();
    let ask = |request: &[u8]| running.functions().control(request).expect("it runs").remove(0);
    assert_eq!(ask(b"status"), Ok(b"tatus".to_vec()));
    assert_eq!(ask(b"refuse"), Err("not today".into()));
    assert!(ask(b"o").is_err_and(|e| e.contains("not in its memory")));
    assert!(ask(b"t").is_err_and(|e| e.contains("was stopped over the request: wasm `unreachable`")));
    assert_eq!(ask(b"still there"), Ok(b"till there".to_vec()));
    assert!(ask(&[b's'; 70_000]).is_err_and(|e| e.contains("at most 65536 bytes")));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ask(b"c"), Ok(vec![1]), "ticked meanwhile");
    running.stop();
    let report = join(running);
    assert_eq!(report.delivered(), consumers.into_iter().map(|c| c.join().expect("no panic")).sum::<u64>());
    let plain = guest(&steer("(i32.const 0)")).instance(&surroundings()).map(|mut f| f.control(b"?"));
    assert_eq!(plain.expect("it opens"), Err("this function takes no requests".into()));
}

const TABLE: &str = r#"(import "flowyard" "table_open" (func $table (param i32 i32 i32 i32) (result i32)))
    (import "flowyard" "table_get" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (data (i32.const 64) "protocols")
    (global $t (mut i32) (i32.const -1))
    (func (export "open") (param i32 i32 i32) (result i32)
      (global.set $t (call $table (i32.const 64) (i32.const 9) (i32.const 4) (i32.const 8)))
      (i32.eq (global.get $t) (i32.const -1)))"#;

#[test]
fn tables_are_found_by_name_and_looked_up_in() {
    // The mark is what the table has for the protocol.
    let text = each_with(
        TABLE,
        r#"(i32.store (i32.const 0) (i32.load8_u offset=14 (local.get $p)))
           (drop (call $get (global.get $t) (i32.const 0) (i32.const 4)
             (i32.add (local.get $p) (i32.const 24)) (i32.const 8)))"#,
    );
    let table = |key, value| Table::create("protocols", Shape::new(Kind::Array, key, value, 256).expect("possible"));
    let protocols = table(4, 8).expect("memory");
    protocols.set(&17u32.to_le_bytes(), &0x1700_u64.to_le_bytes()).expect("room");
    protocols.set(&6u32.to_le_bytes(), &0x0600_u64.to_le_bytes()).expect("room");
    let written = Written::text(&text);
    let shared = protocols.clone();
    let function = load(&written.path, "", move |name| (name == "protocols").then(|| shared.clone()));
    let (report, seen) = run(&with(function.expect("it loads")), &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    let tags = || seen.iter().flat_map(|s| &s.tags);
    let expected = |protocol| match protocol {
        6 => 0x0600,
        17 => 0x1700,
        _ => 0,
    };
    assert!(tags().all(|t| t.user == expected(t.protocol)) && tags().any(|t| t.user == 0x1700));
    assert_eq!(report.function.expect("counted").failures, [0; 9]);

    assert!(refused(&text, "").contains("its `open` refuses: there is no table \"protocols\"; make it before"));
    let narrow = table(4, 4).expect("memory");
    let function = load(&written.path, "", move |_| Some(narrow.clone())).expect("it loads");
    let why = function.instance(&surroundings()).err().expect("refused").to_string();
    assert!(why.contains("but the module wants key=4, value=8; make it so"), "{why}");
}

#[test]
fn a_key_of_another_length_or_a_value_too_long_is_harmless() {
    // Keys of any length, values of any: what comes back is in the mark.
    let text = each_with(
        TABLE,
        r#"(local.set $i (i32.load (local.get $p)))
           (i32.store offset=24 (local.get $p) (i32.add (i32.const 100)
             (call $get (global.get $t) (i32.const 0) (i32.and (local.get $i) (i32.const 1023)) (i32.const 4096)
               (i32.shr_u (local.get $i) (i32.const 18)))))"#,
    );
    let table = Table::create("t", Shape::new(Kind::Array, 4, 8, 1).expect("possible")).expect("memory");
    let function = load(&Written::text(&text).path, "", move |_| Some(table.clone())).expect("it loads");
    let (report, seen) = run(&with(function), &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    assert!(seen.iter().flat_map(|s| &s.tags).all(|t| t.user == 100), "absent");
}

#[test]
fn damaged_modules_are_refused_or_run_without_harm() {
    let bytes = wat::parse_str(each(SHORT)).expect("good text");
    let try_it = |bytes: &[u8]| {
        let written = Written::bytes("x.wasm", bytes);
        let sandbox = Sandbox { open_time: Duration::from_millis(2), memory_bytes: 1 << 18, ..Sandbox::default() };
        sandbox.load(&written.path, "", no_tables).and_then(|f| f.instance(&surroundings()).map(drop)).is_ok()
    };
    assert!(try_it(&bytes));
    // What comes last is the section of names: without it, a module is whole.
    assert!((0..bytes.len()).filter(|len| try_it(&bytes[..*len])).count() <= 1, "cut off");
    let mut good = 0;
    for at in 8..bytes.len() {
        for bits in [0x01, 0x80, 0x7f] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bits;
            good += u32::from(try_it(&damaged));
        }
    }
    assert!(good > 10, "some damage goes unnoticed: {good}");
}

const SHORT: &str = "(i32.store8 offset=64 (local.get $p) (i32.and (i32.load (local.get $p)) (i32.const 3)))";
