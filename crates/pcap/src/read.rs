//! Reading: `pcap_dispatch`, `pcap_loop`, `pcap_next`, `pcap_next_ex`, `pcap_breakloop`, and descriptors to wait on.
//!
//! When the yard ends in order `pcap_loop` answers 0, as at the end of a file; `pcap_dispatch` and `pcap_next_ex`
//! answer `PCAP_ERROR_BREAK`, so that nobody asks for ever. When it is gone without a word that is an error.
//!
//! # Of the unsafe code
//! Callbacks are called with what the program gave for them. Pointers for answers are looked at for null.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uchar};
use std::ptr::{null, null_mut};

use crate::handle::{Handle, Outcome};
use crate::live::Taken;
use crate::pcap_h::*;
use crate::shared::write_text;
use crate::{entry, real, registry};

/// Most packets of one `pcap_dispatch` that asks for all there are: what is all, while more come?
const DISPATCH: c_int = 1024;

/// Up to `count` packets, or without end. Waits for the first alone, unless `until_count`.
fn read(handle: &Handle, count: c_int, until_count: bool, callback: Handler, user: *mut c_uchar) -> c_int {
    let Some(callback) = callback else { return handle.fail("no function to call with packets was given") };
    let mut done = 0;
    loop {
        match handle.read(until_count || done == 0) {
            Outcome::Packet(Taken { header, data }) => {
                // SAFETY: the program's own function (pcap_loop(3PCAP)); header and data are good until it returns.
                // It may call back: no lock is held.
                unsafe { callback(user, &header, data) };
                done += 1;
                if done == count {
                    break;
                }
                if !until_count && handle.is_to_break() {
                    break; // the next call says so
                }
            }
            Outcome::Nothing if until_count => {}
            Outcome::Nothing => break,
            Outcome::Broken if done > 0 && !until_count => break,
            Outcome::Broken => {
                handle.is_broken();
                done = ERROR_BREAK;
                break;
            }
            Outcome::Ended if until_count => {
                done = 0;
                break;
            }
            Outcome::Ended if done > 0 => break,
            Outcome::Ended => {
                done = ERROR_BREAK;
                break;
            }
            Outcome::Failed => {
                done = ERROR;
                break;
            }
        }
        if until_count && count <= 0 {
            done = 0; // it is not counted, so that it cannot overflow
        }
    }
    handle.rearm();
    if until_count && done > 0 { 0 } else { done }
}

/// One packet, which stays until the next call.
fn next(handle: &Handle) -> Outcome {
    let outcome = match handle.read(true) {
        Outcome::Packet(taken) => Outcome::Packet(handle.to_stay(taken)),
        other => other,
    };
    if matches!(outcome, Outcome::Broken) {
        handle.is_broken();
    }
    handle.rearm();
    outcome
}

entry! {
    /// `pcap_dispatch(3PCAP)`.
    fn pcap_dispatch(p, count: c_int, callback: Handler, user: *mut c_uchar) -> c_int, ERROR, |handle| {
        read(handle, if count <= 0 { DISPATCH } else { count }, false, callback, user)
    }
}
entry! {
    /// `pcap_loop(3PCAP)`.
    fn pcap_loop(p, count: c_int, callback: Handler, user: *mut c_uchar) -> c_int, ERROR, |handle| {
        read(handle, count, true, callback, user)
    }
}
entry! {
    /// `pcap_next(3PCAP)`.
    fn pcap_next(p, header: *mut PacketHeader) -> *const c_uchar, null(), |handle| match next(handle) {
        Outcome::Packet(taken) => {
            if !header.is_null() {
                // SAFETY: the program's own, not null.
                unsafe { header.write(taken.header) };
            }
            taken.data
        }
        _ => null(),
    }
}
entry! {
    /// `pcap_next_ex(3PCAP)`.
    fn pcap_next_ex(p, header: *mut *mut PacketHeader, data: *mut *const c_uchar) -> c_int, ERROR, |handle| {
        if header.is_null() || data.is_null() {
            return handle.fail("no place for header or packet was given");
        }
        match next(handle) {
            Outcome::Packet(taken) => {
                // SAFETY: the program's own, not null.
                unsafe {
                    header.write(handle.header.leave(taken.header));
                    data.write(taken.data);
                }
                1
            }
            Outcome::Nothing => 0,
            Outcome::Broken | Outcome::Ended => ERROR_BREAK,
            Outcome::Failed => ERROR,
        }
    }
}

/// `pcap_breakloop(3PCAP)`: signal handlers may call it.
#[unsafe(no_mangle)]
extern "C" fn pcap_breakloop(p: *mut PcapT) {
    if let Some(handle) = registry::find(p) {
        return handle.break_loop();
    }
    if let Some(real) = real!(pcap_breakloop: fn(*mut PcapT)) {
        // SAFETY: the real library's function, with what the program gave for it.
        unsafe { real(p) };
    }
}

entry! {
    /// `pcap_get_selectable_fd(3PCAP)`: readable when a read would not wait.
    fn pcap_get_selectable_fd(p) -> c_int, -1, |handle| handle.selectable()
}
entry! {
    /// `pcap_fileno(3PCAP)`: the same descriptor.
    fn pcap_fileno(p) -> c_int, -1, |handle| handle.selectable()
}
entry! {
    /// `pcap_get_required_select_timeout(3PCAP)`: none.
    fn pcap_get_required_select_timeout(p) -> *const libc::timeval, null(), |_handle| null()
}
entry! {
    /// `pcap_file(3PCAP)`: none.
    fn pcap_file(p) -> *mut libc::FILE, null_mut(), |_handle| null_mut()
}
entry! {
    /// `pcap_setnonblock(3PCAP)`.
    fn pcap_setnonblock(p, on: c_int, _errbuf: *mut c_char) -> c_int, ERROR, |handle| {
        handle.set_nonblocking(on != 0);
        0
    }
}
entry! {
    /// `pcap_getnonblock(3PCAP)`.
    fn pcap_getnonblock(p, errbuf: *mut c_char) -> c_int, ERROR, |handle| {
        // SAFETY: an error buffer, as the manual has it.
        unsafe { write_text(errbuf, "") };
        c_int::from(handle.is_nonblocking())
    }
}
