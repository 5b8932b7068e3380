//! What tests of several crates share: port conformance, network namespaces with
//! veth pairs. Not published.
#![deny(unsafe_code)]

pub mod conformance;
pub mod net;
mod net_raw;
