//! A plug-in for a tunnel that nobody but us uses: takes its header off, and keeps the conversations inside together.
//!
//! ```text
//! | Ethernet … | IP | UDP to 47000 | magic 0xf70d, version 1, 0, length (16), customer (16) | IP packet … |
//! ```
//!
//! Consumers get the packet from its inner IP header on (`pull`). The tag's offsets, which go on counting from
//! the start as received, its protocol and its tunnel say what is inside; `user` is the customer. Both
//! directions of a conversation of one customer go to one ring; two customers may use the same addresses.
//!
//! Configuration: `port = N`, or nothing.
//!
//! This file is the border to C; what is done to packets is in `tunnel.rs`.

// Copy the file beside this one and write `mod flowyard_plugin;` in a project of your own.
#[path = "../../../../crates/yard/include/flowyard_plugin.rs"]
mod flowyard_plugin;
mod tunnel;

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flowyard_plugin::{Batch, Host, Packets, Plugin, verdict};

struct State {
    port: u16,
    stripped: u64,
}

fn configure(config: &str) -> Result<State, String> {
    let mut state = State { port: tunnel::PORT, stripped: 0 };
    for line in config.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        match (key.trim(), value.trim().parse()) {
            ("port", Ok(port)) => state.port = port,
            _ => return Err(format!("cannot read {line:?}: write port = {}", tunnel::PORT)),
        }
    }
    Ok(state)
}

unsafe extern "C" fn open(
    _: *const Host,
    config: *const c_char,
    config_len: usize,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut c_void {
    // SAFETY: the yard gives config_len bytes.
    let config = unsafe { std::slice::from_raw_parts(config.cast::<u8>(), config_len) };
    match configure(&String::from_utf8_lossy(config)) {
        Ok(state) => Box::into_raw(Box::new(state)).cast(),
        Err(why) => {
            let len = why.len().min(error_bytes);
            // SAFETY: the yard gives error_bytes bytes, no fewer than are written.
            unsafe { std::ptr::copy_nonoverlapping(why.as_ptr(), error.cast(), len) };
            std::ptr::null_mut()
        }
    }
}

unsafe extern "C" fn close(state: *mut c_void) {
    // SAFETY: the yard gives back what `open` answered, once.
    drop(unsafe { Box::from_raw(state.cast::<State>()) });
}

unsafe extern "C" fn steer(state: *mut c_void, batch: *mut Batch) -> c_int {
    // SAFETY: the state of `open`, in one call at a time, and the batch of this call.
    let (state, mut packets) = unsafe { (&mut *state.cast::<State>(), Packets::new(batch)) };
    let work = || {
        for at in 0..packets.len() {
            if packets.verdict(at).kind != verdict::BUILT_IN {
                continue; // decided by an earlier function of a chain
            }
            if let Some(inside) = tunnel::look(packets.bytes(at), packets.tag(at), state.port) {
                inside.correct(packets.correct(at));
                let said = packets.decide(at);
                said.kind = verdict::HASH;
                said.value = inside.hash;
                said.pull = inside.l3;
                state.stripped += 1;
            }
        }
    };
    c_int::from(catch_unwind(AssertUnwindSafe(work)).is_err())
}

unsafe extern "C" fn adopt(state: *mut c_void, old: *mut c_void) {
    // SAFETY: two states of this layout, as state_version says, in no other call.
    unsafe { (*state.cast::<State>()).stripped = (*old.cast::<State>()).stripped };
}

unsafe extern "C" fn counter(state: *mut c_void, index: u32, name: *mut *const c_char, value: *mut u64) -> c_int {
    if index > 0 {
        return 1;
    }
    // SAFETY: the state of `open`, and two places of the yard's.
    unsafe {
        *name = c"tunnel headers taken off".as_ptr();
        *value = (*state.cast::<State>()).stripped;
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn flowyard_plugin() -> *const Plugin {
    const PLUGIN: Plugin = Plugin {
        name: c"private-tunnel".as_ptr(),
        state_version: 1,
        open: Some(open),
        close: Some(close),
        steer: Some(steer),
        adopt: Some(adopt),
        counter: Some(counter),
        ..Plugin::EMPTY
    };
    &PLUGIN
}
