//! PPP (RFC 1661 section 2), in HDLC-like framing where it is (RFC 1662 section 3.1).
//!
//! Address and control may be left out, and the protocol may be compressed to one byte (RFC 1661
//! section 6.5): its first byte is even otherwise, its second odd.

use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// All stations, unnumbered information.
const ADDRESS_AND_CONTROL: [u8; 2] = [0xff, 0x03];

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, O>) -> Step {
    if *walk.header::<2>()? == ADDRESS_AND_CONTROL {
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
