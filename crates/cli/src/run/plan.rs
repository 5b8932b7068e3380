//! What a run comes to, before anything is opened.

use flowyard::YardConfig;
use flowyard::port::{Kind, PortSpec};
use flowyard::tables::Tables;
use miette::{IntoDiagnostic, Result, miette};

use super::Run;

/// What runs where no port is given.
const BUILT_IN: &str = "gen:mix?seconds=3";

/// Everything that a yard is opened with. Files of functions, tables and policies have been read.
#[derive(Debug)]
pub struct Plan {
    pub config: YardConfig,
    pub specs: Vec<PortSpec>,
    pub tables: Tables,
    /// Groups and their numbers of rings.
    pub names: Vec<(String, u16)>,
    /// Whether the rings are read by workers, and not behind dispatchers.
    pub local: bool,
    /// Whether conversations are counted.
    pub verify: bool,
}

impl Run {
    /// Whether what functions print must be kept from standard output.
    pub fn has_function(&self) -> bool {
        self.steering.is_there()
    }

    /// Works it out: reads files, opens nothing.
    pub fn plan(&self) -> Result<Plan> {
        let specs = match self.ports.as_slice() {
            [] => vec![BUILT_IN.parse().into_diagnostic()?],
            ports => ports.to_vec(),
        };
        let live = specs.iter().any(|s| matches!(s.kind, Kind::Xdp | Kind::Packet | Kind::Tap));
        let hash = self.sorting.hash(live)?;
        let kernel = self.steering.in_kernel()?;
        if self.memory.relay && !kernel {
            return Err(miette!(
                "--relay is for steering in the kernel, and here dispatchers take all packets anyway: leave it out, or \
                 add --steer kernel"
            ));
        }
        if self.service.attach.is_some() && self.output.is_some() {
            return Err(miette!(
                "--attach leaves the rings to other processes, so there is nothing to write to --output: leave one of them \
                 out (flowyard attach RING -w FILE writes a ring)"
            ));
        }
        if self.service.attach.is_some() && self.memory.local {
            return Err(miette!(
                "--attach leaves the rings to other processes, and with --local the threads of this one read them: leave one of \
                 them out"
            ));
        }
        if self.service.attach.is_none() && !self.service.allow.is_empty() {
            return Err(miette!(
                "--allow says who may attach, and nobody may without --attach: add it, or leave this out"
            ));
        }
        let (tap, stack) = self.steering.hosts()?;
        let (first_group, rings, groups) = self.steering.groups(&self.sorting)?;
        let tables = self.steering.make_tables()?;
        let names: Vec<(String, u16)> =
            std::iter::once((first_group, rings)).chain(groups.iter().map(|g| (g.name.clone(), g.rings))).collect();
        let config = YardConfig {
            name: self.service.name.clone(),
            rings,
            groups,
            function: self.steering.function(&tables)?,
            host: tap,
            stack,
            weights: self.sorting.weights.clone(),
            ring_slots: self.memory.ring_slots,
            annotation_bytes: self.memory.annotation,
            buffers: self.memory.buffers,
            dispatchers: self.memory.dispatchers,
            policy: self.sorting.policy(),
            hash,
            kernel,
            // Who is not trusted gets no ring of the kernel's.
            relay: self.memory.relay || (kernel && self.service.attach.is_some()),
            absent: self.service.absent,
            transmit: self.transmit,
            pin: !self.memory.no_pin,
        };
        let verify = (self.verify || (!self.no_verify && !live)) && self.service.attach.is_none();
        let local = self.memory.local;
        Ok(Plan { config, specs, tables, names, local, verify })
    }
}
