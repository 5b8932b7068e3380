//! A stage: a consumer that passes packets on to a later consumer, in the same buffers.
//!
//! ```text
//! yard ── ring ──▶ Stage ── pipe ──▶ next consumer (a thread, or another process)
//!      ◀── home ──       ◀── home ──
//! ```
//!
//! Owned by one thread. What it passes on stays out of the yard's reach and of its own until the next
//! consumer has returned it; then it goes home by the pipe it came from. A buffer returned that the
//! next consumer does not hold is a violation: counted, and nothing else. When the next consumer dies,
//! what it held goes home at once. When the stage goes first, the yard is told that it left: it sends no
//! more (`consumer-gone`), and keeps what is still held by the next one out of use, rather than overwrite
//! it while somebody reads; at its end it counts those buffers as missing.
//!
//! Never allocates after creation, but for the segments of a packet larger than any before.
//!
//! # Invariant
//! `came_by[buffer]` is not zero exactly while the next consumer holds a slot that this stage kept,
//! forwarded, and has not released. `kept` holds slots that were kept and neither forwarded nor released.
//! A slot moves from one to the other or is released, never copied: what the two `unsafe` calls need.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use flowyard_mem::{Consumer, Grant, Handover, MemError, Packet, PipeEnd, PipeProducer, Slot, Wait, notify, pipe};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::RingReader;

/// Packets passed on before the next consumer is shown them, at the latest.
const BATCH: u32 = 32;
/// How long a stage that is dropped waits for the next consumer to return what it holds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a stage did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageCounters {
    /// Packets passed on.
    pub passed: u64,
    /// Buffers that the next consumer returned.
    pub returned: u64,
    /// Buffers taken back from a next consumer that died.
    pub abandoned: u64,
    /// Buffers that the next consumer still held when the stage ended: never returned.
    pub quarantined: u64,
    /// Things that the next consumer wrote and that could not be: ignored.
    pub violations: u64,
}

/// Why a packet was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPassed {
    /// The next consumer has no room now. Try again, or let the packet go.
    Full,
    /// The next consumer is gone.
    Gone,
    /// The packet has more segments than the pipe has slots.
    TooLong,
    /// There is no packet: none was taken, or it was passed on already.
    NoPacket,
}

/// The reading end of a ring whose packets go on to a later consumer.
///
/// ```
/// use flowyard::{Stage, Yard, YardConfig};
/// use flowyard::mem::{Consumer, Wait};
///
/// let config = YardConfig { rings: 1, ..YardConfig::default() };
/// let (yard, mut readers) = Yard::open(&config, &["gen:mix?packets=1000".parse()?])?;
/// let (mut stage, end) = Stage::new(readers.remove(0), 64)?;
/// let mut second = Consumer::attach_local(end)?; // or, for another process: end.handover(…)
/// let second = std::thread::spawn(move || {
///     let mut sum = 0;
///     while second.wait(None) != Wait::Ended {
///         while let Some(packet) = second.next() {
///             sum += packet.annotation::<u64>().unwrap();
///         }
///     }
///     sum
/// });
/// let running = yard.start()?;
/// while stage.wait(None) != Wait::Ended {
///     while let Some(mut packet) = stage.next() {
///         packet.set_annotation(&1u64).unwrap();
///         stage.pass_waiting(None).unwrap();
///     }
/// }
/// let counters = stage.finish(None);
/// assert_eq!((counters.passed, second.join().unwrap()), (1000, 1000));
/// assert_eq!(running.join().buffers_missing, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Stage {
    /// Empty only once dropped.
    reader: Option<RingReader>,
    next: PipeProducer,
    /// By buffer index, while the next consumer holds it: the reader's pipe it came by, counted from 1.
    came_by: Vec<u8>,
    held: u64,
    /// The packet last taken, once it was tried to pass it on.
    kept: Vec<Slot>,
    /// Packets passed on since the next consumer was last shown them.
    unshown: u32,
    gone: bool,
    counters: StageCounters,
}

impl Stage {
    /// Makes a stage of a ring, and a pipe of `slots` slots to the next consumer.
    ///
    /// # Errors
    /// The number of slots, the pipe's memory could not be had, or the ring is taken from the kernel itself.
    ///
    /// # Panics
    /// If the ring has more than 255 pipes: a yard has at most 128.
    pub fn new(mut reader: RingReader, slots: u32) -> Result<(Stage, PipeEnd), MemError> {
        if reader.is_direct() {
            return Err(MemError::Geometry {
                object: "stage",
                what: "number of ways in from the kernel itself",
                value: 1,
                allowed: "0: what a stage passes on goes home by a pipe; have the yard relay (YardConfig::relay)",
            });
        }
        assert!(u8::try_from(reader.consumers().len()).is_ok(), "a yard has at most 128 dispatchers");
        let region = reader.consumers()[0].region().clone();
        let (next, end) = pipe(&region, slots)?;
        let stage = Stage {
            reader: Some(reader),
            next,
            came_by: vec![0; region.geometry().buffers as usize],
            held: 0,
            kept: Vec::with_capacity(64),
            unshown: 0,
            gone: false,
            counters: StageCounters::default(),
        };
        Ok((stage, end))
    }

    /// What the next consumer needs, if it is another process: to be sent by
    /// [`handover::send`](flowyard_mem::handover::send) and attached to with [`Consumer::attach`].
    ///
    /// Where this stage has attached to a yard of another process as one ([`Attach::stage`](crate::attach::Attach::stage)),
    /// what the next one looks at is kept when this one dies, until it is done.
    ///
    /// # Errors
    /// A descriptor that cannot be duplicated, or a grant beyond this stage's own.
    pub fn hand_over(&mut self, end: PipeEnd, grant: Grant) -> Result<Handover, MemError> {
        let lifeline = self.consumers()[0].lifeline()?;
        Ok(end.handover(grant)?.with_lifeline(lifeline))
    }

    fn reader(&mut self) -> &mut RingReader {
        self.reader.as_mut().expect("taken only in drop")
    }

    fn consumers(&mut self) -> &mut [Consumer] {
        self.reader().consumers()
    }

    /// The next packet, or `None` when there is none now. Never blocks. The packet before it goes home,
    /// unless it was passed on.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    pub fn next(&mut self) -> Option<Packet<'_>> {
        self.let_kept_go();
        if self.unshown >= BATCH || !self.consumers().iter_mut().any(Consumer::has_next) {
            self.flush();
        }
        self.reader().next()
    }

    /// Passes the packet last taken on to the next consumer, as it is now: with its annotation, and with
    /// what was pushed in front of it. Never blocks. A packet that is not passed on goes home when the
    /// next one is taken.
    ///
    /// # Errors
    /// [`NotPassed`] says why not.
    pub fn pass(&mut self) -> Result<(), NotPassed> {
        if self.kept.is_empty() {
            let reader = self.reader.as_mut().expect("taken only in drop");
            reader.current().1.keep(&mut self.kept);
        }
        let slots = self.kept.len() as u32;
        if slots == 0 {
            return Err(NotPassed::NoPacket);
        }
        if slots > self.next.capacity() {
            return Err(NotPassed::TooLong);
        }
        if !self.gone && self.next.reserve(slots) < slots {
            self.flush();
            self.check_next();
        }
        if self.gone {
            return Err(NotPassed::Gone);
        }
        if self.next.reserve(slots) < slots {
            return Err(NotPassed::Full);
        }
        let came_by = self.reader().current().0 as u8 + 1;
        for slot in self.kept.drain(..) {
            // SAFETY: the slot leaves `kept` here and is in `came_by` from now on (invariant), so it is
            // neither released nor forwarded again before it comes back.
            let fits = unsafe { self.next.forward(slot) };
            debug_assert!(fits, "just reserved");
            self.came_by[slot.buffer as usize] = came_by;
            self.held += 1;
        }
        self.counters.passed += 1;
        self.unshown += 1;
        Ok(())
    }

    /// As [`Stage::pass`], and waits while the next consumer has no room: until it has, is gone, or the
    /// time is over.
    ///
    /// # Errors
    /// [`NotPassed`]; `Full` when the time is over.
    pub fn pass_waiting(&mut self, timeout: Option<Duration>) -> Result<(), NotPassed> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        loop {
            match self.pass() {
                Err(NotPassed::Full) if !over(deadline) => self.wait_for_next(deadline),
                outcome => return outcome,
            }
        }
    }

    /// Shows the next consumer what was passed on, and takes home what it returned. Called by itself
    /// every 32 packets and whenever the ring is empty.
    pub fn flush(&mut self) {
        if self.unshown > 0 {
            self.unshown = 0;
            self.next.commit();
            notify([&mut self.next]);
        }
        self.collect();
    }

    /// Waits until the ring has packets, has ended, or the time is over. What the next consumer returns
    /// goes home meanwhile.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Wait {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        self.let_kept_go();
        loop {
            self.flush();
            let state = self.reader().poll();
            if state != Wait::TimedOut || over(deadline) {
                return state;
            }
            if self.gone || self.next.sleep() {
                let reader = self.reader.as_mut().expect("taken only in drop");
                reader.sleep((!self.gone).then(|| self.next.as_fd()), deadline);
                self.check_next();
            }
            self.next.wake();
        }
    }

    /// Sleeps until the next consumer has returned something or made room, is gone, or the time is over.
    fn wait_for_next(&mut self, deadline: Option<Instant>) {
        if !self.gone && self.next.sleep() {
            let mut fds = [PollFd::from_borrowed_fd(self.next.as_fd(), PollFlags::IN)];
            // A consumer that is killed between its return and the waking wakes nobody: so not for long.
            let longest = Instant::now() + Duration::from_millis(10);
            let until = deadline.map_or(longest, |d| d.min(longest));
            let _ = rustix::event::poll(&mut fds, left(Some(until)).as_ref()); // interrupted: look again
        }
        self.next.wake();
        self.check_next();
        self.collect();
    }

    /// Takes home what the next consumer returned.
    fn collect(&mut self) {
        let before = self.counters.returned;
        // Bounded by the ring back: its places are given back only behind the loop.
        while let Some(slot) = self.next.take_forwarded() {
            if self.home(slot) {
                self.next.settle();
                self.counters.returned += 1;
            } else {
                self.counters.violations += 1;
            }
        }
        self.next.release_returned();
        if self.counters.returned != before {
            self.consumers().iter_mut().for_each(Consumer::flush);
        }
    }

    /// Sends a buffer home that the next consumer holds; answers false if it does not.
    fn home(&mut self, slot: Slot) -> bool {
        let Some(came_by @ 1..) = self.came_by.get_mut(slot.buffer as usize).map(std::mem::take) else { return false };
        self.held -= 1;
        // SAFETY: `came_by` says that this buffer was kept from that consumer and not released since, and
        // taking its mark makes this the one release (invariant).
        unsafe { self.consumers()[usize::from(came_by) - 1].release(slot) };
        true
    }

    /// Looks whether the next consumer is gone (a system call), and takes back what it held.
    fn check_next(&mut self) {
        if self.gone || !self.next.consumer_gone() {
            return;
        }
        self.collect(); // what it returned properly before
        self.gone = true;
        for buffer in 0..self.came_by.len() as u32 {
            self.counters.abandoned += u64::from(self.home(Slot { buffer, ..Slot::default() }));
        }
        self.consumers().iter_mut().for_each(Consumer::flush);
    }

    /// Sends a packet home that could not be passed on.
    fn let_kept_go(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let reader = self.reader.as_mut().expect("taken only in drop");
        for slot in self.kept.drain(..) {
            // SAFETY: kept from the pipe read last, and drained from `kept` here: released once.
            unsafe { reader.current().1.release(slot) };
        }
    }

    /// Whether the next consumer was found to be gone.
    pub fn next_gone(&self) -> bool {
        self.gone
    }

    /// Buffers that the next consumer holds.
    pub fn held_by_next(&self) -> u64 {
        self.held
    }

    /// What it did so far.
    pub fn counters(&self) -> StageCounters {
        StageCounters { violations: self.counters.violations + self.next.violations(), ..self.counters }
    }

    /// Says to the next consumer that no more will come, and waits until it has returned everything,
    /// is gone, or the time is over.
    pub fn finish(mut self, timeout: Option<Duration>) -> StageCounters {
        self.end(timeout.and_then(|t| Instant::now().checked_add(t)));
        self.counters()
    }

    fn end(&mut self, deadline: Option<Instant>) {
        self.let_kept_go();
        self.flush();
        self.next.end();
        while self.held > 0 && !over(deadline) {
            self.wait_for_next(deadline);
        }
        self.counters.quarantined = self.held;
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.held > 0 && self.counters.quarantined == 0 {
            self.end(Some(Instant::now() + PATIENCE));
        }
        if let Some(reader) = self.reader.take().filter(|_| self.held > 0) {
            reader.leave(); // the yard must not overwrite what the next consumer still reads
        }
    }
}

fn over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|d| d <= Instant::now())
}

fn left(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    Some(Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::{Buffer, Geometry, Ledger, Region, Returned, Stock, slot_flags};

    /// What stands for the yard: two dispatchers' pipes to one ring.
    struct Yard {
        region: Region,
        stock: Stock,
        ledger: Ledger,
        pipes: Vec<PipeProducer>,
    }

    const BUFFERS: usize = 64;

    fn yard(slots: u32) -> (Yard, RingReader) {
        let geometry = Geometry::new(2048, 64, BUFFERS).expect("geometry");
        let (region, stock) = Region::create("stage", geometry).expect("region");
        let mut ledger = Ledger::new(&region);
        let (pipes, ends): (Vec<_>, Vec<_>) = (0..2).map(|_| ledger.open_pipe(slots).expect("pipe")).unzip();
        let consumers = ends.into_iter().map(|end| Consumer::attach_local(end).expect("attach")).collect();
        (Yard { ledger, region, stock, pipes }, RingReader::new(0, consumers, Vec::new()))
    }

    impl Yard {
        /// Sends a packet of `segments` buffers by `pipe`; its first byte is `number`.
        fn send(&mut self, pipe: usize, number: u8, segments: usize) {
            let offset = self.region.geometry().packet_offset();
            for n in 0..segments {
                let mut buffer: Buffer = self.stock.take().expect("there is one");
                assert!(self.region.write(&mut buffer, offset, &[number; 4]));
                let flags = if n + 1 < segments { slot_flags::MORE } else { 0 };
                let slot = Slot { offset: offset as u16, len: 4, total: 4, flags, ..Slot::default() };
                self.pipes[pipe].send(&mut self.ledger, buffer, slot).expect("room");
            }
            self.pipes[pipe].commit();
        }

        /// Takes home what came; panics if it came by the wrong pipe. Answers the free buffers.
        fn home(&mut self) -> usize {
            for pipe in &mut self.pipes {
                while let Some((returned, slot)) = pipe.take_returned(&mut self.ledger) {
                    let Returned::Free(buffer) = returned else {
                        panic!("{slot:?} came home by the wrong pipe, or twice")
                    };
                    self.stock.put(buffer);
                }
                pipe.release_returned();
            }
            self.stock.len()
        }
    }

    fn stage(slots: u32) -> (Yard, Stage, Consumer) {
        let (yard, reader) = yard(32);
        let (stage, end) = Stage::new(reader, slots).expect("stage");
        (yard, stage, Consumer::attach_local(end).expect("attach"))
    }

    #[test]
    fn packets_go_on_in_their_buffers_and_come_home_by_their_pipes() {
        let (mut yard, mut stage, mut next) = stage(16);
        (0..6).for_each(|n| yard.send(usize::from(n % 2), n, 1 + usize::from(n) / 2));
        let mut seen = Vec::new();
        while let Some(mut packet) = stage.next() {
            packet.set_annotation(&u64::from(packet.buffer_index())).expect("64 bytes");
            packet.push(2).expect("headroom");
            seen.push((packet.buffer_index(), packet.data().to_vec()));
            stage.pass().expect("12 slots of 16");
            assert_eq!(stage.pass(), Err(NotPassed::NoPacket), "it went on already");
        }
        assert_eq!((seen.len(), stage.held_by_next()), (6, 12));
        assert_eq!(yard.home(), BUFFERS - 12);
        for (index, bytes) in &seen {
            let packet = next.next().expect("as many as passed");
            assert_eq!((packet.buffer_index(), packet.data()), (*index, &bytes[..]));
            assert_eq!(packet.annotation::<u64>().expect("64 bytes"), u64::from(*index));
        }
        drop(next);
        let counters = stage.finish(None);
        let expected = StageCounters { passed: 6, returned: 12, ..StageCounters::default() };
        assert_eq!((yard.home(), counters), (BUFFERS, expected));
    }

    #[test]
    fn what_is_not_passed_on_goes_home() {
        let (mut yard, mut stage, mut next) = stage(2);
        (0..4).for_each(|n| yard.send(0, n, 1));
        yard.send(0, 9, 3);
        let mut outcomes = Vec::new();
        while stage.next().is_some() {
            outcomes.push(stage.pass());
        }
        assert_eq!(outcomes, [Ok(()), Ok(()), Err(NotPassed::Full), Err(NotPassed::Full), Err(NotPassed::TooLong)]);
        assert_eq!(stage.pass(), Err(NotPassed::NoPacket));
        assert_eq!(yard.home(), BUFFERS - 2);
        assert!(next.next().is_some_and(|p| p.data() == [0; 4]) && next.next().is_some() && next.next().is_none());
        stage.flush();
        assert_eq!((yard.home(), stage.counters().returned), (BUFFERS, 2));
    }

    #[test]
    fn waits_for_room_as_long_as_it_takes() {
        let (mut yard, mut stage, mut next) = stage(2);
        let next = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while next.wait(None) != Wait::Ended {
                seen.extend(next.next().map(|p| p.data()[0]));
                std::thread::sleep(Duration::from_millis(1));
            }
            seen
        });
        for n in 0..20 {
            yard.send(usize::from(n % 2), n, 1);
            assert!(stage.wait(None) == Wait::Ready && stage.next().is_some());
            stage.pass_waiting(None).expect("there will be room");
        }
        stage.finish(None);
        assert_eq!((next.join().expect("no panic"), yard.home()), ((0..20).collect(), BUFFERS));
    }

    #[test]
    fn a_forged_return_is_a_violation_and_changes_nothing() {
        let (mut yard, mut stage, mut next) = stage(8);
        yard.send(0, 1, 1);
        yard.send(0, 2, 1);
        let first = stage.next().expect("two were sent").buffer_index();
        stage.pass().expect("room");
        let second = stage.next().expect("two were sent").buffer_index();
        stage.flush();
        for buffer in [second, BUFFERS as u32, u32::MAX] {
            // SAFETY: a lie on purpose: nobody looks at a packet meanwhile.
            unsafe { next.release(Slot { buffer, ..Slot::default() }) };
        }
        stage.flush();
        assert_eq!((stage.counters().violations, stage.held_by_next(), yard.home()), (3, 1, BUFFERS - 2));
        for _ in 0..2 {
            // SAFETY: as above; the second time it is a lie.
            unsafe { next.release(Slot { buffer: first, ..Slot::default() }) };
        }
        stage.flush();
        assert_eq!((stage.counters().violations, stage.held_by_next(), yard.home()), (4, 0, BUFFERS - 1));
    }

    #[test]
    fn a_next_consumer_that_dies_hurts_nobody() {
        let (mut yard, mut stage, mut next) = stage(4);
        (0..8).for_each(|n| yard.send(usize::from(n % 2), n, 1));
        for _ in 0..3 {
            assert!(stage.next().is_some());
            stage.pass().expect("room");
        }
        stage.flush();
        assert!(next.next().is_some());
        drop(next);
        let mut outcomes = Vec::new();
        while stage.next().is_some() {
            outcomes.push(stage.pass());
        }
        // It is noticed as soon as it matters: when there is no room.
        assert_eq!(outcomes, [&[Ok(()); 2][..], &[Err(NotPassed::Gone); 3]].concat());
        assert!(stage.next_gone());
        assert_eq!(stage.wait(Some(Duration::ZERO)), Wait::TimedOut);
        let counters = stage.counters();
        assert_eq!((counters.passed, counters.returned, counters.abandoned), (5, 1, 4));
        assert_eq!((yard.home(), stage.held_by_next()), (BUFFERS, 0));
    }

    #[test]
    fn what_the_next_consumer_still_holds_is_never_given_back() {
        let (mut yard, mut stage, mut next) = stage(4);
        yard.send(0, 7, 1);
        assert!(stage.next().is_some());
        stage.pass().expect("room");
        stage.flush();
        let packet = next.next().expect("one was passed");
        assert_eq!(stage.finish(Some(Duration::from_millis(1))).quarantined, 1);
        assert_eq!((yard.home(), yard.pipes[0].consumer_gone()), (BUFFERS - 1, true));
        assert!(yard.pipes[0].reclaim(&mut yard.ledger, |_| panic!("somebody still reads it")));
        assert!(yard.pipes[1].reclaim(&mut yard.ledger, |_| panic!("nobody had anything")));
        assert_eq!((packet.data(), yard.home()), (&[7; 4][..], BUFFERS - 1));
    }

    #[test]
    fn waiting_wakes_for_packets_returns_and_the_end() {
        let (mut yard, mut stage, mut next) = stage(4);
        yard.send(1, 1, 1);
        assert!(stage.wait(None) == Wait::Ready && stage.next().is_some());
        stage.pass().expect("room");
        let late = Duration::from_millis(20);
        let yard = std::thread::spawn(move || {
            std::thread::sleep(late);
            assert!(next.next().is_some()); // a return: not the stage's caller's business, but it goes home
            next.let_go();
            let deadline = Instant::now() + Duration::from_secs(20);
            while yard.home() < BUFFERS {
                assert!(Instant::now() < deadline, "the stage slept through a return");
                std::thread::sleep(Duration::from_millis(1));
            }
            yard.send(0, 2, 1);
            notify(&mut yard.pipes);
            std::thread::sleep(late);
            yard.pipes.iter_mut().for_each(PipeProducer::end);
            yard
        });
        assert!(stage.wait(None) == Wait::Ready && stage.next().is_some_and(|p| p.data() == [2; 4]));
        assert_eq!(stage.wait(None), Wait::Ended);
        let mut yard = yard.join().expect("no panic");
        assert_eq!(yard.home(), BUFFERS);
    }
}
