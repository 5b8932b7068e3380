//! The XDP program on the interface: loaded, attached, and taken off again.
//!
//! One [`Attachment`] serves all ports of an interface; the last one to let go of it detaches. It is
//! a `bpf_link`, so the kernel detaches as well when the process is killed. Promiscuous mode is a
//! packet socket's membership, which ends in the same way.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Map, MapData, XskMap};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use flowyard_kernel::{Counts, KernelSteer, Place, Setup};
use flowyard_steer::Classifier;

use super::ring::{Counters, ProgramCounts};
use super::{Options, remedy};
use crate::PortError;
use crate::interface::{Interface, XdpPlace};

/// bpf/redirect.bpf.c, as bpf/build.sh built it.
static OBJECT: &[u8] = include_bytes_aligned!("../../bpf/redirect.bpf.o");

/// The program for frames that fit in one buffer, and the one for frames that may span several.
const ONE_BUFFER: &str = "flowyard_xdp";
const SEVERAL_BUFFERS: &str = "flowyard_frags";

/// The program on one interface, its map of sockets and its counters.
pub(super) struct Attachment {
    /// In the driver, or in the stack.
    pub place: XdpPlace,
    /// Why not in the driver, where that was tried.
    pub why: Option<String>,
    /// Whether frames may span several buffers.
    pub several_buffers: bool,
    program: Mutex<Attached>,
    choice: Choice,
    queues: u32,
    _promiscuous: Option<OwnedFd>,
}

/// Who chooses the socket.
enum Choice {
    /// The card, by the queue.
    Queue(Box<Redirect>),
    /// The steering program, by queue and ring.
    Ring(Arc<Mutex<KernelSteer>>),
}

/// What the program for one socket a queue shares with us.
struct Redirect {
    counters: Counters,
    sockets: Mutex<XskMap<MapData>>,
    // The program's instructions name it by descriptor, whenever it is loaded.
    _counters_map: MapData,
}

/// The program, loaded.
enum Program {
    Redirect(Ebpf, &'static str),
    Steer(Arc<Mutex<KernelSteer>>),
}

impl Program {
    fn with<T>(&mut self, work: impl FnOnce(&mut Xdp) -> Result<T, ProgramError>) -> Result<T, ProgramError> {
        match self {
            Program::Redirect(ebpf, name) => work(ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?.try_into()?),
            Program::Steer(kernel) => work(locked(kernel).root().map_err(|_| ProgramError::NotLoaded)?),
        }
    }
}

/// The program, attached.
struct Attached {
    program: Program,
    /// The kernel's number of the program.
    id: u32,
    link: Option<XdpLinkId>,
}

impl Attached {
    fn attach(&mut self, index: u32, mode: XdpMode) -> Result<(), ProgramError> {
        let attach = |program: &mut Xdp| Ok((program.info()?.id(), program.attach_to_if_index(index, mode)?));
        let (id, link) = self.program.with(attach)?;
        (self.id, self.link) = (id, Some(link));
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
    /// What to steer by in the kernel, if that is to be.
    pub classifier: Option<&'a Classifier>,
    /// Most bytes of a frame that fits in one buffer.
    pub longest_bytes: u32,
    /// Whether the MTU allows longer frames.
    pub several_buffers: bool,
}

impl Demand<'_> {
    fn fail(&self, action: &str, error: &(dyn Error + 'static)) -> PortError {
        PortError::action(self.port, action, words(error), remedy(errno(error)))
    }

    /// Loads the program for one socket a queue.
    fn redirect(&self, several: bool) -> Result<(Program, Choice), PortError> {
        let port = self.port;
        let queues = self.interface.most_queues;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("sockets", queues)
            .map_max_entries("counters", queues)
            .override_global("longest_bytes", &self.longest_bytes, true)
            .load(OBJECT)
            .map_err(|e| self.fail("load its XDP program", &e))?;
        let odd = |what: &str| {
            PortError::action(port, "load its XDP program", format!("the object has no {what}"), "run bpf/build.sh")
        };
        let sockets = ebpf.take_map("sockets").ok_or_else(|| odd("map `sockets`"))?;
        let sockets = XskMap::try_from(sockets).map_err(|e| self.fail("use its map of sockets", &e))?;
        let Some(Map::Array(counters_map)) = ebpf.take_map("counters") else { return Err(odd("map `counters`")) };
        let counters = Counters::map(counters_map.fd().as_fd(), queues)
            .map_err(|e| PortError::action(port, "map the counters of its XDP program", e, ""))?;
        let mut program = Program::Redirect(ebpf, if several { SEVERAL_BUFFERS } else { ONE_BUFFER });
        program.with(Xdp::load).map_err(|e| self.fail("load its XDP program", &e))?;
        let sockets = Mutex::new(sockets);
        Ok((program, Choice::Queue(Box::new(Redirect { counters, sockets, _counters_map: counters_map }))))
    }

    /// Loads the steering program.
    fn steering(&self, classifier: &Classifier, several_buffers: bool) -> Result<(Program, Choice), PortError> {
        let (queues, longest_bytes) = (self.interface.most_queues, self.longest_bytes);
        let setup = Setup { queues, several_buffers, longest_bytes, ..Setup::new(classifier) };
        let kernel =
            KernelSteer::load(&setup).map_err(|e| PortError::action(self.port, "load the steering program", e, ""))?;
        let kernel = Arc::new(Mutex::new(kernel));
        Ok((Program::Steer(kernel.clone()), Choice::Ring(kernel)))
    }
}

impl Attachment {
    /// Loads the program and attaches it: in the driver if that can, else in the stack, unless
    /// the user said which.
    pub(super) fn new(demand: Demand<'_>) -> Result<Attachment, PortError> {
        let Demand { port, interface, options, .. } = demand;
        if let Some((place, id)) = interface.xdp.first() {
            return Err(occupied(port, interface, *place, *id));
        }
        let mut why = None;
        let mut found = None;
        for (candidate, mode) in [(XdpPlace::Native, XdpMode::Driver), (XdpPlace::Generic, XdpMode::Skb)] {
            if options.place.is_some_and(|only| only != candidate) {
                continue;
            }
            // The stack merges frames (GRO, GSO), whatever the MTU.
            let several = demand.several_buffers || candidate == XdpPlace::Generic;
            let (program, choice) = match demand.classifier {
                None => demand.redirect(several)?,
                Some(classifier) => demand.steering(classifier, several)?,
            };
            let mut attached = Attached { program, id: 0, link: None };
            match attached.attach(interface.index, mode) {
                Ok(()) => {
                    found = Some((candidate, several, attached, choice));
                    break;
                }
                // Only a driver that cannot is a reason to go on to the stack.
                Err(e) if options.place.is_none() && candidate == XdpPlace::Native && driver_cannot(errno(&e)) => {
                    why = Some(words(&e));
                }
                Err(e) => {
                    return Err(demand.fail(&format!("attach its XDP program ({})", candidate.word()), &e));
                }
            }
        }
        let Some((place, several_buffers, attached, choice)) = found else {
            return Err(PortError::action(port, "attach its XDP program", "there is no place to go", ""));
        };
        let promiscuous = match options.promiscuous {
            true => Some(crate::sys::hold_promiscuous(interface.index).map_err(|e| {
                let advice = remedy(e.raw_os_error());
                PortError::action(port, "make the interface promiscuous", e, advice)
            })?),
            false => None,
        };
        Ok(Attachment {
            place,
            why,
            several_buffers,
            program: Mutex::new(attached),
            choice,
            queues: interface.most_queues,
            _promiscuous: promiscuous,
        })
    }

    /// Sends packets of `queue` that are for its socket number `lane` to `socket` from now on: the only one, or
    /// where the kernel steers those of the rings, and then that of marked packets.
    pub(super) fn enter(&self, queue: u32, lane: usize, socket: impl AsFd) -> io::Result<()> {
        match &self.choice {
            Choice::Queue(redirect) => {
                let set = locked(&redirect.sockets).set(queue, socket.as_fd().as_raw_fd(), 0);
                set.map_err(|e| io::Error::other(words(&e)))
            }
            Choice::Ring(kernel) => {
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
            Choice::Ring(kernel) => {
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
    pub(super) fn install_again(&self) -> io::Result<()> {
        let mut attached = locked(&self.program);
        let Some(link) = attached.link.take() else { return Ok(()) };
        let renew = |program: &mut Xdp| {
            let link = program.take_link(link)?;
            program.unload()?; // Only our descriptor: the link keeps what is attached.
            program.load()?;
            let link = program.attach_to_link(link)?;
            Ok((link, program.info()?.id()))
        };
        let (link, id) = attached.program.with(renew).map_err(|e| io::Error::other(words(&e)))?;
        attached.link = Some(link);
        attached.id = id;
        Ok(())
    }

    /// What the program has counted on `queue`.
    pub(super) fn counts(&self, queue: u32) -> ProgramCounts {
        match &self.choice {
            Choice::Queue(redirect) => redirect.counters.of(queue),
            Choice::Ring(_) => {
                let Counts { redirected, passed, too_long, .. } = self.steering_counts(queue);
                ProgramCounts { redirected, passed, too_long }
            }
        }
    }

    /// What the steering program has counted on `queue`: nothing where there is none.
    pub(super) fn steering_counts(&self, queue: u32) -> Counts {
        self.kernel().and_then(|kernel| locked(kernel).counts(queue).ok()).unwrap_or_default()
    }

    /// The steering program, if that chooses the socket.
    pub(super) fn kernel(&self) -> Option<&Arc<Mutex<KernelSteer>>> {
        match &self.choice {
            Choice::Queue(_) => None,
            Choice::Ring(kernel) => Some(kernel),
        }
    }

    /// Queues that there is room for.
    pub(super) fn queues(&self) -> u32 {
        self.queues
    }
}

/// What the sockets of a queue are for, in their order.
fn place_of(kernel: &KernelSteer, lane: usize) -> Place {
    u16::try_from(lane).ok().filter(|ring| *ring < kernel.rings()).map_or(Place::Marked, Place::Ring)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers of drivers that have no XDP, or not for this MTU or these offloads.
fn driver_cannot(errno: Option<i32>) -> bool {
    matches!(errno, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE | libc::ENOSPC | libc::ENOMEM | libc::E2BIG))
}

/// Error for an interface that has a program already: which, whose, and what to do.
fn occupied(port: &str, interface: &Interface, place: XdpPlace, id: u32) -> PortError {
    let name = aya::programs::loaded_programs()
        .flatten()
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(|name| format!(" {name:?}")))
        .unwrap_or_default();
    let (owner, way_out) = match holder(id) {
        Some(Holder { process, command, link: true }) => (
            format!("attached by process {process} ({command})"),
            "stop that process; its program goes with it (or detach the link: `bpftool link list` names it)".to_owned(),
        ),
        Some(Holder { process, command, link: false }) => (
            format!("held by process {process} ({command})"),
            format!("stop that process, or run `ip link set dev {} {} off`", interface.name, place.word()),
        ),
        None => (
            "held by no process that can be seen".into(),
            format!(
                "if nobody needs it, run `ip link set dev {} {} off` (if it is pinned, remove the pin under /sys/fs/bpf)",
                interface.name,
                place.word()
            ),
        ),
    };
    PortError::action(
        port,
        "attach its XDP program",
        format!("{} has the XDP program {id}{name} ({}), {owner}", interface.name, place.word()),
        format!("{way_out}; or use packet:{}, which needs no program", interface.name),
    )
}

struct Holder {
    process: u32,
    command: String,
    link: bool,
}

/// A process that holds program `id`, best one that holds a link to it. Seen in /proc/PID/fdinfo.
fn holder(id: u32) -> Option<Holder> {
    let mut found = None;
    let wanted = id.to_string();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(number) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fdinfo")) else { continue };
        for text in descriptors.flatten().filter_map(|d| std::fs::read_to_string(d.path()).ok()) {
            let value = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
            if value("prog_id:") != Some(&wanted) {
                continue;
            }
            let link = value("link_id:").is_some();
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
            found = Some(Holder { process: number, command, link });
            if link {
                return found;
            }
        }
    }
    found
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
fn words(error: &(dyn Error + 'static)) -> String {
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
