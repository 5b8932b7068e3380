//! The way out through a packet socket: by copy, in batches, with virtio headers.
//!
//! Unfinished checksums and merged frames are passed on to the kernel as such; a merged frame in a tunnel is taken
//! apart first. Sending never waits: what the socket has no room for is refused as `queue-full`.
//!
//! Where the port receives, this is its socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use flowyard_mem::{Region, Stock};
use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType};

use super::remedy;
use crate::interface::Interface;
use crate::transmit::gather;
use crate::transmit::virtio::{self, Way};
use crate::transmit::watch::{self, Watch};
use crate::transmit::{Departure, Leaving, Refusal, TransmitCounters, Transmitter};
use crate::{PortError, sys};

/// Frames a system call, and packets taken before they are sent.
const BATCH: usize = 64;
/// Bytes taken before they are sent.
const BATCH_BYTES: usize = 256 << 10;
/// Room for those, and for one merged frame in parts more.
const ROOM_BYTES: usize = 512 << 10;
/// Bytes that may be on their way through the kernel: some merged frames at least.
const SEND_BUFFER_BYTES: i32 = 4 << 20;

/// A frame that was taken: a packet, or a part of one.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Where it ends in the gathered bytes.
    end: usize,
    /// Whether it is the last part of its packet.
    last: bool,
    /// Whether its packet has several parts.
    apart: bool,
    /// Bytes of its packet.
    bytes: usize,
}

/// One dispatcher's way out of an interface.
pub(crate) struct PacketTransmitter {
    name: String,
    mode: String,
    fd: OwnedFd,
    watch: Watch,
    region: Region,
    /// Frames, each behind its virtio header, one after another.
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    /// A merged frame that is taken apart.
    whole: Vec<u8>,
    counters: TransmitCounters,
}

impl PacketTransmitter {
    /// A socket that only sends.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or the interface is gone.
    pub(crate) fn open(name: &str, interface: &Interface, region: &Region) -> Result<PacketTransmitter, PortError> {
        let fail = |action: &'static str| {
            move |e: std::io::Error| {
                let advice = remedy(e.raw_os_error());
                PortError::action(name, action, e, advice)
            }
        };
        let fd = sys::packet_socket(SocketType::RAW).map_err(fail("create a packet socket for sending"))?;
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1u32)
            .map_err(fail("ask for offload headers (1)"))?;
        sys::bind_packet(&fd, interface.index, 0).map_err(fail("bind a packet socket for sending"))?;
        PacketTransmitter::over(name, fd, Watch::new(name, interface)?, region)
    }

    /// Over a socket with virtio headers.
    pub(super) fn over(name: &str, fd: OwnedFd, watch: Watch, region: &Region) -> Result<PacketTransmitter, PortError> {
        // Beyond the system's limit where we may; else what there is has to do.
        let forced = sys::set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER_BYTES);
        if forced.is_err() {
            let _ = sys::set_option(&fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &SEND_BUFFER_BYTES);
        }
        Ok(PacketTransmitter {
            name: name.into(),
            mode: "packet socket".into(),
            fd,
            watch,
            region: region.clone(),
            bytes: Vec::with_capacity(ROOM_BYTES),
            frames: Vec::with_capacity(BATCH_BYTES / 256),
            whole: Vec::new(),
            counters: TransmitCounters::default(),
        })
    }

    /// Gathers a packet.
    fn take(&mut self, packet: &[Leaving], departure: &Departure) -> Result<(), Refusal> {
        self.watch.accepts(departure.link)?;
        let (start, frames) = (self.bytes.len(), self.frames.len());
        let taken = self.gather(start, packet, departure);
        if taken.is_err() {
            self.bytes.truncate(start);
            self.frames.truncate(frames);
        }
        taken
    }

    fn gather(&mut self, start: usize, packet: &[Leaving], departure: &Departure) -> Result<(), Refusal> {
        self.bytes.extend_from_slice(&[0; virtio::BYTES]);
        if !gather::append(&self.region, packet, departure, &mut self.bytes) {
            return Err(Refusal::Malformed);
        }
        let bytes = gather::len(packet);
        let frame = &self.bytes[start + virtio::BYTES..];
        match virtio::way(frame, departure, self.watch.longest(frame))? {
            Way::Whole(header) => {
                self.bytes[start..start + virtio::BYTES].copy_from_slice(&header);
                self.frames.push(Frame { end: self.bytes.len(), last: true, apart: false, bytes });
            }
            Way::Apart(cut) => {
                self.whole.clear();
                self.whole.extend_from_slice(frame);
                self.bytes.truncate(start);
                for part in 0..cut.parts {
                    self.bytes.extend_from_slice(&[0; virtio::BYTES]);
                    if !cut.append(&self.whole, part, &mut self.bytes) {
                        return Err(Refusal::Merged);
                    }
                    self.frames.push(Frame { end: self.bytes.len(), last: part + 1 == cut.parts, apart: true, bytes });
                }
            }
        }
        Ok(())
    }

    /// Sends what was gathered.
    fn transmit(&mut self) {
        let (mut at, mut again) = (0, true);
        while at < self.frames.len() {
            match self.send_some(at) {
                Ok(sent) => {
                    for frame in self.frames[at..at + sent].iter().filter(|frame| frame.last) {
                        self.counters.sent += 1;
                        self.counters.bytes += frame.bytes as u64;
                        self.counters.taken_apart += u64::from(frame.apart);
                    }
                    at += sent.max(1);
                }
                Err(Errno::INTR) => {}
                Err(e) => {
                    let why = watch::refusal(Some(e.raw_os_error()));
                    if matches!(why, Refusal::LinkDown | Refusal::Gone) {
                        self.watch.look();
                        // That it was down once, a socket says at the next call, whatever it is now.
                        if self.watch.is_running() && std::mem::take(&mut again) {
                            continue;
                        }
                    }
                    self.counters.refuse(why);
                    // Its further parts are of no use without this one.
                    let rest = self.frames[at..].iter().position(|frame| frame.last);
                    at += rest.map_or(self.frames.len() - at, |rest| rest + 1);
                }
            }
        }
        self.bytes.clear();
        self.frames.clear();
    }

    /// One system call for frames from number `at` on. Answers how many the kernel took.
    fn send_some(&self, at: usize) -> Result<usize, Errno> {
        let count = (self.frames.len() - at).min(BATCH);
        let start = |n: usize| if n == 0 { 0 } else { self.frames[n - 1].end };
        let slices: [[IoSlice<'_>; 1]; BATCH] = std::array::from_fn(|n| {
            let frame = if n < count { &self.bytes[start(at + n)..self.frames[at + n].end] } else { &[] };
            [IoSlice::new(frame)]
        });
        let mut nothing: [[MaybeUninit<u8>; 0]; BATCH] = [[]; BATCH];
        let mut controls = nothing.each_mut().map(|nothing| SendAncillaryBuffer::new(nothing));
        let mut each = slices.iter().zip(&mut controls);
        let mut messages: [MMsgHdr<'_>; BATCH] = std::array::from_fn(|_| {
            let (slice, control) = each.next().expect("as many of each");
            MMsgHdr::new(slice, control)
        });
        rustix::net::sendmmsg(self.fd.as_fd(), &mut messages[..count], SendFlags::DONTWAIT)
    }
}

impl Transmitter for PacketTransmitter {
    fn mode(&self) -> &str {
        &self.mode
    }

    fn link(&self) -> u16 {
        self.watch.link()
    }

    fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock) {
        self.counters.asked += 1;
        if self.frames.len() >= BATCH || self.bytes.len() >= BATCH_BYTES {
            self.transmit();
        }
        if self.frames.is_empty() {
            self.watch.look_now_and_then();
        }
        if let Err(why) = self.take(packet, departure) {
            self.counters.refuse(why);
        }
        gather::free(packet, stock);
    }

    fn flush(&mut self, _stock: &mut Stock) -> bool {
        self.transmit();
        false
    }

    fn counters(&self) -> TransmitCounters {
        self.counters
    }

    fn another(&self) -> Result<Box<dyn Transmitter>, PortError> {
        let fd = self.fd.try_clone().map_err(|e| PortError::action(&self.name, "use its socket twice", e, ""))?;
        Ok(Box::new(PacketTransmitter::over(&self.name, fd, self.watch.another()?, &self.region)?))
    }

    fn close(mut self: Box<Self>, _stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>) {
        self.transmit();
        (self.counters, Ok(()))
    }
}
