//! What the tests of plug-ins share: building them with the machine's compilers, and loading what came out.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use flowyard::function::Function;
use flowyard::mem::tables::Table;
use flowyard::{Yard, YardConfig, plugin};
use tempfile::TempDir;

use crate::common::specs;

pub const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plugin");
pub const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/plugins");

/// Runs a compiler, or whatever starts one. False if it is not there; panics if it is and fails.
pub fn compiles(command: &mut Command) -> bool {
    let output = match command.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let why = format!("no {}", command.get_program().display());
            flowyard_testkit::net::skipped(module_path!(), line!(), &why);
            return false;
        }
        output => output.expect("it starts"),
    };
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A folder for what is built.
pub fn folder() -> TempDir {
    TempDir::new().expect("a temporary folder")
}

/// Builds one of the plug-ins of the tests, as `as_name`; `None`, and a word about it, without a compiler.
pub fn build(dir: &TempDir, source: &str, as_name: &str, flags: &[&str]) -> Option<PathBuf> {
    let to = dir.path().join(as_name);
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-I", INCLUDE, "-o"]);
    cc.arg(&to).arg(Path::new(SOURCES).join(source)).args(flags);
    compiles(&mut cc).then_some(to)
}

pub fn no_tables(_: &str) -> Option<Table> {
    None
}

pub fn load(path: &Path, config: &str) -> Function {
    plugin::load(path, config, no_tables).unwrap_or_else(|e| panic!("{e}"))
}

pub fn with(function: Function) -> YardConfig {
    YardConfig { rings: 4, function: Some(function), ..YardConfig::default() }
}

/// What opening a yard with it says.
pub fn refused_to_open(function: Function) -> String {
    Yard::open(&with(function), &specs(&["gen:mix?packets=10"])).err().expect("it refuses").to_string()
}
