//! Rings that their readers take from the kernel themselves: the receive rings of one ring of the yard, one a queue.
//!
//! Where the kernel steers and the reader is a thread of this process, nobody need stand between them. A
//! [`DirectRing`] is what the port and the reader share; the [`DirectReader`] is the reader's end.
//!
//! ```text
//! queue 0: receive ring ──▶ ┐           ┌ ──▶ fill ring of queue 0
//! queue 1: receive ring ──▶ ┴ a reader ─┴ ──▶ fill ring of queue 1
//! ```
//!
//! # Who owns what
//! - A *buffer* is the kernel's until it stands on a receive ring, then the reader's until that has put it onto the
//!   fill ring of the queue that it came from. So the number of buffers a queue has never changes, whatever readers
//!   do; and entries of a receive ring are given back only together with their buffers, so that what a reader has in
//!   its hand counts as being on its ring.
//! - A *fill ring* has one producer at a time, who holds its lock: a reader for as long as it takes to write a batch
//!   of addresses, or the port's own thread. The lock is taken once a batch, and is nearly always free.
//! - The *receive rings* of a ring are behind one lock, too: the reader's, but for a port that opens or closes
//!   queues, and once the reader is gone.
//!
//! Nothing here leaves the process: whoever can write a fill ring can have the kernel write anywhere in the region.
//!
//! # Invariant
//! The buffers of `batch[..]` are the reader's alone. The kernel hands each buffer that it was given on once; all were
//! lent to it (the port's `Lent`), and stay so until the port is closed, which takes back none that a reader holds
//! (`State::held`).
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use flowyard_kernel::{Answer, HEAD_BYTES};
use flowyard_mem::{Clock, Hand, Packet, Region, Slot, Tag, slot_flags};

use super::ring::{Descriptor, FillRing};
use super::socket::{self, Lane};
use super::{card, locked};
use crate::link::ETHERNET;

/// Packets taken from one receive ring before the next has its turn.
const BATCH: usize = 64;
/// Packets between the one handed out and the one whose first bytes are fetched.
const LOOK_AHEAD: usize = 8;

/// One ring of a port: what its port and its reader share.
#[derive(Debug)]
pub struct DirectRing {
    ring: u16,
    state: Mutex<State>,
    counted: Counted,
    gone: AtomicBool,
}

/// What [`DirectCounts`] is read from. Written with the state locked, so that with the lock the sums are right; without
/// it anybody may glance at them at any time.
#[derive(Debug, Default)]
struct Counted {
    packets: AtomicU64,
    bytes: AtomicU64,
    unread: AtomicU64,
    unread_bytes: AtomicU64,
    invalid: AtomicU64,
}

impl Counted {
    fn read(&self) -> DirectCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counted { packets, bytes, unread, unread_bytes, invalid } = self;
        DirectCounts {
            packets: of(packets),
            bytes: of(bytes),
            unread: of(unread),
            unread_bytes: of(unread_bytes),
            invalid: of(invalid),
        }
    }

    fn took(&self, packets: u64, bytes: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back what [`Counted::took`] was told.
    fn untook(&self, packets: u64, bytes: u64) {
        self.packets.fetch_sub(packets, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn unread(&self, packets: u64, bytes: u64) {
        self.unread.fetch_add(packets, Ordering::Relaxed);
        self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What only one thread at a time may touch.
#[derive(Debug, Default)]
struct State {
    lanes: Vec<DirectLane>,
    /// The lane whose turn it is.
    next: usize,
    /// The lane that the reader took from last, and entries of it that it has not given back.
    held: (usize, u32),
    closed: bool,
}

/// One queue's part.
#[derive(Debug)]
pub(super) struct DirectLane {
    // Before the descriptor of its socket: a mapped ring keeps a socket alive.
    pub lane: Lane,
    pub queue: u32,
    pub fill: Arc<Mutex<FillRing>>,
    pub leader: Arc<OwnedFd>,
}

/// What a ring has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectCounts {
    /// Packets that its reader took.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that came for a reader that is gone.
    pub unread: u64,
    /// Their bytes.
    pub unread_bytes: u64,
    /// Packets that the kernel announced in a place that there is not.
    pub invalid: u64,
}

/// What is on a receive ring when its port closes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub taken: u64,
    pub waiting: u64,
}

impl DirectRing {
    pub(super) fn new(ring: u16) -> Arc<DirectRing> {
        Arc::new(DirectRing {
            ring,
            state: Mutex::default(),
            counted: Counted::default(),
            gone: AtomicBool::new(false),
        })
    }

    /// Number of the ring.
    pub fn ring(&self) -> u16 {
        self.ring
    }

    /// What was counted so far.
    pub fn counts(&self) -> DirectCounts {
        let _settled = self.state();
        self.counted.read()
    }

    /// The same for people to look at: never waits for the reader, and may have caught it half-way through a change.
    pub fn glance(&self) -> DirectCounts {
        self.counted.read()
    }

    /// Whether nothing waits for the reader, and it holds nothing.
    pub fn is_idle(&self) -> bool {
        let mut state = self.state();
        state.lanes.iter_mut().all(|at| at.lane.receive.ready(true) == 0)
    }

    /// Whether its reader was dropped.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire) // pairs with the Release in `DirectReader::drop`
    }

    /// Takes what comes for a reader that is gone, and counts it. For the port's thread, now and then.
    pub fn discard(&self) {
        if !self.is_gone() {
            return;
        }
        for at in &mut self.state().lanes {
            let waiting = at.lane.receive.ready(true);
            if waiting == 0 {
                continue;
            }
            let (mut packets, mut bytes) = (0, 0);
            for n in 0..waiting {
                let entry = at.lane.receive.peek(n);
                packets += u64::from(!entry.continues());
                bytes += u64::from(entry.len);
            }
            at.lane.took(packets);
            at.give_back(waiting);
            self.counted.unread(packets, bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Adds the receive ring of a queue.
    pub(super) fn add(&self, lane: DirectLane) {
        self.state().lanes.push(lane);
    }

    /// Calls `look` with the socket of `queue`.
    pub(super) fn with_lane<T>(&self, queue: u32, look: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        let mut state = self.state();
        state.lanes.iter_mut().find(|at| at.queue == queue).map(|at| look(&mut at.lane))
    }

    /// The reader takes nothing more from now on. Called once nothing comes any more.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// What the reader took from `queue`, and what still lies there. After [`DirectRing::close`].
    pub(super) fn settle(&self, queue: u32) -> Settled {
        let mut state = self.state();
        let (of, held) = state.held;
        let Some((number, at)) = state.lanes.iter_mut().enumerate().find(|(_, at)| at.queue == queue) else {
            return Settled::default();
        };
        let first = if number == of { held } else { 0 };
        let waiting = first..at.lane.receive.ready(true);
        let waiting = waiting.filter(|n| !at.lane.receive.peek(*n).continues()).count() as u64;
        Settled { taken: at.lane.taken, waiting }
    }

    /// Closes the sockets. Calls `held` with each buffer that the reader still has in its hand.
    pub(super) fn shut(&self, buffer_bytes: usize, mut held: impl FnMut(u32)) {
        let mut state = self.state();
        let (of, count) = std::mem::take(&mut state.held);
        if let Some(at) = state.lanes.get(of) {
            for n in 0..count {
                held(u32::try_from(at.lane.receive.peek(n).address / buffer_bytes as u64).unwrap_or(u32::MAX));
            }
        }
        state.closed = true;
        state.lanes.clear();
    }
}

impl DirectLane {
    /// Gives the kernel the first `count` buffers on the receive ring to fill again, and their places on it.
    fn give_back(&mut self, count: u32) {
        let mut fill = locked(&self.fill);
        // The fill ring has room for all buffers of its queue.
        let room = fill.free(count).min(count);
        debug_assert_eq!(room, count);
        for n in 0..room {
            fill.push(self.lane.receive.peek(n).address); // the kernel finds the start of the buffer itself
        }
        fill.commit();
        let asleep = fill.needs_wakeup();
        drop(fill);
        self.lane.receive.release(count);
        if asleep {
            socket::wake(&self.leader);
        }
    }
}

/// The reader's end of a [`DirectRing`]. Owned by one thread.
///
/// Packets come with their tag complete: its head is the steering program's, the rest what is known here.
#[derive(Debug)]
pub struct DirectReader {
    shared: Arc<DirectRing>,
    hand: Hand,
    buffer_bytes: u64,
    port: u16,
    /// Whether what the card knows may lie before a head.
    card: bool,
    /// Entries taken from one receive ring, those handed out first.
    batch: Vec<Descriptor>,
    /// How many were handed out.
    at: usize,
    /// The queue that they came by, and when they were taken.
    queue: u16,
    time_ns: u64,
}

impl DirectReader {
    /// The reader of `ring`, of which there is to be one. `region` is that of the ring's port; packets are tagged as
    /// those of `port`.
    pub(super) fn new(ring: Arc<DirectRing>, region: &Region, port: u16, card: bool) -> DirectReader {
        DirectReader {
            shared: ring,
            hand: Hand::new(region),
            buffer_bytes: region.geometry().buffer_bytes as u64,
            port,
            card,
            batch: Vec::with_capacity(2 * BATCH),
            at: 0,
            queue: 0,
            time_ns: 0,
        }
    }

    /// Whether there is a packet to take. Never blocks.
    #[inline]
    pub fn has_next(&mut self) -> bool {
        self.at < self.batch.len() || self.fetch()
    }

    /// The next packet, or `None` when there is none now. Never blocks.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    #[inline]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        while self.has_next() {
            if self.pick_up() {
                return self.hand.packet();
            }
        }
        None
    }

    /// Takes the next packet of the batch in hand. Answers false if its description makes no sense.
    #[inline]
    fn pick_up(&mut self) -> bool {
        self.hand.empty();
        self.prefetch(self.at + LOOK_AHEAD);
        let start = self.at;
        let mut total = 0u32;
        let mut sound = true;
        loop {
            let entry = self.batch[self.at];
            self.at += 1;
            total = total.saturating_add(entry.len);
            let more = entry.continues() && self.at < self.batch.len();
            let slot = Slot {
                buffer: u32::try_from(entry.address / self.buffer_bytes).unwrap_or(u32::MAX),
                offset: (entry.address % self.buffer_bytes) as u16,
                len: u16::try_from(entry.len).unwrap_or(u16::MAX),
                flags: if more { slot_flags::MORE } else { 0 }
                    | if self.at - start > 1 { slot_flags::CONTINUES } else { 0 },
                port: self.port as u8,
                time_ns: self.time_ns,
                ..Slot::default()
            };
            // SAFETY: the entry is of this reader's batch, so its buffer is ours until `give_back`, which comes after
            // the hand was emptied (invariant of this file).
            sound &= unsafe { self.hand.take(slot) };
            if !more {
                break;
            }
        }
        if !sound {
            self.hand.empty();
            self.refuse(total);
            return false;
        }
        self.complete(total);
        true
    }

    /// Completes the tag.
    #[inline]
    fn complete(&mut self, total: u32) {
        let head = self.hand.before::<HEAD_BYTES>().unwrap_or_default();
        let (Answer::Ring(head) | Answer::Marked(_, head)) = Answer::read(&head);
        let mut tag = Tag {
            ring: self.shared.ring, // the one that it came by, whatever another process may have written there
            time_ns: self.time_ns,
            wire_len: total,
            len: total,
            port: self.port,
            queue: self.queue,
            link: ETHERNET,
            ..head
        };
        tag.set_clock(Clock::Realtime);
        if self.card {
            card::complete(&mut tag, self.hand.before().as_ref());
        }
        self.hand.set_tag(tag);
    }

    #[inline]
    fn prefetch(&self, at: usize) {
        if let Some(soon) = self.batch.get(at) {
            self.hand.prefetch((soon.address / self.buffer_bytes) as u32, (soon.address % self.buffer_bytes) as usize);
        }
    }

    #[cold]
    fn refuse(&self, bytes: u32) {
        let _changing = self.shared.state();
        self.shared.counted.untook(1, bytes.into());
        self.shared.counted.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives back what was handed out, and takes a batch from the next receive ring that has one.
    fn fetch(&mut self) -> bool {
        self.hand.empty();
        let shared = self.shared.clone();
        let mut state = shared.state();
        self.give_back(&mut state);
        if state.closed {
            return false;
        }
        let lanes = state.lanes.len();
        for _ in 0..lanes {
            let number = state.next;
            state.next = if number + 1 < lanes { number + 1 } else { 0 };
            let at = &mut state.lanes[number];
            let (packets, bytes) = take(&mut at.lane, &mut self.batch);
            if packets > 0 {
                at.lane.took(packets);
                self.queue = at.queue as u16;
                state.held = (number, self.batch.len() as u32);
                shared.counted.took(packets, bytes);
                drop(state);
                (0..LOOK_AHEAD).for_each(|at| self.prefetch(at));
                self.time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
                return true;
            }
        }
        false
    }

    /// Gives back the entries of the batch that were handed out.
    fn give_back(&mut self, state: &mut State) {
        if self.at == 0 {
            return;
        }
        let count = self.at as u32;
        let (lane, held) = state.held;
        // Once the port is closed there is nothing to give back to.
        if let Some(at) = state.lanes.get_mut(lane) {
            at.give_back(count);
            state.held = (lane, held.saturating_sub(count));
        }
        self.batch.drain(..self.at);
        self.at = 0;
    }

    /// Gives back every packet that was seen.
    pub fn let_go(&mut self) {
        self.hand.empty();
        if self.at > 0 {
            let shared = self.shared.clone();
            self.give_back(&mut shared.state());
        }
    }

    /// Appends the sockets to sleep on: readable when there is something to take. To be let go of soon: they keep the queue
    /// from others. Off the packet path: it allocates.
    pub fn sockets(&self, all: &mut Vec<Arc<OwnedFd>>) {
        all.extend(self.shared.state().lanes.iter().map(|at| at.lane.socket().clone()));
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<DirectRing> {
        &self.shared
    }
}

impl Drop for DirectReader {
    fn drop(&mut self) {
        self.let_go();
        let left = self.batch.iter().filter(|entry| !entry.continues()).count() as u64;
        let bytes: u64 = self.batch.iter().map(|entry| u64::from(entry.len)).sum();
        self.at = self.batch.len();
        self.let_go();
        let changing = self.shared.state();
        self.shared.counted.untook(left, bytes);
        self.shared.counted.unread(left, bytes);
        drop(changing);
        self.shared.gone.store(true, Ordering::Release); // pairs with the Acquire in `is_gone`
    }
}

/// Appends whole packets from a lane to `batch`, without giving their entries back; answers how many, and their bytes.
fn take(lane: &mut Lane, batch: &mut Vec<Descriptor>) -> (u64, u64) {
    let receive = &mut lane.receive;
    let mut ready = receive.ready(false);
    let (mut used, mut packets, mut bytes) = (0, 0, 0);
    while used < ready && batch.len() < BATCH {
        let Some(segments) = receive.whole(used, &mut ready) else { break };
        for _ in 0..segments {
            let entry = receive.peek(used);
            bytes += u64::from(entry.len);
            batch.push(entry);
            used += 1;
        }
        packets += 1;
    }
    (packets, bytes)
}
