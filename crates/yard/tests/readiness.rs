//! One descriptor for all of a ring's pipes.

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, join, specs};
use flowyard::mem::Wait;
use flowyard::{RingReader, Yard, YardConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether it is readable, now or within `timeout`.
fn readable(fd: &std::os::fd::OwnedFd, timeout: Duration) -> bool {
    let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
    poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready == 1)
}

/// Takes everything, sleeping on the descriptor alone.
fn take_all(ring: &mut RingReader) -> (u64, u64) {
    let fd = ring.pollable().expect("a descriptor");
    let (mut packets, mut sleeps) = (0, 0);
    loop {
        while ring.next().is_some() {
            packets += 1;
        }
        if ring.prepare_to_wait() {
            sleeps += 1;
            assert!(readable(&fd, PATIENCE), "neither packets nor the end wake it");
        }
        if ring.wait(Some(Duration::ZERO)) == Wait::Ended {
            return (packets, sleeps);
        }
    }
}

#[test]
fn who_sleeps_on_the_descriptor_misses_nothing() {
    let config = YardConfig { rings: 1, dispatchers: 2, ..YardConfig::default() };
    let ports = specs(&["gen:mix?packets=4000&rate=20000", "gen:mix?packets=2000&rate=9000"]);
    let (yard, mut readers) = Yard::open(&config, &ports).expect("it opens");
    let running = yard.start().expect("threads start");
    let (packets, sleeps) = take_all(&mut readers[0]);
    let report = join(running);
    assert_eq!(packets, 6000, "{report:?}");
    assert!(sleeps > 0, "it never slept");
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn a_pipe_that_has_ended_lets_the_others_be_waited_for() {
    let config = YardConfig { rings: 1, dispatchers: 2, ..YardConfig::default() };
    let ports = specs(&["gen:mix?packets=10", "gen:mix?rate=1"]);
    let (yard, mut readers) = Yard::open(&config, &ports).expect("it opens");
    let running = yard.start().expect("threads start");
    let ring = &mut readers[0];
    let fd = ring.pollable().expect("a descriptor");
    let deadline = Instant::now() + PATIENCE;
    let mut rested = false;
    while !rested {
        assert!(Instant::now() < deadline, "it is readable for good");
        while ring.next().is_some() {}
        let some_ended = ring.consumers().iter_mut().any(|pipe| pipe.is_ended());
        // A packet a second may come between.
        rested = ring.prepare_to_wait() && some_ended && !readable(&fd, Duration::ZERO);
        ring.wait(Some(Duration::ZERO));
    }
    running.stop();
    take_all(ring);
    assert!(!ring.prepare_to_wait(), "there is nothing to wait for");
    assert!(join(running).sums_agree());
}
