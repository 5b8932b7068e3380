//! Packets as a card brings them: frames in pages of their own, without the kernel's bookkeeping of a socket's packet.
//! BPF_PROG_TEST_RUN makes them, in batches of 64, and a program of a few lines redirects each to an interface, as
//! `xdp-trafficgen` does. What comes over veth that way need not be copied before an XDP program sees it; a packet that a
//! socket sent must.
//!
//! To begin such a run takes the kernel tens of milliseconds, and it can only be ended from outside: so a process of its own
//! does one endless run, and is told by its standard input where frames go.

use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use aya::EbpfLoader;
use aya::maps::Array;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use flowyard_testkit::net::{Namespace, numbered_frame};

use super::{bpf, wire};
use crate::machine;

/// Sends each frame by the interface that the map names, with a source port drawn anew out of 256; drops it if none is
/// named.
const SOURCE: &str = "#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} target SEC(\".maps\");
SEC(\"xdp\") int frames(struct xdp_md *ctx)
{
	char *packet = (void *)(long)ctx->data;
	__u32 zero = 0, *interface = bpf_map_lookup_elem(&target, &zero);

	if (packet + 36 > (char *)(long)ctx->data_end || !interface || !*interface)
		return XDP_DROP;
	*(__u16 *)(packet + 34) = bpf_htons(10000 + (bpf_get_prandom_u32() & 255));
	return bpf_redirect(*interface, 0);
}
char _license[] SEC(\"license\") = \"Dual MIT/GPL\";
";

/// Frames that the kernel makes at a time: as many as it takes in.
const BATCH: u32 = 64;

fn object() -> Option<&'static [u8]> {
    static OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    OBJECT.get_or_init(|| bpf::build("frames", SOURCE)).as_deref()
}

/// Whether there can be any.
pub fn are_possible() -> bool {
    object().is_some()
}

/// The process that sends.
pub struct Frames(Child);

impl Frames {
    /// Starts it on a core, in this namespace.
    pub fn start(namespace: &Namespace, core: usize) -> Frames {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        command.args(["frames", &core.to_string()]).stdin(Stdio::piped());
        Frames(namespace.run(|| command.spawn()).expect("this program runs"))
    }

    /// Its threads.
    pub fn threads(&self) -> Vec<i32> {
        wire::threads_of(&self.0.id().to_string()).collect()
    }

    /// Has frames sent by a pair, as fast as it can be, or none.
    pub fn to(&self, pair: Option<usize>) {
        let interface = pair.map_or("none".into(), wire::sending);
        let mut told = self.0.stdin.as_ref().expect("it is piped");
        writeln!(told, "{interface}").expect("it is there");
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// That process: to the end of its standard input.
pub fn child(core: usize) {
    machine::pin(core);
    let mut ebpf = EbpfLoader::new().load(object().expect("asked before")).expect("it loads");
    let mut target: Array<_, u32> = Array::try_from(ebpf.take_map("target").expect("a map")).expect("an array");
    let program: &mut Xdp = ebpf.program_mut("frames").expect("a program").try_into().expect("of XDP");
    program.load().expect("the verifier agrees");
    std::thread::spawn(move || {
        let frame = numbered_frame(0, 0, 64);
        let program: &Xdp = ebpf.program("frames").expect("a program").try_into().expect("of XDP");
        loop {
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options = TestRunOptions { data_in: Some(&frame), repeat: u32::MAX, attrs, ..TestRunOptions::new() };
            program.test_run(options).expect("Linux 5.18");
        }
    });
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let interface = if line == "none" { 0 } else { bpf::index_of(&line) };
        target.set(0, interface, 0).expect("a number");
    }
    std::process::exit(0); // and with it the run
}
