//! Tags of port extenders: VN-tag (0x8926) and the E-tag of IEEE 802.1BR (0x893f, clause 7.5).

use super::eth;
use crate::Observer;
use crate::walk::{Step, Walk};

/// Four bytes of tag, then the type.
const VN_LEN: usize = 6;
/// Six bytes of tag, then the type.
const E_LEN: usize = 8;

#[inline]
pub(crate) fn vn_tag<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[.., high, low]: &[u8; VN_LEN] = walk.header()?;
    walk.skip(VN_LEN)?;
    eth::by_type_or_length(u16::from_be_bytes([high, low]), walk)
}

#[inline]
pub(crate) fn e_tag<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[.., high, low]: &[u8; E_LEN] = walk.header()?;
    walk.skip(E_LEN)?;
    eth::by_type_or_length(u16::from_be_bytes([high, low]), walk)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn tags_of_both_kinds() {
        carries(&eth(0x8926, &[&[0x80, 1, 0, 2, 0x08, 0x00][..], &tcp4()].concat()), "eth/vntag/ip/tcp");
        carries(&eth(0x893f, &[&[0, 1, 0, 2, 0, 0, 0x86, 0xdd][..], &tcp6()].concat()), "eth/etag/ipv6/tcp");
        let tagged = [&[0, 1, 0, 2, 0, 0, 0x81, 0x00][..], &vlan(7, 0x0800, &tcp4())].concat();
        carries(&eth(0x893f, &tagged), "eth/etag/vlan/ip/tcp");
        expect(&eth(0x893f, &[0; 7]), "eth/etag", Stop::Truncated);
    }
}
