//! LISP data (RFC 9300 section 5.1).

use super::{ipv4, ipv6};
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Flags and nonce or versions at 0, instance or locator bits at 4.
const LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let rest = walk.rest().get(LEN..).ok_or(Stop::NotTunnel)?;
    let next = match rest.first().map(|byte| byte >> 4) {
        Some(4) if ipv4::plausible(rest) => Layer::Ip,
        Some(6) if ipv6::plausible(rest) => Layer::Ipv6,
        _ => return Err(Stop::NotTunnel),
    };
    walk.tunnel(TunnelKind::Other, 0);
    walk.skip(LEN)?;
    Ok(next)
}
