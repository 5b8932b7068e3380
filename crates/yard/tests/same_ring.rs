//! One meaning: the yard at work gives every packet the ring, the hash and the place in the ring's
//! order that the sorter alone gives it, which is how `inspect` and `split` go about it.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use flowyard::mem::{Tag, flags};
use flowyard::port::capture::CaptureReader;
use flowyard::port::traffic::{Mix, MixOptions};
use flowyard::steer::{Classifier, Decision, Frame, LinkType, Table};
use flowyard::{Route, SharedFragments, Sorter, YardConfig};

/// A packet as both can describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sorted {
    time_ns: u64,
    len: u32,
    wire_len: u32,
    link: u16,
    queue: u16,
    hash: u32,
    stop: u8,
    depth: u8,
    fallback: bool,
}

impl Sorted {
    fn of_tag(tag: &Tag) -> Sorted {
        let Tag { time_ns, len, wire_len, link, queue, hash, stop, depth, .. } = *tag;
        Sorted { time_ns, len, wire_len, link, queue, hash, stop, depth, fallback: tag.has(flags::FRAGMENT_FALLBACK) }
    }

    fn decided(self, decision: &Decision, route: Route) -> Sorted {
        let (hash, stop, depth) = (decision.hash, decision.dissection.stop() as u8, decision.dissection.depth());
        Sorted { hash, stop, depth, fallback: route == Route::Fallback, ..self }
    }
}

/// The sorter alone: what it puts on each ring, in order.
struct Alone {
    sorter: Sorter<Sorted>,
    rings: Vec<Vec<Sorted>>,
}

impl Alone {
    fn new(config: &YardConfig) -> Alone {
        let table = match &config.weights {
            None => Table::even(config.rings).expect("a number of rings"),
            Some(weights) => Table::weighted(weights).expect("weights"),
        };
        let classifier = Classifier { policy: config.policy.clone(), hash: config.hash.clone(), table };
        let sorter = Sorter::new(Arc::new(classifier), SharedFragments::default());
        Alone { sorter, rings: vec![Vec::new(); config.rings.into()] }
    }

    fn sort(&mut self, bytes: &[u8], link: u16, queue: u16, time_ns: u64, wire_len: u32) {
        let (sorter, rings) = (&mut self.sorter, &mut self.rings);
        let frame = Frame { bytes, link: LinkType(link), stripped_vlan: None, wire_len };
        let len = bytes.len() as u32;
        let item = Sorted { time_ns, len, wire_len, link, queue, hash: 0, stop: 0, depth: 0, fallback: false };
        sorter.sort(&frame, time_ns, item, |item, decision, route| {
            rings[usize::from(decision.ring)].push(item.decided(decision, route));
        });
    }

    fn finish(mut self) -> Vec<Vec<Sorted>> {
        let rings = &mut self.rings;
        self.sorter.finish(|item, decision, route| {
            rings[usize::from(decision.ring)].push(item.decided(decision, route));
        });
        self.rings
    }

    fn of_generated(config: &YardConfig, options: &MixOptions, packets: usize) -> Vec<Vec<Sorted>> {
        let mut alone = Alone::new(config);
        let (mut mix, mut frame) = (Mix::new(options), [0; Mix::FRAME_BYTES]);
        for _ in 0..packets {
            let packet = mix.next(&mut frame);
            alone.sort(&frame[..packet.len], 1, 0, packet.time_ns, packet.len as u32);
        }
        alone.finish()
    }

    /// Up to the first damage.
    fn of_capture(config: &YardConfig, path: &Path) -> Vec<Vec<Sorted>> {
        let mut alone = Alone::new(config);
        if let Ok(mut reader) = CaptureReader::open(path) {
            while let Ok(Some(record)) = reader.next() {
                alone.sort(record.bytes, record.link, record.interface as u16, record.time_ns, record.wire_len);
            }
        }
        alone.finish()
    }
}

/// What a yard delivered, by ring, of port `port` alone.
fn of_port(seen: &[Seen], port: u16) -> Vec<Vec<Sorted>> {
    let of = |seen: &Seen| seen.tags.iter().filter(|tag| tag.port == port).map(Sorted::of_tag).collect();
    seen.iter().map(of).collect()
}

/// Compares ring by ring; says which packet is the first that differs.
fn assert_same(name: &str, run: &[Vec<Sorted>], alone: &[Vec<Sorted>]) {
    for (ring, (run, alone)) in run.iter().zip(alone).enumerate() {
        if let Some(at) = (0..run.len().max(alone.len())).find(|&at| run.get(at) != alone.get(at)) {
            panic!("{name}: packet {at} of ring {ring}: run {:?}, sorter {:?}", run.get(at), alone.get(at));
        }
    }
}

#[test]
fn generated_traffic_with_fragments_and_errors() {
    for (rings, weights) in [(1, None), (5, None), (64, None), (3, Some(vec![3, 1, 2]))] {
        let config = YardConfig { rings, weights, ..YardConfig::default() };
        let options = MixOptions { flows: 500, seed: u64::from(rings), ..MixOptions::default() };
        let (report, seen) = run(&config, &[&format!("gen:mix?packets=30000&flows=500&seed={rings}")]);
        assert_lossless(&report, &seen, 30_000);
        assert!(report.sorter.held > 50 && report.sorter.followed > 50, "fragments came out of order: {report:?}");
        assert_same("gen:mix", &of_port(&seen, 0), &Alone::of_generated(&config, &options, 30_000));
    }
}

#[test]
fn the_order_holds_through_full_rings_and_backlogs() {
    let config = YardConfig { ring_slots: 4, rings: 3, ..YardConfig::default() };
    let (report, seen) = run(&config, &["gen:mix?packets=10000"]);
    assert_lossless(&report, &seen, 10_000);
    assert_same("gen:mix", &of_port(&seen, 0), &Alone::of_generated(&config, &MixOptions::default(), 10_000));
}

#[test]
fn several_files_over_two_dispatchers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = YardConfig { dispatchers: 2, rings: 4, ..YardConfig::default() };
    let files: Vec<_> = (0..4)
        .map(|n| {
            let path = folder.path().join(format!("{n}.pcapng"));
            write_capture(&path, &generated(&MixOptions { seed: 100 + n, ..MixOptions::default() }, 5000));
            path
        })
        .collect();
    let names: Vec<String> = files.iter().map(|path| pcap(path)).collect();
    let (report, seen) = run(&config, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert_lossless(&report, &seen, 20_000);
    for (port, path) in files.iter().enumerate() {
        assert_same(&names[port], &of_port(&seen, port as u16), &Alone::of_capture(&config, path));
    }
}

#[test]
fn every_capture_of_the_corpus() {
    // Small, because there are many; yet with room for the longest packet.
    let config = YardConfig { rings: 4, ring_slots: 256, buffers: Some(600), pin: false, ..YardConfig::default() };
    let (mut files, mut packets, mut unreadable) = (0, 0, 0);
    for path in corpus(module_path!()) {
        let name = pcap(&path);
        let alone = Alone::of_capture(&config, &path);
        let expected: usize = alone.iter().map(Vec::len).sum();
        match flowyard::Yard::open(&config, &[spec(&name)]) {
            Ok(opened) => {
                let (report, seen) = run_with(opened, take_all);
                let damage = report.errors.len();
                let report = flowyard::Report { errors: Vec::new(), ..report };
                assert!(damage <= 1, "{name}: one damage is told once");
                assert_lossless(&report, &seen, expected as u64);
                assert_same(&name, &of_port(&seen, 0), &alone);
            }
            Err(error) => {
                assert_eq!(expected, 0, "{name}: {error}");
                unreadable += 1;
            }
        }
        files += 1;
        packets += expected;
    }
    eprintln!("{files} captures, {packets} packets, {unreadable} unreadable from the start");
}
