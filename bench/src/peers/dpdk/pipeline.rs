//! `pipeline.c`: a zero-copy pipeline over a mempool and four rings.
//!
//! # Invariants
//! DPDK is started once per process, and so there is one pipeline, which stays to the end. [`Sorter`] holds
//! the lock on it: only one exists at a time, and with it at most one [`Looker`], which it was made with.
//! The dispatcher's fields are touched by the sorter alone, rings and mempool are made for both.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::{Dpdk, Object};
use crate::flow::{BUFFERS, Looking, Sorting};

type Open = unsafe extern "C" fn(u32, i32, *mut c_char, u32) -> *mut c_void;
type Choose = unsafe extern "C" fn(*mut c_void, u32);
type Lay = unsafe extern "C" fn(*mut c_void, u32, *const u8, u16);
type Sort = unsafe extern "C" fn(*mut c_void) -> i32;
type Enter = unsafe extern "C" fn() -> i32;
type Leave = unsafe extern "C" fn();
type Look = unsafe extern "C" fn(*mut c_void, *mut u64) -> u32;

/// The functions of this source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    open: Open,
    choose: Choose,
    lay: Lay,
    sort: Sort,
    enter: Enter,
    leave: Leave,
    look: Look,
}

impl Functions {
    pub(super) fn find(object: &Object) -> Result<Functions, String> {
        // SAFETY: these are their types in the source.
        unsafe {
            Ok(Functions {
                open: object.function("pipeline_open")?,
                choose: object.function("pipeline_method")?,
                lay: object.function("pipeline_lay")?,
                sort: object.function("pipeline_sort")?,
                enter: object.function("pipeline_enter")?,
                leave: object.function("pipeline_leave")?,
                look: object.function("pipeline_look")?,
            })
        }
    }
}

/// How packets are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parse {
    /// Not at all: rings by turns.
    Nothing = 0,
    /// `rte_net_get_ptype`, sorted ends, CRC-32C.
    Ptype = 1,
    /// The plain parser, sorted ends, CRC-32C.
    Plain = 2,
    /// The same, and 64 bytes of metadata written in front of the packet, and read by the consumer.
    PlainMetadata = 6,
}

/// The pipeline of this process.
#[derive(Debug)]
pub struct Pipeline {
    functions: Functions,
    at: NonNull<c_void>,
    huge: bool,
    taken: Mutex<()>,
}

// SAFETY: made for two threads; who may touch what is said above.
unsafe impl Send for Pipeline {}
// SAFETY: as above.
unsafe impl Sync for Pipeline {}

impl Dpdk {
    /// Starts DPDK with the calling thread on core `core`, once; `None`, having said why, if it does not.
    pub fn pipeline(&'static self, core: usize) -> Option<&'static Pipeline> {
        static OPENED: OnceLock<Option<Pipeline>> = OnceLock::new();
        let open = || {
            let huge = 2 * free_huge_pages() >= 2 * HUGE_MIB;
            let mut why = [0 as c_char; 128];
            // SAFETY: called once, with room for as many characters as it says.
            let at = unsafe { (self.pipeline.open)(core as u32, huge.into(), why.as_mut_ptr(), why.len() as u32) };
            let opened =
                NonNull::new(at).map(|at| Pipeline { functions: self.pipeline, at, huge, taken: Mutex::new(()) });
            if opened.is_none() {
                // SAFETY: it has written a string there, with its end.
                let why = unsafe { CStr::from_ptr(why.as_ptr()) }.to_string_lossy();
                println!("\nSkipped: DPDK's pipeline ({why}).");
            }
            opened
        };
        OPENED.get_or_init(open).as_ref()
    }
}

/// Memory that DPDK is given.
const HUGE_MIB: usize = 128;

/// Pages of 2 MiB that nobody uses.
fn free_huge_pages() -> usize {
    let text = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

impl Pipeline {
    /// Pages that its packets lie on.
    pub fn pages(&self) -> &'static str {
        if self.huge { "2 MiB pages" } else { "4 KiB pages" }
    }

    /// Both sides.
    pub fn pair(&'static self, parse: Parse) -> (Sorter, Looker) {
        let lock = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the dispatcher's field, and nobody else has the lock.
        unsafe { (self.functions.choose)(self.at.as_ptr(), parse as u32) };
        let sorter = Sorter { pipeline: self, _lock: lock, home: true };
        (sorter, Looker { pipeline: self, entered: None, sum: 0 })
    }
}

/// The sorting side.
#[derive(Debug)]
pub struct Sorter {
    pipeline: &'static Pipeline,
    _lock: MutexGuard<'static, ()>,
    home: bool,
}

impl Sorting for Sorter {
    fn load(&mut self, buffer: usize, bytes: &[u8]) {
        assert!(buffer < BUFFERS && bytes.len() <= 2048 && (self.home || buffer > 0));
        self.home = false;
        // SAFETY: a mbuf has room for 2048 bytes; between laps all mbufs are home.
        unsafe {
            (self.pipeline.functions.lay)(self.pipeline.at.as_ptr(), buffer as u32, bytes.as_ptr(), bytes.len() as u16)
        };
    }

    fn turn(&mut self) {
        // SAFETY: this is the only dispatcher (lock).
        self.home = unsafe { (self.pipeline.functions.sort)(self.pipeline.at.as_ptr()) } != 0;
    }

    fn all_home(&self) -> bool {
        self.home
    }
}

/// The looking side. Known to DPDK from its first turn on, on the thread of that.
#[derive(Debug)]
pub struct Looker {
    pipeline: &'static Pipeline,
    /// Whether its thread had to be made known.
    entered: Option<bool>,
    sum: u64,
}

impl Looking for Looker {
    fn turn(&mut self) -> usize {
        let functions = &self.pipeline.functions;
        // SAFETY: DPDK was started.
        self.entered.get_or_insert_with(|| unsafe { (functions.enter)() } != 0);
        // SAFETY: this is the only consumer: there is one a sorter, and one sorter.
        let seen = unsafe { (functions.look)(self.pipeline.at.as_ptr(), &raw mut self.sum) };
        black_box(self.sum);
        seen as usize
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        if self.entered == Some(true) {
            // SAFETY: the thread of the turns, which `flow` does not change, was made known there.
            unsafe { (self.pipeline.functions.leave)() }
        }
    }
}
