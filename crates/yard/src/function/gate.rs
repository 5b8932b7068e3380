//! Where a dispatcher's packets pass the user's functions, between sorting and delivery; those that need not go by.
//!
//! Packets are queued as the sorter lets them go; [`Gate::flush`] shows them to the yard's function in
//! batches, then to those of the groups, and carries out what they say, in order. Every packet queued is
//! delivered, or counted in exactly one place. Allocates for the largest batch and all held fragments when
//! it is made, and not after.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use flowyard_mem::{Region, Stock, Tag, flags};
use flowyard_steer::{Decision, FragmentTable, Table};

use super::batch::{COPY_BYTES, Item, Scratch, accepted};
use super::seat::{Seat, Sight};
use super::{BATCH, Failure, FunctionCounts, Limits, RawVerdict, Sent, Shunts, Steer, Verdict};
use crate::SharedFragments;
use crate::counters::Aside;
use crate::outlets::{MOST_GROUPS, Outlets, Parcel, Target, corrected};
use crate::sorter::{HOLD_PACKETS, Route};

/// How often functions' ticks are called.
const TICK: Duration = Duration::from_millis(100);
/// Turns of a busy dispatcher between two looks at the clock.
const TURNS_BETWEEN_LOOKS: u32 = 16;

/// What carrying out a verdict needs of the dispatcher.
pub(crate) struct Way<'a> {
    pub(crate) region: &'a Region,
    pub(crate) outlets: &'a mut Outlets,
    pub(crate) stock: &'a mut Stock,
    /// Where first fragments went, by the clone of the sorter that the packets come from.
    pub(crate) memory: &'a mut SharedFragments,
}

/// What the dispatchers of a yard share of their functions.
#[derive(Clone)]
pub(crate) struct Common {
    shunts: Shunts,
    /// The yard's, then one a group.
    sent: Vec<Sent>,
}

impl Common {
    pub(crate) fn new(groups: usize) -> Common {
        Common { shunts: Shunts::default(), sent: (0..=groups).map(|_| Sent::default()).collect() }
    }
}

pub(crate) struct Gate {
    items: Vec<Item>,
    tags: Vec<Tag>,
    /// What groups' functions may scribble on.
    tags_shown: Vec<Tag>,
    scratch: Box<Scratch>,
    shunts: Shunts,
    /// The yard's function, then one a group.
    seats: Vec<Seat>,
    ticked: Instant,
    /// Of the dispatcher, since it began.
    turns: u32,
    /// When a first fragment was last sent by a function: its later ones follow even when that is gone.
    sent_at: Option<Instant>,
    /// A function was here once.
    used: bool,
    /// A group's function was here once: else their seats are not looked at.
    grouped: bool,
    /// Among the packets queued are fragments.
    fragments: bool,
}

impl Gate {
    /// A gate without functions.
    pub(crate) fn new(common: &Common) -> Gate {
        let room = BATCH + HOLD_PACKETS + 1;
        Gate {
            items: Vec::with_capacity(room),
            tags: Vec::with_capacity(room),
            tags_shown: Vec::with_capacity(room),
            scratch: Box::new(Scratch { bytes: [0; COPY_BYTES], annotation: [0; 256] }),
            shunts: common.shunts.clone(),
            seats: common.sent.iter().map(|sent| Seat::new(room, sent.clone())).collect(),
            ticked: Instant::now(),
            turns: 0,
            sent_at: None,
            used: false,
            grouped: false,
            fragments: false,
        }
    }

    /// Whether packets need not pass here: no function, and nothing left of an earlier one's doing (flows that
    /// it shunted, datagrams whose first fragments it sent).
    fn is_open(&self) -> bool {
        !self.used
            || !self.seats.iter().any(Seat::is_taken)
                && self.shunts.counts().0 == 0
                && self.sent_at.is_none_or(|at| at.elapsed().as_nanos() as u64 > FragmentTable::AGE_NS)
    }

    /// Whether packets may go by without being gathered here: none are, and no function is there to see them.
    #[inline]
    pub(crate) fn may_be_passed_by(&self) -> bool {
        self.items.is_empty() && self.is_open()
    }

    /// Whether there ever was a function.
    pub(crate) fn was_used(&self) -> bool {
        self.used
    }

    /// Puts another function on a seat (0 the yard's, then one a group), and answers the old one.
    pub(crate) fn replace(
        &mut self,
        seat: usize,
        new: Option<Box<dyn Steer>>,
        limits: Limits,
    ) -> Option<Box<dyn Steer>> {
        debug_assert!(self.items.is_empty(), "at a batch boundary");
        self.used |= new.is_some();
        self.grouped |= new.is_some() && seat > 0;
        self.seats.get_mut(seat).and_then(|seat| seat.replace(new, limits))
    }

    /// Lets packets pass as if there had never been a function.
    #[cfg(feature = "bench")]
    pub(crate) fn forget(&mut self) {
        self.used = false;
    }

    /// Asks a function between batches.
    pub(crate) fn control(&mut self, seat: usize, request: &[u8]) -> Result<Vec<u8>, String> {
        let Some(function) = self.seats.get_mut(seat).and_then(Seat::function) else {
            return Err("no function is loaded".into());
        };
        catch_unwind(AssertUnwindSafe(|| function.control(request)))
            .unwrap_or_else(|_| Err("the function panicked over the request".into()))
    }

    /// What was counted of a seat; flows over all dispatchers.
    pub(crate) fn counts(&mut self, seat: usize) -> (FunctionCounts, Vec<(String, u64)>) {
        let (flows_shunted, shunts_evicted) = self.shunts.counts();
        let Some(seat) = self.seats.get_mut(seat) else { return Default::default() };
        let more = seat.own_counts();
        (FunctionCounts { flows_shunted, shunts_evicted, ..seat.counts }, more)
    }

    /// What was counted of all seats together, and what their functions count themselves.
    pub(crate) fn all_counts(&mut self) -> (FunctionCounts, Vec<(String, u64)>) {
        let (flows_shunted, shunts_evicted) = self.shunts.counts();
        let mut sum = FunctionCounts::default();
        self.seats.iter().for_each(|seat| sum.add(&seat.counts));
        let own = self.seats.iter_mut().flat_map(Seat::own_counts).collect();
        (FunctionCounts { flows_shunted, shunts_evicted, ..sum }, own)
    }

    /// Calls the functions' ticks if it is time. Called once a turn; looks at the clock, which costs as much as a
    /// packet, only now and then, and where the turn before was followed by sleep.
    pub(crate) fn tick(&mut self, slept: bool) {
        self.turns = self.turns.wrapping_add(1);
        if !self.used || !(slept || self.turns.is_multiple_of(TURNS_BETWEEN_LOOKS)) || self.ticked.elapsed() < TICK {
            return;
        }
        self.ticked = Instant::now();
        for seat in self.seats.iter_mut().filter(|seat| seat.is_taken()) {
            seat.look_at_usage();
            let ticked = seat.function().map(|function| catch_unwind(AssertUnwindSafe(|| function.tick())));
            if matches!(ticked, Some(Err(_))) {
                seat.fail_round(Failure::Panicked);
            }
        }
    }

    /// Takes a packet that is still to be looked at, and answers where to write down what was found.
    #[inline]
    pub(crate) fn begin(&mut self, parcel: Parcel) -> &mut Item {
        let at = self.items.len();
        self.items.push(Item { parcel, decision: Decision::BLANK, route: Route::Direct });
        &mut self.items[at]
    }

    /// Gives the packet back that came last.
    #[cold]
    pub(crate) fn take_back(&mut self) -> Option<Item> {
        self.items.pop()
    }

    /// Takes a packet that the sorter let go. Nothing is allocated: there is room for all it can hold.
    #[inline]
    pub(crate) fn queue(&mut self, parcel: Parcel, decision: &Decision, route: Route) {
        self.items.push(Item { parcel, decision: *decision, route });
    }

    /// Shows what was queued to the functions, if there are any, and carries out what they say.
    #[inline]
    pub(crate) fn flush(&mut self, way: &mut Way<'_>) {
        if self.items.is_empty() {
            return;
        }
        let mut items = std::mem::take(&mut self.items);
        if self.is_open() {
            self.write_tags(&items, way);
            self.deliver(&mut items, way);
        } else {
            self.ask(&mut items, way);
        }
        self.items = items;
    }

    #[inline]
    fn write_tags(&mut self, items: &[Item], way: &Way<'_>) {
        self.tags.clear();
        let mut fragments = false;
        self.tags.extend(items.iter().map(|item| {
            fragments |= is_fragment(item);
            way.outlets.tag_of(&item.parcel, &item.decision, item.route)
        }));
        self.fragments = fragments;
    }

    /// Sends all on as they are.
    #[inline(never)]
    fn deliver(&mut self, items: &mut Vec<Item>, way: &mut Way<'_>) {
        for (item, tag) in items.iter_mut().zip(&self.tags) {
            way.outlets.deliver(&mut item.parcel, &item.decision, tag, way.stock);
        }
        items.clear();
    }

    /// Asks the functions. What most batches need not is out of line: the way of those that do not need it is short
    /// enough to stay in the cache of instructions.
    #[inline(never)]
    fn ask(&mut self, items: &mut Vec<Item>, way: &mut Way<'_>) {
        if self.shunts.counts().0 > 0 {
            self.divert(items, way);
        }
        self.write_tags(items, way);
        let (fragments, copied) = (self.fragments, way.region.foreign_writers());
        let (region, table) = (way.region, &way.outlets.groups()[0].table);
        let sight = Sight { region, table, group: false, fragments, copied };
        let tag = |item: &Item| way.outlets.tag_of(&item.parcel, &item.decision, item.route);
        self.seats[0].judge(&sight, items, &mut self.tags, &mut self.scratch, tag);
        if self.seats[0].touched.tags {
            self.accept_tags(items, way);
        }
        let with_groups = self.grouped && self.ask_groups(items, way, copied);
        let simple = !with_groups && !self.fragments;
        if simple && self.seats[0].is_silent() {
            self.seats[0].counts.built_in += items.len() as u64;
            self.deliver(items, way);
        } else if simple && self.redirect_all(items, way) {
            self.deliver(items, way);
        } else {
            self.carry_out_each(items, simple, with_groups, way);
        }
        way.memory.publish();
        let asked = if self.grouped { &mut self.seats[..] } else { &mut self.seats[..1] };
        asked.iter_mut().for_each(Seat::hold_to_limits);
    }

    /// Takes over what the yard's function may correct of tags that it had in its hands.
    #[inline(never)]
    fn accept_tags(&mut self, items: &[Item], way: &Way<'_>) {
        for (theirs, item) in self.tags.iter_mut().zip(items) {
            *theirs = accepted(&way.outlets.tag_of(&item.parcel, &item.decision, item.route), theirs);
        }
    }

    /// Asks the groups' functions. Answers whether there are any.
    #[inline(never)]
    fn ask_groups(&mut self, items: &mut [Item], way: &Way<'_>, copied: bool) -> bool {
        let tag = |item: &Item| way.outlets.tag_of(&item.parcel, &item.decision, item.route);
        let mut any = false;
        for (at, seat) in self.seats[1..].iter_mut().enumerate().filter(|(_, seat)| seat.is_taken()) {
            let table = &way.outlets.groups()[at].table;
            let sight = Sight { region: way.region, table, group: true, fragments: self.fragments, copied };
            self.tags_shown.clone_from(&self.tags);
            seat.judge(&sight, items, &mut self.tags_shown, &mut self.scratch, tag);
            any = true;
        }
        any
    }

    /// Carries out what is said of each packet by itself.
    #[inline(never)]
    fn carry_out_each(&mut self, items: &mut Vec<Item>, simple: bool, with_groups: bool, way: &mut Way<'_>) {
        for (at, item) in items.iter_mut().enumerate() {
            let raw = self.seats[0].verdicts[at];
            if simple && redirect(&raw, &way.outlets.groups()[0].table, item, &mut self.tags[at]) {
                self.seats[0].counts.built_in += u64::from(raw.kind == RawVerdict::BUILT_IN);
                way.outlets.deliver(&mut item.parcel, &item.decision, &self.tags[at], way.stock);
            } else {
                self.carry_out(at, item.take(), with_groups, way);
            }
        }
        items.clear();
    }

    /// Takes those aside whose flow was shunted.
    #[inline(never)]
    fn divert(&mut self, items: &mut Vec<Item>, way: &mut Way<'_>) {
        let mut at = 0;
        while let Some(item) = items.get(at) {
            let bytes = peek(way.region, &item.parcel, &mut self.scratch);
            let (decision, now_ns) = (&item.decision, item.parcel.now_ns);
            if !self.shunts.covers(decision.hash, &decision.dissection, bytes, now_ns) {
                at += 1;
                continue;
            }
            let gone = RawVerdict { kind: RawVerdict::DROP, ..RawVerdict::default() };
            if decision.dissection.has_first_fragments() {
                self.seats[0].sent.remember(&decision.dissection, bytes, gone, now_ns);
            }
            let item = items.remove(at);
            way.outlets.aside(Aside::Shunted, item.parcel, way.stock);
        }
    }

    /// Redirects all packets, if that is all that is said of them. Answers false if anything else is said of one: then
    /// each is to be carried out by itself, which does not mind what is written by then.
    #[inline(never)]
    fn redirect_all(&mut self, items: &mut [Item], way: &Way<'_>) -> bool {
        let table = &way.outlets.groups()[0].table;
        let mut built_in = 0;
        let mut each = self.seats[0].verdicts.iter().zip(items).zip(&mut self.tags);
        let all = each.all(|((raw, item), tag)| {
            built_in += u64::from(raw.kind == RawVerdict::BUILT_IN);
            redirect(raw, table, item, tag)
        });
        self.seats[0].counts.built_in += if all { built_in } else { 0 };
        all
    }

    fn carry_out(&mut self, at: usize, item: Item, with_groups: bool, way: &mut Way<'_>) {
        let verdict = self.settle(at, &item, 0, way);
        let Item { mut parcel, mut decision, .. } = item;
        let mut tag = self.tags[at];
        let mut targets = [Target::Nowhere; MOST_GROUPS];
        if with_groups && matches!(verdict, Verdict::BuiltIn | Verdict::Hash(_) | Verdict::Ring(_)) {
            let item = Item { parcel, decision, route: item.route };
            targets = self.targets(at, &item, verdict, way);
            (parcel, decision) = (item.parcel, item.decision);
        }
        match verdict {
            Verdict::Hash(hash) => {
                (decision.hash, decision.ring) = (hash, way.outlets.groups()[0].table.ring(hash));
                tag.hash_version = 0;
            }
            Verdict::Ring(ring) => decision.ring = ring,
            _ => {}
        }
        let raw = self.seats[0].verdicts[at];
        if (raw.pull != 0 || raw.slice != 0) && !edit(&mut parcel, &raw, way.stock) {
            self.seats[0].fail(Failure::BadEdit);
        }
        match verdict {
            Verdict::Drop => way.outlets.aside(Aside::Verdict, parcel, way.stock),
            Verdict::Shunt { .. } => way.outlets.aside(Aside::Shunted, parcel, way.stock),
            Verdict::Host => way.outlets.hand_to_host(parcel, way.stock),
            Verdict::EveryRing => way.outlets.deliver_everywhere(parcel, &decision, tag, way.stock),
            _ if with_groups => {
                let targets = &targets[..way.outlets.groups().len()];
                if let Target::Ring(ring, hash) = targets[0] {
                    (decision.ring, decision.hash) = (ring, hash);
                }
                way.outlets.deliver_chosen(parcel, tag, &decision, targets, way.stock);
            }
            _ => {
                let tag = corrected(tag, &parcel, &decision);
                way.outlets.deliver(&mut parcel, &decision, &tag, way.stock);
            }
        }
    }

    /// What a seat's function says of a packet: checked, followed up for fragments, and counted.
    #[inline]
    fn settle(&mut self, at: usize, item: &Item, seat: usize, way: &mut Way<'_>) -> Verdict {
        let found = &item.decision.dissection;
        let group = seat.saturating_sub(1);
        let seat_of_group = seat > 0;
        let now_ns = item.parcel.now_ns;
        let seat = &mut self.seats[seat];
        let silent = seat.verdicts[at].kind == RawVerdict::BUILT_IN;
        if silent && found.is_awaiting() && item.route != Route::Fallback {
            seat.follow(at, item, peek(way.region, &item.parcel, &mut self.scratch));
        }
        let rings = way.outlets.groups()[group].table.rings();
        let verdict = match seat.verdicts[at].get() {
            Some(Verdict::Ring(ring)) if ring >= rings => Err(Failure::BadRing),
            Some(Verdict::Shunt { .. } | Verdict::Host) if seat_of_group => Err(Failure::BadVerdict),
            Some(Verdict::Host) if !way.outlets.has_host() => Err(Failure::NoHost),
            Some(verdict) => Ok(verdict),
            None => Err(Failure::BadVerdict),
        };
        let verdict = verdict.unwrap_or_else(|failure| {
            seat.fail(failure);
            seat.verdicts[at].set(Verdict::BuiltIn);
            Verdict::BuiltIn
        });
        seat.counts.built_in += u64::from(verdict == Verdict::BuiltIn);
        if found.has_first_fragments() || matches!(verdict, Verdict::Shunt { .. }) {
            let bytes = peek(way.region, &item.parcel, &mut self.scratch);
            if let Verdict::Shunt { milliseconds } = verdict {
                self.shunts.add(item.decision.hash, &found.conversation(bytes), now_ns, milliseconds);
            }
            if found.has_first_fragments() {
                seat.sent.remember(found, bytes, seat.verdicts[at], now_ns);
                if verdict != Verdict::BuiltIn {
                    self.sent_at = Some(Instant::now());
                }
            }
        }
        verdict
    }

    /// Where each group wants a packet: as its function says, else as the yard's said, else by its table.
    fn targets(&mut self, at: usize, item: &Item, verdict: Verdict, way: &mut Way<'_>) -> [Target; MOST_GROUPS] {
        let mut targets = [Target::Nowhere; MOST_GROUPS];
        let hash = if let Verdict::Hash(hash) = verdict { hash } else { item.decision.hash };
        for (group, target) in targets.iter_mut().enumerate().take(way.outlets.groups().len()) {
            let table = way.outlets.groups()[group].table.clone();
            let said =
                if self.seats[group + 1].is_taken() { self.settle(at, item, group + 1, way) } else { Verdict::BuiltIn };
            *target = match (said, verdict) {
                (Verdict::Ring(ring), _) => Target::Ring(ring, hash),
                (Verdict::Hash(hash), _) => Target::Ring(table.ring(hash), hash),
                (Verdict::Drop, _) => Target::Nowhere,
                (Verdict::EveryRing, _) => Target::Every(hash),
                (_, Verdict::Ring(ring)) if group == 0 => Target::Ring(ring, hash),
                (_, Verdict::BuiltIn) if group == 0 => Target::Ring(item.decision.ring, hash),
                _ => Target::Ring(table.ring(hash), hash),
            };
        }
        targets
    }
}

/// Writes down what most functions say of most packets: this ring, this hash, or nothing. Answers false if it is anything
/// else.
#[inline(always)]
fn redirect(raw: &RawVerdict, table: &Table, item: &mut Item, tag: &mut Tag) -> bool {
    let decision = &mut item.decision;
    match raw.kind {
        RawVerdict::RING if raw.ring < table.rings() => (decision.ring, tag.ring) = (raw.ring, raw.ring),
        RawVerdict::BUILT_IN => {}
        RawVerdict::HASH => {
            (decision.hash, decision.ring) = (raw.value, table.ring(raw.value));
            (tag.hash, tag.ring, tag.hash_version) = (raw.value, decision.ring, 0);
        }
        _ => return false,
    }
    raw.slice == 0 && raw.pull == 0
}

/// Whether others depend on where this goes, or it on where another went.
#[inline]
fn is_fragment(item: &Item) -> bool {
    item.decision.dissection.is_awaiting() | item.decision.dissection.has_first_fragments()
}

fn peek<'a>(region: &'a Region, parcel: &'a Parcel, scratch: &'a mut Scratch) -> &'a [u8] {
    let first = &parcel.first;
    region.peek(&first.buffer, first.offset.into(), first.len.into(), &mut scratch.bytes)
}

/// Carries out pull and slice. Answers false, and changes nothing, if there are not that many bytes.
fn edit(parcel: &mut Parcel, raw: &RawVerdict, stock: &mut Stock) -> bool {
    let pull = raw.pull;
    if pull != 0 && pull >= parcel.first.len {
        return false;
    }
    parcel.first.offset += pull;
    parcel.first.len -= pull;
    parcel.arrival.len -= u32::from(pull);
    if raw.slice != 0 && raw.slice < parcel.arrival.len {
        parcel.arrival.len = raw.slice;
        parcel.arrival.flags |= flags::TRUNCATED;
        let cut = |len: &mut u16, left: &mut u32| {
            *len = (*len).min(u16::try_from(*left).unwrap_or(u16::MAX));
            *left -= u32::from(*len);
        };
        let mut left = raw.slice;
        cut(&mut parcel.first.len, &mut left);
        let mut keep = 0;
        while let Some(segment) = parcel.rest.get_mut(keep).filter(|_| left > 0) {
            cut(&mut segment.len, &mut left);
            keep += 1;
        }
        parcel.rest.drain(keep..).for_each(|segment| stock.put(segment.buffer));
    }
    true
}
