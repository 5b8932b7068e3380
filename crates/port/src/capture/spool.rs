//! Captures written by a thread of their own, so that filling buffers and writing them go on at the same time:
//! writing costs a copy into the kernel, which is most of what splitting a capture costs.
//!
//! ```text
//! CaptureWriter ─┐  full buffers, in order    ┌──▶ file
//! CaptureWriter ─┼──────────▶ thread ─────────┼──▶ file
//! CaptureWriter ─┘  ◀────────── empty ones    └──▶ file
//! ```
//!
//! The number of buffers on their way is fixed: who fills them faster than the thread writes waits for one. An
//! error stays with its file, whose later bytes are dropped, and is told with the next full buffer or at the end.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers on their way at once, of all captures together.
const BUFFERS: usize = 16;

/// A thread that writes captures. It ends with the last of them.
#[derive(Debug, Clone)]
pub struct Spool {
    work: Sender<Work>,
    empty: Arc<Mutex<Receiver<Vec<u8>>>>,
}

/// One capture's way to its file.
pub(super) struct Stream {
    spool: Spool,
    file: Arc<Mutex<Spooled>>,
}

/// A file, and what went wrong with it and was not told yet.
struct Spooled {
    out: Box<dyn Write + Send>,
    failed: Option<io::Error>,
    /// It has failed, whether that was told or not.
    over: bool,
}

enum Work {
    Write(Arc<Mutex<Spooled>>, Vec<u8>),
    /// Answered when all before it is done.
    Tell(Sender<()>),
}

/// What a thread that panicked left: its state is as good as before the write that did not end.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start() -> io::Result<Spool> {
        let (work, to_do) = channel();
        let (back, empty) = channel();
        (0..BUFFERS).for_each(|_| drop(back.send(Vec::new()))); // the other end is here
        std::thread::Builder::new().name("spool".into()).spawn(move || {
            for work in to_do {
                match work {
                    Work::Write(file, mut bytes) => {
                        locked(&file).write(&bytes);
                        bytes.clear();
                        let _ = back.send(bytes); // nobody fills any more
                    }
                    Work::Tell(who) => drop(who.send(())),
                }
            }
        })?;
        Ok(Spool { work, empty: Arc::new(Mutex::new(empty)) })
    }

    pub(super) fn stream(&self, out: Box<dyn Write + Send>) -> Stream {
        let file = Arc::new(Mutex::new(Spooled { out, failed: None, over: false }));
        Stream { spool: self.clone(), file }
    }
}

impl Spooled {
    fn write(&mut self, bytes: &[u8]) {
        if !self.over {
            self.failed = self.out.write_all(bytes).err();
            self.over = self.failed.is_some();
        }
    }
}

impl Stream {
    /// Takes a full buffer and leaves an empty one; waits while all are on their way.
    pub(super) fn take(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let empty = locked(&self.spool.empty).recv().map_err(|_| gone())?;
        let full = std::mem::replace(buffer, empty);
        self.spool.work.send(Work::Write(self.file.clone(), full)).map_err(|_| gone())?;
        // Not waiting for a write that goes on: what it meets is told next time.
        self.file.try_lock().ok().and_then(|mut file| file.failed.take()).map_or(Ok(()), Err)
    }

    /// Waits until all is written.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let (tell, told) = channel();
        self.spool.work.send(Work::Tell(tell)).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?;
        let mut file = locked(&self.file);
        file.failed.take().map_or(Ok(()), Err)?;
        file.out.flush()
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that writes has ended: please report this as a bug")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps what it is given, and fails from a number of bytes on.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>, usize);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut kept = locked(&self.0);
            if self.1 > 0 && kept.len() + bytes.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            kept.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_of_each_file_arrive_in_order() {
        let spool = Spool::start().expect("a thread");
        let files: Vec<Kept> = (0..5).map(|_| Kept::default()).collect();
        let mut streams: Vec<Stream> = files.iter().map(|f| spool.stream(Box::new(f.clone()))).collect();
        for n in 0..1000u32 {
            let mut buffer = n.to_le_bytes().to_vec();
            streams[n as usize % 5].take(&mut buffer).expect("room");
            assert!(buffer.is_empty());
        }
        for (at, (stream, file)) in streams.iter_mut().zip(&files).enumerate() {
            stream.flush().expect("written");
            let expected: Vec<u8> = (0..200u32).flat_map(|n| (n * 5 + at as u32).to_le_bytes()).collect();
            assert_eq!(*locked(&file.0), expected);
        }
    }

    #[test]
    fn an_error_stays_with_its_file_and_is_told_once() {
        let spool = Spool::start().expect("a thread");
        let (bad, good) = (Kept(Arc::default(), 10), Kept::default());
        let (mut failing, mut other) = (spool.stream(Box::new(bad.clone())), spool.stream(Box::new(good.clone())));
        let mut told = 0;
        for _ in 0..100 {
            told += u32::from(failing.take(&mut vec![1; 8]).is_err());
            other.take(&mut vec![2; 8]).expect("room");
        }
        told += u32::from(failing.flush().is_err_and(|e| e.kind() == io::ErrorKind::StorageFull));
        assert_eq!((told, failing.flush().is_ok()), (1, true));
        other.flush().expect("written");
        assert_eq!((locked(&bad.0).len(), locked(&good.0).len()), (8, 800));
    }

    #[test]
    fn a_slow_file_makes_its_writer_wait() {
        struct Slow;
        impl Write for Slow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                std::thread::sleep(std::time::Duration::from_millis(1));
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let spool = Spool::start().expect("a thread");
        let mut stream = spool.stream(Box::new(Slow));
        let began = std::time::Instant::now();
        (0..100).for_each(|_| stream.take(&mut vec![0; 8]).expect("room"));
        assert!(
            began.elapsed() > std::time::Duration::from_millis(100 - BUFFERS as u64 - 2),
            "not all were taken at once"
        );
    }
}
