//! TCP (RFC 9293 section 3.1), and the transports whose ports are all that steer reads: SCTP
//! (RFC 9260 section 3.1), DCCP (RFC 4340 section 5.1), UDP-Lite (RFC 3828 section 3.1).

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Source port at 0, destination port at 2.
pub(crate) const PORTS_LEN: usize = 4;
/// TCP data offset, high nibble, in units of 4 bytes.
pub(crate) const TCP_OFFSET: usize = 12;
pub(crate) const TCP_MIN_LEN: usize = 20;
const SCTP_LEN: usize = 12;
const UDP_LITE_LEN: usize = 8;
const DCCP_OFFSET: usize = 4;

#[inline(always)]
pub(crate) fn tcp<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[s0, s1, d0, d1]: &[u8; PORTS_LEN] = walk.header()?;
    walk.ports(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let offset = *walk.rest().get(TCP_OFFSET).ok_or(Stop::Truncated)?;
    let len = usize::from(offset >> 4) * 4;
    if len < TCP_MIN_LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    Err(Stop::Transport)
}

#[inline]
pub(crate) fn ports<O: Observer>(layer: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
    let &[s0, s1, d0, d1]: &[u8; PORTS_LEN] = walk.header()?;
    walk.ports(u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    let len = match layer {
        Layer::Sctp => SCTP_LEN,
        Layer::UdpLite => UDP_LITE_LEN,
        _ => usize::from(*walk.rest().get(DCCP_OFFSET).ok_or(Stop::Truncated)?) * 4,
    };
    walk.skip(len)?;
    Err(Stop::Transport)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn cut_after_the_ports() {
        let frame = eth(0x0800, &tcp4());
        is_the_flow(&expect(&frame[..14 + 20 + 4], "eth/ip/tcp", Stop::Truncated), &frame);
        let found = expect(&frame[..14 + 20 + 3], "eth/ip/tcp", Stop::Truncated);
        assert_eq!((found.sport(), found.proto()), (None, Some(6)));
    }

    #[test]
    fn ports_of_sctp() {
        let found = expect(&eth(0x0800, &ipv4(A4, B4, 132, &sctp(7, 8, &[]))), "eth/ip/sctp", Stop::Transport);
        assert_eq!((found.sport(), found.dport()), (Some(7), Some(8)));
    }
}
