//! PPPoE sessions (RFC 2516 section 4).

use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Version and type at 0, code at 1, session at 2, length at 4.
pub(crate) const LEN: usize = 6;
pub(crate) const VERSION_AND_TYPE: u8 = 0x11;
pub(crate) const CODE_SESSION: u8 = 0;

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn sessions_carry_and_discovery_does_not() {
        let found = carries(&eth(0x8864, &pppoe(77, &ppp(0x21, &tcp4()))), "eth/pppoe/ppp/ip/tcp");
        assert_eq!(found.tunnel(), Some((crate::TunnelKind::Pppoe, 77)));
        expect(&eth(0x8863, &[0x11, 9, 0, 0, 0, 0]), "eth/pppoe_disc", Stop::Control);
        expect(&eth(0x8864, &[0x21, 0, 0, 1, 0, 9, 0, 0x21]), "eth/pppoe", Stop::Malformed);
    }
}
