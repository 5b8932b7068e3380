//! PPP (RFC 1661 section 2), in HDLC-like framing where it is (RFC 1662 section 3.1).
//!
//! Address and control may be left out, and the protocol may be compressed to one byte (RFC 1661
//! section 6.5): its first byte is even otherwise, its second odd.

use super::chdlc;
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// All stations, unnumbered information.
const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];

#[inline(always)]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let begin = walk.header::<2>()?;
    if chdlc::begins(begin) {
        return Ok(Layer::Chdlc);
    }
    if *begin == ADDRESS_AND_CONTROL {
        walk.skip(2)?;
    }
    let first = *walk.rest().first().ok_or(Stop::Truncated)?;
    let (protocol, len) = if first & 1 == 1 { (first.into(), 1) } else { (u16::from_be_bytes(*walk.header()?), 2) };
    walk.id(Id::Ppp(protocol));
    walk.skip(len)?;
    match protocol {
        0x0021 => Ok(Layer::Ip),
        0x0057 => Ok(Layer::Ipv6),
        0x0281 | 0x0283 => Ok(Layer::Mpls),
        0x0031 => Ok(Layer::Eth),
        0x003d => Err(Stop::Multilink),
        0x0053 | 0x0055 => Err(Stop::Encrypted),
        0x00fb | 0x00fd | 0x002d | 0x002f => Err(Stop::Compressed),
        0x8000.. => Err(Stop::Control),
        _ => Err(Stop::UnknownEthertype),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn protocols_whole_and_compressed() {
        let frame = |packet: &[u8]| eth(0x8864, &pppoe(1, packet));
        carries(&frame(&ppp(0x0057, &tcp6())), "eth/pppoe/ppp/ipv6/tcp");
        carries(&frame(&join(&[0x21], &tcp4())), "eth/pppoe/ppp/ip/tcp");
        carries(&frame(&join(&[0xff, 3, 0, 0x21], &tcp4())), "eth/pppoe/ppp/ip/tcp");
        carries(&frame(&ppp(0x0281, &mpls(5, true, &tcp4()))), "eth/pppoe/ppp/mpls/ip/tcp");
        expect(&frame(&ppp(0xc021, &[1; 8])), "eth/pppoe/ppp", Stop::Control);
        expect(&frame(&ppp(0x003d, &[1; 8])), "eth/pppoe/ppp", Stop::Multilink);
        expect(&frame(&[0]), "eth/pppoe/ppp", Stop::Truncated);
    }
}
