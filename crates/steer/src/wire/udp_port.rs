//! UDP ports (IANA "Service Name and Transport Protocol Port Number Registry") that carry tunnels.

use crate::Layer;
use crate::UdpTunnels;

/// The built-in list: (port, protocol, whether it answers from that port). To register one, add a
/// line. The protocol's step verifies its header and says `Stop::NotTunnel` to what is not its
/// own.
const BUILT_IN: &[(u16, Layer, bool)] = &[
    (2152, Layer::Gtp, true),
    (2123, Layer::Gtp, true),
    (3386, Layer::GtpPrime, true),
    (4789, Layer::Vxlan, false),
    (8472, Layer::Vxlan, false),
    (4790, Layer::VxlanGpe, false),
    (6081, Layer::Geneve, false),
    (6635, Layer::Mpls, false),
    (4754, Layer::Gre, false),
    (1701, Layer::L2tp, true),
    (3544, Layer::Teredo, true),
    (4341, Layer::Lisp, true),
    (4500, Layer::UdpEncap, true),
    (5072, Layer::Ayiya, true),
    (5246, Layer::CapwapCtl, true),
    (5247, Layer::Capwap, true),
    (51820, Layer::Wireguard, true),
];

/// Control planes whose flows go by addresses: requests and answers of GTP-C use any ports beside
/// 2123, and what two nodes say to each other about a session belongs together.
const BY_ADDRESSES: &[u16] = &[2123];

/// The built-in list, ready for look-up.
pub(crate) const TUNNELS: UdpTunnels = {
    let mut tunnels = UdpTunnels::NONE;
    let mut index = 0;
    while index < BUILT_IN.len() {
        let (port, layer, answers) = BUILT_IN[index];
        assert!(tunnels.set(port, layer, answers), "raise UdpTunnels::CAPACITY");
        index += 1;
    }
    let mut index = 0;
    while index < BY_ADDRESSES.len() {
        assert!(tunnels.set_by_addresses(BY_ADDRESSES[index], true), "raise UdpTunnels::CAPACITY");
        index += 1;
    }
    tunnels
};
