//! Ethernet carried over a fabric: FabricPath (0x8903) and TRILL (RFC 6325 section 3).

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// FabricPath: forwarding tag and time to live.
const FABRIC_PATH_LEN: usize = 2;
/// TRILL: version (2 bits), reserved (2), multi-destination, options (5 bits, in units of 4 bytes),
/// hop count (6), egress, ingress.
const TRILL_LEN: usize = 6;

#[inline]
pub(crate) fn fabric_path<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(FABRIC_PATH_LEN)?;
    Ok(Layer::Eth)
}

#[inline]
pub(crate) fn trill<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; TRILL_LEN] = walk.header()?;
    let word = u16::from_be_bytes([header[0], header[1]]);
    if word >> 14 != 0 {
        return Err(Stop::Malformed);
    }
    walk.skip(TRILL_LEN + usize::from(word >> 6 & 0x1f) * 4)?;
    Ok(Layer::Eth)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn frames_in_fabrics() {
        carries(&eth(0x8903, &join(&[0, 0x50], &eth(0x0800, &tcp4()))), "eth/fabricpath/eth/ip/tcp");
        carries(&eth(0x22f3, &join(&[0, 0x3f, 0, 1, 0, 2], &eth(0x0800, &tcp4()))), "eth/trill/eth/ip/tcp");
        // Two words of options.
        let options = join(&[0, 0xbf, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0], &eth(0x86dd, &tcp6()));
        carries(&eth(0x22f3, &options), "eth/trill/eth/ipv6/tcp");
        expect(&eth(0x22f3, &[0x40, 0, 0, 1, 0, 2]), "eth/trill", Stop::Malformed);
    }
}
