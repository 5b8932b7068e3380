//! A function in a process of its own: one that crashes or does not return takes nothing with it.
//!
//! Batches go to a child process over a socket pair and verdicts come back; the child reaches neither the
//! region nor the yard. When it dies or does not answer in time, the batch it had goes by the built-in
//! policy and is counted as [`Failure::Crashed`]; the child is started again beside the packet path, and
//! until it is there packets go by the built-in policy, counted (`while restarting`). A child that keeps dying is
//! given up. Costs two copies of each packet's first segment and two changes of context a batch: some
//! hundreds of ns a packet.
//!
//! The child is a program of the caller's choice (usually its own, by another way in) with the socket as its
//! standard input; it calls [`serve`]. Dissection happens there again, by the default policy.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use flowyard_mem::{Buffer, Geometry, Region, Stock, Tag, flags};
use flowyard_port::Arrival;
use flowyard_steer::{Decision, Frame, LinkType, Policy, Table, dissect};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::batch::{COPY_BYTES, Item, Scratch, Touched};
use super::{BATCH, Batch, Failure, Function, FunctionError, RawVerdict, Steer, Surroundings};
use crate::outlets::{Parcel, Segment};
use crate::sorter::Route;

/// Least time that a child has to answer: processes wait for processors.
const LEAST_PATIENCE: Duration = Duration::from_millis(200);
/// How long a child may take to start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Children that die within a second of their start, in a row, before the function is given up.
const MOST_DEATHS: u32 = 10;
/// Buffers in the child: as large as the largest of any region.
const BUFFER_BYTES: usize = 4096;

/// Longest request, answer or reason: the packets of the dispatcher wait while it is read.
const LONGEST_TEXT: usize = 1 << 20;

/// What the parent says first. Then come the configuration's bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Hello {
    magic: u32,
    annotation_bytes: u32,
    rings: u32,
    dispatcher: u32,
    dispatchers: u32,
    config_bytes: u32,
}

const MAGIC: u32 = 0x4679_6931; // changes with the messages

/// What comes before the packets of a batch; `kind` 0. For a request (`kind` 1) `count` is its bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Message {
    kind: u32,
    count: u32,
}

/// One packet, before its annotation and its bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Record {
    tag: Tag,
    len: u32,
    verdict: [u8; 16],
    fallback: u32,
}

/// Makes `function` (whose instances the child makes, by [`serve`]) run in a process of its own: `command` starts
/// one, `config` is handed to it.
pub fn isolated(
    name: &str,
    command: impl Fn() -> Command + Send + Sync + 'static,
    config: Vec<u8>,
    limits: super::Limits,
) -> Function {
    let command: Arc<dyn Fn() -> Command + Send + Sync> = Arc::new(command);
    let label = name.to_owned();
    let make = move |surroundings: &Surroundings| -> Result<Box<dyn Steer>, FunctionError> {
        let start = Start {
            command: command.clone(),
            config: config.clone(),
            surroundings: surroundings.clone(),
            patience: limits.budget.max(LEAST_PATIENCE),
        };
        let child = start.child().map_err(|why| FunctionError::new(label.clone(), why))?;
        Ok(Box::new(Isolated {
            start,
            state: State::Running(child),
            out: Vec::with_capacity(BATCH * (size_of::<Record>() + 256 + BUFFER_BYTES)),
            back: Vec::new(),
            deaths: 0,
            restarts: 0,
            in_flight: 0,
            while_restarting: 0,
        }))
    };
    // The child's patience is what holds it to its time: the yard sees a call that waited for a dead one.
    Function::new(name, make).with_limits(super::Limits { budget: Duration::MAX, ..limits })
}

/// How a child is started.
#[derive(Clone)]
struct Start {
    command: Arc<dyn Fn() -> Command + Send + Sync>,
    config: Vec<u8>,
    surroundings: Surroundings,
    patience: Duration,
}

struct Running {
    process: Child,
    stream: UnixStream,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may be dead already
        let _ = self.process.wait();
    }
}

impl Start {
    fn child(&self) -> Result<Running, String> {
        let (stream, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket pair: {e}"))?;
        let theirs = OwnedFd::from(theirs);
        let mut command = (self.command)();
        // A group of its own: Ctrl-C is the yard's to hear, whose last batches the child still sees.
        let process = command.stdin(Stdio::from(theirs)).process_group(0).spawn();
        let process = process.map_err(|e| format!("cannot start {:?} for it: {e}", command.get_program()))?;
        drop(command); // and with it our copy of the child's end
        let mut running = Running { process, stream, since: Instant::now() };
        running.greet(self).map_err(|e| match e.kind() {
            io::ErrorKind::Other => e.to_string(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "its process did not start in 10 s".into(),
            _ => format!("its process ended while it was loaded ({e}): see what it printed"),
        })?;
        let _ = running.stream.set_read_timeout(Some(self.patience));
        let _ = running.stream.set_write_timeout(Some(self.patience));
        Ok(running)
    }
}

impl Running {
    fn greet(&mut self, start: &Start) -> io::Result<()> {
        self.stream.set_read_timeout(Some(START_PATIENCE))?;
        self.stream.set_write_timeout(Some(START_PATIENCE))?;
        let s = &start.surroundings;
        let hello = Hello {
            magic: MAGIC,
            annotation_bytes: s.annotation_bytes as u32,
            rings: s.rings.into(),
            dispatcher: s.dispatcher as u32,
            dispatchers: s.dispatchers as u32,
            config_bytes: start.config.len() as u32,
        };
        self.stream.write_all(hello.as_bytes())?;
        self.stream.write_all(&start.config)?;
        let said = read_text(&mut self.stream)?;
        if said.is_empty() { Ok(()) } else { Err(io::Error::other(said)) }
    }
}

enum State {
    Running(Running),
    /// A thread starts another one.
    Starting(Receiver<Result<Running, String>>),
    /// It died too often.
    GivenUp,
}

/// The parent's side.
struct Isolated {
    start: Start,
    state: State,
    out: Vec<u8>,
    back: Vec<u8>,
    deaths: u32,
    restarts: u64,
    in_flight: u64,
    while_restarting: u64,
}

impl Isolated {
    /// The child, if one is there.
    fn child(&mut self) -> Option<&mut Running> {
        if let State::Starting(coming) = &self.state {
            match coming.try_recv() {
                Ok(Ok(running)) => {
                    self.state = State::Running(running);
                    self.restarts += 1;
                }
                Err(TryRecvError::Empty) => {}
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => self.begin_restart(),
            }
        }
        if let State::Running(running) = &mut self.state { Some(running) } else { None }
    }

    /// Has another child started, by a thread: later the oftener it died.
    #[cold]
    fn begin_restart(&mut self) {
        self.deaths = match &self.state {
            State::Running(running) if running.since.elapsed() > Duration::from_secs(1) => 1,
            _ => self.deaths + 1,
        };
        if self.deaths > MOST_DEATHS {
            self.state = State::GivenUp;
            return;
        }
        let (tell, coming) = channel();
        let start = self.start.clone();
        let pause = Duration::from_millis(1 << self.deaths);
        let old = std::mem::replace(&mut self.state, State::Starting(coming));
        let body = move || {
            drop(old); // kills it and waits for it
            std::thread::sleep(pause);
            let _ = tell.send(start.child()); // nobody listens any more when the function was replaced
        };
        if std::thread::Builder::new().name("restart".into()).spawn(body).is_err() {
            self.state = State::GivenUp;
        }
    }

    fn exchange(&mut self, batch: &mut Batch<'_>) -> io::Result<()> {
        let annotation_bytes = batch.annotation_bytes();
        self.out.clear();
        self.out.extend_from_slice(Message { kind: 0, count: batch.len() as u32 }.as_bytes());
        for at in 0..batch.len() {
            batch.annotation_of(at, |annotation| write_record(&mut self.out, annotation));
            let (tag, verdict, fallback) = batch.described(at);
            let head = self.out.len() - annotation_bytes - size_of::<Record>();
            let bytes = batch.bytes_of(at);
            let len = bytes.len().min(BUFFER_BYTES - 512);
            let record = Record { tag, len: len as u32, verdict, fallback: fallback.into() };
            self.out[head..][..size_of::<Record>()].copy_from_slice(record.as_bytes());
            self.out.extend_from_slice(&bytes[..len]);
        }
        let each = size_of::<Tag>() + 16 + annotation_bytes;
        self.back.resize(4 + BATCH * each, 0);
        let back = &mut self.back[..4 + batch.len() * each];
        let State::Running(running) = &mut self.state else { return Ok(()) };
        running.stream.write_all(&self.out)?;
        read_within(&mut running.stream, back, self.start.patience)?;
        if back[..4] != 0u32.to_le_bytes() {
            return Err(io::Error::other("refused"));
        }
        for (at, record) in back[4..].chunks_exact(each).enumerate() {
            let (tag, rest) = record.split_at(size_of::<Tag>());
            let (verdict, annotation) = rest.split_at(16);
            if let (Ok(tag), Ok(verdict)) = (Tag::read_from_bytes(tag), RawVerdict::read_from_bytes(verdict)) {
                batch.take_back(at, tag, verdict, annotation);
            }
        }
        Ok(())
    }
}

/// Room for a record, then the annotation.
fn write_record(out: &mut Vec<u8>, annotation: &[u8]) {
    out.extend_from_slice(&[0; size_of::<Record>()]);
    out.extend_from_slice(annotation);
}

impl Steer for Isolated {
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        if self.child().is_none() {
            if matches!(self.state, State::GivenUp) {
                return Err(Failure::Crashed);
            }
            self.while_restarting += batch.len() as u64;
            return Ok(());
        }
        match self.exchange(batch) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Other => Err(Failure::Refused),
            Err(_) => {
                self.in_flight += batch.len() as u64;
                self.begin_restart();
                Err(Failure::Crashed)
            }
        }
    }

    fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        if request.len() > LONGEST_TEXT {
            return Err(format!("a request has at most {LONGEST_TEXT} bytes, this one has {}", request.len()));
        }
        let Some(running) = self.child() else { return Err("its process is being started again".into()) };
        let mut ask = || -> io::Result<(u8, String)> {
            running.stream.write_all(Message { kind: 1, count: request.len() as u32 }.as_bytes())?;
            running.stream.write_all(request)?;
            let mut good = [0];
            running.stream.read_exact(&mut good)?;
            Ok((good[0], read_text(&mut running.stream)?))
        };
        match ask() {
            Ok((0, answer)) => Ok(answer.into_bytes()),
            Ok((_, why)) => Err(why),
            Err(error) => {
                self.begin_restart();
                Err(format!("its process died over the request: {error}"))
            }
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        vec![
            ("process restarts".into(), self.restarts),
            ("packets in flight when it died".into(), self.in_flight),
            ("packets while restarting".into(), self.while_restarting),
            ("given up".into(), u64::from(matches!(self.state, State::GivenUp))),
        ]
    }
}

/// Reads all of `to`. The stream's own timeout is for each read: a child that answers in drops has no more
/// time than one that does at once.
fn read_within(stream: &mut UnixStream, to: &mut [u8], patience: Duration) -> io::Result<()> {
    let began = Instant::now();
    let mut at = 0;
    while at < to.len() {
        match stream.read(&mut to[at..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => at += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if at < to.len() && began.elapsed() > patience {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

fn read_text(stream: &mut UnixStream) -> io::Result<String> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > LONGEST_TEXT {
        // Reading on would take its rest for the answer to the next batch.
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; len];
    stream.read_exact(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn write_text(stream: &mut UnixStream, text: &[u8]) -> io::Result<()> {
    let text = &text[..text.len().min(LONGEST_TEXT)];
    stream.write_all(&(text.len() as u32).to_le_bytes())?;
    stream.write_all(text)
}

/// The child's side: takes the configuration from standard input, makes the function with `make`, and
/// answers batches until the parent is gone. What it prints must go to standard error.
///
/// # Errors
/// Standard input is no socket of a parent that isolates, or memory cannot be had.
pub fn serve(make: impl FnOnce(&[u8]) -> Result<Function, FunctionError>) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut hello = Hello::new_zeroed();
    stream.read_exact(hello.as_mut_bytes()).map_err(|e| format!("standard input is no yard: {e}"))?;
    if hello.magic != MAGIC {
        return Err("this program and the yard that started it are of different versions".into());
    }
    let mut config = vec![0; hello.config_bytes as usize];
    stream.read_exact(&mut config)?;
    let surroundings = Surroundings {
        dispatcher: hello.dispatcher as usize,
        dispatchers: hello.dispatchers as usize,
        rings: hello.rings as u16,
        annotation_bytes: hello.annotation_bytes as usize,
    };
    let made = make(&config).and_then(|function| function.checked_instance(&surroundings));
    match made {
        Ok(function) => {
            write_text(&mut stream, b"")?;
            let mut bench = Bench::new(&surroundings)?;
            bench.work(&mut stream, function)
        }
        Err(error) => Ok(write_text(&mut stream, error.why.as_bytes())?),
    }
}

/// Where the child's packets lie.
struct Bench {
    region: Region,
    items: Vec<Item>,
    tags: Vec<Tag>,
    verdicts: Vec<RawVerdict>,
    scratch: Box<Scratch>,
    table: Table,
    policy: Policy,
}

impl Bench {
    fn new(surroundings: &Surroundings) -> Result<Bench, Box<dyn std::error::Error>> {
        let geometry = Geometry::new(BUFFER_BYTES, surroundings.annotation_bytes, BATCH)?;
        let (region, mut stock) = Region::create("isolated", geometry)?;
        let items = std::iter::from_fn(|| Stock::take(&mut stock)).map(item).collect();
        Ok(Bench {
            region,
            items,
            tags: vec![Tag::default(); BATCH],
            verdicts: vec![RawVerdict::default(); BATCH],
            scratch: Box::new(Scratch { bytes: [0; COPY_BYTES], annotation: [0; 256] }),
            table: Table::even(surroundings.rings)?,
            policy: Policy::default(),
        })
    }

    fn work(
        &mut self,
        stream: &mut UnixStream,
        mut function: Box<dyn Steer>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let mut reader = io::BufReader::with_capacity(1 << 18, stream.try_clone()?);
        let mut out = Vec::new();
        let mut ticked = Instant::now();
        loop {
            let mut message = Message::new_zeroed();
            match reader.read_exact(message.as_mut_bytes()) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            if message.kind == 1 {
                let mut request = vec![0; message.count as usize];
                reader.read_exact(&mut request)?;
                let (bad, text) = function.control(&request).map_or_else(|e| (1, e.into_bytes()), |a| (0, a));
                stream.write_all(&[bad])?;
                write_text(stream, &text)?;
                continue;
            }
            let count = (message.count as usize).min(BATCH);
            self.read(&mut reader, count)?;
            let hash_version = self.tags.first().map_or(0, |tag| tag.hash_version);
            let said = function.steer(&mut Batch {
                region: &self.region,
                items: &mut self.items[..count],
                tags: &mut self.tags[..count],
                verdicts: &mut self.verdicts[..count],
                scratch: &mut self.scratch,
                table: &self.table,
                copied: false,
                group: false,
                fragments: true,
                hash_version,
                touched: Touched { verdicts: true, tags: false }, // earlier functions of a chain may have spoken
            });
            out.clear();
            out.extend_from_slice(&u32::from(said.is_err()).to_le_bytes());
            for at in 0..count {
                out.extend_from_slice(self.tags[at].as_bytes());
                out.extend_from_slice(self.verdicts[at].as_bytes());
                out.extend_from_slice(self.region.annotation_mut(&mut self.items[at].parcel.first.buffer));
            }
            stream.write_all(&out)?;
            if ticked.elapsed() > Duration::from_millis(100) {
                ticked = Instant::now();
                function.tick();
            }
        }
    }

    fn read(&mut self, reader: &mut impl Read, count: usize) -> io::Result<()> {
        let geometry = self.region.geometry();
        let mut bytes = [0; BUFFER_BYTES];
        for at in 0..count {
            let mut record = Record::new_zeroed();
            reader.read_exact(record.as_mut_bytes())?;
            let item = &mut self.items[at];
            let annotation = &mut bytes[..geometry.annotation_bytes];
            reader.read_exact(annotation)?;
            let _ = self.region.set_annotation(&mut item.parcel.first.buffer, annotation);
            let len = (record.len as usize).min(BUFFER_BYTES);
            reader.read_exact(&mut bytes[..len])?;
            let room = BUFFER_BYTES - geometry.packet_offset();
            let len = len.min(room);
            if !self.region.write(&mut item.parcel.first.buffer, geometry.packet_offset(), &bytes[..len]) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            item.describe(
                &record.tag,
                &bytes[..len],
                geometry.packet_offset() as u16,
                &self.policy,
                record.fallback != 0,
            );
            self.tags[at] = record.tag;
            self.verdicts[at] = RawVerdict::read_from_bytes(&record.verdict).unwrap_or_default();
        }
        Ok(())
    }
}

/// An item around a buffer, with nothing in it yet.
fn item(buffer: Buffer) -> Item {
    let frame = Frame::new(&[], LinkType::RAW);
    let dissection = dissect(&frame, &Policy::default(), &mut ());
    let parcel = Parcel {
        first: Segment { buffer, offset: 0, len: 0 },
        rest: Vec::new(),
        arrival: Arrival::default(),
        port: 0,
        now_ns: 0,
        user: 0,
    };
    Item { parcel, decision: Decision { ring: 0, hash: 0, dissection }, route: Route::Direct }
}

impl Item {
    fn describe(&mut self, tag: &Tag, bytes: &[u8], offset: u16, policy: &Policy, fallback: bool) {
        (self.parcel.first.offset, self.parcel.first.len) = (offset, bytes.len() as u16);
        self.parcel.port = tag.port;
        self.parcel.now_ns = tag.time_ns;
        self.parcel.arrival = Arrival {
            time_ns: tag.time_ns,
            clock: tag.clock(),
            flags: tag.flags & 0x00ff_ffff,
            len: tag.len,
            wire_len: tag.wire_len,
            queue: tag.queue,
            stripped_vlan: tag.stripped_vlan,
            card_hash: tag.card_hash,
            link: tag.link,
            number: 0,
        };
        let stripped_vlan = tag.has(flags::VLAN_STRIPPED).then_some(tag.stripped_vlan);
        let frame = Frame { bytes, link: LinkType(tag.link), stripped_vlan, wire_len: tag.wire_len };
        self.decision = Decision { ring: tag.ring, hash: tag.hash, dissection: dissect(&frame, policy, &mut ()) };
        self.route = if fallback { Route::Fallback } else { Route::Direct };
    }
}
