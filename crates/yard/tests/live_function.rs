//! The user's function on live traffic: replaced a thousand times without a gap, and packets sent on to the
//! host's network stack.

mod built;
mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use built::*;
use common::*;
use flowyard::function::{Failure, Function, Packet, Verdict, closure};
use flowyard::mem::{Tag, Wait};
use flowyard::port::traffic::MixOptions;
use flowyard::{Aside, Witness, Yard, YardConfig};
use flowyard_testkit::net::{Injector, Namespace, Veth};
use flowyard_testkit::require_root;

const RINGS: u16 = 4;
const RELOADS: u64 = 1000;

fn frames() -> Vec<Vec<u8>> {
    let options = MixOptions { flows: 300, seed: 7, ..MixOptions::default() };
    generated(&options, 4000).into_iter().map(|(frame, _)| frame).collect()
}

/// Replaces a function a thousand times on a live interface of two queues under load. `version` makes version `n`,
/// and `version_of` answers the one version that marked a packet.
fn replace_a_thousand_times(version: impl Fn(u64) -> Function + Sync, version_of: fn(&Tag) -> u64) {
    let _alone = alone();
    let namespace = Namespace::new().expect("root may");
    namespace.run(|| {
        namespace.veth(&Veth { queues: 2, ..Veth::default() }).expect("root may");
        let config = YardConfig { rings: RINGS, function: Some(version(0)), dispatchers: 2, ..YardConfig::default() };
        let (yard, readers) = Yard::open(&config, &[spec("xdp:fy0")]).expect("root may");
        let consume = move |mut reader: flowyard::RingReader| {
            let (mut witness, mut packets, mut versions) = (Witness::new(RINGS), 0u64, HashSet::new());
            let mut newest = [0; 2];
            while reader.wait(None) != Wait::Ended {
                while let Some(packet) = reader.next() {
                    witness.see_packet(&packet);
                    let tag = packet.tag();
                    let version = version_of(&tag);
                    let last = &mut newest[usize::from(tag.queue)];
                    assert!(version >= *last, "in order: {last} then {version}");
                    *last = version;
                    versions.insert(version);
                    packets += 1;
                }
            }
            (witness, packets, versions)
        };
        let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(move || consume(r))).collect();
        let running = yard.start().expect("threads");
        let (done, frames) = (AtomicBool::new(false), frames());
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                namespace.run(|| {
                    let injector = Injector::open("fy1").expect("root may");
                    let mut sent = 0;
                    // No more on the way than the queues hold: what is lost then is lost by the yard.
                    for chunk in frames.chunks(256).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                        injector.send(chunk).expect("the interface is up");
                        sent += chunk.len() as u64;
                        let deadline = Instant::now() + PATIENCE;
                        let received =
                            || running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>();
                        while received() < sent {
                            assert!(Instant::now() < deadline, "{} of {sent} frames arrived", received());
                            std::thread::yield_now();
                        }
                    }
                    sent
                })
            });
            for n in 1..=RELOADS {
                running.functions().reload(Some(&version(n))).expect("it takes over");
            }
            done.store(true, Ordering::Relaxed);
            sender.join().expect("all were sent")
        });
        running.stop();
        let report = join(running);
        let seen: Vec<_> = consumers.into_iter().map(|c| c.join().expect("no assertion failed")).collect();
        assert!(report.sums_agree() && report.buffers_missing == 0, "{report:?}");
        assert_eq!((report.received(), report.delivered(), report.lost_before()), (sent, sent, 0));
        assert_eq!(seen.iter().map(|s| s.1).sum::<u64>(), sent);
        let counts = report.function.expect("counted");
        assert_eq!((counts.reloads, counts.failures), (2 * RELOADS, [0; Failure::ALL.len()]), "by each dispatcher");
        let versions: HashSet<u64> = seen.iter().flat_map(|s| s.2.iter().copied()).collect();
        assert!(versions.len() > 50, "packets flowed through many versions: {}", versions.len());
        // Time may have run out for a fragment (a machine that stood still for 100 ms): it goes by addresses.
        let late = report.sorter.expired + report.sorter.given_up;
        let witnesses: Vec<_> = seen.into_iter().map(|s| s.0).collect();
        assert!(Witness::compare(&witnesses).split <= late, "{:?}", report.sorter);
    });
}

#[test]
fn a_thousand_replacements_on_a_live_interface_lose_nothing() {
    require_root!();
    let version = |version: u64| {
        closure(move |packet: &mut Packet<'_>| {
            let sum = packet.tag().user + (1 << 32) + version;
            packet.mark(sum);
            Verdict::BuiltIn
        })
    };
    replace_a_thousand_times(version, |tag| {
        assert_eq!(tag.user >> 32, 1, "by exactly one version");
        tag.user & 0xffff_ffff
    });
}

#[test]
fn a_thousand_replacements_of_a_plug_in_on_a_live_interface_lose_nothing() {
    require_root!();
    let dir = folder();
    let Some(one) = build(&dir, "probe.c", "one.so", &["-DBUILD=1"]) else { return };
    let Some(two) = build(&dir, "probe.c", "two.so", &["-DBUILD=2"]) else { return };
    // In one place, as a user would do it: one build after the other takes the same name.
    let (next, place) = (dir.path().join("next.so"), dir.path().join("plugin.so"));
    let version = |version: u64| {
        std::fs::copy(if version.is_multiple_of(2) { &one } else { &two }, &next).expect("room on disk");
        std::fs::rename(&next, &place).expect("the same folder");
        load(&place, &format!("generation={version}"))
    };
    replace_a_thousand_times(version, |tag| {
        assert_eq!(tag.user >> 48, 1, "by exactly one version");
        let (version, build) = (tag.user >> 8 & 0xffff, tag.user & 0xff);
        assert_eq!(build, 1 + version % 2, "its own code with its own state");
        version
    });
}

#[test]
fn packets_for_the_host_come_out_of_its_device() {
    require_root!();
    let _alone = alone();
    let namespace = Namespace::new().expect("root may");
    namespace.run(|| {
        namespace.veth(&Veth::default()).expect("root may");
        let arp = closure(|packet: &mut Packet<'_>| match packet.bytes().get(12..14) {
            Some([0x08, 0x06]) => Verdict::Host,
            _ => Verdict::BuiltIn,
        });
        let host = Some("fyhost0".to_owned());
        let config = YardConfig { rings: 2, function: Some(arp), host, ..YardConfig::default() };
        let (yard, readers) = Yard::open(&config, &[spec("xdp:fy0")]).expect("root may");
        let heard = flowyard_testkit::net::listen("fyhost0").expect("root may");
        let consumers: Vec<_> = readers.into_iter().map(|r| std::thread::spawn(|| take_all(r).packets)).collect();
        let running = yard.start().expect("threads");
        let injector = Injector::open("fy1").expect("root may");
        let mut arps = 0;
        for (n, mut frame) in frames().into_iter().take(500).enumerate() {
            if n % 10 == 0 {
                frame.truncate(60);
                frame[..6].fill(0xff);
                frame[12..14].copy_from_slice(&[0x08, 0x06]);
                arps += 1;
            }
            injector.send(&[frame]).expect("the interface is up");
        }
        let deadline = Instant::now() + PATIENCE;
        while running.live().iter().map(|l| l.received.load(Ordering::Relaxed)).sum::<u64>() < 500 {
            assert!(Instant::now() < deadline, "500 frames arrive");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Before the end: the device goes with the yard.
        let mut frame = [0; 2048];
        let mut came = 0;
        while let Ok(len) = rustix::io::read(&heard, &mut frame) {
            came += u64::from(len == 60 && frame[12..14] == [0x08, 0x06]);
        }
        running.stop();
        let report = join(running);
        let delivered: u64 = consumers.into_iter().map(|c| c.join().expect("no panic")).sum();
        assert!(report.sums_agree(), "{report:?}");
        assert_eq!((report.asides[Aside::Host as usize], report.asides[Aside::HostFull as usize]), (arps, 0));
        assert_eq!(delivered, 500 - arps);
        assert_eq!(came, arps, "on the device, as if from a network");
    });
}
