//! The file and the command line say the same things by the same names.

use std::collections::BTreeSet;

use clap::Parser;

use super::keys::{Form, Key, NOT_IN_THE_FILE, SECTIONS, command, keys};
use super::*;

/// Every key with a value other than the default, and what is typed for the same. Files are those that `folder` makes.
const EVERY: [(&str, &str, &[&str]); 26] = [
    ("name", "'west'", &["--name", "west"]),
    ("ports", "['gen:mix?packets=10', 'pcap:a.pcap']", &["gen:mix?packets=10", "pcap:DIR/a.pcap"]),
    ("for", "1.5", &["--for", "1.5"]),
    ("verify", "false", &["--no-verify"]),
    ("output", "'out'", &["--output", "DIR/out"]),
    ("transmit", "true", &["--transmit"]),
    ("json", "true", &["--json"]),
    ("quiet", "true", &["--quiet"]),
    ("policy", "'policy.toml'", &["--policy", "DIR/policy.toml"]),
    ("group", "[{name = 'ids', rings = 2}, {name = 'log', rings = 1}]", &["--group", "ids:2", "--group", "log:1"]),
    ("sorting.rings", "2", &["--rings", "2"]),
    ("sorting.weights", "[2, 1]", &["--weights", "2,1"]),
    ("sorting.hash", "'default'", &["--hash", "default"]),
    ("sorting.seed", "0x10", &["--seed", "16"]),
    ("sorting.key", "2", &["--key", "2"]),
    ("sorting.fragments", "'addresses'", &["--fragments", "addresses"]),
    ("sorting.key-vlan", "true", &["--key-vlan"]),
    ("sorting.key-vni", "true", &["--key-vni"]),
    (
        "function.steer",
        "['rules:r.toml', 'plugin:p.so?config=c']",
        &["--steer", "rules:DIR/r.toml", "--steer", "plugin:DIR/p.so?config=DIR/c"],
    ),
    ("function.isolate", "true", &["--isolate"]),
    ("function.budget", "'20ms'", &["--budget", "20ms"]),
    ("function.failures", "7", &["--failures", "7"]),
    ("function.host", "['none', 'tap:fy']", &["--host", "none", "--host", "tap:fy"]),
    ("function.table", "'users:hash:key=4,value=8,entries=10'", &["--table", "users:hash:key=4,value=8,entries=10"]),
    ("function.table-file", "['users=u.csv']", &["--table-file", "users=DIR/u.csv"]),
    ("memory.ring-slots", "64", &["--ring-slots", "64"]),
];
const EVERY_MORE: [(&str, &str, &[&str]); 14] = [
    ("memory.annotation", "128", &["--annotation", "128"]),
    ("memory.buffers", "4096", &["--buffers", "4096"]),
    ("memory.dispatchers", "2", &["--dispatchers", "2"]),
    ("memory.local", "true", &["--local"]),
    ("memory.relay", "true", &["--relay"]),
    ("memory.pin", "false", &["--no-pin"]),
    ("service.control", "'c.sock'", &["--control=DIR/c.sock"]),
    ("service.attach", "'a.sock'", &["--attach=DIR/a.sock"]),
    ("service.allow", "['root=0', '@root+write']", &["--allow", "root=0", "--allow", "@root+write"]),
    ("service.absent", "'hold'", &["--absent", "hold"]),
    ("service.log-level", "'debug'", &["--log-level", "debug"]),
    ("service.user", "'root'", &["--user", "root"]),
    ("service.keep-capabilities", "['net_raw', 'bpf']", &["--keep-capabilities", "net_raw,bpf"]),
    ("service.keep-privileges", "true", &["--keep-privileges"]),
];

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    run: Run,
}

fn typed(line: &[String]) -> Run {
    let line = std::iter::once("run".to_owned()).chain(line.iter().cloned());
    Program::try_parse_from(line).unwrap_or_else(|e| panic!("{e}")).run
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("policy.toml"), "max_depth = 3\n").expect("written");
    dir
}

fn from(dir: &Path, text: &str) -> Result<Run> {
    let path = dir.join("flowyard.toml");
    std::fs::write(&path, text).expect("written");
    Run::of_file(&path)
}

fn refusal(text: &str) -> String {
    let dir = folder();
    let error = from(dir.path(), text).expect_err(text);
    error.to_string().replace(&dir.path().display().to_string(), "DIR")
}

fn every() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])> {
    EVERY.into_iter().chain(EVERY_MORE)
}

#[test]
fn every_option_of_run_has_its_name_in_the_file() {
    let keys = keys();
    let in_file: BTreeSet<String> =
        keys.iter().flat_map(|key| &key.arguments).map(|arg| arg.get_id().to_string()).collect();
    for arg in command().get_arguments() {
        let id = arg.get_id().as_str();
        assert!(in_file.contains(id) || NOT_IN_THE_FILE.contains(&id), "{id} has no key");
        let heading = arg.get_help_heading().unwrap_or_default();
        assert!(SECTIONS.iter().any(|(known, _)| *known == heading), "{heading:?} of {id} has no table in the file");
        let names = arg.get_value_names().unwrap_or_default().join(" ");
        let a_path = ["FILE", "PATH", "DIR"].iter().any(|word| names.contains(word));
        let known = paths::is_known(id) || NOT_IN_THE_FILE.contains(&id);
        assert!(!a_path || known, "{id} is a path: say in paths.rs how it is relative to the file");
    }
    let names: BTreeSet<String> = keys.iter().map(Key::path).collect();
    assert_eq!(names.len(), keys.len(), "one key, one name");
    assert_eq!(names, every().map(|(key, ..)| key.to_owned()).collect(), "this test has an example of each");
}

#[test]
fn a_file_with_every_key_is_the_same_run_as_the_line() {
    let dir = folder();
    let place = dir.path().display().to_string();
    let mut whole = String::new();
    let mut section = "";
    let mut line = Vec::new();
    for (key, value, arguments) in every() {
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        if table != section {
            whole += &format!("[{table}]\n");
            section = table;
        }
        whole += &format!("{name} = {value}\n");
        line.extend(arguments.iter().map(|argument| argument.replace("DIR", &place)));
        // And each on its own, unless it needs another.
        let alone = if table.is_empty() { format!("{name} = {value}") } else { format!("[{table}]\n{name} = {value}") };
        if !["function.isolate", "function.budget", "function.failures", "service.keep-capabilities"].contains(&key) {
            let alone = from(dir.path(), &alone).unwrap_or_else(|e| panic!("{key}: {e}"));
            assert_eq!(format!("{alone:?}"), format!("{:?}", typed(&line[line.len() - arguments.len()..])), "{key}");
            assert_ne!(format!("{alone:?}"), format!("{:?}", typed(&[])), "{key} says nothing");
        }
    }
    let run = from(dir.path(), &whole).unwrap_or_else(|e| panic!("{e}: {whole}"));
    assert_eq!(format!("{run:?}"), format!("{:?}", typed(&line)));
}

#[test]
fn what_is_typed_goes_before_the_file() {
    let dir = folder();
    let path = dir.path().join("flowyard.toml");
    let text = "ports = ['gen:mix']\nverify = true\n[policy]\nmax_depth = 3\n[memory]\nring-slots = 64\nannotation = 0\n[function]\ntable = ['a:hash:key=4,value=8,entries=10']\n";
    std::fs::write(&path, text).expect("written");
    let config = path.display().to_string();
    let run = |more: &[&str]| {
        let line: Vec<String> = ["-c", &config].iter().chain(more).map(|word| (*word).to_owned()).collect();
        let mut run = typed(&line).with_file(line.iter().map(OsString::from)).unwrap_or_else(|e| panic!("{e}"));
        run.config = None;
        format!("{run:?}")
    };
    let line =
        |words: &[&str]| format!("{:?}", typed(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()));
    let policy = dir.path().join("policy.toml").display().to_string();
    let table = "--table=a:hash:key=4,value=8,entries=10";
    assert_eq!(
        run(&[]),
        line(&["gen:mix", "--verify", "--policy", &policy, "--ring-slots", "64", "--annotation", "0", table])
    );
    assert_eq!(
        run(&["gen:tcp", "--no-verify", "--ring-slots", "8"]),
        line(&["gen:tcp", "--no-verify", "--policy", &policy, "--ring-slots", "8", "--annotation", "0", table])
    );
    // Of a list it goes before the whole.
    assert!(!run(&["--table", "b:hash:key=4,value=8,entries=10"]).contains("a:hash"));
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    for (text, words) in [
        ("ports = [\n  'xdp:eth0',\n  'xpd:eth1',\n]", &["DIR/flowyard.toml:3:3", "ports", "xpd", "xdp:"][..]),
        ("[memory]\nring-slots = 'many'", &["toml:2:14", "memory.ring-slots", "many"]),
        ("[memory]\nring_slots = 8", &["toml:2:1", "there is no ring_slots in [memory]"]),
        ("[memory]\nrelay = 1", &["toml:2:9", "true or false"]),
        ("[memroy]\n", &["toml:1:2", "[memroy]"]),
        ("name = 'a/b'", &["toml:1:8", "a/b", "letters"]),
        ("[sorting]\nrings = 5000", &["toml:2:9", "5000", "4096"]),
        ("[sorting]\nweights = [1, 'x']", &["toml:2:15", "x"]),
        ("[sorting]\nrings = [1]", &["toml:2:9", "a list"]),
        ("[function]\nbudget = '1ms'", &["toml:2:1", "function.budget", "steer"]),
        ("policy = 'none.toml'", &["toml:1:10", "none.toml"]),
        ("json = true\n\n[policy]\nkey = 'inner'", &["toml:4:7", "policy", "inner", "innermost"]),
        ("[policy]\nkeys = 1", &["toml:2:1", "keys", "key_vlan"]),
        ("[policy]\nmax_steps = 0", &["toml:1:2", "max_steps"]),
        ("[[group]]\nname = 'a'\nring = 2", &["toml:3:1", "ring in a group", "rings"]),
        ("[[group]]\nname = 'a'\nrings = 0", &["toml:1:1", "1 to 4096"]),
        ("group = 'a:1'", &["toml:1:9", "[[group]]"]),
        ("config = 'x'", &["toml:1:1", "there is no config"]),
        ("ports = 'gen:mix'\nports = 'gen:mix'", &["toml:2:1", "duplicate"]),
        ("ports = ", &["toml:1:"]),
    ] {
        let refusal = refusal(text);
        for word in words {
            assert!(refusal.contains(word), "{text}: {refusal:?} lacks {word:?}");
        }
    }
    // All of them at once.
    let several = refusal("nmae = 'a'\n[memory]\nbuffers = 'x'\nrings = 2\n");
    for word in ["1:1: there is no nmae", "3:11: memory.buffers", "4:1: there is no rings in [memory]"] {
        assert!(several.contains(word), "{several} lacks {word}");
    }
}

#[test]
fn the_example_is_valid_and_every_value_in_it_is_the_default() {
    let dir = folder();
    let text = example();
    let run = from(dir.path(), &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(format!("{run:?}"), format!("{:?}", typed(&[])), "{text}");
    for key in keys() {
        let shown = |line: &str| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{} = ", key.name)) || line == format!("[[{}]]", key.name)
        };
        assert!(text.lines().any(shown), "{} is not in it", key.path());
        assert!(key.form == Form::Groups || !text.contains(&format!("{} = \"\"", key.name)), "{}", key.path());
    }
}

/// Each line that is commented out, on its own: a value that can be, and where the help names a default, that one.
#[test]
fn what_the_example_shows_could_stand_there() {
    let dir = folder();
    let plan = |run: &Run| format!("{:?}", run.plan().expect("a plan"));
    let plain = plan(&typed(&["gen:mix".into()]));
    let text = example();
    let (mut section, mut tried) = (String::new(), 0);
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let Some((key, _)) = line.strip_prefix("# ").and_then(|line| line.split_once(" = ")) else { continue };
        if key.contains(' ') || ["name", "rings"].contains(&key) && section == "[service]" {
            continue; // prose, or a group's
        }
        let needs = ["isolate", "budget", "failures"].contains(&key);
        let function = match key {
            _ if needs => "steer = 'kernel'\n",
            "keep-capabilities" => "user = 'root'\n",
            _ => "",
        };
        let ports = if key == "ports" { "" } else { "ports = 'gen:mix'\n" };
        let top = if section.is_empty() { format!("{ports}{}", &line[2..]) } else { ports.to_owned() };
        let below = if section.is_empty() { "" } else { &line[2..] };
        let file = format!("{top}\n{section}\n{function}{below}\n");
        let run = from(dir.path(), &file).unwrap_or_else(|e| panic!("{e}\n{file}"));
        if ["rings", "hash", "key", "fragments"].contains(&key) {
            assert_eq!(plan(&run), plain, "{file}");
        }
        tried += 1;
    }
    assert!(tried > 10, "{tried} lines");
}
