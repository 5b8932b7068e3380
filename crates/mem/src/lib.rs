//! Flowyard's shared memory: regions of packet buffers, rings and pipes between the yard and its
//! consumers, and the ABI that they agree on. The only crate that maps memory.
#![deny(unsafe_code)]

pub mod abi;
mod buffer;
mod error;
mod map;
mod region;
mod tag;

pub use buffer::{Buffer, Lent, Stock};
pub use error::MemError;
pub use map::Pages;
pub use region::{Geometry, Grant, Region};
pub use tag::{Clock, NO_OFFSET, Tag, flags};
