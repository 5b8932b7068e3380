//! How a function that programs call is made: whose handle is it, ours or the real library's?
//!
//! No panic gets out: it becomes the value that the function answers when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what a program called; a panic answers `failed`.
pub fn guarded<T>(failed: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(failed)
}

/// A function on a handle. Ours is served by the expression; any other handle goes to the real library's function of
/// the same name and type, or, if that has none, the call answers what it answers when it fails.
#[macro_export]
macro_rules! entry {
    ($(#[$doc:meta])* fn $name:ident($p:ident $(, $argument:ident: $type:ty)*) -> $answer:ty, $failed:expr, |$handle:ident| $ours:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($p: *mut $crate::pcap_h::PcapT $(, $argument: $type)*) -> $answer {
            if let Some($handle) = $crate::registry::find($p) {
                return $crate::entry::guarded($failed, || $ours);
            }
            match $crate::real!($name: fn(*mut $crate::pcap_h::PcapT $(, $type)*) -> $answer) {
                // SAFETY: the real library's function, with what the program gave for it.
                Some(real) => unsafe { real($p $(, $argument)*) },
                None => $failed,
            }
        }
    };
}
