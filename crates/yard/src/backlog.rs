//! Backlogs: slots that wait because their ring is full, in the yard's private memory.
//!
//! One list a pipe over nodes that are all made at the start: no allocation however long a list grows,
//! and giving up the oldest of the longest is a step. A buffer in a backlog belongs to the yard, alone or
//! with others; no consumer can return it.

use flowyard_mem::{Buffer, Shared, Slot, slot_flags};

const NONE: u32 = u32::MAX;

/// The yard's hold on what waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// Nobody else has it.
    Own(Buffer),
    /// Other pipes have it as well, or will.
    Shared(Shared),
}

#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
    slots: u32,
}

#[derive(Debug)]
struct Node {
    slot: Slot,
    waiting: Option<Waiting>,
    next: u32,
}

/// The backlogs of one dispatcher's pipes.
#[derive(Debug)]
pub(crate) struct Backlogs {
    lists: Vec<List>,
    nodes: Vec<Node>,
    /// Head of the list of unused nodes.
    unused: u32,
    total: usize,
}

impl Backlogs {
    /// Backlogs for `pipes`, with room for `slots` over all of them.
    pub(crate) fn new(pipes: usize, slots: usize) -> Backlogs {
        let next = |at: usize| if at + 1 < slots { at as u32 + 1 } else { NONE };
        Backlogs {
            lists: vec![List { head: NONE, tail: NONE, slots: 0 }; pipes],
            nodes: (0..slots).map(|at| Node { slot: Slot::default(), waiting: None, next: next(at) }).collect(),
            unused: if slots > 0 { 0 } else { NONE },
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

    /// Whether `slots` more can wait.
    pub(crate) fn has_room(&self, slots: usize) -> bool {
        self.nodes.len() - self.total >= slots
    }

    /// Puts a slot behind the others.
    ///
    /// # Errors
    /// There is no room: what would have waited is given back.
    pub(crate) fn push(&mut self, pipe: usize, waiting: Waiting, slot: Slot) -> Result<(), Waiting> {
        let at = self.unused;
        let Some(node) = self.nodes.get_mut(at as usize) else { return Err(waiting) };
        self.unused = node.next;
        *node = Node { slot, waiting: Some(waiting), next: NONE };
        let list = &mut self.lists[pipe];
        if list.tail == NONE {
            list.head = at;
        } else {
            self.nodes[list.tail as usize].next = at;
        }
        list.tail = at;
        list.slots += 1;
        self.total += 1;
        Ok(())
    }

    /// The slot at the head of `pipe`'s list, if nobody else has its buffer.
    pub(crate) fn first_alone(&self, pipe: usize) -> Option<&Slot> {
        let node = self.nodes.get(self.lists[pipe].head as usize)?; // NONE is no node
        matches!(node.waiting, Some(Waiting::Own(_))).then_some(&node.slot)
    }

    /// Number of slots of the packet at the head of `pipe`'s list, 0 if it is empty.
    pub(crate) fn first_packet_slots(&self, pipe: usize) -> u32 {
        let (mut at, mut count) = (self.lists[pipe].head, 0);
        while at != NONE {
            count += 1;
            let node = &self.nodes[at as usize];
            if node.slot.flags & slot_flags::MORE == 0 {
                break;
            }
            at = node.next;
        }
        count
    }

    /// Takes the slot at the head.
    pub(crate) fn pop(&mut self, pipe: usize) -> Option<(Waiting, Slot)> {
        let list = &mut self.lists[pipe];
        let at = list.head;
        let node = self.nodes.get_mut(at as usize)?; // NONE is no node
        let waiting = node.waiting.take()?;
        list.head = std::mem::replace(&mut node.next, self.unused);
        self.unused = at;
        if list.head == NONE {
            list.tail = NONE;
        }
        list.slots -= 1;
        self.total -= 1;
        Some((waiting, node.slot))
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
    use flowyard_mem::{Geometry, Region};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn behaves_as_queues(actions in proptest::collection::vec((0usize..3, 0u8..3, 1u32..4), 0..300)) {
            let (_region, mut stock) = Region::create("backlog", Geometry::new(2048, 0, 40).expect("geometry")).expect("region");
            let mut backlogs = Backlogs::new(3, 30);
            let mut model: [VecDeque<Vec<u16>>; 3] = Default::default();
            let mut stamp = 0u16;
            for (pipe, action, segments) in actions {
                prop_assert!(backlogs.has_room(30 - backlogs.total()) && !backlogs.has_room(31 - backlogs.total()));
                if action < 2 && backlogs.has_room(segments as usize) {
                    let mut packet = Vec::new();
                    for n in 0..segments {
                        stamp += 1;
                        packet.push(stamp);
                        let flags = if n + 1 < segments { slot_flags::MORE } else { 0 };
                        let buffer = stock.take().expect("counted");
                        let slot = Slot { buffer: buffer.index(), len: stamp, flags, ..Slot::default() };
                        prop_assert!(backlogs.push(pipe, Waiting::Own(buffer), slot).is_ok());
                    }
                    model[pipe].push_back(packet);
                } else if action == 2 {
                    let expected = model[pipe].pop_front().unwrap_or_default();
                    prop_assert_eq!(backlogs.first_packet_slots(pipe) as usize, expected.len());
                    for stamp in expected {
                        let Some((Waiting::Own(buffer), slot)) = backlogs.pop(pipe) else { panic!("as many as were said") };
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
