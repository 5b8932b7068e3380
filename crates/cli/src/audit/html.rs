//! An audit as one page: charts drawn in it, styles in it, nothing to load.

use std::fmt::Write as _;

use flowyard::{Load, busiest};

use super::text::numbers;
use super::{Outline, conversation, percent};
use crate::output;

/// The page.
pub fn of(outline: &Outline) -> String {
    let f = &outline.findings;
    let mut page = String::with_capacity(32 << 10);
    let title = format!("Flowyard audit of {}", escaped(&outline.source));
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"source\">{title}</p>\n<h1>{}</h1>\n",
        escaped(&outline.verdict())
    );
    for remark in outline.remarks() {
        let _ = writeln!(page, "<p class=\"remark\">{}</p>", escaped(&remark));
    }
    tiles(&mut page, outline);
    if f.split_by_card > 0 {
        causes(&mut page, outline);
    }
    if f.packets > 0 {
        loads(&mut page, outline);
    }
    if !f.examples.is_empty() {
        examples(&mut page, outline);
    }
    let _ = write!(
        page,
        "<footer>{} packets, {} bytes; {} packets without an IP flow. The card has {}. Made by flowyard {}; \
         <code>flowyard audit --help</code> says what the figures mean.</footer>\n</main>\n</body>\n</html>\n",
        output::count(f.packets),
        output::count(f.bytes),
        output::count(f.without_ip),
        escaped(&outline.card),
        env!("CARGO_PKG_VERSION")
    );
    page
}

/// Light and dark; the card is orange, Flowyard blue, in every chart.
const STYLE: &str = "
:root{color-scheme:light dark;--back:#fbfaf8;--panel:#fff;--ink:#1c1b19;--soft:#66625b;--line:#e4e0d9;--card:#c2570c;--yard:#1d62c4}
@media(prefers-color-scheme:dark){:root{--back:#171614;--panel:#211f1c;--ink:#efece6;--soft:#a7a198;--line:#3a3733;--card:#f0883e;--yard:#6ea8fe}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif}
main{max-width:60rem;margin:0 auto;padding:2.5rem 1.25rem 3rem}
h1{font-size:1.75rem;line-height:1.25;margin:0 0 .75rem;text-wrap:balance}
h2{font-size:1.1rem;margin:0 0 .25rem}
p{margin:0 0 .5rem}
.source,.note,footer{color:var(--soft);font-size:.875rem}
.remark{max-width:46rem}
.source{overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.5rem 0}
.tile,section{background:var(--panel);border:1px solid var(--line);border-radius:.5rem}
.tile{padding:.75rem 1rem}
.tile b{display:block;font-size:1.75rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.875rem}
section{padding:1.1rem 1.25rem;margin:0 0 1rem}
svg{display:block;width:100%;min-width:36rem;height:auto;margin-top:.5rem}
svg text{fill:var(--ink);font:13px system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif}
svg .soft{fill:var(--soft)}
svg line{stroke:var(--line)}
svg line.mean{stroke:var(--soft);stroke-dasharray:4 3}
.card{fill:var(--card);color:var(--card)}
.yard{fill:var(--yard);color:var(--yard)}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;font-size:.875rem;color:var(--soft)}
.key i{display:inline-block;width:.75rem;height:.75rem;border-radius:2px;background:currentColor;margin-right:.4rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.3rem .75rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--soft);font-weight:500}
td.n,th.n{text-align:right;white-space:nowrap}
tr:last-child td{border-bottom:0}
details{margin-top:.75rem}
summary{cursor:pointer;color:var(--soft);font-size:.875rem}
footer{margin-top:1.5rem}
";

fn tiles(page: &mut String, outline: &Outline) {
    let f = &outline.findings;
    let share = |n| format!("{:.1} %", percent(n, f.several()));
    page.push_str("<div class=\"tiles\">\n");
    for (class, figure, what) in [
        ("card", share(f.split_by_card), "of conversations split by the card"),
        ("card", share(f.split_by_symmetric), "split with the symmetric key"),
        ("yard", share(f.split), "split by Flowyard"),
        ("card", format!("{:.2} ×", busiest(&f.queues)), "the mean on the card's busiest queue"),
        ("yard", format!("{:.2} ×", busiest(&f.rings)), "the mean on Flowyard's busiest ring"),
    ] {
        let _ = writeln!(page, "<div class=\"tile\"><b class=\"{class}\">{figure}</b><span>{what}</span></div>");
    }
    page.push_str("</div>\n");
}

/// A bar a cause, its explanation under it.
fn causes(page: &mut String, outline: &Outline) {
    const ROW: usize = 46;
    const LEFT: usize = 100;
    const WIDTH: usize = 900;
    let f = &outline.findings;
    let shown = outline.causes();
    let height = shown.len() * ROW;
    let _ = writeln!(
        page,
        "<section>\n<h2>Why the card splits conversations</h2>\n\
         <p class=\"note\">Conversations by cause; each is counted once.</p>\n\
         <div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Split conversations by cause\">"
    );
    let most = shown.first().map_or(1, |(_, n)| *n);
    for (row, (cause, n)) in shown.into_iter().enumerate() {
        let (top, length) = (row * ROW, n as f64 / most as f64 * (WIDTH - LEFT - 150) as f64);
        let _ = writeln!(
            page,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"card\" x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{}\">{} ({:.1} %)</text>\
             <text class=\"soft\" x=\"{LEFT}\" y=\"{}\">{}</text>",
            LEFT - 10,
            top + 18,
            cause.name(),
            top + 4,
            length.max(1.0),
            LEFT as f64 + length.max(1.0) + 8.0,
            top + 18,
            output::count(n),
            percent(n, f.split_by_card),
            top + 36,
            escaped(cause.explanation())
        );
    }
    page.push_str("</svg></div>\n</section>\n");
}

/// Two columns for each number: the card's queue and Flowyard's ring.
fn loads(page: &mut String, outline: &Outline) {
    const WIDTH: f64 = 900.0;
    const HEIGHT: f64 = 220.0;
    const LEFT: f64 = 56.0;
    let f = &outline.findings;
    let rows = f.queues.len().max(f.rings.len());
    let all = f.queues.iter().chain(&f.rings);
    let most = all.map(|l| percent(l.packets, f.packets)).fold(0.0, f64::max).max(1e-9);
    let (step, top) = scale(most);
    let y = |percent: f64| HEIGHT - percent / top * HEIGHT;
    let pitch = (WIDTH - LEFT) / rows as f64;
    let bar = (pitch * 0.4).min(40.0);
    let _ = writeln!(
        page,
        "<section>\n<h2>Load</h2>\n<p class=\"note\">Packets on each of the card's queues and Flowyard's rings, in \
         percent of all; the dashed line is an equal share.</p>\n<div class=\"key\"><span><i class=\"card\"></i>card, {}</span>\
         <span><i class=\"yard\"></i>Flowyard, {}</span></div>\n\
         <div class=\"wide\"><svg viewBox=\"0 -14 {WIDTH} {}\" role=\"img\" aria-label=\"Load of queues and rings\">",
        super::plural(f.queues.len() as u64, "queue"),
        super::plural(f.rings.len() as u64, "ring"),
        HEIGHT + 50.0
    );
    for mark in marks(step, top) {
        let at = y(mark);
        let _ = writeln!(
            page,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{mark} %</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let labels = rows.div_ceil(32);
    for row in 0..rows {
        let middle = LEFT + pitch * (row as f64 + 0.5);
        for (class, what, loads, from) in
            [("card", "queue", &f.queues, middle - bar - 0.5), ("yard", "ring", &f.rings, middle + 0.5)]
        {
            let Some(load) = loads.get(row) else { continue };
            let share = percent(load.packets, f.packets);
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{:.1}\">\
                 <title>{what} {row}: {} packets, {share:.1} %</title></rect>",
                y(share),
                HEIGHT - y(share),
                output::count(load.packets)
            );
        }
        if row % labels == 0 {
            let _ = writeln!(
                page,
                "<text class=\"soft\" x=\"{middle:.1}\" y=\"{}\" text-anchor=\"middle\">{row}</text>",
                HEIGHT + 20.0
            );
        }
    }
    let mut equal: Vec<usize> = vec![f.queues.len(), f.rings.len()];
    equal.dedup();
    for count in equal.into_iter().filter(|count| *count > 0) {
        let at = y(100.0 / count as f64);
        let _ = writeln!(page, "<line class=\"mean\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
    }
    page.push_str("</svg></div>\n<details><summary>The same as a table</summary>\n<div class=\"wide\"><table>\n<tr><th class=\"n\">number</th>");
    page.push_str("<th class=\"n\">card, packets</th><th class=\"n\">bytes</th><th class=\"n\">Flowyard, packets</th><th class=\"n\">bytes</th></tr>\n");
    let cells = |load: Option<&Load>| match load {
        Some(l) => {
            format!("<td class=\"n\">{}</td><td class=\"n\">{}</td>", output::count(l.packets), output::count(l.bytes))
        }
        None => "<td></td><td></td>".into(),
    };
    for row in 0..rows {
        let _ = writeln!(
            page,
            "<tr><td class=\"n\">{row}</td>{}{}</tr>",
            cells(f.queues.get(row)),
            cells(f.rings.get(row))
        );
    }
    page.push_str("</table></div></details>\n</section>\n");
}

/// Distance of the marks and end of an axis that must reach `most` percent.
fn scale(most: f64) -> (f64, f64) {
    let steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0];
    let step = steps.into_iter().find(|step| most / step <= 5.0).unwrap_or(25.0);
    (step, (most / step).ceil() * step)
}

/// The marks of an axis from 0 to `top`, as short as they can be written.
fn marks(step: f64, top: f64) -> impl Iterator<Item = f64> {
    let count = (top / step).round() as u32;
    (0..=count).map(move |n| (f64::from(n) * step * 100.0).round() / 100.0)
}

fn examples(page: &mut String, outline: &Outline) {
    page.push_str(
        "<section>\n<h2>The largest conversations that the card splits</h2>\n<div class=\"wide\"><table>\n\
         <tr><th>cause</th><th>conversation</th><th class=\"n\">packets</th><th>on queues</th></tr>\n",
    );
    for e in &outline.findings.examples {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            e.cause.name(),
            escaped(&conversation(&e.conversation)),
            output::count(e.packets),
            numbers(&e.queues)
        );
    }
    page.push_str("</table></div>\n</section>\n");
}

/// Text that stands for itself in a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_markup() {
        assert_eq!(escaped("<a href=\"x\">&"), "&lt;a href=&quot;x&quot;&gt;&amp;");
    }

    #[test]
    fn axes_reach_far_enough_in_few_steps() {
        for most in [0.02, 0.9, 6.3, 12.5, 31.0, 51.0, 100.0] {
            let (step, top) = scale(most);
            assert!(top >= most && top < most + step && top / step <= 5.0, "{most}: {step} {top}");
        }
        assert_eq!(scale(31.0), (10.0, 40.0));
        for (most, expected) in [(0.3, "0 0.1 0.2 0.3"), (31.0, "0 10 20 30 40"), (0.025, "0 0.01 0.02 0.03")] {
            let (step, top) = scale(most);
            let written: Vec<String> = marks(step, top).map(|mark| mark.to_string()).collect();
            assert_eq!(written.join(" "), expected);
        }
    }
}
