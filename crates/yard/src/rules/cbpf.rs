//! Classic BPF: the programs that filter expressions are compiled to, checked and run in safe Rust.
//!
//! A [`Program`] was checked when it was made: every instruction is known, jumps go forwards and stay inside,
//! the last instruction returns. So a run ends after at most as many instructions as there are. Whatever a
//! packet holds: a load beyond its end, or a division by zero, ends the run with 0, no match, as in the
//! kernel and in libpcap.
//!
//! Source: McCanne and Jacobson, "The BSD Packet Filter" (USENIX 1993), section 3; Linux
//! `Documentation/networking/filter.rst`.

/// An instruction as compilers write it: `struct bpf_insn`, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// Most instructions of a program.
const LONGEST: usize = 1 << 16;
/// Words of scratch memory.
const MEMORY: usize = 16;

/// Why a program is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadProgram {
    #[error("a program of {0} instructions: from 1 to {LONGEST} are allowed")]
    Length(usize),
    #[error("instruction {0}: code {1:#06x} is unknown")]
    Code(usize, u16),
    #[error("instruction {0}: jumps out of the program")]
    Jump(usize),
    #[error("instruction {0}: divides by zero, or shifts by more than 31")]
    Constant(usize),
    #[error("instruction {0}: memory has {MEMORY} words")]
    Memory(usize),
    #[error("the last instruction does not return")]
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Word,
    Half,
    Byte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Shl,
    Shr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// Where the second operand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Constant,
    Index,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Load(Size),
    LoadIndexed(Size),
    LoadConstant,
    LoadLength,
    LoadMemory,
    IndexConstant,
    IndexLength,
    IndexMemory,
    /// The length of an IPv4 header: four times the low half of a byte.
    IndexHeader,
    Store,
    StoreIndex,
    Alu(Alu, Source),
    Negate,
    Jump,
    Branch(Test, Source),
    ReturnConstant,
    Return,
    ToIndex,
    FromIndex,
}

impl Op {
    /// What a code means; `None` for one that is not classic BPF.
    fn of(code: u16) -> Option<Op> {
        const LD: u16 = 0;
        const LDX: u16 = 1;
        const ALU: u16 = 4;
        const JMP: u16 = 5;
        let source = if code & 0x08 == 0 { Source::Constant } else { Source::Index };
        let alu = |op| Op::Alu(op, source);
        let branch = |test| Op::Branch(test, source);
        Some(match (code & 7, code & !7) {
            (LD, 0x20) => Op::Load(Size::Word),
            (LD, 0x28) => Op::Load(Size::Half),
            (LD, 0x30) => Op::Load(Size::Byte),
            (LD, 0x40) => Op::LoadIndexed(Size::Word),
            (LD, 0x48) => Op::LoadIndexed(Size::Half),
            (LD, 0x50) => Op::LoadIndexed(Size::Byte),
            (LD, 0x00) => Op::LoadConstant,
            (LD, 0x80) => Op::LoadLength,
            (LD, 0x60) => Op::LoadMemory,
            (LDX, 0x00) => Op::IndexConstant,
            (LDX, 0x80) => Op::IndexLength,
            (LDX, 0x60) => Op::IndexMemory,
            (LDX, 0xb0) => Op::IndexHeader,
            (2, 0) => Op::Store,
            (3, 0) => Op::StoreIndex,
            (ALU, 0x80) => Op::Negate,
            (ALU, rest) => alu(match rest & !8 {
                0x00 => Alu::Add,
                0x10 => Alu::Sub,
                0x20 => Alu::Mul,
                0x30 => Alu::Div,
                0x40 => Alu::Or,
                0x50 => Alu::And,
                0x60 => Alu::Shl,
                0x70 => Alu::Shr,
                0x90 => Alu::Mod,
                0xa0 => Alu::Xor,
                _ => return None,
            }),
            (JMP, 0x00) => Op::Jump,
            (JMP, rest) => branch(match rest & !8 {
                0x10 => Test::Equal,
                0x20 => Test::Greater,
                0x30 => Test::GreaterOrEqual,
                0x40 => Test::AnyBit,
                _ => return None,
            }),
            (6, 0x00) => Op::ReturnConstant,
            (6, 0x10) => Op::Return,
            (7, 0x00) => Op::ToIndex,
            (7, 0x80) => Op::FromIndex,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    op: Op,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A checked program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program(Box<[Step]>);

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// The first instruction that may not be.
    pub(super) fn new(instructions: &[Instruction]) -> Result<Program, BadProgram> {
        let len = instructions.len();
        if len == 0 || len > LONGEST {
            return Err(BadProgram::Length(len));
        }
        let step = |(at, instruction): (usize, &Instruction)| {
            let &Instruction { code, jt, jf, k } = instruction;
            let op = Op::of(code).ok_or(BadProgram::Code(at, code))?;
            // How many instructions lie behind this one: a jump skips fewer.
            let behind = len - at - 1;
            let inside = |skip: u32| usize::try_from(skip).is_ok_and(|skip| skip < behind);
            match op {
                Op::Jump if !inside(k) => Err(BadProgram::Jump(at)),
                Op::Branch(..) if !inside(jt.into()) || !inside(jf.into()) => Err(BadProgram::Jump(at)),
                Op::LoadMemory | Op::IndexMemory | Op::Store | Op::StoreIndex if k as usize >= MEMORY => {
                    Err(BadProgram::Memory(at))
                }
                Op::Alu(Alu::Div | Alu::Mod, Source::Constant) if k == 0 => Err(BadProgram::Constant(at)),
                Op::Alu(Alu::Shl | Alu::Shr, Source::Constant) if k > 31 => Err(BadProgram::Constant(at)),
                _ => Ok(Step { op, jt, jf, k }),
            }
        };
        let steps = instructions.iter().enumerate().map(step).collect::<Result<Box<[Step]>, BadProgram>>()?;
        match steps.last() {
            Some(Step { op: Op::Return | Op::ReturnConstant, .. }) => Ok(Program(steps)),
            _ => Err(BadProgram::Return),
        }
    }

    /// Runs it over the captured bytes of a packet that had `wire_len` on the wire: 0 is no match.
    pub(super) fn run(&self, bytes: &[u8], wire_len: u32) -> u32 {
        self.try_run(bytes, wire_len).unwrap_or(0)
    }

    #[inline]
    fn try_run(&self, bytes: &[u8], wire_len: u32) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut at = 0usize;
        loop {
            // Jumps were checked: there is always a next one until one returns.
            let &Step { op, jt, jf, k } = self.0.get(at)?;
            at += 1;
            match op {
                Op::Load(size) => a = load(bytes, k.into(), size)?,
                Op::LoadIndexed(size) => a = load(bytes, u64::from(x) + u64::from(k), size)?,
                Op::LoadConstant => a = k,
                Op::LoadLength => a = wire_len,
                Op::LoadMemory => a = *memory.get(k as usize)?,
                Op::IndexConstant => x = k,
                Op::IndexLength => x = wire_len,
                Op::IndexMemory => x = *memory.get(k as usize)?,
                Op::IndexHeader => x = (load(bytes, k.into(), Size::Byte)? & 15) << 2,
                Op::Store => *memory.get_mut(k as usize)? = a,
                Op::StoreIndex => *memory.get_mut(k as usize)? = x,
                Op::Alu(alu, source) => a = compute(alu, a, if source == Source::Index { x } else { k })?,
                Op::Negate => a = a.wrapping_neg(),
                Op::Jump => at += k as usize,
                Op::Branch(test, source) => {
                    let other = if source == Source::Index { x } else { k };
                    let holds = match test {
                        Test::Equal => a == other,
                        Test::Greater => a > other,
                        Test::GreaterOrEqual => a >= other,
                        Test::AnyBit => a & other != 0,
                    };
                    at += usize::from(if holds { jt } else { jf });
                }
                Op::ReturnConstant => return Some(k),
                Op::Return => return Some(a),
                Op::ToIndex => x = a,
                Op::FromIndex => a = x,
            }
        }
    }
}

/// A number in network order; `None` beyond the end.
#[inline(always)]
fn load(bytes: &[u8], at: u64, size: Size) -> Option<u32> {
    let rest = bytes.get(usize::try_from(at).ok()?..)?;
    Some(match size {
        Size::Word => u32::from_be_bytes(*rest.first_chunk()?),
        Size::Half => u16::from_be_bytes(*rest.first_chunk()?).into(),
        Size::Byte => (*rest.first()?).into(),
    })
}

/// `None` for a division by zero. Shifts by more than 31 leave nothing.
#[inline(always)]
fn compute(alu: Alu, a: u32, b: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => a.checked_div(b)?,
        Alu::Mod => a.checked_rem(b)?,
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Xor => a ^ b,
        Alu::Shl => a.checked_shl(b).unwrap_or(0),
        Alu::Shr => a.checked_shr(b).unwrap_or(0),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    /// Every code of classic BPF.
    const CODES: [u16; 44] = [
        0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x80, 0x60, 0x01, 0x81, 0x61, 0xb1, 0x02, 0x03, 0x04, 0x0c, 0x14,
        0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x94, 0x9c, 0xa4, 0xac, 0x84,
        0x05, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x45, 0x4d,
    ];

    /// Programs that pass the check: random instructions, put right, and a return behind them.
    pub(in super::super) fn programs() -> impl Strategy<Value = Vec<Instruction>> {
        let k = prop_oneof![0u32..80, any::<u16>().prop_map(u32::from), any::<u32>().prop_map(|k| k >> 1)];
        let all = CODES.len() + 3;
        let one = (0..all, any::<u8>(), any::<u8>(), k);
        (prop::collection::vec(one, 0..60), any::<bool>(), any::<u32>()).prop_map(|(raw, of_a, last)| {
            let len = raw.len() + 1;
            let put_right = |(at, (code, jt, jf, k)): (usize, (usize, u8, u8, u32))| {
                let code = *CODES.get(code).unwrap_or(&[0x07, 0x87, 0x3d][code % 3]);
                let behind = len - at - 1;
                let skip = |skip: u8| (usize::from(skip) % 8 % behind) as u8;
                let k = match code {
                    0x60 | 0x61 | 0x02 | 0x03 => k % 16,
                    0x64 | 0x74 => k % 32,
                    0x34 | 0x94 => k.max(1),
                    0x05 => u32::from(skip(jt)),
                    _ => k,
                };
                instruction(code, skip(jt), skip(jf), k)
            };
            let end = instruction(if of_a { 0x16 } else { 0x06 }, 0, 0, last);
            raw.into_iter().enumerate().map(put_right).chain([end]).collect()
        })
    }

    proptest! {
        #[test]
        fn every_code_is_known_or_refused_and_every_program_ends(
            instructions in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), 0u32..90), 0..40),
            bytes in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let raw: Vec<Instruction> =
                instructions.iter().map(|&(code, jt, jf, k)| instruction(code & 0xbf, jt & 3, jf & 3, k)).collect();
            if let Ok(program) = Program::new(&raw) {
                program.run(&bytes, 90);
            }
        }

        #[test]
        fn programs_that_were_put_right_pass(program in programs(), bytes in prop::collection::vec(any::<u8>(), 0..90)) {
            let checked = Program::new(&program);
            prop_assert!(checked.is_ok(), "{:?}", checked);
            checked.map(|p| p.run(&bytes, 90)).ok();
        }
    }

    #[test]
    fn what_may_not_be_is_refused() {
        let ret = instruction(0x06, 0, 0, 1);
        for (program, refusal) in [
            (vec![], BadProgram::Length(0)),
            (vec![ret; LONGEST + 1], BadProgram::Length(LONGEST + 1)),
            (vec![instruction(0xff, 0, 0, 0), ret], BadProgram::Code(0, 0xff)),
            (vec![instruction(0x05, 0, 0, 1), ret], BadProgram::Jump(0)),
            (vec![instruction(0x05, 0, 0, u32::MAX), ret], BadProgram::Jump(0)),
            (vec![instruction(0x15, 0, 1, 0), ret], BadProgram::Jump(0)),
            (vec![ret, instruction(0x15, 0, 0, 0)], BadProgram::Jump(1)),
            (vec![instruction(0x34, 0, 0, 0), ret], BadProgram::Constant(0)),
            (vec![instruction(0x94, 0, 0, 0), ret], BadProgram::Constant(0)),
            (vec![instruction(0x64, 0, 0, 32), ret], BadProgram::Constant(0)),
            (vec![instruction(0x60, 0, 0, 16), ret], BadProgram::Memory(0)),
            (vec![ret, instruction(0x07, 0, 0, 0)], BadProgram::Return),
        ] {
            assert_eq!(Program::new(&program), Err(refusal));
        }
    }

    #[test]
    fn a_filter_as_tcpdump_prints_it() {
        // tcpdump -d 'udp port 53' on Ethernet, IPv4 only.
        let program = Program::new(&[
            instruction(0x28, 0, 0, 12),
            instruction(0x15, 0, 10, 0x800),
            instruction(0x30, 0, 0, 23),
            instruction(0x15, 0, 8, 17),
            instruction(0x28, 0, 0, 20),
            instruction(0x45, 6, 0, 0x1fff),
            instruction(0xb1, 0, 0, 14),
            instruction(0x48, 0, 0, 14),
            instruction(0x15, 2, 0, 53),
            instruction(0x48, 0, 0, 16),
            instruction(0x15, 0, 1, 53),
            instruction(0x06, 0, 0, 262_144),
            instruction(0x06, 0, 0, 0),
        ])
        .expect("a good program");
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x11, 0, 0, 53, 0, 8, 0, 0]);
        assert_eq!(program.run(&frame, 42), 262_144);
        assert_eq!(program.run(&frame[..37], 42), 0, "the port was not captured");
        frame[21] = 1;
        assert_eq!(program.run(&frame, 42), 0, "a later fragment");
    }

    #[test]
    fn division_by_zero_and_loads_beyond_the_end_are_no_match() {
        let by_index = |code| Program::new(&[instruction(code, 0, 0, 0), instruction(0x06, 0, 0, 9)]).expect("good");
        assert_eq!((by_index(0x3c).run(&[], 0), by_index(0x9c).run(&[], 0)), (0, 0));
        for code in [0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1] {
            let far = Program::new(&[instruction(0x01, 0, 0, u32::MAX), instruction(code, 0, 0, u32::MAX), {
                instruction(0x06, 0, 0, 9)
            }]);
            assert_eq!(far.expect("good").run(&[1; 60], 60), 0, "{code:#x}");
        }
    }
}
