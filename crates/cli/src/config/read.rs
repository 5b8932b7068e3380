//! A configuration file, read: arguments as they could have been typed, each with its place in the file.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use flowyard::PolicyFile;
use miette::{Report, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Fault, Faults};
use super::keys::{Form, Key, SECTIONS, command, keys};
use super::paths::rebased;

/// How alike a name must be to one that there is, for it to be offered (0 to 1, Jaro-Winkler).
const ALIKE: f64 = 0.8;

/// What a file says.
pub struct File {
    name: String,
    text: Arc<str>,
    pub given: Vec<Given>,
    /// `[policy]`, where it stands in the file itself.
    pub policy: Option<PolicyFile>,
}

/// What a file says under one key.
pub struct Given {
    /// Options that go before it where they are typed.
    pub ids: Vec<String>,
    /// What could have been typed for it.
    pub arguments: Vec<String>,
    key: String,
    span: Range<usize>,
}

impl File {
    /// Reads it, and judges every value on its own.
    pub fn read(path: &Path) -> Result<File> {
        let text: Arc<str> = super::text(path)?.into();
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut reader = Reader {
            folder,
            keys: keys(),
            file: File { name: path.display().to_string(), text: text.clone(), given: Vec::new(), policy: None },
            faults: Vec::new(),
        };
        reader.whole(&text);
        Faults::raise(reader.faults)?;
        Ok(reader.file)
    }

    /// Why values that are good on their own cannot stand together, at the place of the one that is to blame.
    pub fn blame(&self, error: &clap::Error) -> Report {
        // An option that needs another says the same on its own.
        let to_blame = self.given.iter().find(|given| {
            let alone = command().try_get_matches_from(&given.arguments);
            alone.is_err_and(|alone| alone.kind() == error.kind())
        });
        let (span, key) = to_blame.map_or((0..0, ""), |given| (given.span.clone(), given.key.as_str()));
        let colon = if key.is_empty() { "" } else { ": " };
        let message = format!("{key}{colon}{}", reason(error));
        let fault = Fault::new(&self.name, &self.text, span, message, None);
        Faults::raise(vec![fault]).expect_err("there is one")
    }
}

struct Reader {
    /// That of the file.
    folder: PathBuf,
    keys: Vec<Key>,
    file: File,
    faults: Vec<Fault>,
}

impl Reader {
    fn whole(&mut self, text: &str) {
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let message = error.message().trim_end().replace('\n', "; ");
                return self.fault(error.span().unwrap_or(0..0), message, None);
            }
        };
        for (key, value) in &table {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(_) if name == "policy" => self.policy(text, key.span()),
                DeValue::Table(inner) if SECTIONS.iter().any(|(_, section)| *section == name) => {
                    for (key, value) in inner {
                        self.entry(name, key.get_ref(), key.span(), value);
                    }
                }
                DeValue::Table(_) if !self.knows("", name) => {
                    let names = SECTIONS.iter().map(|(_, section)| *section).filter(|section| !section.is_empty());
                    let help = nearest(name, names.chain(["policy"])).map(|near| format!("did you mean [{near}]?"));
                    self.fault(key.span(), format!("there is no table [{name}]"), help);
                }
                _ => self.entry("", name, key.span(), value),
            }
        }
    }

    fn fault(&mut self, span: Range<usize>, message: String, help: Option<String>) {
        self.faults.push(Fault::new(&self.file.name, &self.file.text, span, message, help));
    }

    fn knows(&self, section: &str, name: &str) -> bool {
        self.keys.iter().any(|key| key.section == section && key.name == name)
    }

    /// `[policy]`: the policy file's own keys.
    fn policy(&mut self, text: &str, span: Range<usize>) {
        match PolicyFile::parse_within(text) {
            Ok(policy) => self.file.policy = policy,
            Err(error) => {
                let span = error.span().unwrap_or(span);
                self.fault(span, format!("policy: {}", error.reason()), None);
            }
        }
    }

    fn entry(&mut self, section: &str, name: &str, span: Range<usize>, value: &Spanned<DeValue>) {
        let Some(at) = self.keys.iter().position(|key| key.section == section && key.name == name) else {
            let (message, help) = self.unknown(section, name);
            return self.fault(span, message, help);
        };
        let key = &self.keys[at];
        match arguments(key, &self.folder, value) {
            Ok(arguments) => {
                let ids = key.arguments.iter().map(|arg| arg.get_id().to_string()).collect();
                let given = Given { ids, arguments, key: key.path(), span };
                self.file.given.push(given);
            }
            Err((span, why)) => {
                let message = format!("{}: {why}", key.path());
                self.fault(span, message, None);
            }
        }
    }

    fn unknown(&self, section: &str, name: &str) -> (String, Option<String>) {
        let place = if section.is_empty() { "at the top".into() } else { format!("in [{section}]") };
        let message = format!("there is no {name} {place}");
        if let Some(key) = self.keys.iter().find(|key| key.name == name) {
            let place =
                if key.section.is_empty() { "at the top of the file".into() } else { format!("in [{}]", key.section) };
            return (message, Some(format!("{name} belongs {place}")));
        }
        let of = |section: &str| {
            self.keys.iter().filter(|key| key.section == section).map(|key| key.name.as_str()).collect::<Vec<_>>()
        };
        let near = nearest(name, of(section).into_iter()).map(|near| format!("did you mean {near}?"));
        let elsewhere = || {
            let near = nearest(name, self.keys.iter().map(|key| key.name.as_str()))?;
            let key = self.keys.iter().find(|key| key.name == near)?;
            Some(format!("did you mean {}?", key.path()))
        };
        let all = || Some(format!("there are {}", of(section).join(", ")));
        (message, near.or_else(elsewhere).or_else(all))
    }
}

/// The name that this one was meant to be, if one is alike.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.replace('_', "-");
    let alike = known.map(|known| (strsim::jaro_winkler(&name, known), known));
    let (alike, known) = alike.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (alike >= ALIKE).then_some(known)
}

type Wrong = (Range<usize>, String);

/// What could have been typed for `value` behind `key`; each value is judged as clap would.
fn arguments(key: &Key, folder: &Path, value: &Spanned<DeValue>) -> Result<Vec<String>, Wrong> {
    let wrong = |why: &str| Err((value.span(), format!("{} {why}", kind(value.get_ref()))));
    let flag = |arg: Option<&clap::Arg>| arg.and_then(clap::Arg::get_long).map(|long| format!("--{long}"));
    let arg = key.argument();
    match (key.form, value.get_ref()) {
        (Form::Switch, DeValue::Boolean(yes)) => Ok(flag(key.switch(*yes)).into_iter().collect()),
        (Form::Switch, _) => wrong("stands where true or false must"),
        (Form::ValueOrTrue, DeValue::Boolean(yes)) => Ok(flag(Some(arg).filter(|_| *yes)).into_iter().collect()),
        (Form::List, DeValue::Array(values)) => values.iter().map(|value| argument(arg, folder, value)).collect(),
        (Form::Value | Form::ValueOrTrue | Form::List, _) => Ok(vec![argument(arg, folder, value)?]),
        (Form::Groups, DeValue::Array(groups)) => groups.iter().map(|group| self::group(arg, group)).collect(),
        (Form::Groups, _) => wrong("stands where tables must: write [[group]] with name and rings"),
    }
}

/// One value, as it could have been typed.
fn argument(arg: &clap::Arg, folder: &Path, value: &Spanned<DeValue>) -> Result<String, Wrong> {
    let text = match value.get_ref() {
        DeValue::String(text) => rebased(arg.get_id().as_str(), folder, text),
        // In decimal, whatever it is written in.
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.to_string(), |number| number.to_string()),
        DeValue::Float(number) => number.to_string(),
        other => return Err((value.span(), format!("{} stands where a string or a number must", kind(other)))),
    };
    judged(arg, &text).map_err(|why| (value.span(), format!("{text:?}: {why}")))
}

/// `[[group]]`.
fn group(arg: &clap::Arg, group: &Spanned<DeValue>) -> Result<String, Wrong> {
    let form = "write [[group]] with name and rings";
    let DeValue::Table(table) = group.get_ref() else { return Err((group.span(), form.into())) };
    if let Some((unknown, _)) = table.iter().find(|(key, _)| !["name", "rings"].contains(&key.get_ref().as_ref())) {
        return Err((unknown.span(), format!("there is no {} in a group: {form}", unknown.get_ref())));
    }
    let (Some(name), Some(rings)) = (table.get("name"), table.get("rings")) else {
        return Err((group.span(), form.into()));
    };
    let (DeValue::String(name), DeValue::Integer(rings)) = (name.get_ref(), rings.get_ref()) else {
        return Err((group.span(), "its name is a string, and rings a number".into()));
    };
    judged(arg, &format!("{name}:{rings}")).map_err(|why| (group.span(), why))
}

/// The argument, if clap takes this value for it.
fn judged(arg: &clap::Arg, value: &str) -> Result<String, String> {
    let (argument, typed) = match arg.get_long() {
        Some(long) => (format!("--{long}={value}"), vec![format!("--{long}={value}")]),
        None => (value.to_owned(), vec!["--".to_owned(), value.to_owned()]),
    };
    match command().try_get_matches_from(typed) {
        Err(error) if matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) => {
            Err(reason(&error))
        }
        _ => Ok(argument), // what it lacks may come with other keys
    }
}

/// Why clap refuses, without what it says about how to type it.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return source.to_string();
    }
    if let Some(ContextValue::Strings(valid)) = error.get(ContextKind::ValidValue)
        && !valid.is_empty()
    {
        return format!("must be one of {}", valid.join(", "));
    }
    if let (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(missing))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        let missing: Vec<_> = missing.iter().map(|arg| arg.split_whitespace().next().unwrap_or(arg)).collect();
        return format!("means nothing without {}", missing.join(", ").replace("--", ""));
    }
    let text = error.to_string();
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn kind(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
