//! IEEE 802.11 frames (clause 9.2.3), unencrypted data frames looked into.

use crate::walk::{Step, Walk};
use crate::{Layer, Observer, Stop};

/// Frame control, duration, three addresses, sequence control.
const LEN: usize = 24;
const VERSION: u8 = 0x03;
const TYPE_MASK: u8 = 0x0c;
const TYPE_DATA: u8 = 0x08;
/// Subtypes of data frames: no data; quality of service.
const NO_DATA: u8 = 0x40;
const QOS: u8 = 0x80;
/// Flags of the second byte.
const BOTH_DS: u8 = 0x03;
const PROTECTED: u8 = 0x40;
const ORDER: u8 = 0x80;
/// Fragment number, low nibble of the sequence control.
const FRAGMENT: u8 = 0x0f;
/// Quality of service control: aggregated subframes.
const AGGREGATE: u8 = 0x80;
/// Destination, source and length before each subframe.
const SUBFRAME_LEN: usize = 14;

#[inline]
pub(crate) fn step<O: Observer>(walk: &mut Walk<'_, '_, O>) -> Step {
    let header: &[u8; LEN] = walk.header().map_err(|_| Stop::NotIp)?;
    let [mut kind, mut flags] = [header[0], header[1]];
    // Cisco's access points swap the two bytes of frame control in CAPWAP: what then stands first
    // has another version, or is a management frame with nothing but direction flags.
    let unlikely = kind & VERSION != 0 || kind & !BOTH_DS == 0;
    if unlikely && flags & (TYPE_MASK | VERSION) == TYPE_DATA {
        (kind, flags) = (flags, kind);
    }
    if kind & TYPE_MASK != TYPE_DATA || kind & NO_DATA != 0 {
        return Err(Stop::NotIp);
    }
    if flags & PROTECTED != 0 {
        return Err(Stop::Encrypted);
    }
    if header[22] & FRAGMENT != 0 {
        return Err(Stop::Opaque);
    }
    walk.skip(LEN)?;
    if flags & BOTH_DS == BOTH_DS {
        walk.skip(6)?;
    }
    let mut aggregate = false;
    if kind & QOS != 0 {
        let control: &[u8; 2] = walk.header()?;
        aggregate = control[0] & AGGREGATE != 0;
        walk.skip(if flags & ORDER != 0 { 6 } else { 2 })?;
    }
    if aggregate {
        walk.skip(SUBFRAME_LEN)?;
    }
    Ok(Layer::Llc)
}

#[cfg(test)]
mod tests {
    use super::super::build::*;
    use super::super::check::*;
    use crate::{LinkType, Stop};

    use std::vec::Vec;

    fn wlan(control: [u8; 2], sequence: u8, rest: &[u8]) -> Vec<u8> {
        let mut frame = std::vec![control[0], control[1], 0, 0];
        frame.extend([2; 18]);
        frame.extend([sequence, 0]);
        join(&frame, rest)
    }

    fn reads(bytes: &[u8], stack: &str, stop: Stop) {
        let found = expect_link(LinkType::IEEE802_11, bytes, stack, stop);
        if stop == Stop::Transport {
            is_the_flow(&found, bytes);
        }
    }

    #[test]
    fn data_with_and_without_its_options() {
        let llc = snap(0x0800, &tcp4());
        reads(&wlan([0x08, 0x01], 0, &llc), "wlan/llc/ip/tcp", Stop::Transport);
        // Four addresses; quality of service; with HT control; aggregated.
        reads(&wlan([0x08, 0x03], 0, &join(&[2; 6], &llc)), "wlan/llc/ip/tcp", Stop::Transport);
        reads(&wlan([0x88, 0x02], 0, &join(&[0, 0], &llc)), "wlan/llc/ip/tcp", Stop::Transport);
        reads(&wlan([0x88, 0x82], 0, &join(&[0; 6], &llc)), "wlan/llc/ip/tcp", Stop::Transport);
        let aggregated = [&[0x80, 0][..], &[3; 12], &be16(llc.len()), &llc].concat();
        reads(&wlan([0x88, 0x02], 0, &aggregated), "wlan/llc/ip/tcp", Stop::Transport);
        // Swapped frame control, as some access points have it in CAPWAP.
        reads(&wlan([0x01, 0x08], 0, &llc), "wlan/llc/ip/tcp", Stop::Transport);
    }

    #[test]
    fn what_carries_nothing_readable() {
        reads(&wlan([0x08, 0x41], 0, &[0; 40]), "wlan", Stop::Encrypted);
        reads(&wlan([0x08, 0x01], 1, &[0; 40]), "wlan", Stop::Opaque);
        reads(&wlan([0x48, 0x01], 0, &[]), "wlan", Stop::NotIp);
        reads(&wlan([0x80, 0x00], 0, &[0; 40]), "wlan", Stop::NotIp);
        reads(&wlan([0xd4, 0x00], 0, &[])[..10], "wlan", Stop::NotIp);
        reads(&wlan([0x88, 0x01], 0, &[0]), "wlan", Stop::Truncated);
    }
}
