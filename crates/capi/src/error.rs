//! The last error of each thread, in words; and panics, which become one.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// Keeps what went wrong.
pub fn set(why: &str) {
    let text = CString::new(why.replace('\0', " ")).unwrap_or_default();
    // A thread that is ending has nobody to ask for it.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
}

/// What went wrong last: an address that is good until the next [`set`].
pub fn last() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs what C called. An error is kept, and answered as `failed`; so is a panic.
pub fn guarded<T>(failed: T, run: impl FnOnce() -> Result<T, String>) -> T {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            set(&why);
            failed
        }
        Err(_) => {
            set("libflowyard failed inside, which is its own mistake: what it printed to standard error says where");
            failed
        }
    }
}
