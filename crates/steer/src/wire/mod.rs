//! Wire formats: one protocol a file, all in the same shape.
//!
//! Each file names its fields as byte ranges with the section of the specification, and has a
//! `step` that reads one header and says what comes next. To add a protocol: a file here, a variant
//! in [`Layer`], an arm in [`step`], and a line in the look-up that leads to it ([`ethertype`],
//! [`ip_protocol`], [`udp_port`], [`link`]).

pub(crate) mod ayiya;
#[cfg(test)]
pub(crate) mod build;
pub(crate) mod capwap;
pub(crate) mod chdlc;
#[cfg(test)]
pub(crate) mod check;
pub(crate) mod cmd;
pub(crate) mod encrypted;
pub(crate) mod erspan;
pub(crate) mod eth;
pub(crate) mod etherip;
pub(crate) mod ethertype;
pub(crate) mod fabric;
pub(crate) mod frag6;
pub(crate) mod frame_relay;
pub(crate) mod geneve;
pub(crate) mod gre;
pub(crate) mod gtp;
pub(crate) mod host;
pub(crate) mod icmp;
pub(crate) mod icmpv6;
pub(crate) mod ip_protocol;
pub(crate) mod ipv4;
pub(crate) mod ipv6;
pub(crate) mod ipv6_ext;
pub(crate) mod l2tp;
pub(crate) mod link;
pub(crate) mod lisp;
pub(crate) mod llc;
pub(crate) mod macsec;
pub(crate) mod mpls;
pub(crate) mod nsh;
pub(crate) mod null;
pub(crate) mod old_lan;
pub(crate) mod pbb;
pub(crate) mod port_tag;
pub(crate) mod ppp;
pub(crate) mod pppoe;
pub(crate) mod pw;
pub(crate) mod radio;
pub(crate) mod raw;
pub(crate) mod sll;
pub(crate) mod teredo;
pub(crate) mod transport;
pub(crate) mod udp;
pub(crate) mod udp_port;
pub(crate) mod vlan;
pub(crate) mod vxlan;
pub(crate) mod vxlan_gpe;
pub(crate) mod wlan;

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Where a field is in its header, in bytes.
pub(crate) type Field = core::ops::Range<usize>;

/// Reads one header. What is common is part of the loop, the rest is read aside.
#[inline(always)]
pub(crate) fn step<O: Observer>(layer: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
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
        _ => walk.aside(layer),
    }
}

/// Reads one header of the less common kinds.
pub(crate) fn rare<O: Observer>(layer: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
    match layer {
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
        Layer::Cmd => cmd::step(walk),
        Layer::Fr => frame_relay::step(walk),
        Layer::Chdlc => chdlc::step(walk),
        Layer::Erspan => erspan::step(walk),
        Layer::Geneve => geneve::step(walk),
        Layer::Capwap => capwap::step(walk),
        Layer::Wlan => wlan::step(walk),
        Layer::Radiotap => radio::radiotap(walk),
        Layer::Prism => radio::prism(walk),
        Layer::Ppi => radio::ppi(walk),
        Layer::VnTag => port_tag::vn_tag(walk),
        Layer::ETag => port_tag::e_tag(walk),
        Layer::L2tp => l2tp::step(walk),
        Layer::Dot1ah => pbb::step(walk),
        Layer::FabricPath => fabric::fabric_path(walk),
        Layer::Trill => fabric::trill(walk),
        Layer::Nsh => nsh::step(walk),
        Layer::VxlanGpe => vxlan_gpe::step(walk),
        Layer::Teredo => teredo::step(walk),
        Layer::Lisp => lisp::step(walk),
        Layer::Ayiya => ayiya::step(walk),
        Layer::Macsec => macsec::step(walk),
        Layer::UdpEncap => encrypted::nat_t(walk),
        Layer::Wireguard => encrypted::wireguard(walk),
        Layer::Esp => encrypted::esp(walk),
        Layer::Atm => old_lan::sun_atm(walk),
        Layer::TokenRing => old_lan::token_ring(walk),
        Layer::Fddi => old_lan::fddi(walk),
        Layer::Isl => old_lan::isl(walk),
        Layer::Nflog => host::nflog(walk),
        Layer::Pktap => host::pktap(walk),
        Layer::Pflog => host::pflog(walk),
        Layer::Direction => host::direction(walk),
        Layer::EtherIp => etherip::step(walk),
        Layer::IpComp => Err(Stop::Compressed),
        Layer::PppoeDisc | Layer::PwAch | Layer::Gtpv2 | Layer::GtpPrime | Layer::CapwapCtl => Err(Stop::Control),
        Layer::Arp => Err(Stop::NotIp),
        // Read by the loop itself.
        Layer::Eth
        | Layer::Vlan
        | Layer::Dot1ad
        | Layer::Ip
        | Layer::Ipv6
        | Layer::Tcp
        | Layer::Udp
        | Layer::Gre
        | Layer::Pppoe
        | Layer::Ppp
        | Layer::Mpls
        | Layer::Gtp
        | Layer::Vxlan => Err(Stop::Steps),
        Layer::Igmp | Layer::Ospf | Layer::Pim | Layer::Eigrp | Layer::Vrrp | Layer::Rsvp => Err(Stop::UnknownProtocol),
    }
}
