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
