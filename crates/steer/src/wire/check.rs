//! What the tests of the parsers ask of a dissection.

use std::string::String;
use std::vec::Vec;

use crate::{Dissection, Frame, Id, Layer, LinkType, Observer, Policy, Stop, dissect};

/// Writes down what it is told.
#[derive(Default)]
pub struct Notes {
    pub stack: Vec<&'static str>,
    pub ids: Vec<Id>,
}

impl Observer for Notes {
    fn layer(&mut self, layer: Layer, _: usize, _: usize) {
        self.stack.push(layer.name());
    }

    fn id(&mut self, id: Id) {
        self.ids.push(id);
    }
}

/// Dissects with the built-in policy.
pub fn look(link: LinkType, bytes: &[u8]) -> (Dissection, Notes) {
    let mut notes = Notes::default();
    let dissection = dissect(&Frame::new(bytes, link), &Policy::default(), &mut notes);
    assert_eq!(dissect(&Frame::new(bytes, link), &Policy::default(), &mut ()), dissection, "the quick way agrees");
    (dissection, notes)
}

/// Asserts the layers of an Ethernet frame, "eth/ip/tcp", and why dissection stopped.
#[track_caller]
pub fn expect(bytes: &[u8], stack: &str, stop: Stop) -> Dissection {
    expect_link(LinkType::ETHERNET, bytes, stack, stop)
}

/// As [`expect`], for another link type.
#[track_caller]
pub fn expect_link(link: LinkType, bytes: &[u8], stack: &str, stop: Stop) -> Dissection {
    let (dissection, notes) = look(link, bytes);
    assert_eq!((notes.stack.join("/"), dissection.stop()), (String::from(stack), stop));
    dissection
}

/// Asserts that the innermost flow is the one of [`super::build::tcp4`] or `tcp6`.
#[track_caller]
pub fn is_the_flow(dissection: &Dissection, bytes: &[u8]) {
    let flow = dissection.flow(bytes).expect("a flow");
    assert_eq!((flow.proto, flow.sport, flow.dport), (6, Some(1000), Some(2000)));
}

/// Asserts the layers of an Ethernet frame that carries TCP 1000 → 2000 innermost.
#[track_caller]
pub fn carries(bytes: &[u8], stack: &str) -> Dissection {
    let dissection = expect(bytes, stack, Stop::Transport);
    is_the_flow(&dissection, bytes);
    dissection
}
