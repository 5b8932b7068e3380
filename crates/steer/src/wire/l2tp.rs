//! L2TP version 2 (RFC 2661 section 3.1), and version 3 as itself (RFC 3931 section 4.1): what a
//! session of version 3 carries is known to its ends alone.

use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

const CONTROL: u16 = 0x8000;
const LENGTH: u16 = 0x4000;
const SEQUENCE: u16 = 0x0800;
const OFFSET: u16 = 0x0200;
/// Bits that must be 0 (RFC 2661 section 3.1).
const RESERVED: u16 = 0x34f0;
const VERSION: u16 = 0x000f;
/// The IP protocol of version 3 without UDP.
const PROTOCOL: u8 = 115;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    if walk.level().proto == PROTOCOL {
        return session_3(walk);
    }
    let flags = u16::from_be_bytes(*walk.header()?);
    match flags & VERSION {
        2 if flags & RESERVED == 0 => version_2(flags, walk),
        3 if flags & CONTROL != 0 => Err(Stop::Control),
        3 if flags & !VERSION == 0 => {
            walk.skip(4)?;
            session_3(walk)
        }
        _ => Err(Stop::NotTunnel),
    }
}

fn version_2<O: Observer>(flags: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(if flags & LENGTH != 0 { 4 } else { 2 })?;
    let &[t0, t1, s0, s1]: &[u8; 4] = walk.header()?;
    let (tunnel, session) = (u16::from_be_bytes([t0, t1]), u16::from_be_bytes([s0, s1]));
    walk.id(Id::L2tpTunnel(tunnel));
    walk.id(Id::L2tpSession(session));
    walk.skip(4)?;
    if flags & CONTROL != 0 {
        return Err(Stop::Control);
    }
    if flags & SEQUENCE != 0 {
        walk.skip(4)?;
    }
    if flags & OFFSET != 0 {
        let offset: usize = u16::from_be_bytes(*walk.header()?).into();
        walk.skip(2 + offset)?;
    }
    walk.join(KeyId::L2tpSession, session.into());
    walk.tunnel(TunnelKind::L2tp, u32::from(tunnel) << 16 | u32::from(session));
    Ok(Layer::Ppp)
}

fn session_3<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let session = u32::from_be_bytes(*walk.header()?);
    walk.id(Id::L2tpv3Session(session));
    walk.skip(4)?;
    if session == 0 {
        return Err(Stop::Control);
    }
    walk.join(KeyId::L2tpSession, session);
    walk.tunnel(TunnelKind::L2tp, session);
    Err(Stop::Opaque)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{Id, LinkType, Stop, TunnelKind};

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    #[test]
    fn version_2_with_all_flags() {
        for flags in 0u16..8 {
            let (length, sequence, offset) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let word = 2 | u16::from(length) << 14 | u16::from(sequence) << 11 | u16::from(offset) << 9;
            let mut header = word.to_be_bytes().to_vec();
            if length {
                header.extend([0, 99]);
            }
            header.extend([0, 5, 0, 6]);
            if sequence {
                header.extend([0; 4]);
            }
            if offset {
                header.extend([0, 2, 0xee, 0xee]);
            }
            let frame = over_udp(1701, &join(&header, &ppp(0x21, &tcp4())));
            let found = carries(&frame, "eth/ip/udp/l2tp/ppp/ip/tcp");
            assert_eq!(found.tunnel(), Some((TunnelKind::L2tp, 5 << 16 | 6)));
            let notes = look(LinkType::ETHERNET, &frame).1;
            assert!(notes.ids.contains(&Id::L2tpTunnel(5)) && notes.ids.contains(&Id::L2tpSession(6)));
        }
        expect(&over_udp(1701, &[0xc8, 2, 0, 12, 0, 5, 0, 0, 0, 0, 0, 0]), "eth/ip/udp/l2tp", Stop::Control);
    }

    #[test]
    fn version_3_is_known_to_its_ends_alone() {
        expect(&over_udp(1701, &join(&[0, 3, 0, 0, 0, 0, 0, 9], &[0; 30])), "eth/ip/udp/l2tp", Stop::Opaque);
        expect(&over_udp(1701, &[0xc8, 3, 0, 12, 0, 0, 0, 0]), "eth/ip/udp/l2tp", Stop::Control);
        let plain = |session: [u8; 4]| eth(0x0800, &ipv4(A4, B4, 115, &join(&session, &[0; 30])));
        expect(&plain([0, 0, 0, 9]), "eth/ip/l2tp", Stop::Opaque);
        expect(&plain([0; 4]), "eth/ip/l2tp", Stop::Control);
        assert!(look(LinkType::ETHERNET, &plain([0, 0, 0, 9])).1.ids.contains(&Id::L2tpv3Session(9)));
    }

    #[test]
    fn what_is_not_l2tp() {
        expect(&over_udp(1701, &[0x77; 40]), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(1701, &[0x00, 0xf2, 0, 0, 0, 0]), "eth/ip/udp", Stop::NotTunnel);
    }
}
