//! The consumer's side: one ring of a yard that another process runs.

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flowyard_mem::handover::{self, Message};
use flowyard_mem::{Consumer, Grant, Handover, MemError};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{About, Answer, AttachError, Hello, Place};
use crate::RingReader;

/// How long a yard may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a yard is there by now.
const RETRY: Duration = Duration::from_millis(50);

/// Attaches to a ring, for reading: `NAME/RING` or `NAME/GROUP/RING`. [`Attach`] has what else can be asked for.
///
/// ```no_run
/// use flowyard::mem::Wait;
/// let mut ring = flowyard::attach("yard/0")?;
/// while ring.wait(None) != Wait::Ended {
///     while let Some(packet) = ring.next() {
///         println!("{} bytes, hash {:08x}", packet.len(), packet.slot().hash);
///     }
/// }
/// # Ok::<(), flowyard::attach::AttachError>(())
/// ```
///
/// # Errors
/// The name, no yard of that name, or it refuses: not allowed, ring taken, other version.
pub fn attach(ring: &str) -> Result<Attached, AttachError> {
    Attach::to(ring)?.now()
}

/// What to attach to, and how.
#[derive(Debug, Clone)]
pub struct Attach {
    socket: PathBuf,
    ring: String,
    write: bool,
    stage: bool,
    program: Option<String>,
}

impl Attach {
    /// Of a yard by name: `NAME/RING` or `NAME/GROUP/RING`.
    ///
    /// # Errors
    /// What names no ring.
    pub fn to(ring: &str) -> Result<Attach, AttachError> {
        let place: Place = ring.parse()?;
        Ok(Attach::at(place.socket(), &place.ring))
    }

    /// Of a yard by the path of its socket. The ring is `2`, or `ids/2` where groups have names.
    pub fn at(socket: impl Into<PathBuf>, ring: &str) -> Attach {
        Attach { socket: socket.into(), ring: ring.into(), write: false, stage: false, program: None }
    }

    /// Asks for leave to write packets and annotations.
    pub fn write(self, write: bool) -> Attach {
        Attach { write, ..self }
    }

    /// Asks for leave to pass packets on to later consumers, in processes of their own: what they look at stays when this
    /// one dies, until they are done.
    pub fn stage(self, stage: bool) -> Attach {
        Attach { stage, ..self }
    }

    /// How the yard lists this consumer; by default by the program's name.
    pub fn called(self, program: &str) -> Attach {
        Attach { program: Some(program.into()), ..self }
    }

    /// Attaches, if the yard is there.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn now(&self) -> Result<Attached, AttachError> {
        let program = self.program.clone().or_else(own_name).unwrap_or_default();
        let hello = Hello::Attach { ring: self.ring.clone(), write: self.write, stage: self.stage, program };
        let nonsense = |what: &str| AttachError::Nonsense { path: self.socket.clone(), what: what.into() };
        let (connection, answer, parts) = ask(&self.socket, &hello, PATIENCE)?;
        let about = match answer {
            Answer::Welcome(about) => about,
            Answer::Refused(why) => {
                return Err(AttachError::Refused { path: self.socket.clone(), ring: self.ring.clone(), why });
            }
            Answer::Rings(_) => return Err(nonsense("a list of rings")),
        };
        let parts = parts.ok_or_else(|| nonsense("a welcome without descriptors"))?;
        let grant = if about.write { Grant::Write } else { Grant::Read };
        let consumers = Consumer::attach_all(parts, grant)?;
        if consumers.is_empty() {
            return Err(nonsense("a welcome without pipes"));
        }
        let mut reader = RingReader::new(about.ring, consumers, Vec::new());
        reader.connection = Some(connection);
        Ok(Attached { reader, about })
    }

    /// Attaches; while no yard is there, or its ring is taken, tries again until `patience` is over. For consumers
    /// that outlive a yard.
    ///
    /// # Errors
    /// As [`attach`], once the time is over. What waiting does not mend is said at once.
    pub fn within(&self, patience: Option<Duration>) -> Result<Attached, AttachError> {
        let deadline = patience.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        loop {
            match self.now() {
                Err(AttachError::Reach { .. } | AttachError::Refused { .. })
                    if deadline.is_none_or(|d| Instant::now() < d) =>
                {
                    std::thread::sleep(RETRY);
                }
                outcome => return outcome,
            }
        }
    }
}

/// One question, one answer.
pub(super) fn ask(
    socket: &Path,
    hello: &Hello,
    patience: Duration,
) -> Result<(OwnedFd, Answer, Option<Handover>), AttachError> {
    let nonsense = |e: serde_json::Error| AttachError::Nonsense { path: socket.into(), what: e.to_string() };
    // A yard that goes while it is asked is one that cannot be reached.
    let gone = |error| match error {
        MemError::System { source, .. } => reach(socket, source),
        other => other.into(),
    };
    let connection = connect(socket, patience).map_err(|e| reach(socket, e.into()))?;
    handover::send(&connection, &serde_json::to_vec(hello).map_err(nonsense)?, None).map_err(gone)?;
    let Message { said, parts, .. } = handover::receive(&connection).map_err(gone)?.of_our_version()?;
    Ok((connection, serde_json::from_slice(&said).map_err(nonsense)?, parts))
}

fn connect(path: &Path, patience: Duration) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for way in [rustix::net::sockopt::Timeout::Recv, rustix::net::sockopt::Timeout::Send] {
        rustix::net::sockopt::set_socket_timeout(&socket, way, Some(patience))?;
    }
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

pub(super) fn reach(path: &Path, error: std::io::Error) -> AttachError {
    let remedy = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "the yard must be run with --allow for this user",
        _ => "start one with `flowyard run … --attach`, or name another",
    };
    AttachError::Reach { path: path.into(), error, remedy }
}

fn own_name() -> Option<String> {
    Some(std::env::current_exe().ok()?.file_name()?.to_string_lossy().into_owned())
}

/// How a ring ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The yard has ended in order: every packet of this ring has been here.
    InOrder,
    /// The yard is gone without a word: killed, or crashed.
    Lost,
}

/// A ring of a yard that another process runs. A [`RingReader`] in all that concerns packets. Dropping it gives the
/// ring back.
#[derive(Debug)]
pub struct Attached {
    reader: RingReader,
    about: About,
}

impl Attached {
    /// What the yard says of the ring.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The reader alone, for a [`Stage`](crate::Stage) say. The ring is its until it is dropped.
    pub fn into_reader(self) -> RingReader {
        self.reader
    }

    /// How it ended, once [`RingReader::wait`] has said that it has.
    pub fn end(&mut self) -> End {
        let in_order = self.reader.consumers().iter().all(Consumer::ended_in_order);
        if in_order { End::InOrder } else { End::Lost }
    }

    /// Whether the yard's process is still there. A system call.
    pub fn yard_is_there(&self) -> bool {
        let Some(connection) = &self.reader.connection else { return false };
        let mut fds = [rustix::event::PollFd::new(connection, rustix::event::PollFlags::RDHUP)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().is_empty()
    }
}

impl Deref for Attached {
    type Target = RingReader;

    fn deref(&self) -> &RingReader {
        &self.reader
    }
}

impl DerefMut for Attached {
    fn deref_mut(&mut self) -> &mut RingReader {
        &mut self.reader
    }
}
