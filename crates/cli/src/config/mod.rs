//! The configuration file of `flowyard run`: the options of the command line, under the same names, in TOML.
//!
//! ```toml
//! ports = ["xdp:eth0"]
//!
//! [sorting]
//! rings = 8
//! ```
//!
//! There is one definition of every option, clap's. The file's keys are made from it ([`keys`]), what the file says
//! becomes arguments ([`read`]), and those are parsed as if they had been typed: an option that is added to `run` has
//! its key at once, with the same values, the same checks and the same help ([`mod@example`]). What cannot be is said with
//! file, line and column ([`fault`]); relative paths are relative to the file ([`paths`]).

mod example;
mod fault;
mod keys;
mod paths;
mod read;

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use miette::{IntoDiagnostic, Result, miette};

pub use self::example::example;
pub use self::fault::explain;
use self::read::File;
use crate::run::Run;

impl Run {
    /// This, with what the file says that `--config` names, if it names one. `line` is what was typed after `run`,
    /// which goes before the file.
    pub fn with_file(self, line: impl Iterator<Item = OsString>) -> Result<Run> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let line: Vec<OsString> = line.collect();
        let typed = keys::command().try_get_matches_from(&line).into_diagnostic()?;
        let of_line = |id: &str| typed.value_source(id) == Some(ValueSource::CommandLine);
        merged(&File::read(&path)?, of_line, &line)
    }

    /// What a file says, on its own.
    pub fn of_file(path: &Path) -> Result<Run> {
        merged(&File::read(path)?, |_| false, &[])
    }
}

fn merged(file: &File, of_line: impl Fn(&str) -> bool, line: &[OsString]) -> Result<Run> {
    let given = file.given.iter().filter(|given| !given.ids.iter().any(|id| of_line(id)));
    let arguments: Vec<OsString> = given.flat_map(|given| &given.arguments).map(OsString::from).collect();
    let matches: Result<ArgMatches, clap::Error> = keys::command().try_get_matches_from(arguments.iter().chain(line));
    let mut run = match matches.and_then(|matches| Run::from_arg_matches(&matches)) {
        Ok(run) => run,
        Err(error) => return Err(file.blame(&error)),
    };
    if let Some(policy) = file.policy.clone().filter(|_| !of_line("policy_file")) {
        run.sorting.policy_file = Some(policy);
    }
    Ok(run)
}

/// The text of a file of at most so many bytes.
fn text(path: &Path) -> Result<String> {
    use std::io::Read;
    const LONGEST: u64 = 1 << 20;
    let cannot = |why: &dyn std::fmt::Display| miette!("cannot read the configuration file {}: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|e| cannot(&e))?;
    let mut text = String::new();
    let len = file.take(LONGEST + 1).read_to_string(&mut text).map_err(|e| cannot(&e))?;
    if len as u64 > LONGEST {
        return Err(cannot(&"it is longer than a configuration can be, 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
