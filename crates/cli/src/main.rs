//! The `flowyard` program: verbs that say what they do.

mod attach;
mod audit;
mod bench;
mod bpf;
mod check;
mod config;
mod control;
mod ctl;
mod digits;
mod extcap;
mod gen_cmd;
mod inspect;
mod json;
mod layers;
mod log;
mod notify;
mod options;
mod output;
mod privileges;
mod ring_file;
mod run;
mod runtime;
mod split;
mod steering;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sort packets into rings, whole conversations together, whatever carries them.
#[derive(Debug, Parser)]
#[command(name = "flowyard", version, max_term_width = 100, after_help = AFTER)]
struct Program {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER: &str = "\
Exit status: 0 all went well, 1 the work was done as far as it could be (a damaged file, a port that \
failed, figures that do not agree), 2 it could not be started.

Start with `flowyard run`: it needs no privileges and no network.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the yard: packets from ports to rings, and a table of what came
    Run(Box<run::Run>),
    /// Take the packets of a ring of a running yard: as text, or as a capture for tcpdump, tshark and Wireshark
    Attach(attach::Attach),
    /// Have rings appear in the interface list of Wireshark and tshark
    Extcap(extcap::Extcap),
    /// Check a configuration file and what it names, and open nothing
    Check(check::Check),
    /// Explain each packet of a capture: its layers, flow, hash and ring
    Inspect(inspect::Inspect),
    /// Split one capture into N, whole conversations together
    Split(split::Split),
    /// Show what a card's own RSS would do to this traffic, beside what Flowyard does
    Audit(audit::Audit),
    /// Generate traffic into a capture or an interface
    Gen(gen_cmd::Gen),
    /// Measure what this machine does: steering on one core, and packets handed from core to core
    Bench(bench::Bench),
    /// Speak with a running yard: status, reload, requests to the function, tables
    Ctl(ctl::Ctl),
}

/// How a verb that could be started ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All went well.
    Good,
    /// As far as it could be; what stood in the way has been said.
    Partial,
}

fn main() -> ExitCode {
    log::start();
    if std::env::args_os().nth(1).is_some_and(|arg| arg == steering::CHILD) {
        return steering::child();
    }
    let program = Program::parse();
    let outcome = match program.verb {
        Verb::Run(run) => run.with_file(std::env::args_os().skip(2)).and_then(run::Run::run),
        Verb::Attach(attach) => attach.run(),
        Verb::Extcap(extcap) => extcap.run(),
        Verb::Check(check) => check.run(),
        Verb::Inspect(inspect) => inspect.run(),
        Verb::Split(split) => split.run(),
        Verb::Audit(audit) => audit.run(),
        Verb::Gen(gen_cmd) => gen_cmd.run(),
        Verb::Bench(bench) => bench.run(),
        Verb::Ctl(ctl) => ctl.run(),
    };
    match outcome {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Partial) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            config::explain(&error);
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_of_every_verb_can_stand_together() {
        super::Program::command().debug_assert();
    }
}
