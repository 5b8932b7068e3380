//! The real libpcap: the next one after this library in the order in which the linker looks (dlsym(3), `RTLD_NEXT`),
//! or, for a program that is linked with this one alone, the system's.
//!
//! # Invariants of the unsafe code
//! - The library stays: one that was found is never closed, so its functions may be called for good.
//! - [`real!`](crate::real!) gives each function the type that `pcap/pcap.h` declares; callers hand it what they were handed.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

/// The address of a function of the real library, or null.
pub fn find(name: &CStr) -> *mut c_void {
    // SAFETY: dlsym takes any string that ends.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if !next.is_null() {
        return next;
    }
    match library() {
        0 => null_mut(),
        // SAFETY: a handle that dlopen gave and nobody closes.
        library => unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) },
    }
}

/// A handle of the system's library, or 0.
fn library() -> usize {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    *LIBRARY.get_or_init(|| {
        let names = [c"libpcap.so.0.8", c"libpcap.so.1", c"libpcap.so"];
        // SAFETY: dlopen takes any string that ends. Libpcap does nothing when it is loaded.
        let mut tried = names.iter().map(|name| unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) } as usize);
        tried.find(|library| *library != 0).unwrap_or(0)
    })
}

/// A function of the real library by name and type: `Some`, if it has one. Looked up once.
#[macro_export]
macro_rules! real {
    ($name:ident: fn($($argument:ty),*) $(-> $answer:ty)?) => {{
        static AT: std::sync::OnceLock<Option<unsafe extern "C" fn($($argument),*) $(-> $answer)?>> =
            std::sync::OnceLock::new();
        *AT.get_or_init(|| {
            let name = std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()).ok()?;
            let at = $crate::real::find(name);
            // SAFETY: not null, so a function of libpcap, which has the type that its header declares; it is never
            // unloaded.
            (!at.is_null()).then(|| unsafe {
                std::mem::transmute::<*mut std::ffi::c_void, unsafe extern "C" fn($($argument),*) $(-> $answer)?>(at)
            })
        })
    }};
}
