//! Packets that were taken together, and who still looks at them.
//!
//! ```text
//! Batch ──▶ Shared (Arc) ──▶ the packets, and their ring
//!   └─ views that it gave: memoryview ──▶ Part ──▶ Shared
//! Packet ──▶ Batch
//! ```
//!
//! `release` ends the views that were given, and gives the packets back, unless something else was made of one (a slice of
//! it, an array): then it refuses, as Python does for a bytearray. Without `release` they go back when nothing refers
//! to them any more.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flowyard_capi::{Held, PacketView};
use pyo3::exceptions::{PyBufferError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::packet::{Packet, tag_of};
use crate::ring::{Inner, lock};

/// Packets, until they are given back.
pub struct Shared {
    ring: Inner,
    state: Mutex<State>,
}

struct State {
    /// None once they were given back.
    held: Option<Held>,
    /// Buffers that Python has of them.
    exports: usize,
}

impl Shared {
    pub fn new(ring: Inner, held: Held) -> Arc<Shared> {
        Arc::new(Shared { ring, state: Mutex::new(State { held: Some(held), exports: 0 }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the packets, which stay meanwhile.
    pub fn with<T>(&self, then: impl FnOnce(&[PacketView]) -> T) -> PyResult<T> {
        match &self.state().held {
            Some(held) => Ok(then(held.views())),
            None => Err(PyValueError::new_err("the batch was released: its packets are the yard's again")),
        }
    }

    /// One more buffer: the packets stay until it is let go of.
    pub fn export(&self) -> PyResult<()> {
        let mut state = self.state();
        if state.held.is_none() {
            return Err(PyValueError::new_err("the batch was released: its packets are the yard's again"));
        }
        state.exports += 1;
        Ok(())
    }

    /// One fewer.
    pub fn let_go(&self) {
        self.state().exports -= 1;
    }

    fn release(&self) -> PyResult<()> {
        let mut state = self.state();
        if state.exports > 0 {
            let views = state.exports;
            return Err(PyBufferError::new_err(format!(
                "{views} views made of its packets are in use: let go of them first"
            )));
        }
        if let Some(mut held) = state.held.take() {
            lock(&self.ring).give_back(&mut held);
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whatever has a buffer has this as well: none is left.
        if let Some(mut held) = self.state().held.take() {
            lock(&self.ring).give_back(&mut held);
        }
    }
}

/// Packets that were taken together: a sequence. They are given back when the batch is released, or nothing refers to it
/// or to a view of it any more.
#[pyclass(module = "flowyard", frozen)]
pub struct Batch {
    pub shared: Arc<Shared>,
    count: usize,
    views: Mutex<Vec<Py<PyMemoryView>>>,
}

/// One record of [`Batch::slots`] for numpy: names and types.
pub fn dtype() -> Vec<(&'static str, &'static str)> {
    let fields = [("hash", "u4"), ("len", "u4"), ("time_ns", "u8"), ("buffer", "u4"), ("wire_len", "u4")];
    let small = [("flags", "u2"), ("l3", "u2"), ("l4", "u2"), ("port", "u2")];
    fields.into_iter().chain(small).collect()
}

fn record(view: &PacketView) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0..4].copy_from_slice(&view.hash.to_ne_bytes());
    bytes[4..8].copy_from_slice(&view.total.to_ne_bytes());
    bytes[8..16].copy_from_slice(&view.time_ns.to_ne_bytes());
    bytes[16..20].copy_from_slice(&view.buffer.to_ne_bytes());
    bytes[20..24].copy_from_slice(&tag_of(view).wire_len.to_ne_bytes());
    for (at, number) in [view.flags, view.l3, view.l4, view.port.into()].into_iter().enumerate() {
        bytes[24 + 2 * at..26 + 2 * at].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

impl Batch {
    pub fn new(shared: Arc<Shared>) -> Batch {
        let count = shared.with(<[PacketView]>::len).unwrap_or_default();
        Batch { shared, count, views: Mutex::new(Vec::new()) }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Remembers a view, to be ended when the batch is released.
    pub fn gave(&self, view: &Bound<'_, PyMemoryView>) {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(view.clone().unbind());
    }
}

#[pymethods]
impl Batch {
    fn __len__(&self) -> usize {
        self.count
    }

    fn __getitem__(slf: Py<Self>, index: isize) -> PyResult<Packet> {
        let count = slf.get().count;
        let at = if index < 0 { index.checked_add_unsigned(count) } else { Some(index) };
        let at = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < count);
        let index = at.ok_or_else(|| PyIndexError::new_err(format!("packet {index} of {count}")))?;
        Ok(Packet { batch: slf, index })
    }

    fn __iter__(slf: Py<Self>) -> Packets {
        Packets { batch: slf, next: 0 }
    }

    /// Hash, lengths, time and more of all packets, in one buffer: numpy.frombuffer(batch.slots, flowyard.SLOT_DTYPE). A
    /// copy, which outlives the batch.
    #[getter]
    fn slots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes: Vec<u8> = self.shared.with(|views| views.iter().flat_map(record).collect())?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Gives the packets back now. Views of them raise ValueError from then on. BufferError, if something else was made
    /// of one (a slice, an array) and is still there.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let views = std::mem::take(&mut *self.views.lock().unwrap_or_else(PoisonError::into_inner));
        let kept = views.into_iter().filter(|view| view.call_method0(py, "release").is_err());
        let kept: Vec<_> = kept.collect();
        self.views.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
        self.shared.release()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _kind: Py<PyAny>, _value: Py<PyAny>, _trace: Py<PyAny>) -> PyResult<()> {
        self.release(py)
    }

    fn __repr__(&self) -> String {
        format!("<flowyard.Batch of {} packets>", self.count)
    }
}

/// Iterates over a batch.
#[pyclass(module = "flowyard")]
pub struct Packets {
    batch: Py<Batch>,
    next: usize,
}

#[pymethods]
impl Packets {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> Option<Packet> {
        let index = self.next;
        (index < self.batch.get().count).then(|| {
            self.next += 1;
            Packet { batch: self.batch.clone_ref(py), index }
        })
    }
}
