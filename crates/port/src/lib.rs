//! Where packets come from and go to: one [`Port`] trait, and its implementations.
#![deny(unsafe_code)]

pub mod capture;
mod error;
mod interface;
mod link;
mod packet;
mod port;
mod rss;
mod segments;
mod spec;
mod sys;
pub mod tap;
pub mod traffic;
mod transmit;
mod xdp;

use flowyard_kernel::ToHost;

pub use error::PortError;
pub use packet::PacketSink;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use packet::bare::BareBlocks;
pub use port::{Arrival, Opener, Outgoing, Port, PortCounters, PortInfo, Progress, Received, Sink};
pub use rss::{HashedFields, Rss, RssError, RssFields, RssTransform};
pub use spec::{KINDS, Kind, PortSpec};
#[doc(hidden)]
pub use sys::thread_usage;
pub use transmit::{Departure, Leaving, Refusal, TransmitCounters, Transmitter, unfinished_checksum};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use xdp::bare::Bare;
pub use xdp::{DirectCounts, DirectReader, DirectRing, InKernel};

/// Looks a port up and splits it into at most `parts` openers, one a dispatcher. Touches nothing.
///
/// # Errors
/// A name, interface, file or option that cannot be: with what can.
pub fn prepare(spec: &PortSpec, parts: usize) -> Result<Vec<Box<dyn Opener>>, PortError> {
    match spec.kind {
        Kind::Xdp => xdp::prepare(spec, parts, None, &ToHost::Pass),
        Kind::Packet => packet::prepare(spec, parts),
        Kind::Tap => tap::prepare(spec),
        Kind::Pcap => Ok(vec![Box::new(capture::PcapOpener::new(spec)?)]),
        Kind::Gen => Ok(vec![Box::new(traffic::GenOpener::new(spec)?)]),
    }
}

/// As [`prepare`], for ports that steer in the kernel: `xdp:` alone. Their packets come with the head of their tag
/// ([`Port::kernel`]), or to readers of their own ([`Port::readers`]).
///
/// # Errors
/// As [`prepare`], and another kind of port. What of the classifier the kernel cannot do is said when the port is
/// opened.
pub fn prepare_steered(spec: &PortSpec, parts: usize, steering: &InKernel) -> Result<Vec<Box<dyn Opener>>, PortError> {
    match spec.kind {
        Kind::Xdp => xdp::prepare(spec, parts, Some(steering), &ToHost::Pass),
        _ => Err(spec.bad_option(
            "cannot be steered in the kernel",
            "use xdp:IF, or steer in user space (leave out --steer kernel)",
        )),
    }
}

/// As [`prepare`], or with `steering` as [`prepare_steered`], with a word about what goes on to the host's own stack
/// of what comes in: of `xdp:` ports, which take packets away from it.
///
/// # Errors
/// As those, and another kind of port with anything but [`ToHost::Pass`].
pub fn prepare_to_host(
    spec: &PortSpec,
    parts: usize,
    steering: Option<&InKernel>,
    host: &ToHost,
) -> Result<Vec<Box<dyn Opener>>, PortError> {
    match (spec.kind, host, steering) {
        (Kind::Xdp, ..) => xdp::prepare(spec, parts, steering, host),
        (_, ToHost::Pass, Some(steering)) => prepare_steered(spec, parts, steering),
        (_, ToHost::Pass, None) => prepare(spec, parts),
        (Kind::Packet | Kind::Tap, ..) => Err(spec.bad_option(
            "keeps nothing from the host's stack, so nothing of it can go there (--host)",
            "leave --host out, or use xdp:IF",
        )),
        _ => Err(spec.bad_option("has no host's stack behind it (--host)", "leave --host out, or use xdp:IF")),
    }
}
