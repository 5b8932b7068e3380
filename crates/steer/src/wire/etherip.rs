//! EtherIP (RFC 3378 section 3): Ethernet in IP.

use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Version 3 in the high nibble, the rest reserved.
const LEN: usize = 2;
const VERSION: u8 = 0x30;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header()?;
    // Some implementations have the nibbles the other way round.
    if !matches!(header[0], VERSION | 0x03) {
        return Err(Stop::Malformed);
    }
    walk.tunnel(TunnelKind::Other, 0);
    walk.skip(LEN)?;
    Ok(Layer::Eth)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn version_3_either_way_round() {
        for first in [0x30, 0x03] {
            let packet = join(&[first, 0], &eth(0x0800, &tcp4()));
            carries(&eth(0x0800, &ipv4(A4, B4, 97, &packet)), "eth/ip/etherip/eth/ip/tcp");
        }
        expect(&eth(0x0800, &ipv4(A4, B4, 97, &[0x40; 40])), "eth/ip/etherip", Stop::Malformed);
    }
}
