//! The virtio header in front of a frame that the kernel takes: how a checksum is to be finished and a merged frame to be
//! taken apart (include/uapi/linux/virtio_net.h, `struct virtio_net_hdr`). Packet sockets and TAP devices have it.

use flowyard_mem::flags;
use flowyard_steer::Layer;

use super::headers::Headers;
use super::segment::Cut;
use super::{Departure, Refusal};

/// Its length.
pub(crate) const BYTES: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;
const TCP_FLAGS: usize = 13;
const CWR: u8 = 0x80;

/// Offsets of checksums in their headers (RFC 9293, section 3.1; RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;

/// How a frame is to be given to the kernel.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "lives on the stack, for one packet; a box would be an allocation")]
pub(crate) enum Way {
    /// As it is, with this in front of it.
    Whole([u8; BYTES]),
    /// In parts, each with zeros in front of it: the header does not describe a tunnel.
    Apart(Cut),
}

/// Finds the way of a frame that an interface with frames of at most `longest` bytes is to send.
///
/// # Errors
/// Why it cannot be sent.
pub(crate) fn way(frame: &[u8], departure: &Departure, longest: usize) -> Result<Way, Refusal> {
    if departure.has(flags::TRUNCATED) {
        return Err(Refusal::Truncated);
    }
    if departure.has(flags::GSO) {
        return merged(frame, departure, longest);
    }
    if frame.len() > longest {
        return Err(Refusal::TooLong);
    }
    match Headers::of(frame, departure.link).unfinished(frame) {
        None if departure.has(flags::CHECKSUM_PARTIAL) => Err(Refusal::Checksum),
        None => Ok(Way::Whole([0; BYTES])),
        Some(sum) => Ok(Way::Whole(header([NEEDS_CHECKSUM, 0], 0, 0, sum.start as u16, sum.offset as u16))),
    }
}

#[cold]
fn merged(frame: &[u8], departure: &Departure, longest: usize) -> Result<Way, Refusal> {
    let cut = Cut::new(frame, departure.link, departure.segment_bytes.into(), longest)?;
    if cut.is_tunnel() {
        return Ok(Way::Apart(cut));
    }
    let (layer, v6) = cut.kind();
    let (kind, offset) = match (layer, v6) {
        (Layer::Tcp, false) => (GSO_TCPV4, TCP_CHECKSUM),
        (Layer::Tcp, true) => (GSO_TCPV6, TCP_CHECKSUM),
        _ => (GSO_UDP, UDP_CHECKSUM),
    };
    let start = cut.layer4();
    let congested = layer == Layer::Tcp && frame.get(start + TCP_FLAGS).is_some_and(|flags| flags & CWR != 0);
    let kind = kind | if congested { GSO_ECN } else { 0 };
    Ok(Way::Whole(header([NEEDS_CHECKSUM, kind], cut.payload_at as u16, cut.part_bytes as u16, start as u16, offset)))
}

/// Its fields are in the machine's own order.
fn header(
    [flags, kind]: [u8; 2],
    header_len: u16,
    part: u16,
    checksum_start: u16,
    checksum_offset: u16,
) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    (bytes[0], bytes[1]) = (flags, kind);
    for (at, value) in [header_len, part, checksum_start, checksum_offset].into_iter().enumerate() {
        bytes[2 + at * 2..4 + at * 2].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// What the kernel says by such a header of a frame that it hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// Bits of [`flowyard_mem::flags`].
    pub flags: u32,
    /// Payload bytes of each packet that a merged frame was made of.
    pub part_bytes: u16,
}

/// Reads one.
pub(crate) fn told(header: &[u8; BYTES]) -> Told {
    const DATA_VALID: u8 = 2;
    let mut flags = if header[0] & NEEDS_CHECKSUM != 0 { flags::CHECKSUM_PARTIAL } else { 0 };
    if header[0] & DATA_VALID != 0 {
        flags |= flags::CHECKSUM_VALID;
    }
    let merged = header[1] != 0;
    if merged {
        flags |= flags::GSO;
    }
    Told { flags, part_bytes: if merged { u16::from_ne_bytes([header[4], header[5]]) } else { 0 } }
}
