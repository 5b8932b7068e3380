//! Maps of a user's program, by name and whatever they hold: keys and values are bytes.
//!
//! For tools, and for applications that do not want to say the types of keys and values; those that do use
//! [`KernelSteer::user_map`](crate::KernelSteer::user_map).

use std::io;

use aya::maps::{MapData, MapType};

use crate::KernelError;
use crate::sys::RawMap;

/// A map of a user's program.
#[derive(Debug)]
pub struct UserMap {
    raw: RawMap,
    name: String,
    kind: MapType,
    value_bytes: usize,
    entries: u32,
    copies: usize,
}

/// What a map is: maps of the same shape can take each other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl Shape {
    pub(crate) fn of(map: &MapData) -> Option<Shape> {
        let info = map.info().ok()?;
        let kind = info.map_type().ok()? as u32;
        let (key, value) = (info.key_size(), info.value_size());
        Some(Shape { kind, key, value, entries: info.max_entries(), flags: info.map_flags() })
    }
}

/// Whether each processor has values of its own.
fn per_processor(kind: MapType) -> bool {
    matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash)
}

impl UserMap {
    pub(crate) fn new(name: &str, map: MapData) -> Result<UserMap, KernelError> {
        let fail = |e: &(dyn std::error::Error + 'static)| KernelError::system(format!("look at the map {name:?}"), e);
        let info = map.info().map_err(|e| fail(&e))?;
        let kind = info.map_type().map_err(|e| fail(&e))?;
        let copies = match per_processor(kind) {
            true => Some(aya::util::nr_cpus().map_err(|(_, e)| fail(&e))?),
            false => None,
        };
        let (value_bytes, entries) = (info.value_size() as usize, info.max_entries());
        let raw = RawMap::of(map, copies).map_err(|e| fail(&e))?;
        Ok(UserMap { raw, name: name.to_owned(), kind, value_bytes, entries, copies: copies.unwrap_or(1) })
    }

    /// Its name in the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of map it is.
    pub fn kind(&self) -> MapType {
        self.kind
    }

    /// Bytes of a key; 0 where there are none.
    pub fn key_bytes(&self) -> usize {
        self.raw.key_bytes()
    }

    /// Bytes of a value.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Most entries.
    pub fn most_entries(&self) -> u32 {
        self.entries
    }

    /// Values of a key: one, or one a processor.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// The values of a key; `None` if there is no such entry.
    ///
    /// # Errors
    /// A key of another length, a kind of map without keys, or the system's.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>, KernelError> {
        self.check(key)?;
        let bytes = self.raw.get(key).map_err(|e| self.failed("read", &e))?;
        Ok(bytes.map(|bytes| self.apart(&bytes)))
    }

    /// Sets the value of a key, that of every processor if there are several.
    ///
    /// # Errors
    /// A key or value of another length, a kind of map without keys, or the system's: it is full, most likely.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), KernelError> {
        self.check(key)?;
        if value.len() != self.value_bytes {
            return Err(self.odd("a value", value.len(), self.value_bytes));
        }
        let one = if per_processor(self.kind) { self.value_bytes.next_multiple_of(8) } else { self.value_bytes };
        let mut bytes = value.to_vec();
        bytes.resize(one, 0);
        self.raw.set(key, &bytes.repeat(self.copies)).map_err(|e| self.failed("write to", &e))
    }

    /// Removes a key; answers whether it was there.
    ///
    /// # Errors
    /// A key of another length, a kind of map that keys cannot be removed from, or the system's.
    pub fn remove(&self, key: &[u8]) -> Result<bool, KernelError> {
        self.check(key)?;
        self.raw.remove(key).map_err(|e| self.failed("remove an entry of", &e))
    }

    /// Calls `each` with every entry, key and values, until it answers false. Entries that come or go meanwhile may be
    /// left out or met twice, but at most as many are shown as there is room for.
    ///
    /// # Errors
    /// A kind of map without keys, or the system's.
    pub fn each(&self, mut each: impl FnMut(&[u8], &[Vec<u8>]) -> bool) -> Result<(), KernelError> {
        self.check_kind()?;
        let mut key: Option<Vec<u8>> = None;
        for _ in 0..self.entries {
            let next = self.raw.next_key(key.as_deref()).map_err(|e| self.failed("read", &e))?;
            let Some(next) = next else { break };
            let bytes = self.raw.get(&next).map_err(|e| self.failed("read", &e))?;
            if bytes.is_some_and(|bytes| !each(&next, &self.apart(&bytes))) {
                break;
            }
            key = Some(next);
        }
        Ok(())
    }

    /// The map itself, for calls that this has not.
    pub fn data(&self) -> &MapData {
        self.raw.data()
    }

    fn apart(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let one = bytes.len() / self.copies;
        bytes.chunks(one.max(1)).map(|value| value.iter().take(self.value_bytes).copied().collect()).collect()
    }

    fn check_kind(&self) -> Result<(), KernelError> {
        let keyed = matches!(self.kind, MapType::Array | MapType::Hash | MapType::LruHash | MapType::LpmTrie)
            || per_processor(self.kind);
        if keyed {
            return Ok(());
        }
        Err(KernelError::Object {
            object: format!("the map {:?}", self.name),
            why: format!("is a {:?}, which has no entries to look up", self.kind),
            remedy: "open it in the application (KernelSteer::user_map)".into(),
        })
    }

    fn check(&self, key: &[u8]) -> Result<(), KernelError> {
        self.check_kind()?;
        if key.len() != self.key_bytes() { Err(self.odd("a key", key.len(), self.key_bytes())) } else { Ok(()) }
    }

    fn odd(&self, what: &str, len: usize, wanted: usize) -> KernelError {
        KernelError::Object {
            object: format!("the map {:?}", self.name),
            why: format!("has {what} of {wanted} bytes, not of {len}"),
            remedy: format!("give {wanted}"),
        }
    }

    fn failed(&self, action: &str, error: &io::Error) -> KernelError {
        KernelError::system(format!("{action} the map {:?}", self.name), error)
    }
}
