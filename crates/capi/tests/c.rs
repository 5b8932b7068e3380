//! Programs in C on the rings of a live yard: built by the machine's compiler against an installed library, and run.

#[path = "../../pcap/tests/served/mod.rs"]
mod served;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use flowyard::{Absent, YardConfig};
use flowyard_capi::{Info, Options, PacketView, SegmentView};
use served::{Served, has, library, output};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn run(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().expect("it starts");
    let (said, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {said}{error}");
    said.into_owned()
}

/// Header, library and pkg-config file in a folder of their own. `None`, and a word about it, without a compiler.
fn installed() -> Option<&'static Path> {
    static PREFIX: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| {
        if !["cc", "make", "pkg-config"].iter().all(|program| has(program, "programs in C")) {
            return None;
        }
        let prefix = tempfile::tempdir().expect("a folder");
        let from = library("libflowyard_capi.so");
        let from = from.parent().expect("a folder");
        run(Command::new("sh").arg(format!("{HERE}/install.sh")).arg(prefix.path()).arg(from));
        Some(prefix)
    });
    prefix.as_ref().map(tempfile::TempDir::path)
}

fn pkg_config(prefix: &Path) -> PathBuf {
    prefix.join("lib/pkgconfig")
}

/// Builds one of the tests' own programs.
fn program(prefix: &Path, name: &str) -> PathBuf {
    let to = prefix.join(name);
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "flowyard"])
        .env("PKG_CONFIG_PATH", pkg_config(prefix)));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-pthread", "-o"]).arg(&to);
    cc.arg(format!("{HERE}/tests/programs/{name}.c")).args(flags.split_whitespace());
    cc.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    run(&mut cc);
    to
}

/// Builds the examples as their Makefile does.
fn make_examples(prefix: &Path, to: &Path) {
    let mut make = Command::new("make");
    make.args(["-C", &format!("{HERE}/../../examples/c"), "CFLAGS=-O1 -Wall -Wextra -Werror"]);
    run(make.arg(format!("TO={}", to.display())).env("PKG_CONFIG_PATH", pkg_config(prefix)));
}

#[test]
fn the_header_says_what_the_library_does() {
    let Some(prefix) = installed() else { return };
    let printed = run(&mut Command::new(program(prefix, "layout")));
    let theirs: BTreeMap<&str, i64> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(n, v)| (n, v.parse().expect("a number")))
        .collect();
    let mut known = 0;
    let mut same = |name: &str, ours: i64| {
        assert_eq!(theirs.get(name), Some(&ours), "{name}");
        known += 1;
    };
    macro_rules! layout {
        ($type:ident $name:literal: $($field:ident)*) => {
            same($name, size_of::<$type>() as i64);
            $(same(concat!($name, ".", stringify!($field)), std::mem::offset_of!($type, $field) as i64);)*
        };
    }
    layout!(Options "options": size socket program flags zero patience_ns);
    layout!(Info "info": size yard group ring rings port_count write annotation_bytes buffer_bytes);
    layout!(SegmentView "segment": data len zero);
    layout!(PacketView "packet": data len total further further_count hash tag annotation annotation_len flags l3 l4
            time_ns buffer port writable zero);
    macro_rules! numbers {
        ($module:path: $($name:ident)*) => {{
            use $module as ours;
            $(same(stringify!($name), i64::from(ours::$name));)*
        }};
    }
    numbers!(flowyard_capi::abi: ABI WRITE ERROR NOTHING PACKETS ENDED SPIN YIELD SLEEP NOT_ENDED IN_ORDER LOST);
    use flowyard::mem::slot_flags as slot;
    for (name, ours) in [
        ("SLOT_MORE", slot::MORE),
        ("SLOT_TRUNCATED", slot::TRUNCATED),
        ("SLOT_CHECKSUM_PARTIAL", slot::CHECKSUM_PARTIAL),
        ("SLOT_GSO", slot::GSO),
        ("SLOT_VLAN_STRIPPED", slot::VLAN_STRIPPED),
        ("SLOT_FRAGMENT_FALLBACK", slot::FRAGMENT_FALLBACK),
        ("SLOT_SHARED", slot::SHARED),
    ] {
        same(name, ours.into());
    }
    assert_eq!(known, theirs.len(), "all that is printed is compared");
}

/// Between two marks of a header, or all of it.
fn tag_section(header: &str) -> Vec<&str> {
    let from = header.find("#define FLOWYARD_TAG\n").expect("a section");
    let to = header.find("#endif /* FLOWYARD_TAG */").expect("its end");
    let lines = header[from..to].lines().filter(|line| !line.starts_with(" *") && !line.starts_with("/*"));
    lines.collect()
}

#[test]
fn both_headers_have_the_same_tag() {
    let (ours, plugins) = (
        std::fs::read_to_string(format!("{HERE}/include/flowyard.h")).expect("a header"),
        std::fs::read_to_string(format!("{HERE}/../yard/include/flowyard_plugin.h")).expect("a header"),
    );
    assert_eq!(tag_section(&ours), tag_section(&plugins));
    let Some(prefix) = installed() else { return };
    // In either order, in C and in C++.
    for (language, standard) in [("c", "-std=c11"), ("c++", "-std=c++11")] {
        for headers in [["flowyard.h", "flowyard_plugin.h"], ["flowyard_plugin.h", "flowyard.h"]] {
            let source = prefix.join(format!("both.{language}"));
            std::fs::write(&source, headers.map(|header| format!("#include <{header}>\n")).concat()).expect("written");
            let mut cc = Command::new("cc");
            cc.args([standard, "-x", language, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]);
            cc.arg(format!("-I{HERE}/include")).arg(format!("-I{HERE}/../yard/include")).arg(&source);
            if language == "c++" && !has("g++", "the header in C++") {
                continue;
            }
            run(&mut cc);
        }
    }
}

#[test]
fn the_library_has_the_functions_of_the_header_and_no_others() {
    if !has("nm", "the library's functions") {
        return;
    }
    let header = std::fs::read_to_string(format!("{HERE}/include/flowyard.h")).expect("a header");
    let code = header.lines().filter(|line| !line.starts_with(" *") && !line.starts_with('#'));
    let mut declared: Vec<&str> = code
        .filter(|line| line.ends_with(");") && !line.starts_with(' ') && !line.contains("ASSERT"))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .collect();
    let said = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library("libflowyard_capi.so")));
    let mut there: Vec<&str> = said.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    declared.sort_unstable();
    there.sort_unstable();
    assert_eq!(declared, there);
}

#[test]
fn the_examples_are_built_by_their_makefile_and_count_what_there_is() {
    let Some(prefix) = installed() else { return };
    let built = tempfile::tempdir().expect("a folder");
    make_examples(prefix, built.path());
    let yard = Served::start(3, "gen:mix?packets=30000");
    let example = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(built.path().join(name));
        command.args(arguments).env("FLOWYARD_RUNTIME_DIR", yard.folder());
        let out = output(&mut command);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let shown = example("dump", &["edge/1", "3"]);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(shown.contains("from gen:mix") && shown.contains("ring 1"), "{shown}");
    // The rest: two rings in one thread that polls, one in another that yields.
    let (polled, counted) = std::thread::scope(|scope| {
        let polled = scope.spawn(|| example("rings", &["edge/0", "edge/1"]));
        (example("count", &["edge/2", "yield"]), polled.join().expect("no panic"))
    });
    let (counted, polled) = (polled, counted);
    let report = yard.report();
    let packets = |ring: usize| report.rings[ring].packets;
    assert_eq!(counted, format!("{} packets, {} bytes\n", packets(2), report.rings[2].bytes));
    for (ring, shown) in [(0, 0), (1, 3)] {
        let line =
            format!("edge/{ring}: {} packets, ended in order", packets(ring) - shown - report.rings[ring].abandoned);
        assert!(polled.contains(&line), "{line}: {polled}");
    }
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn misuse_is_refused_in_words() {
    let Some(prefix) = installed() else { return };
    let config = YardConfig { rings: 2, absent: Absent::Drop, ..YardConfig::default() };
    let yard = Served::of(&config, "gen:mix?rate=1");
    let out = output(Command::new(program(prefix, "misuse")).env("FLOWYARD_RUNTIME_DIR", yard.folder()));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "right\n", "{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success());
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn a_program_with_leave_writes_annotations_and_packets() {
    let Some(prefix) = installed() else { return };
    let config = YardConfig { rings: 1, annotation_bytes: 64, absent: Absent::Hold, ..YardConfig::default() };
    let yard = Served::of(&config, "gen:mix?packets=20000");
    let out = output(Command::new(program(prefix, "write")).env("FLOWYARD_RUNTIME_DIR", yard.folder()));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "edge  0/1 64 1 gen:mix\n20000 1\n");
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
}

#[test]
fn packets_of_several_buffers_come_in_parts() {
    let Some(prefix) = installed() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("from.pcap");
    let mut bytes = Vec::new();
    for number in [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 262_144, 1] {
        bytes.extend_from_slice(&u32::to_le_bytes(number));
    }
    for len in [60, 9000, 2000, 65_000, 1500] {
        [1, 7, len, len].iter().for_each(|number| bytes.extend_from_slice(&u32::to_le_bytes(*number)));
        bytes.extend(flowyard_testkit::net::numbered_frame(3, len.into(), len as usize));
    }
    std::fs::write(&capture, bytes).expect("written");
    let yard = Served::start(1, &format!("pcap:{}", capture.display()));
    let out = output(Command::new(program(prefix, "parts")).env("FLOWYARD_RUNTIME_DIR", yard.folder()));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let report = yard.report();
    assert!(report.sums_agree() && report.violations == 0 && report.buffers_missing == 0, "{report:?}");
    let (packets, several) = said.trim().split_once(" packets, ").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(packets, "5");
    assert!(several == "2 in several parts" || several == "3 in several parts", "{said}");
}

/// Where the other process has its yard.
const TASK: &str = "FLOWYARD_TEST_YARD";

/// The other process: a yard to be killed. This same test binary, run with a folder in its environment.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(TASK) else { return };
    let config = YardConfig { rings: 1, absent: Absent::Hold, ..YardConfig::default() };
    let yard = Served::at(&config, "gen:mix?rate=5000", Path::new(&folder));
    println!("serving");
    yard.until_read();
    println!("attached");
    std::thread::sleep(served::PATIENCE);
}

#[test]
fn a_yard_that_is_killed_is_told_from_one_that_ends() {
    let Some(prefix) = installed() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut yard = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--quiet", "--nocapture"])
        .env(TASK, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(yard.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    make_examples(prefix, folder.path());
    assert!(lines.any(|line| line == "serving"));
    let mut count = Command::new("timeout") // instead of hanging
        .arg(served::PATIENCE.as_secs().to_string())
        .arg(folder.path().join("count"))
        .arg("edge/0")
        .env("FLOWYARD_RUNTIME_DIR", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("it runs");
    assert!(lines.any(|line| line == "attached"));
    yard.kill().expect("a child");
    yard.wait().expect("a child");
    assert_eq!(count.wait().expect("a child").code(), Some(2), "what count answers for a yard that was killed");
}
