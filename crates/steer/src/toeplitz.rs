//! The Toeplitz hash of receive side scaling, with any key.
//!
//! Source: Microsoft, "RSS Hashing Functions" and "Verifying the RSS Hash Calculation". The input
//! bytes are taken first bit first; every bit that is set adds (xor) the 32 key bits that begin at
//! its position. A table per byte position makes that one look-up a byte: 256 × 4 bytes for each of
//! 36 positions, 36 KiB a key, made once.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::Conversation;

/// The longest input: two IPv6 addresses and two ports.
const POSITIONS: usize = 36;

/// The shortest key that covers an input of [`POSITIONS`] bytes: 40 bytes.
const MIN_KEY: usize = POSITIONS + 4;

/// The key that Microsoft publishes and most drivers start with.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// The well-known symmetric key: 0x6d5a repeated. Only 16 bits of it are free, and so is the hash.
pub const SYMMETRIC_KEY: [u8; 40] = {
    let mut key = [0x6d; 40];
    let mut at = 1;
    while at < 40 {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// A key that is too short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyTooShort {
    /// Its length in bytes.
    pub len_bytes: usize,
}

impl fmt::Display for KeyTooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Toeplitz key of {} bytes: at least {MIN_KEY} are needed for IPv6", self.len_bytes)
    }
}

impl core::error::Error for KeyTooShort {}

/// A Toeplitz key, ready for use. Cloning shares the table.
#[derive(Clone)]
pub struct ToeplitzKey {
    key: Arc<[u8]>,
    table: Arc<[[u32; 256]]>,
}

impl ToeplitzKey {
    /// Prepares a key of 40 bytes or more; what lies beyond the 40th is not used by any input.
    /// Allocates 36 KiB.
    pub fn new(key: &[u8]) -> Result<Self, KeyTooShort> {
        if key.len() < MIN_KEY {
            return Err(KeyTooShort { len_bytes: key.len() });
        }
        let table: Vec<[u32; 256]> = key.windows(5).take(POSITIONS).map(column).collect();
        Ok(ToeplitzKey { key: key.into(), table: table.into() })
    }

    /// The Microsoft key.
    pub fn microsoft() -> Self {
        ToeplitzKey::new(&MICROSOFT_KEY).unwrap_or_else(|_| ToeplitzKey { key: Arc::new([]), table: Arc::new([]) })
    }

    /// The bytes of the key.
    pub fn bytes(&self) -> &[u8] {
        &self.key
    }

    /// The hash of raw input, at most 36 bytes: more are ignored.
    #[inline]
    pub fn hash(&self, input: &[u8]) -> u32 {
        let bytes = self.table.iter().zip(input);
        bytes.fold(0, |hash, (column, &byte)| hash ^ column[usize::from(byte)])
    }

    /// The hash of two IPv4 ends; without ports, the ports are left out of the input.
    #[inline]
    pub fn hash_v4(&self, src: [u8; 4], dst: [u8; 4], ports: Option<(u16, u16)>) -> u32 {
        let mut input = [0; 12];
        input[..4].copy_from_slice(&src);
        input[4..8].copy_from_slice(&dst);
        input[8..].copy_from_slice(&port_bytes(ports.unwrap_or((0, 0))));
        // A zero byte adds nothing: no ports and ports of 0 are the same.
        self.hash(&input)
    }

    /// The hash of two IPv6 ends; without ports, the ports are left out of the input.
    #[inline]
    pub fn hash_v6(&self, src: [u8; 16], dst: [u8; 16], ports: Option<(u16, u16)>) -> u32 {
        let mut input = [0; 36];
        input[..16].copy_from_slice(&src);
        input[16..32].copy_from_slice(&dst);
        input[32..].copy_from_slice(&port_bytes(ports.unwrap_or((0, 0))));
        self.hash(&input)
    }

    /// The hash of a conversation: lower end as source, higher as destination. What the policy adds
    /// to the key follows as if it were an end of its own, xored in.
    pub fn hash_conversation(&self, conversation: &Conversation) -> u32 {
        let (hash, extra) = match *conversation {
            Conversation::V4 { low, high, extra, .. } => {
                let ports = Some((low.1, high.1));
                let hash = self.hash_v4(low.0.to_be_bytes(), high.0.to_be_bytes(), ports);
                (hash, extra)
            }
            Conversation::V6 { low, high, extra, .. } => {
                let whole = |half: [u64; 2]| u128::from(half[0]) << 64 | u128::from(half[1]);
                let (a, b) = (whole(low.0).to_be_bytes(), whole(high.0).to_be_bytes());
                (self.hash_v6(a, b, Some((low.1, high.1))), extra)
            }
            Conversation::Mac { low, high, extra } => {
                let mut input = [0; 16];
                input[..8].copy_from_slice(&low.to_be_bytes());
                input[8..].copy_from_slice(&high.to_be_bytes());
                (self.hash(&input), extra)
            }
            Conversation::Link { link, extra } => (self.hash(&link.to_be_bytes()), extra),
        };
        hash ^ self.hash(&extra.to_be_bytes())
    }
}

/// What each value of the byte at a position adds, from the 40 key bits that begin there.
fn column(key: &[u8]) -> [u32; 256] {
    let window = key.iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    core::array::from_fn(|byte| {
        let bits = (0..8).filter(|bit| byte >> (7 - bit) & 1 == 1);
        bits.fold(0, |sum, bit| sum ^ (window >> (8 - bit)) as u32)
    })
}

fn port_bytes((src, dst): (u16, u16)) -> [u8; 4] {
    (u32::from(src) << 16 | u32::from(dst)).to_be_bytes()
}

impl PartialEq for ToeplitzKey {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for ToeplitzKey {}

impl fmt::Debug for ToeplitzKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ToeplitzKey").field(&self.key).finish()
    }
}
