//! Generated frames, judged by programs that share nothing with the generator.

use std::collections::HashMap;
use std::net::IpAddr;
use std::process::Command;

use flowyard_port::capture::CaptureWriter;
use flowyard_port::traffic::{Carrier, GenPacket, Mix, MixOptions, PacketKind, Sizes};
use flowyard_port::{Outgoing, Sink};

/// Calls `each` with the first `packets` frames.
fn frames(options: &MixOptions, packets: usize, mut each: impl FnMut(&[u8], GenPacket)) -> Mix {
    let mut mix = Mix::new(options);
    let mut out = [0xaa; Mix::FRAME_BYTES];
    for _ in 0..packets {
        let packet = mix.next(&mut out);
        each(&out[..packet.len], packet);
    }
    mix
}

#[test]
fn a_seed_repeats_every_byte() {
    let options = MixOptions { flows: 200, seed: 7, ..MixOptions::default() };
    let (mut first, mut second, mut other) = (Vec::new(), Vec::new(), Vec::new());
    frames(&options, 3000, |bytes, packet| first.push((bytes.to_vec(), packet)));
    frames(&options, 3000, |bytes, packet| second.push((bytes.to_vec(), packet)));
    frames(&MixOptions { seed: 8, ..options.clone() }, 3000, |bytes, packet| other.push((bytes.to_vec(), packet)));
    assert!(first == second && first != other);
    let truth = Mix::truth(&options, 3000);
    assert!(first.iter().map(|(_, p)| p.conversation).eq(truth));
}

#[test]
fn sizes_kinds_and_carriers_are_as_asked() {
    let options = MixOptions::default();
    let mut kinds = HashMap::new();
    let mut carriers = HashMap::new();
    let (mut lengths, mut last_time) = (Vec::new(), None);
    let mix = Mix::new(&options);
    frames(&options, 60_000, |bytes, packet| {
        *kinds.entry(packet.kind).or_insert(0u32) += 1;
        *carriers.entry(mix.conversation(packet.conversation).carrier).or_insert(0u32) += 1;
        assert!(last_time < Some(packet.time_ns), "time goes on");
        last_time = Some(packet.time_ns);
        lengths.push(bytes.len());
    });
    lengths.sort_unstable();
    assert!(lengths[0] >= 60 && lengths[59_999] <= 1500, "{} {}", lengths[0], lengths[59_999]);
    assert!(lengths[20_000] < 300 && lengths[40_000] > 500, "short and long: {} {}", lengths[20_000], lengths[40_000]);
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    assert!(kinds.values().all(|&n| n > 100), "{kinds:?}");
    assert!(Carrier::ALL.iter().all(|c| carriers.get(c).is_some_and(|&n| n > 2000)), "{carriers:?}");

    let imix = MixOptions { sizes: Sizes::Imix, only: vec![Carrier::Plain], ..MixOptions::default() };
    frames(&imix, 5000, |bytes, packet| assert!(bytes.len() <= 1514, "{packet:?}"));
    let fixed = MixOptions {
        sizes: Sizes::Mixed { least: 64, most: 64 },
        only: vec![Carrier::Plain, Carrier::Vlan],
        ..MixOptions::default()
    };
    frames(&fixed, 5000, |bytes, packet| {
        assert!((64..=82).contains(&bytes.len()), "{packet:?}");
    });
}

#[test]
fn conversations_differ_in_addresses_or_ports() {
    let mix = Mix::new(&MixOptions { flows: 50_000, ..MixOptions::default() });
    let mut seen = std::collections::HashSet::new();
    for number in 0..mix.conversations() {
        let c = mix.conversation(number);
        let mut ends = [(c.client, c.client_port), (c.server, c.server_port)];
        ends.sort_unstable();
        assert!(seen.insert((ends, c.protocol)), "conversation {number} has a double: {c:?}");
    }
}

#[test]
fn later_fragments_come_first_in_a_share() {
    let options = MixOptions { flows: 50, ..MixOptions::default() };
    let mut open: HashMap<u32, PacketKind> = HashMap::new();
    let (mut in_order, mut reversed) = (0, 0);
    frames(&options, 100_000, |_, packet| match packet.kind {
        PacketKind::FirstFragment | PacketKind::LaterFragment => {
            match open.insert(packet.conversation, packet.kind) {
                None if packet.kind == PacketKind::FirstFragment => in_order += 1,
                Some(PacketKind::LaterFragment) if packet.kind == PacketKind::FirstFragment => reversed += 1,
                _ => {}
            }
            if packet.kind == PacketKind::FirstFragment {
                open.remove(&packet.conversation);
            }
        }
        _ => {}
    });
    assert!(in_order > 100 && reversed > 100, "{in_order} in order, {reversed} reversed");
}

/// Checks what etherparse can follow: Ethernet, tags, IP, and the checksums of whole packets.
#[test]
fn etherparse_finds_addresses_ports_and_checksums() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let options = MixOptions { only: vec![Carrier::Plain, Carrier::Vlan, Carrier::Qinq], ..MixOptions::default() };
    let mix = Mix::new(&options);
    frames(&options, 20_000, |bytes, packet| {
        let c = mix.conversation(packet.conversation);
        let sliced = SlicedPacket::from_ethernet(bytes).unwrap_or_else(|e| panic!("{packet:?}: {e}"));
        let Some(net) = sliced.net else { panic!("{packet:?} has no IP") };
        let (from, to) = match &net {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.calc_header_checksum(), header.header_checksum, "{packet:?}");
                (IpAddr::V4(ip.header().source_addr()), IpAddr::V4(ip.header().destination_addr()))
            }
            NetSlice::Ipv6(ip) => (IpAddr::V6(ip.header().source_addr()), IpAddr::V6(ip.header().destination_addr())),
            _ => panic!("{packet:?} is not IP"),
        };
        if packet.kind == PacketKind::IcmpError {
            assert!(to == if packet.backward { c.client } else { c.server });
            return;
        }
        let ends = [(c.client, c.client_port), (c.server, c.server_port)];
        let [(src, sport), (dst, dport)] = if packet.backward { [ends[1], ends[0]] } else { ends };
        assert_eq!((from, to), (src, dst), "{packet:?}");
        let ports = match (&sliced.transport, packet.kind) {
            (Some(TransportSlice::Tcp(tcp)), PacketKind::Tcp) => (tcp.source_port(), tcp.destination_port()),
            (Some(TransportSlice::Udp(udp)), PacketKind::Udp) => (udp.source_port(), udp.destination_port()),
            (Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)), PacketKind::Echo) => return,
            (None, PacketKind::FirstFragment | PacketKind::LaterFragment) => return,
            (other, kind) => panic!("{kind:?} is seen as {other:?}"),
        };
        assert_eq!(ports, (sport, dport), "{packet:?}");
    });
}

/// tshark, with every checksum checked, finds nothing wrong, reassembles every datagram, and sees
/// the conversation that the generator says.
#[test]
fn tshark_finds_nothing_wrong() {
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("skipped: tshark is not installed");
        return;
    }
    const PACKETS: usize = 30_000;
    let file = tempfile::Builder::new().suffix(".pcapng").tempfile().expect("a temporary file");
    let options = MixOptions { flows: 500, ..MixOptions::default() };
    let mut writer = CaptureWriter::create(file.path()).expect("a file that may be written");
    let mut packets = Vec::new();
    let mix = frames(&options, PACKETS, |bytes, packet| {
        let out = Outgoing {
            bytes,
            time_ns: 1_700_000_000_000_000_000 + packet.time_ns,
            wire_len: bytes.len() as u32,
            link: 1,
            comment: "",
        };
        writer.send(&out).expect("space in the temporary folder");
        packets.push(packet);
    });
    writer.finish().expect("space in the temporary folder");

    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file.path()).args(["-n", "-T", "fields", "-E", "occurrence=a", "-E", "separator=;"]);
    // Payload is noise: what dissectors of applications think of it does not count.
    for port in ["udp.port==53", "udp.port==443", "udp.port==5060", "udp.port==27015", "tcp.port==443", "tcp.port==80"]
    {
        tshark.args(["-d", &format!("{port},data")]);
    }
    for check in ["ip.check_checksum", "tcp.check_checksum", "udp.check_checksum", "udp.ignore_ipv6_zero_checksum"] {
        tshark.args(["-o", &format!("{check}:{}", if check.contains("zero") { "FALSE" } else { "TRUE" })]);
    }
    let fields = [
        "frame.number",
        "_ws.malformed",
        "_ws.short",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "ip.src",
        "ipv6.src",
        "ip.dst",
        "ipv6.dst",
        "frame.protocols",
    ];
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), PACKETS);
    for (line, packet) in text.lines().zip(&packets) {
        let columns: Vec<&str> = line.split(';').collect();
        let what = || format!("{packet:?}: {line}");
        let ours = ["Ethernet", "IPv4", "IPv6", "TCP", "UDP", "ICMP", "GTP", "GRE", "VXLAN", "PPP", "MPLS", "VLAN"];
        assert!(!ours.iter().any(|p| columns[1].contains(p)) && columns[2].is_empty(), "{}", what());
        for (at, status) in columns[3..8].iter().enumerate() {
            // tshark takes a quote for a whole packet.
            if packet.kind == PacketKind::IcmpError && (at == 1 || at == 2) {
                continue;
            }
            assert!(status.split(',').all(|s| s != "0"), "a checksum is wrong: {}", what());
        }
        // Of an outer fragment, only the frame that completes the datagram shows the conversation. A
        // pseudo-wire does not say whether it has a control word: tshark guesses, here wrong.
        let outer = [PacketKind::OuterFirstFragment, PacketKind::OuterLaterFragment].contains(&packet.kind);
        if outer || line.contains("pwethnocw") {
            continue;
        }
        let c = mix.conversation(packet.conversation);
        let named = |columns: &[&str]| {
            let all = columns.join(",");
            let of = |end: IpAddr| all.split(',').any(|a| a == end.to_string());
            (of(c.client), of(c.server))
        };
        // An error quotes a packet, so both ends appear on both sides of it.
        assert_eq!(named(&columns[8..12]), (true, true), "{}", what());
    }
}
