//! Captures through the program beside what users do with them today: `split` beside `cat` of the same file to the
//! same place and beside `editcap -c`, which only counts packets; `inspect` and `run` beside `tshark`.
//!
//! ```text
//! cargo bench -p flowyard-cli --bench captures [-- MIB ROUNDS]
//! ```
//!
//! makes a classic pcap and a pcapng of generated traffic of that size (1024) in /dev/shm, or in TMPDIR if that is set,
//! and deletes them; three times the size must be free. All run in turn, round by round (5), so that a noisy moment
//! hits them alike, and every time is held against `cat` of the same round and the same file: least, median and most
//! of the ratios are shown. tshark is slow, so it gets a sixteenth of the packets.
//!
//! On two cores of a virtual EPYC at 2.45 GHz with others at work (load 1.5 to 4), Linux 6.18, 2 GiB in /dev/shm, five
//! rounds, `cat` at 1.1 and 1.7 GB/s:
//!
//! | speed as a part of cat's, median (least–most) | pcap | pcapng |
//! |---|---|---|
//! | split into four, conversations whole | 0.96 (0.45–2.65) | 0.82 (0.72–1.50) |
//! | editcap -c into four, which looks at nothing | 0.41 (0.30–1.00) | 0.23 (0.22–0.27) |
//! | inspect | 0.64 (0.52–1.52) | 0.50 (0.40–1.03) |
//! | run | 0.98 (0.66–2.53) | 0.80 (0.59–1.88) |
//! | tshark | 0.018 (0.013–0.043) | 0.016 (0.012–0.027) |
//!
//! `split` and `run` use both cores, `cat` one: on one, before the thread that writes, `split` came to 0.55.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use flowyard::port::Outgoing;
use flowyard::port::capture::{CaptureWriter, Interface};
use flowyard::port::traffic::{Mix, MixOptions};

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");
/// tshark gets one of so many parts.
const PART: u64 = 16;

/// Something to do with a capture, and how much of it.
struct Job {
    what: &'static str,
    file: PathBuf,
    bytes: u64,
    /// Arguments after the program: {in} and {out} stand for files, a folder for each job.
    line: &'static [&'static str],
    to_file: bool,
}

fn main() {
    // Cargo itself adds `--bench`.
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let (mib, rounds) = (numbers.next().unwrap_or(1024), numbers.next().unwrap_or(5) as usize);
    let place = std::env::var_os("TMPDIR").map_or("/dev/shm".into(), PathBuf::from);
    let folder = tempfile::tempdir_in(&place).unwrap_or_else(|e| panic!("a folder in {}: {e}", place.display()));
    let mut jobs = Vec::new();
    for name in ["a.pcap", "a.pcapng"] {
        let (whole, part) = (folder.path().join(name), folder.path().join(format!("part-{name}")));
        let packets = write(&whole, mib << 20);
        write(&part, (mib << 20) / PART);
        println!("{name}: {mib} MiB, {packets} packets of {} bytes on average", (mib << 20) / packets);
        let quarter = (packets / 4 + 1).to_string().leak();
        let lines: [(&str, &Path, &[&str], bool); 6] = [
            ("cat", &whole, &["cat", "{in}"], true),
            ("flowyard split", &whole, &[PROGRAM, "split", "-q", "-n", "4", "{in}", "-o", "{out}"], false),
            ("editcap -c, into four", &whole, &["editcap", "-c", quarter, "{in}", "{out}/part.pcapng"], false),
            ("flowyard inspect", &whole, &[PROGRAM, "inspect", "{in}"], false),
            ("flowyard run", &whole, &[PROGRAM, "run", "-q", "--json", "--no-verify", "{pcap}"], false),
            ("tshark, to nowhere", &part, &["tshark", "-n", "-r", "{in}"], false),
        ];
        for (what, file, line, to_file) in lines {
            let bytes = fs::metadata(file).expect("just written").len();
            jobs.push(Job { what, file: file.into(), bytes, line: line.to_vec().leak(), to_file });
        }
    }
    let each = jobs.len() / 2;
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); jobs.len()];
    for _ in 0..rounds {
        for (job, seconds) in jobs.iter().zip(&mut seconds) {
            seconds.extend(job.run(folder.path()));
        }
    }
    println!("{rounds} rounds in {}; speed as a part of cat's", place.display());
    println!("{:32} {:>8} {:>8} {:>8} {:>10}", "", "least", "median", "most", "GB/s");
    for (at, (job, times)) in jobs.iter().zip(&seconds).enumerate() {
        let cat = at / each * each;
        let name = format!("{} {}", job.what, job.file.extension().unwrap_or_default().display());
        if times.is_empty() {
            println!("{name:32} not there");
            continue;
        }
        let speed = |job: &Job, seconds: f64| job.bytes as f64 / seconds;
        let mut ratios: Vec<f64> = times
            .iter()
            .zip(&seconds[cat])
            .map(|(ours, theirs)| speed(job, *ours) / speed(&jobs[cat], *theirs))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let mut speeds: Vec<f64> = times.iter().map(|s| speed(job, *s) / 1e9).collect();
        speeds.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let (median, speed) = (ratios[ratios.len() / 2], speeds[speeds.len() / 2]);
        println!("{name:32} {least:8.3} {median:8.3} {most:8.3} {speed:10.3}");
    }
}

impl Job {
    /// Seconds that it takes; none if the program is not there. What it writes is deleted, untimed.
    fn run(&self, folder: &Path) -> Option<f64> {
        let out = folder.join("out");
        fs::create_dir(&out).expect("room");
        let filled = self.line.iter().map(|word| {
            let word = word.replace("{in}", &self.file.display().to_string());
            word.replace("{out}", &out.display().to_string())
                .replace("{pcap}", &format!("pcap:{}", self.file.display()))
        });
        let words: Vec<String> = filled.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stderr(Stdio::null());
        let to = if self.to_file { fs::File::create(out.join("copy")).expect("room").into() } else { Stdio::null() };
        let began = Instant::now();
        let status = command.stdout(to).status();
        let seconds = began.elapsed().as_secs_f64();
        fs::remove_dir_all(&out).expect("ours");
        match status {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            status => {
                assert!(status.expect("it starts").success(), "{words:?}");
                Some(seconds)
            }
        }
    }
}

/// Fills a capture with generated traffic; answers the number of packets.
fn write(path: &Path, bytes: u64) -> u64 {
    let mut writer = CaptureWriter::create(path).expect("room");
    let eth = writer.interface(&Interface::of_link(1)).expect("Ethernet");
    let mut mix = Mix::new(&MixOptions { flows: 10_000, ..MixOptions::default() });
    let mut frame = [0; Mix::FRAME_BYTES];
    let mut written = 0;
    while written < bytes {
        let packet = mix.next(&mut frame);
        let (time_ns, wire_len) = (1_700_000_000_000_000_000 + packet.time_ns, packet.len as u32);
        let packet = Outgoing { bytes: &frame[..packet.len], time_ns, wire_len, link: 1, comment: "" };
        writer.write(eth, &packet).expect("room");
        written += packet.bytes.len() as u64 + 24;
    }
    let packets = writer.packets();
    writer.finish().expect("room");
    packets
}
