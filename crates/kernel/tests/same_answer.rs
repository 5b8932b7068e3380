//! The program gives the answer of user space, or marks the packet: on captures, on generated traffic, on
//! frames cut anywhere.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use common::{classifier, classify, head_of, load, memory};
use flowyard_kernel::{Answer, KernelSteer, Mark};
use flowyard_port::capture::CaptureReader;
use flowyard_port::traffic::{Carrier, Mix, MixOptions};
use flowyard_steer::{FragmentTable, Frame, LinkType, Verdict};
use flowyard_testkit::net::skipped;
use flowyard_testkit::require_root;

/// What a comparison came to.
#[derive(Default)]
struct Tally {
    frames: u64,
    marked: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
}

impl Tally {
    fn marked(&self) -> u64 {
        self.marked.values().sum()
    }

    fn per_mille_marked(&self) -> u64 {
        self.marked() * 1000 / self.frames.max(1)
    }

    /// Compares the program with user space on one frame. Returns why it marked it.
    fn compare(
        &mut self,
        kernel: &KernelSteer,
        expected: &Verdict,
        frame: &[u8],
        name: impl Fn() -> String,
    ) -> Option<Mark> {
        let run = kernel.run(frame).unwrap_or_else(|e| panic!("{}: {e}", name()));
        self.judge(run.answer, expected, name)
    }

    /// Compares an answer with that of user space. Returns why the packet is marked.
    fn judge(&mut self, answer: Option<Answer>, expected: &Verdict, name: impl Fn() -> String) -> Option<Mark> {
        self.frames += 1;
        match (answer, expected) {
            (Some(Answer::Marked(mark, _)), _) => {
                *self.marked.entry(mark.name()).or_default() += 1;
                return Some(mark);
            }
            (Some(Answer::Ring(tag)), Verdict::Ring(decision)) if tag == head_of(decision) => {}
            (answer, expected) => {
                let expected = match expected {
                    Verdict::Ring(decision) => format!("{:?}", head_of(decision)),
                    Verdict::Hold(_) => "held".into(),
                };
                self.wrong.push(format!("{}: {answer:?}\n  but in user space {expected}", name()));
            }
        }
        None
    }

    fn check(&self, what: &str) {
        let share = |n: u64| n as f64 * 100.0 / self.frames.max(1) as f64;
        let by: Vec<String> = self.marked.iter().map(|(name, n)| format!("{name} {n} ({:.2} %)", share(*n))).collect();
        println!(
            "{what}: {} frames, {} marked ({:.2} %): {}",
            self.frames,
            self.marked(),
            share(self.marked()),
            by.join(", ")
        );
        assert!(
            self.wrong.is_empty(),
            "{what}: {} wrong, e.g.\n{}",
            self.wrong.len(),
            self.wrong[..self.wrong.len().min(10)].join("\n")
        );
    }
}

/// Each capture's Ethernet frames that a program can be run on, with the capture's name.
fn captures(mut each: impl FnMut(&str, &[Vec<u8>])) -> bool {
    let corpus = std::env::var_os("FLOWYARD_CORPUS").map(PathBuf::from).filter(|dir| dir.join("captures").is_dir());
    let Some(corpus) = corpus else {
        skipped(module_path!(), line!(), "FLOWYARD_CORPUS names no corpus");
        return false;
    };
    let mut paths: Vec<PathBuf> = std::fs::read_dir(corpus.join("captures"))
        .expect("the corpus can be listed")
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    paths.sort();
    let (mut other, mut short, mut long) = (0, 0, 0);
    for path in paths {
        let mut frames = Vec::new();
        let mut reader = CaptureReader::open(&path).unwrap_or_else(|e| panic!("{e}"));
        // A damaged file: what is readable.
        while let Ok(Some(record)) = reader.next() {
            match record.bytes.len() {
                _ if record.link != LinkType::ETHERNET.0 => other += 1,
                0..14 => short += 1,
                65_536.. => long += 1,
                _ => frames.push(record.bytes.to_vec()),
            }
        }
        each(&path.file_name().unwrap_or_default().to_string_lossy(), &frames);
    }
    println!("not run: {other} frames of other links, {short} under 14 bytes, {long} beyond 65,535");
    true
}

/// The program alone, with frames of all lengths, against user space alone.
#[test]
fn captures_have_the_answer_of_user_space_or_a_mark() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, true);
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    let mut tally = Tally::default();
    let found = captures(|name, frames| {
        fragments.clear().expect("the memory of fragments can be cleared");
        let mut memory = memory();
        for (number, frame) in frames.iter().enumerate() {
            let expected = classify(&classifier, &mut memory, frame);
            tally.compare(&kernel, &expected, frame, || format!("{name} frame {}", number + 1));
        }
    });
    if found {
        tally.check("captures");
        assert!(tally.per_mille_marked() <= 50, "at most 5 % may be marked");
        let counts = kernel.counts(0).expect("counters");
        assert_eq!((counts.seen, counts.steered, counts.straight), (tally.frames, tally.frames, tally.frames));
        assert_eq!(counts.passed, tally.frames);
        for &mark in Mark::ALL {
            assert_eq!(counts.marked_by(mark), tally.marked.get(mark.name()).copied().unwrap_or(0), "{mark:?}");
        }
    }
}

/// The program, and user space for what it marked, with one memory of fragments: every frame right.
#[test]
fn captures_come_out_right_with_the_slow_path() {
    require_root!();
    let classifier = classifier(7);
    let kernel = load(&classifier, false);
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    let (mut frames_seen, mut finished) = (0u64, 0u64);
    let found = captures(|name, frames| {
        fragments.clear().expect("the memory of fragments can be cleared");
        let mut memory = memory();
        for (number, frame) in frames.iter().enumerate() {
            // What is in one buffer.
            if frame.len() > 3400 {
                continue;
            }
            frames_seen += 1;
            let expected = classify(&classifier, &mut memory, frame);
            let place = format!("{name} frame {}", number + 1);
            match (kernel.run(frame).unwrap_or_else(|e| panic!("{place}: {e}")).answer, &expected) {
                (Some(Answer::Ring(tag)), Verdict::Ring(decision)) => assert_eq!(tag, head_of(decision), "{place}"),
                (Some(Answer::Marked(..)), expected) => {
                    finished += 1;
                    let frame = Frame::new(frame, LinkType::ETHERNET);
                    assert_eq!(classifier.classify(&frame, &mut fragments, 0), *expected, "{place}");
                }
                (answer, expected) => panic!("{place}: {answer:?}, {expected:?}"),
            }
        }
    });
    if found {
        println!("{frames_seen} frames, {finished} of them by the slow path");
    }
}

/// Frames split between buffers anywhere: the answer for the whole frame, or a mark.
#[test]
fn captures_split_anywhere_have_the_answer_of_user_space() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, true);
    if let Err(error) = kernel.run_split(&[0; 100], 50) {
        skipped(module_path!(), line!(), &format!("splits where it is told to: {error}"));
        return;
    }
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    let (mut tally, mut number) = (Tally::default(), 0);
    let found = captures(|name, frames| {
        fragments.clear().expect("the memory of fragments can be cleared");
        let mut memory = memory();
        for frame in frames.iter().filter(|frame| frame.len() > 14 && frame.len() < 3400) {
            number += 1;
            let first = 14 + number * 7919 % (frame.len() - 14).min(600);
            let expected = classify(&classifier, &mut memory, frame);
            let run = kernel.run_split(frame, first).unwrap_or_else(|e| panic!("{name}: {e}"));
            tally.judge(run.answer, &expected, || format!("{name} split at {first}: {frame:02x?}"));
        }
    });
    if found {
        tally.check("split");
    }
}

#[test]
fn generated_traffic_has_the_answer_of_user_space() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let mut fragments = kernel.fragments().expect("the memory of fragments");
    for only in Carrier::ALL.map(|carrier| vec![carrier]).into_iter().chain([Carrier::ALL.to_vec()]) {
        fragments.clear().expect("the memory of fragments can be cleared");
        let (mut tally, mut memory) = (Tally::default(), memory());
        let name: Vec<&str> = only.iter().map(|carrier| carrier.name()).collect();
        let mut mix = Mix::new(&MixOptions { flows: 2000, only, ..MixOptions::default() });
        let mut bytes = [0; Mix::FRAME_BYTES];
        for number in 0..10_000 {
            let len = mix.next(&mut bytes).len;
            let frame = &bytes[..len];
            let expected = classify(&classifier, &mut memory, frame);
            let mark = tally.compare(&kernel, &expected, frame, || format!("frame {number}"));
            // Nothing but a later fragment that comes first.
            assert!(matches!(mark, None | Some(Mark::First)), "{mark:?}: {frame:02x?}");
        }
        tally.check(&format!("generated {}", name.join(", ")));
        assert!(tally.per_mille_marked() <= 20, "few may be marked");
    }
}

/// Every carrier, cut at every length: nothing is read that is not there, and what is there is read alike.
#[test]
fn frames_cut_anywhere_have_the_answer_of_user_space() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let mut tally = Tally::default();
    for carrier in Carrier::ALL {
        let mut mix = Mix::new(&MixOptions { flows: 40, only: vec![carrier], ..MixOptions::default() });
        let mut bytes = [0; Mix::FRAME_BYTES];
        for number in 0..40 {
            let len = mix.next(&mut bytes).len.min(200);
            for cut in 14..=len {
                // Without memory, so that cutting a first fragment shorter changes nothing for the next.
                let expected = classify(&classifier, &mut FragmentTable::new(8, 0), &bytes[..cut]);
                tally
                    .compare(&kernel, &expected, &bytes[..cut], || format!("{} {number} cut to {cut}", carrier.name()));
            }
        }
    }
    // A later fragment may find what an earlier cut left in the program's memory: those are no errors.
    tally.wrong.retain(|wrong| !wrong.ends_with("held"));
    tally.check("cut");
}

/// Any bytes: whatever they are read as, both read the same.
#[test]
fn damaged_frames_have_the_answer_of_user_space() {
    require_root!();
    let classifier = classifier(16);
    let kernel = load(&classifier, false);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut tally = Tally::default();
    let mut memory = memory();
    let mut mix = Mix::new(&MixOptions { flows: 500, ..MixOptions::default() });
    let mut bytes = [0; Mix::FRAME_BYTES];
    for number in 0..60_000 {
        let len = mix.next(&mut bytes).len;
        for _ in 0..1 + random() % 3 {
            let at = random() as usize % len.min(120);
            bytes[at] = random() as u8;
        }
        let frame = &bytes[..len];
        let expected = classify(&classifier, &mut memory, frame);
        tally.compare(&kernel, &expected, frame, || format!("frame {number}: {frame:02x?}"));
    }
    tally.check("damaged");
}
