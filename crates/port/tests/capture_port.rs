//! `pcap:` and `gen:` keep what a port promises.

use std::io::Write;
use std::time::{Duration, Instant};

use flowyard_mem::{Clock, Geometry, Region, flags};
use flowyard_port::capture::{CaptureReader, CaptureWriter, Interface};
use flowyard_port::{Arrival, Opener, Outgoing, PortError, PortSpec, Progress, prepare};
use flowyard_testkit::conformance::{Expectation, port_conformance};

fn opener(name: &str) -> Box<dyn Opener> {
    let spec: PortSpec = name.parse().unwrap_or_else(|e| panic!("{e}"));
    let mut openers = prepare(&spec, 4).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(openers.len(), 1, "one source cannot be shared out");
    openers.remove(0)
}

/// A capture of `packets` packets, a few of them far longer than a buffer, `gap_ns` apart.
fn capture(folder: &std::path::Path, packets: u64, gap_ns: u64) -> std::path::PathBuf {
    let path = folder.join("some.pcapng");
    let mut writer = CaptureWriter::create(&path).expect("a file");
    let eth = writer.interface(&Interface::of_link(1)).expect("an interface");
    let raw = writer.interface(&Interface::of_link(101)).expect("an interface");
    for n in 0..packets {
        let len = if n % 50 == 7 {
            9000
        } else if n % 50 == 8 {
            0
        } else {
            60 + (n as usize * 37) % 1440
        };
        let bytes: Vec<u8> = (0..len).map(|at| (at as u64 + n) as u8).collect();
        let time_ns = 1_000_000_000 + n * gap_ns;
        let wire_len = if n % 50 == 9 { len as u32 + 5 } else { len as u32 };
        let interface = if n % 3 == 0 { raw } else { eth };
        writer.write(interface, &Outgoing { bytes: &bytes, time_ns, wire_len, link: 1, comment: "" }).expect("written");
    }
    writer.finish().expect("written");
    path
}

/// What a port says of each packet, until its end.
fn drain(name: &str) -> (Vec<Arrival>, Result<(), PortError>) {
    let (region, mut stock) = Region::create("drain", Geometry::new(2048, 0, 256).expect("a shape")).expect("memory");
    let mut port = opener(name).open(&region, &mut stock).expect("opens");
    let (mut all, mut batch) = (Vec::new(), Vec::new());
    loop {
        let progress = port.receive(&mut stock, &mut batch, 64);
        for received in batch.drain(..) {
            if !received.more {
                all.push(received.arrival);
            }
            stock.put(received.buffer);
        }
        match progress {
            Ok(Progress::Ended) => return (all, Ok(())),
            Ok(Progress::Idle { wait_ns }) => std::thread::sleep(Duration::from_nanos(wait_ns.unwrap_or(100_000))),
            Ok(Progress::Ready | Progress::NoBuffers) => {}
            Err(error) => return (all, Err(error)),
        }
    }
}

#[test]
fn files_keep_every_promise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 500, 1000);
    let name = format!("pcap:{}", path.display());
    let whole = port_conformance(&mut || opener(&name), Expectation { packets: Some(500), ..Expectation::default() });
    assert_eq!(whole.most_segments, 9000usize.div_ceil(2048 - 256));
    let name = format!("{name}?times=3");
    port_conformance(&mut || opener(&name), Expectation { packets: Some(1500), ..Expectation::default() });
}

#[test]
fn damaged_files_keep_every_promise() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 300, 1000);
    let whole = std::fs::read(&path).expect("the file");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("a shorter file");
    let name = format!("pcap:{}", path.display());
    let expected = Expectation { packets: Some(299), damaged: true, ..Expectation::default() };
    port_conformance(&mut || opener(&name), expected);
}

#[test]
fn generated_traffic_keeps_every_promise() {
    let expected = Expectation { packets: Some(5000), ..Expectation::default() };
    for name in ["gen:mix?packets=5000", "gen:gtp?packets=5000&flows=3&size=imix", "gen:mix?packets=5000&rate=200000"] {
        port_conformance(&mut || opener(name), expected);
    }
}

#[test]
fn arrivals_tell_what_is_recorded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 60, 1000);
    let (all, end) = drain(&format!("pcap:{}", path.display()));
    assert!(end.is_ok());
    assert_eq!(all.len(), 60);
    for (n, arrival) in all.iter().enumerate() {
        assert_eq!((arrival.number, arrival.time_ns), (n as u64 + 1, 1_000_000_000 + n as u64 * 1000));
        assert_eq!((arrival.link, arrival.queue), if n % 3 == 0 { (101, 1) } else { (1, 0) });
        assert_eq!(arrival.clock, Clock::Recorded);
        assert_eq!(arrival.flags & flags::TRUNCATED != 0, n % 50 == 9);
    }
}

#[test]
fn repetitions_go_on_in_time_and_number() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 5, 1000);
    let (all, _) = drain(&format!("pcap:{}?times=3", path.display()));
    let seen: Vec<_> = all.iter().map(|arrival| (arrival.number, arrival.time_ns)).collect();
    let expected: Vec<_> = (0..15).map(|n| (n + 1, 1_000_000_000 + n * 1000)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn recorded_speed_takes_recorded_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 21, 5_000_000);
    let timed = |options: &str| {
        let start = Instant::now();
        assert_eq!(drain(&format!("pcap:{}{options}", path.display())).0.len(), 21);
        start.elapsed()
    };
    assert!(timed("?speed=recorded") >= Duration::from_millis(100));
    assert!(timed("?speed=4") >= Duration::from_millis(25));
    let start = Instant::now();
    assert_eq!(drain("gen:plain?packets=101&rate=1000").0.len(), 101);
    assert!(start.elapsed() >= Duration::from_millis(100));
}

/// A packet that needs more buffers than there are is cut, not waited for until the end of days.
#[test]
fn a_packet_beyond_the_whole_stock_is_cut() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = capture(folder.path(), 10, 1000);
    let (region, mut stock) = Region::create("small", Geometry::new(2048, 0, 2).expect("a shape")).expect("memory");
    let mut port = opener(&format!("pcap:{}", path.display())).open(&region, &mut stock).expect("opens");
    let (mut lens, mut batch) = (Vec::new(), Vec::new());
    loop {
        let progress = port.receive(&mut stock, &mut batch, 4).expect("no damage");
        for received in batch.drain(..) {
            if !received.more {
                lens.push((received.arrival.len, received.arrival.flags));
            }
            stock.put(received.buffer);
        }
        if progress == Progress::Ended {
            break;
        }
    }
    assert_eq!(lens.len(), 10);
    assert_eq!(lens[7], (2 * (2048 - 256), flags::TRUNCATED));
    assert_eq!(port.counters().notes, [("cut-to-fit", 1)]);
}

/// A pipe that is empty makes the port idle, not wait.
#[test]
fn an_empty_pipe_does_not_block() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = std::fs::read(capture(folder.path(), 20, 1000)).expect("the file");
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).expect("a fifo");
    // Opened for both, so that neither side waits for the other.
    let mut feed = std::fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("the fifo");
    let (region, mut stock) = Region::create("pipe", Geometry::new(2048, 0, 256).expect("a shape")).expect("memory");
    let mut port = opener(&format!("pcap:{}", fifo.display())).open(&region, &mut stock).expect("opens");
    let mut batch = Vec::new();
    for piece in file.chunks(777) {
        let idle = loop {
            match port.receive(&mut stock, &mut batch, 1000).expect("no damage") {
                Progress::Ready => {}
                other => break other,
            }
        };
        assert_eq!(idle, Progress::Idle { wait_ns: None });
        assert_eq!(port.fds().len(), 1);
        feed.write_all(piece).expect("room in the pipe");
    }
    while port.receive(&mut stock, &mut batch, 1000).expect("no damage") == Progress::Ready {}
    assert_eq!(batch.iter().filter(|r| !r.more).count(), 20);
}

#[test]
fn what_the_port_yields_is_what_the_reader_reads() {
    let Some(corpus) = std::env::var_os("FLOWYARD_CORPUS").map(|c| std::path::Path::new(&c).join("captures")) else {
        eprintln!("skipped: FLOWYARD_CORPUS names no corpus");
        return;
    };
    for entry in std::fs::read_dir(corpus).expect("the corpus can be listed").step_by(9) {
        let path = entry.expect("the corpus can be listed").path();
        let mut reader = CaptureReader::open(&path).expect("a capture");
        let (all, end) = drain(&format!("pcap:{}", path.display()));
        let mut arrived = all.iter();
        loop {
            match reader.next() {
                Ok(Some(record)) => {
                    let arrival = arrived.next().expect("as many packets");
                    assert_eq!((arrival.number, arrival.len as usize), (record.number, record.bytes.len()));
                }
                Ok(None) => break assert!(end.is_ok()),
                Err(_) => break assert!(end.is_err()),
            }
        }
        assert!(arrived.next().is_none());
    }
}
