//! The consumers of `flowyard run`: a thread a ring, which counts conversations and writes captures.

use std::thread::JoinHandle;

use flowyard::mem::Wait;
use flowyard::steer::Policy;
use flowyard::{RingReader, Witness};
use miette::{IntoDiagnostic, Result};

use super::Run;
use crate::ring_file::RingFile;

/// Answers what it saw, and why it could not write.
pub(super) type Consumer = JoinHandle<(Witness, Option<String>)>;

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
    for (reader, rings) in readers.into_iter().zip(of_groups) {
        let (ring, writer) = (reader.ring(), files.next());
        let witness = Witness::new(rings).with_policy(policy);
        let body = move || consume(reader, witness, verify, writer);
        consumers.push(std::thread::Builder::new().name(format!("ring-{ring}")).spawn(body).into_diagnostic()?);
    }
    Ok(consumers)
}

fn consume(
    mut reader: RingReader,
    mut witness: Witness,
    verify: bool,
    mut writer: Option<RingFile>,
) -> (Witness, Option<String>) {
    let mut failed = None;
    loop {
        while let Some(packet) = reader.next() {
            if verify {
                witness.see_packet(&packet);
            } else {
                witness.count_packet(&packet);
            }
            if let Some(file) = &mut writer
                && let Err(error) = file.write(&packet)
            {
                failed = Some(error.to_string());
                writer = None;
            }
        }
        if reader.wait(None) == Wait::Ended {
            break;
        }
    }
    if let Some(error) = writer.and_then(|file| file.finish().err()) {
        failed = Some(error.to_string());
    }
    (witness, failed)
}

pub(super) fn join(consumers: Vec<Consumer>) -> (Vec<Witness>, Vec<String>) {
    let (mut witnesses, mut errors) = (Vec::new(), Vec::new());
    for consumer in consumers {
        match consumer.join() {
            Ok((witness, error)) => {
                witnesses.push(witness);
                errors.extend(error);
            }
            Err(_) => {
                witnesses.push(Witness::new(1)); // one a ring
                errors.push("a consumer thread panicked: please report this as a bug".into());
            }
        }
    }
    (witnesses, errors)
}
