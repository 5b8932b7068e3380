//! A pipe: a ring out, a ring back and a wakeup between the yard and one consumer.
//!
//! The yard makes it, in a memfd of its own that nobody else sees, and hands one end away. Slots go
//! out; the same buffers come home as returned slots. Layout and who writes what: [`crate::abi`].
//! The ring back has twice the places of the ring out, and the yard never lets more buffers be out
//! than it has places, so an honest consumer always finds room to return.
//!
//! # Trust
//! The header is written before the file is handed on and never read again by the yard. Everything a
//! consumer can write (its index, its returns, its sleeping flag, its wakeup bytes) is checked where
//! it is read: [`crate::ring`], the ledger.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::IntoBytes;

use crate::abi::{CACHE_STRIDE, HEADER_BYTES, Header, Kind};
use crate::ledger::Account;
use crate::map::{self, Mapping};
use crate::region::read_header;
use crate::ring::{self, Entry, Place};
use crate::slot::{RETURN_WORDS, SLOT_WORDS, Slot, slot_flags};
use crate::wakeup::Wakeup;
use crate::{Buffer, Ledger, MemError, Region, Returned, Shared, Stock, Verdict};

/// Smallest and largest ring out, in slots.
pub const RING_SLOTS: std::ops::RangeInclusive<u32> = 2..=1 << 20;

/// Offsets in the control page, each on cache lines of its own; see [`crate::abi`].
const OUT_TAIL: usize = HEADER_BYTES;
const OUT_HEAD: usize = HEADER_BYTES + CACHE_STRIDE;
const BACK_TAIL: usize = HEADER_BYTES + 2 * CACHE_STRIDE;
const BACK_HEAD: usize = HEADER_BYTES + 3 * CACHE_STRIDE;
/// Within a reader's line, behind its head.
const SLEEPING: usize = 8;
/// Within the yard's own line, behind the tail: 1 once no more will come.
const ENDED: usize = 8;

/// Within the consumer's own line, behind the tail of the ring back: 1 once it has left, but a later
/// consumer still holds what it passed on.
const LEAVING: usize = 8;
const SLOTS: usize = 2 * HEADER_BYTES;

/// Places in the ring back for each in the ring out.
const BACK_FACTOR: u32 = 2;

/// Where the second word of a slot has its verdict, and what that is for a buffer that is to be freed.
const VERDICT: u64 = 0xff << 48;
const FREE: u64 = (Verdict::Free as u64) << 48;

// A slot's first field is the low half of its first word.
const _: () = assert!(cfg!(target_endian = "little"), "slots are of machines that store the lowest byte first");

fn file_bytes(slots: u32) -> usize {
    SLOTS + slots as usize * (SLOT_WORDS + BACK_FACTOR as usize * RETURN_WORDS) * 8
}

/// One of the two rings of a mapped pipe.
///
/// Invariant: made only by `Rings::of`, which checked that the mapping holds `file_bytes(slots)` (and
/// by `alone`, which checks its own need); so every pointer below is in the mapping, 8-byte aligned
/// (page-aligned base, offsets multiples of 8), and only ever accessed as the atomic it is typed as.
#[derive(Debug)]
pub(crate) struct SharedRing<const W: usize> {
    tail: NonNull<AtomicU32>,
    head: NonNull<AtomicU32>,
    sleeping: NonNull<AtomicU32>,
    entries: NonNull<Entry<W>>,
    capacity: u32,
    _map: Arc<Mapping>,
}

// SAFETY: all access is through atomics; the Arc keeps the mapping.
unsafe impl<const W: usize> Send for SharedRing<W> {}

impl<const W: usize> Place<W> for SharedRing<W> {
    #[inline]
    fn tail(&self) -> &AtomicU32 {
        // SAFETY: invariant of SharedRing.
        unsafe { self.tail.as_ref() }
    }
    #[inline]
    fn head(&self) -> &AtomicU32 {
        // SAFETY: invariant of SharedRing.
        unsafe { self.head.as_ref() }
    }
    #[inline]
    fn sleeping(&self) -> &AtomicU32 {
        // SAFETY: invariant of SharedRing.
        unsafe { self.sleeping.as_ref() }
    }
    #[inline]
    fn entry(&self, count: u32) -> &Entry<W> {
        let at = count & (self.capacity - 1);
        // SAFETY: at < capacity entries, which `file_bytes` counts (invariant of SharedRing).
        unsafe { self.entries.add(at as usize).as_ref() }
    }
    #[inline]
    fn run(&self, from: u32, most: u32) -> &[Entry<W>] {
        let at = from & (self.capacity - 1);
        let count = most.min(self.capacity - at);
        // SAFETY: at + count ≤ capacity entries, which `file_bytes` counts (invariant of SharedRing); all of them atomics.
        unsafe { std::slice::from_raw_parts(self.entries.add(at as usize).as_ptr(), count as usize) }
    }
    #[inline]
    fn capacity(&self) -> u32 {
        self.capacity
    }
}

#[cfg(feature = "bench")]
impl<const W: usize> SharedRing<W> {
    /// Bytes of a file that holds one ring and nothing else.
    pub(crate) fn bytes_alone(slots: u32) -> usize {
        SLOTS + slots as usize * W * 8
    }

    /// The only ring of a mapping, laid out as the ring out of a pipe.
    pub(crate) fn alone(map: &Arc<Mapping>, slots: u32) -> SharedRing<W> {
        assert!(map.len() >= Self::bytes_alone(slots) && slots.is_power_of_two() && map.writable());
        // SAFETY: all three offsets are below SLOTS, at most the mapping's length (asserted above).
        let u32_at = |offset: usize| unsafe { map.base().add(offset).cast::<AtomicU32>() };
        // SAFETY: as above; `slots` entries of W words follow.
        let entries = unsafe { map.base().add(SLOTS).cast::<Entry<W>>() };
        let (tail, head, sleeping) = (u32_at(OUT_TAIL), u32_at(OUT_HEAD), u32_at(OUT_HEAD + SLEEPING));
        SharedRing { tail, head, sleeping, entries, capacity: slots, _map: map.clone() }
    }
}

/// Both rings of a mapped pipe.
struct Rings {
    out: SharedRing<SLOT_WORDS>,
    back: SharedRing<RETURN_WORDS>,
    ended: NonNull<AtomicU32>,
    leaving: NonNull<AtomicU32>,
}

impl Rings {
    fn of(map: &Arc<Mapping>, slots: u32) -> Rings {
        assert!(map.len() >= file_bytes(slots) && slots.is_power_of_two() && map.writable());
        let u32_at = |offset: usize| {
            // SAFETY: the control offsets are below SLOTS ≤ file_bytes ≤ map.len() (asserted above).
            unsafe { map.base().add(offset).cast::<AtomicU32>() }
        };
        let entries_at = |offset: usize| {
            // SAFETY: both offsets used are at most file_bytes - one ring (asserted above).
            unsafe { map.base().add(offset) }
        };
        let back_slots = SLOTS + slots as usize * SLOT_WORDS * 8;
        Rings {
            out: SharedRing {
                tail: u32_at(OUT_TAIL),
                head: u32_at(OUT_HEAD),
                sleeping: u32_at(OUT_HEAD + SLEEPING),
                entries: entries_at(SLOTS).cast(),
                capacity: slots,
                _map: map.clone(),
            },
            back: SharedRing {
                tail: u32_at(BACK_TAIL),
                head: u32_at(BACK_HEAD),
                sleeping: u32_at(BACK_HEAD + SLEEPING),
                entries: entries_at(back_slots).cast(),
                capacity: slots * BACK_FACTOR,
                _map: map.clone(),
            },
            ended: u32_at(OUT_TAIL + ENDED),
            leaving: u32_at(BACK_TAIL + LEAVING),
        }
    }
}

/// A flag that one end sets, once, in its own line: the yard that no more will come, the consumer that
/// it has left.
#[derive(Debug)]
pub(crate) struct Flag {
    flag: NonNull<AtomicU32>,
    _map: Arc<Mapping>,
}

// SAFETY: an atomic in a mapping that the Arc keeps.
unsafe impl Send for Flag {}

impl Flag {
    fn flag(&self) -> &AtomicU32 {
        // SAFETY: made by Rings::of, within the mapping, aligned.
        unsafe { self.flag.as_ref() }
    }

    /// Whether it is set. What was committed before is there to be taken.
    pub(crate) fn is_set(&self) -> bool {
        self.flag().load(Ordering::Acquire) != 0 // pairs with the Release in `set`
    }

    /// Sets it.
    pub(crate) fn set(&self) {
        self.flag().store(1, Ordering::Release); // pairs with the Acquire in `is_set`
    }
}

/// What a consumer's process needs: a region, and descriptors of one pipe for each dispatcher, to be attached
/// once.
///
/// Not `Clone`, and closed: two consumers on one pipe would be given the same buffers.
#[derive(Debug)]
pub struct Handover {
    pub(crate) region: OwnedFd,
    /// Pipe and wakeup.
    pub(crate) pipes: Vec<(OwnedFd, OwnedFd)>,
    /// Of consumers that may pass packets on: see [`Handover::with_lifeline`].
    pub(crate) lifeline: Option<OwnedFd>,
}

impl Handover {
    /// Of these ends, which must be of `region`.
    ///
    /// # Errors
    /// A descriptor that cannot be duplicated, or a grant that the region refuses.
    pub fn new(region: &Region, ends: Vec<PipeEnd>, grant: crate::Grant) -> Result<Handover, MemError> {
        let pipes = ends.into_iter().map(|end| (end.pipe, end.wakeup.into_fd())).collect();
        Ok(Handover { region: region.grant(grant)?, pipes, lifeline: None })
    }

    /// With a descriptor that consumers keep open as long as they may look at packets, and pass on with them: when all
    /// copies are closed, nobody looks any more.
    pub fn with_lifeline(self, lifeline: Option<OwnedFd>) -> Handover {
        Handover { lifeline, ..self }
    }

    /// From descriptors that came some other way: of the region, and pipe and wakeup of each dispatcher.
    ///
    /// # Safety
    /// They are of one handover, and no other consumer in this process is or will be attached to the same pipes.
    pub unsafe fn from_descriptors(region: OwnedFd, pipes: Vec<(OwnedFd, OwnedFd)>) -> Handover {
        Handover { region, pipes, lifeline: None }
    }

    /// The descriptors: region, then pipe and wakeup of each dispatcher, then the lifeline if there is one.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let pipes = self.pipes.iter().flat_map(|(pipe, wakeup)| [pipe.as_fd(), wakeup.as_fd()]);
        let lifeline = self.lifeline.iter().map(AsFd::as_fd);
        std::iter::once(self.region.as_fd()).chain(pipes).chain(lifeline).collect()
    }

    /// From descriptors in the order of [`Handover::descriptors`], if there are any.
    pub(crate) fn of(fds: Vec<OwnedFd>) -> Option<Handover> {
        let mut fds = fds.into_iter();
        let region = fds.next()?;
        let (mut pipes, mut lifeline) = (Vec::new(), None);
        while let Some(pipe) = fds.next() {
            match fds.next() {
                Some(wakeup) => pipes.push((pipe, wakeup)),
                None => lifeline = Some(pipe), // one is left over
            }
        }
        Some(Handover { region, pipes, lifeline })
    }
}

/// The yard's end of a pipe.
#[derive(Debug)]
pub struct PipeProducer {
    out: ring::Producer<SharedRing<SLOT_WORDS>, SLOT_WORDS>,
    back: ring::Consumer<SharedRing<RETURN_WORDS>, RETURN_WORDS>,
    wakeup: Wakeup,
    ended: Flag,
    leaving: Flag,
    /// Up to which count of slots sent there is room, as far as known; so that room is a comparison for most. Never ahead
    /// of what the ring out and `most_out` leave.
    limit: u32,
    /// Slots genuinely returned, counted as slots sent are: what is between the two is out.
    returned: u32,
    /// Most buffers that may be out: at most the places of the ring back.
    most_out: u32,
    /// Whose buffers it carries; [`Account::NONE`] for a pipe between two consumers.
    account: Account,
}

/// The consumer's end before it is attached: in this process by
/// [`Consumer::attach_local`](crate::Consumer::attach_local), elsewhere through [`PipeEnd::handover`].
#[derive(Debug)]
pub struct PipeEnd {
    pub(crate) region: Region,
    pub(crate) pipe: OwnedFd,
    /// The yard's own mapping of the pipe, and its slots: for a consumer of this process. Mapped a second time, what one
    /// side has just written would lie at another address for the other, and cost a core that runs both a miss a line.
    map: Arc<Mapping>,
    slots: u32,
    pub(crate) wakeup: Wakeup,
}

impl PipeEnd {
    /// The descriptors for another process, of this pipe alone.
    ///
    /// # Errors
    /// As [`Handover::new`].
    pub fn handover(self, grant: crate::Grant) -> Result<Handover, MemError> {
        let region = self.region.clone();
        Handover::new(&region, vec![self], grant)
    }
}

/// Makes a pipe by which one consumer passes slots of `region` on to a later one: see
/// [`PipeProducer::forward`]. The yard's own pipes are made by [`Ledger::open_pipe`].
///
/// `slots` is the capacity of the ring out: a power of two of [`RING_SLOTS`].
///
/// # Errors
/// The capacity, or the system call that failed.
pub fn pipe(region: &Region, slots: u32) -> Result<(PipeProducer, PipeEnd), MemError> {
    create(region, slots, Account::NONE)
}

/// Makes a pipe for a ledger.
pub(crate) fn accounted(region: &Region, slots: u32, account: Account) -> Result<(PipeProducer, PipeEnd), MemError> {
    create(region, slots, account)
}

fn create(region: &Region, slots: u32, account: Account) -> Result<(PipeProducer, PipeEnd), MemError> {
    if !slots.is_power_of_two() || !RING_SLOTS.contains(&slots) {
        return Err(MemError::Geometry {
            object: "ring",
            what: "number of slots",
            value: slots.into(),
            allowed: "a power of two from 2 to 1048576",
        });
    }
    let len = file_bytes(slots);
    let fd = map::memfd("flowyard-pipe", len, false)?;
    map::forbid_new_seals(&fd)?;
    let map = Arc::new(Mapping::of(&fd, "pipe", true)?);
    let header =
        Header::new(Kind::Pipe, (SLOT_WORDS * 8) as u32, slots, (RETURN_WORDS * 8) as u32, region.name(), len as u64);
    // SAFETY: the mapping is longer than a header, writable, and nobody else has the file yet.
    unsafe { std::ptr::copy_nonoverlapping(header.as_bytes().as_ptr(), map.base().as_ptr(), size_of::<Header>()) };
    let rings = Rings::of(&map, slots);
    let (ours, theirs) = Wakeup::pair()?;
    let producer = PipeProducer {
        most_out: rings.back.capacity,
        out: ring::Producer::new(rings.out),
        back: ring::Consumer::new(rings.back),
        wakeup: ours,
        ended: Flag { flag: rings.ended, _map: map.clone() },
        leaving: Flag { flag: rings.leaving, _map: map.clone() },
        limit: 0,
        returned: 0,
        account,
    };
    Ok((producer, PipeEnd { region: region.clone(), pipe: fd, map, slots, wakeup: theirs }))
}

/// The rings of a pipe as its consumer sees them.
pub(crate) struct ConsumerRings {
    pub(crate) out: ring::Consumer<SharedRing<SLOT_WORDS>, SLOT_WORDS>,
    pub(crate) back: ring::Producer<SharedRing<RETURN_WORDS>, RETURN_WORDS>,
    pub(crate) ended: Flag,
    pub(crate) leaving: Flag,
}

impl ConsumerRings {
    fn of(map: &Arc<Mapping>, slots: u32) -> ConsumerRings {
        let rings = Rings::of(map, slots);
        ConsumerRings {
            out: ring::Consumer::new(rings.out),
            back: ring::Producer::new(rings.back),
            ended: Flag { flag: rings.ended, _map: map.clone() },
            leaving: Flag { flag: rings.leaving, _map: map.clone() },
        }
    }
}

impl PipeEnd {
    /// The rings for a consumer of this process, by the yard's own mapping.
    pub(crate) fn into_local(self) -> (Region, ConsumerRings, Wakeup) {
        (self.region, ConsumerRings::of(&self.map, self.slots), self.wakeup)
    }
}

/// Maps a pipe's memory on the consumer's side, and checks that it belongs to `region`.
pub(crate) fn attach(region: &Region, fd: &OwnedFd) -> Result<ConsumerRings, MemError> {
    let map = Arc::new(Mapping::of(fd, "pipe", true)?);
    let header = read_header(&map, "pipe")?;
    header.check("pipe", Kind::Pipe, map.len())?;
    let wrong = |what, found: u64, expected: u64, remedy| {
        Err(MemError::Header { object: "pipe", what, found, expected, remedy })
    };
    if header.region != region.name() {
        return wrong("region", header.region, region.name(), "take region and pipe from the same handover");
    }
    if header.stride as usize != SLOT_WORDS * 8 || header.second as usize != RETURN_WORDS * 8 {
        return wrong(
            "slot size",
            header.stride.into(),
            (SLOT_WORDS * 8) as u64,
            "use the same Flowyard version on both sides",
        );
    }
    if !header.count.is_power_of_two() || !RING_SLOTS.contains(&header.count) || map.len() < file_bytes(header.count) {
        return wrong(
            "number of slots",
            header.count.into(),
            map.len() as u64,
            "the header contradicts the file's size",
        );
    }
    Ok(ConsumerRings::of(&map, header.count))
}

impl PipeProducer {
    /// Room for `want` slots or what there is, counting places in the ring out and the buffers that
    /// may still be out before the ring back could overflow.
    #[inline]
    pub fn reserve(&mut self, want: u32) -> u32 {
        let budget = self.most_out.saturating_sub(self.outstanding());
        let room = self.out.reserve(want).min(budget);
        self.limit = self.out.filled().wrapping_add(room);
        room
    }

    /// Whether there is room for a slot.
    #[inline(always)]
    fn has_room(&mut self) -> bool {
        self.out.filled() != self.limit || self.look_for_room()
    }

    #[cold]
    #[inline(never)]
    fn look_for_room(&mut self) -> bool {
        self.reserve(1) > 0
    }

    /// Sends `buffer`: notes in `ledger` that this pipe holds it, and fills `slot` with its index. Not
    /// seen by the consumer before [`PipeProducer::commit`].
    ///
    /// # Errors
    /// The ring is full, or the consumer already has as many buffers as it may: the buffer is given
    /// back.
    ///
    /// # Panics
    /// If buffer and ledger are not those of this pipe's region: our own mistake.
    #[inline]
    pub fn send(&mut self, ledger: &mut Ledger, buffer: Buffer, slot: Slot) -> Result<(), Buffer> {
        self.send_words(ledger, buffer, slot.to_words())
    }

    /// As [`PipeProducer::send`], with a slot as the words that the ring carries; the buffer's index is put into the first,
    /// whatever it has there. Put together in registers, a slot need not be written to memory before it is written to the
    /// ring.
    ///
    /// # Errors
    /// As those of `send`.
    ///
    /// # Panics
    /// As `send`.
    #[inline(always)]
    pub fn send_words(&mut self, ledger: &mut Ledger, buffer: Buffer, slot: [u64; SLOT_WORDS]) -> Result<(), Buffer> {
        if !self.has_room() {
            return Err(buffer);
        }
        let index = ledger.send(self.account, buffer);
        let [first, rest @ ..] = slot;
        self.out.fill_reserved([first >> 32 << 32 | u64::from(index), rest[0], rest[1], rest[2]]);
        Ok(())
    }

    /// Sends a buffer that other pipes may hold as well: as [`PipeProducer::send`], with
    /// [`slot_flags::SHARED`](crate::slot_flags::SHARED) set, by which the consumer knows that it may not
    /// write. Answers false, and nothing happens, if the ring is full or this pipe holds the buffer already.
    ///
    /// # Panics
    /// If claim and ledger are not those of this pipe's region: our own mistake.
    #[inline]
    pub fn send_shared(&mut self, ledger: &mut Ledger, shared: &Shared, slot: Slot) -> bool {
        if !self.has_room() || !ledger.send_shared(self.account, shared) {
            return false;
        }
        let flags = slot.flags | slot_flags::SHARED;
        self.out.fill_reserved(Slot { buffer: shared.index(), flags, ..slot }.to_words());
        true
    }

    /// Passes on a slot of another pipe as it is. Answers false if the ring is full.
    ///
    /// # Safety
    /// The caller is the consumer of the buffer (it [kept](crate::Consumer::keep) the slot) and does not
    /// release it, touch it, or pass it on elsewhere before it has been returned here or this pipe's
    /// consumer is gone.
    #[inline]
    pub unsafe fn forward(&mut self, slot: Slot) -> bool {
        let fits = self.has_room();
        if fits {
            self.out.fill_reserved(slot.to_words());
        }
        fits
    }

    /// Shows the slots filled so far to the consumer. Answers whether there were any that it had not been shown.
    #[inline]
    pub fn commit(&mut self) -> bool {
        self.out.commit()
    }

    /// Next returned slot, held against `ledger`, and as the consumer wrote it: anything at all, but for
    /// what the ledger vouches for.
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake.
    #[inline]
    pub fn take_returned(&mut self, ledger: &mut Ledger) -> Option<(Returned, Slot)> {
        if self.back.reserve() == 0 {
            return None;
        }
        self.back.take().map(|words| self.take_other(ledger, words))
    }

    /// Takes up to `most` returned slots, and hands each to `each` as [`PipeProducer::take_returned`] would answer it. Answers
    /// how many: no more than the ring back has places, since none is given back meanwhile. Costs less a slot than one at a
    /// time.
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake. If `each` panics, what was taken with its slot and not yet handed
    /// out stays with the pipe until that is reclaimed.
    #[inline]
    pub fn take_all_returned(&mut self, ledger: &mut Ledger, most: u32, mut each: impl FnMut(Returned, Slot)) -> u32 {
        let (account, mut taken, mut genuine) = (self.account, 0, 0);
        while taken < most && self.back.reserve() > 0 {
            taken += self.back.take_batch(most - taken, |words| {
                let slot = Slot::from_return(words);
                let returned = ledger.returned(account, slot.buffer);
                genuine += u32::from(returned != Returned::Violation);
                each(returned, slot);
            });
        }
        self.settle_all(genuine);
        taken
    }

    /// Slots that the consumer has returned and that are not yet taken, by its index as it is now.
    #[inline(always)]
    pub fn look_for_returned(&mut self) -> u32 {
        self.back.poll()
    }

    /// Takes home some of the `left` returned slots that were [found](PipeProducer::look_for_returned), and notes how many are
    /// left then. Buffers that the consumer had alone, and that are to be freed, go to `stock`; the first slot that is anything
    /// else, genuine or not, is answered as [`PipeProducer::take_returned`] would. Costs least a slot.
    ///
    /// # Panics
    /// If ledger or stock are not this pipe's: our own mistake.
    #[inline(always)]
    pub fn take_home(&mut self, ledger: &mut Ledger, stock: &mut Stock, left: &mut u32) -> Option<(Returned, Slot)> {
        let pipe = ledger.own(self.account);
        assert!(stock.region() == ledger.region(), "a buffer goes back to its own region's stock");
        let (home, other) = self.back.take_while(*left, |words| {
            let freed = words[1] & VERDICT == FREE && ledger.returned_alone(pipe, words[0] as u32);
            if freed {
                stock.put_index(words[0] as u32);
            }
            freed
        });
        debug_assert!(home <= self.outstanding(), "the ledger vouches for them");
        self.returned = self.returned.wrapping_add(home);
        *left -= home;
        other.map(|words| {
            *left -= 1;
            self.take_other(ledger, words)
        })
    }

    #[cold]
    #[inline(never)]
    fn take_other(&mut self, ledger: &mut Ledger, words: [u64; RETURN_WORDS]) -> (Returned, Slot) {
        let slot = Slot::from_return(words);
        let returned = ledger.returned(self.account, slot.buffer);
        if returned != Returned::Violation {
            self.settle();
        }
        (returned, slot)
    }

    /// Next returned slot of a pipe between consumers, as the next one wrote it: anything at all. The
    /// caller knows what it passed on, and calls [`PipeProducer::settle`] for what is genuine.
    #[inline]
    pub fn take_forwarded(&mut self) -> Option<Slot> {
        if self.back.reserve() == 0 {
            return None;
        }
        self.back.take().map(Slot::from_return)
    }

    /// Gives the places of the returned slots taken so far back to the consumer.
    #[inline]
    pub fn release_returned(&mut self) {
        self.back.release();
    }

    /// Notes that a forwarded slot was genuinely returned: one buffer fewer is out.
    #[inline]
    pub fn settle(&mut self) {
        self.settle_all(1);
    }

    #[inline(always)]
    fn settle_all(&mut self, genuine: u32) {
        self.returned = self.returned.wrapping_add(genuine.min(self.outstanding()));
    }

    /// Notes that the consumer holds nothing any more.
    fn clear(&mut self) {
        self.returned = self.out.filled();
    }

    /// If the consumer is gone, takes back all that it held: `free` gets the buffers that nobody else
    /// holds. Answers whether it is gone; if not, nothing happens. What a stage left behind that a later
    /// consumer still holds stays out of use. A system call; looks at every buffer.
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake.
    pub fn reclaim(&mut self, ledger: &mut Ledger, free: impl FnMut(Buffer)) -> bool {
        let gone = self.consumer_gone();
        if gone && !self.leaving.is_set() {
            ledger.reclaim(self.account, free);
            self.clear();
        }
        gone
    }

    /// Takes back all that the consumer holds, whether it is gone or not, and whatever it says of later consumers: for
    /// one whose process is known to have ended, or is not to be believed. `free` gets the buffers that nobody else
    /// holds. Looks at every buffer.
    ///
    /// The pipe is not to be used any more, but to be [succeeded](PipeProducer::succeed) by another.
    ///
    /// # Safety
    /// No consumer of this process is attached to the pipe: it would still see the buffers whose tokens `free` gets. (One
    /// of another process may be: it sees what it sees.)
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake.
    pub unsafe fn take_back(&mut self, ledger: &mut Ledger, free: impl FnMut(Buffer)) {
        ledger.reclaim(self.account, free);
        self.clear();
    }

    /// Whether the consumer says that it has left, and that a later one still reads what it passed on.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_set()
    }

    /// Puts `new`, a pipe of [`pipe`] to a consumer of another process, in this one's place, and closes this one. The new
    /// one has the same account in the ledger, if this one holds nothing any more; else one of its own, and this one is
    /// answered. It lets no more
    /// buffers be out than its ring out has places: what such a consumer keeps is the ring's, and no other's.
    ///
    /// # Panics
    /// If the ledger is not this pipe's, or `new` has one already: our own mistake.
    pub fn succeed(&mut self, ledger: &mut Ledger, mut new: PipeProducer) -> Option<PipeProducer> {
        assert!(new.account == Account::NONE, "a pipe is adopted once");
        new.account = if self.held(ledger) == 0 { self.account } else { ledger.succeed(self.account) };
        new.most_out = new.capacity();
        let old = std::mem::replace(self, new);
        (old.account != self.account).then_some(old)
    }

    /// Takes back all that the consumer held, as [`PipeProducer::take_back`], and closes the pipe; its account is free for
    /// another.
    ///
    /// # Safety
    /// As [`PipeProducer::take_back`].
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake.
    pub unsafe fn dismiss(mut self, ledger: &mut Ledger, free: impl FnMut(Buffer)) {
        // SAFETY: the caller's word.
        unsafe { self.take_back(ledger, free) };
        ledger.retire(self.account);
    }

    /// Buffers of `ledger` that the consumer holds.
    ///
    /// # Panics
    /// If the ledger is not this pipe's: our own mistake.
    pub fn held(&self, ledger: &Ledger) -> u32 {
        ledger.own(self.account);
        self.outstanding()
    }

    /// Says that no more will come, and wakes the consumer. What was committed can still be taken.
    pub fn end(&mut self) {
        self.commit();
        self.ended.set();
        self.wakeup.ring();
    }

    /// Whether the consumer is gone: its process ended, it dropped its end, or it left. A system call.
    pub fn consumer_gone(&self) -> bool {
        self.wakeup.drain();
        self.leaving.is_set() || self.wakeup.peer_gone()
    }

    /// Readable when the consumer wants attention or is gone.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    /// Announces that the yard sleeps and wants to be woken by returned slots. Answers false if there
    /// are some already.
    pub fn sleep(&mut self) -> bool {
        self.back.sleep()
    }

    /// Takes the announcement back.
    pub fn wake(&mut self) {
        self.back.wake();
    }

    /// Impossible indices that the consumer showed.
    pub fn violations(&self) -> u64 {
        self.out.violations() + self.back.violations()
    }

    /// Slots that the consumer has not yet released from the ring out, as far as known.
    pub fn queued(&self) -> u32 {
        self.out.outstanding()
    }

    /// Buffers that are out: sent and not yet returned.
    #[inline]
    pub fn outstanding(&self) -> u32 {
        self.out.filled().wrapping_sub(self.returned)
    }

    /// Slots of the ring out.
    pub fn capacity(&self) -> u32 {
        self.out.place().capacity()
    }

    fn wake_if_asleep(&mut self, unread: u32) {
        if self.out.wants_waking_for(unread) {
            self.wakeup.ring();
        }
    }
}

/// Wakes those consumers that sleep, after slots were committed to their pipes: one fence for all,
/// and a system call for each that sleeps.
pub fn notify<'p>(pipes: impl IntoIterator<Item = &'p mut PipeProducer>) {
    notify_when(0, pipes);
}

/// As [`notify`], but lets those sleep on that have fewer than `unread` slots to take: a busy producer
/// wakes its consumers for many slots at a time, and calls [`notify`] when it pauses.
pub fn notify_when<'p>(unread: u32, pipes: impl IntoIterator<Item = &'p mut PipeProducer>) {
    ring::full_fence(); // S1 of crate::ring
    for pipe in pipes {
        pipe.wake_if_asleep(unread);
    }
}
