//! Logical link control and SNAP (IEEE 802.2; RFC 1042; IEEE 802 clause 9.2).

use super::ethertype;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// DSAP at 0, SSAP at 1, control at 2.
const LEN: usize = 3;
/// Organisation at 3, protocol at 6.
const SNAP_LEN: usize = 8;

const SAP_IP: u8 = 0x06;
const SAP_SNAP: u8 = 0xaa;
const UNNUMBERED: u8 = 0x03;

/// RFC 1042: the protocol is an EtherType.
const OUI_ETHERTYPE: [u8; 3] = [0, 0, 0];
/// IEEE 802.1H: the protocol is an EtherType.
const OUI_TUNNEL: [u8; 3] = [0, 0, 0xf8];
/// RFC 2427 section 4.2, RFC 2684 section 5.2: bridged frames.
const OUI_BRIDGED: [u8; 3] = [0, 0x80, 0xc2];

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[dsap, ssap, control]: &[u8; LEN] = walk.header()?;
    if (dsap, ssap, control) == (SAP_SNAP, SAP_SNAP, UNNUMBERED) {
        return snap(walk);
    }
    walk.skip(LEN)?;
    match (dsap, control) {
        (SAP_IP, UNNUMBERED) => Ok(Layer::Ip),
        _ => Err(Stop::NotIp),
    }
}

/// RFC 2427 section 4.1: organisation and protocol after `before` bytes, without SAPs.
pub(crate) fn organised<O: Observer>(before: usize, walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(before)?;
    let &[a, b, c, high, low] = walk.header()?;
    walk.skip(5)?;
    by_organisation([a, b, c], u16::from_be_bytes([high, low]))
}

fn snap<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; SNAP_LEN] = walk.header()?;
    let [_, _, _, a, b, c, high, low] = *header;
    let protocol = u16::from_be_bytes([high, low]);
    walk.skip(SNAP_LEN)?;
    by_organisation([a, b, c], protocol)
}

fn by_organisation(organisation: [u8; 3], protocol: u16) -> Step {
    match (organisation, protocol) {
        (OUI_ETHERTYPE | OUI_TUNNEL, protocol) => ethertype::next(protocol),
        // Two bytes of padding come first over ATM only; with and without the frame check sequence.
        (OUI_BRIDGED, 0x0001 | 0x0007) => Ok(Layer::Eth),
        _ => Err(Stop::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn saps_and_snap() {
        let frame = |llc: &[u8]| eth(llc.len() as u16, llc);
        carries(&frame(&join(&[6, 6, 3], &tcp4())), "eth/llc/ip/tcp");
        let bridged = join(&[0xaa, 0xaa, 3, 0, 0x80, 0xc2, 0, 7], &eth(0x0800, &tcp4()));
        carries(&frame(&bridged), "eth/llc/eth/ip/tcp");
        expect(&frame(&[0x42, 0x42, 3, 0, 0]), "eth/llc", Stop::NotIp);
        expect(&frame(&[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0]), "eth/llc", Stop::NotIp);
        expect(&frame(&[0xaa, 0xaa, 3, 0]), "eth/llc", Stop::Truncated);
    }
}
