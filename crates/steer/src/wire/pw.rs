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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn behind_a_control_word() {
        let word = [0, 0, 0x12, 0x34];
        let inner = eth(0x8100, &vlan(4, 0x0800, &tcp4()));
        carries(&eth(0x8847, &mpls(16, true, &join(&word, &inner))), "eth/mpls/pwcw/eth/vlan/ip/tcp");
        expect(&eth(0x8847, &mpls(16, true, &[0, 0, 0])), "eth/mpls/pwcw", Stop::Truncated);
    }
}
