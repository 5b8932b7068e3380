//! EtherTypes (IANA "IEEE 802 Numbers"): which protocol comes next.

use crate::walk::Step;
use crate::{Layer, Stop};

/// The protocol behind an EtherType. To register one, add a line.
#[inline(always)]
pub(crate) fn next(ethertype: u16) -> Step {
    Ok(match ethertype {
        0x0800 => Layer::Ip,
        0x86dd => Layer::Ipv6,
        0x8100 | 0x9100 | 0x9200 | 0x9300 => Layer::Vlan,
        0x88a8 => Layer::Dot1ad,
        0x8847 | 0x8848 => Layer::Mpls,
        0x8864 => Layer::Pppoe,
        0x8863 => Layer::PppoeDisc,
        0x880b => Layer::Ppp,
        0x6558 => Layer::Eth,
        0x8903 => Layer::FabricPath,
        0x8909 => Layer::Cmd,
        0x8926 => Layer::VnTag,
        0x893f => Layer::ETag,
        0x88e5 => Layer::Macsec,
        0x88e7 => Layer::Dot1ah,
        0x894f => Layer::Nsh,
        0x22f3 => Layer::Trill,
        0x6559 => Layer::Fr,
        0x0806 | 0x8035 => Layer::Arp,
        _ => return Err(Stop::UnknownEthertype),
    })
}
