//! Pseudo-wire control word (RFC 4385 section 3; RFC 4448 section 4.6).

use crate::walk::{Step, Walk};
use crate::{Layer, Observer};

/// A zero nibble, flags, length, sequence number.
const LEN: usize = 4;

#[inline]
pub(crate) fn control_word<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(LEN)?;
    Ok(Layer::Eth)
}
