//! Instructions a packet, counted by valgrind: the same on any machine, however busy.
//!
//! Each part runs twice, the second time with twice the passes over the same packets; the difference
//! is the part's own, without start-up.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use flowyard::function::Function;
use flowyard::mem::{Consumer, Geometry, Ledger, Region, Slot, notify};
use flowyard::port::traffic::Carrier;
use flowyard::steer::{
    Conversation, Decision, FIXED_SEED, FragmentTable, Frame, Glance, LinkType, Observer, default_hash, dissect,
};
use flowyard_mem::bench_support::ring;

use crate::flow::{self, Looking, Sorting};
use crate::function;
use crate::machine;
use crate::packets::{NO_TUNNELS, Packets, is_ordinary};
use crate::peers::compile;
use crate::peers::dpdk::hash::Method;
use crate::peers::dpdk::pipeline::Parse;
use crate::peers::dpdk::ring::Entries;
use crate::peers::dpdk::{BURST, dpdk};
use crate::peers::etherparse;
use crate::pipeline::alone::{Shape, USUAL};
use crate::pipeline::{alone, bare, local};
use crate::steer::classifier;

/// Packets of a pass.
const COUNT: usize = 8192;

/// What can be counted: name, and what one pass does.
type Part = (&'static str, &'static str, fn(usize) -> u64);

const PARTS: [Part; 22] = [
    ("nothing", "the loop over packets", |n| over(&[], n, |bytes| u64::from(bytes[0]))),
    ("steer", "steer, all carriers mixed", |n| steer(&[], n)),
    ("dissect", "of that, dissection", |n| over(&[], n, dissect_only())),
    ("everything", "steer, with fragments and errors", everything),
    ("glance", "as much of that as a tag tells", |n| glance(&[], n)),
    ("glance-plain", "the same, plain", |n| glance(&[Carrier::Plain], n)),
    ("glance-gtp", "the same, GTP-U", |n| glance(&[Carrier::Gtp], n)),
    ("plain", "steer, plain", |n| steer(&[Carrier::Plain], n)),
    ("vlan", "steer, VLAN", |n| steer(&[Carrier::Vlan], n)),
    ("qinq", "steer, QinQ", |n| steer(&[Carrier::Qinq], n)),
    ("pppoe", "steer, PPPoE", |n| steer(&[Carrier::Pppoe], n)),
    ("gre", "steer, GRE", |n| steer(&[Carrier::Gre], n)),
    ("gtp", "steer, GTP-U", |n| steer(&[Carrier::Gtp], n)),
    ("vxlan", "steer, VXLAN", |n| steer(&[Carrier::Vxlan], n)),
    ("mpls", "steer, MPLS", |n| steer(&[Carrier::Mpls], n)),
    ("etherparse", "etherparse + sort + crc32c, mixed, blind to tunnels", |n| parse(&[], n)),
    ("etherparse-no-tunnels", "etherparse + sort + crc32c, no tunnels", |n| parse(&NO_TUNNELS, n)),
    ("steer-no-tunnels", "steer, no tunnels", |n| steer(&NO_TUNNELS, n)),
    ("hash", "the default hash, IPv4", hash),
    ("ring", "ring of 16 bytes, in and out", rings),
    ("pipe", "pipe: ledger, slot out, consumer, slot back", pipes),
    ("pipeline", "all of it: steer, tag, pipe, consumer", pipeline),
];

/// Those in C.
const PEERS: [Part; 12] = [
    ("plain-c", "plain C + sort + rte_hash_crc, mixed", |n| peer(Method::PlainCrc, &[], n)),
    ("plain-c-no-tunnels", "the same, no tunnels", |n| peer(Method::PlainCrc, &NO_TUNNELS, n)),
    ("plain-c-plain", "the same, plain", |n| peer(Method::PlainCrc, &[Carrier::Plain], n)),
    ("ptype", "rte_net_get_ptype + sort + rte_hash_crc, mixed, blind to tunnels", |n| peer(Method::PtypeCrc, &[], n)),
    ("ptype-no-tunnels", "the same, no tunnels", |n| peer(Method::PtypeCrc, &NO_TUNNELS, n)),
    ("ptype-plain", "the same, plain", |n| peer(Method::PtypeCrc, &[Carrier::Plain], n)),
    ("softrss-no-tunnels", "rte_net_get_ptype + rte_softrss, no tunnels", |n| {
        peer(Method::PtypeSoftrss, &NO_TUNNELS, n)
    }),
    ("lb", "netmap lb's hash, mixed, blind to QinQ, PPPoE, MPLS, GTP, VXLAN", |n| peer(Method::NetmapLb, &[], n)),
    ("lb-no-tunnels", "the same, no tunnels, blind to QinQ", |n| peer(Method::NetmapLb, &NO_TUNNELS, n)),
    ("lb-plain", "the same, plain", |n| peer(Method::NetmapLb, &[Carrier::Plain], n)),
    ("rte-ring", "rte_ring of 16 bytes, in and out", |n| rte_ring(Entries::Copied, n)),
    ("rte-ring-in-place", "the same, entries in place", |n| rte_ring(Entries::InPlace, n)),
];

/// DPDK's pipeline: what its two turns take.
const PIPELINES: [Part; 3] = [
    ("dpdk", "all of DPDK's pipeline, plain C", |n| dpdk_pipeline(Parse::Plain, n)),
    ("dpdk-ptype", "the same, rte_net_get_ptype, blind to tunnels", |n| dpdk_pipeline(Parse::Ptype, n)),
    ("dpdk-nothing", "the same, nothing looked at", |n| dpdk_pipeline(Parse::Nothing, n)),
];

/// The yard by a worker of its own: all of its turns, its looking at packets included.
const LOCAL: Part = ("local", "all of a worker's turns", |n| local(n));

/// What a function adds to the yard: one thread, so that nobody waits and the counts are the same each time.
const PROFILES: [Part; 10] = [
    ("yard", "none", |n| yard(n, None)),
    ("rings", "none, but 64 rings", |n| shaped(n, Shape { rings: 64, ..USUAL }, None)),
    ("function", "closure, says nothing", |n| yard(n, Some(function::silent()))),
    ("names-ring", "closure, a ring by the hash", |n| yard(n, Some(function::by_ring()))),
    ("plug-in", "plug-in in C, says nothing", |n| yard(n, function::silent_plugin(&std::env::temp_dir()))),
    ("plug-in-looks", "plug-in in C, looks at each hash", |n| yard(n, function::looking_plugin(&std::env::temp_dir()))),
    ("one-rule", "1 rule", |n| yard(n, Some(function::matching(1)))),
    ("rules", "10 rules", |n| yard(n, Some(function::matching(10)))),
    ("hundred-rules", "100 rules", |n| yard(n, Some(function::matching(100)))),
    ("matched", "1 rule that matches half of the packets", |n| yard(n, Some(function::matched()))),
];

/// Most instructions a packet that what every packet passes may take, as `ci.sh` builds it: 5 % above what it takes. Who
/// makes one of them shorter lowers its limit; who has to raise one says why.
const LIMITS: [(&str, f64); 6] =
    [("glance", 319.0), ("glance-plain", 234.0), ("steer", 381.0), ("hash", 42.0), ("ring", 20.4), ("pipe", 178.0)];
/// The same of a dispatcher's turns, and of a worker's, which reads its rings; a port's part and the benchmark's own included.
const LIMITS_OF_TURNS: [(&str, f64); 2] = [("yard", 840.0), ("local", 891.0)];

/// Counts what has a limit. Answers whether all keep to theirs, or nothing can be counted.
pub fn gate() -> bool {
    let none = Path::new("");
    if count("nothing", 0, none).is_none() {
        println!("SKIPPED: `valgrind` is not there (Debian: apt install valgrind)");
        return true;
    }
    let of_part = |(name, limit): &(&'static str, f64)| {
        let counted = count(name, 4, none)? - count(name, 2, none)?;
        Some((*name, counted as f64 / (2 * COUNT) as f64, *limit))
    };
    let of_turns = |(name, limit): &(&'static str, f64)| {
        count_turns(name).map(|n| (*name, n as f64 / (TURNED * COUNT) as f64, *limit))
    };
    let mut kept = true;
    println!("| instructions a packet | counted | limit |\n|---|---|---|");
    for counted in LIMITS.iter().map(of_part).chain(LIMITS_OF_TURNS.iter().map(of_turns)) {
        let Some((name, counted, limit)) = counted else {
            println!("| valgrind failed | | |");
            kept = false;
            continue;
        };
        let over = if counted > limit { " **over its limit**" } else { "" };
        println!("| {name} | {counted:.1} | {limit:.0}{over} |");
        kept &= counted <= limit;
    }
    kept
}

/// Runs part `name` for `passes`, for valgrind to count.
pub fn run_part(name: &str, passes: usize) {
    let parts = || PARTS.iter().chain(&PEERS).chain(&PIPELINES).chain(&PROFILES).chain([&LOCAL]);
    let Some((.., part)) = parts().find(|part| part.0 == name) else {
        let names: Vec<_> = parts().map(|part| part.0).collect();
        eprintln!("no part is called {name}: choose among {}", names.join(", "));
        std::process::exit(2);
    };
    black_box(part(passes));
}

/// Counts all parts and prints.
pub fn run() {
    println!("\n## Instructions a packet (valgrind, {COUNT} packets)\n");
    let none = Path::new("");
    if count("nothing", 0, none).is_none() {
        println!("Skipped: `valgrind` is not there (Debian: apt install valgrind).");
        return;
    }
    println!("| | instructions |\n|---|---|");
    PARTS.iter().for_each(|part| print(part, none));
    // Compiled once for all of them.
    let folder = std::env::temp_dir().join(format!("flowyard-bench-steps-{}", std::process::id()));
    match compile::compile(&folder) {
        Ok(object) => {
            PEERS.iter().for_each(|part| print(part, &object));
            PIPELINES.iter().for_each(|part| print_turns(part, &object));
        }
        Err(why) => println!("\nSkipped: DPDK's peers ({why})."),
    }
    let _ = std::fs::remove_dir_all(folder);
    println!("\n## Instructions that a function adds to a packet's way through the yard\n");
    println!("| | instructions |\n|---|---|");
    let steps = PROFILES.map(|(name, what, _)| (what, count_turns(name)));
    let none = steps[0].1;
    for (what, count) in &steps[1..] {
        match none.zip(*count) {
            Some((none, count)) => println!("| {what} | {:.1} |", (count - none) as f64 / (TURNED * COUNT) as f64),
            None => println!("| {what} | valgrind failed |"),
        }
    }
    println!("\nOne part alone: `valgrind --tool=callgrind target/release/flowyard-bench step steer 2`");
}

/// Counts one part and prints.
fn print((name, what, _): &Part, peers: &Path) {
    match (count(name, 2, peers), count(name, 4, peers)) {
        (Some(two), Some(four)) => println!("| {what} | {:.1} |", (four - two) as f64 / (2 * COUNT) as f64),
        _ => println!("| {what} | valgrind failed |"),
    }
}

/// Counts the turns of DPDK's pipeline and prints.
fn print_turns((name, what, _): &Part, peers: &Path) {
    let turns = ["--toggle-collect=pipeline_sort", "--toggle-collect=pipeline_look"];
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null", turns[0], turns[1]];
    match counted(&tool, name, TURNED, "Collected", peers) {
        Some(count) => println!("| {what} | {:.1} |", count as f64 / (TURNED * COUNT) as f64),
        None => println!("| {what} | valgrind failed |"),
    }
}

/// Instructions of the whole program when it runs `part`, with the object of the peers in C.
fn count(part: &str, passes: usize, peers: &Path) -> Option<i64> {
    let tool = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"];
    counted(&tool, part, passes, "refs:", peers)
}

/// Passes that are counted by [`count_turns`].
const TURNED: usize = 4;

/// Instructions of the dispatcher's turns when the yard runs with the function `part`.
fn count_turns(part: &str) -> Option<i64> {
    let tool = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*turn_by_hand*"];
    counted(&tool, part, TURNED, "Collected", Path::new(""))
}

/// The number that valgrind says in the line with this word.
fn counted(tool: &[&str], part: &str, passes: usize, word: &str, peers: &Path) -> Option<i64> {
    let own = std::env::current_exe().ok()?;
    let passes = passes.to_string();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(tool).arg(own).args(["step", part, &passes]).env(compile::OBJECT, peers);
    let output = valgrind.stdout(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains(word))?;
    line.split(':').nth(1)?.trim().replace(',', "").parse().ok()
}

fn over(carriers: &[Carrier], passes: usize, mut each: impl FnMut(&[u8]) -> u64) -> u64 {
    let mut packets = Packets::make(COUNT, carriers, is_ordinary);
    packets.shuffle();
    let mut sum = 0u64;
    for _ in 0..passes {
        for at in 0..COUNT {
            sum = sum.wrapping_add(each(packets.get(at)));
        }
    }
    sum
}

fn steer(carriers: &[Carrier], passes: usize) -> u64 {
    let (classifier, mut memory, mut decision) = (classifier(), FragmentTable::default(), Decision::BLANK);
    over(carriers, passes, |bytes| {
        classifier.classify_into(&Frame::new(bytes, LinkType::ETHERNET), &mut memory, 0, &mut (), &mut decision);
        u64::from(decision.hash ^ u32::from(decision.ring))
    })
}

fn glance(carriers: &[Carrier], passes: usize) -> u64 {
    let classifier = classifier();
    let glancer = classifier.glancer().expect("the default policy is plain");
    over(carriers, passes, |bytes| {
        let mut seen = Glance::default();
        glancer.glance(&Frame::new(bytes, LinkType::ETHERNET), &mut seen);
        u64::from(seen.hash() ^ u32::from(seen.ring() ^ seen.l4()))
    })
}

fn everything(passes: usize) -> u64 {
    let (classifier, mut memory) = (classifier(), FragmentTable::default());
    let packets = Packets::make(COUNT, &[], |_| true);
    let mut sum = 0u64;
    for _ in 0..passes {
        for at in 0..COUNT {
            let verdict = classifier.classify(&Frame::new(packets.get(at), LinkType::ETHERNET), &mut memory, 0);
            sum = sum.wrapping_add(u64::from(verdict.decision().hash));
        }
    }
    sum
}

fn dissect_only() -> impl FnMut(&[u8]) -> u64 {
    let policy = classifier().policy;
    fn look<O: Observer>(bytes: &[u8], policy: &flowyard::steer::Policy, observer: &mut O) -> u64 {
        let found = dissect(&Frame::new(bytes, LinkType::ETHERNET), policy, observer);
        found.payload_offset() as u64 ^ u64::from(found.sport().unwrap_or(0))
    }
    move |bytes| look(bytes, &policy, &mut ())
}

fn parse(carriers: &[Carrier], passes: usize) -> u64 {
    let table = classifier().table;
    over(carriers, passes, |bytes| {
        let hash = etherparse::hash(bytes);
        u64::from(hash ^ u32::from(table.ring(hash)))
    })
}

/// One of those in C; nothing, where there are none.
fn peer(how: Method, carriers: &[Carrier], passes: usize) -> u64 {
    let Some(dpdk) = dpdk() else { return 0 };
    let mut packets = Packets::make(COUNT, carriers, is_ordinary);
    dpdk.make_mbufs(&mut packets);
    packets.shuffle();
    let (mut hashes, mut rings, mut list) = ([0; BURST], [0; BURST], Vec::new());
    dpdk.list(&packets, 0..COUNT, &mut list);
    let mut sum = 0u64;
    for _ in 0..passes {
        for burst in list.chunks_exact(BURST) {
            dpdk.hash(how, burst, &mut hashes, &mut rings);
            sum = sum.wrapping_add(u64::from(hashes[0] ^ u32::from(rings[0])));
        }
    }
    sum
}

fn rte_ring(entries: Entries, passes: usize) -> u64 {
    let Some(dpdk) = dpdk() else { return 0 };
    let (mut sender, mut taker) = dpdk.ring::<2>(1024, entries);
    sender.by_turns(&mut taker, passes * COUNT)
}

/// Passes of packets through DPDK's pipeline, both sides by turns.
fn dpdk_pipeline(parse: Parse, passes: usize) -> u64 {
    let core = machine::cores().first().copied().unwrap_or(0);
    let Some(pipeline) = dpdk().and_then(|dpdk| dpdk.pipeline(core)) else { return 0 };
    let mut packets = Packets::make(COUNT, &[], is_ordinary);
    packets.shuffle();
    let (mut sorting, mut looking) = pipeline.pair(parse);
    let mut seen = 0;
    for lap in 0..passes * flow::laps(&packets) {
        flow::load(&packets, lap % flow::laps(&packets), |buffer, bytes| sorting.load(buffer, bytes));
        let goal = seen + flow::BUFFERS;
        while seen < goal || !sorting.all_home() {
            sorting.turn();
            seen += looking.turn();
        }
    }
    seen as u64
}

fn hash(passes: usize) -> u64 {
    let mut sum = 0u64;
    for n in 0..(passes * COUNT) as u32 {
        let conversation = Conversation::v4((black_box(n), 1000), (0x0a00_0001, 443), 6, 0);
        sum = sum.wrapping_add(default_hash(FIXED_SEED, &conversation).into());
    }
    sum
}

fn rings(passes: usize) -> u64 {
    let (mut writer, mut reader) = ring::<2>(1024).expect("memory for a small ring");
    let mut sum = 0u64;
    for n in 0..(passes * COUNT / 32) as u64 {
        writer.reserve(32);
        writer.fill_batch(32, |at| [n, black_box(at as u64)]);
        writer.commit();
        reader.reserve();
        reader.take_batch(32, |[a, b]| sum = sum.wrapping_add(black_box(a ^ b)));
        reader.release();
    }
    sum
}

fn pipes(passes: usize) -> u64 {
    let geometry = Geometry::new(2048, 64, 64).expect("a usual geometry");
    let (region, mut stock) = Region::create("bench", geometry).expect("memory for 64 buffers");
    let mut ledger = Ledger::new(&region);
    let (mut out, end) = ledger.open_pipe(64).expect("memory for a pipe");
    let mut consumer = Consumer::attach_local(end).expect("memory for a pipe");
    let mut sum = 0u64;
    let start = geometry.packet_offset() as u16;
    for _ in 0..passes * COUNT / 32 {
        out.reserve(32);
        for _ in 0..32 {
            let buffer = stock.take().expect("all are home");
            let slot = Slot { offset: start, len: 64, ..Slot::default() };
            out.send(&mut ledger, buffer, slot).expect("just reserved");
        }
        out.commit();
        notify([&mut out]);
        while let Some(packet) = consumer.next() {
            sum = sum.wrapping_add(packet.slot().hash.into());
        }
        let mut left = out.look_for_returned();
        while left > 0 {
            assert!(out.take_home(&mut ledger, &mut stock, &mut left).is_none(), "each is the consumer's alone");
        }
        out.release_returned();
    }
    sum
}

fn pipeline(passes: usize) -> u64 {
    let mut packets = Packets::make(COUNT, &[], is_ordinary);
    packets.shuffle();
    let (mut sorting, mut looking) = bare::pair(true);
    let mut seen = 0;
    for lap in 0..passes * flow::laps(&packets) {
        if lap < flow::laps(&packets) {
            flow::load(&packets, lap, |buffer, bytes| sorting.load(buffer, bytes));
        } else {
            sorting.again();
        }
        let goal = seen + flow::BUFFERS;
        while seen < goal || !sorting.all_home() {
            sorting.turn();
            seen += looking.turn();
        }
    }
    seen as u64
}

/// Dispatcher and consumer as they are, with or without a function.
fn yard(passes: usize, function: Option<Function>) -> u64 {
    shaped(passes, USUAL, function)
}

fn shaped(passes: usize, shape: Shape, function: Option<Function>) -> u64 {
    let packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    alone::run(&packets, shape, function.as_ref(), passes);
    packets.len() as u64
}

/// A worker as it is.
fn local(passes: usize) -> u64 {
    let packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    local::run(&packets, passes);
    packets.len() as u64
}
