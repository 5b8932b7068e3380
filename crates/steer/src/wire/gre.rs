//! GRE (RFC 2784, RFC 2890; routing as RFC 1701 section 2) and enhanced GRE, which PPTP uses
//! (RFC 2637 section 4.1).

use super::ethertype;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

/// Flags and version at 0, protocol at 2.
pub(crate) const LEN: usize = 4;
pub(crate) const CHECKSUM: u16 = 0x8000;
pub(crate) const ROUTING: u16 = 0x4000;
pub(crate) const KEY: u16 = 0x2000;
pub(crate) const SEQUENCE: u16 = 0x1000;
const ACKNOWLEDGMENT: u16 = 0x0080;
pub(crate) const VERSION: u16 = 0x0007;
/// MikroTik's Ethernet over IP: length, and tunnel with the least significant byte first, in place
/// of the key.
const PROTOCOL_EOIP: u16 = 0x6400;
const PROTOCOL_PPP: u16 = 0x880b;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[f0, f1, p0, p1]: &[u8; LEN] = walk.header()?;
    let flags = u16::from_be_bytes([f0, f1]);
    let protocol = u16::from_be_bytes([p0, p1]);
    walk.id(Id::GreProtocol(protocol));
    walk.skip(LEN)?;
    match flags & VERSION {
        0 => plain(flags, protocol, walk),
        1 if protocol == PROTOCOL_PPP => enhanced(flags, protocol, walk),
        1 if protocol == PROTOCOL_EOIP => eoip(flags, walk),
        // Version 1 is nothing but PPP by its specification; take the rest as it says it is.
        1 => plain(flags, protocol, walk),
        _ => Err(Stop::Malformed),
    }
}

#[inline(always)]
fn plain<O: Observer>(flags: u16, protocol: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    // Checksum and offset come together, for either flag.
    if flags & (CHECKSUM | ROUTING) != 0 {
        walk.skip(4)?;
    }
    let mut key = 0;
    if flags & KEY != 0 {
        key = u32::from_be_bytes(*walk.header()?);
        walk.id(Id::GreKey(key));
        walk.join(KeyId::Gre, key);
        walk.skip(4)?;
    }
    if flags & SEQUENCE != 0 {
        walk.skip(4)?;
    }
    walk.tunnel(TunnelKind::Gre, key);
    if flags & ROUTING != 0 {
        walk.skip(routing_len(walk.rest())?)?;
    }
    match protocol {
        // RFC 7637 section 3.2: the virtual subnet is the high 24 bits of the key.
        0x6558 if flags & KEY != 0 => {
            walk.virtual_network(key >> 8);
            Ok(Layer::Eth)
        }
        // ERSPAN: type I is told by having no sequence number.
        0x88be if flags & SEQUENCE == 0 => Ok(Layer::Eth),
        0x88be | 0x22eb => Ok(Layer::Erspan),
        _ => ethertype::next(protocol),
    }
}

/// The length of the source route entries: family at 0, length at 3; one of length 0 ends them.
#[cold]
fn routing_len(rest: &[u8]) -> Result<usize, Stop> {
    let mut len = 0;
    for _ in 0..8 {
        let entry = rest.get(len..).and_then(<[u8]>::first_chunk).ok_or(Stop::Truncated)?;
        let &[_, _, _, body]: &[u8; 4] = entry;
        len += 4 + usize::from(body);
        if body == 0 {
            return Ok(len);
        }
    }
    Err(Stop::Malformed)
}

#[inline(always)]
fn enhanced<O: Observer>(flags: u16, protocol: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    if flags & KEY == 0 {
        return Err(Stop::Malformed);
    }
    // Payload length and call in place of the key.
    let &[l0, l1, c0, c1]: &[u8; 4] = walk.header()?;
    let call = u16::from_be_bytes([c0, c1]);
    walk.id(Id::GreCallId(call));
    walk.join(KeyId::PptpCall, call.into());
    walk.tunnel(TunnelKind::Pptp, call.into());
    walk.skip(4)?;
    if flags & SEQUENCE != 0 {
        walk.skip(4)?;
    }
    if flags & ACKNOWLEDGMENT != 0 {
        walk.skip(4)?;
    }
    let payload: usize = u16::from_be_bytes([l0, l1]).into();
    walk.clip(payload);
    if payload == 0 {
        return Err(Stop::Control);
    }
    ethertype::next(protocol)
}

#[inline(always)]
fn eoip<O: Observer>(flags: u16, walk: &mut Walk<'_, '_, O>) -> Step {
    if flags & CHECKSUM != 0 {
        walk.skip(4)?;
    }
    let &[l0, l1, t0, t1]: &[u8; 4] = walk.header()?;
    let tunnel = u16::from_le_bytes([t0, t1]).into();
    walk.join(KeyId::Gre, tunnel);
    walk.tunnel(TunnelKind::Gre, tunnel);
    walk.skip(4)?;
    walk.clip(u16::from_be_bytes([l0, l1]).into());
    Ok(Layer::Eth)
}

/// Whether these bytes are GRE in UDP (RFC 8086 section 3): version 0, nothing reserved, a known
/// protocol.
pub(crate) fn plausible(bytes: &[u8]) -> bool {
    let Some(&[f0, f1, p0, p1]) = bytes.first_chunk() else {
        return false;
    };
    let reserved = !(CHECKSUM | KEY | SEQUENCE);
    u16::from_be_bytes([f0, f1]) & reserved == 0 && ethertype::next(u16::from_be_bytes([p0, p1])).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn all_flags() {
        for flags in 0..8 {
            let flags = flags << 13 & 0xa000 | (flags & 1) << 12;
            carries(&eth(0x0800, &ipv4(A4, B4, 47, &gre(flags, 0x0800, &tcp4()))), "eth/ip/gre/ip/tcp");
        }
        let bridged = gre(0x2000, 0x6558, &eth(0x86dd, &tcp6()));
        let found = carries(&eth(0x0800, &ipv4(A4, B4, 47, &bridged)), "eth/ip/gre/eth/ipv6/tcp");
        assert_eq!(found.tunnel(), Some((crate::TunnelKind::Gre, 0x1234)));
        carries(&eth(0x86dd, &ipv6(A6, B6, 47, &gre(0, 0x8847, &mpls(3, true, &tcp4())))), "eth/ipv6/gre/mpls/ip/tcp");
    }

    #[test]
    fn routing_entries_are_skipped() {
        let mut header = gre(0x4000, 0x0800, &[]);
        header.extend([0, 0, 0, 0, 8, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 0]);
        carries(&eth(0x0800, &ipv4(A4, B4, 47, &join(&header, &tcp4()))), "eth/ip/gre/ip/tcp");
    }

    #[test]
    fn pptp_calls() {
        let inner = join(&[0xff, 3], &ppp(0x21, &tcp4()));
        for (sequence, acknowledgment) in [(true, false), (true, true)] {
            let frame = eth(0x0800, &ipv4(A4, B4, 47, &pptp(5, sequence, acknowledgment, &inner)));
            let found = carries(&frame, "eth/ip/gre/ppp/ip/tcp");
            assert_eq!(found.tunnel(), Some((crate::TunnelKind::Pptp, 5)));
        }
        let frame = eth(0x0800, &ipv4(A4, B4, 47, &pptp(5, false, true, &[])));
        expect(&frame, "eth/ip/gre", Stop::Control);
    }
}
