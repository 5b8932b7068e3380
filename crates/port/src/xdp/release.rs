//! What older kernels have not, said when a port is opened on one.

/// What came when, that a port or the next one misses: version, and what is not there before it.
const CAME: [((u32, u32), &str); 5] = [
    ((5, 9), "links: a program outlives its owner when that is killed, until `ip link set IF xdp off`"),
    ((5, 14), "cookies of network namespaces: what a killed owner left may be sought for a namespace that is no more"),
    ((5, 18), "programs for frames of several buffers: neither large MTUs nor generic mode"),
    (
        (6, 3),
        "drivers' word of what they can: native and zero-copy are tried, and the reason for what is not had is not told",
    ),
    (
        SEVERAL_BUFFERS,
        "sockets for frames of several buffers: those longer than a buffer are lost, and counted as no-buffer",
    ),
];

/// Oldest release that steering in the kernel was tried on.
pub(super) const STEERS: (u32, u32) = (6, 1);

/// Major and minor number of a release such as `6.1.0-18-amd64`.
pub(super) fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The running kernel's release.
pub(super) fn running() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// First release whose sockets take frames of several buffers.
const SEVERAL_BUFFERS: (u32, u32) = (6, 6);

/// What to do where frames of several buffers are wanted and this release's sockets have none.
pub(super) fn no_several_buffers(release: &str) -> Option<String> {
    numbers(release).filter(|version| *version < SEVERAL_BUFFERS).map(|_| {
        let (major, minor) = SEVERAL_BUFFERS;
        format!(
            "sockets take frames of several buffers from Linux {major}.{minor} on, and this is {release}: lower the MTU to \
             3562 or less, or use packet:IF"
        )
    })
}

/// First release that lets a program that is bound to a device make tail calls.
const BOUND_TAIL_CALLS: (u32, u32) = (6, 16);

/// Why a program that asks the card is refused where it has to make tail calls.
pub(super) fn no_bound_tail_calls(release: &str) -> Option<String> {
    numbers(release).filter(|version| *version < BOUND_TAIL_CALLS).map(|_| {
        let (major, minor) = BOUND_TAIL_CALLS;
        format!(
            "with --steer kernel and --host FILTER it takes tail calls from a program that is bound to a device, from Linux \
             {major}.{minor} on, and this is {release}"
        )
    })
}

/// A line about what is missing, if anything is.
pub(super) fn missing(release: &str, steers: bool) -> Option<String> {
    let version = numbers(release)?;
    let mut missing: Vec<String> = CAME
        .iter()
        .filter(|(came, _)| version < *came)
        .map(|((major, minor), what)| format!("without {what} ({major}.{minor})"))
        .collect();
    if steers && version < STEERS {
        missing.push(format!("steering in the kernel was tried on {}.{} and later", STEERS.0, STEERS.1));
    }
    (!missing.is_empty()).then(|| format!("Linux {release} is {}", missing.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_is_told_what_it_has_not() {
        assert_eq!(missing("6.18.44", true), None);
        assert_eq!(missing("6.6.0", true), None);
        let of = |release| missing(release, true).unwrap_or_default();
        assert!(of("6.1.0-18-amd64").contains("sockets for frames of several buffers"), "{}", of("6.1.0"));
        assert!(!of("6.1.0-18-amd64").contains("was tried on"));
        assert!(of("5.15.0-91-generic").contains("(5.18)") && of("5.15.0").contains("was tried on 6.1"));
        assert!(
            of("5.4.0").contains("links") && missing("5.4.0", false).is_some_and(|said| !said.contains("was tried on"))
        );
        assert_eq!((missing("", true), missing("frog", true), missing("6", true)), (None, None, None));
        assert!(no_several_buffers("6.1.0-18").is_some_and(|said| said.contains("6.6") && said.contains("MTU")));
        assert_eq!(no_several_buffers("6.6.1"), None);
        assert!(no_bound_tail_calls("6.12.0").is_some_and(|said| said.contains("6.16")));
        assert_eq!(no_bound_tail_calls("6.18.44"), None);
        assert!(numbers(&running()).is_some(), "{}", running());
    }
}
