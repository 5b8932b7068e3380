//! AYIYA, anything in anything (draft-massar-v6ops-ayiya-02 section 3).

use super::ip_protocol;
use crate::dissection::{Family, TunnelKind};
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// Identity length (power of two, high nibble) at 0, signature length (units of 4 bytes, high
/// nibble) at 1, operation (low nibble) at 2, next header at 3, epoch at 4.
const LEN: usize = 8;
/// Forward the packet.
const FORWARD: u8 = 1;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[identity, signature, operation, protocol, ..]: &[u8; LEN] = walk.header()?;
    if !matches!(protocol, 4 | 41 | 59) || identity >> 4 > 8 {
        return Err(Stop::NotTunnel);
    }
    walk.skip(LEN + (1 << (identity >> 4)) + usize::from(signature >> 4) * 4)?;
    if operation & 0x0f != FORWARD {
        return Err(Stop::Control);
    }
    walk.tunnel(TunnelKind::Other, 0);
    ip_protocol::next(Family::V6, protocol)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    /// An identity of 16 bytes, a signature of 5 words, operation and next header.
    fn ayiya(operation: u8, next: u8, packet: &[u8]) -> std::vec::Vec<u8> {
        [&[0x41, 0x52, operation, next, 0, 0, 0, 9][..], &[7; 36], packet].concat()
    }

    #[test]
    fn forwarded_packets_and_control() {
        carries(&over_udp(5072, &ayiya(0x11, 41, &tcp6())), "eth/ip/udp/ayiya/ipv6/tcp");
        carries(&over_udp(5072, &ayiya(0x11, 4, &tcp4())), "eth/ip/udp/ayiya/ip/tcp");
        expect(&over_udp(5072, &ayiya(0x10, 59, &[])), "eth/ip/udp/ayiya", Stop::Control);
        expect(&over_udp(5072, &ayiya(0x11, 6, &[])), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(5072, &ayiya(0x11, 41, &[])[..20]), "eth/ip/udp/ayiya", Stop::Truncated);
    }
}
