//! A loop over one AF_XDP socket that drops, with nothing around it: what the benchmarks hold the ports against.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use flowyard_mem::{Buffer, Lent, Region, Stock};

use super::socket::{Binding, QueueSockets, Sizes};

/// Packets taken at a time.
const BATCH: u32 = 64;
/// Entries of both rings.
const ENTRIES: u32 = 2048;

/// A socket on a queue.
pub struct Bare {
    sockets: QueueSockets,
    lent: Lent,
    region: Region,
}

impl Bare {
    /// Opens one on `queue` of interface `index`, copying, with buffers of `stock`.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open(index: u32, queue: u32, region: &Region, stock: &mut Stock) -> io::Result<Bare> {
        let sizes = Sizes { lanes: 1, receive: ENTRIES, fill: ENTRIES };
        let binding =
            Binding { copy: Some(true), several_buffers: false, transmit: false, patience: Duration::from_secs(1) };
        let sockets = QueueSockets::open(index, queue, sizes, region, binding, None).map_err(|failed| failed.source)?;
        let mut lent = region.lent();
        let mut fill = sockets.fill();
        for _ in 0..ENTRIES {
            let Some(buffer) = stock.take() else { break };
            fill.push(u64::from(lent.lend(buffer)) * region.geometry().buffer_bytes as u64);
        }
        fill.commit();
        drop(fill);
        Ok(Bare { sockets, lent, region: region.clone() })
    }

    /// Takes what has come, gives the buffers back at once, and answers how many packets there were.
    pub fn turn(&mut self) -> u64 {
        let ready = self.ready();
        self.give_back(ready)
    }

    /// The same, and shows each packet to `look` before, with its buffer and where it starts.
    pub fn turn_with(&mut self, mut look: impl FnMut(&Region, &mut Buffer, usize)) -> u64 {
        let buffer_bytes = self.region.geometry().buffer_bytes as u64;
        let ready = self.ready();
        for n in 0..ready {
            let at = self.sockets.lanes[0].receive.peek(n).address;
            let Some(mut buffer) = self.lent.take((at / buffer_bytes) as u32) else { continue };
            look(&self.region, &mut buffer, (at % buffer_bytes) as usize);
            self.lent.lend(buffer);
        }
        self.give_back(ready)
    }

    fn ready(&mut self) -> u32 {
        self.sockets.lanes[0].receive.ready(true).min(BATCH)
    }

    fn give_back(&mut self, ready: u32) -> u64 {
        if ready > 0 {
            let mut lanes = std::mem::take(&mut self.sockets.lanes);
            let receive = &mut lanes[0].receive;
            let mut fill = self.sockets.fill();
            let room = fill.free(ready).min(ready);
            (0..room).for_each(|n| fill.push(receive.peek(n).address));
            fill.commit();
            receive.release(ready);
            drop(fill);
            self.sockets.lanes = lanes;
        }
        ready.into()
    }

    /// Closes it.
    pub fn close(mut self, stock: &mut Stock) {
        drop(self.sockets);
        self.lent.take_all(stock);
    }
}

impl AsFd for Bare {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }
}
