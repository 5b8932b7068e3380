//! Packets as a card brings them: frames in pages of their own, without the kernel's bookkeeping of a socket's packet.
//! BPF_PROG_TEST_RUN makes them, in batches of 64, and a program of a few lines redirects each to an interface, as
//! `xdp-trafficgen` does. What comes over veth that way need not be copied before an XDP program sees it; a packet that a
//! socket sent must.

use std::sync::OnceLock;

use aya::EbpfLoader;
use aya::programs::{TestRun, TestRunAttrs, TestRunOptions, Xdp};
use flowyard_testkit::net::numbered_frame;

use super::bpf;

/// Sends each frame by an interface, with a source port drawn anew out of 256.
const SOURCE: &str = "#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
volatile const __u32 interface;
SEC(\"xdp\") int frames(struct xdp_md *ctx)
{
	char *packet = (void *)(long)ctx->data;

	if (packet + 36 > (char *)(long)ctx->data_end)
		return XDP_ABORTED;
	*(__u16 *)(packet + 34) = bpf_htons(10000 + (bpf_get_prandom_u32() & 255));
	return bpf_redirect(interface, 0);
}
char _license[] SEC(\"license\") = \"Dual MIT/GPL\";
";

/// Frames that the kernel hands over at a time: as many as it takes in.
const BATCH: u32 = 64;
/// Frames a call.
const CALL: u32 = 1 << 13;

fn object() -> Option<&'static [u8]> {
    static OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    OBJECT.get_or_init(|| bpf::build("frames", SOURCE)).as_deref()
}

/// Whether there can be any.
pub fn are_possible() -> bool {
    object().is_some()
}

/// Sends by one interface.
pub struct Frames {
    ebpf: aya::Ebpf,
    frame: Vec<u8>,
}

impl Frames {
    /// By this interface of the calling thread's namespace.
    pub fn open(interface: &str) -> Frames {
        let index = bpf::index_of(interface);
        let mut loader = EbpfLoader::new();
        let mut ebpf =
            loader.override_global("interface", &index, true).load(object().expect("asked before")).expect("it loads");
        let program: &mut Xdp = ebpf.program_mut("frames").expect("a program").try_into().expect("of XDP");
        program.load().expect("the verifier agrees");
        Frames { ebpf, frame: numbered_frame(0, 0, 64) }
    }

    /// Sends some thousands of 64-byte frames. What finds no room is lost.
    pub fn send(&self) {
        let program: &Xdp = self.ebpf.program("frames").expect("a program").try_into().expect("of XDP");
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: CALL,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program.test_run(options).expect("Linux 5.18");
    }
}
