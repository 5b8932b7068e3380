//! Where a yard's sockets are, and how a ring is named: `NAME/RING` or `NAME/GROUP/RING`.

use std::path::PathBuf;
use std::str::FromStr;

use super::{AttachError, SOCKET};

/// A ring of a yard on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the yard.
    pub yard: String,
    /// The ring, as the yard names it: `2`, or `ids/2`.
    pub ring: String,
}

impl FromStr for Place {
    type Err = AttachError;

    fn from_str(text: &str) -> Result<Place, AttachError> {
        let wrong = || AttachError::Name { name: text.into() };
        let (yard, ring) = text.split_once('/').ok_or_else(wrong)?;
        let number = ring.rsplit('/').next().unwrap_or_default();
        if yard.is_empty() || ring.split('/').count() > 2 || number.parse::<u16>().is_err() {
            return Err(wrong());
        }
        Ok(Place { yard: yard.into(), ring: ring.into() })
    }
}

impl Place {
    /// The yard's socket: of the folders where it may be, the first that has one; else the first.
    pub fn socket(&self) -> PathBuf {
        let mut paths = folders().into_iter().map(|folder| folder.join(&self.yard).join(SOCKET));
        let first = paths.next().unwrap_or_default();
        if first.exists() { first } else { paths.find(|path| path.exists()).unwrap_or(first) }
    }
}

/// Folders that hold yards' folders: `FLOWYARD_RUNTIME_DIR` where that is set, and then no other; else the user's
/// (in `XDG_RUNTIME_DIR`), and the system's.
pub fn folders() -> Vec<PathBuf> {
    if let Some(folder) = std::env::var_os("FLOWYARD_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        return vec![folder.into()];
    }
    let uid = rustix::process::geteuid();
    let users = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("flowyard"),
        None => std::env::temp_dir().join(format!("flowyard-{}", uid.as_raw())), // see `is_ours`
    };
    let users = Some(users).filter(|_| !uid.is_root());
    users.into_iter().filter(|folder| is_ours(folder)).chain([PathBuf::from("/run/flowyard")]).collect()
}

/// Whether nobody but this user and root can have put anything there: in a folder that all may write, somebody else may
/// have been first.
fn is_ours(folder: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    std::fs::symlink_metadata(folder).map_or(true, |about| about.is_dir() && [0, own].contains(&about.uid()))
}

/// The folder of a yard that this process runs: root's is the system's, anybody else's the user's.
pub fn folder(yard: &str) -> PathBuf {
    folders().swap_remove(0).join(yard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rings() {
        let place = |text: &str| text.parse::<Place>().ok().map(|place| (place.yard, place.ring));
        let is = |yard: &str, ring: &str| Some((yard.to_owned(), ring.to_owned()));
        assert_eq!(place("yard/2"), is("yard", "2"));
        assert_eq!(place("edge/ids/11"), is("edge", "ids/11"));
        for wrong in ["", "yard", "yard/", "/2", "yard/ids", "yard/ids/", "a/b/c/2", "yard/-1", "yard/65536"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
        let error = "yard".parse::<Place>().expect_err("no ring").to_string();
        assert!(error.contains("yard") && error.contains("NAME/RING"), "{error}");
    }
}
