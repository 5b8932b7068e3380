//! Who holds a buffer: tokens that cannot be forged or doubled.
//!
//! A [`Buffer`] is the right to use one buffer of one region. It is not `Clone`; the only ways to
//! come by one are the [`Stock`] that creating a region yields, a [`Lent`] set that took it before,
//! and the ledger, which gives it back when its last holder has returned it. That is what makes the
//! safe access in [`Region`](crate::Region) sound: two tokens never name the same buffer, and each names one that its
//! region has, a region that this process made and can write.

/// The right to use one buffer of one region. Dropping it loses the buffer until the region ends.
/// Laid out as plug-ins read it: the index, then the region's number.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped buffer is lost to its region"]
#[repr(C)]
pub struct Buffer {
    pub(crate) index: u32,
    pub(crate) region: u32,
}

const _: () = assert!(std::mem::offset_of!(Buffer, index) == 0 && size_of::<Buffer>() == 8);

impl Buffer {
    /// A token of no buffer, to leave in the place of one that was taken out: no region is numbered 0, so whoever is
    /// given it refuses it.
    #[inline]
    pub const fn none() -> Buffer {
        Buffer { index: u32::MAX, region: 0 }
    }

    /// Index of the buffer in its region: what slots carry.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }
}

/// Free buffers of one owner: last in, first out, so that a buffer comes back while it is warm.
///
/// Made together with its region; [`Stock::split`] shares it among dispatchers. Never allocates
/// after creation: it has room for every buffer of the region.
#[derive(Debug)]
pub struct Stock {
    free: Vec<u32>,
    region: u32,
    first: u32,
    count: u32,
}

impl Stock {
    pub(crate) fn whole(region: u32, buffers: u32) -> Stock {
        // Reversed, so that the first buffers taken are the first of the region.
        Stock { free: (0..buffers).rev().collect(), region, first: 0, count: buffers }
    }

    /// Takes a free buffer, or says that none is left.
    #[inline]
    pub fn take(&mut self) -> Option<Buffer> {
        self.free.pop().map(|index| Buffer { index, region: self.region })
    }

    /// Puts a buffer back.
    ///
    /// # Panics
    /// If the buffer is another region's: our own mistake, never a peer's.
    #[inline]
    pub fn put(&mut self, buffer: Buffer) {
        assert_eq!(buffer.region, self.region, "a buffer goes back to its own region's stock");
        self.free.push(buffer.index);
    }

    /// The same, by index, of a buffer of this stock's region whose token the caller has given up.
    #[inline(always)]
    pub(crate) fn put_index(&mut self, index: u32) {
        self.free.push(index);
    }

    /// The region whose buffers it has.
    #[inline(always)]
    pub(crate) fn region(&self) -> u32 {
        self.region
    }

    /// Free buffers now.
    #[inline]
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether none is free.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Buffers that this stock was made with: what `len` is again when all have come home.
    pub fn capacity(&self) -> usize {
        self.count as usize
    }

    /// Indices of the buffers that belong to this stock: `first..first + capacity`.
    pub fn range(&self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }

    /// Splits off the last `count` buffers for another owner. Only a stock that has all its buffers
    /// can be split, before packets flow.
    ///
    /// Answers `None` if buffers are out, or `count` is more than there are.
    pub fn split(&mut self, count: u32) -> Option<Stock> {
        if self.free.len() != self.count as usize || count > self.count {
            return None;
        }
        self.count -= count;
        let first = self.first + self.count;
        let kept = self.range();
        self.free = kept.rev().collect();
        Some(Stock { free: (first..first + count).rev().collect(), region: self.region, first, count })
    }
}

/// Buffers whose indices were given to the kernel (a fill ring, a transmission in flight).
///
/// [`Lent::take`] turns an index that the kernel returns into the buffer again, once: an index that
/// was not lent, or comes back twice, answers `None`. One bit a buffer.
#[derive(Debug)]
pub struct Lent {
    out: Vec<u64>,
    region: u32,
    count: usize,
}

impl Lent {
    pub(crate) fn new(region: u32, buffers: u32) -> Lent {
        Lent { out: vec![0; (buffers as usize).div_ceil(64)], region, count: 0 }
    }

    /// Notes that `buffer` is out and gives its index to pass on.
    ///
    /// # Panics
    /// If the buffer is another region's.
    pub fn lend(&mut self, buffer: Buffer) -> u32 {
        assert_eq!(buffer.region, self.region, "a buffer is lent under its own region");
        self.out[buffer.index as usize / 64] |= 1 << (buffer.index % 64);
        self.count += 1;
        buffer.index
    }

    /// The buffer of `index`, if it was out.
    pub fn take(&mut self, index: u32) -> Option<Buffer> {
        let word = self.out.get_mut(index as usize / 64)?;
        let bit = 1 << (index % 64);
        if *word & bit == 0 {
            return None;
        }
        *word &= !bit;
        self.count -= 1;
        Some(Buffer { index, region: self.region })
    }

    /// Buffers that are out.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is out.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes every buffer back, for when the kernel's end is closed.
    pub fn take_all(&mut self, stock: &mut Stock) {
        for index in 0..self.out.len() * 64 {
            if let Some(buffer) = self.take(index as u32) {
                stock.put(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stock_splits_into_disjoint_ranges() {
        let mut a = Stock::whole(7, 10);
        let mut b = a.split(4).expect("all buffers are home");
        assert_eq!((a.range(), b.range()), (0..6, 6..10));
        let held = b.take().expect("four are free");
        assert_eq!(held.index(), 6);
        assert!(b.split(1).is_none(), "one is out");
        b.put(held);
        assert_eq!((a.len(), b.len()), (6, 4));
        assert!(a.split(7).is_none());
    }

    #[test]
    fn an_index_comes_back_once() {
        let mut stock = Stock::whole(1, 70);
        let mut lent = Lent::new(1, 70);
        for _ in 0..70 {
            let _ = lent.lend(stock.take().expect("70 buffers"));
        }
        assert!(lent.take(69).is_some_and(|b| b.index() == 69));
        assert!(lent.take(69).is_none() && lent.take(70).is_none() && lent.take(u32::MAX).is_none());
        assert_eq!(lent.len(), 69);
        lent.take_all(&mut stock);
        assert_eq!((stock.len(), lent.len()), (69, 0));
    }
}
