//! `flowyard audit`: what a card's own receive-side scaling would do to this traffic.

mod html;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use flowyard::mem::Wait;
use flowyard::port::{KINDS, Kind, PortSpec, Rss};
use flowyard::steer::{Conversation, SYMMETRIC_KEY, ToeplitzKey};
use flowyard::{AuditFindings, Card, Cause, Load, Report, RingReader, Running, Yard, YardConfig, busiest};
use miette::{IntoDiagnostic, Result, miette};

use crate::options::{HashName, Sorting};
use crate::run::{duration, stop_on_signals};
use crate::{Outcome, output};

/// Show what a card's own RSS would do to this traffic, beside what Flowyard does.
///
/// Every packet goes through the yard, and beside it through the model of a network card: the
/// conversations that the card would spread over several queues are counted, with the cause, and the
/// load of its queues is held against that of the rings.
#[derive(Debug, Args)]
#[command(after_help = MEANING, mut_arg("rings", |arg| arg
    .help("Number of rings [default: as many as the card has queues]")
    .value_parser(clap::value_parser!(u16).range(1..=4096))))]
pub struct Audit {
    /// A capture file (- is standard input), or a port such as packet:eth0, xdp:eth0, gen:mix
    #[arg(value_name = "FILE|PORT")]
    source: String,
    /// Queues of the card [default: 8; with --rss IF, those of the interface]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    queues: Option<u16>,
    /// How the card hashes: `microsoft` (the key that most drivers start with), `symmetric` (0x6d5a
    /// repeated), a key of 40 bytes or more in hexadecimal, or an interface, whose own key, fields and
    /// indirection table are read
    #[arg(long, value_name = "RSS", default_value = "microsoft")]
    rss: String,
    /// Write a page with charts to FILE; it needs nothing but itself
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// End after this time (such as 10, 1.5 or 500ms); without it, an interface is watched until Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = duration)]
    time: Option<Duration>,
    #[command(flatten)]
    sorting: Sorting,
}

const MEANING: &str = "\
What the figures mean:
  conversation  both directions of a flow (the innermost, if it is in a tunnel), all its
                fragments, and the ICMP errors about it; counted from two packets on
  split         its packets are on more than one queue or ring: whoever reads one of
                them sees only a part of it
  × mean        packets on the busiest queue or ring, over those on an average one

Why the card splits a conversation:
  direction     every packet shows the card the same two ends, only swapped in the other
                direction: a symmetric key would cure it
  fragments     pieces of datagrams carry no ports
  icmp-error    a router sent errors about it
  non-ip        in some packets the card finds no IP header (PPPoE, MPLS, …)
  tunnel        it is inside what the card does not look into: a tunnel, IPv6 extensions
The cause is direction where that is so; else the first of the other four without whose
packets the rest shows the card one thing. Each conversation has one cause.

The model card hashes addresses and ports of whole TCP and UDP packets behind at most two
VLAN tags, addresses of other IP packets, and puts the rest on its first queue.

Examples:
  flowyard audit trace.pcap.gz
  flowyard audit trace.pcap --queues 16 --rss symmetric --html report.html
  sudo flowyard audit packet:eth0 --for 30 --rss eth0";

/// Queues where none are asked for.
const QUEUES: u16 = 8;
/// Packets taken from one ring before the next is looked at.
const TURN: usize = 256;

/// Everything that is shown.
struct Outline {
    source: String,
    card: String,
    findings: AuditFindings,
    report: Report,
    seconds: f64,
}

impl Audit {
    /// Runs it.
    pub fn run(mut self) -> Result<Outcome> {
        let spec = spec(&self.source)?;
        let (card, name) = self.card()?;
        if self.sorting.rings.is_none() {
            self.sorting.rings = Some(u16::try_from(card.queues()).unwrap_or(u16::MAX));
        }
        let live = matches!(spec.kind, Kind::Xdp | Kind::Packet | Kind::Tap);
        let config = YardConfig {
            name: "audit".into(),
            rings: self.sorting.rings(),
            weights: self.sorting.weights.clone(),
            policy: self.sorting.policy(),
            hash: self.sorting.hash(live)?,
            pin: false,
            ..YardConfig::default()
        };
        let (yard, readers) = Yard::open(&config, &[spec]).into_diagnostic()?;
        // Said before an hour of watching, not after it.
        let page = match &self.html {
            Some(path) if is_same_file(path, &self.source) => {
                return Err(miette!("--html {}: is the capture itself; give the page another name", path.display()));
            }
            Some(path) => Some(std::fs::File::create(path).map_err(|e| cannot_write(path, &e))?),
            None => None,
        };
        let audit = flowyard::Audit::new(card, config.rings, &config.policy);
        let started = Instant::now();
        let running = yard.start().into_diagnostic()?;
        stop_on_signals(&running)?;
        let audit = self.watch(audit, readers, &running, started);
        let report = running.join();
        let seconds = started.elapsed().as_secs_f64();
        let outline = Outline { source: self.source.clone(), card: name, findings: audit.finish(), report, seconds };
        for error in &outline.report.errors {
            output::say(error);
        }
        let shown = if self.json { format!("{}\n", outline.json()) } else { text::of(&outline) };
        if let (Some(mut file), Some(path)) = (page, &self.html) {
            file.write_all(html::of(&outline).as_bytes()).map_err(|e| cannot_write(path, &e))?;
        }
        output::written(std::io::stdout().write_all(shown.as_bytes()))?;
        let good = outline.report.errors.is_empty() && outline.report.sums_agree();
        Ok(if good { Outcome::Good } else { Outcome::Partial })
    }

    /// The card to compare with, and its name for people.
    fn card(&self) -> Result<(Card, String)> {
        let queues = self.queues.unwrap_or(QUEUES);
        match self.rss.as_str() {
            "microsoft" => Ok((Card::new(ToeplitzKey::microsoft(), queues), "Microsoft's key".into())),
            "symmetric" => {
                let key = ToeplitzKey::new(&SYMMETRIC_KEY).into_diagnostic()?;
                Ok((Card::new(key, queues), "the symmetric key".into()))
            }
            // No interface has so long a name.
            hex if hex.len() > 15 => match format!("toeplitz:{hex}").parse() {
                Ok(HashName::Toeplitz(key)) => Ok((Card::new(key, queues), "a key of your own".into())),
                Ok(HashName::Default) => Err(miette!("--rss {hex}: is no key")),
                Err(problem) => Err(miette!("--rss {hex}: {problem}")),
            },
            interface => {
                let rss = Rss::of_interface(interface).map_err(|e| miette!("--rss {interface}: {e}"))?;
                let card = Card::of_interface(&rss).map_err(|e| miette!("--rss {interface}: {e}"))?;
                if self.queues.is_some() {
                    return Err(miette!(
                        "--queues belongs to a model card: {interface} has {} queues and a table of its own; \
                         leave --queues out, or name a key",
                        card.queues()
                    ));
                }
                let told = if rss.fields_told { "" } else { ", fields assumed" };
                Ok((card, format!("key, fields and table of {interface}{told}")))
            }
        }
    }

    /// Takes packets until the yard has ended; ends it when its time is over.
    fn watch(
        &self,
        mut audit: flowyard::Audit,
        mut readers: Vec<RingReader>,
        running: &Running,
        started: Instant,
    ) -> flowyard::Audit {
        let bar = output::progress(None);
        bar.set_style(
            indicatif::ProgressStyle::with_template("{spinner} {msg}")
                .unwrap_or(indicatif::ProgressStyle::default_spinner()),
        );
        let (mut packets, mut shown) = (0u64, started);
        loop {
            let before = packets;
            for reader in &mut readers {
                let ring = reader.ring();
                for _ in 0..TURN {
                    let Some(packet) = reader.next() else { break };
                    audit.see_packet(&packet, ring);
                    packets += 1;
                }
            }
            if self.time.is_some_and(|time| started.elapsed() >= time) {
                running.stop();
            }
            if shown.elapsed() > Duration::from_millis(500) {
                shown = Instant::now();
                let dropped: u64 = running.live().iter().map(|l| l.dropped.load(Ordering::Relaxed)).sum();
                bar.set_message(format!("{} packets, {} dropped", output::count(packets), output::count(dropped)));
                bar.tick();
            }
            if packets == before {
                if readers.iter_mut().all(|r| r.wait(Some(Duration::ZERO)) == Wait::Ended) {
                    break;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        bar.finish_and_clear();
        audit
    }
}

fn cannot_write(path: &std::path::Path, error: &std::io::Error) -> miette::Report {
    miette!("cannot write {}: {error}; give --html a file in a folder that you may write to", path.display())
}

/// Whether both are one file, by whatever names.
fn is_same_file(page: &Path, source: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    let source = spec(source).ok().filter(|spec| spec.kind == Kind::Pcap).map(|spec| spec.what);
    let source = source.map(|what| if what == "-" { "/dev/stdin".into() } else { what });
    let file = |path: &Path| std::fs::metadata(path).ok().filter(|found| found.is_file()).map(|f| (f.dev(), f.ino()));
    file(page).is_some_and(|page| source.is_some_and(|source| file(Path::new(&source)) == Some(page)))
}

/// What has no kind of port in front is a capture.
fn spec(source: &str) -> Result<PortSpec> {
    let is_port = KINDS.iter().any(|(_, kind, _)| source.strip_prefix(kind).is_some_and(|rest| rest.starts_with(':')));
    if is_port {
        return source.parse().into_diagnostic();
    }
    Ok(PortSpec { kind: Kind::Pcap, what: source.into(), queue: None, options: Default::default() })
}

/// A share in percent.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

fn plural(n: u64, one: &str) -> String {
    format!("{} {one}{}", output::count(n), if n == 1 { "" } else { "s" })
}

impl Outline {
    fn queues(&self) -> u64 {
        self.findings.queues.len() as u64
    }

    /// The one sentence.
    fn verdict(&self) -> String {
        let f = &self.findings;
        format!(
            "A card with {} would split {} of {}; Flowyard splits {}.",
            plural(self.queues(), "queue"),
            output::count(f.split_by_card),
            plural(f.several(), "conversation"),
            output::count(f.split)
        )
    }

    /// Causes that there are, with their counts, the most frequent first.
    fn causes(&self) -> Vec<(Cause, u64)> {
        let counted = Cause::ALL.into_iter().map(|cause| (cause, self.findings.causes[cause as usize]));
        let mut list: Vec<_> = counted.filter(|(_, n)| *n > 0).collect();
        list.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        list
    }

    /// What more there is to say in sentences.
    fn remarks(&self) -> Vec<String> {
        let (f, mut said) = (&self.findings, Vec::new());
        if f.conversations == 0 {
            said.push("Nothing in it belongs to an IP conversation.".into());
        }
        if f.single > 0 {
            let single = plural(f.single, "conversation");
            said.push(format!("Not counted there: {single} of a single packet, which nothing can split."));
        }
        if f.split_by_card > 0 {
            said.push(match f.split_by_symmetric {
                0 => "With a symmetric key the card would split none.".into(),
                n => format!("With a symmetric key the card would still split {}.", output::count(n)),
            });
        }
        if f.unseen_total() > 0 {
            let mut named: Vec<String> =
                f.unseen.iter().take(4).map(|(name, n)| format!("{name} {}", output::count(*n))).collect();
            if f.unseen.len() > named.len() {
                named.push(format!("{} more kinds", f.unseen.len() - named.len()));
            }
            said.push(format!(
                "The card finds no IP header in {} of {} ({}) and puts them all on one queue.",
                output::count(f.unseen_total()),
                plural(f.packets, "packet"),
                named.join(", ")
            ));
        }
        if f.orphans > 0 {
            said.push(format!(
                "The first piece of {} never came; counted there as load alone.",
                plural(f.orphans, "later fragment")
            ));
        }
        if f.beyond > 0 {
            said.push(format!(
                "There were more conversations than can be followed at a time: {} of further ones counted as load alone.",
                plural(f.beyond, "packet")
            ));
        }
        let lost = self.report.lost_before() + self.report.dropped();
        if lost > 0 {
            said.push(format!("{} came too fast and were not looked at.", plural(lost, "packet")));
        }
        if !self.report.errors.is_empty() {
            said.push("The source failed: these figures are of what could be read before.".into());
        }
        said
    }

    fn json(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let f = &self.findings;
        let loads = |loads: &[Load]| -> Vec<Value> {
            loads.iter().map(|l| json!({"packets": l.packets, "bytes": l.bytes})).collect()
        };
        let causes: Map<String, Value> =
            Cause::ALL.into_iter().map(|c| (c.name().to_owned(), json!(f.causes[c as usize]))).collect();
        let unseen: Map<String, Value> = f.unseen.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
        let examples: Vec<Value> = f.examples.iter().map(|e| {
            json!({"conversation": conversation(&e.conversation), "cause": e.cause.name(), "packets": e.packets, "queues": e.queues})
        }).collect();
        json!({
            "source": self.source, "verdict": self.verdict(), "rss": self.card, "seconds": self.seconds,
            "packets": f.packets, "bytes": f.bytes, "conversations": f.conversations, "single_packet": f.single, "without_ip": f.without_ip,
            "orphan_fragments": f.orphans, "beyond_limit": f.beyond,
            "card": {
                "queues": f.queues.len(), "split": f.split_by_card, "causes": causes,
                "split_with_symmetric_key": f.split_by_symmetric, "no_ip_header": unseen,
                "busiest": busiest(&f.queues), "loads": loads(&f.queues),
            },
            "flowyard": {"rings": f.rings.len(), "split": f.split, "busiest": busiest(&f.rings), "loads": loads(&f.rings)},
            "examples": examples, "lost_before": self.report.lost_before(), "dropped": self.report.dropped(),
            "errors": self.report.errors,
        })
    }
}

/// A conversation for people: `10.0.0.1:1000 – 10.0.0.2:53 udp`.
fn conversation(conversation: &Conversation) -> String {
    use std::net::{Ipv4Addr, Ipv6Addr};
    let end = |address: String, port: u16, v6: bool| match (port, v6) {
        (0, _) => address,
        (_, true) => format!("[{address}]:{port}"),
        (_, false) => format!("{address}:{port}"),
    };
    let named = |proto: u8, id: u16| match proto {
        1 | 58 if id > 0 => format!("{} id {id}", if proto == 1 { "icmp" } else { "icmpv6" }),
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        47 => "gre".into(),
        50 => "esp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => format!("protocol {other}"),
    };
    let port = |proto: u8, port: u16| if proto == 1 || proto == 58 { 0 } else { port };
    match *conversation {
        Conversation::V4 { low, high, proto, .. } => {
            let [a, b] = [low, high].map(|(a, p)| end(Ipv4Addr::from(a).to_string(), port(proto, p), false));
            format!("{a} – {b} {}", named(proto, low.1))
        }
        Conversation::V6 { low, high, proto, .. } => {
            let whole = |[a, b]: [u64; 2]| Ipv6Addr::from(u128::from(a) << 64 | u128::from(b)).to_string();
            let [a, b] = [low, high].map(|(a, p)| end(whole(a), port(proto, p), true));
            format!("{a} – {b} {}", named(proto, low.1))
        }
        Conversation::Mac { low, high, .. } => format!("{low:012x} – {high:012x}"),
        Conversation::Link { link, .. } => format!("link type {link}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_written_for_people() {
        let v4 = Conversation::v4((0x0a00_0001, 1000), (0x0a00_0002, 53), 17, 0);
        assert_eq!(conversation(&v4), "10.0.0.1:1000 – 10.0.0.2:53 udp");
        let ping = Conversation::v4((0x0a00_0001, 7), (0x0a00_0002, 7), 1, 0);
        assert_eq!(conversation(&ping), "10.0.0.1 – 10.0.0.2 icmp id 7");
        let v6 = Conversation::v6(([1 << 48, 1], 1000), ([1 << 48, 2], 80), 6, 0);
        assert_eq!(conversation(&v6), "[1::1]:1000 – [1::2]:80 tcp");
    }

    #[test]
    fn what_has_no_kind_is_a_capture() {
        assert_eq!(spec("gen:mix").map(|s| s.kind).ok(), Some(Kind::Gen));
        for file in ["trace.pcap", "-", "odd:name.pcap", "a?b"] {
            assert_eq!(spec(file).map(|s| (s.kind, s.what)).ok(), Some((Kind::Pcap, file.into())));
        }
    }
}
