//! A loop over one TPACKET_V3 socket that drops, with nothing around it: what the benchmarks hold the ports against.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::SocketType;

use super::frame;
use super::ring::BlockRing;
use super::{BLOCK_KIB, BLOCKS, RETIRE_MS};
use crate::sys;

/// Smallest frame that the ring is told of; frames in a block are packed, whatever it says.
const FRAME_BYTES: u32 = 2048;

/// A packet socket, with a ring as long as a port's.
pub struct BareBlocks {
    // The ring before its socket, so that it is unmapped first.
    ring: BlockRing,
    fd: OwnedFd,
    sum: u64,
}

impl BareBlocks {
    /// Opens one on interface `index`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(index: u32) -> io::Result<BareBlocks> {
        let fd = sys::packet_socket(SocketType::RAW)?;
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
        let block_bytes = BLOCK_KIB * 1024;
        let request = libc::tpacket_req3 {
            tp_block_size: block_bytes,
            tp_block_nr: BLOCKS,
            tp_frame_size: FRAME_BYTES,
            tp_frame_nr: block_bytes / FRAME_BYTES * BLOCKS,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let ring = BlockRing::map(&fd, block_bytes as usize, BLOCKS as usize)?;
        sys::bind_packet(&fd, index, libc::ETH_P_ALL as u16)?;
        Ok(BareBlocks { ring, fd, sum: 0 })
    }

    /// Walks through a block, if one is there, reads the first bytes of each packet, gives the block back, and answers how
    /// many packets it had.
    pub fn turn(&mut self) -> u64 {
        let Some(block) = self.ring.block() else { return 0 };
        let (frames, mut at) = frame::head(block).unwrap_or((0, 0));
        for _ in 0..frames {
            let Some((next, first)) = frame::first_bytes(block, at) else { break };
            self.sum ^= first;
            at += next;
        }
        std::hint::black_box(self.sum);
        self.ring.release();
        frames.into()
    }
}

impl AsFd for BareBlocks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
