//! Rounds: every contender takes a turn in each, in an order drawn anew, on the same packets. What is
//! compared is compared within a round.

use crate::machine;
use crate::probe::{self, Distance};
use crate::random::Random;

/// Something that is measured against others: answers nanoseconds an item, or nothing if it was
/// disturbed.
pub struct Contender<C> {
    name: &'static str,
    turn: Turn<C>,
}

type Turn<C> = Box<dyn Fn(&C) -> Option<f64>>;

impl<C> Contender<C> {
    /// A contender of this name.
    pub fn new(name: &'static str, turn: impl Fn(&C) -> Option<f64> + 'static) -> Contender<C> {
        Contender { name, turn: Box::new(turn) }
    }
}

/// How to run rounds.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Number of rounds.
    pub rounds: usize,
    /// The core of whoever holds the clock.
    pub core: usize,
    /// The other core, where there is one.
    pub other: Option<usize>,
}

/// What came of the rounds.
#[derive(Debug)]
pub struct Outcome {
    /// Names of the contenders.
    pub names: Vec<&'static str>,
    /// The rounds, in order.
    pub rounds: Vec<Round>,
}

/// What came of one round.
#[derive(Debug)]
pub struct Round {
    /// How far the cores were apart.
    pub distance: Distance,
    /// What the probe said before it, in nanoseconds one way.
    pub probe_ns: Option<f64>,
    /// Each contender's figure.
    pub figures: Vec<Option<f64>>,
}

/// Runs the rounds; `renew` lays `context` out differently before each. `apart` for contenders that
/// use two cores, whose distance is then probed.
pub fn run<C>(
    setting: &Setting,
    apart: bool,
    context: &mut C,
    mut renew: impl FnMut(&mut C),
    contenders: &[Contender<C>],
) -> Outcome {
    let mut outcome = Outcome { names: contenders.iter().map(|c| c.name).collect(), rounds: Vec::new() };
    let mut random = Random::new(0x726f_756e_6473);
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let other = setting.other.filter(|_| apart);
    machine::pin(setting.core);
    for _ in 0..setting.rounds {
        renew(context);
        random.shuffle(&mut order);
        let before = other.map(probe::one_way_ns);
        let mut figures = vec![None; contenders.len()];
        for &at in &order {
            figures[at] = (contenders[at].turn)(context);
        }
        let after = other.map(probe::one_way_ns);
        let distance = match (before, after) {
            (Some(before), Some(after)) => Distance::of(before, after),
            _ => Distance::One,
        };
        outcome.rounds.push(Round { distance, probe_ns: before, figures });
    }
    outcome
}
