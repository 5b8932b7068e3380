//! IPv6 extension headers (RFC 8200 section 4; RFC 6275 section 6.1; RFC 7401; RFC 5533) and the
//! authentication header (RFC 4302 section 2).

use super::ip_protocol;
use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

/// Next header at 0, length at 1 in units of 8 bytes without the first.
const MIN_LEN: usize = 8;
/// Routing type at 2 (RFC 8200 section 4.4).
const ROUTING_TYPE: usize = 2;
/// Next header at 0, length at 1 in units of 4 bytes less 2, security parameter index at 4.
const AH_MIN_LEN: usize = 12;
/// No next header.
const NONE: u8 = 59;

#[inline]
pub(crate) fn step<O: Observer>(layer: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; MIN_LEN] = walk.header()?;
    if layer == Layer::Routing {
        walk.id(Id::RoutingType(header[ROUTING_TYPE]));
    }
    walk.skip((usize::from(header[1]) + 1) * 8)?;
    if matches!(layer, Layer::Mipv6 | Layer::Hip | Layer::Shim6) && header[0] == NONE {
        return Err(Stop::Control);
    }
    walk.upper(header[0]);
    ip_protocol::next(walk.level().family, header[0])
}

#[inline]
pub(crate) fn ah<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; AH_MIN_LEN] = walk.header()?;
    let index = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    walk.id(Id::AhSpi(index));
    walk.join(KeyId::Spi, index);
    let len = (usize::from(header[1]) + 2) * 4;
    if len < AH_MIN_LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    walk.upper(header[0]);
    ip_protocol::next(walk.level().family, header[0])
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn chains() {
        let tcp = tcp(1000, 2000, &[]);
        let chain = ext6(60, &ext6(43, &ext6(51, &ah(6, &tcp))));
        let found = carries(&eth(0x86dd, &ipv6(A6, B6, 0, &chain)), "eth/ipv6/hopopts/dstopts/routing/ah/tcp");
        assert_eq!(found.proto(), Some(6));
        carries(&eth(0x0800, &ipv4(A4, B4, 51, &ah(6, &tcp))), "eth/ip/ah/tcp");
    }

    #[test]
    fn damage() {
        let long = [6, 200, 0, 0, 0, 0, 0, 0];
        expect(&eth(0x86dd, &ipv6(A6, B6, 0, &long)), "eth/ipv6/hopopts", Stop::Truncated);
        let mut short = ah(6, &[]);
        short[1] = 0;
        expect(&eth(0x86dd, &ipv6(A6, B6, 51, &short)), "eth/ipv6/ah", Stop::Malformed);
    }
}
