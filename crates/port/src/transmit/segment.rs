//! A merged frame taken apart: what a card does for TCP (TSO) and UDP (USO), in software.
//!
//! Every part has all headers of the frame, tunnels included, with lengths, identifications, sequence numbers and
//! checksums of its own. Needed where the kernel cannot be told that a frame is merged: on AF_XDP rings, and for
//! tunnels, which a virtio header does not describe.

use flowyard_steer::Layer;

use super::Refusal;
use super::headers::Headers;

/// Most parts of a frame: more than 64 KiB make in parts of 128 bytes.
const MOST_PARTS: usize = 512;

// RFC 9293, section 3.1
const TCP_SEQUENCE: std::ops::Range<usize> = 4..8;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_BYTES: usize = 20;
const FIN_PSH: u8 = 0x09;
/// RFC 3168, section 6.1: of the first part alone.
const CWR: u8 = 0x80;
/// RFC 768.
const UDP_BYTES: usize = 8;
/// A GRE header with a checksum or a sequence number (RFC 2784, RFC 2890) cannot be copied.
const GRE_OF_ITS_OWN: u8 = 0x90;

/// How a frame is taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    headers: Headers,
    /// Number of the header of the innermost TCP or UDP.
    last: usize,
    /// Where its payload begins.
    pub payload_at: usize,
    /// Payload bytes of each part, but for the last.
    pub part_bytes: usize,
    /// Parts.
    pub parts: usize,
}

impl Cut {
    /// Looks how a frame can be taken apart into parts of at most `longest` bytes, with `part_bytes` of payload each
    /// if that is known (0 otherwise).
    ///
    /// # Errors
    /// [`Refusal::Merged`]: it is none that can be. [`Refusal::TooLong`]: UDP whose datagrams are longer.
    pub(crate) fn new(frame: &[u8], link: u16, part_bytes: usize, longest: usize) -> Result<Cut, Refusal> {
        let headers = Headers::of(frame, link);
        let last = headers.all().iter().rposition(|h| matches!(h.layer, Layer::Tcp | Layer::Udp));
        let last = last.ok_or(Refusal::Merged)?;
        let header = headers.all()[last];
        let copied = headers.all()[..last].iter().all(|h| match h.layer {
            Layer::Eth | Layer::Vlan | Layer::Dot1ad | Layer::Raw | Layer::Ip | Layer::Ipv6 => true,
            Layer::Udp | Layer::Vxlan | Layer::Geneve => true,
            Layer::Gre => frame.get(h.at).is_some_and(|flags| flags & GRE_OF_ITS_OWN == 0),
            _ => false,
        });
        // A merged row of tunnel packets is none of their contents: that ends before the frame does.
        let whole = headers.checksum(last, frame).is_some_and(|sum| sum.start + sum.len == frame.len());
        let bytes = frame.get(header.at..).ok_or(Refusal::Merged)?;
        let (own, udp) = match header.layer {
            Layer::Tcp if bytes.len() >= TCP_BYTES => (usize::from(bytes[TCP_DATA_OFFSET] >> 4) * 4, false),
            Layer::Udp if bytes.len() >= UDP_BYTES => (UDP_BYTES, true),
            _ => return Err(Refusal::Merged),
        };
        let payload_at = header.at + own;
        let room = longest.checked_sub(payload_at).filter(|room| *room > 0).ok_or(Refusal::TooLong)?;
        let payload = frame.len().checked_sub(payload_at).filter(|len| *len > 0).ok_or(Refusal::Merged)?;
        if !copied || !whole || (!udp && own < TCP_BYTES) {
            return Err(Refusal::Merged);
        }
        let part_bytes = match (udp, part_bytes) {
            (false, 0) => room,
            (false, known) => known.min(room),
            (true, 0) => return Err(Refusal::Merged), // where a datagram ends, nobody has said
            (true, known) if known > room => return Err(Refusal::TooLong),
            (true, known) => known,
        };
        let parts = payload.div_ceil(part_bytes);
        if parts > MOST_PARTS {
            return Err(Refusal::Merged);
        }
        Ok(Cut { headers, last, payload_at, part_bytes, parts })
    }

    /// Whether the frame is in a tunnel: there is more than one IP packet in it.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.headers.all()[..self.last].iter().filter(|h| matches!(h.layer, Layer::Ip | Layer::Ipv6)).count() != 1
    }

    /// Which of the two, and whether in IPv6.
    pub(crate) fn kind(&self) -> (Layer, bool) {
        let ip = self.headers.all()[..self.last].iter().rfind(|h| matches!(h.layer, Layer::Ip | Layer::Ipv6));
        (self.headers.all()[self.last].layer, ip.is_some_and(|h| h.layer == Layer::Ipv6))
    }

    /// Where the innermost TCP or UDP header begins.
    pub(crate) fn layer4(&self) -> usize {
        self.headers.all()[self.last].at
    }

    /// Bytes of part number `part`.
    pub(crate) fn len(&self, frame: &[u8], part: usize) -> usize {
        let rest = (frame.len() - self.payload_at).saturating_sub(part * self.part_bytes);
        self.payload_at + rest.min(self.part_bytes)
    }

    /// Appends part number `part` of the frame to `to`. Answers false if its headers do not allow it; `to` then has
    /// rubbish at its end.
    #[must_use]
    pub(crate) fn append(&self, frame: &[u8], part: usize, to: &mut Vec<u8>) -> bool {
        let start = to.len();
        let len = self.len(frame, part);
        let from = self.payload_at + part * self.part_bytes;
        let Some(payload) = frame.get(from..from + len - self.payload_at) else { return false };
        to.extend_from_slice(&frame[..self.payload_at]);
        to.extend_from_slice(payload);
        let bytes = &mut to[start..];
        for header in &self.headers.all()[..=self.last] {
            if !header.set_length(bytes, len, part as u16) {
                return false;
            }
        }
        let last = self.headers.all()[self.last];
        if last.layer == Layer::Tcp {
            let tcp = &mut bytes[last.at..];
            let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
            let sequence = sequence.wrapping_add((part * self.part_bytes) as u32);
            tcp[TCP_SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
            if part + 1 < self.parts {
                tcp[TCP_FLAGS] &= !FIN_PSH;
            }
            if part > 0 {
                tcp[TCP_FLAGS] &= !CWR;
            }
        }
        // From the inside out: an outer checksum covers the inner one.
        for at in (0..=self.last).rev() {
            let Some(checksum) = self.headers.checksum(at, bytes) else {
                if at == self.last {
                    return false;
                }
                continue;
            };
            let none = at != self.last && bytes[checksum.place()] == [0, 0]; // a tunnel that has none (RFC 6935)
            if !none {
                checksum.complete(bytes);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, PacketHeaders, SlicedPacket, TransportSlice};

    fn payload(len: usize) -> Vec<u8> {
        (0..len as u32).flat_map(|n| (n.wrapping_mul(0x9e37_79b9)).to_be_bytes()).take(len).collect()
    }

    fn tcp(len: usize, v6: bool) -> Vec<u8> {
        let ip = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v6 { ip.ipv6([1; 16], [2; 16], 64) } else { ip.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
        let mut frame = Vec::new();
        ip.tcp(1000, 2000, 0xffff_f000, 500).psh().ack(7).write(&mut frame, &payload(len)).expect("room");
        frame
    }

    /// In VXLAN, with a checksum of the outer UDP or without.
    fn wrapped(inner: &[u8], checksum: bool) -> Vec<u8> {
        let mut frame = Vec::new();
        let body = [&[8, 0, 0, 0, 0, 0, 77, 0], inner].concat();
        PacketBuilder::ethernet2([6; 6], [8; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(50_000, 4789)
            .write(&mut frame, &body)
            .expect("room");
        if !checksum {
            frame[40..42].fill(0);
        }
        frame
    }

    /// Checks a part by another library, and answers its sequence number, flags and payload.
    fn judge(frame: &[u8]) -> (u32, bool, Vec<u8>) {
        let sliced = SlicedPacket::from_ethernet(frame).expect("well formed");
        let headers = PacketHeaders::from_ethernet_slice(frame).expect("well formed");
        let net = headers.net.expect("IP");
        let ip = sliced.net.as_ref().and_then(|net| net.ip_payload_ref()).expect("IP").payload;
        if let Some((v4, _)) = net.ipv4_ref() {
            assert_eq!(v4.header_checksum, v4.calc_header_checksum());
        }
        match sliced.transport.expect("a transport") {
            TransportSlice::Tcp(tcp) => {
                let right = match (net.ipv4_ref(), net.ipv6_ref()) {
                    (Some((v4, _)), _) => tcp.calc_checksum_ipv4(v4.source, v4.destination),
                    (_, Some((v6, _))) => tcp.calc_checksum_ipv6(v6.source, v6.destination),
                    _ => panic!("IP"),
                };
                assert_eq!(tcp.checksum(), right.expect("it is no longer than that"));
                (tcp.sequence_number(), tcp.psh(), tcp.payload().to_vec())
            }
            TransportSlice::Udp(udp) => {
                assert_eq!(usize::from(udp.length()), ip.len());
                if udp.checksum() != 0 {
                    let (v4, _) = net.ipv4_ref().expect("IPv4");
                    let right = udp.to_header().calc_checksum_ipv4_raw(v4.source, v4.destination, udp.payload());
                    assert_eq!(udp.checksum(), right.expect("it is no longer than that"));
                }
                (0, false, udp.payload().to_vec())
            }
            other => panic!("{other:?}"),
        }
    }

    fn parts(frame: &[u8], part_bytes: usize, longest: usize) -> Vec<Vec<u8>> {
        let cut = Cut::new(frame, 1, part_bytes, longest).expect("TCP or UDP");
        let part = |n| {
            let mut part = vec![0xee; 3]; // what is before is left alone
            assert!(cut.append(frame, n, &mut part));
            assert_eq!(part.len() - 3, cut.len(frame, n));
            part[3..].to_vec()
        };
        (0..cut.parts).map(part).collect()
    }

    #[test]
    fn parts_are_right_by_another_librarys_reckoning() {
        for (v6, tunnel) in [(false, None), (true, None), (false, Some(true)), (true, Some(false))] {
            let whole = tcp(40_001, v6);
            let frame = tunnel.map_or(whole.clone(), |checksum| wrapped(&whole, checksum));
            let parts = parts(&frame, 1398, 1514);
            assert_eq!(parts.len(), 40_001usize.div_ceil(1398));
            let mut bytes = Vec::new();
            for (n, part) in parts.iter().enumerate() {
                assert!(part.len() <= 1514);
                let inner = match tunnel {
                    None => part.clone(),
                    Some(checksum) => {
                        assert_eq!(part[40..42] != [0, 0], checksum, "a tunnel without a checksum stays so");
                        judge(part).2[8..].to_vec()
                    }
                };
                let (sequence, psh, payload) = judge(&inner);
                assert_eq!(sequence, 0xffff_f000u32.wrapping_add(bytes.len() as u32));
                assert_eq!(psh, n + 1 == parts.len(), "pushed once, at the end");
                bytes.extend(payload);
            }
            assert!(bytes == payload(40_001));
        }
    }

    #[test]
    fn a_part_is_no_longer_than_the_interface_allows() {
        let parts = parts(&wrapped(&tcp(9000, false), false), 1448, 1514);
        assert_eq!(parts.iter().map(Vec::len).max(), Some(1514));
    }

    #[test]
    fn datagrams_keep_their_ends_or_are_refused() {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1000, 2000);
        builder.write(&mut frame, &payload(2500)).expect("room");
        let lens: Vec<_> = parts(&frame, 1000, 1514).iter().map(|part| judge(part).2.len()).collect();
        assert_eq!(lens, [1000, 1000, 500]);
        assert_eq!(Cut::new(&frame, 1, 0, 1514).err(), Some(Refusal::Merged));
        assert_eq!(Cut::new(&frame, 1, 1473, 1514).err(), Some(Refusal::TooLong));
    }

    #[test]
    fn what_is_not_tcp_or_udp_is_refused_and_no_cut_does_harm() {
        let mut frame = wrapped(&tcp(3000, false), true);
        frame[23] = 132; // SCTP
        assert_eq!(Cut::new(&frame, 1, 1000, 1514).err(), Some(Refusal::Merged));
        let whole = wrapped(&tcp(300, true), true);
        for len in 0..whole.len() {
            let Ok(cut) = Cut::new(&whole[..len], 1, 100, 1514) else { continue };
            for part in 0..cut.parts {
                let _ = cut.append(&whole[..len], part, &mut Vec::new());
            }
        }
    }
}
