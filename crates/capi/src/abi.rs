//! The structs and numbers of `flowyard.h`.

use std::ffi::{c_char, c_int};

use flowyard::mem::Tag;

/// `FLOWYARD_ABI`.
pub const ABI: u32 = 1;

/// `FLOWYARD_WRITE`.
pub const WRITE: u32 = 1 << 0;

/// `FLOWYARD_ERROR`, and what there is.
pub const ERROR: c_int = -1;
/// `FLOWYARD_NOTHING`.
pub const NOTHING: c_int = 0;
/// `FLOWYARD_PACKETS`.
pub const PACKETS: c_int = 1;
/// `FLOWYARD_ENDED`.
pub const ENDED: c_int = 2;

/// `FLOWYARD_SPIN`, and other ways to wait.
pub const SPIN: c_int = 0;
/// `FLOWYARD_YIELD`.
pub const YIELD: c_int = 1;
/// `FLOWYARD_SLEEP`.
pub const SLEEP: c_int = 2;

/// `FLOWYARD_NOT_ENDED`, and how a ring ended.
pub const NOT_ENDED: c_int = 0;
/// `FLOWYARD_IN_ORDER`.
pub const IN_ORDER: c_int = 1;
/// `FLOWYARD_LOST`.
pub const LOST: c_int = 2;

/// `struct flowyard_options`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Options {
    /// Bytes of the struct as the program knows it.
    pub size: usize,
    /// Path of the yard's socket, or null.
    pub socket: *const c_char,
    /// Name of the consumer, or null.
    pub program: *const c_char,
    /// Bits: [`WRITE`].
    pub flags: u32,
    /// 0.
    pub zero: u32,
    /// How long to try; negative for ever.
    pub patience_ns: i64,
}

/// `struct flowyard_info`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Info {
    /// Bytes of the struct as the program knows it.
    pub size: usize,
    /// Name of the yard.
    pub yard: *const c_char,
    /// Name of the ring's group.
    pub group: *const c_char,
    /// Number of the ring.
    pub ring: u16,
    /// Rings of the group.
    pub rings: u16,
    /// Ports of the yard.
    pub port_count: u16,
    /// 1 if packets may be written.
    pub write: u16,
    /// Of every packet.
    pub annotation_bytes: u32,
    /// Of every buffer.
    pub buffer_bytes: u32,
}

/// `struct flowyard_segment`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct SegmentView {
    /// Where it lies.
    pub data: *const u8,
    /// Its bytes.
    pub len: u32,
    /// 0.
    pub zero: u32,
}

/// `struct flowyard_view`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PacketView {
    /// The first segment.
    pub data: *mut u8,
    /// Bytes of it.
    pub len: u32,
    /// Bytes of all segments.
    pub total: u32,
    /// The segments behind it.
    pub further: *const SegmentView,
    /// How many.
    pub further_count: u32,
    /// Symmetric hash of the conversation.
    pub hash: u32,
    /// In front of the packet.
    pub tag: *const Tag,
    /// In front of that, or null.
    pub annotation: *mut u8,
    /// Its bytes.
    pub annotation_len: u16,
    /// Of the slot.
    pub flags: u16,
    /// Innermost IP header.
    pub l3: u16,
    /// Innermost layer-4 header.
    pub l4: u16,
    /// When.
    pub time_ns: u64,
    /// Index of the first buffer.
    pub buffer: u32,
    /// Number of the port.
    pub port: u8,
    /// 1 if it may be written.
    pub writable: u8,
    /// 0.
    pub zero: u16,
}
