//! The way to the host's network stack, for packets that a steering function sends there.

use std::fs::File;
use std::io::Write;

use flowyard_mem::Region;

use crate::outlets::Parcel;

/// Longest packet handed on: with GSO, 64 KiB and its headers.
const LONGEST: usize = 66_000;

/// A TAP device that the yard writes to: what is written arrives there as if from a network. Never
/// blocks: what the device has no room for is counted.
pub(crate) struct Host {
    tap: File,
    /// A packet of several segments, put together.
    whole: Vec<u8>,
}

impl Host {
    pub(crate) fn new(tap: File) -> Host {
        Host { tap, whole: Vec::with_capacity(LONGEST) }
    }

    /// Another way to the same device, for another dispatcher.
    pub(crate) fn try_clone(&self) -> std::io::Result<Host> {
        self.tap.try_clone().map(Host::new)
    }

    /// Hands a packet on. Answers false if the device took none of it.
    pub(crate) fn take(&mut self, region: &Region, parcel: &Parcel) -> bool {
        self.whole.clear();
        for segment in std::iter::once(&parcel.first).chain(&parcel.rest) {
            let mut scratch = [0; 4096]; // a buffer's size at most, and used only beside foreign writers
            let bytes = region.peek(&segment.buffer, segment.offset.into(), segment.len.into(), &mut scratch);
            if self.whole.len() + bytes.len() > LONGEST {
                return false;
            }
            self.whole.extend_from_slice(bytes);
        }
        matches!(self.tap.write(&self.whole), Ok(n) if n == self.whole.len())
    }
}
