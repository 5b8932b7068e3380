//! Keeping descriptors out of sockets that carry none.
//!
//! A descriptor that a peer sends is closed by whoever receives without asking for it, and closing can take as long as the
//! peer likes (a socket that lingers, a file of a file system of the peer's own). So sockets by which nobody has descriptors
//! to send refuse them, where the kernel can (SO_PASSRIGHTS, Linux 6.16, net/core/sock.c).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// As include/uapi/asm-generic/socket.h has it; libc does not know it yet.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Has the kernel refuse descriptors that are sent to this end of a Unix socket. Answers whether it can.
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    let no: libc::c_int = 0;
    let len = size_of_val(&no) as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `len` bytes of `no`, which lives as long as the call; `fd` is open (AsFd).
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, (&raw const no).cast(), len) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    use std::io::IoSlice;
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_refused_cannot_be_sent() {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        if !refuse_descriptors(&ours) {
            return eprintln!("SKIPPED: this kernel cannot refuse descriptors");
        }
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [theirs.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            rustix::net::sendmsg(&theirs, &[IoSlice::new(b"x")], &mut control, SendFlags::DONTWAIT)
        };
        assert!(send().is_err(), "refused");
        rustix::net::send(&theirs, b"x", SendFlags::DONTWAIT).expect("and nothing else is");
    }
}
