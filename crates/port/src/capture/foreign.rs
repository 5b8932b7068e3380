//! Files that are no captures of ours: what they look like, for an error that helps.

/// What the first bytes of a file suggest it is.
pub(super) fn describe(head: &[u8]) -> String {
    const KNOWN: [(&[u8], &str); 20] = [
        (b"snoop\0\0\0", "a Solaris snoop capture"),
        (b"GMBU", "a Microsoft Network Monitor 2 capture"),
        (b"RTSS", "a Microsoft Network Monitor 1 capture"),
        (b"TRSNIFF data    \x1a", "a Sniffer (DOS) capture"),
        (b"XCP\0", "a NetXRay or Windows Sniffer capture"),
        (b"\x7fver", "an EtherPeek/OmniPeek capture"),
        (b"\x0e\x0e\x0e\x0e", "an Endace ERF or a serial capture"),
        (b"\x1f\x9d", "a file packed by compress"),
        (b"BZh", "a file packed by bzip2: unpack it with bunzip2"),
        (b"\xfd7zXZ\0", "a file packed by xz: unpack it with unxz"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
        (b"Rar!", "a RAR archive"),
        (b"\x7fELF", "an ELF program"),
        (b"%PDF", "a PDF document"),
        (b"SQLite format 3\0", "an SQLite database"),
        (b"PAR1", "a Parquet file"),
        (b"btsnoop\0", "a Bluetooth btsnoop capture"),
        (b"\x1c\x00\x01\xac", "an IXIA capture"),
        (b"\x1c\x00\x01\xab", "an IXIA capture"),
    ];
    if let Some((_, what)) = KNOWN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*what).to_owned();
    }
    if head.iter().all(|&b| b == 0) {
        return "zero bytes".to_owned();
    }
    if is_text(head) {
        let line = String::from_utf8_lossy(head);
        let line: String = line.lines().next().unwrap_or("").chars().take(40).collect();
        return format!("text, beginning {line:?}");
    }
    if is_erf(head) {
        return "perhaps an Endace ERF capture".to_owned();
    }
    let hex: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("unknown bytes {}", hex.join(" "))
}

fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character may be cut by the end of what was read.
        Err(e) => e.error_len().is_none(),
    };
    valid && !head.iter().any(|b| b.is_ascii_control() && !b.is_ascii_whitespace())
}

/// ERF has no magic: little-endian 32.32 timestamp, type, flags, record and wire lengths.
fn is_erf(head: &[u8]) -> bool {
    let Some(record) = head.first_chunk::<16>() else { return false };
    let seconds = u32::from_le_bytes([record[4], record[5], record[6], record[7]]);
    let (kind, len) = (record[8] & 0x7f, u16::from_be_bytes([record[10], record[11]]));
    (600_000_000..2_600_000_000).contains(&seconds) && (1..=48).contains(&kind) && (16..=10_000).contains(&len)
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn common_strangers_are_called_by_name() {
        for (head, expect) in [
            (b"snoop\0\0\0\0\0\0\x02".as_slice(), "snoop"),
            (b"GMBU\0\x02", "Network Monitor 2"),
            (b"#!/bin/sh\nexit", "text, beginning \"#!/bin/sh\""),
            (b"\0\0\0\0\x80\x5d\x2a\x4f\x02\x04\0\x60\0\0\0\x50", "ERF"),
            (b"\xde\xad\xbe\xef", "unknown bytes de ad be ef"),
            (b"\0\0\0\0", "zero bytes"),
            (b"BZh91AY", "bunzip2"),
        ] {
            let found = describe(head);
            assert!(found.contains(expect), "{found} for {expect}");
        }
    }
}
