//! GTP: user plane version 1 (3GPP TS 29.281 section 5.1), control planes as themselves
//! (TS 29.060, TS 29.274).

use super::{ipv4, ipv6};
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

/// Flags at 0, message type at 1, length at 2, tunnel endpoint at 4.
pub(crate) const LEN: usize = 8;
/// Version, high three bits of the flags.
pub(crate) const VERSION_1: u8 = 1;
const VERSION_2: u8 = 2;
/// The port of the control planes.
pub(crate) const PORT_CONTROL: u16 = 2123;
/// Protocol type: GTP, not GTP′.
pub(crate) const NOT_PRIME: u8 = 0x10;
/// Any of: extension header, sequence number, N-PDU number.
pub(crate) const OPTIONS: u8 = 0x07;
pub(crate) const EXTENSION: u8 = 0x04;
/// Sequence number, N-PDU number, type of the first extension header.
pub(crate) const OPTIONS_LEN: usize = 4;
/// T-PDU: a user packet.
pub(crate) const MESSAGE_USER: u8 = 255;
/// Extension headers are few: more than this is damage.
const MAX_EXTENSIONS: usize = 8;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[flags, message, l0, l1, teid @ ..]: &[u8; LEN] = walk.header()?;
    if flags >> 5 == VERSION_2 && walk.level().has_port(PORT_CONTROL) {
        return Ok(Layer::Gtpv2);
    }
    if flags >> 5 != VERSION_1 || flags & NOT_PRIME == 0 {
        return Err(Stop::NotTunnel);
    }
    let teid = u32::from_be_bytes(teid);
    walk.id(Id::GtpMessage(message));
    walk.id(Id::GtpTeid(teid));
    walk.skip(LEN)?;
    if message != MESSAGE_USER {
        return Err(Stop::Control);
    }
    walk.clip(u16::from_be_bytes([l0, l1]).into());
    walk.join(KeyId::Teid, teid);
    walk.tunnel(TunnelKind::Gtp, teid);
    if flags & OPTIONS != 0 {
        let options: &[u8; OPTIONS_LEN] = walk.header()?;
        walk.skip(OPTIONS_LEN)?;
        if flags & EXTENSION != 0 {
            walk.skip(extensions_len(options[3], walk.rest())?)?;
        }
    }
    let rest = walk.rest();
    match rest.first().ok_or(Stop::Truncated)? >> 4 {
        4 if ipv4::plausible(rest) => Ok(Layer::Ip),
        6 if ipv6::plausible(rest) => Ok(Layer::Ipv6),
        _ => Err(Stop::Opaque),
    }
}

/// The length of the extension headers (section 5.2.1): length in units of 4 bytes first, next type
/// last.
#[inline]
pub(crate) fn extensions_len(mut kind: u8, rest: &[u8]) -> Result<usize, Stop> {
    let mut end = 0;
    for _ in 0..MAX_EXTENSIONS {
        if kind == 0 {
            return Ok(end);
        }
        let len = usize::from(*rest.get(end).ok_or(Stop::Truncated)?) * 4;
        if len == 0 {
            return Err(Stop::Malformed);
        }
        end += len;
        kind = *rest.get(end - 1).ok_or(Stop::Truncated)?;
    }
    Err(Stop::Malformed)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn user_packets_with_and_without_options() {
        for extensions in 0..4 {
            let packet = udp(2152, 2152, &gtp(42, extensions, &tcp4()));
            let found = carries(&eth(0x0800, &ipv4(A4, B4, 17, &packet)), "eth/ip/udp/gtp/ip/tcp");
            assert_eq!(found.tunnel(), Some((crate::TunnelKind::Gtp, 42)));
        }
    }

    #[test]
    fn what_carries_no_packet() {
        let mut echo = gtp(0, 0, &[]);
        echo[1] = 1;
        expect(&eth(0x0800, &ipv4(A4, B4, 17, &udp(2152, 2152, &echo))), "eth/ip/udp/gtp", Stop::Control);
        expect(&eth(0x0800, &ipv4(A4, B4, 17, &udp(2152, 2152, &gtp(1, 0, &[0; 40])))), "eth/ip/udp/gtp", Stop::Opaque);
    }
}
