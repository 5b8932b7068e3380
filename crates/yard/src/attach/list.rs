//! Which yards there are on this machine, and which rings they have.

use std::path::Path;
use std::time::Duration;

use flowyard_mem::handover;

use super::client::{connect, reach};
use super::{Answer, AttachError, Hello, Listed, SOCKET, folders};
use crate::mem::MemError;

/// How long a yard may take to answer: who lists yards waits for the slowest.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names of the yards that may take consumers on this machine, in order: of those that run, and of those that were
/// killed and left their socket behind.
pub fn yards() -> Vec<String> {
    let entries = folders().into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let yards = entries.filter_map(|entry| entry.ok()).filter(|entry| entry.path().join(SOCKET).exists());
    let mut names: Vec<String> = yards.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.dedup();
    names
}

/// The rings of the yard whose socket that is which this user may read.
///
/// # Errors
/// No yard, or it does not answer within a second.
pub fn rings(socket: &Path) -> Result<Vec<Listed>, AttachError> {
    let connection = connect(socket, PATIENCE).map_err(|e| reach(socket, e.into()))?;
    let nonsense = |what: String| AttachError::Nonsense { path: socket.to_owned(), what };
    let hello = Hello { ring: String::new(), write: false, program: String::new(), list: true };
    let hello = serde_json::to_vec(&hello).map_err(|e| nonsense(e.to_string()))?;
    let gone = |error| match error {
        MemError::System { source, .. } => reach(socket, source),
        other => other.into(),
    };
    handover::send(&connection, &hello, None).map_err(gone)?;
    let message = handover::receive(&connection).map_err(gone)?.of_our_version()?;
    match serde_json::from_slice(&message.said).map_err(|e| nonsense(e.to_string()))? {
        Answer::Rings(rings) => Ok(rings),
        Answer::Refused(why) => Err(AttachError::Refused { path: socket.to_owned(), ring: "list".into(), why }),
        Answer::Welcome(_) => Err(nonsense("a ring that was not asked for".into())),
    }
}
