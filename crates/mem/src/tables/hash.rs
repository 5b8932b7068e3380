//! The hash: buckets of seven entries, of which a look-up reads one, seldom two.
//!
//! ```text
//! bucket   0      sequence word (seqlock.rs); its note: entries that passed over this bucket
//!          8      tags: a byte a slot, 0 for a free one, else 0x80 and seven bits of the hash; one unused
//!          16     slot 0: key, value; slot 1 … 6: whole words; then filled up to a cache line
//! ```
//!
//! The hash of the key gives its *home* bucket and its tag. An entry lies in its home, or, if that
//! is full, in the next bucket with a free slot, at most [`REACH`] buckets on; each bucket that it
//! passed over counts it in its note. A look-up goes from home to the next bucket while the note is
//! not zero. There are half as many slots again as entries: in a full table one entry in twenty is away from
//! home, and one look-up in vain in seven reads a second bucket. Memory: 1.6 to 2 × (key + value) words
//! an entry.
//!
//! # Why a look-up misses nothing
//! An entry stays in its slot from the moment it is set to the moment it is removed. A writer counts
//! it in the notes before it shows it, and takes it out of the notes after it removed it. So as long
//! as the entry lives, the notes lead to it. A look-up sees each bucket, with its note, as of one
//! moment (the seqlock); if it answers `Absent`, then the key was, at the moment of one of these
//! readings, in none of the buckets on its way.
//!
//! # Cost
//! A look-up that finds nothing reads the line with sequence and tags; one that finds reads the
//! slot's as well, often the same or the next. Seven bits of tag send one miss in twenty-seven
//! to a slot in vain.

use std::ops::Range;

use super::layout::{copy_in, copy_out};
use super::seqlock::{self, Memory, Patience};
use super::table::Lookup;
use super::words::Words;
use crate::sync::Ordering;

/// Slots of a bucket: with the two words in front, entries of two words fill two lines.
const SLOTS: usize = 7;
/// Words in front of the slots: sequence and tags.
const HEAD_WORDS: usize = 2;
/// Words of a cache line.
const LINE_WORDS: usize = 8;
/// Lines of a bucket that are fetched ahead.
const PREFETCH_LINES: usize = 4;
/// Buckets that an entry may be away from home, its home included. Full tables of a
/// million keys need 16 at most, and each bucket further has half as many.
pub(crate) const REACH: u32 = 32;

/// Where a hash lies in the words of a file, and its sizes.
#[derive(Debug, Clone)]
pub(crate) struct Hash {
    base: usize,
    buckets: u32,
    key_words: usize,
    value_words: usize,
    entries: u32,
    seed: u64,
    /// The word that counts the entries.
    count: usize,
}

/// No slot is free within reach, or the table has all the entries that it was made for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPlace;

/// A slot: the index of its bucket, its number there, and how many buckets from home that is.
#[derive(Debug, Clone, Copy)]
struct Slot {
    bucket: u32,
    slot: usize,
    distance: u32,
}

impl Hash {
    /// A hash at word `base` for `entries` of these sizes.
    pub(crate) fn new(base: usize, count: usize, sizes: (usize, usize), entries: u32, seed: u64) -> Hash {
        let base = base.next_multiple_of(LINE_WORDS);
        let slots = u64::from(entries) * 3 / 2;
        let buckets = slots.div_ceil(SLOTS as u64).max(1) as u32;
        Hash { base, buckets, key_words: sizes.0, value_words: sizes.1, entries, seed, count }
    }

    /// The words that it takes.
    pub(crate) fn words(&self) -> Range<usize> {
        self.base..self.base + self.buckets as usize * self.bucket_words()
    }

    /// Buckets, for [`Hash::list`].
    pub(crate) fn buckets(&self) -> u32 {
        self.buckets
    }

    #[inline]
    fn bucket_words(&self) -> usize {
        (HEAD_WORDS + SLOTS * (self.key_words + self.value_words)).next_multiple_of(LINE_WORDS)
    }

    #[inline]
    fn at(&self, bucket: u32) -> usize {
        self.base + bucket as usize * self.bucket_words()
    }

    #[inline]
    fn key_at(&self, at: usize, slot: usize) -> usize {
        at + HEAD_WORDS + slot * (self.key_words + self.value_words)
    }

    /// The bucket where a look-up of this hash begins.
    #[inline]
    pub(crate) fn home(&self, hash: u64) -> u32 {
        (((hash >> 32) * u64::from(self.buckets)) >> 32) as u32
    }

    #[inline]
    fn next(&self, bucket: u32) -> u32 {
        if bucket + 1 == self.buckets { 0 } else { bucket + 1 }
    }

    /// Buckets that a look-up reads at most.
    #[inline]
    fn reach(&self) -> u32 {
        REACH.min(self.buckets)
    }

    /// The hash of a key: folded multiplications, keyed by the seed. Never the same for two tables; who
    /// does not know the seed cannot choose keys that share a bucket.
    #[inline]
    pub(crate) fn hash(&self, key: &[u64]) -> u64 {
        let mut hash = self.seed;
        for word in key {
            hash = fold(hash ^ word, 0x9e37_79b9_7f4a_7c15);
        }
        fold(hash ^ self.seed.rotate_left(32), 0xd6e8_feb8_6659_fd93)
    }

    /// Fetches what a look-up of this hash reads, all of a small bucket at once, so that the slot's line is not
    /// waited for after that of the tags.
    #[inline]
    pub(crate) fn prefetch(&self, memory: &Words, hash: u64) {
        let at = self.at(self.home(hash));
        for line in 0..self.bucket_words().div_ceil(LINE_WORDS).min(PREFETCH_LINES) {
            memory.prefetch(at + line * LINE_WORDS);
        }
    }

    /// Looks `key` up and copies the beginning of its value into `value`, as much as fits.
    #[inline]
    pub(crate) fn read(
        &self,
        memory: &Words,
        hash: u64,
        key: &[u64],
        value: &mut [u8],
        patience: &mut Patience,
    ) -> Lookup {
        let mut bucket = self.home(hash);
        for _ in 0..self.reach() {
            let at = self.at(bucket);
            let note = loop {
                if let Some(sequence) = seqlock::begin(memory, at) {
                    let slot = self.find(memory, at, tag(hash), key);
                    if let Some(slot) = slot {
                        copy_out(memory, self.key_at(at, slot) + self.key_words, value);
                    }
                    if seqlock::unchanged(memory, at, sequence) {
                        if slot.is_some() {
                            return Lookup::Found;
                        }
                        break seqlock::note(sequence);
                    }
                }
                if !patience.again() {
                    return Lookup::Busy;
                }
            };
            if note == 0 {
                return Lookup::Absent;
            }
            bucket = self.next(bucket);
        }
        Lookup::Absent
    }

    /// The slot of the bucket at `at` that has this key. Relaxed throughout: within a seqlock.
    #[inline]
    fn find(&self, memory: &Words, at: usize, tag: u8, key: &[u64]) -> Option<usize> {
        let mut hits = bytes_equal(memory.load(at + 1, Ordering::Relaxed), tag);
        while hits != 0 {
            let slot = hits.trailing_zeros() as usize / 8;
            let key_at = self.key_at(at, slot);
            if key.iter().enumerate().all(|(n, word)| memory.load(key_at + n, Ordering::Relaxed) == *word) {
                return Some(slot);
            }
            hits &= hits - 1;
        }
        None
    }

    /// For the writer: where the key's entry is.
    fn locate(&self, memory: &Words, hash: u64, key: &[u64]) -> Option<Slot> {
        let mut bucket = self.home(hash);
        for distance in 0..self.reach() {
            let at = self.at(bucket);
            if let Some(slot) = self.find(memory, at, tag(hash), key) {
                return Some(Slot { bucket, slot, distance });
            }
            if self.note(memory, at) == 0 {
                break;
            }
            bucket = self.next(bucket);
        }
        None
    }

    /// For the writer: the first word of the key's value, even if its bucket is open.
    pub(crate) fn first_word(&self, memory: &Words, key: &[u64]) -> Option<u64> {
        let Slot { bucket, slot, .. } = self.locate(memory, self.hash(key), key)?;
        Some(memory.load(self.key_at(self.at(bucket), slot) + self.key_words, Ordering::Relaxed)) // the writer's own
    }

    /// For the writer: the first free slot for a key of this hash.
    fn free(&self, memory: &Words, hash: u64) -> Option<Slot> {
        let mut bucket = self.home(hash);
        for distance in 0..self.reach() {
            let free = bytes_equal(memory.load(self.at(bucket) + 1, Ordering::Relaxed), 0);
            if free != 0 {
                return Some(Slot { bucket, slot: free.trailing_zeros() as usize / 8, distance });
            }
            bucket = self.next(bucket);
        }
        None
    }

    fn note(&self, memory: &Words, at: usize) -> u16 {
        seqlock::note(memory.load(at, Ordering::Relaxed)) // the writer's own
    }

    /// Entries.
    pub(crate) fn len(&self, memory: &Words) -> u64 {
        memory.load(self.count, Ordering::Relaxed) // a figure; nothing is read on its strength
    }

    /// For the writer: the entry of `key` has this value from now on. Answers whether it is new.
    pub(crate) fn set(&self, memory: &Words, key: &[u64], value: &[u64]) -> Result<bool, NoPlace> {
        let hash = self.hash(key);
        if let Some(Slot { bucket, slot, .. }) = self.locate(memory, hash, key) {
            let at = self.at(bucket);
            seqlock::open(memory, at);
            copy_in(memory, self.key_at(at, slot) + self.key_words, value);
            seqlock::close(memory, at, self.note(memory, at));
            return Ok(false);
        }
        let len = self.len(memory);
        if len >= u64::from(self.entries) {
            return Err(NoPlace);
        }
        let Slot { bucket, slot, distance } = self.free(memory, hash).ok_or(NoPlace)?;
        // First the notes, so that whoever could find the entry is led to it.
        self.pass(memory, hash, distance, |note| note.saturating_add(1));
        let at = self.at(bucket);
        seqlock::open(memory, at);
        copy_in(memory, self.key_at(at, slot), key);
        copy_in(memory, self.key_at(at, slot) + self.key_words, value);
        // Release: whoever takes over from a dead writer finds key and value behind a tag.
        memory.store(at + 1, with_tag(memory.load(at + 1, Ordering::Relaxed), slot, tag(hash)), Ordering::Release);
        seqlock::close(memory, at, self.note(memory, at));
        memory.store(self.count, len.wrapping_add(1), Ordering::Relaxed);
        Ok(true)
    }

    /// For the writer: `key` has no entry from now on. Answers whether it had one.
    pub(crate) fn remove(&self, memory: &Words, key: &[u64]) -> bool {
        let hash = self.hash(key);
        let Some(Slot { bucket, slot, distance }) = self.locate(memory, hash, key) else { return false };
        self.set_tag(memory, bucket, slot, 0);
        self.pass(memory, hash, distance, |note| note.saturating_sub(1));
        memory.store(self.count, self.len(memory).saturating_sub(1), Ordering::Relaxed);
        true
    }

    fn set_tag(&self, memory: &Words, bucket: u32, slot: usize, tag: u8) {
        let at = self.at(bucket);
        seqlock::open(memory, at);
        memory.store(at + 1, with_tag(memory.load(at + 1, Ordering::Relaxed), slot, tag), Ordering::Relaxed);
        seqlock::close(memory, at, self.note(memory, at));
    }

    /// Changes the notes of the buckets that an entry passes over.
    fn pass(&self, memory: &Words, hash: u64, distance: u32, change: impl Fn(u16) -> u16) {
        let mut bucket = self.home(hash);
        for _ in 0..distance {
            let at = self.at(bucket);
            seqlock::close(memory, at, change(self.note(memory, at))); // one word: no need to open
            bucket = self.next(bucket);
        }
    }

    /// For the writer: no entries from now on, bucket by bucket. Answers whether there were any.
    pub(crate) fn clear(&self, memory: &Words) -> bool {
        let had = self.len(memory) > 0;
        for bucket in 0..self.buckets {
            let at = self.at(bucket);
            let (sequence, tags) = (memory.load(at, Ordering::Relaxed), memory.load(at + 1, Ordering::Relaxed));
            if tags != 0 || seqlock::note(sequence) != 0 || seqlock::is_open(sequence) {
                seqlock::open(memory, at);
                memory.store(at + 1, 0, Ordering::Relaxed);
                seqlock::close(memory, at, 0);
            }
        }
        memory.store(self.count, 0, Ordering::Relaxed);
        had
    }

    /// For the writer that finds that another died: counts notes and entries anew, ends changes left
    /// open, and drops what is out of reach of its home. The change in the journal was made before.
    pub(crate) fn repair(&self, memory: &Words) {
        let mut passed = vec![0u16; self.buckets as usize];
        let mut count = 0;
        let mut key = vec![0; self.key_words];
        for bucket in 0..self.buckets {
            for slot in occupied(memory.load(self.at(bucket) + 1, Ordering::Relaxed)) {
                self.key(memory, bucket, slot, &mut key);
                let hash = self.hash(&key);
                let home = self.home(hash);
                let distance = if bucket >= home { bucket - home } else { bucket + (self.buckets - home) };
                if distance >= self.reach() {
                    self.set_tag(memory, bucket, slot, 0);
                    continue;
                }
                count += 1;
                let mut over = home;
                for _ in 0..distance {
                    passed[over as usize] = passed[over as usize].saturating_add(1);
                    over = self.next(over);
                }
            }
        }
        for (bucket, note) in (0..self.buckets).zip(passed) {
            let sequence = memory.load(self.at(bucket), Ordering::Relaxed);
            if seqlock::is_open(sequence) || seqlock::note(sequence) != note {
                seqlock::close(memory, self.at(bucket), note);
            }
        }
        memory.store(self.count, count, Ordering::Relaxed);
    }

    /// The sum of all notes.
    #[cfg(test)]
    pub(crate) fn notes(&self, memory: &Words) -> u64 {
        (0..self.buckets).map(|bucket| u64::from(self.note(memory, self.at(bucket)))).sum()
    }

    fn key(&self, memory: &Words, bucket: u32, slot: usize, key: &mut [u64]) {
        let key_at = self.key_at(self.at(bucket), slot);
        for (n, word) in key.iter_mut().enumerate() {
            *word = memory.load(key_at + n, Ordering::Relaxed); // within a seqlock, or the writer's own
        }
    }

    /// The entries of one bucket as of one moment, as words: key, then value. False if it is busy, and
    /// then `words` has nothing.
    pub(crate) fn list(&self, memory: &Words, bucket: u32, words: &mut Vec<u64>, patience: &mut Patience) -> bool {
        let at = self.at(bucket);
        loop {
            words.clear();
            if let Some(sequence) = seqlock::begin(memory, at) {
                for slot in occupied(memory.load(at + 1, Ordering::Relaxed)) {
                    let from = self.key_at(at, slot);
                    let to = from + self.key_words + self.value_words;
                    words.extend((from..to).map(|at| memory.load(at, Ordering::Relaxed)));
                }
                if seqlock::unchanged(memory, at, sequence) {
                    return true;
                }
            }
            if !patience.again() {
                words.clear();
                return false;
            }
        }
    }
}

/// Multiplies to 128 bits and folds them.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The tag of an entry: seven bits of the hash that do not choose the bucket. Never 0.
#[inline]
fn tag(hash: u64) -> u8 {
    hash as u8 | 0x80
}

fn with_tag(tags: u64, slot: usize, tag: u8) -> u64 {
    tags & !(0xff << (slot * 8)) | u64::from(tag) << (slot * 8)
}

/// The highest bit of each slot's byte that equals `byte`. Above an equal byte another may be marked that
/// differs in its lowest bit alone; the lowest mark is always right.
#[inline]
fn bytes_equal(bytes: u64, byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let different = bytes ^ (ONES * u64::from(byte));
    different.wrapping_sub(ONES) & !different & (ONES << 7 >> (8 * (8 - SLOTS)))
}

/// Slots whose tag is not 0.
fn occupied(tags: u64) -> impl Iterator<Item = usize> {
    (0..SLOTS).filter(move |slot| (tags >> (slot * 8)) as u8 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a full table of keys as they come in practice, one after the other.
    #[test]
    fn entries_are_seldom_far_from_home() {
        for shift in [0, 24, 40] {
            let hash = Hash::new(0, 0, (1, 1), 300_000, 1);
            let mut held = vec![0; hash.buckets as usize];
            let mut distances = [0; REACH as usize];
            for n in 0..300_000u64 {
                let (mut bucket, mut distance) = (hash.home(hash.hash(&[n << shift])), 0);
                while held[bucket as usize] == SLOTS {
                    bucket = hash.next(bucket);
                    distance += 1;
                }
                held[bucket as usize] += 1;
                distances[distance] += 1;
            }
            assert!(distances[0] > 300_000 * 95 / 100, "{distances:?}");
            assert_eq!(distances[20..].iter().sum::<u32>(), 0, "{distances:?}");
        }
    }

    #[test]
    fn bytes_are_found_in_slots_alone() {
        assert_eq!(bytes_equal(0x8100_0000_0000_0081, 0x81).trailing_zeros() / 8, 0);
        assert_eq!(bytes_equal(0x8100_0000_0000_0082, 0x81), 0);
        assert_eq!(bytes_equal(0x0081_8181_8181_8181, 0), 0);
        assert_eq!(bytes_equal(0xff00_8181_8181_8181, 0).trailing_zeros() / 8, 6);
    }
}
