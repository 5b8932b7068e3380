//! Opening and closing: `pcap_create`, `pcap_open_live`, what may be set before activation, `pcap_close`.
//!
//! Names that begin with `flowyard:` are ours, all others the real library's. A ring is read as it comes: promiscuous
//! mode and buffer sizes are the yard's business, and are taken without effect.
//!
//! # Of the unsafe code
//! Pointers are those that pcap(3PCAP) has programs give: strings that end, error buffers of `PCAP_ERRBUF_SIZE`. Null
//! is looked for.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::ptr::null_mut;

use crate::entry::guarded;
use crate::handle::Handle;
use crate::pcap_h::*;
use crate::shared::write_text;
use crate::{entry, real, registry};

/// What the names of our devices begin with.
pub const PREFIX: &str = "flowyard:";

/// Said of devices that are not ours, where there is nobody to ask.
const NO_LIBPCAP: &str = "cannot find libpcap.so.0.8: install libpcap0.8";

/// The ring that a device name names; `None` for another's device.
///
/// # Safety
/// `device` is null, or a string that ends.
pub unsafe fn ring_of<'a>(device: *const c_char) -> Option<&'a str> {
    if device.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let device = unsafe { CStr::from_ptr(device) };
    device.to_str().ok()?.strip_prefix(PREFIX)
}

fn create(ring: &str) -> Result<*mut PcapT, String> {
    let handle = Handle::new(ring)?;
    registry::add(Box::new(handle))
        .ok_or_else(|| format!("{} rings are open in this program, no more can be: close one", registry::MOST))
}

/// `pcap_create(3PCAP)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pcap_create(device: *const c_char, errbuf: *mut c_char) -> *mut PcapT {
    // SAFETY: a string, as the manual has it.
    if let Some(ring) = unsafe { ring_of(device) } {
        return guarded(null_mut(), || {
            create(ring).unwrap_or_else(|why| {
                // SAFETY: an error buffer, as the manual has it.
                unsafe { write_text(errbuf, &why) };
                null_mut()
            })
        });
    }
    match real!(pcap_create: fn(*const c_char, *mut c_char) -> *mut PcapT) {
        // SAFETY: the real library's function, with what the program gave for it.
        Some(real) => unsafe { real(device, errbuf) },
        None => {
            // SAFETY: an error buffer, as the manual has it.
            unsafe { write_text(errbuf, NO_LIBPCAP) };
            null_mut()
        }
    }
}

/// `pcap_open_live(3PCAP)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pcap_open_live(
    device: *const c_char,
    snaplen: c_int,
    promisc: c_int,
    to_ms: c_int,
    errbuf: *mut c_char,
) -> *mut PcapT {
    // SAFETY: a string, as the manual has it.
    let Some(ring) = (unsafe { ring_of(device) }) else {
        let Some(real) = real!(pcap_open_live: fn(*const c_char, c_int, c_int, c_int, *mut c_char) -> *mut PcapT)
        else {
            // SAFETY: an error buffer, as the manual has it.
            unsafe { write_text(errbuf, NO_LIBPCAP) };
            return null_mut();
        };
        // SAFETY: the real library's function, with what the program gave for it.
        return unsafe { real(device, snaplen, promisc, to_ms, errbuf) };
    };
    let opened = guarded(Err("libflowyard-pcap failed inside".to_owned()), || {
        let handle = Handle::new(ring)?;
        handle.set(|settings| {
            (settings.snaplen, settings.timeout_ms) = (usable(snaplen), to_ms);
            0
        });
        if handle.activate() < 0 {
            return Err(handle.error.to_text());
        }
        registry::add(Box::new(handle)).ok_or_else(|| format!("{} rings are open: close one", registry::MOST))
    });
    // SAFETY: an error buffer, as the manual has it. Empty: no warning.
    unsafe { write_text(errbuf, opened.as_ref().err().map_or("", String::as_str)) };
    opened.unwrap_or(null_mut())
}

/// As libpcap: what is no sensible length is the longest.
fn usable(snaplen: c_int) -> c_int {
    if snaplen <= 0 || snaplen > MOST_BYTES { MOST_BYTES } else { snaplen }
}

/// `pcap_close(3PCAP)`.
#[unsafe(no_mangle)]
extern "C" fn pcap_close(p: *mut PcapT) {
    if let Some(handle) = registry::remove(p) {
        return guarded((), || drop(handle));
    }
    if let Some(real) = real!(pcap_close: fn(*mut PcapT)) {
        // SAFETY: the real library's function, with what the program gave for it.
        unsafe { real(p) };
    }
}

entry! {
    /// `pcap_activate(3PCAP)`.
    fn pcap_activate(p) -> c_int, ERROR, |handle| handle.activate()
}
entry! {
    /// `pcap_set_snaplen(3PCAP)`.
    fn pcap_set_snaplen(p, snaplen: c_int) -> c_int, ERROR, |handle| handle.set(|settings| {
        settings.snaplen = usable(snaplen);
        0
    })
}
entry! {
    /// `pcap_set_timeout(3PCAP)`.
    fn pcap_set_timeout(p, to_ms: c_int) -> c_int, ERROR, |handle| handle.set(|settings| {
        settings.timeout_ms = to_ms;
        0
    })
}
entry! {
    /// `pcap_set_tstamp_precision(3PCAP)`.
    fn pcap_set_tstamp_precision(p, precision: c_int) -> c_int, ERROR, |handle| handle.set(|settings| {
        match precision {
            TSTAMP_PRECISION_MICRO | TSTAMP_PRECISION_NANO => settings.nano = precision == TSTAMP_PRECISION_NANO,
            _ => return ERROR_TSTAMP_PRECISION_NOTSUP,
        }
        0
    })
}
entry! {
    /// `pcap_set_rfmon(3PCAP)`: a ring has no monitor mode, which activation says.
    fn pcap_set_rfmon(p, rfmon: c_int) -> c_int, ERROR, |handle| handle.set(|settings| {
        settings.rfmon = rfmon != 0;
        0
    })
}
entry! {
    /// `pcap_can_set_rfmon(3PCAP)`.
    fn pcap_can_set_rfmon(p) -> c_int, ERROR, |handle| handle.set(|_| 0)
}
entry! {
    /// `pcap_set_promisc(3PCAP)`.
    fn pcap_set_promisc(p, _promisc: c_int) -> c_int, ERROR, |handle| handle.set(|_| 0)
}
entry! {
    /// `pcap_set_immediate_mode(3PCAP)`: packets always come at once.
    fn pcap_set_immediate_mode(p, _immediate: c_int) -> c_int, ERROR, |handle| handle.set(|_| 0)
}
entry! {
    /// `pcap_set_buffer_size(3PCAP)`.
    fn pcap_set_buffer_size(p, _bytes: c_int) -> c_int, ERROR, |handle| handle.set(|_| 0)
}
entry! {
    /// `pcap_set_protocol_linux(3PCAP)`: a ring has what it has; the filter chooses.
    fn pcap_set_protocol_linux(p, _protocol: c_int) -> c_int, ERROR, |handle| handle.set(|_| 0)
}
entry! {
    /// `pcap_set_tstamp_type(3PCAP)`: times are as the yard has them, of the host by default.
    fn pcap_set_tstamp_type(p, kind: c_int) -> c_int, ERROR, |handle| handle.set(|_| {
        if kind == TSTAMP_HOST { 0 } else { WARNING_TSTAMP_TYPE_NOTSUP }
    })
}
entry! {
    /// `pcap_list_tstamp_types(3PCAP)`: the host's.
    fn pcap_list_tstamp_types(p, types: *mut *mut c_int) -> c_int, ERROR, |handle| {
        crate::about::give_list(handle, types, &[TSTAMP_HOST])
    }
}
