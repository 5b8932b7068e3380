//! What a handle is asked about itself: link type, snap length, counts, errors; and what it refuses.
//!
//! # Of the unsafe code
//! Pointers for answers are the program's own, and looked at for null. Lists are of malloc, because
//! `pcap_free_datalinks` and `pcap_free_tstamp_types` of the real library free them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_void};
use std::ptr::null_mut;
use std::sync::atomic::Ordering;

use crate::handle::Handle;
use crate::pcap_h::*;
use crate::{entry, real};

/// The text of a real handle's last error.
pub fn real_error(p: *mut PcapT) -> String {
    let Some(geterr) = real!(pcap_geterr: fn(*mut PcapT) -> *mut c_char) else { return String::new() };
    // SAFETY: a handle of the real library's own, whose text ends in a zero; copied before it changes.
    unsafe { CStr::from_ptr(geterr(p)) }.to_string_lossy().into_owned()
}

/// Asks the real handle that stands behind ours.
pub fn on_dead(handle: &Handle, failed: c_int, real: Option<unsafe extern "C" fn(*mut PcapT) -> c_int>) -> c_int {
    // SAFETY: a handle of the real library's own.
    handle.with_live(|live, _| real.map_or(failed, |real| unsafe { real(live.dead()) }))
}

/// Gives a list of numbers away; answers how many.
pub fn give_list(handle: &Handle, to: *mut *mut c_int, numbers: &[c_int]) -> c_int {
    if to.is_null() {
        return handle.fail("no place for the list was given");
    }
    // SAFETY: memory for so many numbers, looked at for null and filled; `to` is the program's own.
    unsafe {
        let list = libc::malloc(size_of_val(numbers)).cast::<c_int>();
        if list.is_null() {
            return handle.fail("no memory for a list");
        }
        std::ptr::copy_nonoverlapping(numbers.as_ptr(), list, numbers.len());
        to.write(list);
    }
    numbers.len() as c_int
}

entry! {
    /// `pcap_datalink(3PCAP)`.
    fn pcap_datalink(p) -> c_int, ERROR, |handle| handle.with_live(|live, _| live.link())
}
entry! {
    /// `pcap_list_datalinks(3PCAP)`.
    fn pcap_list_datalinks(p, list: *mut *mut c_int) -> c_int, ERROR, |handle| {
        handle.with_live(|live, _| give_list(handle, list, &[live.link()]))
    }
}
entry! {
    /// `pcap_set_datalink(3PCAP)`.
    fn pcap_set_datalink(p, link: c_int) -> c_int, ERROR, |handle| handle.with_live(|live, _| {
        if link == live.link() {
            return 0;
        }
        handle.fail(&format!("packets of ring {} are of link type {}, not {link}", handle.ring(), live.link()))
    })
}
entry! {
    /// `pcap_snapshot(3PCAP)`.
    fn pcap_snapshot(p) -> c_int, ERROR, |handle| handle.with_live(|_, settings| settings.snaplen)
}
entry! {
    /// `pcap_bufsize(3PCAP)`: the longest packet.
    fn pcap_bufsize(p) -> c_int, ERROR, |handle| handle.with_live(|_, _| MOST_BYTES)
}
entry! {
    /// `pcap_get_tstamp_precision(3PCAP)`.
    fn pcap_get_tstamp_precision(p) -> c_int, ERROR, |handle| {
        let nano = handle.state().is_some_and(|state| state.settings.nano);
        if nano { TSTAMP_PRECISION_NANO } else { TSTAMP_PRECISION_MICRO }
    }
}
entry! {
    /// `pcap_setdirection(3PCAP)`: told by the tag, where the port knows.
    fn pcap_setdirection(p, direction: c_int) -> c_int, ERROR, |handle| handle.with_live(|live, _| {
        if !(DIRECTION_BOTH..=DIRECTION_OUT).contains(&direction) {
            return handle.fail(&format!("{direction} is no direction"));
        }
        live.direction = direction;
        0
    })
}
entry! {
    /// `pcap_stats(3PCAP)`: what came through the filter, and what was of another link type. What the yard dropped in
    /// front of the ring it counts itself; `ps_drop` is 0.
    fn pcap_stats(p, stat: *mut Stat) -> c_int, ERROR, |handle| {
        if stat.is_null() {
            return handle.fail("no place for the counts was given");
        }
        let counts = &handle.counts;
        let (received, other) = (counts.received.load(Ordering::Relaxed), counts.other_link.load(Ordering::Relaxed));
        // SAFETY: the program's own, not null.
        unsafe { stat.write(Stat { ps_recv: received, ps_drop: 0, ps_ifdrop: other }) };
        0
    }
}
entry! {
    /// `pcap_geterr(3PCAP)`.
    fn pcap_geterr(p) -> *mut c_char, null_mut(), |handle| handle.error.as_ptr()
}

/// `pcap_perror(3PCAP)`.
#[unsafe(no_mangle)]
extern "C" fn pcap_perror(p: *mut PcapT, prefix: *const c_char) {
    let Some(handle) = crate::registry::find(p) else {
        if let Some(real) = real!(pcap_perror: fn(*mut PcapT, *const c_char)) {
            // SAFETY: the real library's function, with what the program gave for it.
            unsafe { real(p, prefix) };
        }
        return;
    };
    crate::entry::guarded((), || {
        let prefix = if prefix.is_null() { c"" } else { unsafe_str(prefix) };
        eprintln!("{}: {}", prefix.to_string_lossy(), handle.error.to_text());
    });
}

fn unsafe_str<'a>(text: *const c_char) -> &'a CStr {
    // SAFETY: not null (the one caller), and a string, as the manual has it.
    unsafe { CStr::from_ptr(text) }
}

/// Why nothing is sent.
fn no_sending(handle: &Handle) -> c_int {
    let why = "cannot be sent on: a consumer has no buffers for packets of its own";
    handle.fail(&format!("ring {} {why}", handle.ring()))
}

entry! {
    /// `pcap_inject(3PCAP)`: refused.
    fn pcap_inject(p, _data: *const c_void, _bytes: usize) -> c_int, ERROR, |handle| no_sending(handle)
}
entry! {
    /// `pcap_sendpacket(3PCAP)`: refused.
    fn pcap_sendpacket(p, _data: *const c_uchar, _bytes: c_int) -> c_int, ERROR, |handle| no_sending(handle)
}
