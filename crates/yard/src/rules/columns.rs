//! What rules ask of the packets of a batch, a column a question, so that one comparison asks all packets at once:
//! most rules match few packets, and a rule that matches none of a batch is done with after a few instructions a packet.
//!
//! A column is filled when the first rule asks for it. The compiler makes vector instructions of the comparisons,
//! those that every x86-64 has.

use flowyard_mem::{Tag, flags};
use flowyard_steer::Dissection;

use super::facts::{self, Facts, flow_level};
use super::keys::{Key, Keys};
use super::set::Ranges;
use crate::function::BATCH;

/// Packets of a batch, for rules.
pub(super) trait Packets {
    /// How many: at most [`BATCH`].
    fn len(&self) -> usize;
    /// What dissection found of the packet at `at`, and its tag.
    fn seen(&self, at: usize) -> (&Dissection, &Tag);
    /// The bytes of the packet at `at`.
    fn bytes(&mut self, at: usize) -> &[u8];
}

/// A question that a column answers: a [`Key`] that is a set of numbers, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Column {
    /// [`ABSENT`] without IP header.
    Protocol,
    /// [`ABSENT`] without ports.
    Sport,
    Dport,
    Vlan,
    Tunnel,
    TunnelId,
    Fragment,
    Stop,
    Link,
    PortNumber,
    Length,
    IcmpError,
    /// Addresses of IPv4 flows.
    Src,
    Dst,
}

const COLUMNS: usize = 14;

/// Stands where a packet has no such number: no set of numbers of its kind holds it.
const ABSENT: u32 = u32::MAX;

/// Up to so many ranges are compared in columns; more are looked up packet by packet.
const MOST_RANGES: usize = 8;

/// A part of a rule that is asked of all packets at once: that one of `columns` has a number in one of `ranges`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    columns: &'static [Column],
    ranges: Box<[(u32, u32)]>,
}

impl Ask {
    /// What `keys` ask of columns, and the keys that are left to be asked packet by packet, in order.
    pub(super) fn of(keys: &Keys) -> (Box<[Ask]>, Box<[Key]>) {
        let mut asks = Vec::new();
        let left = keys.present().filter(|&key| !Ask::take(key, keys, &mut asks)).collect();
        asks.sort_by_key(|ask: &Ask| ask.columns.len() * ask.ranges.len()); // cheapest first
        (asks.into(), left)
    }

    /// Adds what can be asked of a key. Answers whether that is all of it.
    fn take(key: Key, keys: &Keys, asks: &mut Vec<Ask>) -> bool {
        let columns: &[Column] = match key {
            Key::Protocol => &[Column::Protocol],
            Key::Port => &[Column::Sport, Column::Dport],
            Key::Sport => &[Column::Sport],
            Key::Dport => &[Column::Dport],
            Key::Vlan => &[Column::Vlan],
            Key::Tunnel => &[Column::Tunnel],
            Key::TunnelId => &[Column::TunnelId],
            Key::Fragment => &[Column::Fragment],
            Key::Stop => &[Column::Stop],
            Key::Link => &[Column::Link],
            Key::PortNumber => &[Column::PortNumber],
            Key::Length => &[Column::Length],
            Key::IcmpError => &[Column::IcmpError],
            Key::Net => &[Column::Src, Column::Dst],
            Key::OuterNet | Key::Filter => return false,
        };
        let set = match key {
            Key::Net => keys.net.as_ref().filter(|net| net.v6.is_empty()).map(|net| &net.v4),
            _ => keys.get(key),
        };
        let Some(ranges) = set.map(Ranges::all).filter(|ranges| ranges.len() <= MOST_RANGES) else { return false };
        asks.push(Ask { columns, ranges: ranges.into() });
        true
    }

    /// Those of the first `count` packets of which it holds, a bit each.
    #[inline]
    fn hits(&self, columns: &Columns, count: usize) -> u64 {
        let of = |column: Column| {
            let row = &columns.rows[column as usize];
            self.ranges.iter().fold(0, |hits, &(low, high)| hits | within(row, count, low, high))
        };
        self.columns.iter().fold(0, |hits, &column| hits | of(column))
    }
}

/// The columns of a batch.
pub(super) struct Columns {
    rows: [[u32; BATCH]; COLUMNS],
    /// Columns that are filled, a bit each.
    filled: u32,
    /// Packets of IPv4 flows whose addresses were captured, once those columns are filled.
    v4: u64,
    /// Packets with a tunnel, once that column is filled.
    tunnelled: u64,
    facts: [Facts; BATCH],
    /// Packets whose facts were read, a bit each.
    read: u64,
    /// Whether any rule asks for addresses, which are in the packets' bytes.
    addresses: bool,
}

impl Columns {
    pub(super) fn new() -> Columns {
        let rows = [[0; BATCH]; COLUMNS];
        Columns { rows, filled: 0, v4: 0, tunnelled: 0, facts: [Facts::NONE; BATCH], read: 0, addresses: true }
    }

    /// Forgets the batch before. `addresses` says whether any rule asks for them.
    pub(super) fn clear(&mut self, addresses: bool) {
        (self.filled, self.read, self.addresses) = (0, 0, addresses);
    }

    /// The facts of the packet at `at`, read once.
    pub(super) fn facts(&mut self, at: usize, packets: &mut impl Packets) -> &Facts {
        if self.read >> at & 1 == 0 {
            let (found, tag) = packets.seen(at);
            self.facts[at] = Facts::read(found, tag);
            if self.addresses {
                self.facts[at].read_addresses(packets.bytes(at));
            }
            self.read |= 1 << at;
        }
        &self.facts[at]
    }

    /// Those of `open` of which all of `asks` hold.
    #[inline]
    pub(super) fn select(&mut self, asks: &[Ask], mut open: u64, packets: &mut impl Packets) -> u64 {
        for ask in asks {
            if open == 0 {
                break;
            }
            self.fill(ask.columns[0], packets);
            open &= ask.hits(self, packets.len());
            match ask.columns[0] {
                Column::TunnelId => open &= self.tunnelled, // others have no identifier of one
                Column::Src => open &= self.v4,
                _ => {}
            }
        }
        open
    }

    /// Fills a column, and those that come with it.
    #[inline]
    fn fill(&mut self, column: Column, packets: &mut impl Packets) {
        if self.filled >> (column as u32) & 1 == 0 {
            self.fill_anew(column, packets);
        }
    }

    #[inline(never)]
    fn fill_anew(&mut self, column: Column, packets: &mut impl Packets) {
        let count = packets.len().min(BATCH);
        self.filled |= 1 << column as u32;
        match column {
            Column::Protocol => {
                self.gather(column, packets, |found, _| flow_level(found).map_or(ABSENT, |level| level.proto().into()))
            }
            Column::Vlan => self.gather(column, packets, |found, _| facts::vlan(found)),
            Column::Stop => self.gather(column, packets, |found, _| found.stop() as u32),
            Column::Link => self.gather(column, packets, |found, _| found.link().0.into()),
            Column::PortNumber => self.gather(column, packets, |_, tag| tag.port.into()),
            Column::Length => self.gather(column, packets, |_, tag| tag.wire_len),
            Column::Sport | Column::Dport => {
                self.filled |= 1 << Column::Sport as u32 | 1 << Column::Dport as u32;
                for at in 0..count {
                    let ports = flow_level(packets.seen(at).0).and_then(|level| level.sport().zip(level.dport()));
                    let (sport, dport) = ports.map_or((ABSENT, ABSENT), |(s, d)| (s.into(), d.into()));
                    self.rows[Column::Sport as usize][at] = sport;
                    self.rows[Column::Dport as usize][at] = dport;
                }
            }
            Column::Tunnel | Column::TunnelId | Column::Fragment | Column::IcmpError | Column::Src | Column::Dst => {
                self.fill_from_facts(count, packets);
            }
        }
    }

    fn gather(&mut self, column: Column, packets: &mut impl Packets, ask: impl Fn(&Dissection, &Tag) -> u32) {
        let count = packets.len();
        for (at, place) in self.rows[column as usize].iter_mut().enumerate().take(count) {
            let (found, tag) = packets.seen(at);
            *place = ask(found, tag);
        }
    }

    /// What takes more than a look: all of it at once.
    fn fill_from_facts(&mut self, count: usize, packets: &mut impl Packets) {
        (self.v4, self.tunnelled) = (0, 0);
        for at in 0..count {
            let facts = *self.facts(at, packets);
            self.v4 |= u64::from(facts.has(facts::V4)) << at;
            self.tunnelled |= u64::from(facts.part(facts::TUNNEL) != 0) << at;
            for (column, number) in [
                (Column::Tunnel, facts.part(facts::TUNNEL)),
                (Column::TunnelId, facts.tunnel_id),
                (Column::Fragment, facts.part(facts::FRAGMENT)),
                (Column::IcmpError, facts.part(facts::ICMP_ERROR)),
                (Column::Src, facts.src),
                (Column::Dst, facts.dst),
            ] {
                self.rows[column as usize][at] = number;
                self.filled |= 1 << column as u32;
            }
        }
    }
}

/// Those of `open`, later fragments of which the first one decides: they are judged one by one.
pub(super) fn awaiting(open: u64, packets: &impl Packets) -> u64 {
    (0..packets.len()).fold(0, |bits, at| {
        let (found, tag) = packets.seen(at);
        bits | u64::from(found.is_awaiting() && !tag.has(flags::FRAGMENT_FALLBACK)) << at
    }) & open
}

/// Numbers that are compared at a time.
const HALF: usize = BATCH / 2;
/// 2^31: what turns an order of unsigned numbers into one of signed numbers, which vectors of every x86-64 compare.
const TURN: u32 = 1 << 31;
/// A bit for each of them.
const BITS: [u32; HALF] = {
    let mut bits = [0; HALF];
    let mut at = 0;
    while at < HALF {
        bits[at] = 1 << at;
        at += 1;
    }
    bits
};

/// Which of the first `count` numbers are from `low` to `high`, a bit each. Bits beyond them mean nothing.
#[inline]
fn within(row: &[u32; BATCH], count: usize, low: u32, high: u32) -> u64 {
    let (low, span) = (low.wrapping_add(TURN), (high - low).wrapping_add(TURN) as i32);
    let (halves, _) = row.as_chunks::<HALF>();
    let first = halves.first().map_or(0, |half| half_within(half, low, span));
    let second = halves.get(1).filter(|_| count > HALF).map_or(0, |half| half_within(half, low, span));
    u64::from(first) | u64::from(second) << HALF
}

/// Never inlined: in the loop over ranges the compiler would hold all numbers at once, in registers that there are not.
#[inline(never)]
fn half_within(half: &[u32; HALF], low: u32, span: i32) -> u32 {
    let each = half.iter().zip(&BITS);
    each.fold(0, |bits, (number, bit)| {
        let beyond = number.wrapping_sub(low) as i32 > span;
        bits | bit & u32::from(beyond).wrapping_sub(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn within_is_what_each_number_says(
            numbers in prop::collection::vec(prop_oneof![any::<u32>(), 0u32..8], BATCH), count in 0..=BATCH,
            a in prop_oneof![any::<u32>(), 0u32..8], b in prop_oneof![any::<u32>(), 0u32..8],
        ) {
            let (low, high) = (a.min(b), a.max(b));
            let row: [u32; BATCH] = numbers.clone().try_into().expect("as many");
            let bits = within(&row, count, low, high);
            for (at, number) in numbers.iter().enumerate().take(count) {
                prop_assert_eq!(bits >> at & 1 == 1, (low..=high).contains(number), "{}", at);
            }
        }
    }
}
