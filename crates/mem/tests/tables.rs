//! Named tables against models, with readers beside a writer, and under a hostile one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowyard_mem::tables::{Access, Entry, Kind, Lookup, Shape, Table, TableError};
use proptest::prelude::*;

/// Stops the other threads of a test, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn table(kind: Kind, key_bytes: usize, value_bytes: usize, entries: usize) -> Table {
    Table::create("test", Shape::new(kind, key_bytes, value_bytes, entries).expect("shape")).expect("table")
}

fn reader(table: &Table) -> Table {
    Table::attach(table.grant(Access::Read).expect("descriptor"), Access::Read).expect("attach")
}

fn get(table: &Table, key: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; table.shape().value_bytes()];
    match table.get(key, &mut value) {
        Lookup::Found => Some(value),
        Lookup::Absent => None,
        Lookup::Busy => panic!("nobody writes"),
    }
}

fn contents(table: &Table) -> HashMap<Vec<u8>, Vec<u8>> {
    let listed: Vec<Entry> = table.entries().collect();
    let map: HashMap<_, _> = listed.iter().map(|e| (e.key.clone(), e.value.clone())).collect();
    assert_eq!(map.len(), listed.len(), "an entry was listed twice");
    map
}

#[derive(Debug, Clone)]
enum Step {
    Set(u8, u8),
    Remove(u8),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        60 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Step::Set(key, value)),
        40 => any::<u8>().prop_map(Step::Remove),
        1 => Just(Step::Clear),
    ];
    proptest::collection::vec(step, 0..300)
}

/// A prefix that overlaps others often: few different bytes, all lengths.
fn prefix(n: u8, key_bytes: usize) -> Vec<u8> {
    let length = u32::from(n.wrapping_mul(37)) % (key_bytes as u32 * 8 + 1);
    let bits = (u128::from(n & 3) * (u128::MAX / 3)) & if length == 0 { 0 } else { u128::MAX << (128 - length) };
    let mut key = bits.to_be_bytes()[..key_bytes].to_vec();
    key.push(length as u8);
    key
}

fn longest<'a>(model: &'a HashMap<Vec<u8>, Vec<u8>>, key: &[u8]) -> Option<&'a Vec<u8>> {
    let bits = |bytes: &[u8]| bytes.iter().flat_map(|b| (0..8).map(move |n| b >> (7 - n) & 1)).collect::<Vec<_>>();
    let key = bits(key);
    let matches = model.iter().filter(|(prefix, _)| {
        let (bytes, length) = (&prefix[..prefix.len() - 1], usize::from(prefix[prefix.len() - 1]));
        bits(bytes)[..length] == key[..length]
    });
    matches.max_by_key(|(prefix, _)| prefix[prefix.len() - 1]).map(|(_, value)| value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_hash_is_a_map(steps in steps(), key_bytes in 1usize..=64, value_bytes in 1usize..=40, entries in 1usize..200) {
        let table = table(Kind::Hash, key_bytes, value_bytes, entries);
        let reader = reader(&table);
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for step in steps {
            match step {
                Step::Set(key, value) => {
                    let (key, value) = (vec![key; key_bytes], vec![value; value_bytes]);
                    let fits = model.contains_key(&key) || model.len() < entries;
                    let set = table.set(&key, &value);
                    prop_assert_eq!(set.is_ok(), fits, "{:?}", set);
                    if fits { model.insert(key, value); }
                }
                Step::Remove(key) => {
                    let key = vec![key; key_bytes];
                    prop_assert_eq!(table.remove(&key).expect("removes"), model.remove(&key).is_some());
                }
                Step::Clear => { table.clear().expect("clears"); model.clear(); }
            }
            prop_assert_eq!(table.len(), model.len() as u64);
        }
        for key in 0..=255 {
            let key = vec![key; key_bytes];
            prop_assert_eq!(get(&reader, &key), model.get(&key).cloned());
        }
        prop_assert_eq!(contents(&reader), model);
    }

    #[test]
    fn an_array_is_an_array(steps in steps(), value_bytes in 1usize..=40, entries in 1usize..300) {
        let table = table(Kind::Array, 4, value_bytes, entries);
        let reader = reader(&table);
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        let key = |n: u8| u32::from(n).to_le_bytes().to_vec();
        for step in steps {
            match step {
                Step::Set(n, value) => {
                    let value = vec![value; value_bytes];
                    prop_assert_eq!(table.set(&key(n), &value).is_ok(), usize::from(n) < entries);
                    if usize::from(n) < entries { model.insert(key(n), value); }
                }
                Step::Remove(n) => match table.remove(&key(n)) {
                    Ok(had) => prop_assert_eq!(had, model.remove(&key(n)).is_some()),
                    Err(_) => prop_assert!(usize::from(n) >= entries),
                },
                Step::Clear => { table.clear().expect("clears"); model.clear(); }
            }
            prop_assert_eq!(table.len(), model.len() as u64);
        }
        for n in 0..=255 {
            prop_assert_eq!(get(&reader, &key(n)), model.get(&key(n)).cloned());
        }
        prop_assert_eq!(contents(&reader), model);
    }

    #[test]
    fn a_look_up_finds_the_longest_prefix(
        steps in steps(), key_bytes in prop_oneof![Just(4usize), Just(16), 1usize..=16], entries in 1usize..200,
        keys in proptest::collection::vec(any::<[u8; 16]>(), 30),
    ) {
        let table = table(Kind::Lpm, key_bytes, 3, entries);
        let reader = reader(&table);
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for step in steps {
            match step {
                Step::Set(n, value) => {
                    let key = prefix(n, key_bytes);
                    let fits = model.contains_key(&key) || model.len() < entries;
                    prop_assert_eq!(table.set(&key, &[value; 3]).is_ok(), fits);
                    if fits { model.insert(key, vec![value; 3]); }
                }
                Step::Remove(n) => {
                    let key = prefix(n, key_bytes);
                    prop_assert_eq!(table.remove(&key).expect("removes"), model.remove(&key).is_some());
                }
                Step::Clear => { table.clear().expect("clears"); model.clear(); }
            }
            prop_assert_eq!(table.len(), model.len() as u64);
        }
        let near = (0..=255).map(|n| {
            let mut key = prefix(n, key_bytes);
            key.truncate(key_bytes);
            key[usize::from(n) % key_bytes] ^= n.rotate_left(3) & 0x11;
            key
        });
        let mut asked: Vec<Vec<u8>> = keys.iter().map(|key| key[..key_bytes].to_vec()).chain(near).collect();
        asked.sort();
        for key in &asked {
            prop_assert_eq!(get(&reader, key), longest(&model, key).cloned(), "{:?}", key);
        }
        let (mut values, mut found) = (vec![0; asked.len() * 3], vec![Lookup::Busy; asked.len()]);
        let hits = reader.get_batch(&asked.concat(), &mut values, &mut found);
        prop_assert_eq!(hits, asked.iter().filter(|key| longest(&model, key).is_some()).count());
        for ((key, value), found) in asked.iter().zip(values.chunks(3)).zip(found) {
            prop_assert_eq!((found == Lookup::Found).then_some(value), longest(&model, key).map(Vec::as_slice));
        }
        prop_assert_eq!(contents(&reader), model);
    }

    /// Every header but the right one is refused, and none makes attaching read beyond the file.
    #[test]
    fn a_wrong_header_is_refused(at in 0usize..48, byte in any::<u8>()) {
        let table = table(Kind::Hash, 4, 8, 100);
        let file = std::fs::File::from(table.grant(Access::Write).expect("descriptor"));
        let mut before = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut before, at as u64).expect("read");
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at as u64).expect("write");
        match Table::attach(file.into(), Access::Read) {
            // The seed is any number; and other sizes may come to the same length of file.
            Ok(other) => prop_assert!(
                before[0] == byte || (32..40).contains(&at) || other.file_bytes() == table.file_bytes()
            ),
            Err(e) => prop_assert!(before[0] != byte && !e.to_string().is_empty()),
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let says = |result: Result<(), TableError>, what: &str| {
        let error = result.expect_err(what).to_string();
        assert!(error.contains(what), "{error:?} does not say {what:?}");
    };
    let hash = table(Kind::Hash, 4, 8, 2);
    says(hash.set(&[1; 3], &[0; 8]), "4 bytes, not 3");
    says(hash.set(&[1; 4], &[0; 9]), "8 bytes, not 9");
    hash.set(&[1; 4], &[1; 8]).expect("fits");
    hash.set(&[2; 4], &[2; 8]).expect("fits");
    says(hash.set(&[3; 4], &[3; 8]), "2 of 2 entries");
    hash.set(&[2; 4], &[4; 8]).expect("it has an entry");
    assert!(hash.remove(&[1; 4]).expect("removes"));
    hash.set(&[3; 4], &[3; 8]).expect("there is room again");
    assert_eq!((get(&hash, &[1; 4]), get(&hash, &[2; 4])), (None, Some(vec![4; 8])));
    says(table(Kind::Array, 4, 8, 2).set(&2u32.to_le_bytes(), &[0; 8]), "no entry 2");
    let lpm = table(Kind::Lpm, 4, 8, 2);
    says(lpm.set(&[10, 0, 0, 0, 33], &[0; 8]), "33 bits");
    says(lpm.set(&[10, 1, 0, 0, 8], &[0; 8]), "behind the 8 bits");
    says(Shape::new(Kind::Lpm, 17, 8, 1).map(drop).map_err(Into::into), "1 to 16 bytes");
    says(Table::create("big", Shape::new(Kind::Hash, 64, 256, 1 << 27).expect("shape")).map(drop), "memory");
}

#[test]
fn a_value_fits_as_much_as_there_is_room() {
    let table = table(Kind::Hash, 4, 12, 10);
    table.set(&[1; 4], b"twelve bytes").expect("fits");
    let (mut short, mut long) = ([b'-'; 5], [b'-'; 14]);
    assert_eq!(table.get(&[1; 4], &mut short), Lookup::Found);
    assert_eq!(table.get(&[1; 4], &mut long), Lookup::Found);
    assert_eq!((&short, &long), (b"twelv", b"twelve bytes--"));
    assert_eq!(table.get(&[1; 5], &mut long), Lookup::Absent);
}

/// A permutation of 32-bit numbers: keys without a pattern, none twice.
fn scatter(n: u32) -> u32 {
    n.wrapping_mul(0x9e37_79b1).rotate_left(15).wrapping_mul(0x85eb_ca77)
}

#[test]
fn a_million_entries_are_all_found() {
    const ENTRIES: u32 = 1_000_000;
    let table = table(Kind::Hash, 4, 8, ENTRIES as usize);
    let mut writer = table.writer().expect("lock");
    for n in 0..ENTRIES {
        writer.set(&scatter(n).to_le_bytes(), &u64::from(n).to_le_bytes()).expect("fits");
    }
    assert!(matches!(writer.set(&scatter(ENTRIES).to_le_bytes(), &[0; 8]), Err(TableError::Full { .. })));
    drop(writer);
    let mut value = [0; 8];
    for n in 0..ENTRIES {
        assert_eq!(table.get(&scatter(n).to_le_bytes(), &mut value), Lookup::Found);
        assert_eq!(u64::from_le_bytes(value), u64::from(n));
        assert_eq!(table.get(&scatter(n + ENTRIES).to_le_bytes(), &mut value), Lookup::Absent);
    }
    assert_eq!(table.entries().count(), ENTRIES as usize);
}

const SEAL: u64 = 0x9e37_79b9_7f4a_7c15;

/// A value of 40 bytes whose words all follow from the first: a torn one shows.
fn sealed(key: u32, n: u64) -> Vec<u8> {
    (0..5).flat_map(|word| (n ^ u64::from(key) << 40).wrapping_mul(SEAL + word).to_le_bytes()).collect()
}

fn intact(value: &[u8]) -> bool {
    let words: Vec<u64> = value.chunks(8).map(|w| u64::from_le_bytes(w.try_into().expect("eight"))).collect();
    let first = words[0].wrapping_mul(SEAL_INVERSE);
    words.iter().enumerate().all(|(word, value)| *value == first.wrapping_mul(SEAL + word as u64))
}

/// Of `SEAL` modulo 2^64, by Newton's iteration.
const SEAL_INVERSE: u64 = {
    let (mut inverse, mut n) = (SEAL, 0);
    while n < 6 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(SEAL.wrapping_mul(inverse)));
        n += 1;
    }
    inverse
};

/// Changes go on while two readers look up: no value is torn, and an entry that is never removed is
/// never absent.
fn readers_beside_a_writer(table: &Table, keys: &[Vec<u8>], steady: &[bool], asked: &[Vec<u8>]) {
    let (stop, looked) = (AtomicBool::new(false), AtomicU64::new(0));
    for (n, key) in keys.iter().enumerate() {
        table.set(key, &sealed(n as u32, 0)).expect("fits");
    }
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let reader = reader(table);
                    let mut value = [0; 40];
                    let mut counts = [0u64; 3];
                    while !stop.load(Ordering::Relaxed) {
                        for (key, steady) in asked.iter().zip(steady) {
                            let found = reader.get(key, &mut value);
                            assert!(found != Lookup::Found || intact(&value), "torn: {value:?}");
                            assert!(found != Lookup::Absent || !steady, "{key:?} is always there");
                            counts[found as usize] += 1;
                        }
                        looked.fetch_add(1, Ordering::Relaxed);
                    }
                    counts
                })
            })
            .collect();
        let start = Instant::now();
        let mut round = 1;
        while start.elapsed() < Duration::from_millis(700) || looked.load(Ordering::Relaxed) < 20 {
            assert!(start.elapsed() < Duration::from_secs(20), "readers do not get on");
            let mut writer = table.writer().expect("lock");
            for (n, (key, steady)) in keys.iter().zip(steady).enumerate() {
                if !steady && (round + n as u64).is_multiple_of(3) {
                    writer.remove(key).expect("removes");
                } else {
                    writer.set(key, &sealed(n as u32, round)).expect("fits");
                }
            }
            round += 1;
        }
        drop(stopping);
        for counts in readers.into_iter().map(|r| r.join().expect("no reader panics")) {
            let [found, absent, busy] = counts;
            assert!(found > 0 && absent > 0, "{counts:?}");
            assert!(busy < found / 10 + 100, "{counts:?}");
        }
    });
}

#[test]
fn no_look_up_in_a_hash_is_torn() {
    let table = table(Kind::Hash, 4, 40, 100);
    let keys: Vec<Vec<u8>> = (0..100u32).map(|n| scatter(n).to_le_bytes().to_vec()).collect();
    let steady: Vec<bool> = (0..100).map(|n| n % 2 == 0).collect();
    readers_beside_a_writer(&table, &keys, &steady, &keys);
}

#[test]
fn no_look_up_in_an_array_is_torn() {
    let table = table(Kind::Array, 4, 40, 16);
    let keys: Vec<Vec<u8>> = (0..16u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let steady: Vec<bool> = (0..16).map(|n| n % 2 == 0).collect();
    readers_beside_a_writer(&table, &keys, &steady, &keys);
}

#[test]
fn no_look_up_of_a_prefix_is_torn() {
    let table = table(Kind::Lpm, 4, 40, 100);
    let keys: Vec<Vec<u8>> = (0..50u8).flat_map(|n| [vec![10, n, 0, 0, 16], vec![10, n, 7, 0, 24]]).collect();
    // The shorter ones stay; the longer ones come and go, over addresses that nothing else covers in every other case.
    let steady: Vec<bool> = (0..100).map(|n| n % 2 == 0).collect();
    let asked: Vec<Vec<u8>> = (0..50u8)
        .flat_map(|n| [vec![10, n, 7, 1], if n % 2 == 0 { vec![10, n, 7, 2] } else { vec![11, n, 7, 2] }])
        .collect();
    readers_beside_a_writer(&table, &keys, &steady, &asked);
}

/// Four quarters are set before the whole is removed, and the whole before the quarters are: at every
/// moment something covers the address, and no look-up may say otherwise. They lie in different nodes.
#[test]
fn an_address_that_is_always_covered_is_always_found() {
    let table = table(Kind::Lpm, 4, 8, 10);
    let stop = AtomicBool::new(false);
    let (whole, quarters) = ([10, 1, 0, 0, 16], [0, 64, 128, 192].map(|third| [10, 1, third, 0, 18]));
    table.set(&whole, &[1; 8]).expect("fits");
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let reading = scope.spawn(|| {
            let mut value = [0; 8];
            let (mut found, mut busy) = (0u64, 0u64);
            while !stop.load(Ordering::Relaxed) {
                match table.get(&[10, 1, 200, 1], &mut value) {
                    Lookup::Found => found += 1,
                    Lookup::Busy => busy += 1,
                    Lookup::Absent => panic!("not covered after {found} look-ups"),
                }
            }
            (found, busy)
        });
        let start = Instant::now();
        let mut writer = table.writer().expect("lock");
        while start.elapsed() < Duration::from_millis(700) {
            quarters.iter().for_each(|quarter| writer.set(quarter, &[2; 8]).expect("fits"));
            writer.remove(&whole).expect("removes");
            writer.set(&whole, &[1; 8]).expect("fits");
            quarters.iter().for_each(|quarter| assert!(writer.remove(quarter).expect("removes")));
        }
        drop(stopping);
        let (found, busy) = reading.join().expect("no panic");
        assert!(found > 1000, "{found} found, {busy} busy");
    });
}

/// A writer that stores anything anywhere: look-ups, listing and other writers come to an end, in
/// bounds, whatever they answer.
#[test]
fn a_hostile_writer_only_makes_wrong_answers() {
    for (kind, key_bytes) in [(Kind::Hash, 8), (Kind::Array, 4), (Kind::Lpm, 16), (Kind::Lpm, 4)] {
        let table = table(kind, key_bytes, 20, 300);
        let reader = reader(&table);
        let file = std::fs::File::from(table.grant(Access::Write).expect("descriptor"));
        let stop = AtomicBool::new(false);
        let len = table.file_bytes() as u64;
        std::thread::scope(|scope| {
            let stopping = Stop(&stop);
            let hostile = scope.spawn(|| {
                let mut state = 1u64;
                let mut next = || {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state
                };
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..200 {
                        let at = next() % (len / 8) * 8;
                        // All bits, few bits, all ones: the sequence and the counts see each.
                        let word =
                            [next(), 1 << (next() % 64), u64::MAX, next() & 0x8181_8181_8181_8181][next() as usize % 4];
                        std::os::unix::fs::FileExt::write_all_at(&file, &word.to_ne_bytes(), at).expect("write");
                    }
                    std::thread::yield_now();
                }
            });
            let start = Instant::now();
            let mut value = [0; 20];
            let mut n = 0u64;
            while start.elapsed() < Duration::from_millis(400) {
                let mut key = [0; 17];
                key[..8].copy_from_slice(&(n % 400).to_le_bytes());
                for _ in 0..20 {
                    key[(n % 16) as usize] ^= n as u8;
                    let asked = Instant::now();
                    let _ = reader.get(&key[..key_bytes], &mut value);
                    assert!(asked.elapsed() < Duration::from_secs(2), "a look-up hangs");
                    n += 1;
                }
                let stored = reader.shape().stored_key_bytes();
                if n.is_multiple_of(400) {
                    let listed = reader.entries().filter(|e| e.key.len() == stored && e.value.len() == 20).count();
                    assert!(listed <= 1000);
                    let _ = (table.set(&key[..stored], &value), table.remove(&key[..stored]));
                }
                if n.is_multiple_of(4000) {
                    let _ = table.clear();
                }
            }
            drop(stopping);
            hostile.join().expect("no panic");
        });
        // What the header says was read when the table was attached: a reader of before goes on.
        assert_eq!(reader.shape(), table.shape());
    }
}
