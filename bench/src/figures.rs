//! Figures for people: ratios first, each with its spread, then what they are made of. The tables are
//! Markdown; where a folder for them was named, ratios become charts as well.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::chart::{self, Bar};
use crate::probe::Distance;
use crate::rounds::{Outcome, Round};

/// Which contender is set against which: `ours` is so many times as fast as `theirs`.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    /// Number of the contender that is judged.
    pub ours: usize,
    /// Number of the contender that it is judged by.
    pub theirs: usize,
}

/// The ratio of contender `ours` to contender `theirs`.
pub const fn ratio(ours: usize, theirs: usize) -> Ratio {
    Ratio { ours, theirs }
}

/// Median, what 80 % of the values lie between, and what the median lies between with 95 % confidence (by the order of
/// the values alone: Conover, Practical Nonparametric Statistics, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
    sure: (f64, f64),
    count: usize,
}

impl Spread {
    /// Fewest values whose median can be told with 95 % confidence.
    const ENOUGH: usize = 6;

    /// What the median lies between, each end told by `tell`.
    fn tell_sure(&self, joined: &str, tell: impl Fn(f64) -> String) -> String {
        if self.count < Spread::ENOUGH {
            return "too few".into();
        }
        format!("{}{joined}{}", tell(self.sure.0), tell(self.sure.1))
    }

    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        let at = |share: f64| values[(last as f64 * share).round() as usize];
        let off = 0.98 / (values.len() as f64).sqrt();
        let sure = (at((0.5 - off).max(0.0)), at((0.5 + off).min(1.0)));
        Some(Spread { low: at(0.1), median: at(0.5), high: at(0.9), sure, count: values.len() })
    }
}

/// Where charts go, if anywhere: set once, at the start.
pub static CHARTS: OnceLock<PathBuf> = OnceLock::new();

/// Prints what came of the rounds, for each distance that cores were at.
pub fn print(title: &str, item: &str, outcome: &Outcome, ratios: &[Ratio]) {
    print_each(title, item, outcome, |rounds| {
        if !ratios.is_empty() {
            print_ratios(outcome, rounds, ratios);
            draw_ratios(title, outcome, rounds, ratios);
        }
    });
}

/// As [`print()`], with what each contender costs over contender `base`, compared within rounds.
pub fn print_over(title: &str, item: &str, outcome: &Outcome, base: usize) {
    print_each(title, item, outcome, |rounds| {
        println!(
            "\n| over {} | ns per {item} | 95 % sure | 10–90 % | rounds |\n|---|---|---|---|---|",
            outcome.names[base]
        );
        for (at, name) in outcome.names.iter().enumerate().filter(|(at, _)| *at != base) {
            let over = rounds.iter().filter_map(|round| Some(round.figures[at]? - round.figures[base]?));
            match Spread::of(over.collect()) {
                Some(s) => println!(
                    "| {name} | **{:+.1}** | {} | {:+.1}…{:+.1} | {} |",
                    s.median,
                    s.tell_sure("…", |end| format!("{end:+.1}")),
                    s.low,
                    s.high,
                    s.count
                ),
                None => println!("| {name} | disturbed | | | 0 |"),
            }
        }
    });
}

fn print_each(title: &str, item: &str, outcome: &Outcome, compare: impl Fn(&[&Round])) {
    for distance in [Distance::One, Distance::Near, Distance::Far, Distance::Any] {
        let rounds: Vec<&Round> = outcome.rounds.iter().filter(|round| round.distance == distance).collect();
        if rounds.is_empty() {
            continue;
        }
        println!("\n## {title}: {} ({} of {} rounds)", distance.name(), rounds.len(), outcome.rounds.len());
        if let Some(probe) = Spread::of(rounds.iter().filter_map(|round| round.probe_ns).collect()) {
            let Spread { low, median, high, .. } = probe;
            println!("\nFrom one core to the other: {median:.0} ns ({low:.0}–{high:.0}).");
        }
        compare(&rounds);
        print_times(item, outcome, &rounds);
    }
}

/// What a ratio is called, and what came of it.
fn judge(outcome: &Outcome, rounds: &[&Round], Ratio { ours, theirs }: Ratio) -> (String, Option<Spread>) {
    let name = format!("{} : {}", outcome.names[ours], outcome.names[theirs]);
    let values = rounds.iter().filter_map(|round| Some(round.figures[theirs]? / round.figures[ours]?));
    (name, Spread::of(values.collect()))
}

fn print_ratios(outcome: &Outcome, rounds: &[&Round], ratios: &[Ratio]) {
    println!("\n| times as fast | median | 95 % sure | 10–90 % | rounds |\n|---|---|---|---|---|");
    for ratio in ratios {
        match judge(outcome, rounds, *ratio) {
            (name, Some(s)) => println!(
                "| {name} | **{:.2}** | {} | {:.2}–{:.2} | {} |",
                s.median,
                s.tell_sure("–", |end| format!("{end:.2}")),
                s.low,
                s.high,
                s.count
            ),
            (name, None) => println!("| {name} | disturbed | | | 0 |"),
        }
    }
}

fn draw_ratios(title: &str, outcome: &Outcome, rounds: &[&Round], ratios: &[Ratio]) {
    let Some(folder) = CHARTS.get() else { return };
    let bar = |ratio: &Ratio| {
        let (name, spread) = judge(outcome, rounds, *ratio);
        spread.map(|Spread { low, median, high, .. }| Bar { name, low, median, high })
    };
    let bars: Vec<Bar> = ratios.iter().filter_map(bar).collect();
    let distance = rounds[0].distance.name();
    let what = title.split(':').next().unwrap_or(title);
    let below = format!("times as fast: median and 10–90 % of {} rounds", rounds.len());
    let path = folder.join(chart::file_name(&format!("{what} {distance}")));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, chart::svg(&format!("{title}: {distance}"), &below, &bars)));
    match written {
        Ok(()) => println!("\nChart: {}", path.display()),
        Err(e) => println!("\nNo chart: {}: {e}", path.display()),
    }
}

fn print_times(item: &str, outcome: &Outcome, rounds: &[&Round]) {
    println!("\n| | ns per {item} | 10–90 % | M/s | rounds |\n|---|---|---|---|---|");
    for (at, name) in outcome.names.iter().enumerate() {
        match Spread::of(rounds.iter().filter_map(|round| round.figures[at]).collect()) {
            Some(s) => println!(
                "| {name} | {:.1} | {:.1}–{:.1} | {:.1} | {} |",
                s.median,
                s.low,
                s.high,
                1000.0 / s.median,
                s.count
            ),
            None => println!("| {name} | disturbed | | | 0 |"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_by_rank() {
        let spread = Spread::of((0..=10).rev().map(f64::from).collect());
        assert_eq!(spread, Some(Spread { low: 1.0, median: 5.0, high: 9.0, sure: (2.0, 8.0), count: 11 }));
        assert_eq!(spread.map(|s| s.tell_sure("–", |end| format!("{end}"))), Some("2–8".into()));
        assert_eq!(Spread::of(vec![]), None);
        let few = Spread::of(vec![1.0; 5]).expect("five values");
        assert_eq!(few.tell_sure("–", |end| format!("{end}")), "too few");
    }
}
