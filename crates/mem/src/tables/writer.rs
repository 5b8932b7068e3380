//! The writer: whoever holds the lock of a table, and changes it.
//!
//! # When a writer dies
//! Before a change is made it is written into the *journal*, in the header page; then the journal's state
//! says that it stands, the change is made, and the state is taken back. Whoever takes the lock and
//! finds a state makes the change again: each is such that making it after a part of itself gives the
//! whole of it, because entries are found by key, and a new one is shown by its tag alone, last. Then
//! the counts that may be out are counted anew (that walks the whole table: 30 to 70 ms for a million entries). So a
//! change that was under way at the death is made; one whose journal did not stand yet never was.

use std::fs::File;
use std::sync::atomic::compiler_fence;
use std::sync::{MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::error::TableError;
use super::hash::NoPlace;
use super::layout::{JOURNAL, copy_in, to_words};
use super::prefix::Prefix;
use super::seqlock::Memory;
use super::shape::{Kind, Shape};
use super::table::{Body, KEY_WORDS, Table, index};
use super::words;
use crate::MemError;
use crate::sync::Ordering;

/// How long [`Table::writer`] waits for another writer.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Sleep between two attempts at the lock, at first and at most.
const LOCK_POLL: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(2));

/// Words of the longest value.
const VALUE_WORDS: usize = 32;
const JOURNAL_KEY: usize = JOURNAL + 1;
const JOURNAL_VALUE: usize = JOURNAL_KEY + KEY_WORDS;

/// States of the journal.
const NONE: u64 = 0;
const SET: u64 = 1;
const REMOVE: u64 = 2;
const CLEAR: u64 = 3;

/// The only one who changes a table, until it is dropped. Look-ups go on meanwhile, and see each change
/// when its call returns at the latest.
///
/// Taking it costs a system call, and one more to give it back; a change, some 300 ns in a table of a million
/// entries. Keep one for many changes, and not for long pauses: others wait for it.
#[derive(Debug)]
pub struct Writer<'a> {
    table: &'a Table,
    file: MutexGuard<'a, File>,
}

/// A change, as the journal has it.
#[derive(Debug)]
struct Change {
    /// [`SET`], [`REMOVE`], [`CLEAR`], or what a hostile journal has.
    what: u64,
    key: [u64; KEY_WORDS],
    value: [u64; VALUE_WORDS],
}

impl Table {
    /// Waits for the table's lock, 2 s at most ([`LOCK_WAIT`]), and finishes what a dead writer began.
    ///
    /// # Errors
    /// [`TableError::ReadOnly`], [`TableError::Locked`].
    pub fn writer(&self) -> Result<Writer<'_>, TableError> {
        self.writer_within(LOCK_WAIT)
    }

    /// As [`Table::writer`], waiting as long as `wait`; not at all if it is zero.
    ///
    /// # Errors
    /// As [`Table::writer`].
    pub fn writer_within(&self, wait: Duration) -> Result<Writer<'_>, TableError> {
        let lock = self.lock()?;
        let start = Instant::now();
        let mut pause = LOCK_POLL.0;
        loop {
            let file = match lock.try_lock() {
                Ok(file) => Some(file),
                // Whoever panicked left its change in the journal.
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(file) = file {
                let fail = |e| MemError::system("table", "take its lock", "F_OFD_SETLK", "", e);
                if words::lock(&file, true).map_err(fail)? {
                    let writer = Writer { table: self, file };
                    writer.recover();
                    return Ok(writer);
                }
            }
            if start.elapsed() >= wait {
                return Err(TableError::Locked { waited_ms: start.elapsed().as_millis() as u64 });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOCK_POLL.1);
        }
    }

    /// [`Writer::set`], for one change.
    ///
    /// # Errors
    /// As [`Table::writer`] and [`Writer::set`].
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        self.writer()?.set(key, value)
    }

    /// [`Writer::remove`], for one change.
    ///
    /// # Errors
    /// As [`Table::writer`] and [`Writer::remove`].
    pub fn remove(&self, key: &[u8]) -> Result<bool, TableError> {
        self.writer()?.remove(key)
    }

    /// [`Writer::clear`].
    ///
    /// # Errors
    /// As [`Table::writer`].
    pub fn clear(&self) -> Result<(), TableError> {
        self.writer()?.clear();
        Ok(())
    }
}

impl Writer<'_> {
    /// The table.
    pub fn table(&self) -> &Table {
        self.table
    }

    /// From now on `key` has this value, whether it had one or not. Sizes are those of the
    /// [`Shape`]; a prefix has one byte more, its length in bits.
    ///
    /// # Errors
    /// The table is full; key or value have another size, the index is beyond the array, or the prefix has bits
    /// behind its length. The table is then as it was.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TableError> {
        let shape = self.table.shape();
        let key = key_words(shape, key)?;
        if value.len() != shape.value_bytes() {
            return Err(TableError::ValueLength { found: value.len(), expected: shape.value_bytes() });
        }
        match self.make(&Change { what: SET, key, value: to_words(value) }) {
            Ok(_) => Ok(()),
            Err(NoPlace) => Err(TableError::Full { held: self.table.len(), entries: shape.entries() }),
        }
    }

    /// From now on `key` has no value. Answers whether it had one.
    ///
    /// # Errors
    /// As [`Writer::set`], of the key.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, TableError> {
        let key = key_words(self.table.shape(), key)?;
        Ok(self.make(&Change { what: REMOVE, key, value: [0; VALUE_WORDS] }).unwrap_or(false))
    }

    /// Removes all entries, one after the other (of an lpm, for look-ups, at once). As long as it takes
    /// to walk the table: 6 to 10 ms for a million entries.
    pub fn clear(&mut self) {
        let _ = self.make(&Change { what: CLEAR, key: [0; KEY_WORDS], value: [0; VALUE_WORDS] }); // never lacks a place
    }

    fn make(&mut self, change: &Change) -> Result<bool, NoPlace> {
        let (memory, shape) = (self.table.memory(), self.table.shape());
        copy_in(memory, JOURNAL_KEY, &change.key[..shape.key_words()]);
        copy_in(memory, JOURNAL_VALUE, &change.value[..shape.value_words()]);
        memory.store(JOURNAL, change.what, Ordering::Release); // T7
        // A death is a stop between two stores of this thread: they must keep this order, and do where
        // the compiler keeps it.
        compiler_fence(Ordering::SeqCst);
        let done = self.apply(change);
        memory.store(JOURNAL, NONE, Ordering::Release); // T7
        done
    }

    /// Makes the change, or again what of it was made. Answers whether it made a difference.
    fn apply(&self, change: &Change) -> Result<bool, NoPlace> {
        let (memory, shape) = (self.table.memory(), self.table.shape());
        let (key, value) = (&change.key[..shape.key_words()], &change.value[..shape.value_words()]);
        match (self.table.body(), change.what) {
            (Body::Hash(hash), SET) => hash.set(memory, key, value),
            (Body::Hash(hash), REMOVE) => Ok(hash.remove(memory, key)),
            (Body::Hash(hash), CLEAR) => Ok(hash.clear(memory)),
            (Body::Array(array), SET) => array.set(memory, key[0] as u32, value),
            (Body::Array(array), REMOVE) => Ok(array.remove(memory, key[0] as u32)),
            (Body::Array(array), CLEAR) => Ok(array.clear(memory)),
            (Body::Lpm(prefixes), SET) => prefixes.set(memory, Prefix::of_words(key), value),
            (Body::Lpm(prefixes), REMOVE) => Ok(prefixes.remove(memory, Prefix::of_words(key))),
            (Body::Lpm(prefixes), CLEAR) => Ok(prefixes.clear(memory)),
            _ => Ok(false),
        }
    }

    /// Finishes the change of a writer that died. The journal may hold anything.
    fn recover(&self) {
        let (memory, shape) = (self.table.memory(), self.table.shape());
        let state = memory.load(JOURNAL, Ordering::Acquire); // T7
        if state == NONE {
            return;
        }
        let mut change = Change { what: state, key: [0; KEY_WORDS], value: [0; VALUE_WORDS] };
        let (key, value) = (&mut change.key[..shape.key_words()], &mut change.value[..shape.value_words()]);
        for (at, word) in (JOURNAL_KEY..).zip(key).chain((JOURNAL_VALUE..).zip(value)) {
            *word = memory.load(at, Ordering::Relaxed); // ordered by T7
        }
        let _ = self.apply(&change); // a full table refused it to the dead as well
        match self.table.body() {
            Body::Hash(hash) => hash.repair(memory),
            Body::Array(array) => array.repair(memory),
            Body::Lpm(prefixes) => prefixes.repair(memory),
        }
        memory.store(JOURNAL, NONE, Ordering::Release); // T7
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // It can only fail for a descriptor that is not open.
        let _ = words::lock(&self.file, false);
    }
}

/// The key as tables have it: its words, the index, or the prefix.
fn key_words(shape: &Shape, key: &[u8]) -> Result<[u64; KEY_WORDS], TableError> {
    if key.len() != shape.stored_key_bytes() {
        return Err(TableError::KeyLength { found: key.len(), expected: shape.stored_key_bytes() });
    }
    match shape.kind() {
        Kind::Hash => Ok(to_words(key)),
        Kind::Array => {
            let (index, entries) = (index(key), shape.entries());
            if index >= entries { Err(TableError::Index { index, entries }) } else { Ok(to_words(key)) }
        }
        Kind::Lpm => {
            let (bytes, length) = (&key[..shape.key_bytes()], key[shape.key_bytes()]);
            let key_bits = shape.key_bytes() as u32 * 8;
            if u32::from(length) > key_bits {
                return Err(TableError::PrefixLength { length, bits: key_bits });
            }
            let bits = Prefix::bits_of(bytes);
            let prefix = Prefix::of(bits, length.into());
            if prefix.bits != bits {
                return Err(TableError::PrefixBits { length });
            }
            let mut words = [0; KEY_WORDS];
            words[..3].copy_from_slice(&prefix.words(shape.key_words()));
            Ok(words)
        }
    }
}

/// A writer that dies after each of its stores in turn.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Access, Lookup};
    use std::collections::BTreeMap;
    use std::os::fd::AsFd;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn contents(table: &Table) -> Model {
        let mut entries = table.entries();
        let model = entries.by_ref().map(|e| (e.key, e.value)).collect();
        assert_eq!(entries.skipped(), 0);
        model
    }

    /// Fills a table, has `change` made by a writer that dies after n stores, and holds what the next
    /// writer leaves against the contents before and after the change, for each n.
    fn dies_everywhere(shape: Shape, fill: &[(Vec<u8>, Vec<u8>)], change: impl Fn(&mut Writer<'_>)) {
        let mut outcomes = [0; 2];
        for stores in 0.. {
            let table = Table::create_seeded("death", shape, 1).expect("table");
            for (key, value) in fill {
                table.set(key, value).expect("fits");
            }
            let before = contents(&table);
            // Another attachment, as another process would have it.
            let fd = table.as_fd().try_clone_to_owned().expect("descriptor");
            let mortal = Table::attach(fd, Access::Write).expect("attach");
            let mut writer = mortal.writer().expect("lock");
            mortal.memory().death.after(stores);
            change(&mut writer);
            let died = mortal.memory().death.came();
            drop(writer);
            let mut value = vec![0; shape.value_bytes()];
            for (key, _) in fill {
                let found = table.get(&key[..shape.key_bytes()], &mut value);
                assert!(found == Lookup::Busy || value.windows(2).all(|w| w[0] == w[1]), "torn after {stores} stores");
            }
            drop(table.writer().expect("the lock went with its holder"));
            let after = contents(&table);
            let whole = {
                let model = Table::create("whole", shape).expect("table");
                fill.iter().for_each(|(key, value)| model.set(key, value).expect("fits"));
                change(&mut model.writer().expect("lock"));
                contents(&model)
            };
            assert!(after == before || after == whole, "half a change after {stores} stores");
            outcomes[usize::from(after == whole && whole != before)] += 1;
            assert_eq!(table.len(), after.len() as u64, "after {stores} stores");
            // All can be found and removed, and nothing is left that leads nowhere.
            for (key, expected) in &after {
                if shape.kind() != Kind::Lpm {
                    assert_eq!(table.get(key, &mut value), Lookup::Found, "after {stores} stores");
                    assert_eq!(&value, expected);
                }
                assert!(table.remove(key).expect("removes"));
            }
            assert!(table.is_empty());
            assert!(leads_nowhere(&table), "something is left after {stores} stores");
            for (key, _) in fill {
                assert_eq!(table.get(&key[..shape.key_bytes()], &mut value), Lookup::Absent, "after {stores} stores");
            }
            if !died {
                assert!(outcomes[0] > 0 && outcomes[1] > 1, "{outcomes:?}");
                return;
            }
        }
    }

    /// Whether look-ups in an empty table read a bucket, and of prefixes not even that.
    fn leads_nowhere(table: &Table) -> bool {
        match table.body() {
            Body::Hash(hash) => hash.notes(table.memory()) == 0,
            Body::Array(_) => true,
            Body::Lpm(prefixes) => prefixes.leads_nowhere(table.memory()),
        }
    }

    fn same(key: &[u8], byte: u8, shape: Shape) -> (Vec<u8>, Vec<u8>) {
        (key.to_vec(), vec![byte; shape.value_bytes()])
    }

    #[test]
    fn a_hash_is_whole_after_any_death() {
        // Twenty keys at home in the last of five buckets: thirteen are away, behind the wrap.
        let shape = Shape::new(Kind::Hash, 4, 20, 21).expect("shape");
        let table = Table::create_seeded("keys", shape, 1).expect("table");
        let Body::Hash(hash) = table.body() else { panic!("a hash") };
        let at_home = |key: &[u8; 4]| hash.home(hash.hash(&to_words::<1>(key))) == hash.buckets() - 1;
        let keys: Vec<_> = (0u32..).map(u32::to_le_bytes).filter(at_home).take(21).collect();
        let fill: Vec<_> = (0..).zip(&keys[..20]).map(|(n, key)| same(key, n, shape)).collect();
        for key in [&keys[1], &keys[19]] {
            dies_everywhere(shape, &fill, |writer| writer.set(key, &[77; 20]).expect("fits"));
            dies_everywhere(shape, &fill, |writer| assert!(writer.remove(key).is_ok()));
        }
        dies_everywhere(shape, &fill, |writer| writer.set(&keys[20], &[77; 20]).expect("fits"));
        dies_everywhere(shape, &fill, |writer| writer.clear());
    }

    #[test]
    fn an_array_is_whole_after_any_death() {
        let shape = Shape::new(Kind::Array, 4, 20, 5).expect("shape");
        let fill: Vec<_> = (0..4u8).map(|n| same(&[n, 0, 0, 0], n, shape)).collect();
        dies_everywhere(shape, &fill, |writer| writer.set(&[1, 0, 0, 0], &[77; 20]).expect("fits"));
        dies_everywhere(shape, &fill, |writer| writer.set(&[4, 0, 0, 0], &[77; 20]).expect("fits"));
        dies_everywhere(shape, &fill, |writer| assert!(writer.remove(&[1, 0, 0, 0]).is_ok()));
        dies_everywhere(shape, &fill, |writer| writer.clear());
    }

    #[test]
    fn prefixes_are_whole_after_any_death() {
        let shape = Shape::new(Kind::Lpm, 4, 20, 10).expect("shape");
        let prefixes = [[0, 0, 0, 0, 0], [10, 0, 0, 0, 8], [10, 1, 0, 0, 16], [10, 1, 128, 0, 17], [10, 1, 1, 1, 32]];
        let fill: Vec<_> = (1..).zip(prefixes).map(|(n, key)| same(&key, n, shape)).collect();
        for key in prefixes {
            dies_everywhere(shape, &fill, |writer| writer.set(&key, &[77; 20]).expect("fits"));
            dies_everywhere(shape, &fill, |writer| assert!(writer.remove(&key).is_ok()));
        }
        for key in [[10, 1, 1, 0, 24], [10, 2, 0, 0, 16], [10, 1, 0, 0, 17]] {
            dies_everywhere(shape, &fill, |writer| writer.set(&key, &[77; 20]).expect("fits"));
        }
        dies_everywhere(shape, &fill, |writer| writer.clear());
    }

    #[test]
    fn one_writer_at_a_time() {
        let table = Table::create("lock", Shape::new(Kind::Array, 4, 8, 5).expect("shape")).expect("table");
        let other = Table::attach(table.grant(Access::Write).expect("descriptor"), Access::Write).expect("attach");
        let held = table.writer().expect("free");
        let locked = |table: &Table| matches!(table.writer_within(Duration::ZERO), Err(TableError::Locked { .. }));
        assert!(locked(&table) && locked(&other));
        std::thread::scope(|scope| {
            assert!(scope.spawn(|| locked(&table) && locked(&other)).join().expect("no panic"));
        });
        drop(held);
        assert!(!locked(&other) && !locked(&table));
        let reader = Table::attach(table.grant(Access::Read).expect("descriptor"), Access::Read).expect("attach");
        assert!(matches!(reader.set(&[0; 4], &[0; 8]), Err(TableError::ReadOnly)));
        let fd = table.grant(Access::Read).expect("descriptor");
        assert!(words::lock(&fd.into(), true).is_err(), "a reader's descriptor takes no lock");
    }
}
