//! Two consumers one after the other: a stage writes the annotation of each packet and passes it on, the next reads it.
//! All by turns on one core; or the dispatcher and the stage on one core, and the next consumer on the other.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowyard::bench_support::ByHand;
use flowyard::mem::{Consumer, Packet};
use flowyard::{Stage, Yard, YardConfig};

use super::alone::{Closed, Lap};
use super::shipped;
use crate::figures;
use crate::flow::{self, BATCH, BUFFERS, Looking, SLOTS};
use crate::laps::{Meter, meet};
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::rounds::{self, Contender, Setting};

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
        ("256 bytes of a plain array written by a stage, read by the next", Touched::Elsewhere),
    ];
    let by_turns = kinds.map(|(name, touched)| Contender::new(name, move |p: &Arc<Packets>| one(p, touched)));
    let outcome = rounds::run(setting, false, &mut packets, renew, &by_turns);
    figures::print_over("Annotations from stage to stage", "packet", &outcome, 0);
    if let Some(core) = setting.other {
        let apart = kinds.map(|(name, touched)| Contender::new(name, move |p: &Arc<Packets>| two(p, core, touched)));
        let outcome = rounds::run(setting, true, &mut packets, renew, &apart);
        figures::print_over("Annotations from stage to stage, the second on the other core", "packet", &outcome, 0);
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
    /// As many bytes of a plain array, at a place for each buffer: what so many lines cost by themselves.
    Elsewhere,
}

/// The plain array.
type Places = Arc<[AtomicU64]>;

/// Words of a buffer's place in it, and of those that are touched.
const PLACE: usize = 2048 / 8;
const WORDS: usize = ANNOTATION / 8;

impl Touched {
    #[inline]
    fn write(self, packet: &mut Packet<'_>, places: &Places) {
        let hash = u64::from(packet.slot().hash);
        let written = match self {
            Touched::None => Ok(()),
            Touched::Line => packet.set_annotation(&[hash; 8]),
            Touched::All => packet.set_annotation(&[hash; WORDS]),
            Touched::Elsewhere => {
                // Relaxed: ordered by the pipe, as the packet is.
                place(places, packet).iter().for_each(|word| word.store(hash, Ordering::Relaxed));
                Ok(())
            }
        };
        assert!(written.is_ok(), "there is an annotation");
    }

    /// The mean of all words that are read: the hash.
    #[inline]
    fn read(self, packet: &Packet<'_>, places: &Places) -> u64 {
        let words = match self {
            Touched::None => return u64::from(packet.slot().hash),
            Touched::Line => packet.annotation::<[u64; 8]>().map(|words| words.iter().sum::<u64>() / 8),
            Touched::All => packet.annotation::<[u64; WORDS]>().map(|words| words.iter().sum::<u64>() / WORDS as u64),
            Touched::Elsewhere => {
                let words = place(places, packet).iter().map(|word| word.load(Ordering::Relaxed)); // as above
                return words.sum::<u64>() / WORDS as u64;
            }
        };
        words.unwrap_or(u64::MAX)
    }
}

fn place<'a>(places: &'a Places, packet: &Packet<'_>) -> &'a [AtomicU64] {
    &places[packet.buffer_index() as usize * PLACE..][..WORDS]
}

/// The dispatcher and the stage behind its ring, by turns.
struct First {
    dispatcher: ByHand,
    stage: Stage,
    lap: Arc<Lap>,
    touched: Touched,
    places: Places,
}

/// The consumer behind that.
struct Next {
    consumer: Consumer,
    touched: Touched,
    places: Places,
}

fn open(packets: &Arc<Packets>, touched: Touched) -> (First, Next) {
    let lap = Arc::new(Lap::default());
    let config = YardConfig { rings: 1, annotation_bytes: ANNOTATION, ..shipped::config() };
    let port = Box::new(Closed::new(packets, &lap));
    let (yard, mut readers) = Yard::open_over(&config, port).expect("memory for a yard");
    let (stage, end) = Stage::new(readers.remove(0), SLOTS).expect("memory for a pipe");
    let consumer = Consumer::attach_local(end).expect("memory for a pipe");
    let places: Places = (0..BUFFERS * PLACE).map(|_| AtomicU64::new(0)).collect();
    let first = First { dispatcher: yard.by_hand(), stage, lap, touched, places: places.clone() };
    (first, Next { consumer, touched, places })
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
            self.touched.write(&mut packet, &self.places);
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
            let read = self.touched.read(&packet, &self.places);
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
