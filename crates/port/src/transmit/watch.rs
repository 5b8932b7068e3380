//! What a way out knows of its interface: looked up a few times a second, and at once when the kernel complains.

use std::time::{Duration, Instant};

use super::Refusal;
use crate::PortError;
use crate::interface::{Interface, Links};
use crate::link::{ETHERNET, link_type};

/// Time between looks.
const CHECK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of an Ethernet header (IEEE 802.3, 3.1.1), and of a VLAN tag (IEEE 802.1Q, 9.3).
const ETHERNET_BYTES: usize = 14;
const VLAN_BYTES: usize = 4;

/// An interface, as last seen.
#[derive(Debug)]
pub(crate) struct Watch {
    links: Links,
    index: u32,
    port: String,
    mtu: usize,
    link: u16,
    state: Result<(), Refusal>,
    looked: Instant,
}

impl Watch {
    /// Of an interface in the calling thread's network namespace.
    pub(crate) fn new(port: &str, interface: &Interface) -> Result<Watch, PortError> {
        let links = Links::open().map_err(|e| PortError::action(port, "open a netlink socket", e, ""))?;
        let mut watch = Watch {
            links,
            index: interface.index,
            port: port.into(),
            mtu: interface.mtu as usize,
            link: link_type(interface.hardware),
            state: Ok(()),
            looked: Instant::now(),
        };
        watch.look();
        Ok(watch)
    }

    /// Another on the same interface.
    pub(crate) fn another(&self) -> Result<Watch, PortError> {
        let links = Links::open().map_err(|e| PortError::action(&self.port, "open a netlink socket", e, ""))?;
        Ok(Watch { links, port: self.port.clone(), ..*self })
    }

    /// Looks, if that was not just done.
    #[inline]
    pub(crate) fn look_now_and_then(&mut self) {
        if self.looked.elapsed() >= CHECK_EVERY {
            self.look();
        }
    }

    /// Looks.
    #[cold]
    pub(crate) fn look(&mut self) {
        self.looked = Instant::now();
        match self.links.by_index(self.index) {
            Ok(interface) => {
                self.mtu = interface.mtu as usize;
                self.state = if interface.running() { Ok(()) } else { Err(Refusal::LinkDown) };
            }
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => self.state = Err(Refusal::Gone),
            Err(_) => {} // the question failed, not the interface
        }
    }

    /// Pcap link type of its frames.
    pub(crate) fn link(&self) -> u16 {
        self.link
    }

    /// Whether the interface was up and had a carrier when last looked at.
    pub(crate) fn is_running(&self) -> bool {
        self.state.is_ok()
    }

    /// Whether packets of this link type can go out now.
    #[inline]
    pub(crate) fn accepts(&self, link: u16) -> Result<(), Refusal> {
        self.state?;
        if link == self.link { Ok(()) } else { Err(Refusal::LinkType) }
    }

    /// Longest frame that it carries, of those that begin like this: a VLAN tag does not count for the MTU. (A packet
    /// socket counts all but that of 0x8100, and refuses as `too-long` what we do not.)
    #[inline]
    pub(crate) fn longest(&self, frame: &[u8]) -> usize {
        if self.link != ETHERNET {
            return self.mtu;
        }
        let tagged = matches!(frame.get(12..14), Some([0x81, 0x00] | [0x88, 0xa8]));
        self.mtu + ETHERNET_BYTES + if tagged { VLAN_BYTES } else { 0 }
    }
}

/// Which refusal an error of sending is.
pub(crate) fn refusal(errno: Option<i32>) -> Refusal {
    match errno {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EBUSY | libc::ENOMEM) => Refusal::QueueFull,
        Some(libc::EMSGSIZE) => Refusal::TooLong,
        Some(libc::ENETDOWN) => Refusal::LinkDown,
        Some(libc::ENXIO | libc::ENODEV | libc::EBADFD) => Refusal::Gone,
        _ => Refusal::System,
    }
}
