//! Handing pipes to another process: descriptors over a Unix socket, beside a message.
//!
//! A message is one line of the ABI's first bytes (magic, version), so that two versions refuse each
//! other before anything is mapped, and then what the two sides have to say to each other. With it
//! SCM_RIGHTS (unix(7)) may carry a region, pipe and wakeup of each dispatcher, and a lifeline, in this order.
//! Checking the peer's credentials is the caller's business, before sending.
//!
//! On a socket of messages (SOCK_SEQPACKET) each call is one message. On a stream the two sides take
//! turns.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::abi::{ABI_VERSION, MAGIC};
use crate::{Handover, MemError};

/// Most bytes that either side says in one message.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Most pipes in one message: the kernel passes at most 253 descriptors at once (SCM_MAX_FD, include/net/scm.h).
pub const MOST_PIPES: usize = 125;

const MOST_DESCRIPTORS: usize = 2 + 2 * MOST_PIPES;
const GREETING_BYTES: usize = 12;

fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&ABI_VERSION.to_ne_bytes());
    bytes
}

/// What came in one message.
#[derive(Debug)]
pub struct Message {
    /// What the peer says.
    pub said: Vec<u8>,
    /// The descriptors that came with it.
    pub parts: Option<Handover>,
    /// The ABI version of the peer. Where it is not ours, `parts` is empty.
    pub version: u32,
}

impl Message {
    /// Refuses what a peer of another version says.
    ///
    /// # Errors
    /// Both versions.
    pub fn of_our_version(self) -> Result<Message, MemError> {
        if self.version == ABI_VERSION {
            return Ok(self);
        }
        Err(MemError::Header {
            object: "handover",
            what: "ABI version",
            found: self.version.into(),
            expected: ABI_VERSION.into(),
            remedy: "use the same Flowyard version on both sides",
        })
    }
}

/// Sends a message, and with it a consumer's descriptors, which are closed here. Blocks as the socket does.
///
/// # Errors
/// The socket failed, the peer is gone, or does not read.
pub fn send(socket: impl AsFd, said: &[u8], parts: Option<Handover>) -> Result<(), MemError> {
    let fail =
        |e: rustix::io::Errno| MemError::system("handover", "send descriptors", "", "is the peer still there?", e);
    let fds = parts.as_ref().map(Handover::descriptors).unwrap_or_default();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(fail(rustix::io::Errno::NOBUFS));
    }
    let greeting = greeting();
    let parts = [IoSlice::new(&greeting), IoSlice::new(said)];
    rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL).map_err(fail)?;
    Ok(())
}

/// Receives what [`send`] sent. Blocks as the socket does.
///
/// # Errors
/// The socket failed or closed, it is not a yard's, or descriptors are missing.
pub fn receive(socket: impl AsFd) -> Result<Message, MemError> {
    let fail =
        |e: rustix::io::Errno| MemError::system("handover", "receive descriptors", "", "is the peer still there?", e);
    let mut bytes = vec![0u8; GREETING_BYTES + MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .map_err(fail)?;
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.bytes == 0 {
        return Err(fail(rustix::io::Errno::CONNRESET));
    }
    let wrong = |what, found: usize, expected: usize, remedy| {
        Err(MemError::Header { object: "handover", what, found: found as u64, expected: expected as u64, remedy })
    };
    if got.bytes < GREETING_BYTES || bytes[..8] != MAGIC {
        return wrong("greeting", got.bytes, GREETING_BYTES, "this socket is not a yard's");
    }
    let version = u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return wrong("number of descriptors", fds.len(), fds.len() | 1, "raise the limit of open files");
    }
    bytes.truncate(got.bytes);
    let said = bytes.split_off(GREETING_BYTES);
    let parts = if version == ABI_VERSION { Handover::of(fds) } else { None };
    Ok(Message { said, parts, version })
}
