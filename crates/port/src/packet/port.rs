//! The port: one packet socket's blocks, walked frame by frame into buffers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use flowyard_mem::{Region, Stock, flags};
use rustix::net::SocketType;

use super::frame::{self, COOKED_BYTES, Frame};
use super::ring::BlockRing;
use super::{LONGEST, PacketTransmitter, RETIRE_MS, Shared, remedy};
use crate::interface::Links;
use crate::link::{COOKED, link_type};
use crate::sys;
use crate::transmit::watch::Watch;
use crate::{Arrival, Port, PortCounters, PortError, PortInfo, Progress, Received, Transmitter};

/// Time between looks at the interface when it is quiet.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Smallest frame that the ring is told of; frames in a block are packed, whatever it says.
const FRAME_BYTES: u32 = 2048;

/// One packet socket on an interface.
pub(super) struct PacketPort {
    info: PortInfo,
    shared: Arc<Shared>,
    region: Region,
    // The ring before its socket, so that it is unmapped first.
    ring: BlockRing,
    fd: OwnedFd,
    links: Links,
    link: u16,
    /// In the current block: frames left, and the offset of the next.
    walk: Option<(u32, usize)>,
    number: u64,
    packets: u64,
    bytes: u64,
    malformed: u64,
    undelivered: u64,
    kernel_packets: u64,
    kernel_drops: u64,
    freezes: u64,
    link_downs: u64,
    checked: Instant,
    ended: bool,
}

impl PacketPort {
    pub(super) fn open(
        shared: Arc<Shared>,
        mut info: PortInfo,
        transmit: bool,
        region: &Region,
    ) -> Result<PacketPort, PortError> {
        let options = &shared.options;
        let failed = |action: String| {
            let name = &shared.name;
            move |e: std::io::Error| {
                let advice = remedy(e.raw_os_error());
                PortError::action(name, action, e, advice)
            }
        };
        let links = Links::open().map_err(failed("open a netlink socket".into()))?;
        let index = shared.interface.index;
        let link = link_type(shared.interface.hardware);
        let kind = if link == COOKED { SocketType::DGRAM } else { SocketType::RAW };
        // It receives nothing until it is bound, when all is set.
        let fd = sys::packet_socket(kind).map_err(failed("create a packet socket".into()))?;
        let set = |option: i32, value: u32, action: &str| {
            sys::set_option(&fd, libc::SOL_PACKET, option, &value).map_err(failed(format!("{action} ({value})")))
        };
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V3 as u32, "ask for TPACKET_V3")?;
        if link != COOKED {
            set(libc::PACKET_VNET_HDR, 1, "ask for offload headers")?;
        }
        let loopback = shared.interface.hardware == libc::ARPHRD_LOOPBACK;
        // The kernel shows a socket nothing of what it sends itself, but for the parts of merged frames that the
        // stack takes apart: those have forgotten their socket (skb_segment, net/core/skbuff.c).
        let incoming = options.incoming || transmit || loopback;
        if incoming {
            set(libc::PACKET_IGNORE_OUTGOING, 1, "ignore outgoing packets")?;
        }
        if options.hardware_time {
            set(libc::PACKET_TIMESTAMP, libc::SOF_TIMESTAMPING_RAW_HARDWARE, "ask for hardware time")?;
        }
        let block_bytes = options.block_kib * 1024;
        let request = libc::tpacket_req3 {
            tp_block_size: block_bytes,
            tp_block_nr: options.blocks,
            tp_frame_size: FRAME_BYTES,
            tp_frame_nr: block_bytes / FRAME_BYTES * options.blocks,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        let blocks = format!("{} blocks of {} KiB", options.blocks, options.block_kib);
        sys::set_option(&fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .map_err(failed(format!("make a ring of {blocks}")))?;
        let ring = BlockRing::map(&fd, block_bytes as usize, options.blocks as usize)
            .map_err(failed(format!("map its ring of {blocks}")))?;
        if options.promiscuous {
            sys::add_promiscuous(&fd, index).map_err(failed("make the interface promiscuous".into()))?;
        }
        // Until it has joined its group a socket gets every packet, also those that others of the group
        // get: so it takes none before.
        let grouped = shared.parts > 1 || options.fanout.is_some();
        if grouped {
            sys::refuse_packets(&fd).map_err(failed("refuse packets until it is in its group".into()))?;
        }
        sys::bind_packet(&fd, index, libc::ETH_P_ALL as u16)
            .map_err(failed(format!("bind it to {}", shared.interface.name)))?;
        let mut group_words = String::new();
        if grouped {
            let mut group = shared.group.lock().unwrap_or_else(PoisonError::into_inner);
            let id = join(&fd, *group, incoming).map_err(failed("join a fan-out group".into()))?;
            group_words = format!(", fan-out group {id}");
            *group = Some(id);
            sys::accept_packets(&fd).map_err(failed("accept packets".into()))?;
        }
        info.mode = format!(
            "packet socket, {blocks}{group_words}{}{}",
            if options.promiscuous { ", promiscuous" } else { "" },
            if incoming { ", incoming only" } else { "" },
        );
        info.buffer_bytes = region.geometry().buffer_bytes;
        Ok(PacketPort {
            info,
            shared: shared.clone(),
            region: region.clone(),
            ring,
            fd,
            links,
            link,
            walk: None,
            number: 0,
            packets: 0,
            bytes: 0,
            malformed: 0,
            undelivered: 0,
            kernel_packets: 0,
            kernel_drops: 0,
            freezes: 0,
            link_downs: 0,
            checked: Instant::now(),
            ended: false,
        })
    }

    /// Adds the kernel's counts since the last time; the kernel then starts from zero.
    fn statistics(&mut self) {
        if let Ok(s) = sys::option::<libc::tpacket_stats_v3>(&self.fd, libc::SOL_PACKET, libc::PACKET_STATISTICS) {
            self.kernel_packets += u64::from(s.tp_packets);
            self.kernel_drops += u64::from(s.tp_drops);
            self.freezes += u64::from(s.tp_freeze_q_cnt);
        }
    }

    /// Looks whether the interface is still there.
    fn check(&mut self) -> Result<(), PortError> {
        // Going down leaves an error on the socket, which would make every poll return at once.
        let down = sys::option::<i32>(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR).is_ok_and(|e| e != 0);
        self.link_downs += u64::from(down);
        if !down && self.checked.elapsed() < CHECK_EVERY {
            return Ok(());
        }
        self.checked = Instant::now();
        self.statistics(); // the kernel counts in 32 bits and starts anew when read
        match self.links.by_index(self.shared.interface.index) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {
                self.ended = true;
                let problem = format!("interface {} was deleted or moved away", self.shared.interface.name);
                Err(PortError::action(&self.shared.name, "receive", problem, "start again when it is back"))
            }
            _ => Ok(()),
        }
    }
}

/// Joins fan-out group `id`, or makes one. Answers its number.
fn join(fd: &OwnedFd, id: Option<u16>, incoming: bool) -> std::io::Result<u16> {
    let mut kind = libc::PACKET_FANOUT_HASH;
    if incoming {
        kind |= libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    }
    if id.is_none() {
        kind |= libc::PACKET_FANOUT_FLAG_UNIQUEID;
    }
    let value = kind << 16 | u32::from(id.unwrap_or(0));
    sys::set_option(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &value)?;
    Ok(sys::option::<u32>(fd, libc::SOL_PACKET, libc::PACKET_FANOUT)? as u16)
}

/// Copies `front` and then `bytes` into as many buffers as they need. Answers false, and takes
/// nothing, if the stock has not that many.
fn copy(
    region: &Region,
    stock: &mut Stock,
    batch: &mut Vec<Received>,
    front: &[u8],
    bytes: &[u8],
    arrival: Arrival,
) -> bool {
    let (start, capacity) = (region.geometry().packet_offset(), region.geometry().packet_capacity());
    let total = front.len() + bytes.len();
    let needed = total.div_ceil(capacity).max(1);
    if stock.len() < needed {
        return false;
    }
    let (mut front, mut rest) = (front, bytes);
    for segment in 0..needed {
        let Some(mut buffer) = stock.take() else { break };
        let head = std::mem::take(&mut front); // COOKED_BYTES at most: it fits the first buffer.
        let (now, later) = rest.split_at(rest.len().min(capacity - head.len()));
        let fits = region.write(&mut buffer, start, head) && region.write(&mut buffer, start + head.len(), now);
        debug_assert!(fits, "cut to the buffer's capacity");
        rest = later;
        batch.push(Received {
            buffer,
            offset: start as u16,
            segment_len: (head.len() + now.len()) as u16,
            more: segment + 1 < needed,
            arrival,
        });
    }
    true
}

impl Port for PacketPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let before = batch.len();
        while batch.len() < limit {
            let Some(block) = self.ring.block() else { break };
            let (left, offset) = match self.walk {
                Some(walk) => walk,
                None => frame::head(block).unwrap_or((0, 0)),
            };
            let found = if left == 0 { None } else { Frame::at(block, offset, self.link != COOKED) };
            let Some(found) = found else {
                self.malformed += u64::from(left); // Zero, unless the kernel's block is not one.
                self.walk = None;
                self.ring.release();
                continue;
            };
            let front = if self.link == COOKED { &found.cooked[..] } else { &[] };
            // A packet that all buffers together cannot hold would never go: it is cut.
            let most = stock.capacity() * self.region.geometry().packet_capacity();
            let cut = found.bytes.len().min(LONGEST - COOKED_BYTES).min(most.saturating_sub(front.len()));
            let arrival = Arrival {
                time_ns: found.time_ns,
                clock: found.clock,
                flags: found.flags | if cut < found.bytes.len() { flags::TRUNCATED } else { 0 },
                len: (front.len() + cut) as u32,
                wire_len: front.len() as u32 + found.wire_len,
                queue: 0,
                stripped_vlan: found.stripped_vlan,
                card_hash: found.part_bytes.into(),
                link: self.link,
                number: self.number + 1,
            };
            if !copy(&self.region, stock, batch, front, &found.bytes[..cut], arrival) {
                self.walk = Some((left, offset));
                return Ok(if batch.len() > before { Progress::Ready } else { Progress::NoBuffers });
            }
            self.number += 1;
            self.packets += 1;
            self.bytes += u64::from(arrival.len);
            if left == 1 {
                self.walk = None;
                self.ring.release();
            } else {
                self.walk = Some((left - 1, offset + found.next));
            }
        }
        if batch.len() > before {
            if self.checked.elapsed() >= CHECK_EVERY {
                self.checked = Instant::now();
                self.statistics(); // the kernel counts in 32 bits and starts anew when read
            }
            return Ok(Progress::Ready);
        }
        self.check()?;
        Ok(Progress::Idle { wait_ns: Some(CHECK_EVERY.as_nanos() as u64) })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.fd.as_fd()]
    }

    fn transmitter(&mut self) -> Result<Option<Box<dyn Transmitter>>, PortError> {
        if self.link == COOKED {
            return Ok(None); // its packets begin with a header that is none of theirs
        }
        let name = &self.shared.name;
        let fd = self.fd.try_clone().map_err(|e| PortError::action(name, "use its socket for sending", e, ""))?;
        let watch = Watch::new(name, &self.shared.interface)?;
        Ok(Some(Box::new(PacketTransmitter::over(name, fd, watch, &self.region)?)))
    }

    fn counters(&mut self) -> PortCounters {
        self.statistics();
        PortCounters {
            packets: self.packets,
            bytes: self.bytes,
            lost: vec![
                ("kernel-ring-full", self.kernel_drops),
                ("malformed", self.malformed),
                ("undelivered", self.undelivered),
            ],
            notes: vec![("ring-freezes", self.freezes), ("link-down", self.link_downs)],
        }
    }

    fn close(mut self: Box<Self>, _stock: &mut Stock) -> Result<PortCounters, PortError> {
        // What came until now and was not received is counted: nothing more comes in, then the
        // kernel's count less ours is what is left in the blocks.
        if sys::refuse_packets(&self.fd).is_ok() {
            sys::wait_for_processors();
        }
        self.statistics();
        self.undelivered =
            self.kernel_packets.saturating_sub(self.kernel_drops).saturating_sub(self.packets + self.malformed);
        Ok(self.counters())
    }
}
