//! `flowyard bench`: what this machine does, in a few seconds.

use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use flowyard::cpu;
use flowyard::mem::{Consumer, Geometry, Ledger, PipeProducer, Region, Returned, Slot, Stock, Tag, notify};
use flowyard::port::traffic::{Carrier, Mix, MixOptions, PacketKind};
use flowyard::steer::{Classifier, Decision, FlowHash, FragmentTable, Frame, Glance, LinkType, Policy, Table};
use miette::{IntoDiagnostic, Result, miette};
use serde_json::{Value, json};

use crate::{Outcome, output};

/// Measure what this machine does: steering on one core, and packets handed from core to core.
///
/// Needs no privileges and no network. Figures are medians of short laps, with what 80 % of the laps lie between.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct Bench {
    /// Cores to hand packets between, the first to each of the others [default: the first that we may use, and up to 4]
    #[arg(long, value_name = "CORE,CORE[,CORE...]", value_delimiter = ',')]
    cores: Vec<usize>,
    /// Seconds for each line
    #[arg(long, value_name = "S", default_value_t = 0.5)]
    seconds: f64,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Steering is what a dispatcher does with each packet of 65,536 different ones in random order: dissect, hash, \
look the ring up. Packets are handed over as by a yard without steering: its tag is written, the slot of 32 bytes \
and the packet's first bytes are read on the other core, and the buffer comes home. Cores that share a cache hand over several \
times faster than others: put a dispatcher and its consumers on such.

Beside other libraries, and whole yards: bench/ in the sources.";

/// Packets of a set.
const PACKETS: usize = 1 << 16;
/// Packets of a lap, whose headers are brought into the cache before.
const LAP: usize = 128;
/// Rings that packets are handed over by, slots of each, and buffers of the region.
const RINGS: usize = 4;
const SLOTS: u32 = 1024;
const BUFFERS: usize = 4096;
/// Packets that are handed over together.
const BATCH: usize = 64;

/// Nanoseconds a packet: the median, and what 80 % lie between.
#[derive(Debug, Clone, Copy)]
struct Figure {
    median: f64,
    low: f64,
    high: f64,
}

impl Figure {
    fn of(mut laps: Vec<f64>) -> Figure {
        laps.sort_by(f64::total_cmp);
        let at = |share: usize| laps.get(laps.len() * share / 100).copied().unwrap_or(f64::NAN);
        Figure { median: at(50), low: at(10), high: at(90) }
    }

    fn mpps(&self) -> f64 {
        1000.0 / self.median
    }

    fn json(&self) -> Value {
        json!({ "ns": self.median, "ns_10": self.low, "ns_90": self.high, "mpps": self.mpps() })
    }

    fn row(&self, name: &str) -> String {
        let Figure { median, low, high } = self;
        format!(" {name:<8}  {median:>11.1}  {low:>7.1} – {high:<7.1}  {:>6.1}", self.mpps())
    }
}

impl Bench {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        if !(0.01..=3600.0).contains(&self.seconds) {
            return Err(miette!("--seconds {}: give 0.01 to 3600", self.seconds));
        }
        let time = Duration::from_secs_f64(self.seconds);
        let allowed = allowed_cores()?;
        let cores = self.cores(&allowed)?;
        pin(cores[0])?;
        let machine = format!("{}, {} cores, Linux {}", model(), allowed.len(), release());
        self.tell(&format!("{machine}\n\nSteering, on core {}\n", cores[0]))?;
        self.tell(" carrier   ns a packet      10 – 90 %      Mpps")?;
        let mut steering = Vec::new();
        let each = Carrier::ALL.iter().map(|carrier| (carrier.name(), vec![*carrier]));
        for (name, only) in each.chain([("mix", Vec::new())]) {
            let figure = steer(&only, time);
            self.tell(&figure.row(name))?;
            steering.push(json!({ "carrier": name, "figure": figure.json() }));
        }
        let mut handing = Vec::new();
        if cores.len() > 1 {
            self.tell("\nHanding over, from core to core\n\n cores     ns a packet      10 – 90 %      Mpps")?;
        } else {
            self.tell("\nNothing is handed over: there is one core to run on.")?;
        }
        for &there in &cores[1..] {
            let figure = hand_over(there, time)?;
            self.tell(&figure.row(&format!("{} → {there}", cores[0])))?;
            handing.push(json!({ "from": cores[0], "to": there, "figure": figure.json() }));
        }
        if self.json {
            let all = json!({ "machine": machine, "core": cores[0], "steering": steering, "handing_over": handing });
            line(&all.to_string())?;
        }
        Ok(Outcome::Good)
    }

    fn tell(&self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { line(text) }
    }

    /// The cores to use: those that were asked for, or the first and up to four others, spread evenly.
    fn cores(&self, allowed: &[usize]) -> Result<Vec<usize>> {
        let list = || allowed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Some(core) = self.cores.iter().find(|core| !allowed.contains(core)) {
            return Err(miette!("--cores {core}: this process may not run there; it may on {}", list()));
        }
        if self.cores.is_empty() {
            let others = allowed.get(1..).unwrap_or(&[]);
            let step = others.len().div_ceil(4).max(1);
            return Ok(allowed.iter().take(1).chain(others.iter().step_by(step)).copied().collect());
        }
        let (first, others) = self.cores.split_first().expect("not empty");
        if others.is_empty() || others.contains(first) {
            return Err(miette!("--cores: name a core and others to hand packets to, such as 0,1"));
        }
        Ok(self.cores.clone())
    }
}

/// Whole packets of a mix, in random order.
struct Packets {
    bytes: Vec<u8>,
    /// Offset and length of each.
    places: Vec<(usize, usize)>,
}

impl Packets {
    fn make(only: &[Carrier], count: usize) -> Packets {
        let mut mix = Mix::new(&MixOptions { flows: 1024, only: only.to_vec(), ..MixOptions::default() });
        let mut packets = Packets { bytes: Vec::new(), places: Vec::with_capacity(count) };
        let mut frame = [0; Mix::FRAME_BYTES];
        while packets.places.len() < count {
            let packet = mix.next(&mut frame);
            if matches!(packet.kind, PacketKind::Tcp | PacketKind::Udp | PacketKind::Echo) {
                packets.places.push((packets.bytes.len(), packet.len));
                packets.bytes.extend_from_slice(&frame[..packet.len]);
            }
        }
        // Fisher and Yates, by xorshift64 (Marsaglia 2003): an order that no branch predictor knows.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for last in (1..packets.places.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            packets.places.swap(last, (random % (last as u64 + 1)) as usize);
        }
        packets
    }

    fn get(&self, at: usize) -> &[u8] {
        let (start, len) = self.places[at % self.places.len()];
        &self.bytes[start..start + len]
    }
}

fn classifier() -> Result<Classifier> {
    let table = Table::even(RINGS as u16).into_diagnostic()?;
    Ok(Classifier { policy: Policy::default(), hash: FlowHash::default(), table })
}

/// Steers packets in these carriers for `time`, as a dispatcher does.
fn steer(only: &[Carrier], time: Duration) -> Figure {
    let packets = Packets::make(only, PACKETS);
    let classifier = classifier().expect("four rings are a table");
    let glancer = classifier.glancer().expect("the default policy has common cases");
    let (mut memory, mut decision, mut glance) = (FragmentTable::default(), Decision::BLANK, Glance::default());
    let (mut laps, mut sum, begun) = (Vec::with_capacity(1 << 16), 0u32, Instant::now());
    let mut at = 0;
    while begun.elapsed() < time || laps.is_empty() {
        let lap: Vec<&[u8]> = (at..at + LAP).map(|at| packets.get(at)).collect();
        at += LAP;
        lap.iter().for_each(|bytes| _ = black_box(bytes.iter().take(192).step_by(64).fold(0, |sum, byte| sum ^ byte)));
        let start = Instant::now();
        for bytes in lap {
            let frame = Frame::new(bytes, LinkType::ETHERNET);
            if glancer.glance(&frame, &mut glance) {
                sum ^= glance.hash() ^ u32::from(glance.ring());
            } else {
                classifier.classify_into(&frame, &mut memory, 0, &mut (), &mut decision);
                sum ^= decision.hash ^ u32::from(decision.ring);
            }
        }
        laps.push(start.elapsed().as_nanos() as f64 / LAP as f64);
    }
    black_box(sum);
    Figure::of(laps)
}

/// The side that hands packets over.
struct Giver {
    region: Region,
    stock: Stock,
    ledger: Ledger,
    pipes: Vec<PipeProducer>,
    slot: Slot,
}

impl Giver {
    /// Lays a packet into every buffer.
    fn fill(&mut self, packet: &[u8]) {
        let offset = usize::from(self.slot.offset);
        let mut buffers: Vec<_> = std::iter::from_fn(|| self.stock.take()).collect();
        for buffer in &mut buffers {
            assert!(self.region.write(buffer, offset, packet), "a packet fits its buffer");
        }
        buffers.into_iter().for_each(|buffer| self.stock.put(buffer));
    }

    /// Hands over `count` packets with their tags, and waits until all are home.
    fn lap(&mut self, count: usize) {
        let mut given = 0;
        while given < count || self.stock.len() < self.stock.capacity() {
            for _ in 0..BATCH.min(count - given) {
                let Some(mut buffer) = self.stock.take() else { break };
                self.region.set_tag(&mut buffer, &Tag { hash: given as u32, ..Tag::default() });
                let slot = Slot { hash: given as u32, ..self.slot };
                if let Err(buffer) = self.pipes[given % RINGS].send(&mut self.ledger, buffer, slot) {
                    self.stock.put(buffer);
                    break;
                }
                given += 1;
            }
            for pipe in &mut self.pipes {
                pipe.commit();
            }
            notify(&mut self.pipes);
            for pipe in &mut self.pipes {
                while let Some((returned, _)) = pipe.take_returned(&mut self.ledger) {
                    if let Returned::Free(buffer) = returned {
                        self.stock.put(buffer);
                    }
                }
                pipe.release_returned();
            }
        }
    }
}

/// Hands packets to core `there` for `time`.
fn hand_over(there: usize, time: Duration) -> Result<Figure> {
    let geometry = Geometry::new(2048, 64, BUFFERS).into_diagnostic()?;
    let (region, stock) = Region::create("bench", geometry).into_diagnostic()?;
    let mut ledger = Ledger::new(&region);
    let (mut pipes, mut takers) = (Vec::new(), Vec::new());
    for _ in 0..RINGS {
        let (pipe, end) = ledger.open_pipe(SLOTS).into_diagnostic()?;
        pipes.push(pipe);
        takers.push(Consumer::attach_local(end).into_diagnostic()?);
    }
    let packet = Packets::make(&[], 1).bytes;
    let slot = Slot { offset: geometry.packet_offset() as u16, len: packet.len() as u16, ..Slot::default() };
    let mut giver = Giver { region, stock, ledger, pipes, slot };
    giver.fill(&packet);
    let over = AtomicBool::new(false);
    let laps = std::thread::scope(|scope| {
        scope.spawn(|| take(takers, there, &over));
        let (mut laps, begun) = (Vec::new(), Instant::now());
        giver.lap(LAP * BATCH);
        while begun.elapsed() < time || laps.is_empty() {
            let start = Instant::now();
            giver.lap(LAP * BATCH);
            laps.push(start.elapsed().as_nanos() as f64 / (LAP * BATCH) as f64);
        }
        over.store(true, Ordering::Relaxed); // nothing else is told by it
        laps
    });
    Ok(Figure::of(laps))
}

/// Reads slots and first bytes until all is over.
fn take(mut takers: Vec<Consumer>, core: usize, over: &AtomicBool) {
    let _ = pin(core); // that it may run there has been looked at
    let mut sum = 0;
    while !over.load(Ordering::Relaxed) {
        for taker in &mut takers {
            for _ in 0..BATCH {
                let Some(packet) = taker.next() else { break };
                sum ^= u64::from(packet.slot().hash) ^ u64::from(packet.data().first().copied().unwrap_or(0));
            }
        }
    }
    black_box(sum);
}

fn line(text: &str) -> Result<()> {
    output::written(writeln!(std::io::stdout(), "{text}"))
}

fn allowed_cores() -> Result<Vec<usize>> {
    cpu::allowed().map_err(|e| miette!("cannot ask which cores this process may use: {e}"))
}

fn pin(core: usize) -> Result<()> {
    cpu::bind(core).map_err(|e| miette!("cannot run on core {core}: {e}; choose others with --cores"))
}

fn model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor").to_owned()
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
