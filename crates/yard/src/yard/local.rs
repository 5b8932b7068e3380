//! A yard without dispatcher threads: its workers.

use std::ops::Range;
use std::sync::Arc;

use flowyard_port::{Opener, PortSpec};
use flowyard_steer::Classifier;

use super::{Part, Yard, YardConfig, YardError, check_config, classifier, plan};
use crate::worker::Worker;
use crate::{Absent, transmit};

impl Yard {
    /// As [`Yard::open`], without dispatcher threads: each of [`YardConfig::dispatchers`] workers owns a share of the ports'
    /// queues and of the rings, receives, sorts, and looks at the packets of its rings itself, by a function of the
    /// application's. What belongs to another worker's ring is handed over; all else stays where it came. Best where a
    /// card's queues agree with the rings for most packets, or with one worker.
    ///
    /// One group of rings, at least one a worker; no steering in the kernel; no rings for other processes, so nothing is held
    /// for one that is absent ([`Absent::Hold`](crate::Absent)). Ports are
    /// all of those that can wait (files, generators), or none: a worker without a port reads what others hand over.
    ///
    /// ```
    /// use flowyard::{Yard, YardConfig};
    ///
    /// let config = YardConfig { rings: 4, dispatchers: 2, ..YardConfig::default() };
    /// let (yard, workers) = Yard::open_local(&config, &["gen:mix?packets=1000".parse()?, "gen:gtp?packets=1000".parse()?])?;
    /// let running = yard.start()?;
    /// let threads: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(move || {
    ///     let mut packets = [0u64; 4];
    ///     worker.run(|ring, packet| packets[usize::from(ring)] += u64::from(!packet.is_empty()));
    ///     packets.iter().sum::<u64>()
    /// })).collect();
    /// let seen: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    /// assert!(running.join().sums_agree() && seen == 2000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Yard::open`], and what workers cannot have.
    pub fn open_local(config: &YardConfig, ports: &[PortSpec]) -> Result<(Yard, Vec<Worker>), YardError> {
        check_local(config)?;
        let classifier = classifier(config)?;
        let ways = transmit::Plan::new(config.transmit, ports)?;
        let parts = plan(config, ports, &classifier)?;
        let (mut yard, workers) = Yard::assemble_local(config, classifier, parts, ways)?;
        yard.given = ports.iter().map(PortSpec::name).collect();
        Ok((yard, workers))
    }

    /// As [`Yard::open_local`], over ports of the caller's own making, one a worker: for benchmarks.
    ///
    /// # Errors
    /// As [`Yard::open_local`].
    #[doc(hidden)]
    pub fn open_local_over(config: &YardConfig, ports: Vec<Box<dyn Opener>>) -> Result<(Yard, Vec<Worker>), YardError> {
        let config = &YardConfig { dispatchers: ports.len(), ..config.clone() };
        check_local(config)?;
        let parts = ports.into_iter().enumerate().map(|(number, port)| vec![(number as u16, port)]).collect();
        Yard::assemble_local(config, classifier(config)?, parts, None)
    }

    fn assemble_local(
        config: &YardConfig,
        classifier: Arc<Classifier>,
        mut parts: Vec<Part>,
        ways: Option<transmit::Plan>,
    ) -> Result<(Yard, Vec<Worker>), YardError> {
        let of_a_kind = |can_wait| parts.iter().flatten().any(|(_, opener)| opener.info().can_wait == can_wait);
        if of_a_kind(true) && of_a_kind(false) {
            return Err(YardError::Local {
                what: "ports that can wait (files, generators) beside ports that cannot".into(),
                remedy: "have a yard for each kind, or leave Local out (`Yard::open`; no `--local`)",
            });
        }
        parts.resize_with(config.dispatchers, Part::new);
        let owned: Vec<Range<u16>> = (0..config.dispatchers).map(|worker| rings_of(worker, config)).collect();
        let (mut yard, readers) = Yard::assemble(config, classifier, parts, ways, Some(&owned))?;
        let mut workers = Vec::new();
        let mut readers = readers.into_iter();
        for (number, (dispatcher, rings)) in yard.dispatchers.drain(..).zip(owned).enumerate() {
            let own = readers.by_ref().take(rings.len());
            let inlets = own.flat_map(|reader| {
                let ring = reader.ring();
                reader.into_consumers().into_iter().map(move |consumer| (ring, consumer))
            });
            let (worker, end) = Worker::new(number, rings, config.pin, dispatcher, inlets.collect());
            yard.workers.push(end);
            workers.push(worker);
        }
        Ok((yard, workers))
    }
}

impl YardConfig {
    /// As [`YardConfig::check`], for [`Yard::open_local`].
    ///
    /// # Errors
    /// As [`Yard::open_local`].
    pub fn check_local(&self, ports: &[PortSpec]) -> Result<(), YardError> {
        check_local(self)?;
        self.check(ports)
    }
}

/// The rings of a worker: as equal numbers of them as can be.
fn rings_of(worker: usize, config: &YardConfig) -> Range<u16> {
    let first = |worker| (worker * usize::from(config.rings) / config.dispatchers) as u16;
    first(worker)..first(worker + 1)
}

/// Refuses what workers that read their own rings cannot have.
fn check_local(config: &YardConfig) -> Result<(), YardError> {
    let cannot = |what, remedy| Err(YardError::Local { what, remedy });
    check_config(config, &[])?;
    if config.kernel {
        let remedy = "there, each reader takes its packets from the kernel itself: leave one of the two out";
        return cannot("steering in the kernel".into(), remedy);
    }
    if !config.groups.is_empty() {
        return cannot(
            format!("{} groups of rings", 1 + config.groups.len()),
            "leave groups out, or Local (`Yard::open`; no `--local`)",
        );
    }
    if config.absent == Absent::Hold {
        return cannot(
            "packets held for who is absent".into(),
            "nobody could come for them: have them dropped or redistributed",
        );
    }
    if usize::from(config.rings) < config.dispatchers {
        let what = format!("{} rings for {} workers", config.rings, config.dispatchers);
        return cannot(what, "have more rings (`--rings`) or fewer workers (`--dispatchers`)");
    }
    Ok(())
}
