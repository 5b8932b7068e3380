//! The bare loops. AF_XDP: a program that does nothing but hand each packet to its queue's socket, and a thread that
//! takes packets and gives their buffers back. TPACKET_V3: a thread that walks through blocks and reads the first bytes of
//! each packet.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use super::bpf;
use super::ways::Task;
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use flowyard::mem::{Geometry, Region};
use flowyard_port::{Bare, BareBlocks};

/// The whole program.
const SOURCE: &str = "#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(\".maps\");
SEC(\"xdp\") int bare(struct xdp_md *ctx)
{
	return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}
char _license[] SEC(\"license\") = \"Dual MIT/GPL\";
";

fn object() -> Option<&'static [u8]> {
    static OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    OBJECT.get_or_init(|| bpf::build("bare", SOURCE)).as_deref()
}

/// Whether there can be one.
pub fn is_possible() -> bool {
    object().is_some()
}

/// Takes packets from an AF_XDP socket until told to stop.
pub fn receive(task: &Task) {
    let mut ebpf: Ebpf = EbpfLoader::new().load(object().expect("asked before")).expect("it loads");
    let index = bpf::index_of(&task.interface);
    let (region, mut stock) =
        Region::create("bare", Geometry::new(2048, 64, 4096).expect("a geometry")).expect("memory");
    let mut bare = Bare::open(index, 0, &region, &mut stock).expect("as root");
    let mut sockets = XskMap::try_from(ebpf.take_map("sockets").expect("a map")).expect("of sockets");
    sockets.set(0, bare.as_fd().as_raw_fd(), 0).expect("bound");
    let program: &mut Xdp = ebpf.program_mut("bare").expect("a program").try_into().expect("of XDP");
    program.load().expect("the verifier agrees");
    let link = program.attach_to_if_index(index, XdpMode::Driver).expect("veth has XDP");
    task.run_loop(&mut bare, Bare::turn);
    program.detach(link).expect("it is attached");
    bare.close(&mut stock);
}

/// Walks through the blocks of a packet socket until told to stop.
pub fn receive_blocks(task: &Task) {
    let mut blocks = BareBlocks::open(bpf::index_of(&task.interface)).expect("as root");
    task.run_loop(&mut blocks, BareBlocks::turn);
}
