//! Python's module `flowyard`: rings of a running yard.
//!
//! ```python
//! import flowyard
//! with flowyard.attach("edge/0") as ring:
//!     for batch in ring:
//!         for packet in batch:
//!             print(packet.len, packet.tag.protocol, packet.data[:14].hex())
//! ```
//!
//! A batch keeps its packets until it is released or nothing refers to it, or to a view of it, any more. Views are made
//! by the buffer protocol, so Python itself knows who still looks: [`batch`].
#![deny(unsafe_code)]

mod batch;
mod packet;
mod part;
mod ring;

use pyo3::create_exception;
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;

create_exception!(flowyard, AttachError, PyConnectionError, "A ring was not attached to; the text says why.");
create_exception!(flowyard, YardLost, PyConnectionError, "The yard is gone without a word: killed, or crashed.");

/// Rings of a running Flowyard: attach() gives one, iterating over it batches of packets.
#[pymodule(name = "flowyard")]
fn define(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("AttachError", py.get_type::<AttachError>())?;
    module.add("YardLost", py.get_type::<YardLost>())?;
    module.add("NO_OFFSET", flowyard::mem::NO_OFFSET)?;
    module.add("SLOT_DTYPE", batch::dtype())?;
    module.add_function(wrap_pyfunction!(ring::attach, module)?)?;
    module.add_class::<ring::Ring>()?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<packet::Packet>()?;
    module.add_class::<packet::Tag>()
}
