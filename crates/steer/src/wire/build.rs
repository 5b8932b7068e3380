//! Frames made by hand, for tests: each function puts one header in front of a payload.
//!
//! Written from the specifications and on purpose not from the parsers beside it.

#![allow(dead_code, missing_docs)]

use std::vec;
use std::vec::Vec;

/// The bytes of a header followed by a payload.
pub fn join(header: &[u8], payload: &[u8]) -> Vec<u8> {
    [header, payload].concat()
}

pub fn be16(value: usize) -> [u8; 2] {
    (value as u16).to_be_bytes()
}

pub fn eth(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    header.extend(kind.to_be_bytes());
    join(&header, payload)
}

pub fn vlan(tci: u16, kind: u16, payload: &[u8]) -> Vec<u8> {
    join(&[tci.to_be_bytes(), kind.to_be_bytes()].concat(), payload)
}

pub fn snap(kind: u16, payload: &[u8]) -> Vec<u8> {
    join(&[&[0xaa, 0xaa, 3, 0, 0, 0][..], &kind.to_be_bytes()].concat(), payload)
}

pub fn mpls(label: u32, bottom: bool, payload: &[u8]) -> Vec<u8> {
    join(&(label << 12 | u32::from(bottom) << 8 | 64).to_be_bytes(), payload)
}

pub fn pppoe(session: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x11, 0];
    header.extend(session.to_be_bytes());
    header.extend(be16(payload.len()));
    join(&header, payload)
}

pub fn ppp(protocol: u16, payload: &[u8]) -> Vec<u8> {
    join(&protocol.to_be_bytes(), payload)
}

/// `fragment` is the word of flags and offset.
pub fn ipv4_piece(src: [u8; 4], dst: [u8; 4], proto: u8, id: u16, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend(be16(20 + payload.len()));
    header.extend(id.to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([64, proto, 0, 0]);
    header.extend(src);
    header.extend(dst);
    join(&header, payload)
}

pub fn ipv4(src: [u8; 4], dst: [u8; 4], proto: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_piece(src, dst, proto, 0, 0, payload)
}

pub fn ipv6(src: [u8; 16], dst: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(be16(payload.len()));
    header.extend([next, 64]);
    header.extend(src);
    header.extend(dst);
    join(&header, payload)
}

/// An extension header of 8 bytes.
pub fn ext6(next: u8, payload: &[u8]) -> Vec<u8> {
    join(&[next, 0, 1, 4, 0, 0, 0, 0], payload)
}

pub fn frag6(next: u8, word: u16, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend(word.to_be_bytes());
    header.extend(id.to_be_bytes());
    join(&header, payload)
}

pub fn ah(next: u8, payload: &[u8]) -> Vec<u8> {
    join(&[next, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], payload)
}

pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    header.extend(be16(8 + payload.len()));
    header.extend([0, 0]);
    join(&header, payload)
}

pub fn tcp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    header.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    join(&header, payload)
}

/// SCTP with the common header alone.
pub fn sctp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    header.extend([0; 8]);
    join(&header, payload)
}

/// `flags` decide which optional fields are there.
pub fn gre(flags: u16, protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = [flags.to_be_bytes(), protocol.to_be_bytes()].concat();
    if flags & 0x8000 != 0 {
        header.extend([0; 4]);
    }
    if flags & 0x2000 != 0 {
        header.extend([0, 0, 0x12, 0x34]);
    }
    if flags & 0x1000 != 0 {
        header.extend([0, 0, 0, 9]);
    }
    join(&header, payload)
}

/// Enhanced GRE with a PPP packet.
pub fn pptp(call: u16, sequence: bool, acknowledgment: bool, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x20 | u8::from(sequence) << 4, 1 | u8::from(acknowledgment) << 7, 0x88, 0x0b];
    header.extend(be16(payload.len()));
    header.extend(call.to_be_bytes());
    if sequence {
        header.extend([0, 0, 0, 1]);
    }
    if acknowledgment {
        header.extend([0, 0, 0, 2]);
    }
    join(&header, payload)
}

/// GTP-U with a user packet, `extensions` extension headers of 4 bytes.
pub fn gtp(teid: u32, extensions: usize, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    if extensions > 0 {
        body.extend([0, 1, 0, 0x85]);
        for left in (0..extensions).rev() {
            body.extend([1, 0, 0, if left > 0 { 0x85 } else { 0 }]);
        }
    }
    body.extend(payload);
    let mut header = vec![if extensions > 0 { 0x34 } else { 0x30 }, 255];
    header.extend(be16(body.len()));
    header.extend(teid.to_be_bytes());
    join(&header, &body)
}

pub fn vxlan(vni: u32, payload: &[u8]) -> Vec<u8> {
    join(&[[8, 0, 0, 0], (vni << 8).to_be_bytes()].concat(), payload)
}

/// GENEVE with `options` words of options.
pub fn geneve(vni: u32, options: usize, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![options as u8, 0];
    header.extend(kind.to_be_bytes());
    header.extend((vni << 8).to_be_bytes());
    header.resize(8 + 4 * options, 0x5a);
    join(&header, payload)
}

/// L2TP version 2 with length and sequence numbers.
pub fn l2tp(session: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x48, 2];
    header.extend(be16(12 + payload.len()));
    header.extend([0, 9]);
    header.extend(session.to_be_bytes());
    header.extend([0; 4]);
    join(&header, payload)
}

/// ERSPAN types II and III in GRE.
pub fn erspan(three: bool, payload: &[u8]) -> Vec<u8> {
    if three {
        gre(0x1000, 0x22eb, &join(&[0x20, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0], payload))
    } else {
        gre(0x1000, 0x88be, &join(&[0x10, 0, 0, 7, 0, 0, 0, 0], payload))
    }
}

/// Network service header with a context of fixed length.
pub fn nsh(next: u8, payload: &[u8]) -> Vec<u8> {
    join(&[&[0x0f, 0xc6, 1, next][..], &[0; 20]].concat(), payload)
}

/// An ICMP or ICMPv6 message with 4 bytes after the checksum.
pub fn icmp(kind: u8, code: u8, word: u32, payload: &[u8]) -> Vec<u8> {
    join(&[[kind, code, 0, 0], word.to_be_bytes()].concat(), payload)
}

pub const A4: [u8; 4] = [10, 0, 0, 1];
pub const B4: [u8; 4] = [192, 168, 7, 9];
pub const A6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
pub const B6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// TCP 1000 → 2000 between the IPv4 addresses.
pub fn tcp4() -> Vec<u8> {
    ipv4(A4, B4, 6, &tcp(1000, 2000, b"payload"))
}

/// TCP 1000 → 2000 between the IPv6 addresses.
pub fn tcp6() -> Vec<u8> {
    ipv6(A6, B6, 6, &tcp(1000, 2000, b"payload"))
}
