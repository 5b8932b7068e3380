//! The port `pcap:`: a capture file, replayed.
//!
//! Options: `speed=full` (as fast as it is taken, the default), `speed=recorded` (with the gaps
//! between packets as recorded) or `speed=FACTOR` (2 is twice as fast as recorded); `times=N` to
//! replay it N times.
//!
//! In repetitions time goes on: each begins one mean gap after the latest packet of the one before,
//! so times never go back further than they do in the file itself, and numbers go on counting. A
//! packet longer than a buffer takes several, up to [`LONGEST_PACKET`]; what is longer, or would
//! need more buffers than the dispatcher owns, is cut and says so (TRUNCATED).

use std::path::PathBuf;
use std::time::Instant;

use flowyard_mem::{Clock, Region, Stock, flags};

use super::LONGEST_PACKET;
use super::reader::{CaptureReader, Fault};
use crate::{Arrival, Opener, Port, PortCounters, PortError, PortInfo, PortSpec, Progress, Received, segments};

/// Packet bytes that fit a buffer of 2048 bytes with the largest annotation.
const LEAST_CAPACITY: usize = 1536;

/// A capture, looked at but not yet replayed.
#[derive(Debug)]
pub struct PcapOpener {
    info: PortInfo,
    path: PathBuf,
    pace: Option<f64>,
    times: u64,
    /// Open already if it is a regular file: its header has been read.
    reader: Option<CaptureReader>,
}

impl PcapOpener {
    /// Looks at the options and, unless it is a pipe, at the file's header.
    ///
    /// # Errors
    /// An option that cannot be, a file that cannot be read or is no capture.
    pub fn new(spec: &PortSpec) -> Result<PcapOpener, PortError> {
        if spec.only_sends() {
            return Err(spec.bad_option("is only written (?write)", "leave ?write out to read it"));
        }
        spec.only(&["speed", "times"])?;
        let pace = match spec.options.get("speed").map(String::as_str) {
            None | Some("full") => None,
            Some("recorded") => Some(1.0),
            Some(factor) => match factor.parse::<f64>() {
                Ok(factor) if factor.is_finite() && factor > 0.0 => Some(factor),
                _ => {
                    return Err(spec.bad_option(
                        format!("option speed is {factor:?}"),
                        "write ?speed=full, ?speed=recorded, or a factor above 0 such as ?speed=2",
                    ));
                }
            },
        };
        let times = spec.value("times", "a number of replays from 1")?.unwrap_or(1);
        if times == 0 {
            return Err(spec.bad_option("option times is 0", "write a number of replays from 1"));
        }
        let path = PathBuf::from(&spec.what);
        let is_pipe = spec.what == "-" || std::fs::metadata(&path).is_ok_and(|m| !m.is_file() && !m.is_dir());
        if is_pipe && times > 1 {
            return Err(spec.bad_option("what comes through a pipe can be replayed once only", "save it to a file"));
        }
        let reader = if is_pipe { None } else { Some(CaptureReader::open(&path)?) };
        let what = reader.as_ref().map_or("pipe", CaptureReader::format);
        let speed = match pace {
            None => "full speed".to_owned(),
            Some(1.0) => "recorded speed".to_owned(),
            Some(factor) => format!("{factor} times recorded speed"),
        };
        let info = PortInfo {
            name: spec.name(),
            mode: if times == 1 { format!("{what}, {speed}") } else { format!("{what}, {speed}, {times} times") },
            can_wait: true,
            live: false,
            longest_packet: LONGEST_PACKET,
            // None is held, but one packet of the longest kind must find room at once.
            buffers_held: LONGEST_PACKET.div_ceil(LEAST_CAPACITY),
            buffer_bytes: 2048,
        };
        Ok(PcapOpener { info, path, pace, times, reader })
    }
}

impl Opener for PcapOpener {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let reader = match self.reader {
            Some(reader) => reader,
            None => CaptureReader::unread_file(&self.path, true)?,
        };
        Ok(Box::new(PcapPort {
            info: self.info,
            region: region.clone(),
            path: self.path,
            reader: Some(reader),
            times_left: self.times - 1,
            clock: Replay { pace: self.pace, first_ns: None, started: None, latest_ns: 0, offset_ns: 0 },
            numbered_before: 0,
            counters: PortCounters::default(),
            cut: 0,
        }))
    }
}

/// Where the replay is in time.
#[derive(Debug)]
struct Replay {
    /// Recorded nanoseconds a nanosecond; `None` for no pacing.
    pace: Option<f64>,
    /// First time recorded; packets without a time do not count.
    first_ns: Option<u64>,
    /// When the first packet was handed over.
    started: Option<Instant>,
    /// Latest time recorded in this repetition.
    latest_ns: u64,
    /// Added to every time of this repetition.
    offset_ns: u64,
}

impl Replay {
    /// How long a packet of this time has to wait yet.
    #[inline]
    fn early_ns(&mut self, recorded_ns: u64) -> u64 {
        let Some(pace) = self.pace else { return 0 };
        if recorded_ns == 0 {
            return 0;
        }
        let first = *self.first_ns.get_or_insert(recorded_ns);
        let started = *self.started.get_or_insert_with(Instant::now);
        let since_first = recorded_ns.saturating_add(self.offset_ns).saturating_sub(first);
        // A float to integer cast saturates: a far time waits long, and is asked for again.
        let due = (since_first as f64 / pace) as u64;
        due.saturating_sub(started.elapsed().as_nanos() as u64)
    }

    #[inline]
    fn note(&mut self, recorded_ns: u64) {
        if self.first_ns.is_none() && recorded_ns != 0 {
            self.first_ns = Some(recorded_ns);
        }
        self.latest_ns = self.latest_ns.max(recorded_ns);
    }

    /// Begins the next repetition, after one of `packets` packets.
    fn again(&mut self, packets: u64) {
        let span = self.latest_ns.saturating_sub(self.first_ns.unwrap_or(0));
        let gap = (span / packets.saturating_sub(1).max(1)).max(1);
        self.offset_ns = self.offset_ns.saturating_add(span).saturating_add(gap);
    }
}

struct PcapPort {
    info: PortInfo,
    region: Region,
    path: PathBuf,
    /// None once the source has ended.
    reader: Option<CaptureReader>,
    times_left: u64,
    clock: Replay,
    /// Frames of the repetitions before this one.
    numbered_before: u64,
    counters: PortCounters,
    /// Packets handed over shorter than recorded.
    cut: u64,
}

impl PcapPort {
    /// Begins the file again, or ends.
    fn again(&mut self) -> Result<(), PortError> {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        // A file without packets is not worth coming back to.
        if self.times_left == 0 || reader.packets() == 0 {
            return Ok(());
        }
        self.times_left -= 1;
        self.numbered_before += reader.frames();
        self.clock.again(reader.packets());
        self.reader = Some(CaptureReader::open(&self.path)?);
        Ok(())
    }
}

impl Port for PcapPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let before = batch.len();
        // What is in the batch comes first; that there is nothing more, the next call says again.
        let quiet = |batch: &Vec<Received>, progress| if batch.len() > before { Progress::Ready } else { progress };
        while batch.len() < limit {
            let Some(reader) = &mut self.reader else { return Ok(quiet(batch, Progress::Ended)) };
            let record = match reader.try_next() {
                Ok(Some(record)) => record,
                Ok(None) => {
                    self.again()?;
                    continue;
                }
                Err(Fault::Wait) => return Ok(quiet(batch, Progress::Idle { wait_ns: None })),
                Err(fault) => {
                    let error = reader.explain(fault);
                    self.reader = None;
                    return Err(error);
                }
            };
            let early_ns = self.clock.early_ns(record.time_ns);
            if early_ns > 0 {
                reader.put_back();
                return Ok(quiet(batch, Progress::Idle { wait_ns: Some(early_ns) }));
            }
            let most = LONGEST_PACKET.min(stock.capacity() * self.region.geometry().packet_capacity());
            let bytes = &record.bytes[..record.bytes.len().min(most)];
            let shortened = bytes.len() < record.bytes.len();
            let time_ns = if record.time_ns == 0 { 0 } else { record.time_ns.saturating_add(self.clock.offset_ns) };
            let arrival = Arrival {
                time_ns,
                clock: if record.time_ns == 0 { Clock::None } else { Clock::Recorded },
                flags: if shortened || record.is_cut() { flags::TRUNCATED } else { 0 },
                len: bytes.len() as u32,
                wire_len: record.wire_len,
                queue: record.interface as u16,
                link: record.link,
                number: self.numbered_before + record.number,
                ..Arrival::default()
            };
            let recorded_ns = record.time_ns;
            if !segments::append(&self.region, stock, batch, bytes, arrival) {
                reader.put_back();
                return Ok(quiet(batch, Progress::NoBuffers));
            }
            self.clock.note(recorded_ns);
            self.counters.packets += 1;
            self.counters.bytes += u64::from(arrival.len);
            self.cut += u64::from(shortened);
        }
        Ok(Progress::Ready)
    }

    fn fds(&self) -> Vec<std::os::fd::BorrowedFd<'_>> {
        self.reader.iter().filter_map(CaptureReader::waiter).collect()
    }

    fn counters(&mut self) -> PortCounters {
        let mut counters = self.counters.clone();
        if self.cut > 0 {
            counters.notes.push(("cut-to-fit", self.cut));
        }
        counters
    }

    fn close(mut self: Box<Self>, _stock: &mut Stock) -> Result<PortCounters, PortError> {
        Ok(self.counters())
    }
}
