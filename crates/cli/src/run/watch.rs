//! What `flowyard run` does while packets flow: progress, signals, and word of functions that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flowyard::Running;
use flowyard::function::{Failure, FunctionStatus};
use miette::{IntoDiagnostic, Result};

use super::Run;
use crate::notify::Notify;
use crate::{control, output};

impl Run {
    /// Shows progress until the yard has ended; ends it when its time is over, and reloads on SIGHUP.
    pub(super) fn watch(&self, running: &Running, started: Instant, control: &control::Yard) -> Result<()> {
        let hangup = Arc::new(AtomicBool::new(false));
        if self.steering.is_there() || Notify::is_heard() {
            signal_hook::flag::register(signal_hook::consts::SIGHUP, hangup.clone()).into_diagnostic()?;
        }
        let mut complaints = Complaints::default();
        let stopping = running.stopper();
        let mut notify = Notify::ready(&format!("{} on {}", self.service.name, control.ports.join(", ")));
        let bar = output::progress(None);
        if !self.quiet {
            bar.set_style(
                indicatif::ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or(indicatif::ProgressStyle::default_spinner()),
            );
        }
        let (mut before, mut shown) = (0, started);
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
            if self.time.is_some_and(|t| started.elapsed() >= t) {
                running.stop();
            }
            if stopping.load(Ordering::Relaxed) {
                notify.stopping();
            }
            notify.beat(running);
            if hangup.swap(false, Ordering::Relaxed) {
                match Notify::reloading(|| control.reload()) {
                    Ok(name) => bar.suspend(|| tracing::info!("function replaced: {name}")),
                    Err(error) => bar.suspend(|| output::say(format!("not replaced: {}", output::chain(&error)))),
                }
            }
            if self.steering.is_there()
                && complaints.due()
                && let Some(line) = complaints.line(&running.functions().status())
            {
                bar.suspend(|| output::say(line));
            }
            notify.status(|| {
                let sum = |f: fn(&flowyard::Live) -> &std::sync::atomic::AtomicU64| -> u64 {
                    running.live().iter().map(|l| f(l).load(Ordering::Relaxed)).sum()
                };
                format!(
                    "{} packets, {} dropped",
                    output::count(sum(|l| &l.received)),
                    output::count(sum(|l| &l.dropped))
                )
            });
            if self.quiet || shown.elapsed() < Duration::from_millis(500) {
                continue;
            }
            let sum = |f: fn(&flowyard::Live) -> &std::sync::atomic::AtomicU64| -> u64 {
                running.live().iter().map(|l| f(l).load(Ordering::Relaxed)).sum()
            };
            let (received, dropped) = (sum(|l| &l.received), sum(|l| &l.dropped));
            let rate = output::rate(received.saturating_sub(before), shown.elapsed());
            bar.set_message(format!("{} packets, {rate}, {} dropped", output::count(received), output::count(dropped)));
            bar.tick();
            (before, shown) = (received, Instant::now());
        }
        notify.stopping();
        bar.finish_and_clear();
        Ok(())
    }
}

/// The first Ctrl-C or SIGTERM ends the yard in order; a second one ends the process.
pub fn stop_on_signals(running: &Running) -> Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    for signal in [SIGINT, SIGTERM] {
        let stop: Arc<AtomicBool> = running.stopper();
        signal_hook::flag::register_conditional_default(signal, stop.clone()).into_diagnostic()?;
        signal_hook::flag::register(signal, stop).into_diagnostic()?;
    }
    Ok(())
}

/// What the functions did wrong since it was last said: at most a line a second.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    said: Vec<u64>,
}

impl Complaints {
    fn due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if due {
            self.last = Some(Instant::now());
        }
        due
    }

    /// A line about what is new, if anything is.
    fn line(&mut self, functions: &[FunctionStatus]) -> Option<String> {
        let now: Vec<u64> =
            functions.iter().flat_map(|f| f.counts.failures.into_iter().chain([f.counts.switched_off])).collect();
        self.said.resize(now.len(), 0);
        let each = Failure::ALL.len() + 1;
        let more: Vec<String> = now
            .iter()
            .zip(&self.said)
            .enumerate()
            .filter(|(_, (now, said))| now > said)
            .map(|(at, (now, said))| match Failure::ALL.get(at % each) {
                Some(failure) => format!("{} {}", failure.name(), output::count(now - said)),
                None => "switched off, because it kept failing (reload to try again)".into(),
            })
            .collect();
        self.said = now;
        (!more.is_empty()).then(|| format!("the function fails: {}", more.join(", ")))
    }
}
