//! Where first fragments went, for the whole yard: cards put first and later fragments of one
//! datagram on different queues, so dispatchers share this.
//!
//! Sharded by datagram, a lock a shard: taken only for fragments, and seldom contended.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowyard_kernel::Fragments;
use flowyard_steer::{Datagram, FragmentMemory, FragmentTable};

/// Shards: more than any yard has dispatchers.
const SHARDS: usize = 16;
/// Datagrams remembered over all shards: 64 Ki of them, 6 MiB.
const CAPACITY: usize = 1 << 16;

/// The fragment memory of a yard. Clones share it, one a sorter.
pub struct SharedFragments {
    inner: Arc<Inner>,
    /// What was learned through this clone.
    own: u64,
    /// If deferred: first fragments learned (with a hash) and later ones recalled (without) since the last
    /// [`SharedFragments::publish`], which others do not know of yet.
    pending: Option<Vec<(Datagram, Option<u32>, u64)>>,
    /// Judges the pieces of what is deferred, as the shared tables will.
    private: Option<Box<FragmentTable>>,
    /// The memory of the program that steers in the kernel, in the place of the yard's own.
    kernel: Option<Arc<Mutex<Fragments>>>,
}

/// Most that is deferred at a time; when it is reached, all of it is published at once, in its order.
const MOST_PENDING: usize = 8192;

impl Clone for SharedFragments {
    fn clone(&self) -> Self {
        SharedFragments { inner: self.inner.clone(), own: 0, pending: None, private: None, kernel: self.kernel.clone() }
    }
}

struct Inner {
    shards: [Mutex<FragmentTable>; SHARDS],
    /// Counts what was learned, so that others who hold packets know to look again.
    learned: AtomicU64,
}

impl Default for SharedFragments {
    /// Room for 65,536 datagrams, each for 30 s of packet time.
    fn default() -> Self {
        let shard = || Mutex::new(FragmentTable::new(CAPACITY / SHARDS, FragmentTable::AGE_NS));
        let inner = Inner { shards: std::array::from_fn(|_| shard()), learned: AtomicU64::new(0) };
        SharedFragments { inner: Arc::new(inner), own: 0, pending: None, private: None, kernel: None }
    }
}

impl SharedFragments {
    /// The memory that a program in the kernel shares: for whoever finishes what it marks.
    pub fn of_kernel(fragments: Fragments) -> SharedFragments {
        SharedFragments { kernel: Some(Arc::new(Mutex::new(fragments))), ..SharedFragments::default() }
    }

    /// The kernel's, locked. Each call into it is a system call: this is the slow path.
    fn in_kernel(&self) -> Option<MutexGuard<'_, Fragments>> {
        self.kernel.as_ref().map(|kernel| kernel.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether others may learn without telling: then whoever holds packets asks again by itself.
    pub(crate) fn is_silent(&self) -> bool {
        self.kernel.is_some()
    }

    fn shard(&self, datagram: &Datagram) -> MutexGuard<'_, FragmentTable> {
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let shard = &self.inner.shards[hasher.finish() as usize % SHARDS];
        // A table is whole between calls, so a panic elsewhere while it was locked does no harm.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on keeps what it learns to itself until [`SharedFragments::publish`]: for a dispatcher
    /// that must note where the user's function sent a first fragment before others follow it.
    pub(crate) fn defer(&mut self) {
        self.pending.get_or_insert_with(|| Vec::with_capacity(MOST_PENDING));
        self.private.get_or_insert_with(|| Box::new(FragmentTable::new(MOST_PENDING, FragmentTable::AGE_NS)));
    }

    /// Lets others know what was learned.
    #[inline]
    pub(crate) fn publish(&mut self) {
        if self.pending.as_ref().is_some_and(|pending| !pending.is_empty()) {
            self.publish_all();
        }
    }

    #[cold]
    fn publish_all(&mut self) {
        let Some(mut pending) = self.pending.take() else { return };
        for (datagram, hash, now_ns) in pending.drain(..) {
            match hash {
                Some(hash) => self.learn(&datagram, hash, now_ns),
                None => drop(self.recall(&datagram, now_ns)), // counts the piece
            }
        }
        self.pending = Some(pending);
    }

    /// Defers a piece, if this clone defers.
    fn put_off(&mut self, datagram: &Datagram, hash: Option<u32>, now_ns: u64) -> bool {
        if self.pending.as_ref().is_some_and(|pending| pending.len() >= MOST_PENDING) {
            self.publish_all();
        }
        self.pending.as_mut().map(|pending| pending.push((*datagram, hash, now_ns))).is_some()
    }

    /// The hash of the newest first fragment of `datagram` that is deferred.
    fn deferred(&self, datagram: &Datagram) -> Option<u32> {
        let learned = self.pending.iter().flatten().rev().find(|(d, hash, _)| hash.is_some() && d == datagram);
        learned.and_then(|(_, hash, _)| *hash)
    }

    /// How many first fragments were learned so far through other clones.
    pub(crate) fn learned_elsewhere(&self) -> u64 {
        self.inner.learned.load(Ordering::Acquire) - self.own // pairs with the Release in `learn`
    }
}

impl FragmentMemory for SharedFragments {
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64) {
        if let Some(mut kernel) = self.in_kernel() {
            return kernel.learn(datagram, hash, now_ns);
        }
        if self.put_off(datagram, Some(hash), now_ns) {
            if let Some(private) = &mut self.private {
                private.learn(datagram, hash, now_ns);
            }
            return;
        }
        self.shard(datagram).learn(datagram, hash, now_ns);
        self.inner.learned.fetch_add(1, Ordering::Release); // pairs with the Acquire in `learned_elsewhere`
        self.own += 1;
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        if let Some(mut kernel) = self.in_kernel() {
            return kernel.recall(datagram, now_ns);
        }
        if self.deferred(datagram).is_some() {
            // It may be another datagram's piece, that uses the identifier again.
            let hash = self.private.as_mut().and_then(|private| private.recall(datagram, now_ns));
            self.put_off(datagram, None, now_ns);
            return hash;
        }
        self.shard(datagram).recall(datagram, now_ns)
    }

    fn guess(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        if let Some(mut kernel) = self.in_kernel() {
            return kernel.guess(datagram, now_ns);
        }
        self.deferred(datagram).or_else(|| self.shard(datagram).guess(datagram, now_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::{Frame, LinkType, Policy, dissect};

    fn first(id: u8) -> Datagram {
        let packet = [0x45, 0, 0, 28, 0, id, 0x20, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 8, 0, 0];
        let dissection = dissect(&Frame::new(&packet, LinkType::RAW), &Policy::default(), &mut ());
        dissection.first_fragments(&packet).next().expect("a first fragment")
    }

    #[test]
    fn what_is_deferred_is_known_here_and_elsewhere_only_when_published() {
        let mut here = SharedFragments::default();
        let mut elsewhere = here.clone();
        here.defer();
        here.learn(&first(1), 11, 0);
        assert_eq!((here.recall(&first(1), 1), elsewhere.recall(&first(1), 1)), (Some(11), None));
        assert_eq!(elsewhere.learned_elsewhere(), 0);
        here.publish();
        assert_eq!((here.recall(&first(1), 2), elsewhere.recall(&first(1), 2)), (Some(11), Some(11)));
        assert_eq!((elsewhere.learned_elsewhere(), here.learned_elsewhere()), (1, 0));
        here.learn(&first(1), 12, 3);
        assert_eq!((here.recall(&first(1), 3), elsewhere.recall(&first(1), 3)), (Some(12), Some(11)), "the newest");
    }

    #[test]
    fn too_much_to_defer_is_published_in_its_order() {
        let mut here = SharedFragments::default();
        let mut elsewhere = here.clone();
        here.defer();
        for hash in 0..=MOST_PENDING as u32 {
            here.learn(&first(1), hash, 0);
        }
        assert_eq!(here.recall(&first(1), 1), Some(MOST_PENDING as u32));
        here.publish();
        assert_eq!(elsewhere.recall(&first(1), 1), Some(MOST_PENDING as u32), "the newest");
    }
}
