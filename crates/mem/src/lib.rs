//! Flowyard's shared memory: regions of packet buffers, rings and pipes between the yard and its
//! consumers, and the ABI that they agree on. The only crate that maps memory.
#![deny(unsafe_code)]

pub mod abi;
#[cfg(all(feature = "bench", not(loom)))]
#[doc(hidden)]
pub mod bench_support;
#[cfg(not(loom))]
mod buffer;
#[cfg(not(loom))]
mod consumer;
mod error;
#[cfg(not(loom))]
mod hand;
#[cfg(not(loom))]
pub mod handover;
#[cfg(not(loom))]
mod ledger;
#[cfg(not(loom))]
mod local;
#[cfg(not(loom))]
mod map;
#[cfg(not(loom))]
mod passing;
#[cfg(not(loom))]
mod pipe;
#[cfg(not(loom))]
mod region;
mod ring;
mod slot;
mod sync;
pub mod tables;
mod tag;
#[cfg(not(loom))]
mod wakeup;

pub use error::MemError;
pub use slot::{RETURN_WORDS, SLOT_WORDS, Slot, Verdict, slot_flags};
pub use tag::{Clock, NO_OFFSET, Tag, flags};

#[cfg(not(loom))]
pub use buffer::{Buffer, Lent, Stock};
#[cfg(not(loom))]
pub use consumer::{Consumer, Wait};
#[cfg(not(loom))]
pub use hand::{Hand, Packet, PacketError};
#[cfg(not(loom))]
pub use ledger::{Ledger, Returned, Shared};
#[cfg(not(loom))]
pub use local::{Held, LocalRing};
#[cfg(not(loom))]
pub use map::Pages;
#[cfg(not(loom))]
pub use passing::refuse_descriptors;
#[cfg(not(loom))]
pub use pipe::{Handover, PipeEnd, PipeProducer, RING_SLOTS, notify, notify_when, pipe};
#[cfg(not(loom))]
pub use region::{Geometry, Grant, Opened, Region};
