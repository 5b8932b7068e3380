//! Steering one packet on one core: bytes in, ring out.
//!
//! *Warm*: blocks of 512 packets are touched, then timed, so that headers are in the second-level
//! cache as a card or the kernel leaves them at best. *Cold*: nothing is touched, packets lie as the
//! shuffle has them, in 30 MB.

use std::hint::black_box;
use std::time::Instant;

use flowyard::steer::{Classifier, Decision, FlowHash, FragmentTable, Frame, LinkType, Policy, Table};

use crate::figures::{self, ratio};
use crate::laps::Meter;
use crate::machine;
use crate::packets::{COUNT, NO_TUNNELS, Packets, is_ordinary};
use crate::peers;
use crate::rounds::{self, Contender, Setting};

/// Packets that are touched and timed at a time.
const BLOCK: usize = 512;
/// Packets of a lap.
const LAP: usize = 4096;
/// Bytes in which all headers lie.
const HEADER_BYTES: usize = 192;

/// Rings that packets are sorted to, here and in every pipeline.
pub const RINGS: u16 = 4;

/// The built-in policy with the default hash, over [`RINGS`] rings.
pub fn classifier() -> Classifier {
    let table = Table::even(RINGS).expect("four rings are a table");
    Classifier { policy: Policy::default(), hash: FlowHash::default(), table }
}

struct Sets {
    ordinary: Packets,
    no_tunnels: Packets,
    everything: Packets,
}

/// Runs and prints.
pub fn run(setting: &Setting) {
    let mut sets = Sets {
        ordinary: Packets::make(COUNT, &[], is_ordinary),
        no_tunnels: Packets::make(COUNT, &NO_TUNNELS, is_ordinary),
        everything: Packets::make(COUNT, &[], |_| true),
    };
    check(&sets);
    let contenders = [
        Contender::new("flowyard", |s: &Sets| steer(&s.ordinary, true)),
        Contender::new("etherparse + sort + crc32c, blind to tunnels", |s: &Sets| parse(&s.ordinary, true)),
        Contender::new("flowyard, no tunnels", |s: &Sets| steer(&s.no_tunnels, true)),
        Contender::new("etherparse + sort + crc32c, no tunnels", |s: &Sets| parse(&s.no_tunnels, true)),
        Contender::new("flowyard, fragments and errors too", |s: &Sets| steer(&s.everything, true)),
        Contender::new("flowyard, cold", |s: &Sets| steer(&s.ordinary, false)),
        Contender::new("etherparse + sort + crc32c, cold, blind to tunnels", |s: &Sets| parse(&s.ordinary, false)),
    ];
    let renew = |sets: &mut Sets| {
        sets.ordinary.shuffle();
        sets.no_tunnels.shuffle();
        sets.everything.rotate();
    };
    let mean_bytes = sets.ordinary.mean_bytes();
    let outcome = rounds::run(setting, false, &mut sets, renew, &contenders);
    let title = format!("Steer: {COUNT} packets of {mean_bytes} bytes on average");
    figures::print(&title, "packet", &outcome, &[ratio(0, 1), ratio(2, 3), ratio(5, 6), ratio(0, 4)]);
}

fn steer(packets: &Packets, warm: bool) -> Option<f64> {
    let classifier = classifier();
    let (mut memory, mut decision) = (FragmentTable::default(), Decision::BLANK);
    time(packets, warm, |bytes| {
        let frame = Frame::new(bytes, LinkType::ETHERNET);
        classifier.classify_into(&frame, &mut memory, 0, &mut (), &mut decision);
        decision.hash ^ u32::from(decision.ring)
    })
}

fn parse(packets: &Packets, warm: bool) -> Option<f64> {
    let table = classifier().table;
    time(packets, warm, |bytes| {
        let hash = peers::etherparse_hash(bytes);
        hash ^ u32::from(table.ring(hash))
    })
}

#[inline]
fn time(packets: &Packets, warm: bool, mut each: impl FnMut(&[u8]) -> u32) -> Option<f64> {
    let mut meter = Meter::new();
    let mut sum = 0u32;
    for lap in 0..packets.len() / LAP {
        let switches = machine::involuntary_switches();
        let mut ns = 0;
        for block in (lap * LAP..(lap + 1) * LAP).step_by(BLOCK) {
            if warm {
                (block..block + BLOCK).for_each(|at| touch(packets.get(at)));
            }
            let start = Instant::now();
            for at in block..block + BLOCK {
                sum = sum.wrapping_add(each(packets.get(at)));
            }
            ns += start.elapsed().as_nanos() as u64;
        }
        meter.lap(LAP, ns, machine::involuntary_switches() == switches);
    }
    black_box(sum);
    meter.sample()
}

fn touch(bytes: &[u8]) {
    for line in bytes.iter().take(HEADER_BYTES).step_by(64) {
        black_box(*line);
    }
}

/// Both directions of every conversation get one ring, or the figures are not worth taking.
fn check(sets: &Sets) {
    let classifier = classifier();
    let mut memory = FragmentTable::default();
    let mut rings = std::collections::HashMap::new();
    for at in 0..sets.ordinary.len() {
        let frame = Frame::new(sets.ordinary.get(at), LinkType::ETHERNET);
        let verdict = classifier.classify(&frame, &mut memory, 0);
        let ring = verdict.decision().ring;
        assert_eq!(*rings.entry(sets.ordinary.conversation(at)).or_insert(ring), ring, "a conversation was split");
    }
}
