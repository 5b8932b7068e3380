//! Writing headers: carriers around an IP packet, the packet itself, and their checksums.
//!
//! Lengths are known before anything is written, so each header is written once, front to back.
//! Slices are long enough by construction: a frame never exceeds what [`Flow`]'s overhead and the
//! mix's sizes allow, and an index out of bounds is our own mistake.

use super::carrier::Carrier;
use super::conversation::{Flow, ICMP, ICMPV6, TCP, UDP};

const ETH_IPV4: u16 = 0x0800;
const ETH_IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging: an Ethernet frame in GRE.
const ETH_TEB: u16 = 0x6558;
const GRE: u8 = 47;
const IPV6_FRAGMENT: u8 = 44;
const GTP_PORT: u16 = 2152;
const VXLAN_PORT: u16 = 4789;

/// Bits of [`Flow::variant`]; each carrier has its own.
mod variant {
    pub(super) const GRE_KEY: u8 = 1;
    pub(super) const GRE_TEB: u8 = 2;
    pub(super) const GRE_SEQUENCE: u8 = 4;
    pub(super) const GTP_SEQUENCE: u8 = 1;
    pub(super) const GTP_PDU_SESSION: u8 = 2;
    pub(super) const MPLS_LABELS: u8 = 3;
    pub(super) const MPLS_PSEUDO_WIRE: u8 = 0x60;
}

/// Where things are in a frame whose carrier has been written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// Offset of the innermost IP header.
    pub(super) inner: usize,
    /// Offset of an outer UDP header whose checksum covers all behind it (IPv6).
    outer_sum: Option<usize>,
}

/// Which part of a datagram an IP header announces: offset in bytes, whether more follow, identifier.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) offset: usize,
    pub(super) more: bool,
    pub(super) id: u32,
}

/// Sum of 16-bit big-endian words; an odd last byte counts as the high half of one.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut sum: u64 = words.by_ref().map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let rest = words.remainder();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    (sum >> 32) + (sum & 0xffff_ffff)
}

/// Folds a sum of words, or of 32-bit pairs of them, to 16 bits.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// A cursor over the frame.
struct Pen<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Pen<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    #[inline]
    fn put16(&mut self, value: u16) {
        self.put(value.to_be_bytes());
    }

    #[inline]
    fn put32(&mut self, value: u32) {
        self.put(value.to_be_bytes());
    }

    /// Destination, source and type; locally administered addresses of the two sides.
    #[inline]
    fn ethernet(&mut self, sides: [u32; 2], direction: usize, kind: u16) {
        for side in [1 - direction, direction] {
            self.put([0x02, 0xf1]);
            self.put32(sides[side]);
        }
        self.put16(kind);
    }

    /// An outer header between tunnel ends.
    fn outer_ip(&mut self, flow: &Flow, direction: usize, protocol: u8, payload_len: usize, id: u16) {
        let (from, to) = (flow.ends[direction], flow.ends[1 - direction]);
        if flow.outer_v6 {
            let net = 0x2001_0db8_00ff_0000_0000_0000_0000_0000;
            ipv6(self.out, self.at, net | u128::from(from), net | u128::from(to), protocol, payload_len, None);
            self.at += 40;
        } else {
            let net = 172 << 24 | 16 << 16;
            let part = Part { offset: 0, more: false, id: id.into() };
            ipv4(self.out, self.at, net | from, net | to, protocol, payload_len, Some(part), id);
            self.at += 20;
        }
    }

    /// An outer UDP header; its checksum stays 0, which IPv4 allows.
    fn outer_udp(&mut self, from: u16, to: u16, payload_len: usize) {
        self.put16(from);
        self.put16(to);
        self.put16((8 + payload_len) as u16);
        self.put16(0);
    }
}

/// Writes what carries an IP packet of `inner_len` bytes.
pub(super) fn carrier(out: &mut [u8], flow: &Flow, direction: usize, inner_len: usize, id: u16) -> Around {
    let mut pen = Pen { out, at: 0 };
    let ip = if flow.inner_v6 { ETH_IPV6 } else { ETH_IPV4 };
    let outer = if flow.outer_v6 { ETH_IPV6 } else { ETH_IPV4 };
    let outer_len = if flow.outer_v6 { 40 } else { 20 };
    let mut outer_ip = None;
    let sides = [1, 2];
    let has = |bits: u8| flow.variant & bits == bits;
    let tunnel_id = flow.ids[direction];
    match flow.carrier {
        Carrier::Plain => pen.ethernet(sides, direction, ip),
        Carrier::Vlan => {
            pen.ethernet(sides, direction, 0x8100);
            pen.put16(flow.ids[0] as u16);
            pen.put16(ip);
        }
        Carrier::Qinq => {
            pen.ethernet(sides, direction, 0x88a8);
            pen.put16((tunnel_id >> 16) as u16);
            pen.put16(0x8100);
            pen.put16(tunnel_id as u16);
            pen.put16(ip);
        }
        Carrier::Pppoe => {
            pen.ethernet(sides, direction, 0x8864);
            pen.put([0x11, 0]);
            pen.put16(tunnel_id as u16);
            pen.put16((inner_len + 2) as u16);
            pen.put16(if flow.inner_v6 { 0x0057 } else { 0x0021 });
        }
        Carrier::Mpls => {
            pen.ethernet(sides, direction, 0x8847);
            for label in 0..(flow.variant & variant::MPLS_LABELS) % 3 {
                pen.put32((tunnel_id + 1 + u32::from(label)) << 12 | 64);
            }
            pen.put32(tunnel_id << 12 | 1 << 8 | 64);
            if has(variant::MPLS_PSEUDO_WIRE) {
                pen.put32(0); // control word
                pen.ethernet(flow.hosts, direction, ip);
            }
        }
        Carrier::Gre => {
            let (key, teb, sequence) = (has(variant::GRE_KEY), has(variant::GRE_TEB), has(variant::GRE_SEQUENCE));
            let header = 4 + if key { 4 } else { 0 } + if sequence { 4 } else { 0 };
            let inside = header + if teb { 14 } else { 0 } + inner_len;
            pen.ethernet(sides, direction, outer);
            outer_ip = Some(pen.at);
            pen.outer_ip(flow, direction, GRE, inside, id);
            pen.put16(if key { 0x2000 } else { 0 } | if sequence { 0x1000 } else { 0 });
            pen.put16(if teb { ETH_TEB } else { ip });
            if key {
                pen.put32(tunnel_id);
            }
            if sequence {
                pen.put32(id.into());
            }
            if teb {
                pen.ethernet(flow.hosts, direction, ip);
            }
        }
        Carrier::Gtp => {
            let (sequence, session) = (has(variant::GTP_SEQUENCE), has(variant::GTP_PDU_SESSION));
            let options = if sequence || session { 4 } else { 0 } + if session { 4 } else { 0 };
            pen.ethernet(sides, direction, outer);
            outer_ip = Some(pen.at);
            pen.outer_ip(flow, direction, UDP, 16 + options + inner_len, id);
            pen.outer_udp(flow.outer_ports[direction], GTP_PORT, 8 + options + inner_len);
            pen.put([0x30 | if session { 4 } else { 0 } | if sequence { 2 } else { 0 }, 0xff]);
            pen.put16((options + inner_len) as u16);
            pen.put32(tunnel_id);
            if options > 0 {
                pen.put16(if sequence { id } else { 0 });
                pen.put([0, if session { 0x85 } else { 0 }]);
            }
            if session {
                // PDU session container: one unit of four bytes, downlink or uplink, QFI 9, none next.
                pen.put([1, if direction == 0 { 0x10 } else { 0 }, 9, 0]);
            }
        }
        Carrier::Vxlan => {
            pen.ethernet(sides, direction, outer);
            outer_ip = Some(pen.at);
            pen.outer_ip(flow, direction, UDP, 30 + inner_len, id);
            pen.outer_udp(flow.outer_ports[direction], VXLAN_PORT, 22 + inner_len);
            pen.put32(0x0800_0000);
            pen.put32(tunnel_id << 8);
            pen.ethernet(flow.hosts, direction, ip);
        }
    }
    let over_udp = matches!(flow.carrier, Carrier::Gtp | Carrier::Vxlan);
    let outer_sum = outer_ip.filter(|_| flow.outer_v6 && over_udp).map(|at| at + outer_len);
    Around { inner: pen.at, outer_sum }
}

/// Completes a frame of `len` bytes: the outer checksum, and padding to `least` bytes.
#[inline]
pub(super) fn finish(out: &mut [u8], around: &Around, len: usize, least: usize) -> usize {
    if let Some(udp) = around.outer_sum {
        // Pseudo-header: the two addresses right in front, the length, the protocol.
        let words = sum(&out[udp - 32..len]) + (len - udp) as u64 + u64::from(UDP);
        put_sum(out, udp + 6, words);
    }
    if len < least {
        out[len..least].fill(0);
    }
    len.max(least)
}

/// Puts the complement of a sum; never 0, which UDP reads as "none".
fn put_sum(out: &mut [u8], at: usize, words: u64) {
    let value = !fold(words);
    let value = if value == 0 { 0xffff } else { value };
    out[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[allow(clippy::too_many_arguments, reason = "the fields of one header")]
#[inline]
fn ipv4(out: &mut [u8], at: usize, from: u32, to: u32, protocol: u8, payload_len: usize, part: Option<Part>, id: u16) {
    let fragment = match part {
        None => 0x4000, // do not fragment
        Some(part) => (part.offset / 8) as u16 | if part.more { 0x2000 } else { 0 },
    };
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&((20 + payload_len) as u16).to_be_bytes());
    header[4..6].copy_from_slice(&id.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from.to_be_bytes());
    header[16..20].copy_from_slice(&to.to_be_bytes());
    let check = !fold(sum(&header));
    header[10..12].copy_from_slice(&check.to_be_bytes());
    out[at..at + 20].copy_from_slice(&header);
}

#[inline]
fn ipv6(out: &mut [u8], at: usize, from: u128, to: u128, protocol: u8, payload_len: usize, part: Option<Part>) {
    let extra = if part.is_some() { 8 } else { 0 };
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&((payload_len + extra) as u16).to_be_bytes());
    header[6] = if part.is_some() { IPV6_FRAGMENT } else { protocol };
    header[7] = 64;
    header[8..24].copy_from_slice(&from.to_be_bytes());
    header[24..40].copy_from_slice(&to.to_be_bytes());
    out[at..at + 40].copy_from_slice(&header);
    if let Some(part) = part {
        let field = part.offset as u16 & !7 | u16::from(part.more);
        out[at + 40..at + 42].copy_from_slice(&[protocol, 0]);
        out[at + 42..at + 44].copy_from_slice(&field.to_be_bytes());
        out[at + 44..at + 48].copy_from_slice(&part.id.to_be_bytes());
    }
}

/// Bytes of the inner IP header.
#[inline]
pub(super) fn ip_len(flow: &Flow, fragment: bool) -> usize {
    match (flow.inner_v6, fragment) {
        (false, _) => 20,
        (true, false) => 40,
        (true, true) => 48,
    }
}

/// Writes the inner IP header; answers its length.
#[inline]
pub(super) fn ip(
    out: &mut [u8],
    at: usize,
    flow: &Flow,
    direction: usize,
    payload_len: usize,
    part: Option<Part>,
    id: u16,
) -> usize {
    let (from, to) = (direction, 1 - direction);
    if flow.inner_v6 {
        ipv6(out, at, flow.v6(from), flow.v6(to), flow.protocol, payload_len, part);
    } else {
        ipv4(out, at, flow.v4(from), flow.v4(to), flow.protocol, payload_len, part, part.map_or(id, |p| p.id as u16));
    }
    ip_len(flow, part.is_some())
}

/// Bytes of the layer-4 header of a packet of this conversation.
#[inline]
pub(super) fn transport_len(flow: &Flow) -> usize {
    match flow.protocol {
        TCP if flow.begun < 2 => 24,
        TCP => 20,
        _ => 8,
    }
}

/// Writes a layer-4 header and its payload at `at`, with the checksum; answers their length.
/// Moves the conversation on.
#[inline]
pub(super) fn transport(out: &mut [u8], at: usize, flow: &mut Flow, direction: usize, payload: (&[u8], u32)) -> usize {
    let (bytes, bytes_sum) = payload;
    let header_len = transport_len(flow);
    let len = header_len + bytes.len();
    let other = 1 - direction;
    let sum_at = match flow.protocol {
        TCP => {
            let mut pen = Pen { out, at };
            pen.put16(flow.ports[direction]);
            pen.put16(flow.ports[other]);
            pen.put32(flow.seq[direction]);
            let flags: u8 = match flow.begun {
                0 => 0x02,
                1 => 0x12,
                _ if bytes.is_empty() => 0x10,
                _ => 0x18,
            };
            pen.put32(if flow.begun == 0 { 0 } else { flow.seq[other] });
            pen.put([(header_len as u8 / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            if flow.begun < 2 {
                pen.put([2, 4, 0x05, 0xb4]); // maximum segment size 1460
            }
            let advance = if flow.begun < 2 { 1 } else { bytes.len() as u32 };
            flow.seq[direction] = flow.seq[direction].wrapping_add(advance);
            16
        }
        UDP => {
            let mut pen = Pen { out, at };
            pen.put16(flow.ports[direction]);
            pen.put16(flow.ports[other]);
            pen.put32((len as u32) << 16);
            6
        }
        _ => {
            let kind = match (flow.protocol, direction) {
                (ICMP, 0) => 8,
                (ICMP, _) => 0,
                (_, 0) => 128,
                (_, _) => 129,
            };
            let mut pen = Pen { out, at };
            pen.put([kind, 0, 0, 0]);
            pen.put16(flow.ports[0]);
            pen.put16(flow.seq[0] as u16);
            // A reply repeats the number of the request before it.
            flow.seq[0] = flow.seq[0].wrapping_add(direction as u32);
            2
        }
    };
    flow.begun = (flow.begun + 1).min(3);
    out[at + header_len..at + len].copy_from_slice(bytes);
    let words = sum(&out[at..at + header_len]) + u64::from(bytes_sum) + pseudo(flow, len);
    put_sum(out, at + sum_at, words);
    len
}

/// The pseudo-header's share of a checksum; ICMP for IPv4 has none.
#[inline]
fn pseudo(flow: &Flow, len: usize) -> u64 {
    if flow.inner_v6 {
        let both = [flow.v6(0), flow.v6(1)];
        let words = |a: u128| {
            (a >> 96) as u64 + u64::from((a >> 64) as u32) + u64::from((a >> 32) as u32) + u64::from(a as u32)
        };
        words(both[0]) + words(both[1]) + len as u64 + u64::from(flow.protocol)
    } else if flow.protocol == ICMP {
        0
    } else {
        u64::from(flow.v4(0)) + u64::from(flow.v4(1)) + len as u64 + u64::from(flow.protocol)
    }
}

/// An ICMP error about a packet of a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Error {
    /// Picks the kind: port unreachable, too big, hop limit.
    pub(super) code: u32,
    /// Picks the router that sends it.
    pub(super) router: u32,
    /// IPv4 identifier.
    pub(super) id: u16,
}

impl Error {
    /// Writes IP and ICMP headers and the quote of a packet that went in `direction`.
    pub(super) fn write(self, out: &mut [u8], at: usize, flow: &Flow, direction: usize, quote: &[u8]) {
        let payload_len = 8 + quote.len();
        let (protocol, kinds, ip_len) = match flow.inner_v6 {
            true => (ICMPV6, [[1, 4, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]], 40),
            false => (ICMP, [[3, 3, 0, 0], [3, 4, 0, 0], [11, 0, 0, 0]], 20),
        };
        let kind = self.code as usize % 3;
        // The host itself answers for a port; a router for the rest.
        let sender = if kind == 0 { flow.hosts[1 - direction] } else { 0x00fe_0000 | self.router & 0xff };
        let mtu: u32 = if kind == 1 { 1400 } else { 0 };
        let body = at + ip_len;
        out[body..body + 4].copy_from_slice(&kinds[kind]);
        out[body + 4..body + 8].copy_from_slice(&mtu.to_be_bytes());
        out[body + 8..body + payload_len].copy_from_slice(quote);
        let mut words = sum(&out[body..body + payload_len]);
        if flow.inner_v6 {
            let from = flow.v6(0) & !0xffff_ffff | u128::from(sender);
            ipv6(out, at, from, flow.v6(direction), protocol, payload_len, None);
            words += sum(&out[at + 8..at + 40]) + payload_len as u64 + u64::from(protocol);
        } else {
            ipv4(out, at, 10 << 24 | sender, flow.v4(direction), protocol, payload_len, None, self.id);
        }
        put_sum(out, body + 2, words);
    }
}

/// Cuts the outer IP packet of `frame` at `offset` (a multiple of eight) of its payload, and writes
/// the piece of `len` bytes from there as a frame of its own; answers the frame's length.
pub(super) fn outer_piece(out: &mut [u8], frame: &[u8], ip_at: usize, v6: bool, part: Part, len: usize) -> usize {
    let header_len = if v6 { 40 } else { 20 };
    let payload = &frame[ip_at + header_len..][part.offset..][..len];
    out[..ip_at].copy_from_slice(&frame[..ip_at]);
    let header = &frame[ip_at..ip_at + header_len];
    let written = if v6 {
        let address = |at: usize| header[at..at + 16].iter().fold(0u128, |a, &b| a << 8 | u128::from(b));
        ipv6(out, ip_at, address(8), address(24), header[6], len, Some(part));
        48
    } else {
        let address = |at: usize| header[at..at + 4].iter().fold(0u32, |a, &b| a << 8 | u32::from(b));
        ipv4(out, ip_at, address(12), address(16), header[9], len, Some(part), part.id as u16);
        20
    };
    let body = ip_at + written;
    out[body..body + len].copy_from_slice(payload);
    body + len
}
