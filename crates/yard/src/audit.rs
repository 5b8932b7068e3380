//! Audit: what a card's own receive-side scaling would do to this traffic, beside what Flowyard did.
//!
//! An [`Audit`] is shown every packet with the ring that it came to. It knows the conversation of
//! each as Flowyard's dissection finds it, asks a [`Card`] which queue it would have chosen, and
//! counts the conversations that lie on more than one, with the cause.
//!
//! # Causes
//!
//! Every frame shows the card something: addresses and perhaps ports, or no IP header at all. If all
//! frames of a split conversation show it the same, but for source and destination being swapped,
//! the cause is **direction**: a symmetric key would cure it. Else some of them show something other
//! than the conversation's own addresses and ports. The outermost obstacle decides what such a frame
//! counts as: the card finds no IP header (**non-ip**: PPPoE, MPLS, …); the header it finds is a
//! piece of a datagram (**fragments**); the conversation is further in (**tunnel**, IPv6 extension
//! headers too); it quotes the conversation (**icmp-error**). The cause of the conversation is the
//! first of fragments, icmp-error, non-ip and tunnel without whose frames the rest would show the
//! card one thing; where no one alone explains it, the first of them that it has.
//!
//! # Costs
//!
//! About 300 bytes a conversation, kept until the end, of at most 2 Mi conversations; packets of further
//! ones are load and nothing more. Of fragments the last 65,536 datagrams at least are known, and as many
//! later fragments wait for their first at most. A dissection and two Toeplitz hashes a packet: a check to
//! run for a while, not a part of the fast path.

use std::collections::{BTreeMap, HashMap};

use flowyard_mem::{Packet, flags};
use flowyard_steer::{
    Conversation, Datagram, Dissection, Fragment, FragmentTable, Fragments, Frame, KeyLevel, Layer, Level, LinkType,
    Observer, Policy, SYMMETRIC_KEY, ToeplitzKey, dissect,
};

use crate::card::{Card, Sight};

/// A later fragment that came before its first, from another ring, and a first of its identifier that
/// are further apart than this are of different datagrams, in nanoseconds of packet time.
const SAME_DATAGRAM_NS: u64 = 1_000_000_000;
/// Most conversations that are followed.
const MOST_CONVERSATIONS: usize = 1 << 21;
/// First fragments noted before the earlier half of them is forgotten.
const MOST_FIRSTS: usize = 1 << 16;
/// Most later fragments that wait for their first.
const MOST_ORPHANS: usize = 1 << 16;
/// Split conversations kept as examples, for each cause.
const EXAMPLES: usize = 4;
/// Queues listed for one conversation.
const MOST_QUEUES: usize = 16;

/// Why a conversation lies on several queues of a card. See the module's head for what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Its two directions hash differently.
    Direction,
    /// It is inside something that the card does not look into.
    Tunnel,
    /// Pieces of datagrams have no ports to hash.
    Fragments,
    /// ICMP errors about it come from elsewhere.
    IcmpError,
    /// In some frames the card finds no IP header.
    NonIp,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 5] = [Cause::Direction, Cause::Tunnel, Cause::Fragments, Cause::IcmpError, Cause::NonIp];
    /// The order in which causes are tried that are more than a swap of the two ends.
    const TRIED: [Cause; 4] = [Cause::Fragments, Cause::IcmpError, Cause::NonIp, Cause::Tunnel];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Direction => "direction",
            Cause::Tunnel => "tunnel",
            Cause::Fragments => "fragments",
            Cause::IcmpError => "icmp-error",
            Cause::NonIp => "non-ip",
        }
    }

    /// One line for people.
    pub fn explanation(self) -> &'static str {
        match self {
            Cause::Direction => "the two directions hash differently; a symmetric key would cure it",
            Cause::Tunnel => "the flow is inside a tunnel, which the card does not look into",
            Cause::Fragments => "pieces of a datagram carry no ports, so they hash differently",
            Cause::IcmpError => "ICMP errors come from a router, but are about this flow",
            Cause::NonIp => "in some frames the card finds no IP header, and uses the first queue of its table",
        }
    }
}

/// Load of one queue or ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Packets.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
}

/// What the frames of one kind in one conversation showed the card.
#[derive(Debug, Clone, Copy, Default)]
enum Shown {
    /// There was none.
    #[default]
    Nothing,
    /// This, whichever end was the source.
    One(u64),
    /// Different things.
    Several,
}

impl Shown {
    fn and(self, other: Shown) -> Shown {
        match (self, other) {
            (Shown::Nothing, shown) | (shown, Shown::Nothing) => shown,
            (Shown::One(a), Shown::One(b)) if a == b => self,
            _ => Shown::Several,
        }
    }
}

#[derive(Debug, Clone)]
struct Seen {
    packets: u64,
    ring: u16,
    split: bool,
    /// Queues that the card would have used, in order of appearance, at most [`MOST_QUEUES`].
    queues: Vec<u32>,
    symmetric_queue: u32,
    split_by_symmetric: bool,
    /// By what kept the card from seeing the conversation itself; frames that nothing kept count as
    /// direction.
    shown: [Shown; Cause::ALL.len()],
}

impl Seen {
    fn cause(&self) -> Cause {
        let shown = |kept: &dyn Fn(Cause) -> bool| {
            let kinds = Cause::ALL.into_iter().filter(|c| kept(*c));
            kinds.fold(Shown::Nothing, |sum, c| sum.and(self.shown[c as usize]))
        };
        if let Shown::One(_) = shown(&|_| true) {
            return Cause::Direction;
        }
        let has = |cause: &Cause| !matches!(self.shown[*cause as usize], Shown::Nothing);
        let explains = |cause: &Cause| has(cause) && !matches!(shown(&|c| c != *cause), Shown::Several);
        let found = Cause::TRIED.into_iter().find(explains);
        found.or(Cause::TRIED.into_iter().find(has)).unwrap_or(Cause::Direction)
    }
}

/// A packet as it is added to its conversation.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    ring: u16,
    queue: u32,
    symmetric_queue: u32,
    kind: Cause,
    shown: u64,
}

#[derive(Debug, Clone, Copy)]
struct First {
    conversation: Conversation,
    time_ns: u64,
}

/// A later fragment whose first one had not been shown.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    datagram: Datagram,
    time_ns: u64,
    sighting: Sighting,
}

/// What the card and the rings do to a stream of packets.
#[derive(Debug)]
pub struct Audit {
    card: Card,
    symmetric: Card,
    policy: Policy,
    conversations: HashMap<Conversation, Seen>,
    /// By ring: where an identifier is used again, a later fragment is taken to belong to the first one
    /// that it came with. Those noted last, and those noted before them.
    firsts: [HashMap<(u16, Datagram), First>; 2],
    orphans: Vec<Orphan>,
    /// Of those that waited, how many will find no first any more.
    lost_orphans: u64,
    /// Packets of conversations that there was no room for.
    beyond: u64,
    most_conversations: usize,
    queues: Vec<Load>,
    rings: Vec<Load>,
    without_conversation: u64,
    unseen: BTreeMap<&'static str, u64>,
}

/// A conversation that the card splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The conversation.
    pub conversation: Conversation,
    /// Why.
    pub cause: Cause,
    /// Its packets.
    pub packets: u64,
    /// The queues it would lie on, ascending; no more than 16 are listed.
    pub queues: Vec<u32>,
}

/// What an [`Audit`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFindings {
    /// Packets shown.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Conversations with an IP flow.
    pub conversations: u64,
    /// Of these, those of a single packet, which nothing can split.
    pub single: u64,
    /// Of these, those whose packets came to more than one ring.
    pub split: u64,
    /// Of these, those that the card would have put on more than one queue.
    pub split_by_card: u64,
    /// The same by cause, in the order of [`Cause::ALL`].
    pub causes: [u64; Cause::ALL.len()],
    /// Of these, those that the card would still split with the well-known symmetric key.
    pub split_by_symmetric: u64,
    /// Load of the card's queues.
    pub queues: Vec<Load>,
    /// Load of the rings.
    pub rings: Vec<Load>,
    /// Packets without an IP flow, in any depth.
    pub without_ip: u64,
    /// Packets that show the card no IP header, by the first layer that it does not know. All of
    /// them go to the first queue of its table.
    pub unseen: Vec<(&'static str, u64)>,
    /// Later fragments whose first one never came; they belong to no conversation here.
    pub orphans: u64,
    /// Packets of conversations that came when as many were followed as there is room for (2 Mi): they are
    /// load alone.
    pub beyond: u64,
    /// The largest split conversations of each cause.
    pub examples: Vec<Example>,
}

impl AuditFindings {
    /// Conversations of two or more packets: those that can be split.
    pub fn several(&self) -> u64 {
        self.conversations - self.single
    }

    /// Packets that show the card no IP header.
    pub fn unseen_total(&self) -> u64 {
        self.unseen.iter().map(|(_, packets)| packets).sum()
    }
}

/// How many times the mean load the busiest of `loads` has, in packets; 0 without any.
pub fn busiest(loads: &[Load]) -> f64 {
    let most = loads.iter().map(|l| l.packets).max().unwrap_or(0);
    let sum: u64 = loads.iter().map(|l| l.packets).sum();
    if sum == 0 { 0.0 } else { most as f64 * loads.len() as f64 / sum as f64 }
}

/// What an audit wants to know of a dissection.
#[derive(Default)]
struct Look {
    /// The first layer that a card does not know.
    strange: Option<Layer>,
    /// The outermost IP header.
    outermost: Option<Level>,
}

impl Observer for Look {
    fn layer(&mut self, layer: Layer, _: usize, _: usize) {
        if self.strange.is_none() && !matches!(layer, Layer::Eth | Layer::Vlan | Layer::Dot1ad) {
            self.strange = Some(layer);
        }
    }

    fn level(&mut self, level: Level) {
        self.outermost.get_or_insert(level);
    }
}

impl Audit {
    /// An audit of `rings` rings against `card`. What a conversation is follows `policy` but for two
    /// things: it is always the innermost flow, and its fragments belong to it.
    pub fn new(card: Card, rings: u16, policy: &Policy) -> Audit {
        let symmetric = ToeplitzKey::new(&SYMMETRIC_KEY).map_or_else(|_| card.clone(), |key| card.with_key(key));
        Audit {
            queues: vec![Load::default(); card.queues() as usize],
            rings: vec![Load::default(); rings.into()],
            card,
            symmetric,
            policy: Policy { key: KeyLevel::Innermost, fragments: Fragments::Follow, ..policy.clone() },
            conversations: HashMap::new(),
            firsts: Default::default(),
            orphans: Vec::new(),
            lost_orphans: 0,
            beyond: 0,
            most_conversations: MOST_CONVERSATIONS,
            without_conversation: 0,
            unseen: BTreeMap::new(),
        }
    }

    /// Looks at a packet that came from `ring`.
    pub fn see_packet(&mut self, packet: &Packet<'_>, ring: u16) {
        let tag = packet.tag();
        let stripped_vlan = tag.has(flags::VLAN_STRIPPED).then_some(tag.stripped_vlan);
        let frame = Frame { bytes: packet.data(), link: LinkType(tag.link), stripped_vlan, wire_len: tag.wire_len };
        self.see(&frame, packet.len() as u64, tag.time_ns, ring);
    }

    /// Looks at a frame that came from `ring`, of `len` captured bytes in all.
    pub fn see(&mut self, frame: &Frame<'_>, len: u64, time_ns: u64, ring: u16) {
        let mut look = Look::default();
        let dissection = dissect(frame, &self.policy, &mut look);
        let sight = self.card.see(frame);
        let queue = self.card.queue(sight.as_ref());
        for load in [self.queues.get_mut(queue as usize), self.rings.get_mut(usize::from(ring))].into_iter().flatten() {
            load.packets += 1;
            load.bytes += len;
        }
        if sight.is_none() {
            *self.unseen.entry(look.strange.map_or("unknown", Layer::name)).or_default() += 1;
        }
        if dissection.innermost().is_none() {
            self.without_conversation += 1;
            return;
        }
        let sighting = Sighting {
            ring,
            queue,
            symmetric_queue: self.symmetric.queue(sight.as_ref()),
            kind: kind(&dissection, &look, sight.as_ref(), frame.bytes),
            shown: sight.map_or(0, |sight| sight.without_direction()),
        };
        let conversation = match dissection.awaited(frame.bytes) {
            None => dissection.conversation(frame.bytes),
            Some(datagram) => match self.firsts.iter().find_map(|firsts| firsts.get(&(ring, datagram))) {
                Some(first) if first.time_ns.abs_diff(time_ns) < FragmentTable::AGE_NS => first.conversation,
                _ => return self.wait(Orphan { datagram, time_ns, sighting }),
            },
        };
        for datagram in dissection.first_fragments(frame.bytes) {
            self.note_first((ring, datagram), First { conversation, time_ns });
        }
        self.add(conversation, &sighting);
    }

    fn note_first(&mut self, of: (u16, Datagram), first: First) {
        if self.firsts[0].len() >= MOST_FIRSTS {
            self.firsts.swap(0, 1);
            self.firsts[0].clear();
        }
        self.firsts[0].insert(of, first);
    }

    fn wait(&mut self, orphan: Orphan) {
        if self.orphans.len() >= MOST_ORPHANS {
            self.settle(MOST_ORPHANS / 2);
        }
        self.orphans.push(orphan);
    }

    /// Gives the `count` later fragments that have waited longest to their first, which came later, or to
    /// another ring: where there are several, to that which is nearest in time.
    fn settle(&mut self, count: usize) {
        let [newer, older] = &self.firsts;
        let mut firsts: HashMap<Datagram, Vec<(u16, First)>> = HashMap::new();
        for orphan in self.orphans.iter().take(count) {
            firsts.entry(orphan.datagram).or_default();
        }
        // Of two by one name the newer: it comes last.
        for (&(ring, datagram), &first) in older.iter().chain(newer) {
            if let Some(list) = firsts.get_mut(&datagram) {
                list.retain(|(other, _)| *other != ring);
                list.push((ring, first));
            }
        }
        let waited: Vec<Orphan> = self.orphans.drain(..count).collect();
        for orphan in waited {
            let away = |first: &First| first.time_ns.abs_diff(orphan.time_ns);
            let nearest = firsts.get(&orphan.datagram).and_then(|list| {
                list.iter().map(|(ring, first)| (away(first), *ring, first)).min_by_key(|&(away, ring, _)| (away, ring))
            });
            match nearest {
                Some((away, _, first)) if away < SAME_DATAGRAM_NS => self.add(first.conversation, &orphan.sighting),
                _ => self.lost_orphans += 1,
            }
        }
    }

    fn add(&mut self, conversation: Conversation, sighting: &Sighting) {
        let full = self.conversations.len() >= self.most_conversations;
        if full && !self.conversations.contains_key(&conversation) {
            self.beyond += 1;
            return;
        }
        let seen = self.conversations.entry(conversation).or_insert_with(|| Seen {
            packets: 0,
            ring: sighting.ring,
            split: false,
            queues: Vec::with_capacity(2),
            symmetric_queue: sighting.symmetric_queue,
            split_by_symmetric: false,
            shown: Default::default(),
        });
        seen.packets += 1;
        seen.split |= seen.ring != sighting.ring;
        seen.split_by_symmetric |= seen.symmetric_queue != sighting.symmetric_queue;
        if seen.queues.len() < MOST_QUEUES && !seen.queues.contains(&sighting.queue) {
            seen.queues.push(sighting.queue);
        }
        let shown = &mut seen.shown[sighting.kind as usize];
        *shown = shown.and(Shown::One(sighting.shown));
    }

    /// Holds everything together.
    pub fn finish(mut self) -> AuditFindings {
        self.settle(self.orphans.len());
        let mut findings = AuditFindings {
            packets: self.rings.iter().map(|l| l.packets).sum(),
            bytes: self.rings.iter().map(|l| l.bytes).sum(),
            without_ip: self.without_conversation,
            orphans: self.lost_orphans,
            beyond: self.beyond,
            ..AuditFindings::default()
        };
        let mut examples: [Vec<Example>; Cause::ALL.len()] = Default::default();
        for (&conversation, seen) in &self.conversations {
            findings.conversations += 1;
            findings.single += u64::from(seen.packets == 1);
            findings.split += u64::from(seen.split);
            findings.split_by_symmetric += u64::from(seen.split_by_symmetric);
            if seen.queues.len() < 2 {
                continue;
            }
            let cause = seen.cause();
            findings.split_by_card += 1;
            findings.causes[cause as usize] += 1;
            let mut queues = seen.queues.clone();
            queues.sort_unstable();
            let list = &mut examples[cause as usize];
            list.push(Example { conversation, cause, packets: seen.packets, queues });
            if list.len() > 64 * EXAMPLES {
                keep_largest(list);
            }
        }
        for list in &mut examples {
            keep_largest(list);
        }
        findings.examples = examples.concat();
        findings.unseen = self.unseen.into_iter().collect();
        findings.unseen.sort_by_key(|(name, packets)| (u64::MAX - packets, *name));
        (findings.queues, findings.rings) = (self.queues, self.rings);
        findings
    }
}

/// Which examples those are is the same every time, whatever the order of the map.
fn keep_largest(list: &mut Vec<Example>) {
    list.sort_by_key(|e| (u64::MAX - e.packets, e.conversation));
    list.truncate(EXAMPLES);
}

/// What keeps the card from seeing the conversation in this frame; direction where nothing does.
fn kind(dissection: &Dissection, look: &Look, sight: Option<&Sight>, bytes: &[u8]) -> Cause {
    let Some(sight) = sight else { return Cause::NonIp };
    let fragment = look.outermost.is_some_and(|level| level.fragment() != Fragment::None);
    if sight.fragment || fragment {
        return Cause::Fragments;
    }
    // Upper layer at once behind the header that the card reads; not so behind IPv6 extensions or AH.
    let l4_offset = sight.l3_offset
        + match bytes.get(sight.l3_offset) {
            Some(first) if first >> 4 == 4 => usize::from(first & 15) * 4,
            _ => 40,
        };
    if dissection.depth() > 1 || dissection.l4_offset() != Some(l4_offset) {
        return Cause::Tunnel;
    }
    if dissection.is_icmp_error() { Cause::IcmpError } else { Cause::Direction }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Packet = Vec<u8>;

    fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, word: u16, payload: &[u8]) -> Packet {
        let len = (20 + payload.len()) as u16;
        let [[l0, l1], [w0, w1]] = [len.to_be_bytes(), word.to_be_bytes()];
        let mut packet = vec![0x45, 0, l0, l1, 0, 9, w0, w1, 64, proto, 0, 0];
        packet.extend([src, dst].concat());
        packet.extend(payload);
        packet
    }

    fn ports(sport: u16, dport: u16) -> Packet {
        [sport.to_be_bytes(), dport.to_be_bytes(), [0, 8], [0, 0]].concat()
    }

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn there(n: u16) -> Packet {
        ipv4(A, B, 17, 0, &ports(1000 + n, 53))
    }

    fn back(n: u16) -> Packet {
        ipv4(B, A, 17, 0, &ports(53, 1000 + n))
    }

    fn ethernet(kind: u16, payload: &[u8]) -> Packet {
        [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &kind.to_be_bytes(), payload].concat()
    }

    /// An audit of conversations of the two frames that `frames` makes of each number.
    fn audit(frames: impl Fn(u16) -> Vec<Packet>) -> AuditFindings {
        let mut audit = Audit::new(Card::new(ToeplitzKey::microsoft(), 64), 4, &Policy::default());
        for n in 0..200 {
            for (at, frame) in frames(n).iter().enumerate() {
                audit.see(&Frame::new(frame, LinkType::ETHERNET), frame.len() as u64, at as u64, n % 4);
            }
        }
        let findings = audit.finish();
        assert_eq!(findings.causes.iter().sum::<u64>(), findings.split_by_card);
        for loads in [&findings.queues, &findings.rings] {
            assert_eq!(loads.iter().map(|l| l.packets).sum::<u64>(), findings.packets);
        }
        assert_eq!(findings.split, 0, "each came to one ring");
        findings
    }

    /// That nearly all conversations are split, and all for this cause.
    fn all_for(findings: &AuditFindings, cause: Cause) {
        assert_eq!(findings.conversations, 200, "{findings:?}");
        assert!(findings.split_by_card > 150, "{findings:?}");
        assert_eq!(findings.causes[cause as usize], findings.split_by_card, "{findings:?}");
        assert!(!findings.examples.is_empty() && findings.examples.iter().all(|e| e.cause == cause));
    }

    #[test]
    fn directions_are_a_cause_that_a_symmetric_key_cures() {
        let findings = audit(|n| vec![ethernet(0x0800, &there(n)), ethernet(0x0800, &back(n))]);
        all_for(&findings, Cause::Direction);
        assert_eq!(findings.split_by_symmetric, 0);
        // So is a tunnel whose own ends are the same in both directions.
        let gre = |src, dst, inner: &[u8]| ethernet(0x0800, &ipv4(src, dst, 47, 0, &[&[0, 0, 8, 0], inner].concat()));
        let ends = |n: u16| ([1, 1, 1, n as u8], [2, 2, 2, (n >> 2) as u8]);
        let findings = audit(|n| vec![gre(ends(n).0, ends(n).1, &there(n)), gre(ends(n).1, ends(n).0, &back(n))]);
        all_for(&findings, Cause::Direction);
        assert_eq!(findings.split_by_symmetric, 0);
    }

    #[test]
    fn a_tunnel_with_ports_of_its_own_is_a_cause() {
        let vxlan = |sport, inner: &[u8]| {
            let frame = ethernet(0x0800, inner);
            let len = (16 + frame.len() as u16).to_be_bytes();
            let udp = [&ports(sport, 4789)[..4], &len, &[0, 0, 8, 0, 0, 0, 0, 0, 7, 0], &frame].concat();
            ethernet(0x0800, &ipv4(A, B, 17, 0, &udp))
        };
        let findings = audit(|n| vec![vxlan(40_000 + n, &there(n)), vxlan(50_000 - n, &back(n))]);
        all_for(&findings, Cause::Tunnel);
        assert!(findings.split_by_symmetric > 150);
    }

    #[test]
    fn pieces_of_datagrams_are_a_cause_in_any_order() {
        let piece = |n: u16, word| {
            let mut packet = ipv4(A, B, 17, word, &ports(1000 + n, 53));
            packet[4..6].copy_from_slice(&n.to_be_bytes());
            ethernet(0x0800, &packet)
        };
        for order in [[0x2000, 1], [1, 0x2000]] {
            let findings = audit(|n| vec![piece(n, order[0]), piece(n, order[1]), ethernet(0x0800, &there(n))]);
            all_for(&findings, Cause::Fragments);
            assert_eq!(findings.orphans, 0);
        }
        let lost = audit(|n| vec![piece(n, 1)]);
        assert_eq!((lost.conversations, lost.orphans), (0, 200));
    }

    #[test]
    fn errors_from_elsewhere_are_a_cause() {
        let error = |n| {
            let icmp = [&[11, 0, 0, 0, 0, 0, 0, 0], &there(n)[..]].concat();
            ethernet(0x0800, &ipv4([9, 9, 9, 9], A, 1, 0, &icmp))
        };
        all_for(&audit(|n| vec![ethernet(0x0800, &there(n)), error(n)]), Cause::IcmpError);
    }

    #[test]
    fn frames_without_an_ip_header_are_a_cause_and_a_load() {
        let pppoe = |n| {
            let ip = there(n);
            let len = (ip.len() as u16 + 2).to_be_bytes();
            ethernet(0x8864, &[&[0x11, 0, 0, 7][..], &len, &[0, 0x21], &ip].concat())
        };
        let findings = audit(|n| vec![pppoe(n), ethernet(0x0800, &back(n))]);
        all_for(&findings, Cause::NonIp);
        assert_eq!(findings.unseen, [("pppoe", 200)]);
        let findings = audit(|n| vec![pppoe(n)]);
        assert_eq!((findings.split_by_card, findings.queues[0].packets), (0, 200));
        assert_eq!(busiest(&findings.queues), 64.0);
        assert_eq!(busiest(&findings.rings), 1.0);
        assert_eq!(busiest(&[]), 0.0);
    }

    #[test]
    fn one_cause_is_named_where_several_meet() {
        // Its directions differ as well, but of the two only that has a cure.
        let piece = |n: u16| {
            let mut packet = ipv4(A, B, 17, 0x2000, &ports(1000 + n, 53));
            packet[4..6].copy_from_slice(&n.to_be_bytes());
            ethernet(0x0800, &packet)
        };
        let findings = audit(|n| vec![ethernet(0x0800, &there(n)), ethernet(0x0800, &back(n)), piece(n)]);
        all_for(&findings, Cause::Fragments);
    }

    /// A piece of datagram `id` of flow `n`.
    fn piece(n: u16, id: u16, word: u16) -> Packet {
        let mut packet = ipv4(A, B, 17, word, &ports(1000 + n, 53));
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet
    }

    fn new_audit(rings: u16) -> Audit {
        Audit::new(Card::new(ToeplitzKey::microsoft(), 64), rings, &Policy::default())
    }

    /// Whatever the order of any map: a later fragment that came to no ring of a first belongs to the
    /// nearest of them in time.
    #[test]
    fn of_several_firsts_of_one_identifier_the_nearest_in_time_counts() {
        const SECOND: u64 = 1_000_000_000;
        for _ in 0..20 {
            let mut audit = new_audit(20);
            let mut see = |packet: Packet, time_ns, ring| {
                audit.see(&Frame::new(&packet, LinkType::RAW), packet.len() as u64, time_ns, ring);
            };
            see(piece(0, 7, 1), 10 * SECOND + 5, 19);
            for n in 0..19 {
                see(piece(n, 7, 0x2000), u64::from(n) * 2 * SECOND, n);
            }
            let findings = audit.finish();
            assert_eq!((findings.conversations, findings.orphans, findings.split), (19, 0, 1));
        }
    }

    #[test]
    fn fragments_take_bounded_room() {
        let mut audit = new_audit(2);
        let packets = 3 * MOST_ORPHANS;
        for n in 0..packets {
            // Identifiers come again after 65,536; here no first of one is there.
            let (n, time_ns) = (n as u32, n as u64 * 20_000_000_000);
            let mut later = piece(0, n as u16, 1);
            later[16..18].copy_from_slice(&(n >> 16).to_be_bytes()[2..]);
            audit.see(&Frame::new(&later, LinkType::RAW), 28, time_ns, 0);
            let mut first = piece(0, n as u16, 0x2000);
            first[16..18].copy_from_slice(&(100 + (n >> 16)).to_be_bytes()[2..]);
            audit.see(&Frame::new(&first, LinkType::RAW), 28, time_ns, 1);
            assert!(audit.orphans.len() <= MOST_ORPHANS);
            assert!(audit.firsts.iter().map(HashMap::len).sum::<usize>() <= 2 * MOST_FIRSTS);
        }
        let findings = audit.finish();
        assert_eq!((findings.orphans, findings.conversations), (packets as u64, 3));
    }

    #[test]
    fn further_conversations_than_there_is_room_for_are_load_alone() {
        let mut audit = new_audit(1);
        audit.most_conversations = 3;
        for n in [0, 1, 2, 3, 4, 1, 3, 0] {
            audit.see(&Frame::new(&there(n), LinkType::RAW), 28, 0, 0);
        }
        let findings = audit.finish();
        assert_eq!((findings.conversations, findings.beyond, findings.packets), (3, 3, 8));
        assert_eq!((findings.single, findings.rings[0].packets), (1, 8));
    }

    proptest! {
        /// Whatever the frames are and wherever they came to, the figures hold together.
        #[test]
        fn figures_hold_together_whatever_is_seen(
            frames in prop::collection::vec(
                (0u16..6, 0u16..3, prop::sample::select(vec![0u16, 0x2000, 1, 0x2001]), 0usize..4,
                 any::<(prop::sample::Index, u8)>(), 0u16..5, any::<u64>()),
                0..60,
            ),
            queues in 1u16..300,
        ) {
            let mut audit = Audit::new(Card::new(ToeplitzKey::microsoft(), queues), 4, &Policy::default());
            let mut bytes = 0;
            for (n, id, word, shape, (at, value), ring, time_ns) in &frames {
                let ip = piece(*n, *id, *word);
                let (link, mut frame) = match shape {
                    0 => (LinkType::RAW, ip),
                    1 => (LinkType::ETHERNET, ethernet(0x0800, &ip)),
                    2 => (LinkType::ETHERNET, ethernet(0x0800, &ipv4(B, A, 4, *word, &ip))),
                    _ => (LinkType::ETHERNET, ethernet(0x8864, &[&[0x11, 0, 0, 7, 0, 30, 0, 0x21][..], &ip].concat())),
                };
                let at = at.index(frame.len());
                frame[at] = *value;
                bytes += if *ring < 4 { frame.len() as u64 } else { 0 };
                audit.see(&Frame::new(&frame, link), frame.len() as u64, *time_ns, *ring);
            }
            let findings = audit.finish();
            let known = frames.iter().filter(|frame| frame.5 < 4).count() as u64;
            prop_assert_eq!((findings.packets, findings.bytes), (known, bytes));
            prop_assert_eq!(findings.queues.iter().map(|l| l.packets).sum::<u64>(), frames.len() as u64);
            prop_assert_eq!(findings.causes.iter().sum::<u64>(), findings.split_by_card);
            prop_assert!(findings.split_by_card.max(findings.split).max(findings.split_by_symmetric) <= findings.several());
            prop_assert!(findings.orphans + findings.without_ip + findings.conversations <= frames.len() as u64);
            prop_assert!(findings.examples.iter().all(|e| e.queues.len() > 1 && e.packets > 1));
        }
    }

    #[test]
    fn a_split_by_the_rings_is_seen() {
        let mut audit = Audit::new(Card::new(ToeplitzKey::microsoft(), 1), 2, &Policy::default());
        for (ring, frame) in [(0, there(1)), (1, back(1)), (1, there(2))] {
            audit.see(&Frame::new(&frame, LinkType::RAW), 28, 0, ring);
        }
        let findings = audit.finish();
        assert_eq!((findings.conversations, findings.split, findings.split_by_card), (2, 1, 0));
        assert_eq!((findings.single, findings.several()), (1, 1));
    }
}
