//! What every source of packets looks like to the yard.
//!
//! A port turns packets from somewhere into buffers of a region. It never blocks, never allocates
//! once open, and never loses a packet without counting it under a name. The dispatcher that opened
//! it owns it.
//!
//! Life of a port: [`prepare`](crate::prepare) looks at the name, finds what is needed and touches
//! nothing; [`Opener::open`] acquires (sockets, files, attached programs); [`Port::receive`] is
//! called in a loop; [`Port::close`] gives every buffer back and leaves the interface as it was
//! found. Dropping a port without closing it restores the interface as well, but loses its buffers.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use flowyard_kernel::KernelSteer;
use flowyard_mem::{Buffer, Clock, Region, Stock};

use crate::{DirectReader, PortError, Transmitter};

/// What a port is and needs, known before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name as the user wrote it, without options: `xdp:eth0`.
    pub name: String,
    /// What was found, in words for people: `4 queues, native, copy`. Final once the port is open.
    pub mode: String,
    /// Whether the source waits when nothing is received from it (a file, a generator). If not,
    /// what is not received in time is lost to the port and counted there.
    pub can_wait: bool,
    /// Whether packets arrive as time passes (an interface) rather than as fast as they are read.
    pub live: bool,
    /// Most bytes of one packet that can arrive in one buffer or several.
    pub longest_packet: usize,
    /// Buffers that the port holds on to while open (fill rings); the yard adds them to its own need.
    pub buffers_held: usize,
    /// Size of buffers the port wants, 2048 or 4096.
    pub buffer_bytes: usize,
}

/// One buffer full of what arrived. Offsets and lengths in bytes.
#[derive(Debug)]
pub struct Received {
    /// Where it lies.
    pub buffer: Buffer,
    /// Where in the buffer it starts.
    pub offset: u16,
    /// How much of the packet is in this buffer.
    pub segment_len: u16,
    /// Whether the next [`Received`] continues this packet. All segments of a packet come in one batch.
    pub more: bool,
    /// What is known of the packet; the same for each of its segments.
    pub arrival: Arrival,
}

/// What a port knows of a packet without looking into it.
///
/// Ordered so that neighbours which are neighbours in a tag as well are copied by one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Arrival {
    /// Nanoseconds by `clock`.
    pub time_ns: u64,
    /// Number of the packet at its source, from 1: frame number in a file, running number elsewhere.
    pub number: u64,
    /// Bits of [`flowyard_mem::flags`]: offloads, truncation. The top byte is zero.
    pub flags: u32,
    /// Bytes that were on the wire.
    pub wire_len: u32,
    /// The card's hash, if `flags` has CARD_HASH; of a merged frame (GSO) payload bytes of each packet that it was made
    /// of, 0 where that is not known.
    pub card_hash: u32,
    /// TCI that hardware took off, if `flags` has VLAN_STRIPPED.
    pub stripped_vlan: u16,
    /// Pcap link type of the first byte (LINKTYPE_ETHERNET = 1 …).
    pub link: u16,
    /// Bytes that arrived, over all segments.
    pub len: u32,
    /// Hardware queue, or number of the interface in a capture file.
    pub queue: u16,
    /// Clock of `time_ns`.
    pub clock: Clock,
}

/// How a call to [`Port::receive`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There may be more at once.
    Ready,
    /// Nothing now; wait on [`Port::fds`], or until the time given on the monotonic clock (replay
    /// at recorded speed), whichever comes first.
    Idle {
        /// Nanoseconds to wait at most, if the port knows.
        wait_ns: Option<u64>,
    },
    /// Stock ran out; call again when buffers have come home.
    NoBuffers,
    /// The source has ended; nothing will ever come again.
    Ended,
}

/// Counts of one port since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Packets handed to the yard.
    pub packets: u64,
    /// Their captured bytes.
    pub bytes: u64,
    /// Packets that arrived at the source and were not handed on, by name; each lost packet is in
    /// exactly one.
    pub lost: Vec<(&'static str, u64)>,
    /// Other figures worth showing, by name (wakeups, copies, …).
    pub notes: Vec<(&'static str, u64)>,
}

impl PortCounters {
    /// Sum of everything lost.
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().map(|(_, n)| n).sum()
    }
}

/// A source of packets, open.
pub trait Port: Send {
    /// What it is; `mode` says what was really got.
    fn info(&self) -> &PortInfo;

    /// Appends what has arrived to `batch`, at most until the batch holds `limit` entries (a packet
    /// of several buffers may exceed it by its own segments). Takes buffers from `stock` as needed and
    /// puts back those it finds it does not need.
    ///
    /// # Errors
    /// Only when the source itself fails (the interface is gone, the file is damaged); what could be
    /// read before the damage has been handed over by earlier calls or is in `batch`. After an error
    /// the next call answers [`Progress::Ended`].
    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError>;

    /// Descriptors that become readable when something arrives. Empty for sources that never idle.
    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// The program that steers this port's packets in the kernel, if one does: then the 32 bytes before each
    /// packet are the head of its tag ([`flowyard_kernel::Answer::read`]).
    fn kernel(&self) -> Option<Arc<Mutex<KernelSteer>>> {
        None
    }

    /// One reader a ring, where readers take what the kernel steers from it themselves; each once. Their packets are
    /// tagged as those of port `number`. What they take is in [`Port::counters`], and does not come by
    /// [`Port::receive`]; that must be called now and then all the same.
    fn readers(&mut self, _number: u16) -> Vec<DirectReader> {
        Vec::new()
    }

    /// The way out of the port, if it has one and it was asked for ([`Opener::ask_transmission`]); once. To be
    /// closed before the port is.
    ///
    /// # Errors
    /// What could not be had.
    fn transmitter(&mut self) -> Result<Option<Box<dyn Transmitter>>, PortError> {
        Ok(None)
    }

    /// Lets nothing more come to [`readers`](Port::readers): what they have not taken is still theirs.
    fn halt(&mut self) {}

    /// Counts so far. May make a system call; not for the packet path.
    fn counters(&mut self) -> PortCounters;

    /// Gives every buffer back to `stock`, leaves the interface as it was found, and answers the
    /// final counts.
    ///
    /// # Errors
    /// What could not be restored, and how to do it by hand.
    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError>;
}

/// A port looked up but not yet opened: one dispatcher's part of it.
pub trait Opener: Send {
    /// What it will be.
    fn info(&self) -> &PortInfo;

    /// Asks for a way out as well ([`Port::transmitter`]). Where a port has none that is no error: it is then known when
    /// the port is open.
    ///
    /// # Errors
    /// It cannot be had together with what else was asked for.
    fn ask_transmission(&mut self) -> Result<(), PortError> {
        Ok(())
    }

    /// Opens it over `region`, taking the buffers it holds from `stock`.
    ///
    /// # Errors
    /// Names object, action, value and remedy.
    fn open(self: Box<Self>, region: &Region, stock: &mut Stock) -> Result<Box<dyn Port>, PortError>;
}

/// A destination of packets by copy, that waits where it has to: a capture file, an interface. For tools and tests; what
/// a yard sends goes by a [`Transmitter`].
pub trait Sink: Send {
    /// Writes one packet.
    ///
    /// # Errors
    /// The destination failed.
    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), PortError>;

    /// Hands on what was held back to make batches.
    ///
    /// # Errors
    /// As [`Sink::send`].
    fn flush(&mut self) -> Result<(), PortError>;
}

/// One packet on its way to a [`Sink`].
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Time in nanoseconds since 1970, for files.
    pub time_ns: u64,
    /// Bytes that were on the wire.
    pub wire_len: u32,
    /// Pcap link type.
    pub link: u16,
    /// A comment to record with it; empty for none.
    pub comment: &'a str,
}
