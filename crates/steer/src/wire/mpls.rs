//! MPLS label stack (RFC 3032 section 2.1) and what is under it (RFC 4928 section 3).
//!
//! MPLS does not say what it carries: the first nibble tells IPv4 (4) and IPv6 (6), but a hardware
//! address can begin so too. A header that contradicts itself is a pseudo-wire.

use super::{ethertype, ipv4, ipv6};
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Label (20 bits), traffic class (3), bottom of stack (1), time to live (8).
const LEN: usize = 4;
const BOTTOM: u32 = 0x100;
/// Generic associated channel label (RFC 5586 section 4).
const LABEL_GAL: u32 = 13;
/// Where Ethernet has its type: a pseudo-wire is believed if this is a known one.
const TYPE_AT: usize = 12;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let entry = u32::from_be_bytes(*walk.header::<LEN>()?);
    let label = entry >> 12;
    walk.skip(LEN)?;
    walk.id(Id::Mpls(label));
    if entry & BOTTOM == 0 {
        return Ok(Layer::Mpls);
    }
    walk.tunnel(TunnelKind::Mpls, label);
    if label == LABEL_GAL {
        return Ok(Layer::PwAch);
    }
    let rest = walk.rest();
    match rest.first().ok_or(Stop::Truncated)? >> 4 {
        4 if ipv4::plausible(rest) => Ok(Layer::Ip),
        6 if ipv6::plausible(rest) => Ok(Layer::Ipv6),
        0 => Ok(Layer::PwCw),
        1 => Ok(Layer::PwAch),
        _ => pseudo_wire(rest),
    }
}

/// Ethernet without a control word, if it looks like it.
#[cold]
fn pseudo_wire(rest: &[u8]) -> Step {
    let kind = rest.get(TYPE_AT..).and_then(<[u8]>::first_chunk);
    let kind = kind.map(|bytes| u16::from_be_bytes(*bytes));
    match kind {
        Some(kind) if ethertype::next(kind).is_ok() => Ok(Layer::Pw),
        _ => Err(Stop::Opaque),
    }
}
