//! Who watches a dissection: `inspect` prints every layer, the packet path watches nothing.

use crate::dissection::Level;
use crate::{Id, Layer};

/// Is told each layer, identifier and IP header as dissection meets them.
///
/// Every method does nothing by default, and `()` is the observer that does nothing: with it the
/// calls compile to nothing.
pub trait Observer {
    /// Whether it listens to nothing: then dissection may take a shorter way to the same end.
    const QUIET: bool = false;

    /// A header of `len` bytes at `offset` bytes from the start of the frame. A header that ended
    /// dissection is reported too, with the length that was understood (possibly 0).
    #[inline(always)]
    fn layer(&mut self, layer: Layer, offset: usize, len: usize) {
        let _ = (layer, offset, len);
    }

    /// An identifier in the header being read.
    #[inline(always)]
    fn id(&mut self, id: Id) {
        let _ = id;
    }

    /// An IP header that dissection has left, inwards or because it ended there.
    #[inline(always)]
    fn level(&mut self, level: Level) {
        let _ = level;
    }
}

impl Observer for () {
    const QUIET: bool = true;
}

impl<O: Observer> Observer for &mut O {
    const QUIET: bool = O::QUIET;

    #[inline(always)]
    fn layer(&mut self, layer: Layer, offset: usize, len: usize) {
        (**self).layer(layer, offset, len);
    }

    #[inline(always)]
    fn id(&mut self, id: Id) {
        (**self).id(id);
    }

    #[inline(always)]
    fn level(&mut self, level: Level) {
        (**self).level(level);
    }
}
