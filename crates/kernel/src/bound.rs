//! Programs that are bound to one device: only these may ask its driver what the card knows of a packet.
//!
//! What aya does not do is done here: a program is loaded with the flag BPF_F_XDP_DEV_BOUND_ONLY and the number of the
//! interface (Linux 6.3), and where it calls one of the kernel's functions by a number of ours (card.h), the number that
//! the function has in the running kernel's BTF is put into the instruction (`BPF_PSEUDO_KFUNC_CALL`, linux/bpf.h).
//!
//! Such a program can be put into no array of programs, devices or processors. It may make tail calls from one since
//! Linux 6.16 (`bpf_prog_map_compatible` in kernel/bpf/core.c; some older series have taken that over). It is
//! attached in the driver, never in the stack, and BPF_PROG_TEST_RUN does not run it.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{Xdp, loaded_programs};
use aya_obj::Object;
use aya_obj::btf::{Btf, BtfKind};
use aya_obj::programs::XdpAttachType;

use crate::host::HAS_FRAGS;
use crate::sys::{Instruction, load_xdp, number_of, pin};
use crate::user::NAMES;
use crate::{CardFacts, KernelError};

/// Numbers that a program calls the kernel's functions by, as card.h has them.
const CALLS: [(i32, &str); 3] = [
    (0x7f00_0001, "bpf_xdp_metadata_rx_timestamp"),
    (0x7f00_0002, "bpf_xdp_metadata_rx_hash"),
    (0x7f00_0003, "bpf_xdp_metadata_rx_vlan_tag"),
];
/// Code of a call, and what its source register says of one of the kernel's functions.
const CALL: u8 = 0x85;
const PSEUDO_KFUNC_CALL: u8 = 2;

/// Numbers of the running kernel's functions that tell what the card knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardCalls([Option<u32>; CALLS.len()]);

impl CardCalls {
    /// Looks them up in /sys/kernel/btf/vmlinux; takes some milliseconds.
    ///
    /// # Errors
    /// There is no such file, or it is not readable.
    pub fn find() -> Result<CardCalls, KernelError> {
        let btf = Btf::from_sys_fs().map_err(|e| KernelError::Object {
            object: "/sys/kernel/btf/vmlinux".into(),
            why: e.to_string(),
            remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF, or leave ?metadata out".into(),
        })?;
        Ok(CardCalls(CALLS.map(|(_, name)| btf.id_by_type_name_kind(name, BtfKind::Func).ok())))
    }

    /// What can be asked by them: time and hash from Linux 6.3 on, VLAN tags from 6.8.
    pub fn facts(&self) -> CardFacts {
        let [time, hash, vlan] = self.0.map(|number| number.is_some());
        CardFacts { time, hash, vlan }
    }
}

/// A program of an object, its instructions complete: it can be loaded as often as is wanted, for one interface.
///
/// Its instructions name maps by descriptors: whoever keeps this keeps them.
#[derive(Debug)]
pub struct BoundProgram {
    name: String,
    instructions: Vec<Instruction>,
    interface: u32,
    flags: u32,
}

impl BoundProgram {
    /// Takes the program `name` from `object`, which `ebpf` was loaded from, before any of its maps was taken out of that.
    ///
    /// # Errors
    /// An object without such a program, or of another shape.
    pub fn new(
        object: &[u8],
        ebpf: &Ebpf,
        name: &str,
        calls: &CardCalls,
        interface: u32,
        several_buffers: bool,
    ) -> Result<BoundProgram, KernelError> {
        let odd = |why: String| KernelError::Object {
            object: format!("the one with the program {name:?}"),
            why,
            remedy: "run bpf/build.sh, and build again".into(),
        };
        let mut parsed = Object::parse(object).map_err(|e| odd(e.to_string()))?;
        let key = parsed.programs.get(name).map(aya_obj::Program::function_key);
        let key = key.ok_or_else(|| odd("has no such program".into()))?;
        let text: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
        parsed.functions.retain(|at, _| *at == key); // it calls no functions of ours
        let maps = std::mem::take(&mut parsed.maps);
        let known = ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?, maps.get(name)?)));
        parsed.relocate_maps(known, &text).map_err(|e| odd(e.to_string()))?;
        let function = parsed.functions.get(&key).ok_or_else(|| odd("has no such program".into()))?;
        let instructions = function.instructions.iter().map(|at| {
            let registers = at.dst_reg() | at.src_reg() << 4;
            calls.filled_in(Instruction { code: at.code, registers, offset: at.off, constant: at.imm })
        });
        let instructions = instructions.collect();
        let flags = if several_buffers { HAS_FRAGS } else { 0 };
        Ok(BoundProgram { name: name.to_owned(), instructions, interface, flags })
    }

    /// Loads it, and has aya find it: by its number, which takes CAP_SYS_ADMIN, or by a name that it has under /sys/fs/bpf
    /// for a moment.
    ///
    /// # Errors
    /// What the verifier or the kernel said; neither right nor BPF file system.
    pub fn load(&self) -> Result<Xdp, KernelError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let loaded = load_xdp(&self.name, c"Dual MIT/GPL", &self.instructions, self.flags, Some(self.interface));
        let loaded = loaded.map_err(|(error, log)| KernelError::Refused {
            program: self.name.clone(),
            why: error.to_string(),
            log,
        })?;
        if let Some(program) = number_of(&loaded).ok().and_then(|number| self.by_number(number)) {
            return Ok(program);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed); // only has to differ
        let path = Path::new(NAMES).join(format!("{}-{}-{number}", self.name, std::process::id()));
        pin(&loaded, &path).map_err(|e| KernelError::Object {
            object: path.display().to_string(),
            why: format!("cannot name a program so: {e}"),
            remedy: format!("run it as root (sudo), or mount the BPF file system (mount -t bpf bpf {NAMES})"),
        })?;
        let program = Xdp::from_pin(&path, XdpAttachType::Interface);
        let _ = std::fs::remove_file(&path);
        program.map_err(|e| KernelError::refused(&self.name, &e))
    }

    fn by_number(&self, number: u32) -> Option<Xdp> {
        let info = loaded_programs().find_map(|info| info.ok().filter(|info| info.id() == number))?;
        Xdp::from_program_info(info, self.name.clone().into(), XdpAttachType::Interface).ok()
    }
}

impl CardCalls {
    /// The instruction, with the kernel's number in the place of ours.
    fn filled_in(&self, at: Instruction) -> Instruction {
        let ours = CALLS.iter().position(|(number, _)| at.constant == *number);
        match ours.and_then(|ours| self.0.get(ours).copied().flatten()) {
            Some(number) if at.code == CALL && at.registers == 0 => {
                Instruction { registers: PSEUDO_KFUNC_CALL << 4, constant: number as i32, ..at }
            }
            _ => at,
        }
    }
}

/// The descriptor of a map of one of the kinds that Flowyard's own programs have.
fn descriptor(map: &Map) -> Option<RawFd> {
    match map {
        Map::Array(data) | Map::PerCpuArray(data) | Map::ProgramArray(data) | Map::XskMap(data) => {
            Some(data.fd().as_fd().as_raw_fd())
        }
        Map::LruHashMap(data) => Some(data.fd().as_fd().as_raw_fd()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_numbers_are_replaced_in_calls_and_nowhere_else() {
        let calls = CardCalls([Some(7), None, Some(9)]);
        let call = |constant| Instruction { code: CALL, registers: 0, offset: 0, constant };
        let kernel = |constant| Instruction { registers: 0x20, ..call(constant) };
        assert_eq!(calls.filled_in(call(0x7f00_0001)), kernel(7));
        assert_eq!(calls.filled_in(call(0x7f00_0002)), call(0x7f00_0002), "the kernel has it not");
        assert_eq!(calls.filled_in(call(0x7f00_0003)), kernel(9));
        assert_eq!(calls.filled_in(call(1)), call(1), "a helper");
        let number = Instruction { code: 0xb4, ..call(0x7f00_0001) };
        assert_eq!(calls.filled_in(number), number, "no call");
        let header = include_str!("../bpf/card.h");
        assert!(CALLS.iter().all(|(number, _)| header.contains(&format!("{number:#010x};"))));
    }
}
