//! How evenly each hash spreads conversations of consecutive addresses and ports.
//!
//! `cargo run -p flowyard-steer --release --example hash_quality`
//!
//! Prints χ² over buckets as standard deviations from what a random function gives: within ±3 is
//! chance, hundreds are rings that starve while others drown.

use flowyard_steer::{Conversation, FIXED_SEED, FlowHash, SYMMETRIC_KEY, ToeplitzKey};

const CONVERSATIONS: u32 = 1 << 20;
const BUCKETS: [usize; 3] = [16, 64, 4096];

type Spread = (&'static str, fn(u32) -> Conversation);

const SPREADS: [Spread; 4] = [
    ("4096 clients × 256 ports, one server", |n| {
        Conversation::v4((0x0a00_0000 + (n >> 8), 1024 + (n & 255) as u16), (0xc0a8_0001, 443), 6, 0)
    }),
    ("1024 clients × 1024 servers, fixed ports", |n| {
        Conversation::v4((0x0a00_0000 + (n >> 10), 5060), (0x0a80_0000 + (n & 1023), 5060), 17, 0)
    }),
    ("one pair, 16 × 65536 ports", |n| {
        Conversation::v4((0x0a00_0001, n as u16), (0x0a00_0002, 80 + (n >> 16) as u16), 6, 0)
    }),
    ("IPv6, 1024 × 1024 last words", |n| {
        let end = |last: u32| [0x2001_0db8_0000_0000, u64::from(last)];
        Conversation::v6((end(n >> 10), 443), (end(0x1_0000 + (n & 1023)), 443), 6, 0)
    }),
];

/// χ² of the low bits, as standard deviations from its mean.
fn deviation(hash: &FlowHash, make: fn(u32) -> Conversation, buckets: usize) -> f64 {
    let mut counts = vec![0u32; buckets];
    for n in 0..CONVERSATIONS {
        counts[hash.hash(&make(n)) as usize & (buckets - 1)] += 1;
    }
    let mean = f64::from(CONVERSATIONS) / buckets as f64;
    let chi: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
    let freedom = buckets as f64 - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

fn main() -> Result<(), flowyard_steer::KeyTooShort> {
    let hashes = [
        ("default", FlowHash::Default { seed: FIXED_SEED }),
        ("Toeplitz, Microsoft's key", FlowHash::Toeplitz(ToeplitzKey::microsoft())),
        ("Toeplitz, symmetric key", FlowHash::Toeplitz(ToeplitzKey::new(&SYMMETRIC_KEY)?)),
    ];
    println!("{CONVERSATIONS} conversations; χ² in standard deviations from chance\n");
    println!("{:42} {:26} {:>9} {:>9} {:>9}", "conversations", "hash", "16", "64", "4096");
    for (spread, make) in SPREADS {
        for (name, hash) in &hashes {
            print!("{spread:42} {name:26}");
            for buckets in BUCKETS {
                print!(" {:>+9.1}", deviation(hash, make, buckets));
            }
            println!();
        }
    }
    Ok(())
}
