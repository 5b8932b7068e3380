//! The whole of steering for one packet: dissect, hash, look up; or hold, for a later fragment.

use crate::conversation::Conversation;
use crate::dissection::{Dissection, Family, Ports};
use crate::fragment::Datagram;
use crate::fragment_table::FragmentMemory;
use crate::walk::dissect_into;
use crate::{FlowHash, Frame, Observer, Policy, Table};

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
        // Filled in where it is returned: copying it would cost as much as hashing.
        let dissection = Dissection::new(frame);
        let mut verdict = Verdict::Ring(Decision { ring: 0, hash: 0, dissection });
        self.classify_into(frame, memory, now_ns, observer, &mut verdict);
        verdict
    }

    #[inline(always)]
    fn classify_into<M: FragmentMemory, O: Observer>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        observer: &mut O,
        verdict: &mut Verdict,
    ) {
        let Verdict::Ring(decision) = verdict else {
            return;
        };
        let dissection = &mut decision.dissection;
        dissect_into(frame, &self.policy, observer, dissection);
        if dissection.awaits {
            let dissection = *dissection;
            *verdict = self.classify_later(frame, memory, now_ns, dissection);
            return;
        }
        let hash = self.hash_of(dissection, frame.bytes);
        if dissection.first_count > 0 {
            learn(frame, memory, now_ns, dissection, hash);
        }
        decision.hash = hash;
        decision.ring = self.table.ring(hash);
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

    /// The hash of the conversation: for IPv4 without putting it together in memory.
    #[inline(always)]
    fn hash_of(&self, dissection: &Dissection, bytes: &[u8]) -> u32 {
        let key = dissection.key();
        if key.family == Family::V4
            && let Some(conversation) = Conversation::of_v4(key, bytes, dissection.extra)
        {
            return self.hash.hash(&conversation);
        }
        self.hash_of_other(dissection, bytes)
    }

    #[inline(never)]
    fn hash_of_other(&self, dissection: &Dissection, bytes: &[u8]) -> u32 {
        self.hash.hash(&dissection.conversation(bytes))
    }

    #[inline]
    fn decide(&self, hash: u32, dissection: Dissection) -> Decision {
        Decision { ring: self.table.ring(hash), hash, dissection }
    }

    #[cold]
    fn classify_later<M: FragmentMemory>(
        &self,
        frame: &Frame<'_>,
        memory: &mut M,
        now_ns: u64,
        dissection: Dissection,
    ) -> Verdict {
        let by_addresses = || self.hash_by_addresses(frame, &dissection);
        let Some(datagram) = dissection.awaited(frame.bytes) else {
            return Verdict::Ring(self.decide(by_addresses(), dissection));
        };
        match memory.recall(&datagram, now_ns) {
            Some(hash) => {
                learn(frame, memory, now_ns, &dissection, hash);
                Verdict::Ring(self.decide(hash, dissection))
            }
            None => {
                let hash = memory.guess(&datagram, now_ns).unwrap_or_else(by_addresses);
                let fallback = self.decide(hash, dissection);
                Verdict::Hold(Hold { datagram, fallback })
            }
        }
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
    use crate::{FragmentTable, Fragments, KeyLevel, LinkType};
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
        // The priority of a tag is not its identity.
        assert!(same(&policy, &tagged(0x2001), &tagged(1)));
    }
}
