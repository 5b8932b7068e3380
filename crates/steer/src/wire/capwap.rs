//! CAPWAP data (RFC 5415 section 4.3), with IEEE 802.11 (RFC 5416) or 802.3 inside.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Preamble at 0, then bit fields, fragment at 4.
const LEN: usize = 8;
/// Type of the preamble, low nibble: encrypted.
const TYPE_DTLS: u8 = 1;
/// Flags of the third and fourth byte.
const NATIVE: u8 = 0x01;
const FRAGMENT: u8 = 0x80;
const KEEP_ALIVE: u8 = 0x08;
/// Binding, bits 1 to 5 of the third byte: IEEE 802.11.
const BINDING_WLAN: u8 = 1;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let &[preamble, lengths, binding, flags, _, _, o0, o1]: &[u8; LEN] = walk.header()?;
    match preamble {
        0 => {}
        TYPE_DTLS => return Err(Stop::Encrypted),
        _ => return Err(Stop::NotTunnel),
    }
    let len = usize::from(lengths >> 3) * 4;
    if len < LEN || flags & 0x07 != 0 {
        return Err(Stop::NotTunnel);
    }
    walk.skip(len)?;
    if flags & KEEP_ALIVE != 0 {
        return Err(Stop::Control);
    }
    // A later fragment of the tunnel's own: nothing of the inner packet's beginning.
    if flags & FRAGMENT != 0 && u16::from_be_bytes([o0, o1]) >> 3 != 0 {
        return Err(Stop::Opaque);
    }
    match (binding & NATIVE, binding >> 1 & 0x1f) {
        (0, _) => Ok(Layer::Eth),
        (_, BINDING_WLAN) => Ok(Layer::Wlan),
        _ => Err(Stop::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::Stop;

    fn over_udp(port: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        eth(0x0800, &ipv4(A4, B4, 17, &udp(40000, port, payload)))
    }

    /// Header length in words, binding, and the two bytes with the flags.
    fn capwap(binding: u8, native: bool, flags: u8, offset: u16, payload: &[u8]) -> std::vec::Vec<u8> {
        let header = [0, 2 << 3, binding << 1 | u8::from(native), flags, 0, 1];
        [&header[..], &offset.to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_of_both_kinds() {
        let wlan = [&[0x08, 0x01, 0, 0][..], &[2; 18], &[0, 0], &snap(0x0800, &tcp4())].concat();
        let stack = "eth/ip/udp/capwap/wlan/llc/ip/tcp";
        carries(&over_udp(5247, &capwap(1, true, 0, 0, &wlan)), stack);
        carries(&over_udp(5247, &capwap(1, false, 0, 0, &eth(0x0800, &tcp4()))), "eth/ip/udp/capwap/eth/ip/tcp");
        // Its own fragments: the first is looked into.
        carries(&over_udp(5247, &capwap(1, true, 0x80, 0, &wlan)), stack);
        expect(&over_udp(5247, &capwap(1, true, 0x80, 8 << 3, &wlan)), "eth/ip/udp/capwap", Stop::Opaque);
    }

    #[test]
    fn what_carries_nothing_readable() {
        expect(&over_udp(5247, &[1, 0, 0, 0, 0x17, 0xfe, 0xfd, 0]), "eth/ip/udp/capwap", Stop::Encrypted);
        expect(&over_udp(5247, &capwap(1, true, 0x08, 0, &[0; 16])), "eth/ip/udp/capwap", Stop::Control);
        expect(&over_udp(5247, &capwap(2, true, 0, 0, &[0; 40])), "eth/ip/udp/capwap", Stop::Opaque);
        expect(&over_udp(5247, &[0x20; 40]), "eth/ip/udp", Stop::NotTunnel);
        expect(&over_udp(5246, &[0; 16]), "eth/ip/udp/capwap_ctl", Stop::Control);
    }
}
