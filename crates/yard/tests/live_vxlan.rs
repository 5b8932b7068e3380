//! The kernel's own TCP over its own VXLAN device: two namespaces with a hub between them, and a yard
//! that listens at the hub or at one end. Each connection comes to one ring, in both directions, byte
//! for byte.
//!
//! ```text
//!  namespace a                    hub                     namespace b
//!  TCP ─ vxlan ─ under ──────── a │bridge│ b ──────── under ─ vxlan ─ TCP
//!                                 │flooding│
//!                                   tap ──── yard (xdp:ear)
//! ```

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::*;
use flowyard::mem::{Tag, Wait, flags};
use flowyard::steer::{Flow, Frame, LinkType, Policy, TunnelKind, dissect};
use flowyard::{Report, RingReader, Witness, Yard, YardConfig};
use flowyard_testkit::net::{Namespace, Veth};
use flowyard_testkit::require_root;

const RINGS: u16 = 4;
const VNI: u32 = 77;
const CONNECTIONS: u8 = 16;
/// Bytes sent each way on a connection: several windows full.
const BYTES: usize = 150_000;
const PORT: u16 = 5001;

struct Network {
    a: Namespace,
    b: Namespace,
    hub: Namespace,
}

impl Network {
    /// The two ends keep their offloads if `offloads` says so; the tap has none, as on a wire.
    fn new(offloads: bool) -> Network {
        let [a, b, hub] = [0; 3].map(|_| Namespace::new().expect("root may"));
        // Ageing 0 makes a bridge a hub: everything goes everywhere.
        hub.command("ip link add hub type bridge ageing_time 0 mcast_snooping 0").expect("root may");
        for (port, end) in [("to-a", &a), ("to-b", &b)] {
            hub.veth_to(end, &Veth { name: port, peer: "under", offloads, ..Veth::default() }).expect("root may");
        }
        hub.veth(&Veth { name: "tap", peer: "ear", queues: 4, ..Veth::default() }).expect("root may");
        for port in ["to-a", "to-b", "tap"] {
            hub.command(&format!("ip link set {port} master hub")).expect("root may");
        }
        hub.command("ip link set hub up").expect("root may");
        for (end, here, there) in [(&a, 1, 2), (&b, 2, 1)] {
            for line in [
                &format!("ip addr add 10.1.0.{here}/24 dev under"),
                &format!(
                    "ip link add vx type vxlan id {VNI} local 10.1.0.{here} remote 10.1.0.{there} dstport 4789 dev under"
                ),
                &format!("ip addr add 10.2.0.{here}/24 dev vx"),
                "ip link set vx up",
            ] {
                end.command(line).expect("root may, and the kernel has vxlan");
            }
        }
        Network { a, b, hub }
    }

    /// Sends on many connections at once, both ways. Answers the ports of the clients.
    fn talk(&self) -> Vec<u16> {
        let listener = self.b.run(|| TcpListener::bind((Ipv4Addr::new(10, 2, 0, 2), PORT)).expect("an address"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::scope(|scope| {
                    for _ in 0..CONNECTIONS {
                        let (stream, _) = listener.accept().expect("a client");
                        scope.spawn(move || exchange(stream, false));
                    }
                });
            });
            self.a.run(|| {
                let server = SocketAddr::from((Ipv4Addr::new(10, 2, 0, 2), PORT));
                std::thread::scope(|scope| {
                    let clients: Vec<_> = (0..CONNECTIONS)
                        .map(|_| {
                            scope.spawn(move || {
                                let stream = TcpStream::connect_timeout(&server, PATIENCE).expect("the server listens");
                                let port = stream.local_addr().expect("it has one").port();
                                exchange(stream, true);
                                port
                            })
                        })
                        .collect();
                    clients.into_iter().map(|c| c.join().expect("no panic")).collect()
                })
            })
        })
    }
}

/// What one side of the connection of a client's `port` says.
fn speech(port: u16, client: bool) -> Vec<u8> {
    let salt = u32::from(port) << 1 | u32::from(client);
    (0..BYTES as u32 / 4).flat_map(|n| (n.wrapping_mul(0x9e37_79b9) ^ salt).to_be_bytes()).collect()
}

/// Sends one side's speech and hears the other's.
fn exchange(mut stream: TcpStream, client: bool) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let port = if client { stream.local_addr() } else { stream.peer_addr() }.expect("connected").port();
    let mut out = stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        out.write_all(&speech(port, client)).expect("the other side reads");
        out.shutdown(Shutdown::Write).expect("still open");
    });
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("the other side speaks");
    sender.join().expect("no panic");
    assert!(heard == speech(port, !client), "TCP itself");
}

/// A TCP segment of the inner traffic.
struct Segment {
    ring: u16,
    flow: Flow,
    sequence: u32,
    syn: bool,
    payload: Vec<u8>,
    tag: Tag,
}

fn consume(mut reader: RingReader) -> (Vec<Segment>, Witness) {
    let (mut segments, mut witness) = (Vec::new(), Witness::new(RINGS));
    while reader.wait(None) != Wait::Ended {
        while let Some(packet) = reader.next() {
            witness.see_packet(&packet);
            let (tag, slot) = (packet.tag(), *packet.slot());
            assert_eq!((slot.hash, slot.l3, slot.l4), (tag.hash, tag.inner_l3, tag.inner_l4));
            let bytes: Vec<u8> = packet.segments().flatten().copied().collect();
            segments.extend(segment(tag, &bytes));
        }
    }
    (segments, witness)
}

/// The inner TCP segment in a packet, if it is one.
fn segment(tag: Tag, bytes: &[u8]) -> Option<Segment> {
    let dissection = dissect(&Frame::new(bytes, LinkType(tag.link)), &Policy::default(), &mut ());
    let flow = dissection.flow(bytes).filter(|_| dissection.proto() == Some(6))?;
    assert_eq!((tag.tunnel_kind, tag.tunnel_id, tag.depth), (TunnelKind::Vxlan as u8, VNI, 2), "{flow:?}");
    let (ip, tcp) = (usize::from(tag.inner_l3), bytes.get(tag.inner_l4.into()..)?);
    // The inner length counts, unless the kernel has merged segments: then it may be anything.
    let total = usize::from(u16::from_be_bytes([bytes[ip + 2], bytes[ip + 3]]));
    let end = if tag.has(flags::GSO) { bytes.len() } else { ip + total };
    let (sequence, header) = (u32::from_be_bytes(tcp[4..8].try_into().ok()?), usize::from(tcp[12] >> 4) * 4);
    let payload = bytes[usize::from(tag.inner_l4) + header..end].to_vec();
    Some(Segment { ring: tag.ring, flow, sequence, syn: tcp[13] & 2 != 0, payload, tag })
}

/// Puts a direction's bytes together from its segments, in whatever order and however often they came.
fn stream<'s>(segments: impl Iterator<Item = &'s Segment> + Clone) -> Vec<u8> {
    let start = segments.clone().find(|s| s.syn).expect("a SYN").sequence.wrapping_add(1);
    let mut pieces: BTreeMap<u32, &[u8]> = BTreeMap::new();
    for segment in segments.filter(|s| !s.syn && !s.payload.is_empty()) {
        let piece = pieces.entry(segment.sequence.wrapping_sub(start)).or_default();
        if segment.payload.len() > piece.len() {
            *piece = &segment.payload;
        }
    }
    let mut bytes = Vec::new();
    for (at, piece) in pieces {
        assert!(at as usize <= bytes.len(), "bytes {} to {at} of the stream are missing", bytes.len());
        bytes.extend(piece.get(bytes.len() - at as usize..).unwrap_or_default());
    }
    bytes
}

/// Lets the two ends talk while a yard listens on `port` in `place`.
fn listen(network: &Network, place: &Namespace, port: &str, dispatchers: usize) -> (Report, Vec<Segment>, Vec<u16>) {
    // Room for everything that is said (ports below), so that no pace of this machine loses any.
    let config = YardConfig { rings: RINGS, buffers: Some(32_000), dispatchers, ..YardConfig::default() };
    let (running, consumers) = place.run(|| {
        let (yard, readers) = Yard::open(&config, &[spec(port)]).expect("root may");
        let consumers: Vec<_> = readers.into_iter().map(|reader| std::thread::spawn(|| consume(reader))).collect();
        (yard.start().expect("threads"), consumers)
    });
    let clients = network.talk();
    // All was said; let the last of it arrive.
    let received = || running.live().iter().map(|l| l.received.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>();
    let (mut before, deadline) = (u64::MAX, Instant::now() + PATIENCE);
    while received() != before && Instant::now() < deadline {
        before = received();
        std::thread::sleep(Duration::from_millis(200));
    }
    running.stop();
    let report = join(running);
    let (segments, witnesses): (Vec<_>, Vec<_>) = consumers.into_iter().map(|c| c.join().expect("no panic")).unzip();
    let findings = Witness::compare(&witnesses);
    assert_eq!((findings.split, findings.orphans), (0, 0), "{findings:?}");
    (report, segments.into_iter().flatten().collect(), clients)
}

fn check(offloads: bool, port: &str, dispatchers: usize) {
    let _alone = alone();
    let network = Network::new(offloads);
    let place = if port.starts_with("xdp") { &network.hub } else { &network.a };
    let (report, segments, clients) = listen(&network, place, port, dispatchers);
    assert!(report.sums_agree() && report.errors.is_empty(), "{report:?}");
    assert_eq!((report.lost_before(), report.dropped(), report.buffers_missing), (0, 0, 0), "{report:?}");

    let mut rings = HashSet::new();
    for client in &clients {
        let of = |from_client: bool| {
            let ports = if from_client { (*client, PORT) } else { (PORT, *client) };
            segments.iter().filter(move |s| (s.flow.sport, s.flow.dport) == (Some(ports.0), Some(ports.1)))
        };
        for from_client in [true, false] {
            assert!(stream(of(from_client)) == speech(*client, from_client), "connection {client}, {from_client}");
        }
        let theirs: HashSet<_> = of(true).chain(of(false)).map(|s| (s.ring, s.tag.hash)).collect();
        assert_eq!(theirs.len(), 1, "connection {client} has one ring and one hash");
        rings.extend(theirs.into_iter().map(|(ring, _)| ring));
    }
    assert_eq!(clients.len(), usize::from(CONNECTIONS));
    assert!(rings.len() > 1, "connections of one tunnel are spread");
    if port.starts_with("packet") {
        let outgoing = |s: &Segment| s.tag.has(flags::OUTGOING);
        assert!(segments.iter().all(|s| outgoing(s) == (s.flow.dport == Some(PORT))), "who sends is told");
        let merged = segments.iter().any(|s| s.tag.has(flags::GSO));
        assert_eq!(merged, offloads, "merged frames are told");
    }
}

#[test]
fn through_a_packet_socket_at_one_end() {
    require_root!();
    check(false, "packet:under?blocks=256", 1);
    check(true, "packet:under?blocks=256", 1);
    check(false, "packet:under?blocks=256", 2);
}

#[test]
fn through_xdp_at_the_hub() {
    require_root!();
    for (offloads, port, dispatchers) in [(false, "native", 1), (true, "native", 2), (false, "generic", 2)] {
        check(offloads, &format!("xdp:ear?ring=4096&{port}"), dispatchers);
    }
}
