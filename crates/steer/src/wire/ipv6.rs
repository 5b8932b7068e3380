//! IPv6 (RFC 8200 section 3).

use super::{Field, ip_protocol};
use crate::dissection::Family;
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// The fixed header: payload length at 4, next header at 6.
pub(crate) const LEN: usize = 40;
/// Source address.
pub(crate) const SRC: Field = 8..24;
/// Destination address.
pub(crate) const DST: Field = 24..40;
/// Both addresses.
pub(crate) const ADDRESSES: Field = 8..40;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    if header[0] >> 4 != 6 {
        return Err(Stop::Malformed);
    }
    let payload: usize = u16::from_be_bytes([header[4], header[5]]).into();
    let protocol = header[6];
    walk.enter(Family::V6, protocol)?;
    walk.skip(LEN)?;
    // A length of 0 is a jumbogram (RFC 2675) or segmentation offload.
    if payload != 0 {
        walk.clip(payload);
    }
    walk.upper(protocol);
    ip_protocol::next(Family::V6, protocol)
}

/// Whether these bytes are believable as an IPv6 header, where nothing else says what they are.
pub(crate) fn plausible(bytes: &[u8]) -> bool {
    matches!(bytes.first_chunk::<LEN>(), Some(header) if header[0] >> 4 == 6)
}
