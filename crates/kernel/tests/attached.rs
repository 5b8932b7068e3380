//! The program on an interface: in the driver and in the stack, with frames in one buffer and in several.

mod common;

use std::time::{Duration, Instant};

use aya::programs::XdpMode;
use common::classifier;
use flowyard_kernel::{Counts, KernelSteer, Mark, Setup};
use flowyard_port::traffic::{Mix, MixOptions};
use flowyard_testkit::net::{Injector, Namespace, Veth};
use flowyard_testkit::require_root;

const QUEUES: u32 = 2;

fn counted(kernel: &KernelSteer) -> Counts {
    kernel.all_counts().unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_packet_of_an_interface_is_steered() {
    require_root!();
    let mut mix = Mix::new(&MixOptions { flows: 300, ..MixOptions::default() });
    let mut bytes = [0; Mix::FRAME_BYTES];
    let frames: Vec<Vec<u8>> = (0..2000)
        .map(|_| {
            let len = mix.next(&mut bytes).len.min(1514);
            bytes[..len].to_vec()
        })
        .collect();
    for (mode, several_buffers) in [(XdpMode::Driver, false), (XdpMode::Driver, true), (XdpMode::Skb, true)] {
        let classifier = classifier(16);
        let setup = Setup { queues: QUEUES, several_buffers, ..Setup::new(&classifier) };
        let mut kernel = KernelSteer::load(&setup).unwrap_or_else(|e| panic!("{e}"));
        let here = Namespace::new().expect("a namespace");
        here.veth(&Veth { queues: QUEUES, ..Veth::default() }).expect("a pair");
        let counts = here.run(|| {
            kernel.root().expect("the root").attach("fy0", mode).unwrap_or_else(|e| panic!("{mode:?}: {e}"));
            let injector = Injector::open("fy1").expect("the other end");
            for batch in frames.chunks(50) {
                injector.send(batch).expect("they are sent");
            }
            let since = Instant::now();
            while counted(&kernel).seen < frames.len() as u64 && since.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
            counted(&kernel)
        });
        let sent = frames.len() as u64;
        assert!(counts.seen >= sent, "{mode:?}: {counts:?}");
        assert_eq!((counts.steered, counts.straight, counts.no_room), (counts.seen, counts.seen, 0), "{mode:?}");
        assert_eq!(counts.passed, counts.seen, "{mode:?}");
        let first = counts.marked_by(Mark::First);
        println!("{mode:?}, several buffers {several_buffers}: {} seen, {first} marked, {counts:?}", counts.seen);
        assert!(counts.marked.iter().sum::<u64>() * 20 < counts.seen, "{mode:?}: {counts:?}");
    }
}
