//! Ethernet II and IEEE 802.3 (IEEE 802.3 clause 3.2).

pub(crate) use super::Field;
use super::{ethertype, old_lan};
use crate::walk::{Step, Walk};
use crate::{Layer, Observer};

/// Destination address.
pub(crate) const DST: Field = 0..6;
/// Source address.
pub(crate) const SRC: Field = 6..12;
/// Length of the header with the type or length field at 12.
pub(crate) const LEN: usize = 14;
/// Smaller values of the type field are lengths (clause 3.2.6).
const MIN_TYPE: u16 = 0x0600;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    if old_lan::is_isl(header) {
        return Ok(Layer::Isl);
    }
    walk.mac();
    let kind = u16::from_be_bytes([header[12], header[13]]);
    walk.skip(LEN)?;
    by_type_or_length(kind, walk)
}

/// What follows a field that is a type, or the length of an LLC frame.
#[inline(always)]
pub(crate) fn by_type_or_length<O: Observer>(kind: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    if kind >= MIN_TYPE {
        return ethertype::next(kind);
    }
    if kind > 0 {
        walk.clip(kind.into());
    }
    Ok(Layer::Llc)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn types_and_lengths() {
        carries(&eth(0x0800, &tcp4()), "eth/ip/tcp");
        carries(&eth(0x86dd, &tcp6()), "eth/ipv6/tcp");
        let llc = snap(0x0800, &tcp4());
        carries(&eth(llc.len() as u16, &llc), "eth/llc/ip/tcp");
        expect(&eth(0x1234, &tcp4()), "eth", Stop::UnknownEthertype);
        expect(&eth(0x0806, &[0; 28]), "eth/arp", Stop::NotIp);
    }

    #[test]
    fn cut_short() {
        expect(&eth(0x0800, &[])[..13], "eth", Stop::Truncated);
        expect(&[], "eth", Stop::Truncated);
    }
}
