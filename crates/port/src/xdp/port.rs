//! The port: the queues of one dispatcher, received in turn.
//!
//! Where the kernel steers and readers take their packets from it themselves ([`direct`](super::direct)), what is left
//! to the port is what the program marked, and buffers for that.
//!
//! The kernel holds at most as many buffers a queue as its fill ring has room for. Where a queue has one socket
//! its receive ring has room for all of them; where it has several, for fewer, so that a full one leaves the
//! others with buffers. Each call visits every socket at least once, gives each at most [`QUANTUM`] packets before
//! the next, and first refills its queue.

mod count;
mod take;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowyard_kernel::{KernelSteer, ToHost};
use flowyard_mem::{Lent, Region, Stock};

use self::take::Takes;
use super::card::CardPlace;
use super::direct::{DirectReader, DirectRing};
use super::program::{Attachment, Demand};
use super::ring::ProgramCounts;
use super::socket::{BUSY_PATIENCE, Binding, Failed, Lane, QueueSockets};
use super::transmitter::XdpTransmitter;
use super::{LAYER2_BYTES, LONGEST_MERGED, Shared, locked, queue_count, receive_queues, release, remedy};
use crate::interface::{Interface, Links, XdpPlace};
use crate::{Port, PortCounters, PortError, PortInfo, Progress, Received, Transmitter};

/// Packets of one queue before the next has its turn.
const QUANTUM: usize = 64;
/// Fewest buffers worth showing to the kernel, unless it has hardly any left.
const REFILL: u32 = 32;
/// Time between looks at the interface when it is quiet: is it there, has it new queues?
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// The same while packets keep coming: the only system calls then.
const CHECK_BUSY_EVERY: Duration = Duration::from_secs(1);
/// How long the program may stay on the interface after we have let go of it.
const DETACH_PATIENCE: Duration = Duration::from_millis(500);
/// How long a driver may go on writing to buffers after its zero-copy socket was closed: the kernel
/// takes the queue away from a work queue, 16 ms later when measured.
const ZERO_COPY_GRACE: Duration = Duration::from_millis(100);

/// How long threads that sleep on sockets may hold on to them when the port is closed: they wake up 20 times a second.
const SLEEPERS_PATIENCE: Duration = Duration::from_secs(1);

/// One dispatcher's queues of an interface.
pub(super) struct XdpPort {
    info: PortInfo,
    shared: Arc<Shared>,
    part: u32,
    queues: Vec<Queue>,
    /// The rings that their readers take from the kernel themselves, if they do.
    direct: Vec<Arc<DirectRing>>,
    // In this order: sockets close before the program goes, and before the memory does.
    attachment: Option<Arc<Attachment>>,
    region: Region,
    lent: Lent,
    links: Links,
    binding: Binding,
    /// Where what the card knows of a packet lies.
    card: CardPlace,
    /// The queue whose turn it is, and its lane.
    next: (usize, usize),
    calls: u32,
    number: u64,
    packets: u64,
    bytes: u64,
    invalid: u64,
    undelivered: u64,
    unaccounted: u64,
    wakeups: u64,
    link_downs: u64,
    queues_added: u64,
    queues_refused: u64,
    running: bool,
    missed_at_start: u64,
    missed: u64,
    checked: Duration,
    ended: bool,
    /// The sums were made at the end.
    settled: bool,
    readers_made: bool,
}

/// A queue's sockets, and the program's counts when they were opened.
struct Queue {
    sockets: QueueSockets,
    before: ProgramCounts,
    /// All of its sockets are in the program's map.
    entered: bool,
}

impl XdpPort {
    pub(super) fn open(
        shared: Arc<Shared>,
        part: u32,
        mut info: PortInfo,
        transmit: bool,
        region: &Region,
        stock: &mut Stock,
    ) -> Result<XdpPort, PortError> {
        let name = &shared.name;
        let links = Links::open().map_err(|e| PortError::action(name, "open a netlink socket", e, ""))?;
        let interface = match links.by_index(shared.interface.index) {
            Ok(interface) => interface,
            Err(_) => Interface::find(name, &shared.interface.name)?,
        };
        let frame = interface.mtu as usize + LAYER2_BYTES;
        let capacity = region.geometry().packet_capacity();
        let needed = frame > capacity;
        let attachment = {
            let mut current = locked(&shared.attachment);
            match current.upgrade() {
                Some(attachment) => attachment,
                None => {
                    let attachment = Arc::new(Attachment::new(Demand {
                        port: name,
                        interface: &interface,
                        options: &shared.options,
                        steering: shared.steering.as_ref(),
                        host: &shared.host,
                        longest_bytes: capacity as u32,
                        several_buffers: needed,
                    })?);
                    *current = Arc::downgrade(&attachment);
                    attachment
                }
            }
        };
        // A driver that can do zero-copy refuses nothing in generic mode, and then loses packets.
        let copy = if attachment.place == XdpPlace::Generic { Some(true) } else { shared.options.copy };
        let (several_buffers, card) = (attachment.several_buffers, attachment.card);
        info.longest_packet = if several_buffers { LONGEST_MERGED } else { capacity };
        info.buffer_bytes = region.geometry().buffer_bytes;
        let mut port = XdpPort {
            info,
            part,
            queues: Vec::new(),
            direct: match shared.direct() {
                true => (0..shared.sizes.lanes - 1).map(|ring| DirectRing::new(ring as u16)).collect(),
                false => Vec::new(),
            },
            attachment: Some(attachment),
            region: region.clone(),
            lent: region.lent(),
            links,
            card,
            binding: Binding { copy, several_buffers, transmit, patience: BUSY_PATIENCE },
            next: (0, 0),
            calls: 0,
            number: 0,
            packets: 0,
            bytes: 0,
            invalid: 0,
            undelivered: 0,
            unaccounted: 0,
            wakeups: 0,
            link_downs: 0,
            queues_added: 0,
            queues_refused: 0,
            running: interface.running(),
            missed_at_start: interface.missed,
            missed: interface.missed,
            checked: coarse_now(),
            ended: false,
            settled: false,
            readers_made: false,
            shared,
        };
        let queues = port.shared.queues_of(part, receive_queues(&interface));
        for (done, queue) in queues.iter().enumerate() {
            let fair = stock.len() / (queues.len() - done);
            let mut added = port.add(interface.index, *queue, fair, stock);
            let invalid = |added: &Result<(), Failed>| {
                added.as_ref().is_err_and(|failed| failed.source.raw_os_error() == Some(libc::EINVAL))
            };
            if done == 0 && several_buffers && !needed && invalid(&added) {
                // Kernels before 6.6 have no frames of several buffers: merged ones are lost there.
                port.binding.several_buffers = false;
                added = port.add(interface.index, *queue, fair, stock);
            }
            if let Err(failed) = added {
                // The driver did not say how many queues it has, and has fewer than it might.
                if *queue > 0 && port.shared.only.is_none() && failed.source.raw_os_error() == Some(libc::EINVAL) {
                    break;
                }
                let error = port.failed(failed);
                port.shut(stock);
                return Err(error);
            }
        }
        // From now on packets wait while a socket is opened.
        port.binding.patience = Duration::ZERO;
        port.describe();
        Ok(port)
    }

    fn failed(&self, failed: Failed) -> PortError {
        let errno = failed.source.raw_os_error();
        let advice = match release::no_several_buffers(&release::running()) {
            Some(word) if errno == Some(libc::EINVAL) && self.binding.several_buffers => word,
            _ => remedy(errno).to_owned(),
        };
        PortError::action(&self.shared.name, failed.action, failed.source, advice)
    }

    /// Opens a socket on `queue`, gives the kernel at most `buffers` buffers for it, and lets its
    /// packets come, in this order: a socket without buffers would lose its first packets.
    fn add(&mut self, index: u32, queue: u32, buffers: usize, stock: &mut Stock) -> Result<(), Failed> {
        let Some(attachment) = self.attachment.clone() else { return Ok(()) };
        let first = self.queues.first().map(|q| q.sockets.as_fd());
        let (sizes, held) = (self.shared.sizes, self.shared.held);
        if self.shared.steering.is_some() && buffers < held as usize {
            let enough = format!(
                "{buffers} buffers are left of the {held} that {} receive rings of {} entries need: give the yard more \
                 buffers, or a smaller ?ring=N",
                sizes.lanes, sizes.receive
            );
            let action = format!("let the kernel steer on queue {queue}");
            return Err(Failed { action, source: io::Error::other(enough) });
        }
        // One way out is enough, and keeps packets in order.
        let binding = Binding { transmit: self.binding.transmit && self.queues.is_empty(), ..self.binding };
        let mut sockets = QueueSockets::open(index, queue, sizes, &self.region, binding, first)?;
        refill(&mut sockets, held.min(buffers as u32), &mut self.lent, stock, self.region.geometry().buffer_bytes);
        if sockets.fill().needs_wakeup() {
            sockets.wake();
        }
        let before = attachment.counts(queue);
        if let Some(tally) = attachment.tally() {
            sockets.lanes.iter_mut().for_each(|lane| lane.tally = Some((tally.clone(), queue)));
        }
        for (ring, lane) in self.direct.iter().zip(sockets.part(self.direct.len())) {
            ring.add(lane);
        }
        self.queues.push(Queue { sockets, before, entered: false });
        let entered = self.enter(self.queues.len() - 1);
        entered.map_err(|source| Failed { action: format!("enter queue {queue} into the program's map"), source })
    }

    /// Lets the packets of a queue come: those of the sockets that could not be entered go past them.
    fn enter(&mut self, at: usize) -> io::Result<()> {
        let (Some(attachment), Queue { sockets, .. }) = (&self.attachment, &self.queues[at]) else { return Ok(()) };
        let mut all = Ok(());
        self.each_lane(sockets, |n, lane| {
            let entered = attachment.enter(sockets.queue, n, lane);
            if all.is_ok() {
                all = entered;
            }
        });
        self.queues[at].entered = all.is_ok();
        all
    }

    /// That packets are copied, and why they have to be.
    fn why_copy(&self) -> &'static str {
        match self.links.driver_has_zero_copy(self.shared.interface.index) {
            Some(false) => "copy (zero-copy: the driver has none)",
            Some(true) => "copy (zero-copy: the driver has it, and refused this queue or this size of buffers)",
            None => "copy (zero-copy: refused; this kernel does not say whether the driver has it)",
        }
    }

    /// Writes what was got into `info.mode`.
    fn describe(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        let place = match (attachment.place, &attachment.why) {
            (XdpPlace::Native, _) => "native".to_owned(),
            (_, Some(why)) => format!("generic (native: {why})"),
            (_, None) => "generic".into(),
        };
        let zero_copy = self.queues.first().is_some_and(|q| q.sockets.zero_copy());
        self.info.mode = format!(
            "{}{}, {place}, {}, {}-byte buffers{}{}",
            queue_count(self.queues.len()),
            match self.shared.sizes.lanes {
                1 => String::new(),
                lanes if self.shared.direct() =>
                    format!(" of {lanes} sockets, steered in the kernel, read by their readers"),
                lanes => format!(" of {lanes} sockets, steered in the kernel"),
            },
            match self.shared.options.copy {
                _ if zero_copy => "zero-copy",
                None if attachment.place == XdpPlace::Native => self.why_copy(),
                _ => "copy",
            },
            self.region.geometry().buffer_bytes,
            if self.binding.several_buffers { ", frames of several buffers" } else { "" },
            if self.shared.options.promiscuous { ", promiscuous" } else { "" },
        );
        match &self.shared.host {
            ToHost::Pass => {}
            ToHost::Nothing => self.info.mode.push_str(", nothing to the host"),
            ToHost::Filter(filter) => {
                self.info.mode.push_str(&format!(", to the host what matches {:?}", filter.text()));
            }
        }
        if self.shared.options.keep {
            self.info.mode.push_str(", its program stays");
        }
        for word in attachment.card_words.iter().chain(attachment.words()) {
            self.info.mode.push_str("; ");
            self.info.mode.push_str(word);
        }
        self.info.buffers_held = self.queues.len() * self.shared.held as usize;
    }

    fn unchecked_for(&self) -> Duration {
        coarse_now().saturating_sub(self.checked)
    }

    /// Looks whether the interface is still there, and whether it has queues that nobody serves.
    fn check(&mut self, stock: &mut Stock) -> Result<(), PortError> {
        self.checked = coarse_now();
        let gone = |port: &mut XdpPort, problem: String, way_out: &str| {
            port.ended = true;
            Err(PortError::action(&port.shared.name, "receive", problem, way_out))
        };
        let Some(attachment) = self.attachment.clone() else { return Ok(()) };
        let (interface, on) = match attachment.still_on(|| self.links.by_index(self.shared.interface.index)) {
            Ok(found) => found,
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
                let problem = format!("interface {} was deleted or moved away", self.shared.interface.name);
                return gone(self, problem, "start again when it is back");
            }
            Err(_) => return Ok(()), // The question failed, not the interface; it is asked again.
        };
        if !on {
            let problem = format!("the XDP program is no longer on {}", interface.name);
            return gone(self, problem, "somebody took it off; start again to attach it anew");
        }
        if self.running && !interface.running() {
            self.link_downs += 1;
        }
        self.running = interface.running();
        self.missed = interface.missed;
        for Queue { sockets, .. } in &self.queues {
            let mut lost = 0;
            self.each_lane(sockets, |_, lane| lost += lane.lost());
            attachment.looked(sockets.queue, lost);
        }
        for at in 0..self.queues.len() {
            if !self.queues[at].entered {
                let _ = self.enter(at); // once more at the next look
            }
        }
        if self.shared.only.is_none() {
            let real = receive_queues(&interface).min(attachment.queues());
            for queue in self.shared.queues_of(self.part, real) {
                if !self.queues.iter().any(|q| q.sockets.queue == queue) {
                    self.serve_new(&interface, queue, stock);
                }
            }
        }
        Ok(())
    }

    /// Opens a socket on a queue that the interface has gained.
    fn serve_new(&mut self, interface: &Interface, queue: u32, stock: &mut Stock) {
        // Leaves half of what is free to the queues that work already.
        let fair = stock.len() / 2;
        let done = self.add(interface.index, queue, fair, stock).is_ok()
            && self.attachment.as_ref().is_some_and(|a| a.place != XdpPlace::Native || a.install_again().is_ok());
        if done {
            self.queues_added += 1;
        } else {
            self.queues_refused += 1;
        }
        self.describe();
    }

    /// Takes the queues out of the program's map, counts what had arrived, closes the sockets and
    /// takes every buffer back.
    fn shut(&mut self, stock: &mut Stock) {
        self.quiesce();
        // While any socket of a card that writes itself is open, by whoever's hand, the card may write.
        let zero_copy = self.queues.iter().any(|q| q.sockets.zero_copy());
        let mut open = Vec::new();
        if zero_copy {
            self.queues.iter().for_each(|q| self.each_lane(&q.sockets, |_, lane| open.push(lane.socket().clone())));
        }
        let buffer_bytes = self.region.geometry().buffer_bytes;
        for ring in &self.direct {
            // What a reader still has in its hand is lost to the region: nobody may write what it reads.
            ring.shut(buffer_bytes, |index| _ = self.lent.take(index));
        }
        self.queues.clear();
        let deadline = Instant::now() + SLEEPERS_PATIENCE;
        loop {
            open.retain(|socket| Arc::strong_count(socket) > 1); // those that are ours alone are closed by that
            if open.is_empty() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        if zero_copy {
            std::thread::sleep(ZERO_COPY_GRACE);
        }
        // Sockets share one registration of the memory: with one left open no buffer is surely ours again.
        if open.is_empty() {
            self.lent.take_all(stock);
        }
        self.attachment = None;
    }

    /// Stops packets from coming.
    fn stop(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        for Queue { sockets, .. } in &self.queues {
            (0..self.shared.sizes.lanes).for_each(|lane| attachment.leave(sockets.queue, lane));
        }
        crate::sys::wait_for_processors();
    }

    /// Stops packets from coming and settles the sums.
    fn quiesce(&mut self) {
        self.stop();
        let Some(attachment) = &self.attachment else { return };
        self.direct.iter().for_each(|ring| ring.close());
        for Queue { sockets, before, .. } in &mut self.queues {
            let mut settled = 0;
            for lane in &mut sockets.lanes {
                let waiting = lane.receive.ready(true);
                let packets = (0..waiting).filter(|n| !lane.receive.peek(*n).continues()).count() as u64;
                lane.receive.release(waiting);
                self.undelivered += packets;
                settled += lane.taken + packets + lane.lost();
            }
            for ring in self.direct.iter().filter(|_| !self.settled) {
                let left = ring.settle(sockets.queue);
                self.undelivered += left.waiting;
                settled += left.taken + left.waiting + ring.with_lane(sockets.queue, |lane| lane.lost()).unwrap_or(0);
            }
            if !self.settled {
                let redirected = attachment.counts(sockets.queue).redirected - before.redirected;
                self.unaccounted += redirected.saturating_sub(settled);
            }
        }
        self.settled = true;
    }

    /// Calls `look` with every socket of a queue, those that readers take from too, and its number.
    fn each_lane(&self, sockets: &QueueSockets, mut look: impl FnMut(usize, &Lane)) {
        let rings = self.direct.len();
        for (n, ring) in self.direct.iter().enumerate() {
            ring.with_lane(sockets.queue, |lane| look(n, lane));
        }
        sockets.lanes.iter().enumerate().for_each(|(n, lane)| look(rings + n, lane));
    }
}

/// The clock that a quiet port asks each time: of some milliseconds' steps, and a quarter of the other's price.
fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

impl Port for XdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let before = batch.len();
        let buffer_bytes = self.region.geometry().buffer_bytes;
        let mut time_ns = 0;
        let mut quiet = 0;
        let mut dry = false;
        // With few buffers, a quiet queue must not sit on those that a busy one needs.
        let share = (self.lent.len() + stock.len()) / self.queues.len().max(1);
        let share = share.clamp(1, self.shared.held as usize) as u32;
        let queues = self.queues.len();
        for Queue { sockets, .. } in &mut self.queues {
            refill(sockets, share, &mut self.lent, stock, buffer_bytes);
            if sockets.fill().needs_wakeup() {
                sockets.wake();
                self.wakeups += 1;
            }
        }
        let lanes = queues * (self.shared.sizes.lanes - self.direct.len());
        while batch.len() < limit && quiet < lanes {
            let (turn, lane) = self.next;
            let sockets = &mut self.queues[turn].sockets;
            self.next = match (lane + 1 == sockets.lanes.len(), turn + 1 == queues) {
                (false, _) => (turn, lane + 1),
                (true, false) => (turn + 1, 0),
                (true, true) => (0, 0),
            };
            refill(sockets, share, &mut self.lent, stock, buffer_bytes);
            dry |= sockets.held == 0;
            if sockets.lanes[lane].receive.ready(false) == 0 {
                quiet += 1;
                continue;
            }
            quiet = 0;
            if time_ns == 0 {
                time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
            }
            let room = (limit - batch.len()).min(QUANTUM);
            let (region, card) = (&self.region, self.card);
            let mut takes =
                Takes { region, card, lane, time_ns, number: self.number, packets: 0, bytes: 0, invalid: 0 };
            if takes.take(sockets, &mut self.lent, stock, batch, room, buffer_bytes) == 0 {
                quiet += 1; // The rest of a packet is still on its way.
            }
            self.number = takes.number;
            self.packets += takes.packets;
            self.bytes += takes.bytes;
            self.invalid += takes.invalid;
            sockets.lanes[lane].took(takes.packets + takes.invalid);
        }
        self.calls = self.calls.wrapping_add(1);
        if batch.len() > before {
            if self.calls.is_multiple_of(64) && self.unchecked_for() >= CHECK_BUSY_EVERY {
                self.check(stock)?;
            }
            return Ok(Progress::Ready);
        }
        if self.unchecked_for() >= CHECK_EVERY {
            self.check(stock)?;
        }
        if dry && stock.is_empty() {
            return Ok(Progress::NoBuffers);
        }
        Ok(Progress::Idle { wait_ns: Some(CHECK_EVERY.as_nanos() as u64) })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.queues.iter().flat_map(|q| q.sockets.lanes.iter().map(AsFd::as_fd)).collect()
    }

    fn kernel(&self) -> Option<Arc<Mutex<KernelSteer>>> {
        self.attachment.as_ref()?.kernel().cloned()
    }

    fn readers(&mut self, number: u16) -> Vec<DirectReader> {
        if std::mem::replace(&mut self.readers_made, true) {
            return Vec::new(); // of each ring there is one
        }
        let card = self.card == CardPlace::BeforeHead;
        self.direct.iter().map(|ring| DirectReader::new(ring.clone(), &self.region, number, card)).collect()
    }

    fn transmitter(&mut self) -> Result<Option<Box<dyn Transmitter>>, PortError> {
        let rings = self.queues.iter_mut().find_map(|q| q.sockets.take_transmit());
        let Some(rings) = rings else { return Ok(None) };
        let Shared { name, interface, .. } = &*self.shared;
        Ok(Some(Box::new(XdpTransmitter::new(name, interface, rings, &self.region)?)))
    }

    fn halt(&mut self) {
        self.stop();
    }

    fn counters(&mut self) -> PortCounters {
        if let Ok(interface) = self.links.by_index(self.shared.interface.index) {
            self.missed = interface.missed;
        }
        self.count()
    }

    fn close(mut self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        self.quiesce();
        let counters = self.counters();
        let attachment = self.attachment.take();
        let ours = attachment.as_ref().map(|a| a.id());
        self.shut(stock);
        let last = attachment.is_some_and(|a| Arc::into_inner(a).is_some()) && !self.shared.options.keep;
        let left = || {
            let interface = self.links.by_index(self.shared.interface.index).ok()?;
            interface.xdp.into_iter().find(|(_, id)| Some(*id) == ours)
        };
        // A process that another thread is just starting has copies of our descriptors for a moment.
        let deadline = Instant::now() + DETACH_PATIENCE;
        while last && left().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Some((place, id)) = left().filter(|_| last) {
            let name = &self.shared.interface.name;
            return Err(PortError::action(
                &self.shared.name,
                format!("take its XDP program {id} off {name}"),
                "it is still attached",
                format!("run `ip link set dev {name} {} off`", place.word()),
            ));
        }
        Ok(counters)
    }
}

/// Gives the kernel buffers for a queue until it holds `share`, at most as many as its ring has.
fn refill(sockets: &mut QueueSockets, share: u32, lent: &mut Lent, stock: &mut Stock, buffer_bytes: usize) {
    let missing = share.saturating_sub(sockets.held);
    if missing == 0 || (missing < REFILL && sockets.held > REFILL) {
        return;
    }
    let mut fill = sockets.fill();
    let count = missing.min(fill.free(missing));
    let mut given = 0;
    while given < count {
        let Some(buffer) = stock.take() else { break };
        fill.push(u64::from(lent.lend(buffer)) * buffer_bytes as u64);
        given += 1;
    }
    if given > 0 {
        fill.commit();
    }
    drop(fill);
    sockets.held += given;
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        // Without a stock to give buffers to: sockets close and the program goes, by field order.
        if let Some(attachment) = &self.attachment {
            for Queue { sockets, .. } in &self.queues {
                (0..self.shared.sizes.lanes).for_each(|lane| attachment.leave(sockets.queue, lane));
            }
        }
        // Readers hold on to their rings, and must not hold on to sockets by that.
        self.direct.iter().for_each(|ring| ring.shut(self.region.geometry().buffer_bytes, |_| ()));
    }
}
