//! Any bytes as a capture, packed or not: records end, packets lie within the file, and what is read is
//! dissected.
#![no_main]

use std::io::Cursor;

use flowyard::port::capture::CaptureReader;
use flowyard::steer::{Frame, LinkType, Policy, dissect};
use libfuzzer_sys::fuzz_target;

/// What little input may become that is packed: no more of it is read.
const MOST_UNPACKED: usize = 1 << 24;

/// Gzip, zstd, lz4: as the reader recognises them.
fn is_packed(input: &[u8]) -> bool {
    let magics: [&[u8]; 3] = [&[0x1f, 0x8b, 8], &[0x28, 0xb5, 0x2f, 0xfd], &[4, 0x22, 0x4d, 0x18]];
    magics.iter().any(|magic| input.starts_with(magic))
}

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = CaptureReader::over("fuzz", Box::new(Cursor::new(input.to_vec()))) else {
        return;
    };
    let policy = Policy::default();
    let mut bytes = 0;
    while bytes <= MOST_UNPACKED {
        match reader.next() {
            Ok(Some(record)) => {
                bytes += record.bytes.len();
                dissect(&Frame::new(record.bytes, LinkType(record.link)), &policy, &mut ());
            }
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                break;
            }
        }
    }
    if !is_packed(input) {
        assert!(bytes <= input.len() && reader.offset() <= input.len() as u64);
    }
});
