//! What aya does not do: loading a program given as instructions, its number and a name for it, reading and writing entries
//! of maps whose shape is known at run time only, and giving an object a map that is there already without a name in the
//! BPF file system, which would stay there if we were killed meanwhile.
//!
//! Invariants:
//! 1. Attributes are structures of integers laid out as linux/bpf.h has them, zero beyond what is filled in; the
//!    kernel is told their size and takes what is beyond it for zero.
//! 2. Each pointer in them is that of a live slice, with its length beside it or, for keys and values, checked to be
//!    what the kernel said of the map ([`RawMap::of`]); the kernel keeps none beyond the call.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::maps::{MapData, MapError};

const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_MAP_GET_NEXT_KEY: i32 = 4;
const BPF_PROG_LOAD: i32 = 5;
const BPF_OBJ_PIN: i32 = 6;
const BPF_OBJ_GET_INFO_BY_FD: i32 = 15;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// Attach type of XDP programs.
const BPF_XDP: u32 = 37;
/// The program runs on one device only, though not on the card.
const BPF_F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;
/// Bytes that the verifier may say.
const LOG_BYTES: usize = 64 << 10;

/// One instruction, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    pub code: u8,
    /// Destination in the low half, source in the high one.
    pub registers: u8,
    pub offset: i16,
    pub constant: i32,
}

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// `union bpf_attr` for BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct Info {
    object: u32,
    len: u32,
    info: u64,
}

/// `union bpf_attr` for BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    path: u64,
    object: u32,
    flags: u32,
}

/// `union bpf_attr` for calls on entries of maps.
#[repr(C)]
struct Entry {
    map: u32,
    unused: u32,
    key: u64,
    /// The value, or where the next key goes.
    value: u64,
    flags: u64,
}

/// # Safety
/// `A` is the structure that `command` takes, as invariants 1 and 2 say.
unsafe fn bpf<A>(command: i32, attributes: &mut A) -> io::Result<i64> {
    let size = size_of::<A>() as u32;
    // SAFETY: the pointer and size are those of `attributes`; what it points to is the caller's to answer for.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}

/// Loads an XDP program; with the number of an `interface`, bound to that.
///
/// # Errors
/// The system's, and what the verifier said.
pub(crate) fn load_xdp(
    name: &str,
    license: &CStr,
    instructions: &[Instruction],
    flags: u32,
    interface: Option<u32>,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = vec![0u8; LOG_BYTES];
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let mut load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: flags | if interface.is_some() { BPF_F_XDP_DEV_BOUND_ONLY } else { 0 },
        name: short,
        interface: interface.unwrap_or(0),
        attach_type: BPF_XDP,
    };
    // SAFETY: instructions with their number, a license that ends in zero, and no log.
    let mut loaded = unsafe { bpf(BPF_PROG_LOAD, &mut load) };
    if loaded.is_err() {
        // Once more, for its reasons; a log that is too long is cut, which is an error of its own.
        (load.log_level, load.log_size, load.log) = (1, LOG_BYTES as u32, log.as_mut_ptr() as u64);
        // SAFETY: as above, and a log with its length.
        let again = unsafe { bpf(BPF_PROG_LOAD, &mut load) };
        if again.is_ok() {
            loaded = again;
        }
    }
    match loaded {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) => Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        Err(error) => {
            let said = log.split(|byte| *byte == 0).next().unwrap_or_default();
            Err((error, String::from_utf8_lossy(said).into_owned()))
        }
    }
}

/// The kernel's number of a program.
pub(crate) fn number_of(program: &OwnedFd) -> io::Result<u32> {
    let mut head = [0u32; 2]; // of `struct bpf_prog_info`: what kind of program, and its number
    let (info, len) = (head.as_mut_ptr() as u64, size_of_val(&head) as u32);
    let mut ask = Info { object: program.as_raw_fd() as u32, len, info };
    // SAFETY: a descriptor, and room with its length.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;
    Ok(head[1])
}

/// Gives a program a name in the BPF file system.
pub(crate) fn pin(program: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut pin = Pin { path: path.as_ptr() as u64, object: program.as_raw_fd() as u32, flags: 0 };
    // SAFETY: a path that ends in zero, and a descriptor.
    unsafe { bpf(BPF_OBJ_PIN, &mut pin) }.map(|_| ())
}

/// A map, whatever it holds: keys and values are bytes.
#[derive(Debug)]
pub(crate) struct RawMap {
    map: MapData,
    key_bytes: usize,
    /// Of all processors together, where each has its own.
    value_bytes: usize,
}

impl RawMap {
    /// With a value for each of so many processors, or `None` where all share one.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn of(map: MapData, copies: Option<usize>) -> Result<RawMap, MapError> {
        let info = map.info()?;
        let value_bytes = value_bytes(info.value_size() as usize, copies);
        Ok(RawMap { map, key_bytes: info.key_size() as usize, value_bytes })
    }

    /// Bytes of a key.
    pub(crate) fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// The map.
    pub(crate) fn data(&self) -> &MapData {
        &self.map
    }

    fn entry(&self, key: Option<&[u8]>, value: u64) -> io::Result<Entry> {
        if key.is_some_and(|key| key.len() != self.key_bytes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the key has another length"));
        }
        let map = self.map.fd().as_fd().as_raw_fd() as u32;
        Ok(Entry { map, unused: 0, key: key.map_or(0, |key| key.as_ptr() as u64), value, flags: 0 })
    }

    /// The value of a key; `None` if there is none.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_bytes];
        let mut entry = self.entry(Some(key), value.as_mut_ptr() as u64)?;
        // SAFETY: a key and room for a value of this map's lengths.
        found(unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut entry) }).map(|found| found.then_some(value))
    }

    /// Sets the value of a key.
    pub(crate) fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the value has another length"));
        }
        let mut entry = self.entry(Some(key), value.as_ptr() as u64)?;
        // SAFETY: a key and a value of this map's lengths.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut entry) }.map(|_| ())
    }

    /// Removes a key; answers whether it was there.
    pub(crate) fn remove(&self, key: &[u8]) -> io::Result<bool> {
        let mut entry = self.entry(Some(key), 0)?;
        // SAFETY: a key of this map's length.
        found(unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut entry) })
    }

    /// The key behind this one, or the first; `None` behind the last.
    pub(crate) fn next_key(&self, key: Option<&[u8]>) -> io::Result<Option<Vec<u8>>> {
        let mut next = vec![0; self.key_bytes];
        let mut entry = self.entry(key, next.as_mut_ptr() as u64)?;
        // SAFETY: a key of this map's length or none, and room for another.
        found(unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut entry) }).map(|found| found.then_some(next))
    }
}

/// Has the descriptor of `own` be one of the map `shared` from now on. Programs name their maps by the descriptors' numbers
/// when they are loaded.
///
/// # Errors
/// The system's.
pub(crate) fn stand_for(own: &MapData, shared: &MapData) -> io::Result<()> {
    let number = own.fd().as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, for `own` lives; it stays `own`'s to close, for this is never dropped.
    let mut own = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(rustix::io::dup3(shared.fd().as_fd(), &mut own, rustix::io::DupFlags::CLOEXEC)?)
}

/// Puts a program into an array of programs.
pub(crate) fn put_program(array: &MapData, slot: u32, program: &OwnedFd) -> io::Result<()> {
    let (key, value) = (slot.to_ne_bytes(), program.as_raw_fd().to_ne_bytes());
    let map = array.fd().as_fd().as_raw_fd() as u32;
    let mut entry = Entry { map, unused: 0, key: key.as_ptr() as u64, value: value.as_ptr() as u64, flags: 0 };
    // SAFETY: arrays of programs have keys and values of 4 bytes, and no call of aya makes one of this kind otherwise;
    // of any other map the kernel reads no more than its key and value, which the caller answers for.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut entry) }.map(|_| ())
}

/// What the kernel writes and reads for a key: where each processor has a value of its own it rounds each up to 8
/// bytes, on a machine of one processor too.
fn value_bytes(value: usize, copies: Option<usize>) -> usize {
    copies.map_or(value, |copies| value.next_multiple_of(8) * copies)
}

fn found(done: io::Result<i64>) -> io::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::value_bytes;

    #[test]
    fn values_of_processors_are_rounded_up_however_many_there_are() {
        for (value, copies, bytes) in
            [(5, None, 5), (5, Some(1), 8), (8, Some(1), 8), (9, Some(1), 16), (4, Some(3), 24), (0, Some(2), 0)]
        {
            assert_eq!(value_bytes(value, copies), bytes, "{value} bytes, {copies:?} processors");
        }
    }
}
