//! What lies in the BPF file system for one interface: counters of programs, tallies of their owners, a link.
//!
//! Under /sys/fs/bpf/flowyard, in a folder for each network namespace and interface, by the number of the program. Nothing
//! there is used where others could have put it.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, Map, MapData, MapType};
use aya::programs::links::{FdLink, LinkType, PinnedLink};
use aya::programs::xdp::XdpLink;
use flowyard_kernel::CountsMap;

use super::journal::{Carried, ProgramName};
use super::ring::Tally;

const BPF_FILES: &str = "/sys/fs/bpf";
/// Times that the folder above may vanish between making it and making one in it.
const TRIES: u32 = 16;

/// A queue's line of a tally, or of the counters of the program for one socket a queue.
pub(super) type Line = [u64; Tally::WORDS];

/// The folder in the BPF file system for one interface.
pub(super) struct Pins {
    pub(super) folder: PathBuf,
}

impl Pins {
    pub(super) fn new(namespace: u64, index: u32) -> Pins {
        Pins { folder: Path::new(BPF_FILES).join("flowyard").join(format!("{namespace}-{index}")) }
    }

    pub(super) fn link(&self) -> PathBuf {
        self.folder.join("link")
    }

    pub(super) fn counts(&self, id: u32) -> PathBuf {
        self.folder.join(format!("counts-{id}"))
    }

    pub(super) fn tally(&self, id: u32) -> PathBuf {
        self.folder.join(format!("tally-{id}"))
    }

    /// Makes the folder, and that above it.
    pub(super) fn make(&self) -> Result<(), String> {
        let folders: Vec<&Path> = self.folder.parent().into_iter().chain([self.folder.as_path()]).collect();
        let made = |folder: &&Path| match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        };
        for left in (0..TRIES).rev() {
            match folders.iter().try_for_each(made) {
                // Another owner has ended, and has taken the one above away.
                Err(error) if error.kind() == ErrorKind::NotFound && left > 0 => {}
                Err(error) => return Err(error.to_string()),
                Ok(()) => break,
            }
        }
        if self.is_ours() { Ok(()) } else { Err(format!("others can write to {}", self.folder.display())) }
    }

    /// Whether nobody but this user and root can have put anything there.
    pub(super) fn is_ours(&self) -> bool {
        self.folder.parent().into_iter().chain([self.folder.as_path()]).all(|folder| {
            std::fs::symlink_metadata(folder).is_ok_and(|about| {
                let owners = [0, rustix::process::geteuid().as_raw()];
                about.is_dir() && owners.contains(&about.uid()) && about.mode() & 0o022 == 0
            })
        })
    }

    /// The link that was left there, if it is one for XDP and holds program `id`.
    pub(super) fn link_of(&self, id: u32) -> Option<XdpLink> {
        if !self.is_ours() {
            return None;
        }
        let link = FdLink::from(PinnedLink::from_pin(self.link()).ok()?);
        let info = link.info().ok()?;
        let right = info.program_id() == id && info.link_type().is_ok_and(|kind| kind == LinkType::Xdp);
        if right { XdpLink::try_from(link).ok() } else { None }
    }

    /// What the program of that number and its owner have counted, and how many packets the program saw.
    pub(super) fn figures(&self, id: u32) -> Option<(Carried, u64)> {
        if !self.is_ours() {
            return None;
        }
        let sum = |map: MapData| -> Option<Line> {
            let map = Array::<MapData, Line>::try_from(Map::Array(map)).ok()?;
            let mut sum = Line::default();
            for line in map.iter().map_while(Result::ok) {
                sum.iter_mut().zip(line).for_each(|(sum, n)| *sum = sum.saturating_add(n));
            }
            Some(sum)
        };
        let counters = MapData::from_pin(self.counts(id)).ok()?;
        let [received, lost, passed_by_then, settled, ..] = sum(MapData::from_pin(self.tally(id)).ok()?)?;
        let (redirected, passed, seen) = match counters.info().ok()?.map_type().ok()? {
            MapType::PerCpuArray => {
                let counts = CountsMap::new(counters).and_then(|map| map.all()).ok()?;
                (counts.redirected, counts.fell_back(), counts.seen)
            }
            _ => {
                let [redirected, passed, too_long, to_host, ..] = sum(counters)?;
                (redirected, passed, [passed, too_long, to_host].into_iter().fold(redirected, u64::saturating_add))
            }
        };
        let unread = redirected.saturating_sub(received.saturating_add(lost));
        let carried = match settled {
            0 => Carried { owners: 1, received, lost, unread, passed, unseen: 0 },
            _ => Carried { passed: passed.saturating_sub(passed_by_then), ..Carried::default() },
        };
        Some((carried, seen))
    }

    /// Removes the counters of the program of that number, and of its owner.
    pub(super) fn remove(&self, id: u32) {
        if self.is_ours() {
            let _ = (std::fs::remove_file(self.counts(id)), std::fs::remove_file(self.tally(id)));
        }
    }

    /// Has the counters of one program be those of another, which has the same maps.
    pub(super) fn rename(&self, from: u32, to: u32) {
        let _ = std::fs::rename(self.counts(from), self.counts(to));
        let _ = std::fs::rename(self.tally(from), self.tally(to));
    }

    /// Removes the folder, if nothing is in it, and then that above it.
    pub(super) fn remove_folder(&self) {
        if self.is_ours() && std::fs::remove_dir(&self.folder).is_ok() {
            let _ = self.folder.parent().map(std::fs::remove_dir);
        }
    }

    /// The folders there are: namespace and index of each, and how long ago something came into it or went.
    pub(super) fn all() -> Vec<(u64, u32, Duration)> {
        let Ok(entries) = std::fs::read_dir(Path::new(BPF_FILES).join("flowyard")) else { return Vec::new() };
        let read = |entry: std::fs::DirEntry| {
            let name = entry.file_name();
            let (namespace, index) = name.to_str()?.split_once('-')?;
            let changed = entry.metadata().and_then(|about| about.modified()).ok()?;
            Some((namespace.parse().ok()?, index.parse().ok()?, changed.elapsed().unwrap_or_default()))
        };
        entries.flatten().filter_map(read).collect()
    }

    /// Removes all but the counters of `programs`, and with `link` the link.
    pub(super) fn clear_but(&self, programs: &[ProgramName], link: bool) {
        if !self.is_ours() {
            return;
        }
        let stay: Vec<PathBuf> = programs
            .iter()
            .flat_map(|program| [self.counts(program.id), self.tally(program.id)])
            .chain(link.then(|| self.link()))
            .collect();
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !stay.contains(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        if stay.is_empty() {
            self.remove_folder();
        }
    }
}
