//! The ring of a TPACKET_V3 socket: blocks of frames that the kernel fills and we empty.
//!
//! Invariants, on which every `unsafe` here rests:
//! 1. The mapping covers `blocks` × `block_bytes` bytes from `base`, until it is dropped.
//! 2. A block belongs to the kernel until its status says USER, then to us until we write KERNEL.
//!    Only [`BlockRing::release`] writes KERNEL, and it borrows the ring mutably: no slice of a
//!    block is left then.
//!
//! ```text
//! block   0 version | 4 offset to private | 8 status | 12 frames | 16 offset of the first | …
//! frame   0 next | 4 s | 8 ns | 12 captured | 16 length | 20 status | 24 mac | 26 net
//!         28 hash | 32 VLAN TCI | 36 VLAN TPID | 48 sockaddr_ll (20) | … virtio header (10) | packet at mac
//! ```
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// Offset of the status in a block (`tpacket_block_desc`, include/uapi/linux/if_packet.h).
const STATUS: usize = 8;
/// Offset of the number of frames.
pub(super) const FRAMES: usize = 12;
/// Offset of the first frame's offset.
pub(super) const FIRST: usize = 16;

/// Blocks shared with the kernel, visited in turn.
#[derive(Debug)]
pub(super) struct BlockRing {
    base: NonNull<u8>,
    block_bytes: usize,
    blocks: usize,
    current: usize,
}

// SAFETY: the mapping is plain memory; who may touch which block is settled by its status.
unsafe impl Send for BlockRing {}

impl BlockRing {
    /// Maps the ring of `fd`, made before with these sizes.
    pub(super) fn map(fd: impl AsFd, block_bytes: usize, blocks: usize) -> io::Result<BlockRing> {
        let len = block_bytes * blocks;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: a fresh mapping at an address of the kernel's choosing aliases nothing here.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(BlockRing { base, block_bytes, blocks, current: 0 })
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: current < blocks, and a block is longer than its header; pages are aligned; the
        // kernel and we access the word as a whole.
        unsafe { self.base.add(self.current * self.block_bytes + STATUS).cast().as_ref() }
    }

    /// The current block, if the kernel has handed it over.
    pub(super) fn block(&self) -> Option<&[u8]> {
        // Acquire: pairs with the kernel's write barrier before it sets the status
        // (prb_flush_block, net/packet/af_packet.c): the frames are visible.
        if self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the block lies in the mapping and is ours until `release`, which needs `&mut self`
        // (invariant 2): nobody writes it as long as the slice lives.
        Some(unsafe {
            std::slice::from_raw_parts(self.base.add(self.current * self.block_bytes).as_ptr(), self.block_bytes)
        })
    }

    /// Gives the current block back to the kernel and goes on to the next.
    pub(super) fn release(&mut self) {
        // Release: pairs with the kernel's read of the status before it reuses the block.
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.current = if self.current + 1 == self.blocks { 0 } else { self.current + 1 };
    }
}

impl Drop for BlockRing {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `map` mapped, once; slices of it borrowed this value.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.block_bytes * self.blocks) };
    }
}
