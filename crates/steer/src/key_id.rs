//! Identifiers that a policy may add to the key, beside VLAN and virtual network.

macro_rules! key_ids {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $why:literal;)*) => {
        /// An identifier that a policy may add to the key. Most differ by direction.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum KeyId {
            $($(#[$doc])* $variant = $number,)*
        }

        impl KeyId {
            /// Every one, in the order of its number.
            pub const ALL: &'static [KeyId] = &[$(KeyId::$variant,)*];

            /// The name that a policy file has for it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(KeyId::$variant => $name,)*
                }
            }

            /// Why it parts the two directions.
            pub(crate) const fn why(self) -> &'static str {
                match self {
                    $(KeyId::$variant => $why,)*
                }
            }
        }
    };
}

key_ids! {
    /// The bottom label of an MPLS stack.
    Mpls = 1, "mpls", "each direction of a label switched path has labels of its own";
    /// The key of GRE, and the tunnel of MikroTik's Ethernet over IP.
    Gre = 2, "gre", "each end of a GRE tunnel may have chosen a key of its own";
    /// The tunnel endpoint of GTP-U.
    Teid = 3, "teid", "each end of a GTP tunnel chooses its own endpoint identifier";
    /// The call of PPTP.
    PptpCall = 4, "pptp", "each end of a PPTP call chooses its own call identifier";
    /// The session of L2TP, versions 2 and 3.
    L2tpSession = 5, "l2tp", "each end of an L2TP session chooses its own session identifier";
    /// The security parameter index of ESP and AH.
    Spi = 6, "spi", "each direction of IPsec is a security association of its own";
}

impl KeyId {
    /// Whether there are networks where both directions carry the same.
    pub const fn may_be_symmetric(self) -> bool {
        matches!(self, KeyId::Mpls | KeyId::Gre)
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<KeyId> {
        KeyId::ALL.iter().copied().find(|id| id.name() == name)
    }
}

/// A set of identifiers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct KeyIds(u8);

impl KeyIds {
    /// None of them.
    pub const NONE: KeyIds = KeyIds(0);

    /// Adds one.
    pub const fn insert(&mut self, id: KeyId) {
        self.0 |= 1 << id as u8;
    }

    /// Whether it is one of them.
    #[inline(always)]
    pub const fn contains(self, id: KeyId) -> bool {
        self.0 >> id as u8 & 1 != 0
    }

    /// Those in the set, in the order of their number.
    pub fn iter(self) -> impl Iterator<Item = KeyId> {
        KeyId::ALL.iter().copied().filter(move |&id| self.contains(id))
    }
}

impl FromIterator<KeyId> for KeyIds {
    fn from_iter<I: IntoIterator<Item = KeyId>>(ids: I) -> KeyIds {
        let mut set = KeyIds::NONE;
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}
