//! GENEVE (RFC 8926 section 3.4).

use super::ethertype;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Observer, Stop};

/// Version and options at 0, flags at 1, protocol at 2, network at 4.
const LEN: usize = 8;
/// Version, high two bits: only 0 is defined.
const VERSION: u8 = 0xc0;
/// Options, in units of 4 bytes.
const OPTIONS: u8 = 0x3f;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[first, _, p0, p1, v0, v1, v2, _]: &[u8; LEN] = walk.header()?;
    let next = ethertype::next(u16::from_be_bytes([p0, p1]));
    if first & VERSION != 0 || next.is_err() {
        return Err(Stop::NotTunnel);
    }
    let network = u32::from_be_bytes([0, v0, v1, v2]);
    walk.id(Id::GeneveVni(network));
    walk.tunnel(TunnelKind::Geneve, network);
    walk.virtual_network(network);
    walk.skip(LEN + usize::from(first & OPTIONS) * 4)?;
    next
}
