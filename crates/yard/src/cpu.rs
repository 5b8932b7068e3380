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

/// Binds the calling thread to the `number`-th core it may run on, if it may run on several; beyond
/// the last, to none. A hint: failure changes nothing but speed.
pub(crate) fn pin(number: usize) {
    let Ok(cores) = allowed() else { return };
    if let (true, Some(&core)) = (cores.len() > 1, cores.get(number)) {
        let _ = bind(core);
    }
}
