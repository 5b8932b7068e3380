//! A new network namespace, and raw frames on an interface: what std and rustix leave to `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType};

/// Moves the calling thread into a network namespace of its own and answers it. It lasts as long as
/// the file is open, or a thread is in it.
pub(crate) fn new_namespace() -> io::Result<File> {
    // SAFETY: NEWNET alone changes which network this thread sees; no memory or descriptor table
    // stops being shared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    File::open("/proc/thread-self/ns/net")
}

/// Sends frames on an interface of the calling thread's namespace, as they are.
#[derive(Debug)]
pub struct Injector(OwnedFd);

/// Frames a system call.
const BATCH: usize = 64;

impl Injector {
    /// Opens interface `name`.
    ///
    /// # Errors
    /// The system call that failed.
    pub fn open(name: &str) -> io::Result<Injector> {
        let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&fd, name, 0)?; // Protocol 0: it receives nothing.
        Ok(Injector(fd))
    }

    /// Sends frames in order, waiting while the interface's queue is full.
    ///
    /// # Errors
    /// The interface refused one.
    pub fn send<F: AsRef<[u8]>>(&self, frames: &[F]) -> io::Result<()> {
        for frames in frames.chunks(BATCH) {
            let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|f| [IoSlice::new(f.as_ref())]).collect();
            let mut none: Vec<[MaybeUninit<u8>; 0]> = vec![[]; frames.len()];
            let mut controls: Vec<_> = none.iter_mut().map(|c| SendAncillaryBuffer::new(c)).collect();
            let mut messages: Vec<_> = slices.iter().zip(&mut controls).map(|(s, c)| MMsgHdr::new(s, c)).collect();
            let mut sent = 0;
            while sent < messages.len() {
                match rustix::net::sendmmsg(&self.0, &mut messages[sent..], SendFlags::empty()) {
                    Ok(more) => sent += more,
                    Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }
}

/// The user's end of a TUN device of the calling thread's namespace; it has a carrier while this is
/// open.
///
/// # Errors
/// There is no such device, or no right to it.
pub fn open_tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, with a NUL-terminated name.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as libc::Ioctl, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

/// A packet socket that receives every frame of interface `name` of the calling thread's namespace,
/// waiting at most 10 ms for one.
///
/// # Errors
/// The system call that failed.
pub fn listen(name: &str) -> io::Result<OwnedFd> {
    let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let timeout = Some(std::time::Duration::from_millis(10));
    rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, timeout)?;
    bind(&fd, name, libc::ETH_P_ALL as u16)?;
    Ok(fd)
}

/// Binds a packet socket to interface `name`, for receiving frames of `protocol`.
fn bind(fd: &OwnedFd, name: &str, protocol: u16) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(fd, name)?;
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length are those of `address`.
    if unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sends `bytes` to `to` as UDP datagrams of `segment` bytes, merged into one packet until the
/// interface, or what is behind it, takes them apart (`UDP_SEGMENT`).
///
/// # Errors
/// The system call that failed.
pub fn send_merged(to: std::net::SocketAddr, bytes: &[u8], segment: u16) -> io::Result<()> {
    const UDP_SEGMENT: i32 = 103; // include/uapi/linux/udp.h
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let value = i32::from(segment);
    // SAFETY: pointer and length are those of `value`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            UDP_SEGMENT,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.send_to(bytes, to).map(|_| ())
}
