//! `distributor.c`: `rte_distributor` with one worker.
//!
//! # Invariants
//! There is one distributor, made once DPDK was started, which stays to the end. [`Giver`] holds the lock on it:
//! only one exists at a time, and with it at most one [`Worker`], which it was made with. Either touches its own
//! fields; what both touch is DPDK's, made for both.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::pipeline::Pipeline;
use super::{Dpdk, Object};
use crate::flow::{BUFFERS, Looking, Sorting};

type Open = unsafe extern "C" fn(*mut c_char, u32) -> *mut c_void;
type Lay = unsafe extern "C" fn(*mut c_void, u32, *const u8, u16, u32);
type Give = unsafe extern "C" fn(*mut c_void) -> i32;
type Look = unsafe extern "C" fn(*mut c_void, *mut u64) -> u32;

/// The functions of this source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Functions {
    open: Open,
    lay: Lay,
    give: Give,
    look: Look,
}

impl Functions {
    pub(super) fn find(object: &Object) -> Result<Functions, String> {
        // SAFETY: these are their types in the source.
        unsafe {
            Ok(Functions {
                open: object.function("distributor_open")?,
                lay: object.function("distributor_lay")?,
                give: object.function("distributor_give")?,
                look: object.function("distributor_look")?,
            })
        }
    }
}

/// The distributor of this process.
#[derive(Debug)]
pub struct Distributor {
    functions: Functions,
    at: NonNull<c_void>,
    taken: Mutex<()>,
}

// SAFETY: made for two threads; who may touch what is said above.
unsafe impl Send for Distributor {}
// SAFETY: as above.
unsafe impl Sync for Distributor {}

impl Dpdk {
    /// Makes a distributor, once; `None`, having said why, if that fails. A pipeline is there where DPDK was started.
    pub fn distributor(&'static self, _started: &Pipeline) -> Option<&'static Distributor> {
        static OPENED: OnceLock<Option<Distributor>> = OnceLock::new();
        let open = || {
            let functions = self.distributor;
            let mut why = [0 as c_char; 128];
            // SAFETY: called once, DPDK was started (there is a pipeline), and there is room for as many characters as it says.
            let at = unsafe { (functions.open)(why.as_mut_ptr(), why.len() as u32) };
            let opened = NonNull::new(at).map(|at| Distributor { functions, at, taken: Mutex::new(()) });
            if opened.is_none() {
                // SAFETY: it has written a string there, with its end.
                let why = unsafe { CStr::from_ptr(why.as_ptr()) }.to_string_lossy();
                println!("\nSkipped: DPDK's distributor ({why}).");
            }
            opened
        };
        OPENED.get_or_init(open).as_ref()
    }
}

impl Distributor {
    /// Both sides, for two cores: on one they would wait for each other. `tag` tells a packet's flow while packets are
    /// laid out, outside the clock.
    pub fn pair<T: FnMut(&[u8]) -> u32>(&'static self, tag: T) -> (Giver<T>, Worker) {
        let lock = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        (Giver { distributor: self, _lock: lock, tag, home: true }, Worker { distributor: self, sum: 0 })
    }
}

/// The side that distributes.
#[derive(Debug)]
pub struct Giver<T> {
    distributor: &'static Distributor,
    _lock: MutexGuard<'static, ()>,
    tag: T,
    home: bool,
}

impl<T: FnMut(&[u8]) -> u32> Sorting for Giver<T> {
    fn load(&mut self, buffer: usize, bytes: &[u8]) {
        assert!(buffer < BUFFERS && bytes.len() <= 2048 && (self.home || buffer > 0));
        self.home = false;
        let (at, tag) = (self.distributor.at.as_ptr(), (self.tag)(bytes));
        // SAFETY: a mbuf has room for 2048 bytes; between laps all mbufs are home.
        unsafe { (self.distributor.functions.lay)(at, buffer as u32, bytes.as_ptr(), bytes.len() as u16, tag) };
    }

    fn turn(&mut self) {
        // SAFETY: this is the only side that distributes (lock).
        self.home = unsafe { (self.distributor.functions.give)(self.distributor.at.as_ptr()) } != 0;
    }

    fn all_home(&self) -> bool {
        self.home
    }
}

/// The worker. Its turns wait until there are packets; after [`BUFFERS`] of them comes one that only returns the last.
#[derive(Debug)]
pub struct Worker {
    distributor: &'static Distributor,
    sum: u64,
}

impl Looking for Worker {
    fn turn(&mut self) -> usize {
        // SAFETY: this is the only worker: there is one a giver, and one giver.
        let seen = unsafe { (self.distributor.functions.look)(self.distributor.at.as_ptr(), &raw mut self.sum) };
        black_box(self.sum);
        seen as usize
    }
}
