//! ICMP (RFC 792; timestamps and masks RFC 950; error messages RFC 1122 section 3.2.2).

use crate::walk::{Step, Walk};
use crate::{Id, Layer, Observer, Stop};

/// Type at 0, code at 1, identifier of a query at 4; an error quotes from 8.
pub(crate) const LEN: usize = 8;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let kind = *walk.rest().first().ok_or(Stop::Truncated)?;
    walk.id(Id::IcmpType(kind));
    match kind {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => error(Layer::Ip, walk),
        kind if is_query(kind) => query(walk),
        _ => Err(Stop::Icmp),
    }
}

/// Echo, timestamp, information, mask: queries and their answers.
#[inline(always)]
pub(crate) fn is_query(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13..=18)
}

/// A query or its answer: the identifier tells exchanges apart.
#[inline]
pub(crate) fn query<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[_, _, _, _, high, low]: &[u8; 6] = walk.header()?;
    walk.icmp_id(u16::from_be_bytes([high, low]));
    walk.skip(LEN)?;
    Err(Stop::Icmp)
}

/// An error: what follows is the beginning of the packet that it is about. An error about an error
/// is not looked into.
#[cold]
pub(crate) fn error<O: Observer>(quoted: Layer, walk: &mut Walk<'_, '_, O>) -> Step {
    walk.skip(LEN)?;
    if walk.quoting() || !walk.quote() {
        return Err(Stop::Icmp);
    }
    Ok(quoted)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    #[test]
    fn queries_have_an_identifier() {
        let frame = eth(0x0800, &ipv4(A4, B4, 1, &icmp(8, 0, 0x0007_0001, &[])));
        let found = expect(&frame, "eth/ip/icmp", Stop::Icmp);
        assert_eq!((found.icmp_id(), found.sport()), (Some(7), None));
        let answer = eth(0x0800, &ipv4(B4, A4, 1, &icmp(0, 0, 0x0007_0009, &[])));
        let (answered, _) = look(crate::LinkType::ETHERNET, &answer);
        assert_eq!(found.conversation(&frame), answered.conversation(&answer));
    }

    #[test]
    fn errors_belong_to_what_they_quote() {
        let plain = eth(0x0800, &tcp4());
        let (direct, _) = look(crate::LinkType::ETHERNET, &plain);
        let quoted = |packet: &[u8]| eth(0x0800, &ipv4([9, 9, 9, 9], A4, 1, &icmp(11, 0, 0, packet)));
        let frame = quoted(&tcp4()[..28]);
        let found = expect(&frame, "eth/ip/icmp/ip/tcp", Stop::Quoted);
        assert_eq!(found.conversation(&frame), direct.conversation(&plain));
        assert_eq!(found.flow(&frame).unwrap().proto, 1);
        assert_eq!(found.quoted(&frame).unwrap().dport, Some(2000));
        // Through a tunnel, too.
        let frame = quoted(&ipv4(A4, B4, 47, &gre(0, 0x0800, &tcp4())));
        let found = expect(&frame, "eth/ip/icmp/ip/gre/ip/tcp", Stop::Quoted);
        assert_eq!(found.conversation(&frame), direct.conversation(&plain));
    }

    #[test]
    fn an_error_with_too_little() {
        let frame = eth(0x0800, &ipv4(A4, B4, 1, &icmp(3, 3, 0, &tcp4()[..12])));
        let found = expect(&frame, "eth/ip/icmp/ip", Stop::Quoted);
        assert_eq!(found.quoted(&frame), None);
        assert_eq!(found.conversation(&frame), crate::Conversation::v4((0x0a00_0001, 0), (0xc0a8_0709, 0), 1, 0));
    }
}
