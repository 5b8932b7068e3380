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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    #[test]
    fn protocols_are_ethertypes() {
        for address in [0x0f, 0x8f] {
            let four = join(&[address, 0, 0x08, 0x00], &tcp4());
            expect_link(LinkType::C_HDLC, &four, "chdlc/ip/tcp", Stop::Transport);
            let six = join(&[address, 0, 0x86, 0xdd], &tcp6());
            expect_link(LinkType::C_HDLC, &six, "chdlc/ipv6/tcp", Stop::Transport);
            // Told from PPP by how it begins.
            expect_link(LinkType::PPP_HDLC, &four, "ppp/chdlc/ip/tcp", Stop::Transport);
        }
        let keep_alive = [0x8f, 0, 0x80, 0x35, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xff];
        expect_link(LinkType::C_HDLC, &keep_alive, "chdlc", Stop::Control);
        expect_link(LinkType::C_HDLC, &[0x0f, 0, 8], "chdlc", Stop::Truncated);
    }
}
