//! Why a consumer was not attached, or a yard takes none.

use std::path::PathBuf;

use crate::mem::MemError;

/// Object, action, value, remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Not the name of a ring.
    #[error("{name:?} names no ring: write NAME/RING, such as yard/0, or NAME/GROUP/RING")]
    Name {
        /// What was given.
        name: String,
    },
    /// Nobody answers.
    #[error("cannot reach the yard at {}: {error}; {remedy}", path.display())]
    Reach {
        /// The yard's socket.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The yard said no.
    #[error("the yard at {} refuses ring {ring}: {why}", path.display())]
    Refused {
        /// The yard's socket.
        path: PathBuf,
        /// What was asked for.
        ring: String,
        /// Its words.
        why: String,
    },
    /// Memory could not be mapped, or the yard is of another version.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// The yard answers what makes no sense.
    #[error("the yard at {} answers what makes no sense ({what}): is it of the same version?", path.display())]
    Nonsense {
        /// The yard's socket.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// A yard has no ring for other processes.
    #[error(
        "cannot take consumers at {}: workers read all rings themselves; open the yard with dispatchers (Yard::open)",
        path.display()
    )]
    Workers {
        /// The socket that was to be made.
        path: PathBuf,
    },
    /// A yard cannot take consumers.
    #[error("cannot take consumers at {}: {action}: {error}; {remedy}", path.display())]
    Serve {
        /// The yard's socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        error: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
}
