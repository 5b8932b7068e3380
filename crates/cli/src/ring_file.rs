//! A capture of what one ring got. An interface for each port, queue and link type that it met.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowyard::mem::{Packet, Tag, flags};
use flowyard::port::capture::{CaptureWriter, FileFormat, Interface};
use flowyard::port::{Outgoing, PortError, Sink};

/// A capture being written.
pub struct RingFile {
    writer: CaptureWriter,
    known: Vec<((u16, u16, u16), u32)>,
    bytes: Vec<u8>,
    /// Says the tag of each packet as a comment, where the format has any.
    comments: bool,
    comment: String,
    ports: Vec<String>,
    reader_gone: Arc<AtomicBool>,
}

/// A file or pipe, and word of it when nobody reads a pipe any more.
struct Piped {
    file: File,
    reader_gone: Arc<AtomicBool>,
}

impl Write for Piped {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            self.reader_gone.fetch_or(error.kind() == std::io::ErrorKind::BrokenPipe, Ordering::Relaxed);
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl RingFile {
    /// Makes the file; standard output for `-`.
    pub fn create(path: &Path) -> Result<RingFile, PortError> {
        let file = if path.as_os_str() == "-" {
            std::io::stdout().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::create(path)
        };
        let name = path.display().to_string();
        let remedy = "check that the folder exists and may be written";
        let file = file.map_err(|e| PortError::action(name.as_str(), "make the capture", e, remedy))?;
        let reader_gone = Arc::new(AtomicBool::new(false));
        let out = Box::new(Piped { file, reader_gone: reader_gone.clone() });
        let writer = CaptureWriter::over(name, out, FileFormat::of_name(path))?;
        let (known, bytes, ports, comment) = (Vec::new(), Vec::new(), Vec::new(), String::new());
        Ok(RingFile { writer, known, bytes, comments: false, comment, ports, reader_gone })
    }

    /// Whether it is a pipe that nobody reads any more: who writes on is told of an error.
    pub fn is_reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::Relaxed) // set by this thread
    }

    /// With what Flowyard knows of each packet as its comment, and ports by these names.
    pub fn commented(self, path: &Path, ports: &[String]) -> RingFile {
        let comments = FileFormat::of_name(path) == FileFormat::Pcapng;
        RingFile { comments, ports: ports.to_vec(), ..self }
    }

    /// Writes a packet.
    pub fn write(&mut self, packet: &Packet<'_>) -> Result<(), PortError> {
        let tag = packet.tag();
        let source = (tag.port, tag.queue, tag.link);
        let interface = match self.known.iter().find(|(known, _)| *known == source) {
            Some((_, interface)) => *interface,
            None => {
                let port = self.ports.get(usize::from(tag.port));
                let port = port.cloned().unwrap_or_else(|| format!("port{}", tag.port));
                let name = format!("{port}/{}", tag.queue);
                let interface = self.writer.interface(&Interface { name, ..Interface::of_link(tag.link) })?;
                self.known.push((source, interface));
                interface
            }
        };
        self.bytes.clear();
        for segment in packet.segments() {
            self.bytes.extend_from_slice(segment);
        }
        if self.comments {
            self.comment.clear();
            said(&mut self.comment, &tag);
        }
        let (time_ns, wire_len, link) = (tag.time_ns, tag.wire_len, tag.link);
        self.writer.write(interface, &Outgoing { bytes: &self.bytes, time_ns, wire_len, link, comment: &self.comment })
    }

    /// Hands on what was gathered, to whom it may concern at once.
    pub fn flush(&mut self) -> Result<(), PortError> {
        self.writer.flush()
    }

    /// Writes everything out.
    pub fn finish(self) -> Result<u64, PortError> {
        self.writer.finish()
    }
}

/// The tag in words that a dissector can take apart: `flowyard: ring=2 hash=0badcafe …`. What has nothing to say is
/// left out. contrib/wireshark/flowyard.lua reads it.
fn said(comment: &mut String, tag: &Tag) {
    use std::fmt::Write as _;
    let _ = write!(comment, "flowyard: ring={} hash={:08x} port={} queue={}", tag.ring, tag.hash, tag.port, tag.queue);
    if tag.depth > 0 {
        let _ = write!(comment, " depth={}", tag.depth);
    }
    if tag.tunnel_kind != 0 {
        let _ = write!(comment, " tunnel={} tunnel_kind={}", tag.tunnel_id, tag.tunnel_kind);
    }
    if tag.vlan != 0 {
        let _ = write!(comment, " vlan={}", tag.vlan & 0xfff);
    }
    if tag.user != 0 {
        let _ = write!(comment, " user={:#x}", tag.user);
    }
    if tag.kind & 3 != 0 {
        let _ = write!(comment, " fragment={}", if tag.kind & 3 == 1 { "first" } else { "later" });
    }
    for (bit, word) in [
        (flags::FRAGMENT_FALLBACK, "fallback"),
        (flags::CHECKSUM_PARTIAL, "checksum_partial"),
        (flags::GSO, "gso"),
        (flags::VLAN_STRIPPED, "vlan_stripped"),
    ] {
        if tag.has(bit) {
            let _ = write!(comment, " {word}=1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_says_what_there_is_to_say() {
        let text = |tag: Tag| {
            let mut text = String::new();
            said(&mut text, &tag);
            text
        };
        let plain = Tag { ring: 2, hash: 0xabc, port: 1, queue: 3, ..Tag::default() };
        assert_eq!(text(plain), "flowyard: ring=2 hash=00000abc port=1 queue=3");
        let all = Tag {
            depth: 2,
            tunnel_id: 77,
            tunnel_kind: 4,
            vlan: 0x2064,
            user: 16,
            kind: 2,
            flags: flags::GSO | flags::FRAGMENT_FALLBACK,
            ..plain
        };
        let rest = " depth=2 tunnel=77 tunnel_kind=4 vlan=100 user=0x10 fragment=later fallback=1 gso=1";
        assert_eq!(text(all), text(plain) + rest);
    }
}
