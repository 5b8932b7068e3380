//! `flowyard run`: packets from ports to rings.

mod consumers;
mod figures;
mod options;
mod plan;
mod service;
mod watch;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use flowyard::port::PortSpec;
use flowyard::steer::FlowHash;
use flowyard::{RingReader, Witness, Worker, Yard, YardConfig};
use miette::{IntoDiagnostic, Result, miette};

pub use self::options::{Run, duration};
pub use self::watch::stop_on_signals;

use self::consumers::{consumers, join, workers};
use self::figures::Figures;
use self::plan::Plan;
use crate::control::{self, Control};
use crate::{Outcome, log, output};

/// Who reads the rings.
enum Readers {
    Rings(Vec<RingReader>),
    Workers(Vec<Worker>),
}

impl Run {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        log::set(self.service.log_level);
        let mut out = output::own_stdout(self.steering.is_there())?;
        let Plan { config, specs, tables, names, local, verify } = self.plan()?;
        if let Some(dir) = &self.output {
            std::fs::create_dir_all(dir).map_err(|e| miette!("cannot make the directory {}: {e}", dir.display()))?;
        }
        let socket = self.socket()?;
        let (yard, readers) = if local {
            Yard::open_local(&config, &specs).map(|(yard, workers)| (yard, Readers::Workers(workers)))
        } else {
            Yard::open(&config, &specs).map(|(yard, readers)| (yard, Readers::Rings(readers)))
        }
        .into_diagnostic()?;
        let infos = yard.ports().to_vec();
        self.announce(&yard, &config, &names);
        let files = self.files(&names)?;
        let serving = self.serving(yard.region(), &names)?;
        self.give_up(&specs)?;
        let attached = serving.is_some();
        let mut idle = None;
        let mut consumers = match readers {
            Readers::Rings(readers) if attached => {
                drop(readers); // their rings are vacant
                Vec::new()
            }
            Readers::Rings(readers) => consumers(readers, files, verify, &config.policy, &names)?,
            Readers::Workers(all) => {
                idle = Some((all, files)); // they receive as soon as they run: after the clock and the signals
                Vec::new()
            }
        };
        let started = Instant::now();
        let running = yard.start().into_diagnostic()?;
        stop_on_signals(&running)?;
        if let Some((all, files)) = idle {
            let all = workers(all, files, verify, &config.policy, config.rings);
            consumers = all.inspect_err(|_| running.stop())?;
        }
        let server = match serving {
            Some((path, serving)) => {
                let server = running.serve(&path, serving).into_diagnostic().inspect_err(|_| running.stop())?;
                tracing::info!("consumers: {} (flowyard attach shows its rings)", path.display());
                Some(Arc::new(server))
            }
            None => None,
        };
        let control = Arc::new(control::Yard {
            server: server.clone(),
            name: self.service.name.clone(),
            functions: running.functions().clone(),
            rings: running.rings().clone(),
            reweighed: false.into(),
            live: running.live().to_vec(),
            ports: infos.iter().map(|info| info.name.clone()).collect(),
            groups: names.clone(),
            kernel: running.kernel().cloned(),
            longest_bytes: control::LONGEST_BYTES,
            reloading: std::sync::Mutex::default(),
            maker: {
                let (steering, tables) = (self.steering.clone(), tables.clone());
                Box::new(move || steering.function(&tables))
            },
            tables,
        });
        let socket = match socket {
            Some(socket) => {
                if !self.quiet {
                    tracing::info!("control socket: {}", socket.path().display());
                }
                Some(Control::start(socket, control.clone()).inspect_err(|_| running.stop())?)
            }
            None => None,
        };
        self.watch(&running, started, &control)?;
        let own_program = crate::bpf::has_own(&control.kernel);
        let report = running.join();
        let reweighed = control.reweighed.load(Ordering::Relaxed);
        drop((socket, server, control)); // nobody is served any more
        let time = started.elapsed();
        let (mut witnesses, errors) = join(consumers);
        witnesses.resize_with(names.iter().map(|(_, rings)| usize::from(*rings)).sum(), || Witness::new(1));
        let mut findings = Vec::new();
        let mut left = witnesses.as_slice();
        for (_, rings) in &names {
            let (group, rest) = left.split_at((*rings).into());
            findings.push(Witness::compare(group));
            left = rest;
        }
        let outcome = Figures {
            report,
            findings,
            groups: names,
            function: config.function.as_ref().map(|f| f.name().to_owned()),
            own_program,
            reweighed,
            time,
            verify,
            attached,
            seed: seed(&config.hash),
            infos,
            ports: specs.iter().map(PortSpec::name).collect(),
        };
        for error in outcome.report.errors.iter().chain(&errors) {
            output::say(error);
        }
        let mut text = if self.json { format!("{}\n", outcome.json()) } else { outcome.text() };
        if self.ports.is_empty() && !self.json {
            text.push_str(
                "\nThat was built-in traffic. Next: flowyard run pcap:FILE, or as root flowyard run xdp:IF (--help has more).\n",
            );
        }
        output::written(out.write_all(text.as_bytes()))?;
        Ok(if errors.is_empty() && outcome.agrees() { Outcome::Good } else { Outcome::Partial })
    }

    fn announce(&self, yard: &Yard, config: &YardConfig, groups: &[(String, u16)]) {
        if self.quiet || self.json {
            return;
        }
        for info in yard.ports() {
            tracing::info!("{}: {}", info.name, info.mode);
        }
        let rings = match groups {
            [(_, rings)] => format!("{rings} rings"),
            groups => {
                groups.iter().map(|(name, rings)| format!("{rings} rings for {name}")).collect::<Vec<_>>().join(", ")
            }
        };
        tracing::info!("{}; {rings} of {} slots{}", yard.region(), self.memory.ring_slots, seed(&config.hash));
        if let Some(function) = &config.function {
            tracing::info!("function: {}", function.name());
        }
        if config.kernel {
            tracing::info!("steering: in the kernel; what its program marks, in user space");
        }
    }
}

fn seed(hash: &FlowHash) -> String {
    match hash {
        FlowHash::Default { seed } => format!(", seed {seed:#x}"),
        FlowHash::Toeplitz(_) => ", Toeplitz".into(),
    }
}
