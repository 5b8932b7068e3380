//! What is written on a packet: its tag, and the slots that name its buffers.

use flowyard_mem::{NO_OFFSET, Slot, Tag, Verdict, flags, slot_flags};
use flowyard_port::Arrival;
use flowyard_steer::{Decision, Family, Fragment, Glance};

use super::Parcel;
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
    let d = &decision.dissection;
    let (tunnel_kind, tunnel_id) = d.tunnel().map_or((0, 0), |(kind, id)| (kind as u8, id));
    let fragment = match d.fragment() {
        Fragment::None => 0,
        Fragment::First => 1,
        Fragment::Later => 2,
    };
    let inner_v6 = u8::from(d.family() == Family::V6) << 3;
    let head = Tag {
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
        flags: if route == Route::Fallback { flags::FRAGMENT_FALLBACK } else { 0 },
        ..Tag::default()
    };
    completed(head, parcel)
}

// Fields of tags and slots are put into words lowest bits first, as they lie in memory.
const _: () =
    assert!(cfg!(target_endian = "little"), "tags and slots are of machines that store the lowest byte first");

/// The tag of a whole packet of which a glance tells enough, as its words: the same as [`tag_of`].
#[inline(always)]
pub(crate) fn tag_words(glance: &Glance, arrival: &Arrival, port: u16, hash_version: u8) -> [u64; 8] {
    let [first, second, third] = glance.words;
    let flags = u64::from(arrival.flags) | u64::from(arrival.wire_len) << 32;
    let beside = u64::from(arrival.stripped_vlan) << 32 | u64::from(arrival.link) << 48;
    [
        first,
        second,
        third | u64::from(hash_version) << 40,
        0, // the user's
        arrival.time_ns,
        flags | (arrival.clock as u64) << 24,
        u64::from(arrival.len) | u64::from(port) << 32 | u64::from(arrival.queue) << 48,
        u64::from(arrival.card_hash) | beside,
    ]
}

/// The slot of the same packet, as its words, without the buffer's index: the same as [`slot_of`].
#[inline(always)]
pub(super) fn slot_words(glance: &Glance, offset: u16, len: u16, arrival: &Arrival, port: u16) -> [u64; 4] {
    let shown = if arrival.flags == 0 { 0 } else { shown_seldom(arrival.flags) };
    let (hash, port) = (u64::from(glance.hash()), u64::from(port as u8));
    let ends = u64::from(glance.l3()) << 32 | u64::from(glance.l4()) << 48;
    [
        u64::from(offset) << 32 | u64::from(len) << 48,
        hash | u64::from(shown) << 32 | (Verdict::Free as u64) << 48 | port << 56,
        u64::from(arrival.len) | ends,
        arrival.time_ns,
    ]
}

/// Which flag of a tag shows as which flag of a slot.
const SHOWN: [(u32, u16); 5] = [
    (flags::TRUNCATED, slot_flags::TRUNCATED),
    (flags::CHECKSUM_PARTIAL, slot_flags::CHECKSUM_PARTIAL),
    (flags::GSO, slot_flags::GSO),
    (flags::VLAN_STRIPPED, slot_flags::VLAN_STRIPPED),
    (flags::FRAGMENT_FALLBACK, slot_flags::FRAGMENT_FALLBACK),
];

#[inline(always)]
fn shown(flags: u32) -> u16 {
    SHOWN.iter().fold(0, |shown, (bit, flag)| shown | if flags & bit != 0 { *flag } else { 0 })
}

#[cold]
#[inline(never)]
fn shown_seldom(flags: u32) -> u16 {
    shown(flags)
}

#[inline]
pub(super) fn slot_of(parcel: &Parcel, hash: u32, tag: &Tag) -> Slot {
    let more = if parcel.rest.is_empty() { 0 } else { slot_flags::MORE };
    Slot {
        buffer: 0, // set from the token when it is sent
        offset: parcel.first.offset,
        len: parcel.first.len,
        hash,
        flags: shown(tag.flags) | more,
        verdict: Verdict::Free as u8,
        port: parcel.port as u8,
        total: parcel.arrival.len,
        l3: tag.inner_l3,
        l4: tag.inner_l4,
        time_ns: parcel.arrival.time_ns,
    }
}

#[cfg(test)]
mod tests {
    use flowyard_mem::{Buffer, Clock};
    use flowyard_port::traffic::{Mix, MixOptions};
    use flowyard_steer::{Classifier, FlowHash, FragmentTable, Frame, LinkType, Policy, Table};

    use super::super::Segment;
    use super::*;

    /// Words and fields say the same, of every packet of the mix that a glance is enough for.
    #[test]
    fn a_glance_writes_what_a_whole_look_writes() {
        let table = Table::even(7).expect("seven rings are a table");
        let classifier = Classifier { policy: Policy::default(), hash: FlowHash::default(), table };
        let glancer = classifier.glancer().expect("the default policy is plain");
        let mut mix = Mix::new(&MixOptions { flows: 300, ..MixOptions::default() });
        let mut memory = FragmentTable::default();
        let (mut frame, mut glanced) = ([0; Mix::FRAME_BYTES], 0);
        for number in 0..20_000u32 {
            let len = mix.next(&mut frame).len;
            let stripped = number.is_multiple_of(3);
            let arrival = Arrival {
                time_ns: u64::from(number) << 33 | 5,
                clock: [Clock::Realtime, Clock::Hardware, Clock::None][number as usize % 3],
                flags: if stripped { flags::VLAN_STRIPPED | flags::CARD_HASH | flags::GSO } else { 0 },
                len: len as u32,
                wire_len: len as u32 + number,
                queue: number as u16,
                stripped_vlan: if stripped { 0xa00 | number as u16 & 0xff } else { 0 },
                card_hash: number.wrapping_mul(77_777),
                link: 1,
                number: number.into(),
            };
            let seen = Frame {
                bytes: &frame[..len],
                link: LinkType(1),
                stripped_vlan: stripped.then_some(arrival.stripped_vlan),
                wire_len: arrival.wire_len,
            };
            let mut glance = Glance::default();
            if !glancer.glance(&seen, &mut glance) {
                continue;
            }
            glanced += 1;
            let verdict = classifier.classify(&seen, &mut memory, 0);
            let decision = verdict.decision();
            let first = Segment { buffer: Buffer::none(), offset: 320, len: len as u16 };
            let parcel = Parcel { first, rest: Vec::new(), arrival, port: 0x105, now_ns: 0, user: 0 };
            let tag = tag_of(&parcel, decision, Route::Direct, 1);
            let words = tag_words(&glance, &arrival, 0x105, 1);
            assert_eq!(Tag::from_words(words), tag, "packet {number}");
            let slot = slot_of(&parcel, decision.hash, &tag);
            assert_eq!(
                Slot::from_words(slot_words(&glance, 320, len as u16, &arrival, 0x105)),
                slot,
                "packet {number}"
            );
            assert_eq!((glance.hash(), glance.ring()), (decision.hash, decision.ring));
        }
        assert!(glanced > 14_000, "{glanced}: most packets are common");
    }
}
