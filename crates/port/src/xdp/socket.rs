//! The AF_XDP sockets on one queue: bound, with their fill and receive rings mapped.
//!
//! A queue has one fill ring, and one socket, its *lane*, for each place where packets can go: one lane, or
//! where the kernel steers one for each ring and one for what is marked. The first lane owns the fill ring; the
//! others have a receive ring alone and share what it has (`XDP_SHARED_UMEM` on the same queue).
//!
//! The first socket of a port registers the region's buffer area as its UMEM; the others of the
//! same port share that registration (`XDP_SHARED_UMEM`), each with a fill ring of its own. The
//! kernel's headroom is the annotation: it puts 256 bytes of its own behind it, which are our tag
//! and headroom, so packets start at [`Geometry::packet_offset`](flowyard_mem::Geometry).
//!
//! The socket must not outlive the region: whoever owns it holds a clone of the region as well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use flowyard_mem::Region;
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpMmapOffsets, XdpOptionsFlags, XdpStatistics,
    XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

use super::direct::DirectLane;
use super::locked;
use super::ring::{CompletionRing, FillRing, ReceiveRing, Tally, Told, TransmitRing};
use super::transmitter::TransmitRings;

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
    /// The first socket of a queue sends as well.
    pub transmit: bool,
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

/// A socket bound to a queue, with its receive ring.
#[derive(Debug)]
pub(super) struct Lane {
    // The ring comes before the descriptor, so that it is unmapped first: a mapped ring keeps the socket, and
    // its hold on the queue, alive.
    /// Where packets arrive.
    pub receive: ReceiveRing,
    fd: Arc<OwnedFd>,
    /// Packets of this socket handed on, without those counted as lost.
    pub taken: u64,
    /// Where that is written down for the next owner, if it is.
    pub tally: Option<(Arc<Tally>, u32)>,
}

/// The sockets of one queue.
#[derive(Debug)]
pub(super) struct QueueSockets {
    /// Their queue.
    pub queue: u32,
    // Before the descriptors: as above.
    /// Where empty buffers go. Whoever has the lock is its one producer.
    fill: Arc<Mutex<FillRing>>,
    /// The socket that owns the fill ring: that of the first lane.
    leader: Arc<OwnedFd>,
    /// Those that the port receives from itself.
    pub lanes: Vec<Lane>,
    /// Where packets go out, until a transmitter has taken it.
    pub transmit: Option<TransmitRings>,
    /// Buffers in the kernel's hands through these sockets, or in those of readers that give them back to it.
    pub held: u32,
}

/// Sizes of a queue's rings, powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Sockets.
    pub lanes: usize,
    /// Entries of each receive ring.
    pub receive: u32,
    /// Entries of the fill ring.
    pub fill: u32,
}

impl QueueSockets {
    /// Opens sockets on `queue` of interface `index`: over `region` newly registered as UMEM, or sharing the
    /// registration of `first`.
    pub(super) fn open(
        index: u32,
        queue: u32,
        sizes: Sizes,
        region: &Region,
        binding: Binding,
        first: Option<BorrowedFd<'_>>,
    ) -> Result<QueueSockets, Failed> {
        let leader = Opening::new(index, queue, sizes.receive)?;
        if first.is_none() {
            register(&leader.fd, region).map_err(leader.failed(format!("register {} as packet memory", region)))?;
        }
        let size = |what| leader.failed(format!("make its {what} ring of {} entries", sizes.fill));
        sockopt::set_xdp_umem_fill_ring_size(&leader.fd, sizes.fill).map_err(size("fill"))?;
        // A buffer is on one of the two, so that the second always has room for what is on the first.
        sockopt::set_xdp_umem_completion_ring_size(&leader.fd, sizes.fill).map_err(size("completion"))?;
        let out = binding.transmit.then_some(sizes.receive.min(sizes.fill));
        if let Some(entries) = out {
            let failed = leader.failed(format!("make its transmit ring of {entries} entries"));
            sockopt::set_xdp_tx_ring_size(&leader.fd, entries).map_err(failed)?;
        }
        let at = leader.offsets()?;
        let map = |what| move |source| Failed { action: format!("map its {what} ring for queue {queue}"), source };
        let fill = FillRing::map(&leader.fd, &at.fr, sizes.fill).map_err(map("fill"))?;
        let out = match out {
            None => None,
            Some(entries) => {
                let transmit = TransmitRing::map(&leader.fd, &at.tx, entries).map_err(map("transmit"))?;
                Some((transmit, CompletionRing::map(&leader.fd, &at.cr, sizes.fill).map_err(map("completion"))?))
            }
        };
        let flags = if first.is_some() { SocketAddrXdpFlags::XDP_SHARED_UMEM } else { binding.flags() };
        let mut lanes = vec![leader.bind(flags, first, binding.patience)?];
        while lanes.len() < sizes.lanes {
            let follower = Opening::new(index, queue, sizes.receive)?;
            let leader = lanes.first().map(|lane: &Lane| lane.fd.as_fd());
            lanes.push(follower.bind(SocketAddrXdpFlags::XDP_SHARED_UMEM, leader, binding.patience)?);
        }
        let leader = lanes[0].fd.clone();
        let transmit = out.map(|(transmit, completion)| TransmitRings {
            transmit,
            completion,
            socket: leader.clone(),
            queue,
            zero_copy: false, // known once all is bound
            several_buffers: binding.several_buffers,
        });
        Ok(QueueSockets { queue, fill: Arc::new(Mutex::new(fill)), leader, lanes, transmit, held: 0 })
    }

    /// The fill ring, to write to.
    pub(super) fn fill(&self) -> MutexGuard<'_, FillRing> {
        locked(&self.fill)
    }

    /// Takes the first `count` lanes out, for readers of their own.
    pub(super) fn part(&mut self, count: usize) -> impl Iterator<Item = DirectLane> {
        let (queue, fill, leader) = (self.queue, self.fill.clone(), self.leader.clone());
        let lanes: Vec<Lane> = self.lanes.drain(..count.min(self.lanes.len())).collect();
        lanes.into_iter().map(move |lane| DirectLane { lane, queue, fill: fill.clone(), leader: leader.clone() })
    }

    /// Takes the way out, once.
    pub(super) fn take_transmit(&mut self) -> Option<TransmitRings> {
        let zero_copy = self.zero_copy();
        self.transmit.take().map(|rings| TransmitRings { zero_copy, ..rings })
    }

    /// The socket that owns the fill ring.
    fn leader(&self) -> BorrowedFd<'_> {
        self.leader.as_fd()
    }
}

/// A socket that is not yet bound.
struct Opening {
    fd: OwnedFd,
    index: u32,
    queue: u32,
    receive: u32,
}

impl Opening {
    fn new(index: u32, queue: u32, receive: u32) -> Result<Opening, Failed> {
        let fd = rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let fd = fd.map_err(failed(queue, "create an AF_XDP socket".into()))?;
        let opening = Opening { fd, index, queue, receive };
        let action = format!("make its receive ring of {receive} entries");
        sockopt::set_xdp_rx_ring_size(&opening.fd, receive).map_err(opening.failed(action))?;
        Ok(opening)
    }

    fn failed(&self, action: String) -> impl FnOnce(Errno) -> Failed + use<> {
        failed(self.queue, action)
    }

    fn offsets(&self) -> Result<XdpMmapOffsets, Failed> {
        sockopt::xdp_mmap_offsets(&self.fd).map_err(self.failed("read its ring offsets".into()))
    }

    /// Binds it, waiting for a queue that is busy.
    fn bind(
        self,
        flags: SocketAddrXdpFlags,
        first: Option<BorrowedFd<'_>>,
        patience: Duration,
    ) -> Result<Lane, Failed> {
        let at = self.offsets()?;
        let map = |source| Failed { action: format!("map its receive ring for queue {}", self.queue), source };
        let receive = ReceiveRing::map(&self.fd, &at.rx, self.receive).map_err(map)?;
        let addr = SocketAddrXdp::new(flags, self.index, self.queue);
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
                Err(errno) => return Err(self.failed(format!("bind it ({flags:?})"))(errno)),
                Ok(()) => return Ok(Lane { receive, fd: Arc::new(self.fd), taken: 0, tally: None }),
            }
        }
    }
}

fn failed(queue: u32, action: String) -> impl FnOnce(Errno) -> Failed {
    move |source| Failed { action: format!("{action} for queue {queue}"), source: source.into() }
}

impl Lane {
    /// Takes note of packets that were taken from the ring.
    #[inline]
    pub(super) fn took(&mut self, packets: u64) {
        self.taken += packets;
        if let Some((tally, queue)) = &self.tally {
            tally.add(*queue, Told::Received, packets);
        }
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// What the kernel has counted.
    pub(super) fn statistics(&self) -> Result<XdpStatistics, Errno> {
        sockopt::xdp_statistics(&self.fd)
    }

    /// What the kernel lost on the way to it; 0 if it does not say.
    pub(super) fn lost(&self) -> u64 {
        self.statistics().map_or(0, |s| s.rx_dropped + s.rx_ring_full.unwrap_or(0))
    }
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl QueueSockets {
    /// Whether the card writes packets into the region itself.
    pub(super) fn zero_copy(&self) -> bool {
        sockopt::xdp_options(self.leader()).is_ok_and(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// Makes the kernel look at the fill ring again.
    pub(super) fn wake(&self) {
        wake(self.leader());
    }
}

/// Makes the kernel look at the fill ring again that this socket owns.
pub(super) fn wake(leader: impl AsFd) {
    // The answer does not matter: there is nothing to receive this way, and an error of the
    // interface shows in its own check.
    let _ = rustix::net::recv(leader, &mut [0u8; 0], RecvFlags::DONTWAIT);
}

impl AsFd for QueueSockets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.leader()
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
