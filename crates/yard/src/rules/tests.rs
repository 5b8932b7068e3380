//! What rules match: every key on packets made for it, refusals, and that the quick way to the first match
//! is the plain one.

use flowyard_mem::{Tag, flags};
use flowyard_port::traffic::{Mix, MixOptions};
use flowyard_steer::{Dissection, Frame, LinkType, Policy, dissect};

use super::columns::{Columns, Packets};
use super::facts::Facts;
use super::filter::tests::has_libpcap;
use super::keys::Certain;
use super::matcher::{Found, Matcher};
use super::{Rules, file, parse};

// ---- packets ------------------------------------------------------------------------------------

fn eth(ethertype: u16, carried: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(carried);
    frame
}

fn ip4(ends: ([u8; 4], [u8; 4]), proto: u8, carried: &[u8]) -> Vec<u8> {
    piece4(ends, proto, 0, carried)
}

fn piece4((src, dst): ([u8; 4], [u8; 4]), proto: u8, fragment: u16, carried: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, proto, 0, 0];
    packet[2..4].copy_from_slice(&(20 + carried.len() as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet.extend([src, dst].concat());
    packet.extend(carried);
    packet
}

fn ip6(src: u128, dst: u128, next: u8, carried: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, carried.len() as u8, next, 64];
    packet.extend([src.to_be_bytes(), dst.to_be_bytes()].concat());
    packet.extend(carried);
    packet
}

fn udp(sport: u16, dport: u16, carried: &[u8]) -> Vec<u8> {
    let words = [sport, dport, 8 + carried.len() as u16, 0];
    let mut datagram = words.map(u16::to_be_bytes).concat();
    datagram.extend(carried);
    datagram
}

fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut segment = [sport, dport].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 64, 0, 0, 0, 0]);
    segment
}

fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    packet.extend(frame);
    packet
}

fn icmp_error(quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![11, 0, 0, 0, 0, 0, 0, 0];
    message.extend(quoted);
    message
}

const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [192, 168, 7, 9];
const ROUTER: [u8; 4] = [172, 16, 0, 1];
const OUTER: ([u8; 4], [u8; 4]) = ([1, 1, 1, 1], [2, 2, 2, 2]);

fn http() -> Vec<u8> {
    ip4((A, B), 6, &tcp(40_000, 80))
}

fn tunnelled(inner: &[u8]) -> Vec<u8> {
    eth(0x800, &ip4(OUTER, 17, &udp(9999, 4789, &vxlan(5000, &eth(0x800, inner)))))
}

// ---- looking ------------------------------------------------------------------------------------

fn rules(text: &str) -> Rules {
    parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn facts(found: &Dissection, bytes: &[u8], tag: &Tag) -> Facts {
    let mut facts = Facts::read(found, &Tag { wire_len: bytes.len() as u32, ..*tag });
    facts.read_addresses(bytes);
    facts
}

/// Packets that were dissected, to be looked at together.
struct Shown<'a>(Vec<(&'a [u8], Dissection, Tag)>);

impl Packets for Shown<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn seen(&self, at: usize) -> (&Dissection, &Tag) {
        (&self.0[at].1, &self.0[at].2)
    }
    fn bytes(&mut self, at: usize) -> &[u8] {
        self.0[at].0
    }
}

/// What is found of each of at most 64 packets, if it is asked of (a bit each).
fn find_of(matcher: &Matcher, columns: &mut Columns, open: u64, mut packets: Shown<'_>) -> Vec<Option<Found>> {
    for (bytes, _, tag) in &mut packets.0 {
        tag.wire_len = bytes.len() as u32;
    }
    let mut all = vec![None; packets.0.len()];
    let rest = matcher.find(&mut packets, columns, open, true, |at, found, _, _| {
        assert_eq!(all[at].replace(found), None, "once each");
    });
    for (at, found) in all.iter_mut().enumerate().filter(|(at, _)| rest >> at & 1 == 1) {
        assert_eq!(found.replace(Found::None), None, "packet {at} once");
    }
    all
}

fn find_one(matcher: &Matcher, found: &Dissection, bytes: &[u8], tag: &Tag) -> Found {
    find_of(matcher, &mut Columns::new(), 1, Shown(vec![(bytes, *found, *tag)]))[0].expect("asked of")
}

fn look(rules: &Rules, bytes: &[u8], link: LinkType, tag: &Tag) -> Found {
    let found = dissect(&Frame::new(bytes, link), &Policy::default(), &mut ());
    find_one(&rules.matcher, &found, bytes, tag)
}

/// Whether a rule with these keys matches.
fn hits(keys: &str, bytes: &[u8]) -> bool {
    hits_on(keys, bytes, LinkType::ETHERNET, &Tag::default())
}

fn hits_on(keys: &str, bytes: &[u8], link: LinkType, tag: &Tag) -> bool {
    let rules = rules(&format!("[[rule]]\n{keys}\nverdict = 'drop'"));
    let found = look(&rules, bytes, link, tag);
    assert!(matches!(found, Found::Rule(0) | Found::None), "{keys}: {found:?}");
    found == Found::Rule(0)
}

#[track_caller]
fn expect(yes: &[&str], no: &[&str], packets: &[&[u8]]) {
    for packet in packets {
        for keys in yes {
            assert!(hits(keys, packet), "{keys} should match {packet:02x?}");
        }
        for keys in no {
            assert!(!hits(keys, packet), "{keys} should not match {packet:02x?}");
        }
    }
}

#[test]
fn protocol_ports_and_networks_ask_the_flow_whichever_way_it_goes_and_whatever_carries_it() {
    let back = ip4((B, A), 6, &tcp(80, 40_000));
    let yes = [
        "protocol = 'tcp'",
        "protocol = 6",
        "protocol = ['udp', 6]",
        "port = 80",
        "port = [1, '70-90']",
        "port = '39999-40001'",
        "port = '1024-'",
        "net = '10.0.0.0/8'",
        "net = '192.168.7.9'",
        "net = ['2001:db8::/32', '192.168.0.0/16']",
        "net = ['1.0.0.0/8', '10.0.0.0/31', '9.0.0.0/8']",
        "protocol = 'tcp'\nport = 80\nnet = '10.0.0.0/8'\nfragment = 'none'\nicmp_error = false",
    ];
    let no = [
        "protocol = 'udp'",
        "protocol = [1, 17]",
        "port = 81",
        "port = ['1-79', '81-39999', '40001-']",
        "port = 80\nprotocol = 'udp'",
        "net = '10.0.0.2/31'",
        "net = '::/0'",
        "net = ['11.0.0.0/8', '2001:db8::/32']",
        "icmp_error = true",
    ];
    let quoted = eth(0x800, &ip4((ROUTER, A), 1, &icmp_error(&http()[..28])));
    expect(&yes, &no, &[&eth(0x800, &http()), &eth(0x800, &back), &tunnelled(&http()), &tunnelled(&back)]);
    expect(&yes[..11], &no[..8], &[&quoted]);
    let directional = ["sport = 40000", "dport = 80", "sport = '40000-'\ndport = [79, 80]"];
    expect(&directional, &[], &[&eth(0x800, &http())]);
    expect(&["sport = 80", "dport = 40000"], &directional, &[&eth(0x800, &back)]);
    // Neither protocol nor ports nor addresses: an ARP request.
    expect(
        &["vlan = 'none'"],
        &["protocol = '0'", "port = 0", "port = '0-'", "net = ['0.0.0.0/0', '::/0']"],
        &[&eth(0x806, &[0; 28])],
    );
    // Without addresses captured.
    expect(&[], &["net = '0.0.0.0/0'"], &[&eth(0x800, &http()[..14])]);
}

#[test]
fn ipv6_networks() {
    let (a, b) = (0x2001_0db8 << 96 | 1, 0xfe80 << 112 | 7);
    let packet = eth(0x86dd, &ip6(a, b, 17, &udp(53, 999, &[])));
    expect(
        &["net = '2001:db8::/32'", "net = 'fe80::7'", "net = '::/0'", "net = ['10.0.0.0/8', 'fe80::/10']", "port = 53"],
        &["net = '2001:db9::/32'", "net = '0.0.0.0/0'", "net = 'fe80::8'"],
        &[&packet],
    );
}

#[test]
fn ports_that_the_key_does_without_are_there_to_be_asked() {
    let control = eth(0x800, &ip4((A, B), 17, &udp(5000, 2123, &[0x48, 32, 0, 4, 0, 0, 0, 1])));
    expect(&["port = 2123", "protocol = 'udp'"], &["port = 80"], &[&control]);
}

#[test]
fn the_outermost_header() {
    expect(
        &["outer_net = '1.1.1.1'", "outer_net = '2.0.0.0/8'"],
        &["outer_net = '10.0.0.0/8'"],
        &[&tunnelled(&http())],
    );
    expect(&["outer_net = '10.0.0.0/8'"], &["outer_net = '1.1.1.1'"], &[&eth(0x800, &http())]);
    // Of an error: what it quotes, for that is what the flow's own packets have.
    let quoted = |inner: &[u8]| ip4((ROUTER, A), 1, &icmp_error(inner));
    let tunnel = &tunnelled(&http())[14..];
    expect(&["outer_net = '192.168.0.0/16'"], &["outer_net = '172.16.0.0/12'"], &[&eth(0x800, &quoted(&http()))]);
    expect(
        &["outer_net = '1.1.1.1'", "net = '10.0.0.1'"],
        &["outer_net = '172.16.0.0/12'"],
        &[&eth(0x800, &quoted(tunnel))],
    );
    // In a tunnel: the tunnel's.
    expect(&["outer_net = '1.1.1.1'"], &["outer_net = '10.0.0.1'"], &[&tunnelled(&quoted(&http()))]);
}

#[test]
fn vlans_in_the_frame_and_beside_it() {
    let mut tagged = vec![0x20, 100, 8, 0];
    tagged.extend(http());
    let tagged = eth(0x8100, &tagged);
    let no = ["vlan = 'none'", "vlan = 99", "vlan = ['none', '101-4095']"];
    let yes = ["vlan = 100", "vlan = '90-110'", "vlan = [7, 100]"];
    expect(&yes, &no, &[&tagged]);
    expect(&["vlan = 'none'", "vlan = ['none', 5]"], &["vlan = 0", "vlan = '0-4095'"], &[&eth(0x800, &http())]);
    let frame = eth(0x800, &http());
    let stripped = Frame { stripped_vlan: Some(100), ..Frame::new(&frame, LinkType::ETHERNET) };
    let found = dissect(&stripped, &Policy::default(), &mut ());
    let rules = rules("[[rule]]\nvlan = 100\nverdict = 'drop'");
    assert_eq!(find_one(&rules.matcher, &found, &frame, &Tag::default()), Found::Rule(0));
}

#[test]
fn tunnels_and_their_identifiers() {
    expect(
        &["tunnel = 'vxlan'", "tunnel = ['gre', 'vxlan']", "tunnel_id = 5000", "tunnel_id = ['1-2', '4000-6000']"],
        &["tunnel = 'none'", "tunnel = 'gtp'", "tunnel_id = 5001", "tunnel = ['gre', 'none']"],
        &[&tunnelled(&http())],
    );
    expect(&["tunnel = 'none'"], &["tunnel_id = 0", "tunnel = 'vxlan'"], &[&eth(0x800, &http())]);
    expect(&["tunnel = 'ip'", "tunnel_id = 0"], &[], &[&eth(0x800, &ip4(OUTER, 4, &http()))]);
    for (number, name) in super::keys::TUNNELS.iter().enumerate().skip(1) {
        let kind = flowyard_steer::TunnelKind::Other as usize;
        assert!(number <= kind && !name.is_empty());
    }
    assert_eq!(super::keys::TUNNELS.len(), flowyard_steer::TunnelKind::Other as usize + 1);
}

#[test]
fn what_differs_from_packet_to_packet() {
    let first = eth(0x800, &piece4((A, B), 17, 0x2000, &udp(53, 999, &[0; 8])));
    let error = eth(0x800, &ip4((ROUTER, A), 1, &icmp_error(&http()[..28])));
    let plain = eth(0x800, &http());
    expect(&["fragment = 'first'", "fragment = ['first', 'later']"], &["fragment = 'none'"], &[&first]);
    expect(
        &["fragment = 'none'", "stop = 'transport'", "stop = ['icmp', 'transport']"],
        &["fragment = 'first'"],
        &[&plain],
    );
    expect(&["icmp_error = true", "stop = 'icmp-error'"], &["icmp_error = false", "protocol = 'icmp'"], &[&error]);
    expect(&["stop = 'not-ip'"], &["stop = ['transport', 'malformed']"], &[&eth(0x806, &[0; 28])]);
    // 54 bytes.
    expect(&["length = 54", "length = '0-128'", "length = '54-'"], &["length = '0-53'", "length = '55-'"], &[&plain]);
    // A tunnel in fragments: its first one is a fragment, whatever it carries.
    let outer = piece4(OUTER, 17, 0x2000, &udp(9999, 4789, &vxlan(5, &eth(0x800, &http()))));
    expect(&["fragment = 'first'", "port = 80"], &["fragment = 'none'"], &[&eth(0x800, &outer)]);
}

#[test]
fn links_and_ports_of_the_yard() {
    let tag = Tag { port: 3, ..Tag::default() };
    for (keys, link, expected) in [
        ("link = 'ethernet'", LinkType::ETHERNET, true),
        ("link = 'raw'", LinkType::ETHERNET, false),
        ("link = 'raw'", LinkType::RAW, true),
        ("link = 'raw'", LinkType::OLD_RAW_BSD, true),
        ("link = 101", LinkType::RAW, true),
        ("link = 101", LinkType::OLD_RAW_BSD, false),
        ("link = [1, 'raw']", LinkType::RAW, true),
        ("port_number = 3", LinkType::RAW, true),
        ("port_number = '0-2'", LinkType::RAW, false),
        ("port_number = [1, 3]", LinkType::RAW, true),
    ] {
        assert_eq!(hits_on(keys, &http(), link, &tag), expected, "{keys}");
    }
}

#[test]
fn the_first_match_wins() {
    let rules = rules(
        "[[rule]]\nport = 443\nverdict = 'drop'\n[[rule]]\nname = 'b'\nnet = '10.0.0.0/8'\nverdict = 'host'\n\
         [[rule]]\nport = 80\nverdict = 'ring 1'\n[[rule]]\nverdict = 'built-in'",
    );
    let found = |bytes: &[u8]| look(&rules, bytes, LinkType::ETHERNET, &Tag::default());
    assert_eq!(found(&eth(0x800, &http())), Found::Rule(1));
    assert_eq!(found(&eth(0x800, &ip4((B, ROUTER), 6, &tcp(80, 9)))), Found::Rule(2));
    assert_eq!(found(&eth(0x806, &[0; 28])), Found::Rule(3));
    assert_eq!(rules.names().collect::<Vec<_>>(), ["rule 1", "b", "rule 3", "rule 4"]);
}

#[test]
fn filters_see_the_flow_past_what_carries_it_and_stands_before_its_transport() {
    if !has_libpcap(line!()) {
        return;
    }
    let (a, b) = (0x2001_0db8 << 96 | 1, 0xfe80 << 112 | 7);
    // Hop-by-hop options, then the first fragment's header.
    let behind = [&[44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9][..], &tcp(40_000, 80)].concat();
    let options = eth(0x86dd, &ip6(a, b, 0, &behind));
    let plain = eth(0x86dd, &ip6(a, b, 6, &tcp(40_000, 80)));
    let signed = [&[6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1][..], &[0; 12], &tcp(40_000, 80)].concat();
    let signed = eth(0x800, &ip4((A, B), 51, &signed));
    let error = eth(0x800, &ip4((ROUTER, A), 1, &icmp_error(&http())));
    let all = [eth(0x800, &http()), tunnelled(&http()), error.clone(), plain, options.clone(), signed];
    for packet in &all {
        expect(
            &["filter = 'tcp port 80'", "filter = 'tcp dst port 80'\nfilter_on = 'inner'"],
            &[
                "filter = 'tcp port 81'",
                "filter = 'udp'\nfilter_on = 'inner'",
                "filter = 'host 172.16.0.1'",
                "filter = 'icmp'",
            ],
            &[packet],
        );
    }
    expect(
        &["filter = 'ip6[6] = 0'\nfilter_on = 'outer'"],
        &["filter = 'ip6[6] = 0'\nfilter_on = 'inner'"],
        &[&options],
    );
    expect(
        &["filter = 'icmp'\nfilter_on = 'outer'", "filter = 'net 172.16.0.0/12'\nfilter_on = 'outer'"],
        &[],
        &[&error],
    );
    expect(&["filter = 'udp port 4789'"], &["filter = 'udp port 4789'\nfilter_on = 'inner'"], &[&tunnelled(&http())]);
    expect(&["filter = 'arp'"], &["filter = 'arp'\nport = 1"], &[&eth(0x806, &[0; 28])]);
    // As long as it was on the wire, from the flow's header on.
    let inner = |keys| format!("filter = '{keys}'\nfilter_on = 'inner'");
    expect(&[&inner("len = 40")], &[&inner("len = 54")], &[&eth(0x800, &http()), &tunnelled(&http())]);
}

// ---- later fragments ----------------------------------------------------------------------------

#[test]
fn a_later_fragment_is_matched_only_by_what_its_first_one_shows_as_well() {
    let rest = "\n[[rule]]\nverdict = 'drop'";
    let found = |keys: &str, packet: &[u8], tag: &Tag| {
        let rules = rules(&format!("[[rule]]\n{keys}\nverdict = 'ring 1'{rest}"));
        look(&rules, packet, LinkType::ETHERNET, tag)
    };
    let late = |proto| eth(0x800, &piece4((A, B), proto, 3, &[0; 16]));
    let (tcp, udp) = (late(6), late(17));
    let (this, next, follow) = (Found::Rule(0), Found::Rule(1), Found::Follow);
    for (keys, of_tcp, of_udp) in [
        // TCP carries nothing further: its pieces show protocol and addresses.
        ("protocol = 'tcp'", this, follow),
        ("protocol = 'udp'", next, follow),
        ("net = '10.0.0.0/8'", this, follow),
        ("net = '11.0.0.0/8'", next, follow),
        ("tunnel = 'none'", this, follow),
        ("tunnel = 'vxlan'", next, follow),
        ("tunnel_id = 9", next, follow),
        ("icmp_error = true", next, follow),
        // All pieces share these.
        ("outer_net = '10.0.0.0/8'", this, this),
        ("outer_net = '11.0.0.0/8'", next, next),
        ("vlan = 'none'", this, this),
        ("vlan = 5", next, next),
        ("link = 'ethernet'", this, this),
        ("port_number = 1", next, next),
        // Only the first one has ports.
        ("port = 53", follow, follow),
        ("sport = 53", follow, follow),
        ("port = 53\nvlan = 5", next, next),
        ("port = 53\nnet = '11.0.0.0/8'", next, follow),
        // Meant for one piece or the other.
        ("fragment = 'later'", this, this),
        ("fragment = 'first'", follow, follow),
        ("stop = 'later-fragment'", this, this),
        ("stop = 'transport'", follow, follow),
        ("length = '0-100'", this, this),
        ("length = '100-'", next, next),
    ] {
        assert_eq!(found(keys, &tcp, &Tag::default()), of_tcp, "{keys}");
        assert_eq!(found(keys, &udp, &Tag::default()), of_udp, "{keys}");
        // Its first one never came: by what it shows.
        let alone = Tag { flags: flags::FRAGMENT_FALLBACK, ..Tag::default() };
        let shown = hits_on(keys, &udp, LinkType::ETHERNET, &alone);
        assert_eq!(found(keys, &udp, &alone), if shown { this } else { next }, "{keys}");
    }
    // A verdict that asks for more than is shown.
    let by_addresses = rules("[[rule]]\nverdict = 'hash addresses'");
    let find = |packet: &[u8]| look(&by_addresses, packet, LinkType::ETHERNET, &Tag::default());
    assert_eq!((find(&tcp), find(&udp)), (this, follow));
    let by_outer = super::parse("[[rule]]\nverdict = 'hash outer-addresses'").expect("good");
    assert_eq!(look(&by_outer, &udp, LinkType::ETHERNET, &Tag::default()), this);
}

// ---- refusals -----------------------------------------------------------------------------------

#[test]
fn refusals_name_line_key_value_and_what_is_allowed() {
    let drop = "verdict = 'drop'";
    for (text, words) in [
        ("".into(), &["no rules", "[[rule]]"][..]),
        ("# nothing\n".into(), &["no rules"]),
        ("[[rules]]\nport = 1".into(), &["line 1", "rules", "rule"]),
        (format!("[[rule]]\n{drop}\nprot = 6"), &["line 3", "prot", "protocol"]),
        ("[[rule]]\nport = 1\n\n[[rule]]\nport = 2\nverdict='drop'".into(), &["line 1", "verdict", "ring N"]),
        ("[[rule]]\nverdict = 'ring'".into(), &["line 2", "verdict", "\"ring\"", "shunt TIME"]),
        ("[[rule]]\nverdict = ['drop']".into(), &["line 2", "verdict", "ring N"]),
        ("[[rule]]\nverdict = 'shunt 5'".into(), &["line 2", "verdict", "shunt 5", "60s"]),
        (format!("[[rule]]\n{drop}\nport = 65536"), &["line 3", "port", "65536", "65535"]),
        (format!("[[rule]]\n{drop}\nport = [1,\n 2,\n 'x']"), &["line 5", "port", "\"x\"", "65535"]),
        (format!("[[rule]]\n{drop}\nport = '9-3'"), &["line 3", "port", "9-3"]),
        (format!("[[rule]]\n{drop}\nport = []"), &["line 3", "port", "empty", "65535"]),
        (format!("[[rule]]\n{drop}\nport = true"), &["line 3", "port", "65535"]),
        (format!("[[rule]]\n{drop}\nport = -1"), &["line 3", "port", "-1", "65535"]),
        (format!("[[rule]]\n{drop}\nprotocol = 'tpc'"), &["line 3", "protocol", "tpc", "tcp, udp"]),
        (format!("[[rule]]\n{drop}\nprotocol = 256"), &["line 3", "protocol", "256", "255"]),
        (format!("[[rule]]\n{drop}\nnet = '10.0.0.1/8'"), &["line 3", "net", "10.0.0.1/8", "zeros"]),
        (format!("[[rule]]\n{drop}\nouter_net = '10.0.0.0/33'"), &["line 3", "outer_net", "/33"]),
        (format!("[[rule]]\n{drop}\nvlan = 4096"), &["line 3", "vlan", "4096", "4095", "none"]),
        (format!("[[rule]]\n{drop}\ntunnel = 'gtpu'"), &["line 3", "tunnel", "gtpu", "gtp"]),
        (format!("[[rule]]\n{drop}\ntunnel_id = 'x'"), &["line 3", "tunnel_id", "32 bits"]),
        (format!("[[rule]]\n{drop}\nfragment = true"), &["line 3", "fragment", "later"]),
        (format!("[[rule]]\n{drop}\nstop = 'end'"), &["line 3", "stop", "end", "later-fragment"]),
        (format!("[[rule]]\n{drop}\nlink = 'eth'"), &["line 3", "link", "eth", "ethernet"]),
        (format!("[[rule]]\n{drop}\nlength = '128'\nlength = 3"), &["line 4", "length"]),
        (format!("[[rule]]\n{drop}\nicmp_error = 'yes'"), &["line 3", "icmp_error", "boolean"]),
        (format!("[[rule]]\n{drop}\nslice = 0"), &["line 3", "slice", "\"0\"", "from 1"]),
        (format!("[[rule]]\n{drop}\npull = 70000"), &["line 3", "pull", "70000", "65535"]),
        (format!("[[rule]]\n{drop}\nmark = -1"), &["line 3", "mark", "-1", "64 bits"]),
        (format!("[[rule]]\n{drop}\nname = ''"), &["line 3", "name", "64 bytes"]),
        (format!("[[rule]]\n{drop}\nname = 'rule 7'"), &["line 3", "name", "rule 7"]),
        (format!("[[rule]]\n{drop}\nfilter_on = 'inner'"), &["line 3", "filter_on"]),
        (format!("[[rule]]\n{drop}\nfilter = ' '"), &["line 3", "filter", "tcpdump"]),
        (format!("[[rule]]\n{drop}\nport = 1\nprotocol = 'icmp'"), &["line 1", "port", "only tcp"]),
        (format!("[[rule]]\n{drop}\nport = 1\nfragment = 'later'"), &["line 1", "port", "later fragments"]),
        (format!("[[rule]]\n{drop}\ntunnel = 'none'\ntunnel_id = 4"), &["line 1", "tunnel_id", "none"]),
        (
            format!("[[rule]]\nname = 'a'\nport = 1\n{drop}\n[[rule]]\nname = 'a'\nport = 2\n{drop}"),
            &["line 5", "name", "line 1"],
        ),
        (
            format!("[[rule]]\nname = 'all'\n{drop}\n\n[[rule]]\nname = 'x'\nport = 2\n{drop}"),
            &["line 5", "x: can never match", "all of line 1"],
        ),
        (
            format!("[[rule]]\nport = '1-9'\n{drop}\n[[rule]]\nport = [2, 7]\nprotocol = 'tcp'\n{drop}"),
            &["line 4", "rule 2: can never match", "rule 1 of line 1"],
        ),
        (format!("[[rule]]\n{drop}\nport = "), &["line 3"]),
    ] {
        let refusal = parse(&text).expect_err(&text).to_string();
        for word in words {
            assert!(refusal.contains(word), "{text}\n{refusal:?} lacks {word:?}");
        }
    }
}

#[test]
fn what_leaves_nothing_for_a_later_rule() {
    let covers = |first: &str, second: &str| {
        let text = format!("[[rule]]\n{first}\nverdict='drop'\n[[rule]]\n{second}\nverdict='drop'");
        match file::read(&text) {
            Ok(_) => false,
            Err(refusal) => {
                assert!(refusal.contains("never match"), "{refusal}");
                true
            }
        }
    };
    for (first, second) in [
        ("", ""),
        ("length = '0-'", "port = 1"),
        ("vlan = ['none', '0-4095']", "port = 1"),
        ("fragment = ['none', 'first', 'later']", "vlan = 4"),
        ("port = 80", "port = 80\nnet = '10.0.0.0/8'"),
        ("port = 80", "dport = 80"),
        ("port = '1-100'", "sport = 80\nprotocol = 6"),
        ("net = '10.0.0.0/8'", "net = ['10.1.0.0/16', '10.200.0.0/14']"),
        ("net = ['0.0.0.0/1', '128.0.0.0/1', '::/0']", "net = '10.0.0.0/8'"),
        ("protocol = ['tcp', 'udp']", "protocol = 'udp'\nport = 53"),
        ("icmp_error = false", "icmp_error = false\nvlan = 3"),
    ] {
        assert!(covers(first, second), "{first:?} then {second:?}");
    }
    for (first, second) in [
        ("port = 80", ""),
        ("port = '0-'", ""),
        ("protocol = '0'", "vlan = 3"),
        ("dport = 80", "port = 80"),
        ("sport = 80", "dport = 80"),
        ("net = '10.1.0.0/16'", "net = '10.0.0.0/8'"),
        ("net = '0.0.0.0/0'", "net = '::/0'"),
        ("net = '10.0.0.0/8'", "outer_net = '10.0.0.0/8'"),
        ("port = 80\nvlan = 3", "port = 80"),
        ("tunnel_id = '0-'", "tunnel = 'none'"),
        ("vlan = '0-4095'", "vlan = 'none'"),
    ] {
        assert!(!covers(first, second), "{first:?} then {second:?}");
    }
}

#[test]
fn the_example_has_every_key_and_can_be_loaded() {
    let text = include_str!("../../../../examples/rules.toml");
    assert!(rules(text).len() > 5);
    let keys = "name verdict slice pull mark protocol port sport dport net outer_net vlan tunnel tunnel_id fragment \
                stop link port_number length icmp_error filter filter_on";
    for key in keys.split_whitespace() {
        let line = |line: &str| line.trim_start_matches("#: ").starts_with(&format!("{key} ="));
        assert!(text.lines().any(line), "{key}");
    }
    for verdict in
        "built-in|ring |rings |hash addresses|hash outer-addresses|hash vlan|hash tunnel-id|drop|shunt |every-ring|host"
            .split('|')
    {
        assert!(text.contains(&format!("\"{verdict}")), "{verdict}");
    }
    // With what is commented out, as far as this machine can.
    if has_libpcap(line!()) {
        let all: String = text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n").collect();
        assert!(rules(&all).len() > rules(text).len());
    }
}

// ---- the quick way and the plain one ------------------------------------------------------------

/// Random numbers, the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Keys that often match generated traffic, of the kinds that ask the flow.
    fn keys(&mut self, by_packet: bool) -> String {
        let lists = [
            ("protocol", &["'tcp'", "'udp'", "[6, 17]", "'icmp'", "[1, 58, 17]"][..]),
            (
                "port",
                &[
                    "53",
                    "80",
                    "443",
                    "'0-1023'",
                    "['1-100', 443]",
                    "'1024-'",
                    "[53, 80, 443, 8080, 22]",
                    "[1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 53, 443]",
                ],
            ),
            (
                "net",
                &[
                    "'10.0.0.0/8'",
                    "'0.0.0.0/1'",
                    "'128.0.0.0/1'",
                    "['10.0.0.0/9', '2001:db8::/32']",
                    "'::/0'",
                    "'0.0.0.0/0'",
                ],
            ),
            ("outer_net", &["'10.0.0.0/8'", "'0.0.0.0/1'", "['::/0', '192.168.0.0/16']", "'128.0.0.0/1'"]),
            ("vlan", &["'none'", "'0-99'", "'100-4095'", "['none', 100]"]),
            ("tunnel", &["'none'", "'vxlan'", "'gtp'", "['gre', 'ip', 'mpls']", "['none', 'gtp', 'vxlan']"]),
            ("tunnel_id", &["'0-'", "'1-1000'", "'1001-'"]),
            ("icmp_error", &["true", "false"]),
            ("link", &["'ethernet'", "'raw'"]),
            ("port_number", &["0", "'1-'"]),
            ("fragment", &["'none'", "'first'", "'later'", "['none', 'later']"]),
            ("stop", &["'transport'", "'later-fragment'", "['icmp', 'icmp-error']"]),
            ("length", &["'0-128'", "'100-1000'", "'1000-'"]),
        ];
        let kinds = if by_packet { lists.len() } else { lists.len() - 3 };
        let mut keys = String::new();
        for (key, values) in &lists[..kinds] {
            if self.below(kinds) < 2 {
                keys += &format!("{key} = {}\n", self.pick(values));
            }
        }
        keys
    }

    /// Rules that can be: those that nothing is left for are left out.
    fn rules(&mut self, by_packet: bool) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        for _ in 0..1 + self.below(12) {
            let verdict = self.pick(&["drop", "ring 1", "hash addresses", "hash tunnel-id", "built-in"]);
            blocks.push(format!("[[rule]]\n{}verdict = '{verdict}'\n", self.keys(by_packet)));
            if file::read(&blocks.concat()).is_err() {
                blocks.pop();
            }
        }
        blocks
    }
}

fn traffic(packets: usize) -> Vec<Vec<u8>> {
    let mut mix = Mix::new(&MixOptions::default());
    let mut frame = [0; Mix::FRAME_BYTES];
    std::iter::repeat_with(|| {
        let packet = mix.next(&mut frame);
        frame[..packet.len].to_vec()
    })
    .take(packets)
    .collect()
}

#[test]
fn asking_all_at_once_finds_what_asking_every_key_in_order_finds() {
    let (mut dice, traffic) = (Dice(1), traffic(4000));
    let (mut matched, mut awaiting) = (0, 0);
    let mut columns = Columns::new(); // one for all, as in a yard
    for _ in 0..300 {
        let blocks = dice.rules(true);
        if blocks.is_empty() {
            continue;
        }
        let matcher = Matcher::new(file::read(&blocks.concat()).expect("checked above"));
        let packet = |bytes: &Vec<u8>| dissect(&Frame::new(bytes, LinkType::ETHERNET), &Policy::default(), &mut ());
        let batch: Vec<_> = (0..1 + dice.below(64)).map(|_| &traffic[dice.below(traffic.len())]).collect();
        let mut tag = || Tag {
            flags: if dice.below(4) == 0 { 0 } else { flags::FRAGMENT_FALLBACK },
            port: dice.below(2) as u16,
            ..Tag::default()
        };
        let batch: Vec<_> = batch.into_iter().map(|bytes| (bytes.as_slice(), packet(bytes), tag())).collect();
        let open = (u64::MAX >> (64 - batch.len())) & (dice.0 | dice.0.rotate_left(32));
        let all = find_of(&matcher, &mut columns, open, Shown(batch.clone()));
        for (at, ((bytes, found, tag), quick)) in batch.iter().zip(all).enumerate() {
            let Some(quick) = quick else {
                assert_eq!(open >> at & 1, 0, "not asked of");
                continue;
            };
            if found.is_awaiting() && !tag.has(flags::FRAGMENT_FALLBACK) {
                awaiting += 1;
                assert_eq!(quick, find_one(&matcher, found, bytes, tag), "{}", blocks.concat());
                continue;
            }
            let facts = facts(found, bytes, tag);
            let passes =
                |rule: &super::matcher::Rule| rule.keys.present().all(|key| rule.keys.pass(key, &facts, bytes));
            let expected = matcher.rules.iter().position(passes);
            assert_eq!(quick, expected.map_or(Found::None, Found::Rule), "{}", blocks.concat());
            matched += usize::from(expected.is_some());
            // What a rule covers it matches.
            for (at, rule) in matcher.rules.iter().enumerate() {
                let covered = matcher.rules.iter().position(|other| rule.keys.cover(&other.keys) && passes(other));
                assert!(covered.is_none() || passes(rule), "rule {} of {}", at + 1, blocks.concat());
            }
        }
    }
    assert!(matched > 1000 && awaiting > 20, "{matched} matched, {awaiting} later fragments");
}

#[test]
fn whatever_the_rules_a_later_fragment_is_caught_only_where_its_first_one_is() {
    use std::collections::HashMap;
    let (mut dice, traffic) = (Dice(2), traffic(60_000));
    // First fragments by their datagram; later ones of them.
    let dissected =
        traffic.iter().map(|b| (b, dissect(&Frame::new(b, LinkType::ETHERNET), &Policy::default(), &mut ())));
    let fragments: Vec<_> = dissected.filter(|(_, found)| found.is_awaiting() || found.has_first_fragments()).collect();
    let mut firsts = HashMap::new();
    for (bytes, found) in &fragments {
        firsts.extend(found.first_fragments(bytes).map(|datagram| (datagram, (*bytes, *found))));
    }
    let later: Vec<_> = fragments.iter().filter_map(|(b, f)| Some(((*b, *f), *firsts.get(&f.awaited(b)?)?))).collect();
    assert!(later.len() > 500, "{} later fragments", later.len());
    let (mut caught, mut followed, mut sure) = (0, 0, 0);
    for _ in 0..400 {
        let blocks = dice.rules(false);
        if blocks.is_empty() {
            continue;
        }
        let matcher = Matcher::new(file::read(&blocks.concat()).expect("checked above"));
        for _ in 0..60 {
            let ((bytes, found), (first_bytes, first)) = later[dice.below(later.len())];
            let facts_of_later = facts(&found, bytes, &Tag::default());
            match find_one(&matcher, &found, bytes, &Tag::default()) {
                Found::Follow => followed += 1,
                caught_by => {
                    // A first fragment may be a later one itself, of a datagram further in.
                    let of_first = find_one(&matcher, &first, first_bytes, &Tag::default());
                    assert_eq!(of_first, caught_by, "{}", blocks.concat());
                    caught += 1;
                }
            }
            let certain = matcher.rules.iter().map(|rule| rule.keys.pass_fragment(&facts_of_later, bytes));
            sure += certain.filter(|&certain| certain != Certain::Unknown).count();
        }
    }
    assert!(
        caught > 500 && followed > 500 && sure > caught,
        "{caught} caught, {followed} left to follow, {sure} certain"
    );
}

/// Damaged files are refused, or can be used.
#[test]
fn damaged_files_do_no_harm() {
    let example = include_bytes!("../../../../examples/rules.toml");
    let (mut dice, mut read) = (Dice(3), 0);
    for _ in 0..1500 {
        let mut bytes = example.to_vec();
        for _ in 0..=dice.below(3) {
            let (at, from) = (dice.below(bytes.len()), dice.below(bytes.len()));
            match dice.below(4) {
                0 => bytes[at] = b"=[]'\"0 \n.truefals-"[dice.below(18)],
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.remove(at)),
                _ => {
                    let piece: Vec<u8> = bytes.iter().skip(from).take(dice.below(40)).copied().collect();
                    bytes.splice(at..at, piece);
                }
            }
        }
        match parse(&String::from_utf8_lossy(&bytes)) {
            Ok(rules) => {
                read += 1;
                look(&rules, &eth(0x800, &http()), LinkType::ETHERNET, &Tag::default());
            }
            Err(refusal) => assert!(!refusal.to_string().is_empty()),
        }
    }
    assert!(read > 50, "only {read} were read at all");
}

/// Nanoseconds a packet and rule. `cargo test -p flowyard --release --lib -- --ignored --nocapture what_a_rule_costs`
#[test]
#[ignore = "a measurement"]
fn what_a_rule_costs() {
    use std::hint::black_box;
    use std::time::Instant;
    let traffic = traffic(4096);
    let packets: Vec<_> = traffic
        .iter()
        .map(|b| (b.as_slice(), dissect(&Frame::new(b, LinkType::ETHERNET), &Policy::default(), &mut ())))
        .collect();
    let tag = Tag { flags: flags::FRAGMENT_FALLBACK, wire_len: 60, ..Tag::default() };
    // The fastest of many turns over all packets, in batches: what others do to the machine only adds.
    let fastest = |each: &mut dyn FnMut(&mut Shown<'_>)| {
        let batches = packets.chunks(64).map(|some| Shown(some.iter().map(|&(b, found)| (b, found, tag)).collect()));
        let mut batches: Vec<_> = batches.collect();
        let mut turn = || {
            let began = Instant::now();
            batches.iter_mut().for_each(&mut *each);
            began.elapsed().as_nanos() as f64 / packets.len() as f64
        };
        (0..200).map(|_| turn()).fold(f64::MAX, f64::min)
    };
    let measure = |what: &str, count: usize, keys: &dyn Fn(usize) -> String| {
        let text = |count| (0..count).map(|n| format!("[[rule]]\n{}\nverdict = 'drop'\n", keys(n))).collect::<String>();
        let of = |count| {
            let (rules, mut columns) = (rules(&text(count)), Columns::new());
            fastest(&mut |packets: &mut Shown<'_>| {
                rules.matcher.find(packets, &mut columns, u64::MAX, false, |at, found, _, _| {
                    black_box((at, found));
                });
            })
        };
        let (one, all) = (of(1), of(count));
        println!(
            "{what}: {one:.1} ns for the first, {:.2} ns for each further of {count}",
            (all - one) / (count - 1) as f64
        );
    };
    measure("one port of a protocol, none matches", 64, &|n| format!("protocol = 'sctp'\nport = {n}"));
    measure("one port, few match", 64, &|n| format!("port = {}", 61_000 + n));
    measure("one network, few match", 64, &|n| format!("net = '203.0.{n}.0/24'"));
    measure("one network of IPv6", 64, &|n| format!("net = '2001:db8:{n}::/48'"));
    measure("16 ports of TCP", 64, &|n| {
        let ports: Vec<String> = (0..16).map(|m| (60_000 + n * 16 + m * 2 % 31).to_string()).collect();
        format!("protocol = 'tcp'\nport = [{}]", ports.join(", "))
    });
    measure("256 networks", 8, &|n| {
        let nets: Vec<String> = (0..=255).map(|m| format!("'203.{n}.{m}.0/25'")).collect();
        format!("net = [{}]", nets.join(", "))
    });
    if has_libpcap(line!()) {
        for on in ["outer", "inner", "either"] {
            measure(&format!("filter, {on}: tcp port 80 and host 10.1.2.3"), 8, &|n| {
                format!("filter = 'tcp port 80 and host 10.1.2.{n}'\nfilter_on = '{on}'")
            });
        }
        let began = Instant::now();
        rules("[[rule]]\nfilter = 'tcp port 80 and host 10.1.2.3'\nverdict = 'drop'");
        println!("to compile a filter: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    }
}
