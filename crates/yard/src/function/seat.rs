//! A function's place in a dispatcher: the yard's own, or a group's. Calls it, holds it to its limits, and
//! switches it off when it keeps failing.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use flowyard_mem::{Region, Tag};
use flowyard_port::thread_usage;
use flowyard_steer::Table;

use super::batch::{Item, Scratch, Touched};
use super::{BATCH, Batch, Failure, FunctionCounts, Limits, RawVerdict, Sent, Steer};

/// What every round uses comes first: 64 packets leave little else in the first cache, so lines count.
#[repr(C)]
pub(crate) struct Seat {
    function: Option<Box<dyn Steer>>,
    /// A verdict a packet of the round; all built-in, but for what `touched` owns up to.
    pub(super) verdicts: Vec<RawVerdict>,
    /// Packets of the last round.
    judged: usize,
    /// The budget in units of the clock.
    budget: u64,
    /// Calls for which the thread's usage is looked at, because one took long and it is not clear whose fault that was.
    watched: u32,
    failed_in_row: u32,
    off: bool,
    failed: bool,
    /// What the function has had in its hands in the last round.
    pub(super) touched: Touched,
    /// Made with the first function: measuring its scale takes some milliseconds.
    clock: Option<quanta::Clock>,
    pub(super) counts: FunctionCounts,
    limits: Limits,
    /// Where the function sent first fragments.
    pub(super) sent: Sent,
    /// What the thread had used when it was last looked at: about ten times a second, and before each call
    /// while `watched`.
    usage: (u64, u64, u64),
}

#[cold]
#[inline(never)]
fn look_at_usage(usage: &mut (u64, u64, u64)) {
    *usage = thread_usage();
}

/// Closes a function that is not used any more: where that panics, nothing else does.
pub(crate) fn close(function: Option<Box<dyn Steer>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(function)));
}

impl std::ops::Drop for Seat {
    fn drop(&mut self) {
        close(self.function.take());
    }
}

/// Calls that are watched after one that took long.
const WATCHED: u32 = 1000;

/// What a call needs beside the packets.
pub(super) struct Sight<'a> {
    pub(super) region: &'a Region,
    pub(super) table: &'a Table,
    /// A group's function: it decides, and changes nothing.
    pub(super) group: bool,
    /// There may be fragments among the packets.
    pub(super) fragments: bool,
    /// A foreign process may write the region: packets are shown one at a time, in private copies.
    pub(super) copied: bool,
}

impl Seat {
    /// An empty seat with room for `room` verdicts at a time.
    pub(super) fn new(room: usize, sent: Sent) -> Seat {
        Seat {
            function: None,
            limits: Limits::default(),
            off: false,
            verdicts: vec![RawVerdict::default(); room],
            sent,
            counts: FunctionCounts::default(),
            judged: 0,
            touched: Touched::default(),
            failed: false,
            failed_in_row: 0,
            clock: None,
            budget: u64::MAX,
            usage: (0, 0, u64::MAX),
            watched: 0,
        }
    }

    /// Whether there is a function to be called.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.function.is_some() && !self.off
    }

    /// Puts a function here, and answers the one before. Between batches only.
    pub(super) fn replace(&mut self, new: Option<Box<dyn Steer>>, limits: Limits) -> Option<Box<dyn Steer>> {
        let mut old = std::mem::replace(&mut self.function, new);
        if self.function.is_some() {
            self.sent.prepare();
        }
        self.counts.switched_off = 0;
        (self.off, self.failed, self.failed_in_row) = (false, false, 0);
        self.limits = limits;
        // The clock's scale is linear: measured once over a million of its units.
        if self.function.is_some() {
            let clock = self.clock.get_or_insert_with(quanta::Clock::new);
            let unit_ns = clock.delta_as_nanos(0, 1 << 20) as f64 / f64::from(1 << 20);
            self.budget = (limits.budget.as_nanos() as f64 / unit_ns.max(1e-6)) as u64;
        }
        if let (Some(new), Some(old)) = (&mut self.function, &mut old) {
            self.counts.reloads += 1;
            if catch_unwind(AssertUnwindSafe(|| new.adopt(old.as_mut()))).is_err() {
                self.fail(Failure::Panicked);
            }
        }
        old
    }

    pub(super) fn function(&mut self) -> Option<&mut Box<dyn Steer>> {
        self.function.as_mut()
    }

    /// What the function counts itself; nothing if it panics over the question.
    pub(super) fn own_counts(&mut self) -> Vec<(String, u64)> {
        let Some(function) = &self.function else { return Vec::new() };
        catch_unwind(AssertUnwindSafe(|| function.counters())).unwrap_or_else(|_| {
            self.fail(Failure::Panicked);
            Vec::new()
        })
    }

    /// Notes what the thread has used so far: now and then, between batches, in the thread that calls.
    pub(super) fn look_at_usage(&mut self) {
        look_at_usage(&mut self.usage);
    }

    /// Whether a call that took too long took that long by its own doing: not because the thread had to make
    /// room for others.
    #[cold]
    fn own_doing(&mut self) -> bool {
        let (cpu_ns, voluntary, involuntary) = thread_usage();
        let before = std::mem::replace(&mut self.usage, (cpu_ns, voluntary, involuntary));
        let undisturbed = involuntary == before.2;
        // Since before this call, not since some time ago:
        let exact = self.watched > 0;
        self.watched = WATCHED;
        let busy = Duration::from_nanos(cpu_ns - before.0) > self.limits.budget;
        undisturbed || exact && (busy || voluntary > before.1)
    }

    /// Counts a failure that is one packet's.
    #[cold]
    pub(super) fn fail(&mut self, failure: Failure) {
        self.failed = true;
        self.counts.failures[failure as usize] += 1;
    }

    /// Counts a call between batches that failed: a round of its own.
    #[cold]
    pub(super) fn fail_round(&mut self, failure: Failure) {
        self.fail(failure);
        self.hold_to_limits();
    }

    /// Whether the function said nothing of any packet of the last round.
    #[inline]
    pub(super) fn is_silent(&self) -> bool {
        let words = |verdict: &RawVerdict| -> [u64; 2] { zerocopy::transmute!(*verdict) };
        let all =
            || self.verdicts[..self.judged].iter().map(words).fold([0, 0], |all, [a, b]| [all[0] | a, all[1] | b]);
        !self.touched.verdicts || all() == [0, 0]
    }

    /// Asks the function about all of `items`, in batches; its verdicts are in `verdicts` afterwards. Where
    /// a call fails the verdict is the built-in one, and `restore` puts the tag right.
    pub(super) fn judge(
        &mut self,
        sight: &Sight<'_>,
        items: &mut [Item],
        tags: &mut [Tag],
        scratch: &mut Scratch,
        restore: impl Fn(&Item) -> Tag,
    ) {
        if self.touched.verdicts {
            self.verdicts[..self.judged].fill(RawVerdict::default());
        }
        debug_assert!(self.verdicts.iter().all(|verdict| *verdict == RawVerdict::default()), "nothing was owned up to");
        self.judged = items.len();
        if self.verdicts.len() < items.len() {
            self.verdicts.resize(items.len(), RawVerdict::default()); // never so: there is room for all that is queued
        }
        self.touched = Touched::default();
        if !self.is_taken() {
            return;
        }
        self.failed = false;
        self.counts.packets += items.len() as u64;
        // One at a time where a foreign process may write: there is one private copy.
        let most = if sight.copied { 1 } else { BATCH };
        let mut at = 0;
        while at < items.len() {
            let end = items.len().min(at + most);
            self.call(sight, items, tags, scratch, at..end, &restore);
            at = end;
        }
    }

    fn call(
        &mut self,
        sight: &Sight<'_>,
        items: &mut [Item],
        tags: &mut [Tag],
        scratch: &mut Scratch,
        range: Range<usize>,
        restore: &impl Fn(&Item) -> Tag,
    ) {
        let Some(function) = &mut self.function else { return };
        let copied = sight.copied;
        let annotation_bytes = sight.region.geometry().annotation_bytes;
        if copied {
            sight.region.read_annotation(&items[range.start].parcel.first.buffer, &mut scratch.annotation);
        }
        let hash_version = tags[range.start].hash_version;
        let mut batch = Batch {
            region: sight.region,
            items: &mut items[range.clone()],
            tags: &mut tags[range.clone()],
            verdicts: &mut self.verdicts[range.clone()],
            scratch,
            table: sight.table,
            copied,
            group: sight.group,
            fragments: sight.fragments,
            hash_version,
            touched: Touched::default(),
        };
        let watching = self.watched > 0;
        if watching {
            look_at_usage(&mut self.usage);
        }
        let clock = self.clock.as_ref();
        let began = clock.map_or(0, quanta::Clock::raw);
        let said = catch_unwind(AssertUnwindSafe(|| function.steer(&mut batch)));
        let took = clock.map_or(0, quanta::Clock::raw).saturating_sub(began);
        self.touched.tags |= batch.touched.tags;
        self.touched.verdicts |= batch.touched.verdicts;
        let failure = match said {
            Ok(Err(failure)) => Some(failure),
            Err(_) => Some(Failure::Panicked),
            Ok(Ok(())) => (took > self.budget && self.own_doing()).then_some(Failure::OverBudget),
        };
        self.watched -= u32::from(watching);
        if let Some(failure) = failure {
            return self.undo(failure, range.clone(), &items[range.clone()], &mut tags[range], restore);
        }
        let items = &mut items[range];
        if copied && !sight.group {
            sight.region.set_annotation(&mut items[0].parcel.first.buffer, &scratch.annotation[..annotation_bytes]);
        }
    }

    /// Counts a call that failed: the packets go by the built-in policy, with their tags as they were.
    #[cold]
    fn undo(
        &mut self,
        failure: Failure,
        range: Range<usize>,
        items: &[Item],
        tags: &mut [Tag],
        restore: &impl Fn(&Item) -> Tag,
    ) {
        self.failed = true;
        self.counts.failures[failure as usize] += range.len() as u64;
        self.verdicts[range].fill(RawVerdict::default());
        for (tag, item) in tags.iter_mut().zip(items) {
            *tag = restore(item);
        }
    }

    /// What the later fragment of `parcel` does of which the function said nothing: what was said of the
    /// first one.
    #[cold]
    pub(super) fn follow(&mut self, at: usize, item: &Item, bytes: &[u8]) {
        let Some(datagram) = item.decision.dissection.awaited(bytes) else { return };
        if let Some(sent) = self.sent.recall(&datagram, item.parcel.now_ns) {
            let raw = &mut self.verdicts[at];
            self.touched.verdicts = true;
            (raw.kind, raw.ring, raw.value) = (sent.kind, sent.ring, sent.value);
        }
    }

    /// Switches the function off if it has failed too often in a row. Called after each round of calls.
    #[inline]
    pub(super) fn hold_to_limits(&mut self) {
        if self.failed || self.failed_in_row > 0 {
            self.count_in_row();
        }
    }

    #[cold]
    fn count_in_row(&mut self) {
        self.failed_in_row = if std::mem::take(&mut self.failed) { self.failed_in_row.saturating_add(1) } else { 0 };
        if self.failed_in_row >= self.limits.failures.max(1) && self.is_taken() {
            self.off = true;
            self.counts.switched_off = 1;
        }
    }
}
