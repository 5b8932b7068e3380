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
use flowyard::mem::{Buffer, Geometry, Region, Tag};
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
    receive_by(task, Bare::turn);
}

/// The same, and reads the first bytes of each packet.
pub fn receive_and_read(task: &Task) {
    let mut sum = 0;
    receive_by(task, |bare| bare.turn_with(|region, buffer, at| sum ^= first_bytes(region, buffer, at)));
    std::hint::black_box(sum);
}

/// The same, and writes a tag that says nothing.
pub fn receive_and_tag(task: &Task) {
    let (mut sum, tag) = (0, Tag::default());
    receive_by(task, |bare| {
        bare.turn_with(|region, buffer, at| {
            sum ^= first_bytes(region, buffer, at);
            region.set_tag(buffer, &tag);
        })
    });
    std::hint::black_box(sum);
}

fn first_bytes(region: &Region, buffer: &Buffer, at: usize) -> u64 {
    let bytes = region.peek(buffer, at, 8, &mut []);
    bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

fn receive_by(task: &Task, turn: impl FnMut(&mut Bare) -> u64) {
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
    task.run_loop(&mut bare, turn);
    program.detach(link).expect("it is attached");
    bare.close(&mut stock);
}

/// Walks through the blocks of a packet socket until told to stop.
pub fn receive_blocks(task: &Task) {
    let mut blocks = BareBlocks::open(bpf::index_of(&task.interface)).expect("as root");
    task.run_loop(&mut blocks, BareBlocks::turn);
}
