//! IPv4 (RFC 791 section 3.1).

use super::{Field, ip_protocol};
use crate::dissection::Family;
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// The shortest header.
pub(crate) const MIN_LEN: usize = 20;
/// Total length at 2, identification at 4, flags and fragment offset at 6.
pub(crate) const ID: Field = 4..6;
/// Protocol.
pub(crate) const PROTOCOL: usize = 9;
/// Source address.
pub(crate) const SRC: Field = 12..16;
/// Destination address.
pub(crate) const DST: Field = 16..20;
/// Both addresses.
pub(crate) const ADDRESSES: Field = 12..20;

/// Flag in the word at 6: more fragments follow.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the word at 6, in units of 8 bytes.
pub(crate) const OFFSET: u16 = 0x1fff;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let header: &[u8; MIN_LEN] = walk.header()?;
    let len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || len < MIN_LEN {
        return Err(Stop::Malformed);
    }
    let total: usize = u16::from_be_bytes([header[2], header[3]]).into();
    let fragment = u16::from_be_bytes([header[6], header[7]]) & (MORE_FRAGMENTS | OFFSET);
    let protocol = header[PROTOCOL];
    let start = walk.enter(Family::V4, protocol)?;
    // A total of 0 is segmentation offload: the length is that of the frame.
    if total >= len {
        walk.clip(total);
    } else if total != 0 {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    walk.upper(protocol);
    if fragment != 0 {
        let id = u16::from_be_bytes([header[4], header[5]]).into();
        walk.fragment(id, start, fragment & OFFSET != 0)?;
    }
    ip_protocol::next(Family::V4, protocol)
}

/// Whether these bytes are believable as an IPv4 header, where nothing else says what they are.
pub(crate) fn plausible(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<MIN_LEN>() else {
        return false;
    };
    let len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] >> 4 == 4 && len >= MIN_LEN && (total >= len || total == 0)
}
