//! Every capture there is: no crash, no hang, one clear line for what cannot be read, and the same
//! ring for every packet from `run`, `split` and `inspect`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flowyard::port::capture::CaptureReader;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");
const RINGS: usize = 4;
const LONGEST: Duration = Duration::from_secs(60);

/// The folder of captures, if the environment names one.
fn captures() -> Option<Vec<PathBuf>> {
    let Some(corpus) = std::env::var_os("FLOWYARD_CORPUS") else {
        eprintln!("SKIPPED: FLOWYARD_CORPUS names no folder of captures");
        return None;
    };
    let folder = Path::new(&corpus).join("captures");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    Some(files)
}

fn run(args: &[&std::ffi::OsStr]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stdout, &mut bytes);
        bytes
    });
    let mut errors = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stderr, &mut errors);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        assert!(started.elapsed() < LONGEST, "{args:?} hangs");
        std::thread::sleep(Duration::from_millis(1));
    };
    Output { status, stdout: read.join().expect("read"), stderr: errors }
}

type Packets = BTreeMap<(u64, u32, Vec<u8>), usize>;

/// The packets of a capture as a multiset, by time, length and bytes.
fn packets(path: &Path) -> Packets {
    let mut all = Packets::new();
    let mut reader = CaptureReader::open(path).unwrap_or_else(|e| panic!("{e}"));
    while let Some(record) = reader.next().unwrap_or_else(|e| panic!("{e}")) {
        *all.entry((record.time_ns, record.wire_len, record.bytes.to_vec())).or_default() += 1;
    }
    all
}

/// What each ring got according to `inspect --json`, with the packets taken from the capture itself.
fn inspected(file: &Path, stdout: &[u8]) -> [Packets; RINGS] {
    let mut rings = BTreeMap::new();
    for line in stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let object: serde_json::Value = serde_json::from_slice(line).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        let ring = object["ring"].as_u64().expect("a ring");
        assert!(rings.insert(object["frame"].as_u64().expect("a frame"), ring as usize).is_none(), "a frame twice");
    }
    let mut split = [(); RINGS].map(|()| Packets::new());
    let Ok(mut reader) = CaptureReader::open(file) else { return split };
    while let Ok(Some(record)) = reader.next() {
        let ring =
            rings.remove(&record.number).unwrap_or_else(|| panic!("{file:?}: frame {} not shown", record.number));
        *split[ring].entry((record.time_ns, record.wire_len, record.bytes.to_vec())).or_default() += 1;
    }
    assert!(rings.is_empty(), "{file:?}: frames shown that are not there: {rings:?}");
    split
}

fn one(file: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    let (ran, cut) = (dir.path().join("run"), dir.path().join("split"));
    let rings = RINGS.to_string();
    let port = format!("pcap:{}", file.display());
    let os = |s: &'static str| std::ffi::OsStr::new(s);
    let outputs = [
        run(&[os("inspect"), os("--json"), os("--rings"), rings.as_ref(), file.as_ref()]),
        run(&[os("split"), os("--rings"), rings.as_ref(), os("-o"), cut.as_ref(), file.as_ref()]),
        run(&[os("run"), os("--json"), os("--rings"), rings.as_ref(), os("-o"), ran.as_ref(), port.as_ref()]),
    ];
    let codes: Vec<Option<i32>> = outputs.iter().map(|o| o.status.code()).collect();
    for output in &outputs {
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0..=2)), "{file:?}: {:?} {errors}", output.status);
        assert!(!errors.contains("panicked"), "{file:?}: {errors}");
        if output.status.code() != Some(0) {
            let said: Vec<_> = errors.lines().filter(|l| l.starts_with("flowyard: ")).collect();
            assert_eq!(said.len(), 1, "{file:?}: one clear line, not {errors}");
        }
    }
    assert!(codes.iter().all(|c| *c == codes[0]), "{file:?}: {codes:?}");
    if codes[0] == Some(2) {
        return; // not a capture: nothing was started
    }
    let expected = inspected(file, &outputs[0].stdout);
    let mut split: Vec<PathBuf> =
        std::fs::read_dir(&cut).expect("split wrote").map(|e| e.expect("an entry").path()).collect();
    split.sort();
    assert_eq!(split.len(), RINGS);
    for (ring, expected) in expected.iter().enumerate() {
        assert!(packets(&split[ring]) == *expected, "{file:?}: split and inspect differ on ring {ring}");
        let got = packets(&ran.join(format!("ring-{ring:02}.pcapng")));
        assert!(got == *expected, "{file:?}: run and inspect differ on ring {ring}");
    }
    let figures: serde_json::Value = serde_json::from_slice(&outputs[2].stdout).expect("JSON");
    assert_eq!(figures["sums_agree"], true, "{file:?}");
    assert_eq!((&figures["dropped"], &figures["buffers_missing"]), (&0.into(), &0.into()), "{file:?}");
}

#[test]
fn every_capture_is_sorted_alike_by_every_verb() {
    let Some(files) = captures() else { return };
    assert!(!files.is_empty());
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    one(file);
                }
            });
        }
    });
}
