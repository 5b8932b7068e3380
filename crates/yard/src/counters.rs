//! What was received, delivered and lost, by name: the sums always agree.
//!
//! `received + copies = delivered + ring-full + consumer-gone + shutdown + too-long + asides + waiting`,
//! where asides are the packets that the user's function sent to no ring ([`Aside`]), copies the places
//! beyond the first that a packet went to (several groups, or every ring), and `waiting` is zero once a
//! yard has ended. What a port lost before it reached the yard is the port's to name.
//!
//! What consumers had sent is an equation of its own: for each port, `asked = sent + refused` by [`Refusal`](flowyard_port::Refusal).

use std::sync::atomic::{AtomicU64, Ordering};

use flowyard_port::{PortCounters, TransmitCounters};

use crate::SorterCounts;
use crate::function::FunctionCounts;

/// Why a packet that was received was not delivered. Each lost packet is counted in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// Its ring was full, its backlog the longest, and no buffer was spare.
    RingFull,
    /// The consumer of its ring is gone.
    ConsumerGone,
    /// The yard was told to end before its consumer made room.
    Shutdown,
    /// It has more segments than its ring has places.
    TooLong,
}

impl Drop {
    /// Every reason.
    pub const ALL: [Drop; 4] = [Drop::RingFull, Drop::ConsumerGone, Drop::Shutdown, Drop::TooLong];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Drop::RingFull => "ring-full",
            Drop::ConsumerGone => "consumer-gone",
            Drop::Shutdown => "shutdown",
            Drop::TooLong => "too-long",
        }
    }
}

/// Where a packet went that the user's function sent to no ring. Each is counted in exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aside {
    /// Dropped, because the function said so.
    Verdict,
    /// Dropped with the rest of its shunted flow.
    Shunted,
    /// Handed to the host's network stack.
    Host,
    /// Meant for the host's network stack, which had no room for it.
    HostFull,
    /// Not wanted by one group, because that group's function said so.
    GroupVerdict,
}

impl Aside {
    /// Every one.
    pub const ALL: [Aside; 5] = [Aside::Verdict, Aside::Shunted, Aside::Host, Aside::HostFull, Aside::GroupVerdict];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Aside::Verdict => "verdict",
            Aside::Shunted => "shunted",
            Aside::Host => "host",
            Aside::HostFull => "host-full",
            Aside::GroupVerdict => "group-verdict",
        }
    }
}

/// Counts of one ring, over all dispatchers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Packets put on the ring.
    pub packets: u64,
    /// Buffers that its consumers had, read or not, when they were gone: of packets that count as put on the ring.
    /// (Between the two that are counted for every packet: side by side the compiler would add to them by vectors.)
    pub abandoned: u64,
    /// Captured bytes of the packets put on the ring.
    pub bytes: u64,
    /// Packets meant for it and lost, by [`Drop`].
    pub dropped: [u64; Drop::ALL.len()],
}

impl RingCounters {
    /// Sum of the losses.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &RingCounters) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.abandoned += other.abandoned;
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }
}

/// Everything that a yard counted, when it has ended.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// By name of port, in the order they were given: the counts. Ports of the same name (the parts of one
    /// interface, or a file given twice) are added up.
    pub ports: Vec<(String, PortCounters)>,
    /// By ring; one group's after the other's.
    pub rings: Vec<RingCounters>,
    /// Packets that went to no ring, by [`Aside`].
    pub asides: [u64; Aside::ALL.len()],
    /// Places beyond the first that packets went to.
    pub copies: u64,
    /// What was counted of the user's functions, if there was one.
    pub function: Option<FunctionCounts>,
    /// What the functions counted themselves, by name.
    pub own: Vec<(String, u64)>,
    /// What consumers had sent, by number of the port, as given; empty in a yard that does not transmit.
    pub transmitted: Vec<TransmitCounters>,
    /// Packets that consumers wanted sent out of ports that there are not.
    pub no_such_port: u64,
    /// Fragments that had to wait.
    pub sorter: SorterCounts,
    /// Things that consumers wrote and that could not be: counted and ignored.
    pub violations: u64,
    /// Buffers that did not come home before the yard ended.
    pub buffers_missing: u64,
    /// What went wrong with ports while running or closing, in words.
    pub errors: Vec<String>,
}

impl Report {
    /// Packets that ports handed to the yard.
    pub fn received(&self) -> u64 {
        self.ports.iter().map(|(_, c)| c.packets).sum()
    }

    /// Packets put on rings.
    pub fn delivered(&self) -> u64 {
        self.rings.iter().map(|r| r.packets).sum()
    }

    /// Packets received and lost, over all rings and reasons.
    pub fn dropped(&self) -> u64 {
        self.rings.iter().map(RingCounters::dropped_total).sum()
    }

    /// Packets that the user's function sent to no ring.
    pub fn aside(&self) -> u64 {
        self.asides.iter().sum()
    }

    /// Packets that ports lost before the yard saw them.
    pub fn lost_before(&self) -> u64 {
        self.ports.iter().map(|(_, c)| c.lost_total()).sum()
    }

    /// Packets that were sent, over all ports.
    pub fn sent(&self) -> u64 {
        self.transmitted.iter().map(|t| t.sent).sum()
    }

    /// Whether received + copies = delivered + every named drop + every aside, and for each port asked = sent + every
    /// named refusal.
    pub fn sums_agree(&self) -> bool {
        self.received() + self.copies == self.delivered() + self.dropped() + self.aside()
            && self.transmitted.iter().all(TransmitCounters::sums_agree)
    }

    pub(crate) fn merge(&mut self, other: Report) {
        for (name, counters) in other.ports {
            match self.ports.iter_mut().find(|(n, _)| *n == name) {
                Some((_, mine)) => add_port(mine, &counters),
                None => self.ports.push((name, counters)),
            }
        }
        self.rings.resize(self.rings.len().max(other.rings.len()), RingCounters::default());
        for (mine, theirs) in self.rings.iter_mut().zip(&other.rings) {
            mine.add(theirs);
        }
        for (mine, theirs) in self.asides.iter_mut().zip(other.asides) {
            *mine += theirs;
        }
        self.copies += other.copies;
        if let Some(theirs) = other.function {
            self.function.get_or_insert_default().add(&theirs);
        }
        add_named(&mut self.own, &other.own);
        let ports = self.transmitted.len().max(other.transmitted.len());
        self.transmitted.resize(ports, TransmitCounters::default());
        for (mine, theirs) in self.transmitted.iter_mut().zip(&other.transmitted) {
            mine.add(theirs);
        }
        self.no_such_port += other.no_such_port;
        self.sorter.held += other.sorter.held;
        self.sorter.followed += other.sorter.followed;
        self.sorter.expired += other.sorter.expired;
        self.sorter.given_up += other.sorter.given_up;
        self.violations += other.violations;
        self.buffers_missing += other.buffers_missing;
        self.errors.extend(other.errors);
    }
}

fn add_port(mine: &mut PortCounters, theirs: &PortCounters) {
    mine.packets += theirs.packets;
    mine.bytes += theirs.bytes;
    add_named(&mut mine.lost, &theirs.lost);
    add_named(&mut mine.notes, &theirs.notes);
}

/// Adds counts up by name.
pub(crate) fn add_named<N: PartialEq + Clone>(mine: &mut Vec<(N, u64)>, theirs: &[(N, u64)]) {
    for (name, count) in theirs {
        match mine.iter_mut().find(|(n, _)| n == name) {
            Some((_, sum)) => *sum += count,
            None => mine.push((name.clone(), *count)),
        }
    }
}

/// Running counts that other threads may read while packets flow: a dispatcher's, stored when its sources pause, and every
/// 16 batches.
#[derive(Debug, Default)]
pub struct Live {
    /// Packets received.
    pub received: AtomicU64,
    /// Bytes received.
    pub bytes: AtomicU64,
    /// Packets delivered.
    pub delivered: AtomicU64,
    /// Packets dropped, all reasons.
    pub dropped: AtomicU64,
    /// Packets that the user's function sent to no ring.
    pub aside: AtomicU64,
    /// Times around its loop, at least one in 50 ms: where it stands still, so does the dispatcher.
    pub turns: AtomicU64,
}

impl Live {
    /// [`Live::turns`] of a dispatcher that has ended.
    pub const ENDED: u64 = u64::MAX;

    /// Once around. The dispatcher is the only writer.
    #[inline]
    pub(crate) fn turned(&self) {
        self.turns.store(self.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed); // as the others
    }

    pub(crate) fn store(&self, (received, bytes): (u64, u64), (delivered, dropped): (u64, u64), aside: u64) {
        // Relaxed: figures to look at, each for itself.
        self.received.store(received, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        self.delivered.store(delivered, Ordering::Relaxed);
        self.dropped.store(dropped, Ordering::Relaxed);
        self.aside.store(aside, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_adds_by_name() {
        let part = |packets, lost| Report {
            ports: vec![(
                "xdp:a".into(),
                PortCounters { packets, lost: vec![("rx-ring-full", lost)], ..PortCounters::default() },
            )],
            rings: vec![RingCounters { packets: packets - 1, dropped: [1, 0, 0, 0], ..RingCounters::default() }],
            ..Report::default()
        };
        let mut sum = part(10, 2);
        sum.merge(part(5, 1));
        assert_eq!((sum.received(), sum.delivered(), sum.dropped(), sum.lost_before()), (15, 13, 2, 3));
        assert!(sum.sums_agree());
        sum.rings[0].packets += 1;
        assert!(!sum.sums_agree(), "a packet counted twice shows");
    }
}
