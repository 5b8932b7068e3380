//! IPv4 (RFC 791 section 3.1).

use super::{Field, ip_protocol, ipv6};
use crate::dissection::Family;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

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
/// Longest packet that a tunnel in UDP is believed to carry, in bytes: a jumbo frame's.
pub(crate) const LONGEST: usize = 9216;
/// Both addresses.
pub(crate) const ADDRESSES: Field = 12..20;

/// Flag in the word at 6: more fragments follow.
pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
/// Fragment offset in the word at 6, in units of 8 bytes.
pub(crate) const OFFSET: u16 = 0x1fff;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; MIN_LEN] = walk.header()?;
    let len = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || len < MIN_LEN {
        return mislabelled(walk.rest());
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

/// IPv6 where IPv4 was announced, as some captures have it; anything else is damage.
#[cold]
fn mislabelled(rest: &[u8]) -> Step {
    if ipv6::plausible(rest) { Ok(Layer::Ipv6) } else { Err(Stop::Malformed) }
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

/// Whether these bytes are believable as an IPv4 header where anything may stand: beyond that, the
/// protocol is a known one and the packet no longer than frames are.
pub(crate) fn likely(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<MIN_LEN>().filter(|_| plausible(bytes)) else {
        return false;
    };
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    total <= LONGEST && ip_protocol::is_known(Family::V4, header[PROTOCOL])
}

/// Whether the header checksum is right (RFC 1071); options are not looked at, so a header with
/// options never is.
#[cold]
pub(crate) fn sums_up(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<MIN_LEN>() else {
        return false;
    };
    let words = header.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    header[0] == 0x45 && (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn padding_is_not_payload() {
        let mut frame = eth(0x0800, &ipv4(A4, B4, 17, &udp(1, 2, b"x")));
        let end = frame.len();
        frame.extend([0xee; 17]);
        let found = expect(&frame, "eth/ip/udp", Stop::Transport);
        assert_eq!((found.payload_offset(), found.payload_end()), (end - 1, end));
    }

    #[test]
    fn options_and_offload() {
        let mut packet = tcp4();
        packet.splice(20..20, [1; 8]);
        packet[0] = 0x47;
        packet[3] += 8;
        carries(&eth(0x0800, &packet), "eth/ip/tcp");
        let mut packet = tcp4();
        packet[2..4].fill(0);
        carries(&eth(0x0800, &packet), "eth/ip/tcp");
    }

    #[test]
    fn what_contradicts_itself() {
        for (at, value) in [(0, 0x44), (0, 0x55), (3, 19)] {
            let mut packet = tcp4();
            packet[at] = value;
            packet[2] = 0;
            expect(&eth(0x0800, &packet), "eth/ip", Stop::Malformed);
        }
        expect(&eth(0x0800, &tcp4()[..19]), "eth/ip", Stop::Truncated);
    }

    #[test]
    fn extension_headers_are_not_of_ipv4() {
        let found = expect(&eth(0x0800, &ipv4(A4, B4, 44, &[6; 40])), "eth/ip", Stop::UnknownProtocol);
        assert_eq!(found.proto(), Some(44));
    }

    #[test]
    fn fragments() {
        let piece = |word| eth(0x0800, &ipv4_piece(A4, B4, 6, 7, word, &tcp(1000, 2000, &[0; 4])));
        let first = carries(&piece(0x2000), "eth/ip/tcp");
        assert_eq!(first.fragment(), crate::Fragment::First);
        let frame = piece(0x2000);
        let learned: std::vec::Vec<_> = first.first_fragments(&frame).collect();
        let frame = piece(0x0003);
        let later = expect(&frame, "eth/ip", Stop::LaterFragment);
        assert_eq!((later.fragment(), later.sport()), (crate::Fragment::Later, None));
        assert_eq!(later.awaited(&frame), learned.first().copied());
        let piece = later.awaited(&frame).unwrap().piece();
        assert_eq!((piece.offset_bytes, piece.len_bytes, piece.last), (24, 24, true));
    }
}
