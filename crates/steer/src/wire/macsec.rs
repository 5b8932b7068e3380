//! MACsec (IEEE 802.1AE clause 9): the end, unless the frame is only signed.

use super::eth;
use crate::walk::{Step, Walk};
use crate::{Observer, Stop};

/// Tag control at 0, short length at 1, packet number at 2.
const LEN: usize = 6;
/// A channel identifier follows.
const CHANNEL: u8 = 0x20;
const CHANNEL_LEN: usize = 8;
/// Encrypted, or changed in another way.
const CHANGED: u8 = 0x0c;
/// The integrity check value at the end.
const CHECK_LEN: usize = 16;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[control, ..]: &[u8; LEN] = walk.header()?;
    walk.skip(if control & CHANNEL != 0 { LEN + CHANNEL_LEN } else { LEN })?;
    if control & CHANGED != 0 {
        return Err(Stop::Encrypted);
    }
    walk.clip(walk.rest().len().saturating_sub(CHECK_LEN));
    let kind = u16::from_be_bytes(*walk.header()?);
    walk.skip(2)?;
    eth::by_type_or_length(kind, walk)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn signed_frames_are_read_and_encrypted_ones_end() {
        let check = [0x77; 16];
        let signed = [&[0, 0, 0, 0, 0, 1, 0x08, 0x00][..], &tcp4(), &check].concat();
        carries(&eth(0x88e5, &signed), "eth/macsec/ip/tcp");
        let channel = [&[0x20, 0, 0, 0, 0, 1][..], &[2; 8], &[0x86, 0xdd], &tcp6(), &check].concat();
        carries(&eth(0x88e5, &channel), "eth/macsec/ipv6/tcp");
        expect(&eth(0x88e5, &[&[0x0c, 0, 0, 0, 0, 1][..], &[0x99; 40]].concat()), "eth/macsec", Stop::Encrypted);
        expect(&eth(0x88e5, &[0; 5]), "eth/macsec", Stop::Truncated);
    }
}
