//! What `flowyard run` says at the end.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use flowyard::function::{Failure, FunctionStatus};
use flowyard::port::{PortInfo, Refusal};
use flowyard::{Aside, Drop, Findings, Report};

use crate::{control, output};

/// Everything that is said at the end.
pub(super) struct Figures {
    pub(super) report: Report,
    /// One a group.
    pub(super) findings: Vec<Findings>,
    pub(super) groups: Vec<(String, u16)>,
    /// Its name, if there is one.
    pub(super) function: Option<String>,
    /// A program of the user's was in the kernel at the end.
    pub(super) own_program: bool,
    /// Weights were changed while it ran.
    pub(super) reweighed: bool,
    pub(super) time: Duration,
    pub(super) verify: bool,
    /// Rings were for other processes: what these saw is theirs.
    pub(super) attached: bool,
    pub(super) seed: String,
    pub(super) infos: Vec<PortInfo>,
    /// Names of the ports, as given.
    pub(super) ports: Vec<String>,
}

impl Figures {
    /// Whether nothing went wrong: sums agree, what was delivered was seen, nothing was split, no port
    /// failed. Where a function of the user's decides, it may split, and so do new weights.
    pub(super) fn agrees(&self) -> bool {
        let whole = self.split() == 0 || self.report.function.is_some() || self.own_program || self.reweighed;
        self.report.sums_agree() && self.all_seen() && self.report.errors.is_empty() && whole
    }

    fn all_seen(&self) -> bool {
        self.attached || self.rings().map(|(_, _, seen)| seen.0).sum::<u64>() == self.report.delivered()
    }

    fn split(&self) -> u64 {
        self.findings.iter().map(|f| f.split).sum()
    }

    /// Group, number within it, and what its consumer saw, of every ring.
    fn rings(&self) -> impl Iterator<Item = (&str, usize, (u64, u64, u64))> {
        self.groups.iter().zip(&self.findings).flat_map(|(group, findings)| {
            findings.rings.iter().enumerate().map(move |(ring, seen)| (group.0.as_str(), ring, *seen))
        })
    }

    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["ring", "packets", "bytes", "conversations", "dropped"]);
        for (counters, (group, ring, seen)) in self.report.rings.iter().zip(self.rings()) {
            let conversations = if self.verify { output::count(seen.2) } else { "-".into() };
            table.add_row([
                if group.is_empty() { ring.to_string() } else { format!("{group}/{ring}") },
                output::count(counters.packets),
                output::count(counters.bytes),
                conversations,
                output::count(counters.dropped_total()),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let table = table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        format!("{table}\n{}\n", self.summary())
    }

    fn summary(&self) -> String {
        let (r, f) = (&self.report, &self.findings[0]);
        let bytes: u64 = r.rings.iter().map(|c| c.bytes).sum();
        let agree = if r.sums_agree() && self.all_seen() {
            "the sums agree"
        } else {
            "THE SUMS DO NOT AGREE: please report this"
        };
        let mut text = format!("\nreceived {}", output::count(r.received()));
        if r.copies > 0 {
            let _ = write!(text, " + to more places {}", output::count(r.copies));
        }
        let _ = write!(text, " = delivered {} + dropped {}", output::count(r.delivered()), output::count(r.dropped()));
        for why in Aside::ALL.into_iter().filter(|why| r.asides[*why as usize] > 0) {
            let _ = write!(text, " + {} {}", why.name(), output::count(r.asides[why as usize]));
        }
        let _ = writeln!(text, "; {agree}");
        for why in Drop::ALL {
            let n: u64 = r.rings.iter().map(|c| c.dropped[why as usize]).sum();
            if n > 0 {
                let _ = writeln!(text, "  dropped {}: {}", why.name(), output::count(n));
            }
        }
        let abandoned: u64 = r.rings.iter().map(|c| c.abandoned).sum();
        if abandoned > 0 {
            let _ = writeln!(
                text,
                "  delivered to consumers that went before they gave it back: {} buffers",
                output::count(abandoned)
            );
        }
        for (name, counters) in &r.ports {
            for (what, n) in counters.lost.iter().filter(|(_, n)| *n > 0) {
                let _ = writeln!(text, "  lost before the yard at {name}, {what}: {}", output::count(*n));
            }
            let steering = ["steered-in-", "marked-", "of-which-", "ended-in-", "before-", "to-host"];
            let told = |(what, n): &&(&str, u64)| *n > 0 && steering.iter().any(|head| what.starts_with(head));
            for (what, n) in counters.notes.iter().filter(told) {
                let _ = writeln!(text, "  {name}, {what}: {}", output::count(*n));
            }
        }
        for (name, sent) in self.ports.iter().zip(&r.transmitted).filter(|(_, sent)| sent.asked > 0) {
            let _ = write!(text, "sent by {name} {} of {}", output::count(sent.sent), output::count(sent.asked));
            for (why, n) in Refusal::ALL.iter().zip(sent.refused).filter(|(_, n)| *n > 0) {
                let _ = write!(text, ", refused {} {}", why.name(), output::count(n));
            }
            text.push('\n');
        }
        if r.no_such_port > 0 {
            let _ = writeln!(text, "to be sent by ports that there are not: {}", output::count(r.no_such_port));
        }
        let (rate, bits) = (output::rate(r.delivered(), self.time), output::bit_rate(bytes, self.time));
        let _ = writeln!(text, "{rate}, {bits}, {:.2} s", self.time.as_secs_f64());
        if self.verify {
            let queues = self.groups[0].1;
            let _ = write!(
                text,
                "split conversations: {} of {}; a card's own RSS ({queues} queues) would have split {}",
                output::count(self.split()),
                output::count(f.conversations),
                output::count(f.split_by_card)
            );
            if self.reweighed {
                text.push_str("\n  (weights were changed meanwhile: conversations that moved count as split)");
            }
        } else if !self.attached {
            text.push_str("conversations not counted (--verify does)");
        }
        if let Some(counts) = &r.function {
            let _ = write!(
                text,
                "\nfunction: {} packets shown, {} left to the built-in policy",
                output::count(counts.packets),
                output::count(counts.built_in)
            );
            for failure in Failure::ALL.into_iter().filter(|f| counts.failed(*f) > 0) {
                let _ = write!(text, "\n  failed, {}: {}", failure.name(), output::count(counts.failed(failure)));
            }
            for (what, n) in [
                ("flows shunted", counts.flows_shunted),
                ("shunted flows that made room for others", counts.shunts_evicted),
                ("replacements", counts.reloads),
                ("switched off, because they kept failing", counts.switched_off),
            ] {
                if n > 0 {
                    let _ = write!(text, "\n  {what}: {}", output::count(n));
                }
            }
            for (name, n) in &r.own {
                let _ = write!(text, "\n  {name}: {}", output::count(*n));
            }
        }
        let s = r.sorter;
        if s.held > 0 {
            let _ = write!(
                text,
                "\nfragments that came before their first: {} (followed it {}, by addresses {})",
                output::count(s.held),
                output::count(s.followed),
                output::count(s.expired + s.given_up)
            );
        }
        for (what, n) in
            [("violations by consumers", r.violations), ("buffers that did not come home", r.buffers_missing)]
        {
            if n > 0 {
                let _ = write!(text, "\n{what}: {}", output::count(n));
            }
        }
        text
    }

    pub(super) fn json(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let named = |list: &[(&'static str, u64)]| -> Value {
            list.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect::<Map<_, _>>().into()
        };
        let (r, f) = (&self.report, &self.findings[0]);
        let rings: Vec<Value> = r.rings.iter().zip(self.rings()).map(|(counters, (group, ring, seen))| {
            let group = if group.is_empty() { Value::Null } else { group.into() };
            let drops: Map<_, _> = Drop::ALL.iter().map(|w| (w.name().to_owned(), json!(counters.dropped[*w as usize]))).collect();
            json!({"group": group, "ring": ring, "packets": counters.packets, "bytes": counters.bytes, "conversations": seen.2, "seen": seen.0, "dropped": drops, "abandoned": counters.abandoned})
        }).collect();
        let ports: Vec<Value> = r.ports.iter().map(|(name, c)| {
            let mode = self.infos.iter().find(|i| i.name == *name).map_or("", |i| &i.mode);
            json!({"port": name, "mode": mode, "packets": c.packets, "bytes": c.bytes, "lost": named(&c.lost), "notes": named(&c.notes)})
        }).collect();
        let transmitted: Vec<Value> = self.ports.iter().zip(&r.transmitted).map(|(name, t)| {
            let refused: Map<_, _> =
                Refusal::ALL.iter().zip(t.refused).map(|(why, n)| (why.name().to_owned(), json!(n))).collect();
            json!({"port": name, "asked": t.asked, "sent": t.sent, "bytes": t.bytes, "refused": refused, "checksums": t.checksums, "taken_apart": t.taken_apart})
        }).collect();
        let asides: Map<_, _> =
            Aside::ALL.iter().map(|a| (a.name().to_owned(), json!(r.asides[*a as usize]))).collect();
        let function = r.function.map(|counts| {
            control::function(&FunctionStatus { name: self.function.clone(), counts, own: r.own.clone() }, "")
        });
        json!({
            "asides": asides, "copies": r.copies, "transmitted": transmitted, "no_such_port": r.no_such_port, "function": function,
            "received": r.received(), "delivered": r.delivered(), "dropped": r.dropped(), "lost_before": r.lost_before(),
            "sums_agree": r.sums_agree() && self.all_seen(), "seconds": self.time.as_secs_f64(), "seed": self.seed.trim_start_matches(", seed "),
            "verified": self.verify, "conversations": f.conversations, "split": self.split(), "split_by_card": f.split_by_card,
            "without_ip": f.without_ip, "orphan_fragments": f.orphans,
            "fragments": {"held": r.sorter.held, "followed": r.sorter.followed, "expired": r.sorter.expired, "given_up": r.sorter.given_up},
            "violations": r.violations, "buffers_missing": r.buffers_missing, "rings": rings, "ports": ports, "errors": r.errors,
        })
    }
}
