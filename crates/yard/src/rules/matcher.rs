//! Which rule is the first to match each packet of a batch.
//!
//! A rule is asked of all packets at once that no rule before it has matched, as far as it can be ([`Ask`]); the rest
//! of it, packet by packet, of those that are left. A later fragment whose first one decides is judged by itself:
//! see [`Matcher::find_fragment`].

use super::action::Action;
use super::columns::{Ask, Columns, Packets, awaiting};
use super::facts::Facts;
use super::keys::{Certain, Key, Keys};

/// A rule as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rule {
    pub(super) name: Option<String>,
    /// Where it is in the file, from 1.
    pub(super) line: usize,
    pub(super) keys: Keys,
    pub(super) action: Action,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The rule at this place is the first to match.
    Rule(usize),
    /// None matches.
    None,
    /// A later fragment that goes where its first one goes.
    Follow,
}

/// A rule's keys, made ready.
#[derive(Debug)]
struct Questions {
    /// What is asked of all packets at once.
    asks: Box<[Ask]>,
    /// What that leaves to be asked packet by packet.
    left: Box<[Key]>,
}

/// Rules, made ready.
#[derive(Debug)]
pub(super) struct Matcher {
    /// One a rule.
    questions: Box<[Questions]>,
    /// Whether any rule asks for what is in the packets' bytes.
    needs_bytes: bool,
    pub(super) rules: Box<[Rule]>,
}

impl Matcher {
    pub(super) fn new(rules: Vec<Rule>) -> Matcher {
        let questions = rules.iter().map(|rule| Ask::of(&rule.keys)).map(|(asks, left)| Questions { asks, left });
        let of_bytes = |key| matches!(key, Key::Net | Key::OuterNet | Key::Filter);
        let needs_bytes = rules.iter().any(|rule| rule.keys.present().any(of_bytes));
        Matcher { questions: questions.collect(), needs_bytes, rules: rules.into() }
    }

    /// Finds the first rule that matches, for each packet of `open` (a bit each), and says it to `say`; not in the
    /// order of the packets. Answers those that no rule matches, and says nothing of them. `fragments` says whether later ones of which the first one decides may be among them.
    #[inline]
    pub(super) fn find<P: Packets>(
        &self,
        packets: &mut P,
        columns: &mut Columns,
        mut open: u64,
        fragments: bool,
        mut say: impl FnMut(usize, Found, &mut P, &mut Columns),
    ) -> u64 {
        columns.clear(self.needs_bytes);
        let mut unmatched = 0;
        if fragments {
            let awaiting = awaiting(open, packets);
            open &= !awaiting;
            for at in bits(awaiting) {
                let facts = *columns.facts(at, packets);
                match self.find_fragment(&facts, packets.bytes(at)) {
                    Found::None => unmatched |= 1 << at,
                    found => say(at, found, packets, columns),
                }
            }
        }
        for (number, (Questions { asks, left }, rule)) in self.questions.iter().zip(&self.rules).enumerate() {
            if open == 0 {
                break;
            }
            for at in bits(columns.select(asks, open, packets)) {
                if left.is_empty() || {
                    let facts = *columns.facts(at, packets);
                    let bytes = packets.bytes(at);
                    left.iter().all(|&key| rule.keys.pass(key, &facts, bytes))
                } {
                    open &= !(1 << at);
                    say(at, Found::Rule(number), packets, columns);
                }
            }
        }
        open | unmatched
    }

    /// The first rule that matches a later fragment whose first one decides ([`awaiting`]). It is not to be caught
    /// by a rule that its first one does not come to: it matches only where the rest of its datagram cannot
    /// change that. At the first rule of which this is not certain it is left to follow.
    #[cold]
    fn find_fragment(&self, facts: &Facts, bytes: &[u8]) -> Found {
        for (at, rule) in self.rules.iter().enumerate() {
            match rule.keys.pass_fragment(facts, bytes) {
                Certain::No => {}
                Certain::Yes if !rule.action.go.needs_flow() || facts.shows_its_flow() => return Found::Rule(at),
                Certain::Yes | Certain::Unknown => return Found::Follow,
            }
        }
        Found::None
    }
}

/// The places of the bits that are set.
#[inline]
pub(super) fn bits(mut of: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let at = (of != 0).then(|| of.trailing_zeros() as usize);
        of &= of.wrapping_sub(1);
        at
    })
}
