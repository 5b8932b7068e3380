//! How a running dispatcher is given another function, a request, or a consumer: letters, read between batches.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use flowyard_steer::Table;

use flowyard_mem::PipeProducer;
use rustix::event::{EventfdFlags, eventfd};

use super::{FunctionCounts, Limits, Steer};
use crate::outlets::Tenant;
use crate::rings::RingStatus;

/// Why a function cannot be had, or did not take over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("function {function}: {why}")]
pub struct FunctionError {
    /// Its name.
    pub function: String,
    /// What was tried, on what, and the way out.
    pub why: String,
}

impl FunctionError {
    /// What cannot be, in words.
    pub fn new(function: impl Into<String>, why: impl Into<String>) -> FunctionError {
        FunctionError { function: function.into(), why: why.into() }
    }
}

/// What is asked of a dispatcher, of the function on a seat (0 the yard's, then one a group).
pub(crate) enum Letter {
    /// Use this function from the next batch on, or none; the old one is sent back to be closed.
    Replace { seat: usize, new: Option<Box<dyn Steer>>, limits: Limits, old: Sender<Option<Box<dyn Steer>>> },
    /// Answer a request.
    Control { seat: usize, request: Vec<u8>, reply: Sender<Result<Vec<u8>, String>> },
    /// Give a ring that nobody reads to a consumer of another process.
    Seat { outlet: usize, tenant: Tenant, pipe: PipeProducer, seated: Sender<bool> },
    /// A consumer of another process has ended its connection: take its ring from it.
    Unseat { tenant: u64 },
    /// Nobody looks any more at packets that a consumer of another process had, and passed on.
    Release { tenant: u64 },
    /// Balance a group by this table from the next batch on.
    Reweigh { group: usize, table: Arc<Table>, done: Sender<()> },
    /// Say how the rings are.
    Rings { reply: Sender<Vec<RingStatus>> },
    /// Say what was counted.
    Counts { seat: usize, reply: Sender<(FunctionCounts, Vec<(String, u64)>)> },
}

/// Letters to one dispatcher.
pub(crate) struct Mailbox {
    /// Whether there are any: looked at every turn.
    full: AtomicBool,
    /// `None` once the dispatcher has ended.
    letters: Mutex<Option<VecDeque<Letter>>>,
    /// Readable when a letter was posted: wakes a dispatcher that sleeps. `None` where the system gave none: then it
    /// wakes a little later.
    bell: Option<OwnedFd>,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("full", &self.full).finish_non_exhaustive()
    }
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        Mailbox { full: AtomicBool::new(false), letters: Mutex::new(Some(VecDeque::new())), bell }
    }
}

impl Mailbox {
    /// Posts a letter. Nobody reads it once the dispatcher has ended: it is dropped, which who waits for
    /// an answer notices.
    pub(crate) fn post(&self, letter: Letter) {
        if let Some(letters) = &mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner) {
            letters.push_back(letter);
            self.full.store(true, Ordering::Release); // pairs with the Acquire in `take`
            if let Some(bell) = &self.bell {
                let _ = rustix::io::write(bell, &1u64.to_ne_bytes()); // full: it rings
            }
        }
    }

    /// What to sleep on.
    pub(crate) fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bell.as_ref().map(AsFd::as_fd)
    }

    /// The next letter. One load while there is none.
    #[inline]
    pub(crate) fn take(&self) -> Option<Letter> {
        // Acquire: pairs with the Release in `post`.
        if self.full.load(Ordering::Acquire) { self.open() } else { None }
    }

    #[cold]
    fn open(&self) -> Option<Letter> {
        if let Some(bell) = &self.bell {
            let _ = rustix::io::read(bell, &mut [0; 8]); // before looking: what is posted from now on rings anew
        }
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let letters = letters.as_mut()?;
        let letter = letters.pop_front();
        self.full.store(!letters.is_empty(), Ordering::Relaxed); // under the lock
        letter
    }

    /// Throws away what nobody will read any more.
    pub(crate) fn close(&self) {
        let letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner).take();
        for letter in letters.into_iter().flatten() {
            if let Letter::Replace { new, .. } = letter {
                super::close(new);
            }
        }
    }
}
