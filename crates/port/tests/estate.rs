//! What owners of an interface leave, and what the next one makes of it: nothing that is not vouched for twice.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use flowyard_mem::{Geometry, Region, Stock};
use flowyard_port::{Port, PortError, PortSpec, Progress, prepare};
use flowyard_testkit::net::{Injector, Namespace, Veth, numbered_frame};
use flowyard_testkit::require_root;

struct Bench {
    port: Box<dyn Port>,
    stock: Stock,
    _region: Region,
}

impl Bench {
    fn open(name: &str) -> Result<Bench, PortError> {
        let opener = prepare(&name.parse::<PortSpec>()?, 1)?.remove(0);
        let geometry = Geometry::new(opener.info().buffer_bytes, 64, 4096)?;
        let (region, mut stock) = Region::create("test", geometry)?;
        let port = opener.open(&region, &mut stock)?;
        Ok(Bench { port, stock, _region: region })
    }

    fn receive(&mut self) -> usize {
        let mut batch = Vec::new();
        while self.port.receive(&mut self.stock, &mut batch, 256).expect("the interface is there") == Progress::Ready {}
        let count = batch.len();
        batch.drain(..).for_each(|received| self.stock.put(received.buffer));
        count
    }

    fn note(&mut self, name: &str) -> u64 {
        let counters = self.port.counters();
        counters.notes.iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("there is no {name}")).1
    }

    fn mode(&self) -> &str {
        &self.port.info().mode
    }

    fn close(mut self) {
        self.port.close(&mut self.stock).expect("restored");
    }
}

fn journal(folder: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).expect("the folder").flatten().map(|entry| entry.path());
    files.into_iter().find(|file| file.extension().is_some_and(|name| name == "journal"))
}

/// The folder of pins that belongs to a journal.
fn pins(journal: &Path) -> PathBuf {
    Path::new("/sys/fs/bpf/flowyard").join(journal.file_stem().expect("a name"))
}

/// A journal's text with its lines changed, and a sum that is right.
fn changed(text: &str, change: impl Fn(&str) -> String) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("end "));
    let body: String = lines.map(|line| change(line) + "\n").collect();
    let sum =
        body.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{body}end {sum:016x}\n")
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).expect("written");
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).expect("ours alone");
}

#[test]
fn a_program_that_stays_gives_packets_to_the_host_until_the_next_owner_takes_it_over() {
    require_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth { queues: 2, ..Veth::default() }).expect("as root");
    wire.command("ip link set fy0 address 02:00:00:00:00:02").expect("as root");
    wire.command("ip addr add 10.9.0.2/24 dev fy0").expect("as root");
    let shown = || wire.command("ip link show fy0").expect("ip runs");
    wire.run(|| {
        let host = std::net::UdpSocket::bind("10.9.0.2:4000").expect("its address");
        host.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
        let injector = Injector::open("fy1").expect("as root");
        let send = |count: u64| {
            let frames: Vec<_> = (0..count).map(|n| numbered_frame(n as u16 % 16, n, 100)).collect();
            injector.send(&frames).expect("sent");
        };
        let host_got = || {
            let mut bytes = [0; 2048];
            std::iter::from_fn(|| host.recv(&mut bytes).ok()).count()
        };
        let name = format!("xdp:fy0?keep&journal={}", folder.path().display());
        let mut first = Bench::open(&name).expect("as root");
        assert!(first.mode().contains("its program stays"), "{}", first.mode());
        send(20);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((first.receive(), host_got()), (20, 0), "the port has them");
        first.close();
        assert!(shown().contains("xdp"), "{}", shown());
        send(30);
        assert_eq!(host_got(), 30, "nobody reads: the host has them");

        let mut second = Bench::open(&name.replace("keep&", "")).expect("it takes over");
        assert!(second.mode().contains("took over the program of process"), "{}", second.mode());
        assert_eq!((second.note("before-owners"), second.note("before-passed-to-host")), (0, 30));
        send(40);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!((second.receive(), host_got()), (40, 0), "the port has them again");
        second.close();
        assert!(!shown().contains("xdp") && journal(folder.path()).is_none(), "{}", shown());
    });
}

#[test]
fn no_journal_has_anybody_elses_program_taken_off() {
    require_root!();
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        // A journal of an owner that is no more, and somebody else's program: one of our own kind at that.
        let other = Bench::open(&format!("xdp:fy0?journal={}", elsewhere.path().display())).expect("as root");
        let theirs = std::fs::read_to_string(journal(elsewhere.path()).expect("it is written")).expect("text");
        let file = folder.path().join(journal(elsewhere.path()).expect("there").file_name().expect("a name"));
        let name = format!("xdp:fy0?journal={}", folder.path().display());
        let dead = |line: &str| if line.starts_with("owner ") { "owner 4194305 1".into() } else { line.to_owned() };
        let refused = |text: &str, says: &str| {
            write(&file, text);
            let since = Instant::now();
            let error = Bench::open(&name).map(|_| ()).expect_err("a program is there").to_string();
            assert!(error.contains("has the XDP program") && error.contains(says), "{says:?}: {error}");
            assert!(error.contains(", tag ") && error.contains(", loaded "), "{error}");
            assert!(wire.command("ip link show fy0").expect("ip runs").contains("xdp"), "it is still there");
            since.elapsed()
        };
        // It names that very program; but no link of it lies where an owner would have left it.
        let waited = refused(&changed(&theirs, dead), "process");
        assert!(waited >= Duration::from_secs(1), "it could have been on its way out: {waited:?}");
        let tag = |line: &str| match line.strip_prefix("program ") {
            Some(rest) => {
                let words: Vec<&str> = rest.split(' ').collect();
                format!("program {} 0123456789abcdef {}", words[0], words[2])
            }
            None => dead(line),
        };
        assert!(refused(&changed(&theirs, tag), "knows another program by it") < Duration::from_secs(1));
        refused(&theirs, "by the journal that is the yard of process");
        refused("flowyard journal 9\n", "is not used");
        refused("", "is not used");
        other.close();

        // And none keeps a port from being opened where there is room.
        for text in ["", "flowyard journal 1\nend 0\n", &changed(&theirs, dead), &changed(&theirs, tag)] {
            write(&file, text);
            Bench::open(&name).unwrap_or_else(|e| panic!("{text:?}: {e}")).close();
            assert!(!wire.command("ip link show fy0").expect("ip runs").contains("xdp"));
        }
    });
}

#[test]
fn a_port_without_a_place_for_a_journal_works_and_says_so() {
    require_root!();
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let port = Bench::open("xdp:fy0?journal=/proc/nowhere").expect("a journal is no need");
        assert!(
            port.mode().contains("what a killed owner lost cannot be told, without its journal"),
            "{}",
            port.mode()
        );
        port.close();
        let error =
            Bench::open("xdp:fy0?keep&journal=/proc/nowhere").map(|_| ()).expect_err("it needs one").to_string();
        assert!(error.contains("?journal=DIR") && error.contains("/proc/nowhere"), "{error}");
        let open = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o777)).expect("anybody's");
        let error = Bench::open(&format!("xdp:fy0?keep&journal={}", open.path().display()));
        let error = error.map(|_| ()).expect_err("anybody could write it").to_string();
        assert!(error.contains("mode 0700") && error.contains(&open.path().display().to_string()), "{error}");
        assert!(!wire.command("ip link show fy0").expect("ip runs").contains("xdp"), "nothing is left");
        let error = Bench::open("xdp:fy0?journal=here").map(|_| ()).expect_err("no folder").to_string();
        assert!(error.contains("/FOLDER"), "{error}");
    });
}

#[test]
fn what_was_left_for_interfaces_that_are_no_more_is_cleared_away() {
    require_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let name = format!("xdp:fy0?journal={}", folder.path().display());
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let port = Bench::open(&name).expect("as root");
        let own = journal(folder.path()).expect("it is written");
        let text = std::fs::read_to_string(&own).expect("text");
        let namespace: String =
            own.file_name().expect("a name").to_string_lossy().split('-').next().expect("one").into();
        port.close();
        let left = |of: &str, owner: &str, old: bool| {
            let file = folder.path().join(format!("{of}.journal"));
            let change = |line: &str| match line.split(' ').next() {
                Some("owner") => owner.to_owned(),
                Some("program") => "program 4294967294 0123456789abcdef root_one".into(),
                _ => line.to_owned(),
            };
            write(&file, &changed(&text, change));
            if old {
                let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
                let opened = std::fs::File::options().append(true).open(&file).expect("opened");
                opened.set_modified(long_ago).expect("it looks old");
            }
            file
        };
        let alive = format!("owner {} 1", std::process::id());
        let gone = [left(&format!("{namespace}-4000"), &alive, false), left("1-4000", &alive, true)];
        let stays = left("1-4001", &alive, false);
        // Locks of owners that were killed before they wrote a journal, and folders of those killed before they pinned.
        let lock = |of: &str| {
            let file = folder.path().join(format!("{of}.lock"));
            write(&file, "4194304\n");
            file
        };
        let locks = [lock(&format!("{namespace}-4002")), gone[0].with_extension("lock")];
        let (kept, pinned) = (lock("1-4002"), pins(&gone[0]));
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&pinned).expect("made");
        Bench::open(&name).expect("as root").close();
        assert!(gone.iter().chain(&locks).all(|file| !file.exists()), "{gone:?} {locks:?}");
        assert!(stays.exists() && kept.exists() && !pinned.exists(), "{stays:?} {kept:?} {pinned:?}");
    });
}

#[test]
fn of_owners_that_start_at_once_one_has_the_interface_and_the_others_leave_it_alone() {
    require_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let wire = Namespace::new().expect("as root");
    wire.veth(&Veth::default()).expect("as root");
    wire.run(|| {
        let injector = Injector::open("fy1").expect("as root");
        for round in 0..6u64 {
            // With a program that stays, from the third on there is one to be taken over.
            let keep = if round >= 2 { "keep&" } else { "" };
            let name = format!("xdp:fy0?{keep}journal={}", folder.path().display());
            let start = Barrier::new(3);
            let opened: Vec<_> = std::thread::scope(|scope| {
                let one = || {
                    start.wait();
                    Bench::open(&name)
                };
                let all: Vec<_> = (0..3).map(|_| scope.spawn(one)).collect();
                all.into_iter().map(|one| one.join().expect("it does not panic")).collect()
            });
            let (won, lost): (Vec<_>, Vec<_>) = opened.into_iter().partition(|opened| opened.is_ok());
            assert_eq!((won.len(), lost.len()), (1, 2), "round {round}");
            for error in lost.into_iter().filter_map(Result::err).map(|e| e.to_string()) {
                let says = format!("the yard of process {}", std::process::id());
                assert!(error.contains(&says) && error.contains("stop that process"), "{error}");
            }
            let mut port = won.into_iter().find_map(Result::ok).expect("one");
            let file = journal(folder.path()).expect("the winner's journal stays");
            let text = std::fs::read_to_string(&file).expect("text");
            let id = text.lines().find_map(|line| line.strip_prefix("program ")?.split(' ').next()).expect("a program");
            let shown = wire.command("ip -d link show fy0").expect("ip runs");
            assert!(shown.contains(&format!("prog/xdp id {id} ")), "{id}: {shown}");
            for pin in [format!("counts-{id}"), format!("tally-{id}")] {
                assert!(pins(&file).join(&pin).exists(), "round {round}: {pin}");
            }
            assert_eq!(pins(&file).join("link").exists(), !keep.is_empty(), "round {round}");
            injector.send(&[numbered_frame(1, round, 100)]).expect("sent");
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(port.receive(), 1, "round {round}");
            port.close();
        }
        Bench::open(&format!("xdp:fy0?journal={}", folder.path().display())).expect("it takes over").close();
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
    });
}

#[test]
fn a_link_of_an_interface_that_is_no_more_keeps_nobody_from_leaving_one() {
    require_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let wire = Namespace::new().expect("as root");
    let make = || {
        wire.command("ip link add fy0 index 100 type veth peer name fy1 index 101").expect("as root");
        wire.command("ip link set fy0 up").expect("as root");
        wire.command("ip link set fy1 up").expect("as root");
    };
    wire.run(|| {
        make();
        let name = format!("xdp:fy0?keep&journal={}", folder.path().display());
        Bench::open(&name).expect("as root").close();
        let file = journal(folder.path()).expect("it is written");
        wire.command("ip link del fy0").expect("as root");
        make();
        assert!(pins(&file).join("link").exists(), "of the interface before, of the same name and number");
        Bench::open(&name).expect("it leaves its own").close();
        assert!(wire.command("ip link show fy0").expect("ip runs").contains("xdp"));
        Bench::open(&name.replace("keep&", "")).expect("it takes over").close();
        assert!(!pins(&file).exists() && journal(folder.path()).is_none());
    });
}

#[test]
fn an_opening_that_fails_leaves_everything_as_it_was() {
    require_root!();
    let folder = tempfile::tempdir().expect("a folder");
    let wire = Namespace::new().expect("as root");
    wire.run(|| {
        wire.command("ip link add fy0 type bridge").expect("as root"); // whose driver runs no programs
        wire.command("ip link set fy0 up").expect("as root");
        let name = format!("xdp:fy0?generic&journal={}", folder.path().display());
        let fails = || {
            for keep in ["", "&keep"] {
                let name = format!("{}{keep}", name.replace("generic", "native"));
                let error = Bench::open(&name).map(|_| ()).expect_err("it cannot").to_string();
                assert!(error.contains("(xdpdrv)"), "{error}");
            }
        };
        let port = Bench::open(&name).expect("as root");
        let file = journal(folder.path()).expect("it is written");
        let text = std::fs::read_to_string(&file).expect("text");
        port.close();
        fails();
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
        assert!(!pins(&file).exists());

        let killed = changed(&text, |line| match line.starts_with("owner ") {
            true => "owner 4194305 1".into(),
            false => line.to_owned(),
        });
        write(&file, &killed);
        fails();
        assert_eq!(std::fs::read_to_string(&file).expect("text"), killed, "what the owner before left stays");
        assert!(!pins(&file).exists());
        let port = Bench::open(&name).expect("as root");
        assert!(port.mode().contains("process 4194305"), "{}", port.mode());
        port.close();
    });
}
