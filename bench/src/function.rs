//! What a function of the user's costs a packet, over none: the yard as shipped, its dispatcher and a consumer by
//! turns on one core. (With the consumer on another core, cache lines that travel hide it by a hundred times.)

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use flowyard::function::{Chain, Function, Packet, Verdict, closure};
use flowyard::mem::tables::{Kind, Lookup, Shape, Table};
use flowyard::{plugin, rules};

use crate::figures;
use crate::packets::{COUNT, Packets, is_ordinary};
use crate::pipeline::alone;
use crate::rounds::{self, Contender, Setting};

type Shared = Arc<Packets>;

/// Entries of the table that is looked up in.
const ENTRIES: usize = 1_000_000;

/// Runs and prints.
pub fn run(setting: &Setting) {
    let title = "A function of the user's, over none";
    let mut packets = Arc::new(Packets::make(COUNT, &[], is_ordinary));
    let renew = |packets: &mut Shared| {
        Arc::get_mut(packets).expect("no yard is left between rounds").shuffle();
    };
    let folder = std::env::temp_dir().join(format!("flowyard-bench-{}", std::process::id()));
    let mut functions: Vec<(&'static str, Function)> = vec![
        ("closure, says nothing", silent()),
        ("closure, a ring by the hash", by_ring()),
        ("closure, marks and annotates", closure(annotates)),
        ("closure, one of 1M entries looked up", looks_up()),
        ("1 rule", matching(1)),
        ("10 rules", matching(10)),
        ("1 filter rule, outer and inner", filtering()),
    ];
    if let Some(plugin) = native(&folder) {
        functions.push(("plug-in in C, says nothing", plugin.clone()));
        functions.push(("chain of the plug-in, twice", Chain::function(vec![plugin.clone(), plugin])));
    }
    let mut contenders = vec![Contender::new("no function", |p: &Shared| alone::measure(p, None))];
    for (name, function) in functions {
        contenders.push(Contender::new(name, move |p: &Shared| alone::measure(p, Some(function.clone()))));
    }
    let outcome = rounds::run(setting, false, &mut packets, renew, &contenders);
    figures::print_over(title, "packet", &outcome, 0);
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

fn filtering() -> Function {
    rules::parse("[[rule]]\nfilter = \"tcp port 64999 and host 192.0.2.77\"\nverdict = \"drop\"\n")
        .unwrap_or_else(|e| panic!("{e}"))
        .function()
}

const PLUGIN: &str = r#"
#include <flowyard_plugin.h>
static int steer(void *state, const struct flowyard_packet *p, struct flowyard_verdict *v, size_t n)
{
    (void)state;
    for (size_t i = 0; i < n; i++)
        if (p[i].tag->hash == 12345)
            v[i].kind = FLOWYARD_RING;
    return 0;
}
static const struct flowyard_plugin plugin = {
    .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "nothing", .steer = steer,
};
FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) { return &plugin; }
"#;

/// Builds the plug-in; `None`, and a word about it, without a C compiler.
pub fn native(folder: &Path) -> Option<Function> {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/yard/include");
    std::fs::create_dir_all(folder).ok()?;
    let (source, object) = (folder.join("nothing.c"), folder.join("nothing.so"));
    std::fs::write(&source, PLUGIN).ok()?;
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-fPIC", "-shared", "-I", header, "-o"]).arg(&object).arg(&source);
    if !cc.status().is_ok_and(|status| status.success()) {
        println!("Skipped the plug-in: no C compiler.");
        return None;
    }
    Some(plugin::load(&object, "", |_| None).unwrap_or_else(|e| panic!("{e}")))
}
