//! `flowyard inspect`: explain each packet of a capture.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flowyard::port::PortError;
use flowyard::port::capture::{CaptureReader, Record};
use flowyard::steer::{Decision, Dissection, Frame, LinkType};
use flowyard::{Route, SharedFragments, Sorter};
use miette::{IntoDiagnostic, Result, miette};

use crate::digits::Digits;
use crate::layers::Layers;
use crate::options::Sorting;
use crate::{Outcome, json, output};

/// Explain each packet of a capture: its layers, flow, hash and ring.
///
/// Prints a line a packet. The ring is the one that `run` and `split` give the same packet.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Capture file (pcap or pcapng, also .gz .zst .lz4; - is standard input)
    file: PathBuf,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
    /// Only this frame, layer by layer, with its bytes
    #[arg(long, value_name = "N", conflicts_with = "json")]
    frame: Option<u64>,
    #[command(flatten)]
    sorting: Sorting,
}

/// A line whose ring may not be known yet.
struct Pending {
    frame: u64,
    len: u32,
    rest: String,
    known: Option<(Decision, Route)>,
}

impl Inspect {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let mut reader = CaptureReader::open(&self.file).into_diagnostic()?;
        let sorter = Sorter::new(Arc::new(self.sorting.classifier(false)?), SharedFragments::default());
        let mut view = View {
            json: self.json,
            only: self.frame,
            out: BufWriter::with_capacity(1 << 18, std::io::stdout().lock()),
            sorter,
            lines: VecDeque::new(),
            first: 0,
            layers: Layers::default(),
            spare: Vec::new(),
            found: false,
        };
        view.heading()?;
        let damage = view.all(&mut reader)?;
        output::written(view.out.flush())?;
        if let (Some(frame), false) = (self.frame, view.found) {
            let packets = reader.packets();
            return Err(miette!("{}: has no frame {frame}: it has {packets} frames", self.file.display()));
        }
        Ok(match damage {
            None => Outcome::Good,
            Some(error) => {
                output::say(error);
                Outcome::Partial
            }
        })
    }
}

struct View<W: Write> {
    json: bool,
    only: Option<u64>,
    out: W,
    sorter: Sorter<u64>,
    /// Lines not yet printed, in order; the sorter knows them by number, the first being `first`.
    lines: VecDeque<Pending>,
    first: u64,
    layers: Layers,
    spare: Vec<String>,
    found: bool,
}

impl<W: Write> View<W> {
    fn heading(&mut self) -> Result<()> {
        if !self.json && self.only.is_none() {
            let heading = format!("{:>7} {:>4} {:8} {:>6}  layers, flow\n", "frame", "ring", "hash", "bytes");
            output::written(self.out.write_all(heading.as_bytes()))?;
        }
        Ok(())
    }

    fn all(&mut self, reader: &mut CaptureReader) -> Result<Option<PortError>> {
        let damage = loop {
            match reader.next() {
                Ok(Some(record)) => self.one(&record)?,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let (lines, first) = (&mut self.lines, self.first);
        self.sorter.finish(|n, decision, route| settle(lines, first, n, decision, route));
        self.print()?;
        Ok(damage)
    }

    fn one(&mut self, record: &Record<'_>) -> Result<()> {
        let frame =
            Frame { bytes: record.bytes, link: LinkType(record.link), stripped_vlan: None, wire_len: record.wire_len };
        self.layers.clear();
        let verdict = self.sorter.look(&frame, record.time_ns, &mut self.layers);
        let dissection = verdict.decision().dissection;
        let mut rest = self.spare.pop().unwrap_or_default();
        rest.clear();
        if self.json {
            json::tail(&mut rest, &self.layers, &dissection, record.bytes);
        } else if self.only == Some(record.number) {
            detail(&mut rest, &self.layers, &dissection, record);
        } else if self.only.is_none() {
            line(&mut rest, &self.layers, &dissection, record.bytes);
        }
        let number = self.first + self.lines.len() as u64;
        self.lines.push_back(Pending { frame: record.number, len: record.wire_len, rest, known: None });
        let (lines, first) = (&mut self.lines, self.first);
        self.sorter.settle(&verdict, record.time_ns, number, |n, d, route| settle(lines, first, n, d, route));
        self.print()
    }

    /// Prints the lines at the front whose ring is known.
    fn print(&mut self) -> Result<()> {
        let mut text = self.spare.pop().unwrap_or_default();
        while let Some(pending) = self.lines.pop_front_if(|p| p.known.is_some()) {
            self.first += 1;
            let Some((decision, route)) = pending.known else { continue };
            text.clear();
            match (self.only, self.json) {
                (Some(only), _) if only != pending.frame => {}
                (Some(_), _) => {
                    self.found = true;
                    text.push_str(&pending.rest);
                    reason(&mut text, &decision, route);
                }
                (None, true) => {
                    json::head(&mut text, pending.frame);
                    json::verdict(&mut text, decision.ring, decision.hash);
                    text.push_str(&pending.rest);
                    text.push('\n');
                }
                (None, false) => {
                    let Pending { frame, len, rest, .. } = &pending;
                    let held = match route {
                        Route::Direct => "",
                        Route::Held => "  (waited for its first fragment)",
                        Route::Fallback => "  (first fragment not seen: by addresses)",
                    };
                    columns(&mut text, *frame, decision.ring, decision.hash, *len);
                    for part in [rest, held, "\n"] {
                        text.push_str(part);
                    }
                }
            }
            output::written(self.out.write_all(text.as_bytes()))?;
            self.spare.push(pending.rest);
        }
        self.spare.push(text);
        Ok(())
    }
}

fn settle(lines: &mut VecDeque<Pending>, first: u64, number: u64, decision: &Decision, route: Route) {
    if let Some(pending) = lines.get_mut((number - first) as usize) {
        pending.known = Some((*decision, route));
    }
}

/// What stands before layers and flow: number, ring, hash and length.
pub fn columns(text: &mut String, number: u64, ring: u16, hash: u32, len: u32) {
    text.number_right(number, 7);
    text.push(' ');
    text.number_right(ring.into(), 4);
    text.push(' ');
    text.hex8(hash);
    text.push(' ');
    text.number_right(len.into(), 6);
    text.push_str("  ");
}

/// Layers and flow of a packet on one line.
pub fn line(text: &mut String, layers: &Layers, dissection: &Dissection, bytes: &[u8]) {
    for (n, name) in layers.stack().enumerate() {
        if n > 0 {
            text.push('/');
        }
        text.push_str(name);
    }
    match dissection.flow(bytes) {
        Some(flow) => {
            for (before, address, port) in [("  ", flow.src, flow.sport), (" > ", flow.dst, flow.dport)] {
                text.push_str(before);
                text.address(address);
                if let Some(port) = port {
                    text.push(' ');
                    text.number(port.into());
                }
            }
        }
        None => {
            let _ = write!(text, "  no IP flow ({})", dissection.stop().name());
        }
    }
    if dissection.fragment() != flowyard::steer::Fragment::None {
        let _ = write!(text, "  {} fragment", json::fragment(dissection.fragment()));
    }
    if let Some(quoted) = dissection.quoted(bytes) {
        let _ = write!(text, "  about {} > {}", quoted.src, quoted.dst);
    }
}

/// A packet layer by layer, with offsets and bytes.
fn detail(text: &mut String, layers: &Layers, dissection: &Dissection, record: &Record<'_>) {
    let _ = writeln!(
        text,
        "frame {}: {} bytes captured of {}, link type {}, interface {}, time {}.{:09}",
        record.number,
        record.bytes.len(),
        record.wire_len,
        LinkType(record.link).name(),
        record.interface,
        record.time_ns / 1_000_000_000,
        record.time_ns % 1_000_000_000
    );
    for (layer, offset, len) in &layers.layers {
        let _ = writeln!(text, "  {offset:>5} +{len:<4} {}", layer.name());
        let header = record.bytes.get(*offset..(offset + len).min(record.bytes.len())).unwrap_or(&[]);
        for (n, row) in header.chunks(16).enumerate() {
            let _ = write!(text, "        {:04x} ", offset + n * 16);
            for byte in row {
                let _ = write!(text, " {byte:02x}");
            }
            text.push('\n');
        }
    }
    let payload = dissection.payload_end().saturating_sub(dissection.payload_offset());
    let _ = writeln!(text, "  {:>5} +{payload:<4} payload", dissection.payload_offset());
    for level in &layers.levels {
        if let Some(flow) = level.flow(record.bytes) {
            let part = if level.is_quoted() { "quotes" } else { "carries" };
            let _ = write!(text, "{part} {} > {} protocol {}", flow.src, flow.dst, flow.proto);
            if let (Some(sport), Some(dport)) = (flow.sport, flow.dport) {
                let _ = write!(text, " ports {sport} > {dport}");
            }
            if level.fragment() != flowyard::steer::Fragment::None {
                let _ = write!(text, ", {} fragment", json::fragment(level.fragment()));
            }
            text.push('\n');
        }
    }
    for id in &layers.ids {
        let _ = writeln!(text, "{} {}", id.name(), id.value());
    }
    let _ = writeln!(text, "dissection ended: {}", dissection.stop().name());
    let _ = writeln!(text, "key: {:?}", dissection.conversation(record.bytes));
}

/// Why this ring.
fn reason(text: &mut String, decision: &Decision, route: Route) {
    let how = match route {
        Route::Direct if decision.dissection.fragment() == flowyard::steer::Fragment::Later => {
            "the hash of its first fragment, seen before"
        }
        Route::Direct => "the hash of the key",
        Route::Held => "the hash of its first fragment, for which it waited",
        Route::Fallback => "the hash of its addresses, because its first fragment did not come in time",
    };
    let bucket = flowyard::steer::Table::bucket(decision.hash);
    let _ = writeln!(text, "ring {}: {how} is {:08x}, bucket {bucket} of the table", decision.ring, decision.hash);
}
