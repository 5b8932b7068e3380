//! Named tables: what steering functions and applications know in common, in shared memory.
//!
//! A [`Table`] maps keys of one size to values of one size, and holds as many entries as were stated
//! when it was made. Each lies in one sealed memfd of its own, so another process gets it by its
//! descriptor. Look-ups are for the packet path: they take no lock, make no system call, allocate
//! nothing, never answer a torn value, and end after a bounded number of steps whatever the file
//! holds. Changes are for those who run things: one [`Writer`] at a time, behind a lock that dies
//! with its holder.
//!
//! | kind | key | finds | cost of a look-up |
//! |---|---|---|---|
//! | [`Kind::Hash`] | 1 to 64 bytes | the entry of exactly this key | one bucket: a line or two |
//! | [`Kind::Array`] | 4 bytes, an index | the entry of this index, if it was set | a line |
//! | [`Kind::Lpm`] | 1 to 16 bytes | the longest prefix that the key begins with | two lines a group of six lengths, see below |
//!
//! # Bytes
//! Numbers in keys and values are little-endian, of fixed width, so that C code copies them with
//! `memcpy` into an integer. An array's index is such a number. Addresses and what else comes out of
//! packets stay in the order of the wire; the bits of an [`Kind::Lpm`] key count from the first byte's highest.
//! A *prefix*, as it is set, removed and listed, is the key's bytes and one more with the length in
//! bits; bits behind the length are zero.
//!
//! ```
//! use flowyard_mem::tables::{Kind, Lookup, Shape, Table};
//!
//! let routes = Table::create("routes", Shape::new(Kind::Lpm, 4, 4, 1000)?)?;
//! routes.set(&[10, 0, 0, 0, 8], &1u32.to_le_bytes())?;
//! routes.set(&[10, 1, 0, 0, 16], &2u32.to_le_bytes())?;
//! let mut value = [0; 4];
//! assert_eq!(routes.get(&[10, 1, 2, 3], &mut value), Lookup::Found);
//! assert_eq!(u32::from_le_bytes(value), 2);
//! assert_eq!(routes.get(&[11, 0, 0, 1], &mut value), Lookup::Absent);
//! # Ok::<(), flowyard_mem::tables::TableError>(())
//! ```
//!
//! # The file
//! ```text
//! byte 0     header (64 bytes)                      the creator, before anyone else has the file
//! 512        number of entries, of inner nodes      the writer
//! 640        lpm: lengths in use                    the writer; read by every look-up
//! 768        lpm: nodes of each group of lengths    the writer
//! 1024       journal: the change under way          the writer
//! 1536       lpm: generations                       the writer; read by every look-up
//! 4096       hash: buckets    array: entries    lpm: buckets of values, then of nodes
//! ```
//!
//! # Why no value is torn
//! Each bucket of a hash, and each entry of an array, has a sequence word, odd while it is written: a seqlock, with the
//! orderings of Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012
//! (`seqlock.rs`). Entries never move while they live, so a look-up that passes over a bucket misses
//! nothing (`hash.rs`). An lpm's look-up reads several buckets and answers only if no change fell
//! between them but one (`prefix.rs`).
//!
//! # When a writer dies
//! Its lock goes with it. A bucket that it was writing stays odd: look-ups that need it answer
//! [`Lookup::Busy`] after 64 attempts. The next writer finds the change in the journal and finishes
//! it before its own (`writer.rs`); a change is thus made wholly or not at all.
//!
//! # Trust
//! The header is checked once, on attaching, and used from the copy. Nothing that others write later
//! is used as an address or a bound, so a hostile writer can make values wrong and look-ups `Busy` or
//! slow (milliseconds at worst), but no reader panic, hang, or read elsewhere. Who may write is trusted with the contents;
//! who may not gets a descriptor of [`Table::grant`] that cannot write or lock.
//!
//! # Orderings
//! T1 the store of a sequence word that ends a change (Release) pairs with T2 its load before the
//! reading (Acquire): who sees the end sees the words. T3 the fence (Release) after making it odd pairs with T4 the
//! fence (Acquire) after the reading: who saw a word of the change sees that the sequence moved. T5, T6: the same
//! for the generations of an lpm, which are stored (Release) before a change and loaded (Acquire) before a look-up.
//! T7 the journal's state is stored (Release) when its content stands and loaded (Acquire) by the next writer.

#[cfg(not(loom))]
mod array;
#[cfg(not(loom))]
mod entries;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod hash;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod prefix;
#[cfg(any(not(loom), test))]
mod seqlock;
#[cfg(not(loom))]
mod shape;
#[cfg(not(loom))]
mod table;
#[cfg(not(loom))]
mod words;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use entries::{Entries, Entry};
#[cfg(not(loom))]
pub use error::TableError;
#[cfg(not(loom))]
pub use layout::{TABLE_MAGIC, TABLE_VERSION};
#[cfg(not(loom))]
pub use shape::{ENTRIES, KEY_BYTES, Kind, LPM_KEY_BYTES, Shape, VALUE_BYTES};
#[cfg(not(loom))]
pub use table::{Access, Lookup, Table};
#[cfg(not(loom))]
pub use writer::{LOCK_WAIT, Writer};
