//! `plain.c`, `ptype.c` and `lb.c`: a burst of packets in, a hash and a ring for each out.
//!
//! # Invariants
//! A [`Packet`] is only made by [`Dpdk::list`], of packets that stay where they are as long as it lives, and
//! the room before each holds an mbuf that [`Dpdk::make_mbufs`] has laid over it. The peers read packets and
//! mbufs; what they write is the two slices of the caller.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use super::{BURST, Dpdk, Object};
use crate::packets::{BUFFER_BYTES, Packets, START};
use crate::steer::RINGS;

/// Buckets of the indirection table.
const BUCKETS: usize = 128;
/// Bytes of an mbuf, at the front of a buffer.
const MBUF_BYTES: usize = 128;
const _: () = assert!(START >= MBUF_BYTES);

/// A packet as C sees it: `struct packet`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Packet<'a> {
    data: *mut u8,
    len: u64,
    mbuf: *mut u8,
    of: PhantomData<&'a [u8]>,
}

/// How a burst is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `rte_net_get_ptype` and CRC-32C over sorted ends.
    PtypeCrc,
    /// `rte_net_get_ptype` and the Toeplitz hash in software with a symmetric key.
    PtypeSoftrss,
    /// A plain parser for the carriers there are, and CRC-32C over sorted ends.
    PlainCrc,
    /// As netmap's load balancer does: a parser that checks next to nothing, and the Toeplitz hash from a table.
    NetmapLb,
}

type Hash = unsafe extern "C" fn(*const Packet<'_>, u32, *const u16, *mut u32, *mut u16);
type Mbuf = unsafe extern "C" fn(*mut Packet<'_>, *mut u8, u32);

/// The functions of these sources, and a table of rings for them.
#[derive(Debug)]
pub(super) struct Functions {
    ptype_crc: Hash,
    ptype_softrss: Hash,
    plain_crc: Hash,
    netmap_lb: Hash,
    mbuf: Mbuf,
    table: [u16; BUCKETS],
}

impl Functions {
    pub(super) fn find(object: &Object) -> Result<Functions, String> {
        // SAFETY: these are their types in the sources.
        unsafe {
            Ok(Functions {
                ptype_crc: object.function("ptype_crc")?,
                ptype_softrss: object.function("ptype_softrss")?,
                plain_crc: object.function("plain_crc")?,
                netmap_lb: object.function("netmap_lb")?,
                mbuf: object.function("ptype_mbuf")?,
                table: std::array::from_fn(|bucket| bucket as u16 % RINGS),
            })
        }
    }
}

impl Dpdk {
    /// Lays an mbuf over each packet, at the front of its buffer.
    pub fn make_mbufs(&self, packets: &mut Packets) {
        for (buffer, len) in packets.buffers_mut() {
            assert!(buffer.len() == BUFFER_BYTES && len <= BUFFER_BYTES - START);
            let start = buffer.as_mut_ptr();
            let mut packet = packet(start, len);
            // SAFETY: the buffer is ours alone, and there is room for an mbuf before the packet (asserted above).
            unsafe { (self.hash.mbuf)(&raw mut packet, start, BUFFER_BYTES as u32) };
        }
        packets.set_mbufs();
    }

    /// The packets at these places of the order, for [`Dpdk::hash`].
    ///
    /// # Panics
    /// If they have no mbufs.
    pub fn list<'a>(&self, packets: &'a Packets, places: Range<usize>, list: &mut Vec<Packet<'a>>) {
        assert!(packets.have_mbufs(), "make_mbufs comes first");
        list.clear();
        list.extend(places.map(|at| {
            let buffer = packets.buffer(at);
            packet(buffer.as_ptr().cast_mut(), packets.get(at).len())
        }));
    }

    /// Hashes of a burst and their rings.
    ///
    /// # Panics
    /// If it is more than [`BURST`] packets.
    #[inline]
    pub fn hash(&self, how: Method, burst: &[Packet<'_>], hashes: &mut [u32; BURST], rings: &mut [u16; BURST]) {
        assert!(burst.len() <= BURST);
        let hash = match how {
            Method::PtypeCrc => self.hash.ptype_crc,
            Method::PtypeSoftrss => self.hash.ptype_softrss,
            Method::PlainCrc => self.hash.plain_crc,
            Method::NetmapLb => self.hash.netmap_lb,
        };
        let (count, table) = (burst.len() as u32, self.hash.table.as_ptr());
        // SAFETY: `count` packets with their mbufs (invariant), a table of BUCKETS, room for BURST of either.
        unsafe { hash(burst.as_ptr(), count, table, hashes.as_mut_ptr(), rings.as_mut_ptr()) };
    }
}

/// The packet of `len` bytes in the buffer that starts at `buffer`.
fn packet<'a>(buffer: *mut u8, len: usize) -> Packet<'a> {
    Packet { data: buffer.wrapping_add(START), len: len as u64, mbuf: buffer, of: PhantomData }
}

impl Packet<'_> {
    /// Brings the mbuf into the cache.
    #[inline]
    pub fn touch(&self) {
        // SAFETY: the mbuf lies at the front of a buffer that lives as long as this (invariant).
        std::hint::black_box(unsafe { self.mbuf.read() });
    }
}
