//! Any bytes on any link under any policy: nothing panics, nothing is read past the packet, work is
//! bounded, and the conversation is that of the same bytes looked at again.
#![no_main]

use flowyard::steer::{
    Classifier, FlowHash, Fragments, Frame, KeyId, KeyLevel, Layer, LinkType, NonIp, Observer, Policy, Table, dissect,
};
use libfuzzer_sys::fuzz_target;

const LINKS: [u16; 32] = [
    1, 0, 6, 9, 10, 12, 14, 50, 51, 100, 101, 104, 105, 107, 108, 113, 117, 119, 123, 127, 139, 149, 163, 166, 192, 205,
    206, 228, 229, 239, 258, 276,
];

#[derive(Default)]
struct Watch {
    steps: usize,
    end: usize,
}

impl Observer for Watch {
    fn layer(&mut self, _: Layer, offset: usize, len: usize) {
        self.steps += 1;
        self.end = self.end.max(offset + len);
    }
}

fn policy(bits: [u8; 6]) -> Policy {
    let [flags, ids, left, key, steps, depth] = bits;
    let mut policy = Policy {
        key: match key {
            0..=127 => KeyLevel::Innermost,
            128..=191 => KeyLevel::Outermost,
            n => KeyLevel::Nth(n - 191),
        },
        max_depth: if depth == 0 { 8 } else { depth },
        max_steps: if steps == 0 { 192 } else { steps },
        key_vlan: flags & 1 != 0,
        key_vni: flags & 2 != 0,
        force: true,
        fragments: if flags & 4 != 0 { Fragments::AddressesOnly } else { Fragments::Follow },
        non_ip: match flags >> 3 & 3 {
            0 | 1 => NonIp::MacPair,
            2 => NonIp::Ring(ids.into()),
            _ => NonIp::Bucket(ids.into()),
        },
        key_ids: KeyId::ALL.iter().copied().filter(|&id| ids >> id as u8 & 1 != 0).collect(),
        ..Policy::default()
    };
    if left != 0 {
        policy.leave_alone = Layer::ALL.iter().copied().filter(|&layer| layer as u8 == left - 1).collect();
    }
    if flags & 0x80 != 0 {
        policy.udp_tunnels.unset(4789);
        policy.udp_tunnels.set(53, Layer::Vxlan, true);
        policy.udp_tunnels.set_by_addresses(2123, false);
    }
    policy
}

fuzz_target!(|input: &[u8]| {
    let Some((&[link, hash, ref bits @ ..], bytes)) = input.split_first_chunk::<8>() else {
        return;
    };
    let policy = policy(*bits);
    let frame = Frame::new(bytes, LinkType(LINKS[usize::from(link) % LINKS.len()]));
    let mut watch = Watch::default();
    let found = dissect(&frame, &policy, &mut watch);
    assert!(watch.steps <= usize::from(policy.max_steps));
    assert!(watch.end <= bytes.len());
    assert!(found.payload_offset() <= found.payload_end() && found.payload_end() <= bytes.len());
    assert!(found.depth() <= policy.max_depth);
    assert_eq!(dissect(&frame, &policy, &mut ()), found, "the quick way and the walk agree");
    let _ = found.conversation(bytes);
    // Offsets of one frame used on another are nonsense, but harmless.
    let half = &bytes[..bytes.len() / 2];
    let _ = (found.flow(half), found.quoted(half), found.awaited(half), found.conversation(half));
    let flow_hash = if hash & 1 == 0 {
        FlowHash::default()
    } else {
        FlowHash::Toeplitz(flowyard::steer::ToeplitzKey::microsoft())
    };
    let classifier = Classifier { policy, hash: flow_hash, table: Table::even(7).expect("7 rings") };
    let verdict = classifier.classify(&frame, &mut (), 0);
    assert!(verdict.decision().ring < 7);
});
