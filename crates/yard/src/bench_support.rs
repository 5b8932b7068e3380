//! A dispatcher without its thread, for benchmarks that want to see nothing else.

use crate::Report;
use crate::dispatcher::Dispatcher;
use crate::function::Steer;

/// A dispatcher that does a turn when it is told to.
pub struct ByHand(Dispatcher);

impl ByHand {
    pub(crate) fn new(dispatcher: Dispatcher) -> ByHand {
        ByHand(dispatcher)
    }

    /// Takes home what was returned, receives a batch of each port, sorts it, sends it on. Answers whether there may
    /// be more to come.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.0.turn_by_hand()
    }

    /// Puts another function in the place of the yard's, or none, as if there had never been one. Between turns in
    /// which nothing is on its way.
    pub fn replace(&mut self, function: Option<Box<dyn Steer>>) -> Option<Box<dyn Steer>> {
        self.0.replace_by_hand(function)
    }

    /// Ends it: what waits is sent on, buffers are taken home, ports closed. Readers are to be dropped before.
    pub fn end(self) -> Report {
        self.0.end_by_hand()
    }
}
