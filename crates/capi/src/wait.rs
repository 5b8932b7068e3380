//! `flowyard_wait`, the descriptor, and how a ring ended.
#![allow(unsafe_code)] // the names of functions, and nothing else

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::time::Duration;

use flowyard::attach::End;
use flowyard::mem::Wait;

use crate::abi::*;
use crate::error::guarded;
use crate::ring::How;
use crate::table::{self, Handle};

fn number(wait: Wait) -> c_int {
    match wait {
        Wait::Ready => PACKETS,
        Wait::TimedOut => NOTHING,
        Wait::Ended => ENDED,
    }
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_wait(ring: *mut Handle, how: c_int, timeout_ns: i64) -> c_int {
    guarded(ERROR, || {
        let how = match how {
            SPIN => How::Spin,
            YIELD => How::Yield,
            SLEEP => How::Sleep,
            other => return Err(format!("{other} is no way to wait: FLOWYARD_SPIN, FLOWYARD_YIELD or FLOWYARD_SLEEP")),
        };
        let timeout = u64::try_from(timeout_ns).ok().map(Duration::from_nanos);
        table::with(ring, |ring| Ok(number(ring.wait(how, timeout))))
    })
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_fd(ring: *mut Handle) -> c_int {
    guarded(ERROR, || table::with(ring, |ring| Ok(ring.readable().as_raw_fd())))
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_prepare_to_wait(ring: *mut Handle) -> c_int {
    guarded(ERROR, || table::with(ring, |ring| Ok(number(ring.prepare_to_wait()))))
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_end(ring: *mut Handle) -> c_int {
    guarded(ERROR, || {
        table::with(ring, |ring| {
            Ok(match ring.end() {
                None => NOT_ENDED,
                Some(End::InOrder) => IN_ORDER,
                Some(End::Lost) => LOST,
            })
        })
    })
}
