//! The packets that a steering function is shown, and what it may do to them.
//!
//! A batch is at most [`BATCH`] packets of one port, in the order in which they came, each dissected and
//! with the built-in decision made. What the function writes (verdict, annotation, tag) is carried out
//! after it returns; if it fails, nothing of it is, but for what it wrote into annotations.

use flowyard_mem::{Region, Tag};
use flowyard_steer::{Decision, Dissection, Flow, Table};
use zerocopy::{Immutable, IntoBytes};

use super::verdict::{RawVerdict, Verdict};
use crate::outlets::{Parcel, Segment, tag_of};
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

/// A batch by address: what a plug-in is shown of it.
pub(crate) struct Shown {
    /// The first of `buffer_count` buffers of `buffer_bytes` each.
    pub(crate) buffers: *mut u8,
    pub(crate) buffer_bytes: usize,
    pub(crate) buffer_count: u32,
    /// The [`Segment`] of the first packet; that of the next is `place_bytes` behind it.
    pub(crate) places: *const u8,
    pub(crate) place_bytes: usize,
    /// Annotations that may be scribbled on, one a packet; null if those in the buffers are meant.
    pub(crate) copies: *mut Annotation,
    pub(crate) tags: *mut Tag,
    pub(crate) verdicts: *mut RawVerdict,
}

/// A place in what is shown, as a [`Segment`] begins: index of a buffer, number of the region, offset, length.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Place(u32, u32, u16, u16);

const _: () = {
    assert!(std::mem::offset_of!(Segment, offset) == std::mem::offset_of!(Place, 2));
    assert!(std::mem::offset_of!(Segment, len) == std::mem::offset_of!(Place, 3));
};

/// Room for what is shown in place of the buffers themselves.
pub(crate) struct Copies {
    annotations: [Annotation; BATCH],
    place: Place,
}

impl Default for Copies {
    fn default() -> Copies {
        Copies { annotations: std::array::from_fn(|_| Annotation::default()), place: Place::default() }
    }
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

/// What a function has had in its hands, so that nobody looks through what was not touched. Who makes a batch of
/// verdicts that say something owns up to them as well.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Touched {
    /// Tags, to change as it likes.
    pub(super) tags: bool,
    /// Verdicts: some may say something.
    pub(super) verdicts: bool,
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
    /// There may be fragments among the packets.
    pub(super) fragments: bool,
    /// Of the tags' hashes.
    pub(super) hash_version: u8,
    pub(super) touched: Touched,
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
            touched: &mut self.touched,
        }
    }

    /// Calls `each` for every packet that no earlier function of the chain has decided.
    #[inline]
    pub fn each(&mut self, mut each: impl FnMut(&mut Packet<'_>)) {
        let &mut Batch { region, table, copied, group, .. } = self;
        for ((item, tag), verdict) in self.items.iter_mut().zip(&mut *self.tags).zip(&mut *self.verdicts) {
            if verdict.kind == RawVerdict::BUILT_IN {
                let (scratch, touched) = (&mut *self.scratch, &mut self.touched);
                each(&mut Packet { region, item, tag, verdict, scratch, table, copied, group, touched });
            }
        }
    }

    /// The batch by address, for functions that are not Rust: as it lies, so that this costs the same for any
    /// number of packets. The addresses are good until the batch is used again. What lies there must only be read,
    /// but for annotations (of `copies`, if that is not null) and the user's mark in tags; one who writes verdicts, or
    /// more of tags, says so by [`Batch::touched_by_address`].
    #[inline]
    pub(crate) fn show(&mut self, copies: &mut Copies) -> Shown {
        if self.group {
            self.put_tags_right(); // it has rings of its own
        }
        let geometry = self.region.geometry();
        let shown = Shown {
            buffers: self.region.buffer_area().0.as_ptr(),
            buffer_bytes: geometry.buffer_bytes,
            buffer_count: geometry.buffers,
            places: self.items.as_ptr().cast::<u8>().wrapping_add(std::mem::offset_of!(Item, parcel.first)),
            place_bytes: size_of::<Item>(),
            copies: std::ptr::null_mut(),
            tags: self.tags.as_mut_ptr(),
            verdicts: self.verdicts.as_mut_ptr(),
        };
        // Asked once a batch: writers are granted before packets flow, and one that is granted this moment is known
        // from the next batch on.
        if self.copied || self.group || self.region.foreign_writers() {
            return self.show_copies(shown, copies);
        }
        shown
    }

    /// After a link of a chain: what it wrote into tags that is not the function's to say is put right, before the
    /// next one reads it.
    #[inline]
    pub(super) fn settle_tags(&mut self) {
        if self.touched.tags {
            self.put_tags_right();
        }
    }

    #[cold]
    fn put_tags_right(&mut self) {
        for at in 0..self.items.len() {
            self.tags[at] = self.right_tag(at);
        }
    }

    /// The tag with what is not the function's to say as the yard says it; in a group, with the ring of the group.
    fn right_tag(&self, at: usize) -> Tag {
        let item = &self.items[at];
        let own = tag_of(&item.parcel, &item.decision, item.route, self.hash_version);
        accepted(&Tag { ring: self.built_in_ring(item), ..own }, &self.tags[at])
    }

    #[cold]
    fn show_copies(&mut self, shown: Shown, copies: &mut Copies) -> Shown {
        let region = self.region;
        for (item, copy) in self.items.iter().zip(&mut copies.annotations) {
            region.read_annotation(&item.parcel.first.buffer, &mut copy.0);
        }
        let shown = Shown { copies: copies.annotations.as_mut_ptr(), ..shown };
        if !self.copied && !region.foreign_writers() {
            return shown;
        }
        // Writing was granted this moment: there is one copy for the whole batch, so nothing is shown of packets.
        let mut bytes: &[u8] = &[];
        if self.copied {
            let first = &self.items[0].parcel.first;
            bytes = region.peek(&first.buffer, first.offset.into(), first.len.into(), &mut self.scratch.bytes);
        }
        copies.place.3 = bytes.len() as u16;
        let annotation = (&raw mut self.scratch.annotation).cast();
        Shown {
            buffers: bytes.as_ptr().cast_mut(),
            buffer_bytes: COPY_BYTES,
            buffer_count: 1,
            places: (&raw const copies.place).cast(),
            place_bytes: 0, // of each the same
            copies: if self.copied && !self.group { annotation } else { shown.copies },
            ..shown
        }
    }

    /// Verdicts may have been written that were shown, or more than the user's mark into tags.
    #[inline]
    pub(crate) fn touched_by_address(&mut self, verdicts: bool, tags: bool) {
        self.touched.verdicts |= verdicts;
        self.touched.tags |= tags;
    }

    /// The packets that no earlier function of a chain has decided, a bit each.
    #[inline]
    pub(crate) fn undecided(&self) -> u64 {
        let all = u64::MAX >> (BATCH - self.items.len().clamp(1, BATCH));
        if !self.touched.verdicts {
            return all;
        }
        let open = |(at, verdict): (usize, &RawVerdict)| u64::from(verdict.kind == RawVerdict::BUILT_IN) << at;
        self.verdicts.iter().enumerate().map(open).fold(0, |bits, bit| bits | bit)
    }

    /// Whether there may be fragments among the packets.
    #[inline]
    pub(crate) fn has_fragments(&self) -> bool {
        self.fragments
    }

    /// What dissection found of a packet, and its tag.
    #[inline]
    pub(crate) fn seen(&self, at: usize) -> (&Dissection, &Tag) {
        (&self.items[at].decision.dissection, &self.tags[at])
    }

    /// What is known of a packet beside its bytes: tag, verdict so far, and whether it goes by a fallback.
    pub(super) fn described(&self, at: usize) -> (Tag, [u8; 16], bool) {
        let verdict = zerocopy::transmute!(self.verdicts[at]);
        (self.right_tag(at), verdict, self.items[at].route == Route::Fallback)
    }

    /// The bytes of a packet's first segment.
    #[inline]
    pub(crate) fn bytes_of(&mut self, at: usize) -> &[u8] {
        let first = &self.items[at].parcel.first;
        self.region.peek(&first.buffer, first.offset.into(), first.len.into(), &mut self.scratch.bytes)
    }

    /// Lets `look` at the annotation of a packet.
    pub(super) fn annotation_of(&mut self, at: usize, look: impl FnOnce(&[u8])) {
        look(self.packet(at).annotation());
    }

    /// Takes over what another process says of a packet.
    pub(super) fn take_back(&mut self, at: usize, tag: Tag, verdict: RawVerdict, annotation: &[u8]) {
        self.touched = Touched { tags: true, verdicts: true };
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
        self.touched.verdicts = true;
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
    touched: &'a mut Touched,
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
        self.touched.tags = true;
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
        self.touched.verdicts = true;
        self.verdict.slice = len;
    }

    /// Takes `len` bytes off the packet's start: a header that was stripped. The tag's offsets go on
    /// counting from the start as received.
    #[inline]
    pub fn pull(&mut self, len: u16) {
        self.touched.verdicts = true;
        self.verdict.pull = len;
    }

    /// Says where it goes.
    #[inline]
    pub fn decide(&mut self, verdict: Verdict) {
        // Where nothing was said, saying nothing writes nothing: where that is known, nothing is left of it.
        if verdict != Verdict::BuiltIn || self.verdict.kind != RawVerdict::BUILT_IN {
            self.touched.verdicts = true;
            self.verdict.set(verdict);
        }
    }

    /// What was said of it so far.
    #[inline]
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict.get()
    }
}
