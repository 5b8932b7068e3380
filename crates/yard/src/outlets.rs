//! The dispatcher's outward side: pipes, ledger, backlogs, and who gets what.
//!
//! Owned by one dispatcher. Every parcel given to [`Outlets::deliver`] ends in exactly one counter of
//! its ring: delivered, or a named drop, or it waits in a backlog (counted when it leaves).

mod label;
mod own;
mod seats;

use std::sync::Arc;

use flowyard_mem::{
    Buffer, Ledger, LocalRing, PipeProducer, Region, Returned, Shared, Slot, Stock, Tag, Verdict, notify, notify_when,
};
use flowyard_port::{Arrival, Received};
use flowyard_steer::{Decision, FlowHash, Glance, HASH_VERSION, Table};

use self::label::{completed, further, slot_of, slot_words};
pub(crate) use self::label::{corrected, tag_of, tag_words};
pub(crate) use self::seats::Tenant;
use self::seats::{MOST_STRIKES, Quarantined};
use crate::absent::{Absent, Absentees};
use crate::backlog::{Backlogs, Waiting};
use crate::counters::{Aside, Drop, RingCounters};
use crate::host::Host;
use crate::rings::RingStatus;
use crate::sorter::Route;
use crate::transmit::{Sent, WaysOut};

/// One buffer of a packet. Laid out as plug-ins read it (`struct flowyard_place`).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Segment {
    pub(crate) buffer: Buffer,
    pub(crate) offset: u16,
    pub(crate) len: u16,
}

/// A packet on its way through the yard: its buffers and what its port knows.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) first: Segment,
    /// Further segments; empty, and no allocation, for a packet in one buffer.
    pub(crate) rest: Vec<Segment>,
    pub(crate) arrival: Arrival,
    pub(crate) port: u16,
    /// Packet time, by which what waits and what is remembered is judged: the arrival's, or the time of day where that is
    /// by a card's clock.
    pub(crate) now_ns: u64,
    /// What the user's program in the kernel wrote for the tag.
    pub(crate) user: u64,
}

impl Segment {
    /// What a port gave, which is left without a buffer.
    #[inline]
    pub(crate) fn of(received: &mut Received) -> Segment {
        let (offset, len) = (received.offset, received.segment_len);
        Segment { buffer: std::mem::replace(&mut received.buffer, Buffer::none()), offset, len }
    }

    /// Takes the buffer out.
    #[inline]
    pub(crate) fn take(&mut self) -> Buffer {
        std::mem::replace(&mut self.buffer, Buffer::none())
    }
}

impl Parcel {
    /// Takes all out.
    pub(crate) fn take(&mut self) -> Parcel {
        let Segment { offset, len, .. } = self.first;
        let first = Segment { buffer: self.first.take(), offset, len };
        Parcel { first, rest: std::mem::take(&mut self.rest), ..*self }
    }
}

struct Outlet {
    pipe: PipeProducer,
    /// Nobody reads the pipe, and it holds nothing.
    gone: bool,
    /// Where its packets go instead, if the dispatcher's own thread reads it: then nobody reads the pipe.
    own: Option<Box<LocalRing>>,
    /// Who reads it, or read it last, if that is another process.
    tenant: Option<Tenant>,
    /// Slots were committed since it was last seen to that the consumer is awake.
    unwoken: bool,
    counters: RingCounters,
    violations: u64,
    /// Buffers that the consumer that is there returned without having them: no safe code does.
    strikes: u32,
}

impl Outlet {
    /// Why a packet is lost for which there is no room.
    fn full(&self) -> Drop {
        if self.is_absent() { Drop::ConsumerGone } else { Drop::RingFull }
    }

    /// Whether nobody reads it.
    #[inline]
    fn is_absent(&self) -> bool {
        self.gone && self.own.is_none()
    }
}

/// A group's share of the outlets, and how it balances.
#[derive(Debug, Clone)]
pub(crate) struct GroupPlace {
    /// The outlet of its ring 0.
    pub(crate) first: usize,
    pub(crate) table: Arc<Table>,
}

/// Where one group wants a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this ring of its own, under this hash.
    Ring(u16, u32),
    /// On each of its rings.
    Every(u32),
    /// Nowhere: its function said so.
    Nowhere,
}

/// Pipes to all rings, and the buffers that are out on them.
pub(crate) struct Outlets {
    region: Region,
    outlets: Vec<Outlet>,
    groups: Vec<GroupPlace>,
    host: Option<Host>,
    /// What consumers have sent goes by these, where the yard transmits.
    pub(crate) ways: Option<Box<WaysOut>>,
    /// Packets that went nowhere, by [`Aside`]; and those that went to several places, less one each.
    asides: [u64; Aside::ALL.len()],
    copies: u64,
    /// Segments of the packet that is being shared out. Empty between calls.
    sharing: Vec<(Shared, u16, u16)>,
    ledger: Ledger,
    backlogs: Backlogs,
    /// Rings that are read, and what becomes of the others' packets.
    absent: Absentees,
    /// No more will come: nobody can be seated any more.
    ended: bool,
    /// Pipes of stages that are gone, whose buffers later consumers may still look at.
    quarantined: Vec<Quarantined>,
    hash_version: u8,
    /// Emptied segment lists, to be used again.
    spare_lists: Vec<Vec<Segment>>,
    /// Turns since all consumers were last woken.
    turns: u32,
}

/// Most groups of a yard.
pub(crate) const MOST_GROUPS: usize = 8;

/// Emptied segment lists kept for reuse: as many as a batch can need.
const SPARE_LISTS: usize = 64;

/// Turns after which a sleeping consumer is woken for however little: at most a thousand packets, a
/// fraction of a millisecond, because turns that bring less than a full batch wake at once.
const TURNS_BETWEEN_WAKING: u32 = 16;

/// Returned slots taken from one pipe at a time, so that none starves the others.
const RETURNS_AT_ONCE: u32 = 256;

impl Outlets {
    /// Pipes that `ledger` made, to the rings of `groups` in order.
    pub(crate) fn new(
        region: &Region,
        ledger: Ledger,
        pipes: Vec<PipeProducer>,
        groups: Vec<GroupPlace>,
        host: Option<Host>,
        hash: &FlowHash,
        absent: Absent,
    ) -> Outlets {
        let hash_version = if matches!(hash, FlowHash::Default { .. }) { HASH_VERSION as u8 } else { 0 };
        let outlet = |pipe| Outlet {
            pipe,
            gone: false,
            own: None,
            tenant: None,
            unwoken: false,
            counters: RingCounters::default(),
            violations: 0,
            strikes: 0,
        };
        Outlets {
            ledger,
            backlogs: Backlogs::new(pipes.len(), region.geometry().buffers as usize * groups.len().max(1)),
            absent: Absentees::new(absent, &groups),
            ended: false,
            quarantined: Vec::new(),
            groups,
            host,
            ways: None,
            asides: [0; Aside::ALL.len()],
            copies: 0,
            sharing: Vec::with_capacity(SPARE_LISTS),
            region: region.clone(),
            outlets: pipes.into_iter().map(outlet).collect(),
            hash_version,
            spare_lists: Vec::with_capacity(SPARE_LISTS),
            turns: 0,
        }
    }

    /// An empty list for the further segments of a packet, with room from earlier use.
    pub(crate) fn list(&mut self) -> Vec<Segment> {
        self.spare_lists.pop().unwrap_or_default()
    }

    /// Writes the tag and puts the packet on its ring, or behind the ring's backlog; in every group. The parcel is
    /// empty afterwards.
    #[inline]
    pub(crate) fn deliver(&mut self, parcel: &mut Parcel, decision: &Decision, tag: &Tag, stock: &mut Stock) {
        if self.groups.len() > 1 {
            self.deliver_to_groups(parcel.take(), decision, tag, stock);
        } else {
            self.put(usize::from(decision.ring), parcel, decision.hash, tag, stock);
        }
    }

    /// Whether there is one group, whose rings [`Outlets::deliver_glanced`] knows.
    pub(crate) fn has_one_group(&self) -> bool {
        self.groups.len() == 1
    }

    /// Version of the default hash; 0 of another.
    pub(crate) fn hash_version(&self) -> u8 {
        self.hash_version
    }

    /// Puts a packet in one buffer, which has its tag, on the ring that a glance told, and leaves no buffer in its place: as
    /// [`Outlets::deliver`], and nothing is gathered on the way. For yards of [one group](Outlets::has_one_group).
    #[inline(always)]
    pub(crate) fn deliver_glanced(&mut self, packet: &mut Received, port: u16, glance: &Glance, stock: &mut Stock) {
        let ring = usize::from(glance.ring());
        if self.backlogs.total() == 0 || self.backlogs.len(ring) == 0 {
            let Received { buffer, offset, segment_len: len, arrival, .. } = packet;
            let outlet = &mut self.outlets[ring];
            let slot = slot_words(glance, *offset, *len, arrival, port);
            match outlet.send_words(&mut self.ledger, std::mem::replace(buffer, Buffer::none()), slot) {
                Ok(()) => {
                    outlet.counters.packets += 1;
                    outlet.counters.bytes += u64::from(arrival.len);
                    return;
                }
                Err(unsent) => *buffer = unsent,
            }
        }
        self.put_late(packet, port, glance, stock);
    }

    /// The same where there is no room, or nobody there.
    #[cold]
    #[inline(never)]
    fn put_late(&mut self, packet: &mut Received, port: u16, glance: &Glance, stock: &mut Stock) {
        let arrival = packet.arrival;
        let slot = slot_words(glance, packet.offset, packet.segment_len, &arrival, port);
        let first = Segment::of(packet);
        // Only what a function says of a packet asks for packet time.
        let parcel = Parcel { first, rest: Vec::new(), arrival, port, now_ns: arrival.time_ns, user: 0 };
        self.put_carefully(glance.ring().into(), parcel, Slot::from_words(slot), stock);
    }

    /// Puts a packet that the kernel has steered on the ring that the head of its tag names. The parcel is empty
    /// afterwards.
    #[inline]
    pub(crate) fn deliver_steered(&mut self, parcel: &mut Parcel, head: Tag, stock: &mut Stock) {
        let tag = completed(head, parcel);
        self.put(usize::from(tag.ring), parcel, tag.hash, &tag, stock);
    }

    /// To every ring of every group.
    #[cold]
    pub(crate) fn deliver_everywhere(&mut self, parcel: Parcel, decision: &Decision, tag: Tag, stock: &mut Stock) {
        let tag = corrected(tag, &parcel, decision);
        let targets = [Target::Every(decision.hash); MOST_GROUPS];
        self.spread(parcel, &tag, &targets[..self.groups.len()], stock);
    }

    /// To the places that the groups' functions chose.
    pub(crate) fn deliver_chosen(
        &mut self,
        parcel: Parcel,
        tag: Tag,
        decision: &Decision,
        targets: &[Target],
        stock: &mut Stock,
    ) {
        let tag = corrected(tag, &parcel, decision);
        self.spread(parcel, &tag, targets, stock);
    }

    fn deliver_to_groups(&mut self, parcel: Parcel, decision: &Decision, tag: &Tag, stock: &mut Stock) {
        let mut targets = [Target::Ring(decision.ring, decision.hash); MOST_GROUPS];
        for (target, group) in targets.iter_mut().zip(&self.groups).skip(1) {
            *target = Target::Ring(group.table.ring(decision.hash), decision.hash);
        }
        self.spread(parcel, tag, &targets[..self.groups.len()], stock);
    }

    /// Writes the tag and puts the packet on one outlet's ring, or behind its backlog.
    #[inline]
    fn put(&mut self, ring: usize, parcel: &mut Parcel, hash: u32, tag: &Tag, stock: &mut Stock) {
        self.region.set_tag(&mut parcel.first.buffer, tag);
        let slot = slot_of(parcel, hash, tag);
        let outlet = &mut self.outlets[ring];
        if !parcel.rest.is_empty() || outlet.is_absent() || self.backlogs.len(ring) != 0 {
            return self.put_carefully(ring, parcel.take(), slot, stock);
        }
        match outlet.send_words(&mut self.ledger, parcel.first.take(), slot.to_words()) {
            Ok(()) => {
                outlet.counters.packets += 1;
                outlet.counters.bytes += u64::from(slot.total);
                if parcel.rest.capacity() > 0 {
                    self.keep_list(std::mem::take(&mut parcel.rest)); // what a slice emptied
                }
            }
            Err(buffer) => {
                parcel.first.buffer = buffer;
                self.queue(ring, slot, parcel.take(), stock);
            }
        }
    }

    /// As [`Outlets::put`], where anything is out of the ordinary: several segments, packets that wait, a consumer
    /// that is gone.
    #[cold]
    fn put_carefully(&mut self, mut ring: usize, mut parcel: Parcel, slot: Slot, stock: &mut Stock) {
        if let Some(other) = self.outlets[ring].is_absent().then(|| self.absent.stand_in(ring, slot.hash)).flatten() {
            let mut tag = self.region.tag(&parcel.first.buffer);
            tag.ring = self.absent.number(other);
            self.region.set_tag(&mut parcel.first.buffer, &tag);
            ring = other;
        }
        let segments = 1 + parcel.rest.len() as u32;
        let outlet = &mut self.outlets[ring];
        let absent = outlet.is_absent();
        let lost = absent && !self.absent.held();
        if lost || segments > outlet.pipe.capacity() {
            let why = if lost { Drop::ConsumerGone } else { Drop::TooLong };
            outlet.counters.dropped[why as usize] += 1;
            self.free(parcel, stock);
        } else if !absent && self.backlogs.len(ring) == 0 && outlet.has_room(segments) {
            outlet.counters.packets += 1;
            outlet.counters.bytes += u64::from(slot.total);
            let Parcel { first, rest, .. } = parcel;
            outlet.fill(&mut self.ledger, first.buffer, slot);
            self.fill_rest(ring, slot, rest);
        } else {
            self.queue(ring, slot, parcel, stock);
        }
    }

    /// Puts one packet on the rings that the groups want it on. The buffers are shared, not copied: the
    /// ledger has them come home when all have returned them.
    fn spread(&mut self, mut parcel: Parcel, tag: &Tag, targets: &[Target], stock: &mut Stock) {
        self.region.set_tag(&mut parcel.first.buffer, tag);
        let slot = slot_of(&parcel, 0, tag);
        let Parcel { first, mut rest, .. } = parcel;
        let mut sharing = std::mem::take(&mut self.sharing);
        for segment in std::iter::once(first).chain(rest.drain(..)) {
            sharing.push((self.ledger.share(segment.buffer), segment.offset, segment.len));
        }
        self.keep_list(rest);
        let mut outcomes = 0;
        for (group, target) in targets.iter().enumerate() {
            let first = self.groups[group].first;
            match *target {
                Target::Ring(ring, hash) => {
                    let mut ring = first + usize::from(ring);
                    if self.outlets[ring].is_absent() {
                        ring = self.absent.stand_in(ring, hash).unwrap_or(ring);
                    }
                    self.put_shared(ring, Slot { hash, ..slot }, &sharing);
                    outcomes += 1;
                }
                Target::Every(hash) => {
                    let rings = usize::from(self.groups[group].table.rings());
                    (first..first + rings).for_each(|ring| self.put_shared(ring, Slot { hash, ..slot }, &sharing));
                    outcomes += rings as u64;
                }
                Target::Nowhere => {
                    self.asides[Aside::GroupVerdict as usize] += 1;
                    outcomes += 1;
                }
            }
        }
        self.copies += outcomes.max(1) - 1;
        for (shared, ..) in sharing.drain(..) {
            self.ledger.let_go(shared).into_iter().for_each(|buffer| stock.put(buffer));
        }
        self.sharing = sharing;
    }

    fn put_shared(&mut self, ring: usize, slot: Slot, sharing: &[(Shared, u16, u16)]) {
        let segments = sharing.len();
        let outlet = &mut self.outlets[ring];
        let absent = outlet.is_absent();
        let room = !absent && self.backlogs.len(ring) == 0 && outlet.has_room(segments as u32);
        let lost = if absent && !self.absent.held() {
            Some(Drop::ConsumerGone)
        } else if segments as u32 > outlet.pipe.capacity() {
            Some(Drop::TooLong)
        } else if !room && !self.backlogs.has_room(segments) {
            Some(outlet.full())
        } else {
            None
        };
        if let Some(why) = lost {
            outlet.counters.dropped[why as usize] += 1;
            return;
        }
        if room {
            outlet.counters.packets += 1;
            outlet.counters.bytes += u64::from(slot.total);
        }
        for (at, (shared, offset, len)) in sharing.iter().enumerate() {
            let slot = if at == 0 { slot } else { further(slot, *offset, *len, segments - 1 - at) };
            if room {
                outlet.fill_shared(&mut self.ledger, shared, slot);
            } else {
                let claim = self.ledger.claim(shared);
                let waits = self.backlogs.push(ring, Waiting::Shared(claim), slot);
                debug_assert!(waits.is_ok(), "there was room");
            }
        }
    }

    /// Counts a packet that goes to no ring, and frees it.
    pub(crate) fn aside(&mut self, why: Aside, parcel: Parcel, stock: &mut Stock) {
        self.asides[why as usize] += 1;
        self.free(parcel, stock);
    }

    /// Whether there is a way to the host's network stack.
    pub(crate) fn has_host(&self) -> bool {
        self.host.is_some()
    }

    /// Hands a packet to the host's network stack.
    #[cold]
    pub(crate) fn hand_to_host(&mut self, parcel: Parcel, stock: &mut Stock) {
        let taken = self.host.as_mut().is_some_and(|host| host.take(&self.region, &parcel));
        self.aside(if taken { Aside::Host } else { Aside::HostFull }, parcel, stock);
    }

    /// Number of groups.
    pub(crate) fn groups(&self) -> &[GroupPlace] {
        &self.groups
    }

    /// Packets that went to no ring, and copies.
    pub(crate) fn asides(&self) -> ([u64; Aside::ALL.len()], u64) {
        (self.asides, self.copies)
    }

    /// The tag of a packet as dissection and built-in policy see it.
    #[inline]
    pub(crate) fn tag_of(&self, parcel: &Parcel, decision: &Decision, route: Route) -> Tag {
        tag_of(parcel, decision, route, self.hash_version)
    }

    /// Keeps an emptied list with room for another packet of several segments. Most packets have one
    /// segment and a list that never held anything: nothing to keep.
    fn keep_list(&mut self, list: Vec<Segment>) {
        if list.capacity() > 0 && self.spare_lists.len() < SPARE_LISTS {
            self.spare_lists.push(list);
        }
    }

    #[cold]
    fn fill_rest(&mut self, ring: usize, slot: Slot, mut rest: Vec<Segment>) {
        let mut left = rest.len();
        for segment in rest.drain(..) {
            left -= 1;
            let slot = further(slot, segment.offset, segment.len, left);
            self.outlets[ring].fill(&mut self.ledger, segment.buffer, slot);
        }
        self.keep_list(rest);
    }

    #[cold]
    fn queue(&mut self, ring: usize, slot: Slot, parcel: Parcel, stock: &mut Stock) {
        if !self.backlogs.has_room(1 + parcel.rest.len()) {
            let outlet = &mut self.outlets[ring];
            outlet.counters.dropped[outlet.full() as usize] += 1;
            return self.free(parcel, stock);
        }
        let Parcel { first, mut rest, .. } = parcel;
        let mut waits = self.backlogs.push(ring, Waiting::Own(first.buffer), slot).is_ok();
        let mut left = rest.len();
        for segment in rest.drain(..) {
            left -= 1;
            let slot = further(slot, segment.offset, segment.len, left);
            waits &= self.backlogs.push(ring, Waiting::Own(segment.buffer), slot).is_ok();
        }
        debug_assert!(waits, "there was room");
        self.keep_list(rest);
    }

    fn free(&mut self, parcel: Parcel, stock: &mut Stock) {
        stock.put(parcel.first.buffer);
        let mut rest = parcel.rest;
        for segment in rest.drain(..) {
            stock.put(segment.buffer);
        }
        self.keep_list(rest);
    }

    /// Takes home what consumers returned. Answers how many returns there were, whether or not others still hold
    /// the buffers.
    pub(crate) fn reclaim(&mut self, stock: &mut Stock) -> usize {
        let (mut home, mut struck) = (0, false);
        for (number, outlet) in self.outlets.iter_mut().enumerate() {
            if outlet.gone {
                continue;
            }
            let mut left = outlet.pipe.look_for_returned().min(RETURNS_AT_ONCE);
            if left == 0 {
                continue;
            }
            home += left;
            while left > 0 {
                let Some((returned, slot)) = outlet.pipe.take_home(&mut self.ledger, stock, &mut left) else {
                    continue;
                };
                let violation = u32::from(returned == Returned::Violation);
                home -= violation;
                outlet.strikes += violation;
                struck |= outlet.strikes > MOST_STRIKES && outlet.tenant.is_some();
                let ways = self.ways.as_deref_mut().filter(|_| outlet.tenant.is_none_or(|tenant| tenant.may_send));
                outlet.violations += u64::from(!settle(ways, number, returned, slot, stock));
            }
            outlet.pipe.release_returned();
        }
        if struck {
            self.take_from_struck(stock);
        }
        if let Some(ways) = &mut self.ways {
            ways.flush(stock);
        }
        home as usize
    }

    /// Ends the ways out; before ports are closed.
    pub(crate) fn close_ways(&mut self, stock: &mut Stock) -> Sent {
        self.ways.take().map(|ways| ways.close(stock)).unwrap_or_default()
    }

    /// Moves what waits in backlogs on to rings that have room again. Answers how many packets moved.
    pub(crate) fn drain(&mut self) -> usize {
        if self.backlogs.total() == 0 {
            return 0;
        }
        let mut moved = 0;
        for ring in 0..self.outlets.len() {
            loop {
                let slots = self.backlogs.first_packet_slots(ring);
                let outlet = &mut self.outlets[ring];
                if slots == 0 || outlet.is_absent() || !outlet.has_room(slots) {
                    break;
                }
                for n in 0..slots {
                    let Some((waiting, slot)) = self.backlogs.pop(ring) else { break };
                    if n == 0 {
                        outlet.counters.packets += 1;
                        outlet.counters.bytes += u64::from(slot.total);
                    }
                    match waiting {
                        Waiting::Own(buffer) => outlet.fill(&mut self.ledger, buffer, slot),
                        Waiting::Shared(shared) => {
                            outlet.fill_shared(&mut self.ledger, &shared, slot);
                            let home = self.ledger.let_go(shared);
                            debug_assert!(home.is_none(), "the ring holds it");
                        }
                    }
                }
                moved += 1;
            }
        }
        moved
    }

    /// Gives up the oldest packets of the longest backlog until `stock` has `wanted` free buffers or
    /// nothing waits.
    pub(crate) fn give_up(&mut self, stock: &mut Stock, wanted: usize) {
        while stock.len() < wanted {
            let Some(ring) = self.backlogs.longest() else { return };
            self.give_up_one(ring, self.outlets[ring].full(), stock);
        }
    }

    fn give_up_one(&mut self, ring: usize, why: Drop, stock: &mut Stock) {
        for _ in 0..self.backlogs.first_packet_slots(ring) {
            let home = match self.backlogs.pop(ring) {
                Some((Waiting::Own(buffer), _)) => Some(buffer),
                Some((Waiting::Shared(shared), _)) => self.ledger.let_go(shared),
                None => None,
            };
            home.into_iter().for_each(|buffer| stock.put(buffer));
        }
        self.outlets[ring].counters.dropped[why as usize] += 1;
    }

    /// Gives up everything that waits in backlogs.
    pub(crate) fn give_up_all(&mut self, why: Drop, stock: &mut Stock) {
        while let Some(ring) = self.backlogs.longest() {
            self.give_up_one(ring, why, stock);
        }
    }

    /// Shows consumers what was filled, and wakes those that sleep: all of them if `pause` says that
    /// nothing more comes at once, else those with a good part of their ring to take, and all every
    /// [`TURNS_BETWEEN_WAKING`] turns. Waking costs as much as sorting tens of packets. Answers whether it was all.
    #[inline]
    pub(crate) fn commit(&mut self, pause: bool) -> bool {
        for outlet in &mut self.outlets {
            outlet.unwoken |= outlet.pipe.commit();
        }
        self.turns += 1;
        let all = pause || self.turns >= TURNS_BETWEEN_WAKING;
        if all {
            self.turns = 0;
            let filled = self.outlets.iter_mut().filter_map(|o| std::mem::take(&mut o.unwoken).then_some(&mut o.pipe));
            notify(filled);
        } else {
            let capacity = self.outlets.first().map_or(0, |o| o.pipe.capacity());
            notify_when(capacity / 4, self.outlets.iter_mut().filter(|o| o.unwoken).map(|o| &mut o.pipe));
        }
        all
    }

    /// Announces sleep on every pipe that still holds buffers. Answers false if something came home
    /// meanwhile: then do not sleep.
    pub(crate) fn sleep(&mut self) -> bool {
        let mut sleep = !self.ways.as_ref().is_some_and(|ways| ways.is_pressing());
        for outlet in self.outlets.iter_mut().filter(|o| !o.gone && o.pipe.outstanding() > 0) {
            sleep &= outlet.pipe.sleep();
        }
        sleep
    }

    /// Takes the announcement back.
    pub(crate) fn wake(&mut self) {
        for outlet in self.outlets.iter_mut().filter(|o| !o.gone) {
            outlet.pipe.wake();
        }
    }

    /// The descriptors to sleep on.
    pub(crate) fn fds(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        self.outlets.iter().filter(|o| !o.gone).map(|o| o.pipe.as_fd())
    }

    /// Says to all consumers that no more will come.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        for outlet in &mut self.outlets {
            outlet.pipe.end();
        }
    }

    /// Whether sources that can wait must: something waits for a ring that is read, or, where buffers are low, for any.
    pub(crate) fn must_wait(&self, low: bool) -> bool {
        let waits = |(ring, outlet): (usize, &Outlet)| !outlet.is_absent() && self.backlogs.len(ring) > 0;
        self.backlogs.total() > 0 && (low || self.outlets.iter().enumerate().any(waits))
    }

    /// Slots that wait in backlogs.
    pub(crate) fn backlog(&self) -> usize {
        self.backlogs.total()
    }

    /// Buffers that consumers hold who are still there, and those on rings that this thread reads.
    pub(crate) fn outstanding(&self) -> u32 {
        let held = |outlet: &Outlet| match &outlet.own {
            Some(own) => own.len() as u32,
            None if outlet.gone => 0,
            None => outlet.pipe.held(&self.ledger),
        };
        self.outlets.iter().map(held).sum()
    }

    /// Counts by ring.
    pub(crate) fn counters(&self) -> Vec<RingCounters> {
        self.outlets.iter().map(|o| o.counters).collect()
    }

    /// Each ring as it is now.
    pub(crate) fn status(&self) -> Vec<RingStatus> {
        let of = |(ring, outlet): (usize, &Outlet)| RingStatus {
            counters: outlet.counters,
            backlog: self.backlogs.len(ring) as u64,
            held: u64::from(outlet.pipe.held(&self.ledger)) + outlet.own.as_ref().map_or(0, |own| own.len() as u64),
            slots: outlet.pipe.capacity().into(),
            gone: outlet.is_absent(),
        };
        self.outlets.iter().enumerate().map(of).collect()
    }

    /// Balances a group by another table, of the same number of rings.
    pub(crate) fn set_table(&mut self, group: usize, table: Arc<Table>) {
        debug_assert_eq!(self.groups[group].table.rings(), table.rings());
        self.groups[group].table = table;
    }

    /// Sums over all rings: delivered, dropped.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.outlets.iter().fold((0, 0), |(d, l), o| (d + o.counters.packets, l + o.counters.dropped_total()))
    }

    /// Things that consumers wrote and that could not be.
    pub(crate) fn violations(&self) -> u64 {
        self.outlets.iter().map(|o| o.violations + o.pipe.violations()).sum()
    }
}

/// Settles a returned slot that is not a buffer to be freed which its consumer had alone. Answers false where it could not
/// have been returned so.
#[cold]
#[inline(never)]
fn settle(ways: Option<&mut WaysOut>, outlet: usize, returned: Returned, slot: Slot, stock: &mut Stock) -> bool {
    match returned {
        _ if slot.verdict != Verdict::Free as u8 => send(ways, outlet, returned, slot, stock),
        Returned::Violation => false,
        Returned::Free(buffer) => {
            stock.put(buffer);
            true
        }
        Returned::Held => true,
    }
}

/// Has a returned slot that is not to be freed alone sent. Answers false where it could not have been returned so: by
/// this consumer, with this verdict, or in a yard that does not transmit; its buffer is freed then.
#[cold]
fn send(ways: Option<&mut WaysOut>, outlet: usize, returned: Returned, slot: Slot, stock: &mut Stock) -> bool {
    match (returned, ways.filter(|_| slot.verdict == Verdict::Transmit as u8)) {
        (Returned::Violation, _) => false,
        (Returned::Free(buffer), Some(ways)) => ways.take(outlet, buffer, slot, stock),
        (Returned::Held, Some(ways)) => {
            ways.take_shared(outlet, slot, stock);
            true
        }
        (Returned::Free(buffer), None) => {
            stock.put(buffer);
            false
        }
        (Returned::Held, None) => false,
    }
}
