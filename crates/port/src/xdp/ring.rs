//! The rings that an AF_XDP socket shares with the kernel, and the counters that its program writes:
//! the only place of this crate that maps memory for `xdp:` ports.
//!
//! Invariants, on which every `unsafe` here rests:
//! 1. A [`Mapping`] covers exactly `len` bytes from `base`, until it is dropped. Offsets into it come
//!    from the kernel (`XDP_MMAP_OFFSETS`) or are constants, and are checked against `len` once, when
//!    a ring is made.
//! 2. Entries are indexed modulo the ring's size, a power of two, so that no value that the other
//!    side writes can lead outside.
//! 3. The kernel writes these pages meanwhile: indices are read and written as atomics, entries by
//!    raw copies, and no Rust reference to an entry is ever made.
//!
//! ```text
//! fill ring      producer: we        consumer: kernel    entry: address (u64)
//! receive ring   producer: kernel    consumer: we        entry: address u64, length u32, options u32
//! transmit ring  producer: we        consumer: kernel    entry: address u64, length u32, options u32
//! completion ring  producer: kernel  consumer: we        entry: address (u64)
//! counters       a cache line a queue, written by the XDP program: redirected, passed, too long, to the host
//! tally          a cache line a queue, written by us: received, lost, passed, settled
//! ```
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};
use rustix::net::xdp::{
    XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING, XdpRingOffset,
};

/// Memory shared with the kernel, unmapped on drop.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that no thread owns; its users go by invariant 3.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` hands out nothing but checked pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(fd: impl AsFd, offset: u64, len: usize, writable: bool) -> io::Result<Mapping> {
        let prot = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: a fresh mapping at an address of the kernel's choosing aliases nothing here.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, prot, flags, fd, offset) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { base, len })
    }

    /// Pointer to `len` bytes at `offset`, if they lie within, aligned for a `T`.
    fn span<T>(&self, offset: u64, len: usize) -> io::Result<NonNull<u8>> {
        let end = usize::try_from(offset).ok().and_then(|o| o.checked_add(len));
        if end.is_none_or(|end| end > self.len) || !offset.is_multiple_of(align_of::<T>() as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel's ring offsets do not fit its ring"));
        }
        // SAFETY: offset + len ≤ self.len, just checked. (The base is that of a page, so it is aligned as well.)
        Ok(unsafe { self.base.add(offset as usize) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `of` mapped, once; pointers into it die with their ring.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// What fill and receive ring have in common: indices shared with the kernel, and our copies.
#[derive(Debug)]
struct Ring {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<u8>,
    mask: u32,
    /// The index that we write, ahead of what the kernel has been shown.
    ours: u32,
    /// The index that the kernel writes, as last read.
    theirs: u32,
    _map: Mapping,
}

// SAFETY: the pointers lead into `_map`, which moves along; access is as invariant 3 says.
unsafe impl Send for Ring {}

impl Ring {
    fn map<E>(fd: impl AsFd, page: u64, at: &XdpRingOffset, size: u32) -> io::Result<Ring> {
        assert!(size.is_power_of_two(), "checked when the option was read");
        let map = Mapping::of(fd, page, at.desc as usize + size as usize * size_of::<E>(), true)?;
        Ok(Ring {
            producer: map.span::<AtomicU32>(at.producer, 4)?.cast(),
            consumer: map.span::<AtomicU32>(at.consumer, 4)?.cast(),
            flags: at.flags.map(|offset| map.span::<AtomicU32>(offset, 4)).transpose()?.map(NonNull::cast),
            entries: map.span::<E>(at.desc, size as usize * size_of::<E>())?,
            mask: size - 1,
            ours: 0,
            theirs: 0,
            _map: map,
        })
    }

    fn load(&self, index: NonNull<AtomicU32>, order: Ordering) -> u32 {
        // SAFETY: `map` found four aligned bytes there, and `_map` keeps them mapped.
        unsafe { index.as_ref() }.load(order)
    }

    fn store_release(&self, index: NonNull<AtomicU32>, value: u32) {
        // SAFETY: as in `load`.
        unsafe { index.as_ref() }.store(value, Ordering::Release);
    }
}

/// The ring on which the kernel is given empty buffers. One owner: two producers would lose buffers.
#[derive(Debug)]
pub(super) struct FillRing(Ring);

impl FillRing {
    /// Maps the fill ring of `fd`, made before with `size` entries.
    pub(super) fn map(fd: impl AsFd, at: &XdpRingOffset, size: u32) -> io::Result<FillRing> {
        Ring::map::<u64>(fd, XDP_UMEM_PGOFF_FILL_RING, at, size).map(FillRing)
    }

    /// Room for how many buffers, at least `wanted` if there is.
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let ring = &mut self.0;
        let size = ring.mask + 1;
        if size.wrapping_sub(ring.ours.wrapping_sub(ring.theirs)) < wanted {
            // Acquire: pairs with the kernel's release of its consumer index (xskq_cons_release):
            // it has read the entries that we are about to overwrite.
            ring.theirs = ring.load(ring.consumer, Ordering::Acquire);
        }
        size.wrapping_sub(ring.ours.wrapping_sub(ring.theirs)).min(size)
    }

    /// Writes an address into the next entry. The caller has seen with [`FillRing::free`] that
    /// there is room; without, the entry overwrites one that the kernel has not read yet.
    pub(super) fn push(&mut self, address: u64) {
        let ring = &mut self.0;
        let entry = ring.entries.cast::<u64>();
        // SAFETY: the index is masked to the ring's size (invariant 2), 8 bytes an entry, aligned to as many (`map`).
        unsafe { entry.add((ring.ours & ring.mask) as usize).write(address) };
        ring.ours = ring.ours.wrapping_add(1);
    }

    /// Shows the kernel what was pushed.
    pub(super) fn commit(&mut self) {
        // Release: pairs with the kernel's acquire of the producer index (xskq_cons_get_entries).
        self.0.store_release(self.0.producer, self.0.ours);
    }

    /// Whether the kernel has stopped looking at this ring and wants a system call.
    pub(super) fn needs_wakeup(&self) -> bool {
        // Relaxed: a hint, looked at again on each refill; nothing is read because of it.
        self.0.flags.is_some_and(|flags| self.0.load(flags, Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0)
    }
}

/// A packet, or a part of one, as the kernel hands it over (`struct xdp_desc`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Where it starts, in bytes from the start of the buffer area.
    pub address: u64,
    /// Its length in bytes.
    pub len: u32,
    /// `XDP_PKT_CONTD`: the next descriptor continues this packet.
    pub options: u32,
}

impl Descriptor {
    /// Whether the next descriptor continues this packet.
    pub(super) fn continues(&self) -> bool {
        self.options & libc::XDP_PKT_CONTD != 0
    }
}

/// The ring on which packets arrive.
#[derive(Debug)]
pub(super) struct ReceiveRing(Ring);

impl ReceiveRing {
    /// Maps the receive ring of `fd`, made before with `size` entries.
    pub(super) fn map(fd: impl AsFd, at: &XdpRingOffset, size: u32) -> io::Result<ReceiveRing> {
        Ring::map::<Descriptor>(fd, XDP_PGOFF_RX_RING, at, size).map(ReceiveRing)
    }

    /// Entries ready, looking at the kernel's index only if those seen before are used up or
    /// `look` says so.
    pub(super) fn ready(&mut self, look: bool) -> u32 {
        let ring = &mut self.0;
        if look || ring.theirs == ring.ours {
            // Acquire: pairs with the kernel's release of the producer index (xskq_prod_submit):
            // entries and packets are visible.
            ring.theirs = ring.load(ring.producer, Ordering::Acquire);
        }
        ring.theirs.wrapping_sub(ring.ours).min(ring.mask + 1)
    }

    /// Entries of the packet that begins at entry `at`, below `ready`; looks for more than those if need be. `None`
    /// if the rest of it is still on its way: segments are taken together or not yet.
    pub(super) fn whole(&mut self, at: u32, ready: &mut u32) -> Option<u32> {
        let mut end = at + 1;
        while self.peek(end - 1).continues() {
            if end == *ready {
                *ready = self.ready(true);
            }
            if end == *ready {
                return None;
            }
            end += 1;
        }
        Some(end - at)
    }

    /// The entry `ahead` places from the first that was not released.
    pub(super) fn peek(&self, ahead: u32) -> Descriptor {
        let ring = &self.0;
        let entry = ring.entries.cast::<Descriptor>();
        // SAFETY: the index is masked to the ring's size (invariant 2), 16 bytes an entry, aligned (`map`); a
        // Descriptor is valid for any bytes.
        unsafe { entry.add((ring.ours.wrapping_add(ahead) & ring.mask) as usize).read() }
    }

    /// Gives the kernel the first `count` entries to use again.
    pub(super) fn release(&mut self, count: u32) {
        self.0.ours = self.0.ours.wrapping_add(count);
        // Release: pairs with the kernel's acquire of the consumer index (xskq_prod_nb_free).
        self.0.store_release(self.0.consumer, self.0.ours);
    }
}

/// The ring on which the kernel is given packets to send. One owner.
#[derive(Debug)]
pub(super) struct TransmitRing {
    ring: Ring,
    /// By entry: whether it is the last of its packet. Private.
    ends: Vec<bool>,
}

impl TransmitRing {
    /// Maps the transmit ring of `fd`, made before with `size` entries.
    pub(super) fn map(fd: impl AsFd, at: &XdpRingOffset, size: u32) -> io::Result<TransmitRing> {
        let ring = Ring::map::<Descriptor>(fd, XDP_PGOFF_TX_RING, at, size)?;
        Ok(TransmitRing { ring, ends: vec![false; size as usize] })
    }

    /// Room for how many entries, at least `wanted` if there is.
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let size = self.ring.mask + 1;
        if size.wrapping_sub(self.ring.ours.wrapping_sub(self.ring.theirs)) < wanted {
            self.look();
        }
        size.wrapping_sub(self.ring.ours.wrapping_sub(self.ring.theirs)).min(size)
    }

    /// Reads how far the kernel is.
    fn look(&mut self) {
        // Acquire: pairs with the kernel's release of its consumer index (__xskq_cons_release): it has read the
        // entries that we are about to overwrite.
        self.ring.theirs = self.ring.load(self.ring.consumer, Ordering::Acquire);
    }

    /// Writes the next entry. The caller has seen with [`TransmitRing::free`] that there is room; without, the entry
    /// overwrites one that the kernel has not read yet.
    pub(super) fn push(&mut self, packet: Descriptor, ends: bool) {
        let at = (self.ring.ours & self.ring.mask) as usize;
        let entry = self.ring.entries.cast::<Descriptor>();
        // SAFETY: the index is masked to the ring's size (invariant 2), 16 bytes an entry, aligned (`map`).
        unsafe { entry.add(at).write(packet) };
        self.ends[at] = ends;
        self.ring.ours = self.ring.ours.wrapping_add(1);
    }

    /// Shows the kernel what was pushed.
    pub(super) fn commit(&mut self) {
        // Release: pairs with the kernel's acquire of the producer index (xskq_cons_get_entries).
        self.ring.store_release(self.ring.producer, self.ring.ours);
    }

    /// Entries that the kernel has not read yet.
    pub(super) fn unread(&mut self) -> u32 {
        self.look();
        self.ring.ours.wrapping_sub(self.ring.theirs).min(self.ring.mask + 1)
    }

    /// Packets of which the kernel has not read the last entry yet.
    pub(super) fn unread_packets(&mut self) -> u64 {
        let unread = self.unread();
        let at = |n: u32| (self.ring.ours.wrapping_sub(1 + n) & self.ring.mask) as usize;
        (0..unread).filter(|n| self.ends[at(*n)]).count() as u64
    }

    /// Whether the entry that the kernel has read last was the last of its packet.
    pub(super) fn read_an_end(&self) -> bool {
        self.ends[(self.ring.theirs.wrapping_sub(1) & self.ring.mask) as usize]
    }

    /// Whether the kernel wants a system call to look at this ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        // Relaxed: a hint, looked at again on each flush; nothing is read because of it.
        self.ring.flags.is_some_and(|flags| self.ring.load(flags, Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0)
    }
}

/// The ring on which the kernel gives buffers back that it has sent. One owner.
#[derive(Debug)]
pub(super) struct CompletionRing(Ring);

impl CompletionRing {
    /// Maps the completion ring of `fd`, made before with `size` entries.
    pub(super) fn map(fd: impl AsFd, at: &XdpRingOffset, size: u32) -> io::Result<CompletionRing> {
        Ring::map::<u64>(fd, XDP_UMEM_PGOFF_COMPLETION_RING, at, size).map(CompletionRing)
    }

    /// Entries ready.
    pub(super) fn ready(&mut self) -> u32 {
        let ring = &mut self.0;
        // Acquire: pairs with the kernel's release of the producer index (xskq_prod_submit_n): entries are visible.
        ring.theirs = ring.load(ring.producer, Ordering::Acquire);
        ring.theirs.wrapping_sub(ring.ours).min(ring.mask + 1)
    }

    /// The address `ahead` places from the first that was not released.
    pub(super) fn peek(&self, ahead: u32) -> u64 {
        let entry = self.0.entries.cast::<u64>();
        // SAFETY: the index is masked to the ring's size (invariant 2), 8 bytes an entry, aligned (`map`); a number is
        // valid for any bytes.
        unsafe { entry.add((self.0.ours.wrapping_add(ahead) & self.0.mask) as usize).read() }
    }

    /// Gives the kernel the first `count` entries to use again.
    pub(super) fn release(&mut self, count: u32) {
        self.0.ours = self.0.ours.wrapping_add(count);
        // Release: pairs with the kernel's acquire of the consumer index (xskq_prod_nb_free).
        self.0.store_release(self.0.consumer, self.0.ours);
    }
}

/// What the XDP program has counted on one queue (`struct counter` in bpf/redirect.bpf.c).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ProgramCounts {
    /// Handed to the queue's socket.
    pub redirected: u64,
    /// No socket, or another reason for the fallback: to the host's stack, or wherever that sends it.
    pub passed: u64,
    /// Longer than a socket takes: dropped.
    pub too_long: u64,
    /// Picked out for the host's stack.
    pub to_host: u64,
    /// Of `passed`: the driver had no room for what the card knows.
    pub no_room: u64,
}

/// The program's counters, mapped read-only: reading them takes no system call.
#[derive(Debug)]
pub(super) struct Counters {
    map: Mapping,
    queues: u32,
}

const COUNTER_BYTES: usize = 64;

impl Counters {
    /// Maps the counters map of `queues` entries.
    pub(super) fn map(fd: impl AsFd, queues: u32) -> io::Result<Counters> {
        let len = (queues as usize * COUNTER_BYTES).next_multiple_of(rustix::param::page_size());
        Ok(Counters { map: Mapping::of(fd, 0, len, false)?, queues })
    }

    /// Counts of `queue`; zero where the interface has no such queue.
    pub(super) fn of(&self, queue: u32) -> ProgramCounts {
        if queue >= self.queues {
            return ProgramCounts::default();
        }
        let line = self.map.base.cast::<AtomicU64>();
        let word = |n: usize| {
            // SAFETY: queue < queues, so the 64-byte line lies within the mapping; maps are page-aligned.
            let counter = unsafe { line.add(queue as usize * (COUNTER_BYTES / 8) + n).as_ref() };
            counter.load(Ordering::Relaxed) // Relaxed: a figure, read for itself alone.
        };
        ProgramCounts { redirected: word(0), passed: word(1), too_long: word(2), to_host: word(3), no_room: word(4) }
    }
}

/// What a port has done with the packets of each queue, in a map of the kernel's, where it outlives the process.
#[derive(Debug)]
pub(super) struct Tally {
    map: Mapping,
    queues: u32,
}

/// Words of a queue's line of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Packets taken out of receive rings.
    Received = 0,
    /// Packets that sockets counted as lost, at the last look.
    Lost = 1,
    /// Packets that the program had passed on for want of a socket, at the last look.
    Passed = 2,
    /// Not zero: all is accounted for, the port was closed.
    Settled = 3,
}

impl Tally {
    /// Words of a queue's line.
    pub(super) const WORDS: usize = COUNTER_BYTES / 8;

    /// Maps an array of `queues` lines.
    pub(super) fn map(fd: impl AsFd, queues: u32) -> io::Result<Tally> {
        let len = (queues as usize * COUNTER_BYTES).next_multiple_of(rustix::param::page_size());
        Ok(Tally { map: Mapping::of(fd, 0, len, true)?, queues })
    }

    /// Adds to a figure of `queue`; does nothing where the interface has no such queue.
    pub(super) fn add(&self, queue: u32, what: Told, packets: u64) {
        // Relaxed: a figure, read for itself alone; several readers may add to it.
        self.with(queue, what, |word| _ = word.fetch_add(packets, Ordering::Relaxed));
    }

    /// Sets a figure of `queue`.
    pub(super) fn set(&self, queue: u32, what: Told, packets: u64) {
        self.with(queue, what, |word| word.store(packets, Ordering::Relaxed)); // as above
    }

    fn with(&self, queue: u32, what: Told, work: impl FnOnce(&AtomicU64)) {
        if queue < self.queues {
            let line = self.map.base.cast::<AtomicU64>();
            // SAFETY: queue < queues and `what` < WORDS, so the word lies within the mapping; maps are page-aligned.
            work(unsafe { line.add(queue as usize * Tally::WORDS + what as usize).as_ref() });
        }
    }
}
