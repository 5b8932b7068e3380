//! Crossing processes beside crossing threads: the same dispatcher and the same packets, whose consumer of four rings is
//! a thread that was given them, a thread that attached to them by the yard's socket, or another process.
//!
//! A lap is 4096 packets that lie in their buffers, from the first one given until all buffers are home again.

use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::ops::DerefMut;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use flowyard::attach::{Attach, Serving};
use flowyard::mem::{Region, Stock, Wait};
use flowyard::port::{Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};
use flowyard::{RingReader, Yard};

use crate::figures::{self, ratio};
use crate::flow::{self, BATCH, BUFFERS};
use crate::laps::Meter;
use crate::machine;
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::pipeline::port::{Figure, Laid, info};
use crate::pipeline::shipped;
use crate::rounds::{self, Contender, Setting};
use crate::steer::RINGS;

/// Laps of a turn: the same packets again after so many.
const TURNS: usize = 3;
/// Looks that find nothing before a consumer asks whether all is over.
const EMPTY_LOOKS: u32 = 1 << 14;

type Shared = Arc<Packets>;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let title = format!("Crossing processes: {RINGS} rings, slot and first bytes read");
    let Some(core) = setting.other else {
        return println!("\n## {title}\n\nSkipped: there is one core.");
    };
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Shared| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let contenders = [
        Contender::new("a thread of the yard's process", move |p: &Shared| {
            measure(p, |readers, _| thread(readers, core))
        }),
        Contender::new("another process", move |p: &Shared| measure(p, |readers, path| process(readers, path, core))),
        Contender::new("a thread that attached", move |p: &Shared| {
            measure(p, |readers, path| attached(readers, path, core))
        }),
    ];
    let outcome = rounds::run(setting, true, &mut packets, renew, &contenders);
    figures::print(&title, "packet", &outcome, &[ratio(1, 0), ratio(2, 0)]);
}

/// Waits until the consumer is gone.
type Gone = Box<dyn FnOnce()>;

/// Runs all packets through a yard whose rings `consumer` has somebody drain.
fn measure(packets: &Shared, consumer: impl FnOnce(Vec<RingReader>, &Path) -> Gone) -> Option<f64> {
    let (figure, go) = (Figure::default(), Arc::new(AtomicBool::new(false)));
    let (info, meter) = (info("bench:free"), Meter::new());
    let free = Free { info, packets: packets.clone(), meter: Some(meter), figure: figure.clone(), go: go.clone() };
    let (yard, readers) = Yard::open_over(&shipped::config(), Box::new(free)).expect("memory for a yard");
    let path = std::env::temp_dir().join(format!("flowyard-bench-{}.sock", std::process::id()));
    // Sealed against writers before the first packet, in each case alike.
    let serving = Serving { name: "bench".into(), ..Serving::default() };
    let running = yard.start().expect("a thread");
    let server = running.serve(&path, serving).expect("a socket");
    let gone = consumer(readers, &path);
    go.store(true, Ordering::Release); // pairs with the Acquire in `receive`
    let report = running.join();
    gone();
    drop(server);
    assert!(report.sums_agree() && report.errors.is_empty() && report.dropped() == 0, "{report:?}");
    *figure.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread(readers: Vec<RingReader>, core: usize) -> Gone {
    let thread = std::thread::spawn(move || drain(readers.into_iter().map(Box::new).collect(), core));
    Box::new(move || thread.join().expect("no panic"))
}

fn attached(readers: Vec<RingReader>, path: &Path, core: usize) -> Gone {
    drop(readers);
    let (ready, is_ready) = mpsc::channel();
    let path = path.to_owned();
    let thread = std::thread::spawn(move || {
        let rings = attach(&path);
        ready.send(()).expect("somebody waits");
        drain(rings, core);
    });
    is_ready.recv().expect("it attaches");
    Box::new(move || thread.join().expect("no panic"))
}

fn process(readers: Vec<RingReader>, path: &Path, core: usize) -> Gone {
    drop(readers);
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg("attached").arg(path).arg(core.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a pipe");
    assert_eq!(line, "attached\n");
    Box::new(move || assert!(child.wait().expect("a child").success()))
}

/// The other process.
pub fn child(path: PathBuf, core: usize) {
    let rings = attach(&path);
    println!("attached");
    drain(rings, core);
}

fn attach(path: &Path) -> Vec<flowyard::Attached> {
    let patience = Some(Duration::from_secs(10));
    (0..RINGS).map(|ring| Attach::at(path, &ring.to_string()).within(patience).expect("the ring is vacant")).collect()
}

/// Reads rings by turns, until all have ended.
fn drain<R: DerefMut<Target = RingReader>>(mut rings: Vec<R>, core: usize) {
    machine::pin(core);
    let (mut sum, mut empty) = (0u64, 0u32);
    loop {
        let mut seen = 0;
        for ring in &mut rings {
            for _ in 0..BATCH {
                let Some(packet) = ring.next() else { break };
                sum ^= u64::from(packet.slot().hash);
                sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                seen += 1;
            }
        }
        black_box(sum);
        empty = if seen > 0 { 0 } else { empty + 1 };
        if empty > EMPTY_LOOKS {
            if rings.iter_mut().all(|ring| ring.wait(Some(Duration::ZERO)) == Wait::Ended) {
                return;
            }
            empty = 0;
        }
    }
}

/// A port whose packets lie in their buffers, before it is open; laps begin when `go` says so.
struct Free {
    info: PortInfo,
    packets: Shared,
    meter: Option<Meter>,
    figure: Figure,
    go: Arc<AtomicBool>,
}

struct Open {
    free: Free,
    laid: Laid,
    lap: usize,
    started: Option<(Instant, u64)>,
}

impl Opener for Free {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(Open { free: *self, laid: Laid::new(region), lap: 0, started: None }))
    }
}

impl Port for Open {
    fn info(&self) -> &PortInfo {
        &self.free.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let all_home = self.laid.take_home(stock);
        let wait = Progress::Idle { wait_ns: Some(0) };
        // Acquire: pairs with the Release in `measure`.
        if !self.free.go.load(Ordering::Acquire) {
            return Ok(wait);
        }
        if all_home {
            if let Some((started, switches)) = self.started.take()
                && let Some(meter) = &mut self.free.meter
            {
                let clean = machine::involuntary_switches() == switches;
                meter.lap(BUFFERS, started.elapsed().as_nanos() as u64, clean);
            }
            let laps = flow::laps(&self.free.packets);
            if self.lap == TURNS * laps {
                let figure = self.free.meter.take().and_then(Meter::sample);
                *self.free.figure.lock().unwrap_or_else(PoisonError::into_inner) = figure;
                return Ok(Progress::Ended);
            }
            self.laid.load_lap(&self.free.packets, self.lap % laps);
            self.lap += 1;
            self.started = Some((Instant::now(), machine::involuntary_switches()));
        }
        Ok(if self.laid.has_some() { self.laid.give(batch, limit) } else { wait })
    }

    fn counters(&mut self) -> PortCounters {
        self.laid.counters()
    }

    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        Ok(self.laid.close(stock))
    }
}
