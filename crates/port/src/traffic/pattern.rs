//! What packets carry: a slice of one block of noise, whose checksum is known without reading it.

use super::random::Random;

/// Longest payload.
pub(super) const PAYLOAD_MAX: usize = 4096;
/// Payloads begin at even offsets below this.
const STARTS: usize = 2048;

/// Noise, and the sum of its 16-bit words up to each.
#[derive(Debug)]
pub(super) struct Pattern {
    bytes: Vec<u8>,
    /// `sums[n]` is the sum of the first n words: at most 3072 × 65535, so 32 bits hold it.
    sums: Vec<u32>,
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Pattern {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.next() as u8).take(STARTS + PAYLOAD_MAX).collect();
        let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sums = std::iter::once(0).chain(words.scan(0, |sum, word| {
            *sum += word;
            Some(*sum)
        }));
        Pattern { sums: sums.collect(), bytes }
    }

    /// `len` bytes beginning at a place that `choice` decides, and the sum of their words; an odd
    /// last byte counts as the high half of a word.
    #[inline]
    pub(super) fn payload(&self, choice: u32, len: usize) -> (&[u8], u32) {
        let start = (choice as usize % STARTS) & !1;
        let end = start + len.min(PAYLOAD_MAX);
        let mut sum = self.sums[end / 2] - self.sums[start / 2];
        if end % 2 == 1 {
            sum += u32::from(self.bytes[end - 1]) << 8;
        }
        (&self.bytes[start..end], sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::sum;
    use super::Pattern;

    #[test]
    fn the_known_sum_is_the_sum() {
        let pattern = Pattern::new(1);
        for (choice, len) in [(0, 0), (7, 1), (2046, 4096), (2047, 4095), (99, 1000), (100, 33)] {
            let (bytes, known) = pattern.payload(choice, len);
            assert_eq!(bytes.len(), len);
            assert_eq!(
                super::super::frame::fold(known.into()),
                super::super::frame::fold(sum(bytes)),
                "{choice} {len}"
            );
        }
    }
}
