//! The port `gen:`: generated traffic, as a source that can wait.
//!
//! `gen:mix` is everything, `gen:NAME` one [`Carrier`] alone. Options: `flows=N` (1000),
//! `packets=N` (5 million), `seconds=S` instead, `seed=N` (1), `size=LEAST-MOST`, `size=N` or
//! `size=imix`, `rate=PPS`, `only=NAME,NAME…`.
//!
//! The same options make the same packets. Only `seconds` without `rate` depends on the machine: it
//! ends when the time is up, wherever the traffic is.

use std::time::{Duration, Instant};

use flowyard_mem::{Clock, Region, Stock};

use super::{Carrier, Mix, MixOptions, Sizes};
use crate::{Arrival, Opener, Port, PortCounters, PortError, PortInfo, PortSpec, Progress, Received, segments};

/// Packets made if nothing else is asked for: a few seconds' worth.
pub const DEFAULT_PACKETS: u64 = 5_000_000;
const LINK_ETHERNET: u16 = 1;

/// What a `gen:` name asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct GenSpec {
    /// The traffic.
    pub mix: MixOptions,
    /// Packets until the end.
    pub packets: u64,
    /// Time until the end, if that comes first.
    pub lasting: Option<Duration>,
}

impl GenSpec {
    /// Reads name and options.
    ///
    /// # Errors
    /// A mix or an option that cannot be: with what can.
    pub fn new(spec: &PortSpec) -> Result<GenSpec, PortError> {
        spec.only(&["flows", "packets", "seconds", "seed", "size", "rate", "only"])?;
        let mut mix = MixOptions::default();
        if spec.what != "mix" {
            let carrier = spec
                .what
                .parse()
                .map_err(|problem: String| spec.bad_option(problem, "write gen:mix for all of them"))?;
            mix.only = vec![carrier];
        }
        if let Some(flows) = spec.value::<u32>("flows", "a number from 1 to 4194304")? {
            if !(1..=MixOptions::MOST_FLOWS).contains(&flows) {
                return Err(spec.bad_option(format!("option flows is {flows}"), "write a number from 1 to 4194304"));
            }
            mix.flows = flows;
        }
        mix.seed = spec.value("seed", "a number")?.unwrap_or(mix.seed);
        mix.rate_pps = spec.value("rate", "packets a second")?;
        if mix.rate_pps == Some(0) {
            return Err(spec.bad_option("option rate is 0", "write packets a second, from 1"));
        }
        if let Some(size) = spec.options.get("size") {
            mix.sizes = sizes(size).ok_or_else(|| {
                let remedy = "write ?size=60-1500 with numbers from 60 to 1514, ?size=64, or ?size=imix";
                spec.bad_option(format!("option size is {size:?}"), remedy)
            })?;
        }
        if let Some(only) = spec.options.get("only") {
            let named: Result<Vec<Carrier>, String> = only.split(',').map(str::parse).collect();
            mix.only = named.map_err(|problem| spec.bad_option(problem, "write ?only=vxlan,gtp"))?;
        }
        let packets = spec.value::<u64>("packets", "a number of packets")?;
        let seconds = spec.value::<f64>("seconds", "a number of seconds")?;
        let seconds = match seconds {
            Some(s) if !(s > 0.0 && s < 1e9) => {
                return Err(spec.bad_option(format!("option seconds is {s}"), "write a number above 0"));
            }
            other => other,
        };
        let (packets, lasting) = match (packets, seconds, mix.rate_pps) {
            // At a given rate a time is a number of packets.
            (packets, Some(s), Some(rate)) => (((s * rate as f64) as u64).min(packets.unwrap_or(u64::MAX)), None),
            (packets, Some(s), None) => (packets.unwrap_or(u64::MAX), Some(Duration::from_secs_f64(s))),
            (packets, None, _) => (packets.unwrap_or(DEFAULT_PACKETS), None),
        };
        Ok(GenSpec { mix, packets, lasting })
    }
}

/// `imix`, `N`, or `LEAST-MOST`.
fn sizes(text: &str) -> Option<Sizes> {
    if text == "imix" {
        return Some(Sizes::Imix);
    }
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let (least, most) = (least.parse().ok()?, most.parse().ok()?);
    (60 <= least && least <= most && most <= 1514).then_some(Sizes::Mixed { least, most })
}

/// Generated traffic, not yet made.
#[derive(Debug)]
pub struct GenOpener {
    info: PortInfo,
    spec: GenSpec,
}

impl GenOpener {
    /// Looks at name and options.
    ///
    /// # Errors
    /// As [`GenSpec::new`].
    pub fn new(spec: &PortSpec) -> Result<GenOpener, PortError> {
        let wanted = GenSpec::new(spec)?;
        let amount = match wanted.lasting {
            Some(time) => format!("{} s", time.as_secs_f64()),
            None => format!("{} packets", wanted.packets),
        };
        let pace = wanted.mix.rate_pps.map_or(String::new(), |rate| format!(", {rate} a second"));
        let info = PortInfo {
            name: spec.name(),
            mode: format!("{} conversations, {amount}{pace}, seed {}", wanted.mix.flows, wanted.mix.seed),
            can_wait: true,
            live: false,
            longest_packet: Mix::FRAME_BYTES,
            buffers_held: 0,
            buffer_bytes: 2048,
        };
        Ok(GenOpener { info, spec: wanted })
    }
}

impl Opener for GenOpener {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _stock: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        Ok(Box::new(GenPort {
            info: self.info,
            region: region.clone(),
            mix: Mix::new(&self.spec.mix),
            frame: [0; Mix::FRAME_BYTES],
            left: self.spec.packets,
            lasting: self.spec.lasting,
            rate_pps: self.spec.mix.rate_pps,
            started: None,
            counters: PortCounters::default(),
        }))
    }
}

struct GenPort {
    info: PortInfo,
    region: Region,
    mix: Mix,
    frame: [u8; Mix::FRAME_BYTES],
    /// Packets yet to be made.
    left: u64,
    lasting: Option<Duration>,
    rate_pps: Option<u64>,
    /// When the first packet was asked for.
    started: Option<Instant>,
    counters: PortCounters,
}

impl GenPort {
    /// Packets that may be made now, and how long to wait for one more.
    fn allowed(&self, elapsed: Duration) -> (u64, u64) {
        let Some(rate) = self.rate_pps else { return (u64::MAX, 0) };
        let due = (elapsed.as_nanos() * u128::from(rate) / 1_000_000_000) as u64 + 1;
        let wait_ns = (u128::from(due) * 1_000_000_000).div_ceil(u128::from(rate)).saturating_sub(elapsed.as_nanos());
        (due.saturating_sub(self.counters.packets), (wait_ns as u64).max(1))
    }
}

impl Port for GenPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let elapsed = self.started.get_or_insert_with(Instant::now).elapsed();
        if self.lasting.is_some_and(|time| elapsed >= time) {
            self.left = 0;
        }
        let before = batch.len();
        let (allowed, wait_ns) = self.allowed(elapsed);
        let room = limit.saturating_sub(before) as u64;
        for _ in 0..room.min(allowed).min(self.left) {
            // Every frame fits one buffer, so with one at hand nothing that was made is lost.
            if stock.is_empty() {
                return Ok(if batch.len() > before { Progress::Ready } else { Progress::NoBuffers });
            }
            let packet = self.mix.next(&mut self.frame);
            let arrival = Arrival {
                time_ns: packet.time_ns,
                clock: Clock::Generated,
                len: packet.len as u32,
                wire_len: packet.len as u32,
                link: LINK_ETHERNET,
                number: packet.number,
                ..Arrival::default()
            };
            let appended = segments::append(&self.region, stock, batch, &self.frame[..packet.len], arrival);
            debug_assert!(appended, "a frame takes one buffer, and there is one");
            self.left -= 1;
            self.counters.packets += 1;
            self.counters.bytes += packet.len as u64;
        }
        Ok(match (batch.len() > before, self.left) {
            (true, _) => Progress::Ready,
            (false, 0) => Progress::Ended,
            (false, _) if room == 0 => Progress::Ready,
            (false, _) => Progress::Idle { wait_ns: Some(wait_ns) },
        })
    }

    fn counters(&mut self) -> PortCounters {
        self.counters.clone()
    }

    fn close(self: Box<Self>, _stock: &mut Stock) -> Result<PortCounters, PortError> {
        Ok(self.counters)
    }
}

// Smallest capacity of any geometry: 2048 - 256 - 256.
const _: () = assert!(Mix::FRAME_BYTES <= 2048 - 256 - 256);
