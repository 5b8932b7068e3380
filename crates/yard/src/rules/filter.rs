//! tcpdump's filter expressions, compiled by libpcap's own compiler, which is loaded when the first filter is
//! met: building needs no libpcap, and a yard without filters needs none at all.
//!
//! An expression is compiled once for each link type that it has a meaning on, and once for packets that begin
//! with their IP header; packets then only look up which program is theirs.
//!
//! # Invariants of the unsafe code
//! - The library is never unloaded: [`LIBPCAP`] holds it for good, so its functions may be copied out.
//! - All calls are made under that lock: the compiler of libpcap before 1.8 has global state.
//! - A handle is used only between `pcap_open_dead` and the drop of its [`Handle`].
//! - Instructions are copied out between a successful `pcap_compile` and `pcap_freecode`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use flowyard_kernel::Classic;
use flowyard_steer::LinkType;
use libloading::Library;

use super::cbpf::{Instruction, Program};
use super::facts::{Facts, IPV6_HEADER, PROTOCOL, V6};

/// What a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum On {
    /// The packet from the IP header of its flow on.
    Inner,
    /// The packet as it was received.
    Outer,
    /// It matches if it matches on either.
    #[default]
    Either,
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    text: String,
    on: On,
    /// By link type, Ethernet first.
    outer: Vec<(u16, Program)>,
    /// For packets that begin with their IP header.
    raw: Option<Program>,
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        (&self.text, self.on) == (&other.text, other.on)
    }
}

/// Link types by number, and as libpcap's compiler calls them. Ethernet first: most packets'.
const LINKS: [(LinkType, c_int); 28] = [
    (LinkType::ETHERNET, 1),
    (LinkType::RAW, RAW),
    (LinkType::OLD_RAW_BSD, RAW),
    (LinkType::OLD_RAW_OPENBSD, RAW),
    (LinkType::IPV4, 228),
    (LinkType::IPV6, 229),
    (LinkType::LINUX_SLL, 113),
    (LinkType::LINUX_SLL2, 276),
    (LinkType::NULL, 0),
    (LinkType::LOOP, 108),
    (LinkType::PPP, 9),
    (LinkType::PPP_HDLC, 50),
    (LinkType::PPP_ETHER, 51),
    (LinkType::PPP_WITH_DIR, 166),
    (LinkType::C_HDLC, 104),
    (LinkType::C_HDLC_WITH_DIR, 205),
    (LinkType::FRELAY, 107),
    (LinkType::FRELAY_WITH_DIR, 206),
    (LinkType::TOKEN_RING, 6),
    (LinkType::FDDI, 10),
    (LinkType::ATM_RFC1483, 11),
    (LinkType::SUNATM, 123),
    (LinkType::IEEE802_11, 105),
    (LinkType::PRISM, 119),
    (LinkType::RADIOTAP, 127),
    (LinkType::AVS, 163),
    (LinkType::PPI, 192),
    (LinkType::PFLOG, 117),
];

/// `DLT_RAW` on Linux: the first nibble says which IP.
const RAW: c_int = 12;
/// How much of a packet is seen whose headers are pushed together.
const PUSHED_TOGETHER: usize = 2048;
/// Longest packet: libpcap's own default.
const SNAP_BYTES: c_int = 262_144;
/// `PCAP_NETMASK_UNKNOWN`.
const NO_NETMASK: c_uint = u32::MAX;

impl Filter {
    /// Compiles an expression. May ask the name service, where the expression has names of hosts.
    ///
    /// # Errors
    /// libpcap is not there, or has something against the expression on every link type.
    pub(super) fn compile(text: &str, on: On) -> Result<Filter, String> {
        let expression = CString::new(text).map_err(|_| "has a zero byte".to_owned())?;
        let mut library = LIBPCAP.lock().unwrap_or_else(PoisonError::into_inner);
        let libpcap = match &mut *library {
            Some(libpcap) => libpcap,
            none => none.insert(Libpcap::load()?),
        };
        let mut outer = Vec::new();
        let raw = libpcap.compile(&expression, RAW);
        let mut first_refusal = None;
        if on != On::Inner {
            for (link, dlt) in LINKS {
                match libpcap.compile(&expression, dlt) {
                    Ok(program) => outer.push((link.0, program)),
                    Err(refusal) => drop(first_refusal.get_or_insert(refusal)),
                }
            }
        }
        if outer.is_empty() && (on == On::Outer || raw.is_err()) {
            // On Ethernet, if that was tried: the refusal that most people can make sense of.
            return Err(first_refusal.or(raw.err()).unwrap_or_default());
        }
        Ok(Filter { text: text.to_owned(), on, outer, raw: raw.ok() })
    }

    /// Whether it matches a packet. An ICMP error is judged as what it quotes, unless the filter is for the
    /// packet as it was received.
    pub(super) fn matches(&self, facts: &Facts, bytes: &[u8]) -> bool {
        match self.on {
            On::Inner => self.matches_flow(facts, bytes),
            On::Outer => self.matches_link(facts, bytes),
            On::Either if facts.bare_error => {
                self.matches_flow(facts, bytes) || self.matches_raw(facts, bytes, facts.outermost(bytes))
            }
            On::Either => self.matches_flow(facts, bytes) || self.matches_link(facts, bytes),
        }
    }

    fn matches_link(&self, facts: &Facts, bytes: &[u8]) -> bool {
        let program = self.outer.iter().find(|(link, _)| *link == facts.link);
        program.is_some_and(|(_, program)| program.run(bytes, facts.wire_len) != 0)
    }

    fn matches_flow(&self, facts: &Facts, bytes: &[u8]) -> bool {
        match facts.transport_apart(bytes) {
            Some(transport) => self.matches_pushed_together(facts, bytes, transport),
            None => self.matches_raw(facts, bytes, facts.flow(bytes)),
        }
    }

    /// On `part`, the end of a packet.
    fn matches_raw(&self, facts: &Facts, bytes: &[u8], part: Option<&[u8]>) -> bool {
        let (Some(program), Some(part)) = (&self.raw, part) else { return false };
        program.run(part, wire_len_of(part, facts, bytes)) != 0
    }

    /// libpcap's programs look for a transport header right behind the IP header, and some packets of a
    /// conversation have others between. So that these are judged as the rest is, the program sees the two
    /// put together.
    #[cold]
    fn matches_pushed_together(&self, facts: &Facts, bytes: &[u8], transport: &[u8]) -> bool {
        let (Some(program), Some(flow)) = (&self.raw, facts.flow(bytes)) else { return false };
        let v6 = facts.has(V6);
        let header_len = if v6 { IPV6_HEADER } else { usize::from(flow.first().map_or(0, |first| first & 15)) * 4 };
        let mut together = [0; PUSHED_TOGETHER];
        let (header, rest) = together.split_at_mut(header_len);
        let kept = transport.len().min(rest.len());
        let Some(from) = flow.get(..header_len) else { return false };
        header.copy_from_slice(from);
        rest[..kept].copy_from_slice(&transport[..kept]);
        // The next header of IPv6, the protocol of IPv4.
        let Some(protocol) = header.get_mut(if v6 { 6 } else { 9 }) else { return false };
        *protocol = facts.part(PROTOCOL) as u8;
        program.run(&together[..header_len + kept], wire_len_of(flow, facts, bytes)) != 0
    }
}

/// An expression compiled for Ethernet: what the kernel picks out for the host's stack.
///
/// # Errors
/// libpcap is not there, or has something against the expression.
pub(crate) fn compiled(text: &str) -> Result<Vec<Classic>, String> {
    const ETHERNET: c_int = 1;
    let expression = CString::new(text).map_err(|_| "has a zero byte".to_owned())?;
    let mut library = LIBPCAP.lock().unwrap_or_else(PoisonError::into_inner);
    let libpcap = match &mut *library {
        Some(libpcap) => libpcap,
        none => none.insert(Libpcap::load()?),
    };
    let instructions = libpcap.instructions(&expression, ETHERNET)?;
    Ok(instructions.iter().map(|i| Classic { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect())
}

/// How long `part`, the end of a packet, was on the wire.
fn wire_len_of(part: &[u8], facts: &Facts, bytes: &[u8]) -> u32 {
    facts.wire_len.saturating_sub((bytes.len() - part.len()) as u32)
}

/// The library, once it was asked for and found.
static LIBPCAP: Mutex<Option<Libpcap>> = Mutex::new(None);

/// `pcap_t`: only its address is known.
#[repr(C)]
struct Pcap {
    _opaque: [u8; 0],
}

/// `struct bpf_program`.
#[repr(C)]
struct BpfProgram {
    len: c_uint,
    instructions: *mut Instruction,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Pcap;
type Compile = unsafe extern "C" fn(*mut Pcap, *mut BpfProgram, *const c_char, c_int, c_uint) -> c_int;
type GetError = unsafe extern "C" fn(*mut Pcap) -> *mut c_char;
type FreeCode = unsafe extern "C" fn(*mut BpfProgram);
type Close = unsafe extern "C" fn(*mut Pcap);

/// libpcap's functions.
struct Libpcap {
    open_dead: OpenDead,
    compile: Compile,
    get_error: GetError,
    free_code: FreeCode,
    close: Close,
    /// Never unloaded: dropped with the static, which is never.
    _library: Library,
}

/// A dead handle: it compiles, and has no packets.
struct Handle<'a> {
    at: NonNull<Pcap>,
    close: Close,
    of: PhantomData<&'a Libpcap>,
}

impl Drop for Handle<'_> {
    fn drop(&mut self) {
        // SAFETY: `at` came from pcap_open_dead (`Libpcap::open`) and is closed here alone; the library is
        // loaded, because the handle borrows it.
        unsafe { (self.close)(self.at.as_ptr()) }
    }
}

impl Libpcap {
    fn load() -> Result<Libpcap, String> {
        let load = |name: &str| {
            // SAFETY: what runs on loading is libpcap's own and the C library's set-up, which asks nothing of us.
            unsafe { Library::new(name) }
        };
        let library = load("libpcap.so.1").or_else(|_| load("libpcap.so.0.8")).map_err(|error| {
            format!("filters are compiled by libpcap, which cannot be loaded ({error}): apt-get install libpcap0.8")
        })?;
        // SAFETY: the types are those of pcap.h, unchanged since libpcap 0.8, and `library` is kept beside the
        // functions for as long as they are.
        let functions = unsafe {
            (|| {
                Ok::<_, libloading::Error>((
                    *library.get::<OpenDead>(b"pcap_open_dead\0")?,
                    *library.get::<Compile>(b"pcap_compile\0")?,
                    *library.get::<GetError>(b"pcap_geterr\0")?,
                    *library.get::<FreeCode>(b"pcap_freecode\0")?,
                    *library.get::<Close>(b"pcap_close\0")?,
                ))
            })()
        };
        let (open_dead, compile, get_error, free_code, close) =
            functions.map_err(|error| format!("the libpcap that is installed cannot be used: {error}"))?;
        Ok(Libpcap { open_dead, compile, get_error, free_code, close, _library: library })
    }

    fn open(&mut self, dlt: c_int) -> Result<Handle<'_>, String> {
        // SAFETY: takes two numbers; any will do.
        let at = unsafe { (self.open_dead)(dlt, SNAP_BYTES) };
        let at = NonNull::new(at).ok_or("libpcap has no memory left")?;
        Ok(Handle { at, close: self.close, of: PhantomData })
    }

    /// Compiles for a link type.
    fn compile(&mut self, expression: &CStr, dlt: c_int) -> Result<Program, String> {
        let instructions = self.instructions(expression, dlt)?;
        Program::new(&instructions).map_err(|why| format!("libpcap's program cannot be run: {why}"))
    }

    /// As compiled for a link type. Exclusive: the caller holds the lock on [`LIBPCAP`].
    fn instructions(&mut self, expression: &CStr, dlt: c_int) -> Result<Vec<Instruction>, String> {
        let (compile, get_error, free_code) = (self.compile, self.get_error, self.free_code);
        let handle = self.open(dlt)?;
        let mut program = BpfProgram { len: 0, instructions: std::ptr::null_mut() };
        // SAFETY: the handle is open, `program` is ours to fill, the expression ends in zero; libpcap keeps none.
        let said = unsafe { compile(handle.at.as_ptr(), &mut program, expression.as_ptr(), 1, NO_NETMASK) };
        if said != 0 {
            // SAFETY: the handle is open; the message is its own, ends in zero, and is copied before it is closed.
            let message = unsafe { CStr::from_ptr(get_error(handle.at.as_ptr())) };
            return Err(message.to_string_lossy().into_owned());
        }
        let instructions = if program.instructions.is_null() {
            Vec::new()
        } else {
            // SAFETY: pcap_compile succeeded: `len` instructions are there, until pcap_freecode, and nobody
            // else knows of them. They are plain numbers.
            unsafe { std::slice::from_raw_parts(program.instructions, program.len as usize) }.to_vec()
        };
        // SAFETY: filled by a pcap_compile that succeeded, and freed once.
        unsafe { free_code(&mut program) };
        Ok(instructions)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use flowyard_port::traffic::{Mix, MixOptions};
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    use super::super::cbpf::tests::programs;
    use super::*;

    /// Whether filters can be compiled here; says so if not.
    pub(in super::super) fn has_libpcap(line: u32) -> bool {
        match Filter::compile("ip", On::Either) {
            Ok(_) => true,
            Err(why) => {
                flowyard_testkit::net::skipped(module_path!(), line, &why);
                false
            }
        }
    }

    #[test]
    fn the_kernel_picks_out_for_the_host_what_the_filter_matches() {
        use flowyard_kernel::{Action, Fallback, HostFilter, KernelSteer, Setup};
        use flowyard_steer::{Classifier, FlowHash, Policy, Table};
        flowyard_testkit::require_root!();
        if !has_libpcap(line!()) {
            return;
        }
        let table = Table::even(4).expect("four rings");
        let classifier = Classifier { policy: Policy::default(), hash: FlowHash::default(), table };
        let mut mix = Mix::new(&MixOptions { flows: 300, ..MixOptions::default() });
        let mut bytes = [0; Mix::FRAME_BYTES];
        let mut frames: Vec<Vec<u8>> = (0..1500)
            .map(|_| {
                let len = mix.next(&mut bytes).len.min(1514);
                bytes[..len].to_vec()
            })
            .collect();
        // Cut short anywhere from the shortest frame on that the kernel runs a program on.
        let cut: Vec<_> = (14..120).map(|len| frames[len % 40].iter().take(len).copied().collect()).collect();
        frames.extend(cut);
        let long = (0..200).map(|n| format!("tcp port {}", 1000 + n)).collect::<Vec<_>>().join(" or ");
        for text in [
            "tcp",
            "udp port 2152 or arp",
            "ip6 and not udp",
            "ip[6:2] & 0x1fff != 0",
            "vlan and ip",
            "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
            "greater 200",
            "len <= 90",
            "ip host 10.0.0.1 or ip6 net fc00::/7",
            "udp[4:2] * 3 / 2 % 7 = 3 or (ether[0] << 1) ^ 5 > 9",
            "ether[len - 1] = 0",
            "pppoes and ip",
            &long,
        ] {
            let program = {
                let instructions: Vec<Instruction> = compiled(text)
                    .unwrap_or_else(|why| panic!("{text}: {why}"))
                    .iter()
                    .map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k })
                    .collect();
                Program::new(&instructions).expect("it is checked")
            };
            let filter = HostFilter::new(text, compiled(text).expect("compiled")).unwrap_or_else(|e| panic!("{e}"));
            for several_buffers in [false, true] {
                let setup =
                    Setup { host: Some(&filter), fallback: Fallback::Drop, several_buffers, ..Setup::new(&classifier) };
                let kernel = KernelSteer::load(&setup).unwrap_or_else(|e| panic!("{text}: {e}"));
                let mut matched = 0;
                for frame in &frames {
                    let run = kernel.run(frame).unwrap_or_else(|e| panic!("{e}"));
                    let expected = program.run(frame, frame.len() as u32) != 0;
                    assert_eq!(run.action == Action::Pass, expected, "{text}, several {several_buffers}: {frame:02x?}");
                    matched += u64::from(expected);
                }
                let counts = kernel.counts(0).expect("they are read");
                assert_eq!((counts.to_host, counts.seen), (matched, frames.len() as u64), "{text}");
                assert_eq!(counts.passed + counts.no_room, counts.seen - matched, "{text}: the rest goes on");
            }
        }
    }

    /// libpcap's own evaluator: `bpf_filter(instructions, packet, length on the wire, length captured)`.
    type Evaluate = unsafe extern "C" fn(*const Instruction, *const u8, c_uint, c_uint) -> c_uint;

    fn theirs(evaluate: Evaluate, program: &[Instruction], bytes: &[u8], wire_len: u32) -> u32 {
        // SAFETY: the program passed our check, which asks all that libpcap's own does: it ends within itself and
        // within the bytes.
        unsafe { evaluate(program.as_ptr(), bytes.as_ptr(), wire_len, bytes.len() as u32) }
    }

    fn library() -> Option<Library> {
        // SAFETY: as in `Libpcap::load`.
        unsafe { Library::new("libpcap.so.1").or_else(|_| Library::new("libpcap.so.0.8")).ok() }
    }

    fn evaluator(library: &Library) -> Evaluate {
        // SAFETY: the type is that of bpf_filter in pcap/bpf.h.
        *unsafe { library.get::<Evaluate>(b"bpf_filter\0") }.expect("libpcap has bpf_filter")
    }

    fn traffic(packets: usize) -> Vec<Vec<u8>> {
        let mut mix = Mix::new(&MixOptions::default());
        let mut frame = [0; Mix::FRAME_BYTES];
        std::iter::repeat_with(|| {
            let packet = mix.next(&mut frame);
            frame[..packet.len].to_vec()
        })
        .take(packets)
        .collect()
    }

    const EXPRESSIONS: [&str; 22] = [
        "ip",
        "ip6",
        "tcp",
        "udp port 53",
        "tcp port 80 and not port 443",
        "port 53 or port 80 or portrange 1000-5000",
        "host 10.1.2.3",
        "net 10.0.0.0/8",
        "src net 10.0.0.0/8 and dst port 443",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "icmp[icmptype] == icmp-echo",
        "ip[6:2] & 0x1fff != 0",
        "len > 200",
        "less 100",
        "ip[2:2] - ((ip[0] & 0xf) << 2) > 40",
        "udp[4:2] % 7 == 3",
        "tcp[12] / 16 == 5",
        "ether[0] & 1 == 0",
        "vlan and ip",
        "mpls",
        "(tcp[8] ^ tcp[9]) & 1 = 1",
        "ip6 and net 2001:db8::/32",
    ];

    #[test]
    fn expressions_match_what_libpcap_says_they_match() {
        if !has_libpcap(line!()) {
            return;
        }
        let library = library().expect("it was there");
        let evaluate = evaluator(&library);
        let traffic = traffic(3000);
        let mut matched = 0;
        for text in EXPRESSIONS {
            let filter = Filter::compile(text, On::Either).unwrap_or_else(|why| panic!("{text}: {why}"));
            let expression = CString::new(text).expect("no zero byte");
            let ethernet = instructions(&expression, 1);
            let program = &filter.outer.iter().find(|(link, _)| *link == 1).expect("it means something on Ethernet").1;
            for frame in &traffic {
                for len in [frame.len(), frame.len() * 3 / 4, 40, 17] {
                    let (bytes, wire_len) = (&frame[..len.min(frame.len())], frame.len() as u32);
                    let expected = theirs(evaluate, &ethernet, bytes, wire_len);
                    assert_eq!(program.run(bytes, wire_len), expected, "{text} on {bytes:02x?}");
                    matched += u64::from(expected != 0);
                }
            }
        }
        assert!(matched > 20_000, "{matched}");
    }

    /// The instructions of a compiled expression, for others to run.
    fn instructions(expression: &CStr, dlt: c_int) -> Vec<Instruction> {
        let mut library = LIBPCAP.lock().unwrap_or_else(PoisonError::into_inner);
        library.as_mut().expect("loaded").instructions(expression, dlt).expect("it compiles")
    }

    #[test]
    fn random_programs_say_what_libpcap_and_the_kernel_say() {
        let library = library();
        if library.is_none() {
            flowyard_testkit::net::skipped(module_path!(), line!(), "no libpcap: the kernel alone is asked");
        }
        let evaluate = library.as_ref().map(evaluator);
        let kernel = Kernel::new();
        let mut runner = TestRunner::deterministic();
        let (mut matched, mut asked) = (0, 0);
        for round in 0..4000 {
            let program = programs().new_tree(&mut runner).expect("a program").current();
            let bytes = prop::collection::vec(any::<u8>(), 1..120).new_tree(&mut runner).expect("bytes").current();
            let mine = Program::new(&program).expect("put right");
            // Scratch memory holds anything at first in libpcap, and the kernel refuses programs that read it.
            if reads_unset_memory(&program) {
                continue;
            }
            let len = bytes.len() as u32;
            let said = mine.run(&bytes, len);
            if let Some(evaluate) = evaluate {
                assert_eq!(said, theirs(evaluate, &program, &bytes, len), "round {round}: {program:?} on {bytes:02x?}");
            }
            // Beyond 31 the kernel shifts by the rest, and loads below zero are its own extensions.
            let shifts = program.iter().any(|i| matches!(i.code, 0x6c | 0x7c));
            let below = program.iter().any(|i| i.k > i32::MAX as u32 && matches!(i.code, 0x20 | 0x28 | 0x30 | 0xb1));
            let indexed = program.iter().any(|i| matches!(i.code, 0x40 | 0x48 | 0x50));
            if let Some(kept) = kernel.ask(&program, &bytes).filter(|_| !shifts && !below && !indexed) {
                assert_eq!(said.min(len), kept, "round {round}: {program:?} on {bytes:02x?}");
                asked += 1;
            }
            matched += u32::from(said != 0);
        }
        assert!(matched > 300 && asked > 300, "{matched} matched, the kernel was asked {asked} times");
    }

    fn reads_unset_memory(program: &[Instruction]) -> bool {
        program.iter().any(|i| matches!(i.code, 0x60 | 0x61))
    }

    /// The kernel's evaluator: a socket filter keeps as many bytes of a message as the program says.
    struct Kernel {
        _library: libloading::os::unix::Library,
        set_option: SetOption,
    }

    type SetOption = unsafe extern "C" fn(c_int, c_int, c_int, *const SockFprog, c_uint) -> c_int;

    #[repr(C)]
    struct SockFprog {
        len: u16,
        filter: *const Instruction,
    }

    impl Kernel {
        fn new() -> Kernel {
            let library = libloading::os::unix::Library::this();
            // SAFETY: setsockopt(2), with the type of its argument for SO_ATTACH_FILTER.
            let set_option = *unsafe { library.get::<SetOption>(b"setsockopt\0") }.expect("the C library has it");
            Kernel { _library: library, set_option }
        }

        /// How many bytes are kept; `None` if the kernel refuses the program.
        fn ask(&self, program: &[Instruction], bytes: &[u8]) -> Option<u32> {
            const SOL_SOCKET: c_int = 1;
            const SO_ATTACH_FILTER: c_int = 26;
            let (from, to) = UnixDatagram::pair().expect("sockets");
            to.set_nonblocking(true).expect("a socket");
            let attached = SockFprog { len: program.len() as u16, filter: program.as_ptr() };
            // SAFETY: the structure and the program are there for the call, and of the length that is given.
            let said = unsafe {
                (self.set_option)(
                    to.as_raw_fd(),
                    SOL_SOCKET,
                    SO_ATTACH_FILTER,
                    &attached,
                    size_of::<SockFprog>() as u32,
                )
            };
            if said != 0 {
                return None;
            }
            // What is filtered away is refused to the sender, or dropped.
            let _ = from.send(bytes);
            let mut room = [0; 256];
            Some(to.recv(&mut room).unwrap_or(0) as u32)
        }
    }

    fn refusal(text: &str, on: On) -> String {
        Filter::compile(text, on).expect_err(text)
    }

    #[test]
    fn what_libpcap_has_against_an_expression_is_handed_on() {
        if !has_libpcap(line!()) {
            return;
        }
        assert!(refusal("tcp prot 80", On::Either).contains("syntax error"), "{}", refusal("tcp prot 80", On::Either));
        assert!(refusal("ip and ip6", On::Inner).contains("rejects all"));
        assert!(refusal("a\0b", On::Either).contains("zero byte"));
        // What means something on some links only.
        let hardware = Filter::compile("ether host 02:00:00:00:00:01", On::Either).expect("on Ethernet");
        assert!(hardware.raw.is_none() && hardware.outer.iter().any(|(link, _)| *link == 1));
        assert!(!refusal("ether host 02:00:00:00:00:01", On::Inner).is_empty());
        assert!(Filter::compile("tcp", On::Inner).expect("on IP").outer.is_empty());
        let links: Vec<u16> =
            Filter::compile("tcp", On::Outer).expect("on any link").outer.iter().map(|o| o.0).collect();
        for link in [1, 101, 12, 228, 113, 276, 0, 108, 9, 50, 105, 127, 104, 107] {
            assert!(links.contains(&link), "no program for link type {link}: {links:?}");
        }
    }
}
