//! What programs and this library hand each other: the types and numbers of libpcap's `pcap/pcap.h` and `pcap/bpf.h`,
//! version 1.10, with the values that they have on Linux.

use std::ffi::{c_char, c_int, c_uchar, c_uint};

/// `pcap_t`: never looked into. Ours are told from the real library's by their address.
#[repr(C)]
pub struct PcapT {
    _opaque: [u8; 0],
}

/// `struct pcap_pkthdr`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PacketHeader {
    pub ts: libc::timeval,
    pub caplen: u32,
    pub len: u32,
}

/// `struct pcap_stat`, as it is but on Windows.
#[repr(C)]
pub struct Stat {
    pub ps_recv: c_uint,
    pub ps_drop: c_uint,
    pub ps_ifdrop: c_uint,
}

/// `struct pcap_if`.
#[repr(C)]
pub struct Interface {
    pub next: *mut Interface,
    pub name: *mut c_char,
    pub description: *mut c_char,
    pub addresses: *mut libc::c_void,
    pub flags: u32,
}

/// `struct bpf_program`.
#[repr(C)]
pub struct BpfProgram {
    pub len: c_uint,
    pub instructions: *mut Instruction,
}

/// `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `pcap_handler`.
pub type Handler = Option<unsafe extern "C" fn(*mut c_uchar, *const PacketHeader, *const c_uchar)>;

/// `PCAP_ERRBUF_SIZE`.
pub const ERRBUF_BYTES: usize = 256;

pub const ERROR: c_int = -1;
pub const ERROR_BREAK: c_int = -2;
pub const ERROR_NOT_ACTIVATED: c_int = -3;
pub const ERROR_ACTIVATED: c_int = -4;
pub const ERROR_NO_SUCH_DEVICE: c_int = -5;
pub const ERROR_RFMON_NOTSUP: c_int = -6;
pub const ERROR_PERM_DENIED: c_int = -8;
pub const ERROR_TSTAMP_PRECISION_NOTSUP: c_int = -12;
pub const WARNING_TSTAMP_TYPE_NOTSUP: c_int = 3;

pub const TSTAMP_HOST: c_int = 0;
pub const TSTAMP_PRECISION_MICRO: c_int = 0;
pub const TSTAMP_PRECISION_NANO: c_int = 1;

pub const DIRECTION_BOTH: c_int = 0;
pub const DIRECTION_IN: c_int = 1;
pub const DIRECTION_OUT: c_int = 2;

/// `PCAP_IF_UP | PCAP_IF_RUNNING | PCAP_IF_CONNECTION_STATUS_NOT_APPLICABLE`.
pub const INTERFACE_FLAGS: u32 = 0x2 | 0x4 | 0x30;

/// Longest packet that libpcap lets through: `MAXIMUM_SNAPLEN` of `pcap-int.h`.
pub const MOST_BYTES: c_int = 262_144;

pub const DLT_EN10MB: c_int = 1;

/// The DLT of a link type. They differ for a few old ones (`pcap-common.c`).
pub fn dlt_of(link: u16) -> c_int {
    match link {
        100 => 11, // ATM, RFC 1483
        101 => 12, // raw IP
        102 => 15, // SLIP, BSD/OS
        103 => 16, // PPP, BSD/OS
        106 => 19, // classical IP over ATM
        other => c_int::from(other),
    }
}
