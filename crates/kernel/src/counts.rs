//! What the program has counted.

use crate::Mark;

/// Places of the kernel's array: `enum flowyard_count` in flowyard.bpf.h.
pub(crate) const PLACES: usize = 24;
const VERDICTS: usize = 8;
const MARKS: usize = 16;

/// Packets that the program has seen, on one queue or all. Every one of them is in exactly one of
/// `redirected`, `passed`, `too_long`, `no_room` and [`by_user`](Counts::by_user).
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
    /// What user's programs said by `flowyard_verdict`, by action: aborted, dropped, passed, sent back,
    /// redirected.
    pub verdicts: [u64; 5],
    /// Left to user space, by [`Mark`].
    pub marked: [u64; 6],
}

impl Counts {
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
        for (action, sum) in self.verdicts.iter_mut().enumerate() {
            *sum += at(VERDICTS + action);
        }
        for (mark, sum) in self.marked.iter_mut().enumerate() {
            *sum += at(MARKS + mark);
        }
    }

    /// Packets that ended in a user's program, whatever it said.
    pub fn by_user(&self) -> u64 {
        self.seen.saturating_sub(self.no_room + self.straight + self.returned)
    }

    /// Packets left to user space for this reason.
    pub fn marked_by(&self, mark: Mark) -> u64 {
        self.marked.get(mark as usize).copied().unwrap_or(0)
    }
}
