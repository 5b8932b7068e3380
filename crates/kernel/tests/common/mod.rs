//! What the tests share: user space's answer, told as the program tells its own.

#![allow(dead_code)]

use flowyard_kernel::{KernelSteer, Setup};
use flowyard_mem::{NO_OFFSET, Tag};
use flowyard_steer::{Classifier, Decision, FlowHash, FragmentTable, Frame, LinkType, Policy, Table, Verdict};

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
