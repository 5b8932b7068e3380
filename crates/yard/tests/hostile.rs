//! What the fuzz targets `fragments` and `capture` ask, over random input: a short run for every day.
//! (Those of `dissect` and `policy` are in steer's tests and beside the policy file.)

mod common;

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use common::generated;
use flowyard::port::Outgoing;
use flowyard::port::capture::{CaptureReader, CaptureWriter, FileFormat, Interface};
use flowyard::port::traffic::MixOptions;
use flowyard::steer::{
    Classifier, FlowHash, FragmentMemory, FragmentTable, Frame, LinkType, Policy, Table, Verdict, dissect,
};
use flowyard::{HOLD_PACKETS, SharedFragments, Sorter};
use proptest::prelude::*;

/// A piece of one of a few datagrams, in as many IP headers as are asked for.
#[derive(Debug, Clone)]
struct Piece {
    id: u8,
    ends: u8,
    port: u8,
    payload: u8,
    /// From the inside out: IPv6, offset in units of 8 bytes, more to come.
    levels: Vec<(bool, u16, bool)>,
    /// Packet time since the one before, in milliseconds; it may go back.
    step_ms: i64,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let levels = prop::collection::vec((any::<bool>(), 0u16..4, any::<bool>()), 1..4);
    let piece = (0u8..6, 0u8..3, any::<u8>(), 0u8..5, levels, -20i64..60).prop_map(
        |(id, ends, port, payload, levels, step_ms)| Piece { id, ends, port, payload: payload * 8, levels, step_ms },
    );
    prop::collection::vec(piece, 1..200)
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        let mut packet = vec![0x11, self.port, 0x22, 0x22, 0, 16, 0, 0];
        packet.resize(8 + usize::from(self.payload), 0x5a);
        let mut proto = 17;
        for (level, &(v6, offset, more)) in self.levels.iter().enumerate() {
            let (level, len) = (level as u8, packet.len() as u16);
            let header = if v6 {
                let [w0, w1] = (offset << 3 | u16::from(more)).to_be_bytes();
                let [l0, l1] = (len + 8).to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, l0, l1, 44, 64];
                for end in [self.ends, 9] {
                    header.extend([0xfd, end, level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                }
                header.extend([proto, 0, w0, w1, 0, 0, 0, self.id]);
                header
            } else {
                let [w0, w1] = (offset | u16::from(more) << 13).to_be_bytes();
                let [l0, l1] = (len + 20).to_be_bytes();
                let mut header = vec![0x45, 0, l0, l1, 0, self.id, w0, w1, 64, proto, 0, 0];
                header.extend([10, 0, level, self.ends, 10, 0, level, 9]);
                header
            };
            proto = if v6 { 41 } else { 4 };
            packet = [header, packet].concat();
        }
        packet
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every packet comes out exactly once, memory stays bounded, and a datagram whose first piece has
    /// been is known.
    #[test]
    fn fragments_in_any_order_come_out_once(pieces in pieces()) {
        let (policy, hash) = (Policy::default(), FlowHash::default());
        let classifier = Arc::new(Classifier { policy, hash, table: Table::even(7).expect("7 rings") });
        let mut table = FragmentTable::new(8, 50_000_000);
        let mut sorter = Sorter::new(classifier.clone(), SharedFragments::default());
        let (mut now_ns, mut out) = (1_000_000_000u64, Vec::new());
        for (came, piece) in pieces.iter().enumerate() {
            now_ns = now_ns.saturating_add_signed(piece.step_ms * 1_000_000);
            let bytes = piece.bytes();
            let frame = Frame::new(&bytes, LinkType::RAW);
            sorter.sort(&frame, now_ns, came, |item, decision, _| {
                assert!(decision.ring < 7);
                out.push(item);
            });
            prop_assert!(sorter.waiting() <= HOLD_PACKETS);
            prop_assert_eq!(out.len() + sorter.waiting(), came + 1);
            let verdict = classifier.classify(&frame, &mut table, now_ns);
            if let Verdict::Ring(decision) = verdict {
                for datagram in decision.dissection.first_fragments(&bytes) {
                    prop_assert_eq!(table.guess(&datagram, now_ns), Some(decision.hash));
                }
            }
        }
        sorter.finish(|item, _, _| out.push(item));
        out.sort_unstable();
        prop_assert!(out.iter().copied().eq(0..pieces.len()));
        let counts = sorter.counts();
        prop_assert_eq!(counts.held, counts.followed + counts.expired + counts.given_up);
        prop_assert!(table.counts().evicted <= table.counts().learned && table.capacity() == 8);
    }
}

/// A capture of generated traffic, in the format.
fn capture(format: FileFormat) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let output = Box::new(file.reopen().expect("a second handle"));
    let mut writer = CaptureWriter::over("built", output, format).expect("a writer");
    let interface = writer.interface(&Interface::of_link(1)).expect("an interface");
    for (bytes, time_ns) in &generated(&MixOptions::default(), 40) {
        let (time_ns, wire_len) = (*time_ns, bytes.len() as u32);
        let packet = Outgoing { bytes, time_ns, wire_len, link: 1, comment: "of many" };
        writer.write(interface, &packet).expect("written");
    }
    writer.finish().expect("finished");
    std::fs::read(file.path()).expect("read")
}

static PCAPNG: LazyLock<Vec<u8>> = LazyLock::new(|| capture(FileFormat::Pcapng));
static PCAP: LazyLock<Vec<u8>> = LazyLock::new(|| capture(FileFormat::Pcap));

/// Reads as far as can be read, looks at what was, and says how many bytes of packets that were.
fn read_all(bytes: Vec<u8>) -> usize {
    let Ok(mut reader) = CaptureReader::over("damaged", Box::new(Cursor::new(bytes))) else { return 0 };
    let (policy, mut sum) = (Policy::default(), 0);
    loop {
        match reader.next() {
            Ok(Some(record)) => {
                sum += record.bytes.len();
                let found = dissect(&Frame::new(record.bytes, LinkType(record.link)), &policy, &mut ());
                assert!(found.payload_end() <= record.bytes.len());
            }
            Ok(None) => return sum,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return sum;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Records end, packets lie within the file, and what is read can be dissected.
    #[test]
    fn damaged_captures_come_to_an_end(
        pcapng in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        moved in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..64)),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if pcapng { PCAPNG.clone() } else { PCAP.clone() };
        for (at, value) in edits {
            // The beginning more often than the rest: there a byte decides over all that follows.
            let at = if value & 1 == 0 { at.index(bytes.len()) } else { at.index(200) };
            bytes[at] = value;
        }
        if let Some((from, to, len)) = moved {
            let from = from.index(bytes.len());
            let piece = bytes[from..bytes.len().min(from + len)].to_vec();
            let to = to.index(bytes.len());
            bytes.splice(to..to, piece);
        }
        let len = bytes.len();
        bytes.truncate(len - cut.index(len) / 4);
        let len = bytes.len();
        prop_assert!(read_all(bytes) <= len);
    }

    #[test]
    fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in 0usize..7) {
        const MAGIC: [&[u8]; 7] = [
            &[0xa1, 0xb2, 0xc3, 0xd4], &[0x4d, 0x3c, 0xb2, 0xa1], &[0x0a, 0x0d, 0x0d, 0x0a], &[0x1f, 0x8b, 8],
            &[0x28, 0xb5, 0x2f, 0xfd], &[4, 0x22, 0x4d, 0x18], &[],
        ];
        read_all([MAGIC[magic], &bytes].concat());
    }
}
