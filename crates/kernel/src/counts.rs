//! What the program has counted.

use aya::maps::{IterableMap, Map, MapData, MapError, PerCpuArray};

use crate::{KernelError, Mark};

/// Places of the kernel's array: `enum flowyard_count` in flowyard.bpf.h.
pub(crate) const PLACES: usize = 24;
const VERDICTS: usize = 8;
pub(crate) const TO_HOST: usize = 13;
pub(crate) const UNSERVED: usize = 14;
const MARKS: usize = 16;

/// Packets that the program has seen, on one queue or all. Every one of them is in exactly one of
/// `redirected`, `passed`, `too_long`, `no_room`, `to_host`, `unserved` and [`by_user`](Counts::by_user).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Came in.
    pub seen: u64,
    /// Dissected: the others, the user's program before that has taken or delivered.
    pub steered: u64,
    /// Delivered with no user's program in between.
    pub straight: u64,
    /// Delivered after the user's program.
    pub returned: u64,
    /// Given to a socket; what that then loses, it counts itself.
    pub redirected: u64,
    /// There was no such socket: the fallback action.
    pub passed: u64,
    /// Longer than a socket takes: dropped.
    pub too_long: u64,
    /// The driver had no room for metadata: the fallback action.
    pub no_room: u64,
    /// Picked out for the host's stack ([`HostFilter`](crate::HostFilter)).
    pub to_host: u64,
    /// Came when the owner was gone and had left the program: the fallback action.
    pub unserved: u64,
    /// What user's programs said by `flowyard_verdict`, by action: aborted, dropped, passed, sent back,
    /// redirected.
    pub verdicts: [u64; 5],
    /// Left to user space, by [`Mark`].
    pub marked: [u64; 6],
}

/// The program's counters, without the program: for who counts while others use that.
pub struct CountsMap {
    map: PerCpuArray<MapData, [u64; PLACES]>,
}

impl CountsMap {
    /// Of the map `flowyard_counts` ([`KernelSteer::counts_map`](crate::KernelSteer::counts_map), or one that was
    /// pinned).
    ///
    /// # Errors
    /// A map of another shape.
    pub fn new(map: MapData) -> Result<CountsMap, KernelError> {
        let map = PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(|e| failed(&e))?;
        Ok(CountsMap { map })
    }

    /// What the program has counted on a queue; nothing on a queue that there is not.
    ///
    /// # Errors
    /// The system's.
    pub fn of(&self, queue: u32) -> Result<Counts, KernelError> {
        let mut counts = Counts::default();
        if queue < self.map.len() {
            self.add(queue, &mut counts)?;
        }
        Ok(counts)
    }

    /// What the program has counted on all queues.
    ///
    /// # Errors
    /// The system's.
    pub fn all(&self) -> Result<Counts, KernelError> {
        let mut sum = Counts::default();
        self.add_all(&mut sum)?;
        Ok(sum)
    }

    /// Adds what was counted on all queues.
    pub(crate) fn add_all(&self, sum: &mut Counts) -> Result<(), KernelError> {
        (0..self.map.len()).try_for_each(|queue| self.add(queue, sum))
    }

    fn add(&self, queue: u32, sum: &mut Counts) -> Result<(), KernelError> {
        self.map.get(&queue, 0).map_err(|e| failed(&e))?.iter().for_each(|value| sum.add(value));
        Ok(())
    }

    pub(crate) fn data(&self) -> &MapData {
        IterableMap::map(&self.map)
    }
}

impl std::fmt::Debug for CountsMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountsMap").field("queues", &self.map.len()).finish_non_exhaustive()
    }
}

fn failed(error: &MapError) -> KernelError {
    KernelError::system("read the counters of the steering program", error)
}

impl Counts {
    /// Figures may be anybody's: they are read from maps that were left.
    fn add(&mut self, raw: &[u64; PLACES]) {
        let at = |place: usize| raw.get(place).copied().unwrap_or(0);
        let heads = [
            &mut self.seen,
            &mut self.steered,
            &mut self.straight,
            &mut self.returned,
            &mut self.redirected,
            &mut self.passed,
            &mut self.too_long,
            &mut self.no_room,
        ];
        for (place, sum) in heads.into_iter().enumerate() {
            *sum = sum.saturating_add(at(place));
        }
        self.to_host = self.to_host.saturating_add(at(TO_HOST));
        self.unserved = self.unserved.saturating_add(at(UNSERVED));
        for (action, sum) in self.verdicts.iter_mut().enumerate() {
            *sum = sum.saturating_add(at(VERDICTS + action));
        }
        for (mark, sum) in self.marked.iter_mut().enumerate() {
            *sum = sum.saturating_add(at(MARKS + mark));
        }
    }

    /// Packets that took the fallback action, for whatever reason.
    pub fn fell_back(&self) -> u64 {
        self.passed.saturating_add(self.no_room).saturating_add(self.unserved)
    }

    /// Packets that ended in a user's program, whatever it said.
    pub fn by_user(&self) -> u64 {
        let others = [self.to_host, self.unserved, self.no_room, self.straight, self.returned];
        others.into_iter().fold(self.seen, u64::saturating_sub)
    }

    /// Packets left to user space for this reason.
    pub fn marked_by(&self, mark: Mark) -> u64 {
        self.marked.get(mark as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_the_fallback_is_counted_and_no_figure_overflows() {
        let mut raw = [0; PLACES];
        // Seen, passed, without metadata, unserved.
        (raw[0], raw[5], raw[7], raw[UNSERVED]) = (60, 10, 20, 30);
        let mut counts = Counts::default();
        counts.add(&raw);
        assert_eq!((counts.fell_back(), counts.no_room, counts.unserved, counts.by_user()), (60, 20, 30, 10));
        // As anybody may have written them.
        (0..2).for_each(|_| counts.add(&[u64::MAX; PLACES]));
        assert_eq!((counts.fell_back(), counts.seen, counts.by_user()), (u64::MAX, u64::MAX, 0));
    }
}
