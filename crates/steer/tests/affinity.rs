//! What steering promises: both directions, every encapsulation, fragments in any order and ICMP
//! errors of a conversation have one hash.

mod common;

use common::build::*;
use common::*;
use flowyard_steer::{Datagram, FragmentTable, Frame, LinkType, Stop, Verdict, dissect};
use proptest::prelude::*;

proptest! {
    #[test]
    fn swapping_the_ends_never_changes_the_hash(ends in ends(), kind in 0..WRAPS, outer in ends()) {
        let there = wrap(kind, ends.v6, &ends.packet(), &outer);
        let back = wrap(kind, ends.v6, &ends.swapped().packet(), &outer.swapped());
        prop_assert_eq!(hash_of(&eth(there.0, &there.1)), hash_of(&eth(back.0, &back.1)));
    }

    #[test]
    fn encapsulations_never_change_the_hash(
        ends in ends(),
        wraps in prop::collection::vec((0..WRAPS, ends()), 1..4),
    ) {
        let plain = hash_of(&eth(if ends.v6 { 0x86dd } else { 0x0800 }, &ends.packet()));
        let mut payload = (if ends.v6 { 0x86dd } else { 0x0800 }, ends.packet());
        for (kind, outer) in wraps {
            // Only an IP packet can be wrapped again.
            if matches!(payload.0, 0x0800 | 0x86dd) {
                payload = wrap(kind, payload.0 == 0x86dd, &payload.1, &outer);
            }
        }
        prop_assert_eq!(hash_of(&eth(payload.0, &payload.1)), plain);
    }

    #[test]
    fn errors_go_with_what_they_quote(ends in ends(), kind in 0..WRAPS, outer in ends(), router in any::<[u8; 16]>()) {
        let plain = hash_of(&eth(if ends.v6 { 0x86dd } else { 0x0800 }, &ends.packet()));
        let (ethertype, quoted) = wrap(kind, ends.v6, &ends.packet(), &outer);
        // Only IP packets are quoted.
        if !matches!(ethertype, 0x0800 | 0x86dd) {
            return Ok(());
        }
        let six = ethertype == 0x86dd;
        let message = icmp(if six { 1 } else { 3 }, 0, 0, &quoted);
        let error = Ends { v6: six, proto: 0, a: (router, 0), b: ends.a };
        let frame = eth(ethertype, &error.carry(if six { 58 } else { 1 }, &message));
        prop_assert_eq!(hash_of(&frame), plain);
    }

    #[test]
    fn fragments_follow_in_any_order(
        ends in ends(),
        kind in 0..WRAPS,
        outer in ends(),
        len in 40usize..400,
        order in any::<u64>(),
    ) {
        let plain = hash_of(&eth(if ends.v6 { 0x86dd } else { 0x0800 }, &ends.packet()));
        let mut transport = ends.transport();
        transport.resize(len, 0x5a);
        let pieces = pieces(&ends, &transport);
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| {
                let (ethertype, payload) = wrap(kind, ends.v6, piece, &outer);
                eth(ethertype, &payload)
            })
            .collect();
        for hash in follow(shuffled(frames, order)) {
            prop_assert_eq!(hash, plain);
        }
    }

    #[test]
    fn fragments_of_the_tunnel_follow_too(ends in ends(), outer in ends(), order in any::<u64>()) {
        let plain = hash_of(&eth(if ends.v6 { 0x86dd } else { 0x0800 }, &ends.packet()));
        // The inner packet comes in fragments, and each of them in fragments of the tunnel.
        let mut transport = ends.transport();
        transport.resize(200, 0);
        let mut frames = Vec::new();
        for (id, inner) in pieces(&ends, &transport).into_iter().enumerate() {
            let carried = gre(0, if ends.v6 { 0x86dd } else { 0x0800 }, &inner);
            let outer_ethertype = if outer.v6 { 0x86dd } else { 0x0800 };
            let outer_pieces = pieces_of(&outer, 47, 100 + id as u16, 96, &carried);
            frames.extend(outer_pieces.iter().map(|piece| eth(outer_ethertype, piece)));
        }
        for hash in follow(shuffled(frames, order)) {
            prop_assert_eq!(hash, plain);
        }
    }
}

fn pieces(ends: &Ends, transport: &[u8]) -> Vec<Vec<u8>> {
    pieces_of(ends, ends.proto, 7, 64, transport)
}

/// The payload in IP fragments of `step` bytes.
fn pieces_of(ends: &Ends, proto: u8, id: u16, step: usize, payload: &[u8]) -> Vec<Vec<u8>> {
    let count = payload.len().div_ceil(step);
    let piece = |(index, bytes): (usize, &[u8])| {
        let more = u16::from(index + 1 < count);
        let offset = (index * step) as u16;
        if ends.v6 {
            ends.carry(44, &frag6(proto, offset | more, id.into(), bytes))
        } else {
            let short = |end: [u8; 16]| [end[0], end[1], end[2], end[3]];
            ipv4_piece(short(ends.a.0), short(ends.b.0), proto, id, more << 13 | offset >> 3, bytes)
        }
    };
    payload.chunks(step).enumerate().map(piece).collect()
}

fn shuffled<T>(mut items: Vec<T>, mut order: u64) -> Vec<T> {
    for end in (1..items.len()).rev() {
        order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(end, (order >> 33) as usize % (end + 1));
    }
    items
}

/// Classifies frames as a yard does: holds what must wait, and looks again at what was held for a
/// datagram when its first fragment has come.
fn follow(frames: Vec<Vec<u8>>) -> Vec<u32> {
    let (classifier, mut memory) = (classifier(), FragmentTable::new(64, FragmentTable::AGE_NS));
    let mut held: Vec<(Datagram, Vec<u8>)> = Vec::new();
    let mut hashes = Vec::new();
    for frame in frames {
        let mut now = vec![frame];
        while let Some(bytes) = now.pop() {
            match classifier.classify(&Frame::new(&bytes, LinkType::ETHERNET), &mut memory, 0) {
                Verdict::Hold(hold) => held.push((hold.datagram, bytes)),
                Verdict::Ring(decision) => {
                    hashes.push(decision.hash);
                    for datagram in decision.dissection.first_fragments(&bytes) {
                        let (ready, rest) = held.into_iter().partition(|(other, _)| *other == datagram);
                        held = rest;
                        now.extend(Vec::into_iter(ready).map(|(_, bytes)| bytes));
                    }
                }
            }
        }
    }
    assert!(held.is_empty(), "{} frames are still held", held.len());
    hashes
}

#[test]
fn without_ip_the_hardware_addresses_decide() {
    let frame = eth(0x0806, &[1; 28]);
    let mut back = frame.clone();
    back[..6].copy_from_slice(&frame[6..12]);
    back[6..12].copy_from_slice(&frame[..6]);
    assert_eq!(hash_of(&frame), hash_of(&back));
    back[0] = 0x66;
    assert_ne!(hash_of(&frame), hash_of(&back));
}

#[test]
fn an_error_that_quotes_an_echo_goes_with_it() {
    let echo = ipv4(A4, B4, 1, &icmp(8, 0, 0x1234_0001, &[]));
    let error = ipv4([1, 1, 1, 1], A4, 1, &icmp(11, 0, 0, &echo));
    assert_eq!(hash_of(&eth(0x0800, &echo)), hash_of(&eth(0x0800, &error)));
}

#[test]
fn the_stop_is_told() {
    let frame = eth(0x0800, &tcp4());
    let policy = Default::default();
    assert_eq!(dissect(&Frame::new(&frame, LinkType::ETHERNET), &policy, &mut ()).stop(), Stop::Transport);
}
