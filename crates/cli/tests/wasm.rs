//! WebAssembly modules as a user meets them: on the command line, in a chain, replaced while packets flow, and
//! failing in every way without taking anything with them. Only where the program is built with them.
#![cfg(feature = "wasm")]

mod program;

use std::path::Path;
use std::time::Duration;

use program::*;
use serde_json::Value;

/// Writes a module as text, whose `steer` does `body` for each packet, at `$p`; `more` stands beside it.
fn module(dir: &Path, name: &str, more: &str, body: &str) -> String {
    let path = dir.join(name);
    let text = format!(
        r#"(module {more}
        (memory (export "memory") 1)
        (global $packets (mut i32) (i32.const 0))
        (func (export "abi") (result i32) (i32.const 1))
        (func (export "steer") (param $p i32) (param $count i32) (result i32)
          (local $end i32)
          (local.set $end (i32.add (local.get $p) (i32.mul (local.get $count) (i32.const 96))))
          (loop $each
            (global.set $packets (i32.add (global.get $packets) (i32.const 1)))
            {body}
            (local.set $p (i32.add (local.get $p) (i32.const 96)))
            (br_if $each (i32.lt_u (local.get $p) (local.get $end))))
          (i32.const 0)))"#
    );
    std::fs::write(&path, text).expect("written");
    format!("wasm:{}", path.display())
}

/// All to this ring.
fn to_ring(ring: u16) -> String {
    format!(
        "(i32.store8 offset=64 (local.get $p) (i32.const 2)) (i32.store16 offset=66 (local.get $p) (i32.const {ring}))"
    )
}

fn packets(figures: &Value, ring: usize) -> u64 {
    figures["rings"][ring]["packets"].as_u64().unwrap_or_else(|| panic!("no ring {ring}: {figures}"))
}

#[test]
fn it_decides_in_a_chain_before_and_behind_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nprotocol = \"udp\"\nverdict = \"ring 2\"\n").expect("written");
    let rules = format!("rules:{}", rules.display());
    let polite = format!("(if (i32.eqz (i32.load8_u offset=64 (local.get $p))) (then {}))", to_ring(1));
    let rest = module(dir.path(), "rest.wat", "", &polite);
    let figures = json(&flowyard(&["run", "gen:mix?packets=20000", "--json", "--steer", &rules, "--steer", &rest]));
    assert!(packets(&figures, 0) == 0 && packets(&figures, 3) == 0, "{figures}");
    assert!(packets(&figures, 1) > 1000 && packets(&figures, 2) > 1000, "{figures}");
    let all = module(dir.path(), "all.wat", "", &to_ring(3));
    let figures = json(&flowyard(&["run", "gen:mix?packets=20000", "--json", "--steer", &all, "--steer", &rules]));
    assert_eq!((packets(&figures, 3), &figures["sums_agree"]), (20_000, &true.into()), "{figures}");
}

#[test]
fn traps_endless_loops_and_greed_are_counted_and_cost_no_packet() {
    let dir = tempfile::tempdir().expect("a directory");
    let late =
        |then: &str| format!("(if (i32.gt_u (global.get $packets) (i32.const 500)) (then {then})) {}", to_ring(1));
    for (name, body, kind) in [
        ("trap", late("unreachable"), "trapped"),
        ("far", late("(drop (i32.load (i32.const 0x7fffffff)))"), "trapped"),
        ("endless", late("(loop $for_ever (br $for_ever))"), "trapped"),
        ("nowhere", late("(i32.store8 offset=64 (local.get $p) (i32.const 99))"), ""),
    ] {
        let spec = module(dir.path(), &format!("{name}.wat"), "", &body);
        let output = flowyard(&["run", "gen:mix?packets=50000", "--json", "--steer", &spec]);
        let figures = json(&output);
        assert!(output.status.success(), "{name}: {}", errors(&output));
        assert_eq!((&figures["sums_agree"], &figures["delivered"]), (&true.into(), &50_000.into()), "{name}");
        assert!(packets(&figures, 1) > packets(&figures, 0), "{name}: it did work: {figures}");
        let failures = figures["function"]["failures"].as_object().expect("by kind");
        let failed = |kind: &str| failures.get(kind).and_then(Value::as_u64);
        if kind.is_empty() {
            assert_eq!(failed("trapped"), Some(0), "{name}: {failures:?}");
        } else {
            assert!(failed(kind) >= Some(64), "{name}: {failures:?}");
        }
    }
    // Nobody is told where packets go without being able to say it: a thousand pages more are refused to it.
    let greedy = late("(if (i32.ne (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable))");
    let spec = module(dir.path(), "greedy.wat", "", &greedy);
    let figures = json(&flowyard(&["run", "gen:mix?packets=20000", "--json", "--steer", &spec]));
    assert_eq!((packets(&figures, 1), &figures["function"]["failures"]["trapped"]), (20_000, &0.into()), "{figures}");
}

#[test]
fn it_is_replaced_and_asked_and_looks_things_up_while_packets_flow() {
    let dir = tempfile::tempdir().expect("a directory");
    let answers = r#"(data (i32.const 16) "twice ")
        (func (export "control") (param $at i32) (param $len i32) (result i64)
          (memory.copy (i32.const 22) (local.get $at) (local.get $len))
          (i64.or (i64.shl (i64.const 16) (i64.const 32))
                  (i64.extend_i32_u (i32.add (i32.const 6) (local.get $len)))))"#;
    let spec = module(dir.path(), "first.wat", answers, &to_ring(0));
    let yard = Yard::start(dir.path(), &["gen:mix", "--steer", &spec]);
    let asked = yard.ctl(&["function", "so", "much"]);
    assert!(String::from_utf8_lossy(&asked.stdout).contains("twice so much"), "{}", errors(&asked));
    let flows = |yard: &Yard, at_least: u64| {
        let received = || json(&yard.ctl(&["status"]))["received"].as_u64().unwrap_or(0);
        let from = received();
        while received() < from + at_least {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    flows(&yard, 10_000);
    module(dir.path(), "first.wat", "", &to_ring(3));
    assert!(yard.ctl(&["reload"]).status.success());
    flows(&yard, 10_000);

    // A bad one: the old one stays, and it is said why.
    module(dir.path(), "first.wat", r#"(import "env" "now" (func))"#, "");
    let refused = yard.ctl(&["reload"]);
    assert!(refused.status.code() == Some(2) && errors(&refused).contains("env.now"), "{}", errors(&refused));
    flows(&yard, 10_000);
    let (figures, code, _) = yard.end();
    assert_eq!((code, &figures["sums_agree"], &figures["dropped"]), (0, &true.into(), &0.into()), "{figures}");
    assert_eq!((packets(&figures, 1), packets(&figures, 2)), (0, 0), "by one version or the other: {figures}");
    assert!(packets(&figures, 0) >= 10_000 && packets(&figures, 3) >= 10_000, "{figures}");
    assert_eq!(figures["function"]["reloads"], 1);
}
