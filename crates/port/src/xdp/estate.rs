//! What an owner of an interface leaves when it ends, and the next one's way to it.
//!
//! While a port is open, three things lie where they outlive its process: a [journal](super::journal), and under
//! /sys/fs/bpf/flowyard, in a folder for each namespace and interface, the program's counters and the port's
//! [`Tally`] of what it did with each packet. With `?keep` the link of the program is there as well, so the program
//! stays on the interface: its sockets are gone, and packets take the fallback action, until the next owner puts its
//! own program into the link, without a gap.
//!
//! An owner that ends in order takes all of it away (with `?keep`: says that all is settled). The next one finds
//! what a killed one left, and counts what was lost by it:
//!
//! ```text
//! redirected (program's counters) - received - lost (tally) = unread: it went with the owner
//! passed (program's counters)                                : it went on to the host
//! received by the interface - seen (program's counters)      = unseen: no program was there
//! ```
//!
//! All that is one owner's at a time: who opens a port [claims](super::claim) the interface first, and whoever holds
//! the claim knows that the owner before has ended. What fails on the way leaves everything as it was found.
//!
//! Nothing is taken off an interface on a journal's word alone: the program there must have the number, tag and name
//! that the journal gives, its owner must have ended, and the link must lie in our own folder and hold that program.
//! Where there is no BPF file system, or no place for a journal, a port works all the same, and says what is missing.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::maps::{Array, IterableMap, MapData};
use aya::programs::xdp::XdpLink;

use super::claim::{Claim, Unclaimed};
use super::journal::{self, Carried, Journal, Keeper, ProgramName};
use super::locked;
use super::occupied::{holder, occupied, program_of};
use super::pins::{Line, Pins};
use super::ring::{Tally, Told};
use crate::PortError;
use crate::interface::{Interface, Links, XdpPlace};

/// How long the kernel may take to take the program of a killed process off.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a program that nobody seems to hold may stay: its process may be ending.
const BRIEF_PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);
/// When what was left in another network namespace is given up.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);
/// What to do where a journal has no place.
const JOURNAL_REMEDY: &str = "have its folder be there and yours alone (mode 0700), or choose another by ?journal=DIR";
/// How long an owner takes at most from making its folder to putting something into it.
const A_WHILE: Duration = Duration::from_secs(60);
/// Array that processes map (linux/bpf.h).
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// What this owner found, and what it leaves.
pub(super) struct Estate {
    /// With its claim, which makes it ours.
    keeper: Option<Keeper>,
    claim: Option<Claim>,
    pins: Pins,
    /// The link under our name in the BPF file system is of our making.
    link_is_ours: bool,
    /// The program is in the link that the owner before left.
    took_over: bool,
    keep: bool,
    /// What the owner before wrote down.
    before: Option<Journal>,
    /// What is written down now.
    now: Mutex<Option<Journal>>,
    tally: Option<Arc<Tally>>,
    queues: u32,
    /// What owners before left, in packets.
    pub carried: Carried,
    /// For people, what was found and what is missing.
    pub words: Vec<String>,
}

/// A link that an owner left: its program is on the interface, and can be replaced without a gap.
pub(super) struct Heirloom {
    /// Where its program sits.
    pub place: XdpPlace,
    /// The link.
    pub link: XdpLink,
}

/// The counters of a program, as the next owner finds them.
pub(super) enum CountersMap {
    /// Of the program for one socket a queue.
    Redirect(MapData),
    /// Of the steering program.
    Steer(MapData),
}

impl CountersMap {
    fn data(&self) -> &MapData {
        match self {
            CountersMap::Redirect(data) | CountersMap::Steer(data) => data,
        }
    }
}

impl Estate {
    /// Claims `interface`, and looks for what an owner before left for it.
    ///
    /// # Errors
    /// Another owner has it: who. With `?keep`: there is no place for a journal.
    pub(super) fn find(
        port: &str,
        links: &Links,
        interface: &Interface,
        folder: Option<&str>,
        keep: bool,
    ) -> Result<Estate, PortError> {
        let namespace = crate::interface::namespace();
        let mut keeper = Keeper::new(folder, namespace, interface.index);
        let mut words = Vec::new();
        let (mut claim, mut before) = (None, None);
        match &keeper {
            None => words.push("no journal: XDG_RUNTIME_DIR is not set, and ?journal=DIR is not given".into()),
            Some(place) => match claimed(port, links, interface, place)? {
                Ok(ours) => {
                    claim = Some(ours);
                    match place.read() {
                        Ok(found) => before = found,
                        Err(error) => {
                            words.push(format!("the journal {} is not used: {error}", place.file().display()))
                        }
                    }
                }
                Err(error) if keep => {
                    let action = format!("keep its journal in {} for the next owner (?keep)", place.folder().display());
                    return Err(PortError::action(port, action, error, JOURNAL_REMEDY));
                }
                Err(error) => {
                    words
                        .push(format!("the journal {} is not used: {error}; {JOURNAL_REMEDY}", place.file().display()));
                    keeper = None; // without a claim it might be another's
                }
            },
        }
        let (boot, name) = (journal::boot(), &interface.name);
        before = before.filter(|j| {
            j.boot == boot && j.namespace == namespace && j.index == interface.index && j.interface == *name
        });
        Ok(Estate {
            pins: Pins::new(namespace, interface.index),
            keeper,
            claim,
            link_is_ours: false,
            took_over: false,
            keep,
            before,
            now: Mutex::new(None),
            tally: None,
            queues: interface.most_queues,
            carried: Carried::default(),
            words,
        })
    }

    /// Waits until the interface has no program, or the one that an owner before left, which is answered.
    ///
    /// # Errors
    /// Another's program is there: whose.
    pub(super) fn enter(
        &self,
        port: &str,
        links: &Links,
        interface: &Interface,
    ) -> Result<Option<Heirloom>, PortError> {
        let since = Instant::now();
        // As it is now: the owner before may have ended since.
        let mut interface = links.by_index(interface.index).unwrap_or_else(|_| interface.clone());
        loop {
            let Some((place, id)) = interface.xdp.first().copied() else { return Ok(None) };
            // Its owner has ended: the claim is ours.
            let left = self.before.as_ref().filter(|journal| vouched_for(journal, id));
            let patience = match left {
                Some(_) => match self.pins.link_of(id) {
                    Some(link) => return Ok(Some(Heirloom { place, link })),
                    None => PATIENCE,
                },
                None if holder(id).is_none() => BRIEF_PATIENCE,
                None => Duration::ZERO,
            };
            if since.elapsed() >= patience {
                return Err(occupied(port, &interface, place, id, &self.why_not_ours(id)));
            }
            std::thread::sleep(PAUSE);
            let look = links.by_index(interface.index);
            interface = look.map_err(|e| PortError::action(port, "look whether its interface is free", e, ""))?;
        }
    }

    /// Takes the program off that an owner before left, when [`enter`](Estate::enter) has found it.
    ///
    /// # Errors
    /// It stays.
    pub(super) fn take_away(&self, port: &str, links: &Links, interface: &Interface) -> Result<(), PortError> {
        let file = self.pins.link();
        let fail = |why: String| {
            let action = format!("take away the XDP program that was left on {}", interface.name);
            PortError::action(port, action, why, format!("remove {} by hand", file.display()))
        };
        std::fs::remove_file(&file).map_err(|e| fail(e.to_string()))?;
        let since = Instant::now();
        while links.by_index(interface.index).is_ok_and(|now| !now.xdp.is_empty()) {
            if since.elapsed() >= PATIENCE {
                return Err(fail("it is still there".into()));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// For the error about another's program: what the journal has to do with it.
    fn why_not_ours(&self, id: u32) -> String {
        match &self.before {
            Some(journal) if journal.owner_lives() && journal.programs.iter().any(|p| p.id == id) => {
                format!("; by the journal that is the yard of process {}", journal.process)
            }
            Some(journal) if vouched_for(journal, id) => format!(
                "; by the journal process {} left it, but its link is not {}",
                journal.process,
                self.pins.link().display()
            ),
            Some(journal) if journal.programs.iter().any(|p| p.id == id) => {
                "; the journal names that number, but the kernel knows another program by it".into()
            }
            _ => match self.words.first() {
                Some(word) => format!("; {word}"),
                None => String::new(),
            },
        }
    }

    /// Before the program goes on the interface: writes down what is about to be there, beside what is.
    ///
    /// # Errors
    /// With `?keep`: there is no place for what the next owner needs.
    pub(super) fn announce(
        &mut self,
        port: &str,
        interface: &Interface,
        place: XdpPlace,
        program: &ProgramName,
        counters: &CountersMap,
    ) -> Result<(), PortError> {
        let process = std::process::id();
        // Those of owners that never came to settle in are among them: their counts are still to be read.
        let mut programs: Vec<ProgramName> =
            self.before.iter().flat_map(|before| before.programs.iter().cloned()).collect();
        programs.push(program.clone());
        programs.drain(..programs.len().saturating_sub(journal::MOST_PROGRAMS));
        let journal = Journal {
            boot: journal::boot(),
            namespace: crate::interface::namespace(),
            index: interface.index,
            interface: interface.name.clone(),
            process,
            started: journal::process_started(process).unwrap_or(0),
            native: place == XdpPlace::Native,
            keep: self.keep,
            packets: self.before.as_ref().map_or(interface.packets, |before| before.packets),
            programs,
            carried: self.before.as_ref().map_or_else(Carried::default, |before| before.carried),
        };
        let written = self.keeper.as_ref().map(|keeper| keeper.write(&journal).map_err(|e| e.to_string()));
        // One that did not come on the interface, in the driver, is not ours any more.
        let announced = self.now.get_mut().unwrap_or_else(PoisonError::into_inner).replace(journal);
        self.clear_own(announced.as_ref());
        let pinned = self.pin(program.id, counters);
        for (what, done, way_out) in [
            (
                "its journal",
                written.unwrap_or(Err("there is no place for one".into())),
                "choose a folder by ?journal=DIR",
            ),
            ("its counters under /sys/fs/bpf", pinned, "mount the BPF file system: mount -t bpf bpf /sys/fs/bpf"),
        ] {
            let Err(why) = done else { continue };
            if self.keep {
                let action = format!("keep {what} for the next owner (?keep)");
                return Err(PortError::action(port, action, why, way_out));
            }
            let word = format!("what a killed owner lost cannot be told, without {what}: {why}; {way_out}");
            if !self.words.contains(&word) {
                self.words.push(word);
            }
        }
        Ok(())
    }

    /// Removes the counters of the program that `journal` names last: ours.
    fn clear_own(&self, journal: Option<&Journal>) {
        if let Some(program) = journal.and_then(|journal| journal.programs.last()) {
            self.pins.remove(program.id);
        }
    }

    /// Pins the program's counters, and makes and pins the tally beside them.
    fn pin(&mut self, id: u32, counters: &CountersMap) -> Result<(), String> {
        self.pins.make()?;
        let said = |error: &(dyn std::error::Error + 'static)| super::program::words_of(error);
        let tally = Array::<MapData, Line>::create(self.queues, BPF_F_MMAPABLE).map_err(|e| said(&e))?;
        let mapped = Tally::map(IterableMap::map(&tally).fd(), self.queues).map_err(|e| e.to_string())?;
        self.pins.remove(id); // nobody's: the number is ours
        if counters.data().pin(self.pins.counts(id)).is_err() {
            self.pins.make()?; // it was old and empty, and somebody has just cleared it away
            counters.data().pin(self.pins.counts(id)).map_err(|e| said(&e))?;
        }
        tally.pin(self.pins.tally(id)).map_err(|e| said(&e))?;
        self.tally = Some(Arc::new(mapped));
        Ok(())
    }

    /// The program is on the interface: settles what owners before left, and writes down what is there now.
    ///
    /// `seen` is what the program has seen so far; `after` the interface, looked at since.
    pub(super) fn settle_in(&mut self, inherited: bool, after: &Interface, seen: u64) {
        let packets = after.packets.saturating_sub(seen);
        let mut now = locked(&self.now);
        let Some(journal) = now.as_mut() else { return };
        if let Some(before) = &self.before {
            crate::sys::wait_for_processors(); // the program before has run for the last time
            let mut found = before.carried;
            let (mut seen_before, mut known) = (0u64, true);
            for program in &before.programs {
                match self.pins.figures(program.id) {
                    Some((figures, seen)) => {
                        found = found.and(figures);
                        seen_before = seen.saturating_add(seen_before);
                    }
                    None => known = false,
                }
            }
            if inherited {
                // No packet has come in between.
            } else if known && !before.programs.is_empty() {
                let known = before.packets.saturating_add(seen_before);
                found.unseen = found.unseen.saturating_add(packets.saturating_sub(known));
            } else {
                self.words.push(format!(
                    "what process {} lost cannot be told: its counters are not under {}",
                    before.process,
                    self.pins.folder.display()
                ));
            }
            let Carried { received, lost, unread, passed, unseen, .. } = found;
            let what = if inherited { "took over the program of" } else { "followed on" };
            let how = if found.owners > before.carried.owners { "did not end in order" } else { "has ended" };
            self.words.push(format!(
                "{what} process {}, which {how}; it and those before left: received {received}, lost {lost}, unread \
                 {unread}, passed to the host {passed}, unseen {unseen}",
                before.process
            ));
            self.carried = found;
        }
        journal.packets = packets;
        journal.carried = self.carried;
        journal.programs.drain(..journal.programs.len().saturating_sub(1));
        if let Some(keeper) = &self.keeper
            && let Err(error) = keeper.write(journal)
        {
            self.words.push(format!("the journal cannot be written: {error}"));
        }
        if let Some(keeper) = &self.keeper {
            self.pins.clear_but(&journal.programs, self.keep); // the claim is ours, so nobody else wants them
            keeper.clear_beside();
            clear_gone(keeper, journal.namespace);
        }
    }

    /// The program was loaded anew, and is about to take the place of the one that is there. It is named before it does:
    /// with `?keep` it stays from that moment on, whatever becomes of its owner.
    ///
    /// # Errors
    /// With `?keep` the journal could not be written: whoever comes next would not know the program.
    pub(super) fn rename(&self, program: ProgramName) -> io::Result<()> {
        let mut now = locked(&self.now);
        let Some(journal) = now.as_mut() else { return Ok(()) };
        let old = journal.programs.last().map(|old| old.id);
        let number = program.id;
        journal.programs.push(program);
        let written = self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.write(journal));
        if self.keep
            && let Err(e) = written
        {
            journal.programs.pop();
            return Err(io::Error::other(format!("cannot write its journal: {e}")));
        }
        if let Some(old) = old {
            self.pins.rename(old, number);
        }
        Ok(())
    }

    /// It is there.
    pub(super) fn renamed(&self) {
        let mut now = locked(&self.now);
        let Some(journal) = now.as_mut() else { return };
        journal.programs.drain(..journal.programs.len().saturating_sub(1));
        self.write(journal);
    }

    /// Writes it down, as good as the next owner will find it.
    fn write(&self, journal: &Journal) {
        if let Some(keeper) = &self.keeper {
            let _ = keeper.write(journal);
        }
    }

    /// Has `pin` put the link where it outlives the process. Another link that lies there holds no program on the
    /// interface any more, for ours is there.
    pub(super) fn leave_link<E>(&mut self, pin: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
        let file = self.pins.link();
        if self.claim.is_some() && self.pins.is_ours() {
            let _ = std::fs::remove_file(&file);
        }
        self.link_is_ours = true; // though `pin` may fail behind
        pin(&file)
    }

    /// The program has come into the link that the owner before left.
    pub(super) fn take_over(&mut self) {
        self.took_over = true;
    }

    /// Where ports and readers write down what they received.
    pub(super) fn tally(&self) -> Option<Arc<Tally>> {
        self.tally.clone()
    }

    /// Takes note of what sockets of `queue` and the program have counted.
    pub(super) fn looked(&self, queue: u32, lost: u64, passed: u64) {
        if let Some(tally) = &self.tally {
            tally.set(queue, Told::Lost, lost);
            tally.set(queue, Told::Passed, passed);
        }
    }

    /// The port did not open: what owners before left stays for the next one, as it was found. Where our program is in
    /// their link already, it stays there, and the journal says so.
    pub(super) fn abandon(&self) {
        let mut now = locked(&self.now);
        let Some(mut journal) = now.take() else { return };
        if self.took_over {
            if let Some(tally) = &self.tally {
                (0..self.queues).for_each(|queue| tally.set(queue, Told::Settled, 1));
            }
            journal.started = 0;
            self.write(&journal); // its programs are those that were announced
            return;
        }
        self.clear_own(Some(&journal));
        if self.link_is_ours && self.pins.is_ours() {
            let _ = std::fs::remove_file(self.pins.link());
        }
        if let Some(keeper) = &self.keeper {
            match &self.before {
                Some(before) => _ = keeper.write(before),
                None => keeper.remove(),
            }
        }
        self.pins.remove_folder();
    }

    /// The end, in order: nothing stays, or all is settled. `passed` is what the program has passed on so far.
    pub(super) fn end(&self, passed: impl Fn(u32) -> u64) {
        let mut now = locked(&self.now);
        let Some(journal) = now.as_mut() else { return };
        if self.keep {
            for queue in 0..self.queues {
                if let Some(tally) = &self.tally {
                    tally.set(queue, Told::Passed, passed(queue));
                    tally.set(queue, Told::Settled, 1);
                }
            }
            journal.carried = Carried::default();
            journal.started = 0; // whatever becomes of the process, it owns this no more
            self.write(journal); // the tally says the same
            return;
        }
        self.clear_own(Some(journal));
        self.pins.remove_folder();
        // Somebody may have removed the file, and with it the claim.
        let ours = |keeper: &&Keeper| keeper.read().is_ok_and(|found| found.as_ref() == Some(&*journal));
        self.keeper.iter().filter(ours).for_each(Keeper::remove);
    }
}

/// Whether the kernel says of the program on the interface what the journal says of it.
fn vouched_for(journal: &Journal, id: u32) -> bool {
    let Some(wanted) = journal.programs.iter().find(|program| program.id == id) else { return false };
    program_of(id).is_some_and(|info| info.tag() == wanted.tag && info.name() == wanted.name.as_bytes())
}

/// Claims `interface`. An owner that is ending has a moment for that.
///
/// # Errors
/// Another owner has it: who. Within: there is no place for a claim.
fn claimed(
    port: &str,
    links: &Links,
    interface: &Interface,
    keeper: &Keeper,
) -> Result<Result<Claim, Unclaimed>, PortError> {
    let since = Instant::now();
    loop {
        let holder = match keeper.claim() {
            Err(Unclaimed::Held(holder)) => holder,
            other => return Ok(other),
        };
        let alive = holder.is_none_or(|process| journal::process_started(process).is_some());
        if since.elapsed() < if alive { BRIEF_PATIENCE } else { PATIENCE } {
            std::thread::sleep(PAUSE);
            continue;
        }
        let who = match holder {
            Some(process) => format!("the yard of process {process}"),
            None => "another yard".into(),
        };
        let interface = links.by_index(interface.index).unwrap_or_else(|_| interface.clone());
        return Err(match interface.xdp.first() {
            Some((place, id)) => occupied(port, &interface, *place, *id, &format!("; by the journal that is {who}")),
            None => PortError::action(
                port,
                format!("claim {}", interface.name),
                format!("{who} has it"),
                format!("stop that process, or use packet:{}, which needs no program", interface.name),
            ),
        });
    }
}

/// Removes what was left for interfaces that are no more: of this namespace, or so long ago, of a program that is gone,
/// that nobody will come for it.
fn clear_gone(keeper: &Keeper, here: u64) {
    let Ok(links) = Links::open() else { return };
    let no_interface = |index| links.by_index(index).is_err_and(|e| e.raw_os_error() == Some(libc::ENODEV));
    for (namespace, index, other) in keeper.others() {
        // Without a journal there may still be the lock of one that was killed before it wrote any.
        let Ok(journal) = other.read() else { continue };
        let none_runs = || journal.iter().flat_map(|j| &j.programs).all(|program| program_of(program.id).is_none());
        let gone = match namespace == here {
            true => no_interface(index),
            false => other.age() > LONG_AGO && none_runs(),
        };
        // Whoever has the claim there has not ended. It takes its lock away with it.
        if gone && let Ok(_claim) = other.claim() {
            if journal.is_some() {
                Pins::new(namespace, index).clear_but(&[], false);
            }
            other.remove();
        }
    }
    for (namespace, index, age) in Pins::all() {
        if age > A_WHILE || (namespace == here && no_interface(index)) {
            Pins::new(namespace, index).remove_folder(); // where nothing is in it
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estate(folder: &Path, programs: Vec<ProgramName>) -> Estate {
        let journal = Journal {
            boot: journal::boot(),
            namespace: 17,
            index: 4,
            interface: "eth0".into(),
            process: 1,
            started: 1,
            native: true,
            keep: true,
            packets: 0,
            programs,
            carried: Carried::default(),
        };
        Estate {
            keeper: Keeper::new(folder.to_str(), 17, 4),
            claim: None,
            pins: Pins { folder: folder.join("pins/17-4") },
            link_is_ours: true,
            took_over: false,
            keep: true,
            before: None,
            now: Mutex::new(Some(journal)),
            tally: None,
            queues: 1,
            carried: Carried::default(),
            words: Vec::new(),
        }
    }

    /// Killed at any time while a program takes the place of another, an owner leaves a journal with the one that is there.
    #[test]
    fn a_program_is_named_before_it_takes_the_place_of_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |id| ProgramName { id, tag: 7, name: "root_one".into() };
        let estate = estate(folder.path(), vec![name(33)]);
        estate.pins.make().expect("made");
        std::fs::write(estate.pins.counts(33), "").expect("written");
        let written = || {
            let journal = estate.keeper.as_ref().expect("a place").read().expect("read").expect("there");
            journal.programs.iter().map(|program| program.id).collect::<Vec<_>>()
        };
        estate.rename(name(34)).expect("written");
        assert_eq!(written(), [33, 34], "either may be there");
        assert!(estate.pins.counts(34).exists() && !estate.pins.counts(33).exists(), "the counters are the same");
        estate.renamed();
        assert_eq!(written(), [34]);
    }
}
