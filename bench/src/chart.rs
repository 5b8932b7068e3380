//! A comparison as a chart: a bar for each ratio, a whisker for its 10–90 % range, a line at 1. SVG that
//! says everything itself, the same for the same numbers.

use std::fmt::Write;

/// A bar: what it is of, and its 10 %, 50 % and 90 % ranks.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Who is compared with whom.
    pub name: String,
    /// Where the whisker begins.
    pub low: f64,
    /// Where the bar ends.
    pub median: f64,
    /// Where the whisker ends.
    pub high: f64,
}

const WIDTH: f64 = 820.0;
const LEFT: f64 = 24.0;
/// Where the axis ends; figures stand to the right of it.
const RIGHT: f64 = 660.0;
const TOP: f64 = 76.0;
/// A name above its bar, and the space below.
const ROW: f64 = 44.0;
const BAR: f64 = 14.0;
const FASTER: &str = "#3a8f7b";
const SLOWER: &str = "#c98a3c";

/// The chart. `below` says what the bars are.
pub fn svg(title: &str, below: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.high).fold(1.0, f64::max);
    let step = step(most);
    let end = (most / step).ceil() * step;
    let x = |value: f64| LEFT + (RIGHT - LEFT) * value / end;
    let bottom = TOP + ROW * bars.len() as f64;
    let height = bottom + 34.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"28\" font-size=\"17\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"50\" fill=\"#555\">{}</text>\n",
        escaped(title),
        escaped(below)
    );
    for tick in 0..=(end / step).round() as u32 {
        let value = f64::from(tick) * step;
        let at = x(value);
        line(&mut out, (at, TOP), (at, bottom), "#e2e2e2", 1.0);
        let rounded = (value * 100.0).round() / 100.0; // 0.6, not 0.6000000000000001
        text(&mut out, (at, bottom + 18.0), "middle", &format!("{rounded}"));
    }
    let bar_top = |row: usize| TOP + ROW * row as f64 + 22.0;
    for (row, bar) in bars.iter().enumerate() {
        let fill = if bar.median < 1.0 { SLOWER } else { FASTER };
        let (top, wide) = (bar_top(row), x(bar.median) - LEFT);
        let _ = writeln!(out, "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{wide:.1}\" height=\"{BAR}\" fill=\"{fill}\"/>");
    }
    line(&mut out, (x(1.0), TOP), (x(1.0), bottom), "#222", 1.5);
    for (row, bar) in bars.iter().enumerate() {
        let middle = bar_top(row) + BAR / 2.0;
        line(&mut out, (x(bar.low), middle), (x(bar.high), middle), "#222", 1.5);
        for end in [bar.low, bar.high] {
            line(&mut out, (x(end), middle - 4.0), (x(end), middle + 4.0), "#222", 1.5);
        }
        text(&mut out, (LEFT, bar_top(row) - 6.0), "start", &bar.name);
        let figures = format!("{:.2}  ({:.2}–{:.2})", bar.median, bar.low, bar.high);
        text(&mut out, (RIGHT + 14.0, middle + 5.0), "start", &figures);
    }
    out.push_str("</svg>\n");
    out
}

/// The name of a file for a chart of this title.
pub fn file_name(title: &str) -> String {
    let words = title.to_lowercase();
    let words = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    format!("{}.svg", words.collect::<Vec<_>>().join("-"))
}

/// From one tick to the next: at most ten of them.
fn step(most: f64) -> f64 {
    let steps = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];
    steps.into_iter().find(|step| most / step <= 10.0).unwrap_or(most)
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, wide: f64) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{wide}\"/>"
    );
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    // A rim of the background's colour keeps lines apart from letters.
    let rim = "paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"4\"";
    let words = escaped(words);
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {rim}>{words}</text>");
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_bar_for_each_ratio_and_ends_beyond_the_longest_whisker() {
        let bar = |name: &str, median: f64| Bar { name: name.into(), low: median - 0.1, median, high: median + 0.3 };
        let chart = svg("a & b", "times as fast", &[bar("one : <two>", 0.5), bar("three", 2.0)]);
        assert_eq!(chart.matches("<rect").count(), 3, "the background and two bars");
        assert!(chart.contains("a &amp; b") && chart.contains("one : &lt;two&gt;"));
        assert!(chart.contains(SLOWER) && chart.contains(FASTER) && chart.contains(">2.5</text>"));
        assert_eq!(chart, svg("a & b", "times as fast", &[bar("one : <two>", 0.5), bar("three", 2.0)]));
        assert_eq!(file_name("Ring: two cores, near"), "ring-two-cores-near.svg");
    }
}
