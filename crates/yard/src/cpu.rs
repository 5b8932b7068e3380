//! Cores.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Numbers of the cores that the calling thread may run on (sched_getaffinity(2)), in order.
///
/// # Errors
/// The system's.
pub fn allowed() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Binds the calling thread, and threads that it starts, to one core (sched_setaffinity(2)).
///
/// # Errors
/// The system's: it may not run there.
pub fn bind(core: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(core);
    Ok(sched_setaffinity(None, &one)?)
}

/// What the calling thread was bound to before, which it is again when this goes away.
pub(crate) struct Pinned(Option<CpuSet>);

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            let _ = sched_setaffinity(None, &before); // a hint, as pinning was
        }
    }
}

/// As [`pin`], for as long as what it answers lives; in the thread that called it.
pub(crate) fn pin_for_now(number: usize) -> Pinned {
    let before = sched_getaffinity(None).ok();
    pin(number);
    Pinned(before)
}

/// Binds the calling thread to the `number`-th core it may run on, if it may run on several; beyond
/// the last, to none. A hint: failure changes nothing but speed.
pub(crate) fn pin(number: usize) {
    let Ok(cores) = allowed() else { return };
    if let (true, Some(&core)) = (cores.len() > 1, cores.get(number)) {
        let _ = bind(core);
    }
}
