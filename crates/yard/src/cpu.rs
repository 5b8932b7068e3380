//! Cores.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the calling thread to the `number`-th core it may run on, if it may run on several; beyond
/// the last, to none. A hint: failure changes nothing but speed.
pub(crate) fn pin(number: usize) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    if let (true, Some(&core)) = (cores.len() > 1, cores.get(number)) {
        let mut one = CpuSet::new();
        one.set(core);
        let _ = sched_setaffinity(None, &one);
    }
}
