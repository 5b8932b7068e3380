//! Copying a packet into as many buffers as it needs.

use flowyard_mem::{Region, Stock};

use crate::{Arrival, Received};

/// Buffers that a packet of `len` bytes takes.
#[inline]
pub(crate) fn needed(region: &Region, len: usize) -> usize {
    len.div_ceil(region.geometry().packet_capacity()).max(1)
}

/// Copies a packet into buffers and appends its segments to `batch`. Answers false, and takes
/// nothing, if `stock` has too few.
#[inline]
pub(crate) fn append(
    region: &Region,
    stock: &mut Stock,
    batch: &mut Vec<Received>,
    bytes: &[u8],
    arrival: Arrival,
) -> bool {
    if stock.len() < needed(region, bytes.len()) {
        return false;
    }
    let geometry = region.geometry();
    let (offset, capacity) = (geometry.packet_offset(), geometry.packet_capacity());
    let mut rest = bytes;
    loop {
        let (piece, after) = rest.split_at(rest.len().min(capacity));
        let Some(mut buffer) = stock.take() else { return false };
        let fits = region.write(&mut buffer, offset, piece);
        debug_assert!(fits, "a piece is no longer than a buffer's capacity");
        let more = !after.is_empty();
        batch.push(Received { buffer, offset: offset as u16, segment_len: piece.len() as u16, more, arrival });
        if !more {
            return true;
        }
        rest = after;
    }
}
