//! System calls on interfaces and packet sockets that `rustix` does not wrap.
//!
//! Invariants: every pointer passed to the kernel is that of a live local or borrowed value, with
//! its own size; the kernel keeps none of them beyond the call.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Plain structures that the kernel reads and writes: any bytes are a valid value.
///
/// # Safety
/// The type has no padding that matters, no pointer and no invalid bit pattern.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($t:ty),+ $(,)?) => { $(
        // SAFETY: a `repr(C)` structure of integers, or an integer.
        unsafe impl Plain for $t {}
    )+ };
}
plain!(i32, u32, u64, libc::packet_mreq, libc::tpacket_req3, libc::tpacket_stats_v3);

/// `setsockopt` of a plain value.
pub(crate) fn set_option<T: Plain>(fd: impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and length are those of `value`.
    let done = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, name, (&raw const *value).cast(), size_of::<T>() as u32)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `getsockopt` of a plain value.
pub(crate) fn option<T: Plain>(fd: impl AsFd, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as u32;
    // SAFETY: the pointer and length are those of `value`.
    let done =
        unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed or written by the kernel; `Plain` types have no invalid value.
    Ok(unsafe { value.assume_init() })
}

/// A packet socket that receives nothing until it is bound.
pub(crate) fn packet_socket(kind: SocketType) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::PACKET, kind, SocketFlags::CLOEXEC, None)?)
}

/// Binds a packet socket to an interface. `protocol` is an EtherType in host order, 0 for sending only.
pub(crate) fn bind_packet(fd: impl AsFd, index: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as i32;
    // SAFETY: the pointer and length are those of `address`.
    let done = unsafe {
        libc::bind(
            fd.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the interface promiscuous for as long as the descriptor that comes back is open, in this
/// process or, if it is killed, until the kernel closes it.
pub(crate) fn hold_promiscuous(index: u32) -> io::Result<OwnedFd> {
    let fd = packet_socket(SocketType::RAW)?;
    add_promiscuous(&fd, index)?;
    Ok(fd)
}

/// Makes the interface promiscuous for as long as `fd` is open.
pub(crate) fn add_promiscuous(fd: impl AsFd, index: u32) -> io::Result<()> {
    let membership = libc::packet_mreq {
        mr_ifindex: index as i32,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// `struct ethtool_channels` (include/uapi/linux/ethtool.h).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct Channels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Receive queues that interface `name` uses now, as its driver says.
///
/// # Errors
/// EOPNOTSUPP where the driver does not say.
pub(crate) fn receive_queues(name: &str) -> io::Result<u32> {
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `request` names a NUL-terminated interface and points to `channels`, which is the
    // structure that ETHTOOL_GCHANNELS writes.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if done == 0 { Ok(channels.rx + channels.combined) } else { Err(io::Error::last_os_error()) }
}

/// Waits until every processor has left the kernel code it was in: after it, no packet that an XDP
/// program redirected before is still on its way. Where the kernel cannot, waits 20 ms instead.
pub(crate) fn wait_for_processors() {
    // SAFETY: membarrier takes no pointer.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Lets a packet socket receive nothing from now on: a filter that refuses all.
pub(crate) fn refuse_packets(fd: impl AsFd) -> io::Result<()> {
    let mut refuse = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut refuse };
    // SAFETY: pointer and length are those of `program`, which points to one live instruction; the
    // kernel copies both.
    let done = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets a packet socket receive again what [`refuse_packets`] refused.
pub(crate) fn accept_packets(fd: impl AsFd) -> io::Result<()> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0i32)
}

/// Whether a virtio header goes with each frame of a TAP device (IFF_VNET_HDR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Virtio {
    /// No header.
    No,
    /// A header, and frames with finished checksums, none merged.
    Finished,
    /// A header, and frames as the host's stack has them.
    AsItIs,
}

/// TUNSETIFF (linux/if_tun.h): makes `file`, an open /dev/net/tun, the TAP device of this name without
/// packet information; made if there is none, and set up.
pub(crate) fn become_tap(file: &impl AsRawFd, name: &str, virtio: Virtio) -> io::Result<()> {
    // SAFETY: ifreq is plain data for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a name of an interface has at most 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let header = if virtio == Virtio::No { 0 } else { libc::IFF_VNET_HDR };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which `request` is and which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if virtio != Virtio::No {
        offload(file, virtio == Virtio::AsItIs)?;
    }
    // A device that is down takes no packets.
    request.ifr_ifru.ifru_flags = 0;
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: SIOCGIFFLAGS writes the flags of the interface that the ifreq names.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFFLAGS as libc::Ioctl, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before wrote the flags, as a short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads name and flags of an ifreq.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets a TAP device hand over frames with unfinished checksums, and merged ones, or not (TUNSETOFFLOAD, linux/if_tun.h).
fn offload(file: &impl AsRawFd, on: bool) -> io::Result<()> {
    // TUN_F_CSUM, _TSO4, _TSO6, _TSO_ECN; _USO4, _USO6 (Linux 6.2).
    const ALL: [u32; 2] = [0x6f, 0x0f];
    let mut last = Ok(());
    for bits in if on { &ALL[..] } else { &[0] } {
        // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
        let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as libc::Ioctl, u64::from(*bits)) };
        if done == 0 {
            return Ok(());
        }
        last = Err(io::Error::last_os_error());
    }
    last
}

/// What the calling thread used so far: processor time in ns, and how often it gave its processor up of its
/// own accord, and against its will. A system call, some 300 ns.
pub fn thread_usage() -> (u64, u64, u64) {
    // SAFETY: rusage is plain data for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: getrusage writes an rusage, which `usage` is; it fails for bad arguments only.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    (ns(usage.ru_utime) + ns(usage.ru_stime), usage.ru_nvcsw as u64, usage.ru_nivcsw as u64)
}
