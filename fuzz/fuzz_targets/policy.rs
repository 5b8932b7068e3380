//! Any text as a policy file: it is refused with a reason, or gives a policy that passes its own
//! check.
#![no_main]

use flowyard::PolicyFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match PolicyFile::parse(text) {
        Ok(file) => assert!(file.policy.check().is_ok()),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
});
