//! The rings of a running yard: counted and reweighed from outside, between batches.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flowyard_kernel::{KernelError, KernelSteer};
use flowyard_steer::{Table, TableError};

use crate::counters::RingCounters;
use crate::function::{Letter, Mailbox};

/// How long a dispatcher may take to come to a batch boundary: it sleeps for 50 ms at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handle on the rings of a running yard.
pub struct Rings {
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    /// One a group, with its weights: what was dealt last. Held while dispatchers change over, so that all have the
    /// last one in the end.
    pub(crate) tables: Mutex<Vec<(Table, Vec<u32>)>>,
    pub(crate) kernel: Option<Arc<Mutex<KernelSteer>>>,
}

/// A ring as it is now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingStatus {
    /// What was counted, over all dispatchers.
    pub counters: RingCounters,
    /// Slots that wait for room on it.
    pub backlog: u64,
    /// Buffers that its consumer holds, or that lie on it.
    pub held: u64,
    /// Slots of its pipes, over all dispatchers.
    pub slots: u64,
    /// Its consumer is gone.
    pub gone: bool,
}

impl RingStatus {
    pub(crate) fn add(&mut self, other: &RingStatus) {
        self.counters.add(&other.counters);
        self.backlog += other.backlog;
        self.held += other.held;
        self.slots += other.slots;
        self.gone |= other.gone;
    }
}

/// Why weights were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReweighError {
    /// A group that there is not.
    #[error("there is no group number {group}: this yard has {groups}")]
    Group {
        /// What was asked for.
        group: usize,
        /// How many there are.
        groups: usize,
    },
    /// Not one weight a ring.
    #[error("{weights} weights for {rings} rings: give one a ring (0 sends it nothing)")]
    Number {
        /// Weights given.
        weights: usize,
        /// Rings of the group.
        rings: u16,
    },
    /// The table refuses them.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The steering program refuses the table.
    #[error(transparent)]
    Program(#[from] KernelError),
    /// Nobody is there to change over.
    #[error("the yard has ended: nothing was changed")]
    Ended,
    /// A dispatcher is held up.
    #[error(
        "{late} of {all} dispatchers did not come to the end of a batch in 10 s, because a function holds them up; each changes over when it does"
    )]
    Late {
        /// How many.
        late: usize,
        /// Of how many.
        all: usize,
    },
}

impl Rings {
    /// Each ring as it is now: those of the first group, then those of the others. Empty once the yard has ended.
    pub fn status(&self) -> Vec<RingStatus> {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (reply, answer) = channel();
            mailbox.post(Letter::Rings { reply });
            answer
        };
        let waiting: Vec<_> = self.mailboxes.iter().map(ask).collect();
        let mut all: Vec<RingStatus> = Vec::new();
        for part in waiting.iter().filter_map(|answer| answer.recv_timeout(PATIENCE).ok()) {
            all.resize(all.len().max(part.len()), RingStatus::default());
            all.iter_mut().zip(&part).for_each(|(sum, part)| sum.add(part));
        }
        all
    }

    /// The weights of a group, as they were last given.
    pub fn weights(&self, group: usize) -> Option<Vec<u32>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(group).map(|(_, weights)| weights.clone())
    }

    /// Changes the shares of a group's rings (0 is the first group), and answers how many of the table's 4096
    /// buckets moved: as few as can be.
    ///
    /// Each dispatcher, and the kernel's program if it steers, changes over between two batches of its own, so for a
    /// moment (until the last has ended its batch, which is when this returns) two may send packets of a conversation
    /// that moves to two rings. What lies on the old ring stays there.
    ///
    /// # Errors
    /// Weights that cannot be, or nobody who hears of them.
    pub fn reweigh(&self, group: usize, weights: &[u32]) -> Result<usize, ReweighError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let groups = tables.len();
        let Some((known, last)) = tables.get_mut(group) else { return Err(ReweighError::Group { group, groups }) };
        if weights.len() != usize::from(known.rings()) {
            return Err(ReweighError::Number { weights: weights.len(), rings: known.rings() });
        }
        let mut table = known.clone();
        let moved = table.reweigh(weights)?;
        if let Some(kernel) = &self.kernel {
            kernel.lock().unwrap_or_else(PoisonError::into_inner).set_table(&table)?;
        }
        let shared = Arc::new(table.clone());
        let tell = |mailbox: &Arc<Mailbox>| {
            let (done, answer) = channel();
            mailbox.post(Letter::Reweigh { group, table: shared.clone(), done });
            answer
        };
        let waiting: Vec<_> = self.mailboxes.iter().map(tell).collect();
        let (mut changed, mut late) = (0, 0);
        for answer in &waiting {
            match answer.recv_timeout(PATIENCE) {
                Ok(()) => changed += 1,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => late += 1,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {}
            }
        }
        if changed + late == 0 {
            return Err(ReweighError::Ended);
        }
        (*known, *last) = (table, weights.to_vec());
        if late > 0 { Err(ReweighError::Late { late, all: self.mailboxes.len() }) } else { Ok(moved) }
    }
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").field("dispatchers", &self.mailboxes.len()).finish_non_exhaustive()
    }
}
