//! What every port must do, whatever its packets: one suite that each kind runs through.
//!
//! The caller gives a way to make openers of the same source; the suite opens it over regions of
//! several sizes and receives until the source ends or, for a live one, until nothing has come for
//! a while. It panics with what went wrong.

use std::time::{Duration, Instant};

use flowyard_mem::{Geometry, Region, Stock};
use flowyard_port::{Opener, Port, PortCounters, PortError, Progress, Received};

/// What a run of a port is expected to be like.
#[derive(Debug, Clone, Copy)]
pub struct Expectation {
    /// Packets that the source yields; `None` if that is not known beforehand.
    pub packets: Option<u64>,
    /// Whether the source ends in [`PortError::Damaged`] rather than in peace.
    pub damaged: bool,
    /// How long a live source may be silent before it counts as done.
    pub silence: Duration,
    /// Whether every run yields the same packets. Not so for an interface.
    pub repeatable: bool,
}

impl Default for Expectation {
    fn default() -> Expectation {
        Expectation { packets: None, damaged: false, silence: Duration::from_millis(500), repeatable: true }
    }
}

/// What one run of a port has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Packets delivered.
    pub packets: u64,
    /// Sum of the packets' captured lengths.
    pub bytes: u64,
    /// A hash over every packet's number, lengths, link type and bytes, in order.
    pub digest: u64,
    /// Longest packet, in segments.
    pub most_segments: usize,
}

/// One run: how the region is made and how the port is asked.
#[derive(Debug, Clone, Copy)]
struct Shape {
    buffer_bytes: usize,
    annotation_bytes: usize,
    buffers: usize,
    limit: usize,
    /// Packets kept from coming home at once, as a slow consumer would.
    kept: usize,
}

/// Runs a port through everything that [`Port`] promises.
///
/// # Panics
/// When a promise is broken: names the shape of the run and the promise.
pub fn port_conformance(make: &mut dyn FnMut() -> Box<dyn Opener>, expected: Expectation) -> Run {
    let held = make().info().buffers_held;
    let wide = Shape { buffer_bytes: 2048, annotation_bytes: 0, buffers: held + 1024, limit: 64, kept: 0 };
    let whole = run(make(), wide, expected);
    let shapes = [
        Shape { limit: 1, ..wide },
        Shape { annotation_bytes: 256, kept: 200, ..wide },
        Shape { buffer_bytes: 4096, annotation_bytes: 64, limit: 7, ..wide },
        // Hardly any stock: a port that can wait must wait for buffers and lose nothing.
        Shape { buffers: held + whole.most_segments.max(1), limit: 32, ..wide },
        Shape { buffers: held + whole.most_segments + 3, limit: 32, kept: 3, ..wide },
    ];
    for shape in shapes {
        let again = run(make(), shape, expected);
        if expected.repeatable {
            assert_eq!(
                (again.packets, again.bytes, again.digest),
                (whole.packets, whole.bytes, whole.digest),
                "{shape:?}: the same packets every time"
            );
        }
    }
    closes_in_the_middle(make(), wide);
    whole
}

fn open(opener: Box<dyn Opener>, shape: Shape) -> (Region, Stock, Box<dyn Port>) {
    let geometry = Geometry::new(shape.buffer_bytes, shape.annotation_bytes, shape.buffers).expect("a valid shape");
    let (region, mut stock) = Region::create("conformance", geometry).expect("memory for a region");
    let before = opener.info().clone();
    assert!(!before.name.is_empty() && before.longest_packet > 0, "{before:?} says what it is");
    let port = opener.open(&region, &mut stock).unwrap_or_else(|e| panic!("{}: {e}", before.name));
    let info = port.info();
    assert_eq!((&info.name, info.can_wait, info.live), (&before.name, before.can_wait, before.live), "opening keeps");
    assert!(shape.buffers - stock.len() <= info.buffers_held, "{}: holds no more than it says", info.name);
    (region, stock, port)
}

fn run(opener: Box<dyn Opener>, shape: Shape, expected: Expectation) -> Run {
    let (region, mut stock, mut port) = open(opener, shape);
    let what = format!("{} with {shape:?}", port.info().name);
    let can_wait = port.info().can_wait;
    let mut tally = Tally::new();
    let mut kept: Vec<Received> = Vec::new();
    let mut batch: Vec<Received> = Vec::new();
    let mut quiet_since = Instant::now();
    loop {
        let progress = port.receive(&mut stock, &mut batch, shape.limit);
        check_batch(&region, &batch, shape.limit, &what);
        if !batch.is_empty() {
            quiet_since = Instant::now();
        }
        let full = batch.len() >= shape.limit;
        let nothing = batch.is_empty();
        for received in batch.drain(..) {
            tally.add(&region, &received, &what);
            kept.push(received);
        }
        match progress {
            Ok(Progress::Ready) => {}
            Ok(Progress::Idle { wait_ns }) => {
                assert!(!full, "{what}: a full batch is no reason to idle");
                if quiet_since.elapsed() > expected.silence && nothing {
                    break;
                }
                std::thread::sleep(Duration::from_nanos(wait_ns.unwrap_or(1_000_000).min(1_000_000)));
            }
            Ok(Progress::NoBuffers) => {
                assert!(!nothing || !kept.is_empty() || !can_wait, "{what}: no buffers, and none is out");
                // Everything comes home: then it must go on.
                kept.drain(..).for_each(|received| stock.put(received.buffer));
            }
            Ok(Progress::Ended) => {
                assert!(!expected.damaged, "{what}: ends in peace, where damage was expected");
                break;
            }
            Err(error) => {
                assert!(expected.damaged && matches!(error, PortError::Damaged { .. }), "{what}: {error}");
                break;
            }
        }
        let surplus = kept.len().saturating_sub(shape.kept);
        kept.drain(..surplus).for_each(|received| stock.put(received.buffer));
    }
    kept.drain(..).for_each(|received| stock.put(received.buffer));
    if !port.info().live {
        for _ in 0..3 {
            let after = port.receive(&mut stock, &mut batch, shape.limit);
            assert!(matches!(after, Ok(Progress::Ended)) && batch.is_empty(), "{what}: after the end comes {after:?}");
        }
    }
    let counters = port.close(&mut stock).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(stock.len(), stock.capacity(), "{what}: every buffer comes home");
    let run = tally.run;
    check_counters(&counters, &run, can_wait, &what);
    if let Some(packets) = expected.packets {
        assert_eq!(run.packets, packets, "{what}: as many packets as there are");
    }
    run
}

/// Limits, segments and offsets of a batch.
fn check_batch(region: &Region, batch: &[Received], limit: usize, what: &str) {
    let geometry = region.geometry();
    let mut firsts = (0..batch.len()).rev().filter(|&at| at == 0 || !batch[at - 1].more);
    let last_first = firsts.next().unwrap_or(0);
    assert!(batch.is_empty() || last_first < limit, "{what}: a packet beyond the limit of {limit}");
    assert!(batch.last().is_none_or(|last| !last.more), "{what}: a packet's segments come in one batch");
    for received in batch {
        let (offset, len) = (usize::from(received.offset), usize::from(received.segment_len));
        assert!(offset >= geometry.packet_offset(), "{what}: room for annotation, tag and headroom");
        assert!(offset + len <= geometry.buffer_bytes, "{what}: within the buffer");
    }
    for pair in batch.windows(2).filter(|pair| pair[0].more) {
        assert_eq!(pair[0].arrival, pair[1].arrival, "{what}: segments agree on their packet");
    }
}

/// What has been seen of the run, and of the packet whose segments are coming.
struct Tally {
    run: Run,
    last_number: u64,
    segments: usize,
    seen_bytes: u32,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            run: Run { digest: 0xcbf2_9ce4_8422_2325, ..Run::default() },
            last_number: 0,
            segments: 0,
            seen_bytes: 0,
        }
    }

    /// Adds a segment.
    fn add(&mut self, region: &Region, received: &Received, what: &str) {
        let arrival = &received.arrival;
        let len = usize::from(received.segment_len);
        let mut scratch = [0; 4096];
        let bytes = region.peek(&received.buffer, usize::from(received.offset), len, &mut scratch);
        assert_eq!(bytes.len(), len, "{what}: the segment can be read");
        let digest = &mut self.run.digest;
        let mut mix = |value: u64| *digest = (*digest ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        bytes.iter().for_each(|&b| mix(b.into()));
        self.segments += 1;
        self.seen_bytes += u32::from(received.segment_len);
        if received.more {
            return;
        }
        for value in [arrival.number, arrival.len.into(), arrival.wire_len.into(), arrival.link.into()] {
            mix(value);
        }
        assert_eq!(self.seen_bytes, arrival.len, "{what}: packet {} is all its segments", arrival.number);
        assert!(arrival.number > self.last_number, "{what}: {} after {}", arrival.number, self.last_number);
        self.last_number = arrival.number;
        self.run.packets += 1;
        self.run.bytes += u64::from(arrival.len);
        self.run.most_segments = self.run.most_segments.max(self.segments);
        (self.segments, self.seen_bytes) = (0, 0);
    }
}

fn check_counters(counters: &PortCounters, run: &Run, can_wait: bool, what: &str) {
    assert_eq!((counters.packets, counters.bytes), (run.packets, run.bytes), "{what}: counts what it delivered");
    assert!(!can_wait || counters.lost_total() == 0, "{what}: a source that can wait loses nothing: {counters:?}");
}

/// Closing while packets are out: they come home afterwards, and none is missing.
fn closes_in_the_middle(opener: Box<dyn Opener>, shape: Shape) {
    let (_region, mut stock, mut port) = open(opener, shape);
    let what = port.info().name.clone();
    let mut batch = Vec::new();
    for _ in 0..3 {
        let limit = batch.len() + 5;
        if port.receive(&mut stock, &mut batch, limit).is_err() {
            break;
        }
    }
    if let Err(error) = port.close(&mut stock) {
        panic!("{what}: {error}");
    }
    batch.drain(..).for_each(|received| stock.put(received.buffer));
    assert_eq!(stock.len(), stock.capacity(), "{what}: every buffer comes home, also when closed in the middle");
}
