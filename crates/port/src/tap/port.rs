//! The port: one file, a frame a system call.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flowyard_mem::{Clock, Region, Stock, flags};
use rustix::io::Errno;

use super::LONGEST;
use super::transmitter::TapTransmitter;
use crate::interface::{Interface, Links};
use crate::link::ETHERNET;
use crate::transmit::virtio;
use crate::transmit::watch::Watch;
use crate::{Arrival, Port, PortCounters, PortError, PortInfo, Progress, Received, Transmitter, segments};

/// Time between looks at the interface when it is quiet.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// A TAP device.
pub(super) struct TapPort {
    info: PortInfo,
    file: File,
    interface: Interface,
    region: Region,
    links: Links,
    /// A frame behind its virtio header: that read last.
    frame: Box<[u8; virtio::BYTES + LONGEST]>,
    /// Bytes of a frame that was read and waits for buffers.
    waiting: Option<usize>,
    packets: u64,
    bytes: u64,
    cut: u64,
    malformed: u64,
    undelivered: u64,
    /// What the device had dropped when it was opened, and what it has by now.
    dropped_before: u64,
    dropped: u64,
    checked: Instant,
    ended: bool,
}

impl TapPort {
    pub(super) fn new(
        mut info: PortInfo,
        file: File,
        interface: Interface,
        region: &Region,
    ) -> Result<TapPort, PortError> {
        let links = Links::open().map_err(|e| PortError::action(&info.name, "open a netlink socket", e, ""))?;
        info.buffer_bytes = region.geometry().buffer_bytes;
        Ok(TapPort {
            info,
            file,
            region: region.clone(),
            links,
            frame: Box::new([0; virtio::BYTES + LONGEST]),
            waiting: None,
            packets: 0,
            bytes: 0,
            cut: 0,
            malformed: 0,
            undelivered: 0,
            dropped_before: interface.send_dropped,
            dropped: interface.send_dropped,
            interface,
            checked: Instant::now(),
            ended: false,
        })
    }

    /// Reads a frame, if there is one, and answers its bytes with the header.
    fn read(&mut self) -> Result<Option<usize>, PortError> {
        if let Some(len) = self.waiting.take() {
            return Ok(Some(len));
        }
        loop {
            match rustix::io::read(&self.file, &mut self.frame[..]) {
                Ok(len) => return Ok(Some(len)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(e) => {
                    self.ended = true;
                    let problem = match e {
                        Errno::BADFD => format!("interface {} was deleted", self.interface.name),
                        e => std::io::Error::from(e).to_string(),
                    };
                    return Err(PortError::action(&self.info.name, "receive", problem, "start again"));
                }
            }
        }
    }

    fn look(&mut self) {
        if let Ok(interface) = self.links.by_index(self.interface.index) {
            self.dropped = interface.send_dropped;
        }
    }
}

impl Port for TapPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        if self.ended {
            return Ok(Progress::Ended);
        }
        let before = batch.len();
        let mut time_ns = 0;
        while batch.len() < limit {
            let Some(len) = self.read()? else { break };
            let Some((header, frame)) = self.frame[..len].split_first_chunk::<{ virtio::BYTES }>() else {
                self.malformed += 1;
                continue;
            };
            if time_ns == 0 {
                time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
            }
            let told = virtio::told(header);
            // A packet that all buffers together cannot hold would never go: it is cut.
            let most = stock.capacity() * self.region.geometry().packet_capacity();
            let kept = &frame[..frame.len().min(most)];
            let arrival = Arrival {
                time_ns,
                clock: Clock::Realtime,
                flags: told.flags | if kept.len() < frame.len() { flags::TRUNCATED } else { 0 },
                len: kept.len() as u32,
                wire_len: frame.len() as u32,
                card_hash: told.part_bytes.into(),
                link: ETHERNET,
                number: self.packets + 1,
                ..Arrival::default()
            };
            if !segments::append(&self.region, stock, batch, kept, arrival) {
                self.waiting = Some(len);
                return Ok(if batch.len() > before { Progress::Ready } else { Progress::NoBuffers });
            }
            self.packets += 1;
            self.bytes += u64::from(arrival.len);
            self.cut += u64::from(arrival.len < arrival.wire_len);
        }
        if batch.len() > before {
            return Ok(Progress::Ready);
        }
        if self.checked.elapsed() >= CHECK_EVERY {
            self.checked = Instant::now();
            self.look();
        }
        Ok(Progress::Idle { wait_ns: Some(CHECK_EVERY.as_nanos() as u64) })
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.file.as_fd()]
    }

    fn transmitter(&mut self) -> Result<Option<Box<dyn Transmitter>>, PortError> {
        let watch = Watch::new(&self.info.name, &self.interface)?;
        let file = self.file.try_clone();
        let file = file.map_err(|e| PortError::action(&self.info.name, "use its file for sending", e, ""))?;
        Ok(Some(Box::new(TapTransmitter::new(&self.info.name, file, watch, &self.region))))
    }

    fn counters(&mut self) -> PortCounters {
        self.look();
        PortCounters {
            packets: self.packets,
            bytes: self.bytes,
            lost: vec![
                ("device-queue-full", self.dropped.saturating_sub(self.dropped_before)),
                ("malformed", self.malformed),
                ("undelivered", self.undelivered),
            ],
            notes: vec![("cut-to-fit", self.cut)],
        }
    }

    fn close(mut self: Box<Self>, _stock: &mut Stock) -> Result<PortCounters, PortError> {
        // What waits in the device goes with it.
        while !self.ended && matches!(self.read(), Ok(Some(_))) {
            self.undelivered += 1;
        }
        Ok(self.counters())
    }
}
