//! Rings that the dispatcher's own thread reads: by a local ring and no pipe.

use flowyard_mem::{Buffer, Held, Ledger, Packet, Returned, SLOT_WORDS, Shared, Slot, Stock};

use super::{Outlet, Outlets, settle};

impl Outlet {
    /// Sends a buffer by the pipe, or by the local ring in its place.
    ///
    /// # Errors
    /// There is no room, or nobody reads it: the buffer is given back.
    #[inline(always)]
    pub(super) fn send_words(
        &mut self,
        ledger: &mut Ledger,
        buffer: Buffer,
        slot: [u64; SLOT_WORDS],
    ) -> Result<(), Buffer> {
        if self.gone {
            return match &mut self.own {
                Some(own) => own.send_words(buffer, slot),
                None => Err(buffer),
            };
        }
        self.pipe.send_words(ledger, buffer, slot)
    }

    /// Whether there is room for so many slots.
    pub(super) fn has_room(&mut self, slots: u32) -> bool {
        match &self.own {
            Some(own) => own.room() >= slots as usize,
            None => self.pipe.reserve(slots) >= slots,
        }
    }

    /// Sends a buffer for which there is room.
    #[inline]
    pub(super) fn fill(&mut self, ledger: &mut Ledger, buffer: Buffer, slot: Slot) {
        let sent = self.send_words(ledger, buffer, slot.to_words());
        debug_assert!(sent.is_ok(), "the caller has looked for room");
    }

    /// Sends a buffer that others may have as well, for which there is room.
    pub(super) fn fill_shared(&mut self, ledger: &mut Ledger, shared: &Shared, slot: Slot) {
        let sent = match &mut self.own {
            Some(own) => own.send_shared(ledger.claim(shared), slot).is_ok(),
            None => self.pipe.send_shared(ledger, shared, slot),
        };
        debug_assert!(sent, "the caller has looked for room, and a group sends a buffer to a ring once");
    }
}

impl Outlets {
    /// Has this dispatcher's own thread read the rings `rings`, from before the first packet on. Their pipes are for nobody.
    pub(crate) fn keep(&mut self, rings: std::ops::Range<u16>) {
        for ring in rings {
            let outlet = &mut self.outlets[usize::from(ring)];
            outlet.own = Some(Box::new(self.ledger.local_ring(outlet.pipe.capacity())));
            outlet.gone = true;
        }
    }

    /// Shows all packets on own ring `ring`, and takes their buffers home. Answers how many there were.
    ///
    /// Out of line: what its loop needs stays in registers.
    #[inline(never)]
    pub(crate) fn read_own(&mut self, ring: u16, stock: &mut Stock, show: impl FnMut(&mut Packet<'_>)) -> usize {
        let number = usize::from(ring);
        let Outlets { outlets, ledger, ways, .. } = self;
        let outlet = &mut outlets[number];
        let Some(own) = &mut outlet.own else { return 0 };
        own.read(stock, show, |stock, held, slot| {
            let sound = settle(ways.as_deref_mut(), number, home(ledger, held), slot, stock);
            outlet.violations += u64::from(!sound);
        })
    }

    /// Reads own rings no more: what lies there, and what waits for them, is lost as with any consumer that goes.
    #[cold]
    pub(crate) fn forsake_own(&mut self, stock: &mut Stock) {
        for ring in 0..self.outlets.len() {
            let Some(mut own) = self.outlets[ring].own.take() else { continue };
            let buffers = own.empty(|held| {
                if let Returned::Free(buffer) = home(&mut self.ledger, held) {
                    stock.put(buffer);
                }
            });
            self.outlets[ring].counters.abandoned += buffers as u64;
        }
        for ring in 0..self.outlets.len() {
            if self.outlets[ring].is_absent() {
                self.take_from(ring, stock);
            }
        }
    }
}

/// What coming home from a local ring means.
#[cold]
fn home(ledger: &mut Ledger, held: Held) -> Returned {
    match held {
        Held::Alone(buffer) => Returned::Free(buffer),
        Held::Shared(shared) => ledger.let_go(shared).map_or(Returned::Held, Returned::Free),
    }
}
