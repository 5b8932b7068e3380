//! The user's own steering function: it sees every packet, may write its annotation, correct its tag,
//! and says where it goes.
//!
//! A function is a [`Steer`]: a Rust closure, rules, a plug-in, or a
//! [`Chain`] of these. Each dispatcher has an instance of its own, so none needs locks; what they share
//! lies in tables. It is called between sorting and delivery, with batches of packets
//! that are dissected already and carry the decision of the built-in policy, which is what holds where
//! the function says nothing or fails.
//!
//! ```
//! use flowyard::{Yard, YardConfig};
//! use flowyard::function::{Packet, Verdict, closure};
//!
//! // DNS to ring 0, everything else by the built-in policy.
//! let dns = closure(|packet: &mut Packet<'_>| {
//!     let ports = (packet.dissection().sport(), packet.dissection().dport());
//!     if ports.0 == Some(53) || ports.1 == Some(53) { Verdict::Ring(0) } else { Verdict::BuiltIn }
//! });
//! let config = YardConfig { rings: 2, function: Some(dns), ..YardConfig::default() };
//! let (yard, readers) = Yard::open(&config, &["gen:mix?packets=1000".parse()?])?;
//! # drop((yard, readers));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What follows a verdict
//! Later fragments are shown to the function as well. Where it says nothing of one, that goes where the
//! function sent its datagram's first fragment. Both directions of a conversation, and ICMP errors that
//! quote it, are the function's to keep together where it decides itself.
//!
//! # When it fails
//! A call that panics, that the function itself reports as failed, or that took longer than the
//! [budget](Limits::budget) by its own doing, is counted by kind ([`Failure`]); so is a verdict that cannot be. The
//! packets go by the built-in policy. After [`Limits::failures`] failed rounds of calls in a row the function is
//! switched off until it is replaced. A native plug-in that crashes takes its process with it, and code
//! of any kind but WebAssembly that does not return holds its dispatcher up: see [`isolated`].

mod batch;
mod chain;
mod counts;
mod gate;
mod isolate;
mod mailbox;
mod running;
mod seat;
mod sent;
mod shunt;
mod verdict;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
pub(crate) use batch::Annotation;
pub use batch::{BATCH, Batch, Packet};
pub(crate) use batch::{Copies, Item, Shown};
pub use chain::Chain;
pub use counts::{Failure, FunctionCounts};
pub(crate) use gate::{Common, Gate, Way};
pub use isolate::{isolated, serve};
pub use mailbox::FunctionError;
pub(crate) use mailbox::{Letter, Mailbox};
pub use running::{FunctionStatus, Functions};
pub(crate) use seat::close;
pub(crate) use sent::Sent;
pub(crate) use shunt::Shunts;
pub use verdict::{RawVerdict, Verdict};

/// A steering function: one instance, used by one dispatcher thread.
pub trait Steer: Send {
    /// Says where the packets of a batch go. A verdict that an earlier function of a chain has set is
    /// left alone by those who follow the custom ([`Batch::each`] skips such packets).
    ///
    /// # Errors
    /// The function could not do its work: the whole batch goes by the built-in policy.
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure>;

    /// Called once before an instance is used: the place to find out that it would not work.
    ///
    /// # Errors
    /// Why not: the yard does not start, or keeps the function it has.
    fn check(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Called between batches, about ten times a second, for work that is not a packet's.
    fn tick(&mut self) {}

    /// A request from outside (`flowyard ctl function`), answered between batches.
    ///
    /// # Errors
    /// Why it cannot be answered, in words.
    fn control(&mut self, request: &[u8]) -> Result<Vec<u8>, String> {
        let _ = request;
        Err("this function takes no requests".into())
    }

    /// Called on a new instance at the batch boundary at which it replaces `old`: the place to take
    /// over state. `old` is closed afterwards, elsewhere.
    fn adopt(&mut self, old: &mut dyn Steer) {
        let _ = old;
    }

    /// Itself, for an [`adopt`](Steer::adopt) that wants to know what it replaces.
    fn as_any(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// More to say of its state, for `status`: counters per rule and the like, by name.
    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

impl<F: FnMut(&mut Packet<'_>) -> Verdict + Send> Steer for F {
    #[inline]
    fn steer(&mut self, batch: &mut Batch<'_>) -> Result<(), Failure> {
        batch.each(|packet| {
            let verdict = self(packet);
            packet.decide(verdict);
        });
        Ok(())
    }
}

/// What an instance is told when it is made.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Number of the dispatcher that will use it.
    pub dispatcher: usize,
    /// Number of dispatchers.
    pub dispatchers: usize,
    /// Rings that verdicts may name.
    pub rings: u16,
    /// Annotation bytes in front of every packet.
    pub annotation_bytes: usize,
}

/// Makes instances of a function, one for each dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct Function {
    name: Arc<str>,
    make: Arc<Make>,
    /// What the yard tolerates.
    pub limits: Limits,
}

type Make = dyn Fn(&Surroundings) -> Result<Box<dyn Steer>, FunctionError> + Send + Sync;

impl Function {
    /// A function called `name` whose instances `make` makes. `make` runs in the thread that opens the
    /// yard or reloads, never on the packet path; where it fails, nothing changes.
    pub fn new(
        name: &str,
        make: impl Fn(&Surroundings) -> Result<Box<dyn Steer>, FunctionError> + Send + Sync + 'static,
    ) -> Function {
        Function { name: name.into(), make: Arc::new(make), limits: Limits::default() }
    }

    /// The same function under other limits.
    pub fn with_limits(self, limits: Limits) -> Function {
        Function { limits, ..self }
    }

    /// Its name, in status and messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes an instance.
    ///
    /// # Errors
    /// What the maker says.
    pub fn instance(&self, surroundings: &Surroundings) -> Result<Box<dyn Steer>, FunctionError> {
        (self.make)(surroundings)
    }

    /// Makes an instance that has passed its own check. A panic in either is an error.
    pub(crate) fn checked_instance(&self, surroundings: &Surroundings) -> Result<Box<dyn Steer>, FunctionError> {
        let make = || {
            let mut instance = self.instance(surroundings)?;
            let check = instance.check().map_err(|why| format!("fails its own check: {why}"));
            check.map_err(|why| FunctionError::new(self.name(), why)).map(|()| instance)
        };
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(make))
            .unwrap_or_else(|_| Err(FunctionError::new(self.name(), "panicked while it was made or checked")))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A function from a closure that is cloned for each dispatcher.
pub fn closure<F>(closure: F) -> Function
where
    F: FnMut(&mut Packet<'_>) -> Verdict + Clone + Send + Sync + 'static,
{
    Function::new("closure", move |_| Ok(Box::new(closure.clone())))
}

/// What the yard tolerates of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest time that one call, a batch of at most [`BATCH`] packets, may take.
    pub budget: Duration,
    /// Failed calls in a row after which the function is switched off.
    pub failures: u32,
}

impl Default for Limits {
    /// 10 ms a call, 100 failures.
    fn default() -> Self {
        Limits { budget: Duration::from_millis(10), failures: 100 }
    }
}
