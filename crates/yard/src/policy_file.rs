//! The policy file: how packets are sorted, in TOML.
//!
//! Every key is a field of [`Policy`] under the same name, beside `hash` and `seed`, which are the
//! classifier's; what is left out is as in [`Policy::default`]. Whatever the file has that means
//! nothing is refused with its line, and so is a policy that [`Policy::check`] refuses.
//! `examples/policy.toml` has every key with its default.
//!
//! ```
//! use flowyard::{PolicyFile, steer::KeyLevel};
//!
//! let file = PolicyFile::parse("key = 'outermost'\nseed = 7\n")?;
//! assert_eq!(file.policy.key, KeyLevel::Outermost);
//! let refusal = PolicyFile::parse("\nkey = 'inner'\n").unwrap_err().to_string();
//! assert!(refusal.contains("line 2") && refusal.contains("innermost"));
//! # Ok::<(), flowyard::PolicyFileError>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::str::FromStr;

use flowyard_steer::{Fragments, KeyId, KeyLevel, Layer, NonIp, Policy, ToeplitzKey, UdpTunnels};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// Longest policy file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// What a policy file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyFile {
    /// What makes the key.
    pub policy: Policy,
    /// How the key becomes a hash, if the file says.
    pub hash: Option<HashChoice>,
    /// The seed of the default hash, if the file says.
    pub seed: Option<Seed>,
}

/// Why a policy file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("cannot read the policy file {name}: {error}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        error: std::io::Error,
    },
    /// It means nothing, or what it means is refused.
    #[error("{shown}")]
    Refused {
        /// Key, value and what is allowed, with the line where there is one.
        shown: String,
        /// The same without the line.
        reason: String,
        /// Where in the text, if one place is to blame.
        span: Option<std::ops::Range<usize>>,
    },
}

impl PolicyFileError {
    /// Key, value and what is allowed, without the line.
    pub fn reason(&self) -> String {
        match self {
            PolicyFileError::Refused { reason, .. } => reason.clone(),
            read @ PolicyFileError::Read { .. } => read.to_string(),
        }
    }

    /// Where in the text, if one place is to blame.
    pub fn span(&self) -> Option<std::ops::Range<usize>> {
        match self {
            PolicyFileError::Refused { span, .. } => span.clone(),
            PolicyFileError::Read { .. } => None,
        }
    }

    fn refused(reason: impl ToString) -> PolicyFileError {
        let reason = reason.to_string().trim_end().to_owned();
        PolicyFileError::Refused { shown: reason.clone(), reason, span: None }
    }
}

impl From<toml::de::Error> for PolicyFileError {
    fn from(error: toml::de::Error) -> PolicyFileError {
        let shown = error.to_string().trim_end().to_owned();
        PolicyFileError::Refused { shown, reason: error.message().trim_end().replace('\n', "; "), span: error.span() }
    }
}

/// Which hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashChoice {
    /// Flowyard's own, with a seed.
    Default,
    /// Toeplitz with this key.
    Toeplitz(ToeplitzKey),
}

impl FromStr for HashChoice {
    type Err = String;

    /// `default`, `toeplitz` (Microsoft's key) or `toeplitz:HEXKEY`.
    fn from_str(text: &str) -> Result<HashChoice, String> {
        match text.split_once(':') {
            None if text == "default" => Ok(HashChoice::Default),
            None if text == "toeplitz" => Ok(HashChoice::Toeplitz(ToeplitzKey::microsoft())),
            Some(("toeplitz", hex)) => {
                let digits = hex.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|digit| digit as u8));
                let digits: Option<Vec<u8>> = digits.collect();
                let digits = digits.filter(|digits| digits.len() % 2 == 0);
                let digits = digits.ok_or("the key must be an even number of hexadecimal digits")?;
                let key: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
                ToeplitzKey::new(&key).map(HashChoice::Toeplitz).map_err(|e| e.to_string())
            }
            _ => Err("must be default, toeplitz or toeplitz:HEXKEY".into()),
        }
    }
}

/// The seed of the default hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// This one.
    Fixed(u64),
    /// A new one each time.
    Random,
}

impl FromStr for Seed {
    type Err = String;

    /// A number, decimal or with 0x, or `random`.
    fn from_str(text: &str) -> Result<Seed, String> {
        if text == "random" {
            return Ok(Seed::Random);
        }
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |hex| (hex, 16));
        let number = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
        number.map(Seed::Fixed).ok_or_else(|| "must be a number of at most 64 bits (decimal or 0x…), or random".into())
    }
}

impl PolicyFile {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<PolicyFile, PolicyFileError> {
        use std::io::Read;
        let fault = |error| PolicyFileError::Read { name: path.display().to_string(), error };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(fault)?;
        // A byte more than may be, so that what is longer is refused and not cut.
        let len = file.take(LONGEST + 1).read_to_string(&mut text).map_err(fault)?;
        if len as u64 > LONGEST {
            return Err(fault(std::io::Error::other("it is longer than a policy can be, 1 MiB")));
        }
        PolicyFile::parse(&text)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<PolicyFile, PolicyFileError> {
        toml::from_str::<Text>(text)?.checked()
    }

    /// Reads the table `policy` of a text that has more than that; `None` if there is none.
    pub fn parse_within(text: &str) -> Result<Option<PolicyFile>, PolicyFileError> {
        toml::from_str::<Within>(text)?.policy.map(Text::checked).transpose()
    }
}

/// A file of which `[policy]` is a part.
#[derive(Deserialize)]
struct Within {
    policy: Option<Text>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    hash: Option<Named<HashChoice>>,
    seed: Option<Named<Seed>>,
    key: Option<Named<KeyLevel>>,
    max_depth: Option<u8>,
    max_steps: Option<u8>,
    #[serde(default)]
    leave_alone: Vec<Named<Left>>,
    key_vlan: Option<bool>,
    key_vni: Option<bool>,
    #[serde(default)]
    key_ids: Vec<Named<Joining>>,
    #[serde(default)]
    symmetric: Vec<Named<Joining>>,
    force: Option<bool>,
    fragments: Option<Named<Fragments>>,
    non_ip: Option<Named<NonIp>>,
    #[serde(default)]
    udp_tunnels: Tunnels,
}

/// `[udp_tunnels]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Tunnels {
    by_addresses: Option<Vec<u16>>,
    #[serde(default)]
    ports: BTreeMap<Named<Port>, Named<Behind>>,
}

impl Text {
    fn checked(self) -> Result<PolicyFile, PolicyFileError> {
        let file = self.resolve().map_err(PolicyFileError::refused)?;
        file.policy.check().map_err(PolicyFileError::refused)?;
        Ok(file)
    }

    fn resolve(self) -> Result<PolicyFile, String> {
        let default = Policy::default();
        if let (Some(Named(HashChoice::Toeplitz(_))), Some(_)) = (&self.hash, &self.seed) {
            return Err(
                "seed: belongs to the default hash; a Toeplitz hash has its key, hash = \"toeplitz:HEXKEY\"".into()
            );
        }
        let policy = Policy {
            key: named(self.key, default.key),
            max_depth: self.max_depth.unwrap_or(default.max_depth),
            max_steps: self.max_steps.unwrap_or(default.max_steps),
            leave_alone: self.leave_alone.into_iter().flat_map(|left| left.0.0).collect(),
            key_vlan: self.key_vlan.unwrap_or(default.key_vlan),
            key_vni: self.key_vni.unwrap_or(default.key_vni),
            key_ids: self.key_ids.into_iter().map(|id| id.0.0).collect(),
            symmetric: self.symmetric.into_iter().map(|id| id.0.0).collect(),
            force: self.force.unwrap_or(default.force),
            fragments: named(self.fragments, default.fragments),
            non_ip: named(self.non_ip, default.non_ip),
            udp_tunnels: self.udp_tunnels.resolve(default.udp_tunnels)?,
        };
        Ok(PolicyFile { policy, hash: self.hash.map(|hash| hash.0), seed: self.seed.map(|seed| seed.0) })
    }
}

impl Tunnels {
    fn resolve(self, mut tunnels: UdpTunnels) -> Result<UdpTunnels, String> {
        let full = |_: ()| format!("udp_tunnels: more than {} ports", UdpTunnels::CAPACITY);
        // First out, then in: so that places are free again. Taking a tunnel out takes out what is left
        // with nothing, so that comes last.
        if self.by_addresses.is_some() {
            let before: Vec<u16> = tunnels.by_addresses().collect();
            for port in before {
                tunnels.set_by_addresses(port, false);
            }
        }
        for (port, _) in self.ports.iter().filter(|(_, behind)| behind.0.0.is_none()) {
            tunnels.unset(port.0.0);
        }
        if let Some(by_addresses) = self.by_addresses {
            for port in by_addresses {
                tunnels.set_by_addresses(port, true).then_some(()).ok_or(()).map_err(full)?;
            }
        }
        for (port, behind) in self.ports {
            if let Some((layer, answers)) = behind.0.0 {
                tunnels.set(port.0.0, layer, answers).then_some(()).ok_or(()).map_err(full)?;
            }
        }
        Ok(tunnels)
    }
}

fn named<T>(value: Option<Named<T>>, default: T) -> T {
    value.map_or(default, |named| named.0)
}

/// A string, or a number written without quotes, that is the name of something.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Named<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name<T>(PhantomData<T>);

        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Name<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Named<T>, E> {
                text.parse().map(Named).map_err(|reason| E::custom(format!("{text:?}: {reason}")))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Named<T>, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Named<T>, E> {
                self.visit_str(&number.to_string())
            }
        }

        deserializer.deserialize_any(Name(PhantomData))
    }
}

/// A UDP port, written the one way it can be: TOML refuses to be told twice of one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Port(u16);

impl FromStr for Port {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Port, &'static str> {
        let port = text.parse().ok().filter(|port: &u16| port.to_string() == text);
        port.map(Port).ok_or("must be a port from 0 to 65535")
    }
}

/// Layers by their name.
struct Left(Vec<Layer>);

impl FromStr for Left {
    type Err = String;

    fn from_str(name: &str) -> Result<Left, String> {
        let layers: Vec<Layer> = Layer::from_name(name).collect();
        if layers.is_empty() {
            let mut names: Vec<_> = Layer::ALL.iter().map(|layer| layer.name()).collect();
            names.dedup();
            return Err(format!("must be a layer as inspect prints it: {}", names.join(", ")));
        }
        Ok(Left(layers))
    }
}

/// An identifier by its name.
struct Joining(KeyId);

impl FromStr for Joining {
    type Err = String;

    fn from_str(name: &str) -> Result<Joining, String> {
        let names: Vec<_> = KeyId::ALL.iter().map(|id| id.name()).collect();
        KeyId::from_name(name).map(Joining).ok_or_else(|| format!("must be one of {}", names.join(", ")))
    }
}

/// The tunnel behind a port and whether it answers from there, or none.
struct Behind(Option<(Layer, bool)>);

impl FromStr for Behind {
    type Err = String;

    fn from_str(name: &str) -> Result<Behind, String> {
        if name == "none" {
            return Ok(Behind(None));
        }
        let built_in = UdpTunnels::default();
        let known = built_in.iter().find(|(_, layer, _)| layer.name() == name);
        known.map(|(_, layer, answers)| Behind(Some((layer, answers)))).ok_or_else(|| {
            let mut names: Vec<_> = built_in.iter().map(|(_, layer, _)| layer.name()).collect();
            names.sort_unstable();
            names.dedup();
            format!("must be none or a tunnel: {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        PolicyFile::parse(text).expect_err(text).to_string()
    }

    #[test]
    fn the_example_is_the_default_and_has_every_key() {
        let text = include_str!("../../../examples/policy.toml");
        let file = PolicyFile::parse(text).expect("the example");
        assert_eq!(file.policy, Policy::default());
        assert_eq!((file.hash, file.seed), (Some(HashChoice::Default), None));
        let keys = "hash seed key max_depth max_steps leave_alone key_vlan key_vni key_ids symmetric force fragments \
                    non_ip by_addresses ports";
        for key in keys.split_whitespace() {
            let line = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} ="));
            assert!(text.lines().any(line) || text.contains(&format!(".{key}]")), "{key}");
        }
        assert_eq!(PolicyFile::parse("").expect("an empty file").policy, Policy::default());
    }

    #[test]
    fn every_key_is_heard() {
        let text = "
            hash = 'toeplitz'
            key = 2
            max_depth = 4
            max_steps = 50
            leave_alone = ['gtp', 'sll']
            key_vlan = true
            key_vni = true
            key_ids = ['mpls', 'teid']
            symmetric = ['mpls']
            force = true
            fragments = 'addresses'
            non_ip = 'ring:3'
            [udp_tunnels]
            by_addresses = [500, 4500]
            [udp_tunnels.ports]
            4789 = 'none'
            5555 = 'vxlan'
            6000 = 'gtp'";
        let PolicyFile { policy, hash, seed } = PolicyFile::parse(text).expect(text);
        assert_eq!((hash, seed), (Some(HashChoice::Toeplitz(ToeplitzKey::microsoft())), None));
        assert_eq!((policy.key, policy.max_depth, policy.max_steps), (KeyLevel::Nth(2), 4, 50));
        assert!(policy.leave_alone.iter().eq([Layer::Gtp, Layer::Sll, Layer::Sll2]));
        assert!(policy.key_vlan && policy.key_vni && policy.force);
        assert!(policy.key_ids.iter().eq([KeyId::Mpls, KeyId::Teid]) && policy.symmetric.iter().eq([KeyId::Mpls]));
        assert_eq!((policy.fragments, policy.non_ip), (Fragments::AddressesOnly, NonIp::Ring(3)));
        let tunnels = &policy.udp_tunnels;
        assert_eq!((tunnels.find(1, 4789), tunnels.find(1, 5555)), (None, Some(Layer::Vxlan)));
        assert_eq!((tunnels.find(6000, 1), tunnels.find(5555, 1)), (Some(Layer::Gtp), None));
        assert!(tunnels.by_addresses().all(|port| matches!(port, 500 | 4500)));
        assert_eq!(PolicyFile::parse("seed = '0xff'").expect("a seed").seed, Some(Seed::Fixed(255)));
        assert_eq!(PolicyFile::parse("seed = 'random'").expect("a seed").seed, Some(Seed::Random));
    }

    #[test]
    fn refusals_name_key_value_and_what_is_allowed() {
        for (text, words) in [
            ("key = 'inner'", &["line 1", "key", "inner", "innermost, outermost"][..]),
            ("\n\nkeys = 1", &["line 3", "keys", "key_vlan"]),
            ("key = 0", &["\"0\"", "from 1"]),
            ("max_depth = 300", &["line 1", "300", "u8"]),
            ("max_steps = 0", &["max_steps", "at least 1"]),
            ("key_vlan = 'yes'", &["key_vlan", "yes", "boolean"]),
            ("leave_alone = ['gtpu']", &["gtpu", "gtp, gtpv2"]),
            ("key_ids = ['teid']", &["teid", "force = true"]),
            ("key_ids = ['gre']", &["gre", "symmetric"]),
            ("symmetric = ['spi']", &["spi", "security association"]),
            ("key_ids = ['vni']", &["vni", "mpls, gre"]),
            ("fragments = 'drop'", &["drop", "follow or addresses"]),
            ("non_ip = 'ring'", &["ring", "mac-pair"]),
            ("hash = 'crc'", &["crc", "toeplitz"]),
            ("hash = 'toeplitz'\nseed = 1", &["seed", "Toeplitz"]),
            ("seed = -1", &["-1", "64 bits"]),
            ("[udp_tunnels]\nports = { 70000 = 'gtp' }", &["line 2", "70000"]),
            ("[udp_tunnels.ports]\n7 = 'tcp'", &["line 2", "tcp", "none", "vxlan"]),
            ("[udp_tunnels]\nport = 3", &["line 2", "port", "by_addresses"]),
            ("key = ", &["line 1"]),
            // One spelling for one thing: no signs, no port under two names.
            ("key = '+2'", &["+2", "from 1"]),
            ("seed = '0x+7'", &["0x+7", "64 bits"]),
            ("seed = '+7'", &["+7", "64 bits"]),
            ("[udp_tunnels.ports]\n4789 = 'gtp'\n04789 = 'none'", &["line 3", "04789", "port"]),
            ("[udp_tunnels.ports]\n4789 = 'gtp'\n4789 = 'none'", &["line 3", "duplicate"]),
        ] {
            let refusal = refusal(text);
            for word in words {
                assert!(refusal.contains(word), "{text}: {refusal:?} lacks {word:?}");
            }
        }
        let many: String = (1..40).map(|port| format!("{port} = 'gtp'\n")).collect();
        assert!(refusal(&format!("[udp_tunnels.ports]\n{many}")).contains("32"));
        let signed = format!("hash = 'toeplitz:{}'", "+5".repeat(40));
        assert!(refusal(&signed).contains("hexadecimal"));
        let odd = format!("hash = 'toeplitz:{}'", "5".repeat(81));
        assert!(refusal(&odd).contains("even number"));
    }

    /// All built-in ports out, as many as there is room for in.
    #[test]
    fn what_is_taken_out_takes_no_room() {
        let default = UdpTunnels::default();
        let out: String = default.iter().map(|(port, ..)| format!("{port} = 'none'\n")).collect();
        let by_addresses: Vec<u16> = (1..=UdpTunnels::CAPACITY as u16).collect();
        let text = format!("[udp_tunnels]\nby_addresses = {by_addresses:?}\n[udp_tunnels.ports]\n{out}");
        let tunnels = PolicyFile::parse(&text).expect(&text).policy.udp_tunnels;
        assert!(tunnels.by_addresses().eq(by_addresses) && tunnels.iter().next().is_none());
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("policy.toml");
        let text = format!("{}\nkey = 'outermost'\n", "#".repeat(LONGEST as usize));
        std::fs::write(&path, &text).expect("written");
        let refusal = PolicyFile::read(&path).expect_err("too long").to_string();
        assert!(refusal.contains("policy.toml") && refusal.contains("1 MiB"), "{refusal}");
        std::fs::write(&path, &text[20..]).expect("written");
        assert_eq!(PolicyFile::read(&path).expect("just short enough").policy.key, KeyLevel::Outermost);
    }

    /// What the fuzz target `policy` asks, over mutations of the example: a short run for every day.
    #[test]
    fn damaged_files_are_refused_or_pass_their_own_check() {
        let example = include_bytes!("../../../examples/policy.toml");
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut read = 0;
        for _ in 0..3000 {
            let mut bytes = example.to_vec();
            for _ in 0..=random(3) {
                let (at, from) = (random(bytes.len()), random(bytes.len()));
                match random(4) {
                    0 => bytes[at] = b"=[]'\"0 \n.truefals-"[random(18)],
                    1 => bytes.truncate(at.max(1)),
                    2 => drop(bytes.remove(at)),
                    _ => {
                        let piece: Vec<u8> = bytes.iter().skip(from).take(random(40)).copied().collect();
                        bytes.splice(at..at, piece);
                    }
                }
            }
            match PolicyFile::parse(&String::from_utf8_lossy(&bytes)) {
                Ok(file) => {
                    read += 1;
                    assert_eq!(file.policy.check(), Ok(()));
                }
                Err(refusal) => assert!(!refusal.to_string().is_empty()),
            }
        }
        assert!(read > 100, "only {read} were read at all");
    }
}
