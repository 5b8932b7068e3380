//! Cisco metadata, which carries security group tags (draft-smith-kandula-sxp section 10).

use super::eth;
use crate::Observer;
use crate::walk::{Step, Walk};

/// Version at 0, options at 1 in units of 4 bytes; the EtherType follows the options.
const MIN_LEN: usize = 4;
const VERSION: u8 = 1;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[first, second]: &[u8; 2] = walk.header()?;
    let kind = if first == VERSION {
        walk.skip(2 + usize::from(second) * 4)?;
        let kind = *walk.header()?;
        walk.skip(2)?;
        kind
    } else {
        // In GRE the type comes first.
        let &[_, _, _, options]: &[u8; MIN_LEN] = walk.header()?;
        walk.skip(MIN_LEN + usize::from(options) * 4)?;
        [first, second]
    };
    let kind = u16::from_be_bytes(kind);
    eth::by_type_or_length(kind, walk)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn metadata_before_and_after_the_type() {
        carries(&eth(0x8909, &[&[1, 1, 0, 1, 0, 9, 0x08, 0x00][..], &tcp4()].concat()), "eth/cmd/ip/tcp");
        let carried = [&[0x08, 0x00, 1, 1, 0, 1, 0, 9][..], &tcp4()].concat();
        carries(&eth(0x0800, &ipv4(A4, B4, 47, &gre(0, 0x8909, &carried))), "eth/ip/gre/cmd/ip/tcp");
        expect(&eth(0x8909, &[1, 9, 0]), "eth/cmd", Stop::Truncated);
    }
}
