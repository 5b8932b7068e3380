//! Network namespaces and veth pairs that exist for one test.
//!
//! A [`Namespace`] has no name and no file: it lives by its descriptor, so it is gone with the test,
//! however that ends. Nothing outside it is touched.
//!
//! ```no_run
//! use flowyard_testkit::net::{Namespace, Veth};
//! let here = Namespace::new().expect("needs root");
//! here.veth(&Veth { queues: 4, ..Veth::default() }).expect("needs the veth module");
//! here.run(|| { /* sees fy0 and fy1, two ends of one cable */ });
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use rustix::thread::{CpuSet, Pid, sched_setaffinity};

pub use crate::net_raw::{Injector, listen, open_tun, send_merged};

/// Ends the calling test, reported as skipped, unless the process is root and may do what root may.
#[macro_export]
macro_rules! require_root {
    () => {
        if !$crate::net::is_root() {
            $crate::net::skipped(module_path!(), line!(), "needs root (network namespaces, XDP)");
            return;
        }
    };
}

/// Whether this process has the capabilities that the tests need.
pub fn is_root() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 13 | 1 << 21; // CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap_or("0").trim();
    u64::from_str_radix(effective, 16).is_ok_and(|bits| bits & NEEDED == NEEDED)
}

/// Says that a test did not run, where the test runner cannot swallow it.
pub fn skipped(module: &str, line: u32, why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(io::stderr(), "SKIPPED {module}::{test} (line {line}): {why}");
}

/// A network namespace of our own, with loopback up and IPv6 off, so that it is silent.
#[derive(Debug)]
pub struct Namespace(File);

/// A veth pair to make.
#[derive(Debug, Clone, Copy)]
pub struct Veth<'a> {
    /// Name of the end where packets are received.
    pub name: &'a str,
    /// Name of the end where they are sent.
    pub peer: &'a str,
    /// Queues of each end and direction.
    pub queues: u32,
    /// MTU of both ends.
    pub mtu: u32,
    /// Whether the ends keep their offloads (checksums, segmentation, VLAN tags).
    pub offloads: bool,
}

impl Default for Veth<'_> {
    fn default() -> Self {
        Veth { name: "fy0", peer: "fy1", queues: 1, mtu: 1500, offloads: false }
    }
}

impl Namespace {
    /// Puts the kernel's part of receiving on `interface` into a thread (NAPI), and that on `core`. Answers its number.
    ///
    /// # Panics
    /// The driver has no NAPI, or there is no such core.
    pub fn pin_napi(&self, interface: &str, core: usize) -> i32 {
        // /sys/class/net shows the namespace that it was mounted in, so a mount of our own is needed.
        let script = format!("mount -t sysfs none /sys && echo 1 > /sys/class/net/{interface}/threaded");
        let done = self.run(|| Command::new("unshare").args(["-m", "sh", "-c", &script]).status());
        assert!(done.is_ok_and(|status| status.success()), "threaded NAPI");
        std::thread::sleep(Duration::from_millis(50));
        for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let number = process.file_name().to_string_lossy().parse().ok();
            if let Some(number) = number.filter(|_| name.starts_with(&format!("napi/{interface}"))) {
                let mut set = CpuSet::new();
                set.set(core);
                sched_setaffinity(Pid::from_raw(number), &set).expect("such a core");
                return number;
            }
        }
        panic!("{interface} has no NAPI thread");
    }

    /// Makes one.
    ///
    /// # Errors
    /// Most likely EPERM.
    pub fn new() -> io::Result<Namespace> {
        let made = std::thread::spawn(crate::net_raw::new_namespace).join();
        let namespace = Namespace(made.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?);
        namespace.run(|| {
            // /proc/sys/net shows the namespace of the thread that looks.
            for scope in ["all", "default"] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
        });
        namespace.command("ip link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside, and passes on its panic.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(self.0.as_fd(), kind).expect("setns into our own namespace");
            work()
        };
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, inside).expect("a thread");
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside; its words are separated by spaces. Answers its standard output.
    ///
    /// # Errors
    /// It failed: with what it said.
    pub fn command(&self, line: &str) -> io::Result<String> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let output = self.run(|| command.output())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(io::Error::other(format!("`{line}` failed: {said}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a veth pair with both ends inside, up.
    ///
    /// # Errors
    /// What `ip` or `ethtool` said.
    pub fn veth(&self, veth: &Veth<'_>) -> io::Result<()> {
        self.veth_to(self, veth)
    }

    /// Makes a veth pair with its peer end in another namespace, both up.
    ///
    /// # Errors
    /// What `ip` or `ethtool` said.
    pub fn veth_to(&self, other: &Namespace, veth: &Veth<'_>) -> io::Result<()> {
        let Veth { name, peer, queues, mtu, offloads } = *veth;
        let queues = format!("numtxqueues {queues} numrxqueues {queues}");
        self.command(&format!("ip link add {name} mtu {mtu} {queues} type veth peer name {peer} mtu {mtu} {queues}"))?;
        if other.0.as_raw_fd() != self.0.as_raw_fd() {
            let path = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
            self.command(&format!("ip link set {peer} netns {path}"))?;
        }
        for (namespace, name) in [(self, name), (other, peer)] {
            if !offloads {
                namespace.command(&format!("ethtool -K {name} tx off tso off gso off gro off"))?;
            }
            namespace.command(&format!("ip link set {name} up"))?;
        }
        Ok(())
    }
}

/// An Ethernet frame of `len` bytes (at least 60) with IPv4 and UDP, told apart by `number`, of the
/// conversation `flow`. Checksums are right.
pub fn numbered_frame(flow: u16, number: u64, len: usize) -> Vec<u8> {
    let len = len.max(60);
    let mut frame = Vec::with_capacity(len);
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let total = (len - 14) as u16;
    let mut ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2];
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = !fold(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    frame.extend((10_000 + flow).to_be_bytes());
    frame.extend(4000u16.to_be_bytes());
    frame.extend((total - 20).to_be_bytes());
    frame.extend([0, 0]); // no checksum
    frame.extend(number.to_be_bytes());
    frame.extend((frame.len()..len).map(|at| (at as u64).wrapping_mul(31).wrapping_add(number) as u8));
    frame
}

/// Number of a frame that [`numbered_frame`] made.
pub fn number_of(frame: &[u8]) -> Option<u64> {
    let is_ours = frame.get(12..14)? == [8, 0] && frame.get(36..38)? == 4000u16.to_be_bytes();
    let bytes = frame.get(42..50)?;
    is_ours.then(|| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn fold(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_frames_are_told_apart() {
        let frame = numbered_frame(3, 77, 1514);
        assert_eq!((frame.len(), number_of(&frame)), (1514, Some(77)));
        assert_eq!(fold(&frame[14..34]), 0xffff, "the header's checksum is right");
        assert_eq!(number_of(&frame[..40]), None);
    }

    #[test]
    fn a_namespace_has_what_was_asked_for_and_nothing_else() {
        require_root!();
        let namespace = Namespace::new().expect("as root");
        namespace.veth(&Veth { queues: 3, mtu: 9000, ..Veth::default() }).expect("as root");
        let links = namespace.command("ip -o link show").expect("ip runs");
        assert_eq!(links.lines().count(), 3, "{links}");
        assert!(links.contains("fy0@fy1") && links.contains("mtu 9000"), "{links}");
        assert!(!Command::new("ip").args(["link", "show", "fy0"]).output().expect("ip runs").status.success());
        let panicked = std::panic::catch_unwind(|| namespace.run(|| panic!("passed on")));
        assert!(panicked.is_err());
    }
}
