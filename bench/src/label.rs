//! Tag and slot from a decision, as the yard's dispatcher makes them.

use flowyard::mem::{Clock, NO_OFFSET, Slot, Tag, Verdict};
use flowyard::steer::{Decision, Family, HASH_VERSION};

fn offset(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_OFFSET)
}

/// The tag of a packet of `len` bytes.
#[inline]
pub fn tag(decision: &Decision, len: u16, time_ns: u64) -> Tag {
    let d = &decision.dissection;
    let (tunnel_kind, tunnel_id) = d.tunnel().map_or((0, 0), |(kind, id)| (kind as u8, id));
    let mut tag = Tag {
        hash: decision.hash,
        ring: decision.ring,
        stop: d.stop() as u8,
        depth: d.depth(),
        outer_l3: offset(d.outer_l3_offset()),
        inner_l3: offset(d.l3_offset()),
        inner_l4: offset(d.l4_offset()),
        protocol: d.proto().unwrap_or(0),
        kind: d.fragment() as u8 | u8::from(d.family() == Family::V6) << 3 | u8::from(d.is_icmp_error()) << 4,
        tunnel_id,
        tunnel_kind,
        hash_version: HASH_VERSION as u8,
        vlan: d.vlan().unwrap_or(0),
        time_ns,
        wire_len: len.into(),
        len: len.into(),
        link: 1,
        ..Tag::default()
    };
    tag.set_clock(Clock::Generated);
    tag
}

/// The slot of a packet that starts at `start` of its buffer, whose index is still to be filled in.
#[inline]
pub fn slot(tag: &Tag, start: usize) -> Slot {
    Slot {
        buffer: 0,
        offset: start as u16,
        len: tag.len as u16,
        hash: tag.hash,
        flags: 0,
        verdict: Verdict::Free as u8,
        port: 0,
        total: tag.len,
        l3: tag.inner_l3,
        l4: tag.inner_l4,
        time_ns: tag.time_ns,
    }
}
