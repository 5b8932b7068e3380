//! Where packets go: to the socket of their ring, to that for marked ones, or to the fallback.

mod common;

use common::classifier;
use flowyard_kernel::{Action, Answer, Fallback, KernelSteer, Place, Setup};
use flowyard_port::traffic::{Mix, MixOptions};
use flowyard_testkit::require_root;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketType, socket};

/// A socket that can stand in the map; bound to nothing, for nothing is received.
fn xdp_socket() -> OwnedFd {
    socket(AddressFamily::XDP, SocketType::RAW, None).expect("an AF_XDP socket")
}

#[test]
fn each_packet_finds_the_socket_of_its_place() {
    require_root!();
    let classifier = classifier(4);
    let kernel = KernelSteer::load(&Setup { fallback: Fallback::Drop, ..Setup::new(&classifier) }).expect("it loads");
    let mut frames = vec![];
    let mut mix = Mix::new(&MixOptions::default());
    let mut bytes = [0; Mix::FRAME_BYTES];
    for _ in 0..100 {
        let len = mix.next(&mut bytes).len;
        frames.push(bytes[..len].to_vec());
    }
    let mut strange = frames[0].clone();
    strange[12..14].copy_from_slice(&[0x22, 0xf3]); // TRILL
    frames.push(strange);
    let places = (0..4).map(Place::Ring).chain([Place::Marked]);
    let (mut redirected, mut dropped) = (0, 0);
    for place in places {
        let socket = xdp_socket();
        kernel.enter(0, place, &socket).unwrap_or_else(|e| panic!("{e}"));
        for frame in &frames {
            let run = kernel.run(frame).expect("it runs");
            let is_there = match run.answer.expect("a head") {
                Answer::Ring(tag) => place == Place::Ring(tag.ring),
                Answer::Marked(..) => place == Place::Marked,
            };
            assert_eq!(run.action, if is_there { Action::Redirect } else { Action::Drop }, "{place:?}");
            if is_there { redirected += 1 } else { dropped += 1 }
        }
        kernel.leave(0, place).unwrap_or_else(|e| panic!("{e}"));
    }
    let counts = kernel.counts(0).expect("counters");
    assert_eq!((counts.redirected, counts.passed, counts.straight), (redirected, dropped, redirected + dropped));
    assert_eq!(redirected, frames.len() as u64, "each has one place");
}

#[test]
fn what_no_socket_takes_is_dropped_and_named() {
    require_root!();
    let classifier = classifier(1);
    let setup = Setup { longest_bytes: 1000, ..Setup::new(&classifier) };
    let kernel = KernelSteer::load(&setup).expect("it loads");
    let socket = xdp_socket();
    kernel.enter(0, Place::Ring(0), &socket).expect("it enters");
    let run = |len: usize| kernel.run(&vec![0x55; len]).expect("it runs").action;
    assert_eq!((run(1000), run(1001)), (Action::Redirect, Action::Drop));
    let counts = kernel.counts(0).expect("counters");
    assert_eq!((counts.redirected, counts.too_long, counts.passed), (1, 1, 0));
    assert!(kernel.run(&[0; 13]).is_err(), "the kernel takes frames from 14 bytes");
}
