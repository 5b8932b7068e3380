//! A port whose packets lie in their buffers already: a card that has filled them, without the card.

use std::sync::{Arc, Mutex, PoisonError};

use flowyard::mem::{Buffer, Clock, Region, Stock};
use flowyard::port::{Arrival, Opener, Port, PortCounters, PortError, PortInfo, Progress, Received};

use crate::flow::{self, BUFFERS};
use crate::laps::Leader;
use crate::packets::Packets;

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
        let info = PortInfo {
            name: "bench:prefilled".into(),
            mode: "packets that lie in their buffers".into(),
            can_wait: true,
            live: false,
            longest_packet: 1514,
            buffers_held: BUFFERS,
            buffer_bytes: 2048,
        };
        Prefilled { info, packets, leader, figure }
    }
}

impl Opener for Prefilled {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn open(self: Box<Self>, region: &Region, _: &mut Stock) -> Result<Box<dyn Port>, PortError> {
        let Prefilled { info, packets, leader, figure } = *self;
        Ok(Box::new(Open {
            start: region.geometry().packet_offset(),
            region: region.clone(),
            lens: vec![0; BUFFERS],
            home: Vec::with_capacity(BUFFERS),
            ready: Vec::with_capacity(BUFFERS),
            counters: PortCounters::default(),
            lap: 0,
            running: false,
            leader: Some(leader),
            info,
            packets,
            figure,
        }))
    }
}

struct Open {
    info: PortInfo,
    packets: Arc<Packets>,
    leader: Option<Leader>,
    figure: Figure,
    region: Region,
    start: usize,
    /// By buffer index.
    lens: Vec<u16>,
    /// Buffers that came home in this lap.
    home: Vec<Buffer>,
    /// Buffers still to be sent in this lap.
    ready: Vec<Buffer>,
    lap: usize,
    running: bool,
    counters: PortCounters,
}

impl Open {
    fn load(&mut self) {
        std::mem::swap(&mut self.home, &mut self.ready);
        self.ready.sort_by_key(|buffer| std::cmp::Reverse(buffer.index()));
        flow::load(&self.packets, self.lap, |at, bytes| {
            let buffer = &mut self.ready[BUFFERS - 1 - at];
            assert!(self.region.write(buffer, self.start, bytes), "a packet fits its buffer");
            self.lens[buffer.index() as usize] = bytes.len() as u16;
        });
    }
}

impl Port for Open {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, stock: &mut Stock, batch: &mut Vec<Received>, limit: usize) -> Result<Progress, PortError> {
        while let Some(buffer) = stock.take() {
            self.home.push(buffer);
        }
        let Some(leader) = &mut self.leader else { return Ok(Progress::Ended) };
        let wait = Progress::Idle { wait_ns: Some(0) };
        if self.home.len() == BUFFERS {
            if self.running {
                if !leader.try_end(BUFFERS) {
                    return Ok(wait);
                }
                self.running = false;
                self.lap += 1;
            }
            if self.lap == flow::laps(&self.packets) {
                let figure = self.leader.take().and_then(Leader::sample);
                *self.figure.lock().unwrap_or_else(PoisonError::into_inner) = figure;
                return Ok(Progress::Ended);
            }
            self.load();
            self.running = true;
            if let Some(leader) = &mut self.leader {
                leader.begin();
            }
        }
        if self.ready.is_empty() {
            return Ok(wait);
        }
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
        Ok(Progress::Ready)
    }

    fn counters(&mut self) -> PortCounters {
        self.counters.clone()
    }

    fn close(self: Box<Self>, stock: &mut Stock) -> Result<PortCounters, PortError> {
        let Open { home, ready, counters, .. } = *self;
        home.into_iter().chain(ready).for_each(|buffer| stock.put(buffer));
        Ok(counters)
    }
}
