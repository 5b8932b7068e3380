//! Network service header (RFC 8300 section 2.2).

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Version and time to live at 0, length in the low 6 bits at 1, next protocol at 3.
const MIN_LEN: usize = 8;
const VERSION: u8 = 0xc0;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[first, len, _, protocol, ..]: &[u8; MIN_LEN] = walk.header()?;
    let len = usize::from(len & 0x3f) * 4;
    if first & VERSION != 0 || len < MIN_LEN {
        return Err(Stop::Malformed);
    }
    walk.skip(len)?;
    next(protocol)
}

/// The protocols of NSH (RFC 8300 section 2.2) and VXLAN-GPE, numbered alike.
#[inline]
pub(crate) fn next(protocol: u8) -> Step {
    Ok(match protocol {
        1 => Layer::Ip,
        2 => Layer::Ipv6,
        3 => Layer::Eth,
        4 => Layer::Nsh,
        5 => Layer::Mpls,
        _ => return Err(Stop::UnknownProtocol),
    })
}
