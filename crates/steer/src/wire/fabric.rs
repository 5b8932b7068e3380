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
