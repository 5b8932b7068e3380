//! The way out of a queue's AF_XDP socket: the kernel reads packets where they lie.
//!
//! ```text
//! a packet's buffers ─▶ transmit ring ─▶ the kernel ─▶ completion ring ─▶ stock
//! ```
//!
//! This is the buffers' holder until they are on the completion ring. The kernel cannot be told that a checksum is
//! unfinished or a frame merged: checksums are filled in here, in place, and merged frames are taken apart into buffers
//! of their own. Both rings belong to the socket that owns the queue's fill ring; they have one owner, this.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowyard_mem::{Lent, Region, Stock, flags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::ring::{CompletionRing, Descriptor, TransmitRing};
use crate::PortError;
use crate::interface::Interface;
use crate::packet::PacketTransmitter;
use crate::transmit::gather::{self, ADDRESSES_BYTES, BUFFER_BYTES};
use crate::transmit::headers::Headers;
use crate::transmit::segment::Cut;
use crate::transmit::watch::Watch;
use crate::transmit::{Departure, Leaving, Refusal, TransmitCounters, Transmitter};

/// How long closing waits for what is on its way.
const CLOSE_PATIENCE: Duration = Duration::from_millis(100);
/// System calls without progress before a flush gives up; copying sockets send 32 packets a call.
const IDLE_CALLS: u32 = 2;
/// Most buffers of one packet (MAX_SKB_FRAGS, include/linux/skbuff.h, and the head).
const MOST_BUFFERS: usize = 17;

/// The rings of a socket that sends, and the socket.
#[derive(Debug)]
pub(super) struct TransmitRings {
    // Before the descriptor: a mapped ring keeps a socket, and its hold on the queue, alive.
    pub transmit: TransmitRing,
    pub completion: CompletionRing,
    pub socket: Arc<OwnedFd>,
    pub queue: u32,
    pub zero_copy: bool,
    pub several_buffers: bool,
}

/// One dispatcher's way out of an interface, by one of its queues.
pub(super) struct XdpTransmitter {
    name: String,
    mode: String,
    rings: TransmitRings,
    interface: Interface,
    watch: Watch,
    region: Region,
    lent: Lent,
    /// Packets pushed and not yet shown to the kernel, or not yet looked for.
    dirty: bool,
    /// A packet put together.
    whole: Vec<u8>,
    /// A part of a merged frame.
    part: Vec<u8>,
    scratch: Box<[u8; BUFFER_BYTES]>,
    counters: TransmitCounters,
}

impl XdpTransmitter {
    /// Over the rings of a socket bound to `interface`.
    pub(super) fn new(
        name: &str,
        interface: &Interface,
        rings: TransmitRings,
        region: &Region,
    ) -> Result<XdpTransmitter, PortError> {
        let words = if rings.zero_copy { "zero-copy" } else { "copy" };
        Ok(XdpTransmitter {
            name: name.into(),
            mode: format!("AF_XDP, queue {}, {words}", rings.queue),
            rings,
            interface: interface.clone(),
            watch: Watch::new(name, interface)?,
            region: region.clone(),
            lent: region.lent(),
            dirty: false,
            whole: Vec::new(),
            part: Vec::new(),
            scratch: Box::new([0; BUFFER_BYTES]),
            counters: TransmitCounters::default(),
        })
    }

    /// Puts a packet on the ring. What stays in `packet` goes back to the stock.
    fn take(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) -> Result<(), Refusal> {
        self.watch.accepts(departure.link)?;
        if departure.has(flags::TRUNCATED) {
            return Err(Refusal::Truncated);
        }
        if departure.has(flags::GSO) {
            return self.take_merged(packet, departure, stock);
        }
        let in_place = match &mut packet[..] {
            [one] => tagged_in_place(&self.region, one, departure),
            _ => false,
        };
        if in_place { self.take_one(packet, departure) } else { self.take_several(packet, departure, stock) }
    }

    /// One buffer, as it lies.
    fn take_one(&mut self, packet: &mut Vec<Leaving>, departure: &Departure) -> Result<(), Refusal> {
        let Some(one) = packet.first_mut() else { return Err(Refusal::Malformed) };
        let (offset, len) = (usize::from(one.offset), usize::from(one.len));
        let bytes = self.region.peek(&one.buffer, offset, len, &mut self.scratch[..]);
        if len > self.watch.longest(bytes) {
            return Err(Refusal::TooLong);
        }
        let open = Headers::of(bytes, departure.link).unfinished(bytes).map(|sum| (sum.place(), sum.value(bytes)));
        if open.is_none() && departure.has(flags::CHECKSUM_PARTIAL) {
            return Err(Refusal::Checksum);
        }
        if let Some((place, value)) = &open {
            let fits = self.region.write(&mut one.buffer, offset + place.start, value);
            debug_assert!(fits, "read there just now");
        }
        let bytes = gather::len(packet) as u64;
        self.push(packet, bytes)?;
        self.counters.checksums += u64::from(open.is_some());
        Ok(())
    }

    /// Several buffers, or one without room for its VLAN tag: put together, finished, and laid out anew.
    #[cold]
    fn take_several(
        &mut self,
        packet: &mut Vec<Leaving>,
        departure: &Departure,
        stock: &mut Stock,
    ) -> Result<(), Refusal> {
        let bytes = gather::len(packet) as u64;
        self.whole.clear();
        if !gather::append(&self.region, packet, departure, &mut self.whole) {
            return Err(Refusal::Malformed);
        }
        if self.whole.len() > self.watch.longest(&self.whole) {
            return Err(Refusal::TooLong);
        }
        let open = Headers::of(&self.whole, departure.link).unfinished(&self.whole);
        match open {
            Some(sum) => sum.complete(&mut self.whole),
            None if departure.has(flags::CHECKSUM_PARTIAL) => return Err(Refusal::Checksum),
            None => {}
        }
        let geometry = self.region.geometry();
        let (at, room) = (geometry.packet_offset(), geometry.packet_capacity());
        let needed = self.whole.len().div_ceil(room);
        if needed > 1 && (!self.rings.several_buffers || needed > MOST_BUFFERS) {
            return Err(Refusal::SeveralBuffers);
        }
        while packet.len() > needed {
            packet.pop().into_iter().for_each(|segment| stock.put(segment.buffer));
        }
        while packet.len() < needed {
            let buffer = stock.take().ok_or(Refusal::NoBuffer)?;
            packet.push(Leaving { buffer, offset: 0, len: 0 });
        }
        for (segment, piece) in packet.iter_mut().zip(self.whole.chunks(room)) {
            let fits = self.region.write(&mut segment.buffer, at, piece);
            debug_assert!(fits, "no longer than a buffer's capacity");
            (segment.offset, segment.len) = (at as u16, piece.len() as u16);
        }
        self.push(packet, bytes)?;
        self.counters.checksums += u64::from(open.is_some());
        Ok(())
    }

    /// A merged frame: its parts, each in a buffer from the stock.
    #[cold]
    fn take_merged(
        &mut self,
        packet: &mut Vec<Leaving>,
        departure: &Departure,
        stock: &mut Stock,
    ) -> Result<(), Refusal> {
        self.whole.clear();
        if !gather::append(&self.region, packet, departure, &mut self.whole) {
            return Err(Refusal::Malformed);
        }
        let bytes = gather::len(packet) as u64;
        gather::free(packet, stock);
        let (at, room) = (self.region.geometry().packet_offset(), self.region.geometry().packet_capacity());
        let longest = self.watch.longest(&self.whole).min(room);
        let cut = Cut::new(&self.whole, departure.link, departure.segment_bytes.into(), longest)?;
        // All parts or none.
        if self.room(cut.parts as u32, stock) < cut.parts as u32 {
            return Err(Refusal::QueueFull);
        }
        if stock.len() < cut.parts {
            return Err(Refusal::NoBuffer);
        }
        for part in 0..cut.parts {
            self.part.clear();
            if !cut.append(&self.whole, part, &mut self.part) {
                return Err(Refusal::Merged);
            }
            let mut buffer = stock.take().ok_or(Refusal::NoBuffer)?;
            let fits = self.region.write(&mut buffer, at, &self.part);
            debug_assert!(fits, "cut to the buffer's capacity");
            packet.push(Leaving { buffer, offset: at as u16, len: self.part.len() as u16 });
        }
        let buffer_bytes = self.region.geometry().buffer_bytes as u64;
        let last = packet.len() - 1;
        for (n, Leaving { buffer, offset, len }) in packet.drain(..).enumerate() {
            let address = u64::from(self.lent.lend(buffer)) * buffer_bytes + u64::from(offset);
            self.rings.transmit.push(Descriptor { address, len: len.into(), options: 0 }, n == last);
        }
        self.dirty = true;
        self.counters.sent += 1;
        self.counters.bytes += bytes;
        self.counters.taken_apart += 1;
        Ok(())
    }

    /// Room on the ring for `wanted` packets, if need be after having the kernel empty it.
    fn room(&mut self, wanted: u32, stock: &mut Stock) -> u32 {
        let free = self.rings.transmit.free(wanted);
        if free >= wanted {
            return free;
        }
        self.kick();
        self.complete(stock);
        self.rings.transmit.free(wanted)
    }

    /// Pushes a packet whose buffers are laid out. The caller has looked that the ring has room.
    fn push(&mut self, packet: &mut Vec<Leaving>, bytes: u64) -> Result<(), Refusal> {
        if self.rings.transmit.free(packet.len() as u32) < packet.len() as u32 {
            return Err(Refusal::QueueFull);
        }
        let buffer_bytes = self.region.geometry().buffer_bytes as u64;
        let last = packet.len() - 1;
        for (n, Leaving { buffer, offset, len }) in packet.drain(..).enumerate() {
            let address = u64::from(self.lent.lend(buffer)) * buffer_bytes + u64::from(offset);
            let options = if n < last { libc::XDP_PKT_CONTD } else { 0 };
            self.rings.transmit.push(Descriptor { address, len: len.into(), options }, n == last);
        }
        self.dirty = true;
        self.counters.sent += 1;
        self.counters.bytes += bytes;
        Ok(())
    }

    /// Shows the kernel what was pushed, and has it look. Answers whether something is left that it has not taken.
    fn kick(&mut self) -> bool {
        self.rings.transmit.commit();
        let mut idle = 0;
        let mut left = self.rings.transmit.unread();
        while left > 0 && idle < IDLE_CALLS && (!self.rings.zero_copy || self.rings.transmit.needs_wakeup()) {
            let outcome = rustix::net::send(self.rings.socket.as_fd(), &[], SendFlags::DONTWAIT);
            let now = self.rings.transmit.unread();
            match outcome {
                // It took a packet and the device dropped it (__xsk_generic_xmit, net/xdp/xsk.c).
                Err(Errno::BUSY) if now < left && self.rings.transmit.read_an_end() => {
                    self.counters.sent -= 1;
                    self.counters.refuse(Refusal::QueueFull);
                }
                Err(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => {
                    self.watch.look();
                    return true;
                }
                Ok(_) | Err(_) => {}
            }
            idle = if now < left { 0 } else { idle + 1 };
            left = now;
        }
        left > 0
    }

    /// Takes back what the kernel is done with.
    fn complete(&mut self, stock: &mut Stock) {
        let buffer_bytes = self.region.geometry().buffer_bytes as u64;
        let ready = self.rings.completion.ready();
        for n in 0..ready {
            let index = u32::try_from(self.rings.completion.peek(n) / buffer_bytes).unwrap_or(u32::MAX);
            self.lent.take(index).into_iter().for_each(|buffer| stock.put(buffer));
        }
        if ready > 0 {
            self.rings.completion.release(ready);
        }
    }
}

/// Puts a VLAN tag that was taken off back in front of a packet, if there is one and room for it. Answers whether the
/// packet can go out from where it lies.
fn tagged_in_place(region: &Region, one: &mut Leaving, departure: &Departure) -> bool {
    let Some(tag) = gather::vlan(departure) else { return true };
    let offset = usize::from(one.offset);
    let mut scratch = [0; ADDRESSES_BYTES];
    let addresses = region.peek(&one.buffer, offset, ADDRESSES_BYTES.min(one.len.into()), &mut scratch);
    let Ok(addresses) = <[u8; ADDRESSES_BYTES]>::try_from(addresses) else { return false };
    let Some(start) = offset.checked_sub(tag.len()).filter(|start| *start >= region.geometry().tag_offset()) else {
        return false;
    };
    let fits = region.write(&mut one.buffer, start, &addresses)
        && region.write(&mut one.buffer, start + ADDRESSES_BYTES, &tag);
    debug_assert!(fits, "within the buffer");
    (one.offset, one.len) = (start as u16, one.len + tag.len() as u16);
    true
}

impl Transmitter for XdpTransmitter {
    fn mode(&self) -> &str {
        &self.mode
    }

    fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) {
        self.counters.asked += 1;
        if !self.dirty {
            self.watch.look_now_and_then();
        }
        let wanted = packet.len().max(1) as u32;
        let taken = match self.room(wanted, stock) {
            room if room < wanted => Err(Refusal::QueueFull),
            _ => self.take(packet, departure, stock),
        };
        if let Err(why) = taken {
            self.counters.refuse(why);
        }
        gather::free(packet, stock);
    }

    fn flush(&mut self, stock: &mut Stock) -> bool {
        let mut left = false;
        if std::mem::take(&mut self.dirty) {
            left = self.kick();
            self.dirty = left;
        }
        if !self.lent.is_empty() {
            self.complete(stock);
        }
        // Where the interface is down nothing can be hoped for soon.
        left && self.watch.is_running()
    }

    fn in_flight(&self) -> usize {
        self.lent.len()
    }

    fn counters(&self) -> TransmitCounters {
        self.counters
    }

    fn another(&self) -> Result<Box<dyn Transmitter>, PortError> {
        Ok(Box::new(PacketTransmitter::open(&self.name, &self.interface, &self.region)?))
    }

    fn close(mut self: Box<Self>, stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        loop {
            self.kick();
            self.complete(stock);
            if self.lent.is_empty() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // What the kernel has not taken is not sent, and goes with the ring.
        for _ in 0..self.rings.transmit.unread_packets() {
            self.counters.sent -= 1;
            self.counters.refuse(Refusal::Shutdown);
        }
        // A socket that copies reads buffers in our own system calls alone, and there are no more of those.
        if !self.rings.zero_copy {
            self.lent.take_all(stock);
        }
        (self.counters, Ok(()))
    }
}
