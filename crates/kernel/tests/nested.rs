//! Encapsulations in one another, each cut anywhere, quoted and fragmented: the program has user space's
//! answer, or marks the packet.

mod common;
#[path = "../../steer/tests/common/mod.rs"]
mod frames;

use common::{classifier, classify, head_of, load, memory};
use flowyard_kernel::{Answer, KernelSteer, Mark};
use flowyard_steer::{Classifier, FragmentTable, Verdict};
use flowyard_testkit::net::skipped;
use flowyard_testkit::require_root;
use frames::build::{eth, ext6, frag6, geneve, icmp, ipv4, ipv4_piece, ipv6, join, tcp, udp};
use frames::{Ends, WRAPS, wrap};

fn ends(v6: bool, proto: u8) -> Ends {
    let address = |last: u8| [10, 2, 3, last, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, last];
    Ends { v6, proto, a: (address(77), 4001), b: (address(8), 443) }
}

/// The answer of both, compared. `None` if it is marked.
fn same(kernel: &KernelSteer, classifier: &Classifier, frame: &[u8], what: &str) -> Option<Mark> {
    let expected = classify(classifier, &mut FragmentTable::new(8, 0), frame);
    let run = kernel.run(frame).unwrap_or_else(|e| panic!("{what}: {e}"));
    match (run.answer, expected) {
        (Some(Answer::Marked(mark, _)), _) => return Some(mark),
        (Some(Answer::Ring(tag)), Verdict::Ring(decision)) => {
            assert_eq!(tag, head_of(&decision), "{what}: {frame:02x?}")
        }
        (answer, expected) => panic!("{what}: {answer:?}, {expected:?}: {frame:02x?}"),
    }
    None
}

#[test]
fn three_deep_in_any_order() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let (mut compared, mut marked, mut deepest) = (0u32, 0u32, 0);
    for (v6, proto, outer_v6) in [(false, 6, false), (false, 17, true), (true, 6, false), (true, 132, true)] {
        let outer = ends(outer_v6, 0);
        for kinds in 0..u32::from(WRAPS).pow(3) {
            let mut payload = (if v6 { 0x86dd } else { 0x0800 }, ends(v6, proto).packet());
            let mut depth = 0;
            for place in 0..3 {
                let kind = (kinds / u32::from(WRAPS).pow(place)) % u32::from(WRAPS);
                // Only an IP packet can be wrapped again.
                if matches!(payload.0, 0x0800 | 0x86dd) {
                    payload = wrap(kind as u8, payload.0 == 0x86dd, &payload.1, &outer);
                    depth += 1;
                }
            }
            let frame = eth(payload.0, &payload.1);
            let mark = same(&kernel, &classifier, &frame, &format!("kinds {kinds}"));
            assert!(matches!(mark, None | Some(Mark::Protocol)), "{mark:?}");
            compared += 1;
            marked += u32::from(mark.is_some());
            deepest = deepest.max(if mark.is_none() { depth } else { 0 });
        }
    }
    println!("{compared} frames, {marked} marked, {deepest} deep");
    assert!(marked * 2 < compared && deepest == 3);
}

#[test]
fn every_encapsulation_cut_at_every_length() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    for (v6, outer_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        for kind in 0..WRAPS {
            let (ethertype, payload) = wrap(kind, v6, &ends(v6, 17).packet(), &ends(outer_v6, 0));
            let frame = eth(ethertype, &payload);
            for cut in 14..=frame.len() {
                same(&kernel, &classifier, &frame[..cut], &format!("kind {kind} cut to {cut}"));
            }
        }
    }
}

/// A few bytes of headers changed: whatever they are read as then, both read the same.
#[test]
fn damaged_encapsulations_are_read_alike() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % below
    };
    // Values that mean something somewhere.
    const TELLING: [u8; 16] = [0, 1, 3, 4, 6, 8, 0x11, 0x20, 0x2f, 0x3b, 0x40, 0x45, 0x60, 0x80, 0x81, 0xff];
    for number in 0..20_000 {
        let v6 = random(2) == 0;
        let mut payload = (if v6 { 0x86dd } else { 0x0800 }, ends(v6, [6, 17, 1, 58][random(4)]).packet());
        for _ in 0..random(4) {
            if matches!(payload.0, 0x0800 | 0x86dd) {
                let outer = ends(random(2) == 0, 0);
                payload = wrap(random(WRAPS.into()) as u8, payload.0 == 0x86dd, &payload.1, &outer);
            }
        }
        let mut frame = eth(payload.0, &payload.1);
        for _ in 0..1 + random(4) {
            let at = 12 + random(frame.len().min(200) - 12);
            frame[at] = if random(3) == 0 { random(256) as u8 } else { TELLING[random(TELLING.len())] };
        }
        // Each on its own: what one leaves in a memory is nothing to the next.
        if !fragments.is_empty() {
            fragments.clear().expect("the memory of fragments can be cleared");
        }
        same(&kernel, &classifier, &frame, &format!("frame {number}"));
    }
}

#[test]
fn errors_go_with_what_they_quote() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let (mut compared, mut marked) = (0, 0);
    for v6 in [false, true] {
        for kind in 0..WRAPS {
            let (ethertype, quoted) = wrap(kind, v6, &ends(v6, 6).packet(), &ends(v6, 0));
            if !matches!(ethertype, 0x0800 | 0x86dd) {
                continue;
            }
            let six = ethertype == 0x86dd;
            let message = icmp(if six { 1 } else { 3 }, 0, 0, &quoted);
            let error = ends(six, 0).carry(if six { 58 } else { 1 }, &message);
            // An error, an error in a tunnel, an error about an error.
            let again = icmp(if six { 1 } else { 3 }, 0, 0, &error);
            let twice = ends(six, 0).carry(if six { 58 } else { 1 }, &again);
            let (tunnel_type, tunnel) = wrap(12, six, &error, &ends(false, 0));
            for frame in [eth(ethertype, &error), eth(ethertype, &twice), eth(tunnel_type, &tunnel)] {
                for cut in (14..frame.len()).step_by(3).chain([frame.len()]) {
                    compared += 1;
                    marked += usize::from(same(&kernel, &classifier, &frame[..cut], &format!("{kind}")).is_some());
                }
            }
        }
    }
    println!("{compared} frames, {marked} marked");
    assert!(marked * 4 < compared);
}

/// Pieces in order follow the first one, of the packet and of what carries it; pieces before it are marked.
#[test]
fn fragments_follow_their_first() {
    require_root!();
    let classifier = classifier(64);
    let kernel = load(&classifier, false);
    let mut memory = memory();
    let mut compare = |frame: &[u8], mark: Option<Mark>| {
        let expected = classify(&classifier, &mut memory, frame);
        match (kernel.run(frame).expect("it runs").answer, expected) {
            (Some(Answer::Ring(tag)), Verdict::Ring(decision)) => {
                assert_eq!(tag, head_of(&decision));
                assert_eq!(mark, None);
            }
            (Some(Answer::Marked(found, _)), Verdict::Hold(_)) => assert_eq!(Some(found), mark),
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let four = |id: u16, word: u16, bytes: &[u8]| ipv4_piece(a, b, 17, id, word, bytes);
    let (six_a, six_b) = ([0xfd; 16], [0xfe; 16]);
    let six = |id: u32, word: u16, bytes: &[u8]| ipv6(six_a, six_b, 44, &frag6(17, word, id, bytes));
    let first = udp(1000, 2000, &[1; 8]);
    let unseen = Some(Mark::First);
    for nested in [false, true] {
        let framed = |ethertype: u16, packet: &[u8]| match nested {
            false => eth(ethertype, packet),
            true => eth(0x0800, &ipv4(b, a, 17, &udp(9, 6081, &geneve(5, 63, ethertype, packet)))),
        };
        let id = 7 + u16::from(nested);
        compare(&framed(0x0800, &four(id, 2, &[2; 16])), unseen);
        compare(&framed(0x0800, &four(id, 0x2000, &first)), None);
        compare(&framed(0x0800, &four(id, 0x2002, &[2; 8])), None);
        compare(&framed(0x0800, &four(id, 0x2002, &[2; 8])), None); // repeated
        compare(&framed(0x0800, &four(id, 3, &[2; 8])), None);
        compare(&framed(0x0800, &four(id, 0x2001, &[2; 8])), unseen); // all went by: another of this name
        compare(&framed(0x0800, &four(id, 0x2000, &udp(5, 6, &[1; 8]))), None);
        compare(&framed(0x0800, &four(id, 0x2002, &[2; 8])), None); // now it follows that
        compare(&framed(0x0800, &four(99, 2, &[2; 16])), unseen);
        compare(&framed(0x86dd, &six(id.into(), 1, &first)), None);
        compare(&framed(0x86dd, &six(id.into(), 16, &[2; 8])), None);
        compare(&framed(0x86dd, &six(1000, 16, &[2; 8])), unseen);
    }
    // A tunnel whose packets are fragments: the first has the inner flow, the later follow it.
    let inner = ipv4(a, b, 6, &tcp(7, 8, &[0; 64]));
    let carried = udp(2152, 2152, &frames::build::gtp(1, 0, &inner));
    let (begin, end) = carried.split_at(64);
    compare(&eth(0x0800, &four(50, 0x2000, begin)), None);
    compare(&eth(0x0800, &four(50, 8, end)), None);
}

/// A first fragment that user space decides is forgotten, so that no later one follows an older datagram
/// of the same name.
#[test]
fn what_is_marked_is_forgotten() {
    require_root!();
    let classifier = classifier(64);
    let kernel = load(&classifier, false);
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let piece = |word: u16, bytes: &[u8]| eth(0x0800, &ipv4_piece(a, b, 17, 7, word, bytes));
    let later = piece(2, &[2; 16]);
    let marked = |frame: &[u8]| match kernel.run(frame).expect("it runs").answer {
        Some(Answer::Marked(mark, _)) => Some(mark),
        _ => None,
    };
    assert_eq!(marked(&piece(0x2000, &udp(1000, 2000, &[1; 8]))), None);
    assert_eq!(marked(&later), None);
    // LISP is not read by the program.
    assert_eq!(marked(&piece(0x2000, &udp(1000, 4341, &[1; 8]))), Some(Mark::Protocol));
    assert_eq!(marked(&later), Some(Mark::First));
    assert!(kernel.fragments().expect("the memory of fragments").is_empty());
}

/// Kernel and user space have one memory: either follows what the other has sent on.
#[test]
fn either_follows_what_the_other_sent_on() {
    require_root!();
    let classifier = classifier(64);
    let kernel = load(&classifier, false);
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let four = |id: u16, word: u16, bytes: &[u8]| eth(0x0800, &ipv4_piece(a, b, 17, id, word, bytes));
    let six = |id: u16, word: u16, bytes: &[u8]| {
        eth(0x86dd, &ipv6([0xfd; 16], [0xfe; 16], 44, &frag6(17, word, id.into(), bytes)))
    };
    // LISP is not read by the program; what is behind its port here is none, so the ports make the key.
    for (port, id) in [(4341, 1), (9, 2)] {
        let begin = udp(1000, port, &[1; 8]);
        let end = [2; 8];
        for (first, later) in [(four(id, 0x2000, &begin), four(id, 2, &end)), (six(id, 1, &begin), six(id, 16, &end))] {
            let mut user = |frame: &[u8]| {
                let frame = flowyard_steer::Frame::new(frame, flowyard_steer::LinkType::ETHERNET);
                match classifier.classify(&frame, &mut fragments, 0) {
                    Verdict::Ring(decision) => decision.hash,
                    Verdict::Hold(hold) => panic!("{hold:?}"),
                }
            };
            let kernels = |frame: &[u8]| match kernel.run(frame).expect("it runs").answer {
                Some(Answer::Ring(tag)) => Some(tag.hash),
                _ => None,
            };
            let sent = kernels(&first);
            assert_eq!(sent.is_none(), port == 4341);
            let hash = sent.unwrap_or_else(|| user(&first));
            assert_eq!((kernels(&later), user(&later)), (Some(hash), hash));
        }
    }
    assert_eq!(fragments.len(), 4);
}

/// Bounds of the program: headers too many, too far, beyond the first buffer. All marked, none wrong.
#[test]
fn what_is_beyond_its_bounds_is_marked() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let several = load(&classifier, true);
    let mut many = join(&[6, 0, 1, 2, 0, 0, 0, 0], &tcp(1, 2, &[]));
    let mut chain = |headers: usize| {
        while many.len() < 28 + headers * 8 {
            many = ext6(60, &many);
        }
        eth(0x86dd, &ipv6([1; 16], [2; 16], 60, &many))
    };
    assert_eq!(same(&kernel, &classifier, &chain(30), "few"), None);
    assert_eq!(same(&kernel, &classifier, &chain(60), "many"), Some(Mark::Steps));

    let long = |count: usize| {
        let mut rest = tcp(1, 2, &[0; 20]);
        for header in 0..count {
            let mut options = vec![0; 2048];
            options[..2].copy_from_slice(&[if header == 0 { 6 } else { 60 }, 255]);
            rest = join(&options, &rest);
        }
        eth(0x86dd, &ipv6([1; 16], [2; 16], 60, &rest))
    };
    assert_eq!(same(&kernel, &classifier, &long(1), "within"), None);
    assert_eq!(same(&several, &classifier, &long(1), "within"), None);
    assert_eq!(same(&several, &classifier, &long(2), "beyond"), Some(Mark::Several));
    assert_eq!(same(&several, &classifier, &long(9), "far beyond"), Some(Mark::Several));
    // Headers split between the buffers anywhere, where the kernel can be told so.
    let gtp = frames::build::gtp(1, 1, &ipv4([3; 4], [4; 4], 6, &tcp(1, 2, &[0; 900])));
    let gtp = eth(0x0800, &ipv4([1; 4], [2; 4], 17, &udp(2152, 2152, &gtp)));
    let expected = classify(&classifier, &mut memory(), &gtp);
    let mut in_first = 0;
    for linear in 14..400 {
        match several.run_split(&gtp, linear).map(|run| run.answer) {
            Ok(Some(Answer::Ring(tag))) => {
                assert_eq!(tag, head_of(expected.decision()), "{linear} in the first");
                in_first += 1;
            }
            Ok(answer) => {
                assert!(matches!(answer, Some(Answer::Marked(Mark::Several, _))), "{linear} in the first: {answer:?}");
                assert!(linear < 300, "the headers are in the first");
            }
            Err(error) => {
                skipped(module_path!(), line!(), &format!("buffers of any length: {error}"));
                in_first = 1;
                break;
            }
        }
    }
    assert!(in_first > 0);
    // A long frame whose headers are where they should be.
    let plain = eth(0x0800, &ipv4([1; 4], [2; 4], 6, &tcp(1, 2, &[0; 9000])));
    assert_eq!(same(&several, &classifier, &plain, "jumbo"), None);
}
