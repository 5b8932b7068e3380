//! Sequences of fragments, of a small world so that they meet, through the sorter: every packet comes
//! out exactly once, memory stays bounded, and a datagram whose first piece is there is known.
#![no_main]

use std::sync::Arc;

use flowyard::steer::{Classifier, FlowHash, FragmentMemory, FragmentTable, Frame, LinkType, Policy, Table};
use flowyard::{HOLD_PACKETS, SharedFragments, Sorter};
use libfuzzer_sys::fuzz_target;

/// A fragment in as many headers as `nesting` says.
fn packet(op: &[u8; 8]) -> Vec<u8> {
    let [kind, id, offset, ends, len, port, nesting, _] = *op;
    let mut packet = vec![0x11, port, 0x22, 0x22, 0, 16, 0, 0];
    packet.resize(8 + usize::from(len) % 64, 0x5a);
    let mut six = kind & 1 != 0;
    for level in 0..=nesting % 4 {
        let proto = match level {
            0 => 17,
            _ if six => 41,
            _ => 4,
        };
        six = kind >> level & 1 != 0;
        let later = offset >> (2 * level) & 3;
        let more = kind >> (level + 4) & 1;
        packet = if six {
            let word = (u16::from(later) << 3 | u16::from(more)).to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend((packet.len() as u16 + 8).to_be_bytes());
            header.extend([44, 64]);
            header.extend([0xfd, ends & 3, level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            header.extend([0xfd, ends >> 2 & 3, level, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
            header.extend([proto, 0, word[0], word[1], 0, 0, 0, id & 7]);
            [header, packet].concat()
        } else {
            let word = (u16::from(later) | u16::from(more) << 13).to_be_bytes();
            let total = (packet.len() as u16 + 20).to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, id & 7, word[0], word[1], 64, proto, 0, 0];
            header.extend([10, 0, level, ends & 3, 10, 0, level, 4 + (ends >> 2 & 3)]);
            [header, packet].concat()
        };
    }
    packet
}

fuzz_target!(|input: &[u8]| {
    let classifier = Arc::new(Classifier {
        policy: Policy::default(),
        hash: FlowHash::default(),
        table: Table::even(7).expect("7 rings"),
    });
    let mut table = FragmentTable::new(8, 50_000_000);
    let mut sorter = Sorter::new(classifier.clone(), SharedFragments::default());
    let (mut now_ns, mut came, mut out) = (0u64, 0usize, Vec::new());
    for op in input.chunks_exact(8).take(512) {
        let op: &[u8; 8] = op.first_chunk().expect("8 bytes");
        // Packet time runs backwards now and then.
        let step = u64::from(op[7] & 0x7f) * 1_000_000;
        now_ns = if op[7] & 0x80 != 0 { now_ns.saturating_sub(step) } else { now_ns + step };
        let bytes = packet(op);
        let frame = Frame::new(&bytes, LinkType::RAW);
        sorter.sort(&frame, now_ns, came, |item, decision, _| {
            assert!(decision.ring < 7);
            out.push(item);
        });
        came += 1;
        assert!(sorter.waiting() <= HOLD_PACKETS);
        assert_eq!(out.len() + sorter.waiting(), came);

        let verdict = classifier.classify(&frame, &mut table, now_ns);
        for datagram in verdict.decision().dissection.first_fragments(&bytes) {
            if !matches!(verdict, flowyard::steer::Verdict::Hold(_)) {
                assert!(table.guess(&datagram, now_ns).is_some());
            }
        }
    }
    sorter.finish(|item, _, _| out.push(item));
    out.sort_unstable();
    assert!(out.iter().copied().eq(0..came));
    let counts = table.counts();
    assert!(counts.evicted <= counts.learned && table.capacity() == 8);
    let counts = sorter.counts();
    assert_eq!(counts.held, counts.followed + counts.expired + counts.given_up);
});
