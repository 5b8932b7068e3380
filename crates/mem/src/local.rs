//! A ring whose two ends are one thread's: slots in private memory.
//!
//! What a dispatcher keeps for its own thread goes by one of these and not by a pipe: no index is shared, nobody is
//! woken, and no ledger is asked, for nobody else could return a buffer. Its reader sees packets as a
//! [`Consumer`](crate::Consumer) does. Never allocates after creation, but for the segments of a packet larger than any
//! before.
//!
//! # Invariant
//! Each slot in the ring, or in its hand, stands for the token or the claim of its buffer, which [`LocalRing::send_words`]
//! or [`LocalRing::send_shared`] has taken; so it names the region and, if it says SHARED, the ledger that this ring was
//! made for. It is given back once, when the slot goes.

use crate::hand::Hand;
use crate::{Buffer, Packet, Region, SLOT_WORDS, Shared, Slot, Stock, Verdict, slot_flags};

/// The right to a buffer, as a slot of a local ring stood for it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "who drops it loses the buffer to its region"]
pub enum Held {
    /// Nobody else has it.
    Alone(Buffer),
    /// Pipes have it as well, or will: to be [let go of](crate::Ledger::let_go).
    Shared(Shared),
}

/// A ring from one thread to itself. Made by [`Ledger::local_ring`](crate::Ledger::local_ring).
///
/// ```
/// use flowyard_mem::{Geometry, Held, Ledger, Region, Slot};
/// let (region, mut stock) = Region::create("doc", Geometry::new(2048, 64, 16)?)?;
/// let mut ring = Ledger::new(&region).local_ring(8);
///
/// let mut buffer = stock.take().expect("16 are free");
/// let offset = region.geometry().packet_offset();
/// assert!(region.write(&mut buffer, offset, b"packet"));
/// let slot = Slot { offset: offset as u16, len: 6, total: 6, ..Slot::default() };
/// ring.send_words(buffer, slot.to_words()).expect("there is room");
///
/// let other = |_: &mut _, _: Held, _| unreachable!("it has one buffer, and nobody sends or shares it");
/// let packets = ring.read(&mut stock, |packet| assert_eq!(packet.data(), b"packet"), other);
/// assert_eq!((packets, stock.len()), (1, 16));
/// # Ok::<(), flowyard_mem::MemError>(())
/// ```
#[derive(Debug)]
pub struct LocalRing {
    /// The packet that is shown.
    hand: Hand,
    /// Number of the region, and of the ledger.
    region: u32,
    ledger: u64,
    /// Slots that were sent since all were last taken.
    slots: Vec<[u64; SLOT_WORDS]>,
    /// How many of them are taken.
    taken: usize,
}

impl LocalRing {
    pub(crate) fn new(region: &Region, ledger: u64, slots: u32) -> LocalRing {
        let mut hand = Hand::new(region);
        hand.goes_back = true;
        LocalRing { hand, region: region.id(), ledger, slots: Vec::with_capacity(slots as usize), taken: 0 }
    }

    /// Room for so many slots. Places are free again when all that was sent is taken.
    #[inline]
    pub fn room(&self) -> usize {
        self.slots.capacity() - self.slots.len()
    }

    /// Slots that are sent and not taken.
    pub fn len(&self) -> usize {
        self.slots.len() - self.taken
    }

    /// Whether all that was sent is taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends `buffer` with a slot, whose first word has any index. It can be taken at once.
    ///
    /// # Errors
    /// There is no room: the buffer is given back.
    ///
    /// # Panics
    /// If the buffer is another region's: our own mistake.
    #[inline(always)]
    pub fn send_words(&mut self, buffer: Buffer, slot: [u64; SLOT_WORDS]) -> Result<(), Buffer> {
        if self.slots.len() == self.slots.capacity() {
            return Err(buffer);
        }
        assert_eq!(buffer.region, self.region, "a local ring carries buffers of its own region");
        let [first, second, rest @ ..] = slot;
        let second = second & !(u64::from(slot_flags::SHARED) << 32);
        self.slots.push([first >> 32 << 32 | u64::from(buffer.index), second, rest[0], rest[1]]);
        Ok(())
    }

    /// Sends a claim on a buffer that others may hold as well, with
    /// [`slot_flags::SHARED`](crate::slot_flags::SHARED) set.
    ///
    /// # Errors
    /// There is no room: the claim is given back.
    ///
    /// # Panics
    /// If the claim is another ledger's: our own mistake.
    pub fn send_shared(&mut self, shared: Shared, slot: Slot) -> Result<(), Shared> {
        if self.room() == 0 {
            return Err(shared);
        }
        assert_eq!(shared.ledger, self.ledger, "a local ring carries claims of its own ledger");
        let flags = slot.flags | slot_flags::SHARED;
        self.slots.push(Slot { buffer: shared.index, flags, ..slot }.to_words());
        Ok(())
    }

    /// Takes all packets, one after the other, and shows each to `show`. The buffer of one that has one to itself, and that
    /// is to be freed, goes home to `stock`; of any other, `other` gets the right to each buffer, with the slot as `show`
    /// left it, in order. Answers how many packets there were.
    ///
    /// If `show` panics, the packet that it had and all behind it are still in the ring, to be [taken out](LocalRing::empty): nothing
    /// else is to be done with the ring then.
    #[inline]
    pub fn read(
        &mut self,
        stock: &mut Stock,
        mut show: impl FnMut(&mut Packet<'_>),
        mut other: impl FnMut(&mut Stock, Held, Slot),
    ) -> usize {
        let mut packets = 0;
        while let Some(&[a, b, c, d]) = self.slots.get(self.taken) {
            let slot = Slot::from_words([a, b, c, d]); // word by word: it stays in registers
            self.taken += 1;
            self.hand.hold(slot);
            if slot.flags & slot_flags::MORE != 0 {
                continue;
            }
            if let Some(mut packet) = self.hand.packet() {
                show(&mut packet);
            }
            packets += 1;
            let Slot { buffer: index, flags, verdict, .. } = self.hand.current;
            let alone = flags & (slot_flags::SHARED | slot_flags::CONTINUES | slot_flags::MORE) == 0;
            if alone && verdict == Verdict::Free as u8 {
                self.hand.has_current = false;
                stock.put(Buffer { index, region: self.region });
            } else {
                self.let_go(&mut |held, slot| other(stock, held, slot));
            }
        }
        self.slots.clear();
        self.taken = 0;
        packets
    }

    #[cold]
    #[inline(never)]
    fn let_go(&mut self, other: &mut impl FnMut(Held, Slot)) {
        let mut further = std::mem::take(&mut self.hand.further);
        let first = std::mem::take(&mut self.hand.has_current).then_some(self.hand.current);
        first.into_iter().chain(further.drain(..)).for_each(|slot| other(self.held(&slot), slot));
        self.hand.further = further;
    }

    /// Takes everything out unseen. Answers how many buffers it was.
    pub fn empty(&mut self, mut home: impl FnMut(Held)) -> usize {
        let mut buffers = 0;
        let mut out = |held| {
            buffers += 1;
            home(held);
        };
        self.let_go(&mut |held, _| out(held));
        let slots = std::mem::take(&mut self.slots);
        slots[self.taken..].iter().for_each(|words| out(self.held(&Slot::from_words(*words))));
        (self.slots, self.taken) = (slots, 0);
        self.slots.clear();
        buffers
    }

    /// What a slot of this ring stands for (invariant).
    fn held(&self, slot: &Slot) -> Held {
        if slot.flags & slot_flags::SHARED == 0 {
            Held::Alone(Buffer { index: slot.buffer, region: self.region })
        } else {
            Held::Shared(Shared { index: slot.buffer, ledger: self.ledger })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use proptest::prelude::*;

    use super::*;
    use crate::{Geometry, Ledger};

    fn slot(len: u16, flags: u16) -> Slot {
        Slot { offset: 256, len, total: len.into(), flags, ..Slot::default() }
    }

    proptest! {
        /// Packets of one and of several buffers, own and shared, come in order, and each buffer home once.
        #[test]
        fn behaves_as_a_queue(actions in proptest::collection::vec((0u8..8, 1usize..4), 0..200)) {
            let (region, mut stock) = Region::create("local", Geometry::new(2048, 0, 24).expect("geometry")).expect("region");
            let mut ledger = Ledger::new(&region);
            let mut ring = ledger.local_ring(16);
            let mut model: VecDeque<(usize, u16, bool)> = VecDeque::new();
            let mut stamp = 0;
            for (action, segments) in actions {
                let shared = action == 4;
                if action < 5 && ring.room() >= segments && stock.len() >= segments {
                    stamp += 1;
                    for n in 0..segments {
                        let more = if n + 1 < segments { slot_flags::MORE } else { 0 };
                        let continues = if n > 0 { slot_flags::CONTINUES } else { 0 };
                        let (buffer, slot) = (stock.take().expect("looked"), slot(stamp, more | continues));
                        if shared {
                            let claim = ledger.share(buffer);
                            let sent = ring.send_shared(ledger.claim(&claim), slot);
                            prop_assert!(sent.is_ok() && ledger.let_go(claim).is_none());
                        } else {
                            prop_assert!(ring.send_words(buffer, slot.to_words()).is_ok());
                        }
                    }
                    model.push_back((segments, stamp, shared));
                } else if action == 7 {
                    let slots: usize = model.drain(..).map(|(segments, ..)| segments).sum();
                    prop_assert_eq!((ring.len(), ring.is_empty()), (slots, slots == 0));
                    let emptied = ring.empty(|held| home(&mut ledger, &mut stock, held));
                    prop_assert_eq!(emptied, slots);
                } else {
                    let (expected, mut seen) = (std::mem::take(&mut model), VecDeque::new());
                    let show = |packet: &mut Packet<'_>| {
                        seen.push_back((packet.segments().count(), packet.slot().len, packet.is_shared()));
                        assert_eq!(packet.data_mut().is_err(), packet.is_shared());
                    };
                    let packets = ring.read(&mut stock, show, |stock, held, _| home(&mut ledger, stock, held));
                    prop_assert_eq!((packets, seen), (expected.len(), expected));
                }
                let waiting: usize = model.iter().map(|(segments, ..)| segments).sum();
                prop_assert_eq!(stock.len() + waiting, 24);
            }
        }
    }

    fn home(ledger: &mut Ledger, stock: &mut Stock, held: Held) {
        let buffer = match held {
            Held::Alone(buffer) => Some(buffer),
            Held::Shared(shared) => ledger.let_go(shared),
        };
        stock.put(buffer.expect("nobody else has it"));
    }

    #[test]
    fn what_a_panic_leaves_is_taken_out_once() {
        let (region, mut stock) =
            Region::create("panic", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let mut ring = Ledger::new(&region).local_ring(4);
        for len in 1..=4 {
            ring.send_words(stock.take().expect("four"), slot(len, 0).to_words()).expect("room");
        }
        let show = |packet: &mut Packet<'_>| assert_ne!(packet.len(), 2, "as it should");
        let read = AssertUnwindSafe(|| ring.read(&mut stock, show, |_, _, _| panic!("all are to be freed")));
        assert!(catch_unwind(read).is_err());
        assert_eq!((stock.len(), ring.len()), (1, 2));
        let mut indices = Vec::new();
        let mut out = |held| match held {
            Held::Alone(buffer) => indices.push(buffer.index()),
            Held::Shared(_) => panic!("none is"),
        };
        assert_eq!(ring.empty(&mut out), 3);
        assert_eq!(ring.empty(out), 0);
        assert_eq!((indices, ring.room()), (vec![1, 2, 3], 4));
    }

    #[test]
    fn what_was_sent_another_way_is_freed_another_way() {
        let (region, mut stock) = Region::create("sent", Geometry::new(2048, 0, 1).expect("geometry")).expect("region");
        let mut ring = Ledger::new(&region).local_ring(2);
        ring.send_words(stock.take().expect("one"), slot(8, slot_flags::SHARED).to_words()).expect("room");
        let mut sent = Vec::new();
        let show = |packet: &mut Packet<'_>| {
            assert!(!packet.is_shared(), "that is for whoever sends it to say");
            packet.pull(2).expect("eight");
            packet.transmit(3).expect("a way back");
        };
        ring.read(&mut stock, show, |stock, held, slot| {
            home(&mut Ledger::new(&region), stock, held);
            sent.push((slot.offset, slot.len, slot.verdict, slot.port));
        });
        assert_eq!((sent, stock.len()), (vec![(258, 6, Verdict::Transmit as u8, 3)], 1));
    }
}
