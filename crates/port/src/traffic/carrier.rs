//! What conversations travel in.

use std::str::FromStr;

/// The encapsulations that the generator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// Ethernet and IP.
    Plain,
    /// One 802.1Q tag.
    Vlan,
    /// An 802.1ad tag before an 802.1Q tag; the outer one differs by direction in half of them.
    Qinq,
    /// A PPPoE session.
    Pppoe,
    /// GRE with IP or Ethernet in it, with and without a key, over IPv4 or IPv6.
    Gre,
    /// GTP-U, with a tunnel identifier for each direction, over IPv4 or IPv6.
    Gtp,
    /// VXLAN, with an outer source port for each direction, over IPv4 or IPv6.
    Vxlan,
    /// One to three labels, different ones by direction, with IP or an Ethernet pseudo-wire behind.
    Mpls,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Carrier; 8] = [
        Carrier::Plain,
        Carrier::Vlan,
        Carrier::Qinq,
        Carrier::Pppoe,
        Carrier::Gre,
        Carrier::Gtp,
        Carrier::Vxlan,
        Carrier::Mpls,
    ];

    /// Its name in options, and as a mix of its own: `gen:vxlan`.
    pub const fn name(self) -> &'static str {
        match self {
            Carrier::Plain => "plain",
            Carrier::Vlan => "vlan",
            Carrier::Qinq => "qinq",
            Carrier::Pppoe => "pppoe",
            Carrier::Gre => "gre",
            Carrier::Gtp => "gtp",
            Carrier::Vxlan => "vxlan",
            Carrier::Mpls => "mpls",
        }
    }

    /// Whether an outer IP header carries it, which can be fragmented.
    pub(super) const fn is_over_ip(self) -> bool {
        matches!(self, Carrier::Gre | Carrier::Gtp | Carrier::Vxlan)
    }
}

impl FromStr for Carrier {
    type Err = String;

    fn from_str(name: &str) -> Result<Carrier, String> {
        Carrier::ALL
            .into_iter()
            .find(|c| c.name() == name)
            .ok_or_else(|| format!("{name:?} is none of {}", Carrier::ALL.map(Carrier::name).join(", ")))
    }
}
