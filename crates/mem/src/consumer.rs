//! The consumer's end of a pipe: take packets, look, annotate, let go.
//!
//! Owned by one thread. A packet is the consumer's from [`Consumer::next`] until it is dropped, and
//! then the buffer goes home through the ring back. [`Consumer::keep`] holds one longer, for a later
//! stage. Slots are copied from the ring up to 32 at a time, each once, before they are judged. Never
//! allocates but for the segments of a packet larger than any before.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::hand::{Hand, Packet};
use crate::pipe::{self, ConsumerRings, Handover, PipeEnd};
use crate::slot::{RETURN_WORDS, SLOT_WORDS, Slot, slot_flags};
use crate::wakeup::Wakeup;
use crate::{Grant, MemError, Region};

/// Why waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// There are packets.
    Ready,
    /// The time is over.
    TimedOut,
    /// The yard has ended the pipe, or is gone, and all packets were taken.
    Ended,
}

/// The reading end of a ring, and the way home for its buffers.
///
/// ```
/// use flowyard_mem::{Consumer, Geometry, Ledger, Region, Slot, notify};
/// let (region, mut stock) = Region::create("doc", Geometry::new(2048, 64, 16)?)?;
/// let mut ledger = Ledger::new(&region);
/// let (mut out, end) = ledger.open_pipe(8)?;
/// let mut consumer = Consumer::attach_local(end)?;
///
/// let mut buffer = stock.take().expect("16 are free");
/// let offset = region.geometry().packet_offset();
/// assert!(region.write(&mut buffer, offset, b"packet"));
/// let slot = Slot { offset: offset as u16, len: 6, total: 6, ..Slot::default() };
/// out.send(&mut ledger, buffer, slot).expect("the ring is empty");
/// out.commit();
/// notify([&mut out]);
///
/// let packet = consumer.next().expect("one was committed");
/// assert_eq!(packet.data(), b"packet");
/// # Ok::<(), flowyard_mem::MemError>(())
/// ```
#[derive(Debug)]
pub struct Consumer {
    /// The packet last taken, if it is not yet returned.
    hand: Hand,
    rings: ConsumerRings,
    /// Slots copied from the ring out together; from `at` to `filled` those that are still to be looked at. Their places
    /// are the yard's again when they have been.
    slots: [[u64; SLOT_WORDS]; BATCH],
    at: usize,
    filled: usize,
    wakeup: Wakeup,
    /// Slots copied since the ring out was last released, or then still to be looked at; more than an array's within a packet
    /// of many.
    unreleased: usize,
    malformed: u64,
    /// The yard's end of the wakeup was closed.
    yard_gone: bool,
    /// `prepare_to_wait` announced sleep.
    announced: bool,
    /// Kept open while packets may be looked at; last, so that it is closed when they are not any more.
    lifeline: Option<Arc<OwnedFd>>,
}

impl std::fmt::Debug for ConsumerRings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsumerRings").finish_non_exhaustive()
    }
}

/// Slots after which places and returns are shown to the yard, where the next packet begins.
const BATCH: usize = 32;

impl Consumer {
    /// Attaches to a pipe handed over by another process.
    ///
    /// # Errors
    /// [`MemError::Header`] if a descriptor is not what it should be, of another ABI version, or could
    /// shrink.
    pub fn attach(parts: Handover, grant: Grant) -> Result<Consumer, MemError> {
        let pipes = parts.pipes.len() as u64;
        let mut consumers = Consumer::attach_all(parts, grant)?;
        consumers.pop().filter(|_| pipes == 1).ok_or(MemError::Header {
            object: "handover",
            what: "number of pipes",
            found: pipes,
            expected: 1,
            remedy: "attach to all of them",
        })
    }

    /// Attaches to pipes handed over by another process, of one region, which is mapped once.
    ///
    /// # Errors
    /// As [`Consumer::attach`].
    pub fn attach_all(parts: Handover, grant: Grant) -> Result<Vec<Consumer>, MemError> {
        let region = Region::attach(parts.region, grant)?;
        let lifeline = parts.lifeline.map(Arc::new);
        let over = |(pipe, wakeup)| {
            let rings = pipe::attach(&region, &pipe)?;
            let mut consumer = Consumer::over(region.clone(), rings, Wakeup::from_fd(wakeup));
            consumer.lifeline = lifeline.clone();
            Ok(consumer)
        };
        parts.pipes.into_iter().map(over).collect()
    }

    /// A copy of what is kept open while packets may be looked at, for a later consumer of them.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub fn lifeline(&self) -> Result<Option<OwnedFd>, MemError> {
        let copy = |fd: &Arc<OwnedFd>| crate::map::duplicate(fd, "lifeline");
        self.lifeline.as_ref().map(copy).transpose()
    }

    /// Attaches in the yard's own process, sharing its mappings of region and pipe.
    ///
    /// # Errors
    /// None now: nothing has to be mapped.
    pub fn attach_local(end: PipeEnd) -> Result<Consumer, MemError> {
        let (region, rings, wakeup) = end.into_local();
        Ok(Consumer::over(region, rings, wakeup))
    }

    fn over(region: Region, rings: ConsumerRings, wakeup: Wakeup) -> Consumer {
        let mut hand = Hand::new(&region);
        hand.goes_back = true;
        Consumer {
            hand,
            rings,
            slots: [[0; SLOT_WORDS]; BATCH],
            at: 0,
            filled: 0,
            wakeup,
            unreleased: 0,
            malformed: 0,
            yard_gone: false,
            announced: false,
            lifeline: None,
        }
    }

    /// The next packet, or `None` when there is none now. Never blocks. The packet before it goes
    /// home.
    #[allow(clippy::should_implement_trait)] // a lending iterator: the packet borrows the consumer
    #[inline]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        if !self.fetch() {
            return None;
        }
        self.hand.packet()
    }

    /// Whether there is a packet to take. Never blocks.
    #[inline]
    pub fn has_next(&mut self) -> bool {
        self.at < self.filled || self.rings.out.reserve() > 0
    }

    /// Whether the yard has ended the pipe and everything was taken.
    pub fn is_ended(&mut self) -> bool {
        (self.rings.ended.is_set() || self.yard_gone) && !self.has_next()
    }

    /// Whether the yard has said that no more will come, as it does at its end; and not just fallen silent, as when
    /// it was killed.
    pub fn ended_in_order(&self) -> bool {
        self.rings.ended.is_set()
    }

    /// Takes the slots of one packet into the hand.
    #[inline]
    fn fetch(&mut self) -> bool {
        self.give_back_current();
        if self.at < self.filled {
            let slot = Slot::from_words(self.slots[self.at % BATCH]); // below BATCH as it is, which the compiler does not know
            // SAFETY: as in `fetch_any`.
            if slot.flags & slot_flags::MORE == 0 && unsafe { self.hand.take(slot) } {
                self.at += 1;
                return true;
            }
        }
        self.fetch_any()
    }

    /// The same, of a packet of any number of slots, and where none are at hand.
    #[cold]
    #[inline(never)]
    fn fetch_any(&mut self) -> bool {
        // Where a packet begins, and nowhere in it: who sends one without an end sends no more than the ring holds.
        if self.at == self.filled && self.unreleased >= BATCH {
            self.flush();
        }
        while self.at < self.filled || self.refill() {
            let slot = Slot::from_words(self.slots[self.at]);
            self.at += 1;
            // SAFETY: the yard keeps its hands off what this pipe holds (its ledger), marks what others hold as well
            // (PipeProducer::send_shared), and the hand is emptied before the slot goes home.
            if !unsafe { self.hand.take(slot) } {
                self.malformed += 1; // the yard is trusted, yet that it is within the region does not rest on it
                self.give_back(slot.to_return());
            } else if slot.flags & slot_flags::MORE == 0 {
                return true;
            }
        }
        false
    }

    /// Copies the next slots from the ring out, behind those that were copied since the last release, or in their place where
    /// all were looked at. Answers false if there is none now.
    #[cold]
    #[inline(never)]
    fn refill(&mut self) -> bool {
        if self.rings.out.reserve() == 0 {
            self.flush();
            return false;
        }
        let from = if self.unreleased < BATCH { self.unreleased } else { 0 };
        let taken = self.rings.out.take_into(&mut self.slots[from..]) as usize;
        (self.at, self.filled) = (from, from + taken);
        self.unreleased += taken;
        true
    }

    #[inline]
    fn give_back(&mut self, slot: [u64; RETURN_WORDS]) {
        if !self.rings.back.fill(slot) {
            self.give_back_late(slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back_late(&mut self, slot: [u64; RETURN_WORDS]) {
        // The yard keeps the ring back larger than what it lets be out, so this fits; if it does not,
        // the peer broke the pipe and the buffer is its own loss.
        self.rings.back.reserve(1);
        let _ = self.rings.back.fill(slot);
    }

    /// Sends the packet last taken home without taking another, and shows the yard what was returned
    /// so far. Waiting does it as well: who waits is done with what it saw.
    pub fn let_go(&mut self) {
        self.give_back_current();
        self.flush();
    }

    #[inline]
    fn give_back_current(&mut self) {
        if std::mem::take(&mut self.hand.has_current) {
            self.give_back(self.hand.current.to_return());
            if !self.hand.further.is_empty() {
                self.give_back_further();
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back_further(&mut self) {
        let further = &mut self.hand.further;
        let count = further.len() as u32;
        self.rings.back.reserve(count); // there is room, as in `give_back_late`
        self.rings.back.fill_batch(count, |n| further[n].to_return()); // in order: the packet may be sent
        further.clear();
    }

    /// Shows the yard what was looked at and returned so far. Called by itself every 32 slots, where a packet begins, and
    /// whenever the ring is empty.
    pub fn flush(&mut self) {
        let unseen = self.filled - self.at;
        self.rings.back.commit();
        self.rings.out.release_but(unseen as u32);
        self.unreleased = unseen;
        crate::ring::full_fence(); // S1 of crate::ring, for the yard as sleeper
        if self.rings.back.wants_waking() {
            self.wakeup.ring();
        }
    }

    /// Sleeps until there are packets, the pipe has ended, or the time is over. No system call when
    /// there are packets.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Wait {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        self.give_back_current();
        if std::mem::take(&mut self.announced) {
            self.rings.out.wake();
        }
        loop {
            let ended = self.rings.ended.is_set(); // before looking: what it committed is seen after
            if self.has_next() {
                return Wait::Ready;
            }
            self.flush();
            if ended {
                return Wait::Ended;
            }
            self.wakeup.drain();
            self.yard_gone |= self.wakeup.peer_gone();
            if self.rings.ended.is_set() {
                continue; // its wakeup may just have been drained
            }
            if self.yard_gone {
                return if self.rings.out.reserve() > 0 { Wait::Ready } else { Wait::Ended };
            }
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            if left.is_some_and(|l| l.is_zero()) {
                return Wait::TimedOut;
            }
            if !self.rings.out.sleep() {
                return Wait::Ready;
            }
            self.wakeup.wait(left);
            self.rings.out.wake();
        }
    }

    /// Announces that the caller will wait on [`Consumer::as_fd`] itself (poll, epoll, an async
    /// runtime). Answers false if there are packets already. After waking call [`Consumer::wait`] with
    /// no time, which takes the announcement back.
    pub fn prepare_to_wait(&mut self) -> bool {
        self.let_go();
        if std::mem::take(&mut self.announced) {
            self.rings.out.wake();
        }
        self.announced = !self.is_ended() && !self.has_next() && self.rings.out.sleep();
        self.announced
    }

    /// Whether sleep was announced by [`Consumer::prepare_to_wait`], and not yet taken back.
    pub fn is_waiting(&self) -> bool {
        self.announced
    }

    /// Readable when there may be packets after [`Consumer::prepare_to_wait`] answered true.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// The region that slots of this ring index.
    pub fn region(&self) -> &Region {
        &self.hand.region
    }

    /// Takes the packet just seen out of the automatic return: its slots are appended to `kept`, to be
    /// given back by [`Consumer::release`] later, in any order, or passed on to a later stage.
    pub fn keep(&mut self, kept: &mut Vec<Slot>) {
        if std::mem::take(&mut self.hand.has_current) {
            kept.push(self.hand.current);
            kept.append(&mut self.hand.further);
        }
    }

    /// Gives back a slot that was kept.
    ///
    /// # Safety
    /// The slot came from [`Consumer::keep`] of this consumer and is released once. (One released twice
    /// may come home while its buffer is lent again.)
    pub unsafe fn release(&mut self, slot: Slot) {
        self.give_back(slot.to_return());
        self.rings.back.commit();
    }

    /// Leaves for good, while a later consumer still holds what this one passed on: the yard sends no more,
    /// and keeps those buffers out of use rather than overwrite them while they are read.
    pub fn leave(self) {
        self.rings.leaving.set();
    }

    /// Slots that named no part of the region, and impossible indices: signs of a broken yard.
    pub fn malformed(&self) -> u64 {
        self.malformed + self.rings.out.violations() + self.rings.back.violations()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Geometry, Ledger, Returned, pipe};

    #[test]
    fn who_waits_is_done_with_what_it_saw() {
        let (region, mut stock) = Region::create("wait", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let mut ledger = Ledger::new(&region);
        let (mut out, end) = ledger.open_pipe(4).expect("pipe");
        let mut consumer = Consumer::attach_local(end).expect("attach");
        for wait in [|c: &mut Consumer| c.wait(Some(Duration::ZERO)) == Wait::TimedOut, Consumer::prepare_to_wait] {
            let slot = Slot { offset: 256, len: 4, total: 4, ..Slot::default() };
            out.send(&mut ledger, stock.take().expect("4 are free"), slot).expect("room");
            out.commit();
            assert!(consumer.next().is_some() && out.take_returned(&mut ledger).is_none());
            assert!(wait(&mut consumer));
            assert!(matches!(out.take_returned(&mut ledger), Some((Returned::Free(_), _))));
            out.release_returned();
        }
    }

    /// Slots are copied many at a time: their places are the yard's again when they have been seen, not before, and while
    /// some have not been nobody sleeps, or hears of the end.
    #[test]
    fn slots_at_hand_count_as_on_the_ring() {
        let (region, mut stock) = Region::create("hand", Geometry::new(2048, 0, 8).expect("geometry")).expect("region");
        let mut ledger = Ledger::new(&region);
        let (mut out, end) = ledger.open_pipe(4).expect("pipe");
        let mut consumer = Consumer::attach_local(end).expect("attach");
        for hash in 0..4 {
            let slot = Slot { offset: 256, len: 4, total: 4, hash, ..Slot::default() };
            out.send(&mut ledger, stock.take().expect("8 are free"), slot).expect("room");
        }
        out.commit();
        out.end();
        for seen in 0..4 {
            assert_eq!(out.reserve(4), seen);
            assert!(consumer.has_next() && !consumer.is_ended() && !consumer.prepare_to_wait());
            assert_eq!(consumer.wait(None), Wait::Ready);
            assert_eq!(consumer.next().map(|packet| packet.slot().hash), Some(seen));
            consumer.let_go();
        }
        assert_eq!(out.reserve(4), 4);
        assert!(!consumer.has_next() && consumer.is_ended() && consumer.next().is_none());
        assert_eq!(consumer.wait(None), Wait::Ended);
    }

    proptest::proptest! {
        /// Whatever a consumer does between packets, of one slot or several: it sees each once, in order, and all come home.
        #[test]
        fn packets_come_once_in_order(actions in proptest::collection::vec((0u8..8, 1u16..4), 0..300)) {
            let (region, mut stock) = Region::create("order", Geometry::new(2048, 0, 200).expect("geometry")).expect("region");
            let mut ledger = Ledger::new(&region);
            let (mut out, end) = ledger.open_pipe(64).expect("pipe");
            let mut consumer = Consumer::attach_local(end).expect("attach");
            let (mut sent, mut seen, mut kept) = (0, 0, Vec::new());
            for (action, parts) in actions {
                match action {
                    // Until there is no more room: of what the ring back could not hold as well.
                    1 if parts == 1 => while let Some(buffer) = stock.take() {
                        let slot = Slot { offset: 256, len: 1, hash: sent, ..Slot::default() };
                        if let Err(buffer) = out.send(&mut ledger, buffer, slot) {
                            stock.put(buffer);
                            proptest::prop_assert_eq!(out.reserve(1), 0);
                            out.commit();
                            break;
                        }
                        sent += 1;
                        proptest::prop_assert!(out.outstanding() <= 128 && ledger.held() == out.outstanding());
                    },
                    0 | 1 => for _ in 0..10 {
                        if out.reserve(parts.into()) < parts.into() { break }
                        for part in 0..parts {
                            let flags = if part + 1 < parts { slot_flags::MORE } else { 0 };
                            let slot = Slot { offset: 256, len: parts, hash: sent, flags, ..Slot::default() };
                            out.send(&mut ledger, stock.take().expect("more than both rings hold"), slot).expect("room");
                        }
                        sent += 1;
                        out.commit();
                    },
                    2..4 => for _ in 0..7 * parts {
                        let Some(packet) = consumer.next() else { proptest::prop_assert_eq!(seen, sent); break };
                        proptest::prop_assert_eq!((packet.slot().hash, packet.len()), (seen, usize::from(packet.slot().len).pow(2)));
                        seen += 1;
                    },
                    4 => consumer.keep(&mut kept),
                    5 => consumer.let_go(),
                    // SAFETY: each was kept, and is released once.
                    6 => kept.drain(..).for_each(|slot| unsafe { consumer.release(slot) }),
                    7 if parts == 1 => {
                        let mut left = out.look_for_returned();
                        while left > 0 {
                            proptest::prop_assert_eq!(out.take_home(&mut ledger, &mut stock, &mut left), None);
                        }
                        out.release_returned();
                    }
                    _ => {
                        out.take_all_returned(&mut ledger, 20, |returned, _| match returned {
                            Returned::Free(buffer) => stock.put(buffer),
                            other => panic!("{other:?}"),
                        });
                        out.release_returned();
                    }
                }
            }
            while consumer.next().is_some() { seen += 1; }
            // SAFETY: as above.
            kept.drain(..).for_each(|slot| unsafe { consumer.release(slot) });
            out.take_all_returned(&mut ledger, u32::MAX, |returned, _| if let Returned::Free(buffer) = returned { stock.put(buffer) });
            proptest::prop_assert_eq!((seen, stock.len(), ledger.held(), out.outstanding()), (sent, 200, 0, 0));
            proptest::prop_assert_eq!((consumer.malformed(), out.violations()), (0, 0));
        }
    }

    /// A consumer that may only read has packets sent as they are, or less; what it could not write it cannot push.
    #[test]
    fn a_packet_goes_back_to_be_sent_with_all_its_slots_in_order() {
        use crate::{PacketError, Verdict, hand::Hand};
        let (region, mut stock) = Region::create("out", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let mut ledger = Ledger::new(&region);
        let (mut out, end) = ledger.open_pipe(4).expect("pipe");
        let parts = end.handover(Grant::Read).expect("a grant");
        let mut consumer = Consumer::attach(parts, Grant::Read).expect("attach");
        let mut send = |flags, len| {
            let slot = Slot { offset: 256, len, total: 12, port: 9, flags, ..Slot::default() };
            out.send(&mut ledger, stock.take().expect("4 are free"), slot).expect("room");
        };
        send(slot_flags::MORE, 6);
        send(slot_flags::MORE | slot_flags::CONTINUES, 4);
        send(slot_flags::CONTINUES, 2);
        send(0, 6);
        out.commit();
        let mut packet = consumer.next().expect("three slots");
        packet.pull(2).expect("6 bytes");
        assert_eq!(packet.transmit(3), Ok(()));
        let mut packet = consumer.next().expect("one slot");
        packet.push(2).expect("headroom");
        assert_eq!(packet.transmit(3), Err(PacketError::ReadOnly));
        consumer.let_go();
        let (sent, free) = (Verdict::Transmit as u8, Verdict::Free as u8);
        for expected in [(258, 4, sent, 3, 0), (256, 4, sent, 3, 1), (256, 2, sent, 3, 2), (254, 8, free, 9, 3)] {
            let Some((Returned::Free(buffer), slot)) = out.take_returned(&mut ledger) else {
                panic!("four were let go")
            };
            assert_eq!((slot.offset, slot.len, slot.verdict, slot.port, buffer.index()), expected);
        }
        // One that was taken from somewhere else goes back to no yard.
        let mut hand = Hand::new(&region);
        // SAFETY: nobody has this buffer: all came home, and none was sent again.
        assert!(unsafe { hand.take(Slot { offset: 256, len: 6, ..Slot::default() }) });
        assert_eq!(hand.packet().expect("just taken").transmit(0), Err(PacketError::NoWayBack));
    }

    #[test]
    fn waiting_beyond_all_time_is_waiting_without_end() {
        let (region, _stock) = Region::create("long", Geometry::new(2048, 0, 1).expect("geometry")).expect("region");
        let (mut out, end) = pipe(&region, 2).expect("pipe");
        let mut consumer = Consumer::attach_local(end).expect("attach");
        out.end();
        assert_eq!(consumer.wait(Some(Duration::MAX)), Wait::Ended);
    }

    #[test]
    fn the_end_is_heard_whenever_it_comes() {
        let (region, _stock) = Region::create("end", Geometry::new(2048, 0, 1).expect("geometry")).expect("region");
        let (mut ends, mut outs) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let (out, end) = pipe(&region, 2).expect("pipe");
            outs.push(out);
            ends.push(Consumer::attach_local(end).expect("attach"));
        }
        // The yard's ends stay open: nothing but the end itself is there to be heard.
        let (tell, heard) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for mut consumer in ends {
                let state = consumer.wait(None);
                tell.send(state).expect("the test listens");
            }
        });
        for (n, out) in outs.iter_mut().enumerate() {
            (0..n * 37 % 4000).for_each(|_| std::hint::spin_loop());
            out.end();
            assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(Wait::Ended), "slept through end {n}");
        }
        thread.join().expect("no panic");
    }
}
