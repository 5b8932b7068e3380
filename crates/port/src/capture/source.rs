//! Where a capture's bytes come from: a sliding window over a file, a pipe, or what a decompressor
//! makes of them.
//!
//! The window holds at least the bytes of one record at a time and is refilled by large reads, so
//! a record is always one slice and nothing is copied per packet but the remainder at the window's
//! end. It grows only as bytes really arrive: a length field that lies costs no memory.
//!
//! Files are read, not mapped. A mapped file that another process cuts short kills its reader with
//! SIGBUS, and one that another process writes breaks the promise behind `&[u8]`; ring captures are
//! cut and written while they are read. Nor is mapping faster: reading 256 KiB at a time into a warm
//! window costs two thirds of what the page faults of a mapping do (146 ns to 218 a packet of 683 bytes,
//! medians of five rounds on a virtual EPYC; `benches/captures.rs` measures both).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Bytes asked for by one read, and the window's first size: fits the second-level cache.
const WINDOW_BYTES: usize = 256 << 10;

/// How the file was packed, recognised by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
    Lz4,
}

impl Packing {
    fn of(head: &[u8]) -> Packing {
        match head {
            [0x1f, 0x8b, 8, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Packing::Lz4,
            _ => Packing::None,
        }
    }
}

/// Bytes of a capture, in order.
pub(super) struct Source {
    input: Box<dyn Read + Send>,
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset of `window[start]` in the (decompressed) file.
    offset: u64,
    eof: bool,
    /// Set until the first bytes have shown how the file is packed.
    sniffing: bool,
    /// Readable when a pipe has something; none for regular files.
    waiter: Option<OwnedFd>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("offset", &self.offset).field("eof", &self.eof).finish_non_exhaustive()
    }
}

/// Answers `WouldBlock` instead of waiting for a pipe that is empty.
struct Patient {
    file: File,
}

impl Read for Patient {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => self.file.read(out),
            Err(rustix::io::Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => Err(e.into()),
        }
    }
}

/// lz4 frames one after the other: the decoder says "end" after each.
struct Lz4Frames<R: Read> {
    frames: lz4_flex::frame::FrameDecoder<R>,
}

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.frames.read(out)? {
            0 => self.frames.read(out),
            n => Ok(n),
        }
    }
}

impl Source {
    /// Opens a file, or standard input for `-`. With `patient`, a pipe answers `WouldBlock` while
    /// it is empty instead of waiting.
    pub(super) fn open(path: &Path, patient: bool) -> io::Result<Source> {
        let file = if path.as_os_str() == "-" {
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        } else {
            File::open(path)?
        };
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if kind.is_file() {
            return Ok(Source::over(Box::new(file)));
        }
        let waiter = OwnedFd::from(file.try_clone()?);
        let input: Box<dyn Read + Send> = if patient { Box::new(Patient { file }) } else { Box::new(file) };
        Ok(Source { waiter: Some(waiter), ..Source::over(input) })
    }

    /// Reads from anything.
    pub(super) fn over(input: Box<dyn Read + Send>) -> Source {
        Source { input, window: Vec::new(), start: 0, end: 0, offset: 0, eof: false, sniffing: true, waiter: None }
    }

    /// The descriptor to wait on, if this is a pipe.
    pub(super) fn waiter(&self) -> Option<BorrowedFd<'_>> {
        self.waiter.as_ref().map(AsFd::as_fd)
    }

    /// Offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What the window holds now.
    #[inline]
    pub(super) fn data(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Sees to it that the window holds `need` bytes. Answers false if the file ends before.
    #[inline]
    pub(super) fn fill(&mut self, need: usize) -> io::Result<bool> {
        if self.end - self.start >= need { Ok(true) } else { self.refill(need) }
    }

    #[cold]
    fn refill(&mut self, need: usize) -> io::Result<bool> {
        if self.sniffing {
            self.unpack()?;
        }
        self.pull(need)
    }

    /// Reads until the window holds `need` bytes or the input ends.
    fn pull(&mut self, need: usize) -> io::Result<bool> {
        self.window.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < need && !self.eof {
            if self.end == self.window.len() {
                // Doubles what has arrived, never follows what a length field claims.
                self.window.resize((self.window.len() * 2).max(WINDOW_BYTES), 0);
            }
            match self.input.read(&mut self.window[self.end..]) {
                Ok(0) => self.eof = true,
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.end >= need)
    }

    /// Looks at the first bytes and puts a decompressor before the rest if they ask for one.
    fn unpack(&mut self) -> io::Result<()> {
        self.pull(4)?;
        self.sniffing = false;
        let packing = Packing::of(self.data());
        if packing == Packing::None {
            return Ok(());
        }
        let head = io::Cursor::new(self.data().to_vec());
        let rest = std::mem::replace(&mut self.input, Box::new(io::empty()));
        let packed = io::BufReader::with_capacity(WINDOW_BYTES, head.chain(rest));
        self.input = match packing {
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Packing::Lz4 => Box::new(Lz4Frames { frames: lz4_flex::frame::FrameDecoder::new(packed) }),
            Packing::None => Box::new(packed),
        };
        (self.start, self.end, self.eof) = (0, 0, false);
        Ok(())
    }

    /// Passes over `left` bytes, counting it down. Answers false if the file ends before.
    #[inline]
    pub(super) fn discard(&mut self, left: &mut u64) -> io::Result<bool> {
        let here = self.end - self.start;
        if *left <= here as u64 {
            self.start += *left as usize;
            self.offset += *left;
            *left = 0;
            return Ok(true);
        }
        self.discard_far(left)
    }

    #[cold]
    fn discard_far(&mut self, left: &mut u64) -> io::Result<bool> {
        loop {
            let step = (*left).min((self.end - self.start) as u64);
            self.start += step as usize;
            self.offset += step;
            *left -= step;
            if *left == 0 {
                return Ok(true);
            }
            if !self.fill(1)? {
                return Ok(false);
            }
        }
    }
}
