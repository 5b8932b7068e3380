//! `tap:NAME`: a TAP device, a network interface of this host whose other end is a file.
//!
//! What the host sends on the interface arrives at the port; what the port sends, the host receives as if from a
//! network. The device is made if there is none of that name, and lives as long as the port then; one that was there
//! before (`ip tuntap add NAME mode tap`) stays.
//!
//! With each frame goes a virtio header (IFF_VNET_HDR): unfinished checksums and merged frames come as the host's stack
//! has them, told in the flags, unless `?finished` asks for finished ones. VLAN tags are in the frame.
//!
//! A TAP device of one queue has one reader: the port has one part. Every dispatcher may send.

mod port;
mod transmitter;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use flowyard_mem::{Region, Stock};

use crate::interface::Interface;
use crate::{Opener, Port, PortError, PortInfo, PortSpec, sys};

/// Bytes of the longest frame: an IP packet of 65535 bytes that the kernel has merged, and its Ethernet header with two
/// VLAN tags.
const LONGEST: usize = 65535 + 22;

/// Opens the TAP device `name`, and makes it if there is none: then it lives as long as the file. Sets it up. What is
/// written, one Ethernet frame a call, arrives at the host's network stack as if from a network. Never
/// blocks.
///
/// # Errors
/// The name, no /dev/net/tun, CAP_NET_ADMIN missing, or another program has the device.
pub fn open(name: &str) -> std::io::Result<File> {
    let file = clone_device()?;
    sys::become_tap(&file, name, sys::Virtio::No)?;
    Ok(file)
}

fn clone_device() -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
}

#[derive(Debug)]
struct TapOpener {
    info: PortInfo,
    device: String,
    finished: bool,
}

impl Opener for TapOpener {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let name = &self.info.name;
        let fail = |e: std::io::Error| {
            let advice = remedy(e.raw_os_error());
            PortError::action(name, format!("open the TAP device {:?}", self.device), e, advice)
        };
        let file = clone_device().map_err(fail)?;
        let virtio = if self.finished { sys::Virtio::Finished } else { sys::Virtio::AsItIs };
        sys::become_tap(&file, &self.device, virtio).map_err(fail)?;
        let interface = Interface::find(name, &self.device)?;
        Ok(Box::new(port::TapPort::new(self.info, file, interface, region)?))
    }
}

/// Looks at the name and the options; makes nothing.
pub(crate) fn prepare(spec: &PortSpec) -> Result<Vec<Box<dyn Opener>>, PortError> {
    spec.only(&["finished"])?;
    let finished = spec.flag("finished")?;
    if spec.what.len() >= libc::IFNAMSIZ || spec.what.contains(['/', '%']) || spec.what.contains(char::is_whitespace) {
        return Err(
            spec.bad_option("is no name of an interface", "write tap:NAME with at most 15 bytes, such as tap:yard0")
        );
    }
    let info = PortInfo {
        name: spec.name(),
        mode: format!("TAP device{}", if finished { ", finished frames" } else { "" }),
        can_wait: false,
        live: true,
        longest_packet: LONGEST,
        buffers_held: 0,
        buffer_bytes: 2048,
    };
    Ok(vec![Box::new(TapOpener { info, device: spec.what.clone(), finished })])
}

/// What the reader can do about the system's error `errno`.
fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => "it needs CAP_NET_ADMIN: run it as root (sudo)",
        Some(libc::EBUSY) => "another program has it: stop that, or use another name",
        Some(libc::ENOENT | libc::ENODEV) => "the kernel has no TUN/TAP (CONFIG_TUN): `modprobe tun`",
        Some(libc::EINVAL) => "an interface of that name is no TAP device: use another name",
        _ => "",
    }
}
