//! What a consumer has in its hand: one packet, its segments, its tag; and how applications see it.
//!
//! A [`Hand`] is filled by whoever takes packets from somewhere: a [`Consumer`](crate::Consumer) from its pipe, a
//! reader of the kernel's own rings from those. Owned by one thread. A packet is the application's as long as it
//! borrows the hand. Never allocates but for the segments of a packet larger than any before.
//!
//! # Invariant
//! The slots in a hand name buffers that are this hand's alone in this process: whoever takes one vouches for that
//! ([`Hand::take`]). Whether they name parts of the region is checked again wherever bytes are looked at.
#![allow(unsafe_code)]

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::TAG_BYTES;
use crate::slot::{Slot, Verdict, slot_flags};
use crate::{Region, Tag};

/// The packet that a consumer has taken and not yet let go of, if it has one.
#[derive(Debug)]
pub struct Hand {
    pub(crate) region: Region,
    /// First slot of the packet, if there is one.
    pub(crate) current: Slot,
    pub(crate) has_current: bool,
    /// Its further slots: none for a packet in one buffer.
    pub(crate) further: Vec<Slot>,
    /// Its tag, where that is not in front of the packet but here.
    tag: Tag,
    tag_in_hand: bool,
    /// Slots go back to the yard, with what the consumer wants done: so it is where they came by a pipe.
    pub(crate) goes_back: bool,
}

impl Hand {
    /// An empty one, for packets in `region`.
    pub fn new(region: &Region) -> Hand {
        Hand {
            region: region.clone(),
            current: Slot::default(),
            has_current: false,
            further: Vec::with_capacity(64),
            tag: Tag::default(),
            tag_in_hand: false,
            goes_back: false,
        }
    }

    /// Takes the next slot of a packet. Answers false, and takes nothing, if it names no part of the region.
    ///
    /// # Safety
    /// Until the hand is [emptied](Hand::empty) nobody else in this process reads or writes the slot's buffer, or
    /// holds its token; but for buffers that slots call shared, which nobody writes.
    #[inline]
    pub unsafe fn take(&mut self, slot: Slot) -> bool {
        if self.region.span(slot.buffer, slot.offset.into(), slot.len.into()).is_none() {
            return false;
        }
        self.add(slot);
        true
    }

    #[inline(always)]
    fn add(&mut self, slot: Slot) {
        if self.has_current {
            self.further.push(slot);
        } else {
            (self.current, self.has_current) = (slot, true);
        }
    }

    /// Takes the next slot of a packet that this thread has sent to itself; of a packet's slots in order.
    ///
    /// Whoever calls it has the token of the slot's buffer, or a claim on it where the slot says SHARED, and neither uses it
    /// nor gives it away before the hand is empty again.
    ///
    /// So the buffer is this hand's alone: tokens and claims are one each, and the caller's is out of use (LocalRing, the only
    /// caller: its invariant); a buffer that pipes hold as well is reached by slots that say SHARED alone. What part of it the
    /// slot names is looked at where its bytes are: one that it has not has none.
    #[inline(always)]
    pub(crate) fn hold(&mut self, slot: Slot) {
        self.add(slot);
    }

    /// Lets go of the packet.
    #[inline]
    pub fn empty(&mut self) {
        (self.has_current, self.tag_in_hand) = (false, false);
        self.further.clear();
    }

    /// The packet, if there is one.
    #[inline]
    pub fn packet(&mut self) -> Option<Packet<'_>> {
        self.has_current.then_some(Packet { hand: self })
    }

    /// The `N` bytes right before the packet: what the kernel has put there. `None` without a packet, or with less
    /// room in front of it.
    #[inline]
    pub fn before<const N: usize>(&self) -> Option<[u8; N]> {
        let at = usize::from(self.current.offset).checked_sub(N).filter(|_| self.has_current)?;
        let from = self.region.span(self.current.buffer, at, N)?;
        // SAFETY: N bytes at `from` lie in the mapping (span), of a buffer that is this hand's (invariant); any bytes
        // are valid, and the copy needs no alignment.
        Some(unsafe { from.as_ptr().cast::<[u8; N]>().read_unaligned() })
    }

    /// Fetches the cache lines of a packet at `offset` of buffer `index`, and of what is before it, ahead of their
    /// use. A hint.
    #[inline]
    pub fn prefetch(&self, index: u32, offset: usize) {
        self.region.prefetch_around(index, offset);
    }

    /// Gives the packet a tag that is kept here, in place of the one in front of it; and its slot what that says.
    #[inline]
    pub fn set_tag(&mut self, tag: Tag) {
        let Tag { hash, inner_l3: l3, inner_l4: l4, len: total, time_ns, .. } = tag;
        let stripped = if tag.has(crate::flags::VLAN_STRIPPED) { slot_flags::VLAN_STRIPPED } else { 0 };
        self.current = Slot { hash, l3, l4, total, time_ns, flags: self.current.flags | stripped, ..self.current };
        (self.tag, self.tag_in_hand) = (tag, true);
    }
}

/// One packet, the consumer's until dropped.
#[derive(Debug)]
pub struct Packet<'c> {
    hand: &'c mut Hand,
}

/// A push, pull or annotation that does not fit, or a packet that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// More bytes than the headroom has left.
    #[error("pushing {wanted} bytes, but the headroom has {free}: push fewer, or make the region with larger buffers")]
    Headroom {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free.
        free: usize,
    },
    /// More bytes than the first segment has.
    #[error("pulling {wanted} bytes, but the first segment has {len}")]
    Short {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes there are.
        len: usize,
    },
    /// The type is larger than the annotation.
    #[error(
        "annotation type of {wanted} bytes, but the region has annotations of {annotation_bytes}: make it with larger ones"
    )]
    Annotation {
        /// Size of the type.
        wanted: usize,
        /// Size of the region's annotations.
        annotation_bytes: usize,
    },
    /// The region was granted for reading only.
    #[error("this consumer may read the region and not write it: ask for Grant::Write")]
    ReadOnly,
    /// Other consumers hold the packet as well.
    #[error("other consumers hold this packet as well: copy it and change the copy")]
    Shared,
    /// The packet does not go back by a yard that could send it.
    #[error("this packet was taken from the kernel itself, and no yard is asked: have dispatchers relay it (--relay)")]
    NoWayBack,
}

impl Packet<'_> {
    fn first(&self) -> &Slot {
        &self.hand.current // whoever makes a `Packet` has seen that there is one
    }

    /// The slot: hash, lengths, offsets, flags, time.
    #[inline]
    pub fn slot(&self) -> &Slot {
        self.first()
    }

    /// Index of the (first) buffer in the region: the same in every process.
    pub fn buffer_index(&self) -> u32 {
        self.first().buffer
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::once(&self.hand.current).chain(&self.hand.further)
    }

    #[inline]
    fn bytes_of(&self, slot: &Slot) -> &[u8] {
        let Some(at) = self.hand.region.span(slot.buffer, slot.offset.into(), slot.len.into()) else { return &[] };
        // SAFETY: the span lies in the mapping. Nobody else of this process touches a buffer in this hand
        // (`Hand::take`), it is reached only through the one `&mut Hand` borrowed here, and other processes
        // that may write the region are trusted not to (the grant; see design of trust in ARCHITECTURE.md).
        unsafe { std::slice::from_raw_parts(at.as_ptr(), slot.len.into()) }
    }

    /// Bytes of the first segment: the whole packet, unless [`Packet::is_segmented`].
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.bytes_of(self.first())
    }

    /// Mutable bytes of the first segment.
    ///
    /// # Errors
    /// [`PacketError::ReadOnly`], [`PacketError::Shared`].
    pub fn data_mut(&mut self) -> Result<&mut [u8], PacketError> {
        let slot = *self.first();
        self.check_writable()?;
        let Some(at) = self.hand.region.span(slot.buffer, slot.offset.into(), slot.len.into()) else {
            return Ok(&mut []);
        };
        // SAFETY: as in `bytes_of`, with `&mut self`: no other reference to these bytes in this process, for
        // the yard marks what several consumers hold (PipeProducer::send_shared), and that was refused.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), slot.len.into()) })
    }

    fn check_writable(&self) -> Result<(), PacketError> {
        if !self.hand.region.writable() {
            return Err(PacketError::ReadOnly);
        }
        if self.first().flags & slot_flags::SHARED != 0 { Err(PacketError::Shared) } else { Ok(()) }
    }

    /// Whether other consumers hold the packet as well: then it cannot be changed in place.
    pub fn is_shared(&self) -> bool {
        self.first().flags & slot_flags::SHARED != 0
    }

    /// Whether the packet lies in several buffers.
    pub fn is_segmented(&self) -> bool {
        !self.hand.further.is_empty()
    }

    /// The segments, in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.slots().map(|slot| self.bytes_of(slot))
    }

    /// Bytes of the packet over all segments.
    pub fn len(&self) -> usize {
        self.slots().map(|slot| usize::from(slot.len)).sum()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tag, copied.
    #[inline]
    pub fn tag(&self) -> Tag {
        if self.hand.tag_in_hand {
            return self.hand.tag;
        }
        let region = &self.hand.region;
        region
            .span(self.first().buffer, region.geometry().tag_offset(), TAG_BYTES)
            .map_or_else(Tag::default, |at| region.read_tag(at))
    }

    fn annotation_place(&self, wanted: usize) -> Result<std::ptr::NonNull<u8>, PacketError> {
        let annotation_bytes = self.hand.region.geometry().annotation_bytes;
        let too_large = PacketError::Annotation { wanted, annotation_bytes };
        if wanted > annotation_bytes {
            return Err(too_large);
        }
        self.hand.region.span(self.first().buffer, 0, wanted).ok_or(too_large)
    }

    /// The annotation as the application's own plain-data type, copied out.
    ///
    /// # Errors
    /// [`PacketError::Annotation`] if the type is larger than the region's annotations.
    pub fn annotation<T: FromBytes>(&self) -> Result<T, PacketError> {
        let at = self.annotation_place(size_of::<T>())?;
        // SAFETY: size_of::<T>() bytes at `at` lie in the mapping; T is valid for any bytes; the copy
        // needs no alignment.
        Ok(unsafe { at.as_ptr().cast::<T>().read_unaligned() })
    }

    /// Writes the annotation.
    ///
    /// # Errors
    /// [`PacketError::Annotation`] if the type is too large, [`PacketError::ReadOnly`], [`PacketError::Shared`].
    pub fn set_annotation<T: IntoBytes + Immutable>(&mut self, value: &T) -> Result<(), PacketError> {
        let bytes = value.as_bytes();
        let at = self.annotation_place(bytes.len())?;
        self.check_writable()?;
        // SAFETY: the span lies in a writable mapping; `bytes` is private to this process and cannot
        // overlap an annotation, to which nobody holds a reference.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Free bytes in front of the packet.
    pub fn headroom(&self) -> usize {
        let floor = self.hand.region.geometry().tag_offset() + TAG_BYTES;
        usize::from(self.first().offset).saturating_sub(floor)
    }

    /// Moves the packet's start forward over `len` bytes of headroom, into which the caller writes a
    /// header through [`Packet::data_mut`]. Annotation and tag stay where they are.
    ///
    /// # Errors
    /// [`PacketError::Headroom`] if there is not that much.
    pub fn push(&mut self, len: usize) -> Result<(), PacketError> {
        let free = self.headroom();
        let slot = &mut self.hand.current;
        let (Some(offset), Some(longer)) = (
            u16::try_from(len).ok().filter(|_| len <= free).and_then(|l| slot.offset.checked_sub(l)),
            u16::try_from(len).ok().and_then(|l| slot.len.checked_add(l)),
        ) else {
            return Err(PacketError::Headroom { wanted: len, free });
        };
        slot.offset = offset;
        slot.len = longer;
        slot.total += len as u32;
        Ok(())
    }

    /// Moves the packet's start behind its first `len` bytes.
    ///
    /// # Errors
    /// [`PacketError::Short`] if the first segment is shorter.
    pub fn pull(&mut self, len: usize) -> Result<(), PacketError> {
        let slot = &mut self.hand.current;
        if len > usize::from(slot.len) {
            return Err(PacketError::Short { wanted: len, len: slot.len.into() });
        }
        slot.offset += len as u16;
        slot.len -= len as u16;
        slot.total = slot.total.saturating_sub(len as u32);
        Ok(())
    }

    /// Has the yard send the packet out of port number `port` when it is let go of, as it is then: with the start and
    /// length that [`push`](Packet::push) and [`pull`](Packet::pull) have given it. Ports are numbered in the order in
    /// which the yard was given them. What was left undone (checksums, a VLAN tag taken off, merged frames) is finished
    /// on the way, or the packet refused under a name that the yard's report has.
    ///
    /// Packets that one consumer sends out of one port leave in the order in which it lets go of them.
    ///
    /// # Errors
    /// [`PacketError::Shared`]; [`PacketError::NoWayBack`]; [`PacketError::ReadOnly`] if headers were pushed that this
    /// consumer could not write.
    pub fn transmit(&mut self, port: u8) -> Result<(), PacketError> {
        let hand = &mut *self.hand;
        if hand.current.flags & slot_flags::SHARED != 0 {
            return Err(PacketError::Shared);
        }
        if !hand.goes_back {
            return Err(PacketError::NoWayBack);
        }
        if usize::from(hand.current.offset) < hand.region.geometry().packet_offset() && !hand.region.writable() {
            return Err(PacketError::ReadOnly);
        }
        for slot in std::iter::once(&mut hand.current).chain(&mut hand.further) {
            (slot.verdict, slot.port) = (Verdict::Transmit as u8, port);
        }
        Ok(())
    }
}
