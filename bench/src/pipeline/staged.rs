//! Two consumers one after the other: a stage writes the annotation of each packet and passes it on, the next reads it.
//! All by turns on one core; or the dispatcher and the stage on one core, and the next consumer on the other.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use flowyard::bench_support::ByHand;
use flowyard::mem::{Consumer, Packet};
use flowyard::{Stage, Yard, YardConfig};

use super::alone::{Closed, Lap};
use super::shipped;
use crate::figures::{self, ratio};
use crate::flow::{self, BATCH, BUFFERS, Looking, SLOTS};
use crate::laps::{Meter, meet};
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::rounds::{self, Contender, Outcome, Setting};

/// Annotation bytes in front of every packet, whoever touches them.
const ANNOTATION: usize = 256;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Arc<Packets>| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let kinds = [
        ("256 bytes, untouched", Touched::None),
        ("64 bytes written by a stage, read by the next", Touched::Line),
        ("256 bytes written by a stage, read by the next", Touched::All),
    ];
    let print = |title: &str, outcome: &Outcome| {
        figures::print(title, "packet", outcome, &[ratio(1, 0), ratio(2, 0)]);
        figures::print_over(title, "packet", outcome, 0);
    };
    let by_turns = kinds.map(|(name, touched)| Contender::new(name, move |p: &Arc<Packets>| one(p, touched)));
    let outcome = rounds::run(setting, false, &mut packets, renew, &by_turns);
    print("Annotations from stage to stage", &outcome);
    if let Some(core) = setting.other {
        let apart = kinds.map(|(name, touched)| Contender::new(name, move |p: &Arc<Packets>| two(p, core, touched)));
        let outcome = rounds::run(setting, true, &mut packets, renew, &apart);
        print("Annotations from stage to stage, the second on the other core", &outcome);
    }
}

/// What the two do with annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// Nothing.
    None,
    /// 64 bytes are written and read.
    Line,
    /// All 256.
    All,
}

impl Touched {
    fn write(self, packet: &mut Packet<'_>) {
        let hash = u64::from(packet.slot().hash);
        let written = match self {
            Touched::None => Ok(()),
            Touched::Line => packet.set_annotation(&[hash; 8]),
            Touched::All => packet.set_annotation(&[hash; ANNOTATION / 8]),
        };
        assert!(written.is_ok(), "there is an annotation");
    }

    /// The sum of all words that are read.
    fn read(self, packet: &Packet<'_>) -> u64 {
        let words = match self {
            Touched::None => return u64::from(packet.slot().hash),
            Touched::Line => packet.annotation::<[u64; 8]>().map(|words| words.iter().sum::<u64>() / 8),
            Touched::All => packet.annotation::<[u64; ANNOTATION / 8]>().map(|words| words.iter().sum::<u64>() / 32),
        };
        words.unwrap_or(u64::MAX)
    }
}

/// The dispatcher and the stage behind its ring, by turns.
struct First {
    dispatcher: ByHand,
    stage: Stage,
    lap: Arc<Lap>,
    touched: Touched,
}

/// The consumer behind that.
struct Next {
    consumer: Consumer,
    touched: Touched,
}

fn open(packets: &Arc<Packets>, touched: Touched) -> (First, Next) {
    let lap = Arc::new(Lap::default());
    let config = YardConfig { rings: 1, annotation_bytes: ANNOTATION, ..shipped::config() };
    let port = Box::new(Closed::new(packets, &lap));
    let (yard, mut readers) = Yard::open_over(&config, port).expect("memory for a yard");
    let (stage, end) = Stage::new(readers.remove(0), SLOTS).expect("memory for a pipe");
    let consumer = Consumer::attach_local(end).expect("memory for a pipe");
    (First { dispatcher: yard.by_hand(), stage, lap, touched }, Next { consumer, touched })
}

impl First {
    /// Lays the packets of lap `lap` out.
    fn load(&mut self, lap: usize) {
        self.lap.number.store(lap, Ordering::Relaxed);
        self.lap.wanted.store(true, Ordering::Relaxed);
        self.dispatcher.turn();
    }

    /// Whether all buffers are home.
    fn is_done(&self) -> bool {
        self.lap.done.load(Ordering::Relaxed)
    }

    fn turn(&mut self) {
        self.dispatcher.turn();
        for _ in 0..BATCH {
            let Some(mut packet) = self.stage.next() else { break };
            self.touched.write(&mut packet);
            assert!(self.stage.pass_waiting(None).is_ok(), "the next consumer is there");
        }
    }

    fn end(self, packets: usize) {
        let counters = self.stage.finish(None);
        let report = self.dispatcher.end();
        assert_eq!((counters.passed, counters.returned), (packets as u64, packets as u64));
        assert!(report.errors.is_empty() && report.delivered() == packets as u64, "{report:?}");
    }
}

impl Looking for Next {
    fn turn(&mut self) -> usize {
        let (mut seen, mut sum) = (0, 0);
        for _ in 0..BATCH {
            let Some(packet) = self.consumer.next() else { break };
            let read = self.touched.read(&packet);
            assert_eq!(read, u64::from(packet.slot().hash), "as the stage wrote it");
            sum ^= read ^ packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
            seen += 1;
        }
        black_box(sum);
        seen
    }
}

/// All on one core: nanoseconds a packet.
pub fn one(packets: &Arc<Packets>, touched: Touched) -> Option<f64> {
    let (mut first, mut next) = open(packets, touched);
    let mut meter = Meter::new();
    for lap in 0..flow::laps(packets) {
        first.load(lap);
        meter.time(BUFFERS, || {
            while !first.is_done() {
                first.turn();
                next.turn();
            }
        });
    }
    drop(next);
    first.end(packets.len());
    meter.sample()
}

/// The next consumer on core `other`.
pub fn two(packets: &Arc<Packets>, other: usize, touched: Touched) -> Option<f64> {
    let (mut first, next) = open(packets, touched);
    let (mut leader, follower) = meet();
    std::thread::scope(|scope| {
        scope.spawn(move || flow::follow(other, follower, next));
        for lap in 0..flow::laps(packets) {
            first.load(lap);
            leader.begin();
            while !first.is_done() {
                first.turn();
            }
            leader.end(BUFFERS);
        }
        let sample = leader.sample(); // and the follower ends
        first.end(packets.len());
        sample
    })
}
