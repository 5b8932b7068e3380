//! What a function of the user's costs a packet, over none: the yard as shipped, its dispatcher and a consumer by
//! turns on one core. (With the consumer on another core, cache lines that travel hide it by a hundred times.)

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use flowyard::function::{Chain, Function, Packet, Verdict, closure};
use flowyard::mem::tables::{Kind, Lookup, Shape, Table};
use flowyard::{plugin, rules};

use crate::figures;
use crate::machine;
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::pipeline::alone;
use crate::probe::Distance;
use crate::rounds::{Outcome, Round, Setting};

/// Entries of the table that is looked up in.
const ENTRIES: usize = 1_000_000;

/// Times that all packets go through one yard.
const ROUNDS_A_YARD: usize = 10;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let title = "A function of the user's, over none";
    let folder = std::env::temp_dir().join(format!("flowyard-bench-{}", std::process::id()));
    let mut functions: Vec<(&'static str, Option<Function>)> = vec![
        ("no function", None),
        ("closure, says nothing", Some(silent())),
        ("closure, a ring by the hash", Some(by_ring())),
        ("closure, marks and annotates", Some(closure(annotates))),
        ("closure, one of 1M entries looked up", Some(looks_up())),
        ("1 rule", Some(matching(1))),
        ("10 rules", Some(matching(10))),
        ("100 rules", Some(matching(100))),
        ("1 rule that matches half", Some(matched())),
        ("1 filter rule, outer and inner", Some(filtering())),
    ];
    if let (Some(silent), Some(looking)) = (silent_plugin(&folder), looking_plugin(&folder)) {
        functions.push(("plug-in in C, says nothing", Some(silent)));
        functions.push(("plug-in in C, looks at each hash", Some(looking.clone())));
        functions.push(("chain of that, twice", Some(Chain::function(vec![looking.clone(), looking]))));
    }
    let (names, functions): (Vec<_>, Vec<_>) = functions.into_iter().unzip();
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let mut rounds = Vec::new();
    machine::pin(setting.core);
    // A yard a handful of rounds, each in other memory. A round of this benchmark is a lap with each function.
    for _ in 0..setting.rounds.div_ceil(ROUNDS_A_YARD) {
        Arc::get_mut(&mut packets).expect("no yard is left").shuffle();
        let laps = alone::rotate(&packets, &functions, ROUNDS_A_YARD);
        rounds.extend(laps.into_iter().map(|figures| Round { distance: Distance::One, probe_ns: None, figures }));
    }
    figures::print_over(title, "packet", &Outcome { names, rounds }, 0);
    let _ = std::fs::remove_dir_all(folder);
}

/// A closure that leaves everything as it is.
pub fn silent() -> Function {
    closure(|_: &mut Packet<'_>| Verdict::BuiltIn)
}

/// A closure that chooses another ring than the built-in policy.
pub fn by_ring() -> Function {
    closure(|packet: &mut Packet<'_>| Verdict::Ring((packet.hash() >> 30) as u16))
}

fn annotates(packet: &mut Packet<'_>) -> Verdict {
    let hash = packet.hash();
    packet.mark(hash.into());
    packet.annotate(&[hash; 4]);
    Verdict::BuiltIn
}

/// Looks the packet's hash up among a million others: a random line of the table for each conversation.
fn looks_up() -> Function {
    let shape = Shape::new(Kind::Hash, 4, 8, ENTRIES).expect("possible sizes");
    let table = Table::create("bench", shape).expect("memory for a table");
    let writer = table.writer().expect("nobody else writes");
    let mut writer = writer;
    for n in 0..ENTRIES as u32 {
        let key = n.wrapping_mul(0x9e37_79b1);
        writer.set(&key.to_le_bytes(), &u64::from(n).to_le_bytes()).expect("room for all");
    }
    drop(writer);
    closure(move |packet: &mut Packet<'_>| {
        let key = ((packet.tag().time_ns as u32).wrapping_mul(747_796_405) % ENTRIES as u32).wrapping_mul(0x9e37_79b1);
        let mut value = [0; 8];
        if table.get(&key.to_le_bytes(), &mut value) == Lookup::Found {
            packet.mark(u64::from_le_bytes(value));
        }
        Verdict::BuiltIn
    })
}

/// Rules that all are looked at and none of which matches.
pub fn matching(count: u16) -> Function {
    let rule = |n| format!("[[rule]]\nvlan = {}\nport = {}\nverdict = \"drop\"\n", 4000 + n % 90, 60_000 + n);
    let text: String = (0..count).map(rule).collect();
    rules::parse(&text).expect("good rules").function()
}

/// A rule that matches about half of the packets.
pub fn matched() -> Function {
    rules::parse("[[rule]]\nprotocol = \"tcp\"\nverdict = \"ring 1\"\n").expect("a good rule").function()
}

fn filtering() -> Function {
    rules::parse("[[rule]]\nfilter = \"tcp port 64999 and host 192.0.2.77\"\nverdict = \"drop\"\n")
        .unwrap_or_else(|e| panic!("{e}"))
        .function()
}

/// What the plug-ins do with a batch.
const LOOKS: &str = "for (size_t i = 0; i < batch->count; i++)
        if (batch->tags[i].hash == 12345)
            flowyard_decide(batch, i)->kind = FLOWYARD_RING;";

fn source(body: &str) -> String {
    format!(
        r#"
#include <flowyard_plugin.h>
static int steer(void *state, struct flowyard_batch *batch)
{{
    (void)state, (void)batch;
    {body}
    return 0;
}}
static const struct flowyard_plugin plugin = {{
    .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "nothing", .steer = steer,
}};
FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) {{ return &plugin; }}
"#
    )
}

/// A plug-in that does nothing.
pub fn silent_plugin(folder: &Path) -> Option<Function> {
    native(folder, "")
}

/// A plug-in that looks at each packet's hash, and says nothing.
pub fn looking_plugin(folder: &Path) -> Option<Function> {
    native(folder, LOOKS)
}

/// Builds the plug-in; `None`, and a word about it, without a C compiler.
fn native(folder: &Path, body: &str) -> Option<Function> {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/yard/include");
    std::fs::create_dir_all(folder).ok()?;
    let (source, object) = (folder.join("nothing.c"), folder.join("nothing.so"));
    std::fs::write(&source, self::source(body)).ok()?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fPIC", "-shared", "-I", header, "-o"]).arg(&object).arg(&source);
    if !cc.status().is_ok_and(|status| status.success()) {
        println!("Skipped the plug-in: no C compiler.");
        return None;
    }
    Some(plugin::load(&object, "", |_| None).unwrap_or_else(|e| panic!("{e}")))
}
