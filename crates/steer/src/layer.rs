//! The protocols that steer tells apart, by the short names that `inspect` prints.

macro_rules! layers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A protocol layer: what a header is, and what the next one will be read as.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Layer {
            $($(#[$doc])* $variant,)*
        }

        impl Layer {
            /// Every layer, in the order of declaration.
            pub const ALL: &'static [Layer] = &[$(Layer::$variant,)*];

            /// The short name, as in the `stack` that `inspect` prints.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Layer::$variant => $name,)*
                }
            }
        }
    };
}

impl Layer {
    /// The layers that go by a name; two versions of a header may share one.
    pub fn from_name(name: &str) -> impl Iterator<Item = Layer> + '_ {
        Layer::ALL.iter().copied().filter(move |layer| layer.name() == name)
    }
}

/// A set of layers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LayerSet(u128);

const _: () = assert!(Layer::ALL.len() <= 128, "LayerSet has a bit for each layer");

impl LayerSet {
    /// No layer.
    pub const NONE: LayerSet = LayerSet(0);

    /// Adds a layer.
    pub const fn insert(&mut self, layer: Layer) {
        self.0 |= 1 << layer as u8;
    }

    /// Whether the layer is in the set.
    #[inline]
    pub const fn contains(self, layer: Layer) -> bool {
        self.0 >> layer as u8 & 1 != 0
    }

    /// Whether no layer is in the set.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its layers, in the order of declaration.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.iter().copied().filter(move |&layer| self.contains(layer))
    }
}

impl FromIterator<Layer> for LayerSet {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> LayerSet {
        let mut set = LayerSet::NONE;
        layers.into_iter().for_each(|layer| set.insert(layer));
        set
    }
}

layers! {
    /// Ethernet II or 802.3.
    Eth = "eth";
    /// A VLAN tag (0x8100, 0x9100).
    Vlan = "vlan";
    /// A service VLAN tag (0x88a8).
    Dot1ad = "dot1ad";
    /// 802.2 LLC, with or without SNAP.
    Llc = "llc";
    /// An MPLS label.
    Mpls = "mpls";
    /// A pseudo-wire control word.
    PwCw = "pwcw";
    /// A pseudo-wire without control word.
    Pw = "pw";
    /// A pseudo-wire associated channel header.
    PwAch = "pwach";
    /// A PPPoE session.
    Pppoe = "pppoe";
    /// PPPoE discovery.
    PppoeDisc = "pppoe_disc";
    /// PPP.
    Ppp = "ppp";
    /// IPv4.
    Ip = "ip";
    /// IPv6.
    Ipv6 = "ipv6";
    /// IPv6 hop-by-hop options.
    HopOpts = "hopopts";
    /// IPv6 destination options.
    DstOpts = "dstopts";
    /// IPv6 routing header.
    Routing = "routing";
    /// IPv6 fragment header.
    Frag6 = "frag6";
    /// IPv6 mobility header.
    Mipv6 = "mipv6";
    /// IPv6 host identity protocol.
    Hip = "hip";
    /// IPv6 shim6 header.
    Shim6 = "shim6";
    /// IPsec authentication header.
    Ah = "ah";
    /// IPsec encapsulating security payload.
    Esp = "esp";
    /// IP payload compression.
    IpComp = "ipcomp";
    /// Generic routing encapsulation.
    Gre = "gre";
    /// TCP.
    Tcp = "tcp";
    /// UDP.
    Udp = "udp";
    /// UDP-Lite.
    UdpLite = "udplite";
    /// SCTP.
    Sctp = "sctp";
    /// DCCP.
    Dccp = "dccp";
    /// ICMP.
    Icmp = "icmp";
    /// ICMPv6.
    Icmpv6 = "icmpv6";
    /// IGMP.
    Igmp = "igmp";
    /// OSPF.
    Ospf = "ospf";
    /// PIM.
    Pim = "pim";
    /// EIGRP.
    Eigrp = "eigrp";
    /// VRRP.
    Vrrp = "vrrp";
    /// RSVP.
    Rsvp = "rsvp";
    /// GTP, versions 0 and 1.
    Gtp = "gtp";
    /// GTP version 2 control.
    Gtpv2 = "gtpv2";
    /// GTP′ charging.
    GtpPrime = "gtpprime";
    /// VXLAN.
    Vxlan = "vxlan";
    /// ARP and reverse ARP.
    Arp = "arp";
    /// Linux cooked capture, version 1.
    Sll = "sll";
    /// Linux cooked capture, version 2.
    Sll2 = "sll";
    /// BSD null and OpenBSD loop link headers.
    Null = "null";
    /// A raw IP link: the first nibble says which.
    Raw = "raw";
    /// Cisco metadata.
    Cmd = "cmd";
    /// Frame Relay.
    Fr = "fr";
    /// Cisco HDLC.
    Chdlc = "chdlc";
    /// ERSPAN.
    Erspan = "erspan";
    /// GENEVE.
    Geneve = "geneve";
    /// CAPWAP data.
    Capwap = "capwap";
    /// CAPWAP control.
    CapwapCtl = "capwap_ctl";
    /// IEEE 802.11.
    Wlan = "wlan";
    /// Radiotap.
    Radiotap = "radiotap";
    /// Prism and AVS.
    Prism = "prism";
    /// Per-packet information.
    Ppi = "ppi";
    /// VN-tag.
    VnTag = "vntag";
    /// The E-tag of 802.1BR.
    ETag = "etag";
    /// L2TP, versions 2 and 3.
    L2tp = "l2tp";
    /// Provider backbone bridging (802.1ah).
    Dot1ah = "dot1ah";
    /// Cisco FabricPath.
    FabricPath = "fabricpath";
    /// TRILL.
    Trill = "trill";
    /// Network service header.
    Nsh = "nsh";
    /// VXLAN with generic protocol extension.
    VxlanGpe = "vxlan_gpe";
    /// Teredo.
    Teredo = "teredo";
    /// LISP data.
    Lisp = "lisp";
    /// AYIYA.
    Ayiya = "ayiya";
    /// MACsec.
    Macsec = "macsec";
    /// ESP in UDP.
    UdpEncap = "udpencap";
    /// WireGuard.
    Wireguard = "wireguard";
    /// ATM with SunATM's header.
    Atm = "atm";
    /// Token Ring.
    TokenRing = "tr";
    /// FDDI.
    Fddi = "fddi";
    /// NFLOG.
    Nflog = "nflog";
    /// PKTAP.
    Pktap = "pktap";
    /// Pflog.
    Pflog = "pflog";
    /// A byte of direction.
    Direction = "direction";
    /// Cisco ISL.
    Isl = "isl";
    /// EtherIP.
    EtherIp = "etherip";
}
