//! Counters and rings as tables.

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::output::count;

/// `ctl counters`.
pub fn counters(answer: &Value) -> String {
    let number = |name: &str| count(answer[name].as_u64().unwrap_or_default());
    let rows = answer["rings"].as_array().into_iter().flatten().map(|ring| {
        let dropped = ring["dropped"].as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64()).sum();
        vec![name(ring), figure(ring, "packets"), figure(ring, "bytes"), count(dropped)]
    });
    let sums = ["received", "delivered", "dropped", "aside"].map(|name| format!("{name} {}", number(name))).join(", ");
    format!("{}\n\n{sums}\n", table(&["ring", "packets", "bytes", "dropped"], rows))
}

/// `ctl rings`.
pub fn rings(answer: &Value) -> String {
    let columns = ["weight", "slots", "held", "backlog", "packets", "dropped"];
    let rows = answer.as_array().into_iter().flatten().map(|ring| {
        let figures = columns.iter().map(|column| figure(ring, column));
        let consumer = ring["consumer"].as_str().unwrap_or_default().to_owned();
        std::iter::once(name(ring)).chain(figures).chain([consumer]).collect()
    });
    let header: Vec<&str> = ["ring"].into_iter().chain(columns).chain(["consumer"]).collect();
    format!("{}\n", table(&header, rows))
}

fn name(ring: &Value) -> String {
    match ring["group"].as_str() {
        Some(group) => format!("{group}/{}", ring["ring"]),
        None => ring["ring"].to_string(),
    }
}

fn figure(ring: &Value, name: &str) -> String {
    count(ring[name].as_u64().unwrap_or_default())
}

fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
