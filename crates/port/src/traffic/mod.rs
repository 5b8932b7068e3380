//! Generated traffic: conversations as a network carries them, repeatable from a seed, with the
//! truth about each packet known.
//!
//! [`Mix`] makes frames into any slice: for tests, benches, and files. [`GenOpener`] makes the port
//! `gen:` of it. The truth comes from the generator itself and never from looking at the frame, so
//! it can judge whoever dissects: [`GenPacket::conversation`] says which conversation a packet
//! belongs to, [`Mix::conversation`] what that conversation is, [`Mix::truth`] the numbers of a
//! whole run.
//!
//! ```
//! use flowyard_port::traffic::{Carrier, Mix, MixOptions};
//!
//! let options = MixOptions { flows: 10, only: vec![Carrier::Gtp], ..MixOptions::default() };
//! let mut mix = Mix::new(&options);
//! let mut frame = [0; Mix::FRAME_BYTES];
//! let packet = mix.next(&mut frame);
//! assert!((60..=1500).contains(&packet.len));
//! assert_eq!(mix.conversation(packet.conversation).carrier, Carrier::Gtp);
//! assert_eq!(Mix::truth(&options, 5)[0], packet.conversation);
//! ```

mod carrier;
mod conversation;
mod frame;
mod mix;
mod pattern;
mod port;
mod random;

pub use carrier::Carrier;
pub use conversation::Conversation;
pub use mix::{GenPacket, Mix, MixOptions, PacketKind, Sizes};
pub use port::{DEFAULT_PACKETS, GenOpener, GenSpec};
