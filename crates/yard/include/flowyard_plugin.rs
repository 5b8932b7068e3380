//! `flowyard_plugin.h` for plug-ins written in Rust: copy this file beside yours, `mod flowyard_plugin;`.
//!
//! SPDX-License-Identifier: MIT OR Apache-2.0
//!
//! The header says what each thing means, when each function is called, and what it may rely on; this
//! file says the same to Rust, and the yard itself is built from it. Depends on nothing; its `unsafe` code
//! is in [`Packets`], which gives safe sight of a batch. Show one symbol:
//!
//! ```text
//! #[unsafe(no_mangle)]
//! extern "C" fn flowyard_plugin() -> *const Plugin { &PLUGIN }
//! ```
//!
//! A panic that reaches the end of an `extern "C"` function ends the yard's process.
#![allow(dead_code, reason = "no plug-in uses all of it")]
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};

/// `FLOWYARD_PLUGIN_ABI`.
pub const ABI: u32 = 2;
/// `FLOWYARD_BATCH`.
pub const BATCH: usize = 64;
/// `FLOWYARD_COPY_BYTES`.
pub const COPY_BYTES: usize = 256;
/// `FLOWYARD_NO_OFFSET`.
pub const NO_OFFSET: u16 = 0xffff;

/// Bits of [`Tag::flags`].
pub mod flags {
    #![allow(missing_docs, reason = "the header has them")]
    pub const CHECKSUM_PARTIAL: u32 = 1 << 0;
    pub const CHECKSUM_VALID: u32 = 1 << 1;
    pub const GSO: u32 = 1 << 2;
    pub const VLAN_STRIPPED: u32 = 1 << 3;
    pub const TRUNCATED: u32 = 1 << 4;
    pub const HARDWARE_TIME: u32 = 1 << 5;
    pub const CARD_HASH: u32 = 1 << 6;
    pub const FRAGMENT_FALLBACK: u32 = 1 << 7;
    pub const OUTGOING: u32 = 1 << 8;
    pub const VLAN_SERVICE: u32 = 1 << 9;
}

/// The top byte of [`Tag::flags`].
pub mod clock {
    #![allow(missing_docs, reason = "the header has them")]
    pub const NONE: u32 = 0;
    pub const REALTIME: u32 = 1;
    pub const RECORDED: u32 = 2;
    pub const HARDWARE: u32 = 3;
    pub const GENERATED: u32 = 4;
}

/// [`Tag::kind`].
pub mod kind {
    #![allow(missing_docs, reason = "the header has them")]
    pub const FRAGMENT_MASK: u8 = 0x03;
    pub const FRAGMENT_NONE: u8 = 0x00;
    pub const FRAGMENT_FIRST: u8 = 0x01;
    pub const FRAGMENT_LATER: u8 = 0x02;
    pub const INNER_IPV6: u8 = 0x08;
    pub const ICMP_ERROR: u8 = 0x10;
    pub const ICMP_QUOTE: u8 = 8;
}

/// [`Tag::tunnel_kind`].
pub mod tunnel {
    #![allow(missing_docs, reason = "the header has them")]
    pub const NONE: u8 = 0;
    pub const IP: u8 = 1;
    pub const GRE: u8 = 2;
    pub const PPTP: u8 = 3;
    pub const GTP: u8 = 4;
    pub const VXLAN: u8 = 5;
    pub const PPPOE: u8 = 6;
    pub const MPLS: u8 = 7;
    pub const GENEVE: u8 = 8;
    pub const L2TP: u8 = 9;
    pub const OTHER: u8 = 10;
}

/// [`Verdict::kind`].
pub mod verdict {
    #![allow(missing_docs, reason = "the header has them")]
    pub const BUILT_IN: u8 = 0;
    pub const HASH: u8 = 1;
    pub const RING: u8 = 2;
    pub const DROP: u8 = 3;
    pub const SHUNT: u8 = 4;
    pub const EVERY_RING: u8 = 5;
    pub const HOST: u8 = 6;
}

/// Answers of [`Host::table_get`].
pub mod lookup {
    #![allow(missing_docs, reason = "the header has them")]
    pub const FOUND: i32 = 1;
    pub const ABSENT: i32 = 0;
    pub const BUSY: i32 = -1;
}

/// `struct flowyard_tag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Tag {
    pub hash: u32,
    pub ring: u16,
    pub stop: u8,
    pub depth: u8,
    pub outer_l3: u16,
    pub inner_l3: u16,
    pub inner_l4: u16,
    pub protocol: u8,
    pub kind: u8,
    pub tunnel_id: u32,
    pub tunnel_kind: u8,
    pub hash_version: u8,
    pub vlan: u16,
    pub user: u64,
    pub time_ns: u64,
    pub flags: u32,
    pub wire_len: u32,
    pub len: u32,
    pub port: u16,
    pub queue: u16,
    pub card_hash: u32,
    pub stripped_vlan: u16,
    pub link: u16,
}

/// `struct flowyard_verdict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Verdict {
    pub kind: u8,
    pub zero: u8,
    pub ring: u16,
    pub value: u32,
    pub slice: u32,
    pub pull: u16,
    pub zero2: u16,
}

/// `struct flowyard_place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Place {
    pub buffer: u32,
    pub region: u32,
    pub offset: u16,
    pub len: u16,
}

/// `struct flowyard_batch`: see [`Packets`].
#[derive(Debug)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Batch {
    pub count: usize,
    pub verdicts: *mut Verdict,
    pub tags: *mut Tag,
    pub buffers: *mut u8,
    pub places: *const u8,
    pub copies: *mut u8,
    pub buffer_bytes: usize,
    pub buffer_count: u32,
    pub place_bytes: u32,
    pub annotation_bytes: u32,
    pub decided: u32,
    pub corrected: u32,
    pub zero: u32,
}

/// The packets of a batch, for plug-ins. Each has a number, 0 to one less than [`Packets::len`]; another
/// panics.
#[derive(Debug)]
pub struct Packets<'a>(&'a mut Batch);

impl<'a> Packets<'a> {
    /// What `steer` was given.
    ///
    /// # Safety
    /// `batch` is what the yard gave to the call of `steer` that `'a` does not outlive, and this is made of it once.
    pub unsafe fn new(batch: *mut Batch) -> Packets<'a> {
        // SAFETY: the yard hands over a batch that nobody else has until the call returns.
        Packets(unsafe { &mut *batch })
    }

    /// Number of packets: 1 to [`BATCH`].
    pub fn len(&self) -> usize {
        self.0.count
    }

    /// Whether there are none: never so.
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// Where packet `at` is said to be, if the yard has such a place, and its buffer.
    fn place(&self, at: usize) -> Option<(Place, *mut u8)> {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        // SAFETY: there are `count` places, each `place_bytes` behind the one before, for this call; whatever their
        // bytes are is a Place.
        let place = unsafe { self.0.places.add(at * self.0.place_bytes as usize).cast::<Place>().read_unaligned() };
        let end = usize::from(place.offset) + usize::from(place.len);
        let inside = place.buffer < self.0.buffer_count && end <= self.0.buffer_bytes;
        inside.then(|| (place, self.0.buffers.wrapping_add(place.buffer as usize * self.0.buffer_bytes)))
    }

    /// The first segment as received: the whole packet unless it is larger than a buffer. Offsets of the tag may
    /// lie behind it.
    pub fn bytes(&self, at: usize) -> &[u8] {
        let Some((place, buffer)) = self.place(at) else { return &[] };
        // SAFETY: the place lies in a buffer (just checked) that is this call's to read; nobody writes packets
        // while it runs, and the annotation, which this may write, ends before they begin.
        unsafe { std::slice::from_raw_parts(buffer.add(place.offset.into()), place.len.into()) }
    }

    /// The annotation, to write; empty if the yard has none. Of a group's function what is written is lost.
    pub fn annotation(&mut self, at: usize) -> &mut [u8] {
        let Some((_, buffer)) = self.place(at) else { return &mut [] };
        let first = if self.0.copies.is_null() { buffer } else { self.0.copies.wrapping_add(at * COPY_BYTES) };
        // SAFETY: each buffer, and each copy, begins with an annotation, this call's to write, lent by `&mut self`.
        unsafe { std::slice::from_raw_parts_mut(first, self.0.annotation_bytes as usize) }
    }

    /// The tag: what dissection found.
    pub fn tag(&self, at: usize) -> &Tag {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        // SAFETY: there are `count` tags for this call.
        unsafe { &*self.0.tags.add(at) }
    }

    /// The tag, to correct what a plug-in may correct of it.
    pub fn correct(&mut self, at: usize) -> &mut Tag {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        self.0.corrected = 1;
        // SAFETY: as for `tag`; `corrected` says that this may have been written, which makes it the plug-in's.
        unsafe { &mut *self.0.tags.add(at) }
    }

    /// Sets the user's own mark in the tag: what corrects nothing else costs one store.
    pub fn mark(&mut self, at: usize, mark: u64) {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        // SAFETY: as for `tag`; `user` is the plug-in's.
        unsafe { (*self.0.tags.add(at)).user = mark };
    }

    /// What earlier functions of a chain said.
    pub fn verdict(&self, at: usize) -> Verdict {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        // SAFETY: there are `count` verdicts for this call.
        unsafe { *self.0.verdicts.add(at) }
    }

    /// The verdict, to write.
    pub fn decide(&mut self, at: usize) -> &mut Verdict {
        assert!(at < self.0.count, "packet {at} of {}", self.0.count);
        self.0.decided = 1;
        // SAFETY: there are `count` verdicts for this call, which the yard does not look at before it ends.
        unsafe { &mut *self.0.verdicts.add(at) }
    }
}

/// `struct flowyard_table`: only ever behind a pointer.
#[derive(Debug)]
#[repr(C)]
pub struct Table {
    hidden: [u8; 0],
}

/// `table_open` of `struct flowyard_host`.
pub type TableOpen = unsafe extern "C" fn(
    host: *const Host,
    name: *const c_char,
    key_bytes: usize,
    value_bytes: usize,
    error: *mut c_char,
    error_bytes: usize,
) -> *const Table;

/// `table_get` of `struct flowyard_host`.
pub type TableGet = unsafe extern "C" fn(
    table: *const Table,
    key: *const c_void,
    key_bytes: usize,
    value: *mut c_void,
    value_bytes: usize,
) -> c_int;

/// `struct flowyard_host`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Host {
    pub abi: u32,
    pub size: u32,
    pub rings: u32,
    pub annotation_bytes: u32,
    pub dispatcher: u32,
    pub dispatchers: u32,
    pub table_open: TableOpen,
    pub table_get: TableGet,
}

/// `open` of `struct flowyard_plugin`.
pub type Open = unsafe extern "C" fn(
    host: *const Host,
    config: *const c_char,
    config_len: usize,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut c_void;
/// `close`.
pub type Close = unsafe extern "C" fn(state: *mut c_void);
/// `steer`.
pub type Steer = unsafe extern "C" fn(state: *mut c_void, batch: *mut Batch) -> c_int;
/// `check`.
pub type Check = unsafe extern "C" fn(state: *mut c_void, error: *mut c_char, error_bytes: usize) -> c_int;
/// `control`.
pub type Control = unsafe extern "C" fn(
    state: *mut c_void,
    request: *const c_void,
    request_len: usize,
    reply: *mut c_void,
    reply_bytes: usize,
) -> isize;
/// `tick`.
pub type Tick = unsafe extern "C" fn(state: *mut c_void);
/// `adopt`.
pub type Adopt = unsafe extern "C" fn(state: *mut c_void, old_state: *mut c_void);
/// `counter`.
pub type Counter =
    unsafe extern "C" fn(state: *mut c_void, index: u32, name: *mut *const c_char, value: *mut u64) -> c_int;

/// `struct flowyard_plugin`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
#[allow(missing_docs, reason = "the header has them")]
pub struct Plugin {
    pub abi: u32,
    pub size: u32,
    pub name: *const c_char,
    pub state_version: u32,
    pub zero: u32,
    pub open: Option<Open>,
    pub close: Option<Close>,
    pub steer: Option<Steer>,
    pub check: Option<Check>,
    pub control: Option<Control>,
    pub tick: Option<Tick>,
    pub adopt: Option<Adopt>,
    pub counter: Option<Counter>,
}

impl Plugin {
    /// One without a name and without functions: `Plugin { name: …, steer: Some(…), ..Plugin::EMPTY }`.
    pub const EMPTY: Plugin = Plugin {
        abi: ABI,
        size: size_of::<Plugin>() as u32,
        name: std::ptr::null(),
        state_version: 0,
        zero: 0,
        open: None,
        close: None,
        steer: None,
        check: None,
        control: None,
        tick: None,
        adopt: None,
        counter: None,
    };
}
