//! A packet's segments put together, with a VLAN tag that was taken off in its place again.

use flowyard_mem::{Region, Stock, flags};

use super::{Departure, Leaving};

/// Bytes before a frame's VLAN tag: two hardware addresses (IEEE 802.1Q, 9.3).
pub(crate) const ADDRESSES_BYTES: usize = 12;
/// Most bytes of a buffer.
pub(crate) const BUFFER_BYTES: usize = 4096;

/// The tag to put back: TPID and TCI.
pub(crate) fn vlan(departure: &Departure) -> Option<[u8; 4]> {
    let tpid: u16 = if departure.has(flags::VLAN_SERVICE) { 0x88a8 } else { 0x8100 };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), departure.stripped_vlan.to_be_bytes());
    departure.has(flags::VLAN_STRIPPED).then_some([a, b, c, d])
}

/// Bytes of a packet over all its segments.
pub(crate) fn len(packet: &[Leaving]) -> usize {
    packet.iter().map(|segment| usize::from(segment.len)).sum()
}

/// Appends a packet to `to`. Answers false if it is no frame: too short for the tag that belongs in it.
pub(crate) fn append(region: &Region, packet: &[Leaving], departure: &Departure, to: &mut Vec<u8>) -> bool {
    let start = to.len();
    let mut scratch = [0; BUFFER_BYTES]; // used only beside foreign writers
    for Leaving { buffer, offset, len } in packet {
        to.extend_from_slice(region.peek(buffer, (*offset).into(), (*len).into(), &mut scratch));
    }
    let Some(tag) = vlan(departure) else { return true };
    let at = start + ADDRESSES_BYTES;
    if to.len() < at {
        return false;
    }
    to.extend_from_slice(&tag);
    to[at..].rotate_right(tag.len());
    true
}

/// Gives a packet's buffers back.
pub(crate) fn free(packet: &mut Vec<Leaving>, stock: &mut Stock) {
    packet.drain(..).for_each(|segment| stock.put(segment.buffer));
}
