//! Link types: which protocol a frame begins with.

use crate::walk::Step;
use crate::{Layer, LinkType, Stop};

/// The protocol that a frame of this link type begins with.
#[inline]
pub(crate) fn first(link: LinkType) -> Step {
    if link == LinkType::ETHERNET {
        return Ok(Layer::Eth);
    }
    other(link)
}

/// To register one, add a line.
#[inline(never)]
fn other(link: LinkType) -> Step {
    Ok(match link {
        LinkType::ETHERNET => Layer::Eth,
        LinkType::LINUX_SLL => Layer::Sll,
        LinkType::LINUX_SLL2 => Layer::Sll2,
        LinkType::NULL | LinkType::LOOP => Layer::Null,
        LinkType::RAW | LinkType::OLD_RAW_BSD | LinkType::OLD_RAW_OPENBSD => Layer::Raw,
        LinkType::IPV4 => Layer::Ip,
        LinkType::IPV6 => Layer::Ipv6,
        LinkType::PPP | LinkType::PPP_HDLC => Layer::Ppp,
        LinkType::PPP_WITH_DIR | LinkType::C_HDLC_WITH_DIR | LinkType::FRELAY_WITH_DIR => Layer::Direction,
        LinkType::C_HDLC => Layer::Chdlc,
        LinkType::FRELAY => Layer::Fr,
        LinkType::IEEE802_11 => Layer::Wlan,
        LinkType::RADIOTAP => Layer::Radiotap,
        LinkType::PRISM | LinkType::AVS => Layer::Prism,
        LinkType::PPI => Layer::Ppi,
        LinkType::TOKEN_RING => Layer::TokenRing,
        LinkType::FDDI => Layer::Fddi,
        LinkType::ATM_RFC1483 => Layer::Llc,
        LinkType::SUNATM => Layer::Atm,
        LinkType::NFLOG => Layer::Nflog,
        LinkType::PKTAP | LinkType::PKTAP_APPLE => Layer::Pktap,
        LinkType::PFLOG => Layer::Pflog,
        LinkType::PPP_ETHER => Layer::Pppoe,
        _ => return Err(Stop::UnknownLink),
    })
}
