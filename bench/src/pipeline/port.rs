//! A port whose packets lie in their buffers already: a card that has filled them, without the card.

use std::sync::{Arc, Mutex, PoisonError};

use flowyard::mem::{Buffer, Clock, Region, Stock};
use flowyard::port::{Arrival, Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};

use crate::flow::{self, BUFFERS};
use crate::laps::Leader;
use crate::packets::Packets;

/// What such a port called `name` says of itself.
pub fn info(name: &str) -> PortInfo {
    PortInfo {
        name: name.into(),
        mode: "packets that lie in their buffers".into(),
        can_wait: true,
        live: false,
        longest_packet: 1514,
        buffers_held: BUFFERS,
        buffer_bytes: 2048,
    }
}

/// Where the port leaves its figure.
pub type Figure = Arc<Mutex<Option<f64>>>;

/// The port before the yard opens it.
pub struct Prefilled {
    info: PortInfo,
    packets: Arc<Packets>,
    leader: Leader,
    figure: Figure,
}

impl Prefilled {
    /// Sends all `packets` in laps timed by `leader`, and leaves what came of it in `figure`.
    pub fn new(packets: Arc<Packets>, leader: Leader, figure: Figure) -> Prefilled {
        let info = info("bench:prefilled");
        Prefilled { info, packets, leader, figure }
    }
}

impl Opener for Prefilled {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let Prefilled { info, packets, leader, figure } = *self;
        Ok(Box::new(Open { laid: Laid::new(region), running: false, leader: Some(leader), info, packets, figure }))
    }
}

struct Open {
    info: PortInfo,
    packets: Arc<Packets>,
    leader: Option<Leader>,
    figure: Figure,
    laid: Laid,
    running: bool,
}

/// Packets that lie in buffers, lap by lap.
pub struct Laid {
    region: Region,
    start: usize,
    /// By buffer index.
    lens: Vec<u16>,
    /// Buffers that came home in this lap.
    home: Vec<Buffer>,
    /// Buffers still to be sent in this lap.
    ready: Vec<Buffer>,
    lap: usize,
    counters: PortCounters,
}

impl Laid {
    /// No packets yet, in no buffers.
    pub fn new(region: &Region) -> Laid {
        Laid {
            start: region.geometry().packet_offset(),
            region: region.clone(),
            lens: vec![0; region.geometry().buffers as usize],
            home: Vec::with_capacity(BUFFERS),
            ready: Vec::with_capacity(BUFFERS),
            lap: 0,
            counters: PortCounters::default(),
        }
    }

    /// Takes what is free. Answers whether all buffers are home.
    pub fn take_home(&mut self, stock: &mut Stock) -> bool {
        while let Some(buffer) = stock.take() {
            self.home.push(buffer);
        }
        self.home.len() == BUFFERS
    }

    /// Laps laid out so far.
    pub fn laps(&self) -> usize {
        self.lap
    }

    /// Whether packets of this lap are still to be given.
    pub fn has_some(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lays the packets of the next lap out.
    pub fn load(&mut self, packets: &Packets) {
        self.load_lap(packets, self.lap);
        self.lap += 1;
    }

    /// Lays the packets of lap `lap` out.
    pub fn load_lap(&mut self, packets: &Packets, lap: usize) {
        self.load_each(|at| packets.get(lap * BUFFERS + at));
    }

    /// Lays out what `packet` answers for each place of a lap.
    pub fn load_each<'p>(&mut self, packet: impl Fn(usize) -> &'p [u8]) {
        std::mem::swap(&mut self.home, &mut self.ready);
        self.ready.sort_by_key(|buffer| std::cmp::Reverse(buffer.index()));
        for (at, buffer) in self.ready.iter_mut().rev().enumerate() {
            let bytes = packet(at);
            assert!(self.region.write(buffer, self.start, bytes), "a packet fits its buffer");
            self.lens[buffer.index() as usize] = bytes.len() as u16;
        }
    }

    /// Gives packets of the lap until `batch` has `limit`.
    pub fn give(&mut self, batch: &mut Vec<Received>, limit: usize) -> Progress {
        while batch.len() < limit {
            let Some(buffer) = self.ready.pop() else { break };
            let len = self.lens[buffer.index() as usize];
            self.counters.packets += 1;
            self.counters.bytes += u64::from(len);
            let arrival = Arrival {
                time_ns: self.counters.packets,
                clock: Clock::Generated,
                len: len.into(),
                wire_len: len.into(),
                link: 1,
                number: self.counters.packets,
                ..Arrival::default()
            };
            batch.push(Received { buffer, offset: self.start as u16, segment_len: len, more: false, arrival });
        }
        Progress::Ready
    }

    /// What was given so far.
    pub fn counters(&self) -> PortCounters {
        self.counters.clone()
    }

    /// Gives all buffers back.
    pub fn close(self, stock: &mut Stock) -> PortCounters {
        self.home.into_iter().chain(self.ready).for_each(|buffer| stock.put(buffer));
        self.counters
    }
}

impl Port for Open {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        let all_home = self.laid.take_home(stock);
        let Some(leader) = &mut self.leader else { return Ok(Progress::Ended) };
        let wait = Progress::Idle { wait_ns: Some(0) };
        if all_home {
            if self.running {
                if !leader.try_end(BUFFERS) {
                    return Ok(wait);
                }
                self.running = false;
            }
            if self.laid.laps() == flow::laps(&self.packets) {
                let figure = self.leader.take().and_then(Leader::sample);
                *self.figure.lock().unwrap_or_else(PoisonError::into_inner) = figure;
                return Ok(Progress::Ended);
            }
            self.laid.load(&self.packets);
            self.running = true;
            leader.begin();
        }
        if !self.laid.has_some() {
            return Ok(wait);
        }
        Ok(self.laid.give(batch, limit))
    }

    fn counters(&mut self) -> PortCounters {
        self.laid.counters()
    }

    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        Ok(self.laid.close(stock))
    }
}
