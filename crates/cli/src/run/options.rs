//! What `flowyard run` can be told.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flowyard::Absent;
use flowyard::attach::Allow;
use flowyard::port::PortSpec;
use rustix::thread::CapabilitySet;

use crate::log::Level;
use crate::options::Sorting;
use crate::privileges::{User, capability};
use crate::runtime;
use crate::steering::Steering;

/// Run the yard: packets from ports to rings, and a table of what came.
///
/// Without a port it runs on built-in traffic for a moment and says what to type next.
#[derive(Debug, Clone, Args)]
#[command(after_help = ports_help())]
pub struct Run {
    /// Where packets come from, such as xdp:eth0, packet:eth0, pcap:FILE, gen:mix
    #[arg(value_name = "PORT")]
    pub(super) ports: Vec<PortSpec>,
    /// Take what is not said here from this file, in TOML (`flowyard check --example` prints one): every option but
    /// this one has its name there; the ports and options given here go before those of the file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// End after this time (such as 10, 1.5 or 500ms)
    #[arg(long = "for", value_name = "SECONDS", value_parser = duration)]
    pub(super) time: Option<Duration>,
    /// Count conversations that came to more than one ring [default: for files and built-in traffic]
    #[arg(long, overrides_with = "no_verify")]
    pub(super) verify: bool,
    /// Do not count conversations: consumers only take packets
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Write what each ring got to DIR/ring-00.pcapng, …
    #[arg(short = 'o', long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Send what consumers return to be sent, out of any of these ports (tap:NAME and pcap:FILE?write are for that)
    #[arg(long)]
    pub(super) transmit: bool,
    /// Print the figures at the end as one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Say nothing while running
    #[arg(short, long)]
    pub(super) quiet: bool,
    #[command(flatten)]
    pub(crate) sorting: Sorting,
    #[command(flatten)]
    pub(super) steering: Steering,
    #[command(flatten)]
    pub(super) memory: Memory,
    #[command(flatten)]
    pub(super) service: Service,
}

/// What matters to a yard that runs for long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Service")]
pub(super) struct Service {
    /// Name of the yard and of its runtime folder, /run/flowyard/NAME (or flowyard/NAME in XDG_RUNTIME_DIR)
    #[arg(long, value_name = "NAME", default_value = runtime::DEFAULT_NAME, value_parser = runtime::name)]
    pub(super) name: String,
    /// Make a control socket for `flowyard ctl` [default path: control.sock in the runtime folder]
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    pub(super) control: Option<Option<PathBuf>>,
    /// Leave the rings to other processes, which attach to them (`flowyard attach`) at this socket [default path:
    /// attach.sock in the runtime folder]
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true)]
    pub(super) attach: Option<Option<PathBuf>>,
    /// Who may attach besides root and this user: WHO, WHO=RING,…, each with +write or +send behind it; WHO is a user, @group or *
    #[arg(long, value_name = "RULE")]
    pub(super) allow: Vec<Allow>,
    /// What becomes of the packets of a ring while nobody is attached to it: drop, hold (they wait in spare buffers), or
    /// redistribute (to the other rings of its group)
    #[arg(long, value_name = "WHAT", default_value = "drop", value_parser = absent)]
    pub(super) absent: Absent,
    /// What is said on standard error: this, and what matters more
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(super) log_level: Level,
    /// Once ports are open go on as this user (a name, UID or UID:GID), without capabilities, and with no files and
    /// system calls but those that are needed (docs/service.md has what works no more then)
    #[arg(long, value_name = "USER", value_parser = User::find)]
    pub(super) user: Option<User>,
    /// With --user: keep these capabilities, such as net_raw,bpf (docs/service.md says what needs which)
    #[arg(long, value_name = "CAP,CAP,…", value_delimiter = ',', value_parser = capability, requires = "user")]
    pub(super) keep_capabilities: Vec<CapabilitySet>,
    /// With --user: say what cannot be given up, and go on, instead of refusing
    #[arg(long)]
    pub(super) keep_privileges: bool,
}

/// `--absent`.
fn absent(text: &str) -> Result<Absent, String> {
    let choice = Absent::ALL.into_iter().find(|(name, _)| *name == text);
    choice.map(|(_, choice)| choice).ok_or_else(|| "must be drop, hold or redistribute".into())
}

/// Memory and threads.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Memory and threads")]
pub(super) struct Memory {
    /// Slots of each ring, a power of two
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub(super) ring_slots: u32,
    /// Bytes in front of every packet for the application: 0, 64, 128, 192 or 256
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub(super) annotation: usize,
    /// Packet buffers [default: what ports and rings can hold, and some to spare]
    #[arg(long, value_name = "N")]
    pub(super) buffers: Option<usize>,
    /// Threads that receive and sort; the queues of an interface are shared out among them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) dispatchers: usize,
    /// Have those threads read a share of the rings each: only packets for another's ring change threads
    #[arg(long)]
    pub(super) local: bool,
    /// Where the kernel steers, have dispatchers take the packets of all rings and pass them on by pipes [default: each
    /// ring's own thread takes them from the kernel]
    #[arg(long)]
    pub(super) relay: bool,
    /// Do not bind dispatchers to cores
    #[arg(long)]
    pub(super) no_pin: bool,
}

fn ports_help() -> String {
    let mut text = String::from("Ports (options follow a ?, several are joined by &):\n");
    for (_, _, help) in flowyard::port::KINDS {
        let _ = writeln!(text, "  {help}");
    }
    text.push_str(
        "\nExamples:\n  flowyard run\n  flowyard run pcap:trace.pcap.gz --rings 8\n  \
         sudo flowyard run xdp:eth0 --rings 4 --for 10\n  sudo flowyard run xdp:eth0 --rings 4 --steer kernel\n  \
         sudo flowyard run xdp:eth0 xdp:eth1 --rings 4 --steer kernel\n  sudo flowyard run packet:eth0 -o out",
    );
    text
}

/// A time as a person writes it: 10, 1.5, 2s or 500ms.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0 && *n < 1e9);
    seconds
        .map(|s| Duration::from_secs_f64(s * unit))
        .ok_or_else(|| "must be a number of seconds, such as 10, 1.5 or 500ms".into())
}
