//! AYIYA, anything in anything (draft-massar-v6ops-ayiya-02 section 3).

use super::ip_protocol;
use crate::dissection::{Family, TunnelKind};
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// Identity length (power of two, high nibble) at 0, signature length (units of 4 bytes, high
/// nibble) at 1, operation (low nibble) at 2, next header at 3, epoch at 4.
const LEN: usize = 8;
/// Forward the packet.
const FORWARD: u8 = 1;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[identity, signature, operation, protocol, ..]: &[u8; LEN] = walk.header()?;
    if !matches!(protocol, 4 | 41 | 59) || identity >> 4 > 8 {
        return Err(Stop::NotTunnel);
    }
    walk.skip(LEN + (1 << (identity >> 4)) + usize::from(signature >> 4) * 4)?;
    if operation & 0x0f != FORWARD {
        return Err(Stop::Control);
    }
    walk.tunnel(TunnelKind::Other, 0);
    ip_protocol::next(Family::V6, protocol)
}
