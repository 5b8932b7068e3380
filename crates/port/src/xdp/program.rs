//! The XDP program on the interface: loaded, attached, and taken off again.
//!
//! One [`Attachment`] serves all ports of an interface; the last one to let go of it detaches. It is
//! a `bpf_link`, so the kernel detaches as well when the process is killed; with `?keep` the link is pinned,
//! and stays until the next owner puts its own program into it ([`Estate`]). Promiscuous mode is a
//! packet socket's membership, which ends with the process.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aya::maps::{Map, MapData, ProgramArray, XskMap};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use flowyard_kernel::{
    AskCard, BoundProgram, Counts, CountsMap, Fallback, HostFilter, HostPlace, KernelSteer, Place, Setup, ToHost,
};

use super::card::{Asking, CardPlace};
use super::estate::{CountersMap, Estate};
use super::journal::{Carried, ProgramName};
use super::ring::{Counters, ProgramCounts, Tally};
use super::{InKernel, Options, locked, release, remedy};
use crate::PortError;
use crate::interface::{Interface, Links, XdpPlace};

/// bpf/redirect.bpf.c, as bpf/build.sh built it.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/redirect.bpf.o");

/// The program for frames that fit in one buffer, and the one for frames that may span several.
const ONE_BUFFER: &str = "flowyard_xdp";
const SEVERAL_BUFFERS: &str = "flowyard_frags";
/// The same that ask the card: without a filter for the host's stack, and with one.
const CARD_ONE_BUFFER: [&str; 2] = ["card_xdp", "card_pick_xdp"];
const CARD_SEVERAL_BUFFERS: [&str; 2] = ["card_frags", "card_pick_frags"];

/// Slots of the program for one socket a queue (bpf/redirect.bpf.c).
const SLOT_PICK: u32 = 0;
const SLOT_REDIRECT: u32 = 1;
/// Where `to_host` is in its counters.
const TO_HOST_AT: u16 = 24;
/// Actions of XDP (linux/bpf.h).
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// How long an interface that somebody's program has just left may answer EBUSY.
const BUSY_PATIENCE: Duration = Duration::from_millis(500);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// The program on one interface, its map of sockets and its counters.
pub(super) struct Attachment {
    /// In the driver, or in the stack.
    pub place: XdpPlace,
    /// Why not in the driver, where that was tried.
    pub why: Option<String>,
    /// Whether frames may span several buffers.
    pub several_buffers: bool,
    /// Where what the card knows of a packet lies.
    pub card: CardPlace,
    /// What there is to say of that, where it was asked for.
    pub card_words: Option<String>,
    program: Mutex<Attached>,
    choice: Choice,
    queues: u32,
    estate: Estate,
    _promiscuous: Option<OwnedFd>,
}

/// Who chooses the socket.
enum Choice {
    /// The card, by the queue.
    Queue(Box<Redirect>),
    /// The steering program, by queue and ring; and its counters, which are read while others load programs.
    Ring(Arc<Mutex<KernelSteer>>, CountsMap),
}

impl Choice {
    /// Another descriptor of the program's counters.
    fn counters(&self, port: &str) -> Result<CountersMap, PortError> {
        let fail = |e: &dyn std::fmt::Display| PortError::action(port, "use the counters of its XDP program", e, "");
        match self {
            Choice::Queue(redirect) => {
                let fd = redirect.counters_map.fd().as_fd().try_clone_to_owned().map_err(|e| fail(&e))?;
                MapData::from_fd(fd).map(CountersMap::Redirect).map_err(|e| fail(&words_of(&e)))
            }
            Choice::Ring(kernel, _) => locked(kernel).counts_map().map(CountersMap::Steer).map_err(|e| fail(&e)),
        }
    }

    /// Packets of `queue` that the program has seen.
    fn seen(&self, queue: u32) -> u64 {
        match self {
            Choice::Queue(redirect) => {
                let ProgramCounts { redirected, passed, too_long, to_host, .. } = redirect.counters.of(queue);
                redirected + passed + too_long + to_host
            }
            Choice::Ring(_, counts) => counts.of(queue).map_or(0, |counts| counts.seen),
        }
    }
}

/// What the program for one socket a queue shares with us.
struct Redirect {
    counters: Counters,
    sockets: Mutex<XskMap<MapData>>,
    // The program's instructions name it by descriptor, whenever it is loaded.
    counters_map: MapData,
    // The kernel empties the slots when nobody has them any more.
    _slots: Option<MapData>,
}

/// The program, loaded.
enum Program {
    Redirect(Ebpf, &'static str),
    Bound(Box<BoundRedirect>),
    Steer(Arc<Mutex<KernelSteer>>),
}

/// The program for one socket a queue that asks the card.
struct BoundRedirect {
    program: BoundProgram,
    loaded: Xdp,
    // The program's instructions name its maps by descriptor, whenever it is loaded.
    _maps: Ebpf,
}

impl Program {
    fn with<T>(&mut self, work: impl FnOnce(&mut Xdp) -> Result<T, ProgramError>) -> Result<T, ProgramError> {
        match self {
            Program::Redirect(ebpf, name) => work(ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?),
            Program::Bound(bound) => work(&mut bound.loaded),
            Program::Steer(kernel) => work(locked(kernel).root().map_err(|_| ProgramError::NotLoaded)?),
        }
    }

    /// Loads it a second time, another one to the kernel. Only our descriptor goes: a link keeps what is attached.
    fn renew(&mut self) -> io::Result<()> {
        let renewed = match self {
            Program::Redirect(..) => {
                let again = |program: &mut Xdp| {
                    match program.unload() {
                        Ok(()) | Err(ProgramError::NotLoaded) => program.load(), // or it failed the last time
                        Err(e) => Err(e),
                    }
                };
                return self.with(again).map_err(|e| io::Error::other(words_of(&e)));
            }
            Program::Bound(bound) => bound.program.load().map(|program| bound.loaded = program),
            Program::Steer(kernel) => locked(kernel).renew_root(),
        };
        renewed.map_err(io::Error::other)
    }
}

/// The program, attached.
struct Attached {
    program: Program,
    /// The kernel's number of the program.
    id: u32,
    link: Option<XdpLinkId>,
    /// The link, where the program could not be loaded anew: what is in it stays on the interface.
    kept: Option<XdpLink>,
}

/// The program as the kernel names it.
fn name_of(program: &Xdp) -> Result<ProgramName, ProgramError> {
    let info = program.info()?;
    let name = info.name_as_str().unwrap_or_default().to_owned();
    Ok(ProgramName { id: info.id(), tag: info.tag(), name })
}

impl Attached {
    fn name(&mut self) -> Result<ProgramName, ProgramError> {
        self.program.with(|program| name_of(program))
    }

    fn attach(&mut self, index: u32, mode: XdpMode) -> Result<(), ProgramError> {
        let since = Instant::now();
        self.link = loop {
            match self.program.with(|program| program.attach_to_if_index(index, mode)) {
                // Somebody's program has gone this very moment, and the kernel is not yet done with it.
                Err(e) if errno(&e) == Some(libc::EBUSY) && since.elapsed() < BUSY_PATIENCE => {
                    std::thread::sleep(BUSY_PAUSE);
                }
                attached => break Some(attached?),
            }
        };
        Ok(())
    }

    /// Puts the program into a link, in the place of the one there: no packet misses both.
    fn replace(&mut self, link: XdpLink) -> Result<(), ProgramError> {
        self.link = Some(self.program.with(|program| program.attach_to_link(link))?);
        Ok(())
    }

    /// Has the link outlive the process, under a name in the BPF file system.
    fn pin(&mut self, file: &Path) -> Result<(), Box<dyn Error>> {
        let Some(link) = self.link.take() else { return Ok(()) };
        let link = self.program.with(|program| program.take_link(link))?;
        let pinned: PinnedLink = FdLink::try_from(link)?.pin(file)?;
        self.replace(XdpLink::try_from(FdLink::from(pinned))?)?;
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Others may hold the steering program longer than it may stay on the interface.
        if let Some(link) = self.link.take() {
            let _ = self.program.with(|program| program.detach(link));
        }
    }
}

/// What [`Attachment::new`] needs to know of its port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand<'a> {
    /// The port's name, for errors.
    pub port: &'a str,
    /// The interface, as it is now.
    pub interface: &'a Interface,
    /// What the user asked for.
    pub options: &'a Options,
    /// How to steer in the kernel, if that is to be.
    pub steering: Option<&'a InKernel>,
    /// What goes on to the host's stack.
    pub host: &'a ToHost,
    /// Most bytes of a frame that fits in one buffer.
    pub longest_bytes: u32,
    /// Whether the MTU allows longer frames.
    pub several_buffers: bool,
}

impl Demand<'_> {
    fn fail(&self, action: &str, error: &(dyn Error + 'static)) -> PortError {
        PortError::action(self.port, action, words_of(error), remedy(errno(error)))
    }

    /// Loads the program, one that asks the card if that is wanted.
    fn load(&self, several: bool, ask: Option<&Asking>) -> Result<(Program, Choice), PortError> {
        match self.steering {
            None => self.redirect(several, ask),
            Some(steering) => self.steering(steering, several, ask),
        }
    }

    /// Loads the program that asks the card, or says why there is none.
    fn load_asking(&self, links: &Links, place: XdpPlace, several: bool) -> Result<(Program, Choice, Asking), String> {
        if place != XdpPlace::Native {
            return Err("in the stack (generic) no driver is asked".into());
        }
        let asking = Asking::find(links, self.interface.index)?;
        let (program, choice) = self.load(several, Some(&asking)).map_err(|e| {
            // The verifier's log goes on for lines, of which the last but one says what is wrong.
            let said = e.to_string();
            let mut lines = said.lines().map(str::trim).filter(|line| !line.starts_with("processed "));
            let line = match (lines.next().unwrap_or_default(), lines.next_back()) {
                (first, Some(last)) => format!("{first} {last}"),
                (first, None) => first.to_owned(),
            };
            match release::no_bound_tail_calls(&release::running()) {
                Some(word) if self.steering.is_some() || matches!(self.host, ToHost::Filter(_)) => {
                    format!("{line} ({word})")
                }
                _ => line,
            }
        })?;
        Ok((program, choice, asking))
    }

    /// Loads the program for one socket a queue.
    fn redirect(&self, several: bool, ask: Option<&Asking>) -> Result<(Program, Choice), PortError> {
        let port = self.port;
        let queues = self.interface.most_queues;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("sockets", queues)
            .map_max_entries("counters", queues)
            .override_global("longest_bytes", &self.longest_bytes, true)
            .override_global("fallback", &if *self.host == ToHost::Nothing { XDP_DROP } else { XDP_PASS }, true)
            .override_global("picks", &u32::from(matches!(self.host, ToHost::Filter(_))), true)
            .override_global("card", &u32::from(ask.is_some()), true)
            .override_global("card_tells", &ask.map_or(0, |ask| ask.facts.flags()), true)
            .load(OBJECT)
            .map_err(|e| self.fail("load its XDP program", &e))?;
        let bound = ask.map(|ask| {
            let names = if several { CARD_SEVERAL_BUFFERS } else { CARD_ONE_BUFFER };
            let name = names[usize::from(matches!(self.host, ToHost::Filter(_)))];
            BoundProgram::new(OBJECT, &ebpf, name, &ask.calls, self.interface.index, several)
        });
        let bound = bound.transpose().map_err(|e| PortError::action(port, "load its XDP program", e, ""))?;
        let odd = |what: &str| {
            PortError::action(port, "load its XDP program", format!("the object has no {what}"), "run bpf/build.sh")
        };
        let sockets = ebpf.take_map("sockets").ok_or_else(|| odd("map `sockets`"))?;
        let sockets = XskMap::try_from(sockets).map_err(|e| self.fail("use its map of sockets", &e))?;
        let Some(Map::Array(counters_map)) = ebpf.take_map("counters") else { return Err(odd("map `counters`")) };
        let counters = Counters::map(counters_map.fd().as_fd(), queues)
            .map_err(|e| PortError::action(port, "map the counters of its XDP program", e, ""))?;
        let slots = match self.host {
            ToHost::Filter(filter) => Some(self.pick(&mut ebpf, filter, &counters_map, several, ask.is_some())?),
            _ => None,
        };
        let program = match bound {
            Some(program) => {
                let loaded = program.load().map_err(|e| PortError::action(port, "load its XDP program", e, ""))?;
                Program::Bound(Box::new(BoundRedirect { program, loaded, _maps: ebpf }))
            }
            None => {
                let mut program = Program::Redirect(ebpf, if several { SEVERAL_BUFFERS } else { ONE_BUFFER });
                program.with(Xdp::load).map_err(|e| self.fail("load its XDP program", &e))?;
                program
            }
        };
        let sockets = Mutex::new(sockets);
        Ok((program, Choice::Queue(Box::new(Redirect { counters, sockets, counters_map, _slots: slots }))))
    }

    /// Loads the filter for the host's stack, and what it goes on to, into the program's slots.
    fn pick(
        &self,
        ebpf: &mut Ebpf,
        filter: &HostFilter,
        counts: &MapData,
        several_buffers: bool,
        metadata: bool,
    ) -> Result<MapData, PortError> {
        let fail = |e: &(dyn Error + 'static)| self.fail("load the filter for the host's stack (--host)", e);
        let name = if several_buffers { "redirect_frags" } else { "redirect_xdp" };
        let Some(Map::ProgramArray(slots)) = ebpf.take_map("slots") else { return Err(fail(&ProgramError::NotLoaded)) };
        let another = slots.fd().as_fd().try_clone_to_owned().map_err(|e| fail(&e))?;
        let another = MapData::from_fd(another).map_err(|e| fail(&e))?;
        let mut array = ProgramArray::try_from(Map::ProgramArray(another)).map_err(|e| fail(&e))?;
        let rest: &mut Xdp =
            ebpf.program_mut(name).ok_or(ProgramError::NotLoaded).and_then(|p| p.try_into()).map_err(|e| fail(&e))?;
        rest.load().map_err(|e| fail(&e))?;
        array.set(SLOT_REDIRECT, rest.fd().map_err(|e| fail(&e))?, 0).map_err(|e| fail(&e))?;
        let place = HostPlace {
            slots: &slots,
            own: SLOT_PICK,
            next: &[SLOT_REDIRECT],
            counts,
            count_offset: TO_HOST_AT,
            several_buffers,
            metadata,
        };
        filter.install(&place).map_err(|e| fail(&e))?;
        Ok(slots)
    }

    /// Loads the steering program.
    fn steering(
        &self,
        steering: &InKernel,
        several_buffers: bool,
        ask: Option<&Asking>,
    ) -> Result<(Program, Choice), PortError> {
        let (queues, longest_bytes) = (self.interface.most_queues, self.longest_bytes);
        let fallback = if *self.host == ToHost::Nothing { Fallback::Drop } else { Fallback::Pass };
        let host = match self.host {
            ToHost::Filter(filter) => Some(filter),
            _ => None,
        };
        let card = ask.map(|ask| AskCard { interface: self.interface.index, facts: ask.facts, calls: &ask.calls });
        let company = Some(&steering.company);
        let plain = Setup::new(&steering.classifier);
        let setup = Setup { queues, several_buffers, longest_bytes, fallback, host, company, card, ..plain };
        let kernel = KernelSteer::load(&setup).map_err(|e| {
            let release = release::running();
            let old = release::numbers(&release).is_some_and(|version| version < release::STEERS);
            let way_out = match old {
                true => format!("it was tried on Linux 6.1 and later, and this is {release}: leave --steer kernel out"),
                false => String::new(),
            };
            PortError::action(self.port, "load the steering program", e, way_out)
        })?;
        let counts = kernel.counts_map().and_then(CountsMap::new);
        let counts = counts.map_err(|e| PortError::action(self.port, "use the counters of its XDP program", e, ""))?;
        let kernel = Arc::new(Mutex::new(kernel));
        Ok((Program::Steer(kernel.clone()), Choice::Ring(kernel, counts)))
    }

    /// Loads the program and puts it on the interface, as [`Attachment::new`] says.
    fn install(&self, links: &Links, estate: &mut Estate) -> Result<Installed, PortError> {
        let Demand { port, interface, options, .. } = *self;
        let mut heirloom = estate.enter(port, links, interface)?;
        estate.words.extend(release::missing(&release::running(), self.steering.is_some()));
        let mut places = vec![XdpPlace::Native, XdpPlace::Generic];
        places.retain(|place| options.place.is_none_or(|only| only == *place));
        match &heirloom {
            // Where it is already, the card is not set up anew.
            Some(left) if places.contains(&left.place) => places.retain(|place| *place == left.place),
            Some(_) => {
                heirloom = None;
                estate.take_away(port, links, interface)?;
                estate.words.push("took the program away that was left elsewhere than it is wanted now".into());
            }
            None => {}
        }
        let mut why = None;
        let mut found = None;
        for candidate in places {
            let mode = if candidate == XdpPlace::Native { XdpMode::Driver } else { XdpMode::Skb };
            // The stack merges frames (GRO, GSO), whatever the MTU.
            let several = self.several_buffers || candidate == XdpPlace::Generic;
            let asked = options.metadata.then(|| self.load_asking(links, candidate, several));
            let (program, choice, card, card_words) = match asked {
                Some(Ok((program, choice, asking))) => {
                    let steers = self.steering.is_some();
                    let card = if steers { CardPlace::BeforeHead } else { CardPlace::BeforePacket };
                    (program, choice, card, Some(asking.words()))
                }
                asked => {
                    let why = asked.and_then(Result::err).map(|why| format!("no metadata from the card: {why}"));
                    let (program, choice) = self.load(several, None)?;
                    (program, choice, CardPlace::Nowhere, why)
                }
            };
            let mut attached = Attached { program, id: 0, link: None, kept: None };
            let name = attached.name().map_err(|e| self.fail("ask for the number of its XDP program", &e))?;
            attached.id = name.id;
            estate.announce(port, interface, candidate, &name, &choice.counters(port)?)?;
            let inherited = match heirloom.take() {
                Some(left) => match attached.replace(left.link) {
                    Ok(()) => {
                        estate.take_over();
                        true
                    }
                    Err(e) => {
                        estate.words.push(format!(
                            "took the program away that was left, for it could not be replaced: {}",
                            words_of(&e)
                        ));
                        estate.take_away(port, links, interface)?;
                        false
                    }
                },
                None => false,
            };
            let done = if inherited { Ok(()) } else { attached.attach(interface.index, mode) };
            match done {
                Ok(()) => {
                    found = Some((candidate, several, attached, choice, inherited, card, card_words));
                    break;
                }
                // Only a driver that cannot is a reason to go on to the stack.
                Err(e) if options.place.is_none() && candidate == XdpPlace::Native && driver_cannot(errno(&e)) => {
                    why = Some(words_of(&e));
                }
                Err(e) => return Err(self.fail(&format!("attach its XDP program ({})", candidate.word()), &e)),
            }
        }
        let Some((place, several_buffers, mut attached, choice, inherited, card, card_words)) = found else {
            return Err(PortError::action(port, "attach its XDP program", "there is no place to go", ""));
        };
        if options.keep && !inherited {
            let pinned = estate.leave_link(|file| attached.pin(file));
            pinned.map_err(|e| self.fail("pin the link of its XDP program (?keep)", &*e))?;
        }
        let promiscuous = match options.promiscuous {
            true => Some(crate::sys::hold_promiscuous(interface.index).map_err(|e| {
                let advice = remedy(e.raw_os_error());
                PortError::action(port, "make the interface promiscuous", e, advice)
            })?),
            false => None,
        };
        let queues = interface.most_queues;
        let seen = || (0..queues).map(|queue| choice.seen(queue)).sum::<u64>();
        let (after, seen) = at_rest(seen, || links.by_index(interface.index).unwrap_or_else(|_| interface.clone()));
        estate.settle_in(inherited, &after, seen);
        Ok(Installed { place, why, several_buffers, card, card_words, attached, choice, promiscuous })
    }
}

/// The program, on the interface.
struct Installed {
    place: XdpPlace,
    why: Option<String>,
    several_buffers: bool,
    card: CardPlace,
    card_words: Option<String>,
    attached: Attached,
    choice: Choice,
    promiscuous: Option<OwnedFd>,
}

impl Attachment {
    /// Loads the program and attaches it: in the driver if that can, else in the stack, unless
    /// the user said which. What an owner before left is taken over, or away.
    pub(super) fn new(demand: Demand<'_>) -> Result<Attachment, PortError> {
        let Demand { port, interface, options, .. } = demand;
        let links = Links::open().map_err(|e| PortError::action(port, "open a netlink socket", e, ""))?;
        let mut estate = Estate::find(port, &links, interface, options.journal.as_deref(), options.keep)?;
        let installed = demand.install(&links, &mut estate).inspect_err(|_| estate.abandon())?;
        let Installed { place, why, several_buffers, card, card_words, attached, choice, promiscuous } = installed;
        Ok(Attachment {
            place,
            why,
            several_buffers,
            card,
            card_words,
            program: Mutex::new(attached),
            choice,
            queues: interface.most_queues,
            estate,
            _promiscuous: promiscuous,
        })
    }

    /// What owners before left, in packets.
    pub(super) fn carried(&self) -> Carried {
        self.estate.carried
    }

    /// What there is to say about owners before, and about what the next one will find.
    pub(super) fn words(&self) -> &[String] {
        &self.estate.words
    }

    /// Where ports and readers write down what they received: a store to memory, no call.
    pub(super) fn tally(&self) -> Option<Arc<Tally>> {
        self.estate.tally()
    }

    /// Takes note of what the sockets of `queue` have lost so far.
    pub(super) fn looked(&self, queue: u32, lost: u64) {
        self.estate.looked(queue, lost, self.counts(queue).passed);
    }

    /// Sends packets of `queue` that are for its socket number `lane` to `socket` from now on: the only one, or
    /// where the kernel steers those of the rings, and then that of marked packets.
    pub(super) fn enter(&self, queue: u32, lane: usize, socket: impl AsFd) -> io::Result<()> {
        match &self.choice {
            Choice::Queue(redirect) => {
                let set = locked(&redirect.sockets).set(queue, socket.as_fd().as_raw_fd(), 0);
                set.map_err(|e| io::Error::other(words_of(&e)))
            }
            Choice::Ring(kernel, _) => {
                let kernel = locked(kernel);
                kernel.enter(queue, place_of(&kernel, lane), socket).map_err(io::Error::other)
            }
        }
    }

    /// Sends packets of `queue` that are for its socket number `lane` to the host from now on.
    pub(super) fn leave(&self, queue: u32, lane: usize) {
        // It fails where the kernel has emptied the slot already, because the socket is gone.
        match &self.choice {
            Choice::Queue(redirect) => {
                let _ = locked(&redirect.sockets).unset(queue);
            }
            Choice::Ring(kernel, _) => {
                let kernel = locked(kernel);
                let _ = kernel.leave(queue, place_of(&kernel, lane));
            }
        }
    }

    /// The kernel's number of the program.
    pub(super) fn id(&self) -> u32 {
        locked(&self.program).id
    }

    /// Asks `look` for the interface, and answers it with whether our program is still on it. No
    /// other part installs the program anew meanwhile.
    pub(super) fn still_on<E>(&self, look: impl FnOnce() -> Result<Interface, E>) -> Result<(Interface, bool), E> {
        let attached = locked(&self.program);
        let interface = look()?;
        let on = interface.xdp.iter().any(|(_, id)| *id == attached.id);
        Ok((interface, on))
    }

    /// Has the driver install the program anew, without a gap, for queues that it has gained: veth
    /// does not run it on those otherwise. The kernel ignores an update to the same program, so it
    /// is loaded a second time.
    ///
    /// # Errors
    /// It could not be loaded, or not be named to the next owner where that must be: then what was on the interface stays.
    pub(super) fn install_again(&self) -> io::Result<()> {
        let mut attached = locked(&self.program);
        let failed = |e: ProgramError| io::Error::other(words_of(&e));
        let link = match (attached.kept.take(), attached.link.take()) {
            (Some(link), _) => link,
            (None, Some(link)) => attached.program.with(|program| program.take_link(link)).map_err(failed)?,
            (None, None) => return Err(io::Error::other("the program's link is gone")),
        };
        let ready = |attached: &mut Attached| {
            attached.program.renew()?;
            let name = attached.name().map_err(failed)?;
            let id = name.id;
            self.estate.rename(name)?;
            Ok::<u32, io::Error>(id)
        };
        let id = match ready(&mut attached) {
            Ok(id) => id,
            Err(e) => {
                attached.kept = Some(link);
                return Err(e);
            }
        };
        attached.replace(link).map_err(failed)?;
        attached.id = id;
        self.estate.renamed();
        Ok(())
    }

    /// What the program has counted on `queue`.
    pub(super) fn counts(&self, queue: u32) -> ProgramCounts {
        match &self.choice {
            Choice::Queue(redirect) => redirect.counters.of(queue),
            Choice::Ring(..) => {
                let counts = self.steering_counts(queue);
                let Counts { redirected, too_long, to_host, .. } = counts;
                ProgramCounts { redirected, passed: counts.fell_back(), too_long, to_host, no_room: counts.no_room }
            }
        }
    }

    /// What the steering program has counted on `queue`: nothing where there is none.
    pub(super) fn steering_counts(&self, queue: u32) -> Counts {
        match &self.choice {
            Choice::Queue(_) => Counts::default(),
            Choice::Ring(_, counts) => counts.of(queue).unwrap_or_default(),
        }
    }

    /// The steering program, if that chooses the socket.
    pub(super) fn kernel(&self) -> Option<&Arc<Mutex<KernelSteer>>> {
        match &self.choice {
            Choice::Queue(_) => None,
            Choice::Ring(kernel, _) => Some(kernel),
        }
    }

    /// Queues that there is room for.
    pub(super) fn queues(&self) -> u32 {
        self.queues
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.estate.end(|queue| self.counts(queue).passed);
    }
}

/// The interface, and what the program had seen of what that had received by then: drivers count packets a batch at a
/// time, so both are read when nothing comes for a moment. On an interface where there is no such moment they differ by
/// what came in between.
fn at_rest(seen: impl Fn() -> u64, look: impl Fn() -> Interface) -> (Interface, u64) {
    const TRIES: u32 = 100;
    const MOMENT: Duration = Duration::from_micros(100);
    let mut before = seen();
    for _ in 1..TRIES {
        std::thread::sleep(MOMENT);
        let interface = look();
        let now = seen();
        if now == before {
            return (interface, now);
        }
        before = now;
    }
    (look(), seen())
}

/// What the sockets of a queue are for, in their order.
fn place_of(kernel: &KernelSteer, lane: usize) -> Place {
    u16::try_from(lane).ok().filter(|ring| *ring < kernel.rings()).map_or(Place::Marked, Place::Ring)
}

/// Answers of drivers that have no XDP, or not for this MTU or these offloads.
fn driver_cannot(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC | libc::ENOMEM | libc::E2BIG))
}

/// The system's error number at the bottom of an error.
pub(super) fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        at = error.source();
    }
    None
}

/// An error with its causes, in one line.
pub(super) fn words_of(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut at = error.source();
    while let Some(cause) = at {
        let more = cause.to_string();
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        at = cause.source();
    }
    line
}
