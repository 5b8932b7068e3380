//! Listing a table: copies of all entries, without stopping anyone.

use super::prefix::Prefix;
use super::seqlock::Patience;
use super::table::{Body, Lookup, Table};

/// How often a busy place is tried again, another thread having had its turn: a writer may have been
/// interrupted.
const TURNS: u32 = 20;

/// A copy of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The key; of an lpm the prefix, with its length behind. What [`Writer::set`](super::Writer::set) takes.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// All entries, in no order; of an array in the order of indices. See [`Table::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    table: &'a Table,
    /// The next bucket, or index.
    place: u32,
    places: u32,
    /// Entries of the last bucket, not yet given: key and value in words.
    words: Vec<u64>,
    taken: usize,
    skipped: u32,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(table: &'a Table) -> Entries<'a> {
        let places = match table.body() {
            Body::Hash(hash) => hash.buckets(),
            Body::Lpm(prefixes) => prefixes.values().buckets(),
            Body::Array(_) => table.shape().entries(),
        };
        Entries { table, place: 0, places, words: Vec::new(), taken: 0, skipped: 0 }
    }

    /// Places passed over so far because they were busy all the time: a writer died there, or stands
    /// still. Of a hash each has up to eight entries.
    pub fn skipped(&self) -> u32 {
        self.skipped
    }

    /// Reads the next place that is not busy into `words`. False at the end.
    fn advance(&mut self) -> bool {
        while self.place < self.places {
            let place = self.place;
            self.place += 1;
            self.taken = 0;
            let mut turns = 0;
            while !self.read(place) {
                turns += 1;
                if turns == TURNS {
                    self.skipped += 1;
                    break;
                }
                std::thread::yield_now();
            }
            if !self.words.is_empty() {
                return true;
            }
        }
        false
    }

    /// False if the place is busy.
    fn read(&mut self, place: u32) -> bool {
        let (memory, shape) = (self.table.memory(), self.table.shape());
        let patience = &mut Patience::new();
        match self.table.body() {
            Body::Hash(hash) => hash.list(memory, place, &mut self.words, patience),
            Body::Lpm(prefixes) => prefixes.values().list(memory, place, &mut self.words, patience),
            Body::Array(array) => {
                let mut value = [0; 256];
                self.words.clear();
                match array.read(memory, place, &mut value[..shape.value_bytes()], patience) {
                    Lookup::Found => {
                        let words = value.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight")));
                        self.words.push(place.into());
                        self.words.extend(words.take(shape.value_words()));
                        true
                    }
                    found => found == Lookup::Absent,
                }
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.taken == self.words.len() && !self.advance() {
            return None;
        }
        let shape = self.table.shape();
        let (key_words, words) = (shape.key_words(), shape.key_words() + shape.value_words());
        let entry = self.words.get(self.taken..self.taken + words)?;
        self.taken += words;
        let key = match self.table.body() {
            Body::Lpm(_) => {
                let prefix = Prefix::of_words(&entry[..key_words]);
                let mut key = prefix.bits.to_be_bytes()[..shape.key_bytes()].to_vec();
                key.push(prefix.length as u8);
                key
            }
            Body::Hash(_) | Body::Array(_) => bytes(&entry[..key_words], shape.key_bytes()),
        };
        Some(Entry { key, value: bytes(&entry[key_words..], shape.value_bytes()) })
    }
}

fn bytes(words: &[u64], len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}
