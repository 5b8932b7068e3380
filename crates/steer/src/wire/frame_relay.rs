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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    const LINK: LinkType = LinkType::FRELAY;

    /// DLCI 100 in two bytes: 0x1841 has the last bit set in its second byte.
    const ADDRESS: [u8; 2] = [0x18, 0x41];

    #[test]
    fn identifiers_of_rfc_2427() {
        let frame = |rest: &[u8], packet: &[u8]| [&ADDRESS[..], rest, packet].concat();
        expect_link(LINK, &frame(&[3, 0xcc], &tcp4()), "fr/ip/tcp", Stop::Transport);
        expect_link(LINK, &frame(&[3, 0x8e], &tcp6()), "fr/ipv6/tcp", Stop::Transport);
        expect_link(LINK, &frame(&[3, 0xcf, 0, 0x21], &tcp4()), "fr/ppp/ip/tcp", Stop::Transport);
        // Padded, then SNAP with an EtherType and with a bridged frame.
        let snap = [3, 0, 0x80, 0, 0, 0, 0x08, 0x00];
        expect_link(LINK, &frame(&snap, &tcp4()), "fr/ip/tcp", Stop::Transport);
        let bridged = [3, 0, 0x80, 0, 0x80, 0xc2, 0, 7];
        expect_link(LINK, &frame(&bridged, &eth(0x86dd, &tcp6())), "fr/eth/ipv6/tcp", Stop::Transport);
        expect_link(LINK, &frame(&[3, 0xb1], &[0; 9]), "fr", Stop::NotIp);
    }

    #[test]
    fn ethertypes_and_long_addresses() {
        expect_link(LINK, &join(&[0x18, 0x41, 0x08, 0x00], &tcp4()), "fr/ip/tcp", Stop::Transport);
        expect_link(LINK, &join(&[0x18, 0x40, 0x01, 0x08, 0x00], &tcp4()), "fr/ip/tcp", Stop::Transport);
        expect_link(LINK, &join(&[0x18, 0x40, 0x40, 0x01, 3, 0xcc], &tcp4()), "fr/ip/tcp", Stop::Transport);
        expect_link(LINK, &[0x18], "fr", Stop::Truncated);
        expect_link(LINK, &[0x18, 0x41, 3], "fr", Stop::Truncated);
        expect_link(LINK, &[0x18, 0x41, 0x12, 0x34], "fr", Stop::UnknownEthertype);
    }
}
