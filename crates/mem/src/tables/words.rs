//! The words of a mapped table, and the lock of its file: the only unsafe code of tables.
//!
//! Invariants:
//! 1. `words` points to `count` words of 8 bytes at the start of `map`, which is page-aligned and lives
//!    as long as this value (map.rs: the file cannot shrink).
//! 2. They are only ever read and written as `AtomicU64`, here; no Rust reference to them leaves this
//!    file. So whatever a peer writes, and when, gives wrong numbers and never undefined behaviour.
//! 3. Every index is checked against `count`; it comes from the checked shape and never from the words
//!    themselves, so the check can fail only by a mistake of ours, and then panics.
//! 4. A mapping without write permission is never stored to: the store is refused by the same check.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;

use super::seqlock::Memory;
use crate::MemError;
use crate::map::Mapping;
use crate::sync::{AtomicU64, Ordering};

/// A mapped file of words.
#[derive(Debug)]
pub(crate) struct Words {
    words: NonNull<AtomicU64>,
    count: usize,
    map: Mapping,
    #[cfg(test)]
    pub(crate) death: death::Death,
}

// SAFETY: all access is through atomics (invariant 2); the mapping is owned.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `fd`, of which whole words are used.
    pub(crate) fn of(fd: &OwnedFd, writable: bool) -> Result<Words, MemError> {
        let map = Mapping::of(fd, "table", writable)?;
        Ok(Words {
            words: map.base().cast(),
            count: map.len() / 8,
            map,
            #[cfg(test)]
            death: death::Death::default(),
        })
    }

    /// Bytes of the file.
    pub(crate) fn len_bytes(&self) -> usize {
        self.map.len()
    }

    /// Whether stores are allowed.
    pub(crate) fn writable(&self) -> bool {
        self.map.writable()
    }

    /// Fetches the cache line of a word, ahead of its use. A hint.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize) {
        #[cfg(target_arch = "x86_64")]
        if at < self.count {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: the word is in the mapping (invariant 1), and a prefetch changes nothing.
            unsafe { _mm_prefetch::<{ _MM_HINT_T0 }>(self.words.as_ptr().add(at).cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

impl Memory for Words {
    #[inline]
    fn load(&self, at: usize, order: Ordering) -> u64 {
        assert!(at < self.count);
        // SAFETY: at < count (invariant 1). An atomic load of 8 bytes from memory that may be mapped
        // read-only is allowed on the machines this runs on (std::sync::atomic, "read-only memory").
        unsafe { self.words.add(at).as_ref() }.load(order)
    }

    #[inline]
    fn store(&self, at: usize, value: u64, order: Ordering) {
        assert!(at < self.count && self.map.writable());
        #[cfg(test)]
        if self.death.comes() {
            return;
        }
        // SAFETY: at < count and the mapping is writable (invariants 1 and 4).
        unsafe { self.words.add(at).as_ref() }.store(value, order);
    }
}

/// Takes or gives back the writer's lock: an open-file-description lock (fcntl(2), `F_OFD_SETLK`) over the
/// whole file. It needs a descriptor that can write, excludes every other open of the file whether in
/// this process or another, and goes when the last descriptor of this open closes: with the process.
/// Answers false if another has it.
pub(crate) fn lock(file: &File, take: bool) -> io::Result<bool> {
    let kind = if take { libc::F_WRLCK } else { libc::F_UNLCK };
    let range = libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: the descriptor is open, `range` lives through the call, and F_OFD_SETLK only reads it.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// For tests: a writer that dies after so many stores.
#[cfg(test)]
pub(crate) mod death {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Stores left to live, less one; 0: for ever.
    #[derive(Debug, Default)]
    pub(crate) struct Death(AtomicU64);

    impl Death {
        pub(crate) fn after(&self, stores: u64) {
            self.0.store(stores + 1, Ordering::Relaxed);
        }

        /// Whether death struck.
        pub(crate) fn came(&self) -> bool {
            self.0.load(Ordering::Relaxed) == 1
        }

        pub(super) fn comes(&self) -> bool {
            match self.0.load(Ordering::Relaxed) {
                0 => false,
                1 => true,
                left => {
                    self.0.store(left - 1, Ordering::Relaxed);
                    false
                }
            }
        }
    }
}
