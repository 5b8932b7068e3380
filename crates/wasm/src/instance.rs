//! The steering function that a dispatcher has: a guest, and what is done when it fails.
//!
//! After a trap the guest's memory may be in any state, so it is thrown away and a new instance opened, at once and in the
//! dispatcher's thread: some 50 µs, and what `open` takes. Failing is held to a share of the time: once failed
//! calls and new instances have cost more than ten calls' time and a hundredth of the time since the function
//! was loaded, it is given up. From then on it answers every batch with a failure, for which the yard
//! switches it off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowyard::function::{Batch, Failure, Steer, Surroundings};
use wasmtime::Error;

use crate::guest::{Guest, is_overrun, reason, thread_time};
use crate::host::Find;
use crate::module::Compiled;

/// Most reasons for traps that are counted by name.
const MOST_REASONS: usize = 32;
/// One part in so many of the time may be lost to failures.
const SHARE: u32 = 100;
/// Failed calls of the longest time that are free.
const FREE_CALLS: u32 = 10;

pub(crate) struct Instance {
    compiled: Arc<Compiled>,
    surroundings: Surroundings,
    config: Arc<str>,
    find: Arc<Find>,
    /// `None` once it is given up.
    guest: Option<Guest>,
    since: Instant,
    lost: Duration,
    restarts: u64,
    traps: Vec<(String, u64)>,
    other_traps: u64,
}

impl Instance {
    pub(crate) fn open(
        compiled: Arc<Compiled>,
        surroundings: &Surroundings,
        config: Arc<str>,
        find: Arc<Find>,
    ) -> Result<Instance, String> {
        let guest = Guest::start(&compiled, surroundings, &config, &find)?;
        Ok(Instance {
            compiled,
            surroundings: surroundings.clone(),
            config,
            find,
            guest: Some(guest),
            since: Instant::now(),
            lost: Duration::ZERO,
            restarts: 0,
            traps: Vec::new(),
            other_traps: 0,
        })
    }

    /// Counts a trap and starts anew.
    #[cold]
    fn trapped(&mut self, error: &Error) {
        let said = self.guest.as_ref().map(|guest| guest.said().to_owned()).filter(|said| !said.is_empty());
        let name = match said {
            Some(said) => format!("trapped: {}: {said}", reason(error)),
            None => format!("trapped: {}", reason(error)),
        };
        self.count(name);
        let call_time = self.compiled.bounds.call_time;
        if is_overrun(error) {
            self.lost += call_time;
        }
        let began = thread_time();
        self.guest = None; // its memory first, then another's
        let allowed = call_time * FREE_CALLS + self.since.elapsed() / SHARE;
        if self.lost < allowed {
            match Guest::start(&self.compiled, &self.surroundings, &self.config, &self.find) {
                Ok(guest) => {
                    self.guest = Some(guest);
                    self.restarts += 1;
                }
                Err(why) => self.count(format!("not started again: {why}")),
            }
        }
        self.lost += thread_time().saturating_sub(began);
    }

    fn count(&mut self, name: String) {
        if let Some((_, count)) = self.traps.iter_mut().find(|(known, _)| *known == name) {
            *count += 1;
        } else if self.traps.len() < MOST_REASONS {
            self.traps.push((name, 1));
        } else {
            self.other_traps += 1;
        }
    }
}

impl Steer for Instance {
    #[inline]
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        let Some(guest) = &mut self.guest else { return Err(Failure::Trapped) };
        match guest.steer(batch) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Refused),
            Err(error) => {
                self.trapped(&error);
                Err(Failure::Trapped)
            }
        }
    }

    fn tick(&mut self) {
        let Some(guest) = self.guest.as_mut().filter(|guest| guest.has_tick()) else { return };
        if let Err(error) = guest.tick() {
            self.trapped(&error);
        }
    }

    fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let Some(guest) = &mut self.guest else { return Err("it failed too often, and is given up".into()) };
        guest.control(request).unwrap_or_else(|error| {
            self.trapped(&error);
            Err(format!("was stopped over the request: {}", reason(&error)))
        })
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let own = [
            ("restarts".to_owned(), self.restarts),
            ("given up".to_owned(), self.guest.is_none().into()),
            ("trapped: for other reasons".to_owned(), self.other_traps),
        ];
        own.into_iter().chain(self.traps.iter().cloned()).collect()
    }
}
