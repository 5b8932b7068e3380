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

use serde::{Deserialize, Serialize};

pub use access::{Allow, AllowError};
pub use client::{Attach, Attached, End, attach};
pub use error::AttachError;
pub use list::{rings, yards};
pub use place::{Place, folder, folders};
pub(crate) use server::Rings;
pub use server::{Seated, Server, Serving};

/// Name of the socket in a yard's folder.
pub const SOCKET: &str = "attach.sock";

/// What a consumer asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// `2`, or `ids/2` where the yard has groups with names.
    ring: String,
    /// Write access to the region.
    write: bool,
    /// Who it is, for people.
    program: String,
    /// No ring: it wants to know which there are.
    #[serde(default)]
    list: bool,
}

/// What a yard answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The ring is yours.
    Welcome(About),
    /// It is not, and why.
    Refused(String),
    /// The rings that there are, if that was asked.
    Rings(Vec<Listed>),
}

/// A ring of a yard, as [`rings`] lists them: those that this user may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The ring, as the yard names it: `2`, or `ids/2`.
    pub ring: String,
    /// Who reads it, if a process of its own does.
    pub reader: Option<String>,
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
