//! Options that several verbs share: how packets are sorted.

use std::str::FromStr;

use clap::Args;
use flowyard::steer::{Classifier, FIXED_SEED, FlowHash, Fragments, KeyLevel, Policy, Table, ToeplitzKey};
use miette::{IntoDiagnostic, Result, miette};

/// How packets are sorted. The same options give the same packets the same rings in every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sorting")]
pub struct Sorting {
    /// Number of rings
    #[arg(short = 'n', long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub rings: u16,
    /// Share of each ring, such as 2,1,1 (default: equal)
    #[arg(long, value_name = "W,W,…", value_delimiter = ',')]
    pub weights: Option<Vec<u32>>,
    /// What is hashed and how: `default`, `toeplitz` (Microsoft's key) or `toeplitz:HEXKEY`
    #[arg(long, value_name = "HASH", default_value = "default")]
    pub hash: HashName,
    /// Seed of the default hash, or `random` [default: fixed for files and built-in traffic, random for interfaces]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<Seed>,
    /// Which IP header makes the key: `innermost`, `outermost`, or a number counted from the outermost, 1
    #[arg(long, value_name = "LEVEL", default_value = "innermost")]
    pub key: KeyName,
    /// Later fragments `follow` their first, or go by `addresses`
    #[arg(long, value_name = "HOW", default_value = "follow")]
    pub fragments: FragmentsName,
    /// The outermost VLAN joins the key
    #[arg(long)]
    pub key_vlan: bool,
    /// The innermost virtual network (VXLAN, GENEVE) joins the key
    #[arg(long)]
    pub key_vni: bool,
}

impl Sorting {
    /// What to classify by; `live` decides the seed where none is given.
    pub fn classifier(&self, live: bool) -> Result<Classifier> {
        let table = match &self.weights {
            None => Table::even(self.rings),
            Some(weights) if weights.len() != usize::from(self.rings) => {
                return Err(miette!(
                    "--weights has {} entries, but there are {} rings: give one a ring, or --rings {}",
                    weights.len(),
                    self.rings,
                    weights.len()
                ));
            }
            Some(weights) => Table::weighted(weights),
        };
        Ok(Classifier { policy: self.policy(), hash: self.hash(live)?, table: table.into_diagnostic()? })
    }

    /// The policy asked for.
    pub fn policy(&self) -> Policy {
        Policy {
            key: self.key.0,
            key_vlan: self.key_vlan,
            key_vni: self.key_vni,
            fragments: self.fragments.0,
            ..Policy::default()
        }
    }

    /// The hash asked for.
    pub fn hash(&self, live: bool) -> Result<FlowHash> {
        let seed = match (&self.hash, self.seed) {
            (HashName::Toeplitz(_), Some(_)) => {
                return Err(miette!("--seed belongs to the default hash: give --hash toeplitz:HEXKEY for another key"));
            }
            (HashName::Toeplitz(key), None) => return Ok(FlowHash::Toeplitz(key.clone())),
            (HashName::Default, Some(Seed::Fixed(seed))) => seed,
            (HashName::Default, None) if !live => FIXED_SEED,
            (HashName::Default, _) => random_seed()?,
        };
        Ok(FlowHash::Default { seed })
    }
}

fn random_seed() -> Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).into_diagnostic()?;
    Ok(u64::from_ne_bytes(bytes))
}

/// `--hash`.
#[derive(Debug, Clone)]
pub enum HashName {
    /// Ours.
    Default,
    /// Toeplitz with this key.
    Toeplitz(ToeplitzKey),
}

impl FromStr for HashName {
    type Err = String;

    fn from_str(text: &str) -> Result<HashName, String> {
        match text.split_once(':') {
            None if text == "default" => Ok(HashName::Default),
            None if text == "toeplitz" => Ok(HashName::Toeplitz(ToeplitzKey::microsoft())),
            Some(("toeplitz", hex)) => {
                let digits: Vec<u8> = hex.bytes().filter(|b| *b != b':').collect();
                let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                let key: Option<Vec<u8>> = digits.chunks(2).map(|p| byte(p).filter(|_| p.len() == 2)).collect();
                let key = key.ok_or("the key must be an even number of hexadecimal digits")?;
                ToeplitzKey::new(&key).map(HashName::Toeplitz).map_err(|e| e.to_string())
            }
            _ => Err("must be default, toeplitz or toeplitz:HEXKEY".into()),
        }
    }
}

/// `--seed`.
#[derive(Debug, Clone, Copy)]
pub enum Seed {
    /// This one.
    Fixed(u64),
    /// A new one each time.
    Random,
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Seed, String> {
        let number = match text.strip_prefix("0x") {
            _ if text == "random" => return Ok(Seed::Random),
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number.map(Seed::Fixed).map_err(|_| "must be a number of at most 64 bits (decimal or 0x…), or random".into())
    }
}

/// `--key`.
#[derive(Debug, Clone, Copy)]
pub struct KeyName(KeyLevel);

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<KeyName, String> {
        match (text, text.parse::<u8>()) {
            ("innermost", _) => Ok(KeyName(KeyLevel::Innermost)),
            ("outermost", _) => Ok(KeyName(KeyLevel::Outermost)),
            (_, Ok(n @ 1..)) => Ok(KeyName(KeyLevel::Nth(n))),
            _ => Err("must be innermost, outermost, or a number from 1".into()),
        }
    }
}

/// `--fragments`.
#[derive(Debug, Clone, Copy)]
pub struct FragmentsName(Fragments);

impl FromStr for FragmentsName {
    type Err = String;

    fn from_str(text: &str) -> Result<FragmentsName, String> {
        match text {
            "follow" => Ok(FragmentsName(Fragments::Follow)),
            "addresses" => Ok(FragmentsName(Fragments::AddressesOnly)),
            _ => Err("must be follow or addresses".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_or_say_what_may_stand_there() {
        assert!(matches!("0xff".parse(), Ok(Seed::Fixed(255))));
        assert!(matches!("random".parse(), Ok(Seed::Random)));
        assert!("0xzz".parse::<Seed>().is_err_and(|e| e.contains("random")));
        assert!(matches!("toeplitz".parse(), Ok(HashName::Toeplitz(_))));
        assert!(format!("toeplitz:{}", "6d:5a".repeat(26).replace("5a6d", "5a:6d")).parse::<HashName>().is_ok());
        assert!("toeplitz:6d5".parse::<HashName>().is_err());
        assert!("0".parse::<KeyName>().is_err() && "2".parse::<KeyName>().is_ok());
    }
}
