//! Capture files: reading pcap and pcapng, writing them, and the port `pcap:`.
//!
//! [`CaptureReader`] walks a file record by record, [`CaptureWriter`] writes one, and
//! [`PcapOpener`] makes a [`Port`](crate::Port) of a reader. Whatever bytes a file holds, reading
//! them ends: with the last record, or with one error that says where and after how many packets.
//!
//! ```
//! use flowyard_port::Outgoing;
//! use flowyard_port::capture::{CaptureReader, CaptureWriter, FileFormat, Interface};
//!
//! let file = tempfile::NamedTempFile::new().expect("a temporary file");
//! let mut writer = CaptureWriter::over("doc", Box::new(file.reopen().expect("a second handle")), FileFormat::Pcapng)?;
//! let eth = writer.interface(&Interface { name: "eth0".into(), ..Interface::of_link(1) })?;
//! let packet = Outgoing { bytes: &[0; 60], time_ns: 1_000_000_007, wire_len: 90, link: 1, comment: "first" };
//! writer.write(eth, &packet)?;
//! writer.finish()?;
//!
//! let mut reader = CaptureReader::open(file.path())?;
//! let record = reader.next()?.expect("one packet");
//! assert_eq!((record.number, record.time_ns, record.wire_len, record.bytes.len()), (1, 1_000_000_007, 90, 60));
//! assert_eq!(record.comment(), "first");
//! # Ok::<(), flowyard_port::PortError>(())
//! ```

mod foreign;
mod output;
mod pcap;
mod pcapng;
mod port;
mod reader;
mod record;
mod source;
mod spool;
mod writer;

pub use output::PcapOutput;
pub use port::PcapOpener;
pub use reader::CaptureReader;
pub use record::{Interface, Options, Record};
pub use spool::Spool;
pub use writer::{CaptureWriter, FileFormat};

/// Longest packet that a record may hold, unless its link type is one of those in
/// [`longest_packet`]: what Wireshark and libpcap accept (`WTAP_MAX_PACKET_SIZE_STANDARD`).
pub const LONGEST_PACKET: usize = 262_144;

/// Longest packet that a record of link type `link` may hold. D-Bus messages and USB transfers go
/// far beyond what networks carry.
pub const fn longest_packet(link: u16) -> usize {
    match link {
        // LINKTYPE_DBUS; USB: _USB_LINUX, _USB_LINUX_MMAPPED, _USBPCAP, _USB_DARWIN.
        231 | 189 | 220 | 249 | 266 => 128 << 20,
        // LINKTYPE_EBHSCR
        279 => 32 << 20,
        _ => LONGEST_PACKET,
    }
}
