//! The wire: a veth pair in a namespace of its own, its NAPI threads, and who sends.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};

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

    /// Puts the kernel's part of receiving on fy0 into a thread, and that on `core`. Answers its number.
    pub fn pin_napi(&self, core: usize) -> Option<i32> {
        // /sys/class/net shows the namespace that it was mounted in, so a mount of our own is needed.
        let script = "mount -t sysfs none /sys && echo 1 > /sys/class/net/fy0/threaded";
        let done = self.namespace.run(|| Command::new("unshare").args(["-m", "sh", "-c", script]).status());
        assert!(done.is_ok_and(|status| status.success()), "threaded NAPI");
        std::thread::sleep(Duration::from_millis(50));
        for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let number = process.file_name().to_string_lossy().parse().ok();
            if let Some(number) = number.filter(|_| name.starts_with("napi/fy0")) {
                let mut set = CpuSet::new();
                set.set(core);
                sched_setaffinity(Pid::from_raw(number), &set).expect("two cores");
                return Some(number);
            }
        }
        panic!("fy0 has no NAPI thread");
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
