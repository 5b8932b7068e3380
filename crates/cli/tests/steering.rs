//! The user's own function as a user meets it: on the command line, through the control socket, in a process
//! of its own, replaced while packets flow.

mod program;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use program::*;

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../yard/include");

/// Builds a plug-in whose `steer` has this body. `None`, and a word about it, without a C compiler.
fn plugin(dir: &Path, name: &str, open: &str, body: &str) -> Option<String> {
    if Command::new("cc").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: no C compiler");
        return None;
    }
    let source = dir.join(format!("{name}.c"));
    let object = dir.join(format!("{name}.so"));
    let text = format!(
        r#"
#include <flowyard_plugin.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
static int (*get_)(const struct flowyard_table *, const void *, size_t, void *, size_t);
struct state {{ uint64_t calls; uint64_t packets; const struct flowyard_table *table; }};
static void *open_(const struct flowyard_host *host, const char *config, size_t len, char *error, size_t size)
{{
    struct state *s = calloc(1, sizeof *s);
    (void)config; (void)len; (void)error; (void)size;
    get_ = host->table_get;
    {open}
    return s;
}}
static void close_(void *state) {{ free(state); }}
static int steer(void *state, struct flowyard_batch *batch)
{{
    struct state *s = state;
    struct flowyard_verdict *v = flowyard_decide(batch, 0);
    s->calls++;
    for (size_t i = 0; i < batch->count; i++) {{
        struct flowyard_packet p = flowyard_packet_at(batch, i);
        (void)p, (void)v;
        s->packets++;
        flowyard_mark(batch, i, 5);
        {body}
    }}
    return 0;
}}
static ptrdiff_t control(void *state, const void *request, size_t len, void *reply, size_t size)
{{
    struct state *s = state;
    return snprintf(reply, size, "%.*s: %llu", (int)len, (const char *)request, (unsigned long long)s->packets);
}}
static const struct flowyard_plugin plugin = {{
    .abi = FLOWYARD_PLUGIN_ABI, .size = sizeof plugin, .name = "{name}",
    .open = open_, .close = close_, .steer = steer, .control = control,
}};
FLOWYARD_PLUGIN_EXPORT const struct flowyard_plugin *flowyard_plugin(void) {{ return &plugin; }}
"#
    );
    std::fs::write(&source, text).expect("written");
    let built = Command::new("cc")
        .args(["-O1", "-fPIC", "-shared", "-Wall", "-I", HEADER, "-o"])
        .arg(&object)
        .arg(&source)
        .output()
        .expect("cc runs");
    assert!(built.status.success(), "{}", errors(&built));
    Some(format!("plugin:{}", object.display()))
}

#[test]
fn functions_make_a_chain_in_the_order_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = dir.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\nprotocol = \"udp\"\nverdict = \"ring 2\"\n").expect("written");
    let rules = format!("rules:{}", rules.display());
    let Some(plugin) = plugin(dir.path(), "rest", "", "if (v[i].kind == 0) v[i].kind = FLOWYARD_RING, v[i].ring = 1;")
    else {
        return;
    };
    let output = flowyard(&["run", "gen:mix?packets=20000", "--json", "--steer", &rules, "--steer", &plugin]);
    let figures = json(&output);
    let packets: Vec<u64> = (0..4).map(|ring| figures["rings"][ring]["packets"].as_u64().expect("a count")).collect();
    assert!(packets[0] == 0 && packets[3] == 0 && packets[1] > 1000 && packets[2] > 1000, "{figures}");
    assert_eq!((&figures["sums_agree"], &figures["received"]), (&true.into(), &20_000.into()));
    assert_eq!(figures["function"]["packets"], 20_000);
}

#[test]
fn groups_each_get_everything() {
    let output = flowyard(&["run", "gen:mix?packets=20000", "--json", "--group", "ids:3", "--group", "recorder:1"]);
    assert!(output.status.success(), "{}", errors(&output));
    let figures = json(&output);
    assert_eq!(
        (&figures["copies"], &figures["delivered"], &figures["split"]),
        (&20_000.into(), &40_000.into(), &0.into())
    );
    let rings = figures["rings"].as_array().expect("rings");
    let names: Vec<_> = rings.iter().map(|r| (r["group"].as_str().expect("a name"), r["ring"].as_u64())).collect();
    assert_eq!(names, [("ids", Some(0)), ("ids", Some(1)), ("ids", Some(2)), ("recorder", Some(0))]);
    assert_eq!(rings[3]["packets"], 20_000);
    let text = flowyard(&["run", "gen:mix?packets=2000", "--group", "ids:3", "--group", "recorder:1"]);
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("recorder/0") && text.contains("+ to more places 2,000"), "{text}");
}

#[test]
fn replaced_by_control_and_by_signal_without_a_gap_and_asked_meanwhile() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(spec) = plugin(dir.path(), "first", "", "v[i].kind = FLOWYARD_RING, v[i].ring = 0;") else { return };
    let yard = Yard::start(dir.path(), &["gen:mix", "--steer", &spec]);
    let asked = yard.ctl(&["function", "how", "many"]);
    assert!(String::from_utf8_lossy(&asked.stdout).contains("how many: "), "{}", errors(&asked));

    // The same file, another function: read again.
    plugin(dir.path(), "second", "", "v[i].kind = FLOWYARD_RING, v[i].ring = 3;");
    std::fs::copy(dir.path().join("second.so"), dir.path().join("first.so")).expect("overwritten in place");
    let status = json(&yard.ctl(&["status"]));
    assert_eq!(status["functions"][0]["function"], "first");
    assert!(yard.ctl(&["reload"]).status.success());
    assert_eq!(json(&yard.ctl(&["status"]))["functions"][0]["function"], "second");

    // A bad file: the old one stays, and it is said why.
    std::fs::write(dir.path().join("first.so"), "no shared object").expect("written");
    let refused = yard.ctl(&["reload"]);
    assert!(refused.status.code() == Some(2) && errors(&refused).contains("first.so"), "{}", errors(&refused));
    yard.signal("-HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(json(&yard.ctl(&["status"]))["functions"][0]["function"], "second");
    plugin(dir.path(), "first", "", "v[i].kind = FLOWYARD_RING, v[i].ring = 2;");
    yard.signal("-HUP");
    std::thread::sleep(Duration::from_millis(300));
    let status = json(&yard.ctl(&["status"]));
    assert_eq!((&status["functions"][0]["function"], &status["functions"][0]["reloads"]), (&"first".into(), &2.into()));

    let (figures, code, said) = yard.end();
    assert!(said.contains("not replaced"), "{said}");
    assert_eq!((code, &figures["sums_agree"], &figures["dropped"]), (0, &true.into(), &0.into()), "{figures}");
    for (ring, there) in [(0, true), (1, false), (2, true), (3, true)] {
        assert_eq!(figures["rings"][ring]["packets"].as_u64().is_some_and(|n| n > 0), there, "ring {ring}: {figures}");
    }
}

#[test]
fn a_function_that_crashes_or_hangs_takes_nothing_with_it_when_isolated() {
    let dir = tempfile::tempdir().expect("a directory");
    let crash = "if (s->packets % 20000 == 19999) abort(); v[i].kind = FLOWYARD_RING, v[i].ring = 1;";
    let Some(crashing) = plugin(dir.path(), "crashing", "", crash) else { return };
    let output = flowyard(&["run", "gen:mix?packets=300000", "--json", "--steer", &crashing, "--isolate"]);
    let figures = json(&output);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!((&figures["sums_agree"], &figures["delivered"]), (&true.into(), &300_000.into()), "{figures}");
    let function = &figures["function"];
    let crashed = function["failures"]["crashed"].as_u64().expect("a count");
    let own = |name: &str| {
        let all = function["own"].as_array().expect("counts");
        all.iter()
            .find(|c| c["name"] == name)
            .and_then(|c| c["count"].as_u64())
            .unwrap_or_else(|| panic!("{name}: {all:?}"))
    };
    assert!(crashed >= 64 && own("packets in flight when it died") == crashed, "{function}");
    assert!(own("process restarts") >= 1, "{function}");
    assert!(
        figures["rings"][1]["packets"].as_u64() > figures["rings"][0]["packets"].as_u64(),
        "it did work: {figures}"
    );

    let hang = "if (s->packets > 1000) for (;;) __asm__ volatile(\"\"); v[i].kind = FLOWYARD_RING, v[i].ring = 1;";
    let hanging = plugin(dir.path(), "hanging", "", hang).expect("cc is there");
    let output = flowyard(&["run", "gen:mix?packets=50000", "--json", "--steer", &hanging, "--isolate"]);
    let figures = json(&output);
    assert_eq!((&figures["sums_agree"], &figures["delivered"]), (&true.into(), &50_000.into()), "{figures}");
    assert!(figures["function"]["failures"]["crashed"].as_u64() >= Some(64), "{figures}");
}

#[test]
fn isolated_functions_write_annotations_answer_and_fail_to_load_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let body =
        "if (p.annotation) memset(p.annotation, 7, 64); v[i].kind = FLOWYARD_HASH; v[i].value = p.tag->hash * 3;";
    let Some(spec) = plugin(dir.path(), "good", "", body) else { return };
    let yard = Yard::start(dir.path(), &["gen:mix", "--steer", &spec, "--isolate"]);
    let asked = yard.ctl(&["function", "seen"]);
    assert!(String::from_utf8_lossy(&asked.stdout).contains("seen: "), "{}", errors(&asked));
    let (figures, code, _) = yard.end();
    assert_eq!((code, &figures["sums_agree"], &figures["split"]), (0, &true.into(), &0.into()), "{figures}");
    assert_eq!(figures["function"]["failures"]["bad-edit"], 0);

    let open = r#"snprintf(error, size, "no licence for %.*s", (int)len, config); free(s); return NULL;"#;
    let refusing = plugin(dir.path(), "refusing", open, "").expect("cc is there");
    let config = dir.path().join("config");
    std::fs::write(&config, "Mondays").expect("written");
    let spec = format!("{refusing}?config={}", config.display());
    for isolate in [&[][..], &["--isolate"]] {
        let output = flowyard(&[&["run", "gen:mix?packets=10", "--steer", &spec], isolate].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(errors(&output).contains("no licence for Mondays"), "{}", errors(&output));
    }
}

#[test]
fn tables_are_filled_changed_and_looked_up_while_packets_flow() {
    let dir = tempfile::tempdir().expect("a directory");
    let open =
        r#"s->table = host->table_open(host, "rings", 1, 4, error, size); if (!s->table) { free(s); return NULL; }"#;
    let body = r#"uint32_t ring = 0; if (get_(s->table, &p.tag->protocol, 1, &ring, 4) == FLOWYARD_FOUND) v[i].kind = FLOWYARD_RING, v[i].ring = (uint16_t)ring;"#;
    let Some(spec) = plugin(dir.path(), "looker", open, body) else { return };
    let csv = dir.path().join("rings.csv");
    std::fs::write(&csv, "key,value\n6,1\n17,2\n").expect("written");
    let fill = format!("rings={}", csv.display());
    let table = ["--table", "rings:hash:key=1,value=4,entries=100", "--table-file", &fill];
    for isolate in [&[][..], &["--isolate"]] {
        let yard = Yard::start(dir.path(), &[&["gen:mix", "--steer", &spec], &table[..], isolate].concat());
        let get = yard.ctl(&["table", "get", "rings", "6"]);
        assert_eq!(String::from_utf8_lossy(&get.stdout).trim(), "1", "{}", errors(&get));
        assert!(yard.ctl(&["table", "set", "rings", "6", "3"]).status.success());
        let dump = yard.ctl(&["table", "dump", "rings"]);
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        assert!(dump.contains("6,3") && dump.contains("17,2"), "{dump}");
        assert!(yard.ctl(&["table", "remove", "rings", "17"]).status.success());
        let gone = yard.ctl(&["table", "get", "rings", "17"]);
        assert!(gone.status.code() == Some(2) && errors(&gone).contains("17"), "{}", errors(&gone));
        let none = yard.ctl(&["table", "get", "sings", "17"]);
        assert!(errors(&none).contains("rings"), "names those there are: {}", errors(&none));
        let list = json(&yard.ctl(&["table", "list"]));
        assert_eq!(
            (&list[0]["table"], &list[0]["entries"], &list[0]["capacity"]),
            (&"rings".into(), &1.into(), &100.into())
        );
        std::thread::sleep(Duration::from_millis(200));
        let (figures, code, _) = yard.end();
        assert_eq!((code, &figures["sums_agree"]), (0, &true.into()), "{figures}");
        for ring in [1, 2, 3] {
            assert!(figures["rings"][ring]["packets"].as_u64() > Some(0), "ring {ring}: {figures}");
        }
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_way_out() {
    for (args, says) in [
        (&["--steer", "lua:x"][..], "rules:FILE"),
        (&["--steer", "plugin:/nowhere.so"], "/nowhere.so"),
        (&["--steer", "rules:/nowhere.toml"], "/nowhere.toml"),
        (&["--group", "ids"], "ids:4"),
        (&["--group", "ids:2", "--group", "ids:3"], "twice"),
        (&["-n", "8", "--group", "ids:2"], "leave --rings out, or write --group ids:8"),
        (&["--table", "t:tree:key=1"], "t:tree"),
        (&["--table-file", "t=/nowhere.csv"], "t"),
        (&["--isolate"], "--steer"),
        (&["--control=/nowhere/at/all.sock"], "/nowhere/at/all.sock"),
        (&["--control=/etc/hostname"], "no socket"),
    ] {
        let output = flowyard(&[&["run", "gen:mix?packets=10", "-q"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", errors(&output));
        assert!(errors(&output).contains(says), "{args:?}: {}", errors(&output));
    }
    let nobody = flowyard(&["ctl", "--socket", "/nowhere.sock", "status"]);
    assert!(nobody.status.code() == Some(2) && errors(&nobody).contains("--control"), "{}", errors(&nobody));
}

#[test]
fn what_a_plug_in_prints_stays_out_of_the_figures() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = r#"puts("opened"); fflush(stdout); puts("left in a buffer until the end");"#;
    let Some(spec) = plugin(dir.path(), "talker", open, r#"if (s->packets == 5) puts("{\"a packet\"}");"#) else {
        return;
    };
    for isolate in [&[][..], &["--isolate"]] {
        let output = flowyard(&[&["run", "gen:mix?packets=1000", "--json", "--steer", &spec], isolate].concat());
        assert_eq!(json(&output)["received"], 1000, "one object and nothing else");
        // What a process of its own leaves in a buffer is lost with it.
        let said: &[&str] = if isolate.is_empty() { &["opened", "left in a buffer", "a packet"] } else { &["opened"] };
        for words in said {
            assert!(errors(&output).contains(words), "{isolate:?}, {words}: {}", errors(&output));
        }
    }
}

#[test]
fn who_sends_half_a_request_holds_up_no_end() {
    use std::io::Write;
    let dir = tempfile::tempdir().expect("a directory");
    let yard = Yard::start(dir.path(), &["gen:mix"]);
    let mut half = std::os::unix::net::UnixStream::connect(&yard.socket).expect("connected");
    half.write_all(b"POST /tables/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\nkey,").expect("sent");
    std::thread::sleep(Duration::from_millis(300)); // it is read
    let pid = yard.child.id();
    let (tell, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(yard.end()));
    let ended = heard.recv_timeout(Duration::from_secs(30));
    if ended.is_err() {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
    let (figures, ..) = ended.expect("it ends while half a request waits");
    assert_eq!(figures["sums_agree"], true);
}
