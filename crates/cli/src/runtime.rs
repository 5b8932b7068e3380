//! Where a running yard's sockets are: a folder for each yard, by its name.
//!
//! ```text
//! /run/flowyard/NAME/control.sock            of root
//! $XDG_RUNTIME_DIR/flowyard/NAME/control.sock of anybody else
//! ```
//!
//! The folder is its owner's, and is left where it is at the end: its sockets are not. `FLOWYARD_RUNTIME_DIR` names
//! another place for all of them.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use miette::{Result, miette};

/// The name of a yard that was given none.
pub const DEFAULT_NAME: &str = "yard";

/// The control socket's file in the folder.
pub const CONTROL: &str = "control.sock";

/// Longest name of a yard: paths of sockets have 107 bytes at most.
const LONGEST_NAME: usize = 48;

/// Where root's are, and those that a service manager makes for others.
const RUN: &str = "/run/flowyard";

/// The folder of the yard of this name, for the user that this program runs as.
pub fn runtime_folder(name: &str) -> PathBuf {
    // As a unit with User= and RuntimeDirectory=flowyard/NAME finds it.
    let made = Path::new(RUN).join(name);
    if std::fs::metadata(&made).is_ok_and(|folder| folder.uid() == user()) {
        return made;
    }
    flowyard::attach::folder(name)
}

/// The folder that has those of all yards of this user.
fn all_yards() -> PathBuf {
    flowyard::attach::folders().swap_remove(0)
}

/// Makes the folder of a yard, in which its owner alone may write. Others may be let in to its sockets, each of which
/// says who may.
pub fn make_folder(name: &str) -> Result<PathBuf> {
    let folder = runtime_folder(name);
    let cannot = |why: &dyn std::fmt::Display| {
        miette!(
            "cannot make the runtime folder {}: {why}; give --control=PATH for a place of your own",
            folder.display()
        )
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(|e| cannot(&e))?;
    if user() == 0 {
        // Others may pass, so that consumers, and a yard that goes on as another user, find it.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(all_yards(), mode).map_err(|e| cannot(&e))?;
        // A yard of this name may have gone on as another user.
        std::os::unix::fs::chown(&folder, Some(0), Some(0)).map_err(|e| cannot(&e))?;
    }
    // In a folder that everybody may write, somebody else may have been first.
    let owner = std::fs::metadata(&folder).map_err(|e| cannot(&e))?.uid();
    if owner != user() {
        return Err(cannot(&format!("it belongs to user {owner}, and this program runs as {}", user())));
    }
    Ok(folder)
}

/// `--name`: what can be a folder's name and part of a systemd unit's.
pub fn name(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if text.is_empty() || text.len() > LONGEST_NAME || text.starts_with('.') || !text.bytes().all(good) {
        return Err(format!("must have 1 to {LONGEST_NAME} letters, digits and -_., and not begin with a dot"));
    }
    Ok(text.to_owned())
}

/// The control socket of the yard of this name; without a name that of the one yard that runs, or of the default one.
pub fn control_socket(name: Option<&str>) -> Result<PathBuf> {
    if let Some(name) = name {
        return Ok(runtime_folder(name).join(CONTROL));
    }
    let folders = std::fs::read_dir(all_yards()).into_iter().flatten().flatten();
    let mut running: Vec<PathBuf> = folders
        .map(|folder| folder.path().join(CONTROL))
        .filter(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok())
        .collect();
    running.sort();
    match running.as_slice() {
        [] => Ok(runtime_folder(DEFAULT_NAME).join(CONTROL)),
        [one] => Ok(one.clone()),
        several => {
            let names = several.iter().filter_map(|path| path.parent()?.file_name()?.to_str());
            let names: Vec<_> = names.collect();
            Err(miette!("several yards run here ({}): say which by --name NAME", names.join(", ")))
        }
    }
}

/// The user that this program runs as.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_folders() {
        for good in ["yard", "eth0", "a.b-c_1"] {
            assert_eq!(name(good).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(49)] {
            assert!(name(bad).is_err_and(|why| why.contains("letters, digits")), "{bad:?}");
        }
    }

    #[test]
    fn a_yard_has_a_folder_of_its_name() {
        let folder = runtime_folder("a");
        assert!(folder.ends_with("flowyard/a") || folder.to_string_lossy().contains("flowyard-"), "{folder:?}");
        assert_eq!(control_socket(Some("a")).expect("by name"), folder.join("control.sock"));
    }
}
