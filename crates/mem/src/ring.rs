//! The ring: a one-way array of fixed-size entries between one producer and one consumer, who may
//! be in different processes and need not trust each other.
//!
//! # Contract
//! - `tail` is written by the producer alone, `head` by the consumer alone; each lies on cache lines
//!   of its own. Both count entries from the start and wrap at 2^32; the place of an entry is its
//!   count modulo the capacity, a power of two.
//! - Batches: the producer *reserves*, *fills*, *commits*; the consumer *reserves*, *takes*,
//!   *releases*; one entry at a time or many by one call. Nothing is seen by the other side before commit or release.
//! - Each side keeps its own index privately and never reads it back; the other side's index is
//!   read once, checked against what it can be, and cached. An index that cannot be is counted as a
//!   violation and changes nothing: the ring looks full or empty until the peer writes a possible one.
//! - Entries are copied word by word with relaxed atomics: a peer that writes at the wrong time can
//!   produce wrong entries, never undefined behaviour.
//!
//! # Orderings
//! P1 `tail.store(Release)` in `commit` pairs with C1 `tail.load(Acquire)` in the consumer's `reserve`:
//! who sees the tail sees the entries. C2 `head.store(Release)` in `release` pairs with P2
//! `head.load(Acquire)` in the producer's `reserve`: who sees the place free may overwrite it.
//! S1 the fence in `notify` pairs with S2 the fence in `sleep`: either the consumer sees the new tail,
//! or the producer sees that it sleeps.
//!
//! Cost: a batch of 32 touches the peer's line once; about 1 ns an entry a side in one core's cache by
//! [`Producer::fill_batch`] and [`Consumer::take_batch`], twice that one at a time: the place of each is then stored and
//! loaded again.

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// An entry of `W` words where it lies.
pub(crate) type Entry<const W: usize> = [AtomicU64; W];

/// Where a ring lies: shared memory, or the heap in tests.
pub(crate) trait Place<const W: usize> {
    /// Entries committed by the producer.
    fn tail(&self) -> &AtomicU32;
    /// Entries released by the consumer.
    fn head(&self) -> &AtomicU32;
    /// 1 while the consumer sleeps and wants to be woken.
    fn sleeping(&self) -> &AtomicU32;
    /// The entry of count `count`, whose place is that modulo the capacity.
    fn entry(&self, count: u32) -> &Entry<W>;
    /// The entries from count `from` on that lie one behind the other: `most` of them, or those up to the last place,
    /// which is one at least.
    fn run(&self, from: u32, most: u32) -> &[Entry<W>];
    /// Entries, a power of two from 2 to 2^30.
    fn capacity(&self) -> u32;
}

/// The writing end of a ring of entries of `W` words.
#[derive(Debug)]
pub(crate) struct Producer<P, const W: usize> {
    place: P,
    capacity: u32,
    /// Entries filled; runs ahead of `committed` within a batch.
    filled: u32,
    committed: u32,
    /// Last head that passed the check.
    head: u32,
    violations: u64,
}

impl<P: Place<W>, const W: usize> Producer<P, W> {
    /// The producer of a ring whose indices are both zero.
    pub(crate) fn new(place: P) -> Self {
        Producer { capacity: place.capacity(), place, filled: 0, committed: 0, head: 0, violations: 0 }
    }

    /// Room for entries, at least `want` if the ring has that much. Looks at the peer's index only if
    /// the cached one leaves less than `want`.
    #[inline]
    pub(crate) fn reserve(&mut self, want: u32) -> u32 {
        let room = self.capacity - self.filled.wrapping_sub(self.head);
        if room >= want { room } else { self.refresh() }
    }

    #[inline]
    fn refresh(&mut self) -> u32 {
        // The head moves forward, and never past what was committed.
        match look(self.place.head(), self.head, self.committed.wrapping_sub(self.head)) {
            Some(head) => self.head = head, // P2, pairs with C2
            None => self.violations += 1,
        }
        self.capacity - self.filled.wrapping_sub(self.head)
    }

    /// Writes the next entry of the batch. Answers false, and writes nothing, if the ring is full.
    #[inline]
    pub(crate) fn fill(&mut self, entry: [u64; W]) -> bool {
        if self.filled.wrapping_sub(self.head) >= self.capacity {
            return false;
        }
        self.fill_reserved(entry);
        true
    }

    /// The same where [`Producer::reserve`] found room that is still left: it is not asked again.
    #[inline(always)]
    pub(crate) fn fill_reserved(&mut self, entry: [u64; W]) {
        debug_assert!(self.outstanding() < self.capacity, "just reserved");
        write(self.place.entry(self.filled), entry);
        self.filled = self.filled.wrapping_add(1);
    }

    /// Entries filled since the start, as indices count.
    #[inline(always)]
    pub(crate) fn filled(&self) -> u32 {
        self.filled
    }

    /// Writes the next entries of the batch: what `entry` says for numbers 0 to `count`, or for as many as there is room
    /// for as far as known (reserve first). Answers how many. Costs less an entry than [`Producer::fill`]: the indices stay
    /// in registers.
    #[inline]
    pub(crate) fn fill_batch(&mut self, count: u32, mut entry: impl FnMut(usize) -> [u64; W]) -> u32 {
        let from = self.filled;
        let count = count.min(self.capacity - from.wrapping_sub(self.head));
        let mut done = 0;
        while done < count {
            let run = self.place.run(from.wrapping_add(done), count - done); // a second one where it wraps
            for (n, place) in run.iter().enumerate() {
                write(place, entry(done as usize + n));
            }
            done += run.len() as u32;
        }
        self.filled = from.wrapping_add(count); // last: should `entry` panic, nothing half-written is shown
        count
    }

    /// Shows the batch to the consumer. Does not wake it: see [`Producer::wants_waking`]. Answers whether there was
    /// anything to show.
    #[inline]
    pub(crate) fn commit(&mut self) -> bool {
        let filled = self.filled != self.committed;
        if filled {
            self.committed = self.filled;
            self.place.tail().store(self.committed, Ordering::Release); // P1, pairs with C1
        }
        filled
    }

    /// Whether the consumer sleeps; if so the answer is yes once, and the caller wakes it. A
    /// [`full_fence`] must stand between the commit and this call (S1).
    #[inline]
    pub(crate) fn wants_waking(&mut self) -> bool {
        self.wants_waking_for(0)
    }

    /// As [`Producer::wants_waking`], but lets a consumer sleep on that has fewer than `unread`
    /// entries to take.
    #[inline]
    pub(crate) fn wants_waking_for(&mut self, unread: u32) -> bool {
        // Relaxed: ordered by the fence S1; the swap makes one of several calls the one that wakes.
        self.place.sleeping().load(Ordering::Relaxed) != 0
            && (unread == 0 || self.unread() >= unread)
            && self.place.sleeping().swap(0, Ordering::Relaxed) != 0
    }

    /// Entries committed and not yet released, by the consumer's own index as it is now.
    fn unread(&mut self) -> u32 {
        self.refresh();
        self.committed.wrapping_sub(self.head)
    }

    /// Entries that the consumer has not released, as far as known without looking.
    pub(crate) fn outstanding(&self) -> u32 {
        self.filled.wrapping_sub(self.head)
    }

    /// Impossible indices that the peer showed.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }

    pub(crate) fn place(&self) -> &P {
        &self.place
    }
}

/// The reading end of a ring of entries of `W` words.
#[derive(Debug)]
pub(crate) struct Consumer<P, const W: usize> {
    place: P,
    capacity: u32,
    /// Entries taken; runs ahead of `released` within a batch.
    taken: u32,
    released: u32,
    /// Last tail that passed the check.
    tail: u32,
    violations: u64,
}

impl<P: Place<W>, const W: usize> Consumer<P, W> {
    /// The consumer of a ring whose indices are both zero.
    pub(crate) fn new(place: P) -> Self {
        Consumer { capacity: place.capacity(), place, taken: 0, released: 0, tail: 0, violations: 0 }
    }

    /// Entries that can be taken; looks at the peer's index only if none is known.
    #[inline]
    pub(crate) fn reserve(&mut self) -> u32 {
        let known = self.tail.wrapping_sub(self.taken);
        if known > 0 { known } else { self.refresh() }
    }

    /// As [`Consumer::reserve`], but looks at the peer's index in any case, and at once: for who goes over many rings, and
    /// takes from each what there is.
    #[inline(always)]
    pub(crate) fn poll(&mut self) -> u32 {
        let most = self.capacity - self.tail.wrapping_sub(self.released);
        match possible(self.place.tail(), self.tail, most) {
            Some(tail) => self.tail = tail, // C1, pairs with P1
            None => self.violations += 1,
        }
        self.tail.wrapping_sub(self.taken)
    }

    #[inline]
    fn refresh(&mut self) -> u32 {
        // The tail moves forward, and never further ahead of what was released than the capacity.
        let most = self.capacity - self.tail.wrapping_sub(self.released);
        match look(self.place.tail(), self.tail, most) {
            Some(tail) => self.tail = tail, // C1, pairs with P1
            None => self.violations += 1,
        }
        self.tail.wrapping_sub(self.taken)
    }

    /// The next entry of the batch, if `reserve` found one.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<[u64; W]> {
        if self.taken == self.tail {
            return None;
        }
        let entry = read(self.place.entry(self.taken));
        self.taken = self.taken.wrapping_add(1);
        Some(entry)
    }

    /// Takes up to `most` entries that `reserve` found, and hands each to `each`. Answers how many. Costs less an entry than
    /// [`Consumer::take`]: the indices stay in registers.
    #[inline]
    pub(crate) fn take_batch(&mut self, most: u32, mut each: impl FnMut([u64; W])) -> u32 {
        let from = self.taken;
        let count = most.min(self.tail.wrapping_sub(from));
        self.taken = from.wrapping_add(count); // first: should `each` panic, no entry is handed out twice
        let mut done = 0;
        while done < count {
            let run = self.place.run(from.wrapping_add(done), count - done); // a second one where it wraps
            run.iter().for_each(|place| each(read(place)));
            done += run.len() as u32;
        }
        count
    }

    /// Takes entries that `reserve` found, up to `most` and up to the last place, as long as `each` answers that it has dealt
    /// with one. Answers how many it has dealt with, and the entry that it has not, which is taken as well. (If `each` panics,
    /// none is taken: it must be good for being shown an entry again.)
    #[inline(always)]
    pub(crate) fn take_while(&mut self, most: u32, mut each: impl FnMut([u64; W]) -> bool) -> (u32, Option<[u64; W]>) {
        let run = self.place.run(self.taken, most.min(self.tail.wrapping_sub(self.taken)));
        for (n, place) in run.iter().enumerate() {
            let entry = read(place);
            if !each(entry) {
                self.taken = self.taken.wrapping_add(n as u32 + 1);
                return (n as u32, Some(entry));
            }
        }
        self.taken = self.taken.wrapping_add(run.len() as u32);
        (run.len() as u32, None)
    }

    /// Copies entries that `reserve` found to the front of `to`, as many as it has room for. Answers how many.
    #[inline]
    pub(crate) fn take_into(&mut self, to: &mut [[u64; W]]) -> u32 {
        let mut to = to.iter_mut();
        self.take_batch(to.len() as u32, |entry| to.next().into_iter().for_each(|place| *place = entry))
    }

    /// Gives the places of the taken entries back to the producer.
    #[inline]
    pub(crate) fn release(&mut self) {
        self.release_but(0);
    }

    /// As [`Consumer::release`], but for the places of the `kept` entries that were taken last.
    #[inline]
    pub(crate) fn release_but(&mut self, kept: u32) {
        let upto = self.taken.wrapping_sub(kept.min(self.taken.wrapping_sub(self.released))); // what was released stays so
        if upto != self.released {
            self.released = upto;
            self.place.head().store(self.released, Ordering::Release); // C2, pairs with P2
        }
    }

    /// Announces sleep. Answers false if there is something to take after all: then do not sleep.
    pub(crate) fn sleep(&mut self) -> bool {
        self.place.sleeping().store(1, Ordering::Relaxed); // ordered by the fence S2
        full_fence(); // S2, pairs with S1
        if self.reserve() > 0 {
            self.wake();
            return false;
        }
        true
    }

    /// Takes the announcement back.
    pub(crate) fn wake(&self) {
        self.place.sleeping().store(0, Ordering::Relaxed); // a late wakeup byte is drained and harmless
    }

    /// Impossible indices that the peer showed.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }
}

/// As [`possible`]. Not inlined, and not given the ring's end, so that who takes and fills by turns can keep that in
/// registers.
#[cold]
#[inline(never)]
fn look(index: &AtomicU32, last: u32, most: u32) -> Option<u32> {
    possible(index, last, most)
}

/// The peer's index as it is now, if it has moved on from `last` by `most` at most: anything else cannot be.
#[inline(always)]
fn possible(index: &AtomicU32, last: u32, most: u32) -> Option<u32> {
    let now = index.load(Ordering::Acquire);
    (now.wrapping_sub(last) <= most).then_some(now)
}

#[inline]
fn write<const W: usize>(place: &Entry<W>, entry: [u64; W]) {
    for (word, value) in place.iter().zip(entry) {
        word.store(value, Ordering::Relaxed); // ordered by P1
    }
}

#[inline]
fn read<const W: usize>(place: &Entry<W>) -> [u64; W] {
    std::array::from_fn(|word| place[word].load(Ordering::Relaxed)) // ordered by C1
}

/// The fence between a commit and asking whether the peer sleeps. One serves any number of rings.
#[inline]
pub(crate) fn full_fence() {
    fence(Ordering::SeqCst);
}

/// A ring on the heap, and the oracle that every test of rings holds it against.
#[cfg(test)]
pub(crate) mod oracle {
    use super::*;
    #[cfg(loom)]
    use loom::sync::Arc;
    use std::collections::VecDeque;
    #[cfg(not(loom))]
    use std::sync::Arc;

    #[derive(Debug, Clone)]
    pub(crate) struct Heap(pub(crate) Arc<Inner>);

    #[derive(Debug)]
    pub(crate) struct Inner {
        pub(crate) tail: AtomicU32,
        pub(crate) head: AtomicU32,
        pub(crate) sleeping: AtomicU32,
        pub(crate) words: Vec<[AtomicU64; 2]>,
    }

    impl Heap {
        pub(crate) fn new(capacity: u32) -> Heap {
            Heap(Arc::new(Inner {
                tail: AtomicU32::new(0),
                head: AtomicU32::new(0),
                sleeping: AtomicU32::new(0),
                words: (0..capacity).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect(),
            }))
        }
    }

    impl Place<2> for Heap {
        fn tail(&self) -> &AtomicU32 {
            &self.0.tail
        }
        fn head(&self) -> &AtomicU32 {
            &self.0.head
        }
        fn sleeping(&self) -> &AtomicU32 {
            &self.0.sleeping
        }
        fn entry(&self, count: u32) -> &Entry<2> {
            &self.0.words[count as usize % self.0.words.len()]
        }
        fn run(&self, from: u32, most: u32) -> &[Entry<2>] {
            let from = &self.0.words[from as usize % self.0.words.len()..];
            &from[..from.len().min(most as usize)]
        }
        fn capacity(&self) -> u32 {
            self.0.words.len() as u32
        }
    }

    /// What a ring should do, said with a queue: the one oracle of proptest, loom and threads.
    #[derive(Debug)]
    pub(crate) struct Oracle {
        capacity: usize,
        staged: usize,
        queue: VecDeque<u64>,
        pub(crate) taken: usize,
        pub(crate) next: u64,
    }

    impl Oracle {
        pub(crate) fn new(capacity: u32) -> Oracle {
            Oracle { capacity: capacity as usize, staged: 0, queue: VecDeque::new(), taken: 0, next: 1 }
        }

        /// The entry to fill next, and whether it must fit once the producer has looked.
        pub(crate) fn fill(&mut self) -> ([u64; 2], bool) {
            let fits = self.queue.len() < self.capacity;
            (entry(self.next), fits)
        }
        pub(crate) fn filled(&mut self) {
            self.queue.push_back(self.next);
            self.next += 1;
            self.staged += 1;
        }
        pub(crate) fn commit(&mut self) {
            self.staged = 0;
        }
        pub(crate) fn take(&mut self) -> Option<[u64; 2]> {
            let visible = self.queue.len() - self.staged;
            (self.taken < visible).then(|| {
                self.taken += 1;
                entry(self.queue[self.taken - 1])
            })
        }
        pub(crate) fn release(&mut self) {
            self.release_but(0);
        }
        pub(crate) fn release_but(&mut self, kept: usize) {
            self.queue.drain(..self.taken - kept);
            self.taken = kept;
        }
    }

    /// Two words that belong together: a torn entry shows.
    pub(crate) fn entry(n: u64) -> [u64; 2] {
        [n, !n]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::oracle::{Heap, Oracle, entry};
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Fill,
        FillBatch(u32),
        Commit,
        Take,
        TakeBatch(u32),
        TakeInto(usize),
        /// As many at most, and not dealing with the one of that number.
        TakeWhile(u32, u32),
        Release,
        /// But for as many places, or as there are.
        ReleaseBut(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => Just(Step::Fill),
            2 => (0u32..20).prop_map(Step::FillBatch),
            2 => Just(Step::Commit),
            4 => Just(Step::Take),
            1 => (0u32..20).prop_map(Step::TakeBatch),
            1 => (0usize..20).prop_map(Step::TakeInto),
            1 => (0u32..20, 0u32..8).prop_map(|(most, number)| Step::TakeWhile(most, number)),
            2 => Just(Step::Release),
            1 => (0u32..4).prop_map(Step::ReleaseBut),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// Indices as a peer may show them: anything, and what is just possible or just not.
    fn hostile() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(prop_oneof![any::<u32>(), 0u32..40, Just(u32::MAX)], 1..50)
    }

    proptest! {
        #[test]
        fn behaves_as_the_oracle(steps in steps(), log in 1u32..5, start in prop_oneof![Just(0u32), Just(u32::MAX - 3), any::<u32>()]) {
            let capacity = 1 << log;
            let heap = Heap::new(capacity);
            heap.0.tail.store(start, Ordering::Relaxed);
            heap.0.head.store(start, Ordering::Relaxed);
            let mut producer = Producer { filled: start, committed: start, head: start, ..Producer::<_, 2>::new(heap.clone()) };
            let mut consumer = Consumer { taken: start, released: start, tail: start, ..Consumer::<_, 2>::new(heap) };
            let mut oracle = Oracle::new(capacity);
            for step in steps {
                match step {
                    Step::Fill => {
                        let (words, fits) = oracle.fill();
                        prop_assert_eq!(producer.reserve(1) > 0, fits);
                        prop_assert_eq!(producer.fill(words), fits);
                        if fits { oracle.filled(); }
                    }
                    Step::FillBatch(count) => {
                        producer.reserve(count);
                        let first = oracle.next;
                        let done = producer.fill_batch(count, |n| entry(first + n as u64));
                        for _ in 0..done {
                            prop_assert!(oracle.fill().1, "more than there is room for");
                            oracle.filled();
                        }
                        prop_assert!(done == count || !oracle.fill().1, "fewer than there is room for");
                    }
                    Step::Commit => { producer.commit(); oracle.commit(); }
                    Step::Take => { consumer.reserve(); prop_assert_eq!(consumer.take(), oracle.take()); }
                    Step::TakeBatch(most) => {
                        let known = consumer.reserve();
                        let mut got = Vec::new();
                        let count = consumer.take_batch(most, |entry| got.push(entry));
                        prop_assert_eq!((count, got.len()), (known.min(most), known.min(most) as usize));
                        for entry in got {
                            prop_assert_eq!(Some(entry), oracle.take());
                        }
                    }
                    Step::TakeInto(most) => {
                        let known = consumer.reserve() as usize;
                        let mut got = vec![[0; 2]; most];
                        let count = consumer.take_into(&mut got) as usize;
                        prop_assert_eq!(count, known.min(most));
                        for (n, entry) in got.into_iter().enumerate() {
                            prop_assert_eq!(entry, if n < count { oracle.take().unwrap_or_default() } else { [0; 2] });
                        }
                    }
                    Step::TakeWhile(most, number) => {
                        let known = consumer.poll();
                        let mut got = Vec::new();
                        let (count, other) = consumer.take_while(most, |entry| {
                            let dealt_with = got.len() < number as usize;
                            if dealt_with { got.push(entry); }
                            dealt_with
                        });
                        prop_assert!(count == got.len() as u32 && count + u32::from(other.is_some()) <= known.min(most));
                        prop_assert!(other.is_none() || count == number);
                        prop_assert!(count > 0 || other.is_some() || known.min(most) == 0, "it gets on");
                        for entry in got.into_iter().chain(other) {
                            prop_assert_eq!(Some(entry), oracle.take());
                        }
                    }
                    Step::Release => { consumer.release(); oracle.release(); }
                    Step::ReleaseBut(kept) => {
                        let kept = kept.min(oracle.taken as u32);
                        consumer.release_but(kept);
                        oracle.release_but(kept as usize);
                    }
                }
            }
            prop_assert_eq!(producer.violations() + consumer.violations(), 0);
        }

        /// A peer that writes anything at all into its index gets nothing but a count: never an entry
        /// beyond the capacity, never a place outside.
        #[test]
        fn a_hostile_index_is_counted_and_ignored(tails in hostile(), in_batches: bool) {
            let heap = Heap::new(8);
            let mut consumer = Consumer::<_, 2>::new(heap.clone());
            let (mut taken, mut violations) = (0u32, 0);
            for tail in tails {
                heap.0.tail.store(tail, Ordering::Relaxed);
                let possible = tail.wrapping_sub(taken) <= 8;
                let got = if in_batches { consumer.poll() } else { consumer.reserve() };
                if possible { prop_assert_eq!(got, tail.wrapping_sub(taken)); } else { prop_assert_eq!(got, 0); violations += 1; }
                if in_batches {
                    let mut seen = 0;
                    prop_assert_eq!(consumer.take_batch(u32::MAX, |_| seen += 1), got);
                    prop_assert_eq!(seen, got);
                    taken = taken.wrapping_add(got);
                } else {
                    while consumer.take().is_some() { taken = taken.wrapping_add(1); }
                }
                consumer.release();
                prop_assert_eq!(consumer.violations(), violations);
            }
        }

        #[test]
        fn a_hostile_head_frees_nothing_that_was_not_sent(heads in hostile(), count in 1u32..20) {
            let heap = Heap::new(8);
            let mut producer = Producer::<_, 2>::new(heap.clone());
            for head in heads {
                heap.0.head.store(head, Ordering::Relaxed);
                let before = producer.outstanding();
                let room = producer.reserve(u32::MAX);
                prop_assert!(room <= 8);
                prop_assert!(producer.outstanding() <= before);
                if count == 1 {
                    prop_assert_eq!(producer.fill(entry(1)), room > 0);
                } else {
                    prop_assert_eq!(producer.fill_batch(count, |_| entry(1)), room.min(count));
                }
                prop_assert!(producer.outstanding() <= 8);
                producer.commit();
            }
        }
    }

    /// Whoever reads or writes a batch may panic: nothing half-written is shown, and nothing is handed out twice.
    #[test]
    fn a_panic_in_a_batch_leaves_the_ring_sound() {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let heap = Heap::new(8);
        let mut producer = Producer::<_, 2>::new(heap.clone());
        let mut consumer = Consumer::<_, 2>::new(heap);
        let fails = |n| if n == 2 { panic!("on purpose") } else { entry(n as u64) };
        assert!(catch_unwind(AssertUnwindSafe(|| producer.fill_batch(4, fails))).is_err());
        producer.commit();
        assert_eq!(consumer.reserve(), 0);
        assert_eq!(producer.fill_batch(20, |n| entry(n as u64)), 8);
        producer.commit();
        assert_eq!(consumer.reserve(), 8);
        assert!(catch_unwind(AssertUnwindSafe(|| consumer.take_batch(4, |_| panic!("on purpose")))).is_err());
        assert_eq!(consumer.take(), Some(entry(4)));
    }

    #[test]
    fn threads_see_every_entry_once_in_order() {
        const COUNT: u64 = 200_000;
        let heap = Heap::new(64);
        let mut producer = Producer::<_, 2>::new(heap.clone());
        let mut consumer = Consumer::<_, 2>::new(heap);
        let writer = std::thread::spawn(move || {
            let mut next = 1;
            while next <= COUNT {
                let room = producer.reserve(16).min(16);
                for _ in 0..room {
                    if next <= COUNT && producer.fill(entry(next)) {
                        next += 1;
                    }
                }
                producer.commit();
                if room == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 1;
        while expected <= COUNT {
            if consumer.reserve() == 0 {
                std::thread::yield_now();
            }
            while let Some(got) = consumer.take() {
                assert_eq!(got, entry(expected));
                expected += 1;
            }
            consumer.release();
        }
        writer.join().expect("the writer does not panic");
        assert_eq!(consumer.violations(), 0);
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p flowyard-mem --lib --release loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::oracle::{Heap, entry};
    use super::*;

    /// All interleavings of three entries through a ring of two, in batches of one and two.
    #[test]
    fn loom_entries_arrive_whole_and_in_order() {
        loom::model(|| {
            let heap = Heap::new(2);
            let mut producer = Producer::<_, 2>::new(heap.clone());
            let mut consumer = Consumer::<_, 2>::new(heap);
            let writer = loom::thread::spawn(move || {
                let mut next = 1;
                while next <= 3 {
                    if producer.reserve(1) == 0 {
                        loom::thread::yield_now();
                        continue;
                    }
                    while next <= 3 && producer.fill(entry(next)) {
                        next += 1;
                    }
                    producer.commit();
                }
                assert_eq!(producer.violations(), 0);
            });
            let mut expected = 1;
            while expected <= 3 {
                if consumer.reserve() == 0 {
                    loom::thread::yield_now();
                }
                while let Some(got) = consumer.take() {
                    assert_eq!(got, entry(expected));
                    expected += 1;
                }
                consumer.release();
            }
            assert_eq!(consumer.violations(), 0);
            writer.join().unwrap();
        });
    }

    /// The same by batch calls, which wrap around: all is filled or taken that is known to fit or to be there.
    #[test]
    fn loom_batches_arrive_whole_and_in_order() {
        loom::model(|| {
            let heap = Heap::new(2);
            let mut producer = Producer::<_, 2>::new(heap.clone());
            let mut consumer = Consumer::<_, 2>::new(heap);
            let writer = loom::thread::spawn(move || {
                let mut next = 1;
                while next <= 3 {
                    if producer.reserve(1) == 0 {
                        loom::thread::yield_now();
                        continue;
                    }
                    next += u64::from(producer.fill_batch(4 - next as u32, |n| entry(next + n as u64)));
                    producer.commit();
                }
                assert_eq!(producer.violations(), 0);
            });
            let mut expected = 1;
            while expected <= 3 {
                if consumer.reserve() == 0 {
                    loom::thread::yield_now();
                }
                consumer.take_batch(2, |got| {
                    assert_eq!(got, entry(expected));
                    expected += 1;
                });
                consumer.release();
            }
            assert_eq!(consumer.violations(), 0);
            writer.join().unwrap();
        });
    }

    /// Whoever goes to sleep while an entry is committed is woken, or sees the entry.
    #[test]
    fn loom_no_wakeup_is_lost() {
        loom::model(|| {
            let heap = Heap::new(2);
            let mut producer = Producer::<_, 2>::new(heap.clone());
            let mut consumer = Consumer::<_, 2>::new(heap);
            let writer = loom::thread::spawn(move || {
                assert!(producer.reserve(1) > 0 && producer.fill(entry(1)));
                producer.commit();
                full_fence();
                producer.wants_waking()
            });
            let sleeps = consumer.sleep();
            let woken = writer.join().unwrap();
            assert!(!sleeps || woken, "asleep with an entry in the ring and nobody to wake it");
        });
    }
}
