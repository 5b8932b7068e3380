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
