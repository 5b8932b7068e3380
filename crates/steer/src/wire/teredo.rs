//! Teredo (RFC 4380 section 5.1.1): IPv6 in UDP, behind optional indications.

use super::ipv6;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Authentication: lengths of client and value at 2 and 3, nonce and confirmation after both.
const AUTHENTICATION: [u8; 2] = [0, 1];
const AUTHENTICATION_LEN: usize = 4 + 8 + 1;
/// Origin: port and address.
const ORIGIN: [u8; 2] = [0, 0];
const ORIGIN_LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let mut rest = walk.rest();
    if rest.starts_with(&AUTHENTICATION) {
        let &[_, _, client, value] = rest.first_chunk().ok_or(Stop::NotTunnel)?;
        let len = AUTHENTICATION_LEN + usize::from(client) + usize::from(value);
        rest = rest.get(len..).ok_or(Stop::NotTunnel)?;
    }
    if rest.starts_with(&ORIGIN) {
        rest = rest.get(ORIGIN_LEN..).ok_or(Stop::NotTunnel)?;
    }
    if !ipv6::plausible(rest) {
        return Err(Stop::NotTunnel);
    }
    walk.tunnel(TunnelKind::Other, 0);
    walk.skip(walk.rest().len() - rest.len())?;
    Ok(Layer::Ipv6)
}
