//! The yard: the running composition of ports, steering and pipes.

mod local;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flowyard_kernel::{HostFilter, KernelError, KernelSteer, ToHost};
use flowyard_mem::{Consumer, Geometry, Ledger, MemError, PipeProducer, RING_SLOTS, Region, Stock};
use flowyard_port::{
    DirectReader, InKernel, Kind, Opener, PortCounters, PortError, PortInfo, PortSpec, prepare_to_host,
};
use flowyard_steer::{Classifier, FIXED_SEED, FlowHash, Policy, Table, TableError};

use crate::attach::{AttachError, Offer, Server, Serving};
use crate::counters::{Live, Report};
use crate::dispatcher::{Dispatcher, Source};
use crate::function::{Common, Function, FunctionError, Functions, Limits, Steer, Surroundings};
use crate::host::Host;
use crate::outlets::{GroupPlace, MOST_GROUPS, Outlets};
use crate::reader::RingReader;
use crate::rings::Rings;
use crate::sorter::{HOLD_PACKETS, Sorter};
use crate::transmit;
use crate::worker::WorkerEnd;
use crate::{Absent, SharedFragments, cpu};

/// What a yard is made of, but for its ports.
#[derive(Debug, Clone)]
pub struct YardConfig {
    /// Name, as it appears in /proc/PID/maps.
    pub name: String,
    /// Rings that consumers read, 1 to 4096: those of the first group.
    pub rings: u16,
    /// Share of the conversations for each ring; `None` for equal ones.
    pub weights: Option<Vec<u32>>,
    /// Further groups, at most 7: each sees every packet, too, and balances them over rings of its own. No
    /// packet is copied for it.
    pub groups: Vec<Group>,
    /// The user's steering function: sees every packet before it goes to a ring.
    pub function: Option<Function>,
    /// Name of a TAP device, made or taken over, to which packets go that the function sends to the host's
    /// network stack.
    pub host: Option<String>,
    /// Slots of each ring and dispatcher, a power of two.
    pub ring_slots: u32,
    /// Annotation bytes in front of every packet: 0, 64, 128, 192 or 256.
    pub annotation_bytes: usize,
    /// Buffers of the region, at least one a dispatcher; `None` for what ports, rings and held fragments
    /// can hold, and 2048 a dispatcher to spare.
    pub buffers: Option<usize>,
    /// Threads that receive and sort; a port with several queues is shared out among them. Of
    /// [`Yard::open_local`] the workers.
    pub dispatchers: usize,
    /// What makes the key.
    pub policy: Policy,
    /// How the key becomes a hash.
    pub hash: FlowHash,
    /// Have the kernel steer, by a program on each interface: `xdp:` ports alone, one group, the default policy and
    /// hash, no function of the user's. What a program cannot decide, the dispatchers do. Same rings. Conversations that
    /// come by several interfaces stay whole, and so do fragments and errors.
    pub kernel: bool,
    /// What goes on to the host's own stack of what comes in by `xdp:` ports, which take it away from there.
    pub stack: HostStack,
    /// Where the kernel steers, have dispatchers take the packets of all rings and pass them on by pipes. Otherwise
    /// each [`RingReader`] takes its own from the kernel itself, which is faster, and for threads of this process
    /// alone: pipes can be handed to processes that are not trusted, the kernel's rings cannot.
    pub relay: bool,
    /// What becomes of the packets of a ring while nobody reads it.
    pub absent: Absent,
    /// Have packets sent that consumers return for it ([`Packet::transmit`](flowyard_mem::Packet::transmit)): out of any
    /// port of the yard that has a way out (`xdp:`, `packet:`, `tap:`, `pcap:FILE?write`). What is sent by a `packet:`
    /// port does not come in by it again, nor what the host sends.
    pub transmit: bool,
    /// Bind each dispatcher to a core, where there is more than one.
    pub pin: bool,
}

/// What goes on to the host's own stack of what comes in by `xdp:` ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostStack {
    /// What no socket takes: packets of queues that were not asked for, and those that come while a port opens or
    /// closes.
    #[default]
    Pass,
    /// Nothing: what no socket takes is dropped, and counted as `not-to-host`.
    Nothing,
    /// What this expression of tcpdump matches, as the frame came in and before anything else is done with it,
    /// counted as `to-host`; and what no socket takes.
    Filter(String),
}

impl HostStack {
    /// For the port.
    fn compiled(&self) -> Result<ToHost, YardError> {
        Ok(match self {
            HostStack::Pass => ToHost::Pass,
            HostStack::Nothing => ToHost::Nothing,
            HostStack::Filter(text) => {
                let compiled = crate::rules::compiled(text).or_else(|why| {
                    refuse("what goes to the host", format!("{text:?}"), &format!("an expression of tcpdump: {why}"))
                })?;
                ToHost::Filter(HostFilter::new(text, compiled)?)
            }
        })
    }
}

/// A further group of rings among which every packet of the yard is balanced.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its name, for people.
    pub name: String,
    /// Its rings.
    pub rings: u16,
    /// Share of the conversations for each ring; `None` for equal ones.
    pub weights: Option<Vec<u32>>,
    /// A function of its own: it may choose the group's ring, or drop, for this group alone; it sees what the
    /// yard's function wrote into annotation and tag, and changes neither.
    pub function: Option<Function>,
}

impl Group {
    /// A group of `rings` rings that share alike.
    pub fn new(name: &str, rings: u16) -> Group {
        Group { name: name.into(), rings, weights: None, function: None }
    }
}

impl YardConfig {
    /// Whether a yard could be made of this and `ports`, as far as can be told without opening anything. Without a
    /// port, what does not depend on ports.
    ///
    /// # Errors
    /// As [`Yard::open`].
    pub fn check(&self, ports: &[PortSpec]) -> Result<(), YardError> {
        let classifier = classifier(self)?;
        check_config(self, ports)?;
        self.stack.compiled()?;
        if !self.ring_slots.is_power_of_two() || !RING_SLOTS.contains(&self.ring_slots) {
            let allowed = format!("a power of two from {} to {}", RING_SLOTS.start(), RING_SLOTS.end());
            return refuse("number of ring slots", self.ring_slots.to_string(), &allowed);
        }
        if ports.is_empty() {
            Geometry::new(2048, self.annotation_bytes, self.buffers.unwrap_or(SPARE_BUFFERS))?;
        } else {
            geometry(self, &plan(self, ports, &classifier)?)?;
        }
        Ok(())
    }
}

impl Default for YardConfig {
    /// Four rings of 1024 slots, 64 bytes of annotation, one dispatcher, the built-in policy with
    /// the fixed seed.
    fn default() -> Self {
        YardConfig {
            name: "yard".into(),
            rings: 4,
            weights: None,
            groups: Vec::new(),
            function: None,
            host: None,
            ring_slots: 1024,
            annotation_bytes: 64,
            buffers: None,
            dispatchers: 1,
            policy: Policy::default(),
            hash: FlowHash::Default { seed: FIXED_SEED },
            kernel: false,
            stack: HostStack::Pass,
            relay: false,
            absent: Absent::Drop,
            transmit: false,
            pin: true,
        }
    }
}

/// Why a yard could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum YardError {
    /// A setting that cannot be.
    #[error("yard: {what} is {value}, but must be {allowed}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// What cannot be together with steering in the kernel.
    #[error("yard: steering in the kernel cannot have {what}: {remedy}")]
    Kernel {
        /// What was asked for.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What cannot be together with workers that read their own rings.
    #[error("yard: workers that read rings of their own cannot have {what}: {remedy}")]
    Local {
        /// What was asked for.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The steering program.
    #[error(transparent)]
    Program(#[from] KernelError),
    /// A port could not be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Memory could not be had.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// The table refuses rings or weights.
    #[error("yard: the table of rings: {0}")]
    Table(#[from] TableError),
    /// A steering function cannot be had.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The way to the host's network stack.
    #[error("yard: cannot use the TAP device {name} as the way to the host: {error}; it needs CAP_NET_ADMIN")]
    Host {
        /// Its name.
        name: String,
        /// Why.
        error: std::io::Error,
    },
    /// A thread could not be started.
    #[error("yard: cannot start a dispatcher thread: {0}; raise the limit of processes")]
    Thread(#[from] std::io::Error),
}

/// Ports of a yard.
const MOST_PORTS: usize = 256;
/// Slots of a pipe by which only marked packets come.
const MARKED_SLOTS: u32 = 128;
/// Buffers to spare for each dispatcher beyond what ports, rings and held fragments can hold.
const SPARE_BUFFERS: usize = 2048;

/// A yard with its ports open, not yet started.
pub struct Yard {
    dispatchers: Vec<Dispatcher>,
    /// Where dispatchers are in workers.
    workers: Vec<WorkerEnd>,
    stop: Arc<AtomicBool>,
    region: Region,
    infos: Vec<PortInfo>,
    /// Names of the ports by number, as given.
    given: Vec<String>,
    pin: bool,
    surroundings: Surroundings,
    names: Vec<Option<String>>,
    kernel: Option<Arc<Mutex<KernelSteer>>>,
    /// Slots of each pipe.
    slots: u32,
    /// Of each group, with its weights.
    tables: Vec<(Table, Vec<u32>)>,
}

impl Yard {
    /// Makes the region, opens the ports and the pipes. Answers the yard and one reader a ring: those of the
    /// first group, then those of [`YardConfig::groups`] in order.
    ///
    /// Packets may arrive on live ports from now on; [`Yard::start`] takes them.
    ///
    /// # Errors
    /// What could not be had: object, action, value, remedy. Ports opened before are closed again.
    pub fn open(config: &YardConfig, ports: &[PortSpec]) -> Result<(Yard, Vec<RingReader>), YardError> {
        let classifier = classifier(config)?;
        let ways = transmit::Plan::new(config.transmit, ports)?;
        let parts = plan(config, ports, &classifier)?;
        let (mut yard, readers) = Yard::assemble(config, classifier, parts, ways, None)?;
        yard.given = ports.iter().map(PortSpec::name).collect();
        Ok((yard, readers))
    }

    /// As [`Yard::open`], over one port of the caller's own making: how the benchmarks drive the
    /// dispatcher with packets that lie in their buffers already.
    ///
    /// # Errors
    /// As [`Yard::open`].
    #[doc(hidden)]
    pub fn open_over(config: &YardConfig, port: Box<dyn Opener>) -> Result<(Yard, Vec<RingReader>), YardError> {
        Yard::assemble(config, classifier(config)?, vec![vec![(0, port)]], None, None)
    }

    /// `owned` has the rings of each dispatcher's own thread, if these read any. Dispatchers without ports come last.
    fn assemble(
        config: &YardConfig,
        classifier: Arc<Classifier>,
        parts: Vec<Part>,
        ways: Option<transmit::Plan>,
        owned: Option<&[Range<u16>]>,
    ) -> Result<(Yard, Vec<RingReader>), YardError> {
        let groups = groups(config, &classifier.table)?;
        let with_ports = parts.iter().filter(|part| !part.is_empty()).count();
        let (region, mut stock) = Region::create(&config.name, geometry(config, &parts[..with_ports])?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let memory = SharedFragments::default();
        let mut steering = None;
        let mut dispatchers = Vec::new();
        let mut infos: Vec<(u16, PortInfo)> = Vec::new();
        let rings = groups.iter().map(|group| usize::from(group.table.rings())).sum();
        let mut ends: Vec<Vec<Consumer>> = (0..rings).map(|_| Vec::new()).collect();
        let mut readers: Vec<Vec<DirectReader>> = (0..rings).map(|_| Vec::new()).collect();
        let shares = parts.len();
        let needs = needs(config, &parts[..with_ports], stock.capacity());
        let common = Common::new(groups.len());
        let mut instances = instances(config, shares)?.into_iter();
        // Opened once: a TAP device of one queue is one descriptor's, which all dispatchers write to.
        let host = config.host.as_deref().map(host).transpose()?;
        for (at, openers) in parts.into_iter().enumerate() {
            let mut share = take_share(&mut stock, &needs[at.min(with_ports)..]);
            let mut sources = Vec::new();
            let mut direct = Vec::new();
            for (number, opener) in openers {
                let mut port = opener.open(&region, &mut share)?;
                if !infos.iter().any(|(_, i)| i.name == port.info().name) {
                    infos.push((number, port.info().clone()));
                }
                let memory = match port.kernel() {
                    None => memory.clone(),
                    Some(kernel) => {
                        let fragments = kernel.lock().unwrap_or_else(PoisonError::into_inner).fragments()?;
                        steering.get_or_insert(kernel); // any speaks for all
                        SharedFragments::of_kernel(fragments)
                    }
                };
                for (ring, reader) in readers.iter_mut().zip(port.readers(number)) {
                    direct.push(reader.ring().clone());
                    ring.push(reader);
                }
                let sorter = Sorter::new(classifier.clone(), memory);
                sources.push(Source::new(port, number, sorter));
            }
            let mut ledger = Ledger::new(&region);
            let pipes = pipes(&mut ledger, config, &mut ends)?;
            let host = host.as_ref().map(Host::try_clone).transpose();
            let name = || config.host.clone().unwrap_or_default();
            let host = host.map_err(|error| YardError::Host { name: name(), error })?;
            let mut outlets = Outlets::new(&region, ledger, pipes, groups.clone(), host, &config.hash, config.absent);
            if let Some(owned) = owned {
                outlets.keep(owned[at].clone());
                owned[at].clone().for_each(|ring| drop(ends[usize::from(ring)].pop()));
            }
            let mut dispatcher =
                Dispatcher::new(region.clone(), share, sources, direct, outlets, common.clone(), stop.clone());
            for (seat, instance, limits) in instances.next().into_iter().flatten() {
                dispatcher.seat(seat, Some(instance), limits);
            }
            dispatchers.push(dispatcher);
        }
        if let Some(ways) = ways {
            infos.extend(ways.infos());
            for (number, mode) in ways.open(&mut dispatchers, &region)?.into_iter().enumerate() {
                let info = infos.iter_mut().find(|(n, _)| usize::from(*n) == number);
                if let Some(((_, info), mode)) = info.zip(mode).filter(|((_, info), mode)| info.mode != *mode) {
                    info.mode.push_str(&format!("; sends by {mode}"));
                }
            }
        }
        infos.sort_by_key(|(number, _)| *number); // as given, not as shared out
        let infos = infos.into_iter().map(|(_, info)| info).collect();
        let numbers = groups.iter().flat_map(|group| 0..group.table.rings());
        let readers = ends.into_iter().zip(readers).zip(numbers);
        let readers = readers.map(|((ends, direct), ring)| RingReader::new(ring, ends, direct)).collect();
        let surroundings = surroundings(config, shares);
        let weights = std::iter::once(&config.weights).chain(config.groups.iter().map(|group| &group.weights));
        let tables = groups.iter().zip(weights).map(|(group, weights)| {
            let even = || vec![1; group.table.rings().into()];
            (Table::clone(&group.table), weights.clone().unwrap_or_else(even))
        });
        let tables = tables.collect();
        let seats = std::iter::once(&config.function).chain(config.groups.iter().map(|g| &g.function));
        let names = seats.map(|f| f.as_ref().map(|f| f.name().to_owned())).collect();
        let slots = pipe_slots(config);
        let (pin, kernel) = (config.pin, steering);
        let given = Vec::new();
        let workers = Vec::new();
        Ok((
            Yard { dispatchers, workers, stop, region, infos, given, pin, surroundings, names, kernel, slots, tables },
            readers,
        ))
    }

    /// The ports as they were opened, in the order they were given.
    pub fn ports(&self) -> &[PortInfo] {
        &self.infos
    }

    /// The region that holds the packets.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The first dispatcher, to be run by hand in the caller's thread: for benchmarks.
    #[cfg(feature = "bench")]
    pub fn by_hand(mut self) -> crate::bench_support::ByHand {
        crate::bench_support::ByHand::new(self.dispatchers.remove(0))
    }

    /// Starts the dispatcher threads. Workers start by themselves, each when its thread runs it.
    ///
    /// # Errors
    /// A thread could not be started; those that were end by themselves.
    pub fn start(self) -> Result<Running, YardError> {
        let mut threads = Vec::new();
        let mut live: Vec<_> = self.workers.iter().map(|worker| worker.live.clone()).collect();
        let mut mailboxes: Vec<_> = self.workers.iter().map(|worker| worker.mailbox.clone()).collect();
        for (number, dispatcher) in self.dispatchers.into_iter().enumerate() {
            live.push(dispatcher.live.clone());
            mailboxes.push(dispatcher.mailbox.clone());
            let pin = self.pin;
            let body = move || {
                if pin {
                    cpu::pin(number);
                }
                dispatcher.run()
            };
            let thread = std::thread::Builder::new().name(format!("dispatch-{number}")).spawn(body);
            threads.push(thread.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?);
        }
        let ports = self.infos.into_iter().map(|info| info.name).collect();
        let (region, slots) = (self.region, self.slots);
        let groups = self.tables.iter().map(|(table, _)| table.rings()).collect();
        let offer = Offer { region, slots, groups, ports: self.given, mailboxes: mailboxes.clone() };
        let rings =
            Rings { mailboxes: mailboxes.clone(), tables: Mutex::new(self.tables), kernel: self.kernel.clone() };
        let (surroundings, names) = (self.surroundings, Mutex::new(self.names));
        let functions = Functions { mailboxes, surroundings, names, kernel: self.kernel.is_some() };
        Ok(Running {
            threads,
            workers: self.workers,
            live,
            stop: self.stop,
            ports,
            functions: Arc::new(functions),
            rings: Arc::new(rings),
            kernel: self.kernel,
            offer,
        })
    }
}

/// A yard at work.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<Report>>,
    workers: Vec<WorkerEnd>,
    live: Vec<Arc<Live>>,
    stop: Arc<AtomicBool>,
    ports: Vec<String>,
    functions: Arc<Functions>,
    rings: Arc<Rings>,
    kernel: Option<Arc<Mutex<KernelSteer>>>,
    offer: Offer,
}

impl Running {
    /// Takes consumers of other processes from now on, at the socket `path`, on rings that nobody reads: those whose
    /// [`RingReader`] was dropped. Call it before packets matter: from the first call on the region may be written by
    /// others, or by nobody but the yard, as [`Serving::allow`] has it.
    ///
    /// # Errors
    /// The socket cannot be had, or a rule would let somebody write where writing was sealed off before; or the rings are
    /// workers' own.
    pub fn serve(&self, path: &std::path::Path, serving: Serving) -> Result<Server, AttachError> {
        if !self.workers.is_empty() {
            return Err(AttachError::Workers { path: path.to_owned() });
        }
        Server::start(path, self.offer.clone(), serving)
    }

    /// The functions of the yard: to replace or to ask them while it runs.
    pub fn functions(&self) -> &Arc<Functions> {
        &self.functions
    }

    /// The rings of the yard: to count and to reweigh them while it runs.
    pub fn rings(&self) -> &Arc<Rings> {
        &self.rings
    }

    /// The program that steers in the kernel, if one does: for the user's own programs before and after it. Where there
    /// are several, on several interfaces, it is one of them, and what is done to it is done to all.
    pub fn kernel(&self) -> Option<&Arc<Mutex<KernelSteer>>> {
        self.kernel.as_ref()
    }

    /// Tells the yard to stop: ports are left alone, what waits is delivered as far as consumers make
    /// room within 0.3 s, the rest is counted as `shutdown`.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed); // a flag on its own, looked at every turn
    }

    /// A handle to stop it from elsewhere, a signal handler say: store true.
    pub fn stopper(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Running counts, one a dispatcher.
    pub fn live(&self) -> &[Arc<Live>] {
        &self.live
    }

    /// Whether all dispatchers and workers have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished) && self.workers.iter().all(WorkerEnd::is_over)
    }

    /// Waits until the yard has ended, and answers what it counted. Workers have to be run, or dropped, for that.
    pub fn join(self) -> Report {
        let ports = self.ports.into_iter().map(|name| (name, PortCounters::default())).collect();
        let mut report = Report { ports, ..Report::default() };
        for thread in self.threads {
            match thread.join() {
                Ok(part) => report.merge(part),
                Err(_) => report.errors.push("a dispatcher thread panicked: please report this as a bug".into()),
            }
        }
        for worker in self.workers {
            match worker.report() {
                Some(part) => report.merge(part),
                None => report.errors.push("a worker did not come to its end: please report this as a bug".into()),
            }
        }
        report
    }
}

/// What packets are sorted by. Numbers of rings and weights that cannot be are refused by name.
fn classifier(config: &YardConfig) -> Result<Arc<Classifier>, YardError> {
    check_rings(config)?;
    let table = table(config.rings, config.weights.as_ref())?;
    Ok(Arc::new(Classifier { policy: config.policy.clone(), hash: config.hash.clone(), table }))
}

fn table(rings: u16, weights: Option<&Vec<u32>>) -> Result<Table, TableError> {
    match weights {
        None => Table::even(rings),
        Some(weights) => Table::weighted(weights),
    }
}

/// The places of all groups among the outlets, the first one's table being `table`.
fn groups(config: &YardConfig, table_of_first: &Table) -> Result<Vec<GroupPlace>, YardError> {
    let mut places = vec![GroupPlace { first: 0, table: Arc::new(table_of_first.clone()) }];
    let mut first = usize::from(config.rings);
    for group in &config.groups {
        let table = Arc::new(table(group.rings, group.weights.as_ref())?);
        places.push(GroupPlace { first, table });
        first += usize::from(group.rings);
    }
    Ok(places)
}

fn surroundings(config: &YardConfig, dispatchers: usize) -> Surroundings {
    let annotation_bytes = config.annotation_bytes;
    Surroundings { dispatcher: 0, dispatchers, rings: config.rings, annotation_bytes }
}

type Instances = Vec<(usize, Box<dyn Steer>, Limits)>;

/// For each dispatcher: its instances of the functions, with the seat of each (seat 1 is the first group's, which
/// the yard's own function speaks for).
fn instances(config: &YardConfig, dispatchers: usize) -> Result<Vec<Instances>, FunctionError> {
    let groups = config.groups.iter().enumerate().map(|(at, group)| (at + 2, group.rings, &group.function));
    let all: Vec<_> = std::iter::once((0, config.rings, &config.function)).chain(groups).collect();
    let of = |dispatcher| {
        let mut instances = Instances::new();
        for (seat, rings, function) in &all {
            let Some(function) = function else { continue };
            let surroundings = Surroundings { dispatcher, rings: *rings, ..surroundings(config, dispatchers) };
            instances.push((*seat, function.checked_instance(&surroundings)?, function.limits));
        }
        Ok(instances)
    };
    (0..dispatchers).map(of).collect()
}

fn host(name: &str) -> Result<Host, YardError> {
    let tap = flowyard_port::tap::open(name).map_err(|error| YardError::Host { name: name.into(), error })?;
    Ok(Host::new(tap))
}

fn refuse<T>(what: &'static str, value: String, allowed: &str) -> Result<T, YardError> {
    Err(YardError::Config { what, value, allowed: allowed.into() })
}

fn check_rings(config: &YardConfig) -> Result<(), YardError> {
    if config.rings == 0 || usize::from(config.rings) > Table::BUCKETS {
        return refuse("number of rings", config.rings.to_string(), &format!("1 to {}", Table::BUCKETS));
    }
    if let Some(weights) = config.weights.as_ref().filter(|w| w.len() != usize::from(config.rings)) {
        return refuse("number of weights", weights.len().to_string(), "the number of rings");
    }
    Ok(())
}

/// Refuses what the program in the kernel does not do. What of the policy it does not do, it says itself.
fn check_kernel(config: &YardConfig, ports: &[PortSpec]) -> Result<(), YardError> {
    let cannot = |what: String, remedy| Err(YardError::Kernel { what, remedy });
    let slow = "leave it out, or steer in user space";
    if !config.groups.is_empty() {
        return cannot(format!("{} groups of rings", 1 + config.groups.len()), slow);
    }
    if let Some(function) = &config.function {
        return cannot(format!("the function {}", function.name()), slow);
    }
    if let Some(host) = &config.host {
        return cannot(format!("the way to the host {host}, which only a function uses"), slow);
    }
    let interface = |spec: &&PortSpec| spec.kind == Kind::Xdp && !spec.only_sends();
    let mut interfaces: Vec<&str> = ports.iter().filter(interface).map(|spec| spec.what.as_str()).collect();
    interfaces.sort_unstable();
    if let Some(twice) = interfaces.windows(2).find(|pair| pair[0] == pair[1]) {
        let remedy = "name it once: with all its queues (xdp:IF) or with one (xdp:IF/QUEUE)";
        return cannot(format!("two ports on the interface {}", twice[0]), remedy);
    }
    Ok(())
}

/// Refuses numbers that cannot be.
fn check_config(config: &YardConfig, ports: &[PortSpec]) -> Result<(), YardError> {
    if config.kernel {
        check_kernel(config, ports)?;
    }
    if !ports.is_empty() && ports.iter().all(PortSpec::only_sends) {
        return refuse("number of ports that packets come from", "0".into(), "at least 1");
    }
    if config.groups.len() >= MOST_GROUPS {
        return refuse("number of groups", (1 + config.groups.len()).to_string(), "at most 8");
    }
    for group in &config.groups {
        if group.rings == 0 || usize::from(group.rings) > Table::BUCKETS {
            return refuse("number of rings of a group", group.rings.to_string(), &format!("1 to {}", Table::BUCKETS));
        }
        if group.weights.as_ref().is_some_and(|w| w.len() != usize::from(group.rings)) {
            return refuse("number of weights of a group", group.name.clone(), "the number of its rings");
        }
    }
    if config.dispatchers == 0 || config.dispatchers > 64 {
        return refuse("number of dispatchers", config.dispatchers.to_string(), "1 to 64");
    }
    if ports.len() > MOST_PORTS {
        return refuse("number of ports", ports.len().to_string(), "at most 256: slots number them in a byte");
    }
    Ok(())
}

type Part = Vec<(u16, Box<dyn Opener>)>;

/// Shares ports out among dispatchers: a live port's queues evenly; sources that can wait never
/// together with those that cannot, so that pausing one loses nothing of the other.
fn plan(config: &YardConfig, ports: &[PortSpec], classifier: &Arc<Classifier>) -> Result<Vec<Part>, YardError> {
    check_config(config, ports)?;
    if ports.is_empty() {
        return refuse("number of ports", "0".into(), "at least 1");
    }
    let mut live: Vec<Part> = (0..config.dispatchers).map(|_| Part::new()).collect();
    let mut waiting: Vec<Part> = (0..config.dispatchers).map(|_| Part::new()).collect();
    let mut next = [0, 0];
    let host = config.stack.compiled()?;
    let steering = config.kernel.then(|| InKernel::new(classifier.clone(), !config.relay));
    for (number, spec) in ports.iter().enumerate().filter(|(_, spec)| !spec.only_sends()) {
        let openers = prepare_to_host(spec, config.dispatchers, steering.as_ref(), &host)?;
        for mut opener in openers {
            if config.transmit {
                opener.ask_transmission()?;
            }
            let can_wait = usize::from(opener.info().can_wait);
            let parts = if can_wait == 1 { &mut waiting } else { &mut live };
            parts[next[can_wait] % config.dispatchers].push((number as u16, opener));
            next[can_wait] += 1;
        }
    }
    Ok(live.into_iter().chain(waiting).filter(|part| !part.is_empty()).collect())
}

fn geometry(config: &YardConfig, parts: &[Part]) -> Result<Geometry, YardError> {
    let infos = || parts.iter().flatten().map(|(_, opener)| opener.info());
    let buffer_bytes = infos().map(|i| i.buffer_bytes).max().unwrap_or(2048);
    let held: usize = infos().map(|i| i.buffers_held).sum();
    let groups: usize = config.groups.iter().map(|group| usize::from(group.rings)).sum();
    let rings = (usize::from(config.rings) + groups) * pipe_slots(config) as usize;
    let fragments = infos().count() * HOLD_PACKETS;
    if let Some(buffers) = config.buffers.filter(|b| *b < parts.len()) {
        return Err(MemError::Geometry {
            object: "region",
            what: "number of buffers",
            value: buffers as u64,
            allowed: "at least one for each dispatcher in use",
        }
        .into());
    }
    let least = held + rings * parts.len();
    if let Some(buffers) = config.buffers.filter(|b| config.kernel && *b <= least) {
        let allowed = format!(
            "more than {least}, {held} for the kernel's rings and {} for the rings of the yard, so that one that nobody \
             empties leaves the others with some: give more buffers, or fewer or smaller rings (?ring=N, ring slots)",
            rings * parts.len()
        );
        return refuse("number of buffers, for steering in the kernel,", buffers.to_string(), &allowed);
    }
    let needed = held + rings * parts.len() + fragments + SPARE_BUFFERS * parts.len();
    let geometry = Geometry::new(buffer_bytes, config.annotation_bytes, config.buffers.unwrap_or(needed))?;
    if let Some(free) = free_memory().filter(|free| config.kernel && geometry.file_bytes() as u64 > *free) {
        let allowed = format!(
            "at most the {} MiB of memory that are free ({held} buffers for the kernel's rings, {} for those of the \
             yard): have fewer rings, or smaller ones (?ring=N, ring slots)",
            free >> 20,
            rings * parts.len()
        );
        let value = format!("{} MiB", geometry.file_bytes() >> 20);
        return refuse("memory for packets, for steering in the kernel,", value, &allowed);
    }
    Ok(geometry)
}

/// Slots of each pipe. What the kernel steers and readers take from it does not come by one: what is marked is little.
fn pipe_slots(config: &YardConfig) -> u32 {
    if config.kernel && !config.relay { config.ring_slots.min(MARKED_SLOTS) } else { config.ring_slots }
}

/// Bytes of memory that can be had without taking them from others, if the system says.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Buffers that the ports of each dispatcher must have: where the kernel steers, all that their queues hold; otherwise
/// ports make do with what there is.
fn needs(config: &YardConfig, parts: &[Part], buffers: usize) -> Vec<usize> {
    let held = |part: &Part| part.iter().map(|(_, opener)| opener.info().buffers_held).sum();
    let needs: Vec<usize> = parts.iter().map(held).collect();
    if config.kernel && needs.iter().sum::<usize>() <= buffers { needs } else { vec![0; parts.len()] }
}

/// Splits the share of the first of these dispatchers off: what it needs, and an equal part of what none does.
fn take_share(stock: &mut Stock, needs: &[usize]) -> Stock {
    let spare = stock.capacity() - needs.iter().sum::<usize>();
    let count = needs.first().copied().unwrap_or(0) + spare / needs.len().max(1);
    stock.split(count as u32).expect("nobody has taken a buffer yet, and it is at most all of them")
}

fn pipes(ledger: &mut Ledger, config: &YardConfig, ends: &mut [Vec<Consumer>]) -> Result<Vec<PipeProducer>, MemError> {
    ends.iter_mut()
        .map(|ends| {
            let (producer, end) = ledger.open_pipe(pipe_slots(config))?;
            ends.push(Consumer::attach_local(end)?);
            Ok(producer)
        })
        .collect()
}
