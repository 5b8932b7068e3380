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

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{Id, LinkType, Stop};

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    #[test]
    fn esp_behind_nat() {
        let esp = [0, 0, 1, 2, 0, 0, 0, 1, 0x99, 0x99];
        let frame = over_udp(4500, &esp);
        let found = expect(&frame, "eth/ip/udp/udpencap/esp", Stop::Encrypted);
        assert_eq!((found.sport(), found.dport()), (Some(40000), Some(4500)));
        assert!(look(LinkType::ETHERNET, &frame).1.ids.contains(&Id::EspSpi(258)));
        // Key exchange behind its marker, and what keeps the binding alive.
        expect(&over_udp(4500, &join(&[0; 4], &[7; 28])), "eth/ip/udp/udpencap", Stop::Control);
        expect(&over_udp(4500, &[0xff]), "eth/ip/udp/udpencap", Stop::Control);
        expect(&over_udp(4500, &[0, 0]), "eth/ip/udp/udpencap", Stop::Truncated);
    }

    #[test]
    fn esp_by_itself() {
        let found = expect(&eth(0x0800, &ipv4(A4, B4, 50, &[0, 0, 1, 2, 0, 0, 0, 1])), "eth/ip/esp", Stop::Encrypted);
        assert_eq!(found.proto(), Some(50));
        expect(&eth(0x86dd, &ipv6(A6, B6, 50, &[0; 3])), "eth/ipv6/esp", Stop::Truncated);
    }

    #[test]
    fn wireguard_messages() {
        // Initiation, response and cookie have one length each; data are padded to 16 bytes.
        for (kind, len) in [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1488)] {
            let mut message = std::vec![0x5a; len];
            message[..4].copy_from_slice(&[kind, 0, 0, 0]);
            expect(&over_udp(51820, &message), "eth/ip/udp/wireguard", Stop::Encrypted);
        }
        expect(&over_udp(51820, &[5, 0, 0, 0, 0, 0, 0, 0]), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(51820, &[1, 0, 0, 1, 0, 0, 0, 0]), "eth/ip/udp", Stop::NotTunnel);
    }
}
