//! Two stages in two processes, and not a byte copied between them.
//!
//! The first process runs the yard and the first stage: it looks at every packet, writes what it found
//! into the packet's annotation, and passes the packet on. The second process, to which it handed three
//! descriptors (region, pipe, wakeup), reads packet and annotation where they lie: in the buffer of the
//! same index. Then the buffer goes home, through the first stage to the yard.
//!
//! ```text
//!   port ─▶ yard ─ring─▶ first stage ─pipe─▶ second stage
//!            ▲             │      ▲             │
//!            └────home─────┘      └────home─────┘
//! ```
//!
//! ```text
//! cargo run --release -p flowyard-examples --bin stages                     # built-in traffic
//! cargo run --release -p flowyard-examples --bin stages -- pcap:trace.pcapng
//! ```
#![deny(unsafe_code)]

use std::collections::HashSet;
use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, id};

use flowyard::mem::{Consumer, Grant, Packet, Wait, handover};
use flowyard::{Stage, Yard, YardConfig};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What the first stage writes in front of every packet: plain data, the same in both processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Found {
    /// Running number of the packet.
    number: u64,
    /// Sum of the packet's first bytes.
    checksum: u64,
    /// Buffer that the first stage found it in.
    buffer: u32,
    /// Its length.
    len: u32,
}

impl Found {
    fn look(number: u64, packet: &Packet<'_>) -> Found {
        let head = &packet.data()[..packet.data().len().min(64)];
        let checksum = head.iter().fold(number, |sum, byte| sum.rotate_left(7) ^ u64::from(*byte));
        Found { number, checksum, buffer: packet.buffer_index(), len: packet.len() as u32 }
    }
}

/// Packets of which each stage prints a line.
const SHOWN: u64 = 4;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    match std::env::args().nth(1).as_deref() {
        Some("--second") => second(),
        port => first(port.unwrap_or("gen:mix?packets=100000")),
    }
}

fn first(port: &str) -> Result<ExitCode, Box<dyn Error>> {
    let config = YardConfig { rings: 1, ..YardConfig::default() };
    let (yard, mut rings) = Yard::open(&config, &[port.parse()?])?;
    let (mut stage, end) = Stage::new(rings.remove(0), 256)?;

    // A socket that only the child has: no name, and nobody's credentials to check.
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?).arg("--second").stdin(OwnedFd::from(theirs)).spawn()?;
    handover::send(&ours, b"", Some(end.handover(Grant::Read)?))?;

    let running = yard.start()?;
    let mut number = 0;
    while stage.wait(None) != Wait::Ended {
        while let Some(mut packet) = stage.next() {
            let found = Found::look(number, &packet);
            packet.set_annotation(&found)?;
            if number < SHOWN {
                println!("first stage (process {}): wrote {found:?} into buffer {}", id(), packet.buffer_index());
            }
            number += 1;
            // If the second stage is gone, packets end here, and the yard runs on.
            let _ = stage.pass_waiting(None);
        }
    }
    let counters = stage.finish(None);
    let report = running.join();
    let status = child.wait()?;
    println!("first stage: {number} packets, {} passed on, {} buffers came back", counters.passed, counters.returned);
    println!(
        "yard: received {}, delivered {}, dropped {}, {} buffers missing, {} violations",
        report.received(),
        report.delivered(),
        report.dropped(),
        report.buffers_missing,
        report.violations + counters.violations
    );
    report.errors.iter().for_each(|error| eprintln!("{error}"));
    let good = status.success() && report.errors.is_empty() && report.sums_agree() && report.buffers_missing == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn second() -> Result<ExitCode, Box<dyn Error>> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let parts = handover::receive(&socket)?.of_our_version()?.parts.ok_or("no descriptors came")?;
    let mut consumer = Consumer::attach(parts, Grant::Read)?;
    let (mut number, mut wrong, mut buffers) = (0, 0, HashSet::new());
    while consumer.wait(None) != Wait::Ended {
        while let Some(packet) = consumer.next() {
            let (told, seen) = (packet.annotation::<Found>()?, Found::look(number, &packet));
            if number < SHOWN {
                println!("second stage (process {}): buffer {}, its annotation says {told:?}", id(), seen.buffer);
            }
            wrong += u64::from(told != seen);
            buffers.insert(seen.buffer);
            number += 1;
        }
    }
    println!("second stage: {number} packets in {} buffers, {wrong} annotations wrong", buffers.len());
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
