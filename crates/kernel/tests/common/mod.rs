//! What the tests share: user space's answer, told as the program tells its own.

#![allow(dead_code)]

use flowyard_kernel::{AskCard, CardCalls, CardFacts, KernelSteer, Setup};
use flowyard_mem::{NO_OFFSET, Tag};
use flowyard_steer::{Classifier, Decision, FlowHash, FragmentTable, Frame, LinkType, Policy, Table, Verdict};
use flowyard_testkit::net::{Namespace, Veth, skipped};

/// A seed that is not symmetric in its halves.
pub const SEED: u64 = 0x0123_4567_89ab_cdef;

pub fn classifier(rings: u16) -> Classifier {
    Classifier {
        policy: Policy::default(),
        hash: FlowHash::Default { seed: SEED },
        table: Table::even(rings).expect("some rings"),
    }
}

pub fn load(classifier: &Classifier, several_buffers: bool) -> KernelSteer {
    KernelSteer::load(&Setup { several_buffers, ..Setup::new(classifier) }).unwrap_or_else(|e| panic!("{e}"))
}

/// Whether a card can be asked for everything; if not, the test is reported as skipped.
pub fn can_ask(line: u32) -> bool {
    let all = CardCalls::find().is_ok_and(|calls| calls.facts() == CardFacts::ALL);
    if !all {
        skipped(module_path!(), line, "needs a kernel that has everything to ask for (Linux 6.8)");
    }
    all
}

/// A program that asks the card of an interface, in a namespace of its own, which has to be kept.
pub fn load_asking(classifier: &Classifier, several_buffers: bool) -> (KernelSteer, Namespace) {
    let here = Namespace::new().expect("a namespace");
    here.veth(&Veth::default()).expect("a pair");
    let calls = CardCalls::find().unwrap_or_else(|e| panic!("{e}"));
    let shown = here.command("ip -o link show fy0").expect("ip runs");
    let interface = shown.split(':').next().and_then(|number| number.parse().ok()).expect("its number");
    let kernel = here.run(|| {
        let card = Some(AskCard { interface, facts: CardFacts::ALL.and(calls.facts()), calls: &calls });
        KernelSteer::load(&Setup { several_buffers, card, ..Setup::new(classifier) }).unwrap_or_else(|e| panic!("{e}"))
    });
    (kernel, here)
}

/// A memory as large as the program's.
pub fn memory() -> FragmentTable {
    FragmentTable::new(65_536, FragmentTable::AGE_NS)
}

/// The tag of a decision, as far as steering finds it out: as the yard writes it.
pub fn head_of(decision: &Decision) -> Tag {
    let d = &decision.dissection;
    let offset = |at: Option<usize>| at.and_then(|at| u16::try_from(at).ok()).unwrap_or(NO_OFFSET);
    let (tunnel_kind, tunnel_id) = d.tunnel().map_or((0, 0), |(kind, id)| (kind as u8, id));
    let is_v6 = d.family() == flowyard_steer::Family::V6;
    Tag {
        hash: decision.hash,
        ring: decision.ring,
        stop: d.stop() as u8,
        depth: d.depth(),
        outer_l3: offset(d.outer_l3_offset()),
        inner_l3: offset(d.l3_offset()),
        inner_l4: offset(d.l4_offset()),
        protocol: d.proto().unwrap_or(0),
        kind: d.fragment() as u8 | u8::from(is_v6) << 3 | u8::from(d.is_icmp_error()) << 4,
        tunnel_id,
        tunnel_kind,
        hash_version: 1,
        vlan: d.vlan().unwrap_or(0),
        ..Tag::default()
    }
}

pub fn classify(classifier: &Classifier, memory: &mut FragmentTable, frame: &[u8]) -> Verdict {
    classifier.classify(&Frame::new(frame, LinkType::ETHERNET), memory, 0)
}
