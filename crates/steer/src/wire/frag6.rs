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
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn first_later_and_atomic() {
        let piece = |word| eth(0x86dd, &ipv6(A6, B6, 44, &frag6(6, word, 9, &tcp(1000, 2000, &[0; 4]))));
        let frame = piece(1);
        let first = carries(&frame, "eth/ipv6/frag6/tcp");
        assert_eq!(first.fragment(), crate::Fragment::First);
        let learned: std::vec::Vec<_> = first.first_fragments(&frame).collect();
        let frame = piece(24);
        let later = expect(&frame, "eth/ipv6/frag6", Stop::LaterFragment);
        assert_eq!(later.awaited(&frame), learned.first().copied());
        let piece_of = later.awaited(&frame).unwrap().piece();
        assert_eq!((piece_of.offset_bytes, piece_of.len_bytes, piece_of.last), (24, 24, true));
        assert_eq!(carries(&piece(0), "eth/ipv6/frag6/tcp").fragment(), crate::Fragment::None);
    }
}
