//! Any bytes as a capture: records end, packets lie within them, and what is read is dissected.
#![no_main]

use std::io::Cursor;

use flowyard::port::capture::CaptureReader;
use flowyard::steer::{Frame, LinkType, Policy, dissect};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = CaptureReader::over("fuzz", Box::new(Cursor::new(input.to_vec()))) else {
        return;
    };
    let policy = Policy::default();
    let mut bytes = 0;
    loop {
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
    assert!(bytes <= input.len());
    assert!(reader.offset() <= input.len() as u64);
});
