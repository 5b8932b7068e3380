//! VLAN and service VLAN tags (IEEE 802.1Q clause 9.6).

use super::eth;
use crate::Observer;
use crate::walk::{Step, Walk};

/// Tag control information at 0, type or length at 2.
const LEN: usize = 4;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    walk.vlan(u16::from_be_bytes([header[0], header[1]]));
    let kind = u16::from_be_bytes([header[2], header[3]]);
    walk.skip(LEN)?;
    eth::by_type_or_length(kind, walk)
}
