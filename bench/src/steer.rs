//! Steering one packet on one core: bytes in, ring out.
//!
//! *Warm*: blocks of 128 packets are touched, then timed, so that headers are in the second-level
//! cache as a card or the kernel leaves them at best. (Packets start at the same place of each buffer and
//! share few of the cache's sets: more of them would push each other out.) *Cold*: nothing is touched,
//! packets lie as the shuffle has them, in 128 MiB.
//!
//! All take packets in bursts of 32 and fetch the header four packets ahead.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use flowyard::port::traffic::Carrier;
use flowyard::steer::{Classifier, Decision, FlowHash, FragmentTable, Frame, Glance, LinkType, Policy, Table};

use crate::figures::{self, ratio};
use crate::laps::Meter;
use crate::machine;
use crate::packets::{COUNT, NO_TUNNELS, Packets, is_ordinary};
use crate::peers::dpdk::hash::{Method, Packet};
use crate::peers::dpdk::{BURST, Dpdk, dpdk};
use crate::peers::etherparse;
use crate::rounds::{self, Contender, Setting};

/// Packets that are touched and timed at a time.
const BLOCK: usize = 128;
/// How many packets ahead headers are fetched.
const AHEAD: usize = 4;
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
    let mut contenders = vec![
        Contender::new("flowyard", |s: &Sets| steer(&s.ordinary, true)),
        Contender::new("flowyard, no tunnels", |s: &Sets| steer(&s.no_tunnels, true)),
        Contender::new("flowyard, cold", |s: &Sets| steer(&s.ordinary, false)),
        Contender::new("flowyard, fragments and errors too", |s: &Sets| steer(&s.everything, true)),
        Contender::new("etherparse + sort + crc32c, blind to tunnels", |s: &Sets| parse(&s.ordinary, true)),
        Contender::new("etherparse + sort + crc32c, no tunnels", |s: &Sets| parse(&s.no_tunnels, true)),
        Contender::new("etherparse + sort + crc32c, cold, blind to tunnels", |s: &Sets| parse(&s.ordinary, false)),
    ];
    let mut ratios = vec![ratio(0, 4), ratio(1, 5), ratio(2, 6), ratio(0, 3)];
    if let Some(dpdk) = dpdk() {
        dpdk.make_mbufs(&mut sets.ordinary);
        dpdk.make_mbufs(&mut sets.no_tunnels);
        check_peers(dpdk, &sets);
        contenders.extend(peers(dpdk));
        ratios.extend([(0, 7), (0, 8), (0, 9), (1, 10), (1, 11), (1, 12), (2, 13), (2, 14)].map(|(o, t)| ratio(o, t)));
        ratios.extend([ratio(0, 15), ratio(1, 16)]);
    }
    ratios.push(ratio(0, contenders.len()));
    contenders.push(Contender::new("flowyard, all that dissection finds", |s: &Sets| classify(&s.ordinary, true)));
    check(&sets);
    let renew = |sets: &mut Sets| {
        sets.ordinary.shuffle();
        sets.no_tunnels.shuffle();
        sets.everything.rotate();
    };
    println!("\n{} % of memory on huge pages.", machine::huge_percent());
    let mean_bytes = sets.ordinary.mean_bytes();
    let outcome = rounds::run(setting, false, &mut sets, renew, &contenders);
    let title = format!("Steer: {COUNT} packets of {mean_bytes} bytes on average");
    figures::print(&title, "packet", &outcome, &ratios);
}

/// Those in C.
fn peers(dpdk: &'static Dpdk) -> [Contender<Sets>; 10] {
    use Method::{NetmapLb, PlainCrc, PtypeCrc, PtypeSoftrss};
    let all = |name, how| Contender::new(name, move |s: &Sets| by_c(dpdk, how, &s.ordinary, true));
    let no_tunnels = |name, how| Contender::new(name, move |s: &Sets| by_c(dpdk, how, &s.no_tunnels, true));
    let cold = |name, how| Contender::new(name, move |s: &Sets| by_c(dpdk, how, &s.ordinary, false));
    [
        all("plain C + sort + rte_hash_crc", PlainCrc),
        all("rte_net_get_ptype + sort + rte_hash_crc, blind to tunnels", PtypeCrc),
        all("rte_net_get_ptype + rte_softrss, blind to tunnels", PtypeSoftrss),
        no_tunnels("plain C + sort + rte_hash_crc, no tunnels", PlainCrc),
        no_tunnels("rte_net_get_ptype + sort + rte_hash_crc, no tunnels", PtypeCrc),
        no_tunnels("rte_net_get_ptype + rte_softrss, no tunnels", PtypeSoftrss),
        cold("plain C + sort + rte_hash_crc, cold", PlainCrc),
        cold("rte_net_get_ptype + sort + rte_hash_crc, cold, blind to tunnels", PtypeCrc),
        all("netmap lb's hash, blind to QinQ, PPPoE, MPLS, GTP, VXLAN", NetmapLb),
        no_tunnels("netmap lb's hash, no tunnels, blind to QinQ", NetmapLb),
    ]
}

/// As a dispatcher does it: a glance, and a whole look where that is not enough.
fn steer(packets: &Packets, warm: bool) -> Option<f64> {
    let classifier = classifier();
    let glancer = classifier.glancer().expect("the default policy is plain");
    let (mut memory, mut decision, mut glance) = (FragmentTable::default(), Decision::BLANK, Glance::default());
    time(packets, warm, |bytes| {
        let frame = Frame::new(bytes, LinkType::ETHERNET);
        if glancer.glance(&frame, &mut glance) {
            return glance.hash() ^ u32::from(glance.ring());
        }
        classifier.classify_uncommon_into(&frame, &mut memory, 0, &mut decision);
        decision.hash ^ u32::from(decision.ring)
    })
}

/// With all that dissection finds.
fn classify(packets: &Packets, warm: bool) -> Option<f64> {
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
        let hash = etherparse::hash(bytes);
        hash ^ u32::from(table.ring(hash))
    })
}

fn by_c(dpdk: &Dpdk, how: Method, packets: &Packets, warm: bool) -> Option<f64> {
    let (mut hashes, mut rings) = ([0; BURST], [0; BURST]);
    let list = |places, list: &mut Vec<_>| dpdk.list(packets, places, list);
    let touch = |packet: &Packet<'_>| packet.touch();
    time_bursts(packets.len(), warm, list, touch, |burst| {
        dpdk.hash(how, burst, &mut hashes, &mut rings);
        hashes[0] ^ u32::from(rings[0])
    })
}

/// Times `each` of the packets, one after the other.
#[inline]
fn time(packets: &Packets, warm: bool, mut each: impl FnMut(&[u8]) -> u32) -> Option<f64> {
    let list = |places: Range<usize>, list: &mut Vec<_>| {
        list.clear();
        list.extend(places.map(|at| packets.get(at)));
    };
    let touch = |bytes: &&[u8]| bytes.iter().take(HEADER_BYTES).step_by(64).for_each(|line| _ = black_box(*line));
    time_bursts(packets.len(), warm, list, touch, |burst| {
        burst.iter().take(AHEAD).for_each(|bytes| machine::fetch(bytes));
        let mut sum = 0u32;
        for (at, bytes) in burst.iter().enumerate() {
            if let Some(soon) = burst.get(at + AHEAD) {
                machine::fetch(soon);
            }
            sum = sum.wrapping_add(each(bytes));
        }
        sum
    })
}

/// Times `work` on bursts of `count` packets, which `list` lists outside the clock.
#[inline]
fn time_bursts<P>(
    count: usize,
    warm: bool,
    list: impl Fn(Range<usize>, &mut Vec<P>),
    touch: impl Fn(&P),
    mut work: impl FnMut(&[P]) -> u32,
) -> Option<f64> {
    let mut meter = Meter::new();
    let mut block = Vec::with_capacity(BLOCK);
    let mut sum = 0u32;
    for lap in 0..count / LAP {
        let switches = machine::involuntary_switches();
        let mut ns = 0;
        for start in (lap * LAP..(lap + 1) * LAP).step_by(BLOCK) {
            list(start..start + BLOCK, &mut block);
            if warm {
                block.iter().for_each(&touch);
            }
            let clock = Instant::now();
            for burst in block.chunks_exact(BURST) {
                sum = sum.wrapping_add(work(burst));
            }
            ns += clock.elapsed().as_nanos() as u64;
        }
        meter.lap(LAP, ns, machine::involuntary_switches() == switches);
    }
    black_box(sum);
    meter.sample()
}

/// Both directions of every conversation get one ring, or the figures are not worth taking.
fn check(sets: &Sets) {
    let classifier = classifier();
    let mut memory = FragmentTable::default();
    let mut rings = HashMap::new();
    for at in 0..sets.ordinary.len() {
        let frame = Frame::new(sets.ordinary.get(at), LinkType::ETHERNET);
        let verdict = classifier.classify(&frame, &mut memory, 0);
        let ring = verdict.decision().ring;
        assert_eq!(*rings.entry(sets.ordinary.conversation(at)).or_insert(ring), ring, "a conversation was split");
    }
}

/// Every peer keeps conversations whole, and tells them apart, on the packets that it can see into.
fn check_peers(dpdk: &Dpdk, sets: &Sets) {
    check_peer(dpdk, Method::PlainCrc, &sets.ordinary);
    for how in [Method::PlainCrc, Method::PtypeCrc, Method::PtypeSoftrss] {
        check_peer(dpdk, how, &sets.no_tunnels);
    }
    let mut one_tag = Packets::make(COUNT / 4, &[Carrier::Plain, Carrier::Vlan], is_ordinary);
    dpdk.make_mbufs(&mut one_tag);
    check_peer(dpdk, Method::NetmapLb, &one_tag);
}

fn check_peer(dpdk: &Dpdk, how: Method, packets: &Packets) {
    let (mut hashes, mut rings) = ([0; BURST], [0; BURST]);
    let (mut list, mut found) = (Vec::new(), HashMap::new());
    for start in (0..packets.len()).step_by(BURST) {
        dpdk.list(packets, start..start + BURST, &mut list);
        dpdk.hash(how, &list, &mut hashes, &mut rings);
        for (at, hash) in (start..).zip(hashes) {
            let first = *found.entry(packets.conversation(at)).or_insert(hash);
            assert_eq!(first, hash, "{how:?} splits a conversation: packet {:x?}", packets.get(at));
        }
    }
    let apart = found.values().collect::<HashSet<_>>().len();
    assert!(apart * 100 > found.len() * 95, "{how:?} tells only {apart} of {} conversations apart", found.len());
}
