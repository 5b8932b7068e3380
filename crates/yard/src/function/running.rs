//! The functions of a running yard: replaced, asked and counted from outside, between batches.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Function, FunctionCounts, FunctionError, Letter, Mailbox, Surroundings};
use crate::counters::add_named;

/// How long a dispatcher may take to come to a batch boundary: it sleeps for 50 ms at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A handle on the functions of a running yard.
pub struct Functions {
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) surroundings: Surroundings,
    /// Name of the function on each seat: the yard's, then one for each further group.
    pub(crate) names: Mutex<Vec<Option<String>>>,
    /// The kernel steers: a function would see what is marked alone.
    pub(crate) kernel: bool,
}

/// What is counted of one function.
#[derive(Debug, Clone, Default)]
pub struct FunctionStatus {
    /// Its name, `None` if there is none.
    pub name: Option<String>,
    /// Over all dispatchers.
    pub counts: FunctionCounts,
    /// What the function counts itself, by name.
    pub own: Vec<(String, u64)>,
}

impl Functions {
    /// Replaces the yard's function, or takes it away. New instances are made and checked first, in this
    /// thread; if that fails for one, all dispatchers keep what they have. Each dispatcher changes over at a
    /// batch boundary of its own: no packet is lost, none is seen by both. The old instances are closed in
    /// this thread, after their last batch.
    ///
    /// # Errors
    /// The new function cannot be had, the kernel steers, or the yard has ended.
    pub fn reload(&self, function: Option<&Function>) -> Result<(), FunctionError> {
        let name = function.map_or("none", Function::name);
        if self.kernel && function.is_some() {
            let why = "packets of this yard are steered in the kernel, and would not pass it: start the yard without";
            return Err(FunctionError::new(name, why));
        }
        let mut new = Vec::new();
        for dispatcher in 0..self.mailboxes.len() {
            let surroundings = Surroundings { dispatcher, ..self.surroundings.clone() };
            new.push(function.map(|f| f.checked_instance(&surroundings)).transpose()?);
        }
        // One at a time for those who look at the name.
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let limits = function.map(|f| f.limits).unwrap_or_default();
        let mut waiting = Vec::new();
        for (mailbox, new) in self.mailboxes.iter().zip(new) {
            let (old, answer) = channel();
            mailbox.post(Letter::Replace { seat: 0, new, limits, old });
            waiting.push(answer);
        }
        // A dispatcher whose ports have ended is past its last batch: only if all are is it too late.
        let (mut changed, mut late) = (0, 0);
        for answer in &waiting {
            match answer.recv_timeout(PATIENCE) {
                Ok(old) => {
                    super::close(old);
                    changed += 1;
                }
                Err(RecvTimeoutError::Timeout) => late += 1,
                Err(RecvTimeoutError::Disconnected) => {}
            }
        }
        if changed + late == 0 {
            return Err(FunctionError::new(name, "the yard has ended: nothing was replaced"));
        }
        if let Some(first) = names.first_mut() {
            *first = function.map(|f| f.name().to_owned());
        }
        if late > 0 {
            let why = format!(
                "{late} of {} dispatchers did not come to the end of a batch in 10 s, because the old function holds them up; \
                 each changes over when it does",
                self.mailboxes.len()
            );
            return Err(FunctionError::new(name, why));
        }
        Ok(())
    }

    /// Puts a request to the yard's function: one answer for each dispatcher's instance.
    ///
    /// # Errors
    /// The yard has ended.
    pub fn control(&self, request: &[u8]) -> Result<Vec<Result<Vec<u8>, String>>, FunctionError> {
        let ask = |mailbox: &Arc<Mailbox>| {
            let (reply, answer) = channel();
            mailbox.post(Letter::Control { seat: 0, request: request.to_vec(), reply });
            answer
        };
        let waiting: Vec<_> = self.mailboxes.iter().map(ask).collect();
        let answers: Vec<_> = waiting.iter().filter_map(wait).collect();
        if answers.is_empty() { Err(FunctionError::new("none", "the yard has ended")) } else { Ok(answers) }
    }

    /// What is counted of each function: the yard's, then one for each further group.
    pub fn status(&self) -> Vec<FunctionStatus> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of = |(at, name): (usize, Option<String>)| {
            let mut status = FunctionStatus { name, ..FunctionStatus::default() };
            // The first group's seat is the yard's own: further groups come after it.
            let seat = if at == 0 { 0 } else { at + 1 };
            let ask = |mailbox: &Arc<Mailbox>| {
                let (reply, answer) = channel();
                mailbox.post(Letter::Counts { seat, reply });
                answer
            };
            let waiting: Vec<_> = self.mailboxes.iter().map(ask).collect();
            for (counts, own) in waiting.iter().filter_map(wait) {
                status.counts.add(&counts);
                add_named(&mut status.own, &own);
            }
            status
        };
        names.into_iter().enumerate().map(of).collect()
    }
}

/// The answer, or `None` if the dispatcher has ended.
fn wait<T>(answer: &Receiver<T>) -> Option<T> {
    answer.recv_timeout(PATIENCE).ok()
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Functions").field("names", &self.names).finish_non_exhaustive()
    }
}
