//! Sorting packets one after the other, those that must wait for others included: the code path
//! behind `inspect` and `split`, and behind `run` for all packets but the commonest, so that all give a packet the same ring.
//!
//! A later fragment that comes before its first one is held until that is seen, at most
//! [`HOLD_PACKETS`] packets and [`HOLD_NS`] of packet time; what waits in vain goes by addresses, and
//! is counted. Expiry is judged at every packet, never by a clock, so the outcome depends on the
//! packets alone.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use flowyard_steer::{Classifier, Datagram, Decision, Dissection, FragmentMemory, Frame, Hold, Observer, Verdict};

use crate::SharedFragments;

/// Most packets held at a time; one more sends the oldest away.
pub const HOLD_PACKETS: usize = 4096;
/// Longest time held, in nanoseconds of packet time.
pub const HOLD_NS: u64 = 100_000_000;

/// How often the kernel is asked for the first fragments of packets held.
const ASK_AGAIN_NS: u64 = 1_000_000;

/// How a packet came by its ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// By its own headers, or those of a first fragment already seen.
    Direct,
    /// Held, then followed its first fragment.
    Held,
    /// Held in vain: by addresses.
    Fallback,
}

/// What a sorter did beside the ordinary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SorterCounts {
    /// Later fragments that had to wait.
    pub held: u64,
    /// Of these, those whose first fragment came.
    pub followed: u64,
    /// Of these, those that went by addresses because the time was over.
    pub expired: u64,
    /// Of these, those that went by addresses because too many waited, or the source ended.
    pub given_up: u64,
}

struct Held<T> {
    item: T,
    datagram: Datagram,
    fallback: Decision,
    /// First fragments passed on the way down, to be learned when this packet's own hash is known.
    carried: [Option<Datagram>; MAX_CARRIED],
    since_ns: u64,
}

/// Size of the digest of held datagrams.
const DIGESTS: usize = 4096;

fn digest(datagram: &Datagram) -> usize {
    let mut hasher = DefaultHasher::new();
    datagram.hash(&mut hasher);
    hasher.finish() as usize % DIGESTS
}

/// First fragments that one packet can carry (the dissection's own bound).
const MAX_CARRIED: usize = 4;

/// Sorts packets; `T` is what the caller keeps of each (a buffer, a frame number).
///
/// ```
/// use std::sync::Arc;
/// use flowyard::{Sorter, SharedFragments};
/// use flowyard::steer::{Classifier, FlowHash, Frame, LinkType, Policy, Table};
///
/// let classifier = Classifier { policy: Policy::default(), hash: FlowHash::default(), table: Table::even(4)? };
/// let mut sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
/// let packet = [0x45, 0, 0, 24, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 4, 0];
/// sorter.sort(&Frame::new(&packet, LinkType::RAW), 0, "first", |item, decision, _| {
///     assert!(item == "first" && decision.ring < 4);
/// });
/// # Ok::<(), flowyard::steer::TableError>(())
/// ```
pub struct Sorter<T> {
    classifier: Arc<Classifier>,
    memory: SharedFragments,
    held: VecDeque<Held<T>>,
    /// Packets held, by a digest of their datagram: most first fragments see at a glance that nobody
    /// waits for them, however many wait for others.
    waiting: Box<[u16; DIGESTS]>,
    /// First fragments just learned, for which someone may wait. Empty between calls.
    learned: Vec<Datagram>,
    /// First fragments that the packet between `look` and `settle` carries, if anyone might care.
    carried: [Option<Datagram>; MAX_CARRIED],
    /// What `memory.learned_elsewhere()` was when the held packets were last looked at; the time, where the
    /// memory is the kernel's.
    looked_at: u64,
    counts: SorterCounts,
}

impl<T> Sorter<T> {
    /// A sorter with nothing held. Allocates its bound of held packets now.
    pub fn new(classifier: Arc<Classifier>, memory: SharedFragments) -> Sorter<T> {
        let looked_at = memory.learned_elsewhere();
        let held = VecDeque::with_capacity(HOLD_PACKETS + 1);
        Sorter {
            classifier,
            memory,
            held,
            waiting: Box::new([0; DIGESTS]),
            learned: Vec::with_capacity(HOLD_PACKETS),
            carried: [None; MAX_CARRIED],
            looked_at,
            counts: SorterCounts::default(),
        }
    }

    /// Sorts one packet that came at `now_ns`, calling `emit` for every packet whose ring is now
    /// known: none, this one, and those that waited for it or have waited too long.
    #[inline]
    pub fn sort(&mut self, frame: &Frame<'_>, now_ns: u64, item: T, emit: impl FnMut(T, &Decision, Route)) {
        self.sort_observed(frame, now_ns, item, &mut (), emit);
    }

    /// As [`Sorter::sort`], and tells `observer` what dissection meets.
    #[inline]
    pub fn sort_observed<O: Observer>(
        &mut self,
        frame: &Frame<'_>,
        now_ns: u64,
        item: T,
        observer: &mut O,
        emit: impl FnMut(T, &Decision, Route),
    ) {
        let verdict = self.look(frame, now_ns, observer);
        self.settle(&verdict, now_ns, item, emit);
    }

    /// The first half of [`Sorter::sort`]: classifies a packet. Every call is followed by
    /// [`Sorter::settle`] for the same packet.
    #[inline]
    pub fn look<O: Observer>(&mut self, frame: &Frame<'_>, now_ns: u64, observer: &mut O) -> Verdict {
        let mut decision = Decision::BLANK;
        match self.look_into(frame, now_ns, observer, &mut decision) {
            None => Verdict::Ring(decision),
            Some(datagram) => Verdict::Hold(Hold { datagram, fallback: decision }),
        }
    }

    /// As [`Sorter::look`], into `decision`: see [`Classifier::classify_into`]. While nobody
    /// [waits](Sorter::waiting), a packet that need not wait need not be settled either.
    #[inline]
    pub fn look_into<O: Observer>(
        &mut self,
        frame: &Frame<'_>,
        now_ns: u64,
        observer: &mut O,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        let wait = self.classifier.classify_into(frame, &mut self.memory, now_ns, observer, decision);
        self.looked(frame, wait, decision)
    }

    /// As [`Sorter::look_into`], for a packet that a glance was not enough for.
    #[inline]
    pub(crate) fn look_uncommon_into(
        &mut self,
        frame: &Frame<'_>,
        now_ns: u64,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        let wait = self.classifier.classify_uncommon_into(frame, &mut self.memory, now_ns, decision);
        self.looked(frame, wait, decision)
    }

    #[inline(always)]
    fn looked(&mut self, frame: &Frame<'_>, wait: Option<Datagram>, decision: &Decision) -> Option<Datagram> {
        if wait.is_some() || !self.held.is_empty() {
            self.carried = carried(&decision.dissection, frame.bytes);
        }
        wait
    }

    /// The second half: `item` goes on, or waits; and so do those that waited for it or too long.
    #[inline]
    pub fn settle(&mut self, verdict: &Verdict, now_ns: u64, item: T, mut emit: impl FnMut(T, &Decision, Route)) {
        if !self.held.is_empty() {
            self.expire(now_ns, &mut emit);
        }
        match verdict {
            Verdict::Ring(decision) => {
                emit(item, decision, Route::Direct);
                if !self.held.is_empty() {
                    self.release(self.carried, now_ns, &mut emit);
                }
            }
            Verdict::Hold(Hold { datagram, fallback }) => {
                let (datagram, fallback) = (*datagram, *fallback);
                self.hold(Held { item, datagram, fallback, carried: self.carried, since_ns: now_ns }, &mut emit);
            }
        }
    }

    #[cold]
    fn hold(&mut self, held: Held<T>, emit: &mut impl FnMut(T, &Decision, Route)) {
        self.counts.held += 1;
        self.waiting[digest(&held.datagram)] += 1;
        self.held.push_back(held);
        if self.held.len() > HOLD_PACKETS {
            self.give_up_oldest(emit);
        }
    }

    fn remove(&mut self, at: usize) -> Option<Held<T>> {
        let held = self.held.remove(at)?;
        self.waiting[digest(&held.datagram)] -= 1;
        Some(held)
    }

    /// Sends the packet that has waited longest by addresses, for want of room here or of buffers at
    /// the caller's. Answers false if none waits.
    pub fn give_up_oldest(&mut self, emit: &mut impl FnMut(T, &Decision, Route)) -> bool {
        let Some(oldest) = self.remove(0) else { return false };
        self.counts.given_up += 1;
        let now_ns = oldest.since_ns;
        self.fall_back(oldest, now_ns, emit);
        true
    }

    /// Sends a packet by addresses. First fragments that it carries go where it goes, and so do those that
    /// wait for them.
    fn fall_back(&mut self, held: Held<T>, now_ns: u64, emit: &mut impl FnMut(T, &Decision, Route)) {
        emit(held.item, &held.fallback, Route::Fallback);
        for datagram in held.carried.iter().flatten() {
            self.memory.learn(datagram, held.fallback.hash, now_ns);
        }
        self.release(held.carried, now_ns, emit);
    }

    /// Sends those by addresses that have waited longer than [`HOLD_NS`] at `now_ns`. Called by
    /// itself at every packet; a live source that falls silent calls it with the time of day.
    pub fn expire(&mut self, now_ns: u64, emit: &mut impl FnMut(T, &Decision, Route)) {
        // Of a time that is far ahead as well: nobody waits behind it for a clock that was set back.
        while self.held.front().is_some_and(|h| now_ns.abs_diff(h.since_ns) > HOLD_NS) {
            let Some(held) = self.remove(0) else { break };
            self.counts.expired += 1;
            self.fall_back(held, now_ns, emit);
        }
    }

    /// Lets those go that wait for one of `learned`; each may make others known in turn, whose names
    /// go on a list (a chain can be as long as packets are held, so no recursion).
    #[inline]
    fn release(
        &mut self,
        learned: [Option<Datagram>; MAX_CARRIED],
        now_ns: u64,
        emit: &mut impl FnMut(T, &Decision, Route),
    ) {
        self.note(learned);
        while let Some(datagram) = self.learned.pop() {
            if self.waiting[digest(&datagram)] > 0 {
                self.look_again(Some(&datagram), now_ns, emit);
            }
        }
    }

    fn note(&mut self, learned: [Option<Datagram>; MAX_CARRIED]) {
        for datagram in learned.into_iter().flatten() {
            if self.learned.len() < HOLD_PACKETS {
                self.learned.push(datagram); // beyond the bound, those who wait go by addresses in time
            }
        }
    }

    /// Lets those go whose first fragment another dispatcher or the kernel has seen. Cheap when nothing waits or
    /// nothing was learned; to be called once a batch.
    pub fn refresh(&mut self, now_ns: u64, emit: &mut impl FnMut(T, &Decision, Route)) {
        if !self.held.is_empty() && self.memory.is_silent() {
            // Nobody says that a first fragment came by: asked again, but not at every batch.
            if now_ns.abs_diff(self.looked_at) >= ASK_AGAIN_NS {
                self.looked_at = now_ns;
                self.look_again(None, now_ns, emit);
                self.release([None; MAX_CARRIED], now_ns, emit);
            }
            return;
        }
        if !self.held.is_empty() && self.looked_at != self.memory.learned_elsewhere() {
            self.looked_at = self.memory.learned_elsewhere();
            self.look_again(None, now_ns, emit);
            self.release([None; MAX_CARRIED], now_ns, emit);
        }
    }

    /// Looks through the held packets for those of `datagram`, or all, and lets go what is known.
    #[cold]
    fn look_again(&mut self, datagram: Option<&Datagram>, now_ns: u64, emit: &mut impl FnMut(T, &Decision, Route)) {
        let mut at = 0;
        while let Some(held) = self.held.get(at) {
            let wanted = datagram.is_none_or(|d| held.datagram == *d);
            let Some(hash) = wanted.then(|| self.memory.recall(&held.datagram, now_ns)).flatten() else {
                at += 1;
                continue;
            };
            let Some(held) = self.remove(at) else { break };
            let decision = Decision { ring: self.classifier.table.ring(hash), hash, ..held.fallback };
            self.counts.followed += 1;
            emit(held.item, &decision, Route::Held);
            for datagram in held.carried.iter().flatten() {
                self.memory.learn(datagram, hash, now_ns);
            }
            self.note(held.carried);
        }
    }

    /// Sends everything that still waits by addresses: the source has ended.
    pub fn finish(&mut self, mut emit: impl FnMut(T, &Decision, Route)) {
        while self.give_up_oldest(&mut emit) {}
    }

    /// Where first fragments went, as this sorter knows it.
    pub(crate) fn memory(&mut self) -> &mut SharedFragments {
        &mut self.memory
    }

    /// Packets that wait now.
    pub fn waiting(&self) -> usize {
        self.held.len()
    }

    /// What it did beside the ordinary.
    pub fn counts(&self) -> SorterCounts {
        self.counts
    }

    /// Sorts by another classifier from now on, of the same number of rings; what waits goes by it as well.
    pub fn set_classifier(&mut self, classifier: Arc<Classifier>) {
        debug_assert_eq!(classifier.table.rings(), self.classifier.table.rings());
        self.classifier = classifier;
    }

    /// What it sorts by.
    pub fn classifier(&self) -> &Arc<Classifier> {
        &self.classifier
    }
}

fn carried(dissection: &Dissection, bytes: &[u8]) -> [Option<Datagram>; MAX_CARRIED] {
    let mut firsts = dissection.first_fragments(bytes);
    std::array::from_fn(|_| firsts.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::{FlowHash, LinkType, Policy, Table};

    /// A raw IPv4 UDP fragment: offset in bytes, more to come or not.
    fn fragment(id: u16, offset: u16, more: bool) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6..8].copy_from_slice(&(offset / 8 + (u16::from(more) << 13)).to_be_bytes());
        packet.extend([0x11, id as u8, 0x22, 0x22, 0, 8, 0, 0]);
        packet
    }

    fn sorter() -> Sorter<u32> {
        let classifier =
            Classifier { policy: Policy::default(), hash: FlowHash::default(), table: Table::even(64).expect("64") };
        Sorter::new(Arc::new(classifier), SharedFragments::default())
    }

    fn run(sorter: &mut Sorter<u32>, packets: &[(Vec<u8>, u64)]) -> Vec<(u32, u16, Route)> {
        let mut out = Vec::new();
        for (n, (bytes, time)) in packets.iter().enumerate() {
            sorter.sort(&Frame::new(bytes, LinkType::RAW), *time, n as u32, |n, d, route| out.push((n, d.ring, route)));
        }
        sorter.finish(|n, d, route| out.push((n, d.ring, route)));
        out
    }

    #[test]
    fn a_later_fragment_waits_for_its_first() {
        let packets = [
            (fragment(7, 8, true), 0),
            (fragment(9, 8, false), 1),
            (fragment(7, 16, false), 2),
            (fragment(7, 0, true), 3),
        ];
        let mut sorter = sorter();
        let out = run(&mut sorter, &packets);
        let ring = out[0].1;
        assert_eq!(out[..3], [(3, ring, Route::Direct), (0, ring, Route::Held), (2, ring, Route::Held)]);
        assert_eq!((out[3].0, out[3].2), (1, Route::Fallback));
        assert_eq!(sorter.counts(), SorterCounts { held: 3, followed: 2, expired: 0, given_up: 1 });
    }

    #[test]
    fn waiting_is_bounded_in_packet_time_and_in_number() {
        let mut sorter = sorter();
        let out = run(&mut sorter, &[(fragment(1, 8, false), 0), (fragment(2, 0, true), HOLD_NS + 1)]);
        assert_eq!((out[0].0, out[0].2, out[1].0), (0, Route::Fallback, 1));
        assert_eq!(sorter.counts().expired, 1);

        let flood: Vec<_> = (0..HOLD_PACKETS as u32 + 10).map(|n| (fragment(n as u16, 8, false), 5)).collect();
        let mut released = 0;
        for (n, (bytes, time)) in flood.iter().enumerate() {
            sorter.sort(&Frame::new(bytes, LinkType::RAW), *time, n as u32, |_, _, _| released += 1);
        }
        assert_eq!((sorter.waiting(), released), (HOLD_PACKETS, 10));
    }

    /// A packet whose time is far ahead of all others does not keep those behind it.
    #[test]
    fn nobody_waits_behind_a_clock_that_was_set_back() {
        let mut sorter = sorter();
        let mut packets = vec![(fragment(1, 8, false), u64::MAX / 2)];
        packets.extend((0..50).map(|n| (fragment(2 + n, 8, false), u64::from(n) * 2 * HOLD_NS)));
        run(&mut sorter, &packets);
        assert_eq!((sorter.counts().expired, sorter.counts().given_up), (50, 1));
    }

    /// The first piece of a tunnel's datagram carries a later fragment whose own first is lost.
    #[test]
    fn what_carries_a_lost_fragment_stays_whole() {
        let outer = |offset: u16, more, payload: &[u8]| {
            let mut packet = fragment(9, offset, more);
            packet.truncate(20);
            (packet[3], packet[9], packet[15]) = (20 + payload.len() as u8, 4, 7);
            packet.extend(payload);
            packet
        };
        let inner = fragment(7, 8, false);
        let packets = [
            (outer(0, true, &inner[..24]), 0),
            (outer(24, false, &inner[24..]), 1),
            (fragment(3, 0, true), HOLD_NS + 1),
        ];
        let mut sorter = sorter();
        let out = run(&mut sorter, &packets);
        assert_eq!(out[..2], [(0, out[0].1, Route::Fallback), (1, out[0].1, Route::Held)]);
        assert_eq!(sorter.counts(), SorterCounts { held: 2, followed: 1, expired: 1, given_up: 0 });
    }

    #[test]
    fn another_dispatchers_first_fragment_is_seen() {
        let memory = SharedFragments::default();
        let classifier = sorter().classifier().clone();
        let (mut a, mut b) = (Sorter::new(classifier.clone(), memory.clone()), Sorter::new(classifier, memory));
        let mut rings = Vec::new();
        a.sort(&Frame::new(&fragment(7, 8, false), LinkType::RAW), 0, 0, |_, _, _| panic!("must wait"));
        b.sort(&Frame::new(&fragment(7, 0, true), LinkType::RAW), 1, 1, |n, d, _| rings.push((n, d.ring)));
        a.refresh(2, &mut |n, d: &Decision, _| rings.push((n, d.ring)));
        assert_eq!(rings.len(), 2);
        assert_eq!(rings[0].1, rings[1].1);
    }
}
