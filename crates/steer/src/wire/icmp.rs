//! ICMP (RFC 792; timestamps and masks RFC 950; error messages RFC 1122 section 3.2.2).

use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Type at 0, code at 1, identifier of a query at 4; an error quotes from 8.
pub(crate) const LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let kind = *walk.rest().first().ok_or(Stop::Truncated)?;
    walk.id(Id::IcmpType(kind));
    match kind {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => error(Layer::Ip, walk),
        // Echo, timestamp, information, mask.
        0 | 8 | 13..=18 => query(walk),
        _ => Err(Stop::Icmp),
    }
}

/// A query or its answer: the identifier tells exchanges apart.
#[inline]
pub(crate) fn query<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let &[_, _, _, _, high, low]: &[u8; 6] = walk.header()?;
    walk.icmp_id(u16::from_be_bytes([high, low]));
    walk.skip(LEN)?;
    Err(Stop::Icmp)
}

/// An error: what follows is the beginning of the packet that it is about. An error about an error
/// is not looked into.
#[cold]
pub(crate) fn error<O: Observer>(quoted: Layer, walk: &mut Walk<'_, O>) -> Step {
    walk.skip(LEN)?;
    if walk.quoting() {
        return Err(Stop::Icmp);
    }
    walk.quote();
    Ok(quoted)
}
