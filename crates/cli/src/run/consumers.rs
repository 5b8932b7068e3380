//! The consumers of `flowyard run`: a thread a ring, or a worker for several, which counts conversations and writes captures.

use std::thread::JoinHandle;

use flowyard::mem::{Packet, Wait};
use flowyard::steer::Policy;
use flowyard::{RingReader, Witness, Worker};
use miette::{IntoDiagnostic, Result};

use super::Run;
use crate::ring_file::RingFile;

/// A thread, and how many rings it reads. Answers for each what came, and why it could not be written.
pub(super) struct Consumer {
    thread: JoinHandle<Vec<(Witness, Option<String>)>>,
    rings: usize,
}

impl Run {
    /// The captures of the rings, one a ring, if they are asked for: made while everything may still be written.
    pub(super) fn files(&self, groups: &[(String, u16)]) -> Result<Vec<RingFile>> {
        let Some(dir) = &self.output else { return Ok(Vec::new()) };
        let rings: usize = groups.iter().map(|(_, rings)| usize::from(*rings)).sum();
        let width = (rings - 1).to_string().len().max(2);
        let of_groups = groups.iter().flat_map(|(name, rings)| (0..*rings).map(move |ring| (name.as_str(), ring)));
        let file = |(group, ring): (&str, u16)| {
            let dash = if group.is_empty() { "" } else { "-" };
            RingFile::create(&dir.join(format!("{group}{dash}ring-{ring:0width$}.pcapng"))).into_diagnostic()
        };
        of_groups.map(file).collect()
    }
}

/// What is kept of one ring.
struct Book {
    witness: Witness,
    verify: bool,
    file: Option<RingFile>,
    failed: Option<String>,
}

impl Book {
    fn new(rings: u16, policy: &Policy, verify: bool, file: Option<RingFile>) -> Book {
        Book { witness: Witness::new(rings).with_policy(policy), verify, file, failed: None }
    }

    #[inline]
    fn enter(&mut self, packet: &Packet<'_>) {
        if self.verify {
            self.witness.see_packet(packet);
        } else {
            self.witness.count_packet(packet);
        }
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(packet)
        {
            self.failed = Some(error.to_string());
            self.file = None;
        }
    }

    fn close(self) -> (Witness, Option<String>) {
        let failed = self.file.and_then(|file| file.finish().err()).map(|error| error.to_string());
        (self.witness, failed.or(self.failed))
    }
}

/// Starts the consumers, each with its file if there are any.
pub(super) fn consumers(
    readers: Vec<RingReader>,
    files: Vec<RingFile>,
    verify: bool,
    policy: &Policy,
    groups: &[(String, u16)],
) -> Result<Vec<Consumer>> {
    let mut consumers = Vec::new();
    let mut files = files.into_iter();
    let of_groups = groups.iter().flat_map(|(_, rings)| (0..*rings).map(move |_| *rings));
    for (mut reader, rings) in readers.into_iter().zip(of_groups) {
        let ring = reader.ring();
        let mut book = Book::new(rings, policy, verify, files.next());
        let body = move || {
            loop {
                while let Some(packet) = reader.next() {
                    book.enter(&packet);
                }
                if reader.wait(None) == Wait::Ended {
                    return vec![book.close()];
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("ring-{ring}")).spawn(body).into_diagnostic()?;
        consumers.push(Consumer { thread, rings: 1 });
    }
    Ok(consumers)
}

/// Starts the workers, each with the files of its rings if there are any.
pub(super) fn workers(
    workers: Vec<Worker>,
    files: Vec<RingFile>,
    verify: bool,
    policy: &Policy,
    rings: u16,
) -> Result<Vec<Consumer>> {
    let mut consumers = Vec::new();
    let mut files = files.into_iter();
    for worker in workers {
        let own = worker.rings();
        let mut books: Vec<Book> = own.clone().map(|_| Book::new(rings, policy, verify, files.next())).collect();
        let name = format!("worker-{}", worker.number());
        let first = own.start;
        let body = move || {
            worker.run(|ring, packet| books[usize::from(ring - first)].enter(packet));
            books.into_iter().map(Book::close).collect()
        };
        let thread = std::thread::Builder::new().name(name).spawn(body).into_diagnostic()?;
        consumers.push(Consumer { thread, rings: own.len() });
    }
    Ok(consumers)
}

pub(super) fn join(consumers: Vec<Consumer>) -> (Vec<Witness>, Vec<String>) {
    let (mut witnesses, mut errors) = (Vec::new(), Vec::new());
    for Consumer { thread, rings } in consumers {
        match thread.join() {
            Ok(seen) => {
                for (witness, error) in seen {
                    witnesses.push(witness);
                    errors.extend(error);
                }
            }
            Err(_) => {
                witnesses.extend((0..rings).map(|_| Witness::new(1))); // one a ring
                errors.push("a consumer thread panicked: please report this as a bug".into());
            }
        }
    }
    (witnesses, errors)
}
