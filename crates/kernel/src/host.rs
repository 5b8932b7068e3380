//! What goes on to the host's own stack: a filter of classic BPF, as expressions of tcpdump are compiled to,
//! translated to a program that stands before all others.
//!
//! The translation is instruction by instruction, so the verifier judges it as it would any program. A frame that
//! matches gets XDP_PASS and is counted; any other goes on. As in classic BPF, a load beyond what is there means no
//! match; of a frame in several buffers that is the first buffer. Registers of the translation:
//!
//! ```text
//! r0 A   r9 X   r6 context   r7 first byte   r8 end   r2 r3 for a moment   stack: 16 words of memory, the length
//! ```

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::maps::MapData;

use crate::KernelError;
use crate::sys::{Instruction, load_xdp, put_program};

/// An instruction of classic BPF: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classic {
    /// What to do.
    pub code: u16,
    /// Instructions to skip if a test holds.
    pub jt: u8,
    /// Instructions to skip if not.
    pub jf: u8,
    /// A number.
    pub k: u32,
}

/// What goes on to the host's stack of what comes in by an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToHost {
    /// What no socket takes: packets of queues that were not asked for, and all of them while the owner is not there.
    #[default]
    Pass,
    /// Nothing: what no socket takes is dropped, and counted.
    Nothing,
    /// What matches, before anything else is done with it; and what no socket takes.
    Filter(HostFilter),
}

/// A filter for frames of Ethernet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFilter {
    text: String,
    classic: Vec<Classic>,
}

/// Where the program of a filter stands, and what it shares.
#[derive(Debug)]
pub struct HostPlace<'a> {
    /// Programs that follow one another.
    pub slots: &'a MapData,
    /// The filter's own slot.
    pub own: u32,
    /// Slots that it goes on to, the first that is not empty.
    pub next: &'a [u32],
    /// An array of counters, an entry a queue.
    pub counts: &'a MapData,
    /// Where in an entry the counter of frames that matched is, 64 bits.
    pub count_offset: u16,
    /// Whether frames may span several buffers.
    pub several_buffers: bool,
    /// Whether something may stand before a packet: it is taken away before the stack has it, which merges no packets
    /// before which different things stand.
    pub metadata: bool,
}

/// Longest program.
const LONGEST: usize = 4096;
/// Farthest byte that is looked at: the verifier wants a bound.
const FARTHEST: u32 = 0x7fff;
/// `BPF_F_XDP_HAS_FRAGS` (linux/bpf.h).
pub(crate) const HAS_FRAGS: u32 = 1 << 5;

const MEMORY_AT: i16 = -64;
const LENGTH_AT: i16 = -72;
const QUEUE_AT: i16 = -80;
const MAP_LOOKUP: i32 = 1;
const TAIL_CALL: i32 = 12;
const ADJUST_META: i32 = 54;
const GET_BUFF_LEN: i32 = 188;
const XDP_PASS: i32 = 2;

const A: u8 = 0;
const X: u8 = 9;
const CONTEXT: u8 = 6;
const PACKET: u8 = 7;
const END: u8 = 8;
const STACK: u8 = 10;

impl HostFilter {
    /// Takes a program that was compiled for Ethernet from `text`.
    ///
    /// # Errors
    /// It is too long, jumps out of itself, or has an instruction that classic BPF has not.
    pub fn new(text: &str, classic: Vec<Classic>) -> Result<HostFilter, KernelError> {
        let filter = HostFilter { text: text.to_owned(), classic };
        filter.translate(0, 0, &[], 0, (false, false))?;
        Ok(filter)
    }

    /// The expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Loads the program and puts it into its slot: from now on what matches goes to the host.
    ///
    /// # Errors
    /// The verifier will not have it, or the system's.
    pub fn install(&self, place: &HostPlace<'_>) -> Result<(), KernelError> {
        let (slots, counts) = (place.slots.fd().as_fd().as_raw_fd(), place.counts.fd().as_fd().as_raw_fd());
        let program = self.translate(
            slots,
            counts,
            place.next,
            place.count_offset as i16,
            (place.several_buffers, place.metadata),
        )?;
        let flags = if place.several_buffers { HAS_FRAGS } else { 0 };
        let loaded: OwnedFd =
            load_xdp("flowyard_host", c"Dual MIT/GPL", &program, flags, None).map_err(|(error, log)| {
                KernelError::Refused { program: format!("--host {}", self.text), why: error.to_string(), log }
            })?;
        let action = || format!("put the filter for the host ({}) into its slot", self.text);
        put_program(place.slots, place.own, &loaded).map_err(|e| KernelError::system(action(), &e))
    }

    fn translate(
        &self,
        slots: i32,
        counts: i32,
        next: &[u32],
        count_offset: i16,
        (several_buffers, metadata): (bool, bool),
    ) -> Result<Vec<Instruction>, KernelError> {
        let refuse = |why: String| KernelError::Object {
            object: format!("the filter {:?}", self.text),
            why,
            remedy: "write a shorter or plainer expression".into(),
        };
        if self.classic.is_empty() || self.classic.len() > LONGEST {
            return Err(refuse(format!("has {} instructions, from 1 to {LONGEST} are allowed", self.classic.len())));
        }
        let mut out = Translation::default();
        out.begin(several_buffers);
        let mut reached = vec![false; self.classic.len()];
        if let Some(first) = reached.first_mut() {
            *first = true;
        }
        for (at, instruction) in self.classic.iter().enumerate() {
            out.starts.push(out.program.len());
            if !reached.get(at).copied().unwrap_or(false) {
                continue; // the verifier wants no code that is never reached
            }
            let jumps_out = || refuse(format!("jumps out of itself at instruction {at}"));
            let Some(follow) = out.one(at, *instruction) else {
                return Err(refuse(format!("has code {:#06x} at instruction {at}", instruction.code)));
            };
            for to in follow {
                *reached.get_mut(to).ok_or_else(jumps_out)? = true;
            }
        }
        out.end(slots, counts, next, count_offset, metadata);
        out.finish().ok_or_else(|| refuse("is too long when translated".into()))
    }
}

/// Where a jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Classic(usize),
    Match,
    NoMatch,
}

#[derive(Debug, Default)]
struct Translation {
    program: Vec<Instruction>,
    /// Where each instruction of classic BPF begins.
    starts: Vec<usize>,
    /// Jumps to be filled in.
    jumps: Vec<(usize, Target)>,
    matched: Option<usize>,
    unmatched: Option<usize>,
}

impl Translation {
    fn put(&mut self, code: u8, destination: u8, source: u8, offset: i16, constant: i32) {
        self.program.push(Instruction { code, registers: destination | source << 4, offset, constant });
    }

    fn jump(&mut self, code: u8, destination: u8, source: u8, constant: i32, to: Target) {
        self.jumps.push((self.program.len(), to));
        self.put(code, destination, source, 0, constant);
    }

    fn begin(&mut self, several_buffers: bool) {
        self.put(0xbf, CONTEXT, 1, 0, 0); // r6 = r1
        if several_buffers {
            self.put(0x85, 0, 0, 0, GET_BUFF_LEN);
        }
        self.put(0x61, PACKET, CONTEXT, 0, 0); // r7 = ctx->data
        self.put(0x61, END, CONTEXT, 4, 0); // r8 = ctx->data_end
        if !several_buffers {
            self.put(0xbf, A, END, 0, 0);
            self.put(0x1f, A, PACKET, 0, 0); // r0 = r8 - r7
        }
        self.put(0x7b, STACK, A, LENGTH_AT, 0);
        for word in 0..8 {
            self.put(0x7a, STACK, 0, MEMORY_AT + 8 * word, 0);
        }
        self.put(0xb4, A, 0, 0, 0);
        self.put(0xb4, X, 0, 0, 0);
    }

    /// Puts `bytes` of the packet from r3 on, an offset, into `register`, in the host's order.
    fn load(&mut self, register: u8, bytes: i32) {
        self.put(0x0f, 3, PACKET, 0, 0); // r3 += r7
        self.put(0xbf, 2, 3, 0, 0);
        self.put(0x07, 2, 0, 0, bytes); // r2 = r3 + bytes
        self.jump(0x2d, 2, END, 0, Target::NoMatch); // if r2 > r8
        let size = match bytes {
            1 => 0x71,
            2 => 0x69,
            _ => 0x61,
        };
        self.put(size, register, 3, 0, 0);
        if bytes > 1 {
            self.put(0xdc, register, 0, 0, bytes * 8); // from network order
        }
    }

    fn load_at(&mut self, register: u8, at: u32, bytes: i32) -> bool {
        if at > FARTHEST {
            self.jump(0x05, 0, 0, 0, Target::NoMatch);
            return false;
        }
        self.put(0xb4, 3, 0, 0, at as i32);
        self.load(register, bytes);
        true
    }

    /// Translates one instruction; answers those that may follow, or `None` if it is none.
    fn one(&mut self, at: usize, Classic { code, jt, jf, k }: Classic) -> Option<Vec<usize>> {
        let constant = k as i32;
        let on = vec![at + 1];
        let bytes = match code & 0x18 {
            0x00 => 4,
            0x08 => 2,
            _ => 1,
        };
        let memory = |k: u32| (k < 16).then_some(MEMORY_AT + 4 * k as i16);
        let register = if code & 7 == 1 { X } else { A };
        match code {
            0x20 | 0x28 | 0x30 => {
                return Some(if self.load_at(A, k, bytes) { on } else { Vec::new() });
            }
            0x40 | 0x48 | 0x50 => {
                if k > FARTHEST {
                    self.jump(0x05, 0, 0, 0, Target::NoMatch);
                    return Some(Vec::new());
                }
                self.put(0xbc, 3, X, 0, 0); // w3 = w9, zero above: what is added to it does not wrap
                self.put(0x07, 3, 0, 0, constant); // r3 += k
                self.jump(0x25, 3, 0, FARTHEST as i32, Target::NoMatch); // if r3 > FARTHEST
                self.load(A, bytes);
            }
            0xb1 => {
                if !self.load_at(X, k, 1) {
                    return Some(Vec::new());
                }
                self.put(0x54, X, 0, 0, 0x0f);
                self.put(0x64, X, 0, 0, 2);
            }
            0x00 | 0x01 => self.put(0xb4, register, 0, 0, constant),
            0x80 | 0x81 => self.put(0x61, register, STACK, LENGTH_AT, 0),
            0x60 | 0x61 => self.put(0x61, register, STACK, memory(k)?, 0),
            0x02 => self.put(0x63, STACK, A, memory(k)?, 0),
            0x03 => self.put(0x63, STACK, X, memory(k)?, 0),
            0x84 => self.put(0x84, A, 0, 0, 0),
            0x07 => self.put(0xbc, X, A, 0, 0),
            0x87 => self.put(0xbc, A, X, 0, 0),
            0x05 => {
                let to = at + 1 + k as usize;
                self.jump(0x05, 0, 0, 0, Target::Classic(to));
                return Some(vec![to]);
            }
            0x06 => {
                self.jump(0x05, 0, 0, 0, if k == 0 { Target::NoMatch } else { Target::Match });
                return Some(Vec::new());
            }
            0x16 => {
                self.jump(0x56, A, 0, 0, Target::Match); // if w0 != 0
                self.jump(0x05, 0, 0, 0, Target::NoMatch);
                return Some(Vec::new());
            }
            0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d => {
                let (yes, no) = (at + 1 + usize::from(jt), at + 1 + usize::from(jf));
                let source = if code & 8 == 0 { 0 } else { X };
                let constant = if source == X { 0 } else { constant };
                self.jump(code as u8 + 1, A, source, constant, Target::Classic(yes)); // the same on 32 bits
                self.jump(0x05, 0, 0, 0, Target::Classic(no));
                return Some(vec![yes, no]);
            }
            _ if code & 7 == 4 && code & 0xff == code => {
                let (operation, by_index) = (code & 0xf0, code & 8 != 0);
                match (operation, by_index) {
                    (0x30 | 0x90, false) if k == 0 => return None,
                    (0x60 | 0x70, false) if k > 31 => return None,
                    (0x30 | 0x90, true) => self.jump(0x16, X, 0, 0, Target::NoMatch), // if w9 == 0
                    (0x60 | 0x70, true) => {
                        self.put(0xa6, X, 0, 1, 32); // if w9 < 32, skip one
                        self.put(0xb4, A, 0, 0, 0);
                    }
                    (0x00 | 0x10 | 0x20 | 0x30 | 0x40 | 0x50 | 0x60 | 0x70 | 0x90 | 0xa0, _) => {}
                    _ => return None,
                }
                self.put(code as u8, A, if by_index { X } else { 0 }, 0, if by_index { 0 } else { constant });
            }
            _ => return None,
        }
        Some(on)
    }

    fn map(&mut self, register: u8, fd: i32) {
        self.put(0x18, register, 1, 0, fd); // a map by its descriptor
        self.put(0, 0, 0, 0, 0);
    }

    fn end(&mut self, slots: i32, counts: i32, next: &[u32], count_offset: i16, metadata: bool) {
        let wanted = |jumps: &[(usize, Target)], what| jumps.iter().any(|(_, to)| *to == what);
        if wanted(&self.jumps, Target::Match) {
            self.matched = Some(self.program.len());
            self.put(0x61, 1, CONTEXT, 16, 0); // ctx->rx_queue_index
            self.put(0x63, STACK, 1, QUEUE_AT, 0);
            self.put(0xbf, 2, STACK, 0, 0);
            self.put(0x07, 2, 0, 0, QUEUE_AT.into());
            self.map(1, counts);
            self.put(0x85, 0, 0, 0, MAP_LOOKUP);
            self.put(0x15, 0, 0, 2, 0); // if r0 == 0, skip the count
            self.put(0xb7, 1, 0, 0, 1);
            self.put(0xdb, 0, 1, count_offset, 0); // lock *(u64 *)(r0 + offset) += r1
            if metadata {
                self.put(0xbf, 1, CONTEXT, 0, 0);
                self.put(0xbf, 2, PACKET, 0, 0);
                self.put(0x61, 3, CONTEXT, 8, 0); // ctx->data_meta
                self.put(0x1f, 2, 3, 0, 0); // r2 = r7 - r3
                self.put(0x85, 0, 0, 0, ADJUST_META);
            }
            self.put(0xb7, 0, 0, 0, XDP_PASS);
            self.put(0x95, 0, 0, 0, 0);
        }
        if wanted(&self.jumps, Target::NoMatch) {
            self.unmatched = Some(self.program.len());
            for slot in next {
                self.put(0xbf, 1, CONTEXT, 0, 0);
                self.map(2, slots);
                self.put(0xb7, 3, 0, 0, *slot as i32);
                self.put(0x85, 0, 0, 0, TAIL_CALL);
            }
            self.put(0xb7, 0, 0, 0, XDP_PASS);
            self.put(0x95, 0, 0, 0, 0);
        }
    }

    /// Fills the jumps in; `None` if one leads too far.
    fn finish(mut self) -> Option<Vec<Instruction>> {
        for (at, to) in self.jumps {
            let to = match to {
                Target::Classic(number) => self.starts.get(number).copied()?,
                Target::Match => self.matched?,
                Target::NoMatch => self.unmatched?,
            };
            self.program.get_mut(at)?.offset = i16::try_from(to.checked_sub(at + 1)?).ok()?;
        }
        Some(self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(classic: &[(u16, u8, u8, u32)]) -> Result<HostFilter, KernelError> {
        let classic = classic.iter().map(|&(code, jt, jf, k)| Classic { code, jt, jf, k }).collect();
        HostFilter::new("test", classic)
    }

    #[test]
    fn what_is_no_classic_program_is_refused() {
        assert!(filter(&[(0x06, 0, 0, 1)]).is_ok());
        for (classic, says) in [
            (&[][..], "0 instructions"),
            (&[(0x15, 3, 0, 1), (0x06, 0, 0, 0)], "jumps out"),
            (&[(0x05, 0, 0, u32::MAX)], "jumps out"),
            (&[(0x20, 0, 0, 0)], "jumps out"),
            (&[(0x60, 0, 0, 16), (0x06, 0, 0, 0)], "code 0x0060"),
            (&[(0x34, 0, 0, 0), (0x06, 0, 0, 0)], "code 0x0034"),
            (&[(0x64, 0, 0, 32), (0x06, 0, 0, 0)], "code 0x0064"),
            (&[(0xffff, 0, 0, 0)], "code 0xffff"),
        ] {
            let error = filter(classic).expect_err(says).to_string();
            assert!(error.contains(says) && error.contains("plainer"), "{error}");
        }
        assert!(filter(&vec![(0x00, 0, 0, 0); 5000]).is_err());
    }
}
