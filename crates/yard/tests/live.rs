//! Live traffic from a kernel interface: every frame that is sent arrives once, unchanged, on the right
//! ring, with the right tag; and the interface is left as it was.
//!
//! The frames are crafted, because this kernel may lack the devices that would make them: VLAN, QinQ,
//! PPPoE, GRE, GTP-U, VXLAN, MPLS, in both directions, with fragments of inner and outer packets in and
//! out of order, and ICMP errors. `live_vxlan.rs` has the kernel's own traffic.

mod common;

use std::time::Duration;

use common::wire::*;
use common::*;
use flowyard::mem::flags;
use flowyard_testkit::net::numbered_frame;
use flowyard_testkit::require_root;

#[test]
fn xdp_in_the_driver() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (1, true, 1), (4, false, 1), (4, true, 1), (4, false, 2)] {
        check(Case { port: "xdp:fy0?native", queues, offloads, dispatchers, ..CASE }, &frames());
    }
}

#[test]
fn xdp_in_the_stack() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (1, true, 1), (4, false, 1), (4, true, 1), (4, false, 2)] {
        check(Case { port: "xdp:fy0?generic", queues, offloads, dispatchers, ..CASE }, &frames());
    }
}

/// Each worker has queues of its own; what comes by another's queue is handed over.
#[test]
fn workers_with_queues_of_their_own() {
    require_root!();
    for (port, queues, dispatchers) in [("xdp:fy0?native", 2, 2), ("xdp:fy0?native", 4, 4), ("packet:fy0", 2, 2)] {
        check(Case { port, queues, dispatchers, local: true, ..CASE }, &frames());
    }
}

#[test]
fn packet_sockets() {
    require_root!();
    for (queues, offloads, dispatchers) in [(1, false, 1), (4, true, 1), (4, false, 2)] {
        let got = check(Case { port: "packet:fy0", queues, offloads, dispatchers, ..CASE }, &frames());
        assert!(got.iter().any(|g| g.tag.has(flags::VLAN_STRIPPED)), "the kernel takes VLAN tags off, and tells");
    }
}

#[test]
fn frames_of_several_buffers() {
    require_root!();
    let frames: Vec<_> =
        (0..2000u64).map(|n| numbered_frame(n as u16 % 150, n, 60 + n as usize * 149 % 8955)).collect();
    for port in ["xdp:fy0?native", "packet:fy0"] {
        let got = check(Case { port, queues: 4, mtu: 9000, ..CASE }, &frames);
        assert!(got.iter().any(|g| g.bytes.len() > 2 * 4096));
    }
}

#[test]
fn a_flood_is_lost_by_name_alone_and_ends_within_a_second() {
    require_root!();
    let _alone = alone();
    let frames = frames();
    for port in ["xdp:fy0", "packet:fy0?blocks=2&block=128"] {
        let case = Case { port, queues: 4, ..CASE };
        let namespace = case.namespace();
        let before = state(&namespace);
        // On a machine that does other things as well, one of three will do.
        assert!((0..3).any(|_| namespace.run(|| flood(case, &frames)) < Duration::from_secs(1)), "{port}");
        assert_same_state(&before, &state(&namespace));
    }
}
