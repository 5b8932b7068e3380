//! IP protocol numbers (IANA "Assigned Internet Protocol Numbers"): which protocol comes next.

use crate::dissection::Family;
use crate::walk::Step;
use crate::{Layer, Stop};

/// The protocol behind the protocol number of IPv4, or behind the next header of IPv6: one look-up.
#[inline(always)]
pub(crate) fn next(family: Family, protocol: u8) -> Step {
    let table = if matches!(family, Family::V6) { &TABLE_V6 } else { &TABLE_V4 };
    table[protocol as usize]
}

/// Whether the number means something here.
pub(crate) fn is_known(family: Family, protocol: u8) -> bool {
    next(family, protocol) != Err(Stop::UnknownProtocol)
}

static TABLE_V4: [Step; 256] = table(false);
static TABLE_V6: [Step; 256] = table(true);

const fn table(v6: bool) -> [Step; 256] {
    let mut table = [Err(Stop::UnknownProtocol); 256];
    let mut protocol = 0;
    while protocol < 256 {
        table[protocol] = registered(v6, protocol as u8);
        protocol += 1;
    }
    table
}

/// What the tables are made from. To register a protocol, add a line.
const fn registered(v6: bool, protocol: u8) -> Step {
    Ok(match protocol {
        6 => Layer::Tcp,
        17 => Layer::Udp,
        1 => Layer::Icmp,
        2 => Layer::Igmp,
        4 => Layer::Ip,
        33 => Layer::Dccp,
        41 => Layer::Ipv6,
        46 => Layer::Rsvp,
        47 => Layer::Gre,
        50 => Layer::Esp,
        51 => Layer::Ah,
        58 => Layer::Icmpv6,
        59 => return Err(Stop::NoNextHeader),
        88 => Layer::Eigrp,
        89 => Layer::Ospf,
        97 => Layer::EtherIp,
        103 => Layer::Pim,
        108 => Layer::IpComp,
        112 => Layer::Vrrp,
        115 => Layer::L2tp,
        132 => Layer::Sctp,
        136 => Layer::UdpLite,
        137 => Layer::Mpls,
        143 => Layer::Eth,
        _ if v6 => return extension(protocol),
        _ => return Err(Stop::UnknownProtocol),
    })
}

/// Extension headers: only IPv6 has them; under IPv4 the same numbers mean nothing.
const fn extension(protocol: u8) -> Step {
    Ok(match protocol {
        0 => Layer::HopOpts,
        43 => Layer::Routing,
        44 => Layer::Frag6,
        60 => Layer::DstOpts,
        135 => Layer::Mipv6,
        139 => Layer::Hip,
        140 => Layer::Shim6,
        _ => return Err(Stop::UnknownProtocol),
    })
}
