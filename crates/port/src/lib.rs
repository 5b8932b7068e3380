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
mod xdp;

pub use error::PortError;
pub use packet::PacketSink;
pub use port::{Arrival, Opener, Outgoing, Port, PortCounters, PortInfo, Progress, Received, Sink};
pub use rss::{HashedFields, Rss, RssError, RssFields, RssTransform};
pub use spec::{KINDS, Kind, PortSpec};
#[doc(hidden)]
pub use sys::thread_usage;
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
        Kind::Xdp => xdp::prepare(spec, parts, None),
        Kind::Packet => packet::prepare(spec, parts),
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
        Kind::Xdp => xdp::prepare(spec, parts, Some(steering)),
        _ => Err(spec.bad_option(
            "cannot be steered in the kernel",
            "use xdp:IF, or steer in user space (leave out --steer kernel)",
        )),
    }
}
