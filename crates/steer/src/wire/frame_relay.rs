//! Frame Relay (ITU-T Q.922 annex A), multiprotocol as RFC 2427 or Cisco's EtherTypes.

use super::ethertype;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// The last byte of an address has its lowest bit set; addresses are 2 to 4 bytes.
const LAST: u8 = 1;
/// RFC 2427 section 3: unnumbered information, possibly padded, then the protocol.
const UNNUMBERED: u8 = 0x03;
/// Network layer protocol identifiers (ISO/IEC TR 9577).
const NLPID_SNAP: u8 = 0x80;
const NLPID_IPV6: u8 = 0x8e;
const NLPID_IP: u8 = 0xcc;
const NLPID_PPP: u8 = 0xcf;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let address: &[u8; 2] = walk.header()?;
    let mut len = 2;
    if address[1] & LAST == 0 {
        let rest = walk.rest().iter().skip(2).take(2);
        len += rest.take_while(|&&byte| byte & LAST == 0).count() + 1;
    }
    walk.skip(len)?;
    if walk.header::<1>()? != &[UNNUMBERED] {
        let kind = u16::from_be_bytes(*walk.header()?);
        walk.skip(2)?;
        return ethertype::next(kind);
    }
    walk.skip(1)?;
    if walk.header::<1>()? == &[0] {
        walk.skip(1)?;
    }
    let &[nlpid] = walk.header()?;
    match nlpid {
        NLPID_SNAP => super::llc::organised(1, walk),
        NLPID_IP => skip_to(Layer::Ip, walk),
        NLPID_IPV6 => skip_to(Layer::Ipv6, walk),
        NLPID_PPP => skip_to(Layer::Ppp, walk),
        _ => Err(Stop::NotIp),
    }
}

fn skip_to<O: Observer>(layer: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(1)?;
    Ok(layer)
}
