//! The mix: which conversation speaks next, and in what way.

use super::carrier::Carrier;
use super::conversation::{Conversation, Flow, TCP, UDP};
use super::frame::{self, Part};
use super::pattern::{PAYLOAD_MAX, Pattern};
use super::random::Random;

/// Shares in thousandths: of UDP packets that are datagrams in fragments; of tunnelled packets
/// whose tunnel is in fragments; of packets that an ICMP error answers; of fragmented datagrams of
/// which a later fragment comes first.
const FRAGMENTED: u32 = 50;
const OUTER_FRAGMENTED: u32 = 20;
const ANSWERED: u32 = 10;
const LATER_FIRST: u32 = 250;
/// Shortest `most` for which there are fragments.
const FRAGMENTS_FROM: usize = 300;
/// Most frames made in advance: fragments waiting for their turn.
const WAITING: usize = 16;

/// How long frames are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Many short, many long, some between, as on a network's edge; frames of `least` to `most`
    /// bytes without FCS, padded where
    /// they have less to say, and longer where their headers alone are.
    Mixed {
        /// Shortest, from 60.
        least: usize,
        /// Longest, up to 1514.
        most: usize,
    },
    /// Seven of 60, four of 590, one of 1514 bytes.
    Imix,
}

/// What traffic to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MixOptions {
    /// Number of conversations, at least 1, at most [`MixOptions::MOST_FLOWS`].
    pub flows: u32,
    /// Decides everything else: the same seed makes the same packets.
    pub seed: u64,
    /// Lengths of frames.
    pub sizes: Sizes,
    /// What conversations travel in; all if empty.
    pub only: Vec<Carrier>,
    /// Packets a second, as told by their times; a million if not given.
    pub rate_pps: Option<u64>,
}

impl MixOptions {
    /// Most conversations of a mix; each takes 48 bytes.
    pub const MOST_FLOWS: u32 = 1 << 24;
}

impl Default for MixOptions {
    fn default() -> MixOptions {
        MixOptions {
            flows: 1000,
            seed: 1,
            sizes: Sizes::Mixed { least: 60, most: 1500 },
            only: Vec::new(),
            rate_pps: None,
        }
    }
}

/// What kind of packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram.
    Udp,
    /// An echo request or reply.
    Echo,
    /// The first fragment of a UDP datagram.
    FirstFragment,
    /// A later fragment of a UDP datagram: it has no ports.
    LaterFragment,
    /// The first fragment of a tunnel's outer packet.
    OuterFirstFragment,
    /// A later fragment of a tunnel's outer packet: nothing of the conversation can be seen in it.
    OuterLaterFragment,
    /// An ICMP error that quotes a packet of the conversation.
    IcmpError,
}

/// The truth about a generated packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenPacket {
    /// Bytes of the frame.
    pub len: usize,
    /// Running number, from 1.
    pub number: u64,
    /// Nanoseconds since the first packet.
    pub time_ns: u64,
    /// Number of the conversation, from 0.
    pub conversation: u32,
    /// Whether it goes from the server to the client. (An error goes against what it quotes.)
    pub backward: bool,
    /// What it is.
    pub kind: PacketKind,
}

/// A frame that was made and waits for its turn.
struct Waiting {
    frame: [u8; Mix::FRAME_BYTES],
    packet: GenPacket,
}

/// A source of frames. Allocates when made, and never again.
pub struct Mix {
    flows: Vec<Flow>,
    random: Random,
    pattern: Pattern,
    least: usize,
    most: usize,
    imix: bool,
    rate_pps: u64,
    number: u64,
    /// Counts datagrams: identifiers never meet.
    datagram: u32,
    /// Frames to send before new ones, next at the end.
    waiting: Vec<Waiting>,
    scratch: Vec<u8>,
}

/// Room for the longest datagram and what carries it.
const SCRATCH_BYTES: usize = PAYLOAD_MAX + 512;

impl std::fmt::Debug for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mix").field("flows", &self.flows.len()).field("number", &self.number).finish_non_exhaustive()
    }
}

impl Mix {
    /// Bytes that a slice must have for any frame to fit.
    pub const FRAME_BYTES: usize = 1536;

    /// Makes the conversations. Numbers beyond what [`MixOptions`] allows are brought within.
    pub fn new(options: &MixOptions) -> Mix {
        let carriers = if options.only.is_empty() { &Carrier::ALL[..] } else { &options.only };
        let count = options.flows.clamp(1, MixOptions::MOST_FLOWS);
        let (least, most, imix) = match options.sizes {
            Sizes::Mixed { least, most } => (least.clamp(60, 1514), most.clamp(60, 1514), false),
            Sizes::Imix => (60, 1514, true),
        };
        Mix {
            flows: (0..count).map(|number| Flow::new(options.seed, number, carriers)).collect(),
            random: Random::new(!options.seed),
            pattern: Pattern::new(options.seed),
            least: least.min(most),
            most,
            imix,
            rate_pps: options.rate_pps.unwrap_or(1_000_000).max(1),
            number: 0,
            datagram: 0,
            waiting: Vec::with_capacity(WAITING),
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// What conversation `number` is.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn conversation(&self, number: u32) -> Conversation {
        self.flows[number as usize].describe()
    }

    /// Number of conversations.
    pub fn conversations(&self) -> u32 {
        self.flows.len() as u32
    }

    /// The conversation of each of the first `packets` packets: element n is that of packet n+1.
    pub fn truth(options: &MixOptions, packets: usize) -> Vec<u32> {
        let mut mix = Mix::new(options);
        let mut frame = [0; Mix::FRAME_BYTES];
        std::iter::repeat_with(|| mix.next(&mut frame).conversation).take(packets).collect()
    }

    /// Writes the next frame into `out` and says what it is.
    ///
    /// # Panics
    /// If `out` is shorter than [`Mix::FRAME_BYTES`].
    #[allow(clippy::should_implement_trait, reason = "it writes into the caller's slice")]
    pub fn next(&mut self, out: &mut [u8]) -> GenPacket {
        let out = &mut out[..Mix::FRAME_BYTES];
        // Packets of others come between the fragments of a datagram, as on a network.
        let none_waits = self.waiting.is_empty();
        let mut packet =
            if none_waits || self.random.permille(300) { self.packet(out, none_waits) } else { self.waited(out) };
        packet.time_ns = self.time_ns();
        self.number += 1;
        packet.number = self.number;
        packet
    }

    fn time_ns(&self) -> u64 {
        if self.rate_pps == 1_000_000 {
            return self.number * 1000;
        }
        let (seconds, rest) = (self.number / self.rate_pps, self.number % self.rate_pps);
        seconds * 1_000_000_000 + (u128::from(rest) * 1_000_000_000 / u128::from(self.rate_pps)) as u64
    }

    /// Half of the packets come from any conversation, half from a few busy ones.
    fn choose(&mut self) -> u32 {
        let dice = self.random.next();
        let (a, b) = (dice >> 33, dice & 0xffff_ffff);
        let place = if dice >> 32 & 1 == 0 { a << 1 } else { ((a << 1) * b) >> 32 };
        ((place * self.flows.len() as u64) >> 32) as u32
    }

    /// Length of the next frame, if its headers allow.
    fn size(&mut self) -> usize {
        let dice = self.random.next();
        let (kind, place) = (dice >> 32 & 0xff, (dice & 0xffff) as usize);
        if self.imix {
            return [60, 60, 60, 60, 60, 60, 60, 590, 590, 590, 590, 1514][(kind as usize * 12) >> 8];
        }
        let span = self.most - self.least;
        let (from, wide) = match kind {
            0..110 => (0, span / 16),
            110..160 => (span / 16, span * 5 / 8),
            160..180 => (span / 3, span / 32),
            _ => (span - span / 12, span / 12),
        };
        self.least + from + ((place * (wide + 1)) >> 16)
    }

    /// One new packet; with `several`, it may be the first of a few.
    fn packet(&mut self, out: &mut [u8], several: bool) -> GenPacket {
        let conversation = self.choose();
        let flow = &self.flows[conversation as usize];
        let dice = self.random.next();
        let direction = match (flow.protocol, flow.begun) {
            // A handshake goes there, back, and there.
            (TCP, begun @ 0..3) => usize::from(begun) & 1,
            (_, 0) => 0,
            _ => (dice & 1) as usize,
        };
        if several && self.most >= FRAGMENTS_FROM {
            let place = (dice >> 8) as u32 % 1000;
            let (protocol, over_ip, begun) = (flow.protocol, flow.carrier.is_over_ip(), flow.begun);
            if begun >= 3 && place < ANSWERED {
                return self.answered(conversation, direction, out);
            }
            if protocol == UDP && place < ANSWERED + FRAGMENTED {
                return self.fragmented(conversation, direction, out);
            }
            if begun >= 3 && over_ip && place >= 1000 - OUTER_FRAGMENTED {
                return self.outer_fragmented(conversation, direction, out);
            }
        }
        let size = self.size();
        self.whole(conversation, direction, size, out)
    }

    /// A packet in one frame, of `size` bytes if its headers allow.
    fn whole(&mut self, conversation: u32, direction: usize, size: usize, out: &mut [u8]) -> GenPacket {
        let choice = self.random.next();
        let flow = &mut self.flows[conversation as usize];
        let (ip_len, transport_len) = (frame::ip_len(flow, false), frame::transport_len(flow));
        let overhead = usize::from(flow.overhead);
        let mut payload_len = size.saturating_sub(overhead + ip_len + transport_len).min(PAYLOAD_MAX);
        if flow.protocol == TCP && flow.begun < 3 {
            payload_len = 0;
        }
        let id = (choice >> 40) as u16;
        let body_len = transport_len + payload_len;
        let around = frame::carrier(out, flow, direction, ip_len + body_len, id);
        frame::ip(out, around.inner, flow, direction, body_len, None, id);
        let payload = self.pattern.payload(choice as u32, payload_len);
        frame::transport(out, around.inner + ip_len, flow, direction, payload);
        let len = frame::finish(out, &around, around.inner + ip_len + body_len, self.least);
        let kind = match flow.protocol {
            TCP => PacketKind::Tcp,
            UDP => PacketKind::Udp,
            _ => PacketKind::Echo,
        };
        GenPacket { len, number: 0, time_ns: 0, conversation, backward: direction == 1, kind }
    }

    /// A packet, and the error that answers it.
    fn answered(&mut self, conversation: u32, direction: usize, out: &mut [u8]) -> GenPacket {
        let size = self.size();
        let packet = self.whole(conversation, direction, size, out);
        let dice = self.random.next();
        let flow = &self.flows[conversation as usize];
        let inner = usize::from(flow.overhead);
        let total = match flow.inner_v6 {
            true => 40 + usize::from(u16::from_be_bytes([out[inner + 4], out[inner + 5]])),
            false => usize::from(u16::from_be_bytes([out[inner + 2], out[inner + 3]])),
        };
        // Routers quote the header and eight bytes, or more.
        let header = frame::ip_len(flow, false);
        let quoted = if dice & 1 == 0 { header + 8 } else { header + 8 + (dice >> 8) as usize % 120 };
        let room = self.most.saturating_sub(inner + header + 8);
        let quote = &out[inner..inner + quoted.min(total).min(room.max(header + 8))];
        let back = 1 - direction;
        let mut answer = [0; Mix::FRAME_BYTES];
        let id = (dice >> 16) as u16;
        let error_len = header + 8 + quote.len();
        let around = frame::carrier(&mut answer, flow, back, error_len, id);
        let error = frame::Error { code: (dice >> 32) as u32, router: (dice >> 40) as u32, id };
        error.write(&mut answer, around.inner, flow, direction, quote);
        let len = frame::finish(&mut answer, &around, around.inner + error_len, self.least);
        let kind = PacketKind::IcmpError;
        self.waiting.push(Waiting { frame: answer, packet: GenPacket { len, kind, backward: back == 1, ..packet } });
        packet
    }

    /// A UDP datagram too long for a frame.
    fn fragmented(&mut self, conversation: u32, direction: usize, out: &mut [u8]) -> GenPacket {
        let choice = self.random.next();
        self.datagram = self.datagram.wrapping_add(1);
        let id = self.datagram;
        let flow = &mut self.flows[conversation as usize];
        let header = frame::ip_len(flow, true);
        // Pieces of a multiple of eight bytes that fill a frame, but for the last.
        let piece = (self.most - usize::from(flow.overhead) - header) & !7;
        let payload_len = piece + 8 + (choice >> 32) as usize % (piece * 2);
        let payload = self.pattern.payload(choice as u32, payload_len.min(PAYLOAD_MAX));
        let body_len = frame::transport(&mut self.scratch[..], 0, flow, direction, payload);
        let swap = self.random.permille(LATER_FIRST);
        let begin = self.waiting.len();
        let mut offset = 0;
        while offset < body_len {
            let len = piece.min(body_len - offset);
            let part = Part { offset, more: offset + len < body_len, id };
            let mut bytes = [0; Mix::FRAME_BYTES];
            let around = frame::carrier(&mut bytes, flow, direction, header + len, choice as u16);
            frame::ip(&mut bytes, around.inner, flow, direction, len, Some(part), 0);
            let body = around.inner + header;
            bytes[body..body + len].copy_from_slice(&self.scratch[offset..offset + len]);
            let kind = if offset == 0 { PacketKind::FirstFragment } else { PacketKind::LaterFragment };
            let len = frame::finish(&mut bytes, &around, body + len, self.least);
            let packet = GenPacket { len, number: 0, time_ns: 0, conversation, backward: direction == 1, kind };
            self.waiting.push(Waiting { frame: bytes, packet });
            offset += piece;
        }
        self.first_of(begin, swap, out)
    }

    /// A tunnelled packet whose outer packet is too long for a frame.
    fn outer_fragmented(&mut self, conversation: u32, direction: usize, out: &mut [u8]) -> GenPacket {
        self.datagram = self.datagram.wrapping_add(1);
        let id = self.datagram;
        let mut scratch = std::mem::take(&mut self.scratch);
        let size = self.most + self.random.below(self.most as u32 / 2) as usize;
        let whole = self.whole(conversation, direction, size, &mut scratch[..]);
        let flow = &self.flows[conversation as usize];
        let (ip_at, v6) = (14, flow.outer_v6);
        let header = if v6 { 40 } else { 20 };
        let body_len = whole.len - ip_at - header;
        let piece = (self.most - ip_at - header - 8) & !7;
        let swap = self.random.permille(LATER_FIRST);
        let begin = self.waiting.len();
        let mut offset = 0;
        while offset < body_len {
            let len = piece.min(body_len - offset);
            let part = Part { offset, more: offset + len < body_len, id };
            let mut bytes = [0; Mix::FRAME_BYTES];
            let len = frame::outer_piece(&mut bytes, &scratch[..], ip_at, v6, part, len).max(self.least);
            let kind = if offset == 0 { PacketKind::OuterFirstFragment } else { PacketKind::OuterLaterFragment };
            self.waiting.push(Waiting { frame: bytes, packet: GenPacket { len, kind, ..whole } });
            offset += piece;
        }
        self.scratch = scratch;
        self.first_of(begin, swap, out)
    }

    /// Puts the waiting frames from `begin` on into the order of sending and sends the first.
    fn first_of(&mut self, begin: usize, later_first: bool, out: &mut [u8]) -> GenPacket {
        // The next one is taken from the end, so frames in order are turned round.
        if !later_first {
            self.waiting[begin..].reverse();
        }
        self.waited(out)
    }

    /// The frame whose turn it is.
    fn waited(&mut self, out: &mut [u8]) -> GenPacket {
        let Some(Waiting { frame, packet }) = self.waiting.pop() else { unreachable!("callers saw one wait") };
        out[..packet.len].copy_from_slice(&frame[..packet.len]);
        packet
    }
}
