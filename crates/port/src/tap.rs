//! TAP devices: network interfaces whose other end is a file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use crate::sys;

/// Opens the TAP device `name`, and makes it if there is none: then it lives as long as the file. Sets it up. What is
/// written, one Ethernet frame a call, arrives at the host's network stack as if from a network. Never
/// blocks.
///
/// # Errors
/// The name, no /dev/net/tun, CAP_NET_ADMIN missing, or another program has the device.
pub fn open(name: &str) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    sys::become_tap(&file, name)?;
    Ok(file)
}
