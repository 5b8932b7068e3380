//! `flowyard run`: packets from ports to rings.

mod consumers;
mod figures;
mod options;
mod plan;
mod watch;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use flowyard::attach::{self, Server, Serving};
use flowyard::port::PortSpec;
use flowyard::steer::FlowHash;
use flowyard::{Running, Witness, Yard, YardConfig};
use miette::{IntoDiagnostic, Result, miette};

pub use self::options::{Run, duration};
pub use self::watch::stop_on_signals;

use self::consumers::join;
use self::figures::Figures;
use self::options::Service;
use self::plan::Plan;
use crate::control::{self, Control};
use crate::{Outcome, output, runtime};

impl Run {
    /// Runs it.
    pub fn run(self) -> Result<Outcome> {
        let mut out = output::own_stdout(self.steering.is_there())?;
        let Plan { config, specs, tables, names, verify } = self.plan()?;
        if let Some(dir) = &self.output {
            std::fs::create_dir_all(dir).map_err(|e| miette!("cannot make the directory {}: {e}", dir.display()))?;
        }
        let (yard, readers) = Yard::open(&config, &specs).into_diagnostic()?;
        let infos = yard.ports().to_vec();
        self.announce(&yard, &config, &names);
        let consumers = match self.service.attach {
            None => self.consumers(readers, verify, &config.policy, &names)?,
            Some(_) => {
                drop(readers); // their rings are vacant
                Vec::new()
            }
        };
        let attached = self.service.attach.is_some();
        let started = Instant::now();
        let running = yard.start().into_diagnostic()?;
        stop_on_signals(&running)?;
        let server = self.serve(&running, &names).inspect_err(|_| running.stop())?.map(Arc::new);
        let control = Arc::new(control::Yard {
            server: server.clone(),
            functions: running.functions().clone(),
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
        let socket = match &self.service.control {
            Some(path) => {
                let path = match path {
                    Some(path) => path.clone(),
                    None => runtime::make_folder(&self.service.name)?.join(runtime::CONTROL),
                };
                let socket = Control::start(&path, control.clone()).inspect_err(|_| running.stop())?;
                if !self.quiet {
                    eprintln!("control socket: {}", path.display());
                }
                Some(socket)
            }
            None => None,
        };
        self.watch(&running, started, &control)?;
        let own_program = crate::bpf::has_own(&control.kernel);
        let report = running.join();
        drop((socket, server));
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

    /// Lets other processes attach to the rings, if they are to.
    fn serve(&self, running: &Running, groups: &[(String, u16)]) -> Result<Option<Server>> {
        let Some(path) = &self.service.attach else { return Ok(None) };
        let path = match path {
            Some(path) => path.clone(),
            None => runtime::make_folder(&self.service.name)?.join(attach::SOCKET),
        };
        let Service { name, allow, .. } = &self.service;
        let groups = groups.iter().map(|(group, _)| group.clone()).collect();
        let serving = Serving { name: name.clone(), groups, allow: allow.clone() };
        let server = running.serve(&path, serving).into_diagnostic()?;
        if !self.quiet {
            eprintln!("consumers: {} (flowyard attach shows its rings)", path.display());
        }
        Ok(Some(server))
    }

    fn announce(&self, yard: &Yard, config: &YardConfig, groups: &[(String, u16)]) {
        if self.quiet || self.json {
            return;
        }
        for info in yard.ports() {
            eprintln!("{}: {}", info.name, info.mode);
        }
        let rings = match groups {
            [(_, rings)] => format!("{rings} rings"),
            groups => {
                groups.iter().map(|(name, rings)| format!("{rings} rings for {name}")).collect::<Vec<_>>().join(", ")
            }
        };
        eprintln!("{}; {rings} of {} slots{}", yard.region(), self.memory.ring_slots, seed(&config.hash));
        if let Some(function) = &config.function {
            eprintln!("function: {}", function.name());
        }
        if config.kernel {
            eprintln!("steering: in the kernel; what its program marks, in user space");
        }
    }
}

fn seed(hash: &FlowHash) -> String {
    match hash {
        FlowHash::Default { seed } => format!(", seed {seed:#x}"),
        FlowHash::Toeplitz(_) => ", Toeplitz".into(),
    }
}
