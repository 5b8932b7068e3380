//! A part of a packet, by Python's buffer protocol (<https://docs.python.org/3/c-api/buffer.html>).
//!
//! # Invariant of the unsafe code
//! `data` has `len` bytes as long as the packets are held (`flowyard_capi`'s views), and they are as long as there are
//! buffers of it (`Shared::export`). The yard may change the bytes meanwhile: Python reads them as C does.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::batch::Shared;

/// Not shown to Python but through a memoryview.
#[pyclass(module = "flowyard", frozen)]
pub struct Part {
    shared: Arc<Shared>,
    data: *mut u8,
    len: usize,
    writable: bool,
}

// SAFETY: an address in a mapping that belongs to no thread, never followed but by buffers (invariant).
unsafe impl Send for Part {}
// SAFETY: as above; nothing in it changes.
unsafe impl Sync for Part {}

impl Part {
    /// Of packets held by `shared`: one of their segments, or annotations.
    pub fn new(shared: Arc<Shared>, data: *mut u8, len: usize, writable: bool) -> Part {
        Part { shared, data, len, writable }
    }
}

#[pymethods]
impl Part {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no place for a buffer was given"));
        }
        let part = slf.get();
        part.shared.export()?;
        let readonly = c_int::from(!part.writable);
        // SAFETY: `view` is Python's, not null; `data` has `len` bytes while the packets are held, which `export` has
        // seen to until the buffer is released. It takes a reference to `slf`, and with it to the packets.
        let failed = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), part.data.cast(), part.len as ffi::Py_ssize_t, readonly, flags)
        };
        if failed != 0 {
            part.shared.let_go();
            return Err(PyErr::fetch(slf.py()));
        }
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.shared.let_go();
    }
}
