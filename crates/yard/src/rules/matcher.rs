//! Which rule is the first to match a packet.
//!
//! Most of a rule is in a [`Block`], compared with the packet's facts together with seven others; what does
//! not fit there is asked after it, cheapest first. A later fragment whose first one decides is judged out of
//! line: see [`Matcher::find`].

use super::action::Action;
use super::facts::Facts;
use super::keys::{Certain, Key, Keys};
use super::quick::{Block, LANES, Quick};

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

/// Rules, made ready.
#[derive(Debug)]
pub(super) struct Matcher {
    blocks: Box<[Block]>,
    /// What the quick comparison leaves to be asked of a rule.
    left: Box<[Box<[Key]>]>,
    pub(super) rules: Box<[Rule]>,
    /// Whether any rule asks for more than [`Facts::read`] knows.
    pub(super) needs_bytes: bool,
}

impl Matcher {
    pub(super) fn new(rules: Vec<Rule>) -> Matcher {
        let (quick, left): (Vec<Quick>, Vec<Box<[Key]>>) = rules.iter().map(|rule| Quick::of(&rule.keys)).unzip();
        let of_bytes = |key| matches!(key, Key::Net | Key::OuterNet | Key::Filter);
        let needs_bytes = rules.iter().any(|rule| rule.keys.present().any(of_bytes));
        let blocks = quick.chunks(LANES).map(Block::new).collect();
        Matcher { blocks, left: left.into(), rules: rules.into(), needs_bytes }
    }

    /// The first rule that matches.
    ///
    /// A later fragment whose first one decides ([`Facts::awaiting`]) is not to be caught by a rule that its
    /// first one does not come to: it matches only where the rest of its datagram cannot change that. At
    /// the first rule of which this is not certain it is left to follow.
    #[inline]
    pub(super) fn find(&self, facts: &Facts, bytes: &[u8]) -> Found {
        if facts.awaiting {
            return self.find_fragment(facts, bytes);
        }
        for (number, block) in self.blocks.iter().enumerate() {
            let mut passing = block.passes(facts);
            while passing != 0 {
                let at = number * LANES + passing.trailing_zeros() as usize;
                if self.passes_left(at, facts, bytes) {
                    return Found::Rule(at);
                }
                passing &= passing - 1;
            }
        }
        Found::None
    }

    #[inline]
    fn passes_left(&self, at: usize, facts: &Facts, bytes: &[u8]) -> bool {
        let (Some(left), Some(rule)) = (self.left.get(at), self.rules.get(at)) else { return false };
        left.iter().all(|&key| rule.keys.pass(key, facts, bytes))
    }

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
