//! ICMPv6 (RFC 4443 sections 2.1 to 4).

use super::icmp::{error, query};
use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let kind = *walk.rest().first().ok_or(Stop::Truncated)?;
    walk.id(Id::IcmpType(kind));
    match kind {
        // Unreachable, packet too big, time exceeded, parameter problem.
        1..=4 => error(Layer::Ipv6, walk),
        kind if is_query(kind) => query(walk),
        _ => Err(Stop::Icmp),
    }
}

/// Echo and its answer.
#[inline(always)]
pub(crate) fn is_query(kind: u8) -> bool {
    matches!(kind, 128 | 129)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn errors_and_queries() {
        let plain = eth(0x86dd, &tcp6());
        let (direct, _) = look(crate::LinkType::ETHERNET, &plain);
        let frame = eth(0x86dd, &ipv6(B6, A6, 58, &icmp(2, 0, 1280, &tcp6())));
        let found = expect(&frame, "eth/ipv6/icmpv6/ipv6/tcp", Stop::Quoted);
        assert_eq!(found.conversation(&frame), direct.conversation(&plain));
        let frame = eth(0x86dd, &ipv6(B6, A6, 58, &icmp(128, 0, 0x0003_0000, &[])));
        assert_eq!(expect(&frame, "eth/ipv6/icmpv6", Stop::Icmp).icmp_id(), Some(3));
        let frame = eth(0x86dd, &ipv6(B6, A6, 58, &icmp(135, 0, 0, &[0; 16])));
        expect(&frame, "eth/ipv6/icmpv6", Stop::Icmp);
    }
}
