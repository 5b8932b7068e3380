//! Local networks of old: Token Ring (IEEE 802.5 clause 3), FDDI (ISO 9314-2), ATM as LLC
//! (RFC 2684 section 5) or with SunATM's header, Cisco ISL.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Access control, frame control, destination, source.
const TOKEN_RING_LEN: usize = 14;
/// First bit of the source address: routing information follows, its length in 5 bits.
const ROUTED: u8 = 0x80;
/// Frame control, destination, source.
const FDDI_LEN: usize = 13;
/// Frame control: a frame with LLC.
const FDDI_LLC: u8 = 0x50;
/// Direction and traffic type at 0, circuit after.
const SUN_ATM_LEN: usize = 4;
/// Traffic type, low nibble: LLC.
const SUN_ATM_LLC: u8 = 2;
/// Before the frame that ISL carries.
const ISL_LEN: usize = 26;

#[inline]
pub(crate) fn token_ring<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; TOKEN_RING_LEN] = walk.header()?;
    let routed = header[8] & ROUTED != 0;
    if header[1] & 0xc0 != 0x40 {
        return Err(Stop::NotIp);
    }
    walk.skip(TOKEN_RING_LEN)?;
    if routed {
        let &[len] = walk.header()?;
        walk.skip(usize::from(len & 0x1f))?;
    }
    Ok(Layer::Llc)
}

#[inline]
pub(crate) fn fddi<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; FDDI_LEN] = walk.header()?;
    if header[0] & 0x70 != FDDI_LLC {
        return Err(Stop::NotIp);
    }
    walk.skip(FDDI_LEN)?;
    Ok(Layer::Llc)
}

#[inline]
pub(crate) fn sun_atm<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; SUN_ATM_LEN] = walk.header()?;
    let kind = header[0] & 0x0f;
    walk.skip(SUN_ATM_LEN)?;
    if kind == SUN_ATM_LLC { Ok(Layer::Llc) } else { Err(Stop::NotIp) }
}

#[inline]
pub(crate) fn isl<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(ISL_LEN)?;
    Ok(Layer::Eth)
}

/// Whether a destination address is one that ISL uses.
#[inline]
pub(crate) fn is_isl(header: &[u8; 14]) -> bool {
    matches!(header, [0x01 | 0x03, 0x00, 0x0c, 0x00, 0x00, ..])
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    #[test]
    fn token_ring_with_and_without_a_route() {
        let plain = [&[0x10, 0x40][..], &[2; 12], &snap(0x0800, &tcp4())].concat();
        is_the_flow(&expect_link(LinkType::TOKEN_RING, &plain, "tr/llc/ip/tcp", Stop::Transport), &plain);
        // Two hops: 6 bytes of routing information.
        let mut routed = [&[0x10, 0x40][..], &[2; 12], &[6, 0, 0, 1, 0, 2], &snap(0x86dd, &tcp6())].concat();
        routed[8] |= 0x80;
        is_the_flow(&expect_link(LinkType::TOKEN_RING, &routed, "tr/llc/ipv6/tcp", Stop::Transport), &routed);
        let control = [&[0x10, 0x00][..], &[2; 20]].concat();
        expect_link(LinkType::TOKEN_RING, &control, "tr", Stop::NotIp);
    }

    #[test]
    fn fddi_and_atm() {
        let fddi = |control: u8| [&[control][..], &[2; 12], &snap(0x0800, &tcp4())].concat();
        for control in [0x50, 0x57, 0xd0] {
            expect_link(LinkType::FDDI, &fddi(control), "fddi/llc/ip/tcp", Stop::Transport);
        }
        expect_link(LinkType::FDDI, &fddi(0x41), "fddi", Stop::NotIp);
        expect_link(LinkType::ATM_RFC1483, &snap(0x0800, &tcp4()), "llc/ip/tcp", Stop::Transport);
        let atm = |kind: u8| [&[kind, 0, 0, 40][..], &snap(0x86dd, &tcp6())].concat();
        expect_link(LinkType::SUNATM, &atm(0x82), "atm/llc/ipv6/tcp", Stop::Transport);
        expect_link(LinkType::SUNATM, &atm(0x01), "atm", Stop::NotIp);
    }

    #[test]
    fn isl_is_known_by_its_address() {
        // DA of 40 bits, type and user, SA, length, SNAP, high bits of SA, VLAN, index, reserved.
        let mut header = std::vec![0x01, 0, 0x0c, 0, 0, 0];
        header.extend([2; 6]);
        header.extend([0, 90, 0xaa, 0xaa, 3, 0, 0, 0x0c, 0, 9, 0, 0, 0, 0]);
        carries(&join(&header, &eth(0x0800, &tcp4())), "eth/isl/eth/ip/tcp");
        header[0] = 0x03;
        carries(&join(&header, &eth(0x86dd, &tcp6())), "eth/isl/eth/ipv6/tcp");
        expect(&header[..20], "eth/isl", Stop::Truncated);
    }
}
