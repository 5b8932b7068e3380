//! The shares of the rings change while packets flow: no packet is lost, and each goes by the old table or the new one.

mod common;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use common::*;
use flowyard::mem::Wait;
use flowyard::steer::Table;
use flowyard::{Group, ReweighError, RingReader, Running, Yard, YardConfig};

/// Every bucket that came, by group of the reader; and how many packets.
type Seen = (BTreeSet<usize>, u64);

fn watch(mut reader: RingReader) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let (mut buckets, mut packets) = (BTreeSet::new(), 0);
        loop {
            while let Some(packet) = reader.next() {
                buckets.insert(Table::bucket(packet.slot().hash));
                packets += 1;
            }
            if reader.wait(None) == Wait::Ended {
                return (buckets, packets);
            }
        }
    })
}

/// Waits until so many packets more have come.
fn more(running: &Running, packets: u64) {
    let received = || running.live().iter().map(|live| live.received.load(Ordering::Relaxed)).sum::<u64>();
    let goal = received() + packets;
    while received() < goal {
        assert!(!running.is_finished(), "it runs");
        std::thread::yield_now();
    }
}

fn meant_for(running: &Running, ring: usize) -> u64 {
    let status = running.rings().status()[ring];
    status.counters.packets + status.counters.dropped_total() + status.backlog
}

#[test]
fn a_ring_of_weight_0_gets_nothing_from_then_on() {
    let config = YardConfig {
        rings: 3,
        dispatchers: 2,
        groups: vec![Group::new("ids", 2)],
        pin: false,
        ..YardConfig::default()
    };
    let (yard, readers) = Yard::open(&config, &[spec("gen:mix"), spec("gen:vxlan")]).expect("it opens");
    let watched: Vec<_> = readers.into_iter().map(watch).collect();
    let running = yard.start().expect("threads");
    more(&running, 10_000);
    let rings = running.rings().clone();
    assert_eq!(rings.weights(0), Some(vec![1, 1, 1]));
    let moved = rings.reweigh(0, &[1, 0, 1]).expect("reweighed");
    let before = meant_for(&running, 1);
    let others = [meant_for(&running, 0), meant_for(&running, 3)];
    assert!(before > 0, "it had its share before");
    more(&running, 20_000);
    assert_eq!(meant_for(&running, 1), before, "nothing came to ring 1 any more");
    assert!(meant_for(&running, 0) > others[0] && meant_for(&running, 3) > others[1], "but to others");
    assert_eq!(rings.weights(0), Some(vec![1, 0, 1]));
    assert_eq!(rings.reweigh(1, &[3, 1]).expect("the other group"), 1024);
    more(&running, 10_000);

    let mut last = Table::even(3).expect("a table");
    assert_eq!(last.reweigh(&[1, 0, 1]), Ok(moved), "as few buckets as can be: ring 1's third");
    assert!(moved <= Table::BUCKETS / 3 + 1);
    for (result, says) in [
        (rings.reweigh(0, &[1, 1]), "2 weights for 3 rings"),
        (rings.reweigh(0, &[0, 0, 0]), "all weights are 0"),
        (rings.reweigh(2, &[1]), "group number 2"),
    ] {
        assert!(result.is_err_and(|e| e.to_string().contains(says)), "{says}");
    }
    running.stop();
    let report = running.join();
    assert!(report.sums_agree() && report.errors.is_empty() && report.buffers_missing == 0, "{report:?}");
    let seen: Vec<Seen> = watched.into_iter().map(|thread| thread.join().expect("no panic")).collect();
    assert_eq!(seen.iter().map(|seen| seen.1).sum::<u64>(), report.delivered());
    let first = Table::even(3).expect("a table");
    for (ring, (buckets, _)) in seen[..3].iter().enumerate() {
        let known = |bucket: &usize| [&first, &last].iter().any(|t| usize::from(t.buckets()[*bucket]) == ring);
        assert!(buckets.iter().all(known), "ring {ring} has packets of neither table");
    }
    assert!(matches!(rings.reweigh(0, &[1, 1, 1]), Err(ReweighError::Ended)));
    assert!(rings.status().is_empty());
}
