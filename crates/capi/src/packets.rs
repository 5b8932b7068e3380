//! `flowyard_take` and `flowyard_release`.
//!
//! # Of the unsafe code
//! `packets` has room for `count`, as `flowyard.h` says. Null is looked for.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_uint};

use crate::abi::{ERROR, PacketView};
use crate::error::guarded;
use crate::table::{self, Handle};

#[unsafe(no_mangle)]
unsafe extern "C" fn flowyard_take(ring: *mut Handle, packets: *mut PacketView, count: c_uint) -> c_int {
    guarded(ERROR, || {
        table::with(ring, |ring| {
            if packets.is_null() && count > 0 {
                return Err(format!("packets is NULL: give an array of {count} flowyard_view"));
            }
            let most = usize::try_from(c_int::MAX).unwrap_or(usize::MAX);
            let views = ring.take((count as usize).min(most));
            // SAFETY: room for `count`, of which `views` are no more; they are no part of the ring.
            unsafe { std::ptr::copy_nonoverlapping(views.as_ptr(), packets, views.len()) };
            Ok(views.len() as c_int)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_release(ring: *mut Handle) -> c_int {
    guarded(ERROR, || {
        table::with(ring, |ring| {
            ring.release();
            Ok(0)
        })
    })
}
