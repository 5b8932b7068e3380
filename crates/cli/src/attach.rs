//! `flowyard attach`: the packets of a ring of a running yard.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use flowyard::attach::{AttachError, Attached, End, RingState};
use flowyard::mem::{Packet, Wait, flags};
use flowyard::port::{Outgoing, PacketSink, Sink};
use flowyard::steer::{Frame, LinkType, dissect};
use miette::{IntoDiagnostic, Result, miette};

use crate::layers::Layers;
use crate::ring_file::RingFile;
use crate::run::duration;
use crate::{Outcome, inspect, json, output};

/// Take the packets of a ring of a running yard: as text, or as a capture for tcpdump, tshark and Wireshark.
///
/// Without a ring it lists those that there are. The yard must have been run with --attach. Other consumers do not
/// notice; the ring is this program's until it ends.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub struct Attach {
    /// The ring: NAME/RING, such as yard/0, or NAME/GROUP/RING
    #[arg(value_name = "RING")]
    ring: Option<String>,
    /// Write a capture (pcapng, with what Flowyard knows of each packet as its comment; classic pcap if the name ends
    /// in .pcap; - is standard output)
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["json", "to"])]
    write: Option<PathBuf>,
    /// Send them on by an interface, such as packet:veth0, for tools that read one
    #[arg(long, value_name = "PORT", conflicts_with = "json")]
    to: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// End after so many packets
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// End after this time (such as 10, 1.5 or 500ms)
    #[arg(long = "for", value_name = "SECONDS", value_parser = duration)]
    time: Option<Duration>,
    /// Wait for the yard, or for the ring to be free; and for the next yard when this one ends
    #[arg(long)]
    wait: bool,
    /// The yard's socket for consumers, where it was given a path of its own; RING is then without the yard's name
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Do not write comments
    #[arg(long, requires = "write")]
    no_comments: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

const AFTER: &str = "\
Examples:
  flowyard attach
  flowyard attach yard/0
  flowyard attach yard/0 -w - | tcpdump -nr -
  flowyard attach yard/0 -w - | wireshark -k -i -
  flowyard attach yard/ids/1 --wait -w share.pcapng";

/// Longest sleep, so that a signal is noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// Where packets go.
enum Destination {
    Capture(RingFile),
    Interface(PacketSink, Vec<u8>),
    Text(Box<Text>),
}

impl Attach {
    /// Into a pipe that somebody reads.
    pub fn into_pipe(ring: &str, pipe: &Path, wait: bool) -> Attach {
        Attach {
            ring: Some(ring.into()),
            write: Some(pipe.into()),
            to: None,
            json: false,
            count: None,
            time: None,
            wait,
            socket: None,
            no_comments: false,
            quiet: true,
        }
    }

    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let Some(ring) = &self.ring else { return list(&flowyard::attach::rings()) };
        let wanted = match &self.socket {
            Some(path) => flowyard::attach::Attach::at(path, ring),
            None => flowyard::attach::Attach::to(ring).into_diagnostic()?,
        };
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register_conditional_default(signal, stop.clone()).into_diagnostic()?;
            signal_hook::flag::register(signal, stop.clone()).into_diagnostic()?;
        }
        let mut destination = None;
        let mut packets = 0;
        let started = Instant::now();
        let outcome = loop {
            // In small steps, so that a signal is noticed.
            let mut ring = match wanted.within(Some(if self.wait { LONGEST_SLEEP } else { Duration::ZERO })) {
                Ok(ring) => ring,
                // What waiting mends: within() has waited.
                Err(AttachError::Reach { .. } | AttachError::Refused { .. }) if self.wait => {
                    if self.over(&stop, started) {
                        break Outcome::Good;
                    }
                    continue;
                }
                Err(error) => return Err(error).into_diagnostic(),
            };
            if !self.quiet {
                output::say(format!("attached to {}", ring.about()));
            }
            if destination.is_none() {
                destination = Some(self.destination(&ring)?);
            }
            let Some(to) = &mut destination else { continue };
            let ended = match self.pour(&mut ring, to, &mut packets, &stop, started) {
                Err(_) if to.is_reader_gone() => false,
                outcome => outcome?,
            };
            if !ended {
                break Outcome::Good;
            }
            let end = ring.end();
            if !self.quiet && (self.wait || end == End::InOrder) {
                output::say("the yard has ended");
            }
            match end {
                _ if self.wait => {}
                End::InOrder => break Outcome::Good,
                End::Lost => {
                    output::say(
                        "the yard is gone without a word: what it had for this ring is lost (--wait waits for it)",
                    );
                    break Outcome::Partial;
                }
            }
        };
        if let Some(Destination::Capture(file)) = destination
            && !file.is_reader_gone()
        {
            file.finish().into_diagnostic()?;
        }
        if !self.quiet {
            output::say(format!("{} packets", output::count(packets)));
        }
        Ok(outcome)
    }

    fn over(&self, stop: &AtomicBool, started: Instant) -> bool {
        stop.load(Ordering::Relaxed) || self.time.is_some_and(|t| started.elapsed() >= t)
    }

    fn destination(&self, ring: &Attached) -> Result<Destination> {
        Ok(match (&self.write, &self.to) {
            (Some(path), _) => {
                let path: &Path = path;
                let file = RingFile::create(path).into_diagnostic()?;
                Destination::Capture(if self.no_comments { file } else { file.commented(path, &ring.about().ports) })
            }
            (None, Some(port)) => {
                let sink = PacketSink::open(&port.parse().into_diagnostic()?).into_diagnostic()?;
                Destination::Interface(sink, Vec::new())
            }
            (None, None) => Destination::Text(Box::new(Text::new(self.json))),
        })
    }

    /// Takes packets until the yard ends, or it is enough. Answers whether the yard has ended.
    fn pour(
        &self,
        ring: &mut Attached,
        to: &mut Destination,
        packets: &mut u64,
        stop: &AtomicBool,
        started: Instant,
    ) -> Result<bool> {
        loop {
            while let Some(packet) = ring.next() {
                *packets += 1;
                to.take(&packet, *packets)?;
                if self.count.is_some_and(|count| *packets >= count) || stop.load(Ordering::Relaxed) {
                    to.flush()?;
                    return Ok(false);
                }
            }
            to.flush()?; // who reads it sees all there is
            let left = self.time.map(|t| t.saturating_sub(started.elapsed()));
            let sleep = left.map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP));
            if ring.wait(Some(sleep)) == Wait::Ended {
                return Ok(true);
            }
            if self.over(stop, started) {
                return Ok(false);
            }
        }
    }
}

impl Destination {
    fn take(&mut self, packet: &Packet<'_>, number: u64) -> Result<()> {
        match self {
            Destination::Capture(file) => file.write(packet).into_diagnostic(),
            Destination::Interface(sink, bytes) => {
                let tag = packet.tag();
                bytes.clear();
                packet.segments().for_each(|segment| bytes.extend_from_slice(segment));
                let (time_ns, wire_len, link) = (tag.time_ns, tag.wire_len, tag.link);
                sink.send(&Outgoing { bytes, time_ns, wire_len, link, comment: "" }).into_diagnostic()
            }
            Destination::Text(text) => text.take(packet, number),
        }
    }

    fn is_reader_gone(&self) -> bool {
        matches!(self, Destination::Capture(file) if file.is_reader_gone())
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Destination::Capture(file) => file.flush().into_diagnostic(),
            Destination::Interface(sink, _) => sink.flush().into_diagnostic(),
            Destination::Text(text) => output::written(text.out.flush()),
        }
    }
}

/// A line a packet, as `inspect` has it.
struct Text {
    json: bool,
    out: BufWriter<std::io::Stdout>,
    policy: flowyard::steer::Policy,
    layers: Layers,
    line: String,
    bytes: Vec<u8>,
}

impl Text {
    fn new(json: bool) -> Text {
        let out = BufWriter::with_capacity(1 << 16, std::io::stdout());
        let policy = flowyard::steer::Policy::default();
        Text { json, out, policy, layers: Layers::default(), line: String::new(), bytes: Vec::new() }
    }

    fn take(&mut self, packet: &Packet<'_>, number: u64) -> Result<()> {
        let tag = packet.tag();
        self.bytes.clear();
        packet.segments().for_each(|segment| self.bytes.extend_from_slice(segment));
        let stripped_vlan = tag.has(flags::VLAN_STRIPPED).then_some(tag.stripped_vlan);
        let frame = Frame { bytes: &self.bytes, link: LinkType(tag.link), stripped_vlan, wire_len: tag.wire_len };
        self.layers.clear();
        let dissection = dissect(&frame, &self.policy, &mut self.layers);
        let line = &mut self.line;
        line.clear();
        if self.json {
            json::head(line, number);
            json::verdict(line, tag.ring, tag.hash);
            json::tail(line, &self.layers, &dissection, &self.bytes);
        } else {
            inspect::columns(line, number, tag.ring, tag.hash, tag.wire_len);
            inspect::line(line, &self.layers, &dissection, &self.bytes);
        }
        line.push('\n');
        output::written(self.out.write_all(line.as_bytes()))
    }
}

/// The rings of all yards, a line each.
fn list(rings: &[RingState]) -> Result<Outcome> {
    if rings.is_empty() {
        return Err(miette!(
            "no yard here takes consumers: start one with `flowyard run … --attach`, or name its socket with --socket"
        ));
    }
    let mut text = String::new();
    for ring in rings {
        let state = match (&ring.reader, ring.allowed) {
            (Some((program, pid)), _) => format!("read by {program} (process {pid})"),
            (None, true) => "free".into(),
            (None, false) => "not for this user".into(),
        };
        text.push_str(&format!("{:<24} {state}\n", ring.name));
    }
    output::written(std::io::stdout().write_all(text.as_bytes()))?;
    Ok(Outcome::Good)
}
