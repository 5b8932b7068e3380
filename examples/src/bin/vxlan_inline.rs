//! A VXLAN tunnel's end, inline: packets are sent on in the buffers in which they came.
//!
//! ```text
//! network ── port 0 ──▶ pull 50 bytes ──▶ port 1 ── plain hosts
//!            port 0 ◀── push 50 bytes ◀── port 1
//! ```
//!
//! What comes by port 0 for our address in the tunnel's network goes out of port 1 without its outer headers; what comes
//! by port 1 goes out of port 0 with them, written into the headroom: no packet is copied here, or moved. Questions for
//! our address (ARP) are answered, the peer's hardware address is learnt from what it sends, and broadcast stands in for
//! it before. Offloads that were left undone, unfinished checksums and merged frames, travel along and are finished when
//! the packet is sent; the yard steers by the inner packet, so a conversation's two directions come to one thread.
//!
//! The plain hosts' MTU has to be 50 bytes less than the tunnel's network has: longer frames are refused, and counted as
//! `too-long`.
//!
//! ```text
//! sudo cargo run --release -p flowyard-examples --bin vxlan_inline -- packet:eth0 packet:eth1 192.0.2.1 192.0.2.2 77
//! ```
//!
//! with our address, the peer's, and the network's number. It ends with its standard input.
#![deny(unsafe_code)]

use std::io::Read;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flowyard::mem::{Packet, PacketError, Wait};
use flowyard::port::{PortSpec, Refusal, TransmitCounters};
use flowyard::{RingReader, Yard, YardConfig};

/// Numbers of the ports, in the order in which the yard is given them.
const NETWORK: u8 = 0;
const PLAIN: u8 = 1;

/// Ethernet, IPv4, UDP, VXLAN.
const TUNNEL_BYTES: usize = 14 + 20 + 8 + 8;
/// IEEE 802.3; RFC 826; RFC 7348, section 5.
const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const ARP_BYTES: usize = 14 + 28;
const VXLAN_PORT: u16 = 4789;

/// The tunnel, as all threads know it.
#[derive(Debug)]
struct Tunnel {
    ours: [u8; 4],
    peer: [u8; 4],
    network: u32,
    /// Our hardware address, made up: locally administered.
    hardware: [u8; 6],
    /// The peer's, once it is known, in the lower 48 bits.
    peer_hardware: AtomicU64,
}

impl Tunnel {
    fn learn(&self, hardware: &[u8]) {
        let address = hardware.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if self.peer_hardware.load(Ordering::Relaxed) != address {
            self.peer_hardware.store(address, Ordering::Relaxed); // a word on its own
        }
    }

    /// From port 0: a tunnel packet for us, a question for us, or nothing of ours.
    fn network(&self, packet: &mut Packet<'_>) -> Result<bool, PacketError> {
        let bytes = packet.data();
        if bytes.len() >= ARP_BYTES && bytes[12..14] == ARP && bytes[20..22] == [0, 1] && bytes[38..42] == self.ours {
            if bytes[28..32] == self.peer {
                self.learn(&bytes[22..28]);
            }
            self.answer(packet.data_mut()?);
            packet.transmit(NETWORK)?;
            return Ok(true);
        }
        let ours = bytes.len() > TUNNEL_BYTES
            && bytes[12..15] == [IPV4[0], IPV4[1], 0x45]
            && bytes[23] == 17
            && bytes[26..30] == self.peer
            && bytes[30..34] == self.ours
            && bytes[36..38] == VXLAN_PORT.to_be_bytes()
            && bytes[46..49] == self.network.to_be_bytes()[1..];
        if ours {
            self.learn(&bytes[6..12]);
            packet.pull(TUNNEL_BYTES)?;
            packet.transmit(PLAIN)?;
        }
        Ok(ours)
    }

    /// Turns a question for our address into its answer, in place (RFC 826).
    fn answer(&self, arp: &mut [u8]) {
        let asker: [u8; 10] = std::array::from_fn(|n| arp[22 + n]); // hardware and protocol address
        arp[0..6].copy_from_slice(&asker[..6]);
        arp[6..12].copy_from_slice(&self.hardware);
        arp[21] = 2;
        arp[22..28].copy_from_slice(&self.hardware);
        arp[28..32].copy_from_slice(&self.ours);
        arp[32..42].copy_from_slice(&asker);
    }

    /// From port 1: everything goes into the tunnel.
    fn plain(&self, packet: &mut Packet<'_>) -> Result<bool, PacketError> {
        let header = self.header(packet.slot().hash, packet.len());
        packet.push(TUNNEL_BYTES)?;
        packet.data_mut()?[..TUNNEL_BYTES].copy_from_slice(&header);
        packet.transmit(NETWORK)?;
        Ok(true)
    }

    /// The headers in front of `len` bytes (RFC 7348, section 5). Those of a merged frame are written anew for each of
    /// its parts; its length may be more than they can say.
    fn header(&self, hash: u32, len: usize) -> [u8; TUNNEL_BYTES] {
        let length = |own: usize| u16::try_from(own + len).unwrap_or(u16::MAX).to_be_bytes();
        let mut header = [0; TUNNEL_BYTES];
        let (eth, rest) = header.split_at_mut(14);
        let (ip, rest) = rest.split_at_mut(20);
        let (udp, vxlan) = rest.split_at_mut(8);
        let peer = match self.peer_hardware.load(Ordering::Relaxed) {
            0 => [0xff; 8],
            known => known.to_be_bytes(),
        };
        eth[0..6].copy_from_slice(&peer[2..]);
        eth[6..12].copy_from_slice(&self.hardware);
        eth[12..14].copy_from_slice(&IPV4);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&length(20 + 8 + 8));
        ip[6] = 0x40; // not to be fragmented
        (ip[8], ip[9]) = (64, 17);
        ip[12..16].copy_from_slice(&self.ours);
        ip[16..20].copy_from_slice(&self.peer);
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        // The source port comes from the hash, so that routers spread the conversations.
        udp[0..2].copy_from_slice(&(0xc000 | (hash >> 18) as u16).to_be_bytes());
        udp[2..4].copy_from_slice(&VXLAN_PORT.to_be_bytes());
        udp[4..6].copy_from_slice(&length(8 + 8));
        vxlan[0] = 0x08;
        vxlan[4..].copy_from_slice(&(self.network << 8).to_be_bytes());
        header
    }

    /// Takes a ring's packets until the yard ends. Answers how many were nothing of ours.
    fn run(&self, mut ring: RingReader) -> Result<u64, PacketError> {
        let mut others = 0;
        while ring.wait(None) != Wait::Ended {
            while let Some(mut packet) = ring.next() {
                let ours = match packet.slot().port {
                    NETWORK => self.network(&mut packet)?,
                    _ => self.plain(&mut packet)?,
                };
                others += u64::from(!ours);
            }
        }
        Ok(others)
    }
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [network, plain, ours, peer, number] = &words[..] else {
        return Err(
            "give PORT PORT OUR-ADDRESS PEER-ADDRESS NETWORK, such as packet:eth0 packet:eth1 192.0.2.1 192.0.2.2 77"
                .into(),
        );
    };
    let ours = ours.parse::<Ipv4Addr>()?.octets();
    let tunnel = Arc::new(Tunnel {
        ours,
        peer: peer.parse::<Ipv4Addr>()?.octets(),
        network: number.parse()?,
        hardware: [2, 0xf1, ours[0], ours[1], ours[2], ours[3]],
        peer_hardware: AtomicU64::new(0),
    });
    let ports: [PortSpec; 2] = [network.parse()?, plain.parse()?];
    let config = YardConfig { rings: 2, ring_slots: 4096, transmit: true, ..YardConfig::default() };
    let (yard, rings) = Yard::open(&config, &ports)?;
    for port in yard.ports() {
        eprintln!("{}: {}", port.name, port.mode);
    }
    let threads: Vec<_> = rings
        .into_iter()
        .map(|ring| {
            let tunnel = tunnel.clone();
            std::thread::spawn(move || tunnel.run(ring))
        })
        .collect();
    let running = yard.start()?;
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    running.stop();
    let report = running.join();
    for thread in threads {
        println!("not of the tunnel: {}", thread.join().expect("it returns its errors")?);
    }
    for (port, sent) in ports.iter().zip(&report.transmitted) {
        let (name, TransmitCounters { asked, checksums, taken_apart, .. }) = (port.name(), *sent);
        println!("{name}: asked {asked}, sent {}, taken apart {taken_apart}, checksums {checksums}", sent.sent);
        for (why, count) in Refusal::ALL.iter().zip(sent.refused).filter(|(_, count)| *count > 0) {
            println!("{}: refused {}: {count}", port.name(), why.name());
        }
    }
    println!("lost before {}, dropped {}, sums agree: {}", report.lost_before(), report.dropped(), report.sums_agree());
    report.errors.iter().for_each(|error| eprintln!("{error}"));
    Ok(if report.errors.is_empty() && report.sums_agree() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
