//! The packets that a steering function is shown, and what it may do to them.
//!
//! A batch is at most [`BATCH`] packets of one port, in the order in which they came, each dissected and
//! with the built-in decision made. What the function writes (verdict, annotation, tag) is carried out
//! after it returns; if it fails, nothing of it is, but for what it wrote into annotations.

use flowyard_mem::{Region, Tag};
use flowyard_steer::{Decision, Dissection, Flow, Table};
use zerocopy::{Immutable, IntoBytes};

use super::verdict::{RawVerdict, Verdict};
use crate::outlets::{Parcel, corrected};
use crate::sorter::Route;

/// Most packets of a batch.
pub const BATCH: usize = 64;
/// Bytes of a packet that are copied where a foreign process may write the region meanwhile.
pub(super) const COPY_BYTES: usize = 2048;

/// A packet on its way through the function.
pub(crate) struct Item {
    pub(crate) parcel: Parcel,
    pub(crate) decision: Decision,
    pub(crate) route: Route,
}

impl Item {
    /// Takes the packet out.
    pub(super) fn take(&mut self) -> Item {
        Item { parcel: self.parcel.take(), ..*self }
    }
}

/// Room for an annotation, aligned as one.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(crate) struct Annotation(pub(crate) [u8; 256]);

impl Default for Annotation {
    fn default() -> Annotation {
        Annotation([0; 256])
    }
}

/// A packet by address: what a plug-in is shown of it.
pub(crate) struct Shown {
    pub(crate) bytes: *const u8,
    /// Null if the yard has no annotations.
    pub(crate) annotation: *mut u8,
    pub(crate) tag: *mut Tag,
    pub(crate) bytes_len: u32,
}

/// The yard's tag of a packet with what a function may correct of it taken from `theirs`: offsets, protocol, kind,
/// tunnel, VLAN and the user's mark.
#[inline]
pub(super) fn accepted(own: &Tag, theirs: &Tag) -> Tag {
    let [first, .., a, b, c, d]: [u64; 8] = zerocopy::transmute!(*own);
    let [_, offsets, tunnel, user, ..]: [u64; 8] = zerocopy::transmute!(*theirs);
    let words = [first, offsets, tunnel, user, a, b, c, d];
    Tag { hash_version: own.hash_version, ..zerocopy::transmute!(words) }
}

/// Private copies for regions that foreign processes may write. Plug-ins find the annotation aligned to 64.
#[repr(C, align(64))]
pub(super) struct Scratch {
    pub(super) bytes: [u8; COPY_BYTES],
    pub(super) annotation: [u8; 256],
}

/// Packets for a steering function. Each has a verdict, [`Verdict::BuiltIn`] until one is set.
pub struct Batch<'a> {
    pub(super) region: &'a Region,
    pub(super) items: &'a mut [Item],
    pub(super) tags: &'a mut [Tag],
    pub(super) verdicts: &'a mut [RawVerdict],
    pub(super) scratch: &'a mut Scratch,
    pub(super) table: &'a Table,
    /// A foreign process may write the region: the batch is one packet, in `scratch`.
    pub(super) copied: bool,
    /// For a group's function, which may change nothing.
    pub(super) group: bool,
    /// The function has had tags in its hands, to change as it likes.
    pub(super) edited: bool,
    /// Copies of the tags, for functions that see them by address.
    pub(super) lent: &'a mut [Tag; BATCH],
}

impl Batch<'_> {
    /// Number of packets, at least 1 and at most [`BATCH`].
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none: never so when a function is called.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of rings that a verdict may name: 0 to one less.
    #[inline]
    pub fn rings(&self) -> u16 {
        self.table.rings()
    }

    /// Annotation bytes in front of every packet.
    #[inline]
    pub fn annotation_bytes(&self) -> usize {
        self.region.geometry().annotation_bytes
    }

    /// The packet at `at`.
    ///
    /// # Panics
    /// If there are not that many: caught by the yard, and counted as a failure of the function.
    #[inline]
    pub fn packet(&mut self, at: usize) -> Packet<'_> {
        Packet {
            region: self.region,
            item: &mut self.items[at],
            tag: &mut self.tags[at],
            verdict: &mut self.verdicts[at],
            scratch: self.scratch,
            table: self.table,
            copied: self.copied,
            group: self.group,
            edited: &mut self.edited,
        }
    }

    /// Calls `each` for every packet that no earlier function of the chain has decided.
    #[inline]
    pub fn each(&mut self, mut each: impl FnMut(&mut Packet<'_>)) {
        let &mut Batch { region, table, copied, group, .. } = self;
        for ((item, tag), verdict) in self.items.iter_mut().zip(&mut *self.tags).zip(&mut *self.verdicts) {
            if verdict.kind == RawVerdict::BUILT_IN {
                let (scratch, edited) = (&mut *self.scratch, &mut self.edited);
                each(&mut Packet { region, item, tag, verdict, scratch, table, copied, group, edited });
            }
        }
    }

    /// The packets by address, for functions that are not Rust, which call [`Batch::accept_tags`] afterwards: what
    /// `write` makes of each goes to `places`. The
    /// addresses are good until the batch is used by another method than [`Batch::verdicts`]; no two packets share a
    /// byte of what may be written: annotation (as many bytes as the yard has) and tag. A group's function is given
    /// copies of the annotations, in `copies`.
    ///
    /// # Panics
    /// If `places` or `copies` has fewer than [`Batch::len`].
    #[inline]
    pub(crate) fn show<T>(&mut self, places: &mut [T], copies: &mut [Annotation], write: impl Fn(Shown) -> T) {
        self.lent[..self.tags.len()].copy_from_slice(self.tags);
        if self.edited || self.group {
            self.put_right_what_is_lent();
        }
        let (region, count) = (self.region, self.items.len());
        let places = &mut places[..count];
        // Of what is asked once a batch nothing changes within it that matters: writers are granted before packets
        // flow, and one that is granted this moment is known from the next batch on.
        if self.copied || self.group || region.foreign_writers() {
            return self.show_copies(places, copies, write);
        }
        let annotated = region.geometry().annotation_bytes > 0;
        for ((item, tag), place) in self.items.iter_mut().zip(&mut *self.lent).zip(places) {
            let first = &mut item.parcel.first;
            let (bytes_len, tag) = (u32::from(first.len), &raw mut *tag);
            let shown = match region.places(&mut first.buffer, first.offset.into(), first.len.into()) {
                Some((annotation, bytes)) => {
                    let annotation = if annotated { annotation.as_ptr() } else { std::ptr::null_mut() };
                    Shown { bytes: bytes.as_ptr(), annotation, tag, bytes_len }
                }
                // Never so: ports say where packets are, in buffers of this region.
                None => {
                    Shown { bytes: (&raw const *first).cast(), annotation: std::ptr::null_mut(), tag, bytes_len: 0 }
                }
            };
            *place = write(shown);
        }
    }

    /// An earlier function of a chain may have written anything into the tags that are to be shown; and a group has
    /// rings of its own.
    #[cold]
    fn put_right_what_is_lent(&mut self) {
        for (at, item) in self.items.iter().enumerate() {
            let ring = self.built_in_ring(item);
            self.lent[at] = Tag { ring, ..corrected(self.lent[at], &item.parcel, &item.decision) };
        }
    }

    /// Takes over what was written into tags that were shown by address: of what is the function's to correct.
    #[inline]
    pub(crate) fn accept_tags(&mut self) {
        for (tag, lent) in self.tags.iter_mut().zip(&*self.lent) {
            *tag = accepted(tag, lent);
        }
    }

    #[cold]
    fn show_copies<T>(&mut self, places: &mut [T], copies: &mut [Annotation], write: impl Fn(Shown) -> T) {
        let region = self.region;
        let copies = &mut copies[..places.len()];
        for (((item, tag), place), copy) in self.items.iter_mut().zip(&mut *self.lent).zip(places).zip(copies) {
            let first = &item.parcel.first;
            let annotation = if region.geometry().annotation_bytes == 0 {
                std::ptr::null_mut()
            } else if self.copied && !self.group {
                self.scratch.annotation.as_mut_ptr()
            } else {
                region.read_annotation(&first.buffer, &mut copy.0);
                copy.0.as_mut_ptr()
            };
            let scratch = &mut self.scratch.bytes;
            let copied_to = scratch.as_ptr();
            let mut bytes = region.peek(&first.buffer, first.offset.into(), first.len.into(), scratch);
            if std::ptr::eq(bytes.as_ptr(), copied_to) && !self.copied {
                bytes = &[]; // writing was granted this moment, and there is one copy for the whole batch
            }
            let bytes_len = bytes.len() as u32;
            *place = write(Shown { bytes: bytes.as_ptr(), annotation, tag: &raw mut *tag, bytes_len });
        }
    }

    /// What is known of a packet beside its bytes: tag, verdict so far, and whether it goes by a fallback.
    pub(super) fn described(&self, at: usize) -> (Tag, [u8; 16], bool) {
        let item = &self.items[at];
        let tag = Tag { ring: self.built_in_ring(item), ..corrected(self.tags[at], &item.parcel, &item.decision) };
        let verdict = zerocopy::transmute!(self.verdicts[at]);
        (tag, verdict, item.route == Route::Fallback)
    }

    /// The bytes of a packet's first segment.
    pub(super) fn bytes_of(&mut self, at: usize) -> &[u8] {
        let first = &self.items[at].parcel.first;
        self.region.peek(&first.buffer, first.offset.into(), first.len.into(), &mut self.scratch.bytes)
    }

    /// Lets `look` at the annotation of a packet.
    pub(super) fn annotation_of(&mut self, at: usize, look: impl FnOnce(&[u8])) {
        look(self.packet(at).annotation());
    }

    /// Takes over what another process says of a packet.
    pub(super) fn take_back(&mut self, at: usize, tag: Tag, verdict: RawVerdict, annotation: &[u8]) {
        self.edited = true;
        self.tags[at] = tag;
        self.verdicts[at] = verdict;
        self.packet(at).annotation().copy_from_slice(annotation);
    }

    fn built_in_ring(&self, item: &Item) -> u16 {
        if self.group { self.table.ring(item.decision.hash) } else { item.decision.ring }
    }

    /// The verdicts as they are, one a packet: for functions that write them in bulk.
    #[inline]
    pub fn verdicts(&mut self) -> &mut [RawVerdict] {
        self.verdicts
    }
}

/// One packet of a batch.
pub struct Packet<'a> {
    region: &'a Region,
    item: &'a mut Item,
    tag: &'a mut Tag,
    verdict: &'a mut RawVerdict,
    scratch: &'a mut Scratch,
    table: &'a Table,
    copied: bool,
    group: bool,
    edited: &'a mut bool,
}

impl Packet<'_> {
    /// The bytes of its first segment, as received: the whole packet unless it is larger than a buffer.
    #[inline]
    pub fn bytes(&mut self) -> &[u8] {
        let first = &self.item.parcel.first;
        self.region.peek(&first.buffer, first.offset.into(), first.len.into(), &mut self.scratch.bytes)
    }

    /// Captured bytes, over all segments.
    #[inline]
    pub fn len(&self) -> usize {
        self.item.parcel.arrival.len as usize
    }

    /// Whether nothing of it was captured.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What dissection found: layers, offsets, tunnels, why it ended.
    #[inline]
    pub fn dissection(&self) -> &Dissection {
        &self.item.decision.dissection
    }

    /// The flow that makes the built-in key: the innermost, or what an ICMP error quotes.
    pub fn flow(&mut self) -> Option<Flow> {
        let dissection = self.item.decision.dissection;
        let bytes = self.bytes();
        dissection.key_level().and_then(|level| level.flow(bytes))
    }

    /// The hash that the built-in policy makes: both directions of a conversation share it, and a
    /// fragment has that of its datagram's first one.
    #[inline]
    pub fn hash(&self) -> u32 {
        self.item.decision.hash
    }

    /// The ring that the built-in policy chooses.
    #[inline]
    pub fn ring(&self) -> u16 {
        if self.group { self.table.ring(self.item.decision.hash) } else { self.item.decision.ring }
    }

    /// The tag as the consumer will see it, but for hash and ring.
    #[inline]
    pub fn tag(&self) -> &Tag {
        self.tag
    }

    /// The tag, to correct: offsets, protocol, tunnel, VLAN and the user's mark. What the port knows
    /// (the second half) and hash, ring, depth and stop are written by the yard whatever stands here.
    #[inline]
    pub fn tag_mut(&mut self) -> &mut Tag {
        *self.edited = true;
        self.tag
    }

    /// Writes the user's own mark into the tag.
    #[inline]
    pub fn mark(&mut self, mark: u64) {
        self.tag.user = mark;
    }

    /// The annotation, to write. It holds what an earlier packet in the same buffer left there. A group's
    /// function gets a copy, to read what the yard's wrote.
    #[inline]
    pub fn annotation(&mut self) -> &mut [u8] {
        let buffer = &mut self.item.parcel.first.buffer;
        if !self.copied && !self.group {
            return self.region.annotation_mut(buffer);
        }
        if self.group {
            self.region.read_annotation(buffer, &mut self.scratch.annotation);
        }
        &mut self.scratch.annotation[..self.region.geometry().annotation_bytes]
    }

    /// Writes `value` to the front of the annotation. Answers false if it is larger.
    #[inline]
    pub fn annotate<T: IntoBytes + Immutable>(&mut self, value: &T) -> bool {
        let bytes = value.as_bytes();
        self.annotation().get_mut(..bytes.len()).map(|to| to.copy_from_slice(bytes)).is_some()
    }

    /// Keeps the first `len` bytes of the packet (from its start after [`Packet::pull`]); the tag will
    /// say that it was truncated. Zero keeps all.
    #[inline]
    pub fn slice(&mut self, len: u32) {
        self.verdict.slice = len;
    }

    /// Takes `len` bytes off the packet's start: a header that was stripped. The tag's offsets go on
    /// counting from the start as received.
    #[inline]
    pub fn pull(&mut self, len: u16) {
        self.verdict.pull = len;
    }

    /// Says where it goes.
    #[inline]
    pub fn decide(&mut self, verdict: Verdict) {
        self.verdict.set(verdict);
    }

    /// What was said of it so far.
    #[inline]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }
}
