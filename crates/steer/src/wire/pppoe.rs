//! PPPoE sessions (RFC 2516 section 4).

use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Version and type at 0, code at 1, session at 2, length at 4.
const LEN: usize = 6;
const VERSION_AND_TYPE: u8 = 0x11;
const CODE_SESSION: u8 = 0;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let &[version, code, s0, s1, l0, l1]: &[u8; LEN] = walk.header()?;
    if version != VERSION_AND_TYPE {
        return Err(Stop::Malformed);
    }
    let session = u16::from_be_bytes([s0, s1]);
    walk.id(Id::PppoeSession(session));
    walk.tunnel(TunnelKind::Pppoe, session.into());
    walk.skip(LEN)?;
    if code != CODE_SESSION {
        return Err(Stop::Control);
    }
    walk.clip(u16::from_be_bytes([l0, l1]).into());
    Ok(Layer::Ppp)
}
