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
