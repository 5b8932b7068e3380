//! What the program has counted.

use aya::maps::{Map, MapData, MapError, PerCpuArray};

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

impl Counts {
    /// What a program counted on all queues, from its map `flowyard_counts`: for one whose owner is gone.
    ///
    /// # Errors
    /// A map of another shape, or the system's.
    pub fn read(map: MapData) -> Result<Counts, KernelError> {
        let fail = |e: MapError| KernelError::system("read the counters that a steering program left", &e);
        let map = PerCpuArray::<MapData, [u64; PLACES]>::try_from(Map::PerCpuArray(map)).map_err(fail)?;
        let mut sum = Counts::default();
        for queue in 0..map.len() {
            map.get(&queue, 0).map_err(fail)?.iter().for_each(|value| sum.add(value));
        }
        Ok(sum)
    }

    pub(crate) fn add(&mut self, raw: &[u64; PLACES]) {
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
            *sum += at(place);
        }
        self.to_host += at(TO_HOST);
        self.unserved += at(UNSERVED);
        for (action, sum) in self.verdicts.iter_mut().enumerate() {
            *sum += at(VERDICTS + action);
        }
        for (mark, sum) in self.marked.iter_mut().enumerate() {
            *sum += at(MARKS + mark);
        }
    }

    /// Packets that ended in a user's program, whatever it said.
    pub fn by_user(&self) -> u64 {
        let others = self.to_host + self.unserved + self.no_room + self.straight + self.returned;
        self.seen.saturating_sub(others)
    }

    /// Packets left to user space for this reason.
    pub fn marked_by(&self, mark: Mark) -> u64 {
        self.marked.get(mark as usize).copied().unwrap_or(0)
    }
}
