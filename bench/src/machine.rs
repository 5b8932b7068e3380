//! The machine: its cores, who took time from us, and what it is.
#![allow(unsafe_code)]

use flowyard::cpu;

/// Cores that this process may run on.
pub fn cores() -> Vec<usize> {
    cpu::allowed().unwrap_or_default()
}

/// Binds the calling thread, and threads that it starts, to one core.
pub fn pin(core: usize) {
    let _ = cpu::bind(core); // without it figures are worse, not wrong
}

/// Fetches the first cache line of `bytes` ahead of its use. A hint.
#[inline]
pub fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing architecturally.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(bytes.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Share of this process's anonymous memory that lies on huge pages, in percent.
pub fn huge_percent() -> u64 {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    100 * kib("AnonHugePages:") / kib("Anonymous:").max(1)
}

/// How often the calling thread was taken off its core against its will, so far.
pub fn involuntary_switches() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole rusage, all that the call writes; zeroes are a valid one.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_nivcsw as u64
}

/// Time that the hypervisor took from all cores, in ticks of 10 ms.
pub fn stolen_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Processor, cores, kernel, pages and load, in one line.
pub fn describe() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{}, {} MHz, {} cores, Linux {}, load {}",
        field("model name"),
        field("cpu MHz"),
        cores().len(),
        kernel.trim(),
        load.split(' ').next().unwrap_or("unknown"),
    )
}
