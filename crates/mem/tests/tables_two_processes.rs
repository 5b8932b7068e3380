//! Named tables between processes: a writer that is killed at any moment holds up nobody, and leaves
//! no change half made.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowyard_mem::tables::{Access, Kind, Lookup, Shape, Table, TableError};

/// Where the other process finds its table: `/proc/PID/fd/N` of this one.
const TABLE: &str = "FLOWYARD_TEST_TABLE";
/// How it writes: `each` takes the lock for each change, `all` once.
const MANNER: &str = "FLOWYARD_TEST_MANNER";
const KEYS: u32 = 64;
const VALUE_BYTES: usize = 256;

/// Stops the other threads of a test, also when an assertion fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The key and the value of a change. Every 32nd word of a value is the same: a torn one shows.
fn change(table: &Table, n: u64) -> (Vec<u8>, Vec<u8>) {
    let key = n as u32 % KEYS;
    let key = match table.shape().kind() {
        Kind::Lpm => [&[10, key as u8, 0, 0][..], &[16 + (key % 3) as u8]].concat(),
        Kind::Hash | Kind::Array => key.to_le_bytes().to_vec(),
    };
    (key, n.to_le_bytes().repeat(VALUE_BYTES / 8))
}

fn intact(value: &[u8]) -> bool {
    value.chunks(8).all(|word| word == &value[..8])
}

/// The other process: this same test binary, run with a table in its environment. Writes for ever.
#[test]
fn child() {
    let Ok(path) = std::env::var(TABLE) else { return };
    let file = File::options().read(true).write(true).open(path).expect("the parent's table");
    let table = Table::attach(file.into(), Access::Write).expect("attach");
    let all = std::env::var(MANNER).is_ok_and(|manner| manner == "all");
    let mut held = all.then(|| table.writer().expect("lock"));
    for n in 1u64.. {
        let (key, value) = change(&table, n);
        let remove = n.is_multiple_of(7);
        match &mut held {
            Some(writer) if remove => drop(writer.remove(&key).expect("removes")),
            Some(writer) => writer.set(&key, &value).expect("fits"),
            None if remove => drop(table.remove(&key).expect("removes")),
            None => table.set(&key, &value).expect("fits"),
        }
    }
}

fn start(table: &Table, manner: &str) -> Child {
    let path = format!("/proc/{}/fd/{}", std::process::id(), table.as_fd().as_raw_fd());
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture"])
        .env(TABLE, path)
        .env(MANNER, manner)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the child runs")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Kills writers, again and again, while a reader looks up.
fn writers_die(shape: Shape) {
    let table = Table::create("killed", shape).expect("table");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stopping = Stop(&stop);
        let reading = scope.spawn(|| {
            let reader = Table::attach(table.grant(Access::Read).expect("descriptor"), Access::Read).expect("attach");
            let (mut value, mut longest, mut found) = ([0; VALUE_BYTES], Duration::ZERO, 0u64);
            while !stop.load(Ordering::Relaxed) {
                for n in 0..u64::from(KEYS) {
                    let key = change(&reader, n).0;
                    let asked = Instant::now();
                    let answer = reader.get(&key[..4], &mut value);
                    longest = longest.max(asked.elapsed());
                    assert!(answer != Lookup::Found || intact(&value), "torn: {value:?}");
                    found += u64::from(answer == Lookup::Found);
                }
                std::thread::yield_now();
            }
            (found, longest)
        });
        for round in 0u64..30 {
            // The last value that this process wrote is not there any more once the child is at work.
            let mark = vec![0xee; VALUE_BYTES];
            (0..u64::from(KEYS)).for_each(|n| table.set(&change(&table, n).0, &mark).expect("fits"));
            let mut child = start(&table, if round % 2 == 0 { "each" } else { "all" });
            wait_until("the child writes", || table.entries().any(|e| e.value != mark));
            std::thread::sleep(Duration::from_micros(137 * (round % 23)));
            child.kill().expect("kill");
            child.wait().expect("wait");
            // The lock went with its holder: the next writer has it, and finds all in order.
            let mut writer = table.writer().expect("the lock is free");
            let (key, value) = change(&table, round);
            writer.set(&key, &value).expect("fits");
            drop(writer);
            let mut entries = table.entries();
            let listed: Vec<_> = entries.by_ref().collect();
            assert_eq!((listed.len() as u64, entries.skipped()), (table.len(), 0));
            let mut value = [0; VALUE_BYTES];
            for entry in &listed {
                assert!(intact(&entry.value), "half a change: {entry:?}");
                assert_eq!(table.get(&entry.key[..4], &mut value), Lookup::Found);
                assert_eq!(&value[..], entry.value);
            }
        }
        drop(stopping);
        let (found, longest) = reading.join().expect("the reader does not panic");
        assert!(found > 0 && longest < Duration::from_secs(2), "{found} found, {longest:?} at most");
    });
}

#[test]
fn killed_writers_of_a_hash() {
    writers_die(Shape::new(Kind::Hash, 4, VALUE_BYTES, KEYS as usize).expect("shape"));
}

#[test]
fn killed_writers_of_an_array() {
    writers_die(Shape::new(Kind::Array, 4, VALUE_BYTES, KEYS as usize).expect("shape"));
}

#[test]
fn killed_writers_of_prefixes() {
    writers_die(Shape::new(Kind::Lpm, 4, VALUE_BYTES, KEYS as usize).expect("shape"));
}

/// A descriptor that shares the other process's open of the file, as one passed over a socket does,
/// is still another writer's.
#[test]
fn the_lock_holds_between_processes() {
    let table =
        Table::create("locked", Shape::new(Kind::Hash, 4, VALUE_BYTES, KEYS as usize).expect("shape")).expect("table");
    let mut child = start(&table, "all");
    wait_until("the child writes", || !table.is_empty());
    assert!(matches!(table.writer_within(Duration::from_millis(20)), Err(TableError::Locked { .. })));
    let shared: OwnedFd = table.grant(Access::Write).expect("descriptor");
    let other = Table::attach(shared, Access::Write).expect("attach");
    assert!(matches!(other.writer_within(Duration::ZERO), Err(TableError::Locked { .. })));
    child.kill().expect("kill");
    child.wait().expect("wait");
    other.set(&[1; 4], &[2; VALUE_BYTES]).expect("the lock is free");
}
