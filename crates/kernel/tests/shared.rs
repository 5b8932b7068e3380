//! Processors share the memory of fragments: nobody follows another's datagram, however little room there is.

mod common;
#[path = "../../steer/tests/common/mod.rs"]
mod frames;

use common::{classifier, classify};
use flowyard_kernel::{Answer, KernelSteer, Mark, Setup};
use flowyard_steer::FragmentTable;
use flowyard_testkit::require_root;
use frames::build::{eth, ipv4_piece, udp};

/// The hash that the program gives, or why it marks the frame.
fn run(kernel: &KernelSteer, frame: &[u8]) -> Result<u32, Mark> {
    match kernel.run(frame).expect("it runs").answer {
        Some(Answer::Ring(tag)) => Ok(tag.hash),
        Some(Answer::Marked(mark, _)) => Err(mark),
        None => panic!("no head"),
    }
}

#[test]
fn later_fragments_follow_their_own_first_or_are_marked() {
    require_root!();
    let classifier = classifier(16);
    // As little room as there can be, so that entries change hands all the time.
    let kernel = KernelSteer::load(&Setup { fragments: 64, ..Setup::new(&classifier) }).expect("it loads");
    let (mut followed, mut marked) = (0, 0);
    std::thread::scope(|scope| {
        let work = |thread: u8| {
            let (kernel, classifier) = (&kernel, &classifier);
            move || {
                let (mut followed, mut marked) = (0u64, 0u64);
                for number in 0..15_000u16 {
                    let (a, b) = ([10, thread, 0, 1], [10, thread, 0, 2]);
                    let piece = |id: u16, word: u16, bytes: &[u8]| eth(0x0800, &ipv4_piece(a, b, 17, id, word, bytes));
                    let first = piece(number, 0x2000, &udp(30_000 + number, 9, &[thread; 8]));
                    let expected = classify(classifier, &mut FragmentTable::new(8, 0), &first).decision().hash;
                    assert!(matches!(run(kernel, &first), Ok(hash) if hash == expected));
                    // Its own, and one from a while ago, which may be forgotten.
                    for (id, word) in [(number, 2), (number.saturating_sub(20), 3)] {
                        let first = piece(id, 0x2000, &udp(30_000 + id, 9, &[thread; 8]));
                        let expected = classify(classifier, &mut FragmentTable::new(8, 0), &first).decision().hash;
                        match run(kernel, &piece(id, word, &[0; 8])) {
                            Ok(hash) => {
                                assert_eq!(hash, expected, "thread {thread}, datagram {id}");
                                followed += 1;
                            }
                            Err(mark) => {
                                assert_eq!(mark, Mark::First);
                                marked += 1;
                            }
                        }
                    }
                }
                (followed, marked)
            }
        };
        let threads: Vec<_> = (0..2).map(|thread| scope.spawn(work(thread))).collect();
        for thread in threads {
            let counts = thread.join().expect("no thread fails");
            followed += counts.0;
            marked += counts.1;
        }
    });
    assert!(followed > 0);
    println!("{followed} followed, {marked} marked");
}
