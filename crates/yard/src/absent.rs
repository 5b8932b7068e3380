//! Rings that nobody reads, and what becomes of their packets.

use crate::outlets::GroupPlace;

/// What becomes of the packets of a ring while nobody reads it: before its consumer comes, and after it has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Absent {
    /// They are dropped, and counted as `consumer-gone`.
    #[default]
    Drop,
    /// They wait for a consumer, in spare buffers. When these run low, the longest backlog loses its oldest, as
    /// `consumer-gone`. Sources that can wait do wait.
    Hold,
    /// They go to the other rings of the group, each conversation to one of them. Dropped if there is none.
    Redistribute,
}

impl Absent {
    /// Every choice, with its name.
    pub const ALL: [(&'static str, Absent); 3] =
        [("drop", Absent::Drop), ("hold", Absent::Hold), ("redistribute", Absent::Redistribute)];
}

/// Who is there, by group.
pub(crate) struct Absentees {
    choice: Absent,
    /// For each group: its first outlet, its number of rings, and the outlets of it that are read.
    groups: Vec<(usize, usize, Vec<u32>)>,
}

impl Absentees {
    /// All rings of `groups` are read.
    pub(crate) fn new(choice: Absent, groups: &[GroupPlace]) -> Absentees {
        let group = |place: &GroupPlace| {
            let rings = usize::from(place.table.rings());
            (place.first, rings, (place.first as u32..(place.first + rings) as u32).collect())
        };
        Absentees { choice, groups: groups.iter().map(group).collect() }
    }

    /// Notes which outlets, in order, are read by nobody.
    pub(crate) fn note(&mut self, gone: impl Iterator<Item = bool> + Clone) {
        for (first, rings, present) in &mut self.groups {
            let numbered = gone.clone().enumerate().skip(*first).take(*rings);
            present.clear();
            present.extend(numbered.filter(|(_, gone)| !gone).map(|(outlet, _)| outlet as u32));
        }
    }

    /// Whether packets wait for who is absent.
    #[inline]
    pub(crate) fn held(&self) -> bool {
        self.choice == Absent::Hold
    }

    /// The outlet in place of one that nobody reads: the same for all packets of a hash as long as nobody comes or
    /// goes.
    pub(crate) fn stand_in(&self, outlet: usize, hash: u32) -> Option<usize> {
        if self.choice != Absent::Redistribute {
            return None;
        }
        let (.., present) = self.groups.iter().rev().find(|(first, ..)| *first <= outlet)?;
        // The hash's low bits have chosen the absent ring: mixed anew (Fibonacci hashing, Knuth TAOCP 3, 6.4), and
        // scaled to the number there is (Lemire, "Fast random integer generation in an interval").
        let mixed = u64::from(hash.wrapping_mul(0x9e37_79b1));
        present.get(((mixed * present.len() as u64) >> 32) as usize).map(|outlet| *outlet as usize)
    }

    /// The number of an outlet within its group.
    pub(crate) fn number(&self, outlet: usize) -> u16 {
        let first = self.groups.iter().rev().find(|(first, ..)| *first <= outlet).map_or(0, |(first, ..)| *first);
        (outlet - first) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_steer::Table;
    use std::sync::Arc;

    fn places() -> [GroupPlace; 2] {
        let table = |rings| Arc::new(Table::even(rings).expect("rings"));
        [GroupPlace { first: 0, table: table(8) }, GroupPlace { first: 8, table: table(2) }]
    }

    #[test]
    fn the_others_of_the_group_share_alike() {
        let mut absentees = Absentees::new(Absent::Redistribute, &places());
        let gone = [false, true, false, false, false, false, false, false, false, true];
        absentees.note(gone.into_iter());
        let table = Table::even(8).expect("rings");
        let mut loads = [0u32; 10];
        let hashes = (0..200_000u32).map(|n| n.wrapping_mul(0x85eb_ca6b) ^ n >> 7);
        for hash in hashes.filter(|hash| table.ring(*hash) == 1) {
            loads[absentees.stand_in(1, hash).expect("seven are there")] += 1;
        }
        let (least, most) =
            (0..8).filter(|r| *r != 1).fold((u32::MAX, 0), |(l, m), r| (l.min(loads[r]), m.max(loads[r])));
        assert!(loads[1] == 0 && loads[8..] == [0, 0] && least * 10 > most * 9, "{loads:?}");
        assert_eq!((absentees.stand_in(9, 5), absentees.number(9)), (Some(8), 1));
        absentees.note([true; 10].into_iter());
        assert_eq!(absentees.stand_in(1, 5), None);
    }
}
