//! Options for the user's own steering function: where it comes from, its limits, groups, tables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use flowyard::function::{Chain, Function, FunctionError, Limits, isolated, serve};
use flowyard::tables::Tables;
use flowyard::{Group, HostStack, plugin, rules};
use miette::{Result, miette};

use crate::options::Sorting;

/// How functions are named.
const FORMS: &str = if cfg!(feature = "wasm") {
    "rules:FILE.toml, plugin:FILE.so or wasm:FILE.wasm, the last two with ?config=FILE if need be"
} else {
    "rules:FILE.toml, plugin:FILE.so or plugin:FILE.so?config=FILE"
};

fn help() -> String {
    format!(
        "A function that sees every packet before it goes to a ring: {FORMS}; several make a chain, asked in order. The \
         word kernel alone has the built-in policy run in the kernel, for xdp: ports"
    )
}

/// The user's own function.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Your own function")]
pub struct Steering {
    #[arg(long = "steer", value_name = "KIND:FILE", help = help())]
    functions: Vec<Spec>,
    /// Run plug-ins in processes of their own: one that crashes is started again, and nothing else ends
    #[arg(long, requires = "functions")]
    isolate: bool,
    /// Longest time that a call of at most 64 packets may take (such as 10ms) [default: 10ms]
    #[arg(long, value_name = "TIME", value_parser = crate::run::duration, requires = "functions")]
    budget: Option<Duration>,
    /// Failed calls in a row after which the function is switched off [default: 100]
    #[arg(long, value_name = "N", requires = "functions")]
    failures: Option<u32>,
    /// A group of rings that sees every packet, such as ids:4; may be given several times
    #[arg(long = "group", value_name = "NAME:RINGS", value_parser = group)]
    groups: Vec<(String, u16)>,
    /// What goes on to this host's own stack of what comes in by xdp: ports: pass (what no ring's socket takes), none,
    /// or what matches an expression of tcpdump, such as 'tcp port 22' or filter:arp [default: pass]. With a function,
    /// a name (or tap:NAME) is that of a TAP device, through which packets go there that the function sends there; both
    /// may be given
    #[arg(long, value_name = "pass|none|FILTER|TAP", value_parser = host)]
    host: Vec<String>,
    /// A named table for functions to look things up in, such as users:hash:key=4,value=8,entries=1000000;
    /// may be given several times
    #[arg(long = "table", value_name = "SPEC")]
    tables: Vec<String>,
    /// Fill a table from a CSV file with the columns key,value; may be given several times
    #[arg(long = "table-file", value_name = "TABLE=FILE", value_parser = table_file)]
    table_files: Vec<(String, PathBuf)>,
}

/// A function as it is named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    kind: Kind,
    file: PathBuf,
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernel,
    Rules,
    Plugin,
    Wasm,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Spec, String> {
        let forms = FORMS;
        if text == "kernel" {
            return Ok(Spec { kind: Kind::Kernel, file: PathBuf::new(), config: None });
        }
        let (kind, rest) = text.split_once(':').ok_or(format!("write {forms}, or kernel"))?;
        let (file, config) = match rest.split_once("?config=") {
            Some((file, config)) => (file, Some(config.into())),
            None => (rest, None),
        };
        let kind = match kind {
            "rules" if config.is_some() => return Err("rules take no config: all is in the file".into()),
            "rules" => Kind::Rules,
            "plugin" => Kind::Plugin,
            "wasm" if cfg!(feature = "wasm") => Kind::Wasm,
            "wasm" => return Err("this program was built without WebAssembly: build it with --features wasm".into()),
            other => return Err(format!("there is no kind of function {other:?}: write {forms}")),
        };
        if file.is_empty() {
            return Err(format!("names no file: write {forms}"));
        }
        Ok(Spec { kind, file: file.into(), config })
    }
}

/// `--group`.
fn group(text: &str) -> Result<(String, u16), String> {
    let form = "write NAME:RINGS, such as ids:4";
    let (name, rings) = text.split_once(':').ok_or(form)?;
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let rings: u16 = rings.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or("RINGS is a number from 1 to 4096")?;
    if good { Ok((name.into(), rings)) } else { Err(format!("{form}; a name has letters, digits and -_.")) }
}

/// `--host`.
fn host(text: &str) -> Result<String, String> {
    let rest = ["tap:", "filter:"].into_iter().find_map(|head| text.strip_prefix(head)).unwrap_or(text);
    if rest.trim().is_empty() {
        let why = "it is empty, and an empty filter would match every packet";
        return Err(format!("{why}: write pass, none, a filter such as 'tcp port 22', or tap:NAME"));
    }
    Ok(text.to_owned())
}

fn table_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("write TABLE=FILE")?;
    Ok((name.into(), file.into()))
}

impl Steering {
    /// Whether there is a function.
    pub fn is_there(&self) -> bool {
        self.functions.iter().any(|spec| spec.kind != Kind::Kernel)
    }

    /// Whether plug-ins run in processes of their own.
    pub fn has_processes(&self) -> bool {
        self.isolate
    }

    /// Files that are read, now and when the function is loaded again.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let functions = self.functions.iter().filter(|spec| spec.kind != Kind::Kernel);
        let functions = functions.flat_map(|spec| std::iter::once(&spec.file).chain(&spec.config));
        functions.chain(self.table_files.iter().map(|(_, file)| file)).map(PathBuf::as_path)
    }

    /// Whether the kernel is to steer.
    pub fn in_kernel(&self) -> Result<bool> {
        let kernel = self.functions.iter().any(|spec| spec.kind == Kind::Kernel);
        if kernel && self.functions.len() > 1 {
            let others = self.functions.iter().filter(|spec| spec.kind != Kind::Kernel);
            let others: Vec<_> = others.map(|spec| spec.file.display().to_string()).collect();
            let others = if others.is_empty() { "itself".into() } else { others.join(", ") };
            return Err(miette!(
                "--steer kernel cannot be together with {others}: the kernel runs the built-in policy alone; leave one of them out"
            ));
        }
        Ok(kernel)
    }

    /// What goes to the host: the TAP device of the function, and what ports leave to the stack.
    pub fn hosts(&self) -> Result<(Option<String>, HostStack)> {
        let (mut tap, mut stack) = (None, None);
        for text in &self.host {
            let name = text.strip_prefix("tap:");
            let filter = text.strip_prefix("filter:");
            // As a name alone always was.
            let bare = self.is_there() && filter.is_none() && !text.contains(' ') && text != "pass" && text != "none";
            let twice = match (name.or(bare.then_some(text.as_str())), filter.unwrap_or(text)) {
                (Some(name), _) => tap.replace(name.to_owned()).is_some(),
                (None, "pass") => stack.replace(HostStack::Pass).is_some(),
                (None, "none") => stack.replace(HostStack::Nothing).is_some(),
                (None, expression) => stack.replace(HostStack::Filter(expression.to_owned())).is_some(),
            };
            if twice {
                return Err(miette!(
                    "--host {text}: another --host says the same of another: give one of pass, none or a filter, and one \
                     tap:NAME at most (expressions are joined by `or`)"
                ));
            }
        }
        if let Some(tap) = tap.as_ref().filter(|_| !self.is_there() && self.functions.is_empty()) {
            return Err(miette!(
                "--host tap:{tap} is for packets that a function sends there, and there is none: give one by --steer, or \
                 leave it out"
            ));
        }
        Ok((tap, stack.unwrap_or_default()))
    }

    /// Reads the files and makes the function: a chain if there are several. `None` without any.
    pub fn function(&self, tables: &Tables) -> Result<Option<Function>> {
        let mut functions = Vec::new();
        for spec in self.functions.iter().filter(|spec| spec.kind != Kind::Kernel) {
            let limits = Limits {
                budget: self.budget.unwrap_or(Limits::default().budget),
                failures: self.failures.unwrap_or(Limits::default().failures),
            };
            let function = if self.isolate && spec.kind == Kind::Plugin {
                spec.isolated(tables, limits) // with limits of its own: its process is held to the budget
            } else {
                spec.load(tables).map(|function| function.with_limits(limits))
            };
            functions.push(function.map_err(|e| miette!("{e}"))?);
        }
        Ok(match functions.len() {
            0 => None,
            1 => functions.pop(),
            _ => Some(Chain::function(functions)),
        })
    }

    /// The groups: the first one's rings, and the further ones.
    pub fn groups(&self, sorting: &Sorting) -> Result<(String, u16, Vec<Group>)> {
        if let (Some(rings), Some((name, _))) = (sorting.rings, self.groups.first()) {
            return Err(miette!(
                "--rings {rings} (-n) is the number of rings of a yard without groups, and each --group has its own: \
                 leave --rings out, or write --group {name}:{rings}"
            ));
        }
        for (at, (name, _)) in self.groups.iter().enumerate() {
            if self.groups[..at].iter().any(|(n, _)| n == name) {
                return Err(miette!("--group {name} is given twice: give each group a name of its own"));
            }
        }
        let Some(((name, rings), more)) = self.groups.split_first().map(|((n, r), more)| ((n.clone(), *r), more))
        else {
            return Ok((String::new(), sorting.rings(), Vec::new()));
        };
        Ok((name, rings, more.iter().map(|(name, rings)| Group::new(name, *rings)).collect()))
    }

    /// Makes the tables and fills them.
    pub fn make_tables(&self) -> Result<Tables> {
        let tables = Tables::default();
        for spec in &self.tables {
            let spec = spec.parse().map_err(|e: flowyard::tables::TablesError| miette!("--table: {e}"))?;
            tables.declare(&spec).map_err(|e| miette!("--table: {e}"))?;
        }
        for (name, file) in &self.table_files {
            crate::table::load_file(&tables, name, file)?;
        }
        Ok(tables)
    }
}

impl Spec {
    fn load(&self, tables: &Tables) -> Result<Function, FunctionError> {
        match self.kind {
            Kind::Kernel => Err(FunctionError::new("kernel", "is no function")), // `Steering::function` asks for none
            Kind::Rules => rules::load(&self.file).map_err(|e| FunctionError::new("rules", e.to_string())),
            Kind::Plugin => {
                let tables = tables.clone();
                plugin::load(&self.file, &self.config()?, move |name| tables.get(name))
            }
            Kind::Wasm => self.load_wasm(tables),
        }
    }

    #[cfg(feature = "wasm")]
    fn load_wasm(&self, tables: &Tables) -> Result<Function, FunctionError> {
        let tables = tables.clone();
        flowyard_wasm::load(&self.file, &self.config()?, move |name: &str| tables.get(name))
    }

    #[cfg(not(feature = "wasm"))]
    fn load_wasm(&self, _: &Tables) -> Result<Function, FunctionError> {
        Err(FunctionError::new("wasm", "this program was built without WebAssembly"))
    }

    fn config(&self) -> Result<String, FunctionError> {
        let Some(path) = &self.config else { return Ok(String::new()) };
        std::fs::read_to_string(path).map_err(|e| {
            FunctionError::new(
                self.file.display().to_string(),
                format!("cannot read its config {}: {e}", path.display()),
            )
        })
    }

    /// The same in a process of its own: this program, by a way in of its own. Tables are handed on by path:
    /// the child, a process of the same user, opens our descriptors.
    fn isolated(&self, tables: &Tables, limits: Limits) -> Result<Function, FunctionError> {
        let name = self.file.display().to_string();
        let own = std::env::current_exe();
        let own = own.map_err(|e| FunctionError::new(&name, format!("cannot find this program's own file: {e}")))?;
        let mut config = format!("{}\n", self.file.display());
        let grants = crate::table::grants(tables);
        for (table, fd) in &grants {
            config.push_str(&format!("{table}={}\n", crate::table::path(fd).display()));
        }
        config.push('\n');
        config.push_str(&self.config()?);
        let command = move || {
            let _open = &grants; // as long as a child may be started
            let mut command = Command::new(&own);
            command.arg(CHILD);
            command
        };
        Ok(isolated(&format!("{name} (isolated)"), command, config.into_bytes(), limits))
    }
}

/// The way in for a process that runs a plug-in for a yard.
pub const CHILD: &str = "steer-for-a-yard";

/// What that process does: until its yard is gone. Answers its exit status.
pub fn child() -> std::process::ExitCode {
    let made = |config: &[u8]| {
        let error = |why: &str| FunctionError::new("plug-in", why);
        let text = std::str::from_utf8(config).map_err(|_| error("its configuration is no text"))?;
        let (head, config) = text.split_once("\n\n").ok_or(error("its configuration is cut"))?;
        let mut lines = head.lines();
        let file = lines.next().unwrap_or_default();
        let tables: Vec<(String, PathBuf)> =
            lines.filter_map(|line| line.split_once('=')).map(|(name, path)| (name.into(), path.into())).collect();
        let find = move |name: &str| {
            let (_, path) = tables.iter().find(|(known, _)| known == name)?;
            crate::table::open(path)
        };
        plugin::load(Path::new(file), config, find)
    };
    match serve(made) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            crate::output::say(error);
            std::process::ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_by_kind_and_file() {
        let spec: Spec = "plugin:/a/b.so?config=/etc/b.toml".parse().expect("it names one");
        assert_eq!(spec, Spec { kind: Kind::Plugin, file: "/a/b.so".into(), config: Some("/etc/b.toml".into()) });
        assert_eq!("rules:r.toml".parse::<Spec>().map(|s| s.kind), Ok(Kind::Rules));
        assert_eq!("kernel".parse::<Spec>().map(|s| s.kind), Ok(Kind::Kernel));
        for (text, says) in [
            ("kernel:x", "\"kernel\""),
            ("r.toml", "rules:FILE"),
            ("lua:x", "\"lua\""),
            ("rules:", "names no file"),
            ("rules:a?config=b", "no config"),
        ] {
            assert!(text.parse::<Spec>().is_err_and(|e| e.contains(says)), "{text}");
        }
    }

    #[test]
    fn a_host_of_no_words_is_refused() {
        for text in ["", " ", "\t", "filter:", "filter: ", "tap:"] {
            let error = host(text).expect_err(text);
            assert!(error.contains("is empty") && error.contains("tcp port 22"), "{text:?}: {error}");
        }
        assert!(["pass", "none", "tap:a", "filter:arp", "tcp port 22"].iter().all(|text| host(text).is_ok()));
    }

    #[test]
    fn groups_have_names_and_rings() {
        assert_eq!(group("ids:4"), Ok(("ids".into(), 4)));
        for text in ["ids", "ids:0", ":4", "a b:1", "ids:5000"] {
            assert!(group(text).is_err(), "{text}");
        }
    }
}
