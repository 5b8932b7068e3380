//! The longest prefix: two hashes, one of the prefixes with their values, one of *nodes* that tell
//! which prefixes there are.
//!
//! The lengths of prefixes are taken six at a time: group 0 is the lengths 0 to 5, group 1 is 6 to 11, and
//! so on. A node stands for the first 0, 6, 12 … bits of a key and has a bit for each of the 63 prefixes that
//! continue them by 0 to 5 bits; only nodes with bits set exist. (The bits are those of a tree bitmap: Eatherton,
//! Varghese, Dittia, "Tree bitmap", CCR 2004; here the nodes are found by hashing.)
//!
//! ```text
//! node      hash of (first 6g bits, 6g)  →  bits: the prefix of 6g + r bits that continues with the r bits c
//!                                                 has bit 2^r + c
//! prefix    hash of (first n bits, n)    →  value
//! ```
//!
//! A look-up goes through the groups in use from the longest to the shortest, reads the node of the
//! key's own bits if there is one, and picks the longest of its six prefixes that is there; then
//! it reads the value. A table of IPv4 addresses has at most six groups, in practice three or four; of
//! IPv6 at most 22.
//!
//! # Why the answer was true
//! Every change makes its difference to look-ups in one step: the store of one bit of a node, or a
//! value under its bucket's seqlock. (A prefix's value is set before its bit, and removed after
//! it.) Before that step the generation is counted up. A look-up takes the generation before and
//! after; equal, at most one step fell into it, the last one announced. Going from long to short it has then
//! seen either the table before that step or the one after. Otherwise it begins again, 64 times at most.
//! So that a busy writer does not hold up all look-ups, there are 64 generations, each for the keys
//! whose first bits (16, of keys longer than four bytes 32) hash to it; a change of a shorter prefix counts up all.
//!
//! A writer that dies leaves nothing that makes look-ups wait but the bucket that it was writing.
//!
//! # Cost
//! A group in use costs one line, the prefix found two lines more at most; groups' buckets are fetched
//! ahead, at once. Memory: two hashes of the table's entries.

use std::ops::Range;

use super::hash::{Hash, NoPlace};
use super::layout::{BODY, COUNT, GENERATIONS, LEVEL_NODES, LEVELS, NODES};
use super::seqlock::{Memory, Patience};
use super::shape::Shape;
use super::table::Lookup;
use super::words::Words;
use crate::sync::{Ordering, fence};

/// Lengths in a group.
const STRIDE: u32 = 6;
/// There are 2^6 generations.
const GENERATION_SHIFT: u32 = 6;
/// Groups whose nodes a look-up fetches at once, before it reads the first: all that IPv4 has.
const AHEAD: usize = 6;
/// Groups of the longest keys, of 128 bits.
const MAX_LEVELS: usize = 22;
/// Bytes of a prefix's key as the hashes have it, in words.
const WORDS: usize = 3;

/// By the next five bits of a key: the bits of its six prefixes in a node.
const CANDIDATES: [u64; 32] = {
    let mut masks = [0; 32];
    let mut five = 0;
    while five < 32 {
        let mut r = 0;
        while r < STRIDE {
            masks[five] |= 1 << ((1 << r) | (five >> (5 - r)));
            r += 1;
        }
        five += 1;
    }
    masks
};

/// Bits of a key, from the highest on, and how many count; the others are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) bits: u128,
    pub(crate) length: u32,
}

impl Prefix {
    /// The first `length` bits; at most 128.
    #[inline]
    pub(crate) fn of(bits: u128, length: u32) -> Prefix {
        Prefix { bits: bits & mask(length), length }
    }

    /// The key of the table's bytes, from the highest bit on.
    #[inline]
    pub(crate) fn bits_of(key: &[u8]) -> u128 {
        if let Ok(four) = <[u8; 4]>::try_from(key) {
            return u128::from(u32::from_be_bytes(four)) << 96;
        }
        let mut bytes = [0; 16];
        let len = key.len().min(16);
        bytes[..len].copy_from_slice(&key[..len]);
        u128::from_be_bytes(bytes)
    }

    /// As a key of the hashes: the length fills the lowest byte that the bits leave free.
    #[inline]
    pub(crate) fn words(self, words: usize) -> [u64; WORDS] {
        let (high, low, length) = ((self.bits >> 64) as u64, self.bits as u64, u64::from(self.length));
        match words {
            1 => [high | length, 0, 0],
            2 => [high, low | length, 0],
            _ => [high, low, length],
        }
    }

    /// The inverse of `words`; of words that anyone may have written.
    pub(crate) fn of_words(words: &[u64]) -> Prefix {
        let bits = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        let (bits, length) = match *words {
            [one] => (bits(one, 0), one as u8),
            [one, two] => (bits(one, two), two as u8),
            [one, two, three, ..] => (bits(one, two), three as u8),
            [] => (0, 0),
        };
        Prefix::of(bits, u32::from(length).min(128))
    }

    /// Its node's key, and its bit there.
    fn node(self) -> (Prefix, u64) {
        let level = self.length / STRIDE;
        let (base, r) = (level * STRIDE, self.length % STRIDE);
        (Prefix::of(self.bits, base), 1 << ((1 << r) | (next_five(self.bits, base) >> (5 - r))))
    }

    fn level(self) -> usize {
        (self.length / STRIDE) as usize
    }
}

#[inline]
fn mask(length: u32) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length.min(128)) }
}

/// The five bits behind the first `base`.
#[inline]
fn next_five(bits: u128, base: u32) -> u32 {
    (bits << base >> 123) as u32
}

/// Where a table of prefixes lies in the words of a file.
#[derive(Debug, Clone)]
pub(crate) struct Prefixes {
    values: Hash,
    nodes: Hash,
    key_bits: u32,
    key_words: usize,
}

impl Prefixes {
    pub(crate) fn new(shape: &Shape, seed: u64) -> Prefixes {
        let (key_words, entries) = (shape.key_words(), shape.entries());
        let values = Hash::new(BODY, COUNT, (key_words, shape.value_words()), entries, seed);
        let nodes = Hash::new(values.words().end, NODES, (key_words, 1), entries, seed.rotate_left(17));
        Prefixes { values, nodes, key_bits: shape.key_bytes() as u32 * 8, key_words }
    }

    /// The words that it takes.
    pub(crate) fn words(&self) -> Range<usize> {
        self.values.words().start..self.nodes.words().end
    }

    /// The hash of the prefixes with their values.
    pub(crate) fn values(&self) -> &Hash {
        &self.values
    }

    #[inline]
    fn levels(&self, memory: &Words) -> u64 {
        // Relaxed: within a generation; a bit too many costs a reading in vain.
        memory.load(LEVELS, Ordering::Relaxed) & ((2 << (self.key_bits / STRIDE)) - 1)
    }

    /// Looks up the longest prefix of `bits` and copies the beginning of its value into `value`.
    #[inline]
    pub(crate) fn read(&self, memory: &Words, bits: u128, value: &mut [u8], patience: &mut Patience) -> Lookup {
        let at = self.generation(bits);
        loop {
            let generation = memory.load(at, Ordering::Acquire); // T6, pairs with T5
            let answer = self.walk(memory, bits, value, patience);
            fence(Ordering::Acquire); // T6, pairs with T5
            if answer == Lookup::Busy || memory.load(at, Ordering::Relaxed) == generation {
                return answer;
            }
            if !patience.again() {
                return Lookup::Busy;
            }
        }
    }

    fn walk(&self, memory: &Words, bits: u128, value: &mut [u8], patience: &mut Patience) -> Lookup {
        let mut levels = self.levels(memory);
        let mut hashes = [0; AHEAD];
        let ahead = self.prefetch(memory, levels, bits, &mut hashes);
        let mut n = 0;
        while levels != 0 {
            let level = levels.ilog2();
            levels &= !(1 << level);
            let base = level * STRIDE;
            let mut node = [0; 8];
            let key = Prefix::of(bits, base).words(self.key_words);
            let key = &key[..self.key_words];
            let hash = if n < ahead { hashes[n] } else { self.nodes.hash(key) };
            n += 1;
            match self.nodes.read(memory, hash, key, &mut node, patience) {
                Lookup::Found => {}
                Lookup::Absent => continue,
                Lookup::Busy => return Lookup::Busy,
            }
            let mut there = u64::from_le_bytes(node) & CANDIDATES[next_five(bits, base) as usize & 31];
            while there != 0 {
                let bit = there.ilog2();
                there &= !(1 << bit);
                let key = Prefix::of(bits, base + bit.max(1).ilog2()).words(self.key_words);
                let key = &key[..self.key_words];
                match self.values.read(memory, self.values.hash(key), key, value, patience) {
                    // Removed since the node was read, as the generation will tell.
                    Lookup::Absent => {}
                    answer => return answer,
                }
            }
        }
        Lookup::Absent
    }

    /// Fetches the nodes of the longest groups of `levels`, and gives their hashes and how many.
    #[inline]
    fn prefetch(&self, memory: &Words, mut levels: u64, bits: u128, hashes: &mut [u64; AHEAD]) -> usize {
        let mut n = 0;
        while levels != 0 && n < AHEAD {
            let level = levels.ilog2();
            levels &= !(1 << level);
            let key = Prefix::of(bits, level * STRIDE).words(self.key_words);
            hashes[n] = self.nodes.hash(&key[..self.key_words]);
            self.nodes.prefetch(memory, hashes[n]);
            n += 1;
        }
        n
    }

    /// The word with the generation of keys that begin like `bits`.
    #[inline]
    fn generation(&self, bits: u128) -> usize {
        let first = (Prefix::of(bits, self.generation_bits()).bits >> 96) as u32;
        GENERATIONS + (first.wrapping_mul(0x9e37_79b1) >> (32 - GENERATION_SHIFT)) as usize
    }

    fn generation_bits(&self) -> u32 {
        if self.key_bits > 32 { 32 } else { 16 }
    }

    /// Announces the one step of a change of this prefix that look-ups see.
    fn announce(&self, memory: &Words, prefix: Prefix) {
        let all = GENERATIONS..GENERATIONS + (1 << GENERATION_SHIFT);
        let one = self.generation(prefix.bits);
        for at in if prefix.length < self.generation_bits() { all } else { one..one + 1 } {
            let generation = memory.load(at, Ordering::Relaxed); // the writer's own
            memory.store(at, generation.wrapping_add(1), Ordering::Release); // T5, pairs with T6
        }
        fence(Ordering::Release); // T5, pairs with T6
    }

    /// For the writer: the prefix has this value from now on. Answers whether it is new.
    pub(crate) fn set(&self, memory: &Words, prefix: Prefix, value: &[u64]) -> Result<bool, NoPlace> {
        let key = prefix.words(self.key_words);
        let key = &key[..self.key_words];
        let (node, bit) = prefix.node();
        let node = node.words(self.key_words);
        let node = &node[..self.key_words];
        let bits = self.nodes.first_word(memory, node).unwrap_or(0);
        if bits & bit != 0 {
            self.announce(memory, prefix);
            return self.values.set(memory, key, value);
        }
        self.values.set(memory, key, value)?;
        let level = prefix.level();
        if bits == 0 {
            self.count_nodes(memory, level, |n| n.wrapping_add(1));
        }
        self.announce(memory, prefix);
        if let Err(full) = self.nodes.set(memory, node, &[bits | bit]) {
            self.count_nodes(memory, level, |n| n.saturating_sub(1));
            self.values.remove(memory, key);
            return Err(full);
        }
        Ok(true)
    }

    /// For the writer: the prefix is not there from now on. Answers whether it was.
    pub(crate) fn remove(&self, memory: &Words, prefix: Prefix) -> bool {
        let key = prefix.words(self.key_words);
        let (node, bit) = prefix.node();
        let node = node.words(self.key_words);
        let node = &node[..self.key_words];
        let bits = self.nodes.first_word(memory, node).unwrap_or(0);
        if bits & bit != 0 {
            self.announce(memory, prefix);
            if bits == bit {
                self.nodes.remove(memory, node);
                self.count_nodes(memory, prefix.level(), |n| n.saturating_sub(1));
            } else {
                // It exists, so it has a place.
                let _ = self.nodes.set(memory, node, &[bits & !bit]);
            }
        }
        self.values.remove(memory, &key[..self.key_words])
    }

    /// For the writer: counts the nodes of a group, and keeps the set of groups in use at least as
    /// large as it is.
    fn count_nodes(&self, memory: &Words, level: usize, change: impl Fn(u64) -> u64) {
        let at = LEVEL_NODES + level.min(MAX_LEVELS - 1);
        let count = change(memory.load(at, Ordering::Relaxed)); // the writer's own
        memory.store(at, count, Ordering::Relaxed); // the writer alone reads it
        self.use_level(memory, level, count > 0);
    }

    fn use_level(&self, memory: &Words, level: usize, used: bool) {
        let levels = memory.load(LEVELS, Ordering::Relaxed); // the writer's own
        let levels = if used { levels | 1 << level } else { levels & !(1 << level) };
        memory.store(LEVELS, levels, Ordering::Relaxed); // ordered by T5 before the first node, after the last
    }

    /// For the writer: no prefixes from now on, for look-ups all in one step. Answers whether there were any.
    pub(crate) fn clear(&self, memory: &Words) -> bool {
        self.announce(memory, Prefix::of(0, 0));
        memory.store(LEVELS, 0, Ordering::Relaxed); // the step; ordered by T5
        self.announce(memory, Prefix::of(0, 0)); // who could see a node go begins again
        self.nodes.clear(memory);
        for level in 0..MAX_LEVELS {
            memory.store(LEVEL_NODES + level, 0, Ordering::Relaxed); // the writer alone reads it
        }
        self.values.clear(memory)
    }

    /// For the writer that finds that another died, after the change in the journal.
    pub(crate) fn repair(&self, memory: &Words) {
        self.values.repair(memory);
        self.nodes.repair(memory);
        let mut counts = [0u64; MAX_LEVELS];
        let mut entries = Vec::new();
        for bucket in 0..self.nodes.buckets() {
            self.nodes.list(memory, bucket, &mut entries, &mut Patience::new());
            for entry in entries.chunks_exact(self.key_words + 1) {
                counts[Prefix::of_words(&entry[..self.key_words]).level().min(MAX_LEVELS - 1)] += 1;
            }
        }
        for (level, count) in counts.into_iter().enumerate() {
            memory.store(LEVEL_NODES + level, count, Ordering::Relaxed); // the writer alone reads it
            self.use_level(memory, level, count > 0);
        }
    }

    #[cfg(test)]
    pub(crate) fn leads_nowhere(&self, memory: &Words) -> bool {
        self.levels(memory) == 0 && self.nodes.notes(memory) + self.values.notes(memory) == 0
    }
}
