//! Captures and generated traffic, nanoseconds a packet: reading beside `pcap-parser` and beside a
//! bare walk of a mapped file, writing, generating.
//!
//! `cargo bench -p flowyard-port --bench captures [-- MIB ROUNDS]` makes captures of that size (256)
//! in the temporary folder and deletes them. All run in turn, round by round (5), so that a noisy
//! moment hits them alike; least, median and most of the rounds are shown.
#![allow(unsafe_code)]

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use flowyard_mem::{Geometry, Region};
use flowyard_port::capture::{CaptureReader, CaptureWriter, FileFormat, Interface};
use flowyard_port::traffic::{Carrier, Mix, MixOptions, Sizes};
use flowyard_port::{Outgoing, PortError, PortSpec, Progress, prepare};
use pcap_parser::traits::PcapReaderIterator;

fn main() -> Result<(), PortError> {
    // Cargo itself adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (mib, rounds) = (numbers.next().unwrap_or(256), numbers.next().unwrap_or(5));
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("a temporary folder: {e}"));
    let (ng, classic) = (folder.path().join("a.pcapng"), folder.path().join("a.pcap"));
    let packets = write(&ng, mib << 20)?;
    assert_eq!(write(&classic, mib << 20)?.abs_diff(packets) * 10 / packets, 0);
    let name = |path: &Path| format!("pcap:{}", path.display());

    type Job<'a> = (&'static str, Box<dyn FnMut() -> Result<u64, PortError> + 'a>);
    let mut jobs: Vec<Job<'_>> = vec![
        ("read pcap", Box::new(|| read(&classic))),
        ("read pcap, mapped, bare walk", Box::new(|| Ok(walk_mapped(&classic)))),
        ("read pcap, pcap-parser", Box::new(|| Ok(their_pcap(&classic)))),
        ("read pcapng", Box::new(|| read(&ng))),
        ("read pcapng, pcap-parser", Box::new(|| Ok(their_pcapng(&ng)))),
        ("port pcap: into buffers", Box::new(|| drain(&name(&classic)))),
        ("port pcapng: into buffers", Box::new(|| drain(&name(&ng)))),
        ("copy pcapng to pcapng", Box::new(|| copy(&ng, &folder.path().join("copy.pcapng")))),
        ("write pcapng to a file", Box::new(|| write_frames(&folder.path().join("out.pcapng")))),
        ("write pcapng to nowhere", Box::new(|| write_frames(Path::new("/dev/null")))),
        ("generate mix", Box::new(|| Ok(generate(MixOptions::default())))),
        ("generate mix, imix", Box::new(|| Ok(generate(MixOptions { sizes: Sizes::Imix, ..MixOptions::default() })))),
        (
            "generate plain, 64 bytes",
            Box::new(|| {
                let sizes = Sizes::Mixed { least: 64, most: 64 };
                Ok(generate(MixOptions { sizes, only: vec![Carrier::Plain], ..MixOptions::default() }))
            }),
        ),
        ("port gen:mix into buffers", Box::new(|| drain("gen:mix?packets=1000000"))),
    ];
    let mut figures: Vec<Vec<f64>> = vec![Vec::new(); jobs.len()];
    for _ in 0..rounds {
        for ((_, job), figures) in jobs.iter_mut().zip(&mut figures) {
            let start = Instant::now();
            let packets = job()?;
            figures.push(start.elapsed().as_nanos() as f64 / packets as f64);
        }
    }
    println!("{mib} MiB, {packets} packets of {} bytes on average, {rounds} rounds", (mib << 20) / packets);
    println!("{:32} {:>8} {:>8} {:>8}  ns a packet", "", "least", "median", "most");
    for ((what, _), figures) in jobs.iter().zip(&mut figures) {
        figures.sort_by(f64::total_cmp);
        let (least, median, most) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
        println!("{what:32} {least:8.1} {median:8.1} {most:8.1}  {:6.2} Mpps", 1000.0 / median);
    }
    Ok(())
}

/// Fills a capture with generated traffic.
fn write(path: &Path, bytes: u64) -> Result<u64, PortError> {
    let mut writer = CaptureWriter::create(path)?;
    let eth = writer.interface(&Interface::of_link(1))?;
    let mut mix = Mix::new(&MixOptions::default());
    let mut frame = [0; Mix::FRAME_BYTES];
    let mut written = 0;
    while written < bytes {
        let packet = mix.next(&mut frame);
        let (time_ns, wire_len) = (1_700_000_000_000_000_000 + packet.time_ns, packet.len as u32);
        writer.write(eth, &Outgoing { bytes: &frame[..packet.len], time_ns, wire_len, link: 1, comment: "" })?;
        written += packet.len as u64 + 24;
    }
    let packets = writer.packets();
    writer.finish()?;
    Ok(packets)
}

/// A million packets of the sizes of a mix, made beforehand.
fn write_frames(path: &Path) -> Result<u64, PortError> {
    let out = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut writer = CaptureWriter::over("bench", Box::new(out), FileFormat::Pcapng)?;
    let eth = writer.interface(&Interface::of_link(1))?;
    let bytes = [0x55; 1500];
    for n in 0..1_000_000u64 {
        let len = [60, 90, 576, 1500][n as usize % 4];
        let packet = Outgoing { bytes: &bytes[..len], time_ns: n, wire_len: len as u32, link: 1, comment: "" };
        writer.write(eth, &packet)?;
    }
    writer.finish()?;
    Ok(1_000_000)
}

/// Reads to the end, looking at each packet's first byte.
fn read(path: &Path) -> Result<u64, PortError> {
    let mut reader = CaptureReader::open(path)?;
    let mut sum = 0;
    while let Some(record) = reader.next()? {
        sum += record.time_ns ^ u64::from(record.bytes.first().copied().unwrap_or(0));
    }
    black_box(sum);
    Ok(reader.packets())
}

fn copy(from: &Path, to: &Path) -> Result<u64, PortError> {
    let mut reader = CaptureReader::open(from)?;
    let mut writer = CaptureWriter::create(to)?;
    let eth = writer.interface(&Interface::of_link(1))?;
    while let Some(record) = reader.next()? {
        let comment = record.comment();
        let (time_ns, wire_len, link) = (record.time_ns, record.wire_len, record.link);
        writer.write(eth, &Outgoing { bytes: record.bytes, time_ns, wire_len, link, comment: &comment })?;
    }
    writer.finish()?;
    Ok(reader.packets())
}

/// The least that reading a mapped pcap can cost: follow the lengths, look at the first byte.
fn walk_mapped(path: &Path) -> u64 {
    let file = File::open(path).unwrap_or_else(|e| panic!("{e}"));
    // SAFETY: this program made the file in a folder of its own and changes it no more.
    let map = unsafe { memmap2::Mmap::map(&file) }.unwrap_or_else(|e| panic!("{e}"));
    let (mut at, mut packets, mut sum) = (24, 0, 0u64);
    while let Some(header) = map.get(at..at + 16) {
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let len = word(8) as usize;
        let Some(bytes) = map.get(at + 16..at + 16 + len) else { break };
        sum += (u64::from(word(0)) * 1_000_000_000 + u64::from(word(4))) ^ u64::from(bytes[0]);
        at += 16 + len;
        packets += 1;
    }
    black_box(sum);
    packets
}

fn their_pcap(path: &Path) -> u64 {
    let file = File::open(path).unwrap_or_else(|e| panic!("{e}"));
    let mut reader = pcap_parser::LegacyPcapReader::new(256 << 10, file).unwrap_or_else(|e| panic!("{e:?}"));
    theirs(&mut reader)
}

fn their_pcapng(path: &Path) -> u64 {
    let file = File::open(path).unwrap_or_else(|e| panic!("{e}"));
    let mut reader = pcap_parser::PcapNGReader::new(256 << 10, file).unwrap_or_else(|e| panic!("{e:?}"));
    theirs(&mut reader)
}

fn theirs(reader: &mut dyn PcapReaderIterator) -> u64 {
    use pcap_parser::{Block, PcapBlockOwned, PcapError};
    let (mut packets, mut sum) = (0, 0);
    loop {
        match reader.next() {
            Ok((len, block)) => {
                match block {
                    PcapBlockOwned::Legacy(b) => {
                        sum += u64::from(b.ts_usec) ^ u64::from(b.data[0]);
                        packets += 1;
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
                        sum += u64::from(b.ts_low) ^ u64::from(b.data[0]);
                        packets += 1;
                    }
                    _ => {}
                }
                reader.consume(len);
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap_or_else(|e| panic!("{e:?}")),
            Err(e) => panic!("{e:?}"),
        }
    }
    black_box(sum);
    packets
}

fn generate(options: MixOptions) -> u64 {
    let mut mix = Mix::new(&options);
    let mut frame = [0; Mix::FRAME_BYTES];
    for _ in 0..1_000_000 {
        black_box(mix.next(black_box(&mut frame)));
    }
    1_000_000
}

/// A port's packets into buffers of a region, which go straight home.
fn drain(name: &str) -> Result<u64, PortError> {
    let spec: PortSpec = name.parse()?;
    let (region, mut stock) = Region::create("bench", Geometry::new(2048, 64, 512)?)?;
    let Some(opener) = prepare(&spec, 1)?.pop() else { return Ok(0) };
    let mut port = opener.open(&region, &mut stock)?;
    let mut batch = Vec::new();
    loop {
        let progress = port.receive(&mut stock, &mut batch, 64)?;
        batch.drain(..).for_each(|received| stock.put(received.buffer));
        if progress == Progress::Ended {
            return Ok(port.close(&mut stock)?.packets);
        }
    }
}
