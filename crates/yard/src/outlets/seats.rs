//! Consumers come and go: who has which ring, and what becomes of what they had.
//!
//! # Invariant
//! An outlet has a tenant, and a pipe is quarantined, only if the pipe went to a consumer by a connection
//! (attach/server.rs). One in this very process is dropped before its connection (attach/client.rs); so once the
//! connection has ended, what may still be attached is of another process. So is a consumer that returned buffers which it
//! did not have: safe code cannot. That is what the two `unsafe` calls need.
#![allow(unsafe_code)]

use flowyard_mem::{Ledger, PipeProducer, Stock, Tag};

use super::{Outlet, Outlets};
use crate::backlog::Waiting;
use crate::counters::Drop;

/// A consumer of another process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant {
    /// Its own, never given again.
    pub(crate) number: u64,
    /// Whether it may have packets sent.
    pub(crate) may_send: bool,
    /// Whether it may pass packets on: what it had is released by a word of its own, and not by its end.
    pub(crate) stage: bool,
}

/// Buffers returned by a tenant that did not have them, after which it has its ring taken from it.
pub(super) const MOST_STRIKES: u32 = 1024;

/// The pipe of a tenant that was a stage and is gone.
pub(super) struct Quarantined {
    ring: usize,
    tenant: u64,
    pipe: PipeProducer,
}

impl Quarantined {
    /// Takes back what it had.
    fn dismiss(self, ledger: &mut Ledger, stock: &mut Stock) {
        // SAFETY: it was a tenant's, whose connection has ended (invariant).
        unsafe { self.pipe.dismiss(ledger, |buffer| stock.put(buffer)) };
    }
}

impl Outlet {
    fn is_of(&self, tenant: u64) -> bool {
        self.tenant.is_some_and(|own| own.number == tenant)
    }

    /// Takes back what the consumer held, who is gone. A stage of this process is believed that a later one still reads
    /// what it passed on. Another process is not: it could have the yard run out of buffers.
    fn take_back(&mut self, ledger: &mut Ledger, stock: &mut Stock) {
        match self.tenant {
            Some(Tenant { stage: true, .. }) => {} // until it is released
            Some(_) => self.take_back_from_tenant(ledger, stock),
            None => {
                self.pipe.reclaim(ledger, |buffer| stock.put(buffer));
            }
        }
    }

    fn take_back_from_tenant(&mut self, ledger: &mut Ledger, stock: &mut Stock) {
        debug_assert!(self.tenant.is_some() && self.gone);
        // SAFETY: a tenant's, whose connection has ended, or who returned what it did not have (invariant).
        unsafe { self.pipe.take_back(ledger, |buffer| stock.put(buffer)) };
    }
}

impl Outlets {
    /// Looks whether consumers are gone (a system call each), and takes back what dead ones held.
    pub(crate) fn check_consumers(&mut self, stock: &mut Stock) {
        for ring in 0..self.outlets.len() {
            self.check_consumer(ring, stock);
        }
    }

    fn check_consumer(&mut self, ring: usize, stock: &mut Stock) {
        if !self.outlets[ring].gone && self.outlets[ring].pipe.consumer_gone() {
            self.lose(ring, stock);
        }
    }

    /// Takes back what the consumer of `ring` held, who is gone. What waits for it is lost, or goes on waiting, or to
    /// others.
    fn lose(&mut self, ring: usize, stock: &mut Stock) {
        while self.reclaim(stock) > 0 {} // all that it returned properly before
        if !self.outlets[ring].gone {
            self.take_from(ring, stock);
        }
    }

    /// Takes a ring from its consumer, and back what that held.
    pub(super) fn take_from(&mut self, ring: usize, stock: &mut Stock) {
        let outlet = &mut self.outlets[ring];
        outlet.gone = true;
        outlet.counters.abandoned += u64::from(outlet.pipe.held(&self.ledger));
        outlet.take_back(&mut self.ledger, stock);
        if let Some(ways) = &mut self.ways {
            ways.abandon(ring, stock);
        }
        self.absent.note(self.outlets.iter().map(Outlet::is_absent));
        if self.absent.held() {
            return;
        }
        while self.backlogs.len(ring) > 0 {
            // What others have as well may be on the other ring already, and cannot be there twice.
            match self.backlogs.first_alone(ring).and_then(|slot| self.absent.stand_in(ring, slot.hash)) {
                Some(other) => self.pass_on(ring, other),
                None => self.give_up_one(ring, Drop::ConsumerGone, stock),
            }
        }
    }

    /// Takes their rings from those who have returned too much that they did not have.
    #[cold]
    pub(super) fn take_from_struck(&mut self, stock: &mut Stock) {
        for ring in 0..self.outlets.len() {
            let outlet = &self.outlets[ring];
            if !outlet.gone && outlet.tenant.is_some() && outlet.strikes > MOST_STRIKES {
                self.take_from(ring, stock);
            }
        }
    }

    /// Moves the packet that has waited longest for `ring` behind those that wait for `other`.
    fn pass_on(&mut self, ring: usize, other: usize) {
        for _ in 0..self.backlogs.first_packet_slots(ring) {
            let Some((mut waiting, slot)) = self.backlogs.pop(ring) else { return };
            if let Waiting::Own(buffer) = &mut waiting {
                let tag = Tag { ring: self.absent.number(other), ..self.region.tag(buffer) };
                self.region.set_tag(buffer, &tag);
            }
            let waits = self.backlogs.push(other, waiting, slot);
            debug_assert!(waits.is_ok(), "its place has just become free");
        }
    }

    /// Whether no more will come: nobody is seated any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Gives a ring that nobody reads to a consumer of another process, by a pipe that has no account yet. Answers
    /// false, and closes the pipe, if somebody reads it.
    pub(crate) fn seat(&mut self, ring: usize, tenant: Tenant, pipe: PipeProducer, stock: &mut Stock) -> bool {
        self.check_consumer(ring, stock);
        let outlet = &mut self.outlets[ring];
        if !outlet.is_absent() {
            return false;
        }
        outlet.violations += outlet.pipe.violations();
        outlet.strikes = 0;
        let old = outlet.pipe.succeed(&mut self.ledger, pipe);
        let before = outlet.tenant.replace(tenant);
        outlet.gone = false;
        // One of this process that left something with a later consumer is never believed to be done.
        if let (Some(pipe), Some(tenant)) = (old, before) {
            self.quarantine(Quarantined { ring, tenant: tenant.number, pipe }, stock);
        }
        self.absent.note(self.outlets.iter().map(Outlet::is_absent));
        true
    }

    /// Keeps what a stage had out of use, as long as somebody may look at it: of each ring's last stage, so that none can
    /// have the yard run out of buffers.
    fn quarantine(&mut self, stage: Quarantined, stock: &mut Stock) {
        if let Some(at) = self.quarantined.iter().position(|older| older.ring == stage.ring) {
            self.quarantined.swap_remove(at).dismiss(&mut self.ledger, stock);
        }
        self.quarantined.push(stage);
    }

    /// Takes back what a stage had, now that nobody looks at it.
    pub(crate) fn release(&mut self, tenant: u64, stock: &mut Stock) {
        if let Some(at) = self.quarantined.iter().position(|stage| stage.tenant == tenant) {
            self.quarantined.swap_remove(at).dismiss(&mut self.ledger, stock);
        } else if let Some(outlet) = self.outlets.iter_mut().find(|outlet| outlet.is_of(tenant) && outlet.gone) {
            outlet.take_back_from_tenant(&mut self.ledger, stock);
        }
    }

    /// Takes a consumer's ring from it, whose process is known to have ended its connection.
    pub(crate) fn unseat(&mut self, tenant: u64, stock: &mut Stock) {
        let of_tenant = |outlet: &Outlet| outlet.is_of(tenant) && !outlet.gone;
        if let Some(ring) = self.outlets.iter().position(of_tenant) {
            self.lose(ring, stock);
        }
    }
}
