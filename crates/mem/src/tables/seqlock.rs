//! The seqlock: a sequence word in front of words that change together, for one writer and any number
//! of readers that never wait.
//!
//! The word holds, from the lowest bit: 16 bits of *note*, which is read and changed with the words; one
//! bit that is set while they are being written; and the number of the change. A reader takes the word,
//! reads, and takes it again: the same, and not being written, means that nothing changed meanwhile.
//! The orderings T1 to T4 are listed in [`super`]; they are those of figure 6 in Boehm, "Can seqlocks get along with
//! programming language memory models?", MSPC 2012.
//!
//! A writer that dies leaves the bit set; the next one writes the same words and ends the change.

use crate::sync::{Ordering, fence};

/// Set while the words are being written.
const WRITING: u64 = 1 << 16;
/// Bits below the number of the change.
const NUMBER_SHIFT: u32 = 17;

/// Words that seqlocks lie in.
pub(crate) trait Memory {
    /// The word with this index.
    fn load(&self, at: usize, order: Ordering) -> u64;
    /// Sets the word with this index.
    fn store(&self, at: usize, value: u64, order: Ordering);
}

/// The note of a sequence word.
#[inline]
pub(crate) fn note(sequence: u64) -> u16 {
    sequence as u16
}

/// Before reading: the sequence word, unless the words are being written.
#[inline]
pub(crate) fn begin(memory: &impl Memory, at: usize) -> Option<u64> {
    let sequence = memory.load(at, Ordering::Acquire); // T2, pairs with T1
    (sequence & WRITING == 0).then_some(sequence)
}

/// After reading: whether what was read since `begin` is of one change.
#[inline]
pub(crate) fn unchanged(memory: &impl Memory, at: usize, sequence: u64) -> bool {
    fence(Ordering::Acquire); // T4, pairs with T3
    memory.load(at, Ordering::Relaxed) == sequence // ordered by T4
}

/// Before writing. Readers turn away until [`close`].
pub(crate) fn open(memory: &impl Memory, at: usize) {
    // Relaxed: the writer alone stores it, and the fence orders it before the words.
    let sequence = memory.load(at, Ordering::Relaxed);
    memory.store(at, sequence | WRITING, Ordering::Relaxed);
    fence(Ordering::Release); // T3, pairs with T4
}

/// After writing: shows the words, with this note.
pub(crate) fn close(memory: &impl Memory, at: usize, note: u16) {
    let sequence = memory.load(at, Ordering::Relaxed); // our own
    memory.store(at, next(sequence, note), Ordering::Release); // T1, pairs with T2
}

/// Whether a writer died between [`open`] and [`close`]; for writers.
#[cfg(not(loom))]
pub(crate) fn is_open(sequence: u64) -> bool {
    sequence & WRITING != 0
}

fn next(sequence: u64, note: u16) -> u64 {
    ((sequence >> NUMBER_SHIFT).wrapping_add(1) << NUMBER_SHIFT) | u64::from(note)
}

/// How often a look-up tries again before it answers `Busy`: a bound on its time.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Patience(u32);

#[cfg(not(loom))]
impl Patience {
    /// Attempts of one look-up.
    pub(crate) const ATTEMPTS: u32 = 64;

    #[inline]
    pub(crate) fn new() -> Patience {
        Patience(Patience::ATTEMPTS)
    }

    /// Whether to try again.
    pub(crate) fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    impl Memory for Arc<Vec<AtomicU64>> {
        fn load(&self, at: usize, order: Ordering) -> u64 {
            self[at].load(order)
        }
        fn store(&self, at: usize, value: u64, order: Ordering) {
            self[at].store(value, order);
        }
    }

    #[test]
    fn readers_see_one_change_or_none() {
        const CHANGES: u64 = 200_000;
        let memory: Arc<Vec<AtomicU64>> = Arc::new((0..5).map(|_| AtomicU64::new(0)).collect());
        let writer = std::thread::spawn({
            let memory = memory.clone();
            move || {
                for n in 1..=CHANGES {
                    open(&memory, 0);
                    (1..5).for_each(|at| memory.store(at, n, Ordering::Relaxed));
                    close(&memory, 0, n as u16);
                }
            }
        });
        let mut last = 0;
        while last < CHANGES {
            let Some(sequence) = begin(&memory, 0) else { continue };
            let words: [u64; 4] = std::array::from_fn(|n| memory.load(n + 1, Ordering::Relaxed));
            if unchanged(&memory, 0, sequence) {
                assert!(words == [words[0]; 4] && words[0] >= last, "torn: {words:?} after {last}");
                assert_eq!(note(sequence), words[0] as u16);
                last = words[0];
            }
        }
        writer.join().expect("the writer does not panic");
    }

    #[test]
    fn a_change_left_open_is_ended_by_the_next() {
        let memory: Arc<Vec<AtomicU64>> = Arc::new((0..2).map(|_| AtomicU64::new(0)).collect());
        open(&memory, 0);
        assert_eq!(begin(&memory, 0), None);
        open(&memory, 0);
        close(&memory, 0, 7);
        let sequence = begin(&memory, 0).expect("closed");
        assert_eq!(note(sequence), 7);
        assert!(unchanged(&memory, 0, sequence));
    }
}

/// Run as the ring's: see ring.rs.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::Arc;

    struct Heap(Vec<AtomicU64>);

    impl Memory for Heap {
        fn load(&self, at: usize, order: Ordering) -> u64 {
            self.0[at].load(order)
        }
        fn store(&self, at: usize, value: u64, order: Ordering) {
            self.0[at].store(value, order);
        }
    }

    /// All interleavings of two changes of two words and two readings.
    #[test]
    fn loom_no_reading_is_torn() {
        loom::model(|| {
            let memory = Arc::new(Heap((0..3).map(|_| AtomicU64::new(0)).collect()));
            let writer = loom::thread::spawn({
                let memory = memory.clone();
                move || {
                    for n in 1..=2 {
                        open(&*memory, 0);
                        memory.store(1, n, Ordering::Relaxed);
                        memory.store(2, n, Ordering::Relaxed);
                        close(&*memory, 0, n as u16);
                    }
                }
            });
            let mut last = 0;
            for _ in 0..2 {
                if let Some(sequence) = begin(&*memory, 0) {
                    let words = [memory.load(1, Ordering::Relaxed), memory.load(2, Ordering::Relaxed)];
                    if unchanged(&*memory, 0, sequence) {
                        assert!(words == [u64::from(note(sequence)); 2] && words[0] >= last);
                        last = words[0];
                    }
                }
            }
            writer.join().unwrap();
        });
    }
}
