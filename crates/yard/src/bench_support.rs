//! A dispatcher without its thread, for benchmarks that want to see nothing else.

use crate::Report;
use crate::dispatcher::Dispatcher;
use crate::function::Steer;
use crate::worker::{Reading, Work};

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
        self.0.turn_by_hand(&mut ())
    }

    /// Puts another function in the place of the yard's, or none, as if there had never been one. Between turns in
    /// which nothing is on its way.
    pub fn replace(&mut self, function: Option<Box<dyn Steer>>) -> Option<Box<dyn Steer>> {
        self.0.replace_by_hand(function)
    }

    /// Ends it: what waits is sent on, buffers are taken home, ports closed. Readers are to be dropped before.
    pub fn end(self) -> Report {
        self.0.end_by_hand(&mut ())
    }
}

/// A worker that does a turn when it is told to.
pub struct WorkerByHand<W> {
    dispatcher: Dispatcher,
    reading: Reading<W>,
}

impl<W: Work> WorkerByHand<W> {
    pub(crate) fn new(dispatcher: Dispatcher, reading: Reading<W>) -> WorkerByHand<W> {
        WorkerByHand { dispatcher, reading }
    }

    /// Receives a batch of each port, sorts it, and shows the packets of its rings to its work. Answers whether there may be
    /// more to come.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.dispatcher.turn_by_hand(&mut self.reading)
    }

    /// What it does with packets.
    pub fn work(&mut self) -> &mut W {
        self.reading.work()
    }

    /// Ends it; where there are others, that takes until these have ended, or a moment.
    pub fn end(mut self) -> Report {
        self.dispatcher.end_by_hand(&mut self.reading)
    }
}
