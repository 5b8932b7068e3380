//! A plug-in's file: read once, looked at before the loader gets it, and copied into memory.
//!
//! The loader believes what a file says of itself: one that was cut off kills the process when its missing
//! pages are touched. So what the loader will map is checked against the length here, and what is no
//! plug-in at all is refused in words that say what it is.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Fields of the ELF header and of a program header, 64 bits: System V ABI, chapters 4 and 5.
mod field {
    use std::ops::Range;

    pub(super) const MAGIC: Range<usize> = 0..4;
    pub(super) const CLASS: usize = 4;
    pub(super) const DATA: usize = 5;
    pub(super) const TYPE: Range<usize> = 16..18;
    pub(super) const MACHINE: Range<usize> = 18..20;
    pub(super) const PHOFF: Range<usize> = 32..40;
    pub(super) const PHENTSIZE: Range<usize> = 54..56;
    pub(super) const PHNUM: Range<usize> = 56..58;
    pub(super) const HEADER_BYTES: usize = 64;

    pub(super) const P_TYPE: Range<usize> = 0..4;
    pub(super) const P_OFFSET: Range<usize> = 8..16;
    pub(super) const P_FILESZ: Range<usize> = 32..40;
    pub(super) const P_BYTES: usize = 56;
}

const CLASS_64: u8 = 2;
const DATA_LITTLE: u8 = 1;
const TYPE_SHARED: u64 = 3;
const LOAD: u64 = 1;
/// Machines by their numbers, as far as anybody runs a yard on them.
const MACHINES: [(u64, &str); 5] = [(3, "x86"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64")];

const BUILD: &str = "build it with `cc -shared -fPIC`, or as a cdylib";
const WHOLE: &str = "copy it beside its place and rename it, so that nobody sees half of it";

/// Reads the file at `path` and checks that it is a whole shared object for this machine.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}; is the path right?"))?;
    if !about.is_file() {
        return Err("is not a file; name the shared object itself".into());
    }
    let bytes = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    check(&bytes)?;
    Ok(bytes)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err(format!("is empty; {WHOLE}"));
    }
    if bytes.get(field::MAGIC) != Some(b"\x7fELF") {
        let begin = bytes.iter().take(8).map(|b| b.escape_ascii().to_string()).collect::<String>();
        return Err(format!("is not an ELF shared object: it begins with \"{begin}\"; {BUILD}"));
    }
    let cut = || format!("is cut off after {} bytes; {WHOLE}", bytes.len());
    let header = bytes.get(..field::HEADER_BYTES).ok_or_else(cut)?;
    if (header[field::CLASS], header[field::DATA]) != (CLASS_64, DATA_LITTLE) {
        return Err("is not for 64-bit little-endian machines; build it for this one".into());
    }
    let machine = number(&header[field::MACHINE]);
    let name = MACHINES.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    if name != Some(std::env::consts::ARCH) {
        let is = name.map_or_else(|| format!("machine number {machine}"), str::to_owned);
        return Err(format!("is for {is}, and this machine is {}; build it for this one", std::env::consts::ARCH));
    }
    let kind = number(&header[field::TYPE]);
    if kind != TYPE_SHARED {
        return Err(format!("is an ELF file, but no shared object (type {kind}, not {TYPE_SHARED}); {BUILD}"));
    }
    let at = usize::try_from(number(&header[field::PHOFF])).unwrap_or(usize::MAX);
    let (size, count) = (number(&header[field::PHENTSIZE]) as usize, number(&header[field::PHNUM]) as usize);
    if size != field::P_BYTES {
        return Err(format!(
            "is damaged: its program headers have {size} bytes, not {}; build it anew",
            field::P_BYTES
        ));
    }
    let headers = at.checked_add(size * count).and_then(|end| bytes.get(at..end)).ok_or_else(cut)?;
    for part in headers.chunks_exact(size).filter(|part| number(&part[field::P_TYPE]) == LOAD) {
        let end = number(&part[field::P_OFFSET]).checked_add(number(&part[field::P_FILESZ]));
        end.filter(|end| *end <= bytes.len() as u64).ok_or_else(cut)?;
    }
    Ok(())
}

/// The same bytes in a file without a path that nobody can change any more. `name` appears in /proc/PID/maps.
pub(super) fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd, String> {
    let failed = |what, e: std::io::Error| format!("cannot be copied into memory: {what}: {e}");
    // Names of more than 249 bytes are refused by the kernel, and nobody reads them.
    let name = format!("flowyard-plugin-{}", name.chars().filter(char::is_ascii).take(64).collect::<String>());
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let mut file = std::fs::File::from(fd.map_err(|e| failed("memfd_create", e.into()))?);
    std::io::Write::write_all(&mut file, bytes).map_err(|e| failed("write", e))?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(|e| failed("seal", e.into()))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library that every test is linked with.
    fn real() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        let path = maps.lines().find_map(|l| l.contains("libc.so").then(|| &l[l.find('/').expect("a path")..]));
        std::fs::read(path.expect("the C library")).expect("it is readable")
    }

    #[test]
    fn a_library_is_one_and_nothing_else_is() {
        let real = real();
        assert_eq!(check(&real), Ok(()));
        let changed = |at: usize, to: u8| {
            let mut bytes = real.clone();
            bytes[at] = to;
            check(&bytes).expect_err("not one")
        };
        assert!(changed(field::TYPE.start, 2).contains("no shared object (type 2, not 3)"));
        assert!(changed(field::MACHINE.start, 40).contains("is for arm, and this machine is"));
        assert!(changed(field::MACHINE.start, 99).contains("is for machine number 99"));
        assert!(changed(field::CLASS, 1).contains("64-bit"));
        assert!(changed(field::PHENTSIZE.start, 32).contains("is damaged"));
        assert!(check(b"").expect_err("empty").contains("is empty"));
        assert!(check(b"#!/bin/sh\n").expect_err("a script").contains(r##"begins with "#!/bin/s""##));
    }

    #[test]
    fn one_that_is_cut_off_anywhere_never_reaches_the_loader() {
        let real = real();
        let headers = &real[number(&real[field::PHOFF]) as usize..];
        let count = number(&real[field::PHNUM]) as usize;
        let parts = headers.chunks_exact(field::P_BYTES).take(count);
        let loaded = parts.filter(|part| number(&part[field::P_TYPE]) == LOAD);
        let end = loaded.map(|part| number(&part[field::P_OFFSET]) + number(&part[field::P_FILESZ])).max();
        let end = end.expect("something to load") as usize;
        for len in (1..200).chain((200..end).step_by(4099)).chain([end - 1]) {
            assert!(check(&real[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(check(&real[..end]), Ok(()));
    }

    #[test]
    fn damage_is_refused_or_passed_on_without_a_panic() {
        let real = real();
        for at in 0..field::HEADER_BYTES + 20 * field::P_BYTES {
            for to in [0, 0x7f, 0xff] {
                let mut bytes = real.clone();
                bytes.truncate(1 << 16);
                bytes[at] = to;
                let _ = check(&bytes);
            }
        }
    }

    #[test]
    fn a_sealed_copy_is_the_same_and_stays_so() {
        let fd = sealed("näme", b"bytes").expect("memory");
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::pread(&fd, &mut bytes, 0), Ok(5));
        assert_eq!(&bytes[..5], b"bytes");
    }
}
