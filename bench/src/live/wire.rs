//! The wire: a veth pair in a namespace of its own, its NAPI threads, and who sends.

use std::sync::atomic::{AtomicBool, Ordering};

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};

/// A veth pair: `fy1` sends, `fy0` receives.
pub struct Wire {
    pub namespace: Namespace,
}

impl Wire {
    pub fn new() -> Wire {
        let namespace = Namespace::new().expect("as root");
        namespace.veth(&Veth::default()).expect("veth");
        // Without XDP, veth uses NAPI only for the sake of GRO.
        namespace.command("ethtool -K fy0 gro on").expect("veth has GRO");
        Wire { namespace }
    }

    /// Packets that came to the interface so far, whatever became of them.
    pub fn received(&self) -> u64 {
        let text = self.namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.trim().strip_prefix("fy1:"));
        // What the other end has sent: column 10.
        line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok()).unwrap_or(0)
    }
}

/// Threads of this process.
pub fn threads() -> impl Iterator<Item = i32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    tasks.filter_map(|task| task.file_name().to_string_lossy().parse().ok())
}

/// Nanoseconds that a thread has run; none once it has ended.
pub fn used_ns(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// How often a thread was taken off its core, by its will or not; none once it has ended.
pub fn switches(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let of =
        |kind: &str| text.lines().find_map(|line| line.strip_prefix(kind)?.trim().parse::<u64>().ok()).unwrap_or(0);
    of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:")
}

/// Sends 64-byte frames of `flows` conversations until told to stop.
pub fn send(stop: &AtomicBool, flows: u16) {
    let injector = Injector::open("fy1").expect("the other end");
    let frames: Vec<_> = (0..flows).map(|n| numbered_frame(n, u64::from(n), 64)).collect();
    while !stop.load(Ordering::Relaxed) {
        injector.send(&frames).expect("the other end is up");
    }
}
