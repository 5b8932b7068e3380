//! The indirection table: hash → bucket → ring.
//!
//! 4096 buckets, dealt among the rings by weight. Reweighing moves only as many buckets as must
//! move, so as few flows as can be change their ring.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Why a table could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableError {
    /// No rings were asked for.
    NoRings,
    /// More rings than there are buckets.
    TooManyRings {
        /// How many were asked for.
        rings: usize,
    },
    /// Every weight is 0: there is nowhere to go.
    NoWeight,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoRings => write!(f, "table for 0 rings: give at least 1"),
            TableError::TooManyRings { rings } => {
                write!(f, "table for {rings} rings: at most {} fit", Table::BUCKETS)
            }
            TableError::NoWeight => write!(f, "all weights are 0: give one ring at least 1"),
        }
    }
}

impl core::error::Error for TableError {}

/// Which ring each bucket of hashes goes to. Cloning copies 8 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    buckets: Box<[u16; Table::BUCKETS]>,
    rings: u16,
}

impl Table {
    /// The number of buckets, a power of two. A ring's share is a multiple of 1/4096.
    pub const BUCKETS: usize = 4096;

    /// Equal shares for `rings` rings.
    pub fn even(rings: u16) -> Result<Table, TableError> {
        let mut table = Table::empty(rings.into())?;
        for (bucket, ring) in table.buckets.iter_mut().enumerate() {
            *ring = (bucket % usize::from(rings)) as u16;
        }
        Ok(table)
    }

    /// Shares by weight: `weights[ring]` parts of their sum. A weight of 0 gives a ring nothing.
    pub fn weighted(weights: &[u32]) -> Result<Table, TableError> {
        let mut table = Table::empty(weights.len())?;
        table.reweigh(weights)?;
        Ok(table)
    }

    /// A table of no ring yet: every bucket belongs to ring `rings`, which does not exist.
    fn empty(rings: usize) -> Result<Table, TableError> {
        if rings == 0 {
            return Err(TableError::NoRings);
        }
        if rings > Table::BUCKETS {
            return Err(TableError::TooManyRings { rings });
        }
        let rings = rings as u16;
        Ok(Table { buckets: Box::new([rings; Table::BUCKETS]), rings })
    }

    /// The ring of a hash. One look-up.
    #[inline(always)]
    pub fn ring(&self, hash: u32) -> u16 {
        self.buckets[Table::bucket(hash)]
    }

    /// The bucket of a hash: its low 12 bits.
    #[inline(always)]
    pub const fn bucket(hash: u32) -> usize {
        hash as usize & (Table::BUCKETS - 1)
    }

    /// The ring of every bucket.
    pub fn buckets(&self) -> &[u16] {
        &self.buckets[..]
    }

    /// How many rings there are, those of weight 0 included.
    pub fn rings(&self) -> u16 {
        self.rings
    }

    /// Changes the shares, and the number of rings with them, moving as few buckets as can be.
    /// Returns how many moved. On an error the table is as it was.
    pub fn reweigh(&mut self, weights: &[u32]) -> Result<usize, TableError> {
        let shares = shares(weights)?;
        let mut missing: Vec<usize> = shares;
        let mut loose = Vec::new();
        for (bucket, ring) in self.buckets.iter().enumerate() {
            match missing.get_mut(usize::from(*ring)) {
                Some(room) if *room > 0 => *room -= 1,
                _ => loose.push(bucket),
            }
        }
        // Deal what is loose to the rings in turn, so that neighbouring buckets are spread.
        let mut ring = 0;
        for &bucket in &loose {
            while missing.get(ring).copied().unwrap_or(0) == 0 {
                ring = (ring + 1) % missing.len();
            }
            if let (Some(place), Some(room)) = (self.buckets.get_mut(bucket), missing.get_mut(ring)) {
                *place = ring as u16;
                *room -= 1;
            }
            ring = (ring + 1) % missing.len();
        }
        self.rings = weights.len() as u16;
        Ok(loose.len())
    }
}

/// Buckets per ring: proportional, the remainder to the largest fractions, in all exactly
/// [`Table::BUCKETS`].
fn shares(weights: &[u32]) -> Result<Vec<usize>, TableError> {
    if weights.is_empty() {
        return Err(TableError::NoRings);
    }
    if weights.len() > Table::BUCKETS {
        return Err(TableError::TooManyRings { rings: weights.len() });
    }
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if sum == 0 {
        return Err(TableError::NoWeight);
    }
    let parts = |weight: u32| u64::from(weight) * Table::BUCKETS as u64;
    let mut shares: Vec<usize> = weights.iter().map(|&w| (parts(w) / sum) as usize).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&ring| {
        let rest = weights.get(ring).map_or(0, |&weight| parts(weight) % sum);
        (core::cmp::Reverse(rest), ring)
    });
    let dealt: usize = shares.iter().sum();
    for &ring in order.iter().take(Table::BUCKETS - dealt) {
        if let Some(share) = shares.get_mut(ring) {
            *share += 1;
        }
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(table: &Table) -> Vec<usize> {
        let mut counts = alloc::vec![0; table.rings().into()];
        for &ring in table.buckets() {
            counts[usize::from(ring)] += 1;
        }
        counts
    }

    #[test]
    fn even_shares_differ_by_one_at_most() {
        for rings in [1, 2, 3, 7, 16, 100, 4096] {
            let counts = counts(&Table::even(rings).unwrap());
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(max - min <= 1, "{rings}");
        }
    }

    #[test]
    fn weights_are_shares() {
        let table = Table::weighted(&[1, 2, 1, 0]).unwrap();
        assert_eq!(counts(&table), [1024, 2048, 1024, 0]);
    }

    #[test]
    fn reweighing_moves_as_few_as_can_be() {
        let mut table = Table::even(4).unwrap();
        let before = table.clone();
        assert_eq!(table.reweigh(&[1, 1, 1, 1]).unwrap(), 0);
        assert_eq!(table, before);
        assert_eq!(table.reweigh(&[2, 1, 1, 0]).unwrap(), 1024);
        assert_eq!(counts(&table), [2048, 1024, 1024, 0]);
        assert_eq!(table.reweigh(&[1, 1, 1, 1, 4]).unwrap(), 1536 + 512 + 512);
        assert_eq!(counts(&table), [512, 512, 512, 512, 2048]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Table::even(0), Err(TableError::NoRings));
        assert_eq!(Table::weighted(&[0, 0]), Err(TableError::NoWeight));
        let refused = Err(TableError::TooManyRings { rings: 5000 });
        assert_eq!(Table::even(5000), refused);
        let mut table = Table::even(2).unwrap();
        assert_eq!(table.reweigh(&[]), Err(TableError::NoRings));
        assert_eq!(counts(&table), [2048, 2048]);
    }
}
