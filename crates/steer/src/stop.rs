//! Why dissection ended: every packet has exactly one reason.

macro_rules! stops {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// Why dissection ended. The numbers are stable: a counter array can be indexed with them.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Stop {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Stop {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Stop] = &[$(Stop::$variant,)*];

            /// The name that `inspect` prints and counters carry.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Stop::$variant => $name,)*
                }
            }
        }
    };
}

stops! {
    /// A transport header with nothing known inside: the usual end.
    Transport = 0, "transport";
    /// A later fragment: what follows the IP header is the middle of something.
    LaterFragment = 1, "later-fragment";
    /// An ICMP or ICMPv6 message that quotes no packet.
    Icmp = 2, "icmp";
    /// An ICMP or ICMPv6 error; the packet that it quotes was looked into.
    Quoted = 3, "icmp-error";
    /// The captured bytes ended inside a header.
    Truncated = 4, "truncated";
    /// A header contradicts itself.
    Malformed = 5, "malformed";
    /// More IP headers than the policy allows.
    Depth = 6, "depth";
    /// More headers of any kind than the policy allows.
    Steps = 7, "steps";
    /// Encrypted from here on (ESP, MACsec, WireGuard, protected 802.11).
    Encrypted = 8, "encrypted";
    /// Compressed from here on (IPComp).
    Compressed = 9, "compressed";
    /// An EtherType, PPP protocol or LLC SAP that steer does not know.
    UnknownEthertype = 10, "unknown-ethertype";
    /// An IP protocol that steer does not look into.
    UnknownProtocol = 11, "unknown-protocol";
    /// A link type that steer does not know.
    UnknownLink = 12, "unknown-link";
    /// Control traffic of a tunnel or link: no user packet inside.
    Control = 13, "control";
    /// A protocol that carries no IP (ARP, LLDP, spanning tree, …).
    NotIp = 14, "not-ip";
    /// A piece of a multilink bundle: it need not hold a whole header.
    Multilink = 15, "multilink";
    /// A payload that does not say what it is.
    Opaque = 16, "opaque";
    /// A fragment, and the policy sends fragments by their addresses.
    Fragment = 17, "fragment";
    /// The policy says not to look into this protocol.
    Policy = 18, "policy";
    /// No next header (IPv6 next header 59): nothing follows.
    NoNextHeader = 19, "no-next-header";
    /// The port of a tunnel, but not its header: the UDP flow is the innermost.
    NotTunnel = 20, "not-tunnel";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions() {
        for (position, stop) in Stop::ALL.iter().enumerate() {
            assert_eq!(*stop as usize, position);
            assert!(!stop.name().is_empty());
        }
    }
}
