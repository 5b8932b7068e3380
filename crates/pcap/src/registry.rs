//! Which handles are ours. Looked up by every call, and by one that may come from a signal handler
//! (`pcap_breakloop`): so a fixed table without a lock.
//!
//! # Invariant of the unsafe code
//! An address in the table is that of a [`Handle`] that [`add`] leaked and [`remove`] has not taken back. As with the
//! real library, whoever closes a handle has seen to it that nobody else uses it any more (pcap_close(3PCAP)).
#![allow(unsafe_code)]

use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::handle::Handle;
use crate::pcap_h::PcapT;

/// Most rings that a program may have open at once.
pub const MOST: usize = 256;

static HANDLES: [AtomicPtr<Handle>; MOST] = [const { AtomicPtr::new(null_mut()) }; MOST];
/// Places that were ever used: a program without rings looks at no other.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Enters a handle. `None`, if there are too many.
pub fn add(handle: Box<Handle>) -> Option<*mut PcapT> {
    let address = Box::into_raw(handle);
    for (at, place) in HANDLES.iter().enumerate() {
        // Release: whoever finds the address sees the handle whole (Acquire in `find`).
        if place.compare_exchange(null_mut(), address, Ordering::Release, Ordering::Relaxed).is_ok() {
            USED.fetch_max(at + 1, Ordering::Release); // pairs with the Acquire in `find`
            return Some(address.cast());
        }
    }
    // SAFETY: leaked above and entered nowhere.
    drop(unsafe { Box::from_raw(address) });
    None
}

/// The handle of that address, if it is ours.
pub fn find<'a>(p: *mut PcapT) -> Option<&'a Handle> {
    let used = USED.load(Ordering::Acquire); // pairs with the Release in `add`
    let address = p.cast::<Handle>();
    let ours = !p.is_null() && HANDLES[..used].iter().any(|place| place.load(Ordering::Acquire) == address);
    // SAFETY: in the table, so alive (invariant), and shared by all who use it.
    ours.then(|| unsafe { &*address })
}

/// Takes a handle out of the table, to be dropped.
pub fn remove(p: *mut PcapT) -> Option<Box<Handle>> {
    let address = p.cast::<Handle>();
    let mut places = HANDLES[..USED.load(Ordering::Acquire)].iter();
    // Acquire, for what other threads did with it; Release is not needed to leave nothing behind.
    let taken = !p.is_null()
        && places
            .any(|place| place.compare_exchange(address, null_mut(), Ordering::Acquire, Ordering::Relaxed).is_ok());
    // SAFETY: it was in the table and is no more, so this is the one that frees it.
    taken.then(|| unsafe { Box::from_raw(address) })
}
