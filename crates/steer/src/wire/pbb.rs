//! Provider backbone bridging, MAC in MAC (IEEE 802.1Q clause 9.7, 802.1ah).

use super::eth;
use crate::walk::{Step, Walk};
use crate::{Id, Observer};

/// Service instance tag (4 bytes), then the customer's Ethernet header.
const LEN: usize = 4 + eth::LEN;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    let service = u32::from_be_bytes([0, header[1], header[2], header[3]]);
    walk.id(Id::Isid(service));
    let kind = u16::from_be_bytes([header[16], header[17]]);
    walk.skip(LEN)?;
    eth::by_type_or_length(kind, walk)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{Id, LinkType, Stop};

    #[test]
    fn customer_frames() {
        let frame = eth(0x88e7, &join(&[0, 1, 2, 3], &eth(0x0800, &tcp4())));
        carries(&frame, "eth/dot1ah/ip/tcp");
        assert!(look(LinkType::ETHERNET, &frame).1.ids.contains(&Id::Isid(0x01_0203)));
        let backbone = eth(0x88a8, &vlan(5, 0x88e7, &join(&[0; 4], &eth(0x8100, &vlan(9, 0x86dd, &tcp6())))));
        carries(&backbone, "eth/dot1ad/dot1ah/vlan/ipv6/tcp");
        expect(&eth(0x88e7, &[0; 17]), "eth/dot1ah", Stop::Truncated);
    }
}
