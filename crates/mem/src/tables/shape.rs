//! The shape of a table: its kind and its sizes, fixed when it is made.

use std::fmt;
use std::ops::RangeInclusive;

use crate::MemError;

/// Bytes of a key.
pub const KEY_BYTES: RangeInclusive<usize> = 1..=64;
/// Bytes of a key that is looked up by its longest prefix.
pub const LPM_KEY_BYTES: RangeInclusive<usize> = 1..=16;
/// Bytes of a value.
pub const VALUE_BYTES: RangeInclusive<usize> = 1..=256;
/// Entries of a table: up to 2^27.
pub const ENTRIES: RangeInclusive<usize> = 1..=1 << 27;
/// Bytes of an array's index.
const INDEX_BYTES: usize = 4;

/// How a table finds the entry of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Kind {
    /// By the whole key.
    Hash = 1,
    /// By index.
    Array = 2,
    /// By the longest prefix of the key.
    Lpm = 3,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Hash, Kind::Array, Kind::Lpm];

    /// `hash`, `array` or `lpm`.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Hash => "hash",
            Kind::Array => "array",
            Kind::Lpm => "lpm",
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Kind, sizes and number of entries. Only possible ones exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    kind: Kind,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
}

impl Shape {
    /// Checks the sizes. An array's key is an index of 4 bytes.
    ///
    /// # Errors
    /// [`MemError::Geometry`] names the size and what it may be.
    pub fn new(kind: Kind, key_bytes: usize, value_bytes: usize, entries: usize) -> Result<Shape, MemError> {
        let refuse = |what, value: usize, allowed| {
            Err(MemError::Geometry { object: "table", what, value: value as u64, allowed })
        };
        match kind {
            Kind::Hash if !KEY_BYTES.contains(&key_bytes) => return refuse("key size", key_bytes, "1 to 64 bytes"),
            Kind::Lpm if !LPM_KEY_BYTES.contains(&key_bytes) => {
                return refuse("key size", key_bytes, "1 to 16 bytes for the longest prefix: 4 for IPv4, 16 for IPv6");
            }
            Kind::Array if key_bytes != INDEX_BYTES => {
                return refuse("key size", key_bytes, "4 bytes for an array: the key is an index");
            }
            _ => {}
        }
        if !VALUE_BYTES.contains(&value_bytes) {
            return refuse("value size", value_bytes, "1 to 256 bytes");
        }
        if !ENTRIES.contains(&entries) {
            return refuse("number of entries", entries, "1 to 134217728");
        }
        Ok(Shape { kind, key_bytes, value_bytes, entries: entries as u32 })
    }

    /// How entries are found.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of a key that is looked up.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Bytes of a key that is set, removed or listed: one more than [`Shape::key_bytes`] for an
    /// [`Kind::Lpm`], for the length of the prefix.
    pub fn stored_key_bytes(&self) -> usize {
        self.key_bytes + usize::from(self.kind == Kind::Lpm)
    }

    /// Bytes of a value.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Entries that the table has place for.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Words that hold a key.
    pub(crate) fn key_words(&self) -> usize {
        self.stored_key_bytes().div_ceil(8)
    }

    /// Words that hold a value.
    pub(crate) fn value_words(&self) -> usize {
        self.value_bytes.div_ceil(8)
    }
}

impl fmt::Display for Shape {
    /// As in a specification: `hash:key=4,value=8,entries=1000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        if self.kind != Kind::Array {
            write!(f, "key={},", self.key_bytes)?;
        }
        write!(f, "value={},entries={}", self.value_bytes, self.entries)
    }
}
