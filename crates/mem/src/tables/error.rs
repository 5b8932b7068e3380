//! Errors of making, attaching and changing tables. Look-ups have none: see [`Lookup`](super::Lookup).

use crate::MemError;

/// Why a table could not be made, attached or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The shape is impossible, the memory could not be had, or the file is not a table.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// There is no place for one more entry.
    #[error("the table is full: it has {held} of {entries} entries; remove some, or make it with more entries")]
    Full {
        /// Entries that it holds.
        held: u64,
        /// Entries that it was made for. A hash can be full a little earlier if keys crowd together: one
        /// in many millions of tables.
        entries: u32,
    },
    /// A key of another size.
    #[error("a key of this table has {expected} bytes, not {found}")]
    KeyLength {
        /// Bytes given.
        found: usize,
        /// Bytes of this table's keys; of its prefixes, one more for the length.
        expected: usize,
    },
    /// A value of another size.
    #[error("a value of this table has {expected} bytes, not {found}")]
    ValueLength {
        /// Bytes given.
        found: usize,
        /// Bytes of this table's values.
        expected: usize,
    },
    /// An array has no such entry.
    #[error("the array has no entry {index}: it has {entries}, counted from 0")]
    Index {
        /// The index given.
        index: u32,
        /// Entries of the array.
        entries: u32,
    },
    /// A prefix longer than the key.
    #[error("a prefix of {length} bits is longer than the key, which has {bits}")]
    PrefixLength {
        /// Bits given.
        length: u8,
        /// Bits of this table's keys.
        bits: u32,
    },
    /// A prefix with bits set behind its length.
    #[error("bits are set behind the {length} bits of the prefix: clear them, or make the prefix longer")]
    PrefixBits {
        /// Bits of the prefix.
        length: u8,
    },
    /// The table was attached for reading.
    #[error("the table was attached for reading only; ask its owner for a descriptor that can write")]
    ReadOnly,
    /// Another writer does not let go of the table.
    #[error("another writer has held the table for {waited_ms} ms; let it finish, or end it")]
    Locked {
        /// How long was waited.
        waited_ms: u64,
    },
}
