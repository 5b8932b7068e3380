//! A WebAssembly module as the steering function.
//!
//! ```no_run
//! use flowyard::{Yard, YardConfig};
//!
//! let function = flowyard_wasm::load("dscp.wasm".as_ref(), "", |_| None)?;
//! let config = YardConfig { function: Some(function), ..YardConfig::default() };
//! let (yard, readers) = Yard::open(&config, &["xdp:eth0".parse()?])?;
//! let running = yard.start()?;
//! // Some days later, a new version in the same place:
//! running.functions().reload(Some(&flowyard_wasm::load("dscp.wasm".as_ref(), "", |_| None)?))?;
//! # drop(readers);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

#[path = "../guest/flowyard_guest.rs"]
#[allow(unreachable_pub, reason = "guests use the same file")]
mod abi;
mod guest;
mod host;
mod instance;
mod module;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flowyard::function::{Function, FunctionError};
use flowyard::mem::tables::Table;

use instance::Instance;
use module::Compiled;

/// What stands before the path where a function is named in text: `wasm:/usr/lib/flowyard/dscp.wasm`.
pub const SCHEME: &str = "wasm:";

/// How far a guest may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Time that a call on a batch may take: it is stopped after one to one and a half of it. Of what comes after the
    /// first three quarters only the time counts that its thread has the processor.
    pub call_time: Duration,
    /// Time of the processor that `open` may take, also when a new instance is made after a trap: the dispatcher waits
    /// for it.
    pub open_time: Duration,
    /// Memory that a guest may have, beside the pages that the yard adds.
    pub memory_bytes: usize,
    /// Stack, of the dispatcher's thread.
    pub stack_bytes: usize,
}

impl Default for Sandbox {
    /// 10 ms a call, 100 ms to open, 16 MiB of memory, 256 KiB of stack.
    fn default() -> Sandbox {
        Sandbox {
            call_time: Duration::from_millis(10),
            open_time: Duration::from_millis(100),
            memory_bytes: 16 << 20,
            stack_bytes: 256 << 10,
        }
    }
}

/// The function of the module at `path`, in a [`Sandbox`] of the usual size. Each of its instances is opened with
/// `config`, text that the module alone understands, and finds shared tables by `tables`. The function has the
/// name of the file without its extension.
///
/// # Errors
/// The file cannot be read, is no module, or none for this yard: says which file, what of it, and the way out.
/// What its `abi` and `open` refuse is said where instances are made: by `Yard::open` and `reload`.
pub fn load(
    path: &Path,
    config: &str,
    tables: impl Fn(&str) -> Option<Table> + Send + Sync + 'static,
) -> Result<Function, FunctionError> {
    Sandbox::default().load(path, config, tables)
}

impl Sandbox {
    /// As [`load`], within these bounds.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(
        &self,
        path: &Path,
        config: &str,
        tables: impl Fn(&str) -> Option<Table> + Send + Sync + 'static,
    ) -> Result<Function, FunctionError> {
        let place = format!("{SCHEME}{}", path.display());
        let compiled = Compiled::load(path, self).map_err(|why| FunctionError::new(&place, why))?;
        let (compiled, config) = (Arc::new(compiled), Arc::<str>::from(config));
        let tables: Arc<host::Find> = Arc::new(tables);
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Function::new(&name, move |surroundings| {
            let instance = Instance::open(compiled.clone(), surroundings, config.clone(), tables.clone());
            Ok(Box::new(instance.map_err(|why| FunctionError::new(&place, why))?))
        }))
    }
}
