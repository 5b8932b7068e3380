//! The bare loop: an XDP program that does nothing but hand each packet to its queue's socket, and a thread that takes
//! packets and gives their buffers back.

use std::process::Command;
use std::sync::atomic::Ordering;

use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use flowyard::mem::{Geometry, Region};
use flowyard_port::Bare;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::OnceLock;

use super::Task;

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

/// Built, once. `None` without a compiler.
fn object() -> Option<&'static [u8]> {
    static OBJECT: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let build = || {
        let folder = std::env::temp_dir().join(format!("flowyard-bare-{}", std::process::id()));
        std::fs::create_dir_all(&folder).ok()?;
        let (source, object) = (folder.join("bare.bpf.c"), folder.join("bare.o"));
        std::fs::write(&source, SOURCE).ok()?;
        let headers = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let mut clang = Command::new("clang");
        clang.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", &headers, "-c"]).arg(&source).arg("-o").arg(&object);
        let built = clang.status().is_ok_and(|status| status.success());
        let bytes = if built { std::fs::read(&object).ok() } else { None };
        let _ = std::fs::remove_dir_all(folder);
        bytes
    };
    OBJECT.get_or_init(build).as_deref()
}

/// Whether there can be one.
pub fn is_possible() -> bool {
    object().is_some()
}

/// Takes packets until told to stop.
pub fn receive(task: &Task<'_>) {
    let mut ebpf: Ebpf = EbpfLoader::new().load(object().expect("asked before")).expect("it loads");
    let index = rustix::net::netdevice::name_to_index(
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None).expect("a socket"),
        "fy0",
    )
    .expect("an interface");
    let (region, mut stock) =
        Region::create("bare", Geometry::new(2048, 64, 4096).expect("a geometry")).expect("memory");
    let mut bare = Bare::open(index, 0, &region, &mut stock).expect("as root");
    let mut sockets = XskMap::try_from(ebpf.take_map("sockets").expect("a map")).expect("of sockets");
    sockets.set(0, bare.as_fd().as_raw_fd(), 0).expect("bound");
    let program: &mut Xdp = ebpf.program_mut("bare").expect("a program").try_into().expect("of XDP");
    program.load().expect("the verifier agrees");
    let link = program.attach_to_if_index(index, XdpMode::Driver).expect("veth has XDP");
    while !task.stop.load(Ordering::Relaxed) {
        let mut seen = 0;
        loop {
            match bare.turn() {
                0 => break,
                more => seen += more,
            }
        }
        task.packets[0].fetch_add(seen, Ordering::Relaxed);
        let mut polled = [PollFd::new(&bare, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let _ = rustix::event::poll(&mut polled, Some(&wait));
    }
    program.detach(link).expect("it is attached");
    bare.close(&mut stock);
}
