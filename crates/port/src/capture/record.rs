//! What a capture says about one packet, and about the interface it was seen on.

use std::borrow::Cow;

/// One packet of a capture, borrowed from the reader until its next call.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// Nanoseconds since 1970; 0 where none is recorded (pcapng's simple packets).
    pub time_ns: u64,
    /// Bytes that were on the wire.
    pub wire_len: u32,
    /// Pcap link type of the first byte.
    pub link: u16,
    /// Index into [`CaptureReader::interfaces`](super::CaptureReader::interfaces).
    pub interface: u32,
    /// Frame number in the file, from 1, as Wireshark counts: records that are no packets (system
    /// calls, journal entries) have a number as well, and are passed over.
    pub number: u64,
    /// Options of the record, not yet looked at.
    pub options: Options<'a>,
}

impl<'a> Record<'a> {
    /// Whether fewer bytes were captured than were on the wire.
    pub fn is_cut(&self) -> bool {
        self.bytes.len() < self.wire_len as usize
    }

    /// Its comments, joined by line ends; empty without one. What is not UTF-8 is replaced.
    pub fn comment(&self) -> Cow<'a, str> {
        let mut comments = self.options.comments();
        let Some(first) = comments.next() else { return Cow::Borrowed("") };
        comments.fold(first, |mut all, next| {
            all.to_mut().push('\n');
            all.to_mut().push_str(&next);
            all
        })
    }

    /// `epb_flags` of pcapng, if recorded: bits 0–1 direction (1 in, 2 out), 2–4 reception type,
    /// 5–8 length of the FCS, 16–31 link-layer errors.
    pub fn packet_flags(&self) -> Option<u32> {
        self.options
            .iter()
            .find(|(code, value)| *code == 2 && value.len() == 4)
            .map(|(_, value)| self.options.word(value))
    }
}

/// Options of a pcapng block: code, length, value, padded to four bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) big_endian: bool,
}

/// Code of an option that holds a comment, in every block.
pub(super) const OPT_COMMENT: u16 = 1;

impl<'a> Options<'a> {
    /// Code and value of each option, up to the end mark or the first that does not fit.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let Options { mut bytes, big_endian } = *self;
        std::iter::from_fn(move || {
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            let [a, b, c, d] = *head;
            let word = if big_endian { u16::from_be_bytes } else { u16::from_le_bytes };
            let (code, len) = (word([a, b]), usize::from(word([c, d])));
            if code == 0 {
                return None;
            }
            let value = rest.get(..len)?;
            bytes = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
            Some((code, value))
        })
    }

    /// The comments among them.
    pub fn comments(&self) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
        self.iter().filter(|(code, _)| *code == OPT_COMMENT).map(|(_, value)| text(value))
    }

    fn word(&self, value: &[u8]) -> u32 {
        value.first_chunk().map_or(0, |b| if self.big_endian { u32::from_be_bytes(*b) } else { u32::from_le_bytes(*b) })
    }
}

/// A value as text, without the zero bytes that some writers append.
pub(super) fn text(value: &[u8]) -> Cow<'_, str> {
    match String::from_utf8_lossy(value) {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches('\0')),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches('\0').to_owned()),
    }
}

/// An interface that packets of a capture were seen on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Pcap link type of its packets.
    pub link: u16,
    /// Most bytes captured of a packet; 0 for no limit.
    pub snaplen: u32,
    /// Name, such as `eth0`; empty if unknown.
    pub name: String,
    /// Description; empty if unknown.
    pub description: String,
    /// Bytes of frame check sequence at the end of each packet, if recorded.
    pub fcs_len: Option<u8>,
}

impl Interface {
    /// An interface of which only the link type is known.
    pub fn of_link(link: u16) -> Interface {
        Interface { link, ..Interface::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_they_stop_making_sense() {
        let bytes = b"\x01\x00\x03\x00one\x00\x01\x00\x02\x00\xff\x00\0\0\x02\x00\x04\x00\x01\0\0\0\x07\x00\xff\xffx";
        let options = Options { bytes, big_endian: false };
        assert_eq!(options.iter().map(|(c, v)| (c, v.len())).collect::<Vec<_>>(), [(1, 3), (1, 2), (2, 4)]);
        let record = Record { bytes: &[], time_ns: 0, wire_len: 0, link: 1, interface: 0, number: 1, options };
        assert_eq!(record.comment(), "one\n\u{fffd}");
        assert_eq!(record.packet_flags(), Some(1));
    }
}
