//! A ring that was attached to, with the packets taken from it, which are held together and given back together.
//!
//! # Invariants of the unsafe code
//! - [`Held::kept`] holds slots that [`Consumer::keep`](flowyard::mem::Consumer::keep) gave, with the number of their
//!   pipe among those of `attached`, which is never exchanged; `of` says of which ring. Each is released once, as it
//!   is taken out of `kept`.
//! - What views and segments point to lies in the mapping of `attached`'s region, which stays as long as the ring
//!   does. They are addresses, never references: whoever follows one is told how long it is good.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flowyard::attach::{About, Attached, End};
use flowyard::mem::{Slot, Tag, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::abi::{PacketView, SegmentView};

/// How to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Look without pause.
    Spin,
    /// Let others run between two looks.
    Yield,
    /// Sleep until the yard wakes us.
    Sleep,
}

/// Looks between two questions to the kernel whether the yard is still there.
const LOOKS: u32 = 256;

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// A ring, and what was taken from it.
#[derive(Debug)]
pub struct Ring {
    attached: Attached,
    readable: OwnedFd,
    number: u64,
    slots: Vec<Slot>,
    /// What [`Ring::take`] took last.
    held: Held,
    annotation_bytes: usize,
    buffer_bytes: usize,
    texts: Texts,
}

/// Packets that are held together. To be given back to their ring: one that is dropped keeps its buffers from the yard
/// until the ring itself is dropped.
#[derive(Debug, Default)]
pub struct Held {
    /// Number of its ring.
    of: u64,
    kept: Vec<(usize, Slot)>,
    segments: Vec<SegmentView>,
    views: Vec<PacketView>,
}

// SAFETY: the addresses in it are of a mapping that belongs to no thread.
unsafe impl Send for Held {}

impl Held {
    /// The packets. What they point to is there until they are given back; then it shows other packets, and once the
    /// ring is dropped there is nothing.
    pub fn views(&self) -> &[PacketView] {
        &self.views
    }
}

/// What it is called, for C.
#[derive(Debug)]
pub struct Texts {
    /// Name of the yard.
    pub yard: CString,
    /// Name of the group.
    pub group: CString,
    /// Names of the ports.
    pub ports: Vec<CString>,
}

impl Ring {
    /// Of what was attached to.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(mut attached: Attached) -> Result<Ring, String> {
        let readable = attached.pollable();
        let readable = readable.map_err(|e| format!("cannot make a descriptor to wait on ({e}): raise their limit"))?;
        let geometry = attached.consumers()[0].region().geometry();
        let text = |text: &str| CString::new(text.replace('\0', " ")).unwrap_or_default();
        let About { yard, group, ports, .. } = attached.about();
        let texts = Texts { yard: text(yard), group: text(group), ports: ports.iter().map(|p| text(p)).collect() };
        Ok(Ring {
            attached,
            readable,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed), // each is given once, in whatever order
            slots: Vec::new(),
            held: Held::default(),
            annotation_bytes: geometry.annotation_bytes,
            buffer_bytes: geometry.buffer_bytes,
            texts,
        })
    }

    /// What the yard says of it.
    pub fn about(&self) -> &About {
        self.attached.about()
    }

    /// The same, for C.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Bytes of every packet's annotation.
    pub fn annotation_bytes(&self) -> usize {
        self.annotation_bytes
    }

    /// Bytes of every buffer.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Gives back what was taken before, and takes up to `count` packets: [`Held::views`] says how long they are good.
    pub fn take(&mut self, count: usize) -> &[PacketView] {
        let mut held = std::mem::take(&mut self.held);
        self.give_back(&mut held);
        self.fill(&mut held, count);
        self.held = held;
        self.held.views()
    }

    /// Gives back what [`Ring::take`] took.
    pub fn release(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        self.give_back(&mut held);
        self.held = held;
    }

    /// Takes up to `count` packets, to be held apart from others.
    pub fn hold(&mut self, count: usize) -> Held {
        let mut held = Held::default();
        self.fill(&mut held, count);
        held
    }

    fn fill(&mut self, held: &mut Held, count: usize) {
        held.of = self.number;
        while held.views.len() < count {
            let Some(mut packet) = self.attached.next() else { break };
            let slot = *packet.slot();
            let (data, writable) = match packet.data_mut() {
                Ok(bytes) => (bytes.as_mut_ptr(), true),
                Err(_) => (packet.data().as_ptr().cast_mut(), false),
            };
            let first = held.segments.len();
            let further = packet.segments().skip(1);
            held.segments.extend(further.map(|part| SegmentView {
                data: part.as_ptr(),
                len: part.len() as u32,
                zero: 0,
            }));
            let (pipe, consumer) = self.attached.current();
            let region = consumer.region();
            let tag = region.span(slot.buffer, region.geometry().tag_offset(), size_of::<Tag>());
            let annotation = region.span(slot.buffer, 0, self.annotation_bytes).filter(|_| self.annotation_bytes > 0);
            consumer.keep(&mut self.slots);
            held.kept.extend(self.slots.drain(..).map(|slot| (pipe, slot)));
            held.views.push(PacketView {
                data,
                len: slot.len.into(),
                total: slot.total,
                further: null(),
                further_count: (held.segments.len() - first) as u32,
                hash: slot.hash,
                tag: tag.map_or(null(), |at| at.as_ptr().cast()),
                annotation: annotation.map_or(null_mut(), |at| at.as_ptr()),
                annotation_len: self.annotation_bytes as u16,
                flags: slot.flags,
                l3: slot.l3,
                l4: slot.l4,
                time_ns: slot.time_ns,
                buffer: slot.buffer,
                port: slot.port,
                writable: writable.into(),
                zero: 0,
            });
        }
        // Now that `segments` moves no more.
        let mut rest = &held.segments[..];
        for view in &mut held.views {
            let (own, behind) = rest.split_at(view.further_count as usize);
            if !own.is_empty() {
                view.further = own.as_ptr();
            }
            rest = behind;
        }
    }

    /// Gives packets back. Those of another ring are left as they are, and false is answered.
    pub fn give_back(&mut self, held: &mut Held) -> bool {
        if held.kept.is_empty() {
            held.views.clear();
            return true;
        }
        if held.of != self.number {
            return false;
        }
        held.segments.clear();
        held.views.clear();
        let consumers = self.attached.consumers();
        for (pipe, slot) in held.kept.drain(..) {
            // SAFETY: `keep` of this very consumer gave it (`of`), and it is taken out of `kept` here (invariant).
            unsafe { consumers[pipe].release(slot) };
        }
        consumers.iter_mut().for_each(flowyard::mem::Consumer::flush);
        true
    }

    /// What there is, without waiting.
    pub fn look(&mut self) -> Wait {
        self.attached.wait(Some(Duration::ZERO))
    }

    /// Waits for packets. A signal ends a sleep early, as if the time were over.
    pub fn wait(&mut self, how: How, timeout: Option<Duration>) -> Wait {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t)); // beyond all time: none
        loop {
            let there = self.look();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if there != Wait::TimedOut || left.is_some_and(|left| left.is_zero()) {
                return there;
            }
            match how {
                How::Sleep => {
                    if self.attached.prepare_to_wait() && self.sleep(left) {
                        return self.look();
                    }
                }
                How::Spin | How::Yield => {
                    for _ in 0..LOOKS {
                        if self.attached.has_next() {
                            return Wait::Ready;
                        }
                        if how == How::Spin { std::hint::spin_loop() } else { std::thread::yield_now() }
                    }
                }
            }
        }
    }

    /// Sleeps. Answers whether a signal ended it.
    fn sleep(&self, left: Option<Duration>) -> bool {
        let left = left.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        poll(&mut [PollFd::new(&self.readable, PollFlags::IN)], left.as_ref()) == Err(Errno::INTR)
    }

    /// Readable after [`Ring::prepare_to_wait`] when there is something.
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }

    /// Announces sleep. Answers what there is: [`Wait::TimedOut`] for nothing.
    pub fn prepare_to_wait(&mut self) -> Wait {
        match self.look() {
            Wait::TimedOut if !self.attached.prepare_to_wait() => self.look(),
            there => there,
        }
    }

    /// Whether and how it ended.
    pub fn end(&mut self) -> Option<End> {
        (self.look() == Wait::Ended).then(|| self.attached.end())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.release();
    }
}
