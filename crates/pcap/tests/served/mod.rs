//! A yard that serves its rings to programs of other processes, under a runtime folder of its own.
#![allow(dead_code, reason = "no test file uses all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flowyard::attach::{Server, Serving};
use flowyard::{Absent, Report, Running, Yard, YardConfig};

/// Time in which anything that ends at all has ended.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A yard named `edge`.
pub struct Served {
    running: Option<Running>,
    server: Server,
    folder: PathBuf,
    /// Removed at the end, if it is ours.
    _ours: Option<tempfile::TempDir>,
}

impl Served {
    /// With rings that wait for whoever attaches.
    pub fn start(rings: u16, port: &str) -> Served {
        Served::of(&YardConfig { rings, absent: Absent::Hold, ..YardConfig::default() }, port)
    }

    pub fn of(config: &YardConfig, port: &str) -> Served {
        let ours = tempfile::tempdir().expect("a folder");
        let served = Served::at(config, port, ours.path());
        Served { _ours: Some(ours), ..served }
    }

    /// Under a runtime folder that is there.
    pub fn at(config: &YardConfig, port: &str, folder: &Path) -> Served {
        let forking = forking();
        let (yard, readers) = Yard::open(config, &[port.parse().expect("a port")]).expect("it opens");
        drop(readers);
        let running = yard.start().expect("threads start");
        let deadline = Instant::now() + PATIENCE;
        while running.live().iter().any(|live| live.turns.load(std::sync::atomic::Ordering::Relaxed) == 0) {
            assert!(Instant::now() < deadline, "dispatchers have seen who is not there");
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(forking);
        let groups = std::iter::once(String::new()).chain(config.groups.iter().map(|g| g.name.clone())).collect();
        let path = folder.join("edge/attach.sock");
        let allow = vec!["*+write".parse().expect("a rule")];
        let server = running.serve(&path, Serving { name: "edge".into(), groups, allow }).expect("a socket");
        Served { running: Some(running), server, folder: folder.into(), _ours: None }
    }

    /// The folder that `FLOWYARD_RUNTIME_DIR` is to name.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until somebody has a ring. Panics instead of hanging.
    pub fn until_read(&self) {
        self.until_read_by(1);
    }

    /// Waits until so many have rings. Panics instead of hanging.
    pub fn until_read_by(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.server.consumers().len() < count {
            assert!(Instant::now() < deadline, "{:?} are there", self.server.consumers());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until so many packets have been received. Panics instead of hanging.
    pub fn until_received(&self, packets: u64) {
        let live = self.running.as_ref().expect("it runs").live();
        let received = || live.iter().map(|l| l.received.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>();
        let deadline = Instant::now() + PATIENCE;
        while received() < packets {
            assert!(Instant::now() < deadline, "{} of {packets} were received", received());
            std::thread::yield_now();
        }
    }

    /// Waits until so many packets have been delivered: none of them waits for the first fragment of its datagram any more. Panics
    /// instead of hanging.
    pub fn until_delivered(&self, packets: u64) {
        let live = self.running.as_ref().expect("it runs").live();
        let delivered = || live.iter().map(|l| l.delivered.load(std::sync::atomic::Ordering::Relaxed)).sum::<u64>();
        let deadline = Instant::now() + PATIENCE;
        while delivered() < packets {
            assert!(Instant::now() < deadline, "{} of {packets} were delivered", delivered());
            std::thread::yield_now();
        }
    }

    pub fn stop(&self) {
        self.running.as_ref().expect("it runs").stop();
    }

    /// Ends it.
    pub fn report(mut self) -> Report {
        let running = self.running.take().expect("it runs");
        running.stop();
        running.join()
    }
}

/// The library that the tests preload, beside the test's own program.
pub fn library(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("this test");
    let library = program.parent().expect("a folder").join(name);
    assert!(library.exists(), "{} is built before its tests", library.display());
    library
}

/// Held while a process is started, and while a yard finds out who has left its rings: a process that is being started has
/// copies of all our descriptors until its program runs, and by these a consumer would seem to be there.
pub fn forking() -> MutexGuard<'static, ()> {
    static FORKING: Mutex<()> = Mutex::new(());
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a program printed, and how it ended. Panics instead of hanging.
pub fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = {
        let _forking = forking();
        command.spawn().expect("it runs")
    };
    let take = |from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let (mut from, mut bytes) = (from, Vec::new());
            std::io::Read::read_to_end(&mut from, &mut bytes).expect("a pipe");
            bytes
        })
    };
    let stdout = take(Box::new(child.stdout.take().expect("piped")));
    let stderr = take(Box::new(child.stderr.take().expect("piped")));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is a child") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end: {:?}", String::from_utf8_lossy(&stderr.join().expect("no panic")));
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Output { status, stdout: stdout.join().expect("no panic"), stderr: stderr.join().expect("no panic") }
}

/// Whether a program is there; if not the test says that it is skipped.
pub fn has(program: &str, what: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).exists());
    if !found {
        flowyard_testkit::net::skipped(module_path!(), line!(), &format!("{what}: no {program}"));
    }
    found
}
