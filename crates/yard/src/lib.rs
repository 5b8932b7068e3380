//! The yard: ports, steering and pipes to consumers. What a Rust application depends on.
//!
//! ```
//! use flowyard::{Yard, YardConfig};
//! use flowyard::mem::Wait;
//!
//! let config = YardConfig { rings: 2, ..YardConfig::default() };
//! let (yard, readers) = Yard::open(&config, &["gen:mix?packets=1000".parse()?])?;
//! let consumers: Vec<_> = readers.into_iter().map(|mut ring| std::thread::spawn(move || {
//!     let mut packets = 0;
//!     while ring.wait(None) != Wait::Ended {
//!         while let Some(packet) = ring.next() {
//!             packets += u64::from(!packet.is_empty());
//!         }
//!     }
//!     packets
//! })).collect();
//! let report = yard.start()?.join();
//! let seen: u64 = consumers.into_iter().map(|c| c.join().unwrap()).sum();
//! assert!(report.sums_agree() && seen == 1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(unsafe_code)]

mod absent;
pub mod attach;
mod audit;
mod backlog;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench_support;
mod card;
mod counters;
pub mod cpu;
mod dispatcher;
mod fragments;
pub mod function;
mod host;
mod outlets;
pub mod plugin;
mod policy_file;
mod reader;
mod readiness;
mod rings;
pub mod rules;
mod sorter;
mod stage;
pub mod table_csv;
pub mod table_text;
pub mod tables;
mod transmit;
mod witness;
mod worker;
mod yard;

pub use absent::Absent;
pub use attach::{Attached, attach};
pub use audit::{Audit, AuditFindings, Cause, Example, Load, busiest};
pub use card::{Card, Sight};
pub use counters::{Aside, Drop, Live, Report, RingCounters};
pub use fragments::SharedFragments;
pub use policy_file::{HashChoice, PolicyFile, PolicyFileError, Seed};
pub use reader::RingReader;
pub use rings::{ReweighError, RingStatus, Rings};
pub use sorter::{HOLD_NS, HOLD_PACKETS, Route, Sorter, SorterCounts};
pub use stage::{NotPassed, Stage, StageCounters};
pub use witness::{Findings, Witness};
pub use worker::{Work, Worker};
pub use yard::{Group, HostStack, Running, Yard, YardConfig, YardError};
pub use {flowyard_kernel as kernel, flowyard_mem as mem, flowyard_port as port, flowyard_steer as steer};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The example of the guide to rings for other processes compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/attach.md")]
struct Guide;
