//! Receive-side scaling of an interface as its driver tells it: key, fields and indirection table.
//!
//! Reads only, by SIOCETHTOOL, which needs no privilege; never changes an interface. Works in the
//! network namespace of the calling thread.
//!
//! Invariants: the kernel writes to a request what its command says, so every request is a buffer of
//! our own that is at least as long as the longest answer to its command: [`RXNFC_WORDS`] for
//! questions about fields and rings, header + table + key as asked for by the request itself. The
//! kernel keeps no pointer beyond the call.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Which of a packet's four words a card hashes for one kind of flow: bits of the constants here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HashedFields(pub u8);

impl HashedFields {
    /// The source address.
    pub const SRC: u8 = 1;
    /// The destination address.
    pub const DST: u8 = 2;
    /// The source port.
    pub const SPORT: u8 = 4;
    /// The destination port.
    pub const DPORT: u8 = 8;
    /// Nothing: such packets go to the first entry of the table.
    pub const NONE: HashedFields = HashedFields(0);
    /// Both addresses.
    pub const ADDRESSES: HashedFields = HashedFields(HashedFields::SRC | HashedFields::DST);
    /// Both addresses and both ports.
    pub const ALL: HashedFields = HashedFields(15);

    /// Whether a word is hashed.
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Whether any port is hashed.
    pub fn ports(self) -> bool {
        self.has(HashedFields::SPORT | HashedFields::DPORT)
    }
}

/// Fields by kind of flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RssFields {
    /// TCP over IPv4, then IPv6.
    pub tcp: [HashedFields; 2],
    /// UDP over IPv4, then IPv6.
    pub udp: [HashedFields; 2],
    /// SCTP over IPv4, then IPv6.
    pub sctp: [HashedFields; 2],
    /// Any other packet, and fragments, over IPv4, then IPv6.
    pub other: [HashedFields; 2],
}

impl Default for RssFields {
    /// Addresses and ports of TCP and UDP, addresses of everything else.
    fn default() -> RssFields {
        let (all, addresses) = ([HashedFields::ALL; 2], [HashedFields::ADDRESSES; 2]);
        RssFields { tcp: all, udp: all, sctp: addresses, other: addresses }
    }
}

/// What a card does to the words before hashing, so that both directions come out the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RssTransform {
    /// Nothing: they are hashed as they stand.
    #[default]
    None,
    /// Source and destination each become their exclusive or.
    Xor,
    /// Source becomes the or of both, destination the exclusive or.
    OrXor,
}

/// Receive-side scaling of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key.
    pub key: Vec<u8>,
    /// Hash, modulo its length → queue.
    pub table: Vec<u32>,
    /// Receive queues that the driver says it has; the table may use fewer.
    pub queues: u32,
    /// What is hashed; the usual where the driver does not say.
    pub fields: RssFields,
    /// Whether the driver said which fields it hashes.
    pub fields_told: bool,
    /// What happens to the words before.
    pub transform: RssTransform,
}

/// Why the receive-side scaling of an interface could not be read or followed.
#[derive(Debug, thiserror::Error)]
#[error("interface {name:?}: cannot read {what}: {problem}; {remedy}")]
pub struct RssError {
    name: String,
    what: &'static str,
    problem: String,
    remedy: &'static str,
}

// include/uapi/linux/ethtool.h
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GRXRINGS: u32 = 0x2d;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `struct ethtool_rxfh` before its table: cmd, context, table entries, key bytes, function,
/// transform and 2 reserved bytes, reserved.
const RXFH_WORDS: usize = 6;
/// `struct ethtool_rxnfc` is 192 bytes; cmd, flow type, then a u64.
const RXNFC_WORDS: usize = 64;
const TOP: u8 = 1;
const XFRM_XOR: u8 = 1;
const XFRM_OR_XOR: u8 = 2;
/// Flow types: TCP, UDP, SCTP, other; IPv4, then IPv6.
const FLOW_TYPES: [[u32; 2]; 4] = [[1, 5], [2, 6], [3, 7], [0x10, 0x11]];
/// RXH_IP_SRC, RXH_IP_DST, RXH_L4_B_0_1, RXH_L4_B_2_3, in the order of our bits.
const RXH: [u64; 4] = [1 << 4, 1 << 5, 1 << 6, 1 << 7];
/// Longer tables and keys than these are no card's.
const MOST_ENTRIES: u32 = 1 << 16;
const MOST_KEY_BYTES: u32 = 1 << 10;
/// Queues of higher numbers than these are no card's.
const MOST_QUEUES: u32 = 1 << 16;

const NO_INTERFACE: &str =
    "`ip link` lists those there are; microsoft, symmetric or hexadecimal digits name a key without one";
const MODEL: &str = "name a key instead, such as microsoft, symmetric or hexadecimal digits";

impl Rss {
    /// Asks the driver of interface `name`.
    ///
    /// # Errors
    /// No such interface; a driver that has or tells nothing of the kind (veth, TAP, loopback: EOPNOTSUPP);
    /// a hash function other than Toeplitz.
    pub fn of_interface(name: &str) -> Result<Rss, RssError> {
        let fail = |what, problem: String, remedy| RssError { name: name.into(), what, problem, remedy };
        let failed = |what| {
            move |error: io::Error| match error.raw_os_error() {
                Some(libc::ENODEV) => fail(what, "there is no such interface".into(), NO_INTERFACE),
                Some(libc::EOPNOTSUPP) => fail(what, "its driver has none, or does not tell".into(), MODEL),
                _ => fail(what, error.to_string(), MODEL),
            }
        };
        let what = "its receive-side scaling";
        let mut sizes = [0; RXFH_WORDS];
        sizes[0] = ETHTOOL_GRSSH;
        ioctl(name, &mut sizes).map_err(failed(what))?;
        let (entries, key_bytes) = (sizes[2], sizes[3]);
        if entries == 0 || key_bytes == 0 {
            return Err(fail(what, "its driver tells no indirection table or no key".into(), MODEL));
        }
        if entries > MOST_ENTRIES || key_bytes > MOST_KEY_BYTES {
            return Err(fail(what, format!("a table of {entries} entries, a key of {key_bytes} bytes"), MODEL));
        }
        let mut answer = vec![0; RXFH_WORDS + entries as usize + key_bytes.div_ceil(4) as usize];
        answer[..4].copy_from_slice(&[ETHTOOL_GRSSH, 0, entries, key_bytes]);
        ioctl(name, &mut answer).map_err(failed(what))?;
        let (key, table, transform) = parse(&answer, entries, key_bytes).map_err(|p| fail(what, p, MODEL))?;
        let used = table.iter().max().map_or(1, |highest| highest + 1);
        let queues = ask(name, ETHTOOL_GRXRINGS, 0).map_or(used, |n| (n.min(MOST_QUEUES.into()) as u32).max(used));
        let told = fields(|flow_type| ask(name, ETHTOOL_GRXFH, flow_type));
        let (fields, fields_told) = (told.unwrap_or_default(), told.is_some());
        Ok(Rss { key, table, queues, fields, fields_told, transform })
    }
}

/// The answer to a question of `struct ethtool_rxnfc`.
fn ask(name: &str, command: u32, flow_type: u32) -> io::Result<u64> {
    let mut request = [0; RXNFC_WORDS];
    request[..2].copy_from_slice(&[command, flow_type]);
    ioctl(name, &mut request)?;
    let half = |word: u32| word.to_ne_bytes();
    let ([a, b, c, d], [e, f, g, h]) = (half(request[2]), half(request[3]));
    Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}

/// What is hashed, kind by kind; `None` if the driver does not say what it hashes of TCP over IPv4.
fn fields(ask: impl Fn(u32) -> io::Result<u64>) -> Option<RssFields> {
    ask(FLOW_TYPES[0][0]).ok()?;
    let of = |kind: usize, usual: [HashedFields; 2]| {
        [0, 1].map(|family: usize| match ask(FLOW_TYPES[kind][family]) {
            Ok(data) => HashedFields((0..4).fold(0, |bits, n| bits | u8::from(data & RXH[n] != 0) << n)),
            Err(_) => usual[family],
        })
    };
    let usual = RssFields::default();
    Some(RssFields { tcp: of(0, usual.tcp), udp: of(1, usual.udp), sctp: of(2, usual.sctp), other: of(3, usual.other) })
}

type Parsed = (Vec<u8>, Vec<u32>, RssTransform);

/// Key, table and transform in an answer to ETHTOOL_GRSSH; or why they cannot be followed.
fn parse(answer: &[u32], entries: u32, key_bytes: u32) -> Result<Parsed, String> {
    let [function, transform, ..] = answer[4].to_ne_bytes();
    if function != TOP && function != 0 {
        return Err(format!("its hash function is not Toeplitz (ETH_RSS_HASH bits {function:#x})"));
    }
    let transform = match transform {
        0 => RssTransform::None,
        XFRM_XOR => RssTransform::Xor,
        XFRM_OR_XOR => RssTransform::OrXor,
        other => return Err(format!("it transforms its input in an unknown way (RXH_XFRM bits {other:#x})")),
    };
    let (table, key) = answer[RXFH_WORDS..].split_at(entries as usize);
    if let Some(queue) = table.iter().find(|queue| **queue >= MOST_QUEUES) {
        return Err(format!("its indirection table names queue {queue}"));
    }
    let mut key: Vec<u8> = key.iter().flat_map(|word| word.to_ne_bytes()).collect();
    key.truncate(key_bytes as usize);
    Ok((key, table.to_vec(), transform))
}

/// One SIOCETHTOOL about interface `name`. `request` begins with the command and is as long as the
/// answer can be (see the module's invariants).
fn ioctl(name: &str, request: &mut [u32]) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is a valid one.
    let mut outer: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= outer.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in outer.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    outer.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
    let fd = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: `outer` names a NUL-terminated interface and points to `request`, which its makers in
    // this file have made as long as what the kernel writes for its command.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut outer) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_none_and_nonsense_is_not_there() {
        let error = Rss::of_interface("lo").expect_err("loopback has no queues").to_string();
        assert!(error.contains("does not tell") && error.contains("microsoft"), "{error}");
        for name in ["no-such-if0", "", "a-name-that-is-far-too-long"] {
            let error = Rss::of_interface(name).expect_err("there is none").to_string();
            assert!(error.contains("no such interface"), "{error}");
        }
    }

    /// As a card with 4 table entries and a key of 6 bytes answers.
    fn answer(function: u8, transform: u8) -> Vec<u32> {
        let mut words = vec![ETHTOOL_GRSSH, 0, 4, 6, u32::from_ne_bytes([function, transform, 0, 0]), 0];
        words.extend([0, 1, 0, 1]);
        words.extend([u32::from_ne_bytes([1, 2, 3, 4]), u32::from_ne_bytes([5, 6, 0, 0])]);
        words
    }

    #[test]
    fn a_card_s_answer_is_taken_apart() {
        let expected = (vec![1, 2, 3, 4, 5, 6], vec![0, 1, 0, 1], RssTransform::Xor);
        assert_eq!(parse(&answer(TOP, XFRM_XOR), 4, 6), Ok(expected));
        assert!(parse(&answer(2, 0), 4, 6).is_err_and(|e| e.contains("not Toeplitz")));
        assert!(parse(&answer(TOP, 4), 4, 6).is_err_and(|e| e.contains("unknown way")));
        let mut odd = answer(TOP, 0);
        odd[RXFH_WORDS + 2] = u32::MAX;
        assert!(parse(&odd, 4, 6).is_err_and(|e| e.contains("names queue 4294967295")));
    }

    #[test]
    fn fields_come_by_kind_and_are_the_usual_where_a_driver_is_silent() {
        assert_eq!(fields(|_| Err(io::ErrorKind::Unsupported.into())), None);
        let card = |flow_type| match flow_type {
            1 => Ok(0xf0),
            2 => Ok(0x30),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let told = fields(card).expect("it says");
        assert_eq!(told.udp, [HashedFields::ADDRESSES, HashedFields::ALL]);
        assert_eq!(RssFields { udp: [HashedFields::ALL; 2], ..told }, RssFields::default());
        assert!(told.tcp[0].ports() && !told.udp[0].ports() && told.udp[0].has(HashedFields::SRC));
    }
}
