//! Receiving and dropping 64-byte frames over veth, with more sent than can be received: a worker, a dispatcher with
//! readers, steering in the kernel, and packet sockets, beside a bare AF_XDP loop and a bare TPACKET_V3 loop.
//!
//! Who does what on which core ([`Cores`]) is the same for all of a comparison. On *one core* are the kernel's part (a NAPI
//! thread of the interface, put there) and all threads of the receiver; the sender alone has the other. On *two cores* the
//! kernel's part is where the packets are sent (veth's softirq runs on the sender's core, as it does unless told
//! otherwise), and all threads of the receiver are on the other.
//!
//! What is sent, a packet socket sends, or the kernel as a card would bring it ([`Sent`]). veth has to copy each packet of
//! a socket once more before an XDP program sees it, which a card has not, and which a packet socket at the other end does
//! not need; the others it hands on as they are, and has to make a socket's packet of each for a packet socket, as a card's
//! driver has.
//!
//! Each way has a veth pair of its own and stays open throughout; a turn is to send by its pair for a while. What is told is
//! packets counted by whoever drops them, in the time that passed; and processor time of the core that has the kernel's part
//! a packet, which other work on the machine disturbs less. On one core that is the NAPI thread's and the receiver's, and
//! what the sender's system call does is counted for nobody. On two it is the sender's, with the kernel's part in it. A turn is
//! discarded if the hypervisor took more than [`STOLEN`] ticks of it, and for nothing else: switches between threads that
//! share a core are part of what is measured, and whether the two cores share a cache made no difference to the ratios.
//!
//! The bare loops sleep where that is best for them: on one core whenever they find nothing, on two after milliseconds of
//! looking in vain. Nothing is polled busily by the kernel (no SO_PREFER_BUSY_POLL), all rings are as long, all copy.

mod bare;
mod bpf;
pub mod frames;
mod ways;
mod wire;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::probe::Distance;
use crate::rounds::{self, Contender, Outcome, Round, Setting};
use crate::{figures, machine};
use ways::Task;
pub use wire::Sent;
use wire::{Sender, Wire};

/// How long each is measured in each round, once packets flow.
const SPAN: Duration = Duration::from_millis(150);
const WARM_UP: Duration = Duration::from_millis(40);
/// Between two turns: what is left in rings is read, threads go to sleep.
const REST: Duration = Duration::from_millis(15);
/// Ticks of 10 ms, of some 30, that the hypervisor may take from a turn.
const STOLEN: u64 = 2;

/// Who does what where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cores {
    /// Kernel and receiver on one core, the sender on the other.
    One,
    /// Sender and kernel on one core, the receiver on the other.
    Two,
}

impl Cores {
    fn title(self, sent: Sent) -> String {
        let by = match sent {
            Sent::Socket => "sent by a socket",
            Sent::Frames => "brought as by a card",
        };
        match self {
            Cores::One => format!("Live, 64-byte frames {by}: kernel and receiver on one core"),
            Cores::Two => format!("Live, 64-byte frames {by}: kernel on the sender's core, receiver on the other"),
        }
    }

    /// Looks in vain after which a plain loop sleeps: not at all where that keeps the kernel from its core.
    const fn looks(self) -> u32 {
        match self {
            Cores::One => 0,
            Cores::Two => 200_000,
        }
    }
}

/// A way of receiving.
#[derive(Debug, Clone, Copy)]
struct Way {
    name: &'static str,
    receive: fn(&Task),
    /// By packet socket: then it is GRO that has NAPI, not XDP.
    packet: bool,
}

const fn xdp(name: &'static str, receive: fn(&Task)) -> Way {
    Way { name, receive, packet: false }
}

const fn packet(name: &'static str, receive: fn(&Task)) -> Way {
    Way { name, receive, packet: true }
}

const BLOCKS: Way = packet("TPACKET_V3 loop", bare::receive_blocks);
const READS: Way = xdp("AF_XDP loop that reads first bytes", bare::receive_and_read);
const TAGS: Way = xdp("AF_XDP loop that reads first bytes and writes a tag", bare::receive_and_tag);
const BARE: Way = xdp("AF_XDP loop", bare::receive);
const WORKER: Way = xdp("worker", ways::worker);
const DISPATCH: Way = xdp("dispatcher, one reader", ways::dispatch_one_thread);
const KERNEL: Way = xdp("steered in the kernel, one reader", ways::kernel_one_thread);
const PACKET_WORKER: Way = packet("worker over a packet socket", ways::packet_worker);

/// Those that are compared on one core; the loops are first and last.
const ONE: [Way; 10] = [
    BLOCKS,
    WORKER,
    DISPATCH,
    xdp("dispatcher, a reader a ring", ways::dispatch_threads),
    KERNEL,
    xdp("steered in the kernel, a reader a ring", ways::kernel_threads),
    xdp("steered in the kernel, relayed, a reader a ring", ways::relayed),
    PACKET_WORKER,
    packet("4 packet sockets, by hash", ways::packet_sockets),
    BARE,
];

/// Those on two.
const TWO: [Way; 8] = [BLOCKS, WORKER, DISPATCH, KERNEL, PACKET_WORKER, READS, TAGS, BARE];

/// Runs and prints; with `only` that way alone, and what each of its turns was made of.
pub fn run(setting: &Setting, only: Option<usize>, sent: Option<Sent>) {
    if setting.other.is_none() || !flowyard_testkit::net::is_root() {
        println!("\n## Live\n\nNot run: it needs root, and two cores.");
        return;
    }
    if !bare::is_possible() {
        println!("\nNo bare AF_XDP loop, and no frames as of a card: they need clang and libbpf's headers.");
    }
    for each in [Sent::Frames, Sent::Socket] {
        if sent.is_none_or(|sent| sent == each) && (each == Sent::Socket || frames::are_possible()) {
            run_sent(setting, only, each);
        }
    }
}

fn run_sent(setting: &Setting, only: Option<usize>, sent: Sent) {
    let Some(sender) = setting.other else { return };
    let possible = |way: &&Way| bare::is_possible() || ![BARE, READS, TAGS].map(|bare| bare.name).contains(&way.name);
    let ways = ONE.iter().filter(possible).map(|way| (*way, Cores::One));
    let ways = ways.chain(TWO.iter().filter(possible).map(|way| (*way, Cores::Two)));
    let ways: Vec<_> =
        ways.enumerate().filter(|(at, _)| only.is_none_or(|only| only == *at)).map(|(_, way)| way).collect();
    let rounds = setting.rounds.div_ceil(4); // seconds each
    let live = Live::open(&ways, setting.core, sender, sent);
    let contenders: Vec<Contender<Live>> = ways
        .iter()
        .enumerate()
        .map(|(at, (way, _))| Contender::new(way.name, move |live: &Live| live.turn(at, only.is_some())))
        .collect();
    let mut live = live;
    let outcome = rounds::run(&Setting { rounds, ..*setting }, false, &mut live, Live::begin_round, &contenders);
    let used = live.close();
    let through: Vec<_> = outcome.rounds.iter().map(|round| round.figures.clone()).collect();
    for cores in [Cores::One, Cores::Two] {
        let title = cores.title(sent);
        let part: Vec<usize> = (0..ways.len()).filter(|at| ways[*at].1 == cores).collect();
        let of_part = |figures: &[Vec<Option<f64>>]| {
            let rounds = figures.iter().map(|figures| Round {
                distance: if cores == Cores::One { Distance::One } else { Distance::Any },
                probe_ns: None,
                figures: part.iter().map(|at| figures[*at]).collect(),
            });
            Outcome { rounds: rounds.collect(), names: part.iter().map(|at| ways[*at].0.name).collect() }
        };
        print(&title, "packet that came through", &of_part(&through));
        print(&format!("{title}, processor time"), "packet of the kernel's core", &of_part(&used));
    }
}

/// Prints what came of some of the ways, each beside the two loops.
fn print(title: &str, item: &str, outcome: &Outcome) {
    let place = |name| outcome.names.iter().position(|other| *other == name);
    let against = |theirs: usize| {
        (0..outcome.names.len()).filter(move |ours| *ours != theirs).map(move |ours| figures::ratio(ours, theirs))
    };
    let ratios: Vec<_> = [BARE.name, BLOCKS.name].into_iter().filter_map(place).flat_map(against).collect();
    figures::print(title, item, outcome, &ratios);
}

/// All ways, open, and who sends to them.
struct Live {
    wire: Wire,
    sender: Sender,
    open: Vec<Open>,
    /// Processor time a packet, by round and way.
    used: RefCell<Vec<Vec<Option<f64>>>>,
}

/// A way that is open.
struct Open {
    task: Arc<Task>,
    thread: std::thread::JoinHandle<()>,
    /// Its threads, and the NAPI thread.
    threads: Vec<i32>,
    /// Only where it has a core with them.
    napi: Option<i32>,
}

/// Figures that only grow.
#[derive(Debug, Clone, Copy)]
struct Figures {
    at: Instant,
    seen: u64,
    ours_ns: u64,
    kernel_ns: u64,
}

impl Live {
    fn open(ways: &[(Way, Cores)], receiver: usize, sender: usize, sent: Sent) -> Live {
        let mut wire = Wire::new();
        let mut open = Vec::new();
        for (way, cores) in ways {
            let number = wire.add(way.packet && (*cores == Cores::One || sent == Sent::Frames));
            let interface = wire::receiving(number);
            let task = Arc::new(Task { interface: interface.clone(), looks: cores.looks(), ..Task::default() });
            let others: HashSet<i32> = wire::threads().collect();
            let (receive, given) = (way.receive, task.clone());
            let body = move || {
                machine::pin(receiver); // and all threads that it starts
                receive(&given);
            };
            let thread = wire.namespace.run(|| std::thread::spawn(body));
            while !task.ready.load(Ordering::Relaxed) {
                assert!(!thread.is_finished(), "{}: it did not open", way.name);
                std::thread::sleep(Duration::from_millis(5));
            }
            let napi = (*cores == Cores::One).then(|| wire.namespace.pin_napi(&interface, receiver));
            let threads = wire::threads().filter(|thread| !others.contains(thread)).collect();
            open.push(Open { task, thread, threads, napi });
        }
        let sender = Sender::start(&wire, sent, sender);
        Live { wire, sender, open, used: RefCell::default() }
    }

    fn figures(&self, Open { task, threads, napi, .. }: &Open) -> Figures {
        Figures {
            seen: task.seen(),
            at: Instant::now(),
            ours_ns: threads.iter().map(|thread| wire::used_ns(*thread)).sum(),
            kernel_ns: napi.map_or_else(|| self.sender.used_ns(), wire::used_ns),
        }
    }

    fn begin_round(&mut self) {
        let ways = self.open.len();
        self.used.get_mut().push(vec![None; ways]);
    }

    /// Nanoseconds that passed for each packet that came through.
    fn turn(&self, at: usize, details: bool) -> Option<f64> {
        let open = &self.open[at];
        self.sender.to(at);
        std::thread::sleep(WARM_UP);
        let (before, came, stolen) = (self.figures(open), self.came(at, details), machine::stolen_ticks());
        std::thread::sleep(SPAN);
        let (after, came) = (self.figures(open), self.came(at, details) - came);
        let disturbed = machine::stolen_ticks() - stolen > STOLEN;
        self.sender.rest();
        std::thread::sleep(REST);
        let seen = (after.seen - before.seen) as f64;
        let passed = (after.at - before.at).as_nanos() as f64;
        let (ours, kernel) = ((after.ours_ns - before.ours_ns) as f64, (after.kernel_ns - before.kernel_ns) as f64);
        if details {
            println!(
                "{:.0} kpps of {:.0} that came; a packet {:.0} ns in the kernel's part, {:.0} ns in ours",
                seen / passed * 1e6,
                came as f64 / passed * 1e6,
                kernel / seen,
                ours / seen,
            );
        }
        if seen < 1000.0 || disturbed {
            return None;
        }
        if let Some(round) = self.used.borrow_mut().last_mut() {
            let ours = if open.napi.is_some() { ours } else { 0.0 };
            round[at] = Some((ours + kernel) / seen);
        }
        Some(passed / seen)
    }

    /// Asked for only where it is told: it takes a while.
    fn came(&self, at: usize, details: bool) -> u64 {
        if details { self.wire.came(at) } else { 0 }
    }

    /// Ends all; answers processor time a packet, by round and way.
    fn close(self) -> Vec<Vec<Option<f64>>> {
        self.sender.end();
        for Open { task, thread, .. } in self.open {
            task.stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            assert!(thread.join().is_ok(), "{}: it panicked", task.interface);
        }
        self.used.into_inner()
    }
}
