//! Cisco HDLC (RFC 1547 section 4.3.1).

use super::ethertype;
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// Address at 0, control at 1, protocol at 2.
const LEN: usize = 4;
/// Unicast and broadcast, with control 0: told from PPP by these.
const UNICAST: [u8; 2] = [0x0f, 0];
const BROADCAST: [u8; 2] = [0x8f, 0];
/// Serial line address resolution.
const SLARP: u16 = 0x8035;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[_, _, high, low]: &[u8; LEN] = walk.header()?;
    walk.skip(LEN)?;
    match u16::from_be_bytes([high, low]) {
        SLARP => Err(Stop::Control),
        kind => ethertype::next(kind),
    }
}

/// Whether a header begins as Cisco HDLC does.
#[inline]
pub(crate) fn begins(header: &[u8; 2]) -> bool {
    matches!(*header, UNICAST | BROADCAST)
}
