//! Linux cooked captures (LINKTYPE_LINUX_SLL and LINKTYPE_LINUX_SLL2).

use super::eth;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Version 1: packet type at 0, hardware type at 2, address length at 4, address at 6, protocol
/// at 14.
const LEN: usize = 16;
/// Version 2: protocol at 0, interface at 4, hardware type at 8, packet type at 10, address length
/// at 11, address at 12.
const LEN_V2: usize = 20;

/// Hardware types whose protocol field is not an EtherType (linux/if_arp.h).
const HARDWARE_PPP: u16 = 512;
const HARDWARE_GRE: u16 = 778;
const HARDWARE_NETLINK: u16 = 824;

/// 802.2 without 802.3 length (linux/if_ether.h).
const PROTOCOL_LLC: u16 = 0x0004;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    let hardware = u16::from_be_bytes([header[2], header[3]]);
    let protocol = u16::from_be_bytes([header[14], header[15]]);
    walk.skip(LEN)?;
    next(hardware, protocol, walk)
}

#[inline]
pub(crate) fn step_v2<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN_V2] = walk.header()?;
    let protocol = u16::from_be_bytes([header[0], header[1]]);
    let hardware = u16::from_be_bytes([header[8], header[9]]);
    walk.skip(LEN_V2)?;
    next(hardware, protocol, walk)
}

fn next<O: Observer>(hardware: u16, protocol: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    match (hardware, protocol) {
        (HARDWARE_NETLINK, _) => Err(Stop::NotIp),
        (_, PROTOCOL_LLC) => Ok(Layer::Llc),
        (HARDWARE_PPP, 0x0021) => Ok(Layer::Ip),
        (HARDWARE_PPP, 0x0057) => Ok(Layer::Ipv6),
        (HARDWARE_GRE, protocol) | (_, protocol) if protocol >= 0x0600 => eth::by_type_or_length(protocol, walk),
        _ => Err(Stop::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    use crate::LinkType;

    #[test]
    fn both_versions() {
        let mut header = std::vec![0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 0x08, 0x00];
        expect_link(LinkType::LINUX_SLL, &join(&header, &tcp4()), "sll/ip/tcp", Stop::Transport);
        header[14..].copy_from_slice(&[0x81, 0]);
        let tagged = join(&header, &vlan(4, 0x86dd, &tcp6()));
        expect_link(LinkType::LINUX_SLL, &tagged, "sll/vlan/ipv6/tcp", Stop::Transport);
        let mut header = std::vec![0; 20];
        header[..2].copy_from_slice(&[0x86, 0xdd]);
        header[9] = 1;
        expect_link(LinkType::LINUX_SLL2, &join(&header, &tcp6()), "sll/ipv6/tcp", Stop::Transport);
    }
}
