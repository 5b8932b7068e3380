//! Headers that a capturing host adds: NFLOG (LINKTYPE_NFLOG), PKTAP (LINKTYPE_PKTAP), pflog
//! (LINKTYPE_PFLOG), a byte of direction (LINKTYPE_*_WITH_DIR).

use super::link;
use crate::walk::{Step, Walk};
use crate::{Layer, LinkType, Observer, Stop};

/// Address family at 0, version at 1, group at 2.
const NFLOG_LEN: usize = 4;
/// The attribute that is the packet.
const NFLOG_PAYLOAD: u16 = 9;
/// Attributes are few: more than this is damage.
const MAX_ATTRIBUTES: usize = 32;
/// Length at 0, link type at 8, least significant byte first.
const PKTAP_LEN: usize = 12;
/// Length at 0, without the padding to 4 bytes; address family at 1.
const PFLOG_LEN: usize = 4;

#[inline]
pub(crate) fn nflog<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[family, ..]: &[u8; NFLOG_LEN] = walk.header()?;
    walk.skip(NFLOG_LEN)?;
    for _ in 0..MAX_ATTRIBUTES {
        let &[l0, l1, t0, t1]: &[u8; 4] = walk.header()?;
        // Written in the byte order of the host: the length is small, so it tells.
        let big = walk.rest().len() < u16::from_le_bytes([l0, l1]).into();
        let read = if big { u16::from_be_bytes } else { u16::from_le_bytes };
        let (len, kind) = (usize::from(read([l0, l1])), read([t0, t1]));
        if len < 4 {
            return Err(Stop::Malformed);
        }
        if kind == NFLOG_PAYLOAD {
            walk.clip(len);
            walk.skip(4)?;
            return by_family(family);
        }
        walk.skip(len.next_multiple_of(4))?;
    }
    Err(Stop::Malformed)
}

#[inline]
pub(crate) fn pktap<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; PKTAP_LEN] = walk.header()?;
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let inner = LinkType(u16::from_le_bytes([header[8], header[9]]));
    if len < PKTAP_LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    match link::first(inner)? {
        Layer::Pktap => Err(Stop::Malformed),
        layer => Ok(layer),
    }
}

#[inline]
pub(crate) fn pflog<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[len, family, ..]: &[u8; PFLOG_LEN] = walk.header()?;
    walk.skip(usize::from(len).next_multiple_of(4).max(PFLOG_LEN))?;
    by_family(family)
}

/// A byte that says whether the host sent or received the packet.
#[inline]
pub(crate) fn direction<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(1)?;
    match walk.link() {
        LinkType::C_HDLC_WITH_DIR => Ok(Layer::Chdlc),
        LinkType::FRELAY_WITH_DIR => Ok(Layer::Fr),
        _ => Ok(Layer::Ppp),
    }
}

fn by_family(family: u8) -> Step {
    match family {
        2 => Ok(Layer::Ip),
        10 | 24 | 28 | 30 => Ok(Layer::Ipv6),
        _ => Err(Stop::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    use std::vec::Vec;

    /// An attribute of NFLOG, padded to 4 bytes.
    fn attribute(big: bool, kind: u16, value: &[u8]) -> Vec<u8> {
        let len = 4 + value.len() as u16;
        let bytes = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut attribute = [&bytes(len)[..], &bytes(kind), value].concat();
        attribute.resize(attribute.len().next_multiple_of(4), 0);
        attribute
    }

    #[test]
    fn nflog_attributes_in_both_byte_orders() {
        for big in [false, true] {
            let before = [attribute(big, 1, &[8, 0, 0, 0]), attribute(big, 10, b"prefix\0")].concat();
            let four = [&[2, 0, 0, 5][..], &before, &attribute(big, 9, &tcp4())].concat();
            is_the_flow(&expect_link(LinkType::NFLOG, &four, "nflog/ip/tcp", Stop::Transport), &four);
            let six = [&[10, 0, 0, 5][..], &before, &attribute(big, 9, &tcp6())].concat();
            is_the_flow(&expect_link(LinkType::NFLOG, &six, "nflog/ipv6/tcp", Stop::Transport), &six);
        }
        expect_link(LinkType::NFLOG, &[7, 0, 0, 0, 4, 0, 9, 0], "nflog", Stop::NotIp);
        expect_link(LinkType::NFLOG, &[2, 0, 0, 0, 3, 0, 9, 0], "nflog", Stop::Malformed);
        expect_link(LinkType::NFLOG, &[2, 0, 0, 0, 4, 0, 1, 0], "nflog", Stop::Truncated);
        let many = [&[2, 0, 0, 0][..], &attribute(false, 1, &[]).repeat(40)].concat();
        expect_link(LinkType::NFLOG, &many, "nflog", Stop::Malformed);
    }

    #[test]
    fn pktap_names_the_link_type_inside() {
        let pktap = |link: u8, packet: &[u8]| {
            let mut header = std::vec![0; 108];
            header[0] = 108;
            header[4] = 1;
            header[8] = link;
            join(&header, packet)
        };
        for link in [LinkType::PKTAP, LinkType::PKTAP_APPLE] {
            expect_link(link, &pktap(1, &eth(0x0800, &tcp4())), "pktap/eth/ip/tcp", Stop::Transport);
            expect_link(link, &pktap(0, &join(&[2, 0, 0, 0], &tcp4())), "pktap/null/ip/tcp", Stop::Transport);
            expect_link(link, &pktap(12, &tcp6()), "pktap/raw/ipv6/tcp", Stop::Transport);
            expect_link(link, &pktap(149, &[]), "pktap", Stop::Malformed);
            expect_link(link, &[9, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], "pktap", Stop::Malformed);
        }
    }

    #[test]
    fn pflog_and_direction() {
        let mut header = std::vec![0; 64];
        header[..2].copy_from_slice(&[61, 2]);
        expect_link(LinkType::PFLOG, &join(&header, &tcp4()), "pflog/ip/tcp", Stop::Transport);
        header[1] = 24;
        expect_link(LinkType::PFLOG, &join(&header, &tcp6()), "pflog/ipv6/tcp", Stop::Transport);
        let ppp = join(&[1, 0xff, 3, 0, 0x21], &tcp4());
        expect_link(LinkType::PPP_WITH_DIR, &ppp, "direction/ppp/ip/tcp", Stop::Transport);
        let hdlc = join(&[0, 0x0f, 0, 8, 0], &tcp4());
        expect_link(LinkType::C_HDLC_WITH_DIR, &hdlc, "direction/chdlc/ip/tcp", Stop::Transport);
        let relay = join(&[0, 0x18, 0x41, 3, 0xcc], &tcp4());
        expect_link(LinkType::FRELAY_WITH_DIR, &relay, "direction/fr/ip/tcp", Stop::Transport);
    }
}
