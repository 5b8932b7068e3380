//! A pipe between two processes: packets, tags and annotations arrive in the same buffers, and all
//! come home; a killed consumer leaks nothing.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use flowyard_mem::{
    Consumer, Geometry, Grant, Ledger, PipeProducer, Region, Returned, Slot, Stock, Tag, Wait, handover, notify,
};

const SOCKET: &str = "FLOWYARD_TEST_SOCKET";
const PACKETS: u64 = 20_000;

/// The other process: this same test binary, run with the socket in its environment.
#[test]
fn child() {
    let Ok(path) = std::env::var(SOCKET) else { return };
    let socket = UnixStream::connect(path).expect("the parent listens");
    let message = handover::receive(&socket).and_then(handover::Message::of_our_version).expect("a message");
    let parts = message.parts.expect("descriptors");
    let mut consumer = Consumer::attach(parts, Grant::Read).expect("attach");
    let mut expected = 0u64;
    loop {
        while let Some(packet) = consumer.next() {
            assert_eq!(packet.data(), expected.to_le_bytes());
            assert_eq!(packet.tag().user, !expected);
            let (index, number) = (packet.buffer_index(), packet.annotation::<[u64; 2]>().expect("fits"));
            assert_eq!(number, [u64::from(index), expected]);
            expected += 1;
        }
        match consumer.wait(Some(Duration::from_secs(20))) {
            Wait::Ready => {}
            Wait::Ended => break,
            Wait::TimedOut => panic!("the parent fell silent after {expected} packets"),
        }
    }
    assert_eq!(expected, PACKETS);
}

struct Parent {
    region: Region,
    stock: Stock,
    ledger: Ledger,
    out: PipeProducer,
    child: Child,
    _path: std::path::PathBuf,
}

fn start(name: &str) -> Parent {
    let path = std::env::temp_dir().join(format!("flowyard-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a socket");
    let child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child", "--nocapture"])
        .env(SOCKET, &path)
        .spawn()
        .expect("the child runs");
    let (socket, _) = listener.accept().expect("the child connects");
    let _ = std::fs::remove_file(&path);
    let (region, stock) = Region::create(name, Geometry::new(2048, 64, 512).expect("geometry")).expect("region");
    let mut ledger = Ledger::new(&region);
    let (out, end) = ledger.open_pipe(64).expect("pipe");
    handover::send(&socket, b"", Some(end.handover(Grant::Read).expect("handover"))).expect("send");
    Parent { region, stock, ledger, out, child, _path: path }
}

impl Parent {
    fn send(&mut self, n: u64) {
        let mut buffer = self.stock.take().expect("more buffers than the pipe lets out");
        let offset = self.region.geometry().packet_offset();
        let index = u64::from(buffer.index());
        let annotation: Vec<u8> = [index, n].into_iter().flat_map(u64::to_le_bytes).collect();
        assert!(self.region.write(&mut buffer, 0, &annotation));
        assert!(self.region.write(&mut buffer, offset, &n.to_le_bytes()));
        self.region.set_tag(&mut buffer, &Tag { user: !n, ..Tag::default() });
        let slot = Slot { offset: offset as u16, len: 8, total: 8, ..Slot::default() };
        self.out.send(&mut self.ledger, buffer, slot).expect("the caller reserved");
    }

    fn drain(&mut self) {
        while let Some((returned, _)) = self.out.take_returned(&mut self.ledger) {
            match returned {
                Returned::Free(buffer) => self.stock.put(buffer),
                other => panic!("an honest consumer: {other:?}"),
            }
        }
        self.out.release_returned();
    }
}

#[test]
fn every_packet_crosses_once_and_every_buffer_comes_home() {
    let mut parent = start("cross");
    let mut n = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while n < PACKETS {
        let room = u64::from(parent.out.reserve(32)).min(PACKETS - n).min(1 + n % 40);
        for _ in 0..room {
            parent.send(n);
            n += 1;
        }
        parent.out.commit();
        notify([&mut parent.out]);
        parent.drain();
        assert!(Instant::now() < deadline, "stuck after {n}");
    }
    parent.out.end();
    assert!(parent.child.wait().expect("wait").success());
    parent.drain();
    assert_eq!((parent.stock.len(), parent.ledger.held()), (512, 0));
    assert!(parent.out.consumer_gone());
    assert_eq!(parent.out.violations(), 0);
}

#[test]
fn a_killed_consumer_leaks_nothing() {
    let mut parent = start("kill");
    for n in 0..u64::from(parent.out.reserve(64)) {
        parent.send(n);
    }
    parent.out.commit();
    parent.child.kill().expect("kill");
    parent.child.wait().expect("wait");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !parent.out.consumer_gone() {
        assert!(Instant::now() < deadline, "the end of the peer shows");
    }
    parent.drain();
    assert!(parent.out.reclaim(&mut parent.ledger, |buffer| parent.stock.put(buffer)));
    assert_eq!(parent.stock.len(), 512);
}
