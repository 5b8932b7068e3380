//! Word to the service manager (sd_notify(3)): ready, alive, stopping. Nothing where there is none.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flowyard::{Live, Running};
use sd_notify::NotifyState;

/// How often the status line is told.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// What the service manager has been told.
pub struct Notify {
    /// How often it wants to hear that we are alive, halved.
    beat_every: Option<Duration>,
    beaten: Instant,
    told: Instant,
    /// Turns of each dispatcher at the last beat.
    turns: Vec<u64>,
    stopping: bool,
}

impl Notify {
    /// Says that the yard is ready: ports are open, threads run.
    pub fn ready(status: &str) -> Notify {
        send(&[NotifyState::Ready, NotifyState::Status(status)]);
        let now = Instant::now();
        let beat_every = sd_notify::watchdog_enabled().map(|every| every / 2);
        Notify { beat_every, beaten: now, told: now, turns: Vec::new(), stopping: false }
    }

    /// Whether anybody listens.
    pub fn is_heard() -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// Says that the yard is alive, if it is time and every dispatcher has gone on since the last time.
    pub fn beat(&mut self, running: &Running) {
        if self.beat_every.is_none_or(|every| self.beaten.elapsed() < every) {
            return;
        }
        let turns: Vec<u64> = running.live().iter().map(|live| live.turns.load(Ordering::Relaxed)).collect();
        if all_went_on(&self.turns, &turns) {
            send(&[NotifyState::Watchdog]);
            self.beaten = Instant::now();
            self.turns = turns;
        }
    }

    /// Tells the figures, from time to time.
    pub fn status(&mut self, text: impl FnOnce() -> String) {
        if self.told.elapsed() >= STATUS_EVERY && Notify::is_heard() {
            self.told = Instant::now();
            send(&[NotifyState::Status(&text())]);
        }
    }

    /// Runs `reload`, saying before that it begins and afterwards that it is over.
    pub fn reloading<T>(reload: impl FnOnce() -> T) -> T {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            send(&[NotifyState::Reloading, now]);
        }
        let outcome = reload();
        send(&[NotifyState::Ready]);
        outcome
    }

    /// Says once that the yard ends.
    pub fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            send(&[NotifyState::Stopping, NotifyState::Status("draining")]);
        }
    }
}

fn send(words: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(words) {
        tracing::debug!("the service manager does not hear: {error}");
    }
}

/// Whether each dispatcher has gone round since it had gone so many times, or has ended.
fn all_went_on(before: &[u64], now: &[u64]) -> bool {
    now.iter().enumerate().all(|(at, now)| *now == Live::ENDED || before.get(at) != Some(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_stands_still_is_enough() {
        for (before, now, alive) in [
            (&[][..], &[0, 7][..], true),
            (&[1, 7], &[2, 8], true),
            (&[1, 7], &[2, 7], false),
            (&[1, 7], &[Live::ENDED, 8], true),
            (&[Live::ENDED, 7], &[Live::ENDED, 8], true),
            (&[Live::ENDED, 7], &[Live::ENDED, 7], false),
        ] {
            assert_eq!(all_went_on(before, now), alive, "{before:?} {now:?}");
        }
    }
}
