//! Captures that are written here: every format and byte order, damage of every kind.

use std::io::{Cursor, Write};

use flowyard_port::capture::{CaptureReader, CaptureWriter, FileFormat, Interface, Spool};
use flowyard_port::{Outgoing, PortError, PortSpec, Sink};
use proptest::prelude::*;

fn over(bytes: impl Into<Vec<u8>>) -> Result<CaptureReader, PortError> {
    CaptureReader::over("test", Box::new(Cursor::new(bytes.into())))
}

/// A packet of `len` bytes: length, nanoseconds, bytes.
type Seen = (u64, u64, u32, u16, Vec<u8>);

fn all(reader: &mut CaptureReader) -> (Vec<Seen>, Option<PortError>) {
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(r)) => seen.push((r.number, r.time_ns, r.wire_len, r.link, r.bytes.to_vec())),
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
    }
}

/// Writes integers in either byte order.
struct Bytes {
    out: Vec<u8>,
    big_endian: bool,
}

impl Bytes {
    fn new(big_endian: bool) -> Bytes {
        Bytes { out: Vec::new(), big_endian }
    }

    fn u16(&mut self, value: u16) -> &mut Bytes {
        self.out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn u32(&mut self, value: u32) -> &mut Bytes {
        self.out.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
        self
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Bytes {
        self.out.extend(bytes);
        self
    }

    /// A pcapng block.
    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Bytes)) -> &mut Bytes {
        let mut inner = Bytes::new(self.big_endian);
        body(&mut inner);
        let padded = inner.out.len().next_multiple_of(4);
        inner.out.resize(padded, 0);
        self.u32(kind).u32(12 + padded as u32).raw(&inner.out).u32(12 + padded as u32)
    }

    fn option(&mut self, code: u16, value: &[u8]) -> &mut Bytes {
        self.u16(code).u16(value.len() as u16).raw(value);
        let padded = self.out.len().next_multiple_of(4);
        self.out.resize(padded, 0);
        self
    }

    fn section(&mut self) -> &mut Bytes {
        self.block(0x0a0d_0d0a, |b| {
            b.u32(0x1a2b_3c4d).u16(1).u16(0).u32(!0).u32(!0).option(1, b"of the section").u32(0);
        })
    }

    fn pcap(magic: u32, big_endian: bool, extra: usize) -> Vec<u8> {
        let mut b = Bytes::new(big_endian);
        b.u32(magic).u16(2).u16(4).u32(0).u32(0).u32(65535).u32(1);
        for n in 0..3u32 {
            b.u32(1_600_000_000 + n)
                .u32(7)
                .u32(n * 5)
                .u32(1000)
                .raw(&[9; 8][..extra])
                .raw(&[n as u8; 10][..n as usize * 5]);
        }
        b.out
    }
}

#[test]
fn every_kind_of_pcap_is_read() {
    for big_endian in [false, true] {
        for (magic, unit_ns, extra) in [(0xa1b2_c3d4, 1000, 0), (0xa1b2_3c4d, 1, 0), (0xa1b2_cd34, 1000, 8)] {
            let (seen, error) = all(&mut over(Bytes::pcap(magic, big_endian, extra)).expect("a pcap"));
            let expected: Vec<Seen> = (0..3u64)
                .map(|n| {
                    (n + 1, (1_600_000_000 + n) * 1_000_000_000 + 7 * unit_ns, 1000, 1, vec![n as u8; n as usize * 5])
                })
                .collect();
            assert_eq!(seen, expected, "{magic:#x} {big_endian}");
            assert!(error.is_none());
        }
    }
}

/// Two sections of opposite byte orders, interfaces of several resolutions, every block there is.
fn rich_pcapng() -> Vec<u8> {
    let mut b = Bytes::new(false);
    b.section();
    b.block(1, |b| {
        b.u16(1).u16(0).u32(0).option(2, b"eth0\0").option(9, &[9]).option(13, &[4]).u32(0);
    });
    b.block(1, |b| {
        b.u16(101).u16(0).u32(4).option(9, &[0x80 | 10]).option(14, &100u64.to_le_bytes()).u32(0);
    });
    b.block(4, |b| {
        b.u16(0).u16(0); // names
    });
    b.block(6, |b| {
        b.u32(0)
            .u32(1)
            .u32(5)
            .u32(3)
            .u32(60)
            .raw(b"abc\0")
            .option(1, b"one")
            .option(2, &[1, 0, 0, 0])
            .option(1, b"two")
            .u32(0);
    });
    b.block(6, |b| {
        b.u32(1).u32(0).u32(1536).u32(2).u32(2).raw(b"xy");
    });
    b.block(5, |b| {
        b.u32(0).u32(0).u32(0);
    });
    b.block(2, |b| {
        b.u16(1).u16(77).u32(0).u32(1024).u32(1).u32(9).raw(b"o");
    });
    b.block(0x8000_0001, |b| {
        b.raw(&[1; 100]);
    });
    b.block(3, |b| {
        b.u32(50).raw(&[3; 50]);
    });
    let mut second = Bytes::new(true);
    second.section();
    second.block(1, |b| {
        b.u16(113).u16(0).u32(6);
    });
    second.block(3, |b| {
        b.u32(50).raw(b"simple");
    });
    second.block(6, |b| {
        b.u32(0).u32(0).u32(3).u32(4).u32(4).raw(b"last");
    });
    b.out.extend(second.out);
    b.out
}

#[test]
fn every_block_of_pcapng_is_read() {
    let mut reader = over(rich_pcapng()).expect("a pcapng");
    let first = reader.next().expect("no damage").expect("a packet");
    assert_eq!((first.comment().as_ref(), first.packet_flags(), first.is_cut()), ("one\ntwo", Some(1), true));
    assert_eq!((first.number, first.time_ns, first.interface), (1, (1 << 32) + 5, 0));
    let (rest, error) = all(&mut reader);
    assert!(error.is_none());
    let expected: Vec<Seen> = vec![
        (2, 101_500_000_000, 2, 101, b"xy".to_vec()),
        (3, 101_000_000_000, 9, 101, b"o".to_vec()),
        (4, 0, 50, 1, vec![3; 50]),
        (5, 0, 50, 113, b"simple".to_vec()),
        (6, 3_000, 4, 113, b"last".to_vec()),
    ];
    assert_eq!(rest, expected);
    assert_eq!(reader.comments(), ["of the section", "of the section"]);
    let interfaces = reader.interfaces();
    assert_eq!((interfaces.len(), interfaces[0].name.as_str(), interfaces[0].fcs_len), (3, "eth0", Some(4)));
    assert_eq!((interfaces[2].link, interfaces[2].snaplen), (113, 6));
}

/// Wireshark reads the same frames; skipped without it.
#[test]
fn tshark_counts_the_same_frames() {
    let read = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("space in the temporary folder");
        let mut tshark = std::process::Command::new("tshark");
        tshark.arg("-r").arg(file.path()).args(["-n", "-T", "fields", "-e", "frame.cap_len", "-e", "frame.len"]);
        let output = tshark.output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let rich = rich_pcapng();
    let unaligned = {
        let mut b = Bytes::new(false);
        b.section().block(1, |b| {
            b.u16(1).u16(0).u32(0);
        });
        b.u32(6).u32(35).u32(0).u32(0).u32(0).u32(3).u32(3).raw(b"abc").u32(35);
        b.block(6, |b| {
            b.u32(0).u32(0).u32(0).u32(1).u32(1).raw(b"z");
        });
        b.out
    };
    let events = {
        let mut b = Bytes::new(false);
        b.section().block(1, |b| {
            b.u16(1).u16(0).u32(0);
        });
        b.block(9, |b| {
            b.raw(b"__REALTIME_TIMESTAMP=1\n");
        });
        b.block(0xbad, |b| {
            b.u32(32473).raw(b"custom, to be copied");
        });
        b.block(0x4000_0bad, |b| {
            b.u32(32473).raw(b"custom, not to be copied");
        });
        b.block(6, |b| {
            b.u32(0).u32(0).u32(0).u32(1).u32(1).raw(b"z");
        });
        b.out
    };
    let cuts = [rich.len() - 1, rich.len() - 30, 200, 150].map(|cut| rich[..cut].to_vec());
    for (bytes, what) in std::iter::once((rich, "rich"))
        .chain([(unaligned, "unaligned"), (events, "events")])
        .chain(cuts.map(|c| (c, "cut")))
    {
        let Some(expected) = read(&bytes) else {
            eprintln!("skipped: tshark is not installed");
            return;
        };
        let mut reader = over(bytes.clone()).expect("a capture");
        let (seen, error) = all(&mut reader);
        let found: Vec<String> = seen.iter().map(|(_, _, wire, _, b)| format!("{}\t{wire}", b.len())).collect();
        if what == "events" {
            // Events are frames in Wireshark: the packet's number counts them.
            assert_eq!(seen.last().map(|s| s.0), Some(expected.len() as u64), "{expected:?} {seen:?}");
            continue;
        }
        assert_eq!(found, expected, "{what} of {} bytes: {error:?}", bytes.len());
    }
}

#[test]
fn damage_is_told_with_place_and_count() {
    let whole = Bytes::pcap(0xa1b2_c3d4, false, 0);
    // 24 of header, records of 16, 21, 26 bytes.
    for cut in 0..=whole.len() {
        let result = over(&whole[..cut]);
        let complete = [40, 61, 87].iter().filter(|&&end| end <= cut).count();
        match result {
            Err(error) => assert!(cut < 24 && matches!(error, PortError::Action { .. }), "{cut}: {error}"),
            Ok(mut reader) => {
                let (seen, error) = all(&mut reader);
                assert_eq!(seen.len(), complete, "cut at {cut}");
                match error {
                    None => assert!([24, 40, 61, 87].contains(&cut), "cut at {cut}"),
                    Some(PortError::Damaged { offset, packets, .. }) => {
                        let start = [24, 40, 61][complete];
                        assert_eq!((offset, packets), (start, complete as u64), "cut at {cut}");
                    }
                    Some(other) => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn strangers_are_refused_in_one_line() {
    for (bytes, expect) in [
        (&b""[..], "it is empty"),
        (b"\xd4\xc3\xb2\xa1\x02\0", "cut off after 6 bytes"),
        (b"hello, world, this is a text", "text, beginning"),
        (b"snoop\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\0", "snoop"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0\xff\xff\xff\xff\x01\0\0\0\0\0\0\0\0\0\0\0\x1c\0\0\0", "byte-order mark"),
        (b"\xd4\xc3\xb2\xa1\x09\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0", "version 9.4"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03garbage", "unreadable"),
        (b"\x28\xb5\x2f\xfdgarbage garbage", "unreadable"),
        (b"\x04\x22\x4d\x18garbage garbage", "unreadable"),
    ] {
        let error = over(bytes).expect_err("no capture").to_string();
        assert!(error.contains(expect) && error.contains("\"test\"") && !error.contains('\n'), "{error}");
    }
    let missing = CaptureReader::open("/no/such/file.pcap").expect_err("no file").to_string();
    assert!(missing.contains("/no/such/file.pcap") && missing.contains("check the name"), "{missing}");
}

#[test]
fn a_packed_capture_that_is_cut_gives_what_it_has() {
    let mut plain = Bytes::new(false);
    plain.u32(0xa1b2_c3d4).u16(2).u16(4).u32(0).u32(0).u32(65535).u32(1);
    for n in 0..5000u32 {
        plain.u32(n).u32(0).u32(100).u32(100);
        let mut noise = n;
        plain.out.extend(
            std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(100),
        );
    }
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain.out).expect("gzip packs");
    let info = lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB);
    let mut lz4 = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    lz4.write_all(&plain.out).expect("lz4 packs");
    let zstd = zstd::encode_all(&plain.out[..], 1).expect("zstd packs");
    for (packed, what) in [(gz.finish().expect("gzip"), "gzip"), (lz4.finish().expect("lz4"), "lz4"), (zstd, "zstd")] {
        let (seen, error) = all(&mut over(&packed[..]).expect("a capture"));
        assert!(seen.len() == 5000 && error.is_none(), "{what}: {} {error:?}", seen.len());
        let (seen, error) = all(&mut over(&packed[..packed.len() / 2]).expect("a capture"));
        assert!(seen.len() > 1000 && seen.len() < 3000, "{what}: {}", seen.len());
        assert!(matches!(error, Some(PortError::Damaged { .. })), "{what}: {error:?}");
        // Two packed files, one after the other, unpack as one: the second's bytes are seen.
        let twice = [&packed[..], &packed[..]].concat();
        let (seen, error) = all(&mut over(twice).expect("a capture"));
        assert!(seen.len() > 5000, "{what}: {} {error:?}", seen.len());
    }
}

#[test]
fn a_lying_length_costs_no_memory() {
    // A block that claims 120 MiB in a file of 100 bytes, and one that claims 4 GiB.
    for claimed in [120u32 << 20, u32::MAX - 3] {
        for kind in [6, 1, 0x0a0d_0d0a, 0xbeef] {
            let mut b = Bytes::new(false);
            b.section();
            b.u32(kind).u32(claimed).u32(0x1a2b_3c4d).raw(&[0; 40]);
            let (seen, error) = all(&mut over(b.out).expect("a capture"));
            assert!(seen.is_empty() && matches!(error, Some(PortError::Damaged { .. })), "{kind:#x}");
        }
    }
}

#[test]
fn classic_pcap_is_written_for_its_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("out.pcap");
    let mut writer = CaptureWriter::create(&path).expect("a file");
    let packet = Outgoing { bytes: &[1; 33], time_ns: 5_000_000_006, wire_len: 40, link: 101, comment: "lost" };
    writer.send(&packet).expect("written");
    let refused = writer.send(&Outgoing { link: 1, ..packet }).expect_err("a second link type").to_string();
    assert!(refused.contains(".pcapng"), "{refused}");
    assert_eq!(writer.finish().expect("written"), 24 + 16 + 33);
    let mut reader = CaptureReader::open(&path).expect("a capture");
    assert_eq!(reader.format(), "pcap");
    assert_eq!(all(&mut reader).0, [(1, 5_000_000_006, 40, 101, vec![1; 33])]);
    let empty = folder.path().join("empty.pcap");
    CaptureWriter::create(&empty).and_then(CaptureWriter::finish).expect("an empty capture");
    assert!(all(&mut CaptureReader::open(&empty).expect("a capture")).0.is_empty());
}

#[test]
fn captures_written_by_a_spool_are_those_written_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let spool = Spool::start().expect("a thread");
    let path = |name: &str, at: usize| folder.path().join(format!("{name}-{at}.pcapng"));
    let writers = |name: &str, spool: Option<&Spool>| -> Vec<CaptureWriter> {
        let make = |at| CaptureWriter::create_with(path(name, at), "", spool).expect("room");
        (0..3).map(make).collect()
    };
    let mut both = [writers("spool", Some(&spool)), writers("here", None)];
    for writer in both.iter_mut().flatten() {
        writer.interface(&Interface::of_link(1)).expect("Ethernet");
    }
    // Some megabytes: buffers go round many times.
    for n in 0..30_000u64 {
        let bytes = vec![n as u8; 60 + n as usize % 1400];
        let packet = Outgoing { bytes: &bytes, time_ns: n, wire_len: bytes.len() as u32, link: 1, comment: "" };
        for writers in &mut both {
            writers[n as usize % 3].write(0, &packet).expect("room");
        }
    }
    let sizes = both.map(|writers| writers.into_iter().map(|w| w.finish().expect("written")).collect::<Vec<_>>());
    assert_eq!(sizes[0], sizes[1]);
    for (at, size) in sizes[0].iter().enumerate() {
        let [ours, theirs] = ["spool", "here"].map(|name| std::fs::read(path(name, at)).expect("written"));
        assert!(ours == theirs && ours.len() as u64 == *size, "file {at}");
    }
}

#[test]
fn a_full_disk_is_told_of_a_spool_as_well() {
    let spool = Spool::start().expect("a thread");
    for spool in [None, Some(&spool)] {
        let mut writer = CaptureWriter::create_with("/dev/full", "", spool).expect("it opens");
        let eth = writer.interface(&Interface::of_link(1)).expect("Ethernet");
        let packet = Outgoing { bytes: &[0; 1000], time_ns: 1, wire_len: 1000, link: 1, comment: "" };
        let written = (0..100_000).try_for_each(|_| writer.write(eth, &packet));
        let error = written.expect_err("no room").to_string();
        assert!(error.contains("/dev/full") && error.contains("No space left"), "{error}");
    }
    let few = CaptureWriter::create_with("/dev/full", "", Some(&spool)).expect("it opens");
    assert!(few.finish().expect_err("no room").to_string().contains("/dev/full"), "at the end, if not before");
}

#[test]
fn bad_options_say_what_can_be() {
    for (name, expect) in [
        ("pcap:/no/such?speed=fast", "speed=full"),
        ("pcap:/no/such?speed=-1", "speed=full"),
        ("pcap:/no/such?times=0", "from 1"),
        ("pcap:-?times=2", "once only"),
        ("pcap:/no/such?sped=2", "options are speed, times"),
        ("pcap:/no/such", "check the name"),
        ("pcap:/", "name a file in it"),
        ("gen:nix", "gen:mix"),
        ("gen:mix?only=plain,x", "\"x\""),
        ("gen:mix?size=10-20", "imix"),
        ("gen:mix?rate=0", "from 1"),
        ("gen:mix?flows=0", "from 1"),
    ] {
        let spec: PortSpec = name.parse().expect("a port's name");
        let error = flowyard_port::prepare(&spec, 2).err().map_or(String::new(), |e| e.to_string());
        assert!(error.contains(expect), "{name}: {error}");
    }
}

/// Reads pcapng structure with another library and compares the packets of undamaged files.
#[test]
fn pcap_parser_agrees() {
    use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
    let mut writer_file = tempfile::tempfile().expect("a temporary file");
    let copy = writer_file.try_clone().expect("a second handle");
    let mut writer = CaptureWriter::over("t", Box::new(copy), FileFormat::Pcapng).expect("a writer");
    let links = [Interface::of_link(1), Interface { name: "x".into(), ..Interface::of_link(113) }];
    for interface in &links {
        writer.interface(interface).expect("another interface");
    }
    for n in 0..2000u32 {
        let bytes = vec![n as u8; (n as usize * 7) % 1600];
        let comment = if n % 10 == 0 { "tenth" } else { "" };
        let packet = Outgoing { bytes: &bytes, time_ns: u64::from(n), wire_len: 1600, link: 1, comment };
        writer.write(n % 2, &packet).expect("written");
    }
    writer.finish().expect("written");
    std::io::Seek::rewind(&mut writer_file).expect("a file");
    let ours = CaptureReader::over("t", Box::new(writer_file.try_clone().expect("a handle")));
    let (ours, error) = all(&mut ours.expect("a capture"));
    assert!(error.is_none() && ours.len() == 2000);
    std::io::Seek::rewind(&mut writer_file).expect("a file");
    let mut theirs = pcap_parser::PcapNGReader::new(1 << 20, writer_file).expect("a pcapng");
    let mut count = 0;
    loop {
        match theirs.next() {
            Ok((len, block)) => {
                if let pcap_parser::PcapBlockOwned::NG(pcap_parser::Block::EnhancedPacket(packet)) = block {
                    assert_eq!((packet.packet_data(), packet.origlen), (&ours[count].4[..], ours[count].2));
                    count += 1;
                }
                theirs.consume(len);
            }
            Err(pcap_parser::PcapError::Eof) => break,
            Err(pcap_parser::PcapError::Incomplete(_)) => theirs.refill().expect("more"),
            Err(e) => panic!("{e:?}"),
        }
    }
    assert_eq!(count, 2000);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever bytes follow a good beginning, reading ends and keeps within what there is.
    #[test]
    fn any_bytes_come_to_an_end(
        pcap in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(vec![0u32, 1, 11, 12, 28, 31, 32, 33, 0xffff, 1 << 28, u32::MAX])), 0..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if pcap { Bytes::pcap(0xa1b2_c3d4, true, 0) } else { rich_pcapng() };
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        for (at, value) in words {
            let at = at.index(bytes.len() / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let len = bytes.len();
        bytes.truncate(len - cut.index(len) / 4);
        let total = bytes.len();
        if let Ok(mut reader) = over(bytes) {
            let (seen, _) = all(&mut reader);
            prop_assert!(seen.iter().map(|s| s.4.len()).sum::<usize>() <= total);
            prop_assert!(reader.offset() <= total as u64);
        }
    }
}
