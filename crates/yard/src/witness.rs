//! Witnesses: what consumers themselves saw, and whether any conversation came to more than one ring.
//!
//! Each consumer keeps a [`Witness`] of its own ring, fed with the packets it received and nothing
//! else: not the ring or hash that the yard decided. Held together at the end they show every
//! conversation that was split, and how many of the same conversations a card's receive-side scaling
//! would have split over as many queues.
//!
//! Memory: about 40 bytes a conversation; the exact count is a check, not meant for the fast path.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};

use flowyard_mem::{Packet, flags};
use flowyard_steer::{Fragments, Frame, LinkType, Policy, ToeplitzKey, card_rss, dissect};

/// Conversations are remembered by 64 bits of a keyless SipHash of theirs: among a million, two
/// share them with a probability of 3 in 10^8.
type Id = u64;
type Map<V> = HashMap<Id, V, BuildHasherDefault<Same>>;

/// Later fragments and firsts of the same identifier further apart than this are of different
/// datagrams, in nanoseconds of packet time.
const SAME_DATAGRAM_NS: u64 = 1_000_000_000;

/// The keys are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

fn id(value: &impl Hash) -> Id {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    packets: u64,
    /// Queue that the card would have chosen for the first packet, and whether another since.
    queue: u16,
    split_by_card: bool,
}

#[derive(Debug, Clone, Copy)]
struct First {
    conversation: Id,
    time_ns: u64,
}

/// A later fragment whose first one was not on this ring.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    datagram: Id,
    time_ns: u64,
}

/// What one consumer saw on its ring.
#[derive(Debug)]
pub struct Witness {
    queues: u16,
    key: ToeplitzKey,
    policy: Policy,
    conversations: Map<Seen>,
    firsts: Map<First>,
    orphans: Vec<Orphan>,
    packets: u64,
    bytes: u64,
    without_ip: u64,
}

/// What all witnesses together found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Conversations with an IP flow.
    pub conversations: u64,
    /// Of these, those whose packets came to more than one ring.
    pub split: u64,
    /// Of these, those that a card's receive-side scaling would have spread over several queues.
    pub split_by_card: u64,
    /// By ring: packets, bytes, conversations.
    pub rings: Vec<(u64, u64, u64)>,
    /// Packets without an IP flow, over all rings.
    pub without_ip: u64,
    /// Later fragments whose first one was on no ring.
    pub orphans: u64,
}

impl Witness {
    /// A witness that compares with a card of `queues` queues and Microsoft's key.
    pub fn new(queues: u16) -> Witness {
        Witness {
            queues,
            key: ToeplitzKey::microsoft(),
            policy: Policy::default(),
            conversations: Map::default(),
            firsts: Map::default(),
            orphans: Vec::new(),
            packets: 0,
            bytes: 0,
            without_ip: 0,
        }
    }

    /// As the yard's policy sees it: the same header makes the conversation, and the same joins the key.
    /// Fragments count as the conversation's own, whatever the policy does with them.
    pub fn with_policy(self, policy: &Policy) -> Witness {
        Witness { policy: Policy { fragments: Fragments::Follow, ..policy.clone() }, ..self }
    }

    /// Looks at a packet that came from the ring.
    pub fn see_packet(&mut self, packet: &Packet<'_>) {
        let tag = packet.tag();
        let stripped_vlan = tag.has(flags::VLAN_STRIPPED).then_some(tag.stripped_vlan);
        let frame = Frame { bytes: packet.data(), link: LinkType(tag.link), stripped_vlan, wire_len: tag.wire_len };
        self.see(&frame, tag.time_ns);
        self.bytes += packet.len() as u64 - frame.bytes.len() as u64;
    }

    /// Only counts a packet that came from the ring.
    pub fn count_packet(&mut self, packet: &Packet<'_>) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }

    /// Looks at a frame.
    pub fn see(&mut self, frame: &Frame<'_>, time_ns: u64) {
        self.packets += 1;
        self.bytes += frame.bytes.len() as u64;
        let dissection = dissect(frame, &self.policy, &mut ());
        if dissection.innermost().is_none() {
            self.without_ip += 1;
            return;
        }
        let conversation = match dissection.awaited(frame.bytes) {
            None => id(&dissection.conversation(frame.bytes)),
            Some(datagram) => {
                let datagram = id(&datagram);
                match self.firsts.get(&datagram) {
                    Some(first) if first.time_ns.abs_diff(time_ns) < SAME_DATAGRAM_NS => first.conversation,
                    _ => return self.orphans.push(Orphan { datagram, time_ns }),
                }
            }
        };
        for datagram in dissection.first_fragments(frame.bytes) {
            self.firsts.insert(id(&datagram), First { conversation, time_ns });
        }
        let queue = card_rss(&self.key, frame, self.queues);
        let seen = self.conversations.entry(conversation).or_insert(Seen { packets: 0, queue, split_by_card: false });
        seen.packets += 1;
        seen.split_by_card |= seen.queue != queue;
    }

    /// Packets seen.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Holds the witnesses of all rings together.
    pub fn compare(witnesses: &[Witness]) -> Findings {
        let mut findings = Findings::default();
        // Conversation → the ring it was first found on, whether on others, the card's queue and split.
        let mut all: Map<(usize, bool, Seen)> = Map::default();
        for (ring, witness) in witnesses.iter().enumerate() {
            findings.rings.push((witness.packets, witness.bytes, witness.conversations.len() as u64));
            findings.without_ip += witness.without_ip;
            for (id, seen) in &witness.conversations {
                let entry = all.entry(*id).or_insert((ring, false, *seen));
                entry.1 |= entry.0 != ring;
                entry.2.split_by_card |= seen.split_by_card || entry.2.queue != seen.queue;
            }
        }
        for (ring, witness) in witnesses.iter().enumerate() {
            for orphan in &witness.orphans {
                let first = witnesses
                    .iter()
                    .filter_map(|w| w.firsts.get(&orphan.datagram))
                    .find(|f| f.time_ns.abs_diff(orphan.time_ns) < SAME_DATAGRAM_NS);
                match first.and_then(|f| all.get_mut(&f.conversation)) {
                    Some(entry) => entry.1 |= entry.0 != ring,
                    None => findings.orphans += 1,
                }
            }
        }
        findings.conversations = all.len() as u64;
        findings.split = all.values().filter(|(_, split, _)| *split).count() as u64;
        findings.split_by_card = all.values().filter(|(.., seen)| seen.split_by_card).count() as u64;
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(src: u8, sport: u16, dst: u8, dport: u16, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 9, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend(sport.to_be_bytes());
        packet.extend(dport.to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        packet
    }

    fn see(witness: &mut Witness, packet: &[u8], time_ns: u64) {
        witness.see(&Frame::new(packet, LinkType::RAW), time_ns);
    }

    #[test]
    fn a_conversation_on_two_rings_is_found_and_one_on_one_is_not() {
        let mut rings = [Witness::new(4), Witness::new(4)];
        see(&mut rings[0], &udp(1, 1000, 2, 53, 0), 0);
        see(&mut rings[0], &udp(2, 53, 1, 1000, 0), 1);
        see(&mut rings[1], &udp(1, 1001, 2, 53, 0), 2);
        let whole = Witness::compare(&rings);
        assert_eq!((whole.conversations, whole.split), (2, 0));
        see(&mut rings[1], &udp(2, 53, 1, 1000, 0), 3);
        assert_eq!(Witness::compare(&rings).split, 1);
    }

    #[test]
    fn a_fragment_on_another_ring_is_a_split() {
        let mut rings = [Witness::new(4), Witness::new(4)];
        see(&mut rings[0], &udp(1, 1000, 2, 53, 0x2000), 0);
        see(&mut rings[0], &udp(1, 1000, 2, 53, 0x2001), 1);
        assert_eq!(Witness::compare(&rings).split, 0);
        see(&mut rings[1], &udp(1, 1000, 2, 53, 0x0002), 2);
        let findings = Witness::compare(&rings);
        assert_eq!((findings.conversations, findings.split, findings.orphans), (1, 1, 0));
        see(&mut rings[1], &udp(1, 1000, 2, 53, 0x0002), 5_000_000_000);
        assert_eq!(Witness::compare(&rings).orphans, 1, "a piece of another datagram");
    }

    #[test]
    fn a_card_splits_directions_of_most_conversations() {
        let mut ring = [Witness::new(16)];
        for n in 0..100 {
            see(&mut ring[0], &udp(1, 1000 + n, 2, 53, 0), 0);
            see(&mut ring[0], &udp(2, 53, 1, 1000 + n, 0), 0);
        }
        let findings = Witness::compare(&ring);
        assert_eq!((findings.conversations, findings.split), (100, 0));
        assert!(findings.split_by_card > 70, "{findings:?}");
    }
}
