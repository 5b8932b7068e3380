//! Handing a pipe to another process: three descriptors over a Unix socket.
//!
//! The message is one line of the ABI's first bytes (magic, version), so that two versions refuse
//! each other before anything is mapped, with SCM_RIGHTS carrying region, pipe and wakeup in this
//! order (unix(7)). Checking the peer's credentials is the caller's business, before sending.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::abi::{ABI_VERSION, MAGIC};
use crate::{Handover, MemError};

const DESCRIPTORS: usize = 3;
const GREETING_BYTES: usize = 12;

fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    bytes
}

/// Sends a consumer its descriptors, and closes them here. Blocks as the socket does.
///
/// # Errors
/// The socket failed, or the peer is gone.
pub fn send(socket: &UnixStream, parts: Handover) -> Result<(), MemError> {
    let fail =
        |e: rustix::io::Errno| MemError::system("handover", "send descriptors", "", "is the consumer still there?", e);
    let fds = parts.descriptors();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(fail(rustix::io::Errno::NOBUFS));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&greeting())], &mut control, SendFlags::NOSIGNAL).map_err(fail)?;
    Ok(())
}

/// Receives what [`send`] sent. Blocks as the socket does.
///
/// # Errors
/// The socket failed or closed, the peer is of another ABI version, or descriptors are missing.
pub fn receive(socket: &UnixStream) -> Result<Handover, MemError> {
    let fail =
        |e: rustix::io::Errno| MemError::system("handover", "receive descriptors", "", "is the yard still there?", e);
    let mut bytes = [0u8; GREETING_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(fail)?;
    let mut fds: Vec<OwnedFd> = Vec::with_capacity(DESCRIPTORS);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let wrong = |what, found: u64, expected: u64, remedy| {
        Err(MemError::Header { object: "handover", what, found, expected, remedy })
    };
    if got.bytes != GREETING_BYTES || bytes[..8] != MAGIC {
        return wrong("greeting", got.bytes as u64, GREETING_BYTES as u64, "this socket is not a yard's");
    }
    if bytes != greeting() {
        let version = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        return wrong("ABI version", version.into(), ABI_VERSION.into(), "use the same Flowyard version on both sides");
    }
    match <[OwnedFd; DESCRIPTORS]>::try_from(fds) {
        Ok([region, pipe, wakeup]) => Ok(Handover { region, pipe, wakeup }),
        Err(fds) => {
            wrong("number of descriptors", fds.len() as u64, DESCRIPTORS as u64, "raise the limit of open files")
        }
    }
}
