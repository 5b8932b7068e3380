//! The samples of examples/wasm do what they say.

#[path = "../../yard/tests/common/mod.rs"]
mod common;
mod guests;

use std::path::Path;
use std::process::Command;

use common::*;
use flowyard::Yard;
use flowyard::mem::Wait;
use flowyard::mem::tables::{Kind, Shape, Table};
use flowyard::port::traffic::MixOptions;
use flowyard_wasm::load;
use guests::*;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/wasm");

#[test]
fn dscp_goes_by_the_class_of_service() {
    let text = std::fs::read_to_string(format!("{SAMPLES}/dscp.wat")).expect("it is there");
    // Classes written into the outermost header of plain packets, which is their innermost one.
    let mut frames = generated(&MixOptions::default(), 3000);
    for (at, (frame, time)) in frames.iter_mut().enumerate() {
        *time = at as u64;
        let dscp = (at % 64) as u8;
        match frame[12..14] {
            [8, 0] => frame[15] = dscp << 2,
            [0x86, 0xdd] => (frame[14], frame[15]) = (0x60 | dscp >> 2, dscp << 6),
            _ => {}
        }
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("classes.pcapng");
    write_capture(&path, &frames);
    let opened = Yard::open(&with(guest(&text)), &specs(&[&pcap(&path)])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let (ring, mut judged, mut urgent) = (reader.ring(), 0, 0);
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let tag = packet.tag();
                if tag.depth != 1 || tag.outer_l3 != 14 {
                    continue;
                }
                let dscp = tag.time_ns % 64;
                assert_eq!((tag.user, u64::from(packet.annotation::<[u8; 1]>().expect("64 bytes")[0])), (dscp, dscp));
                let is_urgent = [46, 48, 56].contains(&dscp);
                assert!(!is_urgent || ring == 0, "class {dscp} on ring {ring}");
                (judged, urgent) = (judged + 1, urgent + u32::from(is_urgent));
            }
        }
        (judged, urgent)
    });
    assert!(report.sums_agree() && report.delivered() == 3000, "{report:?}");
    assert_eq!(report.function.expect("counted").failures, [0; 9]);
    assert!(seen.iter().map(|s| s.0).sum::<u32>() > 300 && seen[0].1 > 20, "{seen:?}");
}

#[test]
fn customer_keeps_a_customers_traffic_together() {
    const TARGET: &str = "wasm32-unknown-unknown";
    let printed = Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let there =
        printed.is_ok_and(|p| p.status.success() && Path::new(String::from_utf8_lossy(&p.stdout).trim()).is_dir());
    if !there {
        flowyard_testkit::net::skipped(module_path!(), line!(), "rustup target add wasm32-unknown-unknown");
        return;
    }
    let target = tempfile::tempdir().expect("a temporary folder");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--quiet", "--offline", "--target", TARGET, "--manifest-path"]);
    cargo.arg(format!("{SAMPLES}/customer/Cargo.toml")).arg("--target-dir").arg(target.path());
    cargo.env_remove("RUSTFLAGS");
    assert!(cargo.status().expect("cargo runs").success());
    let module = target.path().join(TARGET).join("release/customer.wasm");

    // The generator's addresses are in 10/8: two customers by the third byte, and the rest nobody's.
    let customers = Table::create("customers", Shape::new(Kind::Lpm, 4, 4, 1000).expect("possible")).expect("memory");
    for third in 0..=255u8 {
        customers.set(&[10, third, 0, 0, 16], &u32::from(1 + third % 100).to_le_bytes()).expect("room");
    }
    let function = load(&module, "customers\n", move |name| (name == "customers").then(|| customers.clone()));
    let opened = Yard::open(&with(function.expect("it loads")), &specs(&["gen:mix?packets=20000"])).expect("it opens");
    let (report, seen) = run_with(opened, |mut reader| {
        let mut customers = std::collections::HashSet::new();
        while reader.wait(None) != Wait::Ended {
            while let Some(packet) = reader.next() {
                let tag = packet.tag();
                if tag.user != 0 {
                    assert_eq!(u64::from(packet.annotation::<u32>().expect("64 bytes")), tag.user);
                    assert_eq!(tag.hash, (tag.user as u32).wrapping_mul(0x9e37_79b1));
                    customers.insert(tag.user);
                }
            }
        }
        customers
    });
    assert!(report.sums_agree() && report.delivered() == 20_000, "{report:?}");
    let all: std::collections::HashSet<_> = seen.iter().flatten().collect();
    assert!(!all.is_empty() && all.len() == seen.iter().map(|s| s.len()).sum::<usize>(), "each on one ring: {seen:?}");
    let why = load(&module, "nobody", |_| None).expect("it loads").instance(&surroundings()).err().expect("refused");
    assert!(why.to_string().ends_with("there is no table \"nobody\"; make it before the function is loaded"), "{why}");
}
