//! A region: packet buffers in one shared mapping, and safe access to them by whoever holds a
//! [`Buffer`].
//!
//! The yard makes it and owns every buffer; consumers attach to it and see the buffers that slots
//! name. Geometry never changes after creation. Access costs a multiplication by a power of two, an
//! addition and a bounds check.
//!
//! # Who may touch what
//! A buffer belongs to the holder of its token (the yard), or to the consumers whose pipes carry a
//! slot of it, never to both. So inside one process the references made here do not overlap. Where
//! a *foreign process* was granted write access ([`Grant::Write`]), nothing keeps it from writing
//! at any time; then the yard's side makes no reference at all into the region: [`Region::peek`]
//! copies.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use zerocopy::{FromBytes, IntoBytes};

use crate::abi::{
    self, ANNOTATION_SIZES, BUFFER_SIZES, HEADER_BYTES, HEADROOM_BYTES, Header, Kind, MAX_BUFFERS, TAG_BYTES,
};
use crate::map::{self, Mapping, Pages};
use crate::{Buffer, Lent, MemError, Stock, Tag};

/// Sizes of a region's buffers. Frozen at creation, read from the header on attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a buffer: 2048 or 4096.
    pub buffer_bytes: usize,
    /// Bytes of its annotation: 0, 64, 128, 192 or 256.
    pub annotation_bytes: usize,
    /// Number of buffers, at most 2^24.
    pub buffers: u32,
}

impl Geometry {
    /// Checks the sizes.
    ///
    /// # Errors
    /// [`MemError::Geometry`] names the size and what it may be.
    pub fn new(buffer_bytes: usize, annotation_bytes: usize, buffers: usize) -> Result<Geometry, MemError> {
        let refuse = |what, value: usize, allowed| {
            Err(MemError::Geometry { object: "region", what, value: value as u64, allowed })
        };
        if !BUFFER_SIZES.contains(&buffer_bytes) {
            return refuse("buffer size", buffer_bytes, "2048 or 4096");
        }
        if !ANNOTATION_SIZES.contains(&annotation_bytes) {
            return refuse("annotation size", annotation_bytes, "0, 64, 128, 192 or 256");
        }
        if buffers == 0 || buffers > MAX_BUFFERS {
            return refuse("number of buffers", buffers, "1 to 16777216");
        }
        Ok(Geometry { buffer_bytes, annotation_bytes, buffers: buffers as u32 })
    }

    /// Offset of the tag in a buffer.
    pub const fn tag_offset(&self) -> usize {
        self.annotation_bytes
    }

    /// Offset at which a packet starts when it is received: behind annotation, tag and headroom.
    pub const fn packet_offset(&self) -> usize {
        self.annotation_bytes + TAG_BYTES + HEADROOM_BYTES
    }

    /// Most packet bytes that a buffer holds as received.
    pub const fn packet_capacity(&self) -> usize {
        self.buffer_bytes - self.packet_offset()
    }

    /// Bytes of the file: header page and buffers.
    pub const fn file_bytes(&self) -> usize {
        HEADER_BYTES + self.buffer_bytes * self.buffers as usize
    }
}

/// What a process that attaches may do with the region's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Read packets, tags and annotations.
    Read,
    /// Write them as well: trust over the whole region.
    Write,
}

/// One shared mapping that holds packet buffers and the header that describes them.
///
/// Cheap to clone: clones share the mapping.
///
/// ```
/// use flowyard_mem::{Geometry, Region};
/// let (region, mut stock) = Region::create("doc", Geometry::new(2048, 64, 16)?)?;
/// let mut buffer = stock.take().expect("16 are free");
/// assert!(region.write(&mut buffer, region.geometry().packet_offset(), b"packet"));
/// let mut scratch = [0; 64];
/// assert_eq!(region.peek(&buffer, region.geometry().packet_offset(), 6, &mut scratch), b"packet");
/// # Ok::<(), flowyard_mem::MemError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Region {
    inner: Arc<Inner>,
    /// Start of buffer 0 and geometry, copied out of `inner` so that access needs no second load.
    buffers: NonNull<u8>,
    geometry: Geometry,
    id: u32,
    writable: bool,
}

// SAFETY: `buffers` points into the mapping that `inner` keeps alive; which bytes a thread may touch
// is settled by tokens and slots, not by threads.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

#[derive(Debug)]
struct Inner {
    /// What `buffers` points into, kept as long as a clone lives.
    _map: Mapping,
    fd: OwnedFd,
    name: u64,
    pages: Pages,
    /// Another process made it.
    attached: bool,
    /// Set once a foreign process may write.
    foreign_writers: AtomicBool,
    sealing: Mutex<Sealing>,
    /// A descriptor for reading, kept from the first grant on: a process that has given up its privileges cannot open
    /// the file again.
    readable: OnceLock<OwnedFd>,
}

/// What the file's set of seals allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
    /// Nothing was granted yet; seals can be added.
    Open,
    /// A writer was granted; no seals can be added.
    Writers,
    /// New writers are sealed off, for good.
    ReadOnly,
}

/// Names regions within this process, so that a token of one is not taken for a token of another.
static NEXT_ID: AtomicU32 = AtomicU32::new(1);

impl Region {
    /// Makes a region on a memfd (mode 0600, sealed against resizing) and the stock of its buffers.
    ///
    /// Takes huge pages where the kernel's pool has enough; [`Region::pages`] says what was used.
    /// `name` appears in /proc/PID/maps.
    ///
    /// # Errors
    /// The system call that failed, with sizes.
    pub fn create(name: &str, geometry: Geometry) -> Result<(Region, Stock), MemError> {
        let len = geometry.file_bytes();
        let label = format!("flowyard-{name}");
        let huge = map::memfd(&label, len, true).and_then(|fd| Ok((Mapping::of(&fd, "region", true)?, fd)));
        let (map, fd, pages) = match huge {
            Ok((map, fd)) => (map, fd, Pages::Huge),
            Err(_) => {
                let fd = map::memfd(&label, len, false)?;
                let map = Mapping::of(&fd, "region", true)?;
                map.advise_huge();
                (map, fd, Pages::Base)
            }
        };
        let region_name = random_name()?;
        let header = Header::new(
            Kind::Region,
            geometry.buffer_bytes as u32,
            geometry.buffers,
            geometry.annotation_bytes as u32,
            region_name,
            len as u64,
        );
        // SAFETY: the mapping is at least `file_bytes` > 64 long and writable, and nobody else has
        // the file yet.
        unsafe { std::ptr::copy_nonoverlapping(header.as_bytes().as_ptr(), map.base().as_ptr(), size_of::<Header>()) };
        let region = Region::over(map, fd, geometry, region_name, pages, false);
        let stock = Stock::whole(region.id, geometry.buffers);
        Ok((region, stock))
    }

    /// Attaches to a region made by another process, from its descriptor. No tokens come with it:
    /// an attached region shows the buffers that slots name.
    ///
    /// # Errors
    /// [`MemError::Header`] if the file is not a region of this ABI, could shrink, or does not fit
    /// its own header.
    pub fn attach(fd: OwnedFd, grant: Grant) -> Result<Region, MemError> {
        let map = Mapping::of(&fd, "region", grant == Grant::Write)?;
        let header = read_header(&map, "region")?;
        header.check("region", Kind::Region, map.len())?;
        let geometry = Geometry::new(header.stride as usize, header.second as usize, header.count as usize)?;
        if geometry.file_bytes() as u64 != header.len {
            return Err(MemError::Header {
                object: "region",
                what: "length",
                found: header.len,
                expected: geometry.file_bytes() as u64,
                remedy: "the header contradicts itself; use a descriptor handed out by a yard",
            });
        }
        Ok(Region::over(map, fd, geometry, header.region, Pages::Base, true))
    }

    fn over(map: Mapping, fd: OwnedFd, geometry: Geometry, name: u64, pages: Pages, attached: bool) -> Region {
        // SAFETY: HEADER_BYTES is within the mapping: both callers made or checked `file_bytes`.
        let buffers = unsafe { map.base().add(HEADER_BYTES) };
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed); // Relaxed: only uniqueness matters.
        let writable = map.writable();
        let inner = Inner {
            _map: map,
            fd,
            name,
            pages,
            attached,
            foreign_writers: AtomicBool::new(false),
            sealing: Mutex::new(Sealing::Open),
            readable: OnceLock::new(),
        };
        Region { inner: Arc::new(inner), buffers, geometry, id, writable }
    }

    /// Sizes of the buffers.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Random name that ties pipes to their region.
    pub fn name(&self) -> u64 {
        self.inner.name
    }

    /// Pages that the creator got. (An attached region reports base pages: it did not choose.)
    pub fn pages(&self) -> Pages {
        self.inner.pages
    }

    /// An empty set for lending buffers of this region to the kernel.
    pub fn lent(&self) -> Lent {
        Lent::new(self.id, self.geometry.buffers)
    }

    /// A descriptor for another process; to be granted before packets flow. With [`Grant::Write`] the yard stops forming references
    /// into the region from now on; with [`Grant::Read`], unless a writer was granted before, the
    /// file is also sealed against new writers, for good.
    ///
    /// # Errors
    /// The system call that failed; or a writer asked for after the region was sealed.
    pub fn grant(&self, grant: Grant) -> Result<OwnedFd, MemError> {
        if self.inner.attached {
            return self.pass_on(grant);
        }
        let mut sealing = self.inner.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        match (grant, *sealing) {
            (Grant::Write, Sealing::ReadOnly) => {
                return Err(MemError::Geometry {
                    object: "region",
                    what: "write grant after sealing",
                    value: 1,
                    allowed: "given before the first read-only grant: make the region with writers from the start",
                });
            }
            (Grant::Write, Sealing::Open) => map::forbid_new_seals(&self.inner.fd)?,
            (Grant::Read, Sealing::Open) => map::forbid_new_writers(&self.inner.fd)?,
            (_, Sealing::Writers) | (Grant::Read, Sealing::ReadOnly) => {}
        }
        match grant {
            Grant::Write => {
                *sealing = Sealing::Writers;
                // Release: pairs with the Acquire in `foreign_writers`; who sees the descriptor sees it.
                self.inner.foreign_writers.store(true, Ordering::Release);
                map::duplicate(&self.inner.fd, "region")
            }
            Grant::Read => {
                if *sealing == Sealing::Open {
                    *sealing = Sealing::ReadOnly;
                }
                let readable = match self.inner.readable.get() {
                    Some(readable) => readable,
                    None => {
                        let opened = map::reopen_read_only(&self.inner.fd)?;
                        self.inner.readable.get_or_init(|| opened)
                    }
                };
                map::duplicate(readable, "region")
            }
        }
    }

    /// What this process was granted, for a later consumer: no more, and no less, for the file is another user's.
    fn pass_on(&self, grant: Grant) -> Result<OwnedFd, MemError> {
        if grant == Grant::Write && !self.writable {
            return Err(MemError::Geometry {
                object: "region",
                what: "write grant by one who may only read",
                value: 1,
                allowed: "a grant for reading",
            });
        }
        map::duplicate(&self.inner.fd, "region")
    }

    /// Whether a foreign process may write to this region.
    #[inline]
    pub fn foreign_writers(&self) -> bool {
        // Acquire: pairs with the Release in `grant`.
        self.inner.foreign_writers.load(Ordering::Acquire)
    }

    /// The descriptor of the file, for the kernel (not for handing on: see [`Region::grant`]).
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.inner.fd.as_fd()
    }

    /// Address and length in bytes of the buffer area, for registering it with the kernel as a UMEM.
    /// Page-aligned; valid as long as a clone of this region lives.
    pub fn buffer_area(&self) -> (NonNull<u8>, usize) {
        (self.buffers, self.geometry.buffer_bytes * self.geometry.buffers as usize)
    }

    /// Pointer to `len` bytes at `offset` of buffer `index`, if they lie within it.
    #[inline]
    pub fn span(&self, index: u32, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if index >= self.geometry.buffers || end > self.geometry.buffer_bytes {
            return None;
        }
        // SAFETY: index < buffers and offset ≤ buffer_bytes (just checked), so the sum stays within
        // the buffer area that `over` found to lie in the mapping.
        Some(unsafe { self.buffers.add(index as usize * self.geometry.buffer_bytes + offset) })
    }

    /// Which region, among those of this process.
    #[inline]
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Only a region that this process made has tokens, and that is writable; each names one of its buffers
    /// ([`crate::buffer`]).
    #[inline(always)]
    fn owned(&self, buffer: &Buffer, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let bytes = self.geometry.buffer_bytes;
        if buffer.region != self.id || offset.checked_add(len).is_none_or(|end| end > bytes) {
            return None;
        }
        debug_assert!(self.writable && buffer.index < self.geometry.buffers);
        // SAFETY: index < buffers (above) and offset ≤ buffer_bytes (just checked), so the sum stays within the buffer
        // area that `over` found to lie in the mapping.
        Some(unsafe { self.buffers.add(buffer.index as usize * bytes + offset) })
    }

    /// Copies `bytes` to `offset` of an owned buffer. Answers false, and writes nothing, if they do
    /// not fit.
    #[must_use]
    #[inline]
    pub fn write(&self, buffer: &mut Buffer, offset: usize, bytes: &[u8]) -> bool {
        let Some(to) = self.owned(buffer, offset, bytes.len()) else { return false };
        // SAFETY: `to` is good for bytes.len() bytes (span), `&mut Buffer` is the only token of the
        // buffer, and `bytes`, a Rust slice, cannot overlap a buffer that nobody borrowed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        true
    }

    /// The first `scratch.len()` of `len` bytes at `offset` of an owned buffer, or all of them
    /// where nobody can write them meanwhile: borrowed from the region when no foreign process may
    /// write, copied into `scratch` otherwise. Empty if the range is not within the buffer.
    #[inline]
    pub fn peek<'a>(&'a self, buffer: &'a Buffer, offset: usize, len: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        let Some(from) = self.owned(buffer, offset, len) else { return &[] };
        // SAFETY: `len` bytes from `from` lie in the mapping (span); the token is borrowed for 'a, so no `&mut Buffer`
        // writes them.
        unsafe { self.look(from, len, scratch) }
    }

    /// The bytes themselves, or their copy where a foreign process may write them.
    ///
    /// # Safety
    /// `len` bytes from `from` lie in one buffer of this region, and nobody in this process writes them for 'a.
    #[inline(always)]
    unsafe fn look<'a>(&'a self, from: NonNull<u8>, len: usize, scratch: &'a mut [u8]) -> &'a [u8] {
        if !self.foreign_writers() {
            // SAFETY: the caller's word; and no other process may write.
            return unsafe { std::slice::from_raw_parts(from.as_ptr(), len) };
        }
        let len = len.min(scratch.len());
        // SAFETY: the caller's word for the range; the destination is a private slice. A foreign writer may
        // change bytes during the copy; whatever arrives is then private and stays.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), scratch.as_mut_ptr(), len) };
        &scratch[..len]
    }

    /// Writes the tag of an owned buffer.
    #[inline]
    pub fn set_tag(&self, buffer: &mut Buffer, tag: &Tag) {
        let fits = self.write(buffer, self.geometry.tag_offset(), tag.as_bytes());
        debug_assert!(fits, "every geometry has room for a tag");
    }

    /// Looks an owned buffer up, for several looks at it; `None` for one of another region, or of one that this process
    /// may not write.
    #[inline(always)]
    pub fn open<'a>(&'a self, buffer: &'a mut Buffer) -> Option<Opened<'a>> {
        let start = self.owned(buffer, 0, 0)?; // the checks of length fall away
        Some(Opened { region: self, start, _buffer: PhantomData })
    }

    /// Reads the tag of an owned buffer.
    pub fn tag(&self, buffer: &Buffer) -> Tag {
        self.owned(buffer, self.geometry.tag_offset(), TAG_BYTES).map_or_else(Tag::default, |from| self.read_tag(from))
    }

    /// The annotation of an owned buffer, to write in place. Empty where a foreign process may write the
    /// region: then [`Region::set_annotation`] is the way.
    #[inline]
    pub fn annotation_mut<'a>(&'a self, buffer: &'a mut Buffer) -> &'a mut [u8] {
        let len = self.geometry.annotation_bytes;
        let Some(at) = self.owned(buffer, 0, len).filter(|_| !self.foreign_writers()) else { return &mut [] };
        // SAFETY: `len` bytes at `at` lie in the mapping (span); the only token of the buffer is borrowed
        // mutably for 'a, and no other process may write: nobody else reads or writes them.
        unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), len) }
    }

    /// Copies the annotation of an owned buffer to the front of `to`. Answers false, and copies nothing, if
    /// that is shorter.
    pub fn read_annotation(&self, buffer: &Buffer, to: &mut [u8]) -> bool {
        let len = self.geometry.annotation_bytes;
        let Some(from) = self.owned(buffer, 0, len).filter(|_| to.len() >= len) else { return false };
        // SAFETY: `len` bytes at `from` lie in the mapping, `to` is private and has as many. A foreign
        // writer may change them meanwhile; whatever arrives is then private and stays.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), len) };
        true
    }

    /// Writes the front of the annotation of an owned buffer. Answers false, and writes nothing, if it is
    /// longer than that.
    pub fn set_annotation(&self, buffer: &mut Buffer, annotation: &[u8]) -> bool {
        annotation.len() <= self.geometry.annotation_bytes && self.write(buffer, 0, annotation)
    }

    pub(crate) fn read_tag(&self, from: NonNull<u8>) -> Tag {
        // SAFETY: callers pass a span of TAG_BYTES within the mapping; Tag is valid for any bytes
        // (FromBytes), and the read is an unaligned copy.
        unsafe { from.as_ptr().cast::<Tag>().read_unaligned() }
    }

    /// Fetches the cache line at `offset` of an owned buffer, ahead of its use. A hint.
    #[inline(always)]
    pub fn prefetch(&self, buffer: &Buffer, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            let at = self.buffers.as_ptr().wrapping_add(buffer.index as usize * self.geometry.buffer_bytes + offset);
            // SAFETY: a prefetch reads nothing architecturally and fails at no address, so it is not asked whether this one
            // is in the mapping.
            unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast_const().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (buffer, offset);
    }

    /// Fetches the cache line at `offset` of buffer `index` and the one before it. A hint.
    #[inline]
    pub(crate) fn prefetch_around(&self, index: u32, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(at) = offset.checked_sub(64).and_then(|before| self.span(index, before, 128)) {
            for line in [0, 64] {
                // SAFETY: a prefetch reads nothing architecturally, and 128 bytes from `at` are in the mapping (span).
                unsafe {
                    core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                        at.as_ptr().add(line).cast(),
                    )
                };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (index, offset);
    }

    pub(crate) fn writable(&self) -> bool {
        self.writable
    }
}

/// An owned buffer that has been looked up: see [`Region::open`].
#[derive(Debug)]
pub struct Opened<'a> {
    region: &'a Region,
    /// Invariant: `buffer_bytes` from here are the buffer's.
    start: NonNull<u8>,
    _buffer: PhantomData<&'a mut Buffer>,
}

impl Opened<'_> {
    /// As [`Region::peek`].
    #[inline(always)]
    pub fn peek<'b>(&'b self, offset: usize, len: usize, scratch: &'b mut [u8]) -> &'b [u8] {
        // As a sum: that of two numbers of 16 bits, which callers have, is known not to overflow.
        if offset.checked_add(len).is_none_or(|end| end > self.region.geometry.buffer_bytes) {
            return &[];
        }
        // SAFETY: offset + len ≤ buffer_bytes (just checked), which are the buffer's (invariant); its only token is
        // borrowed mutably for the life of `self`, which is borrowed for 'b and writes through `&mut self` alone.
        unsafe { self.region.look(self.start.add(offset), len, scratch) }
    }

    /// Writes the tag, given as its words.
    #[inline(always)]
    pub fn set_tag_words(&mut self, words: [u64; TAG_BYTES / 8]) {
        // SAFETY: a geometry's tag lies within its buffers (`Geometry::new`), at a multiple of 8; the buffer's only token
        // is borrowed mutably, so no reference of this process is into it.
        unsafe {
            self.start.add(self.region.geometry.tag_offset()).cast::<[u64; TAG_BYTES / 8]>().write_unaligned(words)
        };
    }
}

impl std::fmt::Display for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let g = self.geometry;
        write!(
            f,
            "{} buffers of {} bytes ({} annotation, {} headroom) on {} (descriptor {})",
            g.buffers,
            g.buffer_bytes,
            g.annotation_bytes,
            HEADROOM_BYTES,
            self.pages(),
            self.inner.fd.as_raw_fd()
        )
    }
}

/// Reads the header of a mapped file, once, into private memory.
pub(crate) fn read_header(map: &Mapping, object: &'static str) -> Result<Header, MemError> {
    if map.len() < HEADER_BYTES {
        return Err(MemError::Geometry {
            object,
            what: "file length",
            value: map.len() as u64,
            allowed: "at least 4096 bytes",
        });
    }
    let mut bytes = [0u8; size_of::<Header>()];
    // SAFETY: the mapping holds at least HEADER_BYTES; the destination is private.
    unsafe { std::ptr::copy_nonoverlapping(map.base().as_ptr(), bytes.as_mut_ptr(), bytes.len()) };
    Ok(Header::read_from_bytes(&bytes).unwrap_or_else(|_| Header::new(Kind::Region, 0, 0, 0, 0, u64::MAX)))
}

/// 64 bits from the kernel's random generator.
pub(crate) fn random_name() -> Result<u64, MemError> {
    let mut bytes = [0u8; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| std::io::Read::read_exact(&mut f, &mut bytes))
        .map_err(|e| MemError::system("region", "draw a random name", "/dev/urandom", "", e))?;
    Ok(u64::from_ne_bytes(bytes))
}

const _: () = assert!(abi::HEADROOM_BYTES + TAG_BYTES == 256, "tag and headroom are the kernel's XDP_PACKET_HEADROOM");
