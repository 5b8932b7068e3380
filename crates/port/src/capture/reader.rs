//! Reading a capture, record by record.
//!
//! Works on any bytes: a length is checked before it is followed, memory grows only with what has
//! really arrived, and every call makes progress or ends. Costs a few nanoseconds a record beside
//! the reading itself (`benches/captures.rs`).

use std::io::{self, Read};
use std::path::Path;

use super::pcap::{self, Pcap};
use super::pcapng::{self, Order, Resolution};
use super::record::{Interface, Options, Record};
use super::source::Source;
use super::{foreign, longest_packet};
use crate::PortError;

/// Most interfaces that one file may describe: what a tag's 16 bits can tell apart.
const MOST_INTERFACES: usize = 1 << 16;
/// Longest block that is looked into; others are passed over.
const LONGEST_BLOCK: usize = (128 << 20) + (1 << 20);
/// Most section comments kept, and most bytes of each.
const MOST_COMMENTS: usize = 256;

/// A capture being read.
///
/// Holds one window of the file (256 KiB, more only while a longer record passes). Records are
/// slices of it.
#[derive(Debug)]
pub struct CaptureReader {
    name: String,
    source: Source,
    format: Format,
    interfaces: Vec<Interface>,
    resolutions: Vec<Resolution>,
    comments: Vec<String>,
    /// Frames so far, packets or not.
    number: u64,
    /// Packets handed out.
    packets: u64,
    /// Bytes of the last record, to be passed over before the next is looked at.
    taken: u64,
}

/// What the file has turned out to be.
#[derive(Debug)]
enum Format {
    /// Nothing was read yet.
    Unknown,
    Pcap(Pcap),
    Pcapng(Section),
    /// Nothing more is to be had.
    Over,
}

#[derive(Debug)]
struct Section {
    order: Order,
    /// Index into the reader's interfaces of each interface of this section.
    interfaces: Vec<u32>,
}

/// Where the next record lies, relative to the window's start.
struct Extent {
    from: usize,
    len: usize,
    /// Length of the options behind the padded packet.
    options: usize,
    time_ns: u64,
    wire_len: u32,
    interface: u32,
    big_endian: bool,
}

/// Why there is no next record.
pub(super) enum Fault {
    /// A pipe is empty for now. Only of a patient reader.
    Wait,
    /// The file is not a capture.
    Foreign(String),
    /// The file stops making sense here.
    Damaged(String),
}

impl From<String> for Fault {
    fn from(problem: String) -> Fault {
        Fault::Damaged(problem)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            io::ErrorKind::WouldBlock => Fault::Wait,
            io::ErrorKind::UnexpectedEof => Fault::Damaged(format!("the compressed file is cut off ({error})")),
            _ => Fault::Damaged(format!("reading fails: {error}")),
        }
    }
}

impl CaptureReader {
    /// Opens a file, or standard input for `-`, and reads its header. Files packed by gzip, zstd
    /// or lz4 are recognised by their content.
    ///
    /// # Errors
    /// If it cannot be opened, is empty, or is not a capture: then with what it looks like.
    pub fn open(path: impl AsRef<Path>) -> Result<CaptureReader, PortError> {
        let mut reader = CaptureReader::unread_file(path.as_ref(), false)?;
        reader.begin().map_err(|fault| reader.explain(fault))?;
        Ok(reader)
    }

    /// Reads a capture from anything; `name` is for errors.
    ///
    /// # Errors
    /// As [`CaptureReader::open`].
    pub fn over(name: impl Into<String>, input: Box<dyn Read + Send>) -> Result<CaptureReader, PortError> {
        let mut reader = CaptureReader::new(name.into(), Source::over(input));
        reader.begin().map_err(|fault| reader.explain(fault))?;
        Ok(reader)
    }

    /// Opens a file without reading. With `patient`, [`CaptureReader::try_next`] answers
    /// [`Fault::Wait`] while a pipe is empty.
    pub(super) fn unread_file(path: &Path, patient: bool) -> Result<CaptureReader, PortError> {
        let name = path.display().to_string();
        let source = Source::open(path, patient).map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => "check the name",
                io::ErrorKind::PermissionDenied => "check the permissions of the file and its folders",
                io::ErrorKind::IsADirectory => "name a file in it",
                _ => "",
            };
            PortError::action(name.as_str(), "open the capture", e, remedy)
        })?;
        Ok(CaptureReader::new(name, source))
    }

    fn new(name: String, source: Source) -> CaptureReader {
        CaptureReader {
            name,
            source,
            format: Format::Unknown,
            interfaces: Vec::new(),
            resolutions: Vec::new(),
            comments: Vec::new(),
            number: 0,
            packets: 0,
            taken: 0,
        }
    }

    /// The next packet, or `None` at the end of the file.
    ///
    /// # Errors
    /// [`PortError::Damaged`] where the file stops making sense; everything before it has been
    /// answered. The next call answers `None`.
    #[inline]
    #[allow(clippy::should_implement_trait, reason = "a record borrows the reader, which Iterator cannot say")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, PortError> {
        match self.step() {
            Ok(Some(extent)) => Ok(Some(self.record(&extent))),
            Ok(None) => Ok(None),
            Err(fault) => Err(self.explain(fault)),
        }
    }

    /// As [`CaptureReader::next`], telling an empty pipe from damage. After any fault but
    /// [`Fault::Wait`], the caller owes an [`CaptureReader::explain`].
    #[inline]
    pub(super) fn try_next(&mut self) -> Result<Option<Record<'_>>, Fault> {
        match self.step()? {
            Some(extent) => Ok(Some(self.record(&extent))),
            None => Ok(None),
        }
    }

    /// Makes the next call answer the last record again.
    pub(super) fn put_back(&mut self) {
        debug_assert!(self.taken > 0, "only a record that was just read can be put back");
        self.taken = 0;
        self.number -= 1;
        self.packets -= 1;
    }

    /// Interfaces described so far. Those of later sections follow those of earlier ones, except
    /// that one described again just as before keeps its number.
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// Comments on the file's sections read so far.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    /// What the file is, in a word: `pcap` or `pcapng`.
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Pcap(_) => "pcap",
            Format::Pcapng(_) => "pcapng",
            Format::Unknown | Format::Over => "",
        }
    }

    /// Bytes of the (decompressed) file up to the last record answered: for progress.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// Packets answered so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Frames counted so far: packets, and records that are none.
    pub(super) fn frames(&self) -> u64 {
        self.number
    }

    /// What becomes readable when a pipe has more.
    pub(super) fn waiter(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.source.waiter()
    }

    /// Makes an error of a fault, and ends the reading.
    #[cold]
    pub(super) fn explain(&mut self, fault: Fault) -> PortError {
        self.format = Format::Over;
        self.taken = 0;
        let name = self.name.clone();
        match fault {
            Fault::Damaged(problem) => {
                PortError::Damaged { name, offset: self.source.offset(), packets: self.packets, problem }
            }
            Fault::Foreign(found) => PortError::action(
                name,
                "read the capture",
                format!("it is {found}"),
                "pcap and pcapng are read, also packed by gzip, zstd or lz4",
            ),
            Fault::Wait => PortError::action(name, "read the capture", "nothing has arrived", ""),
        }
    }

    #[inline]
    fn record(&self, extent: &Extent) -> Record<'_> {
        let data = self.source.data();
        let end = extent.from + extent.len;
        let options = match extent.options {
            0 => &[],
            len => {
                let at = extent.from + extent.len.next_multiple_of(4);
                data.get(at..at + len).unwrap_or(&[])
            }
        };
        Record {
            bytes: data.get(extent.from..end).unwrap_or(&[]),
            time_ns: extent.time_ns,
            wire_len: extent.wire_len,
            link: self.interfaces.get(extent.interface as usize).map_or(0, |i| i.link),
            interface: extent.interface,
            number: self.number,
            options: Options { bytes: options, big_endian: extent.big_endian },
        }
    }

    #[inline]
    fn step(&mut self) -> Result<Option<Extent>, Fault> {
        if !self.source.discard(&mut self.taken)? {
            return Err(Fault::Damaged(format!("the file ends {} bytes before the end of a block", self.taken)));
        }
        match &self.format {
            Format::Pcap(pcap) => {
                let pcap = *pcap;
                self.pcap_record(&pcap)
            }
            Format::Pcapng(_) => self.pcapng_record(),
            Format::Unknown => {
                self.begin()?;
                self.step()
            }
            Format::Over => Ok(None),
        }
    }

    /// Reads the file's header.
    #[cold]
    fn begin(&mut self) -> Result<(), Fault> {
        let foreign = |fault| match fault {
            // Before anything was recognised, a failing decompressor is all that is known.
            Fault::Damaged(problem) => Fault::Foreign(format!("unreadable: {problem}")),
            other => other,
        };
        // Enough for any header; a shorter file shows all it has.
        self.source.fill(pcap::FILE_HEADER).map_err(|e| foreign(e.into()))?;
        let is_pcapng = self.source.data().starts_with(&pcapng::SECTION.to_be_bytes());
        let whole = !is_pcapng || self.source.fill(pcapng::SECTION_LEAST).map_err(|e| foreign(e.into()))?;
        let head = self.source.data();
        if head.is_empty() {
            return Err(Fault::Foreign("empty".to_owned()));
        }
        if is_pcapng {
            if !whole {
                return Err(Fault::Foreign(format!("a pcapng file cut off after {} bytes", head.len())));
            }
            let order = pcapng::section_order(head).map_err(|e| Fault::Foreign(format!("a pcapng file, but {e}")))?;
            self.format = Format::Pcapng(Section { order, interfaces: Vec::new() });
        } else if Pcap::recognises(head) {
            let Some(header) = head.first_chunk() else {
                return Err(Fault::Foreign(format!("a pcap file cut off after {} bytes", head.len())));
            };
            let pcap = Pcap::parse(header).map_err(|e| Fault::Foreign(format!("a pcap file, but {e}")))?;
            self.interfaces.push(Interface {
                snaplen: pcap.snaplen,
                fcs_len: pcap.fcs_len,
                ..Interface::of_link(pcap.link)
            });
            self.taken = pcap::FILE_HEADER as u64;
            self.format = Format::Pcap(pcap);
        } else {
            return Err(Fault::Foreign(foreign::describe(&head[..head.len().min(256)])));
        }
        Ok(())
    }

    #[inline]
    fn pcap_record(&mut self, pcap: &Pcap) -> Result<Option<Extent>, Fault> {
        if !self.source.fill(pcap.header_len)? {
            return self.end_of_file("a record's header");
        }
        let Some(header) = self.source.data().first_chunk() else { return Ok(None) };
        let head = pcap.head(header);
        let len = head.captured_len as usize;
        if len > longest_packet(pcap.link) {
            return Err(too_long(len));
        }
        let whole = pcap.header_len + len;
        if !self.source.fill(whole)? {
            return Err(self.cut(whole, "packet"));
        }
        self.taken = whole as u64;
        self.number += 1;
        self.packets += 1;
        Ok(Some(Extent {
            from: pcap.header_len,
            len,
            options: 0,
            time_ns: head.time_ns,
            wire_len: head.wire_len,
            interface: 0,
            big_endian: false,
        }))
    }

    /// Nothing is left: the end, unless some bytes are.
    #[cold]
    fn end_of_file(&mut self, of: &str) -> Result<Option<Extent>, Fault> {
        match self.source.data().len() {
            0 => {
                self.format = Format::Over;
                Ok(None)
            }
            left => Err(Fault::Damaged(format!("the file ends after {left} bytes of {of}"))),
        }
    }

    #[cold]
    fn cut(&self, whole: usize, of: &str) -> Fault {
        Fault::Damaged(format!("the file ends {} bytes before the end of a {of}", whole - self.source.data().len()))
    }

    fn pcapng_record(&mut self) -> Result<Option<Extent>, Fault> {
        loop {
            if !self.source.discard(&mut self.taken)? {
                return Err(Fault::Damaged(format!("the file ends {} bytes before the end of a block", self.taken)));
            }
            if !self.source.fill(pcapng::BLOCK_LEAST)? {
                return self.end_of_file("a block");
            }
            let Format::Pcapng(section) = &self.format else { return Ok(None) };
            let mut order = section.order;
            let head = self.source.data();
            let kind = order.word(head, 0..4);
            if kind == pcapng::SECTION {
                order = pcapng::byte_order(head)?;
            }
            let len = order.word(head, 4..8) as usize;
            if len < pcapng::BLOCK_LEAST {
                return Err(Fault::Damaged(format!("a block of type {kind:#x} is {len} bytes long")));
            }
            // Every block is a multiple of four long; a writer that forgot the padding still wrote it.
            let len = len.next_multiple_of(4);
            match kind {
                pcapng::ENHANCED_PACKET | pcapng::SIMPLE_PACKET | pcapng::OBSOLETE_PACKET => {
                    self.whole_block(order, len)?;
                    return self.pcapng_packet(order, kind, len).map(Some);
                }
                pcapng::SECTION => {
                    self.whole_block(order, len)?;
                    self.begin_section(len)?;
                }
                pcapng::INTERFACE => {
                    self.whole_block(order, len)?;
                    self.add_interface(order, len)?;
                }
                _ if len <= 1 << 16 => {
                    self.whole_block(order, len)?;
                    self.number += u64::from(pcapng::is_numbered_event(kind));
                }
                // Long ones are passed over without a look at their end.
                _ => self.number += u64::from(pcapng::is_numbered_event(kind)),
            }
            self.taken = len as u64;
        }
    }

    /// Brings a whole block into the window and compares its two lengths.
    #[inline]
    fn whole_block(&mut self, order: Order, len: usize) -> Result<(), Fault> {
        if len > LONGEST_BLOCK {
            return Err(Fault::Damaged(format!("a block claims to be {len} bytes long")));
        }
        if !self.source.fill(len)? {
            return Err(self.cut(len, "block"));
        }
        let block = &self.source.data()[..len];
        let (first, last) = (order.word(block, 4..8), order.word(block, len - 4..len));
        if first != last {
            return Err(Fault::Damaged(format!("a block's lengths differ: {first} before, {last} behind")));
        }
        Ok(())
    }

    #[inline]
    fn pcapng_packet(&mut self, order: Order, kind: u32, len: usize) -> Result<Extent, Fault> {
        let Format::Pcapng(section) = &self.format else { return Err(Fault::Damaged("no section".to_owned())) };
        let block = &self.source.data()[..len];
        let packet = pcapng::packet(order, kind, block)?;
        let Some(&interface) = section.interfaces.get(packet.interface as usize) else {
            return Err(no_interface(packet.interface, section.interfaces.len()));
        };
        let (described, resolution) = (&self.interfaces[interface as usize], self.resolutions[interface as usize]);
        let mut captured_len = packet.captured_len as usize;
        if kind == pcapng::SIMPLE_PACKET && described.snaplen != 0 {
            captured_len = captured_len.min(described.snaplen as usize);
        }
        if captured_len > longest_packet(described.link) {
            return Err(too_long(captured_len));
        }
        let room = len - 4 - packet.data;
        if captured_len > room {
            return Err(Fault::Damaged(format!(
                "a packet of {captured_len} bytes in a block that has room for {room}"
            )));
        }
        let time_ns = if packet.has_time { resolution.nanoseconds(packet.units) } else { 0 };
        let options = if packet.has_options { room.saturating_sub(captured_len.next_multiple_of(4)) } else { 0 };
        self.taken = len as u64;
        self.number += 1;
        self.packets += 1;
        Ok(Extent {
            from: packet.data,
            len: captured_len,
            options,
            time_ns,
            wire_len: packet.wire_len,
            interface,
            big_endian: order.big_endian,
        })
    }

    #[cold]
    fn begin_section(&mut self, len: usize) -> Result<(), Fault> {
        if len < pcapng::SECTION_LEAST {
            return Err(Fault::Damaged(format!("a section header of {len} bytes is too short")));
        }
        let block = &self.source.data()[..len];
        let order = pcapng::section_order(block)?;
        let room = MOST_COMMENTS.saturating_sub(self.comments.len());
        self.comments.extend(pcapng::section_comments(order, block).into_iter().take(room));
        self.format = Format::Pcapng(Section { order, interfaces: Vec::new() });
        Ok(())
    }

    #[cold]
    fn add_interface(&mut self, order: Order, len: usize) -> Result<(), Fault> {
        let (interface, resolution) = pcapng::interface(order, &self.source.data()[..len])?;
        let Format::Pcapng(section) = &mut self.format else { return Ok(()) };
        if section.interfaces.len() >= MOST_INTERFACES {
            return Err(Fault::Damaged(format!("a section describes more than {MOST_INTERFACES} interfaces")));
        }
        // Sections of one capture (files joined by cat) describe the same interfaces over again.
        let same = section.interfaces.len();
        let known = self.interfaces.get(same) == Some(&interface) && self.resolutions.get(same) == Some(&resolution);
        let index = if known {
            same
        } else {
            if self.interfaces.len() >= MOST_INTERFACES {
                return Err(Fault::Damaged(format!("the file describes more than {MOST_INTERFACES} interfaces")));
            }
            self.interfaces.push(interface);
            self.resolutions.push(resolution);
            self.interfaces.len() - 1
        };
        section.interfaces.push(index as u32);
        Ok(())
    }
}

#[cold]
fn too_long(len: usize) -> Fault {
    Fault::Damaged(format!("a packet claims {len} captured bytes, more than any capture holds"))
}

#[cold]
fn no_interface(number: u32, count: usize) -> Fault {
    Fault::Damaged(format!("a packet of interface {number}, where the section has described {count}"))
}
