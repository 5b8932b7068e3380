//! What makes the key: how deep to look, what to leave alone, what joins the key, where the rest goes.

use core::fmt;
use core::str::FromStr;

use crate::{KeyId, KeyIds, LayerSet, UdpTunnels};

/// Whether a number is written the one way it can be: no sign, no zeros in front.
fn is_plain(number: &str) -> bool {
    number.bytes().all(|byte| byte.is_ascii_digit()) && (number == "0" || !number.starts_with('0'))
}

/// Which IP header of a packet makes the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum KeyLevel {
    /// The innermost one that can be read: the user's own flow, whatever carries it.
    #[default]
    Innermost,
    /// The outermost one: the tunnel, as a router sees it.
    Outermost,
    /// The n-th, counted from 1 at the outermost; the innermost where there are fewer.
    Nth(u8),
}

impl KeyLevel {
    /// The number of the IP header that makes the key, 255 for the innermost.
    pub(crate) fn number(self) -> u8 {
        match self {
            KeyLevel::Innermost => u8::MAX,
            KeyLevel::Outermost => 1,
            KeyLevel::Nth(n) => n.max(1),
        }
    }
}

/// A name that means nothing where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameError {
    /// What may stand there.
    pub allowed: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be {}", self.allowed)
    }
}

impl core::error::Error for NameError {}

impl FromStr for KeyLevel {
    type Err = NameError;

    /// `innermost`, `outermost`, or a number from 1.
    fn from_str(text: &str) -> Result<KeyLevel, NameError> {
        match (text, text.parse()) {
            ("innermost", _) => Ok(KeyLevel::Innermost),
            ("outermost", _) => Ok(KeyLevel::Outermost),
            (_, Ok(n @ 1..)) if is_plain(text) => Ok(KeyLevel::Nth(n)),
            _ => Err(NameError { allowed: "innermost, outermost, or a number from 1 to 255" }),
        }
    }
}

/// What to do with IP fragments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fragments {
    /// Later fragments go where the first one went.
    #[default]
    Follow,
    /// All fragments, first ones too, go by addresses and protocol: no memory is needed, but a
    /// conversation that is fragmented only now and then is split in two.
    AddressesOnly,
}

impl FromStr for Fragments {
    type Err = NameError;

    /// `follow` or `addresses`.
    fn from_str(text: &str) -> Result<Fragments, NameError> {
        match text {
            "follow" => Ok(Fragments::Follow),
            "addresses" => Ok(Fragments::AddressesOnly),
            _ => Err(NameError { allowed: "follow or addresses" }),
        }
    }
}

/// Where a packet without an IP header goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum NonIp {
    /// By its two hardware addresses, both directions alike; by its link type where it has none.
    #[default]
    MacPair,
    /// To this ring. A ring that the table does not have is passed over for
    /// [`MacPair`](NonIp::MacPair).
    Ring(u16),
    /// To the ring of this bucket of the table (its low 12 bits count): moves with the table.
    Bucket(u16),
}

impl FromStr for NonIp {
    type Err = NameError;

    /// `mac-pair`, `ring:N` or `bucket:N`.
    fn from_str(text: &str) -> Result<NonIp, NameError> {
        let number = |text: &str| text.parse().ok().filter(|_| is_plain(text));
        let place = text.split_once(':').and_then(|(kind, place)| Some((kind, number(place)?)));
        match (text, place) {
            ("mac-pair", _) => Ok(NonIp::MacPair),
            (_, Some(("ring", ring))) => Ok(NonIp::Ring(ring)),
            (_, Some(("bucket", bucket @ 0..4096))) => Ok(NonIp::Bucket(bucket)),
            _ => Err(NameError { allowed: "mac-pair, ring:N, or bucket:N with N below 4096" }),
        }
    }
}

/// What makes the key of a packet. [`Policy::default`] is the built-in policy: the innermost flow,
/// nothing else.
///
/// In a policy file every field has the same name.
///
/// ```
/// use flowyard_steer::{KeyId, Policy};
///
/// let mut policy = Policy::default();
/// policy.key_ids.insert(KeyId::Teid);
/// let refusal = policy.check().unwrap_err();
/// assert!(refusal.to_string().contains("teid"));
/// policy.force = true;
/// assert!(policy.check().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Which IP header makes the key.
    pub key: KeyLevel,
    /// How many IP headers one packet may have before dissection stops with
    /// [`Stop::Depth`](crate::Stop::Depth), a quoted packet's own included.
    pub max_depth: u8,
    /// How many headers of any kind may be read: the bound on work for one packet.
    pub max_steps: u8,
    /// Layers that are not entered: dissection stops before them with
    /// [`Stop::Policy`](crate::Stop::Policy), and what carries them makes the key.
    pub leave_alone: LayerSet,
    /// The outermost VLAN identifier joins the key; that of a priority tag, 0, is none. Off by default:
    /// tags may differ by direction.
    pub key_vlan: bool,
    /// The innermost virtual network identifier (VXLAN, GENEVE, NVGRE) joins the key. Off by
    /// default.
    pub key_vni: bool,
    /// Further identifiers that join the key, from every header on the way down. Those that differ
    /// by direction split conversations: [`Policy::check`] refuses them.
    pub key_ids: KeyIds,
    /// Those of `key_ids` that are the same in both directions of this network's traffic.
    pub symmetric: KeyIds,
    /// A key that parts the two directions is wanted.
    pub force: bool,
    /// What to do with fragments.
    pub fragments: Fragments,
    /// Where packets without an IP header go.
    pub non_ip: NonIp,
    /// Which UDP ports carry tunnels, and which go by addresses.
    pub udp_tunnels: UdpTunnels,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            key: KeyLevel::Innermost,
            max_depth: 8,
            max_steps: 192,
            leave_alone: LayerSet::NONE,
            key_vlan: false,
            key_vni: false,
            key_ids: KeyIds::NONE,
            symmetric: KeyIds::NONE,
            force: false,
            fragments: Fragments::Follow,
            non_ip: NonIp::MacPair,
            udp_tunnels: UdpTunnels::default(),
        }
    }
}

impl Policy {
    /// Whether the policy keeps its promise: both directions under one key, something to read.
    /// With [`force`](Policy::force) the first is not asked for.
    pub fn check(&self) -> Result<(), PolicyError> {
        for (name, value) in [("max_depth", self.max_depth), ("max_steps", self.max_steps)] {
            if value == 0 {
                return Err(PolicyError::Nothing { name });
            }
        }
        if self.key == KeyLevel::Nth(0) {
            return Err(PolicyError::Nothing { name: "key" });
        }
        if self.force {
            return Ok(());
        }
        if let Some(id) = self.symmetric.iter().find(|id| !id.may_be_symmetric()) {
            return Err(PolicyError::NeverSymmetric { id });
        }
        match self.key_ids.iter().find(|&id| !self.symmetric.contains(id)) {
            Some(id) => Err(PolicyError::Asymmetric { id }),
            None => Ok(()),
        }
    }
}

/// Why a policy is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PolicyError {
    /// A field is 0 that counts from 1: no packet would have a key.
    Nothing {
        /// The field.
        name: &'static str,
    },
    /// An identifier in `key_ids` differs by direction.
    Asymmetric {
        /// Which one.
        id: KeyId,
    },
    /// An identifier in `symmetric` differs by direction by its nature.
    NeverSymmetric {
        /// Which one.
        id: KeyId,
    },
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PolicyError::Nothing { name } => write!(f, "{name} = 0: must be at least 1"),
            PolicyError::Asymmetric { id } => {
                write!(f, "key_ids has {:?}: {}, and conversations would be split; ", id.name(), id.why())?;
                if id.may_be_symmetric() {
                    write!(f, "if yours are the same both ways, add it to symmetric; ")?;
                }
                write!(f, "to have it nevertheless, set force = true")
            }
            PolicyError::NeverSymmetric { id } => {
                write!(f, "symmetric has {:?}: {}; to have it in key_ids, set force = true", id.name(), id.why())
            }
        }
    }
}

impl core::error::Error for PolicyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_splits_conversations_is_refused() {
        for &id in KeyId::ALL {
            let mut policy = Policy::default();
            policy.key_ids.insert(id);
            let refusal = policy.check().unwrap_err();
            assert_eq!(refusal, PolicyError::Asymmetric { id });
            assert!(refusal.to_string().contains(id.name()) && refusal.to_string().contains("force"));
            let declared = Policy { symmetric: policy.key_ids, ..policy.clone() };
            assert_eq!(declared.check().is_ok(), matches!(id, KeyId::Mpls | KeyId::Gre));
            assert_eq!(Policy { force: true, ..policy }.check(), Ok(()));
        }
    }

    #[test]
    fn names_parse_or_say_what_may_stand_there() {
        assert_eq!("2".parse(), Ok(KeyLevel::Nth(2)));
        assert!("0".parse::<KeyLevel>().unwrap_err().to_string().contains("innermost"));
        assert_eq!("addresses".parse(), Ok(Fragments::AddressesOnly));
        assert_eq!("ring:9".parse(), Ok(NonIp::Ring(9)));
        assert_eq!("bucket:4095".parse(), Ok(NonIp::Bucket(4095)));
        assert!("bucket:4096".parse::<NonIp>().is_err() && "ring".parse::<NonIp>().is_err());
        assert!("+2".parse::<KeyLevel>().is_err() && "02".parse::<KeyLevel>().is_err());
        assert!("ring:+9".parse::<NonIp>().is_err() && "ring:".parse::<NonIp>().is_err());
        assert_eq!("ring:0".parse(), Ok(NonIp::Ring(0)));
    }

    #[test]
    fn what_reads_nothing_is_refused() {
        let policy = Policy::default();
        assert_eq!(policy.check(), Ok(()));
        assert!(Policy { max_depth: 0, force: true, ..policy.clone() }.check().is_err());
        assert!(Policy { max_steps: 0, ..policy.clone() }.check().is_err());
        assert!(Policy { key: KeyLevel::Nth(0), ..policy }.check().is_err());
    }
}
