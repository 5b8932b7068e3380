//! `flowyard check`: is a configuration file good?

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use flowyard::YardConfig;
use flowyard::port::{PortSpec, prepare};
use miette::{IntoDiagnostic, Result};

use crate::run::Run;
use crate::{Outcome, config, output};

/// Check a configuration file and what it names: policy, rules, plug-ins, tables, ports. Opens nothing.
///
/// Says what is wrong with file, line and column. An interface that is not there is a warning: it may come later.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 it is good (there may be warnings on standard error), 2 it is not.")]
pub struct Check {
    /// The file
    #[arg(required_unless_present = "example")]
    file: Option<PathBuf>,
    /// Print an annotated example of such a file instead: every key, with its default
    #[arg(long, conflicts_with = "file")]
    example: bool,
    /// Say nothing of a good file
    #[arg(short, long)]
    quiet: bool,
}

impl Check {
    /// Does it.
    pub fn run(self) -> Result<Outcome> {
        let Some(file) = &self.file else {
            output::print(&config::example());
            return Ok(Outcome::Good);
        };
        let run = Run::of_file(file)?;
        let good = |result: Result<()>| {
            result.map_err(|error| miette::miette!("{}: {}", file.display(), output::chain(&error)))
        };
        let mut out = output::own_stdout(run.has_function())?;
        good(judge(&run, |warning| output::say(format!("{}: warning: {warning}", file.display()))))?;
        if !self.quiet {
            output::written(writeln!(out, "{}: good", file.display()))?;
        }
        Ok(Outcome::Good)
    }
}

/// Everything that can be said without opening anything.
fn judge(run: &Run, warn: impl Fn(String)) -> Result<()> {
    let plan = run.plan()?;
    let mut there: Vec<PortSpec> = Vec::new();
    for spec in &plan.specs {
        match prepare(spec, 1) {
            Ok(_) => there.push(spec.clone()),
            Err(error) if error.is_missing_interface() => warn(error.to_string()),
            Err(error) => return Err(error).into_diagnostic(),
        }
    }
    let check = if plan.local { YardConfig::check_local } else { YardConfig::check };
    check(&plan.config, &there).into_diagnostic()
}
