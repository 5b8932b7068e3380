//! ERSPAN types I, II and III (draft-foschiano-erspan-03 section 4): mirrored Ethernet in GRE.

use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Type II: version at 0 (high nibble), session in the low 10 bits at 2.
const LEN_II: usize = 8;
/// Type III adds a time stamp and flags; the last bit says that a subheader follows.
const LEN_III: usize = 12;
const SUBHEADER_LEN: usize = 8;
const VERSION_II: u8 = 1;
const VERSION_III: u8 = 2;

/// Types II and III: [`super::gre`] goes straight to Ethernet for type I, which has no header.
#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN_II] = walk.header()?;
    let version = header[0] >> 4;
    let mut len = LEN_II;
    if version == VERSION_III {
        let header: &[u8; LEN_III] = walk.header()?;
        len = LEN_III + usize::from(header[11] & 1) * SUBHEADER_LEN;
    } else if version != VERSION_II {
        return Err(Stop::Malformed);
    }
    walk.id(Id::ErspanVersion(version + 1));
    walk.id(Id::ErspanSession(u16::from_be_bytes([header[2] & 3, header[3]])));
    walk.skip(len)?;
    Ok(Layer::Eth)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{Id, LinkType, Stop};

    fn carried(packet: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 47, packet))
    }

    #[test]
    fn types_one_to_three() {
        let inner = eth(0x0800, &tcp4());
        carries(&carried(&gre(0, 0x88be, &inner)), "eth/ip/gre/eth/ip/tcp");
        for three in [false, true] {
            let frame = carried(&erspan(three, &inner));
            carries(&frame, "eth/ip/gre/erspan/eth/ip/tcp");
            let ids = look(LinkType::ETHERNET, &frame).1.ids;
            assert!(ids.contains(&Id::ErspanVersion(if three { 3 } else { 2 })) && ids.contains(&Id::ErspanSession(7)));
        }
        // Type III with its platform subheader.
        let header = [0x20, 0, 3, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let frame = carried(&gre(0x1000, 0x22eb, &join(&header, &inner)));
        carries(&frame, "eth/ip/gre/erspan/eth/ip/tcp");
        assert!(look(LinkType::ETHERNET, &frame).1.ids.contains(&Id::ErspanSession(1023)));
    }

    #[test]
    fn damage() {
        expect(&carried(&gre(0x1000, 0x88be, &[0x50; 40])), "eth/ip/gre/erspan", Stop::Malformed);
        expect(&carried(&gre(0x1000, 0x22eb, &[0x20; 11])), "eth/ip/gre/erspan", Stop::Truncated);
    }
}
