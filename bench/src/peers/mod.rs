//! What others do with a packet: the parser that a Rust user would take, and those of a DPDK user.

pub mod compile;
pub mod dpdk;
pub mod etherparse;
