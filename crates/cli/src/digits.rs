//! Numbers and addresses as text, without the machinery behind `write!`: it was two thirds of what a line of
//! `inspect` cost, and a capture has many lines.

use std::fmt::Write;
use std::net::IpAddr;

/// What can be appended to a line.
pub trait Digits {
    /// A number.
    fn number(&mut self, n: u64);
    /// A number, right-aligned in at least `width` columns.
    fn number_right(&mut self, n: u64, width: usize);
    /// A number as eight hexadecimal digits.
    fn hex8(&mut self, n: u32);
    /// An address.
    fn address(&mut self, address: IpAddr);
}

/// Digits of the largest number.
const MOST_DIGITS: usize = 20;

impl Digits for String {
    fn number(&mut self, n: u64) {
        self.number_right(n, 1);
    }

    fn number_right(&mut self, mut n: u64, width: usize) {
        let mut digits = [b' '; MOST_DIGITS];
        let mut at = MOST_DIGITS;
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        let from = at.min(MOST_DIGITS.saturating_sub(width));
        self.push_str(std::str::from_utf8(&digits[from..]).unwrap_or_default());
    }

    fn hex8(&mut self, n: u32) {
        let mut digits = [0; 8];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(n >> (28 - 4 * at)) as usize & 15];
        }
        self.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                self.number(a.into());
                for part in [b, c, d] {
                    self.push('.');
                    self.number(part.into());
                }
            }
            IpAddr::V6(address) => drop(write!(self, "{address}")), // writing to a String cannot fail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_write_makes() {
        let numbers = [0, 1, 9, 10, 99, 100, 12_345, 999_999, 1_000_000, u64::from(u32::MAX), u64::MAX];
        for n in numbers {
            let (mut ours, mut theirs) = (String::new(), String::new());
            ours.number(n);
            ours.number_right(n, 7);
            ours.number_right(n, 4);
            ours.hex8(n as u32);
            write!(theirs, "{n}{n:>7}{n:>4}{:08x}", n as u32).expect("a String");
            assert_eq!(ours, theirs);
        }
        for address in ["0.0.0.0", "10.1.200.255", "255.255.255.255", "::", "2001:db8::1:0:0:1", "::ffff:1.2.3.4"] {
            let mut ours = String::new();
            ours.address(address.parse().expect("an address"));
            assert_eq!(ours, address);
        }
    }
}
