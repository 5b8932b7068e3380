//! Rules in TOML, as a steering function: what a packet must be, and where it then goes.
//!
//! ```toml
//! [[rule]]                      # rules are asked in order: the first that matches decides
//! name = "dns"                  # optional: its counters carry it
//! protocol = "udp"
//! port = 53                     # either end
//! verdict = "ring 0"
//!
//! [[rule]]
//! net = ["10.0.0.0/8", "2001:db8::/32"]
//! filter = "tcp port 80 and not host 10.1.2.3"
//! verdict = "shunt 60s"
//!
//! [[rule]]                      # without match keys: every packet that is left
//! verdict = "rings 1-3"
//! slice = 96
//! mark = 0x2a
//! ```
//!
//! ```
//! use flowyard::{Yard, YardConfig, rules};
//!
//! let dns = rules::parse("[[rule]]\nname = 'dns'\nport = 53\nverdict = 'ring 0'")?;
//! let config = YardConfig { rings: 2, function: Some(dns.function()), ..YardConfig::default() };
//! let (yard, readers) = Yard::open(&config, &["gen:mix?packets=1000".parse()?])?;
//! # drop((yard, readers));
//! let refusal = rules::parse("[[rule]]\nport = 70000\nverdict = 'drop'").unwrap_err().to_string();
//! assert!(refusal.contains("line 2") && refusal.contains("65535"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/rules.toml` has every key.
//!
//! # What a packet is asked
//! A rule matches if all of its keys do; a key with a list, if one of the list does. The flow that rules ask
//! about is the one that makes the built-in key: the innermost, whatever carries it, unless the policy says
//! otherwise; for an ICMP error, the one that it quotes, so that `protocol = "icmp"` does not match
//! an error and `protocol = "tcp"` one about TCP.
//!
//! | key | asks | |
//! |---|---|---|
//! | `protocol` | IP protocol of the flow, after extension headers | |
//! | `port` | either port of the flow | |
//! | `sport`, `dport` | the one port or the other | directional |
//! | `net` | either address of the flow | |
//! | `outer_net` | either address of the outermost IP header (of a quotation, in an ICMP error) | |
//! | `vlan` | the outermost VLAN, also where the card took it off; `"none"` | |
//! | `tunnel` | the innermost tunnel's kind; `"none"` | |
//! | `tunnel_id` | its identifier | directional but for VXLAN, GENEVE, PPPoE and IP |
//! | `icmp_error` | whether it is an ICMP error that quotes a packet | by packet |
//! | `fragment` | `"none"`, `"first"` or `"later"` | by packet |
//! | `stop` | why dissection ended | by packet |
//! | `length` | bytes on the wire | by packet |
//! | `link` | link type | |
//! | `port_number` | the yard's port that it came from, from 0 | |
//! | `filter` | an expression of tcpdump's; `filter_on` says where | as it is written |
//!
//! *Both directions of a conversation get the same verdict* from keys that are not marked, as long as both
//! directions come by the same port, VLAN and link. Keys marked *directional* or *by packet* divide
//! conversations, unless the verdict keeps them together (`built-in`, `hash …`, or `drop` for part of them).
//!
//! # Filters
//! An expression is compiled by libpcap, which is loaded when the rules are; without it they are refused. It
//! is asked of the packet as it was received (`filter_on = "outer"`), from the IP header of its flow on
//! (`"inner"`), or both (`"either"`, the default). With `"inner"` and `"either"` an ICMP error is judged as
//! the packet that it quotes, and IPv6 extension headers of the flow are passed over, which libpcap itself does not do:
//! packets of a conversation differ in them. Names of hosts are looked up once, when the rules are read. A card that takes
//! VLAN tags off takes them out of a filter's sight: use `vlan`.
//!
//! # Later fragments
//! A later fragment has no ports; one of a datagram that may hold a tunnel, or quote a packet, shows nothing of
//! its flow. It must go where its first fragment goes, whatever rule that one comes to. So it is
//! matched by a rule only if every piece of its datagram is: at the first rule that the first fragment might
//! match and it might not, or the other way round, it is left to the built-in policy, and the yard sends
//! it after its first one ([`function`](crate::function)), though without that one's `slice`, `pull` and
//! `mark`. Those whose first one never came are matched by what they show. So are all fragments
//! where the policy sends them by their addresses.
//!
//! # What it costs
//! Nothing is allocated on the packet path. Each rule is compared with all packets of a batch at once that no rule before
//! it has matched: most of a rule costs a few instructions a packet, and a batch of which it matches none is done with
//! there. What cannot be compared so (filters, networks of IPv6, lists of more than eight) is asked of what is left,
//! packet by packet. Measured on an EPYC with two cores, over generated traffic in full batches, the best of 200 turns
//! (`cargo test -p flowyard --release --lib -- --ignored --nocapture what_a_rule_costs`):
//!
//! | | ns a packet for the first | for each further one of 64 (8, where it is not cheap) |
//! |---|---|---|
//! | one protocol, port, tunnel, VLAN … | 2.5–3.7 | 0.3–0.4 |
//! | one IPv4 network | 17–27 | 0.3–0.5 |
//! | one IPv6 network | 36–37 | 9.5–10 |
//! | TCP and 16 ports | 18 | 6.8–7.4 |
//! | 256 networks | 36–54 | 18–21 |
//! | `tcp port 80 and host 10.1.2.3` on the packet as received | 65 | 23–38 |
//! | the same on the flow | 63–66 | 52–53 |
//! | the same on either | 88–89 | 78–82 |
//!
//! The first rule pays for what all after it share: that what it asks is gathered. What a packet costs that a rule
//! matches, and what having a function costs at all, is in bench/README.md.
//!
//! Compiling a filter takes half a millisecond.

mod action;
mod cbpf;
mod columns;
mod facts;
mod file;
mod filter;
mod keys;
mod matcher;
mod set;

pub(crate) use filter::compiled;
use std::any::Any;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use flowyard_mem::Tag;
use flowyard_steer::Dissection;

use self::action::Go;
use self::columns::{Columns, Packets};
use self::matcher::{Found, Matcher, bits};
use crate::function::{Batch, Failure, Function, FunctionError, Steer, Surroundings};

/// Longest file that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Why rules are refused.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file cannot be read.
    #[error("cannot read the rules {file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// What it says cannot be.
    #[error("{file}: {reason}")]
    Refused {
        /// The file, or `rules` for a text.
        file: String,
        /// Line, key, value and what is allowed.
        reason: String,
    },
}

impl From<RulesError> for FunctionError {
    fn from(error: RulesError) -> FunctionError {
        FunctionError::new("rules", error.to_string())
    }
}

/// Reads a file of rules: checked and compiled, ready for a yard.
///
/// # Errors
/// The file cannot be read, or what it says cannot be.
pub fn load(path: impl AsRef<Path>) -> Result<Function, RulesError> {
    use std::io::Read;
    let file = path.as_ref().display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|from| from.take(LONGEST).read_to_string(&mut text))
        .map_err(|error| RulesError::Read { file: file.clone(), error })?;
    Ok(compile(file, &text)?.function())
}

/// Reads the text of rules: checked and compiled.
///
/// # Errors
/// What it says cannot be.
pub fn parse(text: &str) -> Result<Rules, RulesError> {
    compile("rules".into(), text)
}

fn compile(file: String, text: &str) -> Result<Rules, RulesError> {
    match file::read(text) {
        Ok(rules) => Ok(Rules { file: file.into(), matcher: Arc::new(Matcher::new(rules)) }),
        Err(reason) => Err(RulesError::Refused { file, reason }),
    }
}

/// Rules that were checked and compiled. Cheap to clone.
#[derive(Clone)]
pub struct Rules {
    file: Arc<str>,
    matcher: Arc<Matcher>,
}

impl Rules {
    /// The steering function. It refuses yards that lack a ring which a rule names.
    pub fn function(&self) -> Function {
        let rules = self.clone();
        let name = if &*self.file == "rules" { "rules".to_owned() } else { format!("rules:{}", self.file) };
        Function::new(&name.clone(), move |surroundings: &Surroundings| {
            rules.check_rings(surroundings.rings).map_err(|why| FunctionError::new(name.clone(), why))?;
            Ok(Box::new(Sieve::new(rules.matcher.clone())))
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.matcher.rules.len()
    }

    /// Whether there are none: never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they are called, in order: by their names, or `rule N`.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.matcher.rules.iter().enumerate().map(|(at, rule)| file::shown(rule.name.as_deref(), at))
    }

    fn check_rings(&self, rings: u16) -> Result<(), String> {
        let beyond = |go| if let Go::Rings(_, last) = go { Some(last).filter(|&last| last >= rings) } else { None };
        for (at, rule) in self.matcher.rules.iter().enumerate() {
            if let Some(ring) = beyond(rule.action.go) {
                let (file, line, name) = (&self.file, rule.line, file::shown(rule.name.as_deref(), at));
                let last = rings.saturating_sub(1);
                return Err(format!("{file}: line {line}: {name}: verdict: no ring {ring}: must be from 0 to {last}"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("file", &self.file).field("rules", &self.len()).finish()
    }
}

/// What was counted of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    packets: u64,
    bytes: u64,
}

impl Count {
    #[inline]
    fn add(&mut self, tag: &Tag) {
        self.packets += 1;
        self.bytes += u64::from(tag.len);
    }
}

impl Packets for Batch<'_> {
    #[inline]
    fn len(&self) -> usize {
        Batch::len(self)
    }

    #[inline]
    fn seen(&self, at: usize) -> (&Dissection, &Tag) {
        Batch::seen(self, at)
    }

    #[inline]
    fn bytes(&mut self, at: usize) -> &[u8] {
        self.bytes_of(at)
    }
}

/// An instance: the rules, and what one dispatcher counted of them.
struct Sieve {
    matcher: Arc<Matcher>,
    /// One a rule.
    counts: Vec<Count>,
    unmatched: Count,
    /// Later fragments that were left to follow their first ones.
    following: Count,
    columns: Box<Columns>,
}

impl Sieve {
    fn new(matcher: Arc<Matcher>) -> Sieve {
        let counts = vec![Count::default(); matcher.rules.len()];
        let columns = Box::new(Columns::new());
        Sieve { matcher, counts, unmatched: Count::default(), following: Count::default(), columns }
    }
}

impl Steer for Sieve {
    #[inline]
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        let Sieve { matcher, counts, unmatched, following, columns } = self;
        let (open, fragments) = (batch.undecided(), batch.has_fragments());
        let rest = matcher.find(batch, columns, open, fragments, |at, found, batch, columns| {
            let count = match found {
                Found::Rule(number) => {
                    let (Some(rule), Some(count)) = (matcher.rules.get(number), counts.get_mut(number)) else { return };
                    let facts = if let Go::Hash(_) = rule.action.go { Some(*columns.facts(at, batch)) } else { None };
                    rule.action.apply(facts.as_ref(), &mut batch.packet(at));
                    count
                }
                Found::None => return,
                Found::Follow => &mut *following,
            };
            count.add(batch.seen(at).1);
        });
        bits(rest).for_each(|at| unmatched.add(batch.seen(at).1));
        Ok(())
    }

    /// Takes over what was counted of the rules that are as they were: name, keys and what they do.
    fn adopt(&mut self, old: &mut dyn Steer) {
        let Some(old) = old.as_any().and_then(|old| old.downcast_mut::<Sieve>()) else { return };
        (self.unmatched, self.following) = (old.unmatched, old.following);
        for (rule, count) in self.matcher.rules.iter().zip(&mut self.counts) {
            let same = |(other, _): &(&matcher::Rule, &Count)| {
                (&other.name, &other.keys, &other.action) == (&rule.name, &rule.keys, &rule.action)
            };
            if let Some((_, counted)) = old.matcher.rules.iter().zip(&old.counts).find(same) {
                *count = *counted;
            }
        }
    }

    fn as_any(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let rules = self.matcher.rules.iter().enumerate().zip(&self.counts);
        let named = rules.map(|((at, rule), count)| (file::shown(rule.name.as_deref(), at), count));
        let others = [("no rule".to_owned(), &self.unmatched), ("following fragments".to_owned(), &self.following)];
        let both = |(name, count): (String, &Count)| {
            [(format!("{name} packets"), count.packets), (format!("{name} bytes"), count.bytes)]
        };
        named.chain(others).flat_map(both).collect()
    }
}

#[cfg(test)]
mod tests;
