//! Writing captures: the real library does it, for the real handle that stands behind ours and is of the same link
//! type, snap length and precision.
//!
//! # Of the unsafe code
//! Names, files and dumpers are what the program gave, and go where it meant them to go.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr::null_mut;

use crate::about::real_error;
use crate::handle::Handle;
use crate::pcap_h::*;
use crate::{entry, real};

/// `pcap_dumper_t`.
#[repr(C)]
struct Dumper {
    _opaque: [u8; 0],
}

fn dump(handle: &Handle, open: impl FnOnce(*mut PcapT) -> *mut Dumper) -> *mut Dumper {
    let mut dumper = null_mut();
    handle.with_live(|live, _| {
        dumper = open(live.dead());
        if dumper.is_null() { handle.fail(&real_error(live.dead())) } else { 0 }
    });
    dumper
}

entry! {
    /// `pcap_dump_open(3PCAP)`.
    fn pcap_dump_open(p, name: *const c_char) -> *mut Dumper, null_mut(), |handle| dump(handle, |dead| {
        let real = real!(pcap_dump_open: fn(*mut PcapT, *const c_char) -> *mut Dumper);
        // SAFETY: a handle of the real library's own, and what the program gave.
        real.map_or(null_mut(), |real| unsafe { real(dead, name) })
    })
}
entry! {
    /// `pcap_dump_open_append(3PCAP)`.
    fn pcap_dump_open_append(p, name: *const c_char) -> *mut Dumper, null_mut(), |handle| dump(handle, |dead| {
        let real = real!(pcap_dump_open_append: fn(*mut PcapT, *const c_char) -> *mut Dumper);
        // SAFETY: a handle of the real library's own, and what the program gave.
        real.map_or(null_mut(), |real| unsafe { real(dead, name) })
    })
}
entry! {
    /// `pcap_dump_fopen(3PCAP)`.
    fn pcap_dump_fopen(p, file: *mut libc::FILE) -> *mut Dumper, null_mut(), |handle| dump(handle, |dead| {
        let real = real!(pcap_dump_fopen: fn(*mut PcapT, *mut libc::FILE) -> *mut Dumper);
        // SAFETY: a handle of the real library's own, and what the program gave.
        real.map_or(null_mut(), |real| unsafe { real(dead, file) })
    })
}
