//! Bytes from anyone: nothing panics, nothing is read past the end, work is bounded.

mod common;

use common::build::*;
use common::*;
use flowyard_steer::{
    Classifier, Decision, Family, FlowHash, Fragment, FragmentMemory, FragmentTable, Fragments, Frame, Glance, KeyId,
    KeyLevel, Layer, LinkType, NonIp, Observer, Policy, ToeplitzKey, UdpTunnels, Verdict, card_rss, dissect,
};
use proptest::prelude::*;

#[derive(Default)]
struct Steps {
    count: usize,
    end: usize,
}

impl Observer for Steps {
    fn layer(&mut self, _: Layer, offset: usize, len: usize) {
        self.count += 1;
        self.end = self.end.max(offset + len);
    }
}

fn try_everything(bytes: &[u8], link: u16) {
    let frame = Frame::new(bytes, LinkType(link));
    let policy = Policy::default();
    let mut steps = Steps::default();
    let found = dissect(&frame, &policy, &mut steps);
    assert_eq!(dissect(&frame, &policy, &mut ()), found, "the quick way and the walk agree");
    assert!(steps.count <= usize::from(policy.max_steps));
    assert!(steps.end <= bytes.len());
    assert!(found.payload_offset() <= found.payload_end() && found.payload_end() <= bytes.len());
    let _ = (found.flow(bytes), found.quoted(bytes), found.awaited(bytes), found.conversation(bytes));
    // Offsets of one frame used on another are nonsense, but harmless.
    let _ = (found.flow(&[]), found.conversation(&bytes[..bytes.len() / 2]));
    assert!(card_rss(&ToeplitzKey::microsoft(), &frame, 16) < 16);
    let by_card = Classifier { hash: FlowHash::Toeplitz(ToeplitzKey::microsoft()), ..classifier() };
    for (classifier, stripped_vlan) in [(classifier(), None), (by_card, Some(0)), (classifier(), Some(0x2345))] {
        try_sorting(&classifier, &Frame { stripped_vlan, ..frame });
    }
}

/// By whichever way a packet is sorted, it is sorted as the walk finds.
fn try_sorting(classifier: &Classifier, frame: &Frame<'_>) {
    let bytes = frame.bytes;
    let found = dissect(frame, &classifier.policy, &mut Steps::default());
    let mut memory = FragmentTable::new(8, 1);
    let verdict = classifier.classify(frame, &mut memory, 0);
    let decision = verdict.decision();
    assert!(decision.ring < 16);
    if found.innermost().is_some() && !found.is_awaiting() {
        let hash = classifier.hash.hash(&found.conversation(bytes));
        assert_eq!(decision.hash, hash, "the quick way hashes what the walk finds");
    }
    let mut uncommon = Decision::BLANK;
    let wait = classifier.classify_uncommon_into(frame, &mut FragmentTable::new(8, 1), 0, &mut uncommon);
    assert_eq!((&uncommon, wait.is_some()), (decision, matches!(verdict, Verdict::Hold(_))), "by whichever way");
    let mut glance = Glance::default();
    if classifier.glancer().is_some_and(|glancer| glancer.glance(frame, &mut glance)) {
        let offsets =
            [found.outer_l3_offset(), found.l3_offset(), found.l4_offset()].map(|at| at.expect("there is IP"));
        let (kind, id) = found.tunnel().map_or((0, 0), |(kind, id)| (kind as u64, id));
        let [first, second, third] = glance.words;
        let place = u64::from(decision.hash) | u64::from(decision.ring) << 32;
        assert_eq!(first, place | (found.stop() as u64) << 48 | u64::from(found.depth()) << 56);
        let l4 = offsets[2] as u64 | u64::from(found.proto().expect("there is IP")) << 16;
        let ipv6 = u64::from(found.family() == Family::V6) << 59;
        assert_eq!(second, offsets[0] as u64 | (offsets[1] as u64) << 16 | l4 << 32 | ipv6);
        assert_eq!(third, u64::from(id) | kind << 32 | u64::from(found.vlan().unwrap_or(0)) << 48);
        assert!(!found.is_icmp_error() && found.fragment() == Fragment::None);
    }
}

const LINKS: [u16; 36] = [
    0, 1, 6, 9, 10, 12, 50, 51, 100, 101, 104, 105, 107, 108, 113, 117, 119, 122, 123, 127, 139, 140, 149, 163, 166,
    177, 192, 205, 206, 228, 229, 239, 258, 276, 12345, 147,
];

/// A bound that matters, or the built-in one.
fn most(few: u8, usual: u8) -> impl Strategy<Value = u8> {
    prop_oneof![0..few, Just(usual)]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let key = prop_oneof![Just(KeyLevel::Innermost), Just(KeyLevel::Outermost), (1u8..5).prop_map(KeyLevel::Nth)];
    let non_ip =
        prop_oneof![Just(NonIp::MacPair), any::<u16>().prop_map(NonIp::Ring), any::<u16>().prop_map(NonIp::Bucket)];
    let left = prop::collection::vec(0..Layer::ALL.len(), 0..3);
    // What is made of the list of tunnels: (port, set or taken out or by addresses, layer).
    let port = prop_oneof![Just(4789), Just(2152), Just(2123), Just(53), any::<u16>()];
    let ports = prop::collection::vec((port, 0u8..4, 0..Layer::ALL.len()), 0..6);
    let bounds = (most(20, 192), most(5, 8));
    (key, non_ip, left, any::<[bool; 3]>(), prop_oneof![Just(0), any::<u8>()], bounds, ports).prop_map(
        |(key, non_ip, left, [vlan, vni, addresses], ids, (max_steps, max_depth), ports)| Policy {
            key,
            max_depth,
            max_steps,
            leave_alone: left.into_iter().map(|layer| Layer::ALL[layer]).collect(),
            key_vlan: vlan,
            key_vni: vni,
            key_ids: KeyId::ALL.iter().copied().filter(|&id| ids >> id as u8 & 1 != 0).collect(),
            force: true,
            fragments: if addresses { Fragments::AddressesOnly } else { Fragments::Follow },
            non_ip,
            udp_tunnels: tunnels(&ports),
            ..Policy::default()
        },
    )
}

/// Bytes in which the headers of one tunnel are, mostly.
const HEADERS: usize = 120;

/// A byte that says something where some header looks for it.
fn telling_byte() -> impl Strategy<Value = u8> {
    prop::sample::select(
        &[
            0x00, 0x01, 0x04, 0x06, 0x08, 0x11, 0x20, 0x21, 0x29, 0x2f, 0x30, 0x34, 0x3a, 0x40, 0x45, 0x46, 0x47, 0x57,
            0x60, 0x64, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0xff,
        ][..],
    )
}

fn tunnels(changes: &[(u16, u8, usize)]) -> UdpTunnels {
    let mut tunnels = UdpTunnels::default();
    for &(port, change, layer) in changes {
        match change {
            0 => tunnels.unset(port),
            1 => tunnels.set_by_addresses(port, layer % 2 == 0),
            _ => tunnels.set(port, Layer::ALL[layer], change == 2),
        };
    }
    tunnels
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), link in 0..LINKS.len()) {
        try_everything(&bytes, LINKS[link]);
    }

    #[test]
    fn cut_anywhere(ends in ends(), kind in 0..WRAPS, outer in ends(), cut in any::<prop::sample::Index>()) {
        let (ethertype, payload) = wrap(kind, ends.v6, &ends.packet(), &outer);
        let frame = eth(ethertype, &payload);
        try_everything(&frame[..cut.index(frame.len() + 1)], 1);
    }

    #[test]
    fn under_any_policy(
        ends in ends(),
        kind in 0..WRAPS,
        outer in ends(),
        change in (any::<prop::sample::Index>(), any::<u8>()),
        policy in any_policy(),
    ) {
        let (ethertype, payload) = wrap(kind, ends.v6, &ends.packet(), &outer);
        let mut frame = eth(ethertype, &payload);
        let at = change.0.index(frame.len());
        frame[at] = change.1;
        let mut steps = Steps::default();
        let found = dissect(&Frame::new(&frame, LinkType::ETHERNET), &policy, &mut steps);
        prop_assert!(steps.count <= usize::from(policy.max_steps) && steps.end <= frame.len());
        prop_assert!(found.depth() <= policy.max_depth);
        prop_assert_eq!(dissect(&Frame::new(&frame, LinkType::ETHERNET), &policy, &mut ()), found);
        let _ = (found.flow(&frame), found.quoted(&frame), found.awaited(&frame), found.conversation(&frame));
        let verdict = Classifier { policy, ..classifier() }.classify(&Frame::new(&frame, LinkType::ETHERNET), &mut (), 0);
        prop_assert!(verdict.decision().ring < 16);
    }

    /// What is learned is known, in a memory of 8 datagrams, whatever comes in whatever order.
    #[test]
    fn fragments_in_sequences(ops in prop::collection::vec((0u16..12, 0u16..4, any::<bool>(), 0u64..40), 1..60)) {
        let (classifier, mut memory) = (classifier(), FragmentTable::new(8, 100));
        let mut now = 0;
        for (id, offset, more, step) in ops {
            now += step;
            let packet = ipv4_piece(A4, B4, 17, id, offset | u16::from(more) << 13, &udp(1, 2, &[0; 8]));
            let verdict = classifier.classify(&Frame::new(&packet, LinkType::RAW), &mut memory, now);
            if let Verdict::Ring(decision) = verdict {
                for datagram in decision.dissection.first_fragments(&packet) {
                    prop_assert_eq!(memory.guess(&datagram, now), Some(decision.hash));
                }
            }
            prop_assert!(memory.capacity() == 8 && memory.counts().evicted <= memory.counts().learned);
        }
    }

    #[test]
    fn changed_anywhere(
        ends in ends(),
        kind in 0..WRAPS,
        outer in ends(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), telling_byte()]), 1..6),
        again in 0..2 * WRAPS,
        cut in prop_oneof![Just(None), any::<prop::sample::Index>().prop_map(Some)],
        near in any::<bool>(),
    ) {
        let (mut ethertype, mut payload) = wrap(kind, ends.v6, &ends.packet(), &outer);
        if again < WRAPS && (ethertype == 0x0800 || ethertype == 0x86dd) {
            (ethertype, payload) = wrap(again, ethertype == 0x86dd, &payload, &outer);
        }
        let mut frame = eth(ethertype, &payload);
        for (at, value) in changes {
            let at = at.index(if near { frame.len().min(HEADERS) } else { frame.len() });
            frame[at] = value;
        }
        let end = cut.map_or(frame.len(), |cut| cut.index(frame.len() + 1));
        try_everything(&frame[..end], 1);
    }
}

#[test]
fn frames_longer_than_offsets() {
    let mut frame = eth(0x0800, &tcp4());
    frame.resize(200_000, 0);
    try_everything(&frame, 1);
    let labels = [0, 1, 0, 64].repeat(50_000);
    try_everything(&eth(0x8847, &labels), 1);
}
