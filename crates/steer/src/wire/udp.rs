//! UDP (RFC 768).

use super::transport::PORTS_LEN;
use super::{gre, mpls};
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Source port at 0, destination port at 2, length at 4.
pub(crate) const LEN: usize = 8;

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

    /// Random datagrams on the port of each tunnel: how many in 100,000 have another flow inside, and
    /// how many are taken for the tunnel at all. The second number is large for protocols whose
    /// header has nothing to verify; for them, what is inside is never looked into.
    #[test]
    fn random_datagrams_are_not_tunnels() {
        use crate::{Layer, UdpTunnels};
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let tries = 50_000;
        for (port, layer, _) in UdpTunnels::default().iter() {
            let (most_inside, most_taken) = match layer {
                Layer::Gtp => (20, 20_000),
                Layer::GtpPrime | Layer::UdpEncap | Layer::CapwapCtl => (0, 100_000),
                // Version 3 control: one in 32.
                Layer::L2tp => (20, 3_500),
                Layer::Vxlan => (20, 1_000),
                Layer::VxlanGpe => (60, 2_200),
                Layer::Mpls => (250, 700),
                Layer::Teredo | Layer::Lisp => (250, 250),
                Layer::Ayiya | Layer::Capwap => (100, 1_500),
                _ => (50, 200),
            };
            let (mut inside, mut taken) = (0, 0);
            for _ in 0..tries {
                let words = 8 + random() % 16;
                let payload: std::vec::Vec<u8> = (0..words).flat_map(|_| random().to_be_bytes()).collect();
                let frame = eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, &payload)));
                let (found, _) = look(crate::LinkType::ETHERNET, &frame);
                inside += u32::from(found.depth() > 1);
                taken += u32::from(!matches!(found.stop(), Stop::NotTunnel));
            }
            let (inside, taken) = (inside * (100_000 / tries), taken * (100_000 / tries));
            std::println!("{port} {}: {inside} inside, {taken} taken, of 100,000", layer.name());
            assert!(inside <= most_inside && taken <= most_taken, "{port} {layer:?}: {inside} {taken}");
        }
    }
}
