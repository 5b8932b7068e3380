//! Rings of running yards for programs that use libpcap, as they are: `libflowyard_pcap.so` is preloaded (ld.so(8)), and
//! a device named `flowyard:NAME/RING` is a ring. All other devices, and all that is no business of a device, go on to
//! the real libpcap.
//!
//! ```text
//! program ── pcap_open_live("eth0") ──▶ libflowyard_pcap ─────────────▶ libpcap.so.0.8
//!         ── pcap_open_live("flowyard:edge/0") ──▶ a Handle of ours ──▶ the ring, by flowyard::attach
//!                                                        └─ filters, files: a pcap_open_dead handle of libpcap's
//! ```
//!
//! `pcap_t` is opaque to programs, so ours need not be like the real library's: a table of addresses (registry.rs) knows which are ours.
//! What the functions do is said in the manual, pcap(3PCAP); the comments here say only what differs.
#![deny(unsafe_code)]

mod about;
mod devices;
mod dump;
mod entry;
mod filter;
mod handle;
mod live;
mod open;
mod pcap_h;
mod read;
mod real;
mod registry;
mod shared;
