//! The right to an interface: one owner's at a time, from before it looks for what others left until it has gone.
//!
//! A lock on a file beside the [journal](super::journal), which the kernel takes off with the process, however that
//! ends. So whoever has it knows that the owner before has ended, whatever a journal says and whatever processes can be
//! seen from here; and nobody else writes the journal, or clears the folder of pins, meanwhile. The file is removed by
//! whoever holds the lock, so a lock is worth something only on the file that is there by that name: that is looked at
//! once the lock is got.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Times that the file may vanish between opening and locking it: each time another owner has ended.
const TRIES: u32 = 16;

/// The right to an interface, held.
#[derive(Debug)]
pub(super) struct Claim {
    file: File,
    path: PathBuf,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unclaimed {
    /// Somebody holds it: the process, if it has written that down.
    #[error("process {0:?} holds it")]
    Held(Option<u32>),
    /// The system's answer, or a file that is not what it should be.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Claim {
    /// Claims what the file stands for. Does not wait.
    ///
    /// # Errors
    /// Somebody has it; or there is no place for the file.
    pub(super) fn new(path: &Path) -> Result<Claim, Unclaimed> {
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)?;
            let about = file.metadata()?;
            if !about.is_file() || about.mode() & 0o022 != 0 {
                let why = format!("{} is no file, or others could have written it", path.display());
                return Err(io::Error::other(why).into());
            }
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Unclaimed::Held(holder(&mut file))),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
            let same =
                std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (about.dev(), about.ino()));
            if same {
                // For people: who cannot write it down holds it all the same.
                let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                return Ok(Claim { file, path: path.to_owned() });
            }
        }
        Err(io::Error::other(format!("{} does not stay", path.display())).into())
    }
}

/// The process that has written itself down.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // By word, not by closing: a process that another thread is just starting has copies of our descriptors.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_until_it_lets_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1-2.lock");
        let first = Claim::new(&path).expect("nobody has it");
        let held = Claim::new(&path).expect_err("the first has it");
        assert!(matches!(held, Unclaimed::Held(Some(process)) if process == std::process::id()), "{held}");
        drop(first);
        assert!(!path.exists());

        // Of many at once there is never more than one.
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(claim) = Claim::new(&path) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_such_a_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1-2.lock");
        std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
        assert!(matches!(Claim::new(&path), Err(Unclaimed::System(_))), "links are not followed");
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(&path).expect("made");
        assert!(matches!(Claim::new(&path), Err(Unclaimed::System(_))));
        assert!(matches!(Claim::new(&folder.path().join("no/1-2.lock")), Err(Unclaimed::System(_))));
    }
}
