//! Raw IP (LINKTYPE_RAW): the version is in the first nibble.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    match walk.rest().first().ok_or(Stop::Truncated)? >> 4 {
        4 => Ok(Layer::Ip),
        6 => Ok(Layer::Ipv6),
        _ => Err(Stop::Malformed),
    }
}
