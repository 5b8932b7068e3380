//! Provider backbone bridging, MAC in MAC (IEEE 802.1Q clause 9.7, 802.1ah).

use super::eth;
use crate::walk::{Step, Walk};
use crate::{Id, Observer};

/// Service instance tag (4 bytes), then the customer's Ethernet header.
const LEN: usize = 4 + eth::LEN;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    let service = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    walk.id(Id::Isid(service));
    let kind = u16::from_be_bytes([header[16], header[17]]);
    walk.skip(LEN)?;
    eth::by_type_or_length(kind, walk)
}
