//! Teredo (RFC 4380 section 5.1.1): IPv6 in UDP, behind optional indications.

use super::ipv6;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Authentication: lengths of client and value at 2 and 3, nonce and confirmation after both.
const AUTHENTICATION: [u8; 2] = [0, 1];
const AUTHENTICATION_LEN: usize = 4 + 8 + 1;
/// Origin: port and address.
const ORIGIN: [u8; 2] = [0, 0];
const ORIGIN_LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let mut rest = walk.rest();
    if rest.starts_with(&AUTHENTICATION) {
        let &[_, _, client, value] = rest.first_chunk().ok_or(Stop::NotTunnel)?;
        let len = AUTHENTICATION_LEN + usize::from(client) + usize::from(value);
        rest = rest.get(len..).ok_or(Stop::NotTunnel)?;
    }
    if rest.starts_with(&ORIGIN) {
        rest = rest.get(ORIGIN_LEN..).ok_or(Stop::NotTunnel)?;
    }
    if !ipv6::likely(rest) {
        return Err(Stop::NotTunnel);
    }
    walk.tunnel(TunnelKind::Other, 0);
    walk.skip(walk.rest().len() - rest.len())?;
    Ok(Layer::Ipv6)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    #[test]
    fn indications_are_optional() {
        carries(&over_udp(3544, &tcp6()), "eth/ip/udp/teredo/ipv6/tcp");
        let origin = [0, 0, 0xf3, 0x21, 1, 2, 3, 4];
        carries(&over_udp(3544, &join(&origin, &tcp6())), "eth/ip/udp/teredo/ipv6/tcp");
        // A client identifier of 2 bytes and a value of 3, nonce and confirmation.
        let authentication = [0, 1, 2, 3, 9, 9, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        carries(&over_udp(3544, &join(&authentication, &tcp6())), "eth/ip/udp/teredo/ipv6/tcp");
        carries(&over_udp(3544, &[&authentication[..], &origin, &tcp6()].concat()), "eth/ip/udp/teredo/ipv6/tcp");
        // From the port as well.
        carries(&eth(0x0800, &ipv4(B4, A4, 17, &udp(3544, 40000, &tcp6()))), "eth/ip/udp/teredo/ipv6/tcp");
    }

    #[test]
    fn what_is_not_teredo() {
        expect(&over_udp(3544, &tcp4()), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(3544, &[0, 1, 255, 255, 0]), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(3544, &[]), "eth/ip/udp", Stop::NotTunnel);
    }
}
