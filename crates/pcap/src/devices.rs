//! `pcap_findalldevs`: what the real library finds, and the rings of the yards on this machine.
//!
//! # Of the unsafe code
//! Entries are of malloc, as the real library's are, so its `pcap_freealldevs` frees the list whole.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int};
use std::ptr::null_mut;

use flowyard::attach::{RingState, rings};

use crate::entry::guarded;
use crate::open::{PREFIX, ring_of};
use crate::pcap_h::*;
use crate::real;
use crate::shared::write_text;

/// Name and description of every ring that this user may read.
fn devices() -> Vec<(CString, CString)> {
    let device = |ring: RingState| {
        let reader = ring.reader.map_or(String::new(), |(program, _)| format!(", read by {program}"));
        let name = CString::new(format!("{PREFIX}{}", ring.name)).ok()?;
        Some((name, CString::new(format!("Ring {} of Flowyard{reader}", ring.name)).ok()?))
    };
    rings().into_iter().filter(|ring| ring.allowed).filter_map(device).collect()
}

/// `pcap_findalldevs(3PCAP)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pcap_findalldevs(list: *mut *mut Interface, errbuf: *mut c_char) -> c_int {
    if list.is_null() {
        // SAFETY: an error buffer, as the manual has it.
        unsafe { write_text(errbuf, "no place for the list was given") };
        return ERROR;
    }
    let answer = match real!(pcap_findalldevs: fn(*mut *mut Interface, *mut c_char) -> c_int) {
        // SAFETY: the real library's function, with what the program gave for it.
        Some(real) => unsafe { real(list, errbuf) },
        None => {
            // SAFETY: the program's own, not null.
            unsafe { list.write(null_mut()) };
            0
        }
    };
    if answer < 0 {
        return answer;
    }
    guarded(answer, || {
        let mut end = list;
        // SAFETY: the program's own, not null, and set above; a list of the real library ends in null.
        unsafe {
            while !(*end).is_null() {
                end = &raw mut (**end).next;
            }
        }
        for (name, description) in devices() {
            // SAFETY: a fresh entry of zeroes, with copies of its own; all looked at for null. `end` is the last
            // entry's link, which nobody else has yet.
            unsafe {
                let entry = libc::calloc(1, size_of::<Interface>()).cast::<Interface>();
                if entry.is_null() {
                    break;
                }
                (*entry).name = libc::strdup(name.as_ptr());
                (*entry).description = libc::strdup(description.as_ptr());
                (*entry).flags = INTERFACE_FLAGS;
                if (*entry).name.is_null() {
                    libc::free((*entry).description.cast());
                    libc::free(entry.cast());
                    break;
                }
                end.write(entry);
                end = &raw mut (*entry).next;
            }
        }
        answer
    })
}

/// `pcap_lookupnet(3PCAP)`: a ring has no network of its own.
#[unsafe(no_mangle)]
unsafe extern "C" fn pcap_lookupnet(
    device: *const c_char,
    net: *mut u32,
    mask: *mut u32,
    errbuf: *mut c_char,
) -> c_int {
    // SAFETY: a string, as the manual has it.
    if let Some(ring) = unsafe { ring_of(device) } {
        // SAFETY: an error buffer, as the manual has it.
        unsafe { write_text(errbuf, &format!("ring {ring} has no network of its own")) };
        for number in [net, mask].into_iter().filter(|number| !number.is_null()) {
            // SAFETY: the program's own, not null.
            unsafe { number.write(0) };
        }
        return ERROR;
    }
    let real = real!(pcap_lookupnet: fn(*const c_char, *mut u32, *mut u32, *mut c_char) -> c_int);
    // SAFETY: the real library's function, with what the program gave for it.
    real.map_or(ERROR, |real| unsafe { real(device, net, mask, errbuf) })
}
