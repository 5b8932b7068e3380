//! What is written on a packet: its tag, and the slots that name its buffers.

use flowyard_mem::{NO_OFFSET, Slot, Tag, Verdict, flags, slot_flags};
use flowyard_port::Arrival;
use flowyard_steer::{Decision, Family, Fragment, Glance};

use super::{Parcel, Segment};
use crate::sorter::Route;

pub(super) fn further(first: Slot, offset: u16, len: u16, left: usize) -> Slot {
    let more = if left > 0 { slot_flags::MORE } else { 0 };
    let flags = first.flags & !slot_flags::MORE | slot_flags::CONTINUES | more;
    Slot { offset, len, flags, ..first }
}

/// The tag that the user's function has had in its hands: what is not the function's to say, as it is.
#[inline]
pub(crate) fn corrected(tag: Tag, parcel: &Parcel, decision: &Decision) -> Tag {
    let d = &decision.dissection;
    let tag = Tag { hash: decision.hash, ring: decision.ring, stop: d.stop() as u8, depth: d.depth(), ..tag };
    completed(tag, parcel)
}

/// The tag with what the port knows of the packet. Of its flags, that of a fallback stays.
#[inline]
pub(super) fn completed(tag: Tag, parcel: &Parcel) -> Tag {
    let arrival = &parcel.arrival;
    let fallback = tag.flags & flags::FRAGMENT_FALLBACK;
    let mut tag = Tag {
        time_ns: arrival.time_ns,
        flags: arrival.flags | fallback,
        wire_len: arrival.wire_len,
        len: arrival.len,
        port: parcel.port,
        queue: arrival.queue,
        card_hash: arrival.card_hash,
        stripped_vlan: arrival.stripped_vlan,
        link: arrival.link,
        ..tag
    };
    tag.set_clock(arrival.clock);
    tag
}

fn offset(at: Option<usize>) -> u16 {
    at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_OFFSET)
}

/// The tag of a packet as dissection and built-in policy see it.
#[inline]
pub(crate) fn tag_of(parcel: &Parcel, decision: &Decision, route: Route, hash_version: u8) -> Tag {
    let (d, arrival) = (&decision.dissection, &parcel.arrival);
    let (tunnel_kind, tunnel_id) = d.tunnel().map_or((0, 0), |(kind, id)| (kind as u8, id));
    let fragment = match d.fragment() {
        Fragment::None => 0,
        Fragment::First => 1,
        Fragment::Later => 2,
    };
    let inner_v6 = u8::from(d.family() == Family::V6) << 3;
    let fallback = if route == Route::Fallback { flags::FRAGMENT_FALLBACK } else { 0 };
    let mut tag = Tag {
        hash: decision.hash,
        ring: decision.ring,
        stop: d.stop() as u8,
        depth: d.depth(),
        outer_l3: offset(d.outer_l3_offset()),
        inner_l3: offset(d.l3_offset()),
        inner_l4: offset(d.l4_offset()),
        protocol: d.proto().unwrap_or(0),
        kind: fragment | inner_v6 | u8::from(d.is_icmp_error()) << 4,
        tunnel_id,
        tunnel_kind,
        hash_version,
        vlan: d.vlan().unwrap_or(0),
        user: parcel.user,
        time_ns: arrival.time_ns,
        flags: arrival.flags | fallback,
        wire_len: arrival.wire_len,
        len: arrival.len,
        port: parcel.port,
        queue: arrival.queue,
        card_hash: arrival.card_hash,
        stripped_vlan: arrival.stripped_vlan,
        link: arrival.link,
    };
    tag.set_clock(arrival.clock);
    tag
}

/// The tag of a whole packet of which a glance tells enough.
#[inline(always)]
pub(super) fn tag_of_glance(glance: &Glance, arrival: &Arrival, port: u16, hash_version: u8) -> Tag {
    let (tunnel_kind, tunnel_id) = glance.tunnel.map_or((0, 0), |(kind, id)| (kind as u8, id));
    let mut tag = Tag {
        hash: glance.hash,
        ring: glance.ring,
        stop: glance.stop as u8,
        depth: glance.depth,
        outer_l3: glance.outer_l3,
        inner_l3: glance.l3,
        inner_l4: glance.l4,
        protocol: glance.proto,
        kind: u8::from(glance.family == Family::V6) << 3,
        tunnel_id,
        tunnel_kind,
        hash_version,
        vlan: glance.vlan.unwrap_or(0),
        user: 0,
        time_ns: arrival.time_ns,
        flags: arrival.flags,
        wire_len: arrival.wire_len,
        len: arrival.len,
        port,
        queue: arrival.queue,
        card_hash: arrival.card_hash,
        stripped_vlan: arrival.stripped_vlan,
        link: arrival.link,
    };
    tag.set_clock(arrival.clock);
    tag
}

/// Which flag of a tag shows as which flag of a slot.
const SHOWN: [(u32, u16); 5] = [
    (flags::TRUNCATED, slot_flags::TRUNCATED),
    (flags::CHECKSUM_PARTIAL, slot_flags::CHECKSUM_PARTIAL),
    (flags::GSO, slot_flags::GSO),
    (flags::VLAN_STRIPPED, slot_flags::VLAN_STRIPPED),
    (flags::FRAGMENT_FALLBACK, slot_flags::FRAGMENT_FALLBACK),
];

#[inline]
pub(super) fn slot_of(parcel: &Parcel, hash: u32, tag: &Tag) -> Slot {
    let more = if parcel.rest.is_empty() { 0 } else { slot_flags::MORE };
    let slot = slot_of_segment(&parcel.first, hash, tag);
    Slot { flags: slot.flags | more, ..slot }
}

/// The slot of a packet that is in one buffer.
#[inline(always)]
pub(super) fn slot_of_segment(segment: &Segment, hash: u32, tag: &Tag) -> Slot {
    let mut shown = 0;
    if tag.flags & 0x00ff_ffff != 0 {
        for (bit, flag) in SHOWN {
            shown |= if tag.flags & bit != 0 { flag } else { 0 };
        }
    }
    Slot {
        buffer: 0, // set from the token when it is sent
        offset: segment.offset,
        len: segment.len,
        hash,
        flags: shown,
        verdict: Verdict::Free as u8,
        port: tag.port as u8,
        total: tag.len,
        l3: tag.inner_l3,
        l4: tag.inner_l4,
        time_ns: tag.time_ns,
    }
}
