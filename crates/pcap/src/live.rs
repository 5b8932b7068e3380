//! A ring that a handle is attached to: packets as libpcap gives them.
//!
//! A packet in one buffer is shown where it lies; one of several, or one whose VLAN tag was taken off, is put together
//! in a buffer of the handle, as libpcap does on Linux. It stays until the next one is asked for.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use flowyard::attach::Attached;
use flowyard::mem::{Clock, Packet, Wait, flags};
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::handle::Settings;
use crate::pcap_h::*;
use crate::real;

/// What `pcap_stats` tells. Read by signal handlers as well.
#[derive(Debug, Default)]
pub struct Counts {
    /// Packets that the filter let through.
    pub received: AtomicU32,
    /// Packets of another link type than the handle's.
    pub other_link: AtomicU32,
}

/// A packet as it is handed to a program.
#[derive(Clone, Copy)]
pub struct Taken {
    pub header: PacketHeader,
    /// Good until the next packet is asked for.
    pub data: *const u8,
}

/// The ring, and what belongs to it.
pub struct Live {
    pub ring: Attached,
    /// Readable when there may be packets, after an announcement.
    pub readable: OwnedFd,
    /// What the program selects on: `readable`, or that there is something to be had right away (`more`).
    watch: OwnedFd,
    more: OwnedFd,
    is_selectable: bool,
    /// The program may have a packet in its hands, where the yard received it.
    lent: bool,
    /// The real library's handle, for its compiler and for writing files.
    dead: Dead,
    link: c_int,
    filter: Option<Vec<Instruction>>,
    pub direction: c_int,
    bytes: Vec<u8>,
    /// The packet that told the link type, in `bytes`.
    first: Option<Meta>,
}

/// A handle of the real library's `pcap_open_dead`.
struct Dead(*mut PcapT);

// SAFETY: an open_dead handle belongs to no thread; it is used under the lock of the handle that owns this one.
unsafe impl Send for Dead {}

impl Drop for Dead {
    fn drop(&mut self) {
        if let Some(close) = real!(pcap_close: fn(*mut PcapT)) {
            // SAFETY: made by `Dead::new`, closed here alone.
            unsafe { close(self.0) };
        }
    }
}

impl Dead {
    fn new(link: c_int, settings: &Settings) -> Result<Dead, String> {
        let open = real!(pcap_open_dead_with_tstamp_precision: fn(c_int, c_int, c_uint) -> *mut PcapT);
        let open = open.ok_or("cannot find libpcap.so.0.8 to compile filters with: install libpcap0.8")?;
        // SAFETY: any numbers will do.
        let dead = unsafe { open(link, settings.snaplen, c_uint::from(settings.nano)) };
        if dead.is_null() { Err("libpcap has no memory for a handle".into()) } else { Ok(Dead(dead)) }
    }
}

/// What is known of a packet beside its bytes.
#[derive(Debug, Clone, Copy)]
struct Meta {
    time_ns: u64,
    wire_len: u32,
    link: c_int,
    outgoing: bool,
    /// The TPID and TCI to be put back.
    vlan: Option<[u8; 4]>,
}

impl Meta {
    fn of(packet: &Packet<'_>) -> Meta {
        let tag = packet.tag();
        let time_ns = match tag.clock() {
            Clock::None => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
                now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
            }
            _ => tag.time_ns,
        };
        let [high, low] = tag.stripped_vlan.to_be_bytes();
        let vlan = tag.has(flags::VLAN_STRIPPED) && tag.link == DLT_EN10MB as u16;
        let tpid = if tag.has(flags::VLAN_SERVICE) { [0x88, 0xa8] } else { [0x81, 0x00] };
        Meta {
            time_ns,
            wire_len: tag.wire_len.max(packet.len() as u32),
            link: dlt_of(tag.link),
            outgoing: tag.has(flags::OUTGOING),
            vlan: vlan.then_some([tpid[0], tpid[1], high, low]),
        }
    }
}

/// Destination and source: behind them goes a VLAN tag that was taken off.
const MACS: usize = 12;

/// Puts a packet together in `bytes`.
fn assemble(packet: &Packet<'_>, meta: &mut Meta, bytes: &mut Vec<u8>) {
    bytes.clear();
    packet.segments().for_each(|segment| bytes.extend_from_slice(segment));
    if let Some(vlan) = meta.vlan.take().filter(|_| bytes.len() >= MACS) {
        bytes.splice(MACS..MACS, vlan);
        meta.wire_len = meta.wire_len.saturating_add(vlan.len() as u32);
    }
}

impl Live {
    /// Waits up to `patience` for a packet, to learn the link type.
    pub fn new(mut ring: Attached, settings: &Settings, patience: Duration) -> Result<Live, String> {
        let fail = |error: std::io::Error| format!("cannot make descriptors to wait on ({error}): raise their limit");
        let readable = ring.pollable().map_err(fail)?;
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| fail(e.into()))?;
        let more = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| fail(e.into()))?;
        for fd in [&readable, &more] {
            let (data, wanted) = (epoll::EventData::new_u64(0), epoll::EventFlags::IN);
            epoll::add(&watch, fd, data, wanted).map_err(|e| fail(e.into()))?;
        }
        let (mut bytes, mut first) = (Vec::new(), None);
        if ring.wait(Some(patience)) == Wait::Ready
            && let Some(packet) = ring.next()
        {
            let mut meta = Meta::of(&packet);
            assemble(&packet, &mut meta, &mut bytes);
            first = Some(meta);
        }
        let link = first.map_or(DLT_EN10MB, |meta| meta.link);
        let dead = Dead::new(link, settings)?;
        let (is_selectable, filter, direction) = (false, None, DIRECTION_BOTH);
        let lent = false;
        Ok(Live { ring, readable, watch, more, is_selectable, lent, dead, link, filter, direction, bytes, first })
    }

    /// The link type, as a DLT.
    pub fn link(&self) -> c_int {
        self.link
    }

    /// The real library's handle: of the same link type, snap length and precision.
    pub fn dead(&self) -> *mut PcapT {
        self.dead.0
    }

    /// Takes a filter. Instructions were checked by libpcap.
    pub fn set_filter(&mut self, filter: Vec<Instruction>) {
        self.filter = Some(filter);
    }

    /// What to select on.
    pub fn selectable(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// From now on the descriptor is kept in order.
    pub fn be_selectable(&mut self) {
        if !self.is_selectable {
            self.is_selectable = true;
            if self.lent {
                // The program has a packet in its hands: readable, until the next read has looked.
                let _ = rustix::io::write(&self.more, &1u64.to_ne_bytes());
            } else {
                self.rearm();
            }
        }
    }

    /// Before the program selects: the descriptor is readable if there is something to be had, and will be when
    /// there is. Packets handed out are let go of.
    pub fn rearm(&mut self) {
        if !self.is_selectable {
            return;
        }
        self.lent = false; // what is in its hands is a copy (Handle::to_stay)
        let idle = self.first.is_none()
            && self.ring.wait(Some(Duration::ZERO)) == Wait::TimedOut // takes old wakeups out
            && self.ring.prepare_to_wait();
        let mut eight = [0; 8];
        if idle {
            let _ = rustix::io::read(&self.more, &mut eight); // it may not have been set
        } else {
            let _ = rustix::io::write(&self.more, &1u64.to_ne_bytes());
        }
    }

    pub fn is_selectable(&self) -> bool {
        self.is_selectable
    }

    /// The next packet that is wanted, if there is one now.
    pub fn next(&mut self, settings: &Settings, counts: &Counts, stop: &AtomicBool) -> Option<Taken> {
        let taken = self.take(settings, counts, stop);
        self.lent = taken.is_some();
        taken
    }

    fn take(&mut self, settings: &Settings, counts: &Counts, stop: &AtomicBool) -> Option<Taken> {
        if let Some(meta) = self.first.take()
            && let Some(taken) = self.judge(&meta, self.bytes.as_ptr(), self.bytes.len(), settings, counts)
        {
            return Some(taken);
        }
        while !stop.load(Ordering::Relaxed) {
            let packet = self.ring.next()?;
            let mut meta = Meta::of(&packet);
            let (data, len) = if packet.is_segmented() || meta.vlan.is_some() {
                assemble(&packet, &mut meta, &mut self.bytes);
                (self.bytes.as_ptr(), self.bytes.len())
            } else {
                (packet.data().as_ptr(), packet.data().len())
            };
            if let Some(taken) = self.judge(&meta, data, len, settings, counts) {
                return Some(taken);
            }
        }
        None
    }

    /// As it is shown, if it is wanted.
    fn judge(&self, meta: &Meta, data: *const u8, len: usize, settings: &Settings, counts: &Counts) -> Option<Taken> {
        let wanted = match self.direction {
            DIRECTION_IN => !meta.outgoing,
            DIRECTION_OUT => meta.outgoing,
            _ => true,
        };
        if !wanted {
            return None;
        }
        if meta.link != self.link {
            counts.other_link.fetch_add(1, Ordering::Relaxed); // a count on its own
            return None;
        }
        let len = len as u32;
        if let Some(filter) = &self.filter {
            let run = real!(bpf_filter: fn(*const Instruction, *const u8, c_uint, c_uint) -> c_uint)?;
            // SAFETY: bpf_validate found the instructions good (`filter::set`); `data` has `len` bytes, of the packet
            // in hand or of `bytes`, neither of which changes before this returns.
            if unsafe { run(filter.as_ptr(), data, meta.wire_len, len) } == 0 {
                return None;
            }
        }
        counts.received.fetch_add(1, Ordering::Relaxed); // a count on its own
        let part = if settings.nano { 1 } else { 1000 };
        let ts = libc::timeval {
            tv_sec: (meta.time_ns / 1_000_000_000) as i64,
            tv_usec: (meta.time_ns % 1_000_000_000 / part) as i64,
        };
        Some(Taken { header: PacketHeader { ts, caplen: len.min(settings.snaplen as u32), len: meta.wire_len }, data })
    }

    /// Has a packet stay when the descriptor is put in order: copies it out of its buffer.
    pub fn copied(&mut self, taken: Taken) -> Taken {
        if taken.data != self.bytes.as_ptr() {
            // SAFETY: `taken` is the packet in hand, at least `caplen` bytes of it (`judge`), and not in `bytes`.
            let bytes = unsafe { std::slice::from_raw_parts(taken.data, taken.header.caplen as usize) };
            self.bytes.clear();
            self.bytes.extend_from_slice(bytes);
        }
        Taken { data: self.bytes.as_ptr(), ..taken }
    }
}
