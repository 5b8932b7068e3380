//! Flowyard beside its peers: the same packets, the same run, round by round.
//!
//! What each figure means and what it came to: README.md, beside this crate.
#![deny(unsafe_code)]

mod chart;
mod curves;
mod figures;
mod flow;
mod function;
mod label;
mod laps;
mod live;
mod machine;
mod packets;
mod peers;
mod pipeline;
mod probe;
mod processes;
mod random;
mod ring;
mod rounds;
mod slots;
mod steer;
mod steps;

use clap::{Parser, Subcommand};
use rounds::Setting;

/// Measures Flowyard beside its peers and prints ratios with their spread; everything, unless told
/// what.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// Rounds of each comparison.
    #[arg(long, global = true, default_value_t = 100)]
    rounds: usize,
    /// A tenth of the rounds: to see that it runs.
    #[arg(long, global = true)]
    quick: bool,
    /// A folder for charts of the ratios.
    #[arg(long, global = true, value_name = "FOLDER")]
    svg: Option<std::path::PathBuf>,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Steering a packet on one core, beside etherparse.
    Steer,
    /// The ring alone, beside rtrb.
    Ring,
    /// Slots of 16 and 32 bytes.
    Slots,
    /// From sorting to looking and back, beside etherparse and rtrb.
    Pipeline,
    /// Cost over rings, conversations and annotation bytes.
    Curves,
    /// Annotations that one stage writes and the next reads.
    Stages,
    /// Workers that read their own rings, beside dispatcher and reader, and DPDK.
    Local,
    /// Rings read by another process, beside threads.
    Processes,
    /// The other process.
    #[command(hide = true)]
    Attached {
        /// The yard's socket.
        path: std::path::PathBuf,
        /// Where to run.
        core: usize,
    },
    /// What a function of the user's costs, by kind.
    Function,
    /// Receiving over veth by every way in, as root: packets a second and core.
    Live {
        /// Only the way of this number, for a profiler to look at.
        only: Option<usize>,
        /// Only what is sent so; both, unless told.
        #[arg(long)]
        sent: Option<live::Sent>,
    },
    /// Who sends as a card would.
    #[command(hide = true)]
    Frames {
        /// Where to run.
        core: usize,
    },
    /// Instructions a packet, by valgrind.
    Steps {
        /// Only what has a limit, and an error if anything is over it.
        #[arg(long)]
        gate: bool,
    },
    /// One part of `steps`, for running under valgrind.
    #[command(hide = true)]
    Step {
        /// Its name.
        part: String,
        /// Passes over the packets.
        passes: usize,
    },
}

fn main() {
    let options = Options::parse();
    if let Some(What::Step { part, passes }) = &options.what {
        return steps::run_part(part, *passes);
    }
    if let Some(What::Attached { path, core }) = options.what {
        return processes::child(path, core);
    }
    if let Some(What::Frames { core }) = options.what {
        return live::frames::child(core);
    }
    if let Some(What::Steps { gate: true }) = options.what {
        std::process::exit(i32::from(!steps::gate()));
    }
    let cores = machine::cores();
    let setting = Setting {
        rounds: if options.quick { options.rounds.div_ceil(10) } else { options.rounds },
        core: cores.first().copied().unwrap_or(0),
        other: cores.get(1).copied(),
    };
    if let Some(folder) = options.svg {
        let _ = figures::CHARTS.set(folder); // set here alone
    }
    println!("{}", machine::describe());
    if let Some(version) = peers::compile::version() {
        println!("Peers in C: DPDK {version}");
    }
    let wanted = |what: fn(&What) -> bool| options.what.as_ref().is_none_or(what);
    if wanted(|w| matches!(w, What::Steer)) {
        steer::run(&setting);
    }
    if wanted(|w| matches!(w, What::Ring)) {
        ring::run(&setting);
    }
    if wanted(|w| matches!(w, What::Slots)) {
        slots::run(&setting);
    }
    if wanted(|w| matches!(w, What::Pipeline)) {
        pipeline::run(&setting);
    }
    if wanted(|w| matches!(w, What::Curves)) {
        curves::run(&setting);
    }
    if wanted(|w| matches!(w, What::Stages)) {
        pipeline::staged::run(&setting);
    }
    if wanted(|w| matches!(w, What::Local)) {
        pipeline::run_local(&setting);
    }
    if wanted(|w| matches!(w, What::Processes)) {
        processes::run(&setting);
    }
    if wanted(|w| matches!(w, What::Function)) {
        function::run(&setting);
    }
    if wanted(|w| matches!(w, What::Live { .. })) {
        let (only, sent) = match &options.what {
            Some(What::Live { only, sent }) => (*only, *sent),
            _ => (None, None),
        };
        live::run(&setting, only, sent);
    }
    if wanted(|w| matches!(w, What::Steps { .. })) {
        steps::run();
    }
}
