//! A program that asks the card: its answer is that of any other, with the VLAN tag that the card took off, and what the
//! card told stays before the head whatever the user's programs do.

mod common;

use common::{can_ask, classifier, head_of, load, load_asking, memory};
use flowyard_kernel::{Answer, CardWord, KernelSteer, Mark};
use flowyard_mem::flags;
use flowyard_port::traffic::{Mix, MixOptions};
use flowyard_steer::{Frame, LinkType, Verdict};
use flowyard_testkit::require_root;

const VLAN: u16 = 0x2007;

fn told(vlan: Option<u16>) -> CardWord {
    let stripped = if vlan.is_some() { flags::VLAN_STRIPPED } else { 0 };
    let flags = flags::HARDWARE_TIME | flags::CARD_HASH | stripped;
    CardWord { time_ns: 1_700_000_000_000_000_001, hash: 0x0a0b_0c0d, vlan: vlan.unwrap_or(0), flags }
}

fn answer(kernel: &KernelSteer, frame: &[u8], told: &CardWord) -> Answer {
    let run = kernel.run_told(frame, told).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(run.told, Some(*told), "what the card told is there");
    run.answer.expect("a head")
}

#[test]
fn the_answer_is_that_of_user_space_and_knows_the_tag_that_was_taken_off() {
    require_root!();
    if !can_ask(line!()) {
        return;
    }
    let classifier = classifier(16);
    for several_buffers in [false, true] {
        let ordinary = load(&classifier, several_buffers);
        let (asking, _interface) = load_asking(&classifier, several_buffers);
        let mut memory = memory();
        let mut mix = Mix::new(&MixOptions { flows: 500, ..MixOptions::default() });
        let (mut bytes, mut marked) = ([0; Mix::FRAME_BYTES], 0);
        for number in 0..20_000u32 {
            let len = mix.next(&mut bytes).len;
            let (frame, vlan) = (&bytes[..len], (number % 3 == 0).then_some(VLAN));
            let same = ordinary.run(frame).expect("it runs").answer.expect("a head");
            let found = answer(&asking, frame, &told(vlan));
            let frame = Frame { stripped_vlan: vlan, ..Frame::new(frame, LinkType::ETHERNET) };
            match (found, classifier.classify(&frame, &mut memory, 0)) {
                (Answer::Ring(tag), Verdict::Ring(decision)) => {
                    assert_eq!(tag, head_of(&decision), "frame {number}");
                    let Answer::Ring(ordinary) = same else { panic!("frame {number}: {same:?}") };
                    assert_eq!((tag.ring, tag.hash), (ordinary.ring, ordinary.hash), "frame {number}");
                }
                (Answer::Marked(mark, _), _) => {
                    marked += 1;
                    assert!(
                        mark == Mark::First && matches!(same, Answer::Marked(Mark::First, _)),
                        "{mark:?}, {same:?}"
                    );
                }
                (found, expected) => panic!("frame {number}: {found:?}, {expected:?}"),
            }
        }
        assert!(marked < 400, "{marked} of 20,000 are marked");
    }
}

#[test]
fn without_a_word_of_the_card_a_head_stands_alone() {
    require_root!();
    if !can_ask(line!()) {
        return;
    }
    let classifier = classifier(16);
    let (asking, _interface) = load_asking(&classifier, false);
    let ordinary = load(&classifier, false);
    let mut mix = Mix::new(&MixOptions { flows: 50, ..MixOptions::default() });
    let mut bytes = [0; Mix::FRAME_BYTES];
    for _ in 0..500 {
        let len = mix.next(&mut bytes).len;
        // The driver had no room.
        assert_eq!(asking.run(&bytes[..len]).expect("it runs"), ordinary.run(&bytes[..len]).expect("it runs"));
    }
}
