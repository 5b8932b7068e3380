//! The named tables of a yard, as its command line and its control socket reach them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use flowyard::mem::tables::{Access, Kind, Lookup, Table};
use flowyard::table_csv::{self, Onto};
use flowyard::table_text::{Form, format_value, parse_key, parse_value};
use flowyard::tables::Tables;
use miette::{Result, miette};
use serde_json::{Value, json};
use tiny_http::Method;

/// Answer of the control socket: status, type, body; or status and what is wrong.
type Answer = std::result::Result<(u16, &'static str, Vec<u8>), (u16, String)>;

/// All tables as JSON.
pub fn list(tables: &Tables) -> Value {
    let one = |(name, table): (String, Table)| {
        let shape = *table.shape();
        json!({
            "table": name, "kind": shape.kind().name(), "key_bytes": shape.key_bytes(),
            "value_bytes": shape.value_bytes(), "entries": table.len(), "capacity": shape.entries(),
        })
    };
    tables.all().into_iter().map(one).collect::<Vec<_>>().into()
}

/// Fills a table from a CSV file.
pub fn load_file(tables: &Tables, name: &str, file: &Path) -> Result<()> {
    let table = named(tables, name).map_err(|(_, why)| miette!("--table-file {name}={}: {why}", file.display()))?;
    table_csv::load(&table, file, Onto::Merge).map(drop).map_err(|e| miette!("--table-file: {e}"))
}

fn named(tables: &Tables, name: &str) -> std::result::Result<Table, (u16, String)> {
    tables.get(name).ok_or_else(|| {
        let names: Vec<String> = tables.all().into_iter().map(|(name, _)| name).collect();
        let there = if names.is_empty() { "none: declare it with --table".into() } else { names.join(", ") };
        (404, format!("there is no table {name:?}; there are: {there}"))
    })
}

/// What the control socket answers about one table.
pub fn respond(tables: &Tables, method: &Method, name: &str, key: Option<&str>, body: &[u8]) -> Answer {
    let table = named(tables, name)?;
    let shape = *table.shape();
    let bad = |why: String| (400, format!("table {name:?}: {why}"));
    let text = |text: String| Ok((200, "text/plain; charset=utf-8", text.into_bytes()));
    match (method, key) {
        (Method::Get, Some(key)) => {
            let mut value = vec![0; shape.value_bytes()];
            // An lpm is asked for an address: its key without the length.
            let asked = parse_key(&shape, key).map_err(|e| bad(e.to_string()))?;
            match table.get(&asked[..shape.key_bytes()], &mut value) {
                Lookup::Found => text(format!("{}\n", format_value(&value, Form::Natural))),
                Lookup::Busy => Err((503, format!("table {name:?}: the entry {key:?} is being changed: ask again"))),
                _ => Err((404, format!("table {name:?} has no entry {key:?}"))),
            }
        }
        (Method::Get, None) => {
            let mut out = Vec::new();
            let saved = table_csv::save(&table, name, &mut out, Form::Natural, Form::Natural);
            saved.map_err(|e| (500, e.to_string()))?;
            Ok((200, "text/csv; charset=utf-8", out))
        }
        (Method::Put, Some(key)) => {
            let value = std::str::from_utf8(body).map_err(|_| bad("the value is no text".into()))?;
            let key = parse_key(&shape, key).map_err(|e| bad(e.to_string()))?;
            let value = parse_value(&shape, value).map_err(|e| bad(e.to_string()))?;
            table.set(&key, &value).map_err(|e| bad(e.to_string()))?;
            text("set\n".into())
        }
        (Method::Post, None) => {
            let loaded = table_csv::load_from(&table, "the lines sent", body, Onto::Merge);
            text(format!("{} set\n", loaded.map_err(|e| bad(e.to_string()))?.rows))
        }
        (Method::Delete, Some(key)) => {
            let parsed = parse_key(&shape, key).map_err(|e| bad(e.to_string()))?;
            match table.remove(&parsed).map_err(|e| bad(e.to_string()))? {
                true => text("removed\n".into()),
                false => Err((404, format!("table {name:?} has no entry {key:?}{}", lpm_hint(shape.kind())))),
            }
        }
        (Method::Delete, None) => {
            table.clear().map_err(|e| bad(e.to_string()))?;
            text("cleared\n".into())
        }
        (method, _) => {
            Err((405, format!("tables do not take {method} so: see the documentation of the control socket")))
        }
    }
}

fn lpm_hint(kind: Kind) -> &'static str {
    if kind == Kind::Lpm { " (prefixes are removed with their length, as dump shows them)" } else { "" }
}

/// Descriptors for reading all tables, by name: kept open as long as the answer lives, and opened by other
/// processes of this user under their [`path`].
pub fn grants(tables: &Tables) -> Vec<(String, OwnedFd)> {
    let grant = |(name, table): (String, Table)| Some((name, table.grant(Access::Read).ok()?));
    tables.all().into_iter().filter_map(grant).collect()
}

/// Where another process of this user opens our descriptor.
pub fn path(fd: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// Opens a table for reading by the path that [`path`] answered in the process that has it.
pub fn open(path: &Path) -> Option<Table> {
    let file = std::fs::File::open(path).ok()?;
    Table::attach(file.into(), Access::Read).ok()
}
