//! The yard's place in a guest's memory: pages behind the guest's own, where a batch is laid out for a call.
//!
//! ```text
//! at               records       64 × 96 bytes: tag, verdict, and where the other two are    the yard; the guest writes
//! at + 6144        annotations   64 × as many bytes as the yard has                          the yard; the guest writes
//! …                bytes         64 × an odd number of lines                                 the yard
//! ```
//!
//! Copied in before the call and out after it, and only if it succeeded. The guest may write all of it at any time of a
//! call: nothing of what it wrote is used here as an address or a length.

use flowyard::function::{BATCH, Batch, RawVerdict};
use flowyard::mem::Tag;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a packet that are copied if the guest does not say how many.
pub(crate) const PACKET_BYTES: u32 = 192;
/// Most bytes of a packet that are copied: the largest buffers.
pub(crate) const MOST_PACKET_BYTES: u32 = 4096;
/// A page of WebAssembly.
pub(crate) const PAGE_BYTES: usize = 1 << 16;
/// Room for requests and configurations, which lie here between batches.
pub(crate) const TEXT_BYTES: usize = 1 << 16;

const LINE: usize = 64;
const RECORDS_BYTES: usize = BATCH * size_of::<Record>();
/// What the guest may correct of a tag: `outer_l3` to `user`.
const CORRECTED: std::ops::Range<usize> = 8..32;

// Memory of guests is little-endian, and records are laid out as the machine has them.
const _: () = assert!(cfg!(target_endian = "little"));

/// A packet, as the guest finds it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Record {
    pub(crate) tag: Tag,
    pub(crate) verdict: RawVerdict,
    pub(crate) bytes: u32,
    pub(crate) annotation: u32,
    pub(crate) bytes_len: u16,
    pub(crate) annotation_len: u16,
    pub(crate) segment_len: u16,
    pub(crate) zero: u16,
}

const _: () = assert!(size_of::<Record>() == 96);

/// Where the parts are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Address in the guest's memory, at a page's start.
    pub(crate) at: u32,
    annotation_bytes: usize,
    /// Bytes that are copied of each packet, and from one to the next.
    packet_bytes: usize,
    stride: usize,
}

impl Window {
    pub(crate) fn new(annotation_bytes: usize, packet_bytes: u32) -> Window {
        let packet_bytes = packet_bytes.min(MOST_PACKET_BYTES) as usize;
        // An odd number of lines, so that packets do not all fall into the same sets of the cache.
        let stride = packet_bytes.next_multiple_of(LINE) | LINE;
        Window { at: 0, annotation_bytes, packet_bytes, stride }
    }

    /// The same at this address.
    pub(crate) fn placed(self, at: u32) -> Window {
        Window { at, ..self }
    }

    /// Pages that it takes.
    pub(crate) fn pages(&self) -> usize {
        let batch = RECORDS_BYTES + BATCH * (self.annotation_bytes + self.stride);
        batch.max(TEXT_BYTES).div_ceil(PAGE_BYTES)
    }

    /// Lays a batch out. `None` if the window is not there, which cannot be: memory never shrinks.
    pub(crate) fn put(&self, memory: &mut [u8], batch: &mut Batch<'_>) -> Option<()> {
        let area = memory.get_mut(self.at as usize..)?;
        let (records, area) = area.split_at_mut_checked(RECORDS_BYTES)?;
        let records = <[Record]>::mut_from_bytes(records).ok()?.get_mut(..batch.len())?;
        let (annotations, bytes) = area.split_at_mut_checked(BATCH * self.annotation_bytes)?;
        let annotations_at = self.at + RECORDS_BYTES as u32;
        let bytes_at = annotations_at + annotations.len() as u32;
        for (at, record) in records.iter_mut().enumerate() {
            record.verdict = batch.verdicts()[at];
            let mut packet = batch.packet(at);
            // The tag in one piece, then what of it is not yet right.
            record.tag = *packet.tag();
            (record.tag.hash, record.tag.ring) = (packet.hash(), packet.ring());
            let packet = packet.bytes();
            let shown = packet.len().min(self.packet_bytes);
            copy(bytes.get_mut(at * self.stride..)?.get_mut(..shown)?, packet);
            record.bytes = bytes_at + (at * self.stride) as u32;
            record.annotation = annotations_at + (at * self.annotation_bytes) as u32;
            (record.bytes_len, record.segment_len) = (shown as u16, packet.len() as u16);
            (record.annotation_len, record.zero) = (0, 0);
        }
        if self.annotation_bytes > 0 {
            for (at, (record, to)) in
                records.iter_mut().zip(annotations.chunks_exact_mut(self.annotation_bytes)).enumerate()
            {
                let mut packet = batch.packet(at);
                let annotation = packet.annotation();
                let len = annotation.len().min(to.len());
                copy(&mut to[..len], annotation);
                record.annotation_len = len as u16;
            }
        }
        Some(())
    }

    /// Takes over what the guest made of it. `None` as for [`Window::put`].
    pub(crate) fn take(&self, memory: &[u8], batch: &mut Batch<'_>) -> Option<()> {
        let area = memory.get(self.at as usize..)?;
        let (records, annotations) = area.split_at_checked(RECORDS_BYTES)?;
        let records = <[Record]>::ref_from_bytes(records).ok()?.get(..batch.len())?;
        for (at, record) in records.iter().enumerate() {
            batch.verdicts()[at] = record.verdict;
            let mut packet = batch.packet(at);
            packet.tag_mut().as_mut_bytes()[CORRECTED].copy_from_slice(&record.tag.as_bytes()[CORRECTED]);
        }
        if self.annotation_bytes > 0 {
            for (at, from) in annotations.chunks_exact(self.annotation_bytes).enumerate().take(batch.len()) {
                let mut packet = batch.packet(at);
                let to = packet.annotation();
                let len = to.len().min(from.len());
                update(&mut to[..len], from);
            }
        }
        Some(())
    }
}

/// Fills `to` from the front of `from`, which is as long or longer: line by line, since there are few.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    let (lines, rest) = to.as_chunks_mut::<LINE>();
    let mut left = from;
    for line in lines {
        let Some((next, after)) = left.split_first_chunk() else { return };
        *line = *next;
        left = after;
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&left[..rest.len()]);
    }
}

/// As [`copy`], but lines that are as they were stay clean: most functions write few.
#[inline]
fn update(to: &mut [u8], from: &[u8]) {
    let (lines, rest) = to.as_chunks_mut::<LINE>();
    let mut left = from;
    for line in lines {
        let Some((next, after)) = left.split_first_chunk::<LINE>() else { return };
        // Word by word, without a call for so few.
        if line.iter().zip(next).fold(0, |found, (a, b)| found | (a ^ b)) != 0 {
            *line = *next;
        }
        left = after;
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&left[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use std::mem::{align_of, offset_of};

    #[test]
    fn guests_and_the_yard_agree_on_every_byte() {
        macro_rules! same {
            ($ours:ty, $theirs:ty: $($field:ident)*) => {
                assert_eq!((size_of::<$ours>(), align_of::<$ours>()), (size_of::<$theirs>(), align_of::<$theirs>()));
                $(assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $field), stringify!($field));)*
            };
        }
        same!(Tag, abi::Tag: hash ring stop depth outer_l3 inner_l3 inner_l4 protocol kind tunnel_id tunnel_kind
              hash_version vlan user time_ns flags wire_len len port queue card_hash stripped_vlan link);
        same!(RawVerdict, abi::Verdict: kind zero ring value slice pull zero2);
        same!(Record, abi::Packet: tag verdict bytes annotation bytes_len annotation_len segment_len zero);
        assert_eq!((offset_of!(Tag, outer_l3), offset_of!(Tag, time_ns)), (CORRECTED.start, CORRECTED.end));
        assert_eq!((BATCH, flowyard::mem::NO_OFFSET), (abi::BATCH, abi::NO_OFFSET));
        let kinds = [
            (RawVerdict::BUILT_IN, abi::verdict::BUILT_IN),
            (RawVerdict::HASH, abi::verdict::HASH),
            (RawVerdict::RING, abi::verdict::RING),
            (RawVerdict::DROP, abi::verdict::DROP),
            (RawVerdict::SHUNT, abi::verdict::SHUNT),
            (RawVerdict::EVERY_RING, abi::verdict::EVERY_RING),
            (RawVerdict::HOST, abi::verdict::HOST),
        ];
        kinds.into_iter().for_each(|(ours, theirs)| assert_eq!(ours, theirs));
    }

    #[test]
    fn a_window_has_room_for_the_largest_batch() {
        for (annotation, packet, pages) in [(0, 0, 1), (64, 192, 1), (256, 192, 1), (256, 4096, 5), (256, u32::MAX, 5)]
        {
            assert_eq!(Window::new(annotation, packet).pages(), pages, "{annotation} {packet}");
        }
    }
}
