//! The whole of steering for one packet: dissect, hash, look up; or hold, for a later fragment.

use crate::conversation::Conversation;
use crate::dissection::{Dissection, Family, Ports};
use crate::fragment::Datagram;
use crate::fragment_table::FragmentMemory;
use crate::hash::Keys;
use crate::quick::{Ends, Met, Quick, Sink, may_be_quick, quick, quick_plain};
use crate::walk::dissect_into;
use crate::{FlowHash, Frame, NonIp, Observer, Policy, Table};

/// Where a packet goes and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The ring.
    pub ring: u16,
    /// The hash of its conversation; for a later fragment, of its first fragment's.
    pub hash: u32,
    /// What dissection found.
    pub dissection: Dissection,
}

impl Decision {
    /// Of a packet that nobody has looked at yet.
    pub const BLANK: Decision = Decision { ring: 0, hash: 0, dissection: Dissection::BLANK };

    /// Forgets what was found of another packet, and notes what came with this one beside its bytes.
    #[inline(always)]
    fn begin(&mut self, frame: &Frame<'_>) {
        self.dissection = Dissection::BLANK;
        (self.dissection.link, self.dissection.vlan) = (frame.link, frame.stripped_vlan);
    }
}

impl Default for Decision {
    fn default() -> Decision {
        Decision::BLANK
    }
}

/// What a [glance](Glancer::glance) at a packet says: the head of its tag but for the user's word, as words of 64 bits, the
/// lowest bits first. What has no place here is as in a whole packet that is no ICMP error.
///
/// ```text
/// 0  hash 32 | ring 16 | stop 8 | depth 8
/// 1  outermost IP header 16 | innermost IP header 16 | its upper layer 16 | protocol of that 8 | kind 8: bit 3 IPv6
/// 2  tunnel's identifier 32 | tunnel's kind 8, 0 without one | 0 8 | TCI of the outermost VLAN tag 16, 0 without one
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Glance {
    /// The words.
    pub words: [u64; 3],
}

impl Glance {
    /// The hash of its conversation.
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        self.words[0] as u32
    }

    /// The ring.
    #[inline(always)]
    pub fn ring(&self) -> u16 {
        (self.words[0] >> 32) as u16
    }

    /// Where the innermost IP header starts, in bytes from the start of the frame.
    #[inline(always)]
    pub fn l3(&self) -> u16 {
        (self.words[1] >> 16) as u16
    }

    /// Where its upper-layer header starts.
    #[inline(always)]
    pub fn l4(&self) -> u16 {
        (self.words[1] >> 32) as u16
    }
}

/// Glances at packets: see [`Classifier::glancer`].
#[derive(Clone, Copy, Debug)]
pub struct Glancer<'a> {
    classifier: &'a Classifier,
    /// Of the default hash; none with Toeplitz.
    keys: Option<Keys>,
}

impl Glancer<'_> {
    /// What [`Classifier::classify`] says of a packet of the commonest kinds, as far as a tag tells it, into `glance`.
    /// Answers false, and changes nothing, for all other packets: those must be classified. Costs less than to classify it.
    #[inline(always)]
    pub fn glance(&self, frame: &Frame<'_>, glance: &mut Glance) -> bool {
        if !may_be_quick(frame) {
            return false;
        }
        let mut third = 0;
        let (first, second) = self.look(frame.bytes, Met::new(frame.stripped_vlan), &mut third);
        if second == 0 {
            return false;
        }
        glance.words = [first, second, third];
        true
    }

    /// The words of a glance; the second is 0 if one is not enough, and never else. All comes and goes in registers, as far as
    /// there are any: a frame put together in memory in pieces, and read in others, makes each packet wait for the one before.
    #[inline(never)]
    fn look(&self, bytes: &[u8], met: Met, third: &mut u64) -> (u64, u64) {
        let mut seen = Glancing { glancer: self, words: [0; 3] };
        if quick_plain(bytes, met, &self.classifier.policy, &mut seen).is_none() {
            return (0, 0);
        }
        *third = seen.words[2];
        (seen.words[0], seen.words[1])
    }
}

/// A later fragment whose first one has not been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// The datagram to wait for: classify again when its first fragment has been.
    pub datagram: Datagram,
    /// Where the packet goes when the wait ends in vain: by addresses and protocol, or with an
    /// earlier datagram of the same identifier.
    pub fallback: Decision,
}

/// What [`Classifier::classify`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The packet goes to a ring.
    Ring(Decision),
    /// The packet must wait for another.
    Hold(Hold),
}

impl Verdict {
    /// The decision as it stands: a held packet's fallback.
    #[inline]
    pub fn decision(&self) -> &Decision {
        match self {
            Verdict::Ring(decision) => decision,
            Verdict::Hold(hold) => &hold.fallback,
        }
    }
}

/// Policy, hash and table together. Immutable on the packet path, so threads can share it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Classifier {
    /// What makes the key.
    pub policy: Policy,
    /// How the key becomes a hash.
    pub hash: FlowHash,
    /// How the hash becomes a ring.
    pub table: Table,
}

impl Classifier {
    /// Sorts one packet. `now_ns` is packet time.
    ///
    /// A later fragment goes where `memory` says its first one went, or is held. A packet that is a
    /// first fragment itself, at any IP level, is learned; then what was held for its datagrams can
    /// be classified again. Never allocates (as long as `memory` does not), never panics.
    #[inline]
    pub fn classify<M: FragmentMemory>(&self, frame: &Frame<'_>, memory: &mut M, now_ns: u64) -> Verdict {
        self.classify_observed(frame, memory, now_ns, &mut ())
    }

    /// As [`classify`](Classifier::classify), and tells `observer` what is met.
    #[inline]
    pub fn classify_observed<M: FragmentMemory, O: Observer>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        observer: &mut O,
    ) -> Verdict {
        let mut decision = Decision::BLANK;
        match self.classify_into(frame, memory, now_ns, observer, &mut decision) {
            None => Verdict::Ring(decision),
            Some(datagram) => Verdict::Hold(Hold { datagram, fallback: decision }),
        }
    }

    /// As [`classify`](Classifier::classify), into `decision`, whatever stood there: where many packets are looked
    /// at before the first goes on, copying what was found would cost as much as hashing. Answers the datagram
    /// that the packet must wait for, if it must; then `decision` is its fallback.
    #[inline]
    pub fn classify_into<M: FragmentMemory, O: Observer>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        observer: &mut O,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        decision.begin(frame);
        if O::QUIET && quick(frame, &self.policy, &mut Deciding { classifier: self, decision }).is_some() {
            return None;
        }
        self.classify_slowly(frame, memory, now_ns, observer, decision)
    }

    /// Glances at packets by this classifier, if its policy leaves room for common cases: tunnels left alone, or anything
    /// that joins the key, do not.
    #[inline]
    pub fn glancer(&self) -> Option<Glancer<'_>> {
        let keys = match self.hash {
            FlowHash::Default { seed } => Some(Keys::of(seed)),
            FlowHash::Toeplitz(_) => None,
        };
        self.policy.is_plain().then_some(Glancer { classifier: self, keys })
    }

    /// As [`classify_into`](Classifier::classify_into), for a packet that a [glance](Glancer::glance) was not enough for: goes
    /// the whole way at once.
    #[inline]
    pub fn classify_uncommon_into<M: FragmentMemory>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        decision.begin(frame);
        self.classify_slowly(frame, memory, now_ns, &mut (), decision)
    }

    #[inline(never)]
    fn classify_slowly<M: FragmentMemory, O: Observer>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        observer: &mut O,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        let dissection = &mut decision.dissection;
        dissect_into(frame, &self.policy, observer, dissection);
        if dissection.awaits {
            return self.classify_later(frame, memory, now_ns, decision);
        }
        let (hash, ring) = self.place(dissection, frame.bytes);
        if dissection.first_count > 0 {
            learn(frame, memory, now_ns, dissection, hash);
        }
        (decision.hash, decision.ring) = (hash, ring);
        None
    }

    /// The hash of a packet by addresses and protocol alone: where a fragment goes when its first
    /// one never comes.
    pub fn hash_by_addresses(&self, frame: &Frame<'_>, dissection: &Dissection) -> u32 {
        let mut level = *dissection.key();
        (level.sport, level.dport, level.ports) = (0, 0, Ports::None);
        let conversation = Conversation::of_level(&level, frame.bytes, dissection.extra)
            .unwrap_or_else(|| dissection.conversation(frame.bytes));
        self.hash.hash(&conversation)
    }

    #[inline(always)]
    fn hash_and_ring(&self, conversation: &Conversation) -> (u32, u16) {
        let hash = self.hash.hash(conversation);
        (hash, self.table.ring(hash))
    }

    /// Hash and ring of the conversation: for IPv4 without putting it together in memory.
    #[inline(always)]
    fn place(&self, dissection: &Dissection, bytes: &[u8]) -> (u32, u16) {
        let key = dissection.key();
        if key.family == Family::V4
            && let Some(conversation) = Conversation::of_v4(key, bytes, dissection.extra)
        {
            return self.hash_and_ring(&conversation);
        }
        self.place_other(dissection, bytes)
    }

    #[inline(never)]
    fn place_other(&self, dissection: &Dissection, bytes: &[u8]) -> (u32, u16) {
        let key = dissection.key();
        if key.family == Family::V6
            && let Some(conversation) = Conversation::of_v6(key, bytes, dissection.extra)
        {
            return self.hash_and_ring(&conversation);
        }
        self.place_without_ip(dissection, bytes)
    }

    #[cold]
    fn place_without_ip(&self, dissection: &Dissection, bytes: &[u8]) -> (u32, u16) {
        if let NonIp::Bucket(bucket) = self.policy.non_ip {
            let hash = u32::from(bucket);
            return (hash, self.table.ring(hash));
        }
        let hash = self.hash.hash(&dissection.conversation(bytes));
        match self.policy.non_ip {
            NonIp::Ring(ring) if ring < self.table.rings() => (hash, ring),
            _ => (hash, self.table.ring(hash)),
        }
    }

    #[cold]
    fn classify_later<M: FragmentMemory>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        decision: &mut Decision,
    ) -> Option<Datagram> {
        let dissection = &decision.dissection;
        let by_addresses = || self.hash_by_addresses(frame, dissection);
        let (hash, wait) = match dissection.awaited(frame.bytes) {
            None => (by_addresses(), None),
            Some(datagram) => match memory.recall(&datagram, now_ns) {
                Some(hash) => {
                    learn(frame, memory, now_ns, dissection, hash);
                    (hash, None)
                }
                None => (memory.guess(&datagram, now_ns).unwrap_or_else(by_addresses), Some(datagram)),
            },
        };
        (decision.hash, decision.ring) = (hash, self.table.ring(hash));
        wait
    }
}

struct Deciding<'a> {
    classifier: &'a Classifier,
    decision: &'a mut Decision,
}

impl Sink for Deciding<'_> {
    #[inline(always)]
    fn found(&mut self, found: Quick) {
        let Classifier { hash, table, .. } = self.classifier;
        self.decision.hash = match hash {
            FlowHash::Default { seed } => found.hash(&Keys::of(*seed)),
            FlowHash::Toeplitz(_) => hash.hash(&found.conversation()),
        };
        self.decision.ring = table.ring(self.decision.hash);
        found.write(&mut self.decision.dissection);
    }
}

struct Glancing<'a> {
    glancer: &'a Glancer<'a>,
    words: [u64; 3],
}

impl Sink for Glancing<'_> {
    #[inline(always)]
    fn found(&mut self, found: Quick) {
        let Classifier { hash, table, .. } = self.glancer.classifier;
        let hash = match &self.glancer.keys {
            Some(keys) => found.hash(keys),
            None => hash.hash(&found.conversation()),
        };
        let v6 = u64::from(matches!(found.ends, Ends::V6(..))) << 59;
        let (outer_l3, l3, l4) = (u64::from(found.outer_l3), u64::from(found.l3) << 16, u64::from(found.l4) << 32);
        let ended = (found.upper.stop as u64) << 48 | u64::from(found.depth) << 56;
        self.words = [
            u64::from(hash) | u64::from(table.ring(hash)) << 32 | ended,
            outer_l3 | l3 | l4 | u64::from(found.proto) << 48 | v6,
            found.met.word(),
        ];
    }
}

#[cold]
fn learn<M: FragmentMemory>(frame: &Frame<'_>, memory: &mut M, now_ns: u64, dissection: &Dissection, hash: u32) {
    for datagram in dissection.first_fragments(frame.bytes) {
        memory.learn(&datagram, hash, now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::build::*;
    use crate::{FragmentTable, Fragments, KeyId, KeyLevel, Layer, LinkType, Stop};
    use std::vec::Vec;

    fn sort(policy: &Policy, bytes: &[u8]) -> Verdict {
        let classifier =
            Classifier { policy: policy.clone(), hash: FlowHash::default(), table: Table::even(8).unwrap() };
        let frame = Frame::new(bytes, LinkType::ETHERNET);
        classifier.classify(&frame, &mut FragmentTable::new(8, 1), 0)
    }

    fn tunnelled(inner: &[u8]) -> Vec<u8> {
        eth(0x0800, &ipv4([1, 1, 1, 1], [2, 2, 2, 2], 47, &gre(0, 0x0800, inner)))
    }

    #[test]
    fn the_level_that_makes_the_key() {
        let other = ipv4(A4, B4, 6, &tcp(7, 8, &[]));
        let hashes = |key| {
            let policy = Policy { key, ..Policy::default() };
            [tcp4(), other.clone()].map(|inner| sort(&policy, &tunnelled(&inner)).decision().hash)
        };
        let [a, b] = hashes(KeyLevel::Innermost);
        assert_ne!(a, b);
        assert_eq!(hashes(KeyLevel::Nth(2)), [a, b]);
        assert_eq!(hashes(KeyLevel::Nth(9)), [a, b]);
        let [c, d] = hashes(KeyLevel::Outermost);
        assert_eq!((c, hashes(KeyLevel::Nth(1))), (d, [c, d]));
        assert_ne!(a, c);
    }

    #[test]
    fn an_inner_fragment_does_not_wait_when_the_tunnel_is_the_key() {
        let later = tunnelled(&ipv4_piece(A4, B4, 6, 7, 3, &[0; 8]));
        assert!(matches!(sort(&Policy::default(), &later), Verdict::Hold(_)));
        let policy = Policy { key: KeyLevel::Outermost, ..Policy::default() };
        assert!(matches!(sort(&policy, &later), Verdict::Ring(_)));
    }

    /// A first fragment has its own ports: where an earlier datagram of the same identifier went is nothing
    /// to it, and the whole packets of its conversation are where it is.
    #[test]
    fn a_reused_identifier_moves_no_first_fragment() {
        let classifier =
            Classifier { policy: Policy::default(), hash: FlowHash::default(), table: Table::even(64).unwrap() };
        let mut memory = FragmentTable::default();
        let mut ring = |sport, word| {
            let frame = ipv4_piece(A4, B4, 17, 160, word, &udp(sport, 53, &[0; 8]));
            let verdict = classifier.classify(&Frame::new(&frame, LinkType::RAW), &mut memory, 0);
            verdict.decision().ring
        };
        for sport in 1000..1020 {
            let (whole, first, later) = (ring(sport, 0), ring(sport, 0x2000), ring(sport, 2));
            assert_eq!((first, later), (whole, whole), "{sport}");
        }
    }

    #[test]
    fn fragments_by_addresses_need_no_memory() {
        let policy = Policy { fragments: Fragments::AddressesOnly, ..Policy::default() };
        let tcp = tcp(1000, 2000, &[0; 4]);
        let hash = |word| match sort(&policy, &eth(0x0800, &ipv4_piece(A4, B4, 6, 7, word, &tcp))) {
            Verdict::Ring(decision) => decision.hash,
            Verdict::Hold(_) => panic!("held"),
        };
        assert_eq!(hash(0x2000), hash(3));
        assert_ne!(hash(0x2000), hash(0));
    }

    #[test]
    fn what_joins_the_key() {
        let tagged = |id| eth(0x8100, &vlan(id, 0x0800, &tcp4()));
        let network = |id| {
            let carried = vxlan(id, &eth(0x0800, &tcp4()));
            eth(0x0800, &ipv4(A4, B4, 17, &udp(9, 4789, &carried)))
        };
        let same =
            |policy: &Policy, a: &[u8], b: &[u8]| sort(policy, a).decision().hash == sort(policy, b).decision().hash;
        let plain = Policy::default();
        assert!(same(&plain, &tagged(1), &tagged(2)) && same(&plain, &network(1), &network(2)));
        let policy = Policy { key_vlan: true, key_vni: true, ..plain };
        assert!(!same(&policy, &tagged(1), &tagged(2)) && !same(&policy, &network(1), &network(2)));
        // The priority of a tag is not its identity, and a tag of nothing else names no VLAN.
        assert!(same(&policy, &tagged(0x2001), &tagged(1)));
        assert!(same(&policy, &tagged(0x2000), &eth(0x0800, &tcp4())) && !same(&policy, &tagged(0), &tagged(1)));
    }

    #[test]
    fn further_identifiers_join_the_key() {
        let gre_key = |key: u8| {
            let mut header = gre(0x2000, 0x0800, &tcp4());
            header[7] = key;
            eth(0x0800, &ipv4(A4, B4, 47, &header))
        };
        let call = |call| {
            let packet = pptp(call, true, false, &ppp(0x21, &tcp4()));
            eth(0x0800, &ipv4(A4, B4, 47, &packet))
        };
        let teid = |teid| eth(0x0800, &ipv4(A4, B4, 17, &udp(2152, 2152, &gtp(teid, 0, &tcp4()))));
        let session = |session| {
            let packet = l2tp(session, &ppp(0x21, &tcp4()));
            eth(0x0800, &ipv4(A4, B4, 17, &udp(1701, 1701, &packet)))
        };
        let index = |index| eth(0x0800, &ipv4(A4, B4, 50, &[0, 0, 0, index, 0, 0, 0, 1]));
        let pairs = [
            (KeyId::Mpls, eth(0x8847, &mpls(16, true, &tcp4())), eth(0x8847, &mpls(17, true, &tcp4()))),
            (KeyId::Gre, gre_key(1), gre_key(2)),
            (KeyId::Teid, teid(1), teid(2)),
            (KeyId::PptpCall, call(1), call(2)),
            (KeyId::L2tpSession, session(1), session(2)),
            (KeyId::Spi, index(1), index(2)),
        ];
        let hash = |policy: &Policy, bytes: &[u8]| sort(policy, bytes).decision().hash;
        for (id, a, b) in pairs {
            let plain = Policy::default();
            assert_eq!(hash(&plain, &a), hash(&plain, &b), "{id:?}");
            let policy = Policy { key_ids: [id].into_iter().collect(), ..plain };
            assert_ne!(hash(&policy, &a), hash(&policy, &b), "{id:?}");
            assert_eq!(hash(&policy, &a), hash(&policy, &a), "{id:?}");
        }
    }

    #[test]
    fn what_is_left_alone_makes_the_key() {
        let inner = |port| eth(0x0800, &ipv4(A4, B4, 6, &tcp(port, 80, &[])));
        let network = |source, port| {
            let outer = ipv4([1, 1, 1, 1], [2, 2, 2, 2], 17, &udp(source, 4789, &vxlan(5, &inner(port))));
            eth(0x0800, &outer)
        };
        let policy = Policy { leave_alone: [Layer::Vxlan].into_iter().collect(), ..Policy::default() };
        let verdict = sort(&policy, &network(7, 1000));
        let dissection = verdict.decision().dissection;
        assert_eq!((dissection.stop(), dissection.dport()), (Stop::Policy, Some(4789)));
        // The source port is the tunnel's way to scatter: no part of its conversation.
        assert_eq!(verdict.decision().hash, sort(&policy, &network(8, 1001)).decision().hash);
        let back = ipv4([2, 2, 2, 2], [1, 1, 1, 1], 17, &udp(99, 4789, &vxlan(5, &inner(1000))));
        assert_eq!(verdict.decision().hash, sort(&policy, &eth(0x0800, &back)).decision().hash);
        // Nor if the tunnel is the key by its place.
        let outermost = Policy { key: KeyLevel::Outermost, ..Policy::default() };
        assert_eq!(
            sort(&outermost, &network(7, 1)).decision().hash,
            sort(&outermost, &eth(0x0800, &back)).decision().hash
        );
        // What is no tunnel keeps its ports.
        let other = |source| eth(0x0800, &ipv4(A4, B4, 17, &udp(source, 4789, &[0x77; 60])));
        let hashes = [7, 8].map(|source| sort(&Policy::default(), &other(source)).decision().hash);
        assert_ne!(hashes[0], hashes[1]);
    }

    #[test]
    fn control_goes_by_peer_pair() {
        let control = |source, port, message: &[u8]| eth(0x0800, &ipv4(A4, B4, 17, &udp(source, port, message)));
        let hash = |policy: &Policy, bytes: &[u8]| sort(policy, bytes).decision().hash;
        let policy = Policy::default();
        let version_2 = [0x48, 32, 0, 4, 0, 0, 0, 1];
        let version_1 = [0x32, 16, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
        let expected = hash(&policy, &control(5000, 2123, &version_2));
        assert_eq!(expected, hash(&policy, &control(5001, 2123, &version_2)));
        assert_eq!(expected, hash(&policy, &control(2123, 7, &version_1)));
        assert_eq!(sort(&policy, &control(5000, 2123, &version_2)).decision().dissection.sport(), Some(5000));
        let mut by_ports = policy.clone();
        by_ports.udp_tunnels.set_by_addresses(2123, false);
        by_ports.udp_tunnels.set_by_addresses(500, true);
        assert_ne!(
            hash(&by_ports, &control(5000, 2123, &version_2)),
            hash(&by_ports, &control(5001, 2123, &version_2))
        );
        assert_eq!(hash(&by_ports, &control(5000, 500, &[0; 9])), hash(&by_ports, &control(500, 9, &[0; 9])));
    }

    #[test]
    fn where_the_rest_goes() {
        let arp = |last| {
            let mut frame = eth(0x0806, &[1; 28]);
            frame[11] = last;
            frame
        };
        let ring = |non_ip, last| {
            let policy = Policy { non_ip, ..Policy::default() };
            sort(&policy, &arp(last)).decision().ring
        };
        let rings = |non_ip| (0..64).map(|last| ring(non_ip, last)).collect::<std::collections::BTreeSet<_>>();
        assert!(rings(NonIp::MacPair).len() > 1);
        assert_eq!(rings(NonIp::Ring(5)), [5].into());
        assert_eq!(rings(NonIp::Bucket(11)), [11 % 8].into());
        assert_eq!(rings(NonIp::Ring(8)), rings(NonIp::MacPair));
        let policy = Policy { non_ip: NonIp::Ring(5), ..Policy::default() };
        assert_eq!(sort(&policy, &eth(0x0800, &tcp4())), sort(&Policy::default(), &eth(0x0800, &tcp4())));
    }

    #[test]
    fn the_bound_on_steps_holds_from_one() {
        for max_steps in 0..6 {
            let policy = Policy { max_steps, ..Policy::default() };
            let count = |bytes: &[u8]| {
                let mut notes = crate::wire::check::Notes::default();
                let found = crate::dissect(&Frame::new(bytes, LinkType::ETHERNET), &policy, &mut notes);
                (notes.stack.len(), found.stop())
            };
            let stop = |needed: usize| if needed <= max_steps.into() { Stop::Transport } else { Stop::Steps };
            assert_eq!(count(&eth(0x0800, &tcp4())), (3.min(max_steps.into()), stop(3)));
            assert_eq!(count(&eth(0x8100, &vlan(1, 0x0800, &tcp4()))), (4.min(max_steps.into()), stop(4)));
            assert_eq!(count(&tunnelled(&tcp4())), (5.min(max_steps.into()), stop(5)));
        }
    }
}
