//! MPLS label stack (RFC 3032 section 2.1) and what is under it (RFC 4928 section 3).
//!
//! MPLS does not say what it carries: the first nibble tells IPv4 (4) and IPv6 (6), but a hardware
//! address can begin so too. A header that contradicts itself is a pseudo-wire.

use super::{eth, ethertype, ipv4, ipv6};
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

/// Label (20 bits), traffic class (3), bottom of stack (1), time to live (8).
pub(crate) const LEN: usize = 4;
pub(crate) const BOTTOM: u32 = 0x100;
/// Generic associated channel label (RFC 5586 section 4).
pub(crate) const LABEL_GAL: u32 = 13;
/// Where Ethernet has its type: a pseudo-wire is believed if this is a known one.
const TYPE_AT: usize = 12;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let entry = u32::from_be_bytes(*walk.header::<LEN>()?);
    let label = entry >> 12;
    walk.skip(LEN)?;
    walk.id(Id::Mpls(label));
    if entry & BOTTOM == 0 {
        return Ok(Layer::Mpls);
    }
    walk.join(KeyId::Mpls, label);
    walk.tunnel(TunnelKind::Mpls, label);
    if label == LABEL_GAL {
        return Ok(Layer::PwAch);
    }
    let rest = walk.rest();
    match rest.first().ok_or(Stop::Truncated)? >> 4 {
        4 if ipv4::plausible(rest) && (!ethernet(rest) || ipv4::sums_up(rest)) => Ok(Layer::Ip),
        6 if ipv6::plausible(rest) && (!ethernet(rest) || ipv6::fits(rest)) => Ok(Layer::Ipv6),
        0 => Ok(Layer::PwCw),
        1 => Ok(Layer::PwAch),
        _ => pseudo_wire(rest),
    }
}

/// Whether an IP packet begins behind what would be an Ethernet header.
#[inline]
fn ethernet(rest: &[u8]) -> bool {
    let Some((header, inner)) = rest.split_at_checked(eth::LEN) else {
        return false;
    };
    match header.last_chunk() {
        Some([0x08, 0x00]) => ipv4::plausible(inner),
        Some([0x86, 0xdd]) => ipv6::plausible(inner),
        _ => false,
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

/// Whether these bytes are MPLS in UDP (RFC 7510 section 3): a bottom label soon, and under it an
/// IP packet or a control word.
pub(crate) fn plausible(bytes: &[u8]) -> bool {
    let bottom = bytes.chunks_exact(LEN).take(8).position(|entry| entry[2] & 1 != 0);
    let Some(rest) = bottom.and_then(|entry| bytes.get((entry + 1) * LEN..)) else {
        return false;
    };
    ipv4::likely(rest) || ipv6::likely(rest) || rest.first() == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn what_is_under_the_bottom_label() {
        carries(&eth(0x8847, &mpls(16, false, &mpls(17, true, &tcp4()))), "eth/mpls/mpls/ip/tcp");
        carries(&eth(0x8848, &mpls(16, true, &tcp6())), "eth/mpls/ipv6/tcp");
        let word = join(&[0; 4], &eth(0x0800, &tcp4()));
        carries(&eth(0x8847, &mpls(16, true, &word)), "eth/mpls/pwcw/eth/ip/tcp");
    }

    #[test]
    fn an_address_that_begins_like_a_version() {
        for first in [0x44, 0x60] {
            let mut inner = eth(0x0800, &tcp4());
            inner[0] = first;
            inner[1] = 0;
            let frame = eth(0x8847, &mpls(16, true, &inner));
            carries(&frame, "eth/mpls/pw/eth/ip/tcp");
        }
        expect(&eth(0x8847, &mpls(16, true, &[0x90; 30])), "eth/mpls", Stop::Opaque);
        expect(&eth(0x8847, &mpls(13, true, &[0x10, 0, 0, 7])), "eth/mpls/pwach", Stop::Control);
    }
}
