//! `flowyard run`: packets from ports to rings.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use flowyard::mem::Wait;
use flowyard::port::capture::{CaptureWriter, FileFormat, Interface};
use flowyard::port::{Outgoing, PortInfo, PortSpec};
use flowyard::steer::FlowHash;
use flowyard::{Drop, Findings, Report, RingReader, Running, Witness, Yard, YardConfig};
use miette::{IntoDiagnostic, Result, miette};

use crate::options::Sorting;
use crate::{Outcome, output};

/// Run the yard: packets from ports to rings, and a table of what came.
///
/// Without a port it runs on built-in traffic for a moment and says what to type next.
#[derive(Debug, Args)]
#[command(after_help = ports_help())]
pub struct Run {
    /// Where packets come from, such as xdp:eth0, packet:eth0, pcap:FILE, gen:mix
    #[arg(value_name = "PORT")]
    ports: Vec<String>,
    /// End after this time (such as 10, 1.5 or 500ms)
    #[arg(long = "for", value_name = "SECONDS", value_parser = duration)]
    time: Option<Duration>,
    /// Count conversations that came to more than one ring [default: for files and built-in traffic]
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Do not count conversations: consumers only take packets
    #[arg(long)]
    no_verify: bool,
    /// Write what each ring got to DIR/ring-00.pcapng, …
    #[arg(short = 'o', long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print the figures at the end as one JSON object
    #[arg(long)]
    json: bool,
    /// Say nothing while running
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    sorting: Sorting,
    #[command(flatten)]
    memory: Memory,
}

/// Memory and threads.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory and threads")]
struct Memory {
    /// Slots of each ring, a power of two
    #[arg(long, value_name = "N", default_value_t = 1024)]
    ring_slots: u32,
    /// Bytes in front of every packet for the application: 0, 64, 128, 192 or 256
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    annotation: usize,
    /// Packet buffers [default: what ports and rings can hold, and some to spare]
    #[arg(long, value_name = "N")]
    buffers: Option<usize>,
    /// Threads that receive and sort; the queues of an interface are shared out among them
    #[arg(long, value_name = "N", default_value_t = 1)]
    dispatchers: usize,
    /// Do not bind dispatchers to cores
    #[arg(long)]
    no_pin: bool,
}

/// What runs where no port is given.
const BUILT_IN: &str = "gen:mix?seconds=3";

fn ports_help() -> String {
    let mut text = String::from("Ports (options follow a ?, several are joined by &):\n");
    for (_, _, help) in flowyard::port::KINDS {
        let _ = writeln!(text, "  {help}");
    }
    text.push_str(
        "\nExamples:\n  flowyard run\n  flowyard run pcap:trace.pcap.gz --rings 8\n  \
         sudo flowyard run xdp:eth0 --rings 4 --for 10\n  sudo flowyard run packet:eth0 -o out",
    );
    text
}

/// A time as a person writes it: 10, 1.5, 2s or 500ms.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0 && *n < 1e9);
    seconds
        .map(|s| Duration::from_secs_f64(s * unit))
        .ok_or_else(|| "must be a number of seconds, such as 10, 1.5 or 500ms".into())
}

impl Run {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let names: Vec<&str> =
            if self.ports.is_empty() { vec![BUILT_IN] } else { self.ports.iter().map(String::as_str).collect() };
        let specs: Vec<PortSpec> = names.iter().map(|n| n.parse()).collect::<Result<_, _>>().into_diagnostic()?;
        let live = specs.iter().any(|s| matches!(s.kind, flowyard::port::Kind::Xdp | flowyard::port::Kind::Packet));
        let hash = self.sorting.hash(live)?;
        let config = YardConfig {
            rings: self.sorting.rings,
            weights: self.sorting.weights.clone(),
            ring_slots: self.memory.ring_slots,
            annotation_bytes: self.memory.annotation,
            buffers: self.memory.buffers,
            dispatchers: self.memory.dispatchers,
            policy: self.sorting.policy(),
            hash: hash.clone(),
            pin: !self.memory.no_pin,
            ..YardConfig::default()
        };
        let verify = self.verify || (!self.no_verify && !live);
        if let Some(dir) = &self.output {
            std::fs::create_dir_all(dir).map_err(|e| miette!("cannot make the directory {}: {e}", dir.display()))?;
        }
        let (yard, readers) = Yard::open(&config, &specs).into_diagnostic()?;
        let infos = yard.ports().to_vec();
        self.announce(&yard, &hash);
        let consumers = self.consumers(readers, verify, &config.policy)?;
        let started = Instant::now();
        let running = yard.start().into_diagnostic()?;
        stop_on_signals(&running)?;
        self.watch(&running, started);
        let report = running.join();
        let time = started.elapsed();
        let (witnesses, errors) = join(consumers);
        let outcome =
            Figures { report, findings: Witness::compare(&witnesses), time, verify, seed: seed(&hash), infos };
        for error in outcome.report.errors.iter().chain(&errors) {
            output::say(error);
        }
        if self.json {
            println!("{}", outcome.json())
        } else {
            outcome.print()
        }
        if self.ports.is_empty() && !self.json {
            println!(
                "\nThat was built-in traffic. Next: flowyard run pcap:FILE, or as root flowyard run xdp:IF (--help has more)."
            );
        }
        Ok(if errors.is_empty() && outcome.agrees() { Outcome::Good } else { Outcome::Partial })
    }

    fn announce(&self, yard: &Yard, hash: &FlowHash) {
        if self.quiet || self.json {
            return;
        }
        for info in yard.ports() {
            eprintln!("{}: {}", info.name, info.mode);
        }
        eprintln!("{}; {} rings of {} slots{}", yard.region(), self.sorting.rings, self.memory.ring_slots, seed(hash));
    }

    fn consumers(
        &self,
        readers: Vec<RingReader>,
        verify: bool,
        policy: &flowyard::steer::Policy,
    ) -> Result<Vec<Consumer>> {
        let width = (readers.len() - 1).to_string().len().max(2);
        let queues = self.sorting.rings;
        let mut consumers = Vec::new();
        for reader in readers {
            let ring = reader.ring();
            let writer = match &self.output {
                Some(dir) => Some(RingFile::create(&dir.join(format!("ring-{ring:0width$}.pcapng")))?),
                None => None,
            };
            let witness = Witness::new(queues).with_policy(policy);
            let body = move || consume(reader, witness, verify, writer);
            consumers.push(std::thread::Builder::new().name(format!("ring-{ring}")).spawn(body).into_diagnostic()?);
        }
        Ok(consumers)
    }

    /// Shows progress until the yard has ended; ends it when its time is over.
    fn watch(&self, running: &Running, started: Instant) {
        let bar = output::progress(None);
        if !self.quiet {
            bar.set_style(
                indicatif::ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or(indicatif::ProgressStyle::default_spinner()),
            );
        }
        let (mut before, mut shown) = (0, started);
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
            if self.time.is_some_and(|t| started.elapsed() >= t) {
                running.stop();
            }
            if self.quiet || shown.elapsed() < Duration::from_millis(500) {
                continue;
            }
            let sum = |f: fn(&flowyard::Live) -> &std::sync::atomic::AtomicU64| -> u64 {
                running.live().iter().map(|l| f(l).load(Ordering::Relaxed)).sum()
            };
            let (received, dropped) = (sum(|l| &l.received), sum(|l| &l.dropped));
            let rate = output::rate(received.saturating_sub(before), shown.elapsed());
            bar.set_message(format!("{} packets, {rate}, {} dropped", output::count(received), output::count(dropped)));
            bar.tick();
            (before, shown) = (received, Instant::now());
        }
        bar.finish_and_clear();
    }
}

type Consumer = JoinHandle<(Witness, Option<String>)>;

/// The first Ctrl-C or SIGTERM ends the yard in order; a second one ends the process.
pub fn stop_on_signals(running: &Running) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        let stop: Arc<AtomicBool> = running.stopper();
        signal_hook::flag::register_conditional_default(signal, stop.clone()).into_diagnostic()?;
        signal_hook::flag::register(signal, stop).into_diagnostic()?;
    }
    Ok(())
}

fn consume(
    mut reader: RingReader,
    mut witness: Witness,
    verify: bool,
    mut writer: Option<RingFile>,
) -> (Witness, Option<String>) {
    let mut failed = None;
    loop {
        while let Some(packet) = reader.next() {
            if verify {
                witness.see_packet(&packet);
            } else {
                witness.count_packet(&packet);
            }
            if let Some(file) = &mut writer
                && let Err(error) = file.write(&packet)
            {
                failed = Some(error.to_string());
                writer = None;
            }
        }
        if reader.wait(None) == Wait::Ended {
            break;
        }
    }
    if let Some(error) = writer.and_then(|file| file.finish().err()) {
        failed = Some(error.to_string());
    }
    (witness, failed)
}

fn join(consumers: Vec<Consumer>) -> (Vec<Witness>, Vec<String>) {
    let (mut witnesses, mut errors) = (Vec::new(), Vec::new());
    for consumer in consumers {
        match consumer.join() {
            Ok((witness, error)) => {
                witnesses.push(witness);
                errors.extend(error);
            }
            Err(_) => errors.push("a consumer thread panicked: please report this as a bug".into()),
        }
    }
    (witnesses, errors)
}

/// The capture of what one ring got. An interface for each port, queue and link type that it met.
struct RingFile {
    writer: CaptureWriter,
    known: Vec<((u16, u16, u16), u32)>,
    bytes: Vec<u8>,
}

impl RingFile {
    fn create(path: &Path) -> Result<RingFile> {
        let writer = CaptureWriter::create(path).into_diagnostic()?;
        debug_assert_eq!(FileFormat::of_name(path), FileFormat::Pcapng);
        Ok(RingFile { writer, known: Vec::new(), bytes: Vec::new() })
    }

    fn write(&mut self, packet: &flowyard::mem::Packet<'_>) -> Result<(), flowyard::port::PortError> {
        let tag = packet.tag();
        let source = (tag.port, tag.queue, tag.link);
        let interface = match self.known.iter().find(|(known, _)| *known == source) {
            Some((_, interface)) => *interface,
            None => {
                let name = format!("port{}/{}", tag.port, tag.queue);
                let interface = self.writer.interface(&Interface { name, ..Interface::of_link(tag.link) })?;
                self.known.push((source, interface));
                interface
            }
        };
        self.bytes.clear();
        for segment in packet.segments() {
            self.bytes.extend_from_slice(segment);
        }
        let (time_ns, wire_len, link) = (tag.time_ns, tag.wire_len, tag.link);
        self.writer.write(interface, &Outgoing { bytes: &self.bytes, time_ns, wire_len, link, comment: "" })
    }

    fn finish(self) -> Result<u64, flowyard::port::PortError> {
        self.writer.finish()
    }
}

fn seed(hash: &FlowHash) -> String {
    match hash {
        FlowHash::Default { seed } => format!(", seed {seed:#x}"),
        FlowHash::Toeplitz(_) => ", Toeplitz".into(),
    }
}

/// Everything that is said at the end.
struct Figures {
    report: Report,
    findings: Findings,
    time: Duration,
    verify: bool,
    seed: String,
    infos: Vec<PortInfo>,
}

impl Figures {
    /// Whether nothing went wrong: sums agree, what was delivered was seen, nothing was split, no port
    /// failed.
    fn agrees(&self) -> bool {
        self.report.sums_agree() && self.all_seen() && self.report.errors.is_empty() && self.findings.split == 0
    }

    fn all_seen(&self) -> bool {
        let seen: u64 = self.findings.rings.iter().map(|r| r.0).sum();
        seen == self.report.delivered()
    }

    fn print(&self) {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(["ring", "packets", "bytes", "conversations", "dropped"]);
        for (ring, (counters, seen)) in self.report.rings.iter().zip(&self.findings.rings).enumerate() {
            let conversations = if self.verify { output::count(seen.2) } else { "-".into() };
            table.add_row([
                ring.to_string(),
                output::count(counters.packets),
                output::count(counters.bytes),
                conversations,
                output::count(counters.dropped_total()),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        println!("{}", table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n"));
        println!("{}", self.summary());
    }

    fn summary(&self) -> String {
        let (r, f) = (&self.report, &self.findings);
        let bytes: u64 = r.rings.iter().map(|c| c.bytes).sum();
        let agree = if r.sums_agree() && self.all_seen() {
            "the sums agree"
        } else {
            "THE SUMS DO NOT AGREE: please report this"
        };
        let mut text = format!(
            "\nreceived {} = delivered {} + dropped {}; {agree}\n",
            output::count(r.received()),
            output::count(r.delivered()),
            output::count(r.dropped())
        );
        for why in Drop::ALL {
            let n: u64 = r.rings.iter().map(|c| c.dropped[why as usize]).sum();
            if n > 0 {
                let _ = writeln!(text, "  dropped {}: {}", why.name(), output::count(n));
            }
        }
        for (name, counters) in &r.ports {
            for (what, n) in counters.lost.iter().filter(|(_, n)| *n > 0) {
                let _ = writeln!(text, "  lost before the yard at {name}, {what}: {}", output::count(*n));
            }
        }
        let (rate, bits) = (output::rate(r.delivered(), self.time), output::bit_rate(bytes, self.time));
        let _ = writeln!(text, "{rate}, {bits}, {:.2} s", self.time.as_secs_f64());
        if self.verify {
            let queues = r.rings.len();
            let _ = write!(
                text,
                "split conversations: {} of {}; a card's own RSS ({queues} queues) would have split {}",
                output::count(f.split),
                output::count(f.conversations),
                output::count(f.split_by_card)
            );
        } else {
            text.push_str("conversations not counted (--verify does)");
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

    fn json(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let named = |list: &[(&'static str, u64)]| -> Value {
            list.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect::<Map<_, _>>().into()
        };
        let (r, f) = (&self.report, &self.findings);
        let rings: Vec<Value> = r.rings.iter().zip(&f.rings).enumerate().map(|(ring, (counters, seen))| {
            let drops: Map<_, _> = Drop::ALL.iter().map(|w| (w.name().to_owned(), json!(counters.dropped[*w as usize]))).collect();
            json!({"ring": ring, "packets": counters.packets, "bytes": counters.bytes, "conversations": seen.2, "seen": seen.0, "dropped": drops})
        }).collect();
        let ports: Vec<Value> = r.ports.iter().map(|(name, c)| {
            let mode = self.infos.iter().find(|i| i.name == *name).map_or("", |i| &i.mode);
            json!({"port": name, "mode": mode, "packets": c.packets, "bytes": c.bytes, "lost": named(&c.lost), "notes": named(&c.notes)})
        }).collect();
        json!({
            "received": r.received(), "delivered": r.delivered(), "dropped": r.dropped(), "lost_before": r.lost_before(),
            "sums_agree": r.sums_agree() && self.all_seen(), "seconds": self.time.as_secs_f64(), "seed": self.seed.trim_start_matches(", seed "),
            "verified": self.verify, "conversations": f.conversations, "split": f.split, "split_by_card": f.split_by_card,
            "without_ip": f.without_ip, "orphan_fragments": f.orphans,
            "fragments": {"held": r.sorter.held, "followed": r.sorter.followed, "expired": r.sorter.expired, "given_up": r.sorter.given_up},
            "violations": r.violations, "buffers_missing": r.buffers_missing, "rings": rings, "ports": ports, "errors": r.errors,
        })
    }
}
