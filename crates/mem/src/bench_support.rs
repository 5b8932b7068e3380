//! For the benchmarks alone: the ring of a pipe with entries of any size, without the rest of it.
//!
//! A ring lies in a sealed memfd of its own. Both sides are made here and the file is closed before they are handed
//! out, so nobody else writes it; that is why [`BufferReader`] may turn an index back into the token.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::map::{self, Mapping};
use crate::pipe::SharedRing;
use crate::ring::{Consumer, Producer};
use crate::{Buffer, MemError, Region};

/// The writing end of a ring of entries of `W` words.
#[derive(Debug)]
pub struct RingWriter<const W: usize>(Producer<SharedRing<W>, W>);

/// The reading end of a ring of entries of `W` words.
#[derive(Debug)]
pub struct RingReader<const W: usize>(Consumer<SharedRing<W>, W>);

/// Makes a ring of `slots` entries, a power of two, mapped once: as a yard and a consumer of its own process have it.
///
/// # Errors
/// The system call that failed.
///
/// # Panics
/// If `slots` is no power of two.
pub fn ring<const W: usize>(slots: u32) -> Result<(RingWriter<W>, RingReader<W>), MemError> {
    let fd = file::<W>(slots)?;
    let map = Arc::new(Mapping::of(&fd, "ring", true)?);
    Ok(ends(&map, &map, slots))
}

/// As [`ring`], mapped once for each side: as two processes have it.
///
/// # Errors
/// As [`ring`].
///
/// # Panics
/// As [`ring`].
pub fn ring_mapped_twice<const W: usize>(slots: u32) -> Result<(RingWriter<W>, RingReader<W>), MemError> {
    let fd = file::<W>(slots)?;
    let side = || Mapping::of(&fd, "ring", true).map(Arc::new);
    Ok(ends(&side()?, &side()?, slots))
}

fn file<const W: usize>(slots: u32) -> Result<OwnedFd, MemError> {
    map::memfd("flowyard-bench-ring", SharedRing::<W>::bytes_alone(slots), false)
}

fn ends<const W: usize>(ours: &Arc<Mapping>, theirs: &Arc<Mapping>, slots: u32) -> (RingWriter<W>, RingReader<W>) {
    let (ours, theirs) = (SharedRing::alone(ours, slots), SharedRing::alone(theirs, slots));
    (RingWriter(Producer::new(ours)), RingReader(Consumer::new(theirs)))
}

impl<const W: usize> RingWriter<W> {
    /// Room for entries, at least `want` if there is that much.
    #[inline]
    pub fn reserve(&mut self, want: u32) -> u32 {
        self.0.reserve(want)
    }

    /// Writes the next entry of the batch; false if the ring is full.
    #[inline]
    pub fn fill(&mut self, entry: [u64; W]) -> bool {
        self.0.fill(entry)
    }

    /// Writes the next entries of the batch: what `entry` says for numbers 0 to `count`, or for as many as there was room
    /// for. Answers how many.
    #[inline]
    pub fn fill_batch(&mut self, count: u32, entry: impl FnMut(usize) -> [u64; W]) -> u32 {
        self.0.fill_batch(count, entry)
    }

    /// Shows the batch to the reader.
    #[inline]
    pub fn commit(&mut self) {
        self.0.commit();
    }

    /// Impossible indices that the peer showed.
    pub fn violations(&self) -> u64 {
        self.0.violations()
    }
}

impl<const W: usize> RingReader<W> {
    /// Entries that can be taken.
    #[inline]
    pub fn reserve(&mut self) -> u32 {
        self.0.reserve()
    }

    /// The next entry.
    #[inline]
    pub fn take(&mut self) -> Option<[u64; W]> {
        self.0.take()
    }

    /// Takes up to `most` entries, and hands each to `each`. Answers how many.
    #[inline]
    pub fn take_batch(&mut self, most: u32, each: impl FnMut([u64; W])) -> u32 {
        self.0.take_batch(most, each)
    }

    /// Gives the places of what was taken back.
    #[inline]
    pub fn release(&mut self) {
        self.0.release();
    }

    /// Impossible indices that the peer showed.
    pub fn violations(&self) -> u64 {
        self.0.violations()
    }
}

/// A ring whose entries name buffers in the low half of their first word, as slots do, and carry the
/// right to use them: the writing end.
#[derive(Debug)]
pub struct BufferWriter<const W: usize> {
    ring: RingWriter<W>,
    region: u32,
}

/// The reading end of a ring that carries buffers.
#[derive(Debug)]
pub struct BufferReader<const W: usize> {
    ring: RingReader<W>,
    region: u32,
}

/// Makes a ring of `slots` entries that carries buffers of `region`.
///
/// # Errors
/// As [`ring`].
pub fn buffer_ring<const W: usize>(
    region: &Region,
    slots: u32,
) -> Result<(BufferWriter<W>, BufferReader<W>), MemError> {
    let (writer, reader) = ring(slots)?;
    let region = region.id();
    Ok((BufferWriter { ring: writer, region }, BufferReader { ring: reader, region }))
}

impl<const W: usize> BufferWriter<W> {
    /// Room for entries, at least `want` if there is that much.
    #[inline]
    pub fn reserve(&mut self, want: u32) -> u32 {
        self.ring.reserve(want)
    }

    /// Sends a buffer, with `entry` to say what it is; the low half of its first word is overwritten.
    ///
    /// # Panics
    /// If the buffer is another region's, or the ring is full: reserve first.
    #[inline]
    pub fn send(&mut self, buffer: Buffer, mut entry: [u64; W]) {
        assert_eq!(buffer.region, self.region, "a ring carries buffers of one region");
        entry[0] = entry[0] & !0xffff_ffff | u64::from(buffer.index);
        assert!(self.ring.fill(entry), "the caller reserved");
    }

    /// Shows the batch to the reader.
    #[inline]
    pub fn commit(&mut self) {
        self.ring.commit();
    }
}

impl<const W: usize> BufferReader<W> {
    /// Entries that can be taken.
    #[inline]
    pub fn reserve(&mut self) -> u32 {
        self.ring.reserve()
    }

    /// The next buffer and its entry.
    #[inline]
    pub fn take(&mut self) -> Option<(Buffer, [u64; W])> {
        let entry = self.ring.take()?;
        // Sent once by `BufferWriter::send`, which consumed the token; nobody else writes the ring.
        Some((Buffer { index: entry[0] as u32, region: self.region }, entry))
    }

    /// Gives the places of what was taken back.
    #[inline]
    pub fn release(&mut self) {
        self.ring.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;

    #[test]
    fn buffers_come_out_as_they_went_in() {
        let geometry = Geometry::new(2048, 0, 4).expect("a good geometry");
        let (region, mut stock) = Region::create("bench", geometry).expect("memory");
        let (mut writer, mut reader) = buffer_ring::<4>(&region, 4).expect("memory");
        for round in 0..9 {
            let buffer = stock.take().expect("all are home");
            let index = buffer.index();
            assert!(writer.reserve(1) > 0);
            writer.send(buffer, [round << 32, 1, 2, round]);
            writer.commit();
            assert_eq!(reader.reserve(), 1);
            let (buffer, entry) = reader.take().expect("one was sent");
            reader.release();
            assert_eq!((buffer.index(), entry), (index, [round << 32 | u64::from(index), 1, 2, round]));
            stock.put(buffer);
        }
    }
}
