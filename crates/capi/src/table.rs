//! Rings by the numbers that C holds of them. Numbers are never used again, so one of a detached ring finds nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::ring::Ring;

/// `flowyard_ring`: never looked into, for its address is a number.
#[repr(C)]
pub struct Handle {
    _opaque: [u8; 0],
}

struct Table {
    next: usize,
    rings: BTreeMap<usize, Arc<Mutex<Ring>>>,
}

static TABLE: Mutex<Table> = Mutex::new(Table { next: FIRST, rings: BTreeMap::new() });

/// Numbers are apart as addresses of structs would be, and none is an address that a program has.
const FIRST: usize = 64;
const STEP: usize = 16;

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner) // whole after every step
}

/// Enters a ring.
pub fn add(ring: Ring) -> *mut Handle {
    let mut table = table();
    let number = table.next;
    table.next += STEP;
    table.rings.insert(number, Arc::new(Mutex::new(ring)));
    std::ptr::without_provenance_mut(number)
}

/// Takes it out. Dropped once no other thread uses it.
pub fn remove(handle: *mut Handle) -> Result<(), String> {
    let ring = table().rings.remove(&handle.addr()); // the lock is let go before the ring is
    ring.map(drop).ok_or_else(|| none(handle))
}

/// Does something with a ring.
pub fn with<T>(handle: *mut Handle, then: impl FnOnce(&mut Ring) -> Result<T, String>) -> Result<T, String> {
    let ring = table().rings.get(&handle.addr()).cloned().ok_or_else(|| none(handle))?;
    let mut ring = match ring.try_lock() {
        Ok(ring) => ring,
        Err(TryLockError::Poisoned(ring)) => ring.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err("another thread uses this ring now: give each thread its own".into());
        }
    };
    then(&mut ring)
}

fn none(handle: *mut Handle) -> String {
    if handle.is_null() {
        return "the ring is NULL: flowyard_attach has failed, or was not called".into();
    }
    format!("{:#x} is no ring: it was detached, or flowyard_attach never gave it", handle.addr())
}
