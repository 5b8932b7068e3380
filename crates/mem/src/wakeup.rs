//! Wakeups: a socket pair between the two ends of a pipe.
//!
//! A busy pair never touches it: a byte is sent only to an end that said it sleeps. A socket and not
//! an eventfd, because a peer that shares an eventfd can clear its O_NONBLOCK and fill its counter,
//! so that the next write blocks; here each end owns its descriptor, and every call carries
//! MSG_DONTWAIT. The end of the peer, orderly or not, shows as end of file.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::{MemError, refuse_descriptors};

/// One end.
#[derive(Debug)]
pub(crate) struct Wakeup {
    socket: OwnedFd,
}

/// Most bytes read from a peer at once: a flood is left to fill its own socket buffer.
const DRAIN_BYTES: usize = 64;

impl Wakeup {
    /// Both ends: the yard's, and the consumer's.
    pub(crate) fn pair() -> Result<(Wakeup, Wakeup), MemError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .inspect(|(ours, _)| {
                refuse_descriptors(ours); // where the kernel cannot, the peer is trusted not to
            })
            .map(|(ours, theirs)| (Wakeup { socket: ours }, Wakeup { socket: theirs }))
            .map_err(|e| {
                MemError::system("pipe", "make a socket pair for wakeups", "", "raise the limit of open files", e)
            })
    }

    /// An end that came from another process.
    pub(crate) fn from_fd(socket: OwnedFd) -> Wakeup {
        Wakeup { socket }
    }

    /// The descriptor, for handing to the peer's process.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Sends one byte. Never blocks: if the peer's buffer is full it has wakeups enough.
    pub(crate) fn ring(&self) {
        let _ = rustix::net::send(&self.socket, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    /// Takes pending bytes, a bounded number.
    pub(crate) fn drain(&self) {
        let mut bytes = [0u8; DRAIN_BYTES];
        let _ = rustix::net::recv(&self.socket, &mut bytes[..], RecvFlags::DONTWAIT);
    }

    /// Whether the other end is closed, by its owner or by the end of its process; however many bytes
    /// are still to be read. A system call.
    pub(crate) fn peer_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let closed = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(closed)
    }

    /// Sleeps until a byte or the peer's end comes, or the time is over.
    pub(crate) fn wait(&self, timeout: Option<Duration>) {
        let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        // An interrupted or failed wait is a short one: the caller looks again.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_never_blocks_and_an_end_is_seen() {
        let (a, b) = Wakeup::pair().expect("socket pair");
        for _ in 0..1_000_000 {
            a.ring();
        }
        b.wait(Some(Duration::from_secs(5)));
        b.drain();
        assert!(!b.peer_gone());
        drop(a);
        assert!(b.peer_gone(), "seen behind all that is unread");
        b.ring();
    }
}
