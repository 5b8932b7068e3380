//! An audit as text: the verdict, causes and loads with bars.

use std::fmt::Write as _;

use flowyard::busiest;

use super::{Outline, conversation, percent};
use crate::output;

/// Characters of the longest bar.
const BAR: usize = 24;
/// Queues shown; the page shows all.
const MOST_ROWS: usize = 32;
/// Examples shown.
const EXAMPLES: usize = 6;

/// The whole text.
pub fn of(outline: &Outline) -> String {
    let f = &outline.findings;
    let mut text = format!("{}\n", outline.verdict());
    for remark in outline.remarks() {
        let _ = writeln!(text, "{remark}");
    }
    if f.split_by_card > 0 {
        causes(&mut text, outline);
    }
    if f.packets > 0 {
        loads(&mut text, outline);
    }
    if !f.examples.is_empty() {
        examples(&mut text, outline);
    }
    let _ = writeln!(
        text,
        "\n{} packets, {} bytes, {} of the packets without an IP flow; the card has {}",
        output::count(f.packets),
        output::count(f.bytes),
        output::count(f.without_ip),
        outline.card
    );
    text
}

fn causes(text: &mut String, outline: &Outline) {
    let causes = outline.causes();
    let most = causes.first().map_or(0, |(_, n)| *n);
    text.push_str("\nwhy the card splits them\n");
    for (cause, n) in causes {
        let bar = bar(n, most, BAR / 2);
        let _ = writeln!(text, "  {:<10} {:>9}  {bar}  {}", cause.name(), output::count(n), cause.explanation());
    }
}

fn loads(text: &mut String, outline: &Outline) {
    let f = &outline.findings;
    let most = f.queues.iter().chain(&f.rings).map(|l| l.packets).max().unwrap_or(0);
    let width = BAR + 9;
    let _ = writeln!(text, "\nload, in packets\n   n  {:<width$} Flowyard's ring", "the card's queue");
    let rows = f.queues.len().max(f.rings.len());
    for row in 0..rows.min(MOST_ROWS) {
        let one = |loads: &[flowyard::Load]| match loads.get(row) {
            Some(load) => {
                format!("{} {:>5.1} %", bar(load.packets, most, BAR), percent(load.packets, f.packets))
            }
            None => String::new(),
        };
        let line = format!("{row:>4}  {:<width$} {}", one(&f.queues), one(&f.rings));
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if rows > MOST_ROWS {
        let _ = writeln!(text, "   …  {} more (--html shows all)", rows - MOST_ROWS);
    }
    let times = |loads| format!("busiest {:.2} × mean", busiest(loads));
    let _ = writeln!(text, "      {:<width$} {}", times(&f.queues), times(&f.rings));
}

fn examples(text: &mut String, outline: &Outline) {
    text.push_str("\nfor example\n");
    // The largest of each cause first, then the next.
    let list = &outline.findings.examples;
    let rank = |at: usize| list[..at].iter().filter(|e| e.cause == list[at].cause).count();
    let mut order: Vec<usize> = (0..list.len()).collect();
    order.sort_by_key(|&at| rank(at));
    for &at in order.iter().take(EXAMPLES) {
        let e = &list[at];
        let _ = writeln!(
            text,
            "  {:<10} {}: {} packets on queues {}",
            e.cause.name(),
            conversation(&e.conversation),
            output::count(e.packets),
            numbers(&e.queues)
        );
    }
}

/// `1, 2 and 5`.
pub fn numbers(list: &[u32]) -> String {
    let words: Vec<String> = list.iter().map(u32::to_string).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// A bar in eighths of a character, filled up with spaces; nothing but 0 is empty.
fn bar(n: u64, most: u64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = if most == 0 { 0 } else { (n as f64 / most as f64 * (width * 8) as f64).round() as usize };
    let eighths = eighths.max(usize::from(n > 0));
    let mut bar = "█".repeat(eighths / 8);
    if eighths % 8 > 0 {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let drawn = eighths.div_ceil(8);
    bar.extend(std::iter::repeat_n(' ', width.saturating_sub(drawn)));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_asked_for_and_never_empty_for_something() {
        for n in 0..=100 {
            assert_eq!(bar(n, 100, 24).chars().count(), 24, "{n}");
        }
        assert_eq!((bar(0, 0, 3), bar(1, 1000, 3), bar(5, 5, 3)), ("   ".into(), "▏  ".into(), "███".into()));
        assert_eq!(bar(50, 100, 3), "█▌ ");
    }

    #[test]
    fn numbers_are_listed_as_one_speaks() {
        assert_eq!((numbers(&[]), numbers(&[7]), numbers(&[1, 2, 5])), ("".into(), "7".into(), "1, 2 and 5".into()));
    }
}
