//! VXLAN (RFC 7348 section 5), with the group policy extension (draft-smith-vxlan-group-policy).

use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Flags at 0, group policy at 2, network at 4, reserved at 7.
pub(crate) const LEN: usize = 8;
/// The network identifier is valid.
pub(crate) const VALID: u8 = 0x08;
/// The generic protocol extension, on the port of plain VXLAN.
const PROTOCOL: u8 = 0x04;
/// Flags that the group policy extension defines.
pub(crate) const GROUP: u8 = 0x80;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[flags, _, _, _, v0, v1, v2, _]: &[u8; LEN] = walk.header()?;
    if flags == VALID | PROTOCOL {
        return Ok(Layer::VxlanGpe);
    }
    if flags & !GROUP != VALID {
        return Err(Stop::NotTunnel);
    }
    let network = u32::from_be_bytes([0, v0, v1, v2]);
    walk.id(Id::VxlanVni(network));
    walk.tunnel(TunnelKind::Vxlan, network);
    walk.virtual_network(network);
    walk.skip(LEN)?;
    Ok(Layer::Eth)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn carries_ethernet() {
        let inner = vxlan(0x123456, &eth(0x0800, &tcp4()));
        for port in [4789, 8472] {
            let found = carries(&eth(0x0800, &ipv4(A4, B4, 17, &udp(1, port, &inner))), "eth/ip/udp/vxlan/eth/ip/tcp");
            assert_eq!(found.tunnel(), Some((crate::TunnelKind::Vxlan, 0x123456)));
        }
        expect(&eth(0x0800, &ipv4(A4, B4, 17, &udp(4789, 1, &inner))), "eth/ip/udp", Stop::Transport);
    }
}
