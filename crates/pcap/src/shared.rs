//! What a handle shows to a program by address: the text of its last error, and the header of the packet that
//! `pcap_next_ex` gave.
//!
//! # Invariant of the unsafe code
//! Written by the thread that uses the handle alone (pcap(3PCAP): one at a time), within the call that the program
//! reads the answer of. No reference to the contents is ever formed.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

use crate::pcap_h::{ERRBUF_BYTES, PacketHeader};

/// A text that always ends in a zero.
pub struct ErrorText(UnsafeCell<[c_char; ERRBUF_BYTES]>);

// SAFETY: bytes that any thread may write; what is read meanwhile may be mixed, and ends in a zero, for the last byte
// is never written.
unsafe impl Sync for ErrorText {}

impl Default for ErrorText {
    fn default() -> ErrorText {
        ErrorText(UnsafeCell::new([0; ERRBUF_BYTES]))
    }
}

impl ErrorText {
    pub fn set(&self, text: &str) {
        // SAFETY: ERRBUF_BYTES of ours.
        unsafe { write_text(self.as_ptr(), text) };
    }

    pub fn as_ptr(&self) -> *mut c_char {
        self.0.get().cast()
    }

    /// A copy.
    pub fn to_text(&self) -> String {
        // SAFETY: it ends in a zero (the last byte is never written).
        unsafe { CStr::from_ptr(self.as_ptr()) }.to_string_lossy().into_owned()
    }
}

/// Writes a text into a buffer of libpcap's size, cut to what it holds.
///
/// # Safety
/// `to` is null, or has `ERRBUF_BYTES`.
pub unsafe fn write_text(to: *mut c_char, text: &str) {
    if to.is_null() {
        return;
    }
    let mut len = text.len().min(ERRBUF_BYTES - 1);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    // SAFETY: len and the zero after it fit (the caller's promise); a text of ours does not overlap the buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast::<c_char>(), to, len);
        *to.add(len) = 0;
    }
}

/// Where `pcap_next_ex` leaves the header.
pub struct HeaderPlace(UnsafeCell<PacketHeader>);

// SAFETY: written by the one thread that uses the handle (invariant).
unsafe impl Sync for HeaderPlace {}

impl Default for HeaderPlace {
    fn default() -> HeaderPlace {
        let ts = libc::timeval { tv_sec: 0, tv_usec: 0 };
        HeaderPlace(UnsafeCell::new(PacketHeader { ts, caplen: 0, len: 0 }))
    }
}

impl HeaderPlace {
    /// Leaves a header; answers where.
    pub fn leave(&self, header: PacketHeader) -> *mut PacketHeader {
        // SAFETY: nobody else writes it now, and nobody holds a reference (invariant).
        unsafe { self.0.get().write(header) };
        self.0.get()
    }
}
