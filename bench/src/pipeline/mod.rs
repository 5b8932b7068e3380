//! The pipeline: packets sorted on one core, looked at on the other, buffers returned, nothing copied.
//!
//! The consumer takes from four rings and reads each packet's slot and first bytes. Ours as shipped is
//! the yard's own dispatcher over a port whose packets lie in their buffers already; *bare* is a plain
//! loop over the same crates, which shows what the dispatcher adds. `rtrb` moves boxed packets between
//! threads of one process, as a Rust program without Flowyard would. DPDK's has a mempool, mbufs and
//! `rte_ring`, as an application without a card's RSS would (`peers/pipeline.c`). Where *tags are read*, the consumer reads
//! all 64 bytes of each, which the dispatcher writes anyway; DPDK's then writes and reads as many of metadata. Its distributor hands packets
//! whose tags are known to one worker, in lines of eight (`peers/distributor.c`).

pub mod alone;
pub mod bare;
mod boxed;
pub mod local;
pub mod port;
pub mod shipped;
pub mod staged;

use std::sync::Arc;

use flowyard::steer::{FragmentTable, Frame, LinkType};

use crate::figures::{self, ratio};
use crate::flow;
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::peers::dpdk::{dpdk, pipeline::Parse};
use crate::peers::etherparse;
use crate::rounds::{self, Contender, Setting};
use crate::steer::{RINGS, classifier};
use alone::{Shape, USUAL};

type Shared = Arc<Packets>;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Shared| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let title = format!("Pipeline: {RINGS} rings, slot and first bytes read");
    let loaded = dpdk();
    let dpdk = loaded.and_then(|loaded| loaded.pipeline(setting.core));
    if let Some(dpdk) = dpdk {
        println!("\nDPDK's packets lie on {}, ours on {}.", dpdk.pages(), bare::pair(true).0.pages());
    }
    if let Some(core) = setting.other {
        let mut contenders = vec![
            Contender::new("flowyard as shipped", move |p: &Shared| shipped::measure(p, core)),
            Contender::new("flowyard, bare loop", move |p: &Shared| two(p, core, bare::pair(true))),
            Contender::new("etherparse + rtrb, blind to tunnels", move |p: &Shared| two(p, core, boxed::pair(parse()))),
            Contender::new("flowyard's steer + rtrb", move |p: &Shared| two(p, core, boxed::pair(steer()))),
            Contender::new("flowyard, nothing looked at", move |p: &Shared| two(p, core, bare::pair(false))),
            Contender::new("rtrb, nothing looked at", move |p: &Shared| two(p, core, boxed::pair(nothing()))),
            Contender::new("flowyard as shipped, tags read", move |p: &Shared| shipped::measure_tags(p, core)),
        ];
        let mut ratios =
            vec![ratio(0, 2), ratio(1, 2), ratio(0, 1), ratio(1, 3), ratio(4, 5), ratio(0, 4), ratio(6, 0)];
        if let Some(dpdk) = dpdk {
            contenders.extend(
                PARSERS.map(|(name, parse)| Contender::new(name, move |p: &Shared| two(p, core, dpdk.pair(parse)))),
            );
            ratios.extend(
                [(0, 7), (0, 8), (1, 7), (1, 8), (4, 9), (6, 10), (6, 7)].map(|(ours, theirs)| ratio(ours, theirs)),
            );
        }
        if let Some(distributor) = loaded.zip(dpdk).and_then(|(loaded, dpdk)| loaded.distributor(dpdk)) {
            ratios.extend([ratio(0, contenders.len()), ratio(4, contenders.len())]);
            contenders.push(Contender::new("rte_distributor, tags given", move |p: &Shared| {
                two(p, core, distributor.pair(tag()))
            }));
        }
        let outcome = rounds::run(setting, true, &mut packets, renew, &contenders);
        figures::print(&title, "packet", &outcome, &ratios);
    } else {
        println!("\n## {title}\n\nSkipped between two cores: there is one.");
    }
    let mut contenders = vec![
        Contender::new("flowyard, bare loop", |p: &Shared| one(p, bare::pair(true))),
        Contender::new("etherparse + rtrb, blind to tunnels", |p: &Shared| one(p, boxed::pair(parse()))),
        Contender::new("flowyard's steer + rtrb", |p: &Shared| one(p, boxed::pair(steer()))),
        Contender::new("flowyard, nothing looked at", |p: &Shared| one(p, bare::pair(false))),
        Contender::new("rtrb, nothing looked at", |p: &Shared| one(p, boxed::pair(nothing()))),
        Contender::new("flowyard as shipped", alone::measure),
        Contender::new("flowyard as shipped, tags read", |p: &Shared| {
            alone::measure_as(p, Shape { tags: true, ..USUAL })
        }),
    ];
    let mut ratios = vec![ratio(0, 1), ratio(0, 2), ratio(3, 4), ratio(5, 0), ratio(6, 5)];
    if let Some(dpdk) = dpdk {
        contenders
            .extend(PARSERS.map(|(name, parse)| Contender::new(name, move |p: &Shared| one(p, dpdk.pair(parse)))));
        ratios.extend(
            [(5, 7), (5, 8), (0, 7), (0, 8), (3, 9), (6, 10), (6, 7)].map(|(ours, theirs)| ratio(ours, theirs)),
        );
    }
    let outcome = rounds::run(setting, false, &mut packets, renew, &contenders);
    figures::print(&title, "packet", &outcome, &ratios);
}

/// Runs and prints what workers that read their own rings come to: one beside dispatcher and reader, and beside DPDK's
/// pipeline, on one core; two beside one.
pub fn run_local(setting: &Setting) {
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Shared| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let title = format!("Workers: {RINGS} rings, slot and first bytes read");
    let one_worker = || Contender::new("flowyard, one worker", local::one);
    if let Some(core) = setting.other {
        let two = move |p: &Shared| local::two(p, core);
        let contenders = [Contender::new("flowyard, two workers, aligned", two), one_worker()];
        let outcome = rounds::run(setting, true, &mut packets, renew, &contenders);
        figures::print(&title, "packet", &outcome, &[ratio(0, 1)]);
    } else {
        println!("\n## {title}\n\nSkipped between two cores: there is one.");
    }
    let mut contenders = vec![one_worker(), Contender::new("flowyard, dispatcher and reader", alone::measure)];
    let mut ratios = vec![ratio(0, 1)];
    if let Some(dpdk) = dpdk().and_then(|dpdk| dpdk.pipeline(setting.core)) {
        let turns = |(name, parse)| Contender::new(name, move |p: &Shared| one(p, dpdk.pair(parse)));
        contenders.extend(PARSERS[..2].iter().copied().map(turns));
        ratios.extend([(0, 2), (0, 3)].map(|(ours, theirs)| ratio(ours, theirs)));
    }
    let outcome = rounds::run(setting, false, &mut packets, renew, &contenders);
    figures::print(&title, "packet", &outcome, &ratios);
}

/// What DPDK's pipeline does with packets.
const PARSERS: [(&str, Parse); 4] = [
    ("DPDK, plain C", Parse::Plain),
    ("DPDK, rte_net_get_ptype, blind to tunnels", Parse::Ptype),
    ("DPDK, nothing looked at", Parse::Nothing),
    ("DPDK, plain C, 64 bytes of metadata", Parse::PlainMetadata),
];

fn two<S: flow::Sorting, L: flow::Looking>(packets: &Packets, core: usize, (sorting, looking): (S, L)) -> Option<f64> {
    flow::two_cores(packets, core, sorting, looking)
}

fn one<S: flow::Sorting, L: flow::Looking>(packets: &Packets, (sorting, looking): (S, L)) -> Option<f64> {
    flow::one_core(packets, sorting, looking)
}

/// Hash and ring, from Flowyard's classifier.
fn steer() -> impl FnMut(&[u8]) -> (u32, usize) {
    let (classifier, mut memory) = (classifier(), FragmentTable::default());
    move |bytes| {
        let verdict = classifier.classify(&Frame::new(bytes, LinkType::ETHERNET), &mut memory, 0);
        let decision = verdict.decision();
        (decision.hash, decision.ring.into())
    }
}

/// The hash alone.
fn tag() -> impl FnMut(&[u8]) -> u32 {
    let mut steer = steer();
    move |bytes| steer(bytes).0
}

/// Hash and ring, from etherparse.
fn parse() -> impl FnMut(&[u8]) -> (u32, usize) {
    let table = classifier().table;
    move |bytes| {
        let hash = etherparse::hash(bytes);
        (hash, table.ring(hash).into())
    }
}

/// Rings by turns, for those who look at nothing.
fn nothing() -> impl FnMut(&[u8]) -> (u32, usize) {
    let mut count = 0u32;
    move |_| {
        count = count.wrapping_add(1);
        (count, count as usize % usize::from(RINGS))
    }
}
