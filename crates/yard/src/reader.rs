//! A consumer's view of one ring: the pipes of all dispatchers under one name, and where the kernel steers the
//! rings that it takes from the kernel itself.
//!
//! # Order
//! Packets of one flow come in the order in which they came by their queue, as long as they come by one way. Where the
//! kernel steers, a packet that it marked goes through a dispatcher and comes by a pipe; one that follows it and that
//! the kernel steered may overtake it there. That is so within a conversation only for later fragments that come
//! before their first, and for packets that dissection in the kernel gives up on (`marked-…` counts them).

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use flowyard_mem::{Consumer, Packet, Wait};
use flowyard_port::DirectReader;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::readiness::Readiness;

/// The reading end of a ring. Owned by one consumer thread.
///
/// ```no_run
/// # fn consume(mut reader: flowyard::RingReader) {
/// use flowyard::mem::Wait;
/// loop {
///     while let Some(packet) = reader.next() {
///         println!("{} bytes, hash {:08x}", packet.len(), packet.slot().hash);
///     }
///     if reader.wait(None) == Wait::Ended {
///         break;
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct RingReader {
    ring: u16,
    consumers: Vec<Consumer>,
    /// What is taken from the kernel: one a port's part that steers there.
    direct: Vec<DirectReader>,
    /// The one read last, pipes first: packets are taken from one until it is empty or its turn is over.
    at: usize,
    /// Packets that may still be taken from it before the others have their turn.
    turn: u32,
    /// Made when it is first asked for.
    readiness: Option<Readiness>,
    /// To a yard of another process, which has the ring back when it is closed; last: what was read is returned before.
    pub(crate) connection: Option<OwnedFd>,
}

/// Times that a reader looks again before it sleeps: about a microsecond, as long as a batch may take
/// to come.
const SPINS: u32 = 64;

/// Packets taken from one pipe before the others have their turn.
const TURN: u32 = 64;
/// Longest sleep where packets come from the kernel: an interface may gain queues meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

impl RingReader {
    /// Of pipes, and of what is taken from the kernel.
    pub(crate) fn new(ring: u16, consumers: Vec<Consumer>, direct: Vec<DirectReader>) -> RingReader {
        RingReader { ring, consumers, direct, at: 0, turn: TURN, readiness: None, connection: None }
    }

    /// Of pipes that came from a stage of another process ([`Stage::hand_over`](crate::Stage::hand_over)): for a stage
    /// after it.
    pub fn of(ring: u16, consumers: Vec<Consumer>) -> RingReader {
        RingReader::new(ring, consumers, Vec::new())
    }

    /// Number of the ring.
    pub fn ring(&self) -> u16 {
        self.ring
    }

    /// The next packet of any dispatcher, or `None` when there is none now. Never blocks.
    #[allow(clippy::should_implement_trait)] // a lending iterator
    #[inline]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        let pipes = self.consumers.len();
        let count = pipes + self.direct.len();
        if count == 1 {
            return self.consumers[0].next();
        }
        if self.turn == 0 {
            self.move_on();
        }
        for _ in 0..count {
            let at = self.at;
            if at < pipes {
                if self.consumers[at].has_next() {
                    self.turn = self.turn.saturating_sub(1);
                    return self.consumers[at].next();
                }
            } else if self.direct[at - pipes].has_next() {
                self.turn = self.turn.saturating_sub(1);
                return self.direct[at - pipes].next();
            }
            self.move_on();
        }
        None
    }

    /// Lets the packet last taken go, and turns to the next way in.
    fn move_on(&mut self) {
        let pipes = self.consumers.len();
        match self.at.checked_sub(pipes) {
            None => self.consumers[self.at].let_go(),
            Some(at) => self.direct[at].let_go(),
        }
        self.at = if self.at + 1 < pipes + self.direct.len() { self.at + 1 } else { 0 };
        self.turn = TURN;
    }

    /// The pipe that the packet last taken came by, and its number among [`RingReader::consumers`]: for keeping
    /// packets longer ([`Consumer::keep`]). Not for readers that take packets from the kernel
    /// ([`RingReader::is_direct`]).
    ///
    /// # Panics
    /// The packet last taken came from the kernel, so it has no pipe.
    pub fn current(&mut self) -> (usize, &mut Consumer) {
        (self.at, &mut self.consumers[self.at])
    }

    /// Waits for packets: looks a few times, then sleeps.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Wait {
        if self.is_direct() {
            return RingReader::wait_any(std::slice::from_mut(self), timeout);
        }
        for _ in 0..SPINS {
            if self.has_next() {
                return Wait::Ready;
            }
            std::hint::spin_loop();
        }
        if let [consumer] = &mut self.consumers[..] {
            return consumer.wait(timeout);
        }
        self.wait_for_any(timeout)
    }

    /// As [`RingReader::wait`], for a thread that reads several rings: until any has packets, all have ended, or the
    /// time is over. One thread a core costs less than one a ring where cores are fewer.
    pub fn wait_any(readers: &mut [RingReader], timeout: Option<Duration>) -> Wait {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        loop {
            // Before looking for packets: what came before the end is seen.
            let ended = readers.iter_mut().flat_map(|reader| &mut reader.consumers).all(Consumer::is_ended);
            if readers.iter_mut().any(RingReader::has_next) {
                return Wait::Ready;
            }
            if ended {
                readers.iter_mut().for_each(RingReader::let_go);
                return Wait::Ended;
            }
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return Wait::TimedOut;
            }
            if sleep_on(readers, None, deadline) {
                // Takes announcements back, and wakeups out of their pipes.
                let states = readers.iter_mut().map(RingReader::poll);
                if states.fold(false, |ready, state| ready | (state == Wait::Ready)) {
                    return Wait::Ready;
                }
            }
        }
    }

    /// Lets the packet last taken go.
    fn let_go(&mut self) {
        self.consumers.iter_mut().for_each(Consumer::let_go);
        self.direct.iter_mut().for_each(DirectReader::let_go);
    }

    /// Whether there is a packet to take. Never blocks.
    pub fn has_next(&mut self) -> bool {
        self.consumers.iter_mut().any(Consumer::has_next) || self.direct.iter_mut().any(DirectReader::has_next)
    }

    fn wait_for_any(&mut self, timeout: Option<Duration>) -> Wait {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        loop {
            let state = self.poll();
            if state != Wait::TimedOut || deadline.is_some_and(|d| d <= Instant::now()) {
                return state;
            }
            self.sleep(None, deadline);
        }
    }

    /// Sleeps until a pipe has something or ends, `also` is readable, or the time is over; or not at all.
    /// [`RingReader::poll`] tells why, and takes the announcements back.
    pub(crate) fn sleep(&mut self, also: Option<BorrowedFd<'_>>, deadline: Option<Instant>) {
        sleep_on(std::slice::from_mut(self), also, deadline);
    }

    /// Looks at every pipe without waiting.
    pub(crate) fn poll(&mut self) -> Wait {
        let (mut ended, mut ready) = (true, false);
        for consumer in &mut self.consumers {
            let state = consumer.wait(Some(Duration::ZERO));
            ended &= state == Wait::Ended;
            ready |= state == Wait::Ready;
        }
        // After the pipes: once they have ended nothing more comes from the kernel.
        for direct in &mut self.direct {
            direct.let_go();
            ready |= direct.has_next();
        }
        match (ready, ended) {
            (true, _) => Wait::Ready,
            (false, true) => Wait::Ended,
            (false, false) => Wait::TimedOut,
        }
    }

    /// A descriptor for poll, epoll or an async runtime, one for all ways in: readable when there may be packets, or
    /// the ring may have ended, *after* [`RingReader::prepare_to_wait`] has answered true. A duplicate, the caller's to
    /// close; each call makes one more of the same. Nothing is to be read from it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use flowyard::{Yard, YardConfig, mem::Wait};
    /// use rustix::event::{PollFd, PollFlags, poll};
    ///
    /// let config = YardConfig { rings: 1, ..YardConfig::default() };
    /// let (yard, mut readers) = Yard::open(&config, &["gen:mix?packets=100".parse()?])?;
    /// let (running, mut ring, mut packets) = (yard.start()?, readers.remove(0), 0);
    /// let readable = ring.pollable()?;
    /// loop {
    ///     while ring.next().is_some() {
    ///         packets += 1;
    ///     }
    ///     if ring.prepare_to_wait() {
    ///         poll(&mut [PollFd::new(&readable, PollFlags::IN)], None)?; // beside other descriptors, or `.await`
    ///     }
    ///     if ring.wait(Some(Duration::ZERO)) == Wait::Ended {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(packets, 100);
    /// assert!(running.join().sums_agree());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn pollable(&mut self) -> std::io::Result<OwnedFd> {
        let readiness = match &mut self.readiness {
            Some(readiness) => readiness,
            none => none.insert(Readiness::new(self.consumers.len())?),
        };
        readiness.descriptor()
    }

    /// Lets the packet last taken go, and announces that the caller will sleep on [`RingReader::pollable`]. Answers
    /// false if there is no reason to: there are packets, or the ring has ended. After waking,
    /// [`RingReader::wait`] with no time takes the announcement back and says what there is.
    ///
    /// Where packets come from the kernel as well ([`RingReader::is_direct`]) an interface may gain queues meanwhile:
    /// look again every 50 ms.
    pub fn prepare_to_wait(&mut self) -> bool {
        let (mut asleep, mut any) = (true, false);
        for consumer in &mut self.consumers {
            // An ended pipe's wakeup stays readable: it is watched no more.
            let waits = consumer.prepare_to_wait();
            any |= waits;
            asleep &= waits || consumer.is_ended();
        }
        for direct in &mut self.direct {
            direct.let_go();
            asleep &= !direct.has_next();
        }
        if !(asleep && any) {
            self.poll();
            return false;
        }
        if let Some(readiness) = &mut self.readiness {
            let mut sockets = Vec::new();
            self.direct.iter().for_each(|direct| direct.sockets(&mut sockets));
            readiness.watch(&self.consumers, &sockets);
        }
        true
    }

    /// The pipes, one a dispatcher.
    pub fn consumers(&mut self) -> &mut [Consumer] {
        &mut self.consumers
    }

    /// Whether packets come from the kernel itself, too, and not by the pipes alone.
    pub fn is_direct(&self) -> bool {
        !self.direct.is_empty()
    }

    /// Leaves for good while a later consumer still holds packets of this ring.
    pub(crate) fn leave(self) {
        self.consumers.into_iter().for_each(Consumer::leave);
    }

    /// Takes the pipes out, for applications that poll them themselves. Of what comes from the kernel itself nothing
    /// is seen by that ([`RingReader::is_direct`]): have the yard relay it. A ring of a yard of another process stays this
    /// one's until it ends.
    pub fn into_consumers(mut self) -> Vec<Consumer> {
        self.connection.take().map(std::os::fd::IntoRawFd::into_raw_fd); // left open
        self.consumers
    }
}

/// Sleeps as [`RingReader::sleep`] does, for all of `readers`. Answers whether it may have been a pipe that ended it.
fn sleep_on(readers: &mut [RingReader], also: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> bool {
    let mut asleep = true;
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(2 * readers.len() + 1);
    let mut sockets = Vec::new();
    for reader in &mut *readers {
        for consumer in &mut reader.consumers {
            // An ended pipe's wakeup stays readable and would keep the poll from sleeping. One that ends
            // from now on is in the list: its last wakeup must not be missed.
            asleep &= consumer.prepare_to_wait() || consumer.is_ended();
        }
        reader.direct.iter_mut().for_each(DirectReader::let_go); // poll itself sees what has come meanwhile
        reader.direct.iter().for_each(|direct| direct.sockets(&mut sockets));
    }
    let waiting = readers.iter().flat_map(|reader| &reader.consumers).filter(|consumer| consumer.is_waiting());
    fds.extend(waiting.map(|consumer| PollFd::from_borrowed_fd(consumer.as_fd(), PollFlags::IN)));
    let pipes = fds.len();
    if !asleep || pipes == 0 {
        return true;
    }
    fds.extend(also.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    fds.extend(sockets.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    let longest = (!sockets.is_empty()).then_some(LONGEST_SLEEP);
    let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
    let left = left.into_iter().chain(longest).min();
    let timeout = left.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
    let _ = rustix::event::poll(&mut fds, timeout.as_ref()); // interrupted: look again
    fds[..pipes].iter().any(|fd| !fd.revents().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::{Geometry, Ledger, Region, Slot};

    #[test]
    fn a_busy_pipe_does_not_keep_the_others_waiting() {
        let geometry = Geometry::new(2048, 0, 1024).expect("geometry");
        let (region, mut stock) = Region::create("fair", geometry).expect("region");
        let mut ledger = Ledger::new(&region);
        let mut pipes = Vec::new();
        let mut consumers = Vec::new();
        for port in 0..3u8 {
            let (mut out, end) = ledger.open_pipe(256).expect("pipe");
            for _ in 0..256 {
                let slot = Slot { offset: 256, len: 4, total: 4, port, ..Slot::default() };
                out.send(&mut ledger, stock.take().expect("enough"), slot).expect("room");
            }
            out.commit();
            pipes.push(out);
            consumers.push(Consumer::attach_local(end).expect("attach"));
        }
        let mut reader = RingReader::new(0, consumers, Vec::new());
        let mut seen = [0; 3];
        for _ in 0..3 * TURN {
            seen[usize::from(reader.next().expect("768 were sent").slot().port)] += 1;
        }
        assert_eq!(seen, [TURN; 3]);
        while let Some(packet) = reader.next() {
            seen[usize::from(packet.slot().port)] += 1;
        }
        assert_eq!(seen, [256; 3]);
    }
}
