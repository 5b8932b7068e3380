//! Raw IP (LINKTYPE_RAW): the version is in the first nibble.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    match walk.rest().first().ok_or(Stop::Truncated)? >> 4 {
        4 => Ok(Layer::Ip),
        6 => Ok(Layer::Ipv6),
        _ => Err(Stop::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    use crate::LinkType;

    #[test]
    fn the_version_tells() {
        expect_link(LinkType::RAW, &tcp4(), "raw/ip/tcp", Stop::Transport);
        expect_link(LinkType::RAW, &tcp6(), "raw/ipv6/tcp", Stop::Transport);
        expect_link(LinkType::IPV4, &tcp4(), "ip/tcp", Stop::Transport);
        expect_link(LinkType::RAW, &[0x50], "raw", Stop::Malformed);
        expect_link(LinkType(999), &tcp4(), "", Stop::UnknownLink);
    }
}
