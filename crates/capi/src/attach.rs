//! `flowyard_attach`, `flowyard_detach`, and what is asked about a ring.
//!
//! # Of the unsafe code
//! Pointers are as `flowyard.h` has programs give them: strings that end, structs that are as large as their `size`
//! says. Null is looked for, sizes are respected.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::time::Duration;

use flowyard::attach::Attach;

use crate::abi::{ABI, ERROR, Info, Options, WRITE};
use crate::error::{self, guarded};
use crate::ring::Ring;
use crate::table::{self, Handle};

#[unsafe(no_mangle)]
extern "C" fn flowyard_abi_version() -> u32 {
    ABI
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_error() -> *const c_char {
    error::last()
}

/// A string of the program's.
///
/// # Safety
/// Null, or a string that ends.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, String> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| format!("{what} {text:?} is not UTF-8"))
}

/// The part of the program's struct that it has; the rest as `T` is by default.
///
/// # Safety
/// Null, or a struct that begins with its size and has so many bytes. Any bytes are a `T`.
unsafe fn sized<T: Copy>(from: *const T, default: T, what: &str) -> Result<T, String> {
    if from.is_null() {
        return Ok(default);
    }
    // SAFETY: the size is its first member.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() || size > 4096 {
        return Err(format!("{what}.size is {size}: set it to sizeof(struct {what})"));
    }
    let mut value = default;
    // SAFETY: `from` has `size` bytes (the caller's promise), `value` as many as T.
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), size.min(size_of::<T>()));
    }
    Ok(value)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn flowyard_attach(ring: *const c_char, options: *const Options) -> *mut Handle {
    guarded(null_mut(), || {
        let none = Options { size: 0, socket: null(), program: null(), flags: 0, zero: 0, patience_ns: 0 };
        // SAFETY: strings and a struct, as the header has them.
        let (ring, options) = unsafe { (text(ring, "ring")?, sized(options, none, "flowyard_options")?) };
        let ring = ring.ok_or("the name of the ring is NULL: write NAME/RING, such as yard/0")?;
        if options.flags & !WRITE != 0 || options.zero != 0 {
            return Err(format!("flowyard_options.flags {:#x} are unknown: only FLOWYARD_WRITE is", options.flags));
        }
        // SAFETY: strings, as the header has them.
        let (socket, program) = unsafe { (text(options.socket, "socket")?, text(options.program, "program")?) };
        let attach = match socket {
            Some(path) => Attach::at(PathBuf::from(path), ring),
            None => Attach::to(ring).map_err(|e| e.to_string())?,
        };
        let attach = attach.write(options.flags & WRITE != 0);
        let attach = program.map_or(attach.clone(), |program| attach.called(program));
        let patience = u64::try_from(options.patience_ns).ok().map(Duration::from_nanos);
        let attached = attach.within(patience).map_err(|e| e.to_string())?;
        Ok(table::add(Ring::new(attached)?))
    })
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_detach(ring: *mut Handle) {
    if !ring.is_null() {
        guarded((), || table::remove(ring));
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn flowyard_about(ring: *mut Handle, info: *mut Info) -> c_int {
    guarded(ERROR, || {
        let given = Info {
            size: 0,
            yard: null(),
            group: null(),
            ring: 0,
            rings: 0,
            port_count: 0,
            write: 0,
            annotation_bytes: 0,
            buffer_bytes: 0,
        };
        if info.is_null() {
            return Err("flowyard_info is NULL: give a struct to fill".into());
        }
        // SAFETY: a struct, as the header has it.
        let size = unsafe { sized(info, given, "flowyard_info")? }.size;
        table::with(ring, |ring| {
            let about = ring.about();
            let full = Info {
                size,
                yard: ring.texts().yard.as_ptr(),
                group: ring.texts().group.as_ptr(),
                ring: about.ring,
                rings: about.rings,
                port_count: about.ports.len() as u16,
                write: about.write.into(),
                annotation_bytes: ring.annotation_bytes() as u32,
                buffer_bytes: ring.buffer_bytes() as u32,
            };
            let bytes = size.min(size_of::<Info>());
            // SAFETY: the struct has `size` bytes (`sized`), and is not ours.
            unsafe { std::ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), info.cast::<u8>(), bytes) };
            Ok(0)
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_port(ring: *mut Handle, port: c_uint) -> *const c_char {
    guarded(null(), || {
        table::with(ring, |ring| {
            let ports = &ring.texts().ports;
            let name = usize::try_from(port).ok().and_then(|port| ports.get(port));
            name.map(|name| name.as_ptr())
                .ok_or_else(|| format!("there is no port {port}: the yard has {}", ports.len()))
        })
    })
}
