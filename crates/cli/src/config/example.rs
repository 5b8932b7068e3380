//! The annotated example: every key with its help, made from the definition of the options.
//!
//! What has a default stands with it; where that depends on other things, the line is commented out, and so are keys
//! without one, which show what could stand there.

use std::fmt::Write as _;

use clap::Arg;

use super::keys::{Form, Key, SECTIONS, keys};

/// What could stand behind keys that have no default.
const SAMPLES: [(&str, &str); 17] = [
    ("ports", "[\"xdp:eth0\", \"pcap:trace.pcapng\"]"),
    ("time", "\"10s\""),
    ("verify", "true"),
    ("output", "\"out\""),
    ("policy_file", "\"policy.toml\""),
    ("weights", "[2, 1, 1, 1]"),
    ("seed", "\"random\""),
    ("functions", "[\"rules:rules.toml\"]"),
    ("tables", "[\"users:hash:key=4,value=8,entries=1000\"]"),
    ("table_files", "[\"users=users.csv\"]"),
    ("buffers", "16384"),
    ("host", "[\"pass\"]"),
    ("control", "true"),
    ("attach", "true"),
    ("allow", "[\"nobody=0,1\", \"@users\"]"),
    ("user", "\"nobody\""),
    ("keep_capabilities", "[\"net_raw\"]"),
];

/// Longest line of a comment.
const WIDTH: usize = 100;

/// The example as it is printed.
pub fn example() -> String {
    let mut text = String::from(
        "# Configuration of a yard, for `flowyard run -c FILE`; `flowyard check FILE` says whether it is good.\n\
         # Lines that are commented out show what could stand there, all others are the defaults.\n\
         # Relative paths are relative to this file. What is given on the command line goes before it.\n",
    );
    let keys = keys();
    for (heading, section) in SECTIONS {
        if !section.is_empty() {
            let _ = write!(text, "\n# {heading}\n[{section}]\n");
        }
        for key in keys.iter().filter(|key| key.section == section && key.form != Form::Groups) {
            text.push('\n');
            comment(&mut text, &help(key));
            let _ = writeln!(text, "{}", line(key));
            if key.name == "policy" {
                text.push_str("# Or here, with the keys of a policy file (examples/policy.toml has them all):\n# policy = { key = \"innermost\" }\n");
            }
        }
    }
    for key in keys.iter().filter(|key| key.form == Form::Groups) {
        text.push('\n');
        comment(&mut text, &help(key));
        let _ = writeln!(text, "# [[{}]]\n# name = \"ids\"\n# rings = 4", key.name);
    }
    text
}

/// `key = value`, commented out unless the value is the default whatever else is said.
fn line(key: &Key) -> String {
    let arg = key.argument();
    let id = arg.get_id().as_str();
    if key.form == Form::Switch {
        return match key.arguments.len() {
            1 => format!("{} = {}", key.name, key.switch(true).is_none()),
            _ => format!("# {} = {}", key.name, sample(id)),
        };
    }
    match arg.get_default_values() {
        [] => {
            let value = default_in_words(arg).map_or_else(|| sample(id).to_owned(), |value| quoted(&value));
            format!("# {} = {value}", key.name)
        }
        [value, ..] => format!("{} = {}", key.name, quoted(&value.to_string_lossy())),
    }
}

fn sample(id: &str) -> &'static str {
    SAMPLES.iter().find(|(known, _)| *known == id).map_or("\"\"", |(_, sample)| sample)
}

/// What the help says is the default, if that is one word.
fn default_in_words(arg: &Arg) -> Option<String> {
    let help = arg.get_help()?.to_string();
    let (_, rest) = help.rsplit_once("[default: ")?;
    let word = rest.split_once(']')?.0;
    let one = !word.contains(' ') && arg.get_id() != "host";
    one.then(|| word.to_owned())
}

fn quoted(value: &str) -> String {
    if value.parse::<u64>().is_ok() { value.to_owned() } else { format!("{value:?}") }
}

/// The help of a key: that of its option, without the default, which stands below.
fn help(key: &Key) -> String {
    let helps = key.arguments.iter().filter_map(|arg| {
        let help = arg.get_help()?.to_string();
        let shown = default_in_words(arg).is_some();
        let help = help.rsplit_once(" [default: ").filter(|_| shown).map_or(help.clone(), |(help, _)| help.to_owned());
        let off = key.form == Form::Switch && arg.get_long().is_some_and(|long| long.starts_with("no-"));
        Some(if off { format!("With false: {}", lower(&help)) } else { help })
    });
    helps.collect::<Vec<_>>().join(". ")
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn comment(text: &mut String, words: &str) {
    let mut len = 0;
    for word in words.split_whitespace() {
        if len > 0 && len + 1 + word.chars().count() > WIDTH {
            text.push('\n');
            len = 0;
        }
        if len == 0 {
            text.push('#');
            len = 1;
        }
        text.push(' ');
        text.push_str(word);
        len += 1 + word.chars().count();
    }
    text.push('\n');
}
