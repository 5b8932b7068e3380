//! ABI 1: every number that two processes must agree on, in one place.
//!
//! All values are little-endian as they lie in memory on the machines this runs on; the marker at
//! the start of each header tells a reader of the other kind. Anything that changes here bumps
//! [`ABI_VERSION`].
//!
//! ```text
//! region file                                     written by
//! 0        header (64 bytes used)                 the yard, before it hands the file to anyone
//! 4096     buffer 0                               yard, and consumers with a writing grant
//! 4096+S   buffer 1 …                             "
//!
//! buffer   0          A         A+64       A+256
//!          annotation tag (64)  headroom   packet … tailroom
//!
//! pipe file                                       written by
//! 0        header                                 the yard, before it hands the file to anyone
//! 4096     out: producer's line (tail, ended)      the yard
//! 4096+128 out: consumer's line (head, sleeping)  the consumer
//! 4096+256 back: producer's line (tail, leaving)  the consumer
//! 4096+384 back: consumer's line (head, sleeping) the yard
//! 8192     out slots, then back slots             the yard; the consumer
//! ```

/// First eight bytes of every file of ours.
pub const MAGIC: [u8; 8] = *b"FLOWYARD";
/// Version of the layout of region, buffer, tag, slot, ring and pipe.
pub const ABI_VERSION: u32 = 1;
/// Reads as another number on a machine of the other byte order.
pub const ENDIAN_MARKER: u32 = 0x0102_0304;

/// Bytes before the first buffer of a region, and before the rings of a pipe: one page.
pub const HEADER_BYTES: usize = 4096;

/// Bytes of a tag: one cache line.
pub const TAG_BYTES: usize = 64;
/// Bytes free between tag and packet, for pushing headers. The kernel's 256 bytes of AF_XDP
/// headroom (`XDP_PACKET_HEADROOM`, include/uapi/linux/bpf.h) are tag plus this.
pub const HEADROOM_BYTES: usize = 192;
/// Annotation sizes that a region can be made with.
pub const ANNOTATION_SIZES: [usize; 5] = [0, 64, 128, 192, 256];
/// Buffer sizes that a region can be made with: the chunk sizes of AF_XDP's aligned mode that hold
/// a frame (`xdp_umem_reg`, net/xdp/xdp_umem.c).
pub const BUFFER_SIZES: [usize; 2] = [2048, 4096];
/// Most buffers of one region: 2^24, so an index, a count and a bit fit where they must.
pub const MAX_BUFFERS: usize = 1 << 24;

/// Bytes between things that different cores write: two lines, because adjacent lines are
/// fetched in pairs.
pub const CACHE_STRIDE: usize = 128;

/// What a header page describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Packet buffers.
    Region = 1,
    /// A ring out and a ring back.
    Pipe = 2,
}

/// The head of every file: 64 bytes, written once by the yard before anyone else has the file.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`ENDIAN_MARKER`].
    pub endian: u32,
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// [`Kind`], as a number.
    pub kind: u32,
    /// Bytes between one buffer (region) or one slot of the ring out (pipe) and the next.
    pub stride: u32,
    /// Buffers (region), or slots of each ring (pipe: a power of two).
    pub count: u32,
    /// Annotation bytes of each buffer (region); bytes between slots of the ring back (pipe).
    pub second: u32,
    /// Random name of the region; a pipe carries the name of the region that its slots index.
    pub region: u64,
    /// Bytes of the file that the layout covers.
    pub len: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

const _: () = assert!(size_of::<Header>() == 64);

impl Header {
    /// A header of this library's version.
    pub(crate) fn new(kind: Kind, stride: u32, count: u32, second: u32, region: u64, len: u64) -> Header {
        Header {
            magic: MAGIC,
            endian: ENDIAN_MARKER,
            abi: ABI_VERSION,
            kind: kind as u32,
            stride,
            count,
            second,
            region,
            len,
            reserved: [0; 2],
        }
    }

    /// Checks all that does not depend on the kind's own geometry.
    ///
    /// # Errors
    /// [`MemError::Header`](crate::MemError) names the first field that differs, and what to do.
    pub(crate) fn check(&self, object: &'static str, kind: Kind, file_len: usize) -> Result<(), crate::MemError> {
        let wrong =
            |what, found: u64, expected: u64, remedy| crate::MemError::Header { object, what, found, expected, remedy };
        let magic = u64::from_be_bytes(self.magic);
        if self.magic != MAGIC {
            return Err(wrong("magic", magic, u64::from_be_bytes(MAGIC), "this is not a Flowyard file"));
        }
        if self.endian != ENDIAN_MARKER {
            return Err(wrong(
                "byte order",
                self.endian.into(),
                ENDIAN_MARKER.into(),
                "made on a machine of the other byte order",
            ));
        }
        if self.abi != ABI_VERSION {
            return Err(wrong(
                "ABI version",
                self.abi.into(),
                ABI_VERSION.into(),
                "use the same Flowyard version on both sides",
            ));
        }
        if self.kind != kind as u32 {
            return Err(wrong("kind", self.kind.into(), kind as u64, "region and pipe descriptors are exchanged"));
        }
        if self.len > file_len as u64 {
            return Err(wrong("length", self.len, file_len as u64, "the file is shorter than its header says"));
        }
        Ok(())
    }
}
