//! What tests of several crates share: network namespaces with veth pairs. Not published.
#![deny(unsafe_code)]

pub mod net;
mod net_raw;
