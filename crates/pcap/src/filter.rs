//! Filters: compiled by the real library for the ring's link type, and run on packets as they are taken.
//!
//! # Of the unsafe code
//! Programs (`struct bpf_program`) are as pcap_compile(3PCAP) gives them: `len` instructions, or null. They are copied.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use crate::about::{on_dead, real_error};
use crate::pcap_h::*;
use crate::{entry, real};

/// `BPF_MAXINSNS` of the kernel; what libpcap's compiler makes is far below.
const MOST_INSTRUCTIONS: u32 = 65_536;

entry! {
    /// `pcap_compile(3PCAP)`.
    fn pcap_compile(p, program: *mut BpfProgram, text: *const c_char, optimize: c_int, netmask: u32) -> c_int, ERROR,
    |handle| handle.with_live(|live, _| {
        let Some(compile) = real!(pcap_compile: fn(*mut PcapT, *mut BpfProgram, *const c_char, c_int, u32) -> c_int) else {
            return handle.fail("cannot find libpcap.so.0.8 to compile filters with: install libpcap0.8");
        };
        if program.is_null() {
            return handle.fail("no place for the compiled filter was given");
        }
        // SAFETY: a handle of the real library's own, and what the program gave.
        let answer = unsafe { compile(live.dead(), program, text, optimize, netmask) };
        if answer < 0 {
            return handle.fail(&real_error(live.dead()));
        }
        answer
    })
}

entry! {
    /// `pcap_setfilter(3PCAP)`.
    fn pcap_setfilter(p, program: *mut BpfProgram) -> c_int, ERROR, |handle| {
        let Some(validate) = real!(bpf_validate: fn(*const Instruction, c_int) -> c_int) else {
            return handle.fail("cannot find libpcap.so.0.8 to run filters with: install libpcap0.8");
        };
        // SAFETY: null, or a program that pcap_compile filled in.
        let Some(program) = (unsafe { program.as_ref() }) else { return handle.fail("no filter was given") };
        if program.instructions.is_null() || program.len == 0 || program.len > MOST_INSTRUCTIONS {
            return handle.fail(&format!("a filter of {} instructions is none", program.len));
        }
        // SAFETY: `len` instructions, as its maker says; copied at once.
        let filter = unsafe { std::slice::from_raw_parts(program.instructions, program.len as usize) }.to_vec();
        // SAFETY: as many instructions as are said.
        if unsafe { validate(filter.as_ptr(), filter.len() as c_int) } == 0 {
            return handle.fail("the filter is no valid program");
        }
        handle.with_live(|live, _| {
            live.set_filter(filter);
            0
        })
    }
}

entry! {
    /// `pcap_datalink_ext(3PCAP)`.
    fn pcap_datalink_ext(p) -> c_int, ERROR, |handle| {
        on_dead(handle, ERROR, real!(pcap_datalink_ext: fn(*mut PcapT) -> c_int))
    }
}
entry! {
    /// `pcap_is_swapped(3PCAP)`.
    fn pcap_is_swapped(p) -> c_int, ERROR, |handle| {
        on_dead(handle, ERROR, real!(pcap_is_swapped: fn(*mut PcapT) -> c_int))
    }
}
entry! {
    /// `pcap_major_version(3PCAP)`.
    fn pcap_major_version(p) -> c_int, ERROR, |handle| {
        on_dead(handle, ERROR, real!(pcap_major_version: fn(*mut PcapT) -> c_int))
    }
}
entry! {
    /// `pcap_minor_version(3PCAP)`.
    fn pcap_minor_version(p) -> c_int, ERROR, |handle| {
        on_dead(handle, ERROR, real!(pcap_minor_version: fn(*mut PcapT) -> c_int))
    }
}
