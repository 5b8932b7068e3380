//! What is compared first, for eight rules at once: one word of facts under a mask, one range of ports, one range
//! of IPv4 addresses. The compiler makes vector instructions of it, those that every x86-64 has.

use super::facts::{self, Facts};
use super::keys::{Key, Keys};

/// Rules of a block.
pub(super) const LANES: usize = 8;

/// The quick part of a rule. One without ports or networks has the whole range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quick {
    mask: u64,
    value: u64,
    port: (u32, u32),
    net: (u32, u32),
}

impl Quick {
    /// The quick part of `keys`, and the keys that it leaves.
    pub(super) fn of(keys: &Keys) -> (Quick, Box<[Key]>) {
        let mut quick = Quick { mask: 0, value: 0, port: (0, u32::MAX), net: (0, u32::MAX) };
        let left = keys.present().filter(|&key| !quick.take(key, keys)).collect();
        (quick, left)
    }

    /// Takes in what it can of a key. Answers whether that is all of it.
    fn take(&mut self, key: Key, keys: &Keys) -> bool {
        let need = match key {
            Key::Protocol => facts::IP,
            Key::Port | Key::Sport | Key::Dport => facts::PORTS,
            Key::Net => match &keys.net {
                Some(net) if net.v6.is_empty() => facts::V4,
                Some(net) if net.v4.is_empty() => facts::V6,
                _ => 0,
            },
            _ => 0,
        };
        self.mask |= need;
        self.value |= need;
        if let Some((part, value)) = key.part().zip(keys.get(key).and_then(|set| set.single())) {
            self.mask |= part.mask();
            self.value |= part.at_place(value);
            return true;
        }
        let range = match key {
            Key::Port => keys.get(key).and_then(|set| set.single_range()),
            Key::Net if need == facts::V4 => keys.net.as_ref().and_then(|net| net.v4.single_range()),
            _ => None,
        };
        match (key, range) {
            (Key::Port, Some(range)) => self.port = range,
            (_, Some(range)) => self.net = range,
            (_, None) => return false,
        }
        true
    }
}

/// Numbers from a low one to a high one, so written that one subtraction and one signed comparison tell.
#[derive(Debug, Clone, Copy)]
struct Spans {
    low: [u32; LANES],
    span: [i32; LANES],
}

/// 2^31: what turns an order of unsigned numbers into one of signed numbers.
const TURN: u32 = 1 << 31;

impl Spans {
    fn set(&mut self, lane: usize, (low, high): (u32, u32)) {
        self.low[lane] = low.wrapping_add(TURN);
        self.span[lane] = (high - low).wrapping_add(TURN) as i32;
    }

    /// Whether neither number is in the range of the lane.
    #[inline(always)]
    fn miss(&self, lane: usize, a: u32, b: u32) -> bool {
        let beyond = |number: u32| number.wrapping_sub(self.low[lane]) as i32 > self.span[lane];
        beyond(a) & beyond(b)
    }
}

/// The quick parts of eight rules, one a lane.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Block {
    mask: [[u32; LANES]; 2],
    value: [[u32; LANES]; 2],
    port: Spans,
    net: Spans,
}

impl Block {
    /// A block of at most [`LANES`] rules; lanes that are left over pass nothing.
    pub(super) fn new(rules: &[Quick]) -> Block {
        let none = Spans { low: [0; LANES], span: [0; LANES] };
        let mut block = Block { mask: [[0; LANES]; 2], value: [[1; LANES]; 2], port: none, net: none };
        for (lane, rule) in rules.iter().enumerate().take(LANES) {
            for half in 0..2 {
                block.mask[half][lane] = (rule.mask >> (32 * half)) as u32;
                block.value[half][lane] = (rule.value >> (32 * half)) as u32;
            }
            block.port.set(lane, rule.port);
            block.net.set(lane, rule.net);
        }
        block
    }

    /// The lanes that pass, a bit each.
    #[inline(always)]
    pub(super) fn passes(&self, facts: &Facts) -> u32 {
        let word = [facts.word as u32, (facts.word >> 32) as u32];
        let (sport, dport) = (u32::from(facts.sport), u32::from(facts.dport));
        let mut miss = [0u32; LANES];
        for (lane, miss) in miss.iter_mut().enumerate() {
            let low = (word[0] & self.mask[0][lane]) ^ self.value[0][lane];
            let high = (word[1] & self.mask[1][lane]) ^ self.value[1][lane];
            let ranges = self.port.miss(lane, sport, dport) | self.net.miss(lane, facts.src, facts.dst);
            *miss = low | high | u32::from(ranges);
        }
        // Seldom any: which ones is asked only then.
        if miss.iter().fold(false, |any, &miss| any | (miss == 0)) {
            return miss.iter().rev().fold(0, |bits, &miss| (bits << 1) | u32::from(miss == 0));
        }
        0
    }
}
