//! The keys of the file, made from clap's definition of the options of `flowyard run`.
//!
//! An option's long name is its key, in the table of the heading under which `--help` lists it. `--no-X` is the key X
//! with false. What may be given several times is a list.

use clap::{Arg, ArgAction, Args, Command};

use crate::run::Run;

/// Headings of the help, and their tables in the file.
pub const SECTIONS: [(&str, &str); 5] = [
    ("", ""),
    ("Sorting", "sorting"),
    ("Your own function", "function"),
    ("Memory and threads", "memory"),
    ("Service", "service"),
];

/// Options that stand at the top of the file, whatever their heading: the yard's name, and what has tables of its own.
const AT_THE_TOP: [&str; 3] = ["name", "policy_file", "groups"];

/// Options that are no part of a configuration.
pub const NOT_IN_THE_FILE: [&str; 2] = ["config", "help"];

/// A key of the file.
pub struct Key {
    /// The table it stands in; empty at the top.
    pub section: &'static str,
    pub name: String,
    pub form: Form,
    /// The options behind it: one, or of a switch that has both, that for true and that for false.
    pub arguments: Vec<Arg>,
}

/// What stands behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// true or false.
    Switch,
    /// One value.
    Value,
    /// One value, or true for the option without one.
    ValueOrTrue,
    /// A list of values, or one.
    List,
    /// Tables with `name` and `rings`.
    Groups,
}

impl Key {
    /// The option that its values are for.
    pub fn argument(&self) -> &Arg {
        &self.arguments[0]
    }

    /// The option for true, or false, if there is one.
    pub fn switch(&self, yes: bool) -> Option<&Arg> {
        self.arguments.iter().find(|arg| arg.get_long().is_some_and(|long| long.starts_with("no-")) != yes)
    }

    /// As a person names it: `memory.ring-slots`.
    pub fn path(&self) -> String {
        if self.section.is_empty() { self.name.clone() } else { format!("{}.{}", self.section, self.name) }
    }
}

/// The options of `flowyard run`, without the program's own name before them.
pub fn command() -> Command {
    Run::augment_args(Command::new("run").no_binary_name(true))
}

/// Every key, in the order of the help, those at the top first.
pub fn keys() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for arg in command().get_arguments() {
        let id = arg.get_id().as_str();
        if NOT_IN_THE_FILE.contains(&id) {
            continue;
        }
        let heading = arg.get_help_heading().filter(|_| !AT_THE_TOP.contains(&id)).unwrap_or_default();
        let section = SECTIONS.iter().find(|(known, _)| *known == heading).map_or("", |(_, section)| section);
        let long = arg.get_long().unwrap_or(id);
        let switch = matches!(arg.get_action(), ArgAction::SetTrue);
        let name = long.strip_prefix("no-").filter(|_| switch).unwrap_or(long).to_owned();
        if let Some(known) = keys.iter_mut().find(|key| switch && key.section == section && key.name == name) {
            known.arguments.push(arg.clone());
            continue;
        }
        let form = if switch {
            Form::Switch
        } else if id == "groups" {
            Form::Groups
        } else if matches!(arg.get_action(), ArgAction::Append) || arg.get_value_delimiter().is_some() {
            Form::List
        } else if arg.get_num_args().is_some_and(|n| n.min_values() == 0) {
            Form::ValueOrTrue
        } else {
            Form::Value
        };
        keys.push(Key { section, name, form, arguments: vec![arg.clone()] });
    }
    let place = |key: &Key| SECTIONS.iter().position(|(_, section)| *section == key.section);
    keys.sort_by_key(|key| (place(key), key.form == Form::Groups)); // stable; tables after keys
    keys
}
