//! The array: entries side by side, found by their index.
//!
//! ```text
//! entry    0    sequence word (seqlock.rs); its note: 1 if the entry is set
//!          8    value, whole words
//! ```
//!
//! A look-up reads the entry's line or lines. Memory: 1 + value words an entry.

use std::ops::Range;

use super::hash::NoPlace;
use super::layout::{COUNT, copy_in, copy_out};
use super::seqlock::{self, Memory, Patience};
use super::table::Lookup;
use super::words::Words;
use crate::sync::Ordering;

const SET: u16 = 1;

/// Where an array lies in the words of a file, and its sizes.
#[derive(Debug, Clone)]
pub(crate) struct Array {
    base: usize,
    entries: u32,
    value_words: usize,
}

impl Array {
    pub(crate) fn new(base: usize, value_words: usize, entries: u32) -> Array {
        Array { base, entries, value_words }
    }

    /// The words that it takes.
    pub(crate) fn words(&self) -> Range<usize> {
        self.base..self.base + self.entries as usize * (1 + self.value_words)
    }

    #[inline]
    fn at(&self, index: u32) -> Option<usize> {
        (index < self.entries).then(|| self.base + index as usize * (1 + self.value_words))
    }

    /// Fetches what a look-up of this index reads.
    #[inline]
    pub(crate) fn prefetch(&self, memory: &Words, index: u32) {
        if let Some(at) = self.at(index) {
            memory.prefetch(at);
        }
    }

    /// Looks the entry up and copies the beginning of its value into `value`, as much as fits.
    #[inline]
    pub(crate) fn read(&self, memory: &Words, index: u32, value: &mut [u8], patience: &mut Patience) -> Lookup {
        let Some(at) = self.at(index) else { return Lookup::Absent };
        loop {
            if let Some(sequence) = seqlock::begin(memory, at) {
                if seqlock::note(sequence) != SET {
                    return Lookup::Absent;
                }
                copy_out(memory, at + 1, value);
                if seqlock::unchanged(memory, at, sequence) {
                    return Lookup::Found;
                }
            }
            if !patience.again() {
                return Lookup::Busy;
            }
        }
    }

    /// Entries that are set.
    pub(crate) fn len(&self, memory: &Words) -> u64 {
        memory.load(COUNT, Ordering::Relaxed) // a figure; nothing is read on its strength
    }

    fn is_set(&self, memory: &Words, at: usize) -> bool {
        seqlock::note(memory.load(at, Ordering::Relaxed)) == SET // the writer's own
    }

    /// For the writer: the entry has this value from now on. Answers whether it is new.
    pub(crate) fn set(&self, memory: &Words, index: u32, value: &[u64]) -> Result<bool, NoPlace> {
        let at = self.at(index).ok_or(NoPlace)?;
        let new = !self.is_set(memory, at);
        seqlock::open(memory, at);
        copy_in(memory, at + 1, value);
        seqlock::close(memory, at, SET);
        memory.store(COUNT, self.len(memory).wrapping_add(u64::from(new)), Ordering::Relaxed);
        Ok(new)
    }

    /// For the writer: the entry is not set from now on. Answers whether it was.
    pub(crate) fn remove(&self, memory: &Words, index: u32) -> bool {
        let Some(at) = self.at(index) else { return false };
        let had = self.is_set(memory, at);
        if had {
            seqlock::close(memory, at, 0); // one word: no need to open
            memory.store(COUNT, self.len(memory).saturating_sub(1), Ordering::Relaxed);
        }
        had
    }

    /// For the writer: no entry is set from now on, one after the other. Answers whether any was.
    pub(crate) fn clear(&self, memory: &Words) -> bool {
        let had = self.len(memory) > 0;
        for at in (0..self.entries).filter_map(|index| self.at(index)) {
            let sequence = memory.load(at, Ordering::Relaxed);
            if seqlock::note(sequence) != 0 || seqlock::is_open(sequence) {
                seqlock::close(memory, at, 0);
            }
        }
        memory.store(COUNT, 0, Ordering::Relaxed);
        had
    }

    /// For the writer that finds that another died, after the change in the journal: ends changes left
    /// open and counts anew.
    pub(crate) fn repair(&self, memory: &Words) {
        let mut count = 0;
        for at in (0..self.entries).filter_map(|index| self.at(index)) {
            let sequence = memory.load(at, Ordering::Relaxed);
            count += u64::from(seqlock::note(sequence) == SET);
            if seqlock::is_open(sequence) {
                seqlock::close(memory, at, seqlock::note(sequence));
            }
        }
        memory.store(COUNT, count, Ordering::Relaxed);
    }
}
