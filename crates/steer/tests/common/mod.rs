//! Flows and encapsulations to build frames from.

#![allow(dead_code)]

#[path = "../../src/wire/build.rs"]
pub mod build;

use build::*;
use flowyard_steer::{Classifier, FlowHash, Frame, LinkType, Policy, Table, Verdict};
use proptest::prelude::*;

/// One flow, either way round.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    pub v6: bool,
    pub proto: u8,
    pub a: ([u8; 16], u16),
    pub b: ([u8; 16], u16),
}

impl Ends {
    pub fn swapped(self) -> Ends {
        Ends { a: self.b, b: self.a, ..self }
    }

    /// What is behind the IP header.
    pub fn transport(&self) -> Vec<u8> {
        let (sport, dport) = (self.a.1, self.b.1);
        match self.proto {
            6 => tcp(sport, dport, b"segment"),
            17 => udp(sport, dport, b"datagram"),
            132 => sctp(sport, dport, b"chunk"),
            _ => icmp(if self.v6 { 128 } else { 8 }, 0, u32::from(sport) << 16, b"echo"),
        }
    }

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        self.carry(self.proto, &self.transport())
    }

    /// An IP packet between the ends with this payload.
    pub fn carry(&self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let short = |end: [u8; 16]| [end[0], end[1], end[2], end[3]];
        if self.v6 {
            ipv6(self.a.0, self.b.0, proto, payload)
        } else {
            ipv4(short(self.a.0), short(self.b.0), proto, payload)
        }
    }
}

/// Ports that carry no tunnel.
pub fn plain_port() -> impl Strategy<Value = u16> {
    any::<u16>().prop_map(|port| if Policy::default().udp_tunnels.iter().any(|t| t.0 == port) { 1 } else { port })
}

pub fn ends() -> impl Strategy<Value = Ends> {
    let proto = prop_oneof![Just(6u8), Just(17), Just(132), Just(1)];
    (any::<bool>(), proto, any::<[u8; 16]>(), any::<[u8; 16]>(), plain_port(), plain_port()).prop_map(
        |(v6, proto, a, b, sport, dport)| {
            let echo = proto == 1;
            let proto = if echo && v6 { 58 } else { proto };
            // Both directions of an echo carry one identifier.
            Ends { v6, proto, a: (a, sport), b: (b, if echo { sport } else { dport }) }
        },
    )
}

/// The names of the encapsulations that [`wrap`] knows.
pub const WRAPS: u8 = 38;

/// Puts an encapsulation around an IP packet: the result is an IP packet, or an Ethernet payload.
/// Returns (EtherType, payload).
pub fn wrap(kind: u8, v6: bool, packet: &[u8], outer: &Ends) -> (u16, Vec<u8>) {
    let ethertype = if v6 { 0x86dd } else { 0x0800 };
    let framed = || eth(ethertype, packet);
    let ppp_packet = || ppp(if v6 { 0x57 } else { 0x21 }, packet);
    let outer_type = if outer.v6 { 0x86dd } else { 0x0800 };
    let over_ip = |proto: u8, payload: &[u8]| (outer_type, outer.carry(proto, payload));
    let over_udp = |port: u16, payload: &[u8]| over_ip(17, &udp(outer.a.1, port, payload));
    match kind % WRAPS {
        0 => (ethertype, packet.to_vec()),
        1 => (0x8100, vlan(outer.a.1, ethertype, packet)),
        2 => (0x88a8, vlan(1, 0x8100, &vlan(outer.a.1, ethertype, packet))),
        3 => (0x9100, vlan(1, 0x8100, &vlan(outer.a.1, ethertype, packet))),
        4 => (0x8847, mpls(1000, false, &mpls(16 + u32::from(outer.a.1), true, packet))),
        5 => (0x8847, mpls(1000, true, &join(&[0; 4], &framed()))),
        6 => (0x8864, pppoe(outer.a.1, &ppp_packet())),
        7 => over_ip(if v6 { 41 } else { 4 }, packet),
        8 => over_ip(47, &gre(0, ethertype, packet)),
        9 => over_ip(47, &gre(0xb000, 0x6558, &framed())),
        10 => over_ip(47, &pptp(outer.a.1, true, true, &ppp_packet())),
        11 => over_udp(2152, &gtp(u32::from(outer.a.1), usize::from(outer.b.1 % 4), packet)),
        12 => over_udp(4789, &vxlan(u32::from(outer.b.1), &framed())),
        13 => over_ip(51, &ah(if v6 { 41 } else { 4 }, packet)),
        14 => over_ip(47, &gre(0x2000, 0x8847, &mpls(17, true, packet))),
        15 => over_udp(6081, &geneve(u32::from(outer.b.1), usize::from(outer.b.1 % 5), 0x6558, &framed())),
        16 => over_udp(6081, &geneve(1, 0, ethertype, packet)),
        17 => over_udp(1701, &l2tp(outer.b.1, &ppp_packet())),
        18 => over_ip(47, &erspan(false, &framed())),
        19 => over_ip(47, &erspan(true, &framed())),
        20 => over_ip(47, &gre(0, 0x88be, &framed())),
        21 => over_udp(6635, &mpls(outer.b.1.into(), true, packet)),
        22 => over_udp(4754, &gre(0x2000, ethertype, packet)),
        23 => over_udp(4790, &join(&[0x0c, 0, 0, if v6 { 2 } else { 1 }, 0, 0, 1, 0], packet)),
        24 => over_udp(4790, &join(&[0x0c, 0, 0, 4, 0, 0, 1, 0], &nsh(3, &framed()))),
        25 => (0x894f, nsh(if v6 { 2 } else { 1 }, packet)),
        26 => (0x8909, join(&[1, 1, 0, 1, 0, 9], &join(&ethertype.to_be_bytes(), packet))),
        27 => (0x8926, join(&[0; 4], &join(&ethertype.to_be_bytes(), packet))),
        28 => (0x893f, join(&[0; 6], &join(&ethertype.to_be_bytes(), packet))),
        29 => (0x88e7, join(&[0, 1, 2, 3], &framed())),
        30 => (0x8903, join(&[0, 0x50], &framed())),
        31 => (0x22f3, join(&[0, 0x3f, 0, 1, 0, 2], &framed())),
        32 => over_ip(97, &join(&[0x30, 0], &framed())),
        33 => over_udp(4341, &join(&[0x80, 0, 0, 1, 0, 0, 0, 1], packet)),
        34 => over_udp(5247, &join(&[0, 0x10, 0, 0, 0, 0, 0, 0], &framed())),
        35 => {
            let length = [(packet.len() + 14).to_be_bytes()[6], (packet.len() + 14).to_be_bytes()[7]];
            over_ip(47, &join(&[0x20, 1, 0x64, 0, length[0], length[1], 5, 0], &framed()))
        }
        36 => {
            let check = [0; 16];
            let signed = [&[0x00, 0, 0, 0, 0, 1][..], &ethertype.to_be_bytes(), packet, &check].concat();
            (0x88e5, signed)
        }
        _ if outer.v6 => over_ip(0, &ext6(60, &ext6(if v6 { 41 } else { 4 }, packet))),
        _ => over_ip(if v6 { 41 } else { 4 }, packet),
    }
}

/// A classifier with the built-in policy and 16 rings.
pub fn classifier() -> Classifier {
    Classifier { policy: Policy::default(), hash: FlowHash::default(), table: Table::even(16).unwrap() }
}

/// The hash of an Ethernet frame that is no fragment.
pub fn hash_of(frame: &[u8]) -> u32 {
    match classifier().classify(&Frame::new(frame, LinkType::ETHERNET), &mut (), 0) {
        Verdict::Ring(decision) => decision.hash,
        Verdict::Hold(hold) => panic!("held: {hold:?}"),
    }
}
