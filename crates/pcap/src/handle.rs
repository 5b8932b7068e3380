//! A `pcap_t` of ours: what was asked for, and once it is activated, a ring.
//!
//! Used by one thread at a time, but for [`Handle::break_loop`], which may come from a signal handler, and the counts.
//! Callbacks run without the lock: they may ask the handle for its counts, its error, or to stop.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use flowyard::attach::{Attach, AttachError, End};
use flowyard::mem::Wait;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::live::{Counts, Live, Taken};
use crate::pcap_h::*;
use crate::shared::{ErrorText, HeaderPlace};

/// How long a handle waits, when it is activated, for a packet that tells the link type.
const FIRST_PACKET: Duration = Duration::from_millis(100);

/// What a program may set before it activates a handle.
#[derive(Debug, Clone)]
pub struct Settings {
    pub snaplen: c_int,
    pub timeout_ms: c_int,
    pub nano: bool,
    pub rfmon: bool,
}

/// One ring, wanted or attached to.
pub struct Handle {
    ring: String,
    /// Rung to end a wait.
    bell: OwnedFd,
    stop: AtomicBool,
    nonblocking: AtomicBool,
    pub counts: Counts,
    pub error: ErrorText,
    pub header: HeaderPlace,
    /// The descriptor to select on, or -1: never changes once it is there.
    selectable: AtomicI32,
    state: Mutex<State>,
}

/// What the thread that uses a handle has of it.
pub struct State {
    pub settings: Settings,
    pub live: Option<Live>,
}

/// What reading came to.
pub enum Outcome {
    Packet(Taken),
    /// None came in time.
    Nothing,
    /// `pcap_breakloop` was called.
    Broken,
    /// The yard has ended in order.
    Ended,
    /// An error, which the handle's text tells.
    Failed,
}

impl Handle {
    /// Of a ring by name; nothing is attached to yet.
    pub fn new(ring: &str) -> Result<Handle, String> {
        Attach::to(ring).map_err(|e| e.to_string())?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = eventfd(0, flags).map_err(|e| format!("cannot make an event for ring {ring}: {e}"))?;
        let settings = Settings { snaplen: MOST_BYTES, timeout_ms: 0, nano: false, rfmon: false };
        Ok(Handle {
            ring: ring.into(),
            bell,
            stop: AtomicBool::new(false),
            nonblocking: AtomicBool::new(false),
            counts: Counts::default(),
            error: ErrorText::default(),
            header: HeaderPlace::default(),
            selectable: AtomicI32::new(-1),
            state: Mutex::new(State { settings, live: None }),
        })
    }

    /// The lock; `None`, with the error said, while another call has it.
    pub fn state(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.error.set(&format!("another thread or signal handler uses ring {} now", self.ring));
                None
            }
        }
    }

    /// Says what went wrong; answers `PCAP_ERROR`.
    pub fn fail(&self, why: &str) -> c_int {
        self.error.set(why);
        ERROR
    }

    /// Does something with the ring; if it is not activated says so.
    pub fn with_live(&self, then: impl FnOnce(&mut Live, &Settings) -> c_int) -> c_int {
        let Some(mut state) = self.state() else { return ERROR };
        let State { settings, live } = &mut *state;
        match live {
            Some(live) => then(live, settings),
            None => {
                self.error.set(&format!("ring {} is not activated: call pcap_activate first", self.ring));
                ERROR_NOT_ACTIVATED
            }
        }
    }

    /// Changes what may be set before it is activated.
    pub fn set(&self, change: impl FnOnce(&mut Settings) -> c_int) -> c_int {
        let Some(mut state) = self.state() else { return ERROR };
        if state.live.is_some() {
            self.error.set(&format!("ring {} is activated: set this before pcap_activate", self.ring));
            return ERROR_ACTIVATED;
        }
        change(&mut state.settings)
    }

    /// `pcap_activate`.
    pub fn activate(&self) -> c_int {
        let Some(mut state) = self.state() else { return ERROR };
        if state.live.is_some() {
            self.error.set(&format!("ring {} is activated already", self.ring));
            return ERROR_ACTIVATED;
        }
        if state.settings.rfmon {
            self.error.set(&format!("ring {} has no monitor mode: that is a matter of the yard's ports", self.ring));
            return ERROR_RFMON_NOTSUP;
        }
        let attached = match Attach::to(&self.ring).and_then(|ring| ring.now()) {
            Ok(attached) => attached,
            Err(why) => {
                self.error.set(&why.to_string());
                return match why {
                    AttachError::Reach { error, .. } if error.kind() == std::io::ErrorKind::PermissionDenied => {
                        ERROR_PERM_DENIED
                    }
                    AttachError::Reach { .. } => ERROR_NO_SUCH_DEVICE,
                    _ => ERROR,
                };
            }
        };
        match Live::new(attached, &state.settings, FIRST_PACKET) {
            Ok(live) => {
                self.selectable.store(live.selectable().as_raw_fd(), Ordering::Relaxed); // a number on its own
                state.live = Some(live);
                0
            }
            Err(why) => self.fail(&why),
        }
    }

    /// The descriptor to select on; from now on the ring is kept ready for that.
    pub fn selectable(&self) -> c_int {
        if let Ok(mut state) = self.state.try_lock()
            && let Some(live) = &mut state.live
        {
            live.be_selectable();
        }
        self.selectable.load(Ordering::Relaxed)
    }

    /// Reading ends as soon as it can. From any thread, or a signal handler: takes no lock and allocates nothing.
    pub fn break_loop(&self) {
        // The bell first: who hears it before the flag is set looks again at once, and who sees the flag empties the bell.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it was to be ended; that is forgotten.
    pub fn is_broken(&self) -> bool {
        if !self.stop.swap(false, Ordering::Relaxed) {
            return false;
        }
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        true
    }

    pub fn is_to_break(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed) // a flag on its own
    }

    pub fn set_nonblocking(&self, on: bool) {
        self.nonblocking.store(on, Ordering::Relaxed);
    }

    /// The next packet that the filter lets through, waiting for it as the handle's settings say, if at all.
    pub fn read(&self, may_wait: bool) -> Outcome {
        let Some(mut state) = self.state() else { return Outcome::Failed };
        let State { settings, live: Some(live) } = &mut *state else {
            self.error.set(&format!("ring {} is not activated: call pcap_activate first", self.ring));
            return Outcome::Failed;
        };
        let wait = may_wait && !self.is_nonblocking();
        let limit = (settings.timeout_ms > 0).then(|| Duration::from_millis(settings.timeout_ms.unsigned_abs().into()));
        let mut deadline = None;
        loop {
            if self.is_to_break() {
                return Outcome::Broken;
            }
            if let Some(taken) = live.next(settings, &self.counts, &self.stop) {
                return Outcome::Packet(taken);
            }
            if self.is_to_break() {
                return Outcome::Broken;
            }
            match live.ring.wait(Some(Duration::ZERO)) {
                Wait::Ready => continue,
                Wait::Ended => return self.ended(live.ring.end()),
                Wait::TimedOut => {}
            }
            let now = Instant::now();
            if deadline.is_none() {
                deadline = limit.and_then(|limit| now.checked_add(limit));
            }
            if !wait || deadline.is_some_and(|deadline| deadline <= now) {
                return Outcome::Nothing;
            }
            if live.ring.prepare_to_wait() {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(now));
                let left = left.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
                let fds = [live.readable.as_fd(), self.bell.as_fd()];
                // Interrupted: a signal handler may have called for the end.
                let _ = poll(&mut fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)), left.as_ref());
            }
        }
    }

    fn ended(&self, end: End) -> Outcome {
        match end {
            End::InOrder => Outcome::Ended,
            End::Lost => {
                let why = "is gone without a word: killed, or crashed; open the ring again once it is back";
                self.error.set(&format!("the yard of ring {} {why}", self.ring));
                Outcome::Failed
            }
        }
    }

    /// A packet that stays when the descriptor is put in order.
    pub fn to_stay(&self, taken: Taken) -> Taken {
        match self.state.try_lock() {
            Ok(mut state) => match &mut state.live {
                Some(live) if live.is_selectable() => live.copied(taken),
                _ => taken,
            },
            Err(_) => taken,
        }
    }

    /// Puts the descriptor in order before the program selects on it.
    pub fn rearm(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && let Some(live) = &mut state.live
        {
            live.rearm();
        }
    }

    pub fn ring(&self) -> &str {
        &self.ring
    }
}
