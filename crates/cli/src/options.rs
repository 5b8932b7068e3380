//! Options that several verbs share: how packets are sorted.

use std::path::Path;

use clap::Args;
pub use flowyard::HashChoice as HashName;
use flowyard::steer::{Classifier, FIXED_SEED, FlowHash, Fragments, KeyLevel, Policy, Table};
use flowyard::{PolicyFile, Seed};
use miette::{IntoDiagnostic, Result, miette};

/// How packets are sorted. The same options give the same packets the same rings in every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sorting")]
pub struct Sorting {
    /// Number of rings [default: 4]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub rings: Option<u16>,
    /// Share of each ring, such as 2,1,1 (default: equal)
    #[arg(long, value_name = "W,W,…", value_delimiter = ',')]
    pub weights: Option<Vec<u32>>,
    /// How packets are sorted, in TOML; the options below go before it (see examples/policy.toml)
    #[arg(long = "policy", value_name = "FILE", value_parser = policy_file)]
    pub policy_file: Option<PolicyFile>,
    /// What is hashed and how: `default`, `toeplitz` (Microsoft's key) or `toeplitz:HEXKEY` [default: default]
    #[arg(long, value_name = "HASH")]
    pub hash: Option<HashName>,
    /// Seed of the default hash, or `random` [default: fixed for files and built-in traffic, random for interfaces]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<Seed>,
    /// Which IP header makes the key: `innermost`, `outermost`, or a number counted from the outermost, 1 [default: innermost]
    #[arg(long, value_name = "LEVEL")]
    pub key: Option<KeyLevel>,
    /// Later fragments `follow` their first, or go by `addresses` [default: follow]
    #[arg(long, value_name = "HOW")]
    pub fragments: Option<Fragments>,
    /// The outermost VLAN joins the key
    #[arg(long)]
    pub key_vlan: bool,
    /// The innermost virtual network (VXLAN, GENEVE) joins the key
    #[arg(long)]
    pub key_vni: bool,
}

/// Rings where nobody says how many.
const RINGS: u16 = 4;

impl Sorting {
    /// Number of rings.
    pub fn rings(&self) -> u16 {
        self.rings.unwrap_or(RINGS)
    }

    /// What to classify by; `live` decides the seed where none is given.
    pub fn classifier(&self, live: bool) -> Result<Classifier> {
        let table = match &self.weights {
            None => Table::even(self.rings()),
            Some(weights) if weights.len() != usize::from(self.rings()) => {
                return Err(miette!(
                    "--weights has {} entries, but there are {} rings: give one a ring, or --rings {}",
                    weights.len(),
                    self.rings(),
                    weights.len()
                ));
            }
            Some(weights) => Table::weighted(weights),
        };
        Ok(Classifier { policy: self.policy(), hash: self.hash(live)?, table: table.into_diagnostic()? })
    }

    /// The policy asked for: the file's, changed by what the command line says.
    pub fn policy(&self) -> Policy {
        let file = self.policy_file.as_ref().map(|file| file.policy.clone()).unwrap_or_default();
        Policy {
            key: self.key.unwrap_or(file.key),
            key_vlan: self.key_vlan || file.key_vlan,
            key_vni: self.key_vni || file.key_vni,
            fragments: self.fragments.unwrap_or(file.fragments),
            ..file
        }
    }

    /// The hash asked for.
    pub fn hash(&self, live: bool) -> Result<FlowHash> {
        let file = self.policy_file.as_ref();
        let hash = self.hash.as_ref().or(file.and_then(|file| file.hash.as_ref())).unwrap_or(&HashName::Default);
        let seed = self.seed.or(file.and_then(|file| file.seed));
        let seed = match (hash, seed) {
            (HashName::Toeplitz(_), _) if self.seed.is_some() => {
                return Err(miette!("--seed belongs to the default hash: give --hash toeplitz:HEXKEY for another key"));
            }
            (HashName::Toeplitz(key), _) => return Ok(FlowHash::Toeplitz(key.clone())),
            (HashName::Default, Some(Seed::Fixed(seed))) => seed,
            (HashName::Default, None) if !live => FIXED_SEED,
            (HashName::Default, _) => random_seed()?,
        };
        Ok(FlowHash::Default { seed })
    }
}

/// `--policy`: read at once, so that a mistake in the file is told like one in an option.
fn policy_file(path: &str) -> Result<PolicyFile, String> {
    PolicyFile::read(Path::new(path)).map_err(|e| e.to_string())
}

fn random_seed() -> Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).into_diagnostic()?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::io::Write;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        sorting: Sorting,
    }

    fn sorting(options: &[&str]) -> Result<Sorting, clap::Error> {
        Program::try_parse_from(["flowyard"].iter().chain(options)).map(|program| program.sorting)
    }

    #[test]
    fn names_parse_or_say_what_may_stand_there() {
        assert!(matches!("0xff".parse(), Ok(Seed::Fixed(255))));
        assert!(matches!("random".parse(), Ok(Seed::Random)));
        assert!("0xzz".parse::<Seed>().is_err_and(|e| e.contains("random")));
        assert!(matches!("toeplitz".parse(), Ok(HashName::Toeplitz(_))));
        assert!(format!("toeplitz:{}", "6d:5a".repeat(26).replace("5a6d", "5a:6d")).parse::<HashName>().is_ok());
        assert!("toeplitz:6d5".parse::<HashName>().is_err());
        assert!(sorting(&["--key", "0"]).is_err_and(|e| e.to_string().contains("outermost")));
        assert_eq!(sorting(&["--key", "2"]).expect("a level").policy().key, KeyLevel::Nth(2));
        assert_eq!(sorting(&[]).expect("no options").policy(), Policy::default());
    }

    #[test]
    fn options_go_before_the_policy_file() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "key = 'outermost'\nfragments = 'addresses'\nseed = 5\nkey_vni = true").expect("written");
        let path = file.path().to_str().expect("a name").to_owned();
        let from_file = sorting(&["--policy", &path]).expect("the file");
        assert_eq!(from_file.policy().key, KeyLevel::Outermost);
        assert_eq!(from_file.hash(true).expect("a hash"), FlowHash::Default { seed: 5 });
        let both = sorting(&["--policy", &path, "--key", "innermost", "--seed", "6", "--key-vlan"]).expect("both");
        let policy = both.policy();
        assert_eq!((policy.key, policy.fragments), (KeyLevel::Innermost, Fragments::AddressesOnly));
        assert!(policy.key_vlan && policy.key_vni);
        assert_eq!(both.hash(true).expect("a hash"), FlowHash::Default { seed: 6 });
        let toeplitz = sorting(&["--policy", &path, "--hash", "toeplitz"]).expect("another hash");
        assert!(matches!(toeplitz.hash(true), Ok(FlowHash::Toeplitz(_))));
    }

    #[test]
    fn a_bad_policy_file_is_told_like_a_bad_option() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "key_ids = ['teid']").expect("written");
        let refusal = sorting(&["--policy", file.path().to_str().expect("a name")]).expect_err("refused").to_string();
        assert!(refusal.contains("--policy") && refusal.contains("teid") && refusal.contains("force"));
        assert!(sorting(&["--policy", "/nowhere.toml"]).is_err_and(|e| e.to_string().contains("/nowhere.toml")));
    }
}
