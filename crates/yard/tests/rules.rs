//! Rules, end to end: conversations stay whole whatever the rules, fragments and ICMP errors go along, every
//! verdict and edit is carried out, and what was counted outlives a reload.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use flowyard::function::Function;
use flowyard::mem::{Tag, Wait};
use flowyard::steer::Policy;
use flowyard::{Aside, Report, Witness, Yard, YardConfig, rules};
use flowyard_testkit::net::skipped;

fn with(text: &str) -> YardConfig {
    let rules = rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    YardConfig { rings: 4, function: Some(rules.function()), ..YardConfig::default() }
}

/// Runs; answers how many conversations were split, as the consumers saw it, and all tags.
fn split(config: &YardConfig, ports: &[&str]) -> (Report, u64, Vec<Tag>) {
    let opened = Yard::open(config, &specs(ports)).unwrap_or_else(|error| panic!("{ports:?}: {error}"));
    let (report, seen) = run_with(opened, |mut reader| {
        let mut witness = Witness::new(config.rings).with_policy(&Policy::default());
        let mut tags = Vec::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                witness.see_packet(&packet);
                tags.push(packet.tag());
            }
        }
        (witness, tags)
    });
    assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
    let (witnesses, tags): (Vec<_>, Vec<_>) = seen.into_iter().unzip();
    (report, Witness::compare(&witnesses).split, tags.concat())
}

fn aside(report: &Report, why: Aside) -> u64 {
    report.asides[why as usize]
}

/// Rules that ask nothing which differs between the packets of a conversation.
const WHOLE: [&str; 7] = [
    // By what a later fragment lacks, and a rule behind it that would catch everything.
    "[[rule]]\nport = '0-20000'\nverdict = 'ring 0'\n[[rule]]\nverdict = 'ring 1'",
    "[[rule]]\nprotocol = 'udp'\nport = '30000-'\nverdict = 'ring 3'\n[[rule]]\nnet = '0.0.0.0/1'\nverdict = 'rings 1-2'
     [[rule]]\nverdict = 'ring 0'",
    "[[rule]]\nprotocol = 'tcp'\nverdict = 'rings 0-1'\n[[rule]]\nprotocol = 'udp'\nverdict = 'rings 2-3'",
    "[[rule]]\ntunnel = 'none'\nverdict = 'ring 0'\n[[rule]]\ntunnel = ['gtp', 'vxlan']\nverdict = 'ring 1'
     [[rule]]\nouter_net = '10.0.0.0/8'\nverdict = 'ring 2'\n[[rule]]\nverdict = 'hash addresses'",
    "[[rule]]\nnet = ['10.0.0.0/9', '2001:db8::/33']\nverdict = 'ring 2'\n[[rule]]\nprotocol = 'tcp'\nport = [80, 443]\nverdict = 'ring 3'
     [[rule]]\nvlan = 'none'\nverdict = 'built-in'\n[[rule]]\nverdict = 'hash vlan'",
    "[[rule]]\nport = [53, '1000-40000']\nverdict = 'hash addresses'",
    "[[rule]]\nverdict = 'hash addresses'",
];

#[test]
fn conversations_stay_whole_with_their_fragments_and_errors() {
    for text in WHOLE {
        for (dispatchers, ports) in
            [(1, &["gen:mix?packets=60000"][..]), (2, &["gen:mix?packets=30000", "gen:mix?packets=30000&seed=1"])]
        {
            let (report, split, tags) = split(&YardConfig { dispatchers, ..with(text) }, ports);
            assert_eq!((split, report.delivered()), (0, 60_000), "{text} with {dispatchers} dispatchers");
            let counts = report.function.expect("counted");
            assert!(counts.packets == 60_000 && counts.failures.iter().sum::<u64>() == 0, "{counts:?}");
            let later = tags.iter().filter(|tag| tag.kind & 3 == 2).count();
            let errors = tags.iter().filter(|tag| tag.kind >> 4 & 1 == 1).count();
            assert!(later > 500 && errors > 100 && report.sorter.held > 50, "{later} {errors} {:?}", report.sorter);
        }
    }
}

#[test]
fn rules_put_packets_where_they_say_both_ways_and_in_tunnels() {
    let text =
        "[[rule]]\nprotocol = 'tcp'\nport = '0-1023'\nverdict = 'ring 3'\nmark = 7\n[[rule]]\nverdict = 'rings 0-2'";
    let (report, split, tags) = split(&with(text), &["gen:mix?packets=40000"]);
    assert_eq!((split, report.delivered()), (0, 40_000));
    assert!(tags.iter().all(|tag| (tag.user == 7) <= (tag.ring == 3)));
    let marked = |of: &dyn Fn(&Tag) -> bool| tags.iter().filter(|tag| tag.user == 7 && of(tag)).count();
    assert!(marked(&|tag| tag.tunnel_kind == 0) > 1000 && marked(&|tag| tag.tunnel_kind != 0) > 1000);
    assert!(marked(&|tag| tag.kind >> 4 & 1 == 1) > 10, "ICMP errors about them");
    // On ring 3 there is nothing else, but pieces of tunnels that carry them.
    assert!(tags.iter().all(|tag| tag.ring != 3 || tag.user == 7 || tag.kind & 3 == 2));
    let rings: Vec<usize> = (0..4).map(|ring| tags.iter().filter(|tag| tag.ring == ring).count()).collect();
    assert!(rings.iter().all(|&packets| packets > 1000), "{rings:?}");
}

// ---- fragments, packet by packet ----------------------------------------------------------------

fn eth(carried: &[u8]) -> Vec<u8> {
    let ethertype = if carried[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &ethertype, carried].concat()
}

/// An IPv4 packet, or the piece of one at `offset`.
fn ip4(id: u16, (offset, more): (u16, bool), src: u8, dst: u8, proto: u8, carried: &[u8]) -> Vec<u8> {
    let len = 20 + carried.len() as u16;
    let word = (offset / 8) | (u16::from(more) << 13);
    let mut packet = vec![0x45, 0, (len >> 8) as u8, len as u8, (id >> 8) as u8, id as u8];
    packet.extend(word.to_be_bytes());
    packet.extend([64, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    packet.extend(carried);
    packet
}

/// An IPv6 packet, or the piece of one at `offset`.
fn ip6(id: u32, (offset, more): (u16, bool), src: u8, dst: u8, proto: u8, carried: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 8 + carried.len() as u8, 44, 64];
    for end in [src, dst] {
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
    }
    packet.extend([proto, 0]);
    packet.extend((offset | u16::from(more)).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(carried);
    packet
}

fn udp(sport: u16, dport: u16, carried: &[u8]) -> Vec<u8> {
    [&[sport, dport, 8 + carried.len() as u16, 0].map(u16::to_be_bytes).concat(), carried].concat()
}

fn vxlan(frame: &[u8]) -> Vec<u8> {
    udp(7777, 4789, &[&[8, 0, 0, 0, 0, 0, 9, 0][..], frame].concat())
}

const WHOLE_PACKET: (u16, bool) = (0, false);

/// Datagrams in two pieces, each sent in both orders, in all the ways that hide what a rule asks: plain,
/// inside a tunnel, the tunnel itself; IPv6; and ICMP errors about their conversations. What goes in tunnels are
/// other conversations than those that do not.
fn pieces() -> Vec<(Vec<u8>, u64)> {
    let mut frames = Vec::new();
    for n in 0..120u16 {
        let (src, dst) = (1 + (n % 100) as u8, 200 + (n % 7) as u8);
        let (sport, dport) = (40_000 + n, [53, 80, 9999][usize::from(n % 3)]);
        let datagram = udp(sport, dport, &[n as u8; 40]);
        let outer = |packet: &[u8]| ip4(0, WHOLE_PACKET, 250, 251, 17, &vxlan(&eth(packet)));
        let plain = ip4(0, WHOLE_PACKET, src, dst, 17, &datagram);
        let carried = ip4(0, WHOLE_PACKET, src, dst + 10, 17, &datagram);
        let (front, back) = datagram.split_at(24);
        let whole_tunnel = vxlan(&eth(&carried));
        let (tunnel_front, tunnel_back) = whole_tunnel.split_at(64);
        let id = 1000 + n * 4;
        let carried_piece = |at, data: &[u8]| outer(&ip4(id + 1, at, src, dst + 10, 17, data));
        let pairs = [
            (ip4(id, (0, true), src, dst, 17, front), ip4(id, (24, false), src, dst, 17, back)),
            (carried_piece((0, true), front), carried_piece((24, false), back)),
            (ip4(id + 2, (0, true), 250, 251, 17, tunnel_front), ip4(id + 2, (64, false), 250, 251, 17, tunnel_back)),
            (ip6(id.into(), (0, true), src, dst, 17, front), ip6(id.into(), (24, false), src, dst, 17, back)),
        ];
        for (at, (first, later)) in pairs.into_iter().enumerate() {
            let (first, later) = if (usize::from(n) + at) % 2 == 0 { (first, later) } else { (later, first) };
            frames.extend([eth(&first), eth(&later)]);
        }
        let answer = udp(dport, sport, &[7; 9]);
        frames.push(eth(&ip4(0, WHOLE_PACKET, dst, src, 17, &answer)));
        frames.push(eth(&ip6(1, WHOLE_PACKET, dst, src, 17, &answer)));
        let error = |about: &[u8]| {
            let quoted = [&[11, 0, 0, 0, 0, 0, 0, 0][..], &about[..28]].concat();
            ip4(0, WHOLE_PACKET, 99, src, 1, &quoted)
        };
        frames.push(eth(&error(&plain)));
        frames.push(eth(&outer(&error(&carried))));
    }
    frames.into_iter().zip((0..).map(|n| n * 1000)).collect()
}

#[test]
fn fragments_in_both_orders_go_where_their_first_one_goes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pieces.pcapng");
    let frames = pieces();
    write_capture(&path, &frames);
    for text in WHOLE {
        let (report, split, tags) = split(&with(text), &[&pcap(&path)]);
        assert_eq!((split, report.delivered()), (0, frames.len() as u64), "{text}");
        assert!(report.sorter.held >= 200 && report.sorter.followed == report.sorter.held, "{:?}", report.sorter);
        assert_eq!(tags.iter().filter(|tag| tag.kind & 3 == 2).count(), 480);
    }
    // Who drops DNS drops all of it: the first pieces by their ports, the later ones after them, the tunnels'
    // pieces, and the errors about it.
    let text =
        "[[rule]]\nport = 53\nverdict = 'drop'\n[[rule]]\nport = 80\nverdict = 'ring 1'\n[[rule]]\nverdict = 'ring 2'";
    let (report, split, tags) = split(&with(text), &[&pcap(&path)]);
    let third = frames.len() as u64 / 3;
    assert_eq!((split, aside(&report, Aside::Verdict), report.delivered()), (0, third, 2 * third));
    for ring in [1, 2] {
        assert_eq!(tags.iter().filter(|tag| tag.ring == ring).count() as u64, third, "ring {ring}");
    }
}

#[test]
fn a_later_fragment_whose_first_never_comes_is_judged_by_what_it_shows() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("alone.pcapng");
    let alone = |id, src| (eth(&ip4(id, (24, false), src, 2, 17, &[1; 16])), u64::from(id));
    write_capture(&path, &[alone(1, 77), alone(2, 78), alone(3, 77)]);
    let text = "[[rule]]\nport = 53\nverdict = 'ring 0'\n[[rule]]\nnet = '10.0.0.77'\nverdict = 'drop'
                [[rule]]\nverdict = 'ring 3'";
    let (report, _, tags) = split(&with(text), &[&pcap(&path)]);
    assert_eq!((report.delivered(), aside(&report, Aside::Verdict), tags[0].ring), (1, 2, 3));
}

// ---- what rules do ------------------------------------------------------------------------------

#[test]
fn every_verdict_and_every_edit() {
    let frames = || "gen:mix?packets=20000";
    let of = |verdict: &str| split(&with(&format!("[[rule]]\n{verdict}")), &[frames()]);
    assert_eq!(aside(&of("verdict = 'drop'").0, Aside::Verdict), 20_000);
    assert_eq!(aside(&of("verdict = 'shunt 1h'").0, Aside::Shunted), 20_000);
    assert_eq!(of("verdict = 'every-ring'").2.len(), 80_000);
    let (report, _, tags) = of("verdict = 'host'");
    assert_eq!(tags.len(), 20_000, "without a way to the host, as the built-in policy says");
    assert!(report.function.expect("counted").failures.iter().sum::<u64>() > 0);
    let plain = run(&YardConfig { rings: 4, ..YardConfig::default() }, &[frames()]).1;
    let built_in = run(&with("[[rule]]\nverdict = 'built-in'"), &[frames()]).1;
    assert!(plain == built_in);
    let edited = of("verdict = 'built-in'\npull = 14\nslice = 30\nmark = '0xffffffffffffffff'").2;
    assert!(edited.iter().all(|tag| tag.len == 30 && tag.user == u64::MAX));
    for verdict in ["hash vlan", "hash tunnel-id", "hash outer-addresses"] {
        let (report, _, tags) = of(&format!("verdict = '{verdict}'"));
        assert_eq!(report.delivered(), 20_000);
        let hashed = |tag: &Tag| tag.hash_version == 0;
        // Of whole packets: pieces of tunnels go after their first one.
        let whole: Vec<&Tag> = tags.iter().filter(|tag| tag.kind & 3 != 2).collect();
        let mut rings = std::collections::HashMap::new();
        for tag in whole {
            let what = match verdict {
                "hash vlan" => u64::from(tag.vlan & 0xfff),
                "hash tunnel-id" => u64::from(tag.tunnel_kind) << 32 | u64::from(tag.tunnel_id),
                _ => continue,
            };
            if hashed(tag) {
                assert_eq!(*rings.entry(what).or_insert(tag.ring), tag.ring, "{verdict}: {what:#x}");
            }
        }
        assert!(tags.iter().filter(|tag| hashed(tag)).count() > 500, "{verdict}");
    }
}

#[test]
fn a_yard_without_the_ring_is_refused_with_the_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("my.toml");
    std::fs::write(&path, "[[rule]]\nport = 1\nverdict = 'ring 3'\n[[rule]]\nname = 'far'\nverdict = 'rings 2-4'\n")
        .expect("room on disk");
    let function = rules::load(&path).expect("good rules");
    assert_eq!(function.name(), format!("rules:{}", path.display()));
    let config = YardConfig { rings: 4, function: Some(function.clone()), ..YardConfig::default() };
    let refusal = Yard::open(&config, &specs(&["gen:mix"])).err().expect("no ring 4").to_string();
    for word in ["my.toml", "line 4", "far", "verdict", "ring 4", "0 to 3"] {
        assert!(refusal.contains(word), "{refusal:?} lacks {word:?}");
    }
    assert!(Yard::open(&YardConfig { rings: 5, ..config }, &specs(&["gen:mix"])).is_ok());
    let missing = rules::load(folder.path().join("none.toml")).expect_err("no such file").to_string();
    assert!(missing.contains("none.toml") && missing.contains("cannot read"), "{missing}");
    std::fs::write(&path, "[[rule]]\nport = 1\nverdict = 'rign 3'\n").expect("room on disk");
    let refusal = rules::load(&path).expect_err("a slip").to_string();
    assert!(refusal.contains("my.toml: line 3: verdict: \"rign 3\": must be"), "{refusal}");
}

#[test]
fn counters_by_rule_outlive_a_reload_where_the_rule_is_the_same() {
    let first = "[[rule]]\nname = 'tcp'\nprotocol = 'tcp'\nverdict = 'ring 0'\n[[rule]]\nport = 53\nverdict = 'ring 1'";
    let second = "[[rule]]\nname = 'new'\nprotocol = 'sctp'\nverdict = 'drop'\n[[rule]]\nname = 'tcp'\nprotocol = 6\nverdict = 'ring 0'
                  [[rule]]\nport = 53\nverdict = 'ring 2'";
    let (yard, readers) = Yard::open(&with(first), &specs(&["gen:mix"])).expect("it opens");
    let running = yard.start().expect("threads start");
    let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r).packets)).collect();
    let functions = running.functions();
    let own = || functions.status()[0].own.clone();
    let count = |own: &[(String, u64)], name: &str| {
        own.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}: {own:?}")).1
    };
    std::thread::sleep(Duration::from_millis(30));
    let before = own();
    let names: Vec<&str> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "tcp packets",
            "tcp bytes",
            "rule 2 packets",
            "rule 2 bytes",
            "no rule packets",
            "no rule bytes",
            "following fragments packets",
            "following fragments bytes"
        ]
    );
    assert!(before.iter().all(|(_, n)| *n > 0), "{before:?}");
    assert!(count(&before, "tcp bytes") >= 60 * count(&before, "tcp packets"));
    functions.reload(Some(&rules::parse(second).expect("good").function())).expect("it takes over");
    let after = own();
    assert!(count(&after, "tcp packets") >= count(&before, "tcp packets"), "{before:?} {after:?}");
    assert!(count(&after, "no rule packets") >= count(&before, "no rule packets"));
    assert_eq!(count(&after, "new packets"), 0);
    let refused: Function = rules::parse("[[rule]]\nverdict = 'ring 9'").expect("good").function();
    assert!(functions.reload(Some(&refused)).is_err_and(|e| e.to_string().contains("no ring 9")));
    let last = functions.status()[0].clone();
    assert!(last.own.iter().any(|(name, _)| name == "new packets"), "the old ones stay");
    running.stop();
    assert!(join(running).sums_agree());
    assert!(consumers.into_iter().map(|c| c.join().expect("no panic")).sum::<u64>() > 0);
}

// ---- filters ------------------------------------------------------------------------------------

fn has_libpcap(line: u32) -> bool {
    match rules::parse("[[rule]]\nfilter = 'ip'\nverdict = 'drop'") {
        Ok(_) => true,
        Err(why) => {
            assert!(why.to_string().contains("apt-get install libpcap0.8"), "{why}");
            skipped(module_path!(), line, &why.to_string());
            false
        }
    }
}

#[test]
fn filters_keep_conversations_whole_and_see_into_tunnels() {
    if !has_libpcap(line!()) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pieces.pcapng");
    write_capture(&path, &pieces());
    for text in [
        "[[rule]]\nfilter = 'tcp portrange 0-1023'\nfilter_on = 'inner'\nverdict = 'ring 3'\n[[rule]]\nverdict = 'ring 1'",
        "[[rule]]\nfilter = 'udp and net 10.0.0.0/8'\nverdict = 'ring 3'\n[[rule]]\nfilter = 'tcp'\nverdict = 'ring 2'
         [[rule]]\nverdict = 'hash addresses'",
        "[[rule]]\nfilter = 'port 53 or port 80'\nverdict = 'rings 0-1'\n[[rule]]\nverdict = 'rings 2-3'",
    ] {
        for port in ["gen:mix?packets=40000", &pcap(&path)] {
            let (report, split, tags) = split(&with(text), &[port]);
            assert_eq!((split, report.delivered()), (0, tags.len() as u64), "{text} on {port}");
        }
    }
    let marked = |on: &str| {
        let text = format!("[[rule]]\nfilter = 'tcp'\nfilter_on = '{on}'\nverdict = 'built-in'\nmark = 1");
        split(&with(&text), &["gen:mix?packets=20000"]).2
    };
    let count = |tags: &[Tag], of: &dyn Fn(&Tag) -> bool| tags.iter().filter(|tag| of(tag)).count();
    let hit = |tag: &Tag| tag.user == 1;
    let inner = marked("inner");
    let error = |tag: &Tag| tag.kind >> 4 & 1 == 1;
    assert!(inner.iter().filter(|tag| tag.kind & 3 == 0 && !error(tag)).all(|tag| hit(tag) == (tag.protocol == 6)));
    assert!(count(&inner, &|tag| hit(tag) && error(tag)) > 10, "errors about TCP");
    let outer = marked("outer");
    assert!(outer.iter().all(|tag| !hit(tag) || tag.protocol == 6 && tag.tunnel_kind == 0));
    assert!(count(&outer, &hit) > 500 && count(&outer, &hit) < count(&inner, &hit));
    let either = marked("either");
    assert_eq!(count(&either, &hit), count(&inner, &hit));
}

// ---- captures -----------------------------------------------------------------------------------

/// What `run` makes of a capture: packets, and how many conversations were split.
fn of_capture(config: &YardConfig, path: &Path) -> Option<(u64, u64)> {
    let (yard, readers) = Yard::open(config, &specs(&[&pcap(path)])).ok()?;
    let (report, witnesses) = run_with((yard, readers), |mut reader| {
        let mut witness = Witness::new(config.rings).with_policy(&Policy::default());
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                witness.see_packet(&packet);
            }
        }
        witness
    });
    assert!(report.sums_agree() && report.buffers_missing == 0, "{}: {report:?}", path.display());
    Some((report.delivered(), Witness::compare(&witnesses).split))
}

#[test]
fn captures_that_others_made_are_not_split_by_rules_either() {
    let mut text = "[[rule]]\nprotocol = ['tcp', 'udp']\nport = [53, 80, 443, '5000-6000']\nverdict = 'ring 0'
        [[rule]]\nnet = ['10.0.0.0/8', '2001::/16']\nverdict = 'ring 1'\n"
        .to_owned();
    if has_libpcap(line!()) {
        text +=
            "[[rule]]\nfilter = 'tcp port 22 or udp or net 192.168.0.0/16'\nfilter_on = 'inner'\nverdict = 'ring 2'\n";
    }
    text += "[[rule]]\nverdict = 'ring 3'";
    // Small, because there are many; yet with room for the longest packet.
    let small = |config: YardConfig| YardConfig { rings: 4, ring_slots: 256, buffers: Some(600), pin: false, ..config };
    let (by_rules, by_policy) = (small(with(&text)), small(YardConfig::default()));
    let (mut packets, mut split, mut worse) = (0, 0, Vec::new());
    let files: Vec<PathBuf> = corpus(module_path!());
    for path in &files {
        let Some((delivered, by_rules)) = of_capture(&by_rules, path) else { continue };
        packets += delivered;
        split += by_rules;
        // Damaged captures have pieces that came too late for any.
        if by_rules > 0 && of_capture(&by_policy, path).is_none_or(|(_, by_policy)| by_rules > by_policy) {
            worse.push((path.file_name(), by_rules));
        }
    }
    eprintln!("{packets} packets, {split} conversations split");
    assert!(worse.is_empty(), "{worse:?}");
    assert!(files.is_empty() || packets > 50_000, "{packets}");
}
