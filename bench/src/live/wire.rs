//! The wire: a namespace with a veth pair for each way of receiving, who sends, and what the kernel says of threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};

use super::frames::Frames;
use crate::machine;

/// Conversations.
const FLOWS: u16 = 256;

/// A namespace, and the pairs in it.
pub struct Wire {
    pub namespace: Namespace,
    pairs: usize,
}

impl Wire {
    pub fn new() -> Wire {
        Wire { namespace: Namespace::new().expect("as root"), pairs: 0 }
    }

    /// Makes another pair, and answers its number. With `napi` the receiving end has a NAPI without an XDP program, too:
    /// for the sake of GRO.
    pub fn add(&mut self, napi: bool) -> usize {
        let number = self.pairs;
        let (name, peer) = (&receiving(number), &sending(number));
        self.namespace.veth(&Veth { name, peer, ..Veth::default() }).expect("veth");
        if napi {
            self.namespace.command(&format!("ethtool -K {name} gro on")).expect("veth has GRO");
        }
        self.pairs += 1;
        number
    }

    /// Packets that came to the receiving end of a pair so far, whatever became of them.
    pub fn came(&self, number: usize) -> u64 {
        let text = self.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap_or_default();
        let peer = format!("{}:", sending(number));
        let line = text.lines().find_map(|line| line.trim().strip_prefix(&peer));
        // What the other end has sent: column 10.
        line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok()).unwrap_or(0)
    }
}

/// The end of pair `number` where packets are received.
pub fn receiving(number: usize) -> String {
    format!("fb{number:02}")
}

/// The other.
pub fn sending(number: usize) -> String {
    format!("fs{number:02}")
}

/// What sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sent {
    /// A packet socket, 64 packets a system call.
    Socket,
    /// The kernel, in batches of 64 frames, as a card brings them.
    Frames,
}

/// Who sends, by which pair: told by others.
pub enum Sender {
    Socket { pair: Arc<AtomicUsize>, thread: JoinHandle<()>, number: i32 },
    Frames(Frames),
}

const NOBODY: usize = usize::MAX;
const OVER: usize = usize::MAX - 1;

impl Sender {
    /// Starts it on a core.
    pub fn start(wire: &Wire, sent: Sent, core: usize) -> Sender {
        if sent == Sent::Frames {
            return Sender::Frames(Frames::start(&wire.namespace, core));
        }
        let pair = Arc::new(AtomicUsize::new(NOBODY));
        let (told, pairs) = (pair.clone(), wire.pairs);
        let (tell, number) = std::sync::mpsc::channel();
        let body = move || {
            machine::pin(core);
            tell.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("it is waited for");
            send_by_socket(&told, pairs);
        };
        let thread = wire.namespace.run(|| std::thread::spawn(body));
        Sender::Socket { pair, thread, number: number.recv().expect("it begins") }
    }

    /// Nanoseconds that it has run, and in its place the kernel's part of receiving where nobody else does that.
    pub fn used_ns(&self) -> u64 {
        match self {
            Sender::Socket { number, .. } => used_ns(*number),
            Sender::Frames(frames) => frames.threads().into_iter().map(used_ns).sum(),
        }
    }

    /// Has packets sent by a pair, as fast as it can be.
    pub fn to(&self, number: usize) {
        self.tell(Some(number));
    }

    /// Has none sent.
    pub fn rest(&self) {
        self.tell(None);
    }

    fn tell(&self, number: Option<usize>) {
        match self {
            // Relaxed: nothing else is told by it.
            Sender::Socket { pair, .. } => pair.store(number.unwrap_or(NOBODY), Ordering::Relaxed),
            Sender::Frames(frames) => frames.to(number),
        }
    }

    /// Ends it.
    pub fn end(self) {
        if let Sender::Socket { pair, thread, .. } = self {
            pair.store(OVER, Ordering::Relaxed);
            thread.join().expect("it sends to the end");
        }
    }
}

/// Sends 64-byte frames of [`FLOWS`] conversations as it is told, until the end; in a thread of the wire's namespace.
fn send_by_socket(told: &AtomicUsize, pairs: usize) {
    let ways: Vec<_> = (0..pairs).map(|n| Injector::open(&sending(n)).expect("the other end")).collect();
    let frames: Vec<_> = (0..FLOWS).map(|n| numbered_frame(n, u64::from(n), 64)).collect();
    loop {
        match told.load(Ordering::Relaxed) {
            OVER => return,
            NOBODY => std::thread::sleep(Duration::from_millis(1)),
            pair => ways[pair].send(&frames).expect("the other end is up"),
        }
    }
}

/// Threads of this process.
pub fn threads() -> impl Iterator<Item = i32> {
    threads_of("self")
}

/// Threads of a process.
pub fn threads_of(process: &str) -> impl Iterator<Item = i32> + use<> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten();
    tasks.filter_map(|task| task.file_name().to_string_lossy().parse().ok())
}

/// Nanoseconds that a thread has run; none once it has ended.
pub fn used_ns(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
