//! UDP (RFC 768).

use super::transport::PORTS_LEN;
use super::{gre, mpls};
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Source port at 0, destination port at 2, length at 4.
const LEN: usize = 8;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[s0, s1, d0, d1]: &[u8; PORTS_LEN] = walk.header()?;
    let (source, destination) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    walk.ports(source, destination);
    let header: &[u8; LEN] = walk.header()?;
    let len: usize = u16::from_be_bytes([header[4], header[5]]).into();
    // A length of 0 is a jumbogram (RFC 2675) or segmentation offload.
    if len >= LEN {
        walk.clip(len);
    }
    walk.skip(LEN)?;
    let special = walk.policy.udp_tunnels.special(source, destination).ok_or(Stop::Transport)?;
    walk.level().peers = special.peers;
    let tunnel = special.tunnel.ok_or(Stop::Transport)?;
    // These have steps of their own that take anything, elsewhere rightly so.
    let refused = match tunnel {
        Layer::Mpls => !mpls::plausible(walk.rest()),
        Layer::Gre => !gre::plausible(walk.rest()),
        _ => false,
    };
    if refused { Err(Stop::NotTunnel) } else { Ok(tunnel) }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn a_port_alone_makes_no_tunnel() {
        for port in [2152, 4789] {
            let frame = eth(0x0800, &ipv4(A4, B4, 17, &udp(999, port, &[0x77; 60])));
            let found = expect(&frame, "eth/ip/udp", Stop::NotTunnel);
            assert_eq!(found.dport(), Some(port));
        }
    }
}
