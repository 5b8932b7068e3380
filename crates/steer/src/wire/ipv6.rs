//! IPv6 (RFC 8200 section 3).

use super::{Field, ip_protocol, ipv4};
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

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
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

/// Whether these bytes are believable as an IPv6 header where anything may stand: beyond that, the
/// next header is a known one and the packet no longer than frames are.
pub(crate) fn likely(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<LEN>().filter(|_| plausible(bytes)) else {
        return false;
    };
    let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
    payload <= ipv4::LONGEST && ip_protocol::is_known(Family::V6, header[6])
}

/// Whether the payload ends where the bytes do.
#[cold]
pub(crate) fn fits(bytes: &[u8]) -> bool {
    let Some(header) = bytes.first_chunk::<LEN>() else {
        return false;
    };
    usize::from(u16::from_be_bytes([header[4], header[5]])) + LEN == bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn in_all_combinations_with_ipv4() {
        let six_in_six = ipv6(B6, A6, 41, &tcp6());
        carries(&eth(0x86dd, &six_in_six), "eth/ipv6/ipv6/tcp");
        carries(&eth(0x86dd, &ipv6(B6, A6, 4, &tcp4())), "eth/ipv6/ip/tcp");
        carries(&eth(0x0800, &ipv4(B4, A4, 41, &tcp6())), "eth/ip/ipv6/tcp");
        let found = carries(&eth(0x0800, &ipv4(B4, A4, 4, &tcp4())), "eth/ip/ip/tcp");
        assert_eq!((found.depth(), found.outer_l3_offset(), found.l3_offset()), (2, Some(14), Some(34)));
    }

    #[test]
    fn damage() {
        let mut packet = tcp6();
        packet[0] = 0x40;
        expect(&eth(0x86dd, &packet), "eth/ipv6", Stop::Malformed);
        expect(&eth(0x86dd, &tcp6()[..39]), "eth/ipv6", Stop::Truncated);
        expect(&eth(0x86dd, &ipv6(A6, B6, 59, &[0; 9])), "eth/ipv6", Stop::NoNextHeader);
    }

    #[test]
    fn too_many_headers() {
        let mut packet = tcp6();
        for _ in 0..9 {
            packet = ipv6(A6, B6, 41, &packet);
        }
        let (found, _) = look(crate::LinkType::ETHERNET, &eth(0x86dd, &packet));
        assert_eq!((found.stop(), found.depth()), (Stop::Depth, 8));
    }
}
