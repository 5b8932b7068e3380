//! The score on captures that nobody here made, as a gate: it can only rise.
//!
//! `inspect --json --rings 16` is held against an oracle, one JSON-lines file a capture in
//! `oracle.tar.gz` beside the captures, frame by frame:
//!
//! - **tuples**: the innermost flow (addresses, protocol, ports) is the oracle's, on every frame of
//!   which the oracle is sure;
//! - **splits**: every frame of a conversation has the same ring. The oracle says what a conversation
//!   is: both directions of the innermost flow, with the identifier of a ping; later fragments belong
//!   to the nearest first fragment of their datagram, at any level; ICMP errors belong to the flow that
//!   they quote, if the quotation goes as far as its ports.
//!
//! What disagrees and is not in [`KNOWN_TUPLES`] or [`KNOWN_SPLITS`], frame by frame with the reason,
//! fails the test; so does what is listed there and agrees: take it out, so that it stays gone.
//!
//! - **load**: conversations on the busiest ring, over the mean of all rings, are at most [`BUSIEST`]
//!   over the whole corpus, in the median of [`SEEDS`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use flowyard::port::capture::CaptureReader;
use flowyard::steer::{Classifier, FIXED_SEED, FlowHash, Frame, LinkType, Policy, Table, Verdict};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowyard");
const RINGS: usize = 16;

/// The seeds by which load is judged; the first is the program's for files.
const SEEDS: [u64; 5] = [FIXED_SEED, 1, 2, 3, 4];
/// Conversations on the busiest ring over the mean, at most.
const BUSIEST: f64 = 1.2;

/// Conversations on each ring, for each seed.
type Loads = [[u64; RINGS]; SEEDS.len()];

/// Flags of frames of which the oracle itself is unsure.
const UNSURE: [&str; 7] =
    ["malformed", "short", "pw-guess", "srcport-tunnel", "inner-nonip", "tunnel-port-opaque", "version-mismatch"];

/// Frames of a capture on which we and the oracle differ, and why that is so.
struct Known {
    capture: &'static str,
    frames: &'static [RangeInclusive<u64>],
    #[allow(dead_code)] // for whoever reads the table
    reason: &'static str,
}

/// Frames whose flow is not the oracle's.
const KNOWN_TUPLES: &[Known] = &[
    Known {
        capture: "flowlab.06_vxlan_invalid_flags_or_reserved_bits.c6bb7aaf.pcap",
        frames: &[1..=1],
        reason: "the I flag is 0, which RFC 7348 section 5 says must be 1: taken for UDP that happens to use the port",
    },
    Known {
        capture: "flowlab.08_pbb_inner_llc_snap_ipv4_udp.8602ad45.pcap",
        frames: &[1..=1],
        reason: "the oracle stops at LLC inside 802.1ah; we find the IPv4 packet behind it",
    },
    Known {
        capture: "flowlab.28_pppoe_session_unsupported_version_with_ipv4_trailer.55accbe7.pcap",
        frames: &[1..=1],
        reason: "the version is not 1 (RFC 2516 section 4): what follows need not be what it was in version 1",
    },
    Known {
        capture: "ndpi.someip_sd_sample.eb64af3e.pcap",
        frames: &[1..=6],
        reason: "the oracle stops at PPI; we find the packet behind it",
    },
    Known {
        capture: "pcpp.igmplayer.327e33c4.pcap",
        frames: &[1..=2],
        reason: "a damaged file, which the oracle takes for a variant of the format whose packets begin 4 bytes later",
    },
    Known { capture: "samples.udp_lite_full_coverage_0.c94be95c.pcap", frames: &[1..=1], reason: UDP_LITE },
    Known { capture: "samples.udp_lite_illegal_1-7.68cac8f3.pcap", frames: &[1..=7], reason: UDP_LITE },
    Known { capture: "samples.udp_lite_normal_coverage_8-20.504d763d.pcap", frames: &[1..=13], reason: UDP_LITE },
    Known { capture: "yanet.007_decap_gre-send.330addff.pcap", frames: &[7..=7], reason: GRE_VERSION },
    Known { capture: "yanet.023_acl_decaps-002-send.aac52b90.pcap", frames: &[7..=7], reason: GRE_VERSION },
];

const UDP_LITE: &str = "the oracle gives no ports of UDP-Lite, which has them (RFC 3828 section 3)";
const GRE_VERSION: &str = "GRE of version 4, which nobody has defined: not looked into (RFC 2784 section 2.3.1)";

/// Conversations on several rings, by their first frame.
///
/// All are in two captures of TCP datagrams from 10.0.0.2 to 10.128.0.2 with identification 0xa0: 4 and
/// 29 datagrams, one after the other, never mixed. Datagram `k` is frames `313 k + 1` to `313 k + 313`: a
/// first piece, then offsets 16, 32, … 4992, each where the last one ended, the last without MF; 5000
/// bytes, complete, within 5 ms. The next begins 0.300 to 0.305 s later. So it is known which first
/// each piece belongs to, and [`reused_identifiers_stay_apart`] holds us to it. The oracle gives a piece to
/// the first that is nearest by frame number: pieces 158 to 313 of each datagram to the first of the
/// next, which was sent 0.3 s after them. In each group here the pieces of the second column are the
/// oracle's mistake, and those of the fourth are where they belong. (Where the two rings are one by
/// chance, as for the groups at 784 and 7983, nothing shows.) The first two rows are in both captures, the
/// others in nfstream's.
///
/// | pieces | of the first in | given to that in | its own pieces | seconds too early | rings |
/// |---|---|---|---|---|---|
/// | 158-313 | 1 | 314 | 314-470 | 0.300 | 9, 11 |
/// | 471-626 | 314 | 627 | 627-783 | 0.301 | 11, 6 |
/// | 1097-1252 | 940 | 1253 | 1253-1409 | 0.301 | 6, 8 |
/// | 1410-1565 | 1253 | 1566 | 1566-1722 | 0.300 | 8, 15 |
/// | 1723-1878 | 1566 | 1879 | 1879-2035 | 0.300 | 15, 2 |
/// | 2036-2191 | 1879 | 2192 | 2192-2348 | 0.300 | 2, 7 |
/// | 2349-2504 | 2192 | 2505 | 2505-2661 | 0.300 | 7, 10 |
/// | 2662-2817 | 2505 | 2818 | 2818-2974 | 0.300 | 10, 2 |
/// | 2975-3130 | 2818 | 3131 | 3131-3287 | 0.300 | 2, 3 |
/// | 3288-3443 | 3131 | 3444 | 3444-3600 | 0.300 | 3, 15 |
/// | 3601-3756 | 3444 | 3757 | 3757-3913 | 0.300 | 15, 0 |
/// | 3914-4069 | 3757 | 4070 | 4070-4226 | 0.300 | 0, 5 |
/// | 4227-4382 | 4070 | 4383 | 4383-4539 | 0.301 | 5, 4 |
/// | 4540-4695 | 4383 | 4696 | 4696-4852 | 0.301 | 4, 9 |
/// | 4853-5008 | 4696 | 5009 | 5009-5165 | 0.300 | 9, 0 |
/// | 5166-5321 | 5009 | 5322 | 5322-5478 | 0.300 | 0, 13 |
/// | 5479-5634 | 5322 | 5635 | 5635-5791 | 0.300 | 13, 8 |
/// | 5792-5947 | 5635 | 5948 | 5948-6104 | 0.300 | 8, 14 |
/// | 6105-6260 | 5948 | 6261 | 6261-6417 | 0.300 | 14, 13 |
/// | 6418-6573 | 6261 | 6574 | 6574-6730 | 0.300 | 13, 9 |
/// | 6731-6886 | 6574 | 6887 | 6887-7043 | 0.300 | 9, 14 |
/// | 7044-7199 | 6887 | 7200 | 7200-7356 | 0.300 | 14, 3 |
/// | 7357-7512 | 7200 | 7513 | 7513-7669 | 0.300 | 3, 6 |
/// | 7670-7825 | 7513 | 7826 | 7826-7982 | 0.300 | 6, 1 |
/// | 8296-8451 | 8139 | 8452 | 8452-8608 | 0.300 | 1, 13 |
/// | 8609-8764 | 8452 | 8765 | 8765-9077 | 0.300 | 13, 6 |
///
/// No rule that we could have would agree and be right. Nearest by frame number needs the next first
/// before it can place a piece whose own first is there: the pieces would wait for 0.3 s, and a whole
/// datagram would be torn. A first that follows the earlier datagram of its identifier instead of its
/// own ports would agree here, where nothing but pieces is in the capture (and moves no frame of any other
/// capture); but it parts a conversation from its own whole packets as soon as two conversations of the
/// same hosts use an identifier again, and lets whoever sends firsts with identifiers to come choose the ring.
const KNOWN_SPLITS: &[Known] = &[
    Known {
        capture: "ndpi.ip_fragmented_garbage.c19830e4.pcap",
        frames: &[158..=158, 471..=471],
        reason: SAME_IDENTIFIER,
    },
    Known {
        capture: "nfstream.ip_fragmented_garbage.5e6b5a18.pcap",
        frames: &[
            158..=158,
            471..=471,
            1097..=1097,
            1410..=1410,
            1723..=1723,
            2036..=2036,
            2349..=2349,
            2662..=2662,
            2975..=2975,
            3288..=3288,
            3601..=3601,
            3914..=3914,
            4227..=4227,
            4540..=4540,
            4853..=4853,
            5166..=5166,
            5479..=5479,
            5792..=5792,
            6105..=6105,
            6418..=6418,
            6731..=6731,
            7044..=7044,
            7357..=7357,
            7670..=7670,
            8296..=8296,
            8609..=8609,
        ],
        reason: SAME_IDENTIFIER,
    },
];

const SAME_IDENTIFIER: &str = "the oracle's rule gives the second half of each datagram to the first piece of the next, \
                               which is nearer by number and 0.3 s later";

/// A conversation as the oracle describes it. Its two ends are in order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Group {
    Flow { proto: u64, ends: [(String, Option<u64>); 2], ping: Option<u64> },
    Datagram(Datagram),
}

/// Source, destination, protocol, identification.
type Datagram = (String, String, u64, Option<u64>);

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn group(flow: &Value, ping: Option<u64>) -> Option<Group> {
    let mut ends = [(text(&flow["src"])?, flow["sport"].as_u64()), (text(&flow["dst"])?, flow["dport"].as_u64())];
    ends.sort();
    Some(Group::Flow { proto: flow["proto"].as_u64()?, ends, ping })
}

fn is_icmp(frame: &Value) -> bool {
    matches!(frame["proto"].as_u64(), Some(1 | 58))
}

fn whole_group(frame: &Value) -> Option<Group> {
    group(frame, if is_icmp(frame) { frame["ids"]["icmp_id"].as_u64() } else { None })
}

fn datagram(level: &Value) -> Option<Datagram> {
    Some((text(&level["src"])?, text(&level["dst"])?, level["proto"].as_u64()?, level["frag_id"].as_u64()))
}

fn flags(frame: &Value) -> impl Iterator<Item = &str> {
    frame["flags"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn is_unsure(frame: &Value) -> bool {
    flags(frame).any(|flag| UNSURE.contains(&flag))
}

fn levels(frame: &Value) -> &[Value] {
    frame["levels"].as_array().map_or(&[], Vec::as_slice)
}

fn number(frame: &Value) -> u64 {
    frame["frame"].as_u64().expect("a frame number")
}

/// The conversation of each frame that has one.
fn conversations(oracle: &[Value]) -> BTreeMap<u64, Group> {
    let mut firsts: HashMap<Datagram, Vec<(u64, Group)>> = HashMap::new();
    for frame in oracle {
        let Some(group) = whole_group(frame) else { continue };
        let pieces = levels(frame).iter().filter(|level| level["fragment"] == "first");
        for datagram in pieces.filter_map(datagram) {
            firsts.entry(datagram).or_default().push((number(frame), group.clone()));
        }
    }
    let of = |frame: &Value| -> Option<Group> {
        let own = whole_group(frame)?;
        if flags(frame).any(|flag| flag == "inner-nonip") {
            return None;
        }
        let quoted = &frame["quoted"];
        if frame["fragment"] == "later" {
            let mut datagram = datagram(frame)?;
            datagram.3 = levels(frame).last()?["frag_id"].as_u64();
            let candidates = firsts.get(&datagram).map_or(&[][..], Vec::as_slice);
            let nearest = candidates.iter().min_by_key(|(at, _)| at.abs_diff(number(frame)));
            return Some(nearest.map_or(Group::Datagram(datagram), |(_, group)| group.clone()));
        }
        if quoted["src"].is_string() {
            let has_ports = matches!(quoted["proto"].as_u64(), Some(6 | 17 | 132));
            return if has_ports && quoted["sport"].is_null() { None } else { group(quoted, None) };
        }
        Some(own)
    };
    oracle.iter().filter_map(|frame| Some((number(frame), of(frame)?))).collect()
}

/// The innermost flow; addresses as values, so that their spelling does not matter.
fn flow(frame: &Value) -> (Option<IpAddr>, Option<IpAddr>, [Option<u64>; 3]) {
    let address = |name: &str| {
        let text = frame[name].as_str()?;
        Some(text.split('%').next()?.parse().unwrap_or_else(|e| panic!("{text}: {e}")))
    };
    (address("src"), address("dst"), ["proto", "sport", "dport"].map(|name| frame[name].as_u64()))
}

#[derive(Default)]
struct Score {
    captures: u64,
    sure: u64,
    agree: u64,
    conversations: u64,
    unsure_splits: u64,
    loads: Loads,
    failed: Vec<String>,
    /// Capture and frame, and what to print.
    tuples: BTreeMap<(String, u64), String>,
    splits: BTreeMap<(String, u64), String>,
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).expect("a JSON object a line")).collect()
}

fn one(captures: &Path, name: &str, oracle: &[Value]) -> Score {
    let mut score = Score { captures: 1, ..Score::default() };
    let program = Command::new(PROGRAM)
        .args(["inspect", "--json", "--rings", &RINGS.to_string()])
        .arg(captures.join(name))
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    // 1 and 2: a damaged file, said so; what was readable counts.
    if !matches!(program.status.code(), Some(0..=2)) {
        score.failed.push(format!("{name}: {}", String::from_utf8_lossy(&program.stderr)));
        return score;
    }
    let seen: HashMap<u64, Value> = lines(&program.stdout).into_iter().map(|frame| (number(&frame), frame)).collect();
    for frame in oracle.iter().filter(|frame| !is_unsure(frame)) {
        score.sure += 1;
        let at = (name.to_owned(), number(frame));
        match seen.get(&at.1) {
            Some(ours) if flow(ours) == flow(frame) => score.agree += 1,
            Some(ours) => {
                let says = format!("{:?}, not {:?}; {}, {}", flow(ours), flow(frame), ours["stop"], frame["stack"]);
                score.tuples.insert(at, says);
            }
            None => drop(score.tuples.insert(at, "not reported".into())),
        }
    }
    let mut groups: BTreeMap<&Group, (BTreeSet<u64>, BTreeMap<u64, u64>)> = BTreeMap::new();
    let mut conversations = conversations(oracle);
    conversations.retain(|frame, _| seen.contains_key(frame));
    for (&frame, group) in &conversations {
        let Some(ring) = seen[&frame]["ring"].as_u64() else { continue };
        let (frames, rings) = groups.entry(group).or_default();
        frames.insert(frame);
        *rings.entry(ring).or_default() += 1;
    }
    let unsure: BTreeSet<u64> = oracle.iter().filter(|frame| is_unsure(frame)).map(number).collect();
    for (group, Sorted { alone, on }) in rings_by_seed(&captures.join(name), &conversations) {
        let printed = groups.get(group).map(|(_, rings)| rings);
        if alone && printed.is_some_and(|rings| !rings.contains_key(&(on[0] as u64))) {
            score.failed.push(format!("{name}: {group:?} on ring {}, printed: {printed:?}", on[0]));
        }
        for (load, ring) in score.loads.iter_mut().zip(on) {
            load[ring] += 1;
        }
    }
    for (group, (frames, rings)) in groups {
        score.conversations += 1;
        if rings.len() < 2 {
            continue;
        }
        if frames.is_disjoint(&unsure) {
            let first = *frames.first().expect("a group has a frame");
            score.splits.insert((name.to_owned(), first), format!("{group:?} on rings {rings:?}"));
        } else {
            score.unsure_splits += 1;
        }
    }
    score
}

/// The ring of a conversation for each seed, by one of its frames.
struct Sorted {
    /// That frame can be sorted by itself: it is no later fragment.
    alone: bool,
    on: [usize; SEEDS.len()],
}

/// Each conversation by its first frame that can be sorted by itself, or its first where there is none.
fn rings_by_seed<'a>(capture: &Path, conversations: &'a BTreeMap<u64, Group>) -> HashMap<&'a Group, Sorted> {
    let table = Table::even(RINGS as u16).expect("a table");
    let classifiers = SEEDS.map(|seed| {
        let (policy, hash) = (Policy::default(), FlowHash::Default { seed });
        Classifier { policy, hash, table: table.clone() }
    });
    let mut reader = CaptureReader::open(capture).expect("the program has read it");
    let mut sorted: HashMap<&Group, Sorted> = HashMap::new();
    while let Ok(Some(record)) = reader.next() {
        let Some(group) = conversations.get(&record.number) else { continue };
        if sorted.get(group).is_some_and(|sorted| sorted.alone) {
            continue;
        }
        let frame = Frame::new(record.bytes, LinkType(record.link));
        let verdicts = classifiers.each_ref().map(|classifier| classifier.classify(&frame, &mut (), 0));
        let on = verdicts.each_ref().map(|verdict| usize::from(verdict.decision().ring));
        match verdicts[0] {
            Verdict::Ring(_) => drop(sorted.insert(group, Sorted { alone: true, on })),
            Verdict::Hold(_) => drop(sorted.entry(group).or_insert(Sorted { alone: false, on })),
        }
    }
    sorted
}

/// Conversations on the busiest ring over the mean, for each seed, ascending: the third is the median.
fn busiest(loads: &Loads) -> [f64; SEEDS.len()] {
    let mut busiest = loads.map(|load| {
        let (most, sum) = (load.iter().max().copied().unwrap_or(0), load.iter().sum::<u64>());
        (most * RINGS as u64) as f64 / sum.max(1) as f64
    });
    busiest.sort_by(f64::total_cmp);
    busiest
}

#[test]
fn one_ring_too_busy_for_most_seeds_is_too_busy() {
    let even = [100; RINGS];
    let mut uneven = even;
    uneven[7] = 124;
    assert_eq!(busiest(&[even; 5]), [1.0; 5]);
    let median = |uneven_seeds| {
        let mut loads = [even; 5];
        loads[..uneven_seeds].fill(uneven);
        busiest(&loads)[SEEDS.len() / 2]
    };
    assert!(median(2) <= BUSIEST && median(3) > BUSIEST);
}

/// What differs without being known, and what is known without differing.
fn surprises(what: &str, found: &BTreeMap<(String, u64), String>, known: &[Known], names: &[String]) -> Vec<String> {
    let listed: BTreeSet<(String, u64)> = known
        .iter()
        .filter(|known| names.iter().any(|name| name == known.capture))
        .flat_map(|known| known.frames.iter().cloned().flatten().map(|frame| (known.capture.to_owned(), frame)))
        .collect();
    let new = found.iter().filter(|(at, _)| !listed.contains(*at));
    let new = new.map(|((capture, frame), says)| format!("{what} {capture} frame {frame}: {says}"));
    let gone = listed.iter().filter(|at| !found.contains_key(*at));
    let gone = gone.map(|(capture, frame)| {
        format!("{what} {capture} frame {frame}: agrees now; take it out of the table, so that it stays so")
    });
    new.chain(gone).collect()
}

fn oracle(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut all = BTreeMap::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(file)).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(capture) = name.as_deref().and_then(|name| name.strip_suffix(".jsonl")) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("readable");
            all.insert(capture.to_owned(), bytes);
        }
    }
    all
}

/// Every datagram of the captures of [`KNOWN_SPLITS`] is on one ring, and they are on many: pieces are put
/// together here by their offsets alone.
#[test]
fn reused_identifiers_stay_apart() {
    let Some(corpus) = std::env::var_os("FLOWYARD_CORPUS") else {
        eprintln!("SKIPPED: FLOWYARD_CORPUS names no folder of captures");
        return;
    };
    for known in KNOWN_SPLITS {
        let capture = Path::new(&corpus).join("captures").join(known.capture);
        let args = ["inspect", "--json", "--rings", &RINGS.to_string()];
        let output = Command::new(PROGRAM).args(args).arg(&capture).output().expect("the program runs");
        let printed = lines(&output.stdout);
        let rings: HashMap<u64, &Value> = printed.iter().map(|frame| (number(frame), &frame["ring"])).collect();
        let mut reader = CaptureReader::open(&capture).expect("a capture");
        let (mut datagrams, mut next_offset) = (Vec::new(), 0);
        while let Some(record) = reader.next().expect("whole") {
            let ip = &record.bytes[14..];
            let (word, len) = (u16::from_be_bytes([ip[6], ip[7]]), u16::from_be_bytes([ip[2], ip[3]]) - 20);
            let (offset, on) = ((word & 0x1fff) * 8, rings[&record.number]);
            assert_eq!((ip[0], &ip[4..6], offset), (0x45, &[0, 0xa0][..], next_offset), "frame {}", record.number);
            if offset == 0 {
                datagrams.push(on.as_u64());
            }
            assert_eq!(Some(&on.as_u64()), datagrams.last(), "{} frame {}", known.capture, record.number);
            next_offset = if word & 0x2000 == 0 { 0 } else { offset + len };
        }
        assert_eq!(next_offset, 0, "the last is complete");
        assert_eq!(datagrams.len() * 313, rings.len());
        datagrams.sort_unstable();
        datagrams.dedup();
        assert!(datagrams.len() > 2, "they are on rings {datagrams:?} only");
    }
}

#[test]
fn the_score_never_falls() {
    let Some(corpus) = std::env::var_os("FLOWYARD_CORPUS") else {
        eprintln!("SKIPPED: FLOWYARD_CORPUS names no folder of captures");
        return;
    };
    let (corpus, total) = (Path::new(&corpus), Mutex::new(Score::default()));
    let captures = corpus.join("captures");
    let oracle = oracle(&corpus.join("oracle.tar.gz"));
    let names: Vec<String> = oracle.keys().filter(|name| captures.join(name).exists()).cloned().collect();
    assert!(!names.is_empty(), "{} has captures and an oracle for them", corpus.display());
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut score = one(&captures, name, &lines(&oracle[name]));
                    let mut total = total.lock().expect("no panic while locked");
                    total.captures += score.captures;
                    total.sure += score.sure;
                    total.agree += score.agree;
                    total.conversations += score.conversations;
                    total.unsure_splits += score.unsure_splits;
                    for (total, load) in total.loads.as_flattened_mut().iter_mut().zip(score.loads.as_flattened()) {
                        *total += load;
                    }
                    total.failed.append(&mut score.failed);
                    total.tuples.append(&mut score.tuples);
                    total.splits.append(&mut score.splits);
                }
            });
        }
    });
    let score = total.into_inner().expect("no panic while locked");
    let busiest = busiest(&score.loads);
    println!(
        "{} captures: tuples {} of {} sure frames; split {} of {} conversations (and {} unsure); busiest ring \
         {busiest:.3?} x mean",
        score.captures,
        score.agree,
        score.sure,
        score.splits.len(),
        score.conversations,
        score.unsure_splits
    );
    let mut wrong = score.failed.clone();
    wrong.extend(surprises("tuple", &score.tuples, KNOWN_TUPLES, &names));
    wrong.extend(surprises("split", &score.splits, KNOWN_SPLITS, &names));
    let median = busiest[SEEDS.len() / 2];
    if median > BUSIEST {
        wrong.push(format!("the busiest ring has {median:.3} times the mean: {:?}", score.loads));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
