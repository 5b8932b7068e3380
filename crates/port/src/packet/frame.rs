//! One frame of a block: what the kernel says of it, and its bytes.

use flowyard_mem::{Clock, flags};

use super::ring::{FIRST, FRAMES};

// Offsets in `tpacket3_hdr` and the `sockaddr_ll` behind it (include/uapi/linux/if_packet.h).
const NEXT: usize = 0;
const SECONDS: usize = 4;
const NANOSECONDS: usize = 8;
const CAPTURED: usize = 12;
const LENGTH: usize = 16;
const STATUS: usize = 20;
const MAC: usize = 24;
const VLAN_TCI: usize = 32;
const VLAN_TPID: usize = 36;
const ADDRESS: usize = 48;
const ADDRESS_PROTOCOL: usize = ADDRESS + 2;
const ADDRESS_HARDWARE: usize = ADDRESS + 8;
const ADDRESS_KIND: usize = ADDRESS + 10;
const ADDRESS_LEN: usize = ADDRESS + 11;
const ADDRESS_BYTES: usize = ADDRESS + 12;

// `virtio_net_hdr` (include/uapi/linux/virtio_net.h), right before the packet.
/// Its length in bytes.
const VNET_BYTES: usize = 10;
const VNET_NEEDS_CHECKSUM: u8 = 1;
const VNET_DATA_VALID: u8 = 2;
const VNET_GSO_NONE: u8 = 0;
const VNET_GSO_SIZE: usize = 4;

/// `TP_STATUS_GSO_TCP`.
const STATUS_GSO_TCP: u32 = 1 << 8;

/// Bytes of a LINKTYPE_LINUX_SLL header.
pub(super) const COOKED_BYTES: usize = 16;

/// Number of frames in a block, and the offset of the first.
pub(super) fn head(block: &[u8]) -> Option<(u32, usize)> {
    Some((u32_at(block, FRAMES)?, u32_at(block, FIRST)? as usize))
}

/// A frame as the kernel left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its captured bytes.
    pub bytes: &'a [u8],
    /// Bytes that it had.
    pub wire_len: u32,
    /// When it came.
    pub time_ns: u64,
    /// By which clock.
    pub clock: Clock,
    /// Bits of [`flowyard_mem::flags`].
    pub flags: u32,
    /// TCI that was taken off, if `flags` says so.
    pub stripped_vlan: u16,
    /// Payload bytes of each packet that it was merged from; 0 if it was not, or that is not known.
    pub part_bytes: u16,
    /// Bytes to the next frame.
    pub next: usize,
    /// What a cooked header would say.
    pub cooked: [u8; COOKED_BYTES],
}

impl Frame<'_> {
    /// The frame at `offset` of a block, with a virtio header in front if `virtio` says so. `None`
    /// if it does not lie in the block.
    pub(super) fn at(block: &[u8], offset: usize, virtio: bool) -> Option<Frame<'_>> {
        let frame = block.get(offset..)?;
        let status = u32_at(frame, STATUS)?;
        let mac = usize::from(u16_at(frame, MAC)?);
        let bytes = frame.get(mac..mac + u32_at(frame, CAPTURED)? as usize)?;
        let virtio = if virtio { frame.get(mac.checked_sub(VNET_BYTES)?..mac)? } else { &[0; VNET_BYTES] };
        let hardware_time = status & libc::TP_STATUS_TS_RAW_HARDWARE != 0;
        let wire_len = u32_at(frame, LENGTH)?;

        let mut found = 0;
        let mut set = |bit, on| found |= if on { bit } else { 0 };
        set(
            flags::CHECKSUM_PARTIAL,
            status & libc::TP_STATUS_CSUMNOTREADY != 0 || virtio[0] & VNET_NEEDS_CHECKSUM != 0,
        );
        set(flags::CHECKSUM_VALID, status & libc::TP_STATUS_CSUM_VALID != 0 || virtio[0] & VNET_DATA_VALID != 0);
        set(flags::GSO, status & STATUS_GSO_TCP != 0 || virtio[1] != VNET_GSO_NONE);
        set(flags::VLAN_STRIPPED, status & libc::TP_STATUS_VLAN_VALID != 0);
        let tpid = if status & libc::TP_STATUS_VLAN_TPID_VALID != 0 { u16_at(frame, VLAN_TPID)? } else { 0x8100 };
        set(flags::VLAN_SERVICE, status & libc::TP_STATUS_VLAN_VALID != 0 && tpid == 0x88a8);
        set(flags::TRUNCATED, (bytes.len() as u32) < wire_len);
        set(flags::HARDWARE_TIME, hardware_time);
        set(flags::OUTGOING, *frame.get(ADDRESS_KIND)? == libc::PACKET_OUTGOING);

        // LINKTYPE_LINUX_SLL: kind, hardware type, address length, address (8), protocol; big-endian.
        let mut cooked = [0; COOKED_BYTES];
        cooked[1] = *frame.get(ADDRESS_KIND)?;
        cooked[2..4].copy_from_slice(&u16_at(frame, ADDRESS_HARDWARE)?.to_be_bytes());
        cooked[5] = *frame.get(ADDRESS_LEN)?;
        cooked[6..14].copy_from_slice(frame.get(ADDRESS_BYTES..ADDRESS_BYTES + 8)?);
        cooked[14..16].copy_from_slice(frame.get(ADDRESS_PROTOCOL..ADDRESS_PROTOCOL + 2)?);

        Some(Frame {
            bytes,
            wire_len,
            time_ns: u64::from(u32_at(frame, SECONDS)?) * 1_000_000_000 + u64::from(u32_at(frame, NANOSECONDS)?),
            clock: if hardware_time { Clock::Hardware } else { Clock::Realtime },
            flags: found,
            stripped_vlan: u32_at(frame, VLAN_TCI)? as u16,
            part_bytes: if found & flags::GSO != 0 { u16_at(virtio, VNET_GSO_SIZE)? } else { 0 },
            next: u32_at(frame, NEXT)? as usize,
            cooked,
        })
    }
}

/// Bytes to the next frame from that at `offset` of a block, and the first eight of its packet.
#[cfg(feature = "bench")]
pub(super) fn first_bytes(block: &[u8], offset: usize) -> Option<(usize, u64)> {
    let frame = block.get(offset..)?;
    let packet = frame.get(usize::from(u16_at(frame, MAC)?)..)?;
    Some((u32_at(frame, NEXT)? as usize, u64::from_ne_bytes(*packet.first_chunk()?)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_the_kernels() {
        use std::mem::offset_of;
        assert_eq!(offset_of!(libc::tpacket3_hdr, tp_status), STATUS);
        assert_eq!(offset_of!(libc::tpacket3_hdr, tp_mac), MAC);
        assert_eq!(offset_of!(libc::tpacket3_hdr, hv1) + offset_of!(libc::tpacket_hdr_variant1, tp_vlan_tci), VLAN_TCI);
        assert_eq!(size_of::<libc::tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT), ADDRESS);
        assert_eq!(ADDRESS + offset_of!(libc::sockaddr_ll, sll_pkttype), ADDRESS_KIND);
        assert_eq!(ADDRESS + offset_of!(libc::sockaddr_ll, sll_addr), ADDRESS_BYTES);
        assert_eq!(offset_of!(libc::tpacket_block_desc, hdr) + offset_of!(libc::tpacket_hdr_v1, num_pkts), FRAMES);
    }

    #[test]
    fn a_frame_that_claims_more_than_its_block_is_none() {
        let mut block = vec![0u8; 256];
        block[CAPTURED] = 100;
        block[LENGTH] = 100;
        block[MAC] = 96;
        assert_eq!(Frame::at(&block, 0, true).map(|f| f.bytes.len()), Some(100));
        block[CAPTURED] = 161;
        assert_eq!(Frame::at(&block, 0, true), None);
        for cut in 0..block.len() {
            let _ = Frame::at(&block[..cut], 0, true);
            assert_eq!(Frame::at(&block, 256 - cut.min(60), true), None);
        }
    }
}
