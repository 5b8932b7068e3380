//! The memory of where first fragments went, so that later ones can follow.

use alloc::vec::Vec;

use crate::fragment::{Datagram, Piece};

/// Remembers where first fragments went. The yard shares one among its dispatchers.
pub trait FragmentMemory {
    /// The first fragment of `datagram` went by `hash` at `now_ns` (packet time).
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64);

    /// Where the first fragment of `datagram` went, if that is known and not too long ago.
    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32>;

    /// Where a piece goes best when its own first fragment never comes: where an earlier datagram
    /// of the same identifier went, that is, a repeated piece with the rest. `None` by default:
    /// by addresses.
    fn guess(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        let _ = (datagram, now_ns);
        None
    }
}

impl<M: FragmentMemory + ?Sized> FragmentMemory for &mut M {
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64) {
        (**self).learn(datagram, hash, now_ns);
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        (**self).recall(datagram, now_ns)
    }

    fn guess(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        (**self).guess(datagram, now_ns)
    }
}

/// Remembers nothing: every later fragment is held.
impl FragmentMemory for () {
    fn learn(&mut self, _: &Datagram, _: u32, _: u64) {}

    fn recall(&mut self, _: &Datagram, _: u64) -> Option<u32> {
        None
    }
}

/// What a [`FragmentTable`] did so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FragmentCounts {
    /// First fragments remembered.
    pub learned: u64,
    /// Later fragments whose first one was known.
    pub recalled: u64,
    /// Later fragments whose first one was not known.
    pub unknown: u64,
    /// Datagrams forgotten before their age for want of room.
    pub evicted: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    datagram: Datagram,
    hash: u32,
    used_ns: u64,
    /// When it was used last, counted in uses of the table: packet time may be set back.
    turn: u64,
    /// Bytes of the datagram's payload that went by, repeated pieces only if not in a row.
    seen_bytes: u32,
    /// The length of the payload, once its last piece has gone by.
    total_bytes: Option<u32>,
    /// The piece that went by last.
    newest: Piece,
}

impl Entry {
    /// Counts a piece. Returns whether it belongs to this datagram: once that is complete, only a
    /// repetition of the newest piece does, and any other belongs to a datagram that reuses the
    /// identifier.
    fn take(&mut self, piece: Piece) -> bool {
        if piece == self.newest {
            return true;
        }
        if self.total_bytes.is_some_and(|total| self.seen_bytes >= total) {
            return false;
        }
        self.newest = piece;
        self.seen_bytes = self.seen_bytes.saturating_add(piece.len_bytes.into());
        if piece.last {
            self.total_bytes = Some(u32::from(piece.offset_bytes) + u32::from(piece.len_bytes));
        }
        true
    }
}

/// How many places a datagram may be in: one set of the table.
const WAYS: usize = 8;

/// A bounded memory of first fragments.
///
/// Made of sets of 8 entries; a datagram belongs to one set, and when that is full its oldest entry
/// is forgotten. An entry counts for a stated packet time after the newest piece. Identifiers that are reused do not mix: a
/// new first fragment takes the place of the earlier one, and when all bytes of a datagram have gone
/// by, a further piece belongs to another. Allocates at creation only (96 bytes an entry). Learning
/// and recalling look at 8 entries.
pub struct FragmentTable {
    entries: Vec<Option<Entry>>,
    sets: usize,
    age_ns: u64,
    turn: u64,
    counts: FragmentCounts,
}

impl FragmentTable {
    /// How long a datagram is remembered by default: 30 s of packet time, after which a receiver
    /// would give up reassembly (RFC 1122 section 3.3.2 says 60 to 120, systems use 30).
    pub const AGE_NS: u64 = 30_000_000_000;

    /// A memory for `capacity` datagrams, rounded up to a power of two of at least 8, each for
    /// `age_ns` of packet time.
    pub fn new(capacity: usize, age_ns: u64) -> Self {
        let capacity = capacity.clamp(WAYS, 1 << 28).next_power_of_two();
        FragmentTable {
            entries: alloc::vec![None; capacity],
            sets: capacity / WAYS,
            age_ns,
            turn: 0,
            counts: FragmentCounts::default(),
        }
    }

    /// How many datagrams it can hold.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// What it did so far.
    pub fn counts(&self) -> FragmentCounts {
        self.counts
    }

    fn find(&mut self, datagram: &Datagram, now_ns: u64) -> Option<&mut Entry> {
        let age_ns = self.age_ns;
        let mut entries = self.set(datagram).iter_mut().flatten();
        entries.find(|entry| entry.datagram == *datagram && fresh(entry, now_ns, age_ns))
    }

    fn set(&mut self, datagram: &Datagram) -> &mut [Option<Entry>] {
        let set = datagram.place() as usize & (self.sets - 1);
        let range = set * WAYS..(set + 1) * WAYS;
        self.entries.get_mut(range).unwrap_or_default()
    }
}

impl Default for FragmentTable {
    /// 16,384 datagrams for 30 s.
    fn default() -> Self {
        FragmentTable::new(16_384, FragmentTable::AGE_NS)
    }
}

impl FragmentMemory for FragmentTable {
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64) {
        let age_ns = self.age_ns;
        self.turn += 1;
        let turn = self.turn;
        let set = self.set(datagram);
        let same = set.iter().position(|entry| matches!(entry, Some(entry) if entry.datagram == *datagram));
        let place = same.or_else(|| {
            let age = |entry: &Option<Entry>| entry.map_or(0, |entry| entry.turn);
            let oldest = set.iter().enumerate().min_by_key(|(_, entry)| age(entry))?;
            Some(oldest.0)
        });
        let Some(slot) = place.and_then(|place| set.get_mut(place)) else {
            return;
        };
        let evicts = same.is_none() && matches!(slot, Some(old) if fresh(old, now_ns, age_ns));
        *slot = Some(Entry {
            datagram: *datagram,
            hash,
            used_ns: now_ns,
            turn,
            seen_bytes: u32::from(datagram.piece().len_bytes),
            total_bytes: None,
            newest: datagram.piece(),
        });
        self.counts.learned += 1;
        self.counts.evicted += u64::from(evicts);
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        self.turn += 1;
        let turn = self.turn;
        let entry = self.find(datagram, now_ns);
        let hash = entry.and_then(|entry| {
            let known = entry.take(datagram.piece());
            if known {
                (entry.used_ns, entry.turn) = (now_ns, turn);
            }
            known.then_some(entry.hash)
        });
        match hash {
            Some(_) => self.counts.recalled += 1,
            None => self.counts.unknown += 1,
        }
        hash
    }

    fn guess(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        self.find(datagram, now_ns).map(|entry| entry.hash)
    }
}

/// Whether an entry still counts. Packet time may run backwards a little: that is fresh.
fn fresh(entry: &Entry, now_ns: u64, age_ns: u64) -> bool {
    now_ns.saturating_sub(entry.used_ns) <= age_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::{A4, B4, ipv4_piece};

    /// Eight bytes at `offset` of datagram `id`.
    fn piece(id: u16, offset: u16, more: bool) -> Datagram {
        let packet = ipv4_piece(A4, B4, 17, id, u16::from(more) << 13 | offset >> 3, &[0; 8]);
        Datagram::at(0, 0, &packet).unwrap()
    }

    #[test]
    fn later_pieces_follow_the_first() {
        let mut table = FragmentTable::new(8, 1000);
        assert_eq!(table.recall(&piece(1, 8, false), 0), None);
        table.learn(&piece(1, 0, true), 77, 0);
        assert_eq!(table.recall(&piece(1, 8, false), 5), Some(77));
        assert_eq!(table.recall(&piece(2, 8, false), 5), None);
        let counts = FragmentCounts { learned: 1, recalled: 1, unknown: 2, evicted: 0 };
        assert_eq!(table.counts(), counts);
    }

    #[test]
    fn entries_age_out_after_their_newest_piece() {
        let mut table = FragmentTable::new(8, 1000);
        table.learn(&piece(1, 0, true), 77, 0);
        assert_eq!(table.recall(&piece(1, 8, true), 900), Some(77));
        assert_eq!(table.recall(&piece(1, 16, true), 1900), Some(77));
        assert_eq!(table.recall(&piece(1, 24, true), 2901), None);
    }

    #[test]
    fn reused_identifiers_do_not_mix() {
        let mut table = FragmentTable::new(8, 1000);
        table.learn(&piece(1, 0, true), 77, 0);
        assert_eq!(table.recall(&piece(1, 16, false), 0), Some(77));
        assert_eq!(table.recall(&piece(1, 8, true), 0), Some(77));
        // A repetition is of the same datagram, a further piece of another.
        assert_eq!(table.recall(&piece(1, 8, true), 0), Some(77));
        assert_eq!(table.recall(&piece(1, 16, false), 0), None);
        assert_eq!(table.guess(&piece(1, 16, false), 0), Some(77));
        table.learn(&piece(1, 0, true), 88, 0);
        assert_eq!(table.recall(&piece(1, 16, false), 0), Some(88));
    }

    /// Lengths are what headers claim: a few bytes each on the wire, and no last piece ever.
    #[test]
    fn pieces_without_end_can_be_counted() {
        let mut table = FragmentTable::new(8, 1000);
        let [a, b] = [1, 2].map(|offset| {
            let mut packet = ipv4_piece(A4, B4, 17, 1, 0x2000 | offset, &[0; 8]);
            packet[2..4].copy_from_slice(&[0xff; 2]);
            Datagram::at(0, 0, &packet).unwrap()
        });
        table.learn(&piece(1, 0, true), 77, 0);
        let enough = u32::MAX / u32::from(a.piece().len_bytes) / 2 + 1;
        for _ in 0..enough {
            assert_eq!((table.recall(&a, 0), table.recall(&b, 0)), (Some(77), Some(77)));
        }
    }

    #[test]
    fn time_set_back_does_not_make_newcomers_the_oldest() {
        let mut table = FragmentTable::new(8, 1000);
        for id in 0..8 {
            table.learn(&piece(id, 0, true), id.into(), 1_000_000);
        }
        for id in 8..12 {
            table.learn(&piece(id, 0, true), id.into(), 5);
        }
        for id in 4..12 {
            assert_eq!(table.guess(&piece(id, 8, true), 5), Some(id.into()));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut table = FragmentTable::new(1, 1000);
        assert_eq!(table.capacity(), 8);
        for id in 0..20 {
            table.learn(&piece(id, 0, true), id.into(), id.into());
        }
        assert_eq!(table.counts().evicted, 12);
        assert_eq!(table.recall(&piece(11, 8, false), 20), None);
        assert_eq!(table.recall(&piece(12, 8, false), 20), Some(12));
    }
}
