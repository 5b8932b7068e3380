//! What the program says: figures for people, errors, progress.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use miette::Report;

/// A count with thousands apart: 1,234,567.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A rate with its unit: 1.23 Mpps.
pub fn rate(packets: u64, time: Duration) -> String {
    let pps = packets as f64 / time.as_secs_f64().max(1e-9);
    match pps {
        p if p >= 1e6 => format!("{:.2} Mpps", p / 1e6),
        p if p >= 1e3 => format!("{:.1} kpps", p / 1e3),
        p => format!("{p:.1} pps"),
    }
}

/// Bits per second with their unit.
pub fn bit_rate(bytes: u64, time: Duration) -> String {
    let bps = bytes as f64 * 8.0 / time.as_secs_f64().max(1e-9);
    match bps {
        b if b >= 1e9 => format!("{:.2} Gbit/s", b / 1e9),
        b if b >= 1e6 => format!("{:.1} Mbit/s", b / 1e6),
        b => format!("{:.0} kbit/s", b / 1e3),
    }
}

/// An error and its causes on one line.
pub fn chain(error: &Report) -> String {
    let mut out = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if out.ends_with(&cause) {
            continue; // transparent wrappers say the same again
        }
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(&cause);
    }
    out.replace('\n', " ")
}

/// Whoever read our standard output went away (`flowyard … | head`): no error of ours.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("nobody reads the output any more")]
struct ReaderGone;

/// The outcome of writing to standard output.
pub fn written(outcome: std::io::Result<()>) -> miette::Result<()> {
    use miette::IntoDiagnostic;
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        other => other.into_diagnostic(),
    }
}

/// Whether an error only says that nobody reads any more.
pub fn is_broken_pipe(error: &Report) -> bool {
    error.is::<ReaderGone>()
}

/// Writes text to standard output; whoever stopped reading misses the rest.
pub fn print(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Standard output for figures. Where functions of the user's run in this process, for this program alone: what they
/// print to theirs goes to standard error from now on.
pub fn own_stdout(functions: bool) -> miette::Result<Box<dyn std::io::Write>> {
    if !functions {
        return Ok(Box::new(std::io::stdout()));
    }
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).and_then(|own| {
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(std::fs::File::from(own))
    });
    let file = taken.map_err(|e| miette::miette!("cannot keep standard output for the figures alone: {e}"))?;
    Ok(Box::new(file))
}

/// Says something on standard error, as this program.
pub fn say(what: impl std::fmt::Display) {
    tracing::error!("{what}");
}

/// A progress bar on standard error for `total` bytes, or a spinner if the total is unknown; silent
/// where standard error is no terminal.
pub fn progress(total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:40} {percent:>3} %  {bytes}/{total_bytes}  {binary_bytes_per_sec}  {msg}")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {binary_bytes_per_sec}  {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn rates_have_units() {
        assert_eq!(rate(3_000_000, Duration::from_secs(2)), "1.50 Mpps");
        assert_eq!(bit_rate(125_000_000, Duration::from_secs(1)), "1.00 Gbit/s");
    }
}
