//! What `inspect` remembers of a dissection: an observer that writes down what it is told.

use flowyard::steer::{Id, Layer, Level, Observer};

/// Layers, identifiers and IP headers of one frame, outermost first. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct Layers {
    /// Layer, offset and length in bytes.
    pub layers: Vec<(Layer, usize, usize)>,
    /// Identifiers.
    pub ids: Vec<Id>,
    /// IP headers.
    pub levels: Vec<Level>,
}

impl Layers {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.layers.clear();
        self.ids.clear();
        self.levels.clear();
    }

    /// The names of the layers, outermost first.
    pub fn stack(&self) -> impl Iterator<Item = &'static str> {
        self.layers.iter().map(|(layer, ..)| layer.name())
    }
}

impl Observer for Layers {
    fn layer(&mut self, layer: Layer, offset: usize, len: usize) {
        self.layers.push((layer, offset, len));
    }

    fn id(&mut self, id: Id) {
        self.ids.push(id);
    }

    fn level(&mut self, level: Level) {
        self.levels.push(level);
    }
}
