//! BSD null and OpenBSD loop headers (LINKTYPE_NULL, LINKTYPE_LOOP): an address family in either
//! byte order.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// The address family.
const LEN: usize = 4;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let family = u32::from_be_bytes(*walk.header::<LEN>()?);
    walk.skip(LEN)?;
    // Families are small: a big value is a small one in the other byte order.
    let family = if family > 0xffff { family.swap_bytes() } else { family };
    match family {
        2 => Ok(Layer::Ip),
        // NetBSD and Linux; FreeBSD; Darwin.
        10 | 24 | 28 | 30 => Ok(Layer::Ipv6),
        _ => Err(Stop::NotIp),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    use crate::LinkType;

    #[test]
    fn families_in_both_byte_orders() {
        for header in [[2, 0, 0, 0], [0, 0, 0, 2]] {
            expect_link(LinkType::NULL, &join(&header, &tcp4()), "null/ip/tcp", Stop::Transport);
        }
        for family in [10, 24, 28, 30] {
            let frame = join(&[0, 0, 0, family], &tcp6());
            expect_link(LinkType::LOOP, &frame, "null/ipv6/tcp", Stop::Transport);
        }
        expect_link(LinkType::NULL, &[7, 0, 0, 0, 1], "null", Stop::NotIp);
    }
}
