//! A dispatcher: the thread that owns some ports, its share of the buffers, and one pipe to every
//! ring.
//!
//! One turn: take home what consumers returned, move backlogs on, receive a batch from each port,
//! sort it (where the kernel has, read its word), write tags and slots, commit, wake who sleeps. A busy
//! dispatcher makes no system call of its own, and allocates nothing for packets in one buffer; an idle one sleeps on its ports and pipes.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowyard_kernel::{Answer, HEAD_BYTES};
use flowyard_mem::{Clock, Region, Stock, Tag, flags};
use flowyard_port::{Arrival, DirectCounts, DirectRing, Port, PortCounters, PortError, Progress, Received};
use flowyard_steer::{Classifier, Datagram, Decision, Frame, Glance, Hold, LinkType, Table, Verdict};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::counters::{Drop, Live, Report, RingCounters};
use crate::function::{Common, Gate, Item, Letter, Limits, Mailbox, Steer, Way, close};
use crate::outlets::{Outlets, Parcel, Segment, tag_words};
use crate::rings::RingStatus;
use crate::sorter::Sorter;
use crate::transmit::Numbered;

/// Packets received at a time: enough to share the cost of a turn, few enough to stay in cache.
const BATCH: usize = 64;
/// Packets between the one looked at and the one whose first bytes are fetched.
const LOOK_AHEAD: usize = 6;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Free buffers below which the longest backlog gives up its oldest.
const LOW_STOCK: usize = 2 * BATCH;
/// Turns without work before the dispatcher sleeps.
const SPINS: u32 = 200;
/// Of so many turns without work, one looks at the clock: it costs as much as a turn that finds nothing.
const UNLOOKED: u32 = 32;
/// Longest sleep, so that a stop is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// The same where readers take packets from the kernel themselves: so often their counts are shown, and what comes
/// for one that is gone is taken away.
const LONGEST_SLEEP_BESIDE: Duration = Duration::from_millis(5);
/// How often it is looked whether consumers are still there.
const CONSUMER_CHECK: Duration = Duration::from_millis(100);
/// How long consumers may take to empty their rings once the yard was told to stop.
const STOP_GRACE: Duration = Duration::from_millis(300);
/// Bytes of headers copied out of a region that foreign processes may write.
const HEADER_COPY_BYTES: usize = 2048;

/// A port and what is remembered of it.
pub(crate) struct Source {
    port: Box<dyn Port>,
    number: u16,
    sorter: Sorter<Parcel>,
    /// The kernel has steered its packets: the head of the tag lies before each.
    steered: bool,
    ended: bool,
    /// It found no free buffer when it was last asked: its descriptors say nothing until some come home.
    starved: bool,
    /// Packet time of the last packet, and by which clock.
    last: (u64, Clock),
}

impl Source {
    pub(crate) fn new(port: Box<dyn Port>, number: u16, sorter: Sorter<Parcel>) -> Source {
        let steered = port.kernel().is_some();
        Source { port, number, sorter, steered, ended: false, starved: false, last: (0, Clock::None) }
    }

    /// The packet time of what has arrived. A card's own clock may stand anywhere, and may be told of some packets only:
    /// these are judged by the time of day, which is asked for once a batch (`day_ns`, 0 before).
    #[inline]
    fn packet_time(arrival: &Arrival, day_ns: &mut u64) -> (u64, Clock) {
        if arrival.clock != Clock::Hardware {
            return (arrival.time_ns, arrival.clock);
        }
        if *day_ns == 0 {
            *day_ns = realtime_ns();
        }
        (*day_ns, Clock::Realtime)
    }

    /// Packet time now: the last packet's, or the time of day where packets carry that. So files are
    /// judged by their packets alone, and a live port that falls silent still lets go what it holds.
    fn now_ns(&self) -> u64 {
        match self.last {
            (time_ns, Clock::Realtime) if self.port.info().live => time_ns.max(realtime_ns()),
            (time_ns, _) => time_ns,
        }
    }
}

pub(crate) struct Dispatcher {
    pub(crate) region: Region,
    pub(crate) stock: Stock,
    pub(crate) sources: Vec<Source>,
    /// The rings of its ports whose readers take from the kernel themselves.
    direct: Vec<Arc<DirectRing>>,
    pub(crate) outlets: Outlets,
    pub(crate) live: Arc<Live>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) batch: Vec<Received>,
    pub(crate) scratch: Box<[u8; HEADER_COPY_BYTES]>,
    pub(crate) errors: Vec<String>,
    pub(crate) received: (u64, u64),
    /// Where packets that do not go straight are gathered before they go on, and pass the user's functions.
    gate: Box<Gate>,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// Whose letters nobody reads any more, whatever ended it: a panic as well.
struct ClosedAtTheEnd(Arc<Mailbox>);

impl std::ops::Drop for ClosedAtTheEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What one turn found to do.
struct Turn {
    busy: bool,
    /// Some source gave a whole batch: more is to be expected at once.
    full: bool,
    /// Nanoseconds until a port that knows has something.
    wait_ns: Option<u64>,
    /// Whether anything is left that can still produce packets.
    open: bool,
}

/// What else the thread of a dispatcher does: nothing, or a worker's reading of its own rings.
pub(crate) trait Beside {
    /// Whether it does anything: then a turn takes what that takes, and nobody is left asleep for some turns.
    const READS: bool;
    /// Reads what there is. Answers how many packets.
    fn turn(&mut self, outlets: &mut Outlets, stock: &mut Stock) -> usize;
    /// Announces sleep. Answers false if there is something to read: then do not sleep.
    fn prepare_to_wait(&mut self) -> bool;
    /// What to sleep on, once sleep was announced.
    fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>);
    /// Takes the announcement back.
    fn wake(&mut self);
    /// Whether nothing more comes from other dispatchers.
    fn is_ended(&mut self) -> bool;
}

impl Beside for () {
    const READS: bool = false;
    fn turn(&mut self, _: &mut Outlets, _: &mut Stock) -> usize {
        0
    }
    fn prepare_to_wait(&mut self) -> bool {
        true
    }
    fn fds<'a>(&'a self, _: &mut Vec<BorrowedFd<'a>>) {}
    fn wake(&mut self) {}
    fn is_ended(&mut self) -> bool {
        true
    }
}

impl Dispatcher {
    pub(crate) fn new(
        region: Region,
        stock: Stock,
        sources: Vec<Source>,
        direct: Vec<Arc<DirectRing>>,
        outlets: Outlets,
        common: Common,
        stop: Arc<AtomicBool>,
    ) -> Dispatcher {
        Dispatcher {
            region,
            stock,
            sources,
            direct,
            outlets,
            live: Arc::new(Live::default()),
            stop,
            batch: Vec::with_capacity(4 * BATCH),
            scratch: Box::new([0; HEADER_COPY_BYTES]),
            errors: Vec::new(),
            received: (0, 0),
            gate: Box::new(Gate::new(&common)),
            mailbox: Arc::default(),
        }
    }

    /// The ways out of its own ports, by number; one each.
    pub(crate) fn transmitters(&mut self) -> Result<Vec<Numbered>, PortError> {
        let each = self.sources.iter_mut().map(|s| Ok(s.port.transmitter()?.map(|way| (s.number, way))));
        each.filter_map(Result::transpose).collect()
    }

    /// Puts a function on a seat (0 the yard's, then one a group), and answers the old one.
    pub(crate) fn seat(&mut self, seat: usize, new: Option<Box<dyn Steer>>, limits: Limits) -> Option<Box<dyn Steer>> {
        if new.is_some() && !self.gate.was_used() {
            self.sources.iter_mut().for_each(|source| source.sorter.memory().defer());
        }
        self.gate.replace(seat, new, limits)
    }

    #[inline]
    fn read_letters(&mut self) {
        while let Some(letter) = self.mailbox.take() {
            self.answer(letter);
        }
    }

    /// Does what was asked of it, at a batch boundary.
    #[cold]
    fn answer(&mut self, letter: Letter) {
        // Who asked may have given up waiting: nothing to be done about it.
        match letter {
            Letter::Replace { seat, new, limits, old } => {
                if let Err(unheard) = old.send(self.seat(seat, new, limits)) {
                    close(unheard.0);
                }
            }
            Letter::Control { seat, request, reply } => {
                drop(reply.send(self.gate.control(seat, &request)));
            }
            // Unanswered where all is over here: the others go on.
            Letter::Seat { .. } if self.outlets.has_ended() => {}
            Letter::Seat { outlet, tenant, pipe, seated } => {
                let done = self.outlets.seat(outlet, tenant, pipe, &mut self.stock);
                if seated.send(done).is_err() && done {
                    self.outlets.unseat(tenant.number, &mut self.stock);
                }
            }
            Letter::Unseat { tenant } => self.outlets.unseat(tenant, &mut self.stock),
            Letter::Release { tenant } => self.outlets.release(tenant, &mut self.stock),
            Letter::Reweigh { group, table, done } => {
                self.reweigh(group, table);
                let _ = done.send(());
            }
            Letter::Rings { reply } => {
                drop(reply.send(self.rings()));
            }
            Letter::Counts { seat, reply } => {
                drop(reply.send(self.gate.counts(seat)));
            }
        }
    }

    /// Balances a group by another table.
    fn reweigh(&mut self, group: usize, table: Arc<Table>) {
        if group == 0 {
            let Some(classifier) = self.sources.first().map(|source| source.sorter.classifier()) else { return };
            let classifier = Arc::new(Classifier { table: Table::clone(&table), ..Classifier::clone(classifier) });
            self.sources.iter_mut().for_each(|source| source.sorter.set_classifier(classifier.clone()));
        }
        self.outlets.set_table(group, table);
    }

    /// How the rings are, as far as this dispatcher goes.
    fn rings(&self) -> Vec<RingStatus> {
        let mut rings = self.outlets.status();
        for ring in &self.direct {
            count_direct(&mut rings[usize::from(ring.ring())].counters, &ring.glance());
        }
        rings
    }

    /// Shows what the sorter of source `at` let go to the functions, if there are any, and delivers it.
    #[inline]
    fn flush(&mut self, at: usize) {
        let memory = self.sources[at].sorter.memory();
        let (region, outlets, stock) = (&self.region, &mut self.outlets, &mut self.stock);
        self.gate.flush(&mut Way { region, outlets, stock, memory });
        memory.publish();
    }

    /// Runs until every source has ended or the yard is told to stop; then delivers what waits, says
    /// to consumers that this was all, takes the buffers home and closes the ports.
    pub(crate) fn run(self) -> Report {
        self.run_beside(&mut ())
    }

    /// The same, and reads after each turn what there is beside; to the end of that, too.
    pub(crate) fn run_beside<B: Beside>(mut self, beside: &mut B) -> Report {
        let _closed = ClosedAtTheEnd(self.mailbox.clone());
        self.outlets.check_consumers(&mut self.stock); // rings that are for others have nobody yet
        let (mut idle_turns, mut unlooked) = (0, 0);
        let mut slept = false;
        let mut checked = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            self.read_letters();
            self.gate.tick(slept);
            let mut turn = self.turn::<B>();
            turn.busy |= beside.turn(&mut self.outlets, &mut self.stock) > 0;
            self.live.turned();
            if !turn.open {
                break;
            }
            idle_turns = if turn.busy { 0 } else { idle_turns + 1 };
            slept = idle_turns > SPINS;
            if slept {
                self.sleep(turn.wait_ns, beside);
            } else if idle_turns > 0 {
                std::hint::spin_loop();
            }
            // Looking at the clock is cheap next to a turn only when there is little to do or something
            // is stuck.
            unlooked += u32::from(idle_turns > 0);
            let looks = unlooked >= UNLOOKED || slept || self.outlets.backlog() > 0;
            if looks && checked.elapsed() > CONSUMER_CHECK {
                checked = Instant::now();
                self.outlets.check_consumers(&mut self.stock);
            }
            if looks {
                unlooked = 0;
            }
        }
        self.finish(beside)
    }

    /// Ends it where it is, having received nothing.
    pub(crate) fn end(self) -> Report {
        let _closed = ClosedAtTheEnd(self.mailbox.clone());
        self.finish(&mut ())
    }

    /// Never inlined: instructions are counted by its name.
    #[cfg(feature = "bench")]
    #[inline(never)]
    pub(crate) fn turn_by_hand<B: Beside>(&mut self, beside: &mut B) -> bool {
        self.gate.tick(false);
        let turn = self.turn::<B>();
        beside.turn(&mut self.outlets, &mut self.stock);
        turn.open
    }

    #[cfg(feature = "bench")]
    pub(crate) fn replace_by_hand(
        &mut self,
        function: Option<Box<dyn crate::function::Steer>>,
    ) -> Option<Box<dyn crate::function::Steer>> {
        let none = function.is_none();
        let old = self.gate.replace(0, function, crate::function::Limits::default());
        if none {
            self.gate.forget();
        }
        old
    }

    #[cfg(feature = "bench")]
    pub(crate) fn end_by_hand(self, beside: &mut impl Beside) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.finish(beside)
    }

    fn turn<B: Beside>(&mut self) -> Turn {
        let mut turn = Turn { busy: false, full: false, wait_ns: None, open: false };
        turn.busy |= self.outlets.reclaim(&mut self.stock) > 0;
        turn.busy |= self.outlets.drain() > 0;
        for at in 0..self.sources.len() {
            if self.sources[at].ended {
                continue;
            }
            turn.open = true;
            let can_wait = self.sources[at].port.info().can_wait;
            if can_wait && self.outlets.must_wait(self.stock.len() < LOW_STOCK) {
                continue; // a source that can wait does, until all rings have room
            }
            if !can_wait && self.stock.len() < LOW_STOCK {
                self.outlets.give_up(&mut self.stock, LOW_STOCK);
            }
            self.receive(at, &mut turn);
        }
        let all = self.outlets.commit(B::READS || !turn.full);
        self.direct.iter().for_each(|ring| ring.discard());
        if all {
            self.show();
        }
        turn
    }

    /// Lets others see how far it is.
    fn show(&self) {
        let (mut received, mut totals) = (self.received, self.outlets.totals());
        for DirectCounts { packets, bytes, unread, unread_bytes, .. } in self.direct.iter().map(|ring| ring.glance()) {
            received = (received.0 + packets + unread, received.1 + bytes + unread_bytes);
            totals = (totals.0 + packets, totals.1 + unread);
        }
        self.live.store(received, totals, self.outlets.asides().0.iter().sum());
    }

    fn receive(&mut self, at: usize, turn: &mut Turn) {
        let source = &mut self.sources[at];
        let progress = source.port.receive(&mut self.stock, &mut self.batch, BATCH);
        source.starved = matches!(progress, Ok(Progress::NoBuffers));
        match progress {
            Ok(Progress::Ready) => {}
            Ok(Progress::Idle { wait_ns }) => {
                turn.wait_ns = [turn.wait_ns, wait_ns].into_iter().flatten().min();
            }
            Ok(Progress::NoBuffers) => {
                if self.batch.is_empty() && self.outlets.backlog() == 0 && self.outlets.outstanding() == 0 {
                    // Only fragments that wait hold buffers: the oldest has waited long enough.
                    source.sorter.give_up_oldest(&mut |p, d: &Decision, r| self.gate.queue(p, d, r));
                }
            }
            Ok(Progress::Ended) => source.ended = true,
            Err(error) => {
                self.errors.push(error.to_string());
                source.ended = true;
            }
        }
        if !self.batch.is_empty() {
            turn.busy = true;
            turn.full |= self.batch.len() >= BATCH;
            self.sort_batch(at);
        }
        let source = &mut self.sources[at];
        if source.sorter.waiting() > 0 {
            let now_ns = source.now_ns();
            let mut emit = |p, d: &Decision, r| self.gate.queue(p, d, r);
            source.sorter.expire(now_ns, &mut emit);
            source.sorter.refresh(now_ns, &mut emit);
            turn.wait_ns = Some(turn.wait_ns.unwrap_or(u64::MAX).min(10_000_000));
        }
        if source.ended {
            source.sorter.finish(|p, d, r| self.gate.queue(p, d, r));
        }
        self.flush(at);
    }

    /// Sorts what was received, packet by packet. Those of common kinds go straight to their rings, unless a function
    /// is to see them, the kernel has steered them, or fragments wait; the others are gathered, and go before the next that
    /// goes straight, or at the end of the batch.
    fn sort_batch(&mut self, at: usize) {
        let straight = !self.sources[at].steered
            && self.outlets.has_one_group()
            && self.gate.may_be_passed_by()
            && self.sources[at].sorter.classifier().glancer().is_some();
        let mut batch = std::mem::take(&mut self.batch);
        batch.iter().take(LOOK_AHEAD).for_each(|soon| fetch(&self.region, soon));
        let (mut done, mut day_ns) = (0, 0);
        loop {
            let mut common = true;
            if straight && self.sources[at].sorter.waiting() == 0 {
                self.flush(at); // what was gathered came before
                let (passed, glanced) = self.pass(at, &mut batch[done..], &mut day_ns);
                (done, common) = (done + passed, !glanced);
            }
            let Some(rest) = batch.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            if let Some(soon) = rest.get(LOOK_AHEAD) {
                fetch(&self.region, soon);
            }
            done += self.sort(at, rest, common, &mut day_ns);
        }
        batch.clear();
        self.batch = batch;
        self.flush(at);
    }

    /// Sends packets of common kinds straight to their rings, up to the first of another kind; answers how many, and
    /// whether it was a glance that said so of the next. One
    /// loop, out of line: what it needs of so large a struct stays in registers.
    #[inline(never)]
    fn pass(&mut self, at: usize, batch: &mut [Received], day_ns: &mut u64) -> (usize, bool) {
        let Dispatcher { region, stock, sources, outlets, scratch, received, .. } = self;
        let source = &mut sources[at];
        let (Some(glancer), port) = (source.sorter.classifier().glancer(), source.number) else {
            return (0, false);
        };
        let hash_version = outlets.hash_version();
        let (mut bytes, mut glance, mut glanced) = (0, Glance::default(), false);
        let (mut left, mut rest) = (batch.len(), &mut *batch);
        while let Some((one, behind)) = std::mem::take(&mut rest).split_first_mut() {
            if let Some(soon) = behind.get(LOOK_AHEAD - 1) {
                fetch(region, soon);
            }
            if one.more {
                break;
            }
            let Some(mut opened) = region.open(&mut one.buffer) else { break };
            let seen = opened.peek(one.offset.into(), one.segment_len.into(), &mut scratch[..]);
            if !glancer.glance(&frame(seen, &one.arrival), &mut glance) {
                glanced = true;
                break;
            }
            opened.set_tag_words(tag_words(&glance, &one.arrival, port, hash_version));
            bytes += u64::from(one.arrival.len);
            outlets.deliver_glanced(one, port, &glance, stock);
            (left, rest) = (behind.len(), behind);
        }
        let passed = batch.len() - left;
        if let Some(last) = passed.checked_sub(1) {
            source.last = Source::packet_time(&batch[last].arrival, day_ns);
        }
        *received = (received.0 + passed as u64, received.1 + bytes);
        (passed, glanced)
    }

    /// Sorts the first packet of `batch`: it is gathered, or waits. It may be `common`, or a glance was not enough for it.
    /// Answers how many entries it has.
    fn sort(&mut self, at: usize, batch: &mut [Received], common: bool, day_ns: &mut u64) -> usize {
        let source = &mut self.sources[at];
        let [head, further @ ..] = batch else { return 0 };
        let first = Segment::of(head);
        let mut rest = Vec::new();
        if head.more {
            rest = self.outlets.list();
            for next in further {
                rest.push(Segment::of(next));
                if !next.more {
                    break;
                }
            }
        }
        let entries = 1 + rest.len();
        self.received.0 += 1;
        self.received.1 += u64::from(head.arrival.len);
        source.last = Source::packet_time(&head.arrival, day_ns);
        let now_ns = source.last.0;
        let mut parcel = Parcel { first, rest, arrival: head.arrival, port: source.number, now_ns, user: 0 };
        if source.steered {
            match steered(&self.region, &parcel.first, source.sorter.classifier().table.rings()) {
                Ok(tag) => {
                    self.outlets.deliver_steered(&mut parcel, tag, &mut self.stock);
                    return entries;
                }
                Err(user) => parcel.user = user,
            }
        }
        let item = self.gate.begin(parcel);
        let wait = look(&self.region, &mut source.sorter, item, common, now_ns, &mut self.scratch[..]);
        if (wait.is_some() || source.sorter.waiting() > 0)
            && let Some(Item { parcel, decision, .. }) = self.gate.take_back()
        {
            let verdict = match wait {
                None => Verdict::Ring(decision),
                Some(datagram) => Verdict::Hold(Hold { datagram, fallback: decision }),
            };
            source.sorter.settle(&verdict, now_ns, parcel, |p, d, r| self.gate.queue(p, d, r));
        }
        entries
    }

    /// Sleeps until a port or a pipe has something, at most `wait_ns`.
    fn sleep(&mut self, wait_ns: Option<u64>, beside: &mut impl Beside) {
        let most = if self.direct.is_empty() { LONGEST_SLEEP } else { LONGEST_SLEEP_BESIDE };
        let longest = wait_ns.map_or(most, Duration::from_nanos).min(most);
        if longest.is_zero() {
            return;
        }
        let asleep = self.outlets.sleep() & beside.prepare_to_wait();
        if asleep {
            let timeout = Timespec { tv_sec: 0, tv_nsec: longest.as_nanos() as i64 };
            // A sleeping dispatcher may allocate: this is off the packet path.
            let mut fds: Vec<PollFd<'_>> = Vec::new();
            for source in self.sources.iter().filter(|s| !s.ended && !s.starved) {
                fds.extend(source.port.fds().into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            }
            let ours = self.outlets.fds().chain(self.mailbox.bell());
            let mut theirs = Vec::new();
            beside.fds(&mut theirs);
            fds.extend(ours.chain(theirs).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            // Interrupted or failed: a short sleep; the next turn looks again.
            let _ = rustix::event::poll(&mut fds, Some(&timeout));
        }
        self.outlets.wake();
        beside.wake();
        if asleep {
            self.outlets.check_consumers(&mut self.stock); // drains wakeup bytes as well
        }
    }

    fn finish(mut self, beside: &mut impl Beside) -> Report {
        for at in 0..self.sources.len() {
            self.sources[at].sorter.finish(|p, d, r| self.gate.queue(p, d, r));
            self.flush(at);
        }
        if !self.direct.is_empty() {
            self.sources.iter_mut().for_each(|source| source.port.halt());
        }
        self.outlets.check_consumers(&mut self.stock);
        self.outlets.commit(true);
        beside.turn(&mut self.outlets, &mut self.stock);
        // What waits goes out as consumers make room: for as long as it takes, unless told to stop.
        let mut told = None;
        self.settle(&mut told, beside, false, |dispatcher, _| dispatcher.outlets.backlog() > 0);
        self.outlets.give_up_all(Drop::Shutdown, &mut self.stock);
        self.outlets.end();
        // Readers that hear the end have taken before what the kernel had for them.
        let reads = |ring: &Arc<DirectRing>| {
            ring.discard();
            !ring.is_idle()
        };
        self.settle(&mut told, beside, true, |dispatcher, beside| {
            dispatcher.outlets.outstanding() > 0 || dispatcher.direct.iter().any(reads) || !beside.is_ended()
        });
        self.close()
    }

    /// Takes buffers home and moves backlogs on while `pending` says so, the yard is not told to stop,
    /// or has not been for long; or, if `to_the_end`, others may still hand over what they have counted as delivered.
    fn settle<B: Beside>(
        &mut self,
        told: &mut Option<Instant>,
        beside: &mut B,
        to_the_end: bool,
        pending: impl Fn(&Dispatcher, &mut B) -> bool,
    ) {
        let (mut turns, mut checked) = (0, Instant::now());
        while pending(self, beside) {
            let over =
                self.stop.load(Ordering::Relaxed) && told.get_or_insert_with(Instant::now).elapsed() > STOP_GRACE;
            if over && (!to_the_end || beside.is_ended()) {
                return;
            }
            if checked.elapsed() > CONSUMER_CHECK {
                checked = Instant::now();
                self.outlets.check_consumers(&mut self.stock);
            }
            self.read_letters();
            self.live.turned();
            let home = self.outlets.reclaim(&mut self.stock);
            let moved = self.outlets.drain();
            self.outlets.commit(true);
            if beside.turn(&mut self.outlets, &mut self.stock) + moved + home > 0 {
                turns = 0;
            } else {
                turns += 1;
            }
            if turns > SPINS {
                // What others hand over wakes it.
                let longest_ns = beside.is_ended().then_some(1_000_000);
                self.sleep(longest_ns, beside);
            }
        }
    }

    fn close(mut self) -> Report {
        let sent = self.outlets.close_ways(&mut self.stock);
        self.errors.extend(sent.errors);
        let (asides, copies) = self.outlets.asides();
        let counted = self.gate.was_used().then(|| self.gate.all_counts());
        let mut report = Report {
            rings: self.outlets.counters(),
            asides,
            copies,
            function: counted.as_ref().map(|(counts, _)| *counts),
            own: counted.map(|(_, own)| own).unwrap_or_default(),
            transmitted: sent.ports,
            no_such_port: sent.no_such_port,
            violations: self.outlets.violations(),
            errors: self.errors,
            ..Report::default()
        };
        for source in self.sources {
            let name = source.port.info().name.clone();
            let counts = source.sorter.counts();
            let mut port = source.port;
            let last = port.counters();
            let counters: PortCounters = match port.close(&mut self.stock) {
                Ok(counters) => counters,
                Err(error) => {
                    report.errors.push(error.to_string());
                    last
                }
            };
            report.merge(Report { ports: vec![(name, counters)], sorter: counts, ..Report::default() });
        }
        // Once their ports are closed: from then on readers take nothing more from the kernel.
        for ring in &self.direct {
            count_direct(&mut report.rings[usize::from(ring.ring())], &ring.counts());
        }
        report.buffers_missing = (self.stock.capacity() - self.stock.len()) as u64;
        let bytes = report.ports.iter().map(|(_, counters)| counters.bytes).sum();
        self.live.turns.store(Live::ENDED, Ordering::Relaxed);
        self.live.store((report.received(), bytes), (report.delivered(), report.dropped()), report.aside());
        report
    }
}

/// Counts what a ring's reader took from the kernel itself, and what came when it was gone.
fn count_direct(ring: &mut RingCounters, direct: &DirectCounts) {
    ring.packets += direct.packets;
    ring.bytes += direct.bytes;
    ring.dropped[Drop::ConsumerGone as usize] += direct.unread;
}

#[inline]
fn look(
    region: &Region,
    sorter: &mut Sorter<Parcel>,
    Item { parcel: Parcel { first, arrival, .. }, decision, .. }: &mut Item,
    common: bool,
    now_ns: u64,
    scratch: &mut [u8],
) -> Option<Datagram> {
    let bytes = region.peek(&first.buffer, first.offset.into(), first.len.into(), scratch);
    let frame = frame(bytes, arrival);
    if common {
        sorter.look_into(&frame, now_ns, &mut (), decision)
    } else {
        sorter.look_uncommon_into(&frame, now_ns, decision)
    }
}

/// Fetches the lines in which a packet's headers are: the first, and the next if it is so long, for the headers in a tunnel.
#[inline(always)]
fn fetch(region: &Region, soon: &Received) {
    let offset = usize::from(soon.offset);
    region.prefetch(&soon.buffer, offset);
    region.prefetch(&soon.buffer, offset + usize::from(soon.segment_len).min(LINE));
}

/// A packet's bytes with what its port knows.
#[inline(always)]
fn frame<'a>(bytes: &'a [u8], arrival: &Arrival) -> Frame<'a> {
    let stripped_vlan = (arrival.flags & flags::VLAN_STRIPPED != 0).then_some(arrival.stripped_vlan);
    Frame { bytes, link: LinkType(arrival.link), stripped_vlan, wire_len: arrival.wire_len }
}

/// What the kernel says of a packet; where it leaves that to us, the user's word alone. A foreign process may
/// write the region: a ring that there is not leaves it to us as well.
#[inline]
fn steered(region: &Region, first: &Segment, rings: u16) -> Result<Tag, u64> {
    let mut copy = [0; HEAD_BYTES];
    let at = usize::from(first.offset).checked_sub(HEAD_BYTES).ok_or(0u64)?;
    let head = region.peek(&first.buffer, at, HEAD_BYTES, &mut copy).first_chunk().ok_or(0u64)?;
    match Answer::read(head) {
        Answer::Ring(tag) if tag.ring < rings => Ok(tag),
        Answer::Ring(tag) | Answer::Marked(_, tag) => Err(tag.user),
    }
}

fn realtime_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_s_own_clock_ages_nothing() {
        let arrival = |time_ns, clock| Arrival { time_ns, clock, ..Arrival::default() };
        let mut day_ns = 0;
        for clock in [Clock::Realtime, Clock::Recorded, Clock::Generated] {
            assert_eq!(Source::packet_time(&arrival(7, clock), &mut day_ns), (7, clock));
        }
        assert_eq!(day_ns, 0, "nobody asked");
        let day = Source::packet_time(&arrival(7, Clock::Hardware), &mut day_ns);
        assert!(day.0 > 1_700_000_000_000_000_000 && day.1 == Clock::Realtime, "{day:?}");
        assert_eq!(Source::packet_time(&arrival(1 << 62, Clock::Hardware), &mut day_ns), day, "once a batch");
    }
}
