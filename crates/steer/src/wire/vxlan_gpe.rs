//! VXLAN with generic protocol extension (draft-ietf-nvo3-vxlan-gpe section 3).

use super::nsh;
use crate::dissection::TunnelKind;
use crate::walk::{Step, Walk};
use crate::{Id, Observer, Stop};

/// Flags at 0, next protocol at 3, network at 4.
const LEN: usize = 8;
/// The network identifier is valid.
const VALID: u8 = 0x08;
/// The next protocol is given; without it, Ethernet.
const PROTOCOL: u8 = 0x04;
const ETHERNET: u8 = 3;
/// Version and reserved flags.
const ZERO: u8 = 0xf0;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[flags, _, _, protocol, v0, v1, v2, _]: &[u8; LEN] = walk.header()?;
    let protocol = if flags & PROTOCOL != 0 { protocol } else { ETHERNET };
    let next = nsh::next(protocol);
    if flags & ZERO != 0 || flags & (VALID | PROTOCOL) == 0 || next.is_err() {
        return Err(Stop::NotTunnel);
    }
    let network = u32::from_be_bytes([0, v0, v1, v2]);
    walk.id(Id::VxlanVni(network));
    walk.tunnel(TunnelKind::Vxlan, network);
    walk.virtual_network(network);
    walk.skip(LEN)?;
    next
}
