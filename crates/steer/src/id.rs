//! Identifiers that headers carry: told to an observer, never part of the key unless asked for.

/// An identifier met on the way down. `name` is its key in the `ids` that `inspect` prints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Id {
    /// VLAN identifier (12 bits).
    Vlan(u16),
    /// MPLS label (20 bits).
    Mpls(u32),
    /// PPPoE session.
    PppoeSession(u16),
    /// PPP protocol number.
    Ppp(u16),
    /// GRE protocol type.
    GreProtocol(u16),
    /// GRE key.
    GreKey(u32),
    /// Call identifier of enhanced GRE (PPTP).
    GreCallId(u16),
    /// GTP message type.
    GtpMessage(u8),
    /// GTP tunnel endpoint.
    GtpTeid(u32),
    /// VXLAN network identifier (24 bits).
    VxlanVni(u32),
    /// GENEVE network identifier (24 bits).
    GeneveVni(u32),
    /// Security parameter index of ESP.
    EspSpi(u32),
    /// Security parameter index of AH.
    AhSpi(u32),
    /// ICMP or ICMPv6 type.
    IcmpType(u8),
    /// ICMP or ICMPv6 identifier.
    IcmpId(u16),
    /// IPv4 identification of a fragment, or that of an IPv6 fragment header.
    FragmentId(u32),
    /// IPv6 routing header type.
    RoutingType(u8),
    /// Session of L2TPv3.
    L2tpv3Session(u32),
    /// Tunnel of L2TPv2.
    L2tpTunnel(u16),
    /// Session of L2TPv2.
    L2tpSession(u16),
    /// ERSPAN version (1 to 3).
    ErspanVersion(u8),
    /// ERSPAN session (10 bits).
    ErspanSession(u16),
    /// Service identifier of 802.1ah (24 bits).
    Isid(u32),
}

impl Id {
    /// The key under which `inspect` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Id::Vlan(_) => "vlan",
            Id::Mpls(_) => "mpls",
            Id::PppoeSession(_) => "pppoe_sid",
            Id::Ppp(_) => "ppp",
            Id::GreProtocol(_) => "gre_proto",
            Id::GreKey(_) => "gre_key",
            Id::GreCallId(_) => "gre_callid",
            Id::GtpMessage(_) => "gtp_msg",
            Id::GtpTeid(_) => "gtp_teid",
            Id::VxlanVni(_) => "vxlan_vni",
            Id::GeneveVni(_) => "geneve_vni",
            Id::EspSpi(_) => "esp_spi",
            Id::AhSpi(_) => "ah_spi",
            Id::IcmpType(_) => "icmp_type",
            Id::IcmpId(_) => "icmp_id",
            Id::FragmentId(_) => "frag_id",
            Id::RoutingType(_) => "rh_type",
            Id::L2tpv3Session(_) => "l2tpv3_sid",
            Id::L2tpTunnel(_) => "l2tp_tid",
            Id::L2tpSession(_) => "l2tp_sid",
            Id::ErspanVersion(_) => "erspan_ver",
            Id::ErspanSession(_) => "erspan_sid",
            Id::Isid(_) => "isid",
        }
    }

    /// The value, widened.
    pub const fn value(self) -> u32 {
        match self {
            Id::Vlan(v)
            | Id::PppoeSession(v)
            | Id::Ppp(v)
            | Id::GreProtocol(v)
            | Id::GreCallId(v)
            | Id::IcmpId(v)
            | Id::L2tpTunnel(v)
            | Id::L2tpSession(v)
            | Id::ErspanSession(v) => v as u32,
            Id::GtpMessage(v) | Id::IcmpType(v) | Id::RoutingType(v) | Id::ErspanVersion(v) => v as u32,
            Id::Mpls(v)
            | Id::GreKey(v)
            | Id::GtpTeid(v)
            | Id::VxlanVni(v)
            | Id::GeneveVni(v)
            | Id::EspSpi(v)
            | Id::AhSpi(v)
            | Id::FragmentId(v)
            | Id::L2tpv3Session(v)
            | Id::Isid(v) => v,
        }
    }
}
