//! ICMPv6 (RFC 4443 sections 2.1 to 4).

use super::icmp::{error, query};
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    let kind = *walk.rest().first().ok_or(Stop::Truncated)?;
    walk.id(Id::IcmpType(kind));
    match kind {
        // Unreachable, packet too big, time exceeded, parameter problem.
        1..=4 => error(Layer::Ipv6, walk),
        // Echo.
        128 | 129 => query(walk),
        _ => Err(Stop::Icmp),
    }
}
