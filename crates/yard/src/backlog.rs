//! Backlogs: slots that wait because their ring is full, in the yard's private memory.
//!
//! One list a pipe over arrays that are as long as the region has buffers: no allocation however
//! long a list grows, and giving up the oldest of the longest is a step. A buffer in a backlog
//! belongs to the yard; no consumer can return it.

use flowyard_mem::{Buffer, Lent, Region, Slot, slot_flags};

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    slots: u32,
}

/// The backlogs of one dispatcher's pipes.
#[derive(Debug)]
pub(crate) struct Backlogs {
    lists: Vec<List>,
    /// By buffer index: its slot, and the buffer behind it in the same list.
    slots: Vec<Slot>,
    next: Vec<u32>,
    parked: Lent,
    total: usize,
}

impl Backlogs {
    pub(crate) fn new(region: &Region, pipes: usize) -> Backlogs {
        let buffers = region.geometry().buffers as usize;
        Backlogs {
            lists: vec![List { head: NONE, tail: NONE, slots: 0 }; pipes],
            slots: vec![Slot::default(); buffers],
            next: vec![NONE; buffers],
            parked: region.lent(),
            total: 0,
        }
    }

    /// Slots waiting over all pipes.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Slots waiting for `pipe`.
    #[inline]
    pub(crate) fn len(&self, pipe: usize) -> usize {
        self.lists[pipe].slots as usize
    }

    /// Puts a slot behind the others; its `buffer` field is set from the token.
    pub(crate) fn push(&mut self, pipe: usize, buffer: Buffer, slot: Slot) {
        let index = self.parked.lend(buffer);
        self.slots[index as usize] = Slot { buffer: index, ..slot };
        self.next[index as usize] = NONE;
        let list = &mut self.lists[pipe];
        if list.tail == NONE {
            list.head = index;
        } else {
            self.next[list.tail as usize] = index;
        }
        list.tail = index;
        list.slots += 1;
        self.total += 1;
    }

    /// Number of slots of the packet at the head of `pipe`'s list, 0 if it is empty.
    pub(crate) fn first_packet_slots(&self, pipe: usize) -> u32 {
        let (mut at, mut count) = (self.lists[pipe].head, 0);
        while at != NONE {
            count += 1;
            if self.slots[at as usize].flags & slot_flags::MORE == 0 {
                break;
            }
            at = self.next[at as usize];
        }
        count
    }

    /// Takes the slot at the head.
    pub(crate) fn pop(&mut self, pipe: usize) -> Option<(Buffer, Slot)> {
        let list = &mut self.lists[pipe];
        let index = list.head;
        let buffer = self.parked.take(index)?; // NONE is no index of any buffer
        list.head = self.next[index as usize];
        if list.head == NONE {
            list.tail = NONE;
        }
        list.slots -= 1;
        self.total -= 1;
        Some((buffer, self.slots[index as usize]))
    }

    /// The pipe with the longest list, if any waits.
    pub(crate) fn longest(&self) -> Option<usize> {
        let longest = (0..self.lists.len()).max_by_key(|&pipe| self.lists[pipe].slots)?;
        (self.lists[longest].slots > 0).then_some(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::Geometry;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn behaves_as_queues(actions in proptest::collection::vec((0usize..3, 0u8..3, 1u32..4), 0..300)) {
            let (region, mut stock) = Region::create("backlog", Geometry::new(2048, 0, 40).expect("geometry")).expect("region");
            let mut backlogs = Backlogs::new(&region, 3);
            let mut model: [VecDeque<Vec<u16>>; 3] = Default::default();
            let mut stamp = 0u16;
            for (pipe, action, segments) in actions {
                if action < 2 && stock.len() >= segments as usize {
                    let mut packet = Vec::new();
                    for n in 0..segments {
                        stamp += 1;
                        packet.push(stamp);
                        let flags = if n + 1 < segments { slot_flags::MORE } else { 0 };
                        backlogs.push(pipe, stock.take().expect("counted"), Slot { len: stamp, flags, ..Slot::default() });
                    }
                    model[pipe].push_back(packet);
                } else if action == 2 {
                    let expected = model[pipe].pop_front().unwrap_or_default();
                    prop_assert_eq!(backlogs.first_packet_slots(pipe) as usize, expected.len());
                    for stamp in expected {
                        let (buffer, slot) = backlogs.pop(pipe).expect("as many as were said");
                        prop_assert_eq!((slot.len, slot.buffer), (stamp, buffer.index()));
                        stock.put(buffer);
                    }
                }
                for (pipe, queue) in model.iter().enumerate() {
                    prop_assert_eq!(backlogs.len(pipe), queue.iter().map(Vec::len).sum::<usize>());
                }
                let most = (0..3).map(|p| backlogs.len(p)).max().unwrap_or(0);
                prop_assert_eq!(backlogs.longest().map(|p| backlogs.len(p)), (most > 0).then_some(most));
                prop_assert_eq!(backlogs.total() + stock.len(), 40);
            }
        }
    }
}
