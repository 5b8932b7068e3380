//! Steering inside the kernel: an XDP program that gives each packet the hash, the ring and the tag that
//! [`flowyard_steer`] gives it, or marks it.
//!
//! The program is C, in `bpf/`: the steps of the Rust dissector, one function a protocol. It does the
//! default policy with the default hash, and follows fragments through a map that all processors share. A
//! packet that it cannot decide, or on which it might answer otherwise than user space, is *marked* with
//! a reason ([`Mark`]), and goes to a socket of its own: the slow path, where a user-space steer decides
//! it, with the same memory of fragments ([`Fragments`]).
//!
//! A [`KernelSteer`] owns programs and maps. Who puts it on an interface attaches [`KernelSteer::root`],
//! enters one AF_XDP socket for each (queue, [`Place`]), and reads the 32 bytes before each packet with
//! [`Answer::read`]. For tests, and for explaining a packet, [`KernelSteer::run`] runs it on a frame.
//!
//! A user's own program stands in one of two [`UserSlot`]s: before steering, or between steering and
//! delivery; `bpf/flowyard.bpf.h` is its side of it. It is loaded and judged by the verifier first
//! ([`KernelSteer::prepare`]), then put in place by one write ([`KernelSteer::install`]): each packet goes
//! through exactly one of the old and the new.
//!
//! A yard on several interfaces has a [`KernelSteer`] for each, all of one [`Company`]: so conversations, fragments and
//! errors stay together whichever of them they come by.
//!
//! What the card knows of a packet ([`CardWord`]: its time, its hash, the VLAN tag that it took off) lies before the head
//! where it is asked for ([`Setup::card`]): the program on the interface is bound to its device then ([`BoundProgram`]).
//!
//! Kernels from 6.1; tried on 6.1, 6.12 and 6.18.
//!
//! Cost, one packet, by BPF_PROG_TEST_RUN repeated a million times (Linux 6.18, two virtual cores; the frame of
//! it alone is 35 ns): 110 to 160 ns for TCP over IPv4 or IPv6, 175 for GTP-U, 190 to 270 for VXLAN in a VLAN,
//! 430 for a first fragment.
//!
//! ```no_run
//! use flowyard_kernel::{Answer, KernelSteer, Setup};
//! use flowyard_steer::{Classifier, FlowHash, Policy, Table};
//!
//! let classifier = Classifier { policy: Policy::default(), hash: FlowHash::default(), table: Table::even(4)? };
//! let kernel = KernelSteer::load(&Setup::new(&classifier))?; // needs CAP_BPF and CAP_NET_ADMIN
//! match kernel.run(&[0; 60])?.answer {
//!     Some(Answer::Ring(head)) => println!("ring {}, hash {:08x}", head.ring, head.hash),
//!     Some(Answer::Marked(mark, _)) => println!("for user space: {}", mark.name()),
//!     None => println!("the user's program has taken it"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

mod answer;
mod bound;
mod card;
mod company;
mod counts;
mod error;
mod fragments;
mod host;
mod maps;
mod policy;
mod program;
mod run;
mod sys;
mod user;

pub use answer::{Answer, HEAD_BYTES, Mark, card_before};
pub use bound::{BoundProgram, CardCalls};
pub use card::{CARD_BYTES, CardFacts, CardWord};
pub use company::Company;
pub use counts::{Counts, CountsMap};
pub use error::KernelError;
pub use fragments::Fragments;
pub use host::{Classic, HostFilter, HostPlace, ToHost};
pub use maps::UserMap;
pub use program::{AskCard, Fallback, KernelSteer, Place, Setup};
pub use run::{Action, Run};
pub use user::{Prepared, UserSlot};

/// What a user's program includes: `bpf/flowyard.bpf.h`.
pub const USER_HEADER: &str = include_str!("../bpf/flowyard.bpf.h");
