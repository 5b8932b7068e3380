//! The yard's side: a thread that seats consumers on rings, and notices when they are gone.
//!
//! One thread for all: no call of it blocks on a peer, whatever peers do or leave undone. It takes no part in the way
//! of packets; rings are given and taken by letters to the dispatchers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flowyard_mem::handover::{self, Message};
use flowyard_mem::{Grant, Handover, MemError, Region, pipe, refuse_descriptors};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::access::Peer;
use super::socket::listen_at;
use super::{About, Allow, Answer, AttachError, Hello, RingState};
use crate::function::{Letter, Mailbox};
use crate::outlets::Tenant;

/// Connections that may wait to be accepted.
const WAITING: i32 = 64;
/// Connections that have not said what they want. More are closed: the longest there first.
const MOST_STRANGERS: usize = 64;
/// Pause where no connection can be accepted.
const SHORT_OF_DESCRIPTORS: Duration = Duration::from_millis(10);
/// How long a connection may take to say it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rings that are listed: what fits a message.
const MOST_LISTED: usize = 64;
/// How long a dispatcher may take to read a letter.
const DISPATCHERS_PATIENCE: Duration = Duration::from_secs(2);

/// How consumers of other processes are served.
#[derive(Debug, Clone, Default)]
pub struct Serving {
    /// Name of the yard, for people.
    pub name: String,
    /// Names of the groups in order; of the first alone it may be empty.
    pub groups: Vec<String>,
    /// Who may have which ring: see [`Allow`].
    pub allow: Vec<Allow>,
}

impl Serving {
    /// Says what others may do with the region, and keeps what it takes to let them. By [`Running::serve`](crate::Running::serve)
    /// if not before: a process that gives up its privileges does it while it has them.
    ///
    /// Once others may write, steering works on copies; where nobody may, writing is sealed off for good.
    ///
    /// # Errors
    /// A rule lets somebody write where writing was sealed off before, or a system call failed.
    pub fn prepare(&self, region: &Region) -> Result<(), MemError> {
        if self.allow.iter().any(Allow::writes) {
            region.grant(Grant::Write)?;
        }
        region.grant(Grant::Read).map(drop)
    }
}

/// A consumer of another process.
#[derive(Debug, Clone)]
pub struct Seated {
    /// Its ring, as it is named: `2`, or `ids/2`.
    pub ring: String,
    /// What it says that it is.
    pub program: String,
    /// Its process, when it connected.
    pub pid: u32,
    /// Its user, when it connected.
    pub uid: u32,
    /// Whether it may write the region.
    pub write: bool,
    /// When it came.
    pub since: Instant,
}

/// What the server knows of the yard.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    pub(crate) region: Region,
    pub(crate) slots: u32,
    /// Rings of each group.
    pub(crate) groups: Vec<u16>,
    pub(crate) ports: Vec<String>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
}

type Consumers = Arc<Mutex<BTreeMap<u64, (usize, Seated)>>>;

/// Takes consumers of other processes until it is dropped. Those it has seated keep their rings as long as the yard
/// runs, even then.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    stop: Arc<OwnedFd>,
    consumers: Consumers,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(path: &Path, offer: Offer, serving: Serving) -> Result<Server, AttachError> {
        let fail = |action, remedy| {
            let path = path.to_owned();
            move |error: std::io::Error| AttachError::Serve { path, action, error, remedy }
        };
        serving.prepare(&offer.region)?;
        // Who may connect is asked of each by its credentials; the mode only keeps off those of whom none may.
        let mode = if serving.allow.iter().any(Allow::is_for_others) { 0o666 } else { 0o600 };
        let listener = std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .and_then(|()| listen_at(path, SocketType::SEQPACKET, WAITING, mode))
            .and_then(|listener| Ok(rustix::io::ioctl_fionbio(&listener, true).map(|()| listener)?))
            .map_err(fail("make the socket", "give another path (--attach PATH) or name (--name)"))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| fail("make an event", "raise the limit of open files")(e.into()))?);
        let consumers = Consumers::default();
        let mut worker = Worker {
            listener,
            stop: stop.clone(),
            offer,
            serving,
            consumers: consumers.clone(),
            connections: Vec::new(),
            lifelines: Vec::new(),
            next: 1,
        };
        let thread = std::thread::Builder::new().name("attach".into()).spawn(move || worker.run());
        let thread = Some(thread.map_err(fail("start a thread", "raise the limit of processes"))?);
        Ok(Server { path: path.into(), stop, consumers, thread })
    }

    /// Where consumers connect.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Who is there.
    pub fn consumers(&self) -> Vec<Seated> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.values().map(|(_, seated)| seated.clone()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // while it is still ours
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was printed
        }
    }
}

struct Connection {
    socket: OwnedFd,
    since: Instant,
    /// Set once it has a ring.
    tenant: Option<u64>,
    /// Of a stage: closed at the other end when nobody looks at its packets any more.
    lifeline: Option<OwnedFd>,
}

struct Worker {
    listener: OwnedFd,
    stop: Arc<OwnedFd>,
    offer: Offer,
    serving: Serving,
    consumers: Consumers,
    connections: Vec<Connection>,
    /// Of stages that are gone, while others look at what they passed on.
    lifelines: Vec<(u64, OwnedFd)>,
    /// Number of the next consumer.
    next: u64,
}

/// What a peer is told, what it is given, and the number of the consumer that it is now.
type Said = (Answer, Option<Handover>, Option<u64>);

impl Worker {
    fn run(&mut self) {
        loop {
            let strangers = self.connections.iter().any(|connection| connection.tenant.is_none());
            let timeout = strangers.then_some(Timespec { tv_sec: 0, tv_nsec: 100_000_000 });
            let mut fds = vec![PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            fds.extend(self.connections.iter().map(|c| PollFd::new(&c.socket, PollFlags::IN | PollFlags::RDHUP)));
            fds.extend(self.lifelines.iter().map(|(_, line)| PollFd::new(line, PollFlags::RDHUP)));
            let _ = rustix::event::poll(&mut fds, timeout.as_ref()); // interrupted: look again
            let happened: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
            if !happened[0].is_empty() {
                return;
            }
            let mut closed = happened[2 + self.connections.len()..].iter().map(|flags| !flags.is_empty());
            let (offer, mut released) = (&self.offer, Vec::new());
            self.lifelines.retain(|(tenant, _)| {
                let closed = closed.next().unwrap_or(false);
                released.extend(closed.then_some(*tenant));
                !closed
            });
            for tenant in released {
                offer.mailboxes.iter().for_each(|mailbox| mailbox.post(Letter::Release { tenant }));
            }
            // Those who go make room for those who come.
            for at in (0..self.connections.len()).rev() {
                if !happened[at + 2].is_empty() && !self.hear(at) {
                    let gone = self.connections.remove(at);
                    if let Some(tenant) = gone.tenant {
                        self.unseat(tenant);
                        self.lifelines.extend(gone.lifeline.map(|line| (tenant, line)));
                    }
                }
            }
            self.connections.retain(|c| c.tenant.is_some() || c.since.elapsed() < PATIENCE);
            if !happened[1].is_empty() {
                self.accept();
            }
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for _ in 0..WAITING {
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => return std::thread::sleep(SHORT_OF_DESCRIPTORS), // it would be told of them again at once
            };
            refuse_descriptors(&socket); // where the kernel cannot, one may have itself waited for
            let strangers = self.connections.iter().filter(|c| c.tenant.is_none()).count();
            if strangers >= MOST_STRANGERS
                && let Some(longest) = self.connections.iter().position(|c| c.tenant.is_none())
            {
                self.connections.remove(longest);
            }
            self.connections.push(Connection { socket, since: Instant::now(), tenant: None, lifeline: None });
        }
    }

    /// Hears what a peer says. Answers whether it stays.
    fn hear(&mut self, at: usize) -> bool {
        if self.connections[at].tenant.is_some() {
            return false; // nothing is to be said any more: it has gone, or does not know how to behave
        }
        let Ok(message) = handover::receive(&self.connections[at].socket) else { return false };
        let (answer, parts, tenant) = self.answer(at, message).unwrap_or_else(|why| (Answer::Refused(why), None, None));
        let said = serde_json::to_vec(&answer).unwrap_or_default();
        let sent = handover::send(&self.connections[at].socket, &said, parts);
        self.connections[at].tenant = tenant;
        sent.is_ok() && tenant.is_some()
    }

    fn answer(&mut self, at: usize, message: Message) -> Result<Said, String> {
        let message = message.of_our_version().map_err(|e| e.to_string())?;
        let hello = serde_json::from_slice(&message.said).map_err(|e| format!("it asks for nothing: {e}"))?;
        let peer = Peer::of(&self.connections[at].socket).map_err(|e| format!("it cannot be told who asks: {e}"))?;
        match hello {
            Hello::Rings => Ok((Answer::Rings(self.list(&peer)), None, None)),
            Hello::Attach { ring, write, stage, program } => {
                let said = self.greet(&peer, &ring, (write, stage), &program)?;
                if !stage {
                    return Ok(said);
                }
                let (answer, parts, tenant) = said;
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let pair = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
                let (ours, theirs) = pair.map_err(|e| {
                    tenant.into_iter().for_each(|tenant| self.unseat(tenant));
                    format!("the yard has no descriptors left: {e}")
                })?;
                refuse_descriptors(&ours);
                self.connections[at].lifeline = Some(ours);
                Ok((answer, parts.map(|parts| parts.with_lifeline(Some(theirs))), tenant))
            }
        }
    }

    /// As many rings as a message holds.
    fn list(&self, peer: &Peer) -> Vec<RingState> {
        let state = |(outlet, (group, ring)): (usize, (usize, u16))| {
            let name = self.name(group, ring);
            let reader = self.reader(outlet).map(|seated| (seated.program, seated.pid));
            let allowed = peer.may(&self.serving.allow, &name, false).is_ok();
            RingState { name: format!("{}/{name}", self.serving.name), reader, allowed }
        };
        self.outlets().enumerate().map(state).take(MOST_LISTED).collect()
    }

    /// Group and ring of every outlet, in order.
    fn outlets(&self) -> impl Iterator<Item = (usize, u16)> + Clone {
        (0..self.offer.groups.len()).flat_map(|group| (0..self.offer.groups[group]).map(move |ring| (group, ring)))
    }

    fn greet(&mut self, peer: &Peer, ring: &str, asked: (bool, bool), program: &str) -> Result<Said, String> {
        let (write, stage) = asked;
        let (group, ring) = self.find(ring)?;
        let name = self.name(group, ring);
        let may_send = peer.may(&self.serving.allow, &name, write)?;
        let outlet =
            self.offer.groups[..group].iter().map(|rings| usize::from(*rings)).sum::<usize>() + usize::from(ring);
        if let Some(by) = self.reader(outlet) {
            return Err(format!("{} (process {}) reads it: take another, or end that one", by.program, by.pid));
        }
        let tenant = self.next;
        self.next += 1;
        let parts = self.seat(outlet, Tenant { number: tenant, may_send, stage }, write)?;
        let about = About {
            yard: self.serving.name.clone(),
            group: self.serving.groups.get(group).cloned().unwrap_or_default(),
            ring,
            rings: self.offer.groups[group],
            write,
            ports: self.offer.ports.iter().take(MOST_LISTED).cloned().collect(),
        };
        let program = program.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(64).collect();
        let seated = Seated { ring: name, program, pid: peer.pid, uid: peer.uid, write, since: Instant::now() };
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant, (outlet, seated));
        Ok((Answer::Welcome(about), Some(parts), Some(tenant)))
    }

    /// The group and ring of that name.
    fn find(&self, ring: &str) -> Result<(usize, u16), String> {
        self.outlets().find(|(group, number)| self.name(*group, *number) == ring).ok_or_else(|| {
            let groups = self.offer.groups.iter().enumerate();
            let each = groups.map(|(group, rings)| format!("{} to {}", self.name(group, 0), rings - 1));
            format!("there is none: it has {}", each.collect::<Vec<_>>().join(", "))
        })
    }

    /// `2`, or `ids/2`.
    fn name(&self, group: usize, ring: u16) -> String {
        match self.serving.groups.get(group).filter(|name| !name.is_empty()) {
            Some(name) => format!("{name}/{ring}"),
            None => ring.to_string(),
        }
    }

    fn reader(&self, outlet: usize) -> Option<Seated> {
        let consumers = self.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        consumers.values().find(|(of, _)| *of == outlet).map(|(_, seated)| seated.clone())
    }

    /// Gives every dispatcher a pipe to the consumer.
    fn seat(&self, outlet: usize, tenant: Tenant, write: bool) -> Result<Handover, String> {
        let mut ends = Vec::new();
        let mut answers = Vec::new();
        for mailbox in &self.offer.mailboxes {
            let (pipe, end) = pipe(&self.offer.region, self.offer.slots).map_err(|e| e.to_string())?;
            let (seated, answer) = channel();
            mailbox.post(Letter::Seat { outlet, tenant, pipe, seated });
            answers.push((answer, end));
        }
        let deadline = Instant::now() + DISPATCHERS_PATIENCE;
        let mut why = None;
        for (answer, end) in answers {
            match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(true) => ends.push(end),
                Ok(false) => why = Some("somebody in the yard's own process reads it"),
                Err(RecvTimeoutError::Timeout) => why = Some("the yard is too busy to answer: try again"),
                Err(RecvTimeoutError::Disconnected) => {} // that dispatcher's sources have ended, and others go on
            }
        }
        if let Some(why) = why.or(ends.is_empty().then_some("the yard has ended")) {
            self.tell_to_unseat(tenant.number);
            return Err(why.into());
        }
        let grant = if write { Grant::Write } else { Grant::Read };
        Handover::new(&self.offer.region, ends, grant).map_err(|e| {
            self.tell_to_unseat(tenant.number);
            e.to_string()
        })
    }

    fn tell_to_unseat(&self, tenant: u64) {
        self.offer.mailboxes.iter().for_each(|mailbox| mailbox.post(Letter::Unseat { tenant }));
    }

    fn unseat(&self, tenant: u64) {
        self.tell_to_unseat(tenant);
        self.consumers.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
    }
}
