//! The program's memory of first fragments, for whoever finishes what it marked.

use aya::maps::{HashMap, MapData, MapError};
use flowyard_steer::{Datagram, Family, FragmentMemory, FragmentTable};

use crate::KernelError;

/// `struct datagram` of bpf/fragment.h.
const KEY_BYTES: usize = 40;
/// `struct first` of bpf/fragment.h, in words of 64 bits: time, bytes seen, check and total, hash and
/// newest piece.
const VALUE_WORDS: usize = 4;

type Key = [u8; KEY_BYTES];
type Value = [u64; VALUE_WORDS];

/// Where first fragments went, as the program remembers it: a user-space steer that takes part in it
/// follows first fragments that the kernel has sent on, and the kernel those that user space has.
///
/// Two words of a value share 64 bits as they lie in memory. Time is that of the monotonic clock, which
/// the kernel has, whatever time the caller gives. A look-up is a system call: this is for the slow path.
///
/// The kernel tells nobody that a first fragment has come by: whoever holds a later one asks again, at every
/// batch.
#[derive(Debug)]
pub struct Fragments {
    map: HashMap<MapData, Key, Value>,
}

/// A value taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct First {
    used_ns: u64,
    seen_bytes: u64,
    check: u32,
    total_bytes: u32,
    hash: u32,
    newest: u32,
}

impl First {
    fn read(value: Value) -> First {
        let [used_ns, seen_bytes, third, fourth] = value;
        let ([check, total_bytes], [hash, newest]) = (halves(third), halves(fourth));
        First { used_ns, seen_bytes, check, total_bytes, hash, newest }
    }

    fn write(self) -> Value {
        [self.used_ns, self.seen_bytes, join(self.check, self.total_bytes), join(self.hash, self.newest)]
    }
}

/// The two words of 32 bits that lie in these 8 bytes, in the order of their addresses.
fn halves(word: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn join(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

impl Fragments {
    pub(crate) fn new(map: HashMap<MapData, Key, Value>) -> Fragments {
        Fragments { map }
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The system's.
    pub fn clear(&mut self) -> Result<(), KernelError> {
        let fail = |error: MapError| KernelError::system("clear the memory of fragments", &error);
        loop {
            let keys: Vec<Key> = self.map.keys().collect::<Result<_, _>>().map_err(fail)?;
            if keys.is_empty() {
                return Ok(());
            }
            for key in &keys {
                match self.map.remove(key) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(fail(error)),
                }
            }
        }
    }

    /// Datagrams that are remembered now.
    pub fn len(&self) -> usize {
        self.map.keys().filter(Result::is_ok).count()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.map.keys().next().is_none()
    }

    fn find(&self, datagram: &Datagram) -> Option<First> {
        let first = First::read(self.map.get(&key(datagram), 0).ok()?);
        (monotonic_ns().saturating_sub(first.used_ns) <= FragmentTable::AGE_NS).then_some(first)
    }

    fn store(&mut self, datagram: &Datagram, first: First) {
        // What there is no room for is not followed: as with any memory that is full.
        let _ = self.map.insert(key(datagram), first.write(), 0);
    }
}

fn key(datagram: &Datagram) -> Key {
    let [src, dst] = datagram.addresses();
    let mut key = [0; KEY_BYTES];
    let parts =
        src.into_iter().chain(dst).chain(datagram.id().to_ne_bytes()).chain([family(datagram), datagram.proto()]);
    for (to, from) in key.iter_mut().zip(parts) {
        *to = from;
    }
    key
}

/// `struct piece` of bpf/fragment.h, as a word.
fn piece(datagram: &Datagram) -> u32 {
    let piece = datagram.piece();
    (u32::from(piece.offset_bytes) | u32::from(piece.last)) << 16 | u32::from(piece.len_bytes)
}

/// `check_of` of bpf/fragment.h.
fn check(datagram: &Datagram) -> u32 {
    let [src, dst] = datagram.addresses();
    let words =
        |address: [u8; 16]| address.as_chunks().0.iter().map(|word| u32::from_be_bytes(*word)).collect::<Vec<_>>();
    let start = datagram.id() ^ (u32::from(family(datagram)) << 8 | u32::from(datagram.proto()));
    let pairs = words(src).into_iter().zip(words(dst));
    pairs.fold(start, |x, (src, dst)| (x.rotate_left(5) ^ src).rotate_left(5) ^ dst)
}

fn family(datagram: &Datagram) -> u8 {
    match datagram.family() {
        Family::None => 0,
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl FragmentMemory for Fragments {
    fn learn(&mut self, datagram: &Datagram, hash: u32, _: u64) {
        let seen_bytes = datagram.piece().len_bytes.into();
        let (check, newest) = (check(datagram), piece(datagram));
        self.store(datagram, First { used_ns: monotonic_ns(), seen_bytes, check, total_bytes: 0, hash, newest });
    }

    fn recall(&mut self, datagram: &Datagram, _: u64) -> Option<u32> {
        let mut first = self.find(datagram)?;
        let (newest, piece) = (piece(datagram), datagram.piece());
        if newest != first.newest {
            if first.total_bytes != 0 && first.seen_bytes >= first.total_bytes.into() {
                return None;
            }
            first.newest = newest;
            first.seen_bytes += u64::from(piece.len_bytes);
            if piece.last {
                first.total_bytes = u32::from(piece.offset_bytes) + u32::from(piece.len_bytes);
            }
        }
        first.used_ns = monotonic_ns();
        self.store(datagram, first);
        Some(first.hash)
    }

    fn guess(&mut self, datagram: &Datagram, _: u64) -> Option<u32> {
        self.find(datagram).map(|first| first.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_as_the_program_lays_them() {
        let first = First { used_ns: 1, seen_bytes: 2, check: 3, total_bytes: 4, hash: 5, newest: 6 };
        let bytes: Vec<u8> = first.write().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let words: Vec<u32> =
            bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes"))).collect();
        assert_eq!(words[4..], [3, 4, 5, 6]);
        assert_eq!(First::read(first.write()), first);
    }
}
