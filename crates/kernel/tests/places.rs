//! Where packets go: to the socket of their ring, to that for marked ones, or to the fallback.

mod common;

use common::classifier;
use flowyard_kernel::{Action, Answer, Classic, Fallback, HostFilter, KernelSteer, Place, Setup};
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
fn a_filter_for_the_host_loads_nothing_beyond_the_packet() {
    require_root!();
    let classifier = classifier(1);
    // A is the byte at X + k; it matches if that is the first of the frame, 0x5a.
    for (x, k, matches) in [
        (0, 0, true),
        (1, 0, false),
        (1, u32::MAX, false), // wraps to the first byte in 32 bits
        (u32::MAX, 1, false),
        (0, 0x8000, false),
        (0x8000_0000, 0x7fff, false),
        (0, 13, false),
        (0, 1000, false),
    ] {
        let code = [(0x01, 0, 0, x), (0x50, 0, 0, k), (0x15, 0, 1, 0x5a), (0x06, 0, 0, 1), (0x06, 0, 0, 0)];
        let classic = code.map(|(code, jt, jf, k)| Classic { code, jt, jf, k });
        let filter = HostFilter::new("test", classic.into()).expect("classic BPF");
        let setup = Setup { fallback: Fallback::Drop, host: Some(&filter), ..Setup::new(&classifier) };
        let kernel = KernelSteer::load(&setup).unwrap_or_else(|e| panic!("{x} + {k}: {e}"));
        let mut frame = [0; 60];
        frame[0] = 0x5a;
        let run = kernel.run(&frame).expect("it runs");
        assert_eq!(run.action, if matches { Action::Pass } else { Action::Drop }, "{x} + {k}");
        assert_eq!(kernel.counts(0).expect("counters").to_host, u64::from(matches), "{x} + {k}");
    }
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
