//! The port: the queues of one dispatcher, received in turn.
//!
//! The kernel holds at most `ring` buffers a queue, so a fill ring never overflows and a receive
//! ring only fills if packets come in more pieces than buffers. Each call visits every queue at
//! least once, gives each at most [`QUANTUM`] packets before the next, and first refills it.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowyard_mem::{Clock, Lent, Region, Stock};

use super::program::{Attachment, Demand};
use super::ring::ProgramCounts;
use super::socket::{BUSY_PATIENCE, Binding, Failed, QueueSocket};
use super::{LAYER2_BYTES, LONGEST_MERGED, Shared, queue_count, receive_queues, remedy};
use crate::interface::{Interface, Links, XdpPlace};
use crate::link::ETHERNET;
use crate::{Arrival, Port, PortCounters, PortError, PortInfo, Progress, Received};

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

/// One dispatcher's queues of an interface.
pub(super) struct XdpPort {
    info: PortInfo,
    shared: Arc<Shared>,
    part: u32,
    queues: Vec<Queue>,
    // In this order: sockets close before the program goes, and before the memory does.
    attachment: Option<Arc<Attachment>>,
    region: Region,
    lent: Lent,
    links: Links,
    binding: Binding,
    next: usize,
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
    checked: Instant,
    ended: bool,
}

/// A queue's socket, and the program's counts when it was opened.
struct Queue {
    socket: QueueSocket,
    before: ProgramCounts,
}

impl XdpPort {
    pub(super) fn open(
        shared: Arc<Shared>,
        part: u32,
        mut info: PortInfo,
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
            let mut current = shared.attachment.lock().unwrap_or_else(PoisonError::into_inner);
            match current.upgrade() {
                Some(attachment) => attachment,
                None => {
                    let attachment = Arc::new(Attachment::new(Demand {
                        port: name,
                        interface: &interface,
                        options: &shared.options,
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
        let several_buffers = attachment.several_buffers;
        info.longest_packet = if several_buffers { LONGEST_MERGED } else { capacity };
        info.buffer_bytes = region.geometry().buffer_bytes;
        let mut port = XdpPort {
            info,
            part,
            queues: Vec::new(),
            attachment: Some(attachment),
            region: region.clone(),
            lent: region.lent(),
            links,
            binding: Binding { copy, several_buffers, patience: BUSY_PATIENCE },
            next: 0,
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
            checked: Instant::now(),
            ended: false,
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
        let advice = remedy(failed.source.raw_os_error());
        PortError::action(&self.shared.name, failed.action, failed.source, advice)
    }

    /// Opens a socket on `queue`, gives the kernel at most `buffers` buffers for it, and lets its
    /// packets come, in this order: a socket without buffers would lose its first packets.
    fn add(&mut self, index: u32, queue: u32, buffers: usize, stock: &mut Stock) -> Result<(), Failed> {
        let Some(attachment) = self.attachment.clone() else { return Ok(()) };
        let first = self.queues.first().map(|q| q.socket.as_fd());
        let ring = self.shared.options.ring;
        let mut socket = QueueSocket::open(index, queue, ring, &self.region, self.binding, first)?;
        refill(&mut socket, ring.min(buffers as u32), &mut self.lent, stock, self.region.geometry().buffer_bytes);
        if socket.fill.needs_wakeup() {
            socket.wake();
        }
        let before = attachment.counts(queue);
        let entered = attachment.enter(queue, &socket);
        self.queues.push(Queue { socket, before });
        entered.map_err(|source| Failed { action: format!("enter queue {queue} into the program's map"), source })
    }

    /// Writes what was got into `info.mode`.
    fn describe(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        let place = match (attachment.place, &attachment.why) {
            (XdpPlace::Native, _) => "native".to_owned(),
            (_, Some(why)) => format!("generic (native: {why})"),
            (_, None) => "generic".into(),
        };
        let zero_copy = self.queues.first().is_some_and(|q| q.socket.zero_copy());
        self.info.mode = format!(
            "{}, {place}, {}, {}-byte buffers{}{}",
            queue_count(self.queues.len()),
            if zero_copy { "zero-copy" } else { "copy" },
            self.region.geometry().buffer_bytes,
            if self.binding.several_buffers { ", frames of several buffers" } else { "" },
            if self.shared.options.promiscuous { ", promiscuous" } else { "" },
        );
        self.info.buffers_held = self.queues.len() * self.shared.options.ring as usize;
    }

    /// Looks whether the interface is still there, and whether it has queues that nobody serves.
    fn check(&mut self, stock: &mut Stock) -> Result<(), PortError> {
        self.checked = Instant::now();
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
        if self.shared.only.is_none() {
            let real = receive_queues(&interface).min(attachment.queues());
            for queue in self.shared.queues_of(self.part, real) {
                if !self.queues.iter().any(|q| q.socket.queue == queue) {
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
        let zero_copy = self.queues.iter().any(|q| q.socket.zero_copy());
        self.queues.clear();
        if zero_copy {
            std::thread::sleep(ZERO_COPY_GRACE);
        }
        self.lent.take_all(stock);
        self.attachment = None;
    }

    /// Stops packets from coming and settles the sums.
    fn quiesce(&mut self) {
        let Some(attachment) = &self.attachment else { return };
        for queue in &self.queues {
            attachment.leave(queue.socket.queue);
        }
        crate::sys::wait_for_processors();
        for queue in &mut self.queues {
            let waiting = queue.socket.receive.ready(true);
            let packets = (0..waiting).filter(|n| !queue.socket.receive.peek(*n).continues()).count() as u64;
            queue.socket.receive.release(waiting);
            self.undelivered += packets;
            let redirected = attachment.counts(queue.socket.queue).redirected - queue.before.redirected;
            let lost = queue.socket.statistics().map_or(0, |s| s.rx_dropped + s.rx_ring_full.unwrap_or(0));
            self.unaccounted += redirected.saturating_sub(queue.socket.taken + packets + lost);
        }
    }

    fn count(&self) -> PortCounters {
        let (mut no_buffer, mut ring_full, mut too_long, mut passed, mut redirected) = (0, 0, 0, 0, 0);
        let (mut fill_empty, mut fill_invalid) = (0, 0);
        for queue in &self.queues {
            if let Ok(s) = queue.socket.statistics() {
                no_buffer += s.rx_dropped;
                ring_full += s.rx_ring_full.unwrap_or(0);
                fill_empty += s.rx_fill_ring_empty_descs.unwrap_or(0);
                fill_invalid += s.rx_invalid_descs;
            }
            if let Some(attachment) = &self.attachment {
                let now = attachment.counts(queue.socket.queue);
                too_long += now.too_long - queue.before.too_long;
                redirected += now.redirected - queue.before.redirected;
            }
        }
        if let Some(attachment) = &self.attachment {
            // Each queue's by one part; with one queue asked for, those of the others are of interest.
            let queues = 0..attachment.queues();
            let mine = |queue: &u32| self.shared.only.is_some() || queue % self.shared.parts == self.part;
            passed = queues.filter(mine).map(|queue| attachment.counts(queue).passed).sum();
        }
        // The card counts for the whole interface: the first part tells.
        let missed = if self.part == 0 { self.missed.saturating_sub(self.missed_at_start) } else { 0 };
        PortCounters {
            packets: self.packets,
            bytes: self.bytes,
            lost: vec![
                ("no-buffer", no_buffer),
                ("ring-full", ring_full),
                ("too-long", too_long),
                ("invalid-descriptor", self.invalid),
                ("undelivered", self.undelivered),
                ("unaccounted", self.unaccounted),
            ],
            notes: vec![
                ("redirected", redirected),
                ("passed-to-host", passed),
                ("card-missed", missed),
                ("fill-ring-empty", fill_empty),
                ("fill-invalid", fill_invalid),
                ("wakeups", self.wakeups),
                ("link-down", self.link_downs),
                ("queues-added", self.queues_added),
                ("queues-refused", self.queues_refused),
            ],
        }
    }
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
        let ring = self.shared.options.ring;
        let mut time_ns = 0;
        let mut quiet = 0;
        let mut dry = false;
        // With few buffers, a quiet queue must not sit on those that a busy one needs.
        let share = ((self.lent.len() + stock.len()) / self.queues.len().max(1)).clamp(1, ring as usize) as u32;
        while batch.len() < limit && quiet < self.queues.len() {
            let turn = self.next;
            self.next = if turn + 1 == self.queues.len() { 0 } else { turn + 1 };
            let socket = &mut self.queues[turn].socket;
            refill(socket, share, &mut self.lent, stock, buffer_bytes);
            dry |= socket.held == 0;
            if socket.fill.needs_wakeup() {
                socket.wake();
                self.wakeups += 1;
            }
            if socket.receive.ready(false) == 0 {
                quiet += 1;
                continue;
            }
            quiet = 0;
            if time_ns == 0 {
                time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
            }
            let room = (limit - batch.len()).min(QUANTUM);
            let mut takes = Takes { time_ns, number: self.number, packets: 0, bytes: 0, invalid: 0 };
            if takes.take(socket, &mut self.lent, stock, batch, room, buffer_bytes) == 0 {
                quiet += 1; // The rest of a packet is still on its way.
            }
            self.number = takes.number;
            self.packets += takes.packets;
            self.bytes += takes.bytes;
            self.invalid += takes.invalid;
            socket.taken += takes.packets + takes.invalid;
        }
        self.calls = self.calls.wrapping_add(1);
        if batch.len() > before {
            if self.calls.is_multiple_of(64) && self.checked.elapsed() >= CHECK_BUSY_EVERY {
                self.check(stock)?;
            }
            return Ok(Progress::Ready);
        }
        if self.checked.elapsed() >= CHECK_EVERY {
            self.check(stock)?;
        }
        if dry && stock.is_empty() {
            return Ok(Progress::NoBuffers);
        }
        Ok(Progress::Idle { wait_ns: Some(CHECK_EVERY.as_nanos() as u64) })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.queues.iter().map(|q| q.socket.as_fd()).collect()
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
        let last = attachment.is_some_and(|a| Arc::into_inner(a).is_some());
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

/// Gives the kernel buffers for `socket` until it holds `share`, at most as many as its ring has.
fn refill(socket: &mut QueueSocket, share: u32, lent: &mut Lent, stock: &mut Stock, buffer_bytes: usize) {
    let missing = share.saturating_sub(socket.held);
    if missing == 0 || (missing < REFILL && socket.held > REFILL) {
        return;
    }
    let count = missing.min(socket.fill.free(missing));
    let mut given = 0;
    while given < count {
        let Some(buffer) = stock.take() else { break };
        socket.fill.push(u64::from(lent.lend(buffer)) * buffer_bytes as u64);
        given += 1;
    }
    if given > 0 {
        socket.fill.commit();
        socket.held += given;
    }
}

/// What one visit to a queue took from it.
struct Takes {
    time_ns: u64,
    number: u64,
    packets: u64,
    bytes: u64,
    invalid: u64,
}

impl Takes {
    /// Moves up to `most` packets from the socket to `batch`; answers how many entries it used.
    fn take(
        &mut self,
        socket: &mut QueueSocket,
        lent: &mut Lent,
        stock: &mut Stock,
        batch: &mut Vec<Received>,
        most: usize,
        buffer_bytes: usize,
    ) -> u32 {
        let mut ready = socket.receive.ready(false);
        let (mut used, start) = (0, batch.len());
        while used < ready && batch.len() - start < most {
            // A packet's segments are taken together or not yet.
            let mut last = socket.receive.peek(used);
            let (mut segments, mut len) = (1, last.len);
            while last.continues() {
                if used + segments == ready {
                    ready = socket.receive.ready(true);
                    if used + segments == ready {
                        break;
                    }
                }
                last = socket.receive.peek(used + segments);
                len = len.saturating_add(last.len);
                segments += 1;
            }
            if last.continues() {
                break;
            }
            let arrival = Arrival {
                time_ns: self.time_ns,
                clock: Clock::Realtime,
                len,
                wire_len: len,
                queue: socket.queue as u16,
                link: ETHERNET,
                number: self.number + 1,
                ..Arrival::default()
            };
            let first = batch.len();
            let mut sound = true;
            for segment in used..used + segments {
                let at = socket.receive.peek(segment);
                let (index, offset) = (at.address / buffer_bytes as u64, at.address as usize % buffer_bytes);
                let Some(buffer) = u32::try_from(index).ok().and_then(|index| lent.take(index)) else {
                    sound = false;
                    continue;
                };
                socket.held -= 1;
                let fits = at.len as usize <= buffer_bytes - offset;
                sound &= fits;
                batch.push(Received {
                    buffer,
                    offset: offset as u16,
                    segment_len: if fits { at.len as u16 } else { 0 },
                    more: segment + 1 < used + segments,
                    arrival,
                });
            }
            used += segments;
            if !sound {
                batch.drain(first..).for_each(|received| stock.put(received.buffer));
                self.invalid += 1;
                continue;
            }
            self.number += 1;
            self.packets += 1;
            self.bytes += u64::from(len);
        }
        socket.receive.release(used);
        used
    }
}

impl Drop for XdpPort {
    fn drop(&mut self) {
        // Without a stock to give buffers to: sockets close and the program goes, by field order.
        if let Some(attachment) = &self.attachment {
            for queue in &self.queues {
                attachment.leave(queue.socket.queue);
            }
        }
    }
}
