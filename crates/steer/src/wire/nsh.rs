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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn fixed_and_variable_contexts() {
        for (next, packet, rest) in [
            (1, tcp4(), "ip/tcp"),
            (2, tcp6(), "ipv6/tcp"),
            (3, eth(0x0800, &tcp4()), "eth/ip/tcp"),
            (5, mpls(16, true, &tcp4()), "mpls/ip/tcp"),
            (4, nsh(1, &tcp4()), "nsh/ip/tcp"),
        ] {
            carries(&eth(0x894f, &nsh(next, &packet)), &std::format!("eth/nsh/{rest}"));
            // Type 2 without a context.
            let short = join(&[0x0f, 0xc2, 2, next, 0, 0, 9, 255], &packet);
            carries(&eth(0x894f, &short), &std::format!("eth/nsh/{rest}"));
        }
    }

    #[test]
    fn damage() {
        expect(&eth(0x894f, &[0x4f, 0xc2, 2, 1, 0, 0, 0, 0]), "eth/nsh", Stop::Malformed);
        expect(&eth(0x894f, &[0x0f, 0xc1, 2, 1, 0, 0, 0, 0]), "eth/nsh", Stop::Malformed);
        expect(&eth(0x894f, &[0x0f, 0xff, 2, 1, 0, 0, 0, 0]), "eth/nsh", Stop::Truncated);
        expect(&eth(0x894f, &[0x0f, 0xc2, 2, 9, 0, 0, 0, 0]), "eth/nsh", Stop::UnknownProtocol);
    }
}
