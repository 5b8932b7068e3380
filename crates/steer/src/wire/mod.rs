//! Wire formats: one protocol a file, all in the same shape.
//!
//! Each file names its fields as byte ranges with the section of the specification, and has a
//! `step` that reads one header and says what comes next. To add a protocol: a file here, a variant
//! in [`Layer`], an arm in [`step`], and a line in the look-up that leads to it ([`ethertype`],
//! [`ip_protocol`], [`udp_port`], [`link`]).

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
pub(crate) mod check;
pub(crate) mod eth;
pub(crate) mod ethertype;
pub(crate) mod frag6;
pub(crate) mod gre;
pub(crate) mod gtp;
pub(crate) mod icmp;
pub(crate) mod icmpv6;
pub(crate) mod ip_protocol;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod ipv6_ext;
pub(crate) mod link;
pub(crate) mod llc;
pub(crate) mod mpls;
pub(crate) mod null;
pub(crate) mod ppp;
pub(crate) mod pppoe;
pub(crate) mod pw;
pub(crate) mod raw;
pub(crate) mod sll;
pub(crate) mod transport;
pub(crate) mod udp;
pub(crate) mod udp_port;
pub(crate) mod vlan;
pub(crate) mod vxlan;

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Where a field is in its header, in bytes.
pub(crate) type Field = core::ops::Range<usize>;

/// Reads one header.
#[inline]
pub(crate) fn step<O: Observer>(layer: Layer, walk: &mut Walk<'_, O>) -> Step {
    match layer {
        Layer::Eth => eth::step(walk),
        Layer::Vlan | Layer::Dot1ad => vlan::step(walk),
        Layer::Ip => ipv4::step(walk),
        Layer::Ipv6 => ipv6::step(walk),
        Layer::Tcp => transport::tcp(walk),
        Layer::Udp => udp::step(walk),
        Layer::Gre => gre::step(walk),
        Layer::Pppoe => pppoe::step(walk),
        Layer::Ppp => ppp::step(walk),
        Layer::Mpls => mpls::step(walk),
        Layer::Gtp => gtp::step(walk),
        Layer::Vxlan => vxlan::step(walk),
        Layer::HopOpts | Layer::DstOpts | Layer::Routing | Layer::Mipv6 | Layer::Hip | Layer::Shim6 => {
            ipv6_ext::step(layer, walk)
        }
        Layer::Ah => ipv6_ext::ah(walk),
        Layer::Frag6 => frag6::step(walk),
        Layer::Sctp | Layer::Dccp | Layer::UdpLite => transport::ports(layer, walk),
        Layer::Icmp => icmp::step(walk),
        Layer::Icmpv6 => icmpv6::step(walk),
        Layer::Llc => llc::step(walk),
        Layer::PwCw => pw::control_word(walk),
        Layer::Pw => Ok(Layer::Eth),
        Layer::Sll => sll::step(walk),
        Layer::Sll2 => sll::step_v2(walk),
        Layer::Null => null::step(walk),
        Layer::Raw => raw::step(walk),
        Layer::Esp => Err(Stop::Encrypted),
        Layer::IpComp => Err(Stop::Compressed),
        Layer::PppoeDisc | Layer::PwAch | Layer::Gtpv2 | Layer::GtpPrime => Err(Stop::Control),
        Layer::Arp => Err(Stop::NotIp),
        Layer::Igmp | Layer::Ospf | Layer::Pim | Layer::Eigrp | Layer::Vrrp | Layer::Rsvp => Err(Stop::UnknownProtocol),
    }
}
