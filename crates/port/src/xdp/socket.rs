//! One AF_XDP socket on one queue: bound, with its fill and receive ring mapped.
//!
//! The first socket of a port registers the region's buffer area as its UMEM; the others of the
//! same port share that registration (`XDP_SHARED_UMEM`), each with a fill ring of its own. The
//! kernel's headroom is the annotation: it puts 256 bytes of its own behind it, which are our tag
//! and headroom, so packets start at [`Geometry::packet_offset`](flowyard_mem::Geometry).
//!
//! The socket must not outlive the region: whoever owns it holds a clone of the region as well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use flowyard_mem::Region;
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpOptionsFlags, XdpStatistics, XdpUmemReg,
    XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use super::ring::{FillRing, ReceiveRing};

/// How long a queue that another socket has just left may answer EBUSY (measured: 16 ms).
pub(super) const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(4);

/// What is asked of the kernel for a port's first socket; the others follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Binding {
    /// Copying, zero-copy, or (neither) as the driver can.
    pub copy: Option<bool>,
    /// Packets of several buffers.
    pub several_buffers: bool,
    /// How long to wait for a queue that is busy.
    pub patience: Duration,
}

impl Binding {
    fn flags(self) -> SocketAddrXdpFlags {
        let mut flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        match self.copy {
            Some(true) => flags |= SocketAddrXdpFlags::XDP_COPY,
            Some(false) => flags |= SocketAddrXdpFlags::XDP_ZEROCOPY,
            None => {}
        }
        if self.several_buffers {
            flags |= SocketAddrXdpFlags::XDP_USE_SG;
        }
        flags
    }
}

/// A step of opening a socket that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What was attempted, with its value.
    pub action: String,
    /// What the kernel answered.
    pub source: io::Error,
}

/// A socket bound to one queue.
#[derive(Debug)]
pub(super) struct QueueSocket {
    /// Its queue.
    pub queue: u32,
    // The rings come before the descriptor, so that they are unmapped first: a mapped ring keeps
    // the socket, and its hold on the queue, alive.
    /// Where packets arrive.
    pub receive: ReceiveRing,
    /// Where empty buffers go.
    pub fill: FillRing,
    fd: OwnedFd,
    /// Buffers in the kernel's hands through this socket.
    pub held: u32,
    /// Packets of this socket handed on, without those counted as lost.
    pub taken: u64,
}

impl QueueSocket {
    /// Opens a socket on `queue` of interface `index`, with rings of `ring` entries: over `region`
    /// newly registered as UMEM, or sharing the registration of `first`.
    pub(super) fn open(
        index: u32,
        queue: u32,
        ring: u32,
        region: &Region,
        binding: Binding,
        first: Option<BorrowedFd<'_>>,
    ) -> Result<QueueSocket, Failed> {
        let failed = |action: String| {
            move |source: Errno| Failed { action: format!("{action} for queue {queue}"), source: source.into() }
        };
        let fd = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(failed("create an AF_XDP socket".into()))?;
        if first.is_none() {
            register(&fd, region).map_err(failed(format!("register {} as packet memory", region)))?;
        }
        let size = |what| failed(format!("make its {what} ring of {ring} entries"));
        sockopt::set_xdp_umem_fill_ring_size(&fd, ring).map_err(size("fill"))?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, ring).map_err(size("completion"))?;
        sockopt::set_xdp_rx_ring_size(&fd, ring).map_err(size("receive"))?;
        let at = sockopt::xdp_mmap_offsets(&fd).map_err(failed("read its ring offsets".into()))?;
        let map = |source| Failed { action: format!("map its rings for queue {queue}"), source };
        let receive = ReceiveRing::map(&fd, &at.rx, ring).map_err(map)?;
        let fill = FillRing::map(&fd, &at.fr, ring).map_err(map)?;
        let socket = QueueSocket { queue, receive, fill, fd, held: 0, taken: 0 };
        let flags = if first.is_some() { SocketAddrXdpFlags::XDP_SHARED_UMEM } else { binding.flags() };
        socket.bind(index, flags, first, binding.patience).map_err(failed(format!("bind it ({flags:?})")))?;
        Ok(socket)
    }

    fn bind(
        &self,
        index: u32,
        flags: SocketAddrXdpFlags,
        first: Option<BorrowedFd<'_>>,
        patience: Duration,
    ) -> Result<(), Errno> {
        let addr = SocketAddrXdp::new(flags, index, self.queue);
        let give_up = Instant::now() + patience;
        loop {
            let bound = match first {
                Some(shared_umem_fd) => {
                    rustix::net::bind(&self.fd, &SocketAddrXdpWithSharedUmem { addr: addr.clone(), shared_umem_fd })
                }
                None => rustix::net::bind(&self.fd, &addr),
            };
            match bound {
                Err(Errno::BUSY) if Instant::now() < give_up => std::thread::sleep(BUSY_PAUSE),
                other => return other,
            }
        }
    }

    /// Whether the card writes packets into the region itself.
    pub(super) fn zero_copy(&self) -> bool {
        sockopt::xdp_options(&self.fd).is_ok_and(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// What the kernel has counted.
    pub(super) fn statistics(&self) -> Result<XdpStatistics, Errno> {
        sockopt::xdp_statistics(&self.fd)
    }

    /// Makes the kernel look at the fill ring again.
    pub(super) fn wake(&self) {
        // The answer does not matter: there is nothing to receive this way, and an error of the
        // interface shows in its own check.
        let _ = rustix::net::recv(&self.fd, &mut [0u8; 0], RecvFlags::DONTWAIT);
    }
}

impl AsFd for QueueSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Registers the region's buffers as the socket's UMEM.
fn register(fd: &OwnedFd, region: &Region) -> Result<(), Errno> {
    let (base, len) = region.buffer_area();
    let geometry = region.geometry();
    sockopt::set_xdp_umem_reg(
        fd,
        XdpUmemReg {
            addr: base.as_ptr() as u64,
            len: len as u64,
            chunk_size: geometry.buffer_bytes as u32,
            headroom: geometry.annotation_bytes as u32,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        },
    )
}
