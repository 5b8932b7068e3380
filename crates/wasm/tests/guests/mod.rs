//! Modules for tests, written as text.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::PathBuf;

use flowyard::YardConfig;
use flowyard::function::{Function, FunctionError, Limits, Surroundings};
use flowyard::mem::tables::Table;
use flowyard_wasm::Sandbox;
use tempfile::TempDir;

/// A folder with a module in it.
pub struct Written {
    folder: TempDir,
    pub path: PathBuf,
}

impl Written {
    pub fn bytes(name: &str, bytes: &[u8]) -> Written {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).expect("room on disk");
        Written { folder, path }
    }

    pub fn text(text: &str) -> Written {
        Written::bytes("guest.wasm", &wat::parse_str(text).unwrap_or_else(|e| panic!("{e}\n{text}")))
    }
}

pub fn no_tables(_: &str) -> Option<Table> {
    None
}

/// The function of a module in text, within the usual bounds.
pub fn guest(text: &str) -> Function {
    guest_in(&Sandbox::default(), text)
}

pub fn guest_in(sandbox: &Sandbox, text: &str) -> Function {
    try_guest(sandbox, text, "").unwrap_or_else(|e| panic!("{e}\n{text}"))
}

pub fn try_guest(sandbox: &Sandbox, text: &str, config: &str) -> Result<Function, FunctionError> {
    sandbox.load(&Written::text(text).path, config, no_tables)
}

/// Loads and opens, for one dispatcher of one: the reason why not.
pub fn refused(text: &str, config: &str) -> String {
    let opened = try_guest(&Sandbox::default(), text, config).and_then(|f| f.instance(&surroundings()).map(drop));
    opened.expect_err("it is refused").to_string()
}

pub fn surroundings() -> Surroundings {
    Surroundings { dispatcher: 0, dispatchers: 1, rings: 4, annotation_bytes: 64 }
}

pub fn with(function: Function) -> YardConfig {
    YardConfig { rings: 4, function: Some(function), ..YardConfig::default() }
}

/// Never switched off.
pub const NEVER: Limits = Limits { budget: std::time::Duration::from_secs(60), failures: u32::MAX };

/// A module that does `body` for each packet, whose address is `$p`; `more` stands beside its functions.
pub fn each_with(more: &str, body: &str) -> String {
    let steer = format!(
        r#"(local $p i32) (local $end i32) (local $i i32) (local $n i32)
        (local.set $p (local.get $packets))
        (local.set $end (i32.add (local.get $packets) (i32.mul (local.get $count) (i32.const 96))))
        (loop $each
          {body}
          (local.set $p (i32.add (local.get $p) (i32.const 96)))
          (br_if $each (i32.lt_u (local.get $p) (local.get $end))))
        (i32.const 0)"#
    );
    steer_with(more, &steer)
}

pub fn each(body: &str) -> String {
    each_with("", body)
}

/// A module whose `steer` is `body`. There are a global `$calls` and a memory of one page.
pub fn steer_with(more: &str, body: &str) -> String {
    format!(
        r#"(module
        {more}
        (memory (export "memory") 1)
        (global $calls (mut i32) (i32.const 0))
        (func (export "abi") (result i32) (i32.const 1))
        (func (export "steer") (param $packets i32) (param $count i32) (result i32)
        {body}))"#
    )
}

pub fn steer(body: &str) -> String {
    steer_with("", body)
}

/// What a guest can do before it fails: marks, annotates, cuts, and sends to ring 0.
pub const SCRIBBLE: &str = r#"
    (i64.store offset=24 (local.get $packets) (i64.const 99))
    (i32.store16 offset=12 (local.get $packets) (i32.const 1))
    (i32.store8 offset=64 (local.get $packets) (i32.const 2))
    (i32.store offset=72 (local.get $packets) (i32.const 1))
    (i64.store (i32.load offset=84 (local.get $packets)) (i64.const 77))"#;
