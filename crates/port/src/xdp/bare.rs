//! A loop over one AF_XDP socket that drops, with nothing around it: what the benchmarks hold the ports against.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use flowyard_mem::{Lent, Region, Stock};

use super::socket::{Binding, QueueSockets, Sizes};

/// Packets taken at a time.
const BATCH: u32 = 64;
/// Entries of both rings.
const ENTRIES: u32 = 2048;

/// A socket on a queue.
pub struct Bare {
    sockets: QueueSockets,
    lent: Lent,
    _region: Region,
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
        Ok(Bare { sockets, lent, _region: region.clone() })
    }

    /// Takes what has come, gives the buffers back at once, and answers how many packets there were.
    pub fn turn(&mut self) -> u64 {
        let mut lanes = std::mem::take(&mut self.sockets.lanes);
        let receive = &mut lanes[0].receive;
        let ready = receive.ready(true).min(BATCH);
        if ready > 0 {
            let mut fill = self.sockets.fill();
            let room = fill.free(ready).min(ready);
            (0..room).for_each(|n| fill.push(receive.peek(n).address));
            fill.commit();
            receive.release(ready);
        }
        self.sockets.lanes = lanes;
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
