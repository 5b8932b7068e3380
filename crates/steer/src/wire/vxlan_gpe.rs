//! VXLAN with generic protocol extension (draft-ietf-nvo3-vxlan-gpe section 3).

use super::nsh;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Observer, Stop};

/// Flags at 0, next protocol at 3, network at 4.
const LEN: usize = 8;
/// The network identifier is valid.
const VALID: u8 = 0x08;
/// The next protocol is given; without it, Ethernet.
const PROTOCOL: u8 = 0x04;
const ETHERNET: u8 = 3;
/// Version and reserved flags.
const ZERO: u8 = 0xf0;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[flags, _, _, protocol, v0, v1, v2, _]: &[u8; LEN] = walk.header()?;
    let protocol = if flags & PROTOCOL != 0 { protocol } else { ETHERNET };
    let next = nsh::next(protocol);
    if flags & ZERO != 0 || flags & (VALID | PROTOCOL) == 0 || next.is_err() {
        return Err(Stop::NotTunnel);
    }
    let network = u32::from_be_bytes([0, v0, v1, v2]);
    walk.id(Id::VxlanVni(network));
    walk.tunnel(TunnelKind::Vxlan, network);
    walk.virtual_network(network);
    walk.skip(LEN)?;
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
    fn protocols_and_the_port_of_plain_vxlan() {
        let gpe = |flags: u8, next: u8, packet: &[u8]| join(&[flags, 0, 0, next, 0, 1, 2, 0], packet);
        for port in [4790, 4789] {
            let stack =
                |rest: &str| std::format!("eth/ip/udp/{}vxlan_gpe/{rest}", if port == 4789 { "vxlan/" } else { "" });
            let found = carries(&over_udp(port, &gpe(0x0c, 1, &tcp4())), &stack("ip/tcp"));
            assert_eq!(found.tunnel(), Some((TunnelKind::Vxlan, 0x0102)));
            carries(&over_udp(port, &gpe(0x0c, 2, &tcp6())), &stack("ipv6/tcp"));
            carries(&over_udp(port, &gpe(0x0c, 3, &eth(0x0800, &tcp4()))), &stack("eth/ip/tcp"));
            carries(&over_udp(port, &gpe(0x0c, 4, &nsh(1, &tcp4()))), &stack("nsh/ip/tcp"));
        }
        carries(&over_udp(4790, &gpe(0x08, 0, &eth(0x0800, &tcp4()))), "eth/ip/udp/vxlan_gpe/eth/ip/tcp");
        expect(&over_udp(4790, &gpe(0x0c, 99, &tcp4())), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(4790, &gpe(0x3c, 1, &tcp4())), "eth/ip/udp", Stop::NotTunnel);
    }
}
