//! LISP data (RFC 9300 section 5.1).

use super::{ipv4, ipv6};
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Flags and nonce or versions at 0, instance or locator bits at 4.
const LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let rest = walk.rest().get(LEN..).ok_or(Stop::NotTunnel)?;
    let next = match rest.first().map(|byte| byte >> 4) {
        Some(4) if ipv4::likely(rest) => Layer::Ip,
        Some(6) if ipv6::likely(rest) => Layer::Ipv6,
        _ => return Err(Stop::NotTunnel),
    };
    walk.tunnel(TunnelKind::Other, 0);
    walk.skip(LEN)?;
    Ok(next)
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
    fn both_versions_of_ip_and_nothing_else() {
        let header = [0x80, 0, 0, 1, 0, 0, 0, 1];
        carries(&over_udp(4341, &join(&header, &tcp4())), "eth/ip/udp/lisp/ip/tcp");
        carries(&over_udp(4341, &join(&header, &tcp6())), "eth/ip/udp/lisp/ipv6/tcp");
        expect(&over_udp(4341, &join(&header, &[0x55; 60])), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(4341, &header), "eth/ip/udp", Stop::NotTunnel);
    }
}
