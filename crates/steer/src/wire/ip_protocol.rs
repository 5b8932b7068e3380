//! IP protocol numbers (IANA "Assigned Internet Protocol Numbers"): which protocol comes next.

use crate::walk::Step;
use crate::{Layer, Stop};

/// The protocol behind a protocol or next header number. To register one, add a line.
#[inline]
pub(crate) fn next(protocol: u8) -> Step {
    Ok(match protocol {
        6 => Layer::Tcp,
        17 => Layer::Udp,
        0 => Layer::HopOpts,
        1 => Layer::Icmp,
        2 => Layer::Igmp,
        4 => Layer::Ip,
        33 => Layer::Dccp,
        41 => Layer::Ipv6,
        43 => Layer::Routing,
        44 => Layer::Frag6,
        46 => Layer::Rsvp,
        47 => Layer::Gre,
        50 => Layer::Esp,
        51 => Layer::Ah,
        58 => Layer::Icmpv6,
        59 => return Err(Stop::NoNextHeader),
        60 => Layer::DstOpts,
        88 => Layer::Eigrp,
        89 => Layer::Ospf,
        103 => Layer::Pim,
        108 => Layer::IpComp,
        112 => Layer::Vrrp,
        132 => Layer::Sctp,
        135 => Layer::Mipv6,
        136 => Layer::UdpLite,
        137 => Layer::Mpls,
        139 => Layer::Hip,
        140 => Layer::Shim6,
        _ => return Err(Stop::UnknownProtocol),
    })
}
