//! Fragments: which datagram a piece belongs to, and the memory of where first pieces went.

use alloc::vec::Vec;

use crate::dissection::{Family, Level};
use crate::wire::{frag6, ipv4, ipv6};

/// What identifies a fragmented IP datagram (RFC 791 section 3.2, RFC 8200 section 4.5). `Copy`,
/// compared and hashed whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Datagram {
    /// Source address; IPv4 in the first four bytes.
    src: [u8; 16],
    /// Destination address.
    dst: [u8; 16],
    /// Identification.
    id: u32,
    family: Family,
    /// Protocol for IPv4; 0 for IPv6, where the identification alone tells.
    proto: u8,
}

impl Datagram {
    /// The datagram of a level that is a fragment.
    #[inline]
    pub(crate) fn read(level: &Level, bytes: &[u8]) -> Option<Datagram> {
        Datagram::at(level.l3, level.frag, bytes)
    }

    /// The datagram whose IP header starts at `l3` and whose fragment fields are at `frag`: the
    /// same place for IPv4, the fragment header for IPv6.
    pub(crate) fn at(l3: u16, frag: u16, bytes: &[u8]) -> Option<Datagram> {
        let header = bytes.get(l3.into()..)?;
        let mut datagram = Datagram { src: [0; 16], dst: [0; 16], id: 0, family: Family::V4, proto: 0 };
        if frag == l3 {
            let id = header.get(ipv4::ID)?.first_chunk()?;
            datagram.id = u16::from_be_bytes(*id).into();
            datagram.proto = *header.get(ipv4::PROTOCOL)?;
            datagram.src[..4].copy_from_slice(header.get(ipv4::SRC)?);
            datagram.dst[..4].copy_from_slice(header.get(ipv4::DST)?);
        } else {
            let fragment = bytes.get(frag.into()..)?;
            let id = fragment.get(frag6::ID)?.first_chunk()?;
            datagram.id = u32::from_be_bytes(*id);
            datagram.family = Family::V6;
            datagram.src.copy_from_slice(header.get(ipv6::SRC)?);
            datagram.dst.copy_from_slice(header.get(ipv6::DST)?);
        }
        Some(datagram)
    }

    /// IPv4 or IPv6.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The identification field: 16 bits for IPv4, 32 for IPv6.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A number to find it by in a table.
    fn place(&self) -> u64 {
        let word = |bytes: &[u8; 16], at: usize| {
            let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
        };
        let mut x = u64::from(self.id) << 16 | u64::from(self.proto) << 8 | self.family as u64;
        for part in [&self.src, &self.dst] {
            for at in [0, 8] {
                x = (x ^ word(part, at)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                x ^= x >> 29;
            }
        }
        x ^ x >> 32
    }
}

/// Remembers where first fragments went. The yard shares one among its dispatchers.
pub trait FragmentMemory {
    /// The first fragment of `datagram` went by `hash` at `now_ns` (packet time).
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64);

    /// Where the first fragment of `datagram` went, if that is known and not too long ago.
    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32>;
}

impl<M: FragmentMemory + ?Sized> FragmentMemory for &mut M {
    fn learn(&mut self, datagram: &Datagram, hash: u32, now_ns: u64) {
        (**self).learn(datagram, hash, now_ns);
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        (**self).recall(datagram, now_ns)
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
    learned_ns: u64,
}

/// How many places a datagram may be in: one set of the table.
const WAYS: usize = 8;

/// A bounded memory of first fragments.
///
/// Made of sets of 8 entries; a datagram belongs to one set, and when that is full its oldest entry
/// is forgotten. An entry counts for a stated packet time; a first fragment that reuses an identifier
/// takes the place of the earlier one. Allocates at creation only. Learning and recalling look at 8
/// entries.
pub struct FragmentTable {
    entries: Vec<Option<Entry>>,
    sets: usize,
    age_ns: u64,
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
        let set = self.set(datagram);
        let same = set.iter().position(|entry| matches!(entry, Some(entry) if entry.datagram == *datagram));
        let place = same.or_else(|| {
            let age = |entry: &Option<Entry>| entry.map_or(0, |entry| entry.learned_ns + 1);
            let oldest = set.iter().enumerate().min_by_key(|(_, entry)| age(entry))?;
            Some(oldest.0)
        });
        let Some(slot) = place.and_then(|place| set.get_mut(place)) else {
            return;
        };
        let evicts = same.is_none() && matches!(slot, Some(old) if fresh(old, now_ns, age_ns));
        *slot = Some(Entry { datagram: *datagram, hash, learned_ns: now_ns });
        self.counts.learned += 1;
        self.counts.evicted += u64::from(evicts);
    }

    fn recall(&mut self, datagram: &Datagram, now_ns: u64) -> Option<u32> {
        let age_ns = self.age_ns;
        let known = self
            .set(datagram)
            .iter()
            .flatten()
            .find(|entry| entry.datagram == *datagram && fresh(entry, now_ns, age_ns));
        let hash = known.map(|entry| entry.hash);
        match hash {
            Some(_) => self.counts.recalled += 1,
            None => self.counts.unknown += 1,
        }
        hash
    }
}

/// Whether an entry still counts. Packet time may run backwards a little: that is fresh.
fn fresh(entry: &Entry, now_ns: u64, age_ns: u64) -> bool {
    now_ns.saturating_sub(entry.learned_ns) <= age_ns
}
