//! `flowyard ctl`: speak with a running yard.

mod tables;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use miette::{IntoDiagnostic, Result, miette};
use serde_json::Value;

use crate::control::{ask, percent_encoded};
use crate::{Outcome, runtime};

/// Speak with a running yard through its control socket.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The yard's name [default: that of the one that runs, or yard]
    #[arg(long, value_name = "NAME", global = true, value_parser = runtime::name, conflicts_with = "socket")]
    name: Option<String>,
    /// The yard's control socket, where it was given a path of its own
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What runs and what was counted, as JSON
    Status,
    /// Which processes have attached to which ring, as JSON
    Consumers,
    /// Packets, bytes and losses, in all and by ring
    Counters {
        /// As JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Each ring as it is now: its weight, what is on it, what waits for room, its consumer
    Rings {
        /// As JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Show the shares of the rings, or change them while packets flow, moving as few flows as can be
    Weights {
        /// One a ring, such as 2,1,1; 0 sends a ring nothing
        #[arg(value_name = "W,W,…")]
        weights: Option<String>,
        /// Of this group [default: the first]
        #[arg(long, value_name = "NAME", requires = "weights")]
        group: Option<String>,
    },
    /// Show how much the yard says on its standard error, or change it
    LogLevel {
        /// From now on
        level: Option<crate::log::Level>,
    },
    /// Read the function's files again and replace it between two batches: no packet is lost
    Reload,
    /// Put a request to the function and print its answer, one for each dispatcher
    Function {
        /// The request, as the function understands it
        #[arg(required = true)]
        request: Vec<String>,
    },
    /// Your own eBPF programs, in a yard that steers in the kernel
    #[command(subcommand)]
    Bpf(Bpf),
    /// The named tables that functions look things up in
    #[command(subcommand)]
    Table(Table),
}

#[derive(Debug, Subcommand)]
enum Bpf {
    /// What stands in the slots, and what the kernel counted, as JSON
    List,
    /// Put a program into a slot, in the place of the one there: each packet passes one of the two
    Load {
        /// Where: before steering, or between steering and delivery
        slot: Slot,
        /// Its object file, built with flowyard.bpf.h
        file: PathBuf,
        /// Begin with empty maps, instead of going on with those of the program there that are of the same name and
        /// shape
        #[arg(long)]
        fresh: bool,
    },
    /// Take the program out of a slot
    Unload {
        /// Which
        slot: Slot,
    },
    /// The maps of your programs, as JSON
    Maps,
    /// Read or change a map of your programs
    Map {
        /// Its name in the program, or SLOT:NAME
        name: String,
        #[command(subcommand)]
        action: MapAction,
    },
}

/// Keys and values: a number in this machine's order (decimal or 0x…), or hex:BYTES.
#[derive(Debug, Subcommand)]
enum MapAction {
    /// One entry
    Get {
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// Set one entry, for every processor if each has its own
    Set {
        #[arg(allow_negative_numbers = true)]
        key: String,
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Remove one entry
    Remove {
        #[arg(allow_negative_numbers = true)]
        key: String,
    },
    /// All entries
    Dump,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Slot {
    Before,
    After,
}

impl Slot {
    fn url(self) -> &'static str {
        match self {
            Slot::Before => "/bpf/before",
            Slot::After => "/bpf/after",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Table {
    /// All tables, as JSON
    List,
    /// One value
    Get { table: String, key: String },
    /// Set one entry
    Set { table: String, key: String, value: String },
    /// Remove one entry
    Remove { table: String, key: String },
    /// Remove all entries
    Clear { table: String },
    /// All entries, as CSV
    Dump { table: String },
    /// Set many entries, from CSV with the columns key,value (- is standard input)
    Load { table: String, file: PathBuf },
}

impl Ctl {
    /// Does it.
    pub fn run(self) -> Result<Outcome> {
        let socket = match self.socket {
            Some(path) => path,
            None => runtime::control_socket(self.name.as_deref())?,
        };
        let named = |table: &str| format!("/tables/{}", percent_encoded(table));
        let keyed = |table: &str, key: &str| format!("{}?key={}", named(table), percent_encoded(key));
        let table: Option<fn(&Value) -> String> = match &self.verb {
            Verb::Counters { json: false } => Some(tables::counters),
            Verb::Rings { json: false } => Some(tables::rings),
            _ => None,
        };
        let (method, url, body) = match self.verb {
            Verb::Consumers => ("GET", "/consumers".into(), Vec::new()),
            Verb::Status => ("GET", "/status".into(), Vec::new()),
            Verb::Counters { .. } => ("GET", "/counters".into(), Vec::new()),
            Verb::Rings { .. } => ("GET", "/rings".into(), Vec::new()),
            Verb::Weights { weights: None, .. } => ("GET", "/weights".into(), Vec::new()),
            Verb::Weights { weights: Some(weights), group } => {
                let group = group.map_or(String::new(), |group| format!("?group={}", percent_encoded(&group)));
                ("PUT", format!("/weights{group}"), weights.into_bytes())
            }
            Verb::LogLevel { level: None } => ("GET", "/log-level".into(), Vec::new()),
            Verb::LogLevel { level: Some(level) } => ("PUT", "/log-level".into(), level.name().into()),
            Verb::Reload => ("POST", "/reload".into(), Vec::new()),
            Verb::Function { request } => ("POST", "/function".into(), request.join(" ").into_bytes()),
            Verb::Bpf(Bpf::List) => ("GET", "/bpf".into(), Vec::new()),
            Verb::Bpf(Bpf::Load { slot, file, fresh }) => {
                let object = std::fs::read(&file).map_err(|e| miette!("cannot read {}: {e}", file.display()))?;
                let name = percent_encoded(&file.file_stem().unwrap_or_default().to_string_lossy());
                let fresh = if fresh { "&fresh=1" } else { "" };
                ("PUT", format!("{}?name={name}{fresh}", slot.url()), object)
            }
            Verb::Bpf(Bpf::Unload { slot }) => ("DELETE", slot.url().into(), Vec::new()),
            Verb::Bpf(Bpf::Maps) => ("GET", "/bpf/maps".into(), Vec::new()),
            Verb::Bpf(Bpf::Map { name, action }) => {
                let url = format!("/bpf/maps/{}", percent_encoded(&name));
                let keyed = |key: &str| format!("{url}?key={}", percent_encoded(key));
                match action {
                    MapAction::Get { key } => ("GET", keyed(&key), Vec::new()),
                    MapAction::Set { key, value } => ("PUT", keyed(&key), value.into_bytes()),
                    MapAction::Remove { key } => ("DELETE", keyed(&key), Vec::new()),
                    MapAction::Dump => ("GET", url, Vec::new()),
                }
            }
            Verb::Table(Table::List) => ("GET", "/tables".into(), Vec::new()),
            Verb::Table(Table::Get { table, key }) => ("GET", keyed(&table, &key), Vec::new()),
            Verb::Table(Table::Set { table, key, value }) => ("PUT", keyed(&table, &key), value.into_bytes()),
            Verb::Table(Table::Remove { table, key }) => ("DELETE", keyed(&table, &key), Vec::new()),
            Verb::Table(Table::Clear { table }) => ("DELETE", named(&table), Vec::new()),
            Verb::Table(Table::Dump { table }) => ("GET", named(&table), Vec::new()),
            Verb::Table(Table::Load { table, file }) => {
                let bytes = if file.as_os_str() == "-" {
                    let mut bytes = Vec::new();
                    std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).into_diagnostic()?;
                    bytes
                } else {
                    std::fs::read(&file).map_err(|e| miette!("cannot read {}: {e}", file.display()))?
                };
                ("POST", named(&table), bytes)
            }
        };
        let (code, answer) = ask(&socket, method, &url, &body)?;
        let text = String::from_utf8_lossy(&answer);
        if code == 200 {
            match (table, serde_json::from_str(&text)) {
                (Some(table), Ok(value)) => crate::output::print(&table(&value)),
                _ => crate::output::print(&text),
            }
            return Ok(Outcome::Good);
        }
        let error =
            serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
        Err(miette!("{}", error.unwrap_or_else(|| format!("the yard answers {code}: {text}"))))
    }
}
