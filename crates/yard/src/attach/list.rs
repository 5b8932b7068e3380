//! Which yards there are on this machine, and which rings they have.

use std::path::PathBuf;
use std::time::Duration;

use super::client::ask;
use super::{Answer, Hello, RingState, SOCKET, folders};

/// How long a yard may take to answer: who lists yards waits for the slowest.
const PATIENCE: Duration = Duration::from_secs(1);

/// The rings of all yards of this machine that answer within a second, by name of yard. Of a yard with many rings the
/// first 128.
pub fn rings() -> Vec<RingState> {
    let yards = folders().into_iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let mut sockets: Vec<PathBuf> = yards.map(|yard| yard.path().join(SOCKET)).filter(|path| path.exists()).collect();
    sockets.sort();
    let of = |socket: &PathBuf| match ask(socket, &Hello::Rings, PATIENCE) {
        Ok((_, Answer::Rings(rings), _)) => rings,
        _ => Vec::new(), // left behind by one that was killed, not for us, or of another version
    };
    sockets.iter().flat_map(of).collect()
}
