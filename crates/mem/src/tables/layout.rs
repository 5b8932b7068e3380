//! The head of a table's file: what it says, and how it is checked. The drawing is in [`super`].

use zerocopy::{FromBytes, IntoBytes};

use super::seqlock::Memory;
use super::shape::{Kind, Shape};
use super::words::Words;
use crate::MemError;
use crate::abi::{ENDIAN_MARKER, HEADER_BYTES};
use crate::sync::Ordering;

/// First eight bytes of a table's file.
pub const TABLE_MAGIC: [u8; 8] = *b"FLOWTABL";
/// Version of the layout of tables, and of the hash that finds buckets.
pub const TABLE_VERSION: u32 = 1;

/// Words of the header page, by index; the writer alone stores them.
pub(crate) const COUNT: usize = 64;
/// Of an lpm: entries of the inner hash of nodes.
pub(crate) const NODES: usize = 65;
/// Of an lpm: one bit for each group of lengths that has nodes.
pub(crate) const LEVELS: usize = 80;
/// Of an lpm: nodes of each group; 22 words.
pub(crate) const LEVEL_NODES: usize = 96;
/// What change is under way, then its key (8 words) and value (32 words).
pub(crate) const JOURNAL: usize = 128;
/// Of an lpm: numbers of changes, one for each part of the keys; 64 words.
pub(crate) const GENERATIONS: usize = 192;
/// First word behind the header page.
pub(crate) const BODY: usize = HEADER_BYTES / 8;

/// The head of the file: 64 bytes, written once by the creator before anyone else has the file.
#[derive(
    Debug,
    Clone,
    Copy,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub(crate) struct Header {
    magic: [u8; 8],
    endian: u32,
    version: u32,
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    /// Random: which keys share a bucket cannot be foreseen.
    pub(crate) seed: u64,
    /// Bytes of the file that the layout covers.
    pub(crate) len: u64,
    reserved: [u64; 2],
}

const HEADER_WORDS: usize = size_of::<Header>() / 8;
const _: () = assert!(size_of::<Header>() == 64);

impl Header {
    pub(crate) fn new(shape: &Shape, seed: u64, len_bytes: usize) -> Header {
        Header {
            magic: TABLE_MAGIC,
            endian: ENDIAN_MARKER,
            version: TABLE_VERSION,
            kind: shape.kind() as u32,
            key_bytes: shape.key_bytes() as u32,
            value_bytes: shape.value_bytes() as u32,
            entries: shape.entries(),
            seed,
            len: len_bytes as u64,
            reserved: [0; 2],
        }
    }

    pub(crate) fn write(&self, memory: &Words) {
        for (at, bytes) in self.as_bytes().chunks_exact(8).enumerate() {
            let word = u64::from_ne_bytes(bytes.try_into().expect("chunks of eight"));
            memory.store(at, word, Ordering::Relaxed); // nobody else has the file yet
        }
    }

    /// Reads it, once.
    pub(crate) fn read(memory: &Words) -> Result<Header, MemError> {
        if memory.len_bytes() < HEADER_BYTES {
            let (value, allowed) = (memory.len_bytes() as u64, "at least 4096 bytes");
            return Err(MemError::Geometry { object: "table", what: "file length", value, allowed });
        }
        // Relaxed: it was complete before the descriptor was handed on.
        let words: [u64; HEADER_WORDS] = std::array::from_fn(|at| memory.load(at, Ordering::Relaxed));
        Ok(Header::read_from_bytes(words.as_bytes()).expect("the sizes are equal, and any bytes are a header"))
    }

    /// The shape, if this is a table of this version. Whether the file is long enough for it is for
    /// the caller.
    pub(crate) fn shape(&self) -> Result<Shape, MemError> {
        let wrong = |what, found, expected, remedy| MemError::Header { object: "table", what, found, expected, remedy };
        if self.magic != TABLE_MAGIC {
            let (found, expected) = (u64::from_be_bytes(self.magic), u64::from_be_bytes(TABLE_MAGIC));
            return Err(wrong("magic", found, expected, "this is not a table's file"));
        }
        if self.endian != ENDIAN_MARKER {
            let remedy = "made on a machine of the other byte order";
            return Err(wrong("byte order", self.endian.into(), ENDIAN_MARKER.into(), remedy));
        }
        if self.version != TABLE_VERSION {
            let remedy = "use the same Flowyard version on both sides";
            return Err(wrong("version", self.version.into(), TABLE_VERSION.into(), remedy));
        }
        let Some(kind) = Kind::from_number(self.kind) else {
            let remedy = "the kinds are 1 (hash), 2 (array) and 3 (lpm)";
            return Err(wrong("kind", self.kind.into(), Kind::Hash as u64, remedy));
        };
        Shape::new(kind, self.key_bytes as usize, self.value_bytes as usize, self.entries as usize)
    }
}

/// Whole words of little-endian bytes, the last one filled up with zeros.
pub(crate) fn to_words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = le_word(chunk);
    }
    words
}

/// The bytes of one word, of which the missing ones are zero.
#[inline]
fn le_word(chunk: &[u8]) -> u64 {
    if let Ok(eight) = chunk.try_into() {
        u64::from_le_bytes(eight)
    } else if let Ok(four) = chunk.try_into() {
        u32::from_le_bytes(four).into()
    } else {
        chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
    }
}

/// Copies words from `at` on into `bytes`, as [`to_words`] made them. For use within a seqlock.
#[inline]
pub(crate) fn copy_out(memory: &Words, at: usize, bytes: &mut [u8]) {
    for (n, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = memory.load(at + n, Ordering::Relaxed).to_le_bytes(); // ordered by T2 and T4
        if chunk.len() == 8 {
            chunk.copy_from_slice(&word);
        } else if chunk.len() == 4 {
            chunk.copy_from_slice(&word[..4]);
        } else {
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
        }
    }
}

/// Stores words from `at` on. For use within a seqlock.
pub(crate) fn copy_in(memory: &Words, at: usize, words: &[u64]) {
    for (n, word) in words.iter().enumerate() {
        memory.store(at + n, *word, Ordering::Relaxed); // ordered by T3 and T1
    }
}
