//! Processors share the memory of fragments, and so do the programs of several interfaces: nobody follows another's
//! datagram, however little room there is.

mod common;
#[path = "../../steer/tests/common/mod.rs"]
mod frames;

use common::{classifier, classify};
use flowyard_kernel::{Answer, Company, KernelSteer, Mark, Setup};
use flowyard_steer::{FlowHash, FragmentTable, Table};
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

/// The pieces of a datagram and a change of the table go for both of two programs, in whichever they come.
#[test]
fn programs_of_one_company_follow_each_others_fragments_and_have_one_table() {
    require_root!();
    let classifier = classifier(16);
    let company = Company::default();
    let setup = Setup { company: Some(&company), ..Setup::new(&classifier) };
    let first = KernelSteer::load(&setup).expect("it loads");
    let load = |setup: &Setup<'_>| KernelSteer::load(setup).map_err(|e| e.to_string());
    let second = load(&Setup { several_buffers: true, queues: 3, ..setup }).expect("it loads");
    let stranger = load(&Setup { company: None, ..setup }).expect("it loads");
    let piece =
        |id: u16, word: u16, bytes: &[u8]| eth(0x0800, &ipv4_piece([10, 0, 0, 1], [10, 0, 0, 2], 17, id, word, bytes));
    for (id, (here, there)) in [(&first, &second), (&second, &first)].into_iter().enumerate() {
        let id = id as u16;
        let hash = run(here, &piece(id, 0x2000, &udp(30_000 + id, 9, &[0; 8]))).expect("it is steered");
        assert_eq!(run(there, &piece(id, 0x2002, &[0; 16])), Ok(hash), "the other follows");
        assert_eq!(run(here, &piece(id, 4, &[0; 8])), Ok(hash), "and so does the one that began");
        assert_eq!(run(&stranger, &piece(id, 4, &[0; 8])), Err(Mark::First), "others know nothing of it");
    }
    assert_eq!(first.fragments().expect("a descriptor").len(), 2);
    let mut table = Table::even(16).expect("16 rings");
    table.reweigh(&[&[1][..], &[0; 15]].concat()).expect("one ring has all");
    second.set_table(&table).expect("as many rings");
    let whole = eth(0x0800, &ipv4_piece([10, 0, 0, 1], [10, 0, 0, 2], 17, 9, 0, &udp(7, 9, &[0; 8])));
    for kernel in [&first, &second] {
        let answer = kernel.run(&whole).expect("it runs").answer;
        assert!(matches!(answer, Some(Answer::Ring(tag)) if tag.ring == 0), "{answer:?}");
    }
    assert_eq!(
        (first.counts(0).expect("counters").seen, second.counts(0).expect("counters").seen),
        (4, 4),
        "each counts its own"
    );
    assert_eq!(second.company_counts().expect("counters").seen, 8);

    // One that would answer otherwise is not let in; when all are gone, anybody is.
    let mut other = classifier.clone();
    other.hash = FlowHash::Default { seed: 3 };
    let refusal = load(&Setup { company: Some(&company), ..Setup::new(&other) }).map(drop).expect_err("another seed");
    assert!(refusal.contains("seed") && refusal.contains("same"), "{refusal}");
    drop(first);
    assert!(load(&Setup { company: Some(&company), ..Setup::new(&other) }).is_err());
    drop(second);
    load(&Setup { company: Some(&company), ..Setup::new(&other) }).expect("nobody is there");
}
