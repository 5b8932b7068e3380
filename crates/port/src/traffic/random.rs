//! Repeatable random numbers: wyrand, one multiplication a number. Not for secrets.

/// A stream of numbers that its seed decides.
#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        let mut random = Random { state: seed ^ 0x9e37_79b9_7f4a_7c15 };
        // Neighbouring seeds part ways before the first number is used.
        random.next();
        random
    }

    #[inline]
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.state) * u128::from(self.state ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// A number below `bound`, or 0 if that is 0.
    #[inline]
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// True in `share` of 1000 cases.
    #[inline]
    pub(super) fn permille(&mut self, share: u32) -> bool {
        self.below(1000) < share
    }
}
