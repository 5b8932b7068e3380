//! The peers in C: loaded, and called burst by burst.
//!
//! # Invariants
//! The object is compiled from `bench/peers` by [`compile`](super::compile), so the types below are those of
//! `peers.h`. It is never unloaded: its functions are good for the life of the program.
//!
//! A [`Packet`] is only made by [`Dpdk::list`], of packets that stay where they are as long as it lives, and
//! the room before each holds an mbuf that [`Dpdk::make_mbufs`] has laid over it. The peers read packets and
//! mbufs; what they write is the two slices of the caller.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::compile;
use crate::packets::{BUFFER_BYTES, Packets, START};

/// Packets of a burst.
pub const BURST: usize = 32;
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
}

type Hash = unsafe extern "C" fn(*const Packet<'_>, u32, *const u16, *mut u32, *mut u16);
type Mbuf = unsafe extern "C" fn(*mut Packet<'_>, *mut u8, u32);

/// The functions of the object.
#[derive(Debug)]
pub struct Dpdk {
    ptype_crc: Hash,
    ptype_softrss: Hash,
    plain_crc: Hash,
    mbuf: Mbuf,
    table: [u16; BUCKETS],
}

/// The peers, compiled and loaded when first asked for; `None`, having said why, where they cannot be.
pub fn dpdk() -> Option<&'static Dpdk> {
    static LOADED: OnceLock<Option<Dpdk>> = OnceLock::new();
    let load = || {
        let given = std::env::var_os(compile::OBJECT).map(std::path::PathBuf::from);
        let folder = std::env::temp_dir().join(format!("flowyard-bench-peers-{}", std::process::id()));
        let loaded = given.map_or_else(|| compile::compile(&folder), Ok).and_then(|object| Dpdk::load(&object));
        let _ = std::fs::remove_dir_all(folder);
        loaded.inspect_err(|why| println!("\nSkipped: DPDK's peers ({why}; Debian: apt install gcc libdpdk-dev).")).ok()
    };
    LOADED.get_or_init(load).as_ref()
}

impl Dpdk {
    fn load(object: &std::path::Path) -> Result<Dpdk, String> {
        let words = |e: libloading::Error| format!("{}: {e}", object.display());
        // SAFETY: runs constructors of DPDK's libraries and of our own sources, of which it was just compiled.
        let library = unsafe { Library::open(Some(object), RTLD_NOW | RTLD_GLOBAL) }.map_err(words)?;
        let library = std::mem::ManuallyDrop::new(library); // never unloaded
        // SAFETY: peers.h and the sources give these symbols this type.
        let hash = |name| unsafe { library.get::<Hash>(name) }.map(|found| *found).map_err(words);
        Ok(Dpdk {
            ptype_crc: hash("ptype_crc")?,
            ptype_softrss: hash("ptype_softrss")?,
            plain_crc: hash("plain_crc")?,
            // SAFETY: ptype.c gives it this type.
            mbuf: *unsafe { library.get::<Mbuf>("ptype_mbuf") }.map_err(words)?,
            table: std::array::from_fn(|bucket| bucket as u16 % crate::steer::RINGS),
        })
    }

    /// Lays an mbuf over each packet, at the front of its buffer.
    pub fn make_mbufs(&self, packets: &mut Packets) {
        for (buffer, len) in packets.buffers_mut() {
            assert!(buffer.len() == BUFFER_BYTES && len <= BUFFER_BYTES - START);
            let start = buffer.as_mut_ptr();
            let mut packet = packet(start, len);
            // SAFETY: the buffer is ours alone, and there is room for an mbuf before the packet (asserted above).
            unsafe { (self.mbuf)(&raw mut packet, start, BUFFER_BYTES as u32) };
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
            Method::PtypeCrc => self.ptype_crc,
            Method::PtypeSoftrss => self.ptype_softrss,
            Method::PlainCrc => self.plain_crc,
        };
        let (count, table) = (burst.len() as u32, self.table.as_ptr());
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
