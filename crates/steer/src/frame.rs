//! What comes in: the bytes of one packet and what the capture or the card said about them.

/// The link type of a frame: a `LINKTYPE_` number as captures carry it.
///
/// Source: <https://www.tcpdump.org/linktypes.html>.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkType(pub u16);

macro_rules! link_types {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl LinkType {
            $(
                #[doc = concat!("`LINKTYPE_", stringify!($name), "` (", stringify!($number), ").")]
                pub const $name: LinkType = LinkType($number);
            )*

            /// The short name of the link type, `"unknown"` for one that steer does not know.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

link_types! {
    NULL = 0, "null";
    ETHERNET = 1, "ethernet";
    TOKEN_RING = 6, "token-ring";
    PPP = 9, "ppp";
    FDDI = 10, "fddi";
    OLD_RAW_BSD = 12, "raw";
    OLD_RAW_OPENBSD = 14, "raw";
    PPP_HDLC = 50, "ppp-hdlc";
    PPP_ETHER = 51, "ppp-ether";
    ATM_RFC1483 = 100, "atm-rfc1483";
    RAW = 101, "raw";
    C_HDLC = 104, "c-hdlc";
    IEEE802_11 = 105, "ieee802-11";
    FRELAY = 107, "frame-relay";
    LOOP = 108, "loop";
    LINUX_SLL = 113, "linux-sll";
    PFLOG = 117, "pflog";
    PRISM = 119, "prism";
    SUNATM = 123, "sunatm";
    RADIOTAP = 127, "radiotap";
    MTP2_WITH_PHDR = 139, "mtp2-with-phdr";
    PKTAP = 149, "pktap";
    AVS = 163, "avs";
    PPP_WITH_DIR = 166, "ppp-with-dir";
    PPI = 192, "ppi";
    C_HDLC_WITH_DIR = 205, "c-hdlc-with-dir";
    FRELAY_WITH_DIR = 206, "frame-relay-with-dir";
    IPV4 = 228, "ipv4";
    IPV6 = 229, "ipv6";
    NFLOG = 239, "nflog";
    PKTAP_APPLE = 258, "pktap";
    LINUX_SLL2 = 276, "linux-sll2";
}

/// One packet as it was received: borrowed bytes, never changed.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The captured bytes, from the first byte of the link header. Steer looks at the first
    /// 65,535 of them and never past their end.
    pub bytes: &'a [u8],
    /// What the first byte belongs to.
    pub link: LinkType,
    /// The tag control information of a VLAN tag that hardware took off, `None` without one.
    pub stripped_vlan: Option<u16>,
    /// How long the packet was on the wire, in bytes; at least `bytes.len()`.
    pub wire_len: u32,
}

impl<'a> Frame<'a> {
    /// A whole frame: nothing cut, no VLAN tag taken off.
    pub fn new(bytes: &'a [u8], link: LinkType) -> Self {
        Frame { bytes, link, stripped_vlan: None, wire_len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
    }
}
