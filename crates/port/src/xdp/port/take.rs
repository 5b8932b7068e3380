//! Taking packets off a receive ring, whole.

use flowyard_mem::{Clock, Lent, Region, Stock};

use super::super::card::CardPlace;
use super::super::socket::QueueSockets;
use crate::link::ETHERNET;
use crate::{Arrival, Received};

/// What one visit to a socket took from it.
pub(super) struct Takes<'a> {
    pub(super) region: &'a Region,
    pub(super) card: CardPlace,
    pub(super) lane: usize,
    pub(super) time_ns: u64,
    pub(super) number: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) invalid: u64,
}

impl Takes<'_> {
    /// Moves up to `most` packets from a lane to `batch`; answers how many entries it used.
    pub(super) fn take(
        &mut self,
        QueueSockets { queue, lanes, held, .. }: &mut QueueSockets,
        lent: &mut Lent,
        stock: &mut Stock,
        batch: &mut Vec<Received>,
        most: usize,
        buffer_bytes: usize,
    ) -> u32 {
        let receive = &mut lanes[self.lane].receive;
        let mut ready = receive.ready(false);
        let (mut used, start) = (0, batch.len());
        while used < ready && batch.len() - start < most {
            let Some(segments) = receive.whole(used, &mut ready) else { break };
            let len = (used..used + segments).fold(0u32, |len, at| len.saturating_add(receive.peek(at).len));
            let mut arrival = Arrival {
                time_ns: self.time_ns,
                clock: Clock::Realtime,
                len,
                wire_len: len,
                queue: *queue as u16,
                link: ETHERNET,
                number: self.number + 1,
                ..Arrival::default()
            };
            let first = batch.len();
            let mut sound = true;
            for segment in used..used + segments {
                let at = receive.peek(segment);
                let (index, offset) = (at.address / buffer_bytes as u64, at.address as usize % buffer_bytes);
                let Some(buffer) = u32::try_from(index).ok().and_then(|index| lent.take(index)) else {
                    sound = false;
                    continue;
                };
                *held -= 1;
                if segment == used {
                    self.card.tell(self.region, &buffer, offset, &mut arrival);
                }
                let fits = at.len as usize <= buffer_bytes - offset;
                sound &= fits;
                batch.push(Received {
                    buffer,
                    offset: offset as u16,
                    segment_len: if fits { at.len as u16 } else { 0 },
                    more: segment + 1 < used + segments,
                    arrival,
                });
            }
            used += segments;
            if !sound {
                batch.drain(first..).for_each(|received| stock.put(received.buffer));
                self.invalid += 1;
                continue;
            }
            self.number += 1;
            self.packets += 1;
            self.bytes += u64::from(len);
        }
        receive.release(used);
        used
    }
}
