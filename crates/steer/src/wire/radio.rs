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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    use std::vec::Vec;

    /// A data frame to the access point, with LLC.
    fn data() -> Vec<u8> {
        let mut frame = std::vec![0x08, 0x01, 0, 0];
        frame.extend([2; 18]);
        frame.extend([0x10, 0]);
        join(&frame, &snap(0x0800, &tcp4()))
    }

    #[test]
    fn radiotap_headers_have_a_length() {
        // Flags and rate present; and the same with an extended bitmap.
        let short = [0, 0, 10, 0, 0x06, 0, 0, 0, 0x10, 0x0c];
        expect_link(LinkType::RADIOTAP, &join(&short, &data()), "radiotap/wlan/llc/ip/tcp", Stop::Transport);
        let long = [0, 0, 12, 0, 0, 0, 0, 0x80, 0, 0, 0, 0];
        expect_link(LinkType::RADIOTAP, &join(&long, &data()), "radiotap/wlan/llc/ip/tcp", Stop::Transport);
        expect_link(LinkType::RADIOTAP, &[1, 0, 8, 0, 0, 0, 0, 0], "radiotap", Stop::Malformed);
        expect_link(LinkType::RADIOTAP, &[0, 0, 7, 0, 0, 0, 0, 0], "radiotap", Stop::Malformed);
        expect_link(LinkType::RADIOTAP, &[0, 0, 99, 0, 0, 0, 0, 0], "radiotap", Stop::Truncated);
    }

    #[test]
    fn ppi_names_the_link_type_inside() {
        let ppi = |link: u8, packet: &[u8]| join(&[0, 0, 12, 0, link, 0, 0, 0, 2, 0, 0, 0], packet);
        expect_link(LinkType::PPI, &ppi(105, &data()), "ppi/wlan/llc/ip/tcp", Stop::Transport);
        expect_link(LinkType::PPI, &ppi(1, &eth(0x0800, &tcp4())), "ppi/eth/ip/tcp", Stop::Transport);
        expect_link(LinkType::PPI, &ppi(192, &[]), "ppi", Stop::Malformed);
        expect_link(LinkType::PPI, &ppi(147, &[]), "ppi", Stop::UnknownLink);
    }

    #[test]
    fn prism_in_both_byte_orders_and_avs() {
        let mut prism = std::vec![0; 144];
        prism[..8].copy_from_slice(&[0x44, 0, 0, 0, 144, 0, 0, 0]);
        expect_link(LinkType::PRISM, &join(&prism, &data()), "prism/wlan/llc/ip/tcp", Stop::Transport);
        prism[..8].copy_from_slice(&[0, 0, 0, 0x44, 0, 0, 0, 144]);
        expect_link(LinkType::PRISM, &join(&prism, &data()), "prism/wlan/llc/ip/tcp", Stop::Transport);
        let mut avs = std::vec![0; 64];
        avs[..8].copy_from_slice(&[0x80, 0x21, 0x10, 0x01, 0, 0, 0, 64]);
        expect_link(LinkType::AVS, &join(&avs, &data()), "prism/wlan/llc/ip/tcp", Stop::Transport);
        expect_link(LinkType::PRISM, &data(), "prism/wlan/llc/ip/tcp", Stop::Transport);
        avs[7] = 4;
        expect_link(LinkType::AVS, &avs, "prism", Stop::Malformed);
    }
}
