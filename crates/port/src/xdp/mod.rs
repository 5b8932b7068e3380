//! `xdp:IF[/QUEUE]`: AF_XDP sockets on the receive queues of an interface.
//!
//! Layers, from the kernel up: `ring` (memory shared with the kernel), `socket` (one queue),
//! `program` (what sits on the interface), `port` (the [`Port`](crate::Port) over them).
//!
//! The region's buffers are the kernel's packet memory, so a packet is where the yard wants it
//! when it arrives, with annotation, tag and headroom in front. On the packet path there is no
//! system call while packets keep coming (but for a look at the interface once a second), and no
//! allocation.
//!
//! # Steering in the kernel
//! With [`prepare_steered`](crate::prepare_steered) the program on the interface is that of
//! [`flowyard_kernel`], and each queue has a socket for each ring of the yard and one for what the program
//! marks, all on the same region, with one fill ring a queue. Readers of the rings take their packets from theirs
//! ([`DirectReader`](crate::DirectReader)), the port what is marked; or the port receives from all of them, to relay. The
//! 32 bytes before each packet are the head of its tag.
//!
//! ```text
//! queue 0: fill ring, sockets for rings 0 … N-1, socket for marked packets
//! queue 1: the same, on the same region
//! ```
//!
//! The kernel holds more buffers a queue than all receive rings of the queue can take (`?ring=N` entries
//! each), so that a ring that is full loses its own packets and no others.
//!
//! Several ports may steer so, each with program, sockets and counters of its own; what must be one for all of them,
//! where fragments went above all, their programs share ([`InKernel`]).
//!
//! # The way out
//! Where it is asked for ([`Opener::ask_transmission`](crate::Opener)), the first queue of each part sends as well, from
//! buffers of the region: see `transmitter`. Where a dispatcher has no queue of the interface, it sends by a packet
//! socket.
//!
//! # The host's stack
//! What the program gives to a socket never reaches the host's own stack. With [`ToHost`] some of it does: what a
//! filter matches is picked out first (`to-host` in the notes), what no socket takes goes there too
//! (`passed-to-host`), or is dropped (`not-to-host`).
//!
//! # What is left behind
//! Nothing, but for `?keep`: see `estate`. What a killed owner left is found by the next one, and what was lost by it is
//! in the notes (`before-…`).
//!
//! # Offloads, told honestly
//! XDP shows bytes, not what the kernel knows of them; a frame's flags are therefore empty:
//! - An unfinished checksum cannot be seen. Over veth, a sender's TCP and UDP packets have one
//!   unless its offloads are off (`ethtool -K PEER tx off`). Frames that came by wire are finished.
//! - A merged (GSO, GRO) frame is one long packet. In the driver there are none: attaching makes
//!   veth's peer stop merging, and drivers hand frames over before they are merged. The stack
//!   (`generic`) has merged them already, so frames may span several buffers there whatever the MTU.
//! - A VLAN tag that the card took off is gone: `ethtool -K IF rxvlan off` leaves it in, and `?metadata` tells it.
//!
//! `packet:IF` tells all three.
//!
//! # What the card knows
//! With `?metadata` the program asks the driver for the card's time, its hash and the VLAN tag that it took off, and
//! writes what it is told before the packet ([`card`]); it is bound to the device for that. Time is by the card's own
//! clock ([`Clock::Hardware`](flowyard_mem::Clock)) where it told one, by the system's otherwise. Where driver or kernel
//! have it not, the ordinary program does its work, and the port's mode says why.
//!
//! # What a queue loses
//! See [`Port::counters`](crate::Port::counters): `no-buffer` (the yard was too slow to return
//! buffers), `ring-full` (it was too slow to receive), `too-long`, `invalid-descriptor`,
//! `undelivered` (arrived while closing), and `unaccounted`, the program's count less all others,
//! told when the port is closed and zero unless the kernel has a surprise. What the card dropped
//! before the program saw it is in the notes (`card-missed`).

#[cfg(feature = "bench")]
pub mod bare;
mod card;
mod claim;
mod direct;
mod estate;
mod journal;
mod occupied;
mod pins;
mod port;
mod program;
mod release;
mod ring;
mod socket;
mod transmitter;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub use direct::{DirectCounts, DirectReader, DirectRing};
use flowyard_kernel::{Company, ToHost};
use flowyard_mem::{Region, Stock};
use flowyard_steer::Classifier;
use socket::Sizes;

use crate::interface::{Interface, Links, XdpPlace};
use crate::link::{ETHERNET, link_type};
use crate::{Opener, Port, PortError, PortInfo, PortSpec};

/// Entries of a fill ring and of a receive ring, and buffers that the kernel holds a queue.
const DEFAULT_RING: u32 = 2048;
/// Entries of each receive ring where the kernel steers: there is one for each ring of the yard.
const DEFAULT_LANE: u32 = 512;
/// Entries of all receive rings of a queue together, unless asked for more or there are very many rings.
const MOST_LANE_ENTRIES: u32 = 32_768;
/// Buffers that the kernel holds a queue where it steers, beyond what all receive rings of the queue can hold: so
/// that one which nobody empties leaves the others with some.
const HELD_BEYOND: u32 = 64;
/// Ethernet header and two VLAN tags: what a frame has on top of the MTU.
const LAYER2_BYTES: usize = 14 + 8;
/// Longest frame in several buffers: an IP packet of 65535 bytes that the kernel has merged.
const LONGEST_MERGED: usize = 65535 + LAYER2_BYTES;
/// Bytes in front of a packet at most, with the largest annotation.
const MOST_FRONT_BYTES: usize = 512;

/// Locks: what a thread that panicked left is as good as what it found.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    place: Option<XdpPlace>,
    copy: Option<bool>,
    promiscuous: bool,
    ring: u32,
    /// The program stays on the interface when this ends.
    keep: bool,
    /// Folder of the journal.
    journal: Option<String>,
    /// Whether the card is asked what it knows of a packet.
    metadata: bool,
}

impl Options {
    fn read(spec: &PortSpec, default_ring: u32) -> Result<Options, PortError> {
        spec.only(&["native", "generic", "copy", "zerocopy", "promisc", "ring", "keep", "journal", "metadata"])?;
        let either = |yes: &str, no: &str| match (spec.flag(yes)?, spec.flag(no)?) {
            (true, true) => Err(spec.bad_option(format!("cannot be both {yes} and {no}"), "write one of them")),
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            (false, false) => Ok(None),
        };
        let place = either("native", "generic")?.map(|n| if n { XdpPlace::Native } else { XdpPlace::Generic });
        let copy = either("copy", "zerocopy")?;
        if place == Some(XdpPlace::Generic) && copy == Some(false) {
            return Err(spec.bad_option("cannot be zerocopy in generic mode", "write ?native&zerocopy, or ?generic"));
        }
        let metadata = spec.flag("metadata")?;
        if metadata && place == Some(XdpPlace::Generic) {
            let problem = "has no metadata from the card in generic mode: the driver alone is asked";
            return Err(spec.bad_option(problem, "leave out ?generic or ?metadata"));
        }
        let allowed = "a power of two from 64 to 65536";
        let ring = spec.value("ring", allowed)?.unwrap_or(default_ring);
        if !ring.is_power_of_two() || !(64..=65536).contains(&ring) {
            return Err(spec.bad_option(format!("option ring is {ring}"), format!("write ?ring=N with {allowed}")));
        }
        let journal = spec.options.get("journal").cloned();
        if journal.as_deref().is_some_and(|folder| !folder.starts_with('/')) {
            return Err(spec.bad_option("option journal is no folder", "write ?journal=/FOLDER"));
        }
        let (promiscuous, keep) = (spec.flag("promisc")?, spec.flag("keep")?);
        Ok(Options { place, copy, promiscuous, ring, keep, journal, metadata })
    }
}

/// What all openers and ports of one `prepare` share.
#[derive(Debug)]
struct Shared {
    name: String,
    interface: Interface,
    options: Options,
    /// The one queue asked for; all if none.
    only: Option<u32>,
    parts: u32,
    /// How the kernel steers, if it does.
    steering: Option<InKernel>,
    /// What goes on to the host's stack.
    host: ToHost,
    sizes: Sizes,
    /// Buffers in the kernel's hands a queue.
    held: u32,
    attachment: Mutex<Weak<program::Attachment>>,
}

impl Shared {
    /// Whether readers take what the kernel steers from it themselves.
    fn direct(&self) -> bool {
        self.steering.as_ref().is_some_and(|steering| steering.direct)
    }

    /// The queues of part `part` when the interface has `queues`.
    fn queues_of(&self, part: u32, queues: u32) -> Vec<u32> {
        match self.only {
            Some(only) => vec![only],
            None => (0..queues).filter(|queue| queue % self.parts == part).collect(),
        }
    }
}

struct XdpOpener {
    shared: Arc<Shared>,
    part: u32,
    info: PortInfo,
    /// A way out was asked for.
    transmit: bool,
}

impl Opener for XdpOpener {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn ask_transmission(&mut self) -> Result<(), PortError> {
        if self.shared.direct() {
            return Err(PortError::action(
                &self.shared.name,
                "have packets sent out of it",
                "the kernel steers, and readers take packets from the kernel themselves: nothing comes back to the yard",
                "have dispatchers pass packets on (--relay), or steer in user space (leave out --steer kernel)",
            ));
        }
        self.transmit = true;
        Ok(())
    }

    fn open(self: Box<Self>, region: &Region, stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(port::XdpPort::open(self.shared, self.part, self.info, self.transmit, region, stock)?))
    }
}

/// How the kernel is to steer: the same for all ports of a yard, whose programs are one company by that.
#[derive(Debug, Clone)]
pub struct InKernel {
    classifier: Arc<Classifier>,
    direct: bool,
    company: Company,
    /// Files that the ports prepared so far need open.
    files: Arc<AtomicU64>,
}

impl InKernel {
    /// By `classifier`. With `direct` each ring's reader takes its packets from the kernel itself ([`Port::readers`]), a
    /// thread of this process; otherwise they all come by [`Port::receive`], with the heads of their tags.
    pub fn new(classifier: Arc<Classifier>, direct: bool) -> InKernel {
        InKernel { classifier, direct, company: Company::default(), files: Arc::default() }
    }
}

/// Entries of each receive ring, where the kernel steers to so many rings: fewer where there are many, so that the
/// buffers that they can hold stay within bounds (64 MiB a queue, or 64 entries each).
fn default_lane(rings: u16) -> u32 {
    let most = MOST_LANE_ENTRIES / (u32::from(rings) + 1);
    DEFAULT_LANE.min(1 << most.max(64).ilog2())
}

/// Looks the interface up and splits its queues into at most `parts` openers. With `steering` the kernel
/// steers; `host` is what goes on to the host's stack.
pub(crate) fn prepare(
    spec: &PortSpec,
    parts: usize,
    steering: Option<&InKernel>,
    host: &ToHost,
) -> Result<Vec<Box<dyn Opener>>, PortError> {
    let options = Options::read(spec, steering.map_or(DEFAULT_RING, |s| default_lane(s.classifier.table.rings())))?;
    let name = spec.name();
    let interface = Interface::find(&name, &spec.what)?;
    if link_type(interface.hardware) != ETHERNET {
        return Err(spec.bad_option(
            format!("is not an Ethernet interface (ARPHRD {})", interface.hardware),
            format!("use packet:{}", spec.what),
        ));
    }
    let queues = receive_queues(&interface);
    if let Some(queue) = spec.queue.filter(|queue| *queue >= queues) {
        return Err(
            spec.bad_option(format!("has no queue {queue}"), format!("{} has queues 0 to {}", spec.what, queues - 1))
        );
    }
    let used = if spec.queue.is_some() { 1 } else { queues };
    if let Some(steering) = steering {
        enough_files(spec, used, steering)?;
    }
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).clamp(1, used);
    let frame = interface.mtu as usize + LAYER2_BYTES;
    let generic = match options.place {
        Some(place) => place == XdpPlace::Generic,
        None => Links::open().is_ok_and(|links| links.driver_has_xdp(interface.index) == Some(false)),
    };
    // Frames of several buffers lose room in each to the kernel, so the buffers are large then.
    let buffer_bytes = if frame <= 2048 - MOST_FRONT_BYTES && !generic { 2048 } else { 4096 };
    let one_buffer = frame <= buffer_bytes - MOST_FRONT_BYTES && !generic;
    let longest_packet = if one_buffer { buffer_bytes - 256 } else { LONGEST_MERGED };
    let ring = options.ring;
    let lanes = steering.map_or(1, |steering| u32::from(steering.classifier.table.rings()) + 1);
    let held = if steering.is_some() { lanes * ring + HELD_BEYOND } else { ring };
    let sizes = Sizes { lanes: lanes as usize, receive: ring, fill: held.next_power_of_two() };
    let shared = Arc::new(Shared {
        name: name.clone(),
        interface,
        options,
        only: spec.queue,
        parts,
        steering: steering.cloned(),
        host: host.clone(),
        sizes,
        held,
        attachment: Mutex::new(Weak::new()),
    });
    let opener = |part| {
        let mine = shared.queues_of(part, queues).len();
        let info = PortInfo {
            name: name.clone(),
            mode: queue_count(mine),
            can_wait: false,
            live: true,
            longest_packet,
            buffers_held: mine * held as usize,
            buffer_bytes,
        };
        Box::new(XdpOpener { shared: shared.clone(), part, info, transmit: false }) as Box<dyn Opener>
    };
    Ok((0..parts).map(opener).collect())
}

/// Refuses more sockets than a process may have files open, before any memory is taken for them.
fn enough_files(spec: &PortSpec, queues: u32, steering: &InKernel) -> Result<(), PortError> {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let rings = u64::from(steering.classifier.table.rings());
    // A socket a queue and ring, and one a queue for what is marked.
    let own = u64::from(queues) * (rings + 1);
    let before = steering.files.fetch_add(own, Ordering::Relaxed); // ports are prepared one after the other
    // Two descriptors a ring for its pipe.
    let wanted = before + own + 2 * rings;
    if wanted <= most {
        return Ok(());
    }
    let others = if before > 0 { format!(" with the {before} of the ports before it") } else { String::new() };
    Err(spec.bad_option(
        format!(
            "needs {wanted} open files{others} to steer from {queues} queues to {rings} rings, and this process may have \
             {most}"
        ),
        "raise the limit (`ulimit -n`), or use fewer rings or one queue (xdp:IF/QUEUE)",
    ))
}

/// Receive queues in use; where the driver does not say, as many as the kernel made room for.
fn receive_queues(interface: &Interface) -> u32 {
    crate::sys::receive_queues(&interface.name).ok().filter(|n| *n > 0).unwrap_or(interface.most_queues)
}

fn queue_count(queues: usize) -> String {
    if queues == 1 { "1 queue".into() } else { format!("{queues} queues") }
}

/// What the reader can do about the system's error `errno`.
fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => {
            "it needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF: run it as root (sudo), or give the program these \
             (setcap cap_net_admin,cap_net_raw,cap_bpf+ep PROGRAM); packet:IF needs CAP_NET_RAW alone"
        }
        Some(libc::EBUSY) => {
            "another AF_XDP socket has the queue: stop the program that holds it, or use another queue"
        }
        Some(libc::EEXIST) => "another XDP program is on the interface: `ip -d link show` tells which",
        Some(libc::ENOBUFS) => {
            "the locked-memory limit is too small: raise `ulimit -l`, add CAP_IPC_LOCK, or use fewer buffers"
        }
        Some(libc::EMFILE) => "raise the limit of open files (`ulimit -n`), or use fewer rings",
        Some(libc::ENETDOWN) => "bring the interface up: `ip link set IF up`",
        Some(libc::EOPNOTSUPP) => "the driver cannot: leave out zerocopy or native, or use packet:IF",
        Some(libc::EAFNOSUPPORT) => "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS): use packet:IF",
        _ => "",
    }
}
