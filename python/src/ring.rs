//! A ring that was attached to. The lock is never held while a thread sleeps, nor while it waits for Python.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::flowyard::attach::{About, Attach, End};
use ::flowyard::mem::Wait;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::batch::{Batch, Shared};
use crate::{AttachError, YardLost};

/// As batches share it with their ring.
pub type Inner = Arc<Mutex<flowyard_capi::Ring>>;

pub fn lock(inner: &Inner) -> MutexGuard<'_, flowyard_capi::Ring> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Packets of a batch, unless it is said how many.
const COUNT: usize = 64;

/// A ring of a yard. Iterating over it gives batches of packets until the yard ends.
#[pyclass(module = "flowyard", frozen)]
pub struct Ring {
    /// None once it was closed.
    inner: Mutex<Option<Inner>>,
    readable: OwnedFd,
    about: About,
    annotation_bytes: usize,
}

/// Attaches to a ring: NAME/RING or NAME/GROUP/RING; with `socket`, the path of a yard's socket, RING or GROUP/RING.
///
/// `write` asks for leave to write packets and annotations. `patience` says for how many seconds to try while there is no
/// yard or somebody else has the ring; None, for ever.
#[pyfunction]
#[pyo3(signature = (ring, *, write = false, program = None, socket = None, patience = Some(0.0)))]
pub fn attach(
    py: Python<'_>,
    ring: &str,
    write: bool,
    program: Option<&str>,
    socket: Option<PathBuf>,
    patience: Option<f64>,
) -> PyResult<Ring> {
    let refused = |e: ::flowyard::attach::AttachError| AttachError::new_err(e.to_string());
    let attach = match socket {
        Some(path) => Attach::at(path, ring),
        None => Attach::to(ring).map_err(refused)?,
    };
    let attach = attach.write(write);
    let attach = program.map_or(attach.clone(), |program| attach.called(program));
    let deadline = patience.map(seconds).transpose()?.and_then(|patience| Instant::now().checked_add(patience));
    let attached = loop {
        // In parts: whoever presses Ctrl-C means it.
        let left = deadline.map_or(PART, |deadline| deadline.saturating_duration_since(Instant::now()));
        match py.detach(|| attach.within(Some(left.min(PART)))) {
            Ok(attached) => break attached,
            Err(why) if left < PART || !may_mend(&why) => return Err(refused(why)),
            Err(_) => py.check_signals()?,
        }
    };
    let about = attached.about().clone();
    let inner = flowyard_capi::Ring::new(attached).map_err(PyOSError::new_err)?;
    let readable = inner.readable().try_clone_to_owned()?;
    let annotation_bytes = inner.annotation_bytes();
    Ok(Ring { inner: Mutex::new(Some(Arc::new(Mutex::new(inner)))), readable, about, annotation_bytes })
}

/// Longest time without a look at signals.
const PART: Duration = Duration::from_millis(200);

fn may_mend(why: &::flowyard::attach::AttachError) -> bool {
    use ::flowyard::attach::AttachError::{Reach, Refused};
    matches!(why, Reach { .. } | Refused { .. })
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    let wrong = || PyValueError::new_err(format!("{seconds} is no number of seconds: give 0 or more, or None"));
    if seconds.is_nan() || seconds < 0.0 {
        Err(wrong())
    } else {
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

impl Ring {
    fn inner(&self) -> PyResult<Inner> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clone().ok_or_else(|| PyValueError::new_err(format!("ring {} was closed", self.about)))
    }

    fn until(&self, py: Python<'_>, deadline: Option<Instant>) -> PyResult<Wait> {
        let inner = self.inner()?;
        loop {
            let there = lock(&inner).prepare_to_wait();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if there != Wait::TimedOut || left.is_some_and(|left| left.is_zero()) {
                return Ok(there);
            }
            let left = left.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
            // Interrupted: a signal's handler is to run.
            let _ = py.detach(|| poll(&mut [PollFd::new(&self.readable, PollFlags::IN)], left.as_ref()));
            py.check_signals()?;
        }
    }
}

#[pymethods]
impl Ring {
    /// Takes up to `count` packets; the batch is empty if there are none now.
    #[pyo3(signature = (count = COUNT))]
    fn take(&self, count: usize) -> PyResult<Batch> {
        let inner = self.inner()?;
        let held = lock(&inner).hold(count);
        Ok(Batch::new(Shared::new(inner, held)))
    }

    /// Waits for packets, `timeout` seconds at most. True if there are some; False if not yet, or if the yard has ended.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let timeout = timeout.map(seconds).transpose()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout)); // beyond all time: none
        Ok(self.until(py, deadline)? == Wait::Ready)
    }

    /// A descriptor for select, poll or an event loop: readable when there may be packets, after prepare_to_wait() has
    /// answered True.
    fn fileno(&self) -> i32 {
        self.readable.as_raw_fd()
    }

    /// Tells the yard that fileno() will be waited on. True: do. False: there are packets, or the yard has ended.
    fn prepare_to_wait(&self) -> PyResult<bool> {
        Ok(lock(&self.inner()?).prepare_to_wait() == Wait::TimedOut)
    }

    /// None while there may be more packets; then "in order", or "lost" if the yard was killed.
    #[getter]
    fn end(&self) -> PyResult<Option<&'static str>> {
        Ok(match lock(&self.inner()?).end() {
            None => None,
            Some(End::InOrder) => Some("in order"),
            Some(End::Lost) => Some("lost"),
        })
    }

    /// Gives the ring back, as soon as no batch of it is held any more.
    fn close(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, _kind: Py<PyAny>, _value: Py<PyAny>, _trace: Py<PyAny>) {
        self.close();
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        loop {
            let batch = self.take(COUNT)?;
            if batch.count() > 0 {
                return Ok(Some(batch));
            }
            if self.until(py, None)? == Wait::Ended {
                return match self.end()? {
                    Some("lost") => {
                        Err(YardLost::new_err(format!("the yard of ring {} is gone without a word", self.about)))
                    }
                    _ => Ok(None),
                };
            }
        }
    }

    /// Name of the yard.
    #[getter]
    fn yard(&self) -> &str {
        &self.about.yard
    }

    /// Name of the ring's group, or "".
    #[getter]
    fn group(&self) -> &str {
        &self.about.group
    }

    /// Number of the ring in its group.
    #[getter]
    fn ring(&self) -> u16 {
        self.about.ring
    }

    /// Rings of the group.
    #[getter]
    fn rings(&self) -> u16 {
        self.about.rings
    }

    /// Names of the yard's ports, as tags number them.
    #[getter]
    fn ports(&self) -> Vec<String> {
        self.about.ports.clone()
    }

    /// Whether packets may be written.
    #[getter]
    fn writable(&self) -> bool {
        self.about.write
    }

    /// Bytes of every packet's annotation.
    #[getter]
    fn annotation_bytes(&self) -> usize {
        self.annotation_bytes
    }

    fn __repr__(&self) -> String {
        format!("<flowyard.Ring {}>", self.about)
    }
}
