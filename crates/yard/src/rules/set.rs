//! Sets that a packet's fact is looked up in: ranges of numbers, and networks.

use std::net::IpAddr;

/// A number that ranges are made of.
pub(super) trait Number: Copy + Ord {
    /// The number after this one, if there is one.
    fn next(self) -> Option<Self>;
}

impl Number for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Number for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// Up to here every range is looked at; from here on they are searched by halves.
const FEW: usize = 8;

/// A set of numbers: ranges, both ends included, in order, none touching the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges<T>(Box<[(T, T)]>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Ranges(Box::new([]))
    }
}

impl<T: Number> FromIterator<(T, T)> for Ranges<T> {
    /// Ranges in any order, which may overlap.
    fn from_iter<I: IntoIterator<Item = (T, T)>>(ranges: I) -> Self {
        let mut ranges: Vec<(T, T)> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if last.1.next().is_none_or(|next| low <= next) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Ranges(merged.into())
    }
}

impl<T: Number> Ranges<T> {
    /// Whether `number` is one of them.
    #[inline]
    pub(super) fn contains(&self, number: T) -> bool {
        if self.0.len() <= FEW {
            return self.0.iter().any(|&(low, high)| low <= number && number <= high);
        }
        let after = self.0.partition_point(|&(low, _)| low <= number);
        after.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(_, high)| number <= high)
    }

    /// Whether every number of `other` is one of them.
    pub(super) fn covers(&self, other: &Ranges<T>) -> bool {
        other.0.iter().all(|&(low, high)| self.0.iter().any(|&(from, to)| from <= low && high <= to))
    }

    /// The ranges, in order.
    pub(super) fn all(&self) -> &[(T, T)] {
        &self.0
    }

    /// The number, if it is one.
    pub(super) fn single(&self) -> Option<T> {
        if let [(low, high)] = *self.0 { Some(low).filter(|_| low == high) } else { None }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set of networks of both families.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Nets {
    pub(super) v4: Ranges<u32>,
    pub(super) v6: Ranges<u128>,
}

/// The two addresses of a packet, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    V4(u32, u32),
    V6(u128, u128),
}

impl Nets {
    /// The set of `networks`, each an address and the length of its prefix.
    pub(super) fn new(networks: &[(IpAddr, u8)]) -> Nets {
        let v4 = networks.iter().filter_map(|&(address, prefix)| match address {
            IpAddr::V4(address) => {
                let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
                Some((address.to_bits() & !rest, address.to_bits() | rest))
            }
            IpAddr::V6(_) => None,
        });
        let v6 = networks.iter().filter_map(|&(address, prefix)| match address {
            IpAddr::V6(address) => {
                let rest = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
                Some((address.to_bits() & !rest, address.to_bits() | rest))
            }
            IpAddr::V4(_) => None,
        });
        Nets { v4: v4.collect(), v6: v6.collect() }
    }

    /// Whether either end lies in one of them.
    #[inline]
    pub(super) fn has_either(&self, ends: Ends) -> bool {
        match ends {
            Ends::V4(a, b) => self.v4.contains(a) || self.v4.contains(b),
            Ends::V6(a, b) => self.v6.contains(a) || self.v6.contains(b),
        }
    }

    /// Whether every address of `other` is in them.
    pub(super) fn covers(&self, other: &Nets) -> bool {
        self.v4.covers(&other.v4) && self.v6.covers(&other.v6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_that_they_were_made_of(
            made in prop::collection::vec((0u32..60, 0u32..6), 0..30),
            other in prop::collection::vec((0u32..60, 0u32..6), 0..4),
        ) {
            let set = |made: &[(u32, u32)]| made.iter().map(|&(low, more)| (low, low + more)).collect::<Ranges<u32>>();
            let has = |made: &[(u32, u32)], n: u32| made.iter().any(|&(low, more)| (low..=low + more).contains(&n));
            let (ranges, others) = (set(&made), set(&other));
            for n in 0..70 {
                prop_assert_eq!(ranges.contains(n), has(&made, n));
            }
            prop_assert!(ranges.0.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            prop_assert_eq!(ranges.covers(&others), (0..70).all(|n| !has(&other, n) || has(&made, n)));
        }
    }

    #[test]
    fn networks_of_every_length() {
        let net = |text: &str, prefix| Nets::new(&[(text.parse().expect("an address"), prefix)]);
        let v4 = |a: u32, b: u32| Ends::V4(a, b);
        let ten = net("10.0.0.0", 8);
        assert!(ten.has_either(v4(0x0a01_0203, 0)) && ten.has_either(v4(0, 0x0aff_ffff)));
        assert!(!ten.has_either(v4(0x0b00_0000, 0x09ff_ffff)) && !ten.has_either(Ends::V6(0, 0x0a01_0203)));
        assert!(net("0.0.0.0", 0).has_either(v4(u32::MAX, 7)) && !net("10.0.0.1", 32).has_either(v4(0x0a00_0002, 0)));
        assert!(net("::", 0).has_either(Ends::V6(u128::MAX, 5)) && net("::1", 128).has_either(Ends::V6(9, 1)));
        assert!(net("0.0.0.0", 0).covers(&ten) && !ten.covers(&net("0.0.0.0", 0)) && !ten.covers(&net("::1", 128)));
        let all = [("0.0.0.0".parse().expect("v4"), 1), ("128.0.0.0".parse().expect("v4"), 1)];
        assert_eq!(Nets::new(&all).v4.all(), [(0, u32::MAX)]);
    }
}
