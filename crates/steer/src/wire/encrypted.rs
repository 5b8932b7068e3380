//! Encrypted payloads in UDP, as themselves: ESP behind NAT (RFC 3948 section 2) and WireGuard
//! (protocol section 5.4).

use crate::walk::{Step, Walk};
use crate::{Id, KeyId, Layer, Observer, Stop};

/// Where IKE begins instead of ESP: the non-ESP marker.
const NON_ESP: u32 = 0;
/// WireGuard's message types, least significant byte first.
const MESSAGES: core::ops::RangeInclusive<u32> = 1..=4;

#[inline]
pub(crate) fn nat_t<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    if walk.rest() == [0xff] {
        return Err(Stop::Control);
    }
    match u32::from_be_bytes(*walk.header()?) {
        NON_ESP => Err(Stop::Control),
        _ => Ok(Layer::Esp),
    }
}

/// ESP (RFC 4303 section 2): security parameter index at 0.
#[inline]
pub(crate) fn esp<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let index = u32::from_be_bytes(*walk.header()?);
    walk.id(Id::EspSpi(index));
    walk.join(KeyId::Spi, index);
    Err(Stop::Encrypted)
}

#[inline]
pub(crate) fn wireguard<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let kind = u32::from_le_bytes(*walk.header()?);
    Err(if MESSAGES.contains(&kind) { Stop::Encrypted } else { Stop::NotTunnel })
}
