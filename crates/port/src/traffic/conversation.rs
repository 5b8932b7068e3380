//! A conversation: who talks to whom about what, and what carries it. Decided by seed and number
//! alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::carrier::Carrier;
use super::frame;
use super::random::Random;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// One conversation, as its ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// What carries it.
    pub carrier: Carrier,
    /// Innermost protocol: 6, 17, 1 or 58.
    pub protocol: u8,
    /// Who speaks first.
    pub client: IpAddr,
    /// Who answers.
    pub server: IpAddr,
    /// The client's port; the identifier of an echo conversation.
    pub client_port: u16,
    /// The server's port; 0 for echo.
    pub server_port: u16,
}

/// All that frames of a conversation are made of, and what moves on with each.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) carrier: Carrier,
    pub(super) protocol: u8,
    pub(super) inner_v6: bool,
    pub(super) outer_v6: bool,
    /// Kinds within the carrier: key, tag, label count, pseudo-wire …; bits.
    pub(super) variant: u8,
    /// Client, server: last 32 bits of the address.
    pub(super) hosts: [u32; 2],
    /// Client, server.
    pub(super) ports: [u16; 2],
    /// Tunnel ends on the client's and on the server's side.
    pub(super) ends: [u32; 2],
    /// Tunnel identifiers by direction.
    pub(super) ids: [u32; 2],
    /// Outer source port by direction.
    pub(super) outer_ports: [u16; 2],
    /// Next sequence number of each side.
    pub(super) seq: [u32; 2],
    /// Packets so far, up to the three of a handshake.
    pub(super) begun: u8,
    /// Bytes in front of the inner IP header.
    pub(super) overhead: u8,
}

impl Flow {
    /// Conversation `number` of a mix over `carriers`. Two numbers never have the same addresses
    /// and ports.
    pub(super) fn new(seed: u64, number: u32, carriers: &[Carrier]) -> Flow {
        let mut random = Random::new(seed.wrapping_add(u64::from(number).wrapping_mul(0xd6e8_feb8_6659_fd93)));
        let carrier = carriers[random.below(carriers.len() as u32) as usize];
        let inner_v6 = random.permille(300);
        let protocol = match random.below(100) {
            0..60 => TCP,
            60..95 => UDP,
            _ if inner_v6 => ICMPV6,
            _ => ICMP,
        };
        // Four conversations share a client; its ports keep them apart.
        let client_port = (20_000 + random.below(10_000) * 4 + number % 4) as u16;
        let server_port = match protocol {
            TCP => [443, 80, 22, 8080][random.below(4) as usize],
            UDP => [53, 443, 5060, 27015][random.below(4) as usize],
            _ => 0,
        };
        let ids = match carrier {
            // Tags: TCIs of 12 bits, one the other way; service tag above, customer tag below.
            Carrier::Vlan | Carrier::Qinq => {
                let tags = (1 + random.below(4000)) << 16 | (1 + random.below(4000));
                [tags, if random.permille(500) { tags } else { tags ^ 1 << 17 }]
            }
            Carrier::Pppoe => [1 + random.below(60_000); 2],
            Carrier::Gre | Carrier::Vxlan => [1 + random.below(0xff_fffe); 2],
            Carrier::Gtp => [1 + random.next() as u32 % 0xffff_fffe, 1 + random.next() as u32 % 0xffff_fffe],
            Carrier::Mpls => [16 + random.below(500_000), 500_016 + random.below(500_000)],
            Carrier::Plain => [0; 2],
        };
        let ends = [1 + random.below(16), 101 + random.below(16)];
        let mut flow = Flow {
            carrier,
            protocol,
            inner_v6,
            outer_v6: random.permille(250),
            variant: random.next() as u8,
            hosts: [number / 4 + 1, 0x00ff_0000 | (1 + random.below(200))],
            ports: [client_port, server_port],
            ends,
            ids,
            outer_ports: match carrier {
                Carrier::Vxlan => [49_152 + random.below(16_384) as u16, 49_152 + random.below(16_384) as u16],
                _ => [2152; 2],
            },
            seq: [random.next() as u32, random.next() as u32],
            begun: 0,
            overhead: 0,
        };
        flow.overhead = frame::carrier(&mut [0; 256], &flow, 0, 0, 0).inner as u8;
        flow
    }

    /// Inner address of a side.
    pub(super) fn v4(&self, side: usize) -> u32 {
        10 << 24 | self.hosts[side]
    }

    /// Inner address of a side.
    pub(super) fn v6(&self, side: usize) -> u128 {
        0x2001_0db8_000a_0000_0000_0000_0000_0000 | u128::from(self.hosts[side])
    }

    /// The truth about it.
    pub(super) fn describe(&self) -> Conversation {
        let address = |side| match self.inner_v6 {
            true => IpAddr::V6(Ipv6Addr::from_bits(self.v6(side))),
            false => IpAddr::V4(Ipv4Addr::from_bits(self.v4(side))),
        };
        Conversation {
            carrier: self.carrier,
            protocol: self.protocol,
            client: address(0),
            server: address(1),
            client_port: self.ports[0],
            server_port: self.ports[1],
        }
    }
}
