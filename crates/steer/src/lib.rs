//! Steer: bytes → verdict. Dissection, symmetric hash, policy and indirection table.
//!
//! A packet goes in, the ring it belongs to comes out: [`Classifier::classify`]. On the way it is
//! dissected ([`dissect`]) from the outside in, through whatever carries it, to the innermost flow;
//! both directions of that flow are one [`Conversation`]; its hash ([`FlowHash`]) finds a bucket of
//! the [`Table`], and the bucket a ring. Later fragments go where their first one went
//! ([`FragmentMemory`]), ICMP errors where the flow goes that they quote.
//!
//! Pure: no standard library, no unsafe code, no dependencies; nothing here panics, recurses, or
//! allocates on the packet path; work is bounded by [`Policy::max_steps`].
//!
//! ```
//! use flowyard_steer::{Classifier, Frame, FragmentTable, FlowHash, LinkType, Policy, Table};
//!
//! let classifier = Classifier {
//!     policy: Policy::default(),
//!     hash: FlowHash::default(),
//!     table: Table::even(4)?,
//! };
//! let mut memory = FragmentTable::default();
//! let packet = [0x45, 0, 0, 24, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 4, 0];
//! let frame = Frame::new(&packet, LinkType::RAW);
//! let verdict = classifier.classify(&frame, &mut memory, 0);
//! assert!(verdict.decision().ring < 4);
//! # Ok::<(), flowyard_steer::TableError>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod card;
mod classify;
mod conversation;
mod dissection;
mod fragment;
mod fragment_table;
mod frame;
mod hash;
mod id;
mod key_id;
mod layer;
mod observer;
mod policy;
mod quick;
mod stop;
mod table;
mod toeplitz;
mod udp_tunnels;
mod walk;
mod wire;

pub use card::{card_hash, card_rss};
pub use classify::{Classifier, Decision, Glance, Glancer, Hold, Verdict};
pub use conversation::Conversation;
pub use dissection::{Dissection, Family, Flow, Fragment, Level, TunnelKind};
pub use fragment::{Datagram, Piece};
pub use fragment_table::{FragmentCounts, FragmentMemory, FragmentTable};
pub use frame::{Frame, LinkType};
pub use hash::{CONSTANTS, FIXED_SEED, FlowHash, HASH_VERSION, default_hash};
pub use id::Id;
pub use key_id::{KeyId, KeyIds};
pub use layer::{Layer, LayerSet};
pub use observer::Observer;
pub use policy::{Fragments, KeyLevel, NameError, NonIp, Policy, PolicyError};
pub use stop::Stop;
pub use table::{Table, TableError};
pub use toeplitz::{KeyTooShort, MICROSOFT_KEY, SYMMETRIC_KEY, ToeplitzKey};
pub use udp_tunnels::UdpTunnels;
pub use walk::dissect;
