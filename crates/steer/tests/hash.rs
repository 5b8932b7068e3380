//! The hashes: published vectors, and as even a spread as a random function gives.

use flowyard_steer::{Conversation, FIXED_SEED, FlowHash, HASH_VERSION, SYMMETRIC_KEY, ToeplitzKey, default_hash};

/// The vectors of the default hash, version 1: an implementation that agrees on these is right.
#[test]
fn vectors_of_version_1() {
    assert_eq!(HASH_VERSION, 1);
    let v4 = Conversation::v4((0x0a00_0001, 1000), (0xc0a8_0709, 2000), 6, 0);
    let half = |last: u64| [0x2001_0db8_0000_0000, last];
    let v6 = Conversation::v6((half(1), 1000), (half(2), 2000), 17, 0);
    let tagged = Conversation::v4((0x0a00_0001, 1000), (0xc0a8_0709, 2000), 6, 101 << 32 | 5000);
    let mac = Conversation::mac(0x0200_0000_0001, 0x0200_0000_0002, 0);
    let link = Conversation::Link { link: 147, extra: 0 };
    let vectors = [
        (0, v4, VECTOR0),
        (FIXED_SEED, v4, VECTOR1),
        (FIXED_SEED, v6, VECTOR2),
        (FIXED_SEED, tagged, VECTOR3),
        (FIXED_SEED, mac, VECTOR4),
        (FIXED_SEED, link, VECTOR5),
    ];
    for (number, (seed, conversation, expected)) in vectors.into_iter().enumerate() {
        let hash = default_hash(seed, &conversation);
        assert_eq!(hash, expected, "vector {number}: {hash:#010x}");
        assert_eq!(hash, by_the_book(seed, &conversation), "vector {number}");
    }
}

/// The specification in the plainest words, to hold the fast one against.
fn by_the_book(seed: u64, conversation: &Conversation) -> u32 {
    type End = (Vec<u32>, u16);
    let (kind, proto, low, high, extra): (u32, u8, End, End, u64) = match *conversation {
        Conversation::V4 { low, high, proto, extra } => (4, proto, (vec![low.0], low.1), (vec![high.0], high.1), extra),
        Conversation::V6 { low, high, proto, extra } => {
            let words = |a: [u64; 2]| a.iter().flat_map(|h| [(h >> 32) as u32, *h as u32]).collect();
            (6, proto, (words(low.0), low.1), (words(high.0), high.1), extra)
        }
        Conversation::Mac { low, high, extra } => {
            (2, 0, (vec![(low >> 16) as u32], low as u16), (vec![(high >> 16) as u32], high as u16), extra)
        }
        Conversation::Link { link, extra } => (1, 0, (vec![link.into()], 0), (vec![0], 0), extra),
    };
    let lo = |x: u64| x & 0xffff_ffff;
    let hi = |x: u64| x >> 32;
    let key =
        |i: usize| u64::from(flowyard_steer::CONSTANTS[i]) ^ if i.is_multiple_of(2) { lo(seed) } else { hi(seed) };
    let product = |i: usize, a: u64, b: u64| (a ^ key(i)) * (b ^ key(i + 1));
    let ports = u64::from(low.1) << 16 | u64::from(high.1);
    let mut x = product(0, ports, u64::from(proto) | u64::from(kind) << 8);
    for (i, (a, b)) in low.0.iter().zip(&high.0).enumerate() {
        x = x.rotate_left(23) ^ product(2 + 2 * i, u64::from(*a), u64::from(*b));
    }
    if extra != 0 {
        x = x.rotate_left(23) ^ product(10, lo(extra), hi(extra));
    }
    x = product(12, lo(x), hi(x));
    x = product(14, lo(x), hi(x));
    (lo(x) ^ hi(x)) as u32
}

const VECTOR0: u32 = 0x4e1b_53a3;
const VECTOR1: u32 = 0x0adb_93ff;
const VECTOR2: u32 = 0x8ae8_e75c;
const VECTOR3: u32 = 0xe595_dac6;
const VECTOR4: u32 = 0x9eaa_b04e;
const VECTOR5: u32 = 0x9a65_a864;

/// Microsoft, "Verifying the RSS Hash Calculation".
#[test]
fn vectors_of_toeplitz() {
    let key = ToeplitzKey::microsoft();
    let v4 = [
        ([66, 9, 149, 187], [161, 142, 100, 80], (2794, 1766), 0x51cc_c178, 0x323e_8fc2),
        ([199, 92, 111, 2], [65, 69, 140, 83], (14230, 4739), 0xc626_b0ea, 0xd718_262a),
        ([24, 19, 198, 95], [12, 22, 207, 184], (12898, 38024), 0x5c2b_394a, 0xd2d0_a5de),
        ([38, 27, 205, 30], [209, 142, 163, 6], (48228, 2217), 0xafc7_327f, 0x8298_9176),
        ([153, 39, 163, 191], [202, 188, 127, 2], (44251, 1303), 0x10e8_28a2, 0x5d18_09c5),
    ];
    for (src, dst, ports, with, without) in v4 {
        assert_eq!(key.hash_v4(src, dst, Some(ports)), with);
        assert_eq!(key.hash_v4(src, dst, None), without);
    }
    let v6 = [
        ("3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", (2794, 1766), 0x4020_7d3d, 0x2cc1_8cd5),
        ("3ffe:501:8::260:97ff:fe40:efab", "ff02::1", (14230, 4739), 0xdde5_1bbf, 0x0f0c_461c),
        ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", (44251, 38024), 0x02d1_feef, 0x4b61_e985),
    ];
    for (src, dst, ports, with, without) in v6 {
        let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(key.hash_v6(octets(src), octets(dst), Some(ports)), with);
        assert_eq!(key.hash_v6(octets(src), octets(dst), None), without);
    }
}

#[test]
fn a_symmetric_key_matches_a_card_in_both_directions() {
    let key = ToeplitzKey::new(&SYMMETRIC_KEY).unwrap();
    let (a, b) = ([10, 0, 0, 1], [192, 168, 7, 9]);
    let there = key.hash_v4(a, b, Some((1000, 2000)));
    assert_eq!(there, key.hash_v4(b, a, Some((2000, 1000))));
    let conversation = Conversation::v4((0xc0a8_0709, 2000), (0x0a00_0001, 1000), 6, 0);
    assert_eq!(FlowHash::Toeplitz(key).hash(&conversation), there);
    assert!(ToeplitzKey::new(&[0; 39]).is_err());
}

/// χ² of hashes over buckets, as standard deviations from what a random function gives.
fn deviation(buckets: usize, hashes: impl Iterator<Item = u32>) -> f64 {
    let mut counts = vec![0u32; buckets];
    let mut total = 0.0;
    for hash in hashes {
        counts[hash as usize & (buckets - 1)] += 1;
        total += 1.0;
    }
    let mean = total / buckets as f64;
    let chi: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
    let freedom = buckets as f64 - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

type Spread = (&'static str, fn(u32) -> Conversation);

/// Conversations whose differences are few and regular.
const SPREADS: [Spread; 12] = [
    ("consecutive addresses and ports", |n| {
        Conversation::v4((0x0a00_0000 + (n >> 8), 1024 + (n & 255) as u16), (0xc0a8_0001, 80), 6, 0)
    }),
    ("consecutive pairs", |n| Conversation::v4((0x0a00_0000 + n, 5000), (0x0a80_0000 + n, 5000), 17, 0)),
    ("neighbours", |n| Conversation::v4((0x0a00_0000 + (n >> 10), 0), (0x0a00_0400 + (n & 1023), 0), 1, 0)),
    ("one port", |n| Conversation::v4((0x0a00_0001, n as u16), (0x0a00_0002, 80), 6 + (n >> 16) as u8, 0)),
    ("both ports", |n| Conversation::v4((0x0a00_0001, (n >> 10) as u16), (0x0a00_0002, (n & 1023) as u16), 6, 0)),
    ("high bytes", |n| Conversation::v4((n << 12, 1000), (0x0000_0001, 1000), 6, 0)),
    ("high bytes of both", |n| Conversation::v4(((n >> 10) << 22, 1000), ((n & 1023) << 22, 1001), 6, 0)),
    ("IPv6 last words", |n| {
        Conversation::v6(
            ([0x2001_0db8 << 32, u64::from(n >> 10)], 443),
            ([0x2001_0db8 << 32, u64::from(n & 1023) << 32], 443),
            6,
            0,
        )
    }),
    ("IPv6 prefixes", |n| Conversation::v6(([u64::from(n) << 32, 1], 443), ([0x2001_0db8 << 32, 1], 443), 6, 0)),
    ("IPv6 same change in two words", |n| {
        Conversation::v6(([u64::from(n), u64::from(n)], 443), ([0x2001_0db8 << 32, 1], 443), 6, 0)
    }),
    ("IPv6 ports", |n| {
        Conversation::v6(([0x2001_0db8 << 32, 1], (n >> 10) as u16), ([0x2001_0db8 << 32, 2], (n & 1023) as u16), 17, 0)
    }),
    ("hardware addresses", |n| {
        Conversation::mac(0x0200_0000_0000 + u64::from(n >> 10), 0x0200_0001_0000 + u64::from(n & 1023), 0)
    }),
];

#[test]
fn spread_is_as_even_as_chance() {
    let count = 1 << if cfg!(debug_assertions) { 18 } else { 20 };
    let mut worst: f64 = 0.0;
    for (name, make) in SPREADS {
        for seed in [0, 1, FIXED_SEED, u64::MAX] {
            for buckets in [16, 64, 4096] {
                for shift in [0, 20] {
                    let hashes = (0..count).map(|n| default_hash(seed, &make(n)).rotate_right(shift));
                    let deviation = deviation(buckets, hashes);
                    worst = worst.max(deviation.abs());
                    assert!(deviation < 6.0, "{name}, seed {seed:#x}, {buckets} buckets: {deviation:.1} deviations");
                }
            }
        }
    }
    println!("worst deviation {worst:.1}");
}
