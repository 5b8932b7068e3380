//! Every capture of the corpus, against what tshark saw in it. The corpus is found through
//! FLOWYARD_CORPUS; without it these tests report themselves skipped.

use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;

use flowyard_port::PortError;
use flowyard_port::capture::{CaptureReader, CaptureWriter, FileFormat, Interface};

fn corpus() -> Option<PathBuf> {
    let found = std::env::var_os("FLOWYARD_CORPUS").map(PathBuf::from).filter(|dir| dir.join("captures").is_dir());
    if found.is_none() {
        eprintln!("skipped: FLOWYARD_CORPUS names no corpus");
    }
    found
}

/// Captures by name.
fn captures(corpus: &std::path::Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(corpus.join("captures"))
        .expect("the corpus can be listed")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    all.sort();
    all
}

/// Captured and wire length of each frame, by capture, from the oracle's archive.
fn oracle(corpus: &std::path::Path) -> HashMap<String, Vec<(usize, u32)>> {
    let packed = std::fs::File::open(corpus.join("oracle.tar.gz")).expect("the oracle can be read");
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut tar).expect("the oracle unpacks");
    let mut all = HashMap::new();
    let mut at = 0;
    // ustar: a header of 512 bytes with name and octal size, the file padded to 512.
    while let Some(header) = tar.get(at..at + 512).filter(|h| h[0] != 0) {
        let field = |range: std::ops::Range<usize>| {
            String::from_utf8_lossy(&header[range]).trim_matches(|c| c == '\0' || c == ' ').to_owned()
        };
        let name = field(0..100);
        let size = usize::from_str_radix(&field(124..136), 8).expect("a size in octal");
        let text = String::from_utf8_lossy(&tar[at + 512..at + 512 + size]);
        if let Some(capture) = name.rsplit('/').next().and_then(|n| n.strip_suffix(".jsonl")) {
            let number = |line: &str, key: &str| {
                let rest = line.split_once(&format!("\"{key}\":")).expect("each frame has its lengths").1;
                rest.split([',', '}']).next().and_then(|n| n.trim().parse().ok()).expect("a number")
            };
            let frames = text.lines().map(|line| (number(line, "caplen") as usize, number(line, "len"))).collect();
            all.insert(capture.to_owned(), frames);
        }
        at += 512 + size.next_multiple_of(512);
    }
    all
}

/// Bytes in front of each packet of a link type that Wireshark takes for no part of the packet.
fn pseudo_header(link: u16) -> usize {
    match link {
        123 | 139 | 201 => 4, // SunATM, MTP2 and Bluetooth with a header
        196 => 5,             // SITA
        _ => 0,
    }
}

/// Lengths of all records up to the end or the damage.
fn lengths(reader: &mut CaptureReader) -> (Vec<(usize, u32)>, Option<PortError>) {
    let mut all = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                // Wireshark holds lengths to 31 bits.
                let skip = pseudo_header(record.link);
                let wire_len = record.wire_len.saturating_sub(skip as u32).min(i32::MAX as u32);
                all.push((record.bytes.len().saturating_sub(skip), wire_len));
                assert!(record.number >= all.len() as u64);
            }
            Ok(None) => return (all, None),
            Err(error) => {
                assert!(matches!(reader.next(), Ok(None)), "an error is the end");
                return (all, Some(error));
            }
        }
    }
}

#[test]
fn every_capture_has_the_frames_that_tshark_saw() {
    let Some(corpus) = corpus() else { return };
    let oracle = oracle(&corpus);
    let (mut files, mut frames, mut damaged, mut unjudged) = (0, 0, 0, 0);
    for path in captures(&corpus) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut reader = CaptureReader::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let (found, error) = lengths(&mut reader);
        let expected = oracle.get(&name).unwrap_or_else(|| panic!("the oracle knows {name}"));
        files += 1;
        frames += found.len();
        damaged += usize::from(error.is_some());
        if expected.is_empty() && !found.is_empty() {
            unjudged += 1; // a link type that tshark does not read
            continue;
        }
        if name.starts_with("pcpp.igmplayer.") {
            // Its third record is damaged. tshark concludes that the file is Nokia's variant, with
            // headers of 20 bytes, and reads the second record four bytes late.
            assert_eq!(found, [(90, 90), (39, 46)]);
            continue;
        }
        assert_eq!(&found, expected, "{name}: {error:?}");
    }
    eprintln!("{files} files, {frames} frames, {damaged} damaged, {unjudged} that tshark does not read");
    assert!(files > 1000 && unjudged < 20);
}

/// What is written can be read back, whatever was read.
#[test]
fn every_capture_survives_writing_and_packing() {
    let Some(corpus) = corpus() else { return };
    for (number, path) in captures(&corpus).into_iter().enumerate() {
        let mut reader = CaptureReader::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let copy = tempfile::NamedTempFile::new().expect("a temporary file");
        let out = copy.reopen().expect("a second handle");
        let mut writer =
            CaptureWriter::over("copy", Box::new(out), FileFormat::Pcapng).expect("a capture that can be written");
        let mut first: Vec<(Vec<u8>, u64, u32, u16, String)> = Vec::new();
        let mut known = 0;
        while let Ok(Some(record)) = reader.next() {
            let (bytes, time_ns, wire_len, link) =
                (record.bytes.to_vec(), record.time_ns, record.wire_len, record.link);
            let (interface, comment) = (record.interface, record.comment().into_owned());
            while known < reader.interfaces().len() {
                let described = Interface { snaplen: 0, ..reader.interfaces()[known].clone() };
                writer.interface(&described).expect("another interface");
                known += 1;
            }
            let packet = flowyard_port::Outgoing { bytes: &bytes, time_ns, wire_len, link, comment: &comment };
            writer.write(interface, &packet).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            first.push((bytes, time_ns, wire_len, link, comment));
        }
        writer.finish().expect("space in the temporary folder");
        let plain = std::fs::read(copy.path()).expect("the copy can be read");
        let packed = match number % 4 {
            0 => plain,
            1 => zstd::encode_all(&plain[..], 1).expect("zstd packs"),
            2 => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                std::io::Write::write_all(&mut gz, &plain).expect("gzip packs");
                gz.finish().expect("gzip packs")
            }
            _ => {
                let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
                std::io::Write::write_all(&mut lz4, &plain).expect("lz4 packs");
                lz4.finish().expect("lz4 packs")
            }
        };
        let mut again = CaptureReader::over("copy", Box::new(Cursor::new(packed))).expect("the copy is a capture");
        for (bytes, time_ns, wire_len, link, comment) in &first {
            let record = again.next().unwrap_or_else(|e| panic!("{}: {e}", path.display())).expect("as many records");
            assert_eq!((record.bytes, record.wire_len, record.link), (&bytes[..], *wire_len, *link));
            assert_eq!((record.time_ns, record.comment().as_ref()), (*time_ns, comment.as_str()));
        }
        assert!(matches!(again.next(), Ok(None)));
    }
}

/// Cut anywhere, a capture gives the same packets up to the cut; with a byte changed anywhere, some
/// packets and an end.
#[test]
fn every_capture_can_be_damaged() {
    let Some(corpus) = corpus() else { return };
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for path in captures(&corpus) {
        let whole = std::fs::read(&path).expect("the corpus can be read");
        let read = |bytes: Vec<u8>| {
            CaptureReader::over("damaged", Box::new(Cursor::new(bytes))).map(|mut reader| lengths(&mut reader))
        };
        let (intact, _) = read(whole.clone()).unwrap_or_else(|e| panic!("{e}"));
        for _ in 0..12 {
            let cut = random(whole.len());
            if let Ok((found, _)) = read(whole[..cut].to_vec()) {
                assert!(intact.starts_with(&found), "{} cut at {cut}", path.display());
            }
            let mut flipped = whole.clone();
            // Mostly in the headers at the beginning, where it hurts.
            let at = if random(2) == 0 { random(whole.len()) } else { random(whole.len().min(200)) };
            flipped[at] ^= 1 << random(8);
            if let Ok((found, _)) = read(flipped) {
                assert!(found.iter().map(|(len, _)| len).sum::<usize>() <= whole.len());
            }
        }
    }
}
