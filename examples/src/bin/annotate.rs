//! The room in front of every packet, used in two ways: an annotation of the application's own type,
//! and headroom into which headers are pushed without moving the packet.
//!
//! Each consumer notes in the annotation what it knows of the packet, wraps the packet up in a VXLAN
//! tunnel (50 bytes pushed), and unwraps it again (50 bytes pulled). Annotation and tag stay where they
//! are. That the wrapping is right, the yard's own dissection says: it finds the conversation again,
//! one tunnel deeper, with the same hash.
//!
//! ```text
//! cargo run --release -p flowyard-examples --bin annotate                   # built-in traffic
//! cargo run --release -p flowyard-examples --bin annotate -- pcap:trace.pcapng
//! ```
#![deny(unsafe_code)]

use std::process::ExitCode;

use flowyard::mem::{Packet, PacketError, Wait};
use flowyard::steer::{FlowHash, Fragment, Frame, LinkType, Policy, dissect};
use flowyard::{RingReader, Yard, YardConfig};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the application notes of every packet. Any plain data of up to `annotation_bytes` will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Note {
    /// Running number of the packet on its ring.
    number: u64,
    /// Network of the tunnel that it is to travel in.
    network: u32,
    /// Bytes of it at first.
    len: u32,
}

/// Ethernet, IPv4, UDP, VXLAN.
const TUNNEL_BYTES: usize = 14 + 20 + 8 + 8;

/// The headers of a tunnel that carries `len` bytes (RFC 7348, section 5).
fn tunnel(network: u32, entropy: u32, len: usize) -> [u8; TUNNEL_BYTES] {
    let mut header = [0; TUNNEL_BYTES];
    let (eth, rest) = header.split_at_mut(14);
    let (ip, rest) = rest.split_at_mut(20);
    let (udp, vxlan) = rest.split_at_mut(8);
    eth.copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    ip[2..4].copy_from_slice(&((20 + 8 + 8 + len) as u16).to_be_bytes());
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    // The source port comes from the hash, so that routers spread the conversations.
    udp[0..2].copy_from_slice(&(0xc000 | (entropy >> 18) as u16).to_be_bytes());
    udp[2..4].copy_from_slice(&4789u16.to_be_bytes());
    udp[4..6].copy_from_slice(&((8 + 8 + len) as u16).to_be_bytes());
    vxlan[0] = 0x08;
    vxlan[4..].copy_from_slice(&(network << 8).to_be_bytes());
    header
}

#[derive(Debug, Default)]
struct Sums {
    packets: u64,
    wrapped: u64,
    found_again: u64,
    wrong: u64,
}

fn consume(mut ring: RingReader) -> Result<Sums, PacketError> {
    let mut sums = Sums::default();
    while ring.wait(None) != Wait::Ended {
        while let Some(mut packet) = ring.next() {
            one(&mut packet, &mut sums)?;
        }
    }
    Ok(sums)
}

fn one(packet: &mut Packet<'_>, sums: &mut Sums) -> Result<(), PacketError> {
    let tag = packet.tag();
    let note = Note { number: sums.packets, network: 42 + u32::from(tag.ring), len: packet.len() as u32 };
    packet.set_annotation(&note)?;
    sums.packets += 1;
    if tag.link != LinkType::ETHERNET.0 || packet.is_segmented() {
        return Ok(()); // VXLAN carries Ethernet; and only a first segment has headroom
    }

    packet.push(TUNNEL_BYTES)?;
    let header = tunnel(note.network, tag.hash, packet.len() - TUNNEL_BYTES);
    packet.data_mut()?[..TUNNEL_BYTES].copy_from_slice(&header);
    sums.wrapped += 1;

    let found = dissect(&Frame::new(packet.data(), LinkType::ETHERNET), &Policy::default(), &mut ());
    let hash = FlowHash::default().hash(&found.conversation(packet.data()));
    // Where fragments belong, no packet says alone.
    sums.found_again += u64::from(hash == tag.hash && found.fragment() == Fragment::None);

    packet.pull(TUNNEL_BYTES)?;
    let unchanged = packet.annotation::<Note>()? == note && packet.tag() == tag && packet.len() == note.len as usize;
    sums.wrong += u64::from(!unchanged);
    Ok(())
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).unwrap_or("gen:mix?packets=100000".into());
    let (yard, rings) = Yard::open(&YardConfig::default(), &[port.parse()?])?;
    let consumers: Vec<_> = rings.into_iter().map(|ring| std::thread::spawn(move || consume(ring))).collect();
    let report = yard.start()?.join();
    let mut sum = Sums::default();
    for (ring, consumer) in consumers.into_iter().enumerate() {
        let sums = consumer.join().expect("it returns its errors")?;
        println!("ring {ring}: {sums:?}");
        sum.packets += sums.packets;
        sum.wrapped += sums.wrapped;
        sum.found_again += sums.found_again;
        sum.wrong += sums.wrong;
    }
    println!(
        "all rings: {} of {} packets wrapped, {} found again, {} wrong",
        sum.wrapped, sum.packets, sum.found_again, sum.wrong
    );
    report.errors.iter().for_each(|error| eprintln!("{error}"));
    Ok(if sum.wrong == 0 && report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
