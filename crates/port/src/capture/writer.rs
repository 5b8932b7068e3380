//! Writing a capture: pcapng with nanoseconds, or classic pcap with nanoseconds where the file's
//! name ends in `.pcap`.
//!
//! Records are gathered in a buffer of 256 KiB and written in one call when it is full. Nothing is
//! rewritten later, so the destination may be a pipe. Who writes much lets a [`Spool`] do that call.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::record::{Interface, OPT_COMMENT};
use super::spool::{Spool, Stream};
use super::{longest_packet, pcapng};
use crate::{Outgoing, PortError, Sink};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;
/// Longest value of an option, in bytes that are a multiple of four.
const LONGEST_OPTION: usize = 0xfffc;

/// How a capture is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// pcapng: several interfaces and link types, comments.
    Pcapng,
    /// Classic pcap with nanoseconds: one link type, no comments, no names.
    Pcap,
}

impl FileFormat {
    /// The format that a file's name asks for: pcapng unless it ends in `.pcap`.
    pub fn of_name(path: &Path) -> FileFormat {
        match path.extension() {
            Some(end) if end.eq_ignore_ascii_case("pcap") => FileFormat::Pcap,
            _ => FileFormat::Pcapng,
        }
    }
}

/// A capture being written. Dropping it writes what was gathered, without a word if that fails:
/// call [`CaptureWriter::finish`].
pub struct CaptureWriter {
    name: String,
    out: Destination,
    format: FileFormat,
    buffer: Vec<u8>,
    /// Link type of each interface.
    links: Vec<u16>,
    written_bytes: u64,
    packets: u64,
}

/// Where full buffers go.
enum Destination {
    /// Out, at once.
    Here(Box<dyn Write + Send>),
    /// To the thread that writes them.
    Spool(Stream),
}

impl std::fmt::Debug for CaptureWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureWriter")
            .field("name", &self.name)
            .field("packets", &self.packets)
            .finish_non_exhaustive()
    }
}

impl CaptureWriter {
    /// Makes a file, or takes standard output for `-`. An existing file is replaced.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<CaptureWriter, PortError> {
        CaptureWriter::create_with(path, "", None)
    }

    /// As [`CaptureWriter::create`], with a comment on the whole file (pcapng only), and written by the thread
    /// of a spool if one is given.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create_with(
        path: impl AsRef<Path>,
        comment: &str,
        spool: Option<&Spool>,
    ) -> Result<CaptureWriter, PortError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = if path.as_os_str() == "-" {
            io::stdout().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::create(path)
        };
        let file = file.map_err(|e| {
            PortError::action(name.as_str(), "make the capture", e, "check that the folder exists and may be written")
        })?;
        let out = match spool {
            None => Destination::Here(Box::new(file)),
            Some(spool) => Destination::Spool(spool.stream(Box::new(file))),
        };
        CaptureWriter::begin(name, out, FileFormat::of_name(path), comment)
    }

    /// Writes to anything; `name` is for errors.
    ///
    /// # Errors
    /// None yet: the first bytes are gathered.
    pub fn over(
        name: impl Into<String>,
        out: Box<dyn Write + Send>,
        format: FileFormat,
    ) -> Result<CaptureWriter, PortError> {
        CaptureWriter::begin(name.into(), Destination::Here(out), format, "")
    }

    fn begin(name: String, out: Destination, format: FileFormat, comment: &str) -> Result<CaptureWriter, PortError> {
        let mut writer = CaptureWriter {
            name,
            out,
            format,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            links: Vec::new(),
            written_bytes: 0,
            packets: 0,
        };
        if format == FileFormat::Pcapng {
            writer.block(pcapng::SECTION, |body| {
                body.extend(0x1a2b_3c4du32.to_le_bytes());
                body.extend(1u16.to_le_bytes());
                body.extend(0u16.to_le_bytes());
                body.extend(u64::MAX.to_le_bytes()); // section length: not known
                let program = concat!("flowyard ", env!("CARGO_PKG_VERSION"));
                options(body, &[(OPT_COMMENT, comment.as_bytes()), (4, program.as_bytes())]);
            });
        }
        Ok(writer)
    }

    /// Describes an interface and answers its number for [`CaptureWriter::write`].
    ///
    /// # Errors
    /// A second link type in a classic pcap file, which has room for one; or the destination failed.
    pub fn interface(&mut self, interface: &Interface) -> Result<u32, PortError> {
        match self.format {
            FileFormat::Pcapng => self.block(pcapng::INTERFACE, |body| {
                body.extend(interface.link.to_le_bytes());
                body.extend([0, 0]);
                body.extend(interface.snaplen.to_le_bytes());
                let fcs = interface.fcs_len.map(|len| [len]);
                options(
                    body,
                    &[
                        (2, interface.name.as_bytes()),
                        (3, interface.description.as_bytes()),
                        (9, &[9]), // if_tsresol: nanoseconds
                        (13, fcs.as_ref().map_or(&[], <[u8; 1]>::as_slice)),
                    ],
                );
            }),
            FileFormat::Pcap if self.links.is_empty() => {
                self.buffer.extend(0xa1b2_3c4du32.to_le_bytes());
                self.buffer.extend(2u16.to_le_bytes());
                self.buffer.extend(4u16.to_le_bytes());
                self.buffer.extend([0; 8]);
                let snaplen =
                    if interface.snaplen == 0 { longest_packet(interface.link) as u32 } else { interface.snaplen };
                self.buffer.extend(snaplen.to_le_bytes());
                let fcs = interface.fcs_len.map_or(0, |len| 1 << 26 | u32::from(len / 2) << 28);
                self.buffer.extend((u32::from(interface.link) | fcs).to_le_bytes());
            }
            FileFormat::Pcap if self.links.contains(&interface.link) => {}
            FileFormat::Pcap => {
                return Err(PortError::action(
                    self.name.as_str(),
                    format!("add packets of link type {}", interface.link),
                    format!("a pcap file has one link type, this one {}", self.links[0]),
                    "give the file a name that ends in .pcapng",
                ));
            }
        }
        self.links.push(interface.link);
        Ok(self.links.len() as u32 - 1)
    }

    /// Writes a packet of an interface that [`CaptureWriter::interface`] answered. The interface
    /// decides the link type, `packet.link` is not looked at.
    ///
    /// # Errors
    /// An interface that was not described, a packet that no reader would accept, or the
    /// destination failed.
    #[inline]
    pub fn write(&mut self, interface: u32, packet: &Outgoing<'_>) -> Result<(), PortError> {
        let Some(&link) = self.links.get(interface as usize) else { return Err(self.unknown_interface(interface)) };
        let len = packet.bytes.len();
        if len > longest_packet(link) {
            return Err(self.too_long(len));
        }
        match self.format {
            FileFormat::Pcapng => self.enhanced_packet(interface, packet),
            FileFormat::Pcap => {
                let mut header = [0; 16];
                header[0..4].copy_from_slice(&((packet.time_ns / 1_000_000_000) as u32).to_le_bytes());
                header[4..8].copy_from_slice(&((packet.time_ns % 1_000_000_000) as u32).to_le_bytes());
                header[8..12].copy_from_slice(&(len as u32).to_le_bytes());
                header[12..16].copy_from_slice(&packet.wire_len.to_le_bytes());
                self.buffer.extend_from_slice(&header);
                self.buffer.extend_from_slice(packet.bytes);
            }
        }
        self.packets += 1;
        if self.buffer.len() >= BUFFER_BYTES - (16 << 10) { self.drain() } else { Ok(()) }
    }

    #[inline]
    fn enhanced_packet(&mut self, interface: u32, packet: &Outgoing<'_>) {
        let len = packet.bytes.len();
        let padding = len.next_multiple_of(4) - len;
        let comment = cut(packet.comment.as_bytes());
        let options_len = if comment.is_empty() { 0 } else { 4 + comment.len().next_multiple_of(4) + 4 };
        let block_len = (32 + len + padding + options_len) as u32;
        let mut header = [0; 28];
        header[0..4].copy_from_slice(&pcapng::ENHANCED_PACKET.to_le_bytes());
        header[4..8].copy_from_slice(&block_len.to_le_bytes());
        header[8..12].copy_from_slice(&interface.to_le_bytes());
        header[12..16].copy_from_slice(&((packet.time_ns >> 32) as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(packet.time_ns as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(len as u32).to_le_bytes());
        header[24..28].copy_from_slice(&packet.wire_len.to_le_bytes());
        self.buffer.reserve(block_len as usize);
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(packet.bytes);
        self.buffer.extend_from_slice(&[0; 3][..padding]);
        if options_len > 0 {
            options(&mut self.buffer, &[(OPT_COMMENT, comment)]);
        }
        self.buffer.extend_from_slice(&block_len.to_le_bytes());
    }

    /// Writes everything out and answers the size of the capture in bytes.
    ///
    /// # Errors
    /// The destination failed.
    pub fn finish(mut self) -> Result<u64, PortError> {
        self.flush()?;
        Ok(self.written_bytes)
    }

    /// Packets written so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend(kind.to_le_bytes());
        self.buffer.extend([0; 4]);
        body(&mut self.buffer);
        let len = ((self.buffer.len() - start + 4) as u32).to_le_bytes();
        self.buffer[start + 4..start + 8].copy_from_slice(&len);
        self.buffer.extend(len);
    }

    fn drain(&mut self) -> Result<(), PortError> {
        self.written_bytes += self.buffer.len() as u64;
        let result = match &mut self.out {
            Destination::Here(out) => out.write_all(&self.buffer),
            Destination::Spool(stream) => stream.take(&mut self.buffer),
        };
        self.buffer.clear();
        result.map_err(|e| {
            PortError::action(
                self.name.as_str(),
                format!("write the first {} bytes", self.written_bytes),
                e,
                "check the free space",
            )
        })
    }

    #[cold]
    fn unknown_interface(&self, interface: u32) -> PortError {
        let problem = format!("{} interfaces are described", self.links.len());
        PortError::action(self.name.as_str(), format!("write a packet of interface {interface}"), problem, "")
    }

    #[cold]
    fn too_long(&self, len: usize) -> PortError {
        PortError::action(self.name.as_str(), format!("write a packet of {len} bytes"), "no reader accepts it", "")
    }
}

impl Sink for CaptureWriter {
    /// Writes a packet under the first interface of its link type, describing one if there is none.
    fn send(&mut self, packet: &Outgoing<'_>) -> Result<(), PortError> {
        let interface = match self.links.iter().position(|&link| link == packet.link) {
            Some(known) => known as u32,
            None => self.interface(&Interface::of_link(packet.link))?,
        };
        self.write(interface, packet)
    }

    fn flush(&mut self) -> Result<(), PortError> {
        if self.format == FileFormat::Pcap && self.links.is_empty() {
            // A pcap file without a header is no pcap file, even an empty one.
            self.interface(&Interface::of_link(1))?;
        }
        self.drain()?;
        let flushed = match &mut self.out {
            Destination::Here(out) => out.flush(),
            Destination::Spool(stream) => stream.flush(),
        };
        flushed.map_err(|e| PortError::action(self.name.as_str(), "write", e, "check the free space"))
    }
}

impl Drop for CaptureWriter {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

/// Appends options that have a value, and the end mark if there were any.
fn options(body: &mut Vec<u8>, options: &[(u16, &[u8])]) {
    let mut any = false;
    for (code, value) in options.iter().filter(|(_, value)| !value.is_empty()) {
        let value = cut(value);
        body.extend(code.to_le_bytes());
        body.extend((value.len() as u16).to_le_bytes());
        body.extend(value);
        body.extend(&[0; 3][..value.len().next_multiple_of(4) - value.len()]);
        any = true;
    }
    if any {
        body.extend([0; 4]);
    }
}

/// As much of a text as an option can hold, cut between characters.
fn cut(text: &[u8]) -> &[u8] {
    let mut len = text.len().min(LONGEST_OPTION);
    while len < text.len() && len > 0 && text[len] & 0xc0 == 0x80 {
        len -= 1;
    }
    &text[..len]
}
