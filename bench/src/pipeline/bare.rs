//! The plain loop: steer, tag, ledger, pipe, and nothing else.

use std::hint::black_box;

use flowyard::mem::{Buffer, Consumer, Geometry, Ledger, Pages, PipeProducer, Region, Returned, Slot, notify};
use flowyard::steer::{Classifier, Decision, FragmentTable, Frame, LinkType};

use crate::flow::{BATCH, BUFFERS, Looking, SLOTS, Sorting};
use crate::label;
use crate::steer::{RINGS, classifier};

/// Both sides; with `look`, packets are classified and tagged, otherwise sent to rings by turns.
pub fn pair(look: bool) -> (Sorter, Looker) {
    let geometry = Geometry::new(2048, 64, BUFFERS).expect("a usual geometry");
    let (region, mut stock) = Region::create("bench", geometry).expect("memory for 8 MiB of buffers");
    let mut buffers: Vec<Option<Buffer>> = std::iter::repeat_with(|| stock.take()).take(BUFFERS).collect();
    buffers.sort_by_key(|buffer| buffer.as_ref().map(Buffer::index));
    let mut ledger = Ledger::new(&region);
    let (pipes, consumers) = (0..RINGS)
        .map(|_| {
            let (producer, end) = ledger.open_pipe(SLOTS).expect("memory for a pipe");
            (producer, Consumer::attach_local(end).expect("memory for a pipe"))
        })
        .unzip();
    let sorter = Sorter {
        classifier: look.then(classifier),
        memory: FragmentTable::default(),
        decision: Decision::BLANK,
        ledger,
        start: geometry.packet_offset(),
        lens: vec![0; BUFFERS],
        at: BUFFERS,
        home: BUFFERS,
        buffers,
        pipes,
        region,
    };
    (sorter, Looker { consumers, sum: 0 })
}

/// The sorting side.
pub struct Sorter {
    region: Region,
    classifier: Option<Classifier>,
    memory: FragmentTable,
    decision: Decision,
    ledger: Ledger,
    pipes: Vec<PipeProducer>,
    /// By index; those that are out are missing.
    buffers: Vec<Option<Buffer>>,
    lens: Vec<u16>,
    start: usize,
    /// The next buffer to send in this lap, and how many are home.
    at: usize,
    home: usize,
}

impl Sorter {
    /// Begins a lap with the packets that are there.
    pub fn again(&mut self) {
        self.at = 0;
    }

    /// Pages that the packets lie on.
    pub fn pages(&self) -> Pages {
        self.region.pages()
    }

    fn reclaim(&mut self) {
        for pipe in &mut self.pipes {
            pipe.take_all_returned(&mut self.ledger, u32::MAX, |returned, _| {
                if let Returned::Free(buffer) = returned {
                    let index = buffer.index() as usize;
                    self.buffers[index] = Some(buffer);
                    self.home += 1;
                }
            });
            pipe.release_returned();
        }
    }

    #[inline]
    fn send(&mut self, ring: usize, buffer: Buffer, slot: Slot) {
        while self.pipes[ring].reserve(1) == 0 {
            self.pipes[ring].commit();
            self.reclaim();
        }
        self.pipes[ring].send(&mut self.ledger, buffer, slot).expect("just reserved");
        self.home -= 1;
    }
}

impl Sorting for Sorter {
    fn load(&mut self, buffer: usize, bytes: &[u8]) {
        let token = self.buffers[buffer].as_mut().expect("all buffers are home between laps");
        assert!(self.region.write(token, self.start, bytes), "a packet fits its buffer");
        self.lens[buffer] = bytes.len() as u16;
        self.at = 0;
    }

    fn turn(&mut self) {
        self.reclaim();
        let end = (self.at + BATCH).min(BUFFERS);
        for index in self.at..end {
            let mut buffer = self.buffers[index].take().expect("each is sent once a lap");
            let (len, time_ns) = (self.lens[index], index as u64);
            let Some(classifier) = &self.classifier else {
                let slot = Slot { offset: self.start as u16, len, hash: index as u32, ..Slot::default() };
                self.send(index % usize::from(RINGS), buffer, slot);
                continue;
            };
            let bytes = self.region.peek(&buffer, self.start, len.into(), &mut []);
            let (frame, decision) = (Frame::new(bytes, LinkType::ETHERNET), &mut self.decision);
            classifier.classify_into(&frame, &mut self.memory, time_ns, &mut (), decision);
            let tag = label::tag(decision, len, time_ns);
            self.region.set_tag(&mut buffer, &tag);
            let ring = decision.ring.into();
            self.send(ring, buffer, label::slot(&tag, self.start));
        }
        if end > self.at {
            for pipe in &mut self.pipes {
                pipe.commit();
            }
            notify(&mut self.pipes);
        }
        self.at = end;
    }

    fn all_home(&self) -> bool {
        self.at == BUFFERS && self.home == BUFFERS
    }
}

/// The looking side.
pub struct Looker {
    consumers: Vec<Consumer>,
    sum: u64,
}

impl Looking for Looker {
    fn turn(&mut self) -> usize {
        let mut seen = 0;
        for consumer in &mut self.consumers {
            for _ in 0..BATCH {
                let Some(packet) = consumer.next() else { break };
                self.sum ^= u64::from(packet.slot().hash);
                self.sum ^= packet.data().first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                seen += 1;
            }
        }
        black_box(self.sum);
        seen
    }
}
