//! The ledger: who holds which buffer.
//!
//! One a dispatcher, private memory. Per buffer the pipe that holds it alone, as nearly all are held; for those
//! that several hold, per pipe a bitmap, and per buffer how many there are. It is reference count, validation and
//! crash recovery in one: a slot returned by a pipe that does not hold the buffer is a violation and changes
//! nothing; when a consumer dies all buffers are looked through and nothing leaks. About a ns a packet; no
//! allocation after creation.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::pipe::{self, PipeEnd, PipeProducer};
use crate::{Buffer, LocalRing, MemError, Region};

/// What a returned slot means.
#[derive(Debug, PartialEq, Eq)]
pub enum Returned {
    /// The last holder returned it: here is the buffer.
    Free(Buffer),
    /// Others still hold it.
    Held,
    /// The pipe does not hold this buffer, or there is no such buffer: ignored.
    Violation,
}

/// Who holds which buffer of one region.
///
/// Only [`PipeProducer::send`], [`send_shared`](PipeProducer::send_shared),
/// [`take_returned`](PipeProducer::take_returned),
/// [`take_all_returned`](PipeProducer::take_all_returned) and [`reclaim`](PipeProducer::reclaim) change what a pipe
/// holds, each for the pipe at hand; and a [`Shared`] claim counts like a pipe. So a buffer's token never
/// exists while a consumer can see it.
#[derive(Debug)]
pub struct Ledger {
    id: u64,
    region: Region,
    /// By buffer: the number of the pipe that holds it alone, 0 if none does.
    sole: Vec<u32>,
    /// By pipe, from number 1: one bit for each buffer that it holds and others may hold too.
    shared: Vec<Vec<u64>>,
    /// Pipes and claims that hold each buffer that several may hold.
    holders: Vec<u16>,
    /// Accounts that no pipe has any more.
    idle: Vec<u32>,
}

/// Tells ledgers apart, so that no pipe is taken for another ledger's.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The yard's own claim on a buffer that several pipes may hold: a right to read it and to send it, not to
/// write it. Given back with [`Ledger::let_go`]; dropping it loses the buffer until the region ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim that is not let go of keeps its buffer for ever"]
pub struct Shared {
    pub(crate) index: u32,
    /// The ledger that counts it: another one of the same region knows nothing of its holders.
    pub(crate) ledger: u64,
}

impl Shared {
    /// Index of the buffer in its region.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Ledger {
    /// Makes a buffer one that several pipes may hold.
    ///
    /// # Panics
    /// If the buffer is another region's.
    #[inline]
    pub fn share(&mut self, buffer: Buffer) -> Shared {
        assert_eq!(buffer.region, self.region.id(), "a ledger keeps buffers of its own region");
        self.holders[buffer.index as usize] = 1;
        Shared { index: buffer.index, ledger: self.id }
    }

    /// One more claim on the same buffer, for another place that waits to send it.
    ///
    /// # Panics
    /// If the claim is another ledger's, or there are 65,535 already.
    #[inline]
    pub fn claim(&mut self, shared: &Shared) -> Shared {
        self.one_more(shared);
        Shared { index: shared.index, ledger: self.id }
    }

    /// Counts one more holder. Claims can be lost, so that any number of them can be made: the count never
    /// wraps, for then a buffer would come home while somebody reads it.
    #[inline]
    fn one_more(&mut self, shared: &Shared) {
        let holders = self.holders_of(shared);
        *holders = holders.checked_add(1).expect("a buffer has at most 65,535 holders");
    }

    #[inline]
    fn holders_of(&mut self, shared: &Shared) -> &mut u16 {
        assert_eq!(shared.ledger, self.id, "a claim is used with its own ledger");
        &mut self.holders[shared.index as usize]
    }

    /// Gives a claim up. Answers the buffer if nobody else holds it.
    ///
    /// # Panics
    /// If the claim is another ledger's.
    #[inline]
    pub fn let_go(&mut self, shared: Shared) -> Option<Buffer> {
        let holders = self.holders_of(&shared);
        *holders -= 1;
        let last = *holders == 0;
        last.then(|| Buffer { index: shared.index, region: self.region.id() })
    }

    /// Notes that the pipe holds a shared buffer too. Answers false, and notes nothing, if it does already.
    #[inline]
    pub(crate) fn send_shared(&mut self, account: Account, shared: &Shared) -> bool {
        let pipe = self.own(account);
        let (word, bit) = (shared.index as usize / 64, 1u64 << (shared.index % 64));
        if self.shared_by(pipe)[word] & bit != 0 {
            return false;
        }
        self.one_more(shared);
        self.shared_by(pipe)[word] |= bit;
        true
    }

    /// A ledger of `region`, without pipes.
    pub fn new(region: &Region) -> Ledger {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed); // Relaxed: only uniqueness matters.
        let buffers = region.geometry().buffers as usize;
        Ledger {
            id,
            region: region.clone(),
            sole: vec![0; buffers],
            shared: Vec::new(),
            holders: vec![0; buffers],
            idle: Vec::new(),
        }
    }

    /// Makes a pipe whose buffers this ledger keeps: the yard's end and the consumer's. `slots` is the
    /// capacity of the ring out, a power of two of [`RING_SLOTS`](crate::RING_SLOTS).
    ///
    /// # Errors
    /// The capacity, or the system call that failed.
    pub fn open_pipe(&mut self, slots: u32) -> Result<(PipeProducer, PipeEnd), MemError> {
        let ends = pipe::accounted(&self.region, slots, self.account())?;
        self.add();
        Ok(ends)
    }

    /// One more account, which holds nothing.
    fn add(&mut self) {
        self.shared.push(vec![0; self.holders.len().div_ceil(64)]);
    }

    /// Makes a ring for this ledger's own thread, of at least `slots` places.
    pub fn local_ring(&self, slots: u32) -> LocalRing {
        LocalRing::new(&self.region, self.id, slots)
    }

    /// An account for a pipe that takes the place of another which still holds something.
    pub(crate) fn succeed(&mut self, account: Account) -> Account {
        self.own(account);
        if let Some(pipe) = self.idle.pop() {
            return Account { ledger: self.id, pipe };
        }
        let account = self.account();
        self.add();
        account
    }

    /// Gives up the account of a pipe that is closed and holds nothing.
    pub(crate) fn retire(&mut self, account: Account) {
        let pipe = self.own(account);
        self.idle.push(pipe);
    }

    /// The pipe of `account` among this ledger's: there is one for each account that it has given.
    ///
    /// # Panics
    /// If it is another ledger's: our own mistake, never a peer's.
    #[inline(always)]
    pub(crate) fn own(&self, account: Account) -> u32 {
        assert!(account.ledger == self.id, "a pipe is used with its own ledger");
        account.pipe
    }

    /// An account that holds nothing, of a new pipe.
    fn account(&self) -> Account {
        Account { ledger: self.id, pipe: self.shared.len() as u32 + 1 }
    }

    /// What the pipe holds and others may hold too.
    fn shared_by(&mut self, pipe: u32) -> &mut Vec<u64> {
        &mut self.shared[pipe as usize - 1]
    }

    /// Notes that the pipe holds `buffer`, and gives the index to write into the slot.
    ///
    /// # Panics
    /// If buffer or pipe are not this ledger's.
    #[inline(always)]
    pub(crate) fn send(&mut self, account: Account, buffer: Buffer) -> u32 {
        let pipe = self.own(account);
        assert!(buffer.region == self.region.id(), "a ledger keeps buffers of its own region");
        self.sole[buffer.index as usize] = pipe;
        buffer.index
    }

    /// Takes a slot that the pipe returned. `index` may be anything: a peer wrote it.
    #[inline]
    pub(crate) fn returned(&mut self, account: Account, index: u32) -> Returned {
        let pipe = self.own(account);
        if self.returned_alone(pipe, index) {
            return Returned::Free(Buffer { index, region: self.region.id() });
        }
        self.returned_shared(pipe, index)
    }

    /// Takes a buffer back that the pipe holds alone. Answers false, and does nothing, if it does not: then it may hold it
    /// with others. Who gets true makes the buffer's token, once.
    #[inline(always)]
    pub(crate) fn returned_alone(&mut self, pipe: u32, index: u32) -> bool {
        match self.sole.get_mut(index as usize) {
            Some(sole) if *sole == pipe => {
                *sole = 0;
                true
            }
            _ => false,
        }
    }

    #[cold]
    fn returned_shared(&mut self, pipe: u32, index: u32) -> Returned {
        let bits = self.shared_by(pipe);
        let (Some(word), bit) = (bits.get_mut(index as usize / 64), 1u64 << (index % 64)) else {
            return Returned::Violation;
        };
        if *word & bit == 0 {
            return Returned::Violation;
        }
        *word &= !bit;
        let holders = &mut self.holders[index as usize];
        *holders -= 1;
        if *holders == 0 { Returned::Free(Buffer { index, region: self.region.id() }) } else { Returned::Held }
    }

    /// Takes back all that a dead pipe held; `free` gets the buffers that nobody else holds. Looks at every
    /// buffer: tens of microseconds for 2^16.
    pub(crate) fn reclaim(&mut self, account: Account, mut free: impl FnMut(Buffer)) {
        let pipe = self.own(account);
        for index in 0..self.sole.len() as u32 {
            if self.returned_alone(pipe, index) {
                free(Buffer { index, region: self.region.id() });
            }
        }
        for word in 0..self.shared_by(pipe).len() {
            let mut bits = self.shared_by(pipe)[word];
            while bits != 0 {
                let index = (word * 64) as u32 + bits.trailing_zeros();
                bits &= bits - 1;
                if let Returned::Free(buffer) = self.returned(account, index) {
                    free(buffer);
                }
            }
        }
    }

    /// Buffers that all pipes hold; one that several hold counts for each. Looks at every buffer.
    pub fn held(&self) -> u32 {
        let alone = self.sole.iter().filter(|sole| **sole != 0).count() as u32;
        alone + self.shared.iter().flatten().map(|word| word.count_ones()).sum::<u32>()
    }

    /// The region whose buffers it keeps.
    #[inline(always)]
    pub(crate) fn region(&self) -> u32 {
        self.region.id()
    }
}

/// A pipe's place in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    ledger: u64,
    /// From 1.
    pipe: u32,
}

impl Account {
    /// No ledger's, for they are numbered from 1: of a pipe between two consumers.
    pub(crate) const NONE: Account = Account { ledger: 0, pipe: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        /// Buffers that several pipes and claims hold come home once, when the last lets go.
        #[test]
        fn shared_buffers_agree_with_sets(actions in proptest::collection::vec((0u8..6, 0usize..3, 0usize..8), 0..400)) {
            let (region, mut stock) = Region::create("shared", Geometry::new(2048, 0, 8).expect("geometry")).expect("region");
            let mut ledger = Ledger::new(&region);
            for _ in 0..3 {
                ledger.open_pipe(2).expect("pipe");
            }
            let accounts = [0, 1, 2].map(|pipe| Account { ledger: ledger.id, pipe: pipe as u32 + 1 });
            let mut claims: Vec<Shared> = Vec::new();
            let mut held: HashSet<(usize, u32)> = HashSet::new();
            let last = |claims: &[Shared], held: &HashSet<(usize, u32)>, index| {
                !claims.iter().any(|c| c.index == index) && !held.iter().any(|h| h.1 == index)
            };
            for (action, pipe, at) in actions {
                match action {
                    0 => if let Some(buffer) = stock.take() { claims.push(ledger.share(buffer)); },
                    1 => if let Some(claim) = claims.get(at) {
                        let new = held.insert((pipe, claim.index));
                        prop_assert_eq!(ledger.send_shared(accounts[pipe], claim), new);
                    },
                    2 => if at < claims.len() { let more = ledger.claim(&claims[at]); claims.push(more); },
                    3 => if at < claims.len() {
                        let claim = claims.swap_remove(at);
                        let index = claim.index;
                        let home = ledger.let_go(claim);
                        prop_assert_eq!(home.is_some(), last(&claims, &held, index));
                        home.into_iter().for_each(|buffer| stock.put(buffer));
                    },
                    4 => {
                        let index = at as u32;
                        let had = held.remove(&(pipe, index));
                        match ledger.returned(accounts[pipe], index) {
                            Returned::Violation => prop_assert!(!had),
                            Returned::Held => prop_assert!(had && !last(&claims, &held, index)),
                            Returned::Free(buffer) => { prop_assert!(had && last(&claims, &held, index)); stock.put(buffer); }
                        }
                    }
                    _ => {
                        ledger.reclaim(accounts[pipe], |buffer| stock.put(buffer));
                        held.retain(|h| h.0 != pipe);
                    }
                }
            }
            for account in accounts {
                ledger.reclaim(account, |buffer| stock.put(buffer));
            }
            claims.into_iter().filter_map(|claim| ledger.let_go(claim)).for_each(|buffer| stock.put(buffer));
            prop_assert_eq!((stock.len(), ledger.held()), (8, 0));
        }

        /// Whatever pipes return, in whatever order, twice or not theirs: every buffer comes home
        /// exactly once, and the ledger agrees with sets of pairs.
        #[test]
        fn agrees_with_sets(actions in proptest::collection::vec((0u8..4, 0usize..3, 0u32..80), 0..400)) {
            let (region, mut stock) = Region::create("ledger", Geometry::new(2048, 0, 70).expect("geometry")).expect("region");
            let mut ledger = Ledger::new(&region);
            for _ in 0..3 {
                ledger.open_pipe(2).expect("pipe");
            }
            let accounts = [1, 2, 3].map(|pipe| Account { ledger: ledger.id, pipe });
            let mut held: HashSet<(usize, u32)> = HashSet::new();
            for (action, pipe, index) in actions {
                match action {
                    0 | 1 => if let Some(buffer) = stock.take() {
                        let index = ledger.send(accounts[pipe], buffer);
                        prop_assert!(held.insert((pipe, index)));
                    },
                    2 => match ledger.returned(accounts[pipe], index) {
                        Returned::Violation => prop_assert!(!held.contains(&(pipe, index))),
                        Returned::Held => prop_assert!(false, "nobody shares"),
                        Returned::Free(buffer) => { prop_assert!(held.remove(&(pipe, index))); stock.put(buffer); }
                    },
                    _ => {
                        ledger.reclaim(accounts[pipe], |buffer| stock.put(buffer));
                        held.retain(|h| h.0 != pipe);
                    }
                }
                for (pipe, account) in accounts.iter().enumerate() {
                    let sole = ledger.sole.iter().filter(|sole| **sole == account.pipe).count();
                    prop_assert_eq!(sole, held.iter().filter(|h| h.0 == pipe).count());
                }
            }
            for account in accounts {
                ledger.reclaim(account, |buffer| stock.put(buffer));
            }
            prop_assert_eq!((stock.len(), ledger.held()), (70, 0));
        }
    }

    #[test]
    #[should_panic(expected = "its own ledger")]
    fn a_pipe_is_not_taken_for_another_ledgers() {
        let (region, mut stock) = Region::create("two", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let (mut one, mut two) = (Ledger::new(&region), Ledger::new(&region));
        let (mut pipe, _end) = one.open_pipe(2).expect("pipe");
        two.open_pipe(2).expect("pipe");
        let _ = pipe.send(&mut two, stock.take().expect("free"), crate::Slot::default());
    }

    /// Two ledgers may keep buffers of one region (a yard has one a dispatcher): what one shared is nothing to
    /// the other, which would otherwise hand out the token of a buffer that a consumer reads.
    #[test]
    #[should_panic(expected = "its own ledger")]
    fn a_claim_is_not_taken_for_another_ledgers() {
        let (region, mut stock) = Region::create("two", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let (mut one, mut two) = (Ledger::new(&region), Ledger::new(&region));
        let shared = one.share(stock.take().expect("free"));
        let more = two.claim(&shared);
        let _ = two.let_go(more);
    }

    #[test]
    #[should_panic(expected = "65,535 holders")]
    fn lost_claims_do_not_make_the_count_wrap() {
        let (region, mut stock) = Region::create("lost", Geometry::new(2048, 0, 4).expect("geometry")).expect("region");
        let mut ledger = Ledger::new(&region);
        let shared = ledger.share(stock.take().expect("free"));
        for _ in 0..=u16::MAX {
            let _ = ledger.claim(&shared);
        }
    }
}
