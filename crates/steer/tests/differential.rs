//! Against `etherparse`, on what both know: Ethernet, VLAN tags, IPv4, IPv6 and its extension
//! headers, TCP, UDP, fragments; whole, cut, and with bytes changed.

mod common;

use common::build::*;
use common::*;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use flowyard_steer::{Flow, Frame, LinkType, Policy, UdpTunnels, dissect};
use proptest::prelude::*;
use std::net::IpAddr;

/// Addresses, and ports if there are any.
type Theirs = (IpAddr, IpAddr, Option<(u16, u16)>);

/// The outermost flow as etherparse reads it.
fn theirs(frame: &[u8]) -> Option<Theirs> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        _ => return None,
    };
    let ports = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        _ => None,
    };
    Some((src, dst, ports))
}

/// The outermost flow as steer reads it: no tunnels in UDP, one IP header.
fn ours(frame: &[u8]) -> Option<Flow> {
    let policy = Policy { udp_tunnels: UdpTunnels::NONE, max_depth: 1, ..Policy::default() };
    dissect(&Frame::new(frame, LinkType::ETHERNET), &policy, &mut ()).flow(frame)
}

fn agree(frame: &[u8]) -> Result<(), TestCaseError> {
    let (Some((src, dst, ports)), Some(flow)) = (theirs(frame), ours(frame)) else {
        return Ok(());
    };
    prop_assert_eq!((src, dst), (flow.src, flow.dst));
    // A damaged length is the end for steer, where a lax reader guesses on.
    if let (Some(ports), Some(mine)) = (ports, flow.sport.zip(flow.dport)) {
        prop_assert_eq!(ports, mine);
    }
    Ok(())
}

proptest! {
    #[test]
    fn whole_frames(ends in ends(), kind in 0u8..4, outer in ends()) {
        let (ethertype, payload) = wrap(kind, ends.v6, &ends.packet(), &outer);
        let frame = eth(ethertype, &payload);
        let (theirs, ours) = (theirs(&frame).unwrap(), ours(&frame).unwrap());
        if ends.proto == 6 || ends.proto == 17 {
            prop_assert_eq!(theirs.2.unwrap(), (ours.sport.unwrap(), ours.dport.unwrap()));
        }
        agree(&frame)?;
    }

    #[test]
    fn changed_and_cut_frames(
        ends in ends(),
        kind in 0u8..4,
        outer in ends(),
        at in 14usize..60,
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (ethertype, payload) = wrap(kind, ends.v6, &ends.packet(), &outer);
        let mut frame = eth(ethertype, &payload);
        let at = at.min(frame.len() - 1);
        frame[at] = value;
        agree(&frame)?;
        agree(&frame[..cut.index(frame.len() + 1)])?;
    }
}
