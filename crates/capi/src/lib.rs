//! `libflowyard.so`: rings of running yards for programs in C. The interface is [`flowyard.h`](../include/flowyard.h),
//! written by hand because it is what its users read; tests compare it with this.
//!
//! What C holds of a ring is a number that is looked up by every call (table.rs), never an address: a ring that is
//! NULL, detached or made up is told from a good one. No panic gets out (error.rs).
#![deny(unsafe_code)]

pub mod abi;
mod attach;
mod error;
mod packets;
mod ring;
mod table;
mod wait;

pub use abi::{Info, Options, PacketView, SegmentView};
pub use ring::{Held, How, Ring, Texts};
