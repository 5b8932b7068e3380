//! What the program says on standard error: lines with a level, governed by `--log-level` and changed while it runs.
//!
//! For people a line is as it was said, with `flowyard:` before errors and warnings. Where standard error is the
//! journal's, each begins with its priority as `<N>` (sd-daemon(3)).

use std::fmt;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::{Event, Level as Of, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

static HANDLE: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Lines go to standard error from now on, those of `info` and above.
pub fn start() {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    // The journal says by this that our standard error is its own.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = tracing_subscriber::fmt::layer().event_format(Lines { journal }).with_writer(std::io::stderr);
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = HANDLE.set(handle); // once a process
    }
}

/// Says so much from now on.
pub fn set(level: Level) {
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    if let Some(handle) = HANDLE.get() {
        let _ = handle.reload(filter); // fails where nobody listens any more
    }
}

/// How much is said now.
pub fn level() -> Level {
    let filter = HANDLE.get().and_then(|handle| handle.with_current(|filter| *filter).ok());
    match filter {
        Some(LevelFilter::ERROR) => Level::Error,
        Some(LevelFilter::WARN) => Level::Warn,
        Some(LevelFilter::DEBUG) => Level::Debug,
        _ => Level::Info,
    }
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// By its name.
    pub fn of_name(name: &str) -> Result<Level, String> {
        Level::from_str(name, false).map_err(|_| format!("{name:?} is no level: write error, warn, info or debug"))
    }
}

/// A line: its priority or our name, and the words.
struct Lines {
    journal: bool,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, N: for<'a> FormatFields<'a> + 'static> FormatEvent<S, N> for Lines {
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        to.write_str(match (self.journal, level) {
            (true, Of::ERROR) => "<3>",
            (true, Of::WARN) => "<4>",
            (true, Of::INFO) => "<6>",
            (true, _) => "<7>",
            (false, Of::ERROR | Of::WARN) => "flowyard: ",
            (false, _) => "",
        })?;
        context.format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}
