//! `flowyard split`: one capture into N, whole conversations together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use flowyard::port::capture::{CaptureReader, CaptureWriter, Record, Spool};
use flowyard::port::{Outgoing, PortError};
use flowyard::steer::{Decision, Frame, LinkType, Verdict};
use flowyard::{Route, SharedFragments, Sorter};
use miette::{IntoDiagnostic, Result, miette};

use crate::options::Sorting;
use crate::{Outcome, output};

/// Split one capture into N, whole conversations together.
///
/// Writes DIR/NAME-00.pcapng, NAME-01.pcapng, … with the packets' original times, lengths, link
/// types, interfaces and comments. A later fragment that came before its first one is written behind
/// it.
#[derive(Debug, Args)]
pub struct Split {
    /// Capture file (pcap or pcapng, also .gz .zst .lz4; - is standard input)
    file: PathBuf,
    /// Directory to write to; made if it is not there
    #[arg(short = 'o', long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    sorting: Sorting,
}

/// A packet that waits for another, with bytes of its own.
struct Kept {
    bytes: Vec<u8>,
    time_ns: u64,
    wire_len: u32,
    link: u16,
    interface: u32,
    comment: String,
}

impl Kept {
    fn of(interface: u32, packet: &Outgoing<'_>) -> Kept {
        let Outgoing { bytes, time_ns, wire_len, link, comment } = *packet;
        Kept { bytes: bytes.to_vec(), time_ns, wire_len, link, interface, comment: comment.to_owned() }
    }

    fn outgoing(&self) -> Outgoing<'_> {
        let Kept { bytes, time_ns, wire_len, link, comment, .. } = self;
        Outgoing { bytes, time_ns: *time_ns, wire_len: *wire_len, link: *link, comment }
    }
}

impl Split {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let started = Instant::now();
        let mut reader = CaptureReader::open(&self.file).into_diagnostic()?;
        let classifier = self.sorting.classifier(false)?;
        std::fs::create_dir_all(&self.output)
            .map_err(|e| miette!("cannot make the directory {}: {e}", self.output.display()))?;
        let mut outputs = Outputs::create(&self.output, &self.file, self.sorting.rings(), &reader)?;
        let mut sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
        let bar =
            if self.quiet { indicatif::ProgressBar::hidden() } else { output::progress(size_of_plain(&self.file)) };
        let mut damage = None;
        let mut failed: Result<(), PortError> = Ok(());
        loop {
            match reader.next() {
                Ok(Some(record)) if (record.interface as usize) < outputs.described => {
                    let number = record.number;
                    one(
                        &mut sorter,
                        &mut outputs,
                        record.interface,
                        &outgoing(&record, &record.comment()),
                        &mut failed,
                    );
                    if number.is_multiple_of(16384) {
                        bar.set_position(reader.offset());
                    }
                }
                Ok(Some(record)) => {
                    // The first packet of an interface: describe it to the outputs before writing.
                    let kept = Kept::of(record.interface, &outgoing(&record, &record.comment()));
                    outputs.describe(&reader);
                    one(&mut sorter, &mut outputs, kept.interface, &kept.outgoing(), &mut failed);
                }
                Ok(None) => break,
                Err(error) => {
                    damage = Some(error);
                    break;
                }
            }
            if failed.is_err() {
                break;
            }
        }
        sorter.finish(|kept, decision, route| keep_error(&mut failed, outputs.write_kept(&kept, decision, route)));
        bar.finish_and_clear();
        failed.into_diagnostic()?;
        let written = outputs.finish().into_diagnostic()?;
        if !self.quiet {
            summary(&written, reader.offset(), started);
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

fn one(
    sorter: &mut Sorter<Kept>,
    outputs: &mut Outputs,
    interface: u32,
    packet: &Outgoing<'_>,
    failed: &mut Result<(), PortError>,
) {
    let Outgoing { bytes, time_ns, wire_len, link, .. } = *packet;
    let frame = Frame { bytes, link: LinkType(link), stripped_vlan: None, wire_len };
    let verdict = sorter.look(&frame, time_ns, &mut ());
    match &verdict {
        Verdict::Ring(decision) if sorter.waiting() == 0 => {
            keep_error(failed, outputs.write(decision.ring, interface, packet));
        }
        _ => sorter.settle(&verdict, time_ns, Kept::of(interface, packet), |kept, decision, route| {
            keep_error(failed, outputs.write_kept(&kept, decision, route));
        }),
    }
}

fn keep_error(failed: &mut Result<(), PortError>, outcome: Result<(), PortError>) {
    if failed.is_ok() {
        *failed = outcome;
    }
}

fn outgoing<'a>(record: &'a Record<'_>, comment: &'a str) -> Outgoing<'a> {
    let Record { bytes, time_ns, wire_len, link, .. } = *record;
    Outgoing { bytes, time_ns, wire_len, link, comment }
}

/// The size of an ordinary file, for progress; packed files and pipes have none that helps.
fn size_of_plain(file: &Path) -> Option<u64> {
    let packed = file.extension().is_some_and(|e| ["gz", "zst", "lz4"].iter().any(|p| e == *p));
    std::fs::metadata(file).ok().filter(|m| m.is_file() && !packed).map(|m| m.len())
}

struct Outputs {
    writers: Vec<CaptureWriter>,
    paths: Vec<PathBuf>,
    /// Interfaces of the input described to every output so far; their numbers are the same there.
    described: usize,
    counts: Vec<(u64, u64)>,
}

impl Outputs {
    fn create(dir: &Path, input: &Path, rings: u16, reader: &CaptureReader) -> Result<Outputs> {
        let stem = input.file_name().map_or("stdin".into(), |n| n.to_string_lossy().into_owned());
        let stem = [".gz", ".zst", ".lz4"].iter().find_map(|e| stem.strip_suffix(e)).unwrap_or(&stem).to_owned();
        let stem = [".pcapng", ".pcap", ".cap"].iter().find_map(|e| stem.strip_suffix(e)).unwrap_or(&stem).to_owned();
        let stem = if stem == "-" { "stdin".into() } else { stem };
        let width = (rings - 1).to_string().len().max(2);
        let comment = reader.comments().join("\n");
        // Reading and sorting on this thread, writing on another, where there is a core for it.
        let several = std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1);
        let spool = if several { Spool::start().ok() } else { None };
        let (mut writers, mut paths) = (Vec::new(), Vec::new());
        for ring in 0..rings {
            let path = dir.join(format!("{stem}-{ring:0width$}.pcapng"));
            if same_file(&path, input) {
                return Err(miette!(
                    "{} would overwrite its own input: give another directory with -o",
                    path.display()
                ));
            }
            writers.push(CaptureWriter::create_with(&path, &comment, spool.as_ref()).into_diagnostic()?);
            paths.push(path);
        }
        let counts = vec![(0, 0); paths.len()];
        let mut outputs = Outputs { writers, paths, described: 0, counts };
        outputs.describe(reader);
        Ok(outputs)
    }

    /// Describes interfaces that the reader has come to know. A failure shows when packets are written.
    fn describe(&mut self, reader: &CaptureReader) {
        while let Some(interface) = reader.interfaces().get(self.described) {
            for writer in &mut self.writers {
                let _ = writer.interface(interface);
            }
            self.described += 1;
        }
    }

    fn write(&mut self, ring: u16, interface: u32, packet: &Outgoing<'_>) -> Result<(), PortError> {
        let ring = usize::from(ring);
        self.counts[ring].0 += 1;
        self.counts[ring].1 += packet.bytes.len() as u64;
        self.writers[ring].write(interface, packet)
    }

    fn write_kept(&mut self, kept: &Kept, decision: &Decision, _: Route) -> Result<(), PortError> {
        self.write(decision.ring, kept.interface, &kept.outgoing())
    }

    /// Writes everything out; answers for each output its path, packets and bytes.
    fn finish(self) -> Result<Vec<(PathBuf, u64, u64)>, PortError> {
        for writer in self.writers {
            writer.finish()?;
        }
        Ok(self.paths.into_iter().zip(self.counts).map(|(path, (packets, bytes))| (path, packets, bytes)).collect())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn summary(written: &[(PathBuf, u64, u64)], bytes_read: u64, started: Instant) {
    let time = started.elapsed();
    for (path, packets, bytes) in written {
        println!("{:>12} packets {:>15} bytes  {}", output::count(*packets), output::count(*bytes), path.display());
    }
    let packets: u64 = written.iter().map(|w| w.1).sum();
    println!(
        "{:>12} packets in {:.2} s: {}, {:.0} MB/s read",
        output::count(packets),
        time.as_secs_f64(),
        output::rate(packets, time),
        bytes_read as f64 / 1e6 / time.as_secs_f64().max(1e-9)
    );
}
