//! The yard itself: its dispatcher, its readers, a port of ours.

use std::hint::black_box;
use std::sync::{Arc, PoisonError};

use flowyard::{RingReader, Yard, YardConfig};

use super::port::{Figure, Prefilled};
use crate::flow::{self, BATCH, BUFFERS, Looking, SLOTS};
use crate::laps::meet;
use crate::packets::Packets;
use crate::steer::RINGS;

/// A yard of four rings and as many buffers as a lap has packets.
pub fn config() -> YardConfig {
    YardConfig {
        name: "bench".into(),
        rings: RINGS,
        ring_slots: SLOTS,
        annotation_bytes: 64,
        buffers: Some(BUFFERS),
        pin: false, // the caller is pinned, and the dispatcher's thread is where the caller is
        ..YardConfig::default()
    }
}

/// Runs all packets through a yard whose rings one thread on core `other` drains.
pub fn measure(packets: &Arc<Packets>, other: usize) -> Option<f64> {
    let (leader, follower) = meet();
    let figure = Figure::default();
    let port = Prefilled::new(packets.clone(), leader, figure.clone());
    let (yard, readers) = Yard::open_over(&config(), Box::new(port)).expect("memory for a yard");
    std::thread::scope(|scope| {
        scope.spawn(move || flow::follow(other, follower, Readers { readers, sum: 0 }));
        let report = yard.start().expect("a thread").join();
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert_eq!(report.delivered(), packets.len() as u64);
    });
    *figure.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Readers {
    readers: Vec<RingReader>,
    sum: u64,
}

impl Looking for Readers {
    fn turn(&mut self) -> usize {
        let mut seen = 0;
        for reader in &mut self.readers {
            for _ in 0..BATCH {
                let Some(packet) = reader.next() else { break };
                self.sum ^= u64::from(packet.slot().hash);
                self.sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                seen += 1;
            }
        }
        black_box(self.sum);
        seen
    }
}
