//! IPv6 fragment header (RFC 8200 section 4.5).

use super::{Field, ip_protocol};
use crate::dissection::Family;
use crate::walk::{Step, Walk};
use crate::{Id, Observer};

/// Next header at 0, offset and flag at 2.
pub(crate) const LEN: usize = 8;
/// Identification.
pub(crate) const ID: Field = 4..8;
/// Fragment offset in the word at 2, in bytes.
pub(crate) const OFFSET: u16 = 0xfff8;
/// Flag in the word at 2: more fragments follow.
pub(crate) const MORE_FRAGMENTS: u16 = 1;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    let fragment = u16::from_be_bytes([header[2], header[3]]);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let start = walk.at();
    walk.skip(LEN)?;
    walk.upper(header[0]);
    // Neither an offset nor more to come: an atomic fragment, the whole datagram (RFC 6946).
    if fragment & (OFFSET | MORE_FRAGMENTS) == 0 {
        walk.id(Id::FragmentId(id));
    } else {
        walk.fragment(id, start, fragment & OFFSET != 0)?;
    }
    ip_protocol::next(Family::V6, header[0])
}
