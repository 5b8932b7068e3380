//! The peers in C: loaded, and called from Rust that cannot misuse them.
//!
//! This folder is where the benchmark is unsafe. Each file names one C source of `bench/peers`, declares its
//! functions, and says what keeps the calls within what C asks.
//!
//! # Invariants
//! The object is compiled from those sources by [`compile`], so the types declared here are
//! theirs. It is never unloaded: its functions are good for the life of the program.
#![allow(unsafe_code)]

pub mod distributor;
pub mod hash;
pub mod pipeline;
pub mod ring;

use std::path::Path;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::compile;

/// Packets of a burst.
pub const BURST: usize = 32;

/// The functions of the object.
#[derive(Debug)]
pub struct Dpdk {
    hash: hash::Functions,
    ring: ring::Functions,
    pipeline: pipeline::Functions,
    distributor: distributor::Functions,
}

/// The peers, compiled and loaded when first asked for; `None`, having said why, where they cannot be.
pub fn dpdk() -> Option<&'static Dpdk> {
    static LOADED: OnceLock<Option<Dpdk>> = OnceLock::new();
    let load = || {
        let given = std::env::var_os(compile::OBJECT).map(std::path::PathBuf::from);
        let folder = std::env::temp_dir().join(format!("flowyard-bench-peers-{}", std::process::id()));
        let loaded = given.map_or_else(|| compile::compile(&folder), Ok).and_then(|object| Dpdk::load(&object));
        let _ = std::fs::remove_dir_all(folder);
        loaded.inspect_err(|why| println!("\nSkipped: DPDK's peers ({why}; Debian: apt install gcc libdpdk-dev).")).ok()
    };
    LOADED.get_or_init(load).as_ref()
}

impl Dpdk {
    fn load(object: &Path) -> Result<Dpdk, String> {
        // SAFETY: runs constructors of DPDK's libraries and of our own sources, of which it was just compiled.
        let library = unsafe { Library::open(Some(object), RTLD_NOW | RTLD_GLOBAL) }
            .map_err(|e| format!("{}: {e}", object.display()))?;
        let object = Object(std::mem::ManuallyDrop::new(library)); // never unloaded
        Ok(Dpdk {
            hash: hash::Functions::find(&object)?,
            ring: ring::Functions::find(&object)?,
            pipeline: pipeline::Functions::find(&object)?,
            distributor: distributor::Functions::find(&object)?,
        })
    }
}

/// What was loaded.
struct Object(std::mem::ManuallyDrop<Library>);

impl Object {
    /// The function of this name.
    ///
    /// # Safety
    /// `F` is the type of a function that the sources give it.
    unsafe fn function<F: Copy>(&self, name: &str) -> Result<F, String> {
        // SAFETY: as the caller says.
        unsafe { self.0.get::<F>(name) }.map(|found| *found).map_err(|e| format!("{name}: {e}"))
    }
}
