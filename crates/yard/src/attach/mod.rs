//! Consumers in processes of their own: they connect to the yard's socket, are checked, and get a ring.
//!
//! ```text
//! consumer                                     yard
//!   connect to NAME/attach.sock  ───────────▶  who is it? (SO_PEERCRED, unix(7))
//!   Hello: ring 2, for reading   ───────────▶  may they? does nobody read it?
//!                                ◀───────────  Welcome, and by SCM_RIGHTS: the region, and pipe and
//!                                              wakeup of each dispatcher
//!   … packets, by the pipes; the connection stays open as long as the ring is wanted …
//!   exit, crash, kill -9: the kernel closes ──▶  the ring is vacant; what it held comes home
//! ```
//!
//! The socket carries messages (SOCK_SEQPACKET), each with the greeting of [`handover`](crate::mem::handover), so that
//! two versions refuse each other in words. Nothing else ever goes over it: packets and wakeups have ways of their own.
//!
//! [`Running::serve`](crate::Running::serve) is the yard's side, [`attach`] the consumer's.

mod access;
mod client;
mod error;
mod list;
mod place;
mod server;
mod socket;

use serde::{Deserialize, Serialize};

pub use access::{Allow, AllowError};
pub use client::{Attach, Attached, End, attach};
pub use error::AttachError;
pub use list::rings;
pub use place::{Place, folder, folders};
pub(crate) use server::Offer;
pub use server::{Seated, Server, Serving};
pub use socket::listen_at;

/// Name of the socket in a yard's folder.
pub const SOCKET: &str = "attach.sock";

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// A ring.
    Attach {
        /// `2`, or `ids/2` where the yard has groups with names.
        ring: String,
        /// Write access to the region.
        write: bool,
        /// It will pass packets on.
        #[serde(default)]
        stage: bool,
        /// Who asks, for people.
        program: String,
    },
    /// Which rings there are.
    Rings,
}

/// What a yard answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The ring is yours.
    Welcome(About),
    /// These rings there are.
    Rings(Vec<RingState>),
    /// It is not, and why.
    Refused(String),
}

/// A ring, as who asks may have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingState {
    /// Its full name: `NAME/RING` or `NAME/GROUP/RING`.
    pub name: String,
    /// The program and process that reads it, of other processes than the yard's.
    pub reader: Option<(String, u32)>,
    /// Whether who asks may read it.
    pub allowed: bool,
}

/// What a consumer is told of its ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Name of the yard.
    pub yard: String,
    /// Name of the ring's group; empty for one that has none.
    pub group: String,
    /// Number of the ring within its group.
    pub ring: u16,
    /// Rings of the group.
    pub rings: u16,
    /// Whether the region may be written.
    pub write: bool,
    /// Names of the yard's ports, in the order in which tags and slots number them.
    pub ports: Vec<String>,
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dash = if self.group.is_empty() { "" } else { "/" };
        write!(f, "{}/{}{dash}{}", self.yard, self.group, self.ring)
    }
}
