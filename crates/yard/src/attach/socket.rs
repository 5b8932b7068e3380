//! Unix sockets with names, for a yard's consumers and for its control.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Makes a socket that listens at `path`, in the place of one that nobody listens to any more; `mode` says who may
/// connect. It is its owner's alone from its first moment on: the kernel makes the file with the mode that the socket has
/// when it is bound, less the umask (unix(7), net/unix/af_unix.c).
///
/// # Errors
/// Something else is there, another yard listens there, or a system call failed.
pub fn listen_at(path: &Path, kind: SocketType, waiting: i32, mode: u32) -> Result<OwnedFd> {
    let socket = |flags| rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | flags, None);
    let address = SocketAddrUnix::new(path)?;
    if let Ok(about) = std::fs::symlink_metadata(path) {
        if !about.file_type().is_socket() {
            return Err(Error::new(ErrorKind::AlreadyExists, "it is there and is no socket"));
        }
        // AGAIN: more wait to be accepted than may.
        let probe = socket(SocketFlags::NONBLOCK)?;
        if matches!(rustix::net::connect(probe, &address), Ok(()) | Err(rustix::io::Errno::AGAIN)) {
            return Err(Error::new(ErrorKind::AlreadyExists, "another yard listens there"));
        }
        std::fs::remove_file(path)?; // left behind by one that was killed
    }
    let listener = socket(SocketFlags::empty())?;
    rustix::fs::fchmod(&listener, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, waiting)?;
    // The umask may have taken the owner's own rights.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}
