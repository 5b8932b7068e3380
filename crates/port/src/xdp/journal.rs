//! What the owner of an interface writes down, so that the next one finds what it left: a small file a
//! network namespace and interface, mode 0600, in a folder of its owner's alone.
//!
//! ```text
//! flowyard journal 1
//! boot 5d7a…                        of this start of the machine: numbers of programs mean nothing in another
//! interface 17 4 eth0               cookie of the network namespace, index, name
//! owner 4711 987654                 process and when it started, in ticks since the machine did
//! place native                      where its program sits
//! keep 1                            whether the program stays when the owner goes
//! packets 100                       what the interface had received when the program came
//! program 33 a1b2c3d4e5f60718 root_one   number, tag, name; several while one takes the place of others
//! carried 2 1000 3 4 5 6            what owners before left: how many, received, lost, unread, passed, unseen
//! end 0123456789abcdef              a sum over all of it
//! ```
//!
//! It is written whole, beside, and moved into place, so a reader finds one or the other. Nothing in it is
//! believed before the kernel has said the same: it holds no path, and names no program that is not also found
//! where the owner would have left it. A file that is not exactly this is no journal.

use std::fmt::Write as _;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::claim::{Claim, Unclaimed};

/// First line: version 1.
const HEAD: &str = "flowyard journal 1";
/// Longest journal: one has some 400 bytes.
const LONGEST_BYTES: u64 = 4096;
/// Most programs that one names.
pub(super) const MOST_PROGRAMS: usize = 8;

/// A program, as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProgramName {
    /// Its number.
    pub id: u32,
    /// A sum over its instructions.
    pub tag: u64,
    /// Its name.
    pub name: String,
}

/// What owners before this one left, in packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Carried {
    /// Owners that did not end in order.
    pub owners: u64,
    /// What they had received.
    pub received: u64,
    /// What they had counted as lost, when they last looked.
    pub lost: u64,
    /// Given to their sockets, and neither received nor counted: it went with them.
    pub unread: u64,
    /// On to the host, by programs whose owner had no socket for it or was gone.
    pub passed: u64,
    /// What the interface received while no program was on it.
    pub unseen: u64,
}

impl Carried {
    /// Both together.
    pub(super) fn and(self, other: Carried) -> Carried {
        Carried {
            owners: self.owners.saturating_add(other.owners),
            received: self.received.saturating_add(other.received),
            lost: self.lost.saturating_add(other.lost),
            unread: self.unread.saturating_add(other.unread),
            passed: self.passed.saturating_add(other.passed),
            unseen: self.unseen.saturating_add(other.unseen),
        }
    }
}

/// What is in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    /// Of the machine's start.
    pub boot: String,
    /// Cookie of the network namespace.
    pub namespace: u64,
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
    /// The process that wrote it.
    pub process: u32,
    /// When that started.
    pub started: u64,
    /// In the driver, or in the stack.
    pub native: bool,
    /// Whether the program stays when the owner goes.
    pub keep: bool,
    /// What the interface had received when the program came.
    pub packets: u64,
    /// Programs that are or were on the interface.
    pub programs: Vec<ProgramName>,
    /// What earlier owners left.
    pub carried: Carried,
}

/// Why a file is no journal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("{0}")]
    Content(String),
}

fn content(why: impl Into<String>) -> Unusable {
    Unusable::Content(why.into())
}

impl Journal {
    /// The text of the file.
    pub(super) fn text(&self) -> String {
        let Journal { namespace, index, interface, process, started, packets, .. } = self;
        let place = if self.native { "native" } else { "generic" };
        let mut text = format!(
            "{HEAD}\nboot {}\ninterface {namespace} {index} {interface}\nowner {process} {started}\nplace {place}\n\
             keep {}\npackets {packets}\n",
            self.boot,
            u8::from(self.keep),
        );
        for ProgramName { id, tag, name } in &self.programs {
            let _ = writeln!(text, "program {id} {tag:016x} {name}");
        }
        let Carried { owners, received, lost, unread, passed, unseen } = self.carried;
        let _ = writeln!(text, "carried {owners} {received} {lost} {unread} {passed} {unseen}");
        let _ = writeln!(text, "end {:016x}", sum(text.as_bytes()));
        text
    }

    /// Reads the text of a file, which anybody may have written.
    ///
    /// # Errors
    /// The first thing that is not as [`Journal::text`] writes it.
    pub(super) fn parse(text: &str) -> Result<Journal, Unusable> {
        let cut = || content("it is cut short");
        let body_len = text.rfind("end ").ok_or_else(cut)?;
        let (body, end) = text.split_at(body_len);
        if end != format!("end {:016x}\n", sum(body.as_bytes())) {
            return Err(content("its sum is wrong: it was cut short or written by somebody else"));
        }
        let mut lines = body.lines();
        let head = lines.next().ok_or_else(cut)?;
        if head != HEAD {
            return Err(content(format!("it begins with {head:?}, not with {HEAD:?}: another version's")));
        }
        let mut line = |key: &str, words: usize| -> Result<Vec<String>, Unusable> {
            let line = lines.next().ok_or_else(cut)?;
            let found: Vec<String> = line.split(' ').map(str::to_owned).collect();
            match found.split_first() {
                Some((head, rest)) if head == key && rest.len() == words => Ok(rest.to_vec()),
                _ => Err(content(format!("its line {line:?} should be {key:?} and {words} words"))),
            }
        };
        let boot = line("boot", 1)?.remove(0);
        let interface = line("interface", 3)?;
        let owner = line("owner", 2)?;
        let place = line("place", 1)?;
        let keep = line("keep", 1)?;
        let packets = line("packets", 1)?;
        let mut programs = Vec::new();
        let carried = loop {
            let line = lines.next().ok_or_else(cut)?;
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["program", id, tag, name] if programs.len() < MOST_PROGRAMS => {
                    let tag = u64::from_str_radix(tag, 16).map_err(|_| content(format!("{tag:?} is no tag")))?;
                    programs.push(ProgramName { id: number(id)?, tag, name: (*name).to_owned() });
                }
                ["carried", owners, received, lost, unread, passed, unseen] => {
                    break Carried {
                        owners: number(owners)?,
                        received: number(received)?,
                        lost: number(lost)?,
                        unread: number(unread)?,
                        passed: number(passed)?,
                        unseen: number(unseen)?,
                    };
                }
                _ => return Err(content(format!("its line {line:?} is not one that belongs there"))),
            }
        };
        if lines.next().is_some() {
            return Err(content("it goes on where it should end"));
        }
        let flag = |words: &[String], yes: &str, no: &str| match words {
            [word] if word == yes => Ok(true),
            [word] if word == no => Ok(false),
            _ => Err(content(format!("{words:?} should be {yes} or {no}"))),
        };
        let [namespace, index, name] = interface.as_slice() else { return Err(cut()) };
        let [process, started] = owner.as_slice() else { return Err(cut()) };
        Ok(Journal {
            boot,
            namespace: number(namespace)?,
            index: number(index)?,
            interface: name.clone(),
            process: number(process)?,
            started: number(started)?,
            native: flag(&place, "native", "generic")?,
            keep: flag(&keep, "1", "0")?,
            packets: packets.first().map_or(Err(cut()), |text| number(text))?,
            programs,
            carried,
        })
    }

    /// Whether the process that wrote it can be seen to run: for people, for it may be another's number, or out of
    /// sight. One that has been killed and is on its way out does not.
    pub(super) fn owner_lives(&self) -> bool {
        process_started(self.process) == Some(self.started)
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Unusable> {
    text.parse().map_err(|_| content(format!("{text:?} is no number that belongs there")))
}

/// FNV-1a: against accidents; against others there are the file's permissions.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// When a process started, in ticks since the machine did; `None` if there is none, or it is ending.
pub(super) fn process_started(process: u32) -> Option<u64> {
    /// `PF_EXITING` of linux/sched.h.
    const EXITING: u64 = 4;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: proc(5).
    let words: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let (state, flags) = (*words.first()?, words.get(6)?.parse::<u64>().ok()?);
    let ending = matches!(state, "Z" | "X" | "x") || flags & EXITING != 0;
    words.get(19)?.parse().ok().filter(|_| !ending)
}

/// This start of the machine.
pub(super) fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id = id.trim();
    if id.is_empty() || id.contains(' ') { "unknown".into() } else { id.into() }
}

/// Where a journal is kept: one file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keeper {
    folder: PathBuf,
    file: PathBuf,
}

impl Keeper {
    /// In `folder`, or where such things belong: /run/flowyard for root, else a folder in XDG_RUNTIME_DIR. `None`
    /// where there is no such place.
    pub(super) fn new(folder: Option<&str>, namespace: u64, index: u32) -> Option<Keeper> {
        let usual = || match user() {
            0 => Some(PathBuf::from("/run/flowyard")),
            _ => Some(Path::new(&std::env::var_os("XDG_RUNTIME_DIR")?).join("flowyard")),
        };
        let folder = folder.map(PathBuf::from).or_else(usual)?;
        Some(Keeper { file: folder.join(format!("{namespace}-{index}.journal")), folder })
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// A file that is no journal, or is not this user's or root's alone.
    pub(super) fn read(&self) -> Result<Option<Journal>, Unusable> {
        // Neither a link that somebody has laid, nor a pipe that nobody fills.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let about = file.metadata()?;
        if !about.is_file() || about.len() > LONGEST_BYTES {
            return Err(content(format!("it is no file of at most {LONGEST_BYTES} bytes")));
        }
        check_owner(&about)?;
        let mut bytes = Vec::new();
        file.take(LONGEST_BYTES + 1).read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|_| content("it is no text"))?;
        Journal::parse(&text).map(Some)
    }

    /// Makes the folder.
    fn make(&self) -> Result<(), Unusable> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let folder = std::fs::symlink_metadata(&self.folder)?;
        if !folder.is_dir() {
            return Err(content(format!("{} is no folder", self.folder.display())));
        }
        check_owner(&folder)
    }

    /// Claims the interface: nobody else reads, writes or removes this journal until the claim is dropped. Does not
    /// wait.
    ///
    /// # Errors
    /// Somebody has it; or there is no place for the lock.
    pub(super) fn claim(&self) -> Result<Claim, Unclaimed> {
        self.make().map_err(|error| match error {
            Unusable::System(error) => error,
            Unusable::Content(why) => io::Error::other(why),
        })?;
        Claim::new(&self.lock())
    }

    /// Writes it in the place of the one there.
    ///
    /// # Errors
    /// The system's; or a folder that others can write to.
    pub(super) fn write(&self, journal: &Journal) -> Result<(), Unusable> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.make()?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed); // only has to differ
        let beside = self.file.with_extension(format!("{}-{number}", std::process::id()));
        let written = (|| {
            let _ = std::fs::remove_file(&beside); // of a process that had our number and was killed
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(journal.text().as_bytes())?;
            file.sync_data()?;
            std::fs::rename(&beside, &self.file)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        Ok(written?)
    }

    /// Removes it, if it is there.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.file);
    }

    /// Removes what owners of this interface were writing when they were killed.
    pub(super) fn clear_beside(&self) {
        let stem = self.file.file_stem().map(|stem| format!("{}.", stem.to_string_lossy())).unwrap_or_default();
        let writer = |name: &str| -> Option<u32> { name.strip_prefix(&stem)?.split_once('-')?.0.parse().ok() };
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let process = entry.file_name().to_str().and_then(writer);
            if process.is_some_and(|process| process_started(process).is_none()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The others that the folder has something of, a journal or a lock: namespace, index, and where it is.
    pub(super) fn others(&self) -> Vec<(u64, u32, Keeper)> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let numbers = |name: &str| -> Option<(u64, u32)> {
            let stem = [".journal", ".lock"].iter().find_map(|end| name.strip_suffix(end))?;
            let (namespace, index) = stem.split_once('-')?;
            Some((namespace.parse().ok()?, index.parse().ok()?))
        };
        let mut found: Vec<(u64, u32)> =
            entries.flatten().filter_map(|entry| numbers(entry.file_name().to_str()?)).collect();
        found.sort_unstable();
        found.dedup();
        let keeper = |(namespace, index)| {
            let file = self.folder.join(format!("{namespace}-{index}.journal"));
            (namespace, index, Keeper { folder: self.folder.clone(), file })
        };
        found.into_iter().map(keeper).filter(|(_, _, keeper)| keeper.file != self.file).collect()
    }

    /// How long ago it was written, or where it is not there, its lock.
    pub(super) fn age(&self) -> Duration {
        let written = |file: &Path| std::fs::symlink_metadata(file).and_then(|about| about.modified()).ok();
        let written = written(&self.file).or_else(|| written(&self.lock()));
        written.and_then(|at| at.elapsed().ok()).unwrap_or_default()
    }

    fn lock(&self) -> PathBuf {
        self.file.with_extension("lock")
    }
}

/// This process's user: who owns what it makes.
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn check_owner(about: &std::fs::Metadata) -> Result<(), Unusable> {
    if ![0, user()].contains(&about.uid()) || about.mode() & 0o022 != 0 {
        let (owner, mode) = (about.uid(), about.mode() & 0o7777);
        return Err(content(format!("user {owner} owns it and its mode is {mode:04o}: others could have written it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mode_of(file: &Path) -> u32 {
        std::fs::metadata(file).map_or(0, |about| about.mode() & 0o7777)
    }

    fn example() -> Journal {
        let program = |id, name: &str| ProgramName { id, tag: 0xa1b2_c3d4_e5f6_0718, name: name.into() };
        Journal {
            boot: boot(),
            namespace: 17,
            index: 4,
            interface: "eth0".into(),
            process: std::process::id(),
            started: process_started(std::process::id()).expect("this process runs"),
            native: true,
            keep: false,
            packets: 100,
            programs: vec![program(33, "root_one"), program(34, "root_several")],
            carried: Carried { owners: 2, received: 1000, lost: 3, unread: 4, passed: 5, unseen: 6 },
        }
    }

    #[test]
    fn what_is_written_is_read_and_is_the_owners_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("flowyard");
        let keeper = Keeper::new(inner.to_str(), 17, 4).expect("a place");
        assert!(keeper.read().expect("none is no error").is_none());
        let journal = example();
        keeper.write(&journal).expect("written");
        keeper.write(&journal).expect("written over");
        assert_eq!(keeper.read().expect("read"), Some(journal.clone()));
        assert_eq!((mode_of(keeper.file()), mode_of(&inner)), (0o600, 0o700));
        assert_eq!(std::fs::read_dir(&inner).expect("listed").count(), 1, "nothing is left beside it");
        assert!(journal.owner_lives() && !Journal { started: 1, ..journal.clone() }.owner_lives());

        let other = Keeper::new(inner.to_str(), 17, 5).expect("a place");
        std::fs::write(inner.join("17-x.journal"), "").expect("written");
        assert_eq!(other.others(), [(17, 4, keeper.clone())]);
        assert!(keeper.others().is_empty() && keeper.age() < Duration::from_secs(60));
        keeper.remove();
        assert!(keeper.read().expect("none").is_none());

        // What a killed one was writing goes; what one that lives is writing stays, and so does all else.
        let stays = [format!("17-4.{}-0", std::process::id()), "17-40.4194305-0".into(), "17-4.x-0".into()];
        for name in stays.iter().map(String::as_str).chain(["17-4.4194305-0"]) {
            std::fs::write(inner.join(name), "").expect("written");
        }
        keeper.clear_beside();
        assert!(stays.iter().all(|name| inner.join(name).exists()) && !inner.join("17-4.4194305-0").exists());
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path().to_str(), 1, 1).expect("a place");
        keeper.write(&example()).expect("written");
        std::fs::set_permissions(keeper.file(), PermissionsExt::from_mode(0o622)).expect("changed");
        let error = keeper.read().expect_err("others could write it").to_string();
        assert!(error.contains("0622"), "{error}");

        keeper.remove();
        std::os::unix::fs::symlink("/proc/self/mem", keeper.file()).expect("a link");
        assert!(keeper.read().is_err(), "links are not followed");
        keeper.remove();
        std::fs::write(keeper.file(), vec![b'x'; 5000]).expect("written");
        assert!(keeper.read().is_err(), "it is too long");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("changed");
        assert!(keeper.write(&example()).is_err(), "others could replace it");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_seen() {
        let text = example().text();
        assert_eq!(Journal::parse(&text).expect("as it was"), example());
        for at in 0..text.len() {
            assert!(Journal::parse(&text[..at]).is_err(), "cut at {at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(Journal::parse(&String::from_utf8(bytes).expect("ASCII")).is_err(), "changed at {at}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_panics(text in "\\PC*", lines in prop::collection::vec("[a-z]{0,9}( [0-9a-z]{0,21}){0,7}", 0..12)) {
            let _ = Journal::parse(&text);
            let mut body = format!("{HEAD}\n{}\n", lines.join("\n"));
            let _ = writeln!(body, "end {:016x}", sum(body.as_bytes()));
            let _ = Journal::parse(&body); // with a sum that is right
        }
    }
}
