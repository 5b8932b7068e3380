//! The way out: packets that lie in buffers of the region, sent through a port.
//!
//! A [`Transmitter`] belongs to one dispatcher. It takes packets whole, counts each as asked for, and in the end as
//! sent or under exactly one [`Refusal`]. Most copy a packet as they take it, and its buffers are free again; one that
//! has the kernel read them where they lie keeps them until that is done, and is their holder as long.
//!
//! # What is finished on the way
//! - A checksum that is not filled in (told by the flags, or seen: `headers`) is passed on to a kernel that can be told
//!   so, and filled in otherwise.
//! - A VLAN tag that was taken off is put back.
//! - A merged frame is passed on as such where the kernel can be told, and otherwise taken apart (`segment`).
//!
//! What cannot be finished is refused, never sent as it is.

pub(crate) mod gather;
pub(crate) mod headers;
pub(crate) mod segment;
pub(crate) mod virtio;
pub(crate) mod watch;

use flowyard_mem::{Buffer, Clock, Stock, Tag, flags};

use crate::PortError;

/// One buffer of a packet to transmit. Offsets and lengths in bytes.
#[derive(Debug)]
pub struct Leaving {
    /// Where it lies.
    pub buffer: Buffer,
    /// Where in the buffer it starts.
    pub offset: u16,
    /// How much of the packet is in this buffer.
    pub len: u16,
}

/// What is known of a packet to transmit, besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Departure {
    /// Bits of [`flowyard_mem::flags`]: CHECKSUM_PARTIAL, GSO, VLAN_STRIPPED (the tag is to be put back),
    /// VLAN_SERVICE, TRUNCATED. Others mean nothing here.
    pub flags: u32,
    /// The tag to put back, if `flags` says so.
    pub stripped_vlan: u16,
    /// Payload bytes of each packet that a merged frame was made of; 0 where that is not known.
    pub segment_bytes: u16,
    /// Pcap link type of the first byte.
    pub link: u16,
    /// When it came, for files.
    pub time_ns: u64,
    /// By which clock.
    pub clock: Clock,
    /// Bytes that a snap length took from it.
    pub cut_bytes: u32,
}

impl Departure {
    /// Of a packet with this tag, all of which is to go out as it came in.
    pub fn of(tag: &Tag) -> Departure {
        Departure {
            flags: tag.flags & 0x00ff_ffff,
            stripped_vlan: tag.stripped_vlan,
            segment_bytes: if tag.has(flags::GSO) { u16::try_from(tag.card_hash).unwrap_or(0) } else { 0 },
            link: tag.link,
            time_ns: tag.time_ns,
            clock: tag.clock(),
            cut_bytes: tag.wire_len.saturating_sub(tag.len),
        }
    }

    pub(crate) fn has(&self, bits: u32) -> bool {
        self.flags & bits != 0
    }
}

/// Where the header begins whose checksum is not filled in, if it is TCP's or UDP's, in a frame of `frame_len` bytes of
/// which `bytes` has the headers.
pub fn unfinished_checksum(bytes: &[u8], frame_len: usize, link: u16) -> Option<usize> {
    headers::Headers::of(bytes, link).unfinished_in(bytes, frame_len).map(|sum| sum.start)
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// Why a packet was not sent. Each that was not is counted in exactly one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)*
        }

        impl Refusal {
            /// Every reason.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self { $(Refusal::$variant => $name,)* }
            }
        }
    };
}

refusals! {
    /// Longer than the interface's MTU allows, and not a merged frame that says so.
    TooLong = "too-long";
    /// The interface's queue is full: it was asked to send faster than it does.
    QueueFull = "queue-full";
    /// The interface is down, or has no carrier.
    LinkDown = "link-down";
    /// The interface is gone.
    Gone = "gone";
    /// In more buffers than the port can send from.
    SeveralBuffers = "several-buffers";
    /// A merged frame that cannot be taken apart: something other than TCP or UDP, or in a tunnel of an unknown kind.
    Merged = "merged";
    /// An unfinished checksum that cannot be filled in.
    Checksum = "checksum";
    /// Its first byte is of another link type than the port's.
    LinkType = "link-type";
    /// Cut by a snap length: what is left is not the packet.
    Truncated = "truncated";
    /// No buffer was free for the parts of a merged frame.
    NoBuffer = "no-buffer";
    /// The kernel, or the disk, refused it for another reason.
    System = "system-refused";
    /// The port has no way out.
    ReceiveOnly = "receive-only";
    /// Others hold its buffers as well.
    Shared = "shared";
    /// What its consumer wrote is no packet: outside its buffer, or without its end.
    Malformed = "malformed";
    /// Headers were pushed in front of a frame whose VLAN tag had been taken off.
    VlanInside = "vlan-inside";
    /// The yard ended before it was sent.
    Shutdown = "shutdown";
}

/// Counts of what was asked of a way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransmitCounters {
    /// Packets that it was asked to send.
    pub asked: u64,
    /// Packets sent: handed to the kernel, or written.
    pub sent: u64,
    /// Their bytes, without those of a tag put back.
    pub bytes: u64,
    /// Packets not sent, by [`Refusal`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Of those sent: checksums that were filled in here.
    pub checksums: u64,
    /// Of those sent: merged frames that were taken apart here.
    pub taken_apart: u64,
}

impl Default for TransmitCounters {
    fn default() -> Self {
        TransmitCounters { asked: 0, sent: 0, bytes: 0, refused: [0; Refusal::ALL.len()], checksums: 0, taken_apart: 0 }
    }
}

impl TransmitCounters {
    /// Counts a packet that was asked for and is not sent.
    pub fn refuse(&mut self, why: Refusal) {
        self.refused[why as usize] += 1;
    }

    /// Counts a packet of `bytes` that went at once, or did not.
    pub(crate) fn settle(&mut self, bytes: usize, outcome: Result<(), Refusal>) {
        match outcome {
            Ok(()) => {
                self.sent += 1;
                self.bytes += bytes as u64;
            }
            Err(why) => self.refuse(why),
        }
    }

    /// Sum of the refusals.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Whether asked = sent + every named refusal: so it is once a way out is closed.
    pub fn sums_agree(&self) -> bool {
        self.asked == self.sent + self.refused_total()
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &TransmitCounters) {
        self.asked += other.asked;
        self.sent += other.sent;
        self.bytes += other.bytes;
        for (mine, theirs) in self.refused.iter_mut().zip(other.refused) {
            *mine += theirs;
        }
        self.checksums += other.checksums;
        self.taken_apart += other.taken_apart;
    }
}

/// A port's way out, one dispatcher's.
///
/// Never blocks, never allocates for a packet once it has seen as large a one, never panics over what a packet
/// holds.
pub trait Transmitter: Send {
    /// How it sends, in words for people.
    fn mode(&self) -> &str;

    /// Pcap link type of the packets that it sends.
    fn link(&self) -> u16 {
        crate::link::ETHERNET
    }

    /// Takes one packet, its buffers in order. They go to `stock`, at once or from a later call of
    /// [`Transmitter::flush`]; `packet` is empty afterwards. It may be sent at the next flush only.
    fn send(&mut self, packet: &mut Vec<Leaving>, departure: &Departure, stock: &mut Stock);

    /// Sends what was taken, and gives buffers back that the kernel is done with. Answers whether it wants to be called
    /// again soon: something waits to be sent.
    fn flush(&mut self, stock: &mut Stock) -> bool;

    /// Buffers that it holds.
    fn in_flight(&self) -> usize {
        0
    }

    /// Counts so far.
    fn counters(&self) -> TransmitCounters;

    /// Another way out of the same port, for another dispatcher.
    ///
    /// # Errors
    /// What could not be had.
    fn another(&self) -> Result<Box<dyn Transmitter>, PortError>;

    /// Sends what was taken, waits a moment for what is on its way, and gives buffers back: all but those that the
    /// kernel may still read. Answers the final counts. Comes before the port is closed.
    ///
    /// # Errors
    /// The destination failed; the counts say what was not sent.
    fn close(self: Box<Self>, stock: &mut Stock) -> (TransmitCounters, Result<(), PortError>);
}
