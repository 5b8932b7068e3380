//! Flows that were shunted away: their packets are not shown to the function, nor delivered.
//!
//! One table for all dispatchers, because cards put the two directions of a conversation on different
//! queues. Sets of four; a full set gives up the flow that would have ended first. Two words an entry, read
//! and written as relaxed and acquire/release atomics: a reader that meets a writer sees no shunt, for
//! that packet. A look-up is one cache line, and nothing at all while no flow is shunted. A flow is known
//! by its conversation's hash (its set, and 20 bits) and 64 bits of a second, randomly keyed one (SipHash): two
//! flows that share both would share their fate, one pair in 2^96 or nearly so.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowyard_steer::{Conversation, Dissection};

const SETS: usize = 1 << 14;
const WAYS: usize = 4;
/// Unit of the time of ending: 2^20 ns, about a millisecond. 44 bits of it hold any time: what has ended does not
/// begin again when a counter has gone half round.
const TICK_SHIFT: u32 = 20;
/// Bits of the time of ending; above them are 20 bits of the hash.
const END_BITS: u32 = 44;

#[derive(Default)]
#[repr(align(64))]
struct Set([Entry; WAYS]);

#[derive(Default)]
struct Entry {
    /// 20 bits of the conversation's hash above, time of ending below; 0 is none.
    head: AtomicU64,
    fingerprint: AtomicU64,
}

/// Up to 65,536 shunted flows, 1 MiB. Clones share them.
#[derive(Clone)]
pub(crate) struct Shunts {
    inner: Arc<Inner>,
}

struct Inner {
    sets: Box<[Set]>,
    keys: RandomState,
    /// Flows ever shunted: nothing is looked up while it is zero.
    shunted: AtomicU64,
    evicted: AtomicU64,
}

fn tick(now_ns: u64) -> u64 {
    now_ns >> TICK_SHIFT
}

/// The time of ending in a head.
fn end(head: u64) -> u64 {
    head & ((1 << END_BITS) - 1)
}

/// Whether a head is one of this hash.
fn is_of(head: u64, hash: u32) -> bool {
    head != 0 && head >> END_BITS == u64::from(hash) & 0xf_ffff
}

impl Default for Shunts {
    fn default() -> Shunts {
        let sets = (0..SETS).map(|_| Set::default()).collect();
        let (shunted, evicted) = (AtomicU64::new(0), AtomicU64::new(0));
        Shunts { inner: Arc::new(Inner { sets, keys: RandomState::new(), shunted, evicted }) }
    }
}

impl Shunts {
    fn set(&self, hash: u32) -> &[Entry; WAYS] {
        &self.inner.sets[hash.wrapping_mul(0x9e37_79b1) as usize >> (32 - SETS.trailing_zeros())].0
    }

    fn fingerprint(&self, conversation: &Conversation) -> u64 {
        self.inner.keys.hash_one(conversation)
    }

    /// Shunts the conversation of a packet until `milliseconds` after `now_ns`.
    pub(crate) fn add(&self, hash: u32, conversation: &Conversation, now_ns: u64, milliseconds: u32) {
        let now = tick(now_ns);
        let for_ticks = ((u64::from(milliseconds) * 1_000_000) >> TICK_SHIFT).max(1);
        let until = (now + for_ticks).min((1 << END_BITS) - 1);
        let (set, fingerprint) = (self.set(hash), self.fingerprint(conversation));
        // How much longer it is there: nothing for one that is free, has ended, or is this flow's own.
        let left = |entry: &Entry| {
            let head = entry.head.load(Ordering::Relaxed); // a choice among entries: any value will do
            let known = is_of(head, hash) && entry.fingerprint.load(Ordering::Relaxed) == fingerprint;
            if known { (0, 0) } else { (1, end(head).saturating_sub(now)) }
        };
        let Some(entry) = set.iter().min_by_key(|entry| left(entry)) else { return };
        if left(entry).1 > 0 {
            self.inner.evicted.fetch_add(1, Ordering::Relaxed); // a figure
        }
        entry.head.store(0, Ordering::Relaxed);
        // Release: who sees the new fingerprint (Acquire in `covers`) sees that the old head is gone.
        entry.fingerprint.store(fingerprint, Ordering::Release);
        // Release: pairs with the Acquire in `covers`, so that the fingerprint is the one of this head.
        entry.head.store((u64::from(hash) & 0xf_ffff) << END_BITS | until, Ordering::Release);
        self.inner.shunted.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the packet's conversation is shunted.
    #[inline]
    pub(crate) fn covers(&self, hash: u32, dissection: &Dissection, bytes: &[u8], now_ns: u64) -> bool {
        // Relaxed: a flow shunted elsewhere this moment is seen a moment later.
        self.inner.shunted.load(Ordering::Relaxed) > 0 && self.looked_up(hash, dissection, bytes, now_ns)
    }

    fn looked_up(&self, hash: u32, dissection: &Dissection, bytes: &[u8], now_ns: u64) -> bool {
        let now = tick(now_ns);
        self.set(hash).iter().any(|entry| {
            let head = entry.head.load(Ordering::Acquire); // pairs with the Release in `add`
            is_of(head, hash)
                && end(head) > now
                && entry.fingerprint.load(Ordering::Acquire) == self.fingerprint(&dissection.conversation(bytes))
        })
    }

    /// Flows shunted and evicted before their time, over all dispatchers.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.inner.shunted.load(Ordering::Relaxed), self.inner.evicted.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::{Frame, LinkType, Policy, dissect};

    fn packet(sport: u16, dport: u16) -> [u8; 28] {
        let mut p = [0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 8, 0, 0];
        p[20..22].copy_from_slice(&sport.to_be_bytes());
        p[22..24].copy_from_slice(&dport.to_be_bytes());
        p
    }

    fn covers(shunts: &Shunts, hash: u32, bytes: &[u8], now_ns: u64) -> bool {
        let dissection = dissect(&Frame::new(bytes, LinkType::RAW), &Policy::default(), &mut ());
        shunts.covers(hash, &dissection, bytes, now_ns)
    }

    fn add(shunts: &Shunts, hash: u32, bytes: &[u8], now_ns: u64, milliseconds: u32) {
        let dissection = dissect(&Frame::new(bytes, LinkType::RAW), &Policy::default(), &mut ());
        shunts.add(hash, &dissection.conversation(bytes), now_ns, milliseconds);
    }

    #[test]
    fn a_flow_is_away_for_its_time_and_nobody_else() {
        let shunts = Shunts::default();
        let (a, b) = (packet(1, 2), packet(1, 3));
        assert!(!covers(&shunts, 5, &a, 0));
        add(&shunts, 5, &a, 1_000_000_000, 100);
        assert!(covers(&shunts, 5, &a, 1_050_000_000));
        assert!(!covers(&shunts, 5, &b, 1_050_000_000), "the same hash is not the same flow");
        assert!(!covers(&shunts, 6, &a, 1_050_000_000));
        assert!(!covers(&shunts, 5, &a, 1_102_000_000), "its time is over");
        assert_eq!(shunts.counts(), (1, 0));
    }

    #[test]
    fn what_has_ended_does_not_begin_again_weeks_later() {
        let (shunts, flow, day_ns) = (Shunts::default(), packet(1, 2), 86_400_000_000_000);
        add(&shunts, 5, &packet(1, 3), u64::MAX - 1, u32::MAX);
        add(&shunts, 5, &flow, 0, 1000);
        assert!(covers(&shunts, 5, &flow, 500_000_000));
        for days in [1, 25, 27, 40, 60, 400] {
            assert!(!covers(&shunts, 5, &flow, days * day_ns), "{days} days");
        }
    }

    #[test]
    fn a_full_set_gives_up_the_first_to_end() {
        let shunts = Shunts::default();
        let flows: Vec<_> = (0..5).map(|n| packet(n, 9)).collect();
        for (n, flow) in flows.iter().enumerate() {
            add(&shunts, 7, flow, 0, 1000 + [300, 100, 0, 200, 50][n]);
        }
        let there: Vec<_> = flows.iter().map(|flow| covers(&shunts, 7, flow, 500_000_000)).collect();
        assert_eq!(there, [true, true, false, true, true]);
        add(&shunts, 7, &flows[0], 0, 5000); // known: renewed in place
        assert_eq!(shunts.counts(), (6, 1));
        assert!(covers(&shunts, 7, &flows[0], 3_000_000_000) && covers(&shunts, 7, &flows[1], 500_000_000));
    }
}
