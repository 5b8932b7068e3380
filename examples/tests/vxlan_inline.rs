//! A host behind a VXLAN device of the kernel's talks to one that knows of no tunnel, through the example: real TCP, both
//! ways at once, with the hosts' offloads and without.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flowyard_testkit::net::{Namespace, Veth};
use flowyard_testkit::require_root;

/// Bytes sent each way.
const BYTES: usize = 30 << 20;
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 5001;

/// What one side says: told apart by `salt`, and nowhere the same as a shifted self.
struct Speech {
    state: u64,
    left: usize,
}

impl Speech {
    fn new(salt: u64) -> Speech {
        Speech { state: salt, left: BYTES }
    }

    fn next(&mut self, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.left);
        for byte in &mut bytes[..len] {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.state >> 56) as u8;
        }
        self.left -= len;
        len
    }
}

/// Says one side's speech and checks the other's, byte for byte.
fn exchange(mut stream: TcpStream, own: u64, other: u64) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let mut out = stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        let (mut speech, mut bytes) = (Speech::new(own), vec![0; 64 << 10]);
        loop {
            let len = speech.next(&mut bytes);
            if len == 0 {
                break;
            }
            out.write_all(&bytes[..len]).expect("the other side reads");
        }
        out.shutdown(Shutdown::Write).expect("still open");
    });
    let (mut speech, mut heard, mut expected) = (Speech::new(other), vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let len = stream.read(&mut heard).expect("the other side speaks");
        if len == 0 {
            break;
        }
        assert_eq!(speech.next(&mut expected[..len]), len, "no more than was said");
        assert!(heard[..len] == expected[..len], "what was said, {} bytes from the end", speech.left);
    }
    assert_eq!(speech.left, 0, "all of it");
    sender.join().expect("no panic");
}

/// The client that connects, if one does.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("it is ours");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("it is ours");
                return stream;
            }
            Err(e) => assert!(e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline, "no client: {e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number behind `before` on the line that has it.
fn number(text: &str, before: &str) -> u64 {
    let from = text.find(before).unwrap_or_else(|| panic!("no {before:?} in:\n{text}")) + before.len();
    let digits: String = text[from..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {before:?} in:\n{text}"))
}

/// Lets the hosts talk through a yard on two ports of these kinds. Answers what the example said.
fn talk(kind: &str, options: &str, offloads: bool) -> String {
    let [far, near, between] = [0; 3].map(|_| Namespace::new().expect("as root"));
    let tunnel = Veth { name: "to-far", peer: "under", offloads, ..Veth::default() };
    let plain = Veth { name: "to-near", peer: "eth", mtu: 1450, offloads, ..Veth::default() };
    between.veth_to(&far, &tunnel).expect("as root");
    between.veth_to(&near, &plain).expect("as root");
    for line in [
        "ip addr add 10.1.0.1/24 dev under",
        "ip link add vx type vxlan id 77 local 10.1.0.1 remote 10.1.0.2 dstport 4789 dev under",
        "ip addr add 10.2.0.1/24 dev vx",
        "ip link set vx up",
    ] {
        far.command(line).expect("as root, and the kernel has vxlan");
    }
    near.command("ip addr add 10.2.0.2/24 dev eth").expect("as root");

    let [first, second] = ["to-far", "to-near"].map(|interface| format!("{kind}:{interface}{options}"));
    let mut program = between.run(|| {
        Command::new(env!("CARGO_BIN_EXE_vxlan_inline"))
            .args([&first, &second, "10.1.0.2", "10.1.0.1", "77"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was just built")
    });
    let mut said = BufReader::new(program.stdout.take().expect("piped"));
    let mut text = String::new();
    said.read_line(&mut text).expect("it speaks");
    assert_eq!(text, "ready\n", "{first}");

    let listener = near.run(|| TcpListener::bind((Ipv4Addr::new(10, 2, 0, 2), PORT)).expect("an address"));
    std::thread::scope(|scope| {
        scope.spawn(move || exchange(accept(&listener), 1, 2));
        far.run(|| {
            let server = SocketAddr::from((Ipv4Addr::new(10, 2, 0, 2), PORT));
            exchange(TcpStream::connect_timeout(&server, PATIENCE).expect("it listens"), 2, 1);
        });
    });
    drop(program.stdin.take());
    said.read_to_string(&mut text).expect("it speaks");
    assert!(program.wait().expect("it ends").success(), "{first}:\n{text}");
    assert!(text.contains("sums agree: true"), "{text}");
    text
}

#[test]
fn through_packet_sockets() {
    require_root!();
    for offloads in [false, true] {
        let text = talk("packet", "?blocks=128", offloads);
        // What comes merged out of the plain network is taken apart before it goes into the tunnel.
        assert_eq!(number(&text, "taken apart ") > 0, offloads, "{text}");
        assert!(!text.contains("too-long"), "{text}");
    }
}

#[test]
fn through_xdp_in_the_driver() {
    require_root!();
    for offloads in [false, true] {
        let text = talk("xdp", "?native", offloads);
        // AF_XDP tells nobody that a checksum is unfinished; it is found all the same. Of those that are finished one in
        // 65,536 looks as if it were not, and comes out as it was.
        assert_eq!(number(&text, "checksums ") > 1000, offloads, "{text}");
        assert!(!text.contains("too-long") && !text.contains("refused checksum"), "{text}");
    }
}
