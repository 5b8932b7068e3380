//! Memfds and their mappings: the only place where memory is mapped or unmapped.
//!
//! Invariants of this file, on which every `unsafe` elsewhere in the crate rests:
//! 1. A [`Mapping`] covers exactly `len` bytes from `base`, mapped shared, until it is dropped.
//! 2. The file behind it is sealed against shrinking before it is mapped ([`Mapping::of`] refuses
//!    it otherwise), so no access inside the mapping can fault for want of file behind it.
//! 3. Nobody forms a Rust reference to mapped bytes but through the methods of this crate that say
//!    why no peer writes them meanwhile; everything else goes through atomics or raw copies.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::MemError;

/// The pages that a region ended up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages from the kernel's hugetlb pool.
    Huge,
    /// Ordinary pages.
    Base,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Pages::Huge => "2 MiB pages",
            Pages::Base => "4 KiB pages",
        })
    }
}

/// Bytes of a huge page, and the unit of a hugetlb file's length.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Seals that every memfd of ours carries: its size is final, and so is the set of seals but for
/// FUTURE_WRITE, which [`forbid_new_writers`] adds before it closes the set.
const SIZE_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Makes a memfd of `len_bytes`, mode 0600, of final size.
///
/// With `huge`, the file's length is rounded up to whole huge pages; the call fails where the
/// pool is empty (the caller falls back to ordinary pages).
pub(crate) fn memfd(name: &str, len_bytes: usize, huge: bool) -> Result<OwnedFd, MemError> {
    let fail = |action, source: rustix::io::Errno| {
        MemError::system(format!("shared memory {name:?}"), action, format!("{len_bytes} bytes"), "", source)
    };
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut len = len_bytes;
    if huge {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        len = len_bytes.next_multiple_of(HUGE_PAGE_BYTES);
    }
    let fd = rustix::fs::memfd_create(name, flags).map_err(|e| fail("create", e))?;
    // A memfd is born with mode 0777: anyone who sees it in /proc could reopen it writable.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(|e| fail("set mode 0600", e))?;
    rustix::fs::ftruncate(&fd, len as u64).map_err(|e| fail("set its size", e))?;
    rustix::fs::fcntl_add_seals(&fd, SIZE_SEALS).map_err(|e| fail("seal", e))?;
    Ok(fd)
}

/// Seals `fd` so that nobody can map it writable or write it from now on; mappings that exist stay
/// as they are. Then closes the set of seals.
pub(crate) fn forbid_new_writers(fd: &OwnedFd) -> Result<(), MemError> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::FUTURE_WRITE | SealFlags::SEAL).map_err(|e| {
        MemError::system("region", "seal against new writers", "F_SEAL_FUTURE_WRITE", "needs Linux 5.1", e)
    })
}

/// Closes the set of seals of `fd`.
pub(crate) fn forbid_new_seals(fd: &OwnedFd) -> Result<(), MemError> {
    rustix::fs::fcntl_add_seals(fd, SealFlags::SEAL)
        .map_err(|e| MemError::system("shared memory", "close its set of seals", "F_SEAL_SEAL", "", e))
}

/// One shared mapping of a sealed memfd, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping is plain memory that no thread owns; all access goes through raw pointers
// whose users state their own synchronisation (invariant 3).
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only hands out the base pointer and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole of `fd` shared; refuses a file that could still shrink.
    pub(crate) fn of(fd: &OwnedFd, object: &'static str, writable: bool) -> Result<Mapping, MemError> {
        let fail = |action, source: rustix::io::Errno| MemError::system(object, action, "", "", source);
        let seals = rustix::fs::fcntl_get_seals(fd).map_err(|e| fail("read its seals (is it a memfd?)", e))?;
        if !seals.contains(SIZE_SEALS) {
            return Err(MemError::Header {
                object,
                what: "seals",
                found: seals.bits().into(),
                expected: SIZE_SEALS.bits().into(),
                remedy: "the file could shrink under its readers; use a descriptor handed out by a yard",
            });
        }
        let len = rustix::fs::fstat(fd).map_err(|e| fail("read its size", e))?.st_size as usize;
        if len == 0 {
            return Err(MemError::Geometry { object, what: "file length", value: 0, allowed: "at least one page" });
        }
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh mapping at an address of the kernel's choosing aliases nothing in this
        // program; the file cannot shrink (seals checked above).
        let base =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED | MapFlags::POPULATE, fd, 0) }
                .map_err(|e| {
                    MemError::system(
                        object,
                        "map it",
                        format!("{len} bytes, writable: {writable}"),
                        "if memory is short, ask for fewer buffers",
                        e,
                    )
                })?;
        let base = NonNull::new(base.cast::<u8>()).expect("mmap never answers null without MAP_FIXED");
        Ok(Mapping { base, len, writable })
    }

    /// Asks for transparent huge pages; a hint, so its failure does not matter.
    pub(crate) fn advise_huge(&self) {
        // SAFETY: the range is exactly this mapping (invariant 1); the advice changes no contents.
        let _ = unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, Advice::LinuxHugepage) };
    }

    /// First byte of the mapping.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length of the mapping in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether stores to it are allowed.
    pub(crate) fn writable(&self) -> bool {
        self.writable
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `of` mapped, once; whoever held pointers into it held a
        // borrow or an Arc of this value.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A second descriptor of the same open file, for handing to a consumer.
pub(crate) fn duplicate(fd: &OwnedFd, object: &'static str) -> Result<OwnedFd, MemError> {
    fd.as_fd().try_clone_to_owned().map_err(|e| MemError::system(object, "duplicate its descriptor", "", "", e))
}

/// Reopens `fd` read-only: what a consumer gets that may read and not write.
pub(crate) fn reopen_read_only(fd: &OwnedFd) -> Result<OwnedFd, MemError> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .map(OwnedFd::from)
        .map_err(|e| MemError::system("region", "reopen it read-only", "/proc/self/fd", "is /proc mounted?", e))
}
