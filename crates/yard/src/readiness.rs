//! One descriptor that is readable when any of a ring's pipes has something: an epoll set (epoll(7)) over their wakeups.
//!
//! Owned by the ring's reader. Wakeups are level-triggered, so a byte that nobody took yet shows again. A pipe that
//! has ended is taken out, because its wakeup stays readable for good.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use flowyard_mem::Consumer;
use rustix::event::epoll;

#[derive(Debug)]
pub(crate) struct Readiness {
    set: OwnedFd,
    /// One a pipe: whether it is in the set.
    watched: Vec<bool>,
}

impl Readiness {
    pub(crate) fn new(pipes: usize) -> io::Result<Readiness> {
        Ok(Readiness { set: epoll::create(epoll::CreateFlags::CLOEXEC)?, watched: vec![false; pipes] })
    }

    /// One more descriptor of the set.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.set.try_clone()
    }

    /// Watches the pipes that wait, no others; and sockets, which leave by themselves when they are closed.
    pub(crate) fn watch(&mut self, consumers: &[Consumer], sockets: &[Arc<OwnedFd>]) {
        for (consumer, watched) in consumers.iter().zip(&mut self.watched) {
            match (consumer.is_waiting(), *watched) {
                (true, false) => *watched = add(&self.set, consumer.as_fd()),
                (false, true) => *watched = epoll::delete(&self.set, consumer.as_fd()).is_err(),
                _ => {}
            }
        }
        for socket in sockets {
            add(&self.set, socket.as_fd()); // again next time, if it failed
        }
    }
}

/// Whether it is in the set now. It can fail for want of kernel memory alone; it is tried again next time.
fn add(set: &OwnedFd, fd: BorrowedFd<'_>) -> bool {
    let added = epoll::add(set, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN);
    matches!(added, Ok(()) | Err(rustix::io::Errno::EXIST))
}
