//! `flowyard run`: packets from ports to rings.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use flowyard::function::{Failure, FunctionStatus};
use flowyard::mem::Wait;
use flowyard::port::capture::{CaptureWriter, FileFormat, Interface};
use flowyard::port::{Outgoing, PortInfo, PortSpec, Refusal};
use flowyard::steer::FlowHash;
use flowyard::{Aside, Drop, Findings, Report, RingReader, Running, Witness, Yard, YardConfig};
use miette::{IntoDiagnostic, Result, miette};

use crate::control::{self, Control};
use crate::options::Sorting;
use crate::steering::Steering;
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
    /// Send what consumers return to be sent, out of any of these ports (tap:NAME and pcap:FILE?write are for that)
    #[arg(long)]
    transmit: bool,
    /// Print the figures at the end as one JSON object
    #[arg(long)]
    json: bool,
    /// Say nothing while running
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    sorting: Sorting,
    #[command(flatten)]
    steering: Steering,
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
    /// Where the kernel steers, have dispatchers take the packets of all rings and pass them on by pipes [default: each
    /// ring's own thread takes them from the kernel]
    #[arg(long)]
    relay: bool,
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
         sudo flowyard run xdp:eth0 --rings 4 --for 10\n  sudo flowyard run xdp:eth0 --rings 4 --steer kernel\n  sudo flowyard run packet:eth0 -o out",
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
        let live = specs.iter().any(|s| {
            matches!(s.kind, flowyard::port::Kind::Xdp | flowyard::port::Kind::Packet | flowyard::port::Kind::Tap)
        });
        let hash = self.sorting.hash(live)?;
        let kernel = self.steering.in_kernel()?;
        if self.memory.relay && !kernel {
            return Err(miette!(
                "--relay is for steering in the kernel, and here dispatchers take all packets anyway: leave it out, or \
                 add --steer kernel"
            ));
        }
        let (tap, stack) = self.steering.hosts()?;
        let mut out = output::own_stdout(self.steering.is_there())?;
        let (first_group, rings, groups) = self.steering.groups(&self.sorting)?;
        let tables = self.steering.make_tables()?;
        let names: Vec<(String, u16)> =
            std::iter::once((first_group, rings)).chain(groups.iter().map(|g| (g.name.clone(), g.rings))).collect();
        let config = YardConfig {
            rings,
            groups,
            function: self.steering.function(&tables)?,
            host: tap,
            stack,
            weights: self.sorting.weights.clone(),
            ring_slots: self.memory.ring_slots,
            annotation_bytes: self.memory.annotation,
            buffers: self.memory.buffers,
            dispatchers: self.memory.dispatchers,
            policy: self.sorting.policy(),
            hash: hash.clone(),
            kernel,
            relay: self.memory.relay,
            transmit: self.transmit,
            pin: !self.memory.no_pin,
            ..YardConfig::default()
        };
        let verify = self.verify || (!self.no_verify && !live);
        if let Some(dir) = &self.output {
            std::fs::create_dir_all(dir).map_err(|e| miette!("cannot make the directory {}: {e}", dir.display()))?;
        }
        let (yard, readers) = Yard::open(&config, &specs).into_diagnostic()?;
        let infos = yard.ports().to_vec();
        self.announce(&yard, &hash, &config, &names);
        let consumers = self.consumers(readers, verify, &config.policy, &names)?;
        let started = Instant::now();
        let running = yard.start().into_diagnostic()?;
        stop_on_signals(&running)?;
        let control = Arc::new(control::Yard {
            functions: running.functions().clone(),
            live: running.live().to_vec(),
            ports: infos.iter().map(|info| info.name.clone()).collect(),
            groups: names.clone(),
            kernel: running.kernel().cloned(),
            longest_bytes: control::LONGEST_BYTES,
            reloading: std::sync::Mutex::default(),
            maker: {
                let (steering, tables) = (self.steering.clone(), tables.clone());
                Box::new(move || steering.function(&tables))
            },
            tables,
        });
        let socket = match &self.steering.control {
            Some(path) => {
                let path = path.clone().unwrap_or_else(control::default_path);
                let socket = Control::start(&path, control.clone()).inspect_err(|_| running.stop())?;
                if !self.quiet {
                    eprintln!("control socket: {}", path.display());
                }
                Some(socket)
            }
            None => None,
        };
        self.watch(&running, started, &control)?;
        let own_program = crate::bpf::has_own(&control.kernel);
        let report = running.join();
        drop(socket);
        let time = started.elapsed();
        let (witnesses, errors) = join(consumers);
        let mut findings = Vec::new();
        let mut left = witnesses.as_slice();
        for (_, rings) in &names {
            let (group, rest) = left.split_at((*rings).into());
            findings.push(Witness::compare(group));
            left = rest;
        }
        let outcome = Figures {
            report,
            findings,
            groups: names,
            function: config.function.as_ref().map(|f| f.name().to_owned()),
            own_program,
            time,
            verify,
            seed: seed(&hash),
            infos,
            ports: specs.iter().map(PortSpec::name).collect(),
        };
        for error in outcome.report.errors.iter().chain(&errors) {
            output::say(error);
        }
        let mut text = if self.json { format!("{}\n", outcome.json()) } else { outcome.text() };
        if self.ports.is_empty() && !self.json {
            text.push_str(
                "\nThat was built-in traffic. Next: flowyard run pcap:FILE, or as root flowyard run xdp:IF (--help has more).\n",
            );
        }
        output::written(out.write_all(text.as_bytes()))?;
        Ok(if errors.is_empty() && outcome.agrees() { Outcome::Good } else { Outcome::Partial })
    }

    fn announce(&self, yard: &Yard, hash: &FlowHash, config: &YardConfig, groups: &[(String, u16)]) {
        if self.quiet || self.json {
            return;
        }
        for info in yard.ports() {
            eprintln!("{}: {}", info.name, info.mode);
        }
        let rings = match groups {
            [(_, rings)] => format!("{rings} rings"),
            groups => {
                groups.iter().map(|(name, rings)| format!("{rings} rings for {name}")).collect::<Vec<_>>().join(", ")
            }
        };
        eprintln!("{}; {rings} of {} slots{}", yard.region(), self.memory.ring_slots, seed(hash));
        if let Some(function) = &config.function {
            eprintln!("function: {}", function.name());
        }
        if config.kernel {
            eprintln!("steering: in the kernel; what its program marks, in user space");
        }
    }

    fn consumers(
        &self,
        readers: Vec<RingReader>,
        verify: bool,
        policy: &flowyard::steer::Policy,
        groups: &[(String, u16)],
    ) -> Result<Vec<Consumer>> {
        let width = (readers.len() - 1).to_string().len().max(2);
        let mut consumers = Vec::new();
        let of_groups = groups.iter().flat_map(|(name, rings)| (0..*rings).map(move |_| (name.as_str(), *rings)));
        for (reader, (group, rings)) in readers.into_iter().zip(of_groups) {
            let ring = reader.ring();
            let dash = if group.is_empty() { "" } else { "-" };
            let writer = match &self.output {
                Some(dir) => Some(RingFile::create(&dir.join(format!("{group}{dash}ring-{ring:0width$}.pcapng")))?),
                None => None,
            };
            let witness = Witness::new(rings).with_policy(policy);
            let body = move || consume(reader, witness, verify, writer);
            consumers.push(std::thread::Builder::new().name(format!("ring-{ring}")).spawn(body).into_diagnostic()?);
        }
        Ok(consumers)
    }

    /// Shows progress until the yard has ended; ends it when its time is over, and reloads on SIGHUP.
    fn watch(&self, running: &Running, started: Instant, control: &control::Yard) -> Result<()> {
        let hangup = Arc::new(AtomicBool::new(false));
        if self.steering.is_there() {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, hangup.clone()).into_diagnostic()?;
        }
        let mut complaints = Complaints::default();
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
            if hangup.swap(false, Ordering::Relaxed) {
                match control.reload() {
                    Ok(name) => bar.suspend(|| eprintln!("function replaced: {name}")),
                    Err(error) => bar.suspend(|| output::say(format!("not replaced: {}", output::chain(&error)))),
                }
            }
            if self.steering.is_there()
                && complaints.due()
                && let Some(line) = complaints.line(&running.functions().status())
            {
                bar.suspend(|| output::say(line));
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
        Ok(())
    }
}

/// What the functions did wrong since it was last said: at most a line a second.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    said: Vec<u64>,
}

impl Complaints {
    fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    /// A line about what is new, if anything is.
    fn line(&mut self, functions: &[FunctionStatus]) -> Option<String> {
        let now: Vec<u64> =
            functions.iter().flat_map(|f| f.counts.failures.into_iter().chain([f.counts.switched_off])).collect();
        self.said.resize(now.len(), 0);
        let each = Failure::ALL.len() + 1;
        let more: Vec<String> = now
            .iter()
            .zip(&self.said)
            .enumerate()
            .filter(|(_, (now, said))| now > said)
            .map(|(at, (now, said))| match Failure::ALL.get(at % each) {
                Some(failure) => format!("{} {}", failure.name(), output::count(now - said)),
                None => "switched off, because it kept failing (reload to try again)".into(),
            })
            .collect();
        self.said = now;
        (!more.is_empty()).then(|| format!("the function fails: {}", more.join(", ")))
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
            Err(_) => {
                witnesses.push(Witness::new(1)); // one a ring
                errors.push("a consumer thread panicked: please report this as a bug".into());
            }
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
    /// One a group.
    findings: Vec<Findings>,
    groups: Vec<(String, u16)>,
    /// Its name, if there is one.
    function: Option<String>,
    /// A program of the user's was in the kernel at the end.
    own_program: bool,
    time: Duration,
    verify: bool,
    seed: String,
    infos: Vec<PortInfo>,
    /// Names of the ports, as given.
    ports: Vec<String>,
}

impl Figures {
    /// Whether nothing went wrong: sums agree, what was delivered was seen, nothing was split, no port
    /// failed. Where a function of the user's decides, it may split.
    fn agrees(&self) -> bool {
        let whole = self.split() == 0 || self.report.function.is_some() || self.own_program;
        self.report.sums_agree() && self.all_seen() && self.report.errors.is_empty() && whole
    }

    fn all_seen(&self) -> bool {
        self.rings().map(|(_, _, seen)| seen.0).sum::<u64>() == self.report.delivered()
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

    fn text(&self) -> String {
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
        } else {
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

    fn json(&self) -> serde_json::Value {
        use serde_json::{Map, Value, json};
        let named = |list: &[(&'static str, u64)]| -> Value {
            list.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect::<Map<_, _>>().into()
        };
        let (r, f) = (&self.report, &self.findings[0]);
        let rings: Vec<Value> = r.rings.iter().zip(self.rings()).map(|(counters, (group, ring, seen))| {
            let group = if group.is_empty() { Value::Null } else { group.into() };
            let drops: Map<_, _> = Drop::ALL.iter().map(|w| (w.name().to_owned(), json!(counters.dropped[*w as usize]))).collect();
            json!({"group": group, "ring": ring, "packets": counters.packets, "bytes": counters.bytes, "conversations": seen.2, "seen": seen.0, "dropped": drops})
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
