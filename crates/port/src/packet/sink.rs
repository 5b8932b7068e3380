//! Frames out through an interface: for tools and tests.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketType};

use super::remedy;
use crate::interface::Interface;
use crate::link::link_type;
use crate::{Kind, Outgoing, PortError, PortSpec, Sink, sys};

/// Frames a system call.
const BATCH: usize = 64;
/// How long a full transmit queue is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends frames on an interface as they are, in batches.
#[derive(Debug)]
pub struct PacketSink {
    name: String,
    fd: OwnedFd,
    link: u16,
    mtu: u32,
    /// Frames held back, one after another, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl PacketSink {
    /// Opens the interface of a `packet:` port for sending.
    ///
    /// # Errors
    /// There is no such interface, or CAP_NET_RAW is missing.
    pub fn open(spec: &PortSpec) -> Result<PacketSink, PortError> {
        spec.only(&[])?;
        let name = spec.name();
        if spec.kind != Kind::Packet {
            return Err(spec.bad_option("cannot be sent to", format!("write packet:{}", spec.what)));
        }
        let interface = Interface::find(&name, &spec.what)?;
        let fail = |action: &str, e: std::io::Error| {
            let advice = remedy(e.raw_os_error());
            PortError::action(&name, action, e, advice)
        };
        if !interface.up() {
            return Err(fail("send", std::io::Error::from_raw_os_error(libc::ENETDOWN)));
        }
        let fd = sys::packet_socket(SocketType::RAW).map_err(|e| fail("create a packet socket", e))?;
        sys::bind_packet(&fd, interface.index, 0).map_err(|e| fail("bind it", e))?;
        let link = link_type(interface.hardware);
        Ok(PacketSink { fd, link, mtu: interface.mtu, bytes: Vec::new(), ends: Vec::with_capacity(BATCH), name })
    }
}

impl Sink for PacketSink {
    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), PortError> {
        if packet.link != self.link {
            let problem = format!("its link type is {}, the interface's {}", packet.link, self.link);
            return Err(PortError::action(&self.name, "send a packet", problem, "send it on an interface of its kind"));
        }
        self.bytes.extend_from_slice(packet.bytes);
        self.ends.push(self.bytes.len());
        if self.ends.len() == BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PortError> {
        let outcome = self.transmit();
        self.bytes.clear();
        self.ends.clear();
        outcome
    }
}

impl PacketSink {
    /// Sends what is held back, waiting while the transmit queue is full.
    fn transmit(&self) -> Result<(), PortError> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let frames: Vec<[IoSlice<'_>; 1]> =
            starts.zip(&self.ends).map(|(start, end)| [IoSlice::new(&self.bytes[start..*end])]).collect();
        let mut nothing: Vec<[MaybeUninit<u8>; 0]> = vec![[]; frames.len()];
        let mut controls: Vec<_> = nothing.iter_mut().map(|c| SendAncillaryBuffer::new(c)).collect();
        let mut messages: Vec<_> = frames.iter().zip(&mut controls).map(|(f, c)| MMsgHdr::new(f, c)).collect();
        let (mut sent, mut since) = (0, Instant::now());
        while sent < messages.len() {
            match rustix::net::sendmmsg(self.fd.as_fd(), &mut messages[sent..], SendFlags::empty()) {
                Ok(more) => {
                    sent += more;
                    since = Instant::now();
                }
                Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) if since.elapsed() < PATIENCE => {
                    std::thread::yield_now();
                }
                Err(e) => {
                    let e = std::io::Error::from(e);
                    let advice = match e.raw_os_error() {
                        Some(libc::EMSGSIZE) => "raise the MTU (`ip link set IF mtu N`) or send shorter frames",
                        other => remedy(other),
                    };
                    let len = frames[sent][0].len();
                    let action = format!("send a frame of {len} bytes (MTU {})", self.mtu);
                    return Err(PortError::action(&self.name, action, e, advice));
                }
            }
        }
        Ok(())
    }
}

impl Drop for PacketSink {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
