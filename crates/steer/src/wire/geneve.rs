//! GENEVE (RFC 8926 section 3.4).

use super::ethertype;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Observer, Stop};

/// Version and options at 0, flags at 1, protocol at 2, network at 4.
const LEN: usize = 8;
/// Version, high two bits: only 0 is defined.
const VERSION: u8 = 0xc0;
/// Options, in units of 4 bytes.
const OPTIONS: u8 = 0x3f;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[first, _, p0, p1, v0, v1, v2, _]: &[u8; LEN] = walk.header()?;
    let next = ethertype::next(u16::from_be_bytes([p0, p1]));
    if first & VERSION != 0 || next.is_err() {
        return Err(Stop::NotTunnel);
    }
    let network = u32::from_be_bytes([0, v0, v1, v2]);
    walk.id(Id::GeneveVni(network));
    walk.tunnel(TunnelKind::Geneve, network);
    walk.virtual_network(network);
    walk.skip(LEN + usize::from(first & OPTIONS) * 4)?;
    next
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{Stop, TunnelKind};

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    #[test]
    fn options_are_skipped() {
        for options in [0, 1, 63] {
            let bridged = geneve(0x0a_0b0c, options, 0x6558, &eth(0x0800, &tcp4()));
            let found = carries(&over_udp(6081, &bridged), "eth/ip/udp/geneve/eth/ip/tcp");
            assert_eq!(found.tunnel(), Some((TunnelKind::Geneve, 0x0a_0b0c)));
            carries(&over_udp(6081, &geneve(1, options, 0x86dd, &tcp6())), "eth/ip/udp/geneve/ipv6/tcp");
        }
    }

    #[test]
    fn what_is_not_geneve() {
        let mut version = geneve(1, 0, 0x0800, &tcp4());
        version[0] |= 0x40;
        expect(&over_udp(6081, &version), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(6081, &geneve(1, 0, 0x1234, &tcp4())), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(6081, &geneve(1, 63, 0x0800, &[])[..40]), "eth/ip/udp/geneve", Stop::Truncated);
    }
}
