//! An instance of a plug-in: one state, used by one dispatcher.
//!
//! # Invariants
//! `state` came from this library's `open` (or is null, for a library without), and goes to its `close` once, when
//! this is dropped: the only owner. Methods take `&mut self` or are called by the only thread that has
//! this, so the plug-in is never in two calls with one state. `host` and `library` go after `close`.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::{CStr, CString, c_void};
use std::sync::Arc;

use super::abi;
use super::host::Host;
use super::library::Library;
use crate::function::{Batch, Copies, Failure, Shown, Steer};

/// Room for a plug-in's own words.
const WORDS_BYTES: usize = 1024;
/// Room for an answer.
const REPLY_BYTES: usize = 64 << 10;
/// Most counters that are asked for.
const MOST_COUNTERS: u32 = 256;

pub(super) struct Instance {
    state: *mut c_void,
    /// What the plug-in is shown where not the buffers themselves are.
    copies: Box<Copies>,
    // In the order in which they go: after `close`.
    host: Arc<Host>,
    library: Arc<Library>,
}

// SAFETY: by the header nothing of an instance hangs on a thread; `host` is shared soundly (Send and Sync).
unsafe impl Send for Instance {}

impl Instance {
    pub(super) fn open(library: &Arc<Library>, host: Arc<Host>, config: &str) -> Result<Instance, String> {
        let mut state = std::ptr::null_mut();
        match library.functions().open {
            None if !config.is_empty() => return Err("takes no configuration, but is given one; leave it out".into()),
            None => {}
            Some(open) => {
                let text = CString::new(config).map_err(|_| "its configuration has a byte 0 in it; take it out")?;
                let mut error = [0; WORDS_BYTES];
                // SAFETY: host lives until after `close`; text and error are there for the call, with these lengths.
                state = unsafe {
                    open(host.address(), text.as_ptr(), config.len(), error.as_mut_ptr().cast(), error.len())
                };
                if state.is_null() {
                    return Err(format!("cannot be opened: {}", words(&error)));
                }
            }
        }
        Ok(Instance { state, copies: Box::default(), host, library: library.clone() })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(close) = self.library.functions().close {
            // SAFETY: the state of this library's `open`; nobody has it after this.
            unsafe { close(self.state) };
        }
        debug_assert_eq!(Arc::strong_count(&self.host), 1, "only ever lent by address");
    }
}

/// A plug-in's own words, which need not end with 0.
fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said.split(|b| *b == 0).next().unwrap_or_default());
    if text.is_empty() { "the plug-in does not say why".into() } else { text.into_owned() }
}

impl Steer for Instance {
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        let (count, annotation_bytes) = (batch.len(), batch.annotation_bytes() as u32);
        let Shown { buffers, buffer_bytes, buffer_count, places, place_bytes, copies, tags, verdicts } =
            batch.show(&mut self.copies);
        let mut shown = abi::Batch {
            count,
            verdicts: verdicts.cast(),
            tags: tags.cast(),
            buffers,
            places,
            copies: copies.cast(),
            buffer_bytes,
            buffer_count,
            place_bytes: place_bytes as u32,
            annotation_bytes,
            decided: 0,
            corrected: 0,
            zero: 0,
        };
        // SAFETY: there are `count` verdicts, tags and places, and, where `copies` is not null, as many of them. What all
        // these point to is this batch's alone until it is used again (`Batch::show`): after the call.
        let said = unsafe { self.library.steer()(self.state, &raw mut shown) };
        batch.touched_by_address(shown.decided != 0, shown.corrected != 0);
        if said == 0 { Ok(()) } else { Err(Failure::Refused) }
    }

    fn check(&mut self) -> Result<(), String> {
        let Some(check) = self.library.functions().check else { return Ok(()) };
        let mut error = [0; WORDS_BYTES];
        // SAFETY: our state; `error` has this length.
        match unsafe { check(self.state, error.as_mut_ptr().cast(), error.len()) } {
            0 => Ok(()),
            _ => Err(format!("{} ({})", words(&error), self.library.path().display())),
        }
    }

    fn tick(&mut self) {
        if let Some(tick) = self.library.functions().tick {
            // SAFETY: our state.
            unsafe { tick(self.state) };
        }
    }

    fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let Some(control) = self.library.functions().control else {
            return Err(format!("{} takes no requests", self.library.name()));
        };
        let mut reply = vec![0; REPLY_BYTES];
        // SAFETY: our state; request and reply have these lengths, and are there for the call.
        let len = unsafe {
            control(self.state, request.as_ptr().cast(), request.len(), reply.as_mut_ptr().cast(), reply.len())
        };
        match usize::try_from(len) {
            Ok(len) if len <= reply.len() => {
                reply.truncate(len);
                Ok(reply)
            }
            Ok(len) => Err(format!("{} answers {len} bytes, for which there is no room", self.library.name())),
            Err(_) => Err(words(&reply)),
        }
    }

    fn adopt(&mut self, old: &mut dyn Steer) {
        let Some(adopt) = self.library.functions().adopt else { return };
        let Some(old) = old.as_any().and_then(|old| old.downcast_mut::<Instance>()) else { return };
        let version = |of: &Instance| of.library.functions().state_version;
        if old.library.name() == self.library.name() && version(old) == version(self) {
            // SAFETY: both states, each borrowed here alone, and of the same layout, as name and version say.
            unsafe { adopt(self.state, old.state) };
        }
    }

    fn as_any(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let Some(counter) = self.library.functions().counter else { return Vec::new() };
        let mut counters = Vec::new();
        for index in 0..MOST_COUNTERS {
            let (mut name, mut value) = (std::ptr::null(), 0);
            // SAFETY: our state, which no other thread can have: an Instance is not Sync. Both places are there.
            let end = unsafe { counter(self.state, index, &raw mut name, &raw mut value) };
            if end != 0 || name.is_null() {
                break;
            }
            // SAFETY: by the header, ended by 0; copied before the plug-in is called again.
            let name = unsafe { CStr::from_ptr(name) };
            counters.push((name.to_string_lossy().into_owned(), value));
        }
        counters
    }
}
