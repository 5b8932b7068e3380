//! `flowyard gen`: generated traffic into a capture or an interface.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use flowyard::port::capture::CaptureWriter;
use flowyard::port::traffic::{GenSpec, Mix};
use flowyard::port::{Outgoing, PacketSink, PortSpec, Sink};
use miette::{IntoDiagnostic, Result, miette};

use crate::{Outcome, output};

/// Generate traffic into a capture or an interface.
///
/// Conversations in both directions over plain Ethernet, VLAN, QinQ, PPPoE, GRE, GTP-U, VXLAN and
/// MPLS, with fragments and ICMP errors. The same options make the same packets.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct Gen {
    /// What to make, and options of the port `gen:`
    #[arg(value_name = "MIX", default_value = "gen:mix")]
    mix: String,
    /// Write a capture (pcapng; classic pcap if the name ends in .pcap; - is standard output)
    #[arg(short, long, value_name = "FILE", required_unless_present = "to", conflicts_with = "to")]
    write: Option<PathBuf>,
    /// Send on an interface, such as packet:eth0
    #[arg(long, value_name = "PORT")]
    to: Option<String>,
    /// Note on each packet which conversation it belongs to, as a comment (pcapng only)
    #[arg(long, requires = "write")]
    truth: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

const AFTER: &str = "\
Mixes: gen:mix (all), gen:plain, gen:vlan, gen:qinq, gen:pppoe, gen:gre, gen:gtp, gen:vxlan, gen:mpls
Options after ?: flows=N packets=N seconds=S seed=N size=60-1500|N|imix rate=PPS only=NAME,NAME

Examples:
  flowyard gen -w mix.pcapng
  flowyard gen 'gen:mix?only=vxlan,gtp&packets=1000&seed=7' -w tunnels.pcap
  sudo flowyard gen 'gen:mix?rate=100000&seconds=10' --to packet:veth0";

/// Packets made if neither their number nor a time is given.
const PACKETS: u64 = 100_000;
/// The time of the first packet in a file, in nanoseconds since 1970: fixed, so that the same options
/// give the same file.
const EPOCH_NS: u64 = 1_600_000_000_000_000_000;
const LINK_ETHERNET: u16 = 1;

impl Gen {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let name = if self.mix.contains(':') { self.mix.clone() } else { format!("gen:{}", self.mix) };
        let spec: PortSpec = name.parse().into_diagnostic()?;
        if spec.kind != flowyard::port::Kind::Gen {
            return Err(miette!("{name} is no generated traffic: write gen:mix, and where it goes with -w or --to"));
        }
        let mut wanted = GenSpec::new(&spec).into_diagnostic()?;
        if !spec.options.contains_key("packets") && !spec.options.contains_key("seconds") {
            wanted.packets = PACKETS;
        }
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, stop.clone()).into_diagnostic()?;
            signal_hook::flag::register(signal, stop.clone()).into_diagnostic()?;
        }
        let started = Instant::now();
        let (packets, bytes) = match (&self.write, &self.to) {
            (Some(path), _) => {
                let sink = CaptureWriter::create(path).into_diagnostic()?;
                self.pour(&wanted, sink, false, &stop)?
            }
            (None, Some(port)) => {
                let sink = PacketSink::open(&port.parse().into_diagnostic()?).into_diagnostic()?;
                self.pour(&wanted, sink, true, &stop)?
            }
            (None, None) => return Err(miette!("nowhere to go: give -w FILE or --to packet:IF")),
        };
        if !self.quiet {
            let time = started.elapsed();
            let (packets, bytes, rate) = (output::count(packets), output::count(bytes), output::rate(packets, time));
            output::say(format!("{packets} packets, {bytes} bytes in {:.2} s: {rate}", time.as_secs_f64()));
        }
        Ok(Outcome::Good)
    }

    fn pour(&self, wanted: &GenSpec, mut sink: impl Sink, live: bool, stop: &AtomicBool) -> Result<(u64, u64)> {
        let mut mix = Mix::new(&wanted.mix);
        let mut frame = [0; Mix::FRAME_BYTES];
        let (mut packets, mut bytes) = (0, 0);
        let started = Instant::now();
        let paced = live && wanted.mix.rate_pps.is_some();
        let mut comment = String::new();
        while packets < wanted.packets && !stop.load(Ordering::Relaxed) {
            if packets.is_multiple_of(64) && wanted.lasting.is_some_and(|t| started.elapsed() >= t) {
                break;
            }
            let packet = mix.next(&mut frame);
            if paced {
                let early = Duration::from_nanos(packet.time_ns).saturating_sub(started.elapsed());
                if early > Duration::from_millis(1) {
                    sink.flush().into_diagnostic()?;
                    std::thread::sleep(early);
                }
            }
            if self.truth {
                comment = format!("conversation {}", packet.conversation);
            }
            let out = Outgoing {
                bytes: &frame[..packet.len],
                time_ns: EPOCH_NS + packet.time_ns,
                wire_len: packet.len as u32,
                link: LINK_ETHERNET,
                comment: &comment,
            };
            sink.send(&out).into_diagnostic()?;
            packets += 1;
            bytes += packet.len as u64;
        }
        sink.flush().into_diagnostic()?;
        Ok((packets, bytes))
    }
}
