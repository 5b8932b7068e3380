//! The ledger: who holds which buffer.
//!
//! One a dispatcher, private memory. Per pipe a bitmap of the buffers it holds, per buffer the number
//! of pipes that do. It is reference count, validation and crash recovery in one: a slot returned by
//! a pipe that does not hold the buffer is a violation and changes nothing; when a consumer dies its
//! bitmap is walked and nothing leaks. A few ns a packet; no allocation after creation.

use crate::{Buffer, Region};

/// What a returned slot means.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned {
    /// The last holder returned it: here is the buffer.
    Free(Buffer),
    /// Others still hold it.
    Held,
    /// The pipe does not hold this buffer, or there is no such buffer: ignored.
    Violation,
}

/// Who holds which buffer of one region.
#[derive(Debug)]
pub struct Ledger {
    region: u32,
    words: usize,
    /// One bit a buffer, `words` words a pipe, pipes one behind the other.
    held: Vec<u64>,
    /// Buffers that each pipe holds.
    held_count: Vec<u32>,
    /// Pipes that hold each buffer.
    holders: Vec<u16>,
}

impl Ledger {
    /// A ledger of `region` for `pipes` pipes, numbered from 0, nothing held.
    pub fn new(region: &Region, pipes: usize) -> Ledger {
        let buffers = region.geometry().buffers as usize;
        let words = buffers.div_ceil(64);
        Ledger {
            region: region.id(),
            words,
            held: vec![0; words * pipes],
            held_count: vec![0; pipes],
            holders: vec![0; buffers],
        }
    }

    fn place(&self, pipe: usize, index: u32) -> Option<(usize, u64)> {
        let word = index as usize / 64;
        (word < self.words && pipe < self.held_count.len()).then(|| (pipe * self.words + word, 1u64 << (index % 64)))
    }

    /// Passes `buffer` to `pipe` and gives the index to write into the slot.
    ///
    /// # Panics
    /// If the buffer is another region's or there is no such pipe: our own mistake.
    #[inline]
    pub fn send(&mut self, pipe: usize, buffer: Buffer) -> u32 {
        assert_eq!(buffer.region, self.region, "a ledger keeps buffers of its own region");
        let (word, bit) = self.place(pipe, buffer.index).expect("the yard numbers its pipes");
        self.held[word] |= bit;
        self.held_count[pipe] += 1;
        self.holders[buffer.index as usize] = 1;
        buffer.index
    }

    /// Notes that `pipe` holds buffer `index` as well, which another pipe holds already. Answers false,
    /// and changes nothing, if nobody holds it or this pipe does.
    pub fn share(&mut self, pipe: usize, index: u32) -> bool {
        let Some((word, bit)) = self.place(pipe, index) else { return false };
        let Some(holders @ 1..) = self.holders.get_mut(index as usize) else { return false };
        if self.held[word] & bit != 0 {
            return false;
        }
        *holders += 1;
        self.held[word] |= bit;
        self.held_count[pipe] += 1;
        true
    }

    /// Takes a slot that `pipe` returned. `index` may be anything: a peer wrote it.
    #[inline]
    pub fn returned(&mut self, pipe: usize, index: u32) -> Returned {
        let Some((word, bit)) = self.place(pipe, index) else { return Returned::Violation };
        if self.held[word] & bit == 0 {
            return Returned::Violation;
        }
        self.held[word] &= !bit;
        self.held_count[pipe] -= 1;
        let holders = &mut self.holders[index as usize];
        *holders -= 1;
        if *holders == 0 { Returned::Free(Buffer { index, region: self.region }) } else { Returned::Held }
    }

    /// Takes back all that a dead `pipe` held; `free` gets the buffers that nobody else holds. Walks
    /// the bitmap: microseconds for 2^16 buffers.
    pub fn reclaim(&mut self, pipe: usize, mut free: impl FnMut(Buffer)) {
        for word in 0..self.words {
            let mut bits = self.held.get(pipe * self.words + word).copied().unwrap_or(0);
            while bits != 0 {
                let index = (word * 64) as u32 + bits.trailing_zeros();
                bits &= bits - 1;
                if let Returned::Free(buffer) = self.returned(pipe, index) {
                    free(buffer);
                }
            }
        }
    }

    /// Buffers that `pipe` holds.
    pub fn held(&self, pipe: usize) -> u32 {
        self.held_count.get(pipe).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// Whatever pipes return, in whatever order, twice or not theirs: every buffer comes home
        /// exactly once, and the ledger agrees with sets of pairs.
        #[test]
        fn agrees_with_sets(actions in proptest::collection::vec((0u8..5, 0usize..4, 0u32..80), 0..400)) {
            let (region, mut stock) = Region::create("ledger", Geometry::new(2048, 0, 70).expect("geometry")).expect("region");
            let mut ledger = Ledger::new(&region, 3);
            let mut held: HashSet<(usize, u32)> = HashSet::new();
            for (action, pipe, index) in actions {
                match action {
                    0 | 1 if pipe < 3 => if let Some(buffer) = stock.take() {
                        let index = ledger.send(pipe, buffer);
                        prop_assert!(held.insert((pipe, index)));
                    },
                    2 => {
                        let possible = pipe < 3 && held.iter().any(|h| h.1 == index) && !held.contains(&(pipe, index));
                        prop_assert_eq!(ledger.share(pipe, index), possible);
                        if possible { held.insert((pipe, index)); }
                    }
                    3 => match ledger.returned(pipe, index) {
                        Returned::Violation => prop_assert!(!held.contains(&(pipe, index))),
                        Returned::Held => { prop_assert!(held.remove(&(pipe, index))); prop_assert!(held.iter().any(|h| h.1 == index)); }
                        Returned::Free(buffer) => { prop_assert!(held.remove(&(pipe, index))); prop_assert!(!held.iter().any(|h| h.1 == index)); stock.put(buffer); }
                    },
                    4 if pipe < 3 => {
                        ledger.reclaim(pipe, |buffer| stock.put(buffer));
                        held.retain(|h| h.0 != pipe);
                    }
                    _ => {}
                }
                for pipe in 0..3 {
                    prop_assert_eq!(ledger.held(pipe) as usize, held.iter().filter(|h| h.0 == pipe).count());
                }
            }
            for pipe in 0..3 {
                ledger.reclaim(pipe, |buffer| stock.put(buffer));
            }
            prop_assert_eq!(stock.len(), 70);
        }
    }
}
