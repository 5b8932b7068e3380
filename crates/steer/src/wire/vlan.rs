//! VLAN and service VLAN tags (IEEE 802.1Q clause 9.6).

use super::eth;
use crate::Observer;
use crate::walk::{Step, Walk};

/// Tag control information at 0, type or length at 2.
pub(crate) const LEN: usize = 4;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    walk.vlan(u16::from_be_bytes([header[0], header[1]]));
    let kind = u16::from_be_bytes([header[2], header[3]]);
    walk.skip(LEN)?;
    eth::by_type_or_length(kind, walk)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn one_two_and_three_tags() {
        let inner = vlan(0x2007, 0x0800, &tcp4());
        let found = carries(&eth(0x8100, &inner), "eth/vlan/ip/tcp");
        assert_eq!(found.vlan(), Some(0x2007));
        let two = vlan(5, 0x8100, &inner);
        assert_eq!(carries(&eth(0x88a8, &two), "eth/dot1ad/vlan/ip/tcp").vlan(), Some(5));
        carries(&eth(0x9100, &vlan(9, 0x88a8, &two)), "eth/vlan/dot1ad/vlan/ip/tcp");
    }

    #[test]
    fn a_length_in_place_of_a_type() {
        let llc = snap(0x0800, &tcp4());
        carries(&eth(0x8100, &vlan(1, llc.len() as u16, &llc)), "eth/vlan/llc/ip/tcp");
        expect(&eth(0x8100, &[0, 1]), "eth/vlan", Stop::Truncated);
    }
}
