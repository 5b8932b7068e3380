//! The parser that a Rust user would take, and a hash that a card or DPDK would use.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Parses with etherparse, orders the ends of the outermost flow and hashes them with CRC-32C.
///
/// It sees through VLAN tags and IPv6 extension headers. It does not look into PPPoE, MPLS, GRE, GTP-U
/// or VXLAN: what travels in those gets the hash of its carrier's flow, or none.
#[inline]
pub fn hash(bytes: &[u8]) -> u32 {
    let Ok(packet) = SlicedPacket::from_ethernet(bytes) else { return 0 };
    let (sport, dport) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        _ => (0, 0),
    };
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (a, b) = ordered((header.source(), sport), (header.destination(), dport));
            let mut key = [0; 13];
            key[..4].copy_from_slice(&a.0);
            key[4..8].copy_from_slice(&b.0);
            key[8..10].copy_from_slice(&a.1.to_be_bytes());
            key[10..12].copy_from_slice(&b.1.to_be_bytes());
            key[12] = ip.payload_ip_number().0;
            crc32c::crc32c(&key)
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (a, b) = ordered((header.source(), sport), (header.destination(), dport));
            let mut key = [0; 37];
            key[..16].copy_from_slice(&a.0);
            key[16..32].copy_from_slice(&b.0);
            key[32..34].copy_from_slice(&a.1.to_be_bytes());
            key[34..36].copy_from_slice(&b.1.to_be_bytes());
            key[36] = ip.payload().ip_number.0;
            crc32c::crc32c(&key)
        }
        _ => 0,
    }
}

#[inline]
fn ordered<T: Ord>(a: T, b: T) -> (T, T) {
    if a <= b { (a, b) } else { (b, a) }
}
