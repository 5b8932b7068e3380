//! What captures put before IEEE 802.11 frames: radiotap (radiotap.org), PPI (CACE "Per-Packet
//! Information Header"), Prism and AVS (LINKTYPE_IEEE802_11_PRISM).

use super::link;
use crate::walk::{Step, Walk};
use crate::{Layer, LinkType, Observer, Stop};

/// Version at 0, length at 2, least significant byte first; PPI has the link type at 4.
const LEN: usize = 8;
/// Prism: message code at 0, its length at 4.
const PRISM_CODE: u32 = 0x44;
/// AVS: magic number at 0, length at 4, most significant byte first.
const AVS_MAGIC: u32 = 0x8021_1001;
const AVS_MAGIC_2: u32 = 0x8021_1002;

#[inline]
pub(crate) fn radiotap<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[version, _, l0, l1, ..]: &[u8; LEN] = walk.header()?;
    let len = u16::from_le_bytes([l0, l1]).into();
    if version != 0 || len < LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    Ok(Layer::Wlan)
}

#[inline]
pub(crate) fn ppi<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[_, _, l0, l1, d0, d1, _, _]: &[u8; LEN] = walk.header()?;
    let len = u16::from_le_bytes([l0, l1]).into();
    let inner = LinkType(u16::from_le_bytes([d0, d1]));
    if len < LEN || inner == LinkType::PPI {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    link::first(inner)
}

#[inline]
pub(crate) fn prism<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[c0, c1, c2, c3, l0, l1, l2, l3]: &[u8; LEN] = walk.header()?;
    let (code, len) = ([c0, c1, c2, c3], [l0, l1, l2, l3]);
    let len = match u32::from_be_bytes(code) {
        AVS_MAGIC | AVS_MAGIC_2 => u32::from_be_bytes(len),
        PRISM_CODE => u32::from_be_bytes(len),
        _ if u32::from_le_bytes(code) == PRISM_CODE => u32::from_le_bytes(len),
        // No header after all, as some drivers do.
        _ => return Ok(Layer::Wlan),
    };
    let len = len as usize;
    if len < LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    Ok(Layer::Wlan)
}
