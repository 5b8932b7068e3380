//! Where first fragments went, for the whole yard: cards put first and later fragments of one
//! datagram on different queues, so dispatchers share this.
//!
//! Sharded by datagram, a lock a shard: taken only for fragments, and seldom contended.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

impl Clone for SharedFragments {
    fn clone(&self) -> Self {
        SharedFragments { inner: self.inner.clone(), own: 0 }
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
        SharedFragments { inner: Arc::new(inner), own: 0 }
    }
}

impl SharedFragments {
    fn shard(&self, datagram: &Datagram) -> MutexGuard<'_, FragmentTable> {
        let mut hasher = DefaultHasher::new();
        datagram.hash(&mut hasher);
        let shard = &self.inner.shards[hasher.finish() as usize % SHARDS];
        // A table is whole between calls, so a panic elsewhere while it was locked does no harm.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many first fragments were learned so far through other clones.
    pub(crate) fn learned_elsewhere(&self) -> u64 {
        self.inner.learned.load(Ordering::Acquire) - self.own // pairs with the Release in `learn`
    }
}

impl FragmentMemory for SharedFragments {
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64) {
        self.shard(datagram).learn(datagram, hash, now_ns);
        self.inner.learned.fetch_add(1, Ordering::Release); // pairs with the Acquire in `learned_elsewhere`
        self.own += 1;
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        self.shard(datagram).recall(datagram, now_ns)
    }

    fn guess(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        self.shard(datagram).guess(datagram, now_ns)
    }
}
