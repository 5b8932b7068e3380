//! A worker: a thread that owns ports, as a dispatcher does, and reads rings of its own. No packet of its own rings leaves
//! its core.
//!
//! ```text
//! queue 0 ─▶ worker 0: sort ─▶ local ring 0 ─▶ your function      no pipe, no ledger, no other core
//!                        └──── pipe ─▶ ring 1 ─┐
//! queue 1 ─▶ worker 1: sort ─▶ local ring 1 ─▶ your function      what belongs to another worker crosses once
//! ```
//!
//! What is the same as with dispatchers: which ring a packet gets and what its tag says, functions, fragments, what happens
//! to rings that nobody reads, and all counts. A turn is a dispatcher's turn, then the packets of the worker's rings: its
//! own first, then what others handed over.

use std::any::Any;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowyard_mem::{Consumer, Packet, Stock};

use crate::counters::{Live, Report};
use crate::cpu;
use crate::dispatcher::{Beside, Dispatcher};
use crate::function::Mailbox;
use crate::outlets::Outlets;

/// Packets taken from one pipe before the others, and the ports, have their turn.
const TURN: usize = 64;

/// One thread's ports and rings, from [`Yard::open_local`](crate::Yard::open_local). Moved to the thread that is to run it.
///
/// One that is dropped without having run leaves its ports unread and its rings to nobody (`consumer-gone`).
pub struct Worker {
    number: usize,
    rings: Range<u16>,
    pin: bool,
    /// Until it runs.
    dispatcher: Option<Dispatcher>,
    /// What others hand over, by ring.
    inlets: Vec<(u16, Consumer)>,
    done: Done,
}

/// What a worker does with the packets of its rings.
pub trait Work {
    /// Looks at a packet of ring `ring`, changes it, annotates it, has it [sent](Packet::transmit). It goes home when this
    /// returns.
    fn packet(&mut self, ring: u16, packet: &mut Packet<'_>);

    /// After each turn, with the number of packets in it: 64 a port and pipe as a rule, and what had to wait. Where nothing
    /// comes, about every 50 ms. For what is done by the clock, or for many packets at once.
    fn turned(&mut self, _packets: usize) {}
}

impl<F: FnMut(u16, &mut Packet<'_>)> Work for F {
    fn packet(&mut self, ring: u16, packet: &mut Packet<'_>) {
        self(ring, packet);
    }
}

impl Worker {
    /// The worker of these rings, and what the yard keeps of it.
    pub(crate) fn new(
        number: usize,
        rings: Range<u16>,
        pin: bool,
        dispatcher: Dispatcher,
        inlets: Vec<(u16, Consumer)>,
    ) -> (Worker, WorkerEnd) {
        let (tell, report) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let end = WorkerEnd {
            live: dispatcher.live.clone(),
            mailbox: dispatcher.mailbox.clone(),
            report: Mutex::new(report),
            over: over.clone(),
        };
        (Worker { number, rings, pin, dispatcher: Some(dispatcher), inlets, done: Done { tell, over } }, end)
    }

    /// Number of the worker, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its rings.
    pub fn rings(&self) -> Range<u16> {
        self.rings.clone()
    }

    /// Receives, sorts, and shows each packet of its rings to `function`, with the ring's number; until all ports of the
    /// yard have ended, or it is told to stop. Binds the calling thread to a core meanwhile, if the yard was opened so.
    ///
    /// All workers of a yard must run at the same time, each in a thread of its own (or be dropped): at the end each waits for
    /// the others. The function may take its time: meanwhile its ports are not read, and other workers' packets for its rings
    /// wait. It should not ask the yard for anything that workers answer (`rings`, `functions`): its own would wait for itself.
    ///
    /// # Panics
    /// If the function does, at the end of the yard. The packet that it had and those that lay on its rings count as delivered
    /// and as abandoned; what comes for its rings from then on is `consumer-gone` (or what
    /// [`YardConfig::absent`](crate::YardConfig::absent) says), while the ports of this worker go on to be read for the others.
    pub fn run(self, function: impl FnMut(u16, &mut Packet<'_>)) {
        self.run_work(function);
    }

    /// As [`Worker::run`], for what is more than a function.
    ///
    /// # Panics
    /// As `run`.
    pub fn run_work(mut self, work: impl Work) {
        let Some(dispatcher) = self.dispatcher.take() else { return };
        let _pinned = self.pin.then(|| cpu::pin_for_now(self.number));
        let mut reading = Reading::new(work, self.rings.clone(), std::mem::take(&mut self.inlets));
        let mut report = dispatcher.run_beside(&mut reading);
        if reading.panic.is_some() {
            let Range { start, end } = self.rings;
            let number = self.number;
            report.errors.push(format!(
                "the function of worker {number} panicked: from then on nobody read the rings from {start} to {}",
                end - 1
            ));
        }
        self.done.tell(report);
        if let Some(panic) = reading.panic {
            resume_unwind(panic);
        }
    }

    /// Runs it by hand in the caller's thread, for benchmarks.
    #[cfg(feature = "bench")]
    pub fn by_hand<W: Work>(mut self, work: W) -> crate::bench_support::WorkerByHand<W> {
        let dispatcher = self.dispatcher.take().expect("it has not run");
        let reading = Reading::new(work, self.rings.clone(), std::mem::take(&mut self.inlets));
        crate::bench_support::WorkerByHand::new(dispatcher, reading)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(mut dispatcher) = self.dispatcher.take() else { return };
        self.inlets.clear();
        dispatcher.outlets.forsake_own(&mut dispatcher.stock);
        let mut report = dispatcher.end();
        report.errors.push(format!("worker {} was never run: its ports were not read", self.number));
        self.done.tell(report);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Worker { number, rings, .. } = self;
        f.debug_struct("Worker").field("number", number).field("rings", rings).finish_non_exhaustive()
    }
}

/// Where a worker's report goes.
struct Done {
    tell: Sender<Report>,
    over: Arc<AtomicBool>,
}

impl Done {
    fn tell(&self, report: Report) {
        let _ = self.tell.send(report); // nobody may want to know
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release); // pairs with the Acquire in `WorkerEnd::is_over`
    }
}

/// What the yard keeps of a worker.
#[derive(Debug)]
pub(crate) struct WorkerEnd {
    pub(crate) live: Arc<Live>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Locked, so that who runs the yard may be shared between threads.
    report: Mutex<Receiver<Report>>,
    over: Arc<AtomicBool>,
}

impl WorkerEnd {
    /// Whether it has ended, one way or another.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) // pairs with the Release in `Done::drop`
    }

    /// Waits for the end. `None` if it was not an orderly one.
    pub(crate) fn report(self) -> Option<Report> {
        self.report.into_inner().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }
}

/// A worker's rings, and what is done with their packets.
pub(crate) struct Reading<W> {
    work: W,
    rings: Range<u16>,
    inlets: Vec<(u16, Consumer)>,
    /// What the work panicked with.
    panic: Option<Box<dyn Any + Send>>,
}

impl<W: Work> Reading<W> {
    fn new(work: W, rings: Range<u16>, inlets: Vec<(u16, Consumer)>) -> Reading<W> {
        Reading { work, rings, inlets, panic: None }
    }

    #[cfg(feature = "bench")]
    pub(crate) fn work(&mut self) -> &mut W {
        &mut self.work
    }

    #[inline]
    fn read(&mut self, outlets: &mut Outlets, stock: &mut Stock) -> usize {
        let Reading { work, rings, inlets, .. } = self;
        let mut packets = 0;
        for ring in rings.clone() {
            packets += outlets.read_own(ring, stock, |packet| work.packet(ring, packet));
        }
        for (ring, inlet) in inlets {
            if !inlet.has_next() {
                continue; // nothing to show anybody
            }
            for _ in 0..TURN {
                let Some(mut packet) = inlet.next() else { break };
                work.packet(*ring, &mut packet);
                packets += 1;
            }
            inlet.let_go();
        }
        work.turned(packets);
        packets
    }
}

impl<W: Work> Beside for Reading<W> {
    const READS: bool = true;

    #[inline]
    fn turn(&mut self, outlets: &mut Outlets, stock: &mut Stock) -> usize {
        if self.panic.is_some() {
            return 0;
        }
        match catch_unwind(AssertUnwindSafe(|| self.read(outlets, stock))) {
            Ok(packets) => packets,
            Err(panic) => {
                self.panic = Some(panic);
                self.inlets.clear(); // what was handed over goes home, and no more comes
                outlets.forsake_own(stock);
                0
            }
        }
    }

    fn prepare_to_wait(&mut self) -> bool {
        // An ended pipe has nothing to wait for.
        let waits = |(_, inlet): &mut (u16, Consumer)| inlet.prepare_to_wait() || inlet.is_ended();
        self.inlets.iter_mut().fold(true, |all, inlet| all & waits(inlet))
    }

    fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        fds.extend(self.inlets.iter().map(|(_, inlet)| inlet).filter(|i| i.is_waiting()).map(Consumer::as_fd));
    }

    fn wake(&mut self) {
        for (_, inlet) in self.inlets.iter_mut().filter(|(_, inlet)| inlet.is_waiting()) {
            inlet.wait(Some(Duration::ZERO)); // takes the announcement back, and notices the end
        }
    }

    fn is_ended(&mut self) -> bool {
        self.inlets.iter_mut().all(|(_, inlet)| inlet.is_ended())
    }
}
