//! What a steering function in WebAssembly is built from: the records that the yard lays into its memory, and
//! what the yard offers. Copy this file into your project, or include it by its path; it needs nothing but `core`.
//!
//! ```text
//! mod flowyard_guest;
//! use flowyard_guest::{Packet, ABI, batch, verdict};
//!
//! #[unsafe(no_mangle)]
//! extern "C" fn abi() -> u32 { ABI }
//!
//! #[unsafe(no_mangle)]
//! extern "C" fn steer(packets: *mut Packet, count: u32) -> i32 {
//!     // SAFETY: what the yard gave us, used within the call.
//!     for packet in unsafe { batch(packets, count) } {
//!         if packet.is_undecided() && packet.tag.protocol == 17 {
//!             packet.verdict.kind = verdict::RING; // UDP to ring 0
//!         }
//!     }
//!     0
//! }
//! ```
#![allow(dead_code, reason = "nobody uses all of it")]

/// Version of this interface, which `abi` answers.
pub const ABI: u32 = 1;
/// Most packets of a batch.
pub const BATCH: usize = 64;
/// An offset that says "there is none".
pub const NO_OFFSET: u16 = 0xffff;

/// The tag: what the yard knows of a packet, as its consumer will see it. Offsets count from the packet's start
/// as received. What is written to `outer_l3` … `user` goes along; the rest is put right by the yard.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub struct Tag {
    /// Of the built-in policy: both directions of a conversation and its fragments share it.
    pub hash: u32,
    /// Of the built-in policy.
    pub ring: u16,
    /// Why dissection ended, as a number.
    pub stop: u8,
    /// IP headers passed.
    pub depth: u8,
    /// Outermost IP header, or [`NO_OFFSET`].
    pub outer_l3: u16,
    /// Innermost IP header, or [`NO_OFFSET`].
    pub inner_l3: u16,
    /// Innermost layer-4 header, or [`NO_OFFSET`].
    pub inner_l4: u16,
    /// Innermost IP protocol, behind extension headers.
    pub protocol: u8,
    /// Bits 0 and 1: fragment (0 none, 1 first, 2 later); 3: innermost is IPv6; 4: ICMP error that quotes a packet.
    pub kind: u8,
    /// Identifier of the innermost tunnel; 0 without one.
    pub tunnel_id: u32,
    /// Kind of the innermost tunnel, as in flowyard_plugin.h; 0 without one.
    pub tunnel_kind: u8,
    /// Version of the default hash.
    pub hash_version: u8,
    /// Outermost VLAN's TCI; 0 without one.
    pub vlan: u16,
    /// The user's own mark: 0 until a function writes it.
    pub user: u64,
    /// When, by the clock in the top byte of `flags`.
    pub time_ns: u64,
    /// As in flowyard_plugin.h.
    pub flags: u32,
    /// Bytes on the wire.
    pub wire_len: u32,
    /// Bytes captured, over all segments.
    pub len: u32,
    /// Number of the port.
    pub port: u16,
    /// Hardware queue, or interface number in a capture.
    pub queue: u16,
    /// The card's hash, where `flags` says so.
    pub card_hash: u32,
    /// TCI that hardware took off, where `flags` says so.
    pub stripped_vlan: u16,
    /// Pcap link type of the first byte (Ethernet 1, raw IP 101 …).
    pub link: u16,
}

/// What a function says of a packet. Anything may be written: it is checked when it is carried out.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Verdict {
    /// One of [`verdict`].
    pub kind: u8,
    /// 0.
    pub zero: u8,
    /// For [`verdict::RING`].
    pub ring: u16,
    /// Hash for [`verdict::HASH`], milliseconds for [`verdict::SHUNT`].
    pub value: u32,
    /// Bytes to keep of the packet, from its start after `pull`; 0 for all.
    pub slice: u32,
    /// Bytes to take off the packet's start.
    pub pull: u16,
    /// 0.
    pub zero2: u16,
}

/// Where a packet goes: [`Verdict::kind`].
pub mod verdict {
    /// Where the built-in policy puts it, or the next function of a chain.
    pub const BUILT_IN: u8 = 0;
    /// By `value` as its hash: packets that share it share a ring.
    pub const HASH: u8 = 1;
    /// To `ring`.
    pub const RING: u8 = 2;
    /// Nowhere.
    pub const DROP: u8 = 3;
    /// Nowhere, and the rest of its conversation unseen for `value` milliseconds.
    pub const SHUNT: u8 = 4;
    /// To every ring.
    pub const EVERY_RING: u8 = 5;
    /// To the host's network stack.
    pub const HOST: u8 = 6;
}

/// One packet of a batch: 96 bytes. Good until `steer` returns.
#[derive(Debug)]
#[repr(C)]
pub struct Packet {
    /// What is known of it; to correct.
    pub tag: Tag,
    /// What is said of it: all zero unless an earlier function of a chain has spoken.
    pub verdict: Verdict,
    pub(crate) bytes: u32,
    pub(crate) annotation: u32,
    pub(crate) bytes_len: u16,
    pub(crate) annotation_len: u16,
    pub(crate) segment_len: u16,
    pub(crate) zero: u16,
}

impl Packet {
    /// Whether no earlier function of a chain has decided: what such a one said is by custom left alone.
    pub fn is_undecided(&self) -> bool {
        self.verdict.kind == verdict::BUILT_IN
    }
}

#[cfg(target_arch = "wasm32")]
impl Packet {
    /// Its first bytes, as received: as many as `packet_bytes` asks for (192 if that is not exported), if it has so
    /// many in its first segment.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the yard wrote address and length, of a place that nothing else is in, and only `batch` makes packets.
        unsafe { core::slice::from_raw_parts(self.bytes as *const u8, self.bytes_len.into()) }
    }

    /// Its annotation, to write, as many bytes as `annotation_bytes` asks for (all if that is not exported). It holds
    /// what an earlier packet in the same buffer left there.
    pub fn annotation(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; no two packets share a byte of it, and this one is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.annotation as *mut u8, self.annotation_len.into()) }
    }

    /// Bytes of its first segment: the whole packet unless it is larger than a buffer.
    pub fn segment_len(&self) -> usize {
        self.segment_len.into()
    }
}

/// The packets of a batch.
///
/// # Safety
/// `packets` and `count` are what `steer` was called with, and the call has not returned.
#[cfg(target_arch = "wasm32")]
pub unsafe fn batch<'a>(packets: *mut Packet, count: u32) -> &'a mut [Packet] {
    // SAFETY: by the contract.
    unsafe { core::slice::from_raw_parts_mut(packets, count as usize) }
}

/// What `open` is told.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Host {
    /// [`ABI`].
    pub abi: u32,
    /// Bytes of this struct, as the yard knows it: later ones may be larger.
    pub size: u32,
    /// Rings that verdicts may name: 0 to one less.
    pub rings: u32,
    /// In front of every packet: 0, 64, 128, 192 or 256.
    pub annotation_bytes: u32,
    /// Number of the dispatcher that this instance is for.
    pub dispatcher: u32,
    /// Number of dispatchers.
    pub dispatchers: u32,
}

/// What `table_get` answers.
pub mod lookup {
    /// The value was copied.
    pub const FOUND: i32 = 1;
    /// There is none.
    pub const ABSENT: i32 = 0;
    /// The entry was being changed at each of many attempts: take it for absent.
    pub const BUSY: i32 = -1;
}

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "flowyard")]
    unsafe extern "C" {
        pub(super) fn say(words: *const u8, len: usize);
        pub(super) fn table_open(name: *const u8, len: usize, key_bytes: usize, value_bytes: usize) -> i32;
        pub(super) fn table_get(table: i32, key: *const u8, key_len: usize, value: *mut u8, value_len: usize) -> i32;
    }
}

/// Words for people: why `open` or `control` refuses, or what the trap that follows is about. The last ones count.
#[cfg(target_arch = "wasm32")]
pub fn say(words: &str) {
    // SAFETY: the words are there, and are read only.
    unsafe { imports::say(words.as_ptr(), words.len()) }
}

/// A named table of the yard.
#[cfg(target_arch = "wasm32")]
#[derive(Debug, Clone, Copy)]
pub struct Table(i32);

#[cfg(target_arch = "wasm32")]
impl Table {
    /// The table called `name`, with keys and values of these sizes (0: any). `None` if there is none such: the
    /// yard knows the reason then, and tells it if `open` refuses. Not from `steer`.
    pub fn open(name: &str, key_bytes: usize, value_bytes: usize) -> Option<Table> {
        // SAFETY: the name is there, and is read only.
        let handle = unsafe { imports::table_open(name.as_ptr(), name.len(), key_bytes, value_bytes) };
        (handle >= 0).then_some(Table(handle))
    }

    /// Looks `key` up and copies its value, as much as fits. Answers whether there is one.
    pub fn get(self, key: &[u8], value: &mut [u8]) -> bool {
        let (key_len, value_len) = (key.len(), value.len());
        // SAFETY: both are there for as many bytes, and `value` is ours to write.
        let found = unsafe { imports::table_get(self.0, key.as_ptr(), key_len, value.as_mut_ptr(), value_len) };
        found == lookup::FOUND
    }
}
