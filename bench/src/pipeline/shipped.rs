//! The yard itself: its dispatcher, its readers, a port of ours.

use std::hint::black_box;
use std::sync::{Arc, PoisonError};

use flowyard::function::{Packet, Verdict, closure};
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
    measure_config(packets, other, &config(), Reads::default())
}

/// The same, and all of each packet's tag is read.
pub fn measure_tags(packets: &Arc<Packets>, other: usize) -> Option<f64> {
    measure_config(packets, other, &config(), Reads { tags: true, ..Reads::default() })
}

/// The same with so many annotation bytes, of which `touched` are written by a function and read by the consumer; none for
/// 0, and a silent function for less than a word.
pub fn measure_annotated(packets: &Arc<Packets>, other: usize, annotation: usize, touched: usize) -> Option<f64> {
    let writes = move |packet: &mut Packet<'_>| {
        let hash = packet.hash();
        let words = packet.annotation().chunks_exact_mut(8).take(touched / 8);
        words.for_each(|word| word.copy_from_slice(&u64::from(hash).to_le_bytes()));
        Verdict::BuiltIn
    };
    let function = (touched > 0).then(|| closure(writes));
    let config = YardConfig { annotation_bytes: annotation, function, ..config() };
    measure_config(packets, other, &config, Reads { touched, ..Reads::default() })
}

/// What the consumer reads beside slot and first bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Reads {
    /// So many bytes of the annotation.
    touched: usize,
    /// The tag.
    tags: bool,
}

fn measure_config(packets: &Arc<Packets>, other: usize, config: &YardConfig, reads: Reads) -> Option<f64> {
    let (leader, follower) = meet();
    let figure = Figure::default();
    let port = Prefilled::new(packets.clone(), leader, figure.clone());
    let (yard, readers) = Yard::open_over(config, Box::new(port)).expect("memory for a yard");
    std::thread::scope(|scope| {
        scope.spawn(move || flow::follow(other, follower, Readers { readers, reads, sum: 0 }));
        let report = yard.start().expect("a thread").join();
        assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
        assert_eq!(report.delivered(), packets.len() as u64);
    });
    *figure.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Readers {
    readers: Vec<RingReader>,
    reads: Reads,
    sum: u64,
}

impl Looking for Readers {
    fn turn(&mut self) -> usize {
        let mut seen = 0;
        for reader in &mut self.readers {
            for _ in 0..BATCH {
                let Some(packet) = reader.next() else { break };
                self.sum ^= u64::from(packet.slot().hash);
                let hash = u64::from(packet.slot().hash);
                let others = |words: &[u64]| words.iter().fold(0, |all, word| all | word ^ hash);
                let others = match self.reads.touched {
                    64 => packet.annotation::<[u64; 8]>().map_or(1, |words| others(&words)),
                    256 => packet.annotation::<[u64; 32]>().map_or(1, |words| others(&words)),
                    _ => 0,
                };
                assert_eq!(others, 0, "all words are as the function wrote them");
                if self.reads.tags {
                    black_box(packet.tag());
                }
                self.sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                seen += 1;
            }
        }
        black_box(self.sum);
        seen
    }
}
