//! What a port has counted: of its sockets, its program, its readers, and of owners before.

use flowyard_kernel::{Mark, ToHost};

use super::super::card::CardPlace;
use super::super::journal::Carried;
use super::super::program::Attachment;
use super::{Queue, XdpPort};
use crate::PortCounters;

/// What the kernel left to user space, by reason.
const MARKED: [(Mark, &str); 6] = [
    (Mark::Protocol, "marked-protocol"),
    (Mark::First, "marked-first-fragment"),
    (Mark::Ambiguous, "marked-ambiguous"),
    (Mark::Steps, "marked-steps"),
    (Mark::Offset, "marked-offset"),
    (Mark::Several, "marked-several-buffers"),
];
const _: () = assert!(MARKED.len() == Mark::ALL.len());

impl XdpPort {
    /// Queues whose packets without a socket this part counts: each by one part; with one queue asked for, those of
    /// the others are of interest.
    fn counted_queues(&self, attachment: &Attachment) -> impl Iterator<Item = u32> + use<> {
        let (all, part, parts) = (self.shared.only.is_some(), self.part, self.shared.parts);
        (0..attachment.queues()).filter(move |queue| all || queue % parts == part)
    }

    pub(super) fn count(&self) -> PortCounters {
        let (mut no_buffer, mut ring_full, mut too_long, mut passed, mut redirected) = (0, 0, 0, 0, 0);
        let (mut fill_empty, mut fill_invalid, mut to_host, mut no_room) = (0, 0, 0, 0);
        for Queue { sockets, before, .. } in &self.queues {
            self.each_lane(sockets, |n, lane| {
                let Ok(s) = lane.statistics() else { return };
                no_buffer += s.rx_dropped;
                ring_full += s.rx_ring_full.unwrap_or(0);
                fill_invalid += s.rx_invalid_descs;
                // One figure for all sockets on a fill ring: the first tells.
                fill_empty += s.rx_fill_ring_empty_descs.filter(|_| n == 0).unwrap_or(0);
            });
            if let Some(attachment) = &self.attachment {
                let now = attachment.counts(sockets.queue);
                too_long += now.too_long - before.too_long;
                redirected += now.redirected - before.redirected;
            }
        }
        if let Some(attachment) = &self.attachment {
            for counts in self.counted_queues(attachment).map(|queue| attachment.counts(queue)) {
                passed += counts.passed; // for whatever reason: all take the fallback
                to_host += counts.to_host;
                no_room += counts.no_room;
            }
        }
        // Without a way to the host, what no socket takes is dropped.
        let dropped = if self.shared.host == ToHost::Nothing { std::mem::take(&mut passed) } else { 0 };
        // The card counts for the whole interface: the first part tells.
        let missed = if self.part == 0 { self.missed.saturating_sub(self.missed_at_start) } else { 0 };
        let (mut packets, mut bytes, mut invalid) = (self.packets, self.bytes, self.invalid);
        for counts in self.direct.iter().map(|ring| ring.counts()) {
            packets += counts.packets + counts.unread;
            bytes += counts.bytes + counts.unread_bytes;
            invalid += counts.invalid;
        }
        let mut counters = PortCounters {
            packets,
            bytes,
            lost: vec![
                ("no-buffer", no_buffer),
                ("ring-full", ring_full),
                ("too-long", too_long),
                ("invalid-descriptor", invalid),
                ("undelivered", self.undelivered),
                ("unaccounted", self.unaccounted),
                ("not-to-host", dropped),
            ],
            notes: vec![
                ("redirected", redirected),
                ("passed-to-host", passed),
                ("to-host", to_host),
                ("card-missed", missed),
                ("fill-ring-empty", fill_empty),
                ("fill-invalid", fill_invalid),
                ("wakeups", self.wakeups),
                ("link-down", self.link_downs),
                ("queues-added", self.queues_added),
                ("queues-refused", self.queues_refused),
            ],
        };
        if self.card == CardPlace::BeforePacket {
            counters.notes.push(("of-which-without-metadata", no_room)); // of what passed to the host, or not to the host
        }
        self.count_steering(&mut counters.notes);
        self.count_before(&mut counters.notes);
        counters
    }

    /// What owners before left, who did not end in order.
    fn count_before(&self, notes: &mut Vec<(&'static str, u64)>) {
        let Some(attachment) = self.attachment.as_ref().filter(|_| self.part == 0) else { return };
        let Carried { owners, received, lost, unread, passed, unseen } = attachment.carried();
        notes.extend([
            ("before-owners", owners),
            ("before-received", received),
            ("before-lost", lost),
            ("before-unread", unread),
            ("before-passed-to-host", passed),
            ("before-unseen", unseen),
        ]);
    }

    /// What the steering program did: by what came out of its sockets, and by its own word.
    fn count_steering(&self, notes: &mut Vec<(&'static str, u64)>) {
        let Some(attachment) = self.attachment.as_ref().filter(|a| a.kernel().is_some()) else { return };
        let (mut steered, mut left, mut no_room, mut by_user) = (0, 0, 0, 0);
        let mut by_mark = MARKED.map(|(_, name)| (name, 0));
        for Queue { sockets, .. } in &self.queues {
            let marked = self.shared.sizes.lanes - 1; // the last
            self.each_lane(sockets, |n, lane| *(if n == marked { &mut left } else { &mut steered }) += lane.taken);
            let counts = attachment.steering_counts(sockets.queue);
            for ((_, sum), (mark, _)) in by_mark.iter_mut().zip(MARKED) {
                *sum += counts.marked_by(mark);
            }
        }
        for counts in self.counted_queues(attachment).map(|queue| attachment.steering_counts(queue)) {
            no_room += counts.no_room;
            by_user += counts.by_user();
        }
        notes.push(("steered-in-kernel", steered));
        notes.push(("steered-in-user-space", left));
        notes.extend(by_mark);
        notes.push(("of-which-without-metadata", no_room)); // of what passed to the host, or not to the host
        notes.push(("ended-in-users-program", by_user));
    }
}
