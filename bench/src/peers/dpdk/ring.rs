//! `ring.c`: `rte_ring` with one producer and one consumer.
//!
//! # Invariants
//! The ring was made by `ring_new` for entries of `W` words and is freed when the last of its ends goes. Only
//! [`Sender`] writes and only [`Taker`] reads, and there is one of each.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{Dpdk, Object};

type New = unsafe extern "C" fn(u32, u32) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Send = unsafe extern "C" fn(*mut c_void, u64, u32, i32);
type Take = unsafe extern "C" fn(*mut c_void, u64, u32, i32) -> u64;

/// The functions of this source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    new: New,
    free: Free,
    send: Send,
    take: Take,
    by_turns: Take,
}

impl Functions {
    pub(super) fn find(object: &Object) -> Result<Functions, String> {
        // SAFETY: these are their types in the source.
        unsafe {
            Ok(Functions {
                new: object.function("ring_new")?,
                free: object.function("ring_free")?,
                send: object.function("ring_send")?,
                take: object.function("ring_take")?,
                by_turns: object.function("ring_by_turns")?,
            })
        }
    }
}

/// How entries get into the ring and out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// Copied, a burst at a time, from an array and to one.
    Copied = 0,
    /// Written and read where they lie.
    InPlace = 1,
}

#[derive(Debug)]
struct Ring {
    functions: Functions,
    at: NonNull<c_void>,
    entries: Entries,
}

// SAFETY: an `rte_ring` is made for a producer and a consumer on threads of their own.
unsafe impl std::marker::Send for Ring {}
// SAFETY: as above; there is one of either (invariant).
unsafe impl Sync for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: made by `ring_new`, and both ends are gone.
        unsafe { (self.functions.free)(self.at.as_ptr()) }
    }
}

/// The end that writes entries of `W` words.
#[derive(Debug)]
pub struct Sender<const W: usize>(Arc<Ring>);

/// The end that reads them.
#[derive(Debug)]
pub struct Taker<const W: usize>(Arc<Ring>);

impl Dpdk {
    /// A ring of `slots` places, one of which stays empty, for entries of 2 or 4 words.
    pub fn ring<const W: usize>(&self, slots: u32, entries: Entries) -> (Sender<W>, Taker<W>) {
        const { assert!(W == 2 || W == 4) };
        // SAFETY: it takes any numbers.
        let at = unsafe { (self.ring.new)(slots, 8 * W as u32) };
        let at = NonNull::new(at).expect("memory for a small ring");
        let ring = Arc::new(Ring { functions: self.ring, at, entries });
        (Sender(ring.clone()), Taker(ring))
    }
}

impl<const W: usize> Sender<W> {
    /// Sends entries 0 to `count`, in bursts, waiting for room.
    pub fn send(&mut self, count: usize) {
        // SAFETY: a ring of entries of W words, and this is its only producer.
        unsafe { (self.0.functions.send)(self.0.at.as_ptr(), count as u64, W as u32, self.0.entries as i32) }
    }

    /// Sends as many and takes them from `taker`, burst by burst; answers the sum of their words.
    pub fn by_turns(&mut self, taker: &mut Taker<W>, count: usize) -> u64 {
        assert!(Arc::ptr_eq(&self.0, &taker.0), "two ends of one ring");
        // SAFETY: as for `send`, and `taker` is its only consumer.
        unsafe { (self.0.functions.by_turns)(self.0.at.as_ptr(), count as u64, W as u32, self.0.entries as i32) }
    }
}

impl<const W: usize> Taker<W> {
    /// Takes `count` entries, waiting for them; answers the sum of their words.
    pub fn take(&mut self, count: usize) -> u64 {
        // SAFETY: a ring of entries of W words, and this is its only consumer.
        unsafe { (self.0.functions.take)(self.0.at.as_ptr(), count as u64, W as u32, self.0.entries as i32) }
    }
}
