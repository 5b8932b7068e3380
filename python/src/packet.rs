//! A packet of a batch, and its tag.
//!
//! # Of the unsafe code
//! What views point to is there while the batch is held, which `Shared::with` sees to for as long as it runs.
#![allow(unsafe_code)]

use flowyard::mem;
use flowyard_capi::{PacketView, SegmentView};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView};

use crate::batch::Batch;
use crate::part::Part;

/// The tag in front of a packet, copied. Of a packet that is held.
pub fn tag_of(view: &PacketView) -> mem::Tag {
    if view.tag.is_null() {
        return mem::Tag::default();
    }
    // SAFETY: 64 bytes of a packet that is held (the callers have `view` from `Shared::with`); any bytes are a tag.
    unsafe { view.tag.read_unaligned() }
}

fn further(view: &PacketView) -> &[SegmentView] {
    if view.further.is_null() {
        return &[];
    }
    // SAFETY: so many entries, of the batch that `view` is from, and as long as that.
    unsafe { std::slice::from_raw_parts(view.further, view.further_count as usize) }
}

/// A packet. Its attributes raise ValueError once its batch was released.
#[pyclass(module = "flowyard", frozen)]
pub struct Packet {
    pub batch: Py<Batch>,
    pub index: usize,
}

impl Packet {
    fn with<T>(&self, then: impl FnOnce(&PacketView) -> T) -> PyResult<T> {
        self.batch.get().shared.with(|views| then(&views[self.index])) // below the batch's count, which never changes
    }

    fn view<'py>(
        &self,
        py: Python<'py>,
        data: *mut u8,
        len: usize,
        writable: bool,
    ) -> PyResult<Bound<'py, PyMemoryView>> {
        let batch = self.batch.get();
        let part = Bound::new(py, Part::new(batch.shared.clone(), data, len, writable))?;
        let view = PyMemoryView::from(part.as_any())?;
        batch.gave(&view);
        Ok(view)
    }
}

#[pymethods]
impl Packet {
    /// The packet's bytes where they lie: of its first segment, which is all of it unless `segments` has more.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let (data, len, writable) = self.with(|view| (view.data, view.len, view.writable))?;
        self.view(py, data, len as usize, writable != 0)
    }

    /// Views of all its segments.
    #[getter]
    fn segments<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        let mut all = vec![self.data(py)?];
        let parts: Vec<(*mut u8, u32)> =
            self.with(|view| further(view).iter().map(|part| (part.data.cast_mut(), part.len)).collect())?;
        for (data, len) in parts {
            all.push(self.view(py, data, len as usize, false)?);
        }
        Ok(all)
    }

    /// The application's bytes in front of the packet; empty if there are none.
    #[getter]
    fn annotation<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyMemoryView>> {
        let (data, len, writable) = self.with(|view| (view.annotation, view.annotation_len, view.writable))?;
        let data = if data.is_null() { std::ptr::NonNull::dangling().as_ptr() } else { data }; // of no bytes
        self.view(py, data, len.into(), writable != 0)
    }

    /// A copy of the whole packet.
    fn __bytes__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let parts: Vec<u8> = self.with(|view| {
            let first = (view.data.cast_const(), view.len);
            let parts = std::iter::once(first).chain(further(view).iter().map(|part| (part.data, part.len)));
            // SAFETY: segments of a packet that is held as long as this runs; a foreign writer can make its bytes any,
            // which a copy of bytes may be.
            parts.flat_map(|(data, len)| unsafe { std::slice::from_raw_parts(data, len as usize) }.to_vec()).collect()
        })?;
        Ok(PyBytes::new(py, &parts))
    }

    /// What is known of the packet.
    #[getter]
    fn tag(&self) -> PyResult<Tag> {
        self.with(|view| Tag::of(&tag_of(view)))
    }

    /// Symmetric hash of the conversation.
    #[getter]
    fn hash(&self) -> PyResult<u32> {
        self.with(|view| view.hash)
    }

    /// Bytes captured, over all segments.
    #[getter]
    fn len(&self) -> PyResult<u32> {
        self.with(|view| view.total)
    }

    /// When, in nanoseconds by `tag.clock`.
    #[getter]
    fn time_ns(&self) -> PyResult<u64> {
        self.with(|view| view.time_ns)
    }

    /// Innermost IP header, or NO_OFFSET.
    #[getter]
    fn l3(&self) -> PyResult<u16> {
        self.with(|view| view.l3)
    }

    /// Innermost layer-4 header, or NO_OFFSET.
    #[getter]
    fn l4(&self) -> PyResult<u16> {
        self.with(|view| view.l4)
    }

    /// Number of the port that it came in by.
    #[getter]
    fn port(&self) -> PyResult<u8> {
        self.with(|view| view.port)
    }

    /// Whether it may be written.
    #[getter]
    fn writable(&self) -> PyResult<bool> {
        self.with(|view| view.writable != 0)
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.len()? as usize)
    }

    fn __repr__(&self) -> PyResult<String> {
        self.with(|view| format!("<flowyard.Packet of {} bytes, hash {:08x}>", view.total, view.hash))
    }
}

macro_rules! tag {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// What is known of a packet: a copy of its tag.
        #[pyclass(module = "flowyard", frozen, get_all)]
        pub struct Tag {
            $($(#[$doc])* pub $field: $type,)*
            /// By which clock time_ns is: 0 none, 1 this host's, 2 as recorded, 3 a card's own, 4 since a generator's start.
            pub clock: u8,
        }

        impl Tag {
            fn of(tag: &mem::Tag) -> Tag {
                Tag { $($field: tag.$field,)* clock: tag.clock() as u8 }
            }
        }
    };
}

tag! {
    /// Symmetric hash of the conversation.
    hash: u32,
    /// Ring of the yard-level decision.
    ring: u16,
    /// Why dissection ended.
    stop: u8,
    /// IP headers passed.
    depth: u8,
    /// Outermost IP header, or NO_OFFSET.
    outer_l3: u16,
    /// Innermost IP header, or NO_OFFSET.
    inner_l3: u16,
    /// Innermost layer-4 header, or NO_OFFSET.
    inner_l4: u16,
    /// Innermost IP protocol.
    protocol: u8,
    /// Fragment (bits 0 and 1), IPv6 (bit 3), ICMP error (bit 4).
    kind: u8,
    /// Identifier of the innermost tunnel.
    tunnel_id: u32,
    /// Kind of the innermost tunnel.
    tunnel_kind: u8,
    /// Version of the default hash, or 0.
    hash_version: u8,
    /// Outermost VLAN's TCI, or 0.
    vlan: u16,
    /// The user's own mark.
    user: u64,
    /// When, in nanoseconds.
    time_ns: u64,
    /// What was left undone to the packet, or taken from it.
    flags: u32,
    /// Bytes on the wire.
    wire_len: u32,
    /// Bytes captured.
    len: u32,
    /// Number of the port.
    port: u16,
    /// Hardware queue.
    queue: u16,
    /// The card's own hash.
    card_hash: u32,
    /// TCI that hardware took off.
    stripped_vlan: u16,
    /// Pcap link type.
    link: u16,
}
