//! Tables from CSV files and into them.
//!
//! The first row is `key,value`; each other row is an entry, in the forms of [`table_text`](crate::table_text). Blanks
//! around a field are dropped, and so are empty lines and lines that begin with `#`. A key that comes twice has its
//! last value.
//!
//! A file is read to its end before the table is touched: a mistake in it changes nothing. Then the
//! entries are set while look-ups go on, a million in about a second, reading included.
//!
//! ```
//! use flowyard::table_csv::{Onto, load_from};
//! use flowyard::tables::{Kind, Shape, Table};
//!
//! let table = Table::create("routes", Shape::new(Kind::Lpm, 4, 4, 100)?)?;
//! let file = "key,value\n10.0.0.0/8, 1\n# the branch office\n10.1.0.0/16, 2\n";
//! assert_eq!(load_from(&table, "routes.csv", file.as_bytes(), Onto::Merge)?.rows, 2);
//!
//! let refusal = load_from(&table, "routes.csv", "key,value\n10.1.0.0/8,1\n".as_bytes(), Onto::Merge);
//! assert!(refusal.unwrap_err().to_string().starts_with("routes.csv, line 2"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder, Trim};
use flowyard_mem::tables::{Table, TableError};

use crate::table_text::{Form, TextError, format_key, format_value, push_key, push_value};

/// The first row.
const COLUMNS: [&str; 2] = ["key", "value"];
/// Entries that are set before other writers have their turn.
const TURN: usize = 1 << 16;

/// What happens to the entries that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onto {
    /// Those that the file does not name stay.
    Merge,
    /// Those that the file does not name are removed, before any is set.
    Replace,
}

/// What loading did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of the file: entries set.
    pub rows: u64,
    /// Entries removed, because the file does not name them.
    pub removed: u64,
}

/// What saving did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// Entries written.
    pub rows: u64,
    /// Places left out because a writer died there: [`Entries::skipped`](flowyard_mem::tables::Entries::skipped).
    pub skipped: u32,
}

/// Why a table was not loaded or saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableCsvError {
    /// The file cannot be read or written, or is not CSV.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// Why.
        source: csv::Error,
    },
    /// A row with other columns.
    #[error("{file}, line {line}: the columns are {found}, but must be key,value")]
    Columns {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// What there is.
        found: String,
    },
    /// A field that means nothing to this table.
    #[error("{file}, line {line}: {error}")]
    Field {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// Column, text and what is allowed.
        error: TextError,
    },
    /// The table refused an entry.
    #[error("{file}, line {line}: {source}; the {set} rows before it are set")]
    Entry {
        /// The file.
        file: String,
        /// The line, from 1.
        line: u64,
        /// Rows set before.
        set: u64,
        /// Why.
        source: Box<TableError>,
    },
    /// The table cannot be changed.
    #[error("{file}: {source}")]
    Table {
        /// The file.
        file: String,
        /// Why.
        source: TableError,
    },
}

/// Sets the entries of a CSV file.
///
/// # Errors
/// [`TableCsvError`] names file, line, column and what is allowed. Unless it is [`TableCsvError::Entry`], no
/// entry was set.
pub fn load(table: &Table, path: &Path, onto: Onto) -> Result<Loaded, TableCsvError> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => load_from(table, &name, file, onto),
        Err(e) => Err(TableCsvError::File { file: name, source: e.into() }),
    }
}

/// As [`load`], from anything that can be read; `name` is for errors.
///
/// # Errors
/// As [`load`].
pub fn load_from(table: &Table, name: &str, mut input: impl Read, onto: Onto) -> Result<Loaded, TableCsvError> {
    let mut file = Vec::new();
    input.read_to_end(&mut file).map_err(|e| TableCsvError::File { file: name.to_owned(), source: e.into() })?;
    let rows = Rows::read(table, name, &file)?;
    let refuse = |source| TableCsvError::Table { file: name.to_owned(), source };
    let mut removed = 0;
    if onto == Onto::Replace {
        let named: HashSet<&[u8]> = rows.keys.chunks_exact(table.shape().stored_key_bytes()).collect();
        let mut writer = table.writer().map_err(refuse)?;
        for entry in table.entries().filter(|entry| !named.contains(&entry.key[..])) {
            removed += u64::from(writer.remove(&entry.key).map_err(refuse)?);
        }
    }
    let mut set = 0;
    for (turn, starts) in rows.starts.chunks(TURN).enumerate() {
        let mut writer = table.writer().map_err(refuse)?;
        for (row, start) in (turn * TURN..).zip(starts) {
            let (key, value) = rows.get(table, row);
            writer.set(key, value).map_err(|source| {
                let line = line(&file, *start);
                TableCsvError::Entry { file: name.to_owned(), line, set, source: Box::new(source) }
            })?;
            set += 1;
        }
    }
    Ok(Loaded { rows: set, removed })
}

/// A file's entries, read and checked.
struct Rows {
    keys: Vec<u8>,
    values: Vec<u8>,
    /// Where each begins in the file, or the empty lines and comments before it.
    starts: Vec<usize>,
}

impl Rows {
    fn read(table: &Table, name: &str, file: &[u8]) -> Result<Rows, TableCsvError> {
        let shape = table.shape();
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(Trim::All)
            .comment(Some(b'#'))
            .from_reader(file);
        let mut rows = Rows { keys: Vec::new(), values: Vec::new(), starts: Vec::new() };
        let mut record = ByteRecord::new();
        let mut first = true;
        loop {
            let fail = |source| TableCsvError::File { file: name.to_owned(), source };
            if !reader.read_byte_record(&mut record).map_err(fail)? {
                break;
            }
            let start = record.position().map_or(0, |position| position.byte() as usize);
            let columns = || {
                let found = record.iter().map(|field| String::from_utf8_lossy(field)).collect::<Vec<_>>().join(",");
                TableCsvError::Columns { file: name.to_owned(), line: line(file, start), found: format!("{found:?}") }
            };
            if first {
                if record.iter().ne(COLUMNS.iter().map(|name| name.as_bytes())) {
                    return Err(columns());
                }
                first = false;
                continue;
            }
            let (Some(key), Some(value), 2) = (record.get(0), record.get(1), record.len()) else {
                return Err(columns());
            };
            let field = |error| TableCsvError::Field { file: name.to_owned(), line: line(file, start), error };
            push_key(shape, &text(key), &mut rows.keys).map_err(field)?;
            push_value(shape, &text(value), &mut rows.values).map_err(field)?;
            rows.starts.push(start);
        }
        if first {
            let found = "none: the file is empty".into();
            return Err(TableCsvError::Columns { file: name.to_owned(), line: 1, found });
        }
        Ok(rows)
    }

    fn get(&self, table: &Table, row: usize) -> (&[u8], &[u8]) {
        let (key, value) = (table.shape().stored_key_bytes(), table.shape().value_bytes());
        (&self.keys[row * key..][..key], &self.values[row * value..][..value])
    }
}

/// The line, from 1, of a row that begins at `start` or behind the empty lines and comments there.
fn line(file: &[u8], start: usize) -> u64 {
    let (before, from) = file.split_at(start.min(file.len()));
    // The end of the row before, if its "\r" was all that was read.
    let skipped = from.split(|byte| *byte == b'\n').take_while(|line| matches!(line, [] | [b'\r'] | [b'#', ..]));
    1 + (before.iter().filter(|byte| **byte == b'\n').count() + skipped.count()) as u64
}

/// A field; what is not UTF-8 becomes a character that no form has.
fn text(field: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(field)
}

/// Writes all entries, in no order, in a form that [`load_from`] reads. Stops no writer.
///
/// # Errors
/// [`TableCsvError::File`] if `output` cannot be written.
pub fn save(table: &Table, name: &str, output: impl Write, key: Form, value: Form) -> Result<Saved, TableCsvError> {
    let fail = |source| TableCsvError::File { file: name.to_owned(), source };
    let mut writer = csv::Writer::from_writer(output);
    writer.write_record(COLUMNS).map_err(fail)?;
    let mut entries = table.entries();
    let mut rows = 0;
    for entry in entries.by_ref() {
        let (key, value) = (format_key(table.shape(), &entry.key, key), format_value(&entry.value, value));
        writer.write_record([key, value]).map_err(fail)?;
        rows += 1;
    }
    writer.flush().map_err(|e| fail(e.into()))?;
    Ok(Saved { rows, skipped: entries.skipped() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowyard_mem::tables::{Kind, Lookup, Shape};

    fn table(kind: Kind, key_bytes: usize, value_bytes: usize, entries: usize) -> Table {
        Table::create("csv", Shape::new(kind, key_bytes, value_bytes, entries).expect("shape")).expect("table")
    }

    fn load_text(table: &Table, text: &str, onto: Onto) -> Result<Loaded, String> {
        load_from(table, "t.csv", text.as_bytes(), onto).map_err(|e| e.to_string())
    }

    fn number(table: &Table, key: &[u8]) -> Option<u64> {
        let mut value = [0; 8];
        (table.get(key, &mut value) == Lookup::Found).then(|| u64::from_le_bytes(value))
    }

    #[test]
    fn rows_become_entries_and_the_other_way_round() {
        let table = table(Kind::Hash, 4, 8, 10);
        let text = "key,value\n10.0.0.1,1\n\n# two\n\"10.0.0.2\", 0x2 \n10.0.0.1,3\n";
        assert_eq!(load_text(&table, text, Onto::Merge), Ok(Loaded { rows: 3, removed: 0 }));
        assert_eq!((number(&table, &[10, 0, 0, 1]), number(&table, &[10, 0, 0, 2])), (Some(3), Some(2)));
        let text = "key,value\r\n10.0.0.2,5\r\n10.0.0.3,6";
        assert_eq!(load_text(&table, text, Onto::Replace), Ok(Loaded { rows: 2, removed: 1 }));
        assert_eq!((number(&table, &[10, 0, 0, 1]), number(&table, &[10, 0, 0, 2])), (None, Some(5)));
        let mut saved = Vec::new();
        let done = save(&table, "out.csv", &mut saved, Form::Address, Form::Natural).expect("saves");
        assert_eq!(done, Saved { rows: 2, skipped: 0 });
        let mut lines: Vec<&str> = std::str::from_utf8(&saved).expect("text").lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["10.0.0.2,5", "10.0.0.3,6", "key,value"]);
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let (one, two) = (table(Kind::Lpm, 16, 20, 1000), table(Kind::Lpm, 16, 20, 1000));
        for n in 0..=128u8 {
            let bits = u128::MAX.checked_shl(128 - u32::from(n)).unwrap_or(0);
            let value = if n % 2 == 0 { *b"a, \"quoted\" value\0\0\0" } else { [n; 20] };
            one.set(&[&bits.to_be_bytes()[..], &[n]].concat(), &value).expect("fits");
        }
        let mut saved = Vec::new();
        save(&one, "out.csv", &mut saved, Form::Natural, Form::Natural).expect("saves");
        load_from(&two, "in.csv", &saved[..], Onto::Merge).expect("loads");
        let sorted = |table: &Table| {
            let mut entries: Vec<_> = table.entries().collect();
            entries.sort();
            entries
        };
        assert_eq!(sorted(&one), sorted(&two));
    }

    #[test]
    fn a_mistake_names_its_place_and_changes_nothing() {
        let table = table(Kind::Hash, 4, 1, 2);
        for (text, says) in [
            ("", "line 1: the columns are none"),
            ("ip,plan\n1,2\n", "line 1: the columns are \"ip,plan\""),
            ("key,value\n1,2\n1,2,3\n", "line 3: the columns are \"1,2,3\""),
            ("key,value\n1,2\n\n10.0.0.300,2\n", "line 4: key \"10.0.0.300\" has none"),
            ("key,value\r\n1,2\r\n# x\r\n\r\ntext:a,2\r\n10.0.0.300,2", "line 6: key \"10.0.0.300\" has none"),
            ("key,value\n1,256\n", "line 2: value \"256\" does not fit into 1 bytes"),
            ("key,value\n1,2\n\u{e4},2\n", "an IPv4 address"),
        ] {
            let refusal = load_text(&table, text, Onto::Replace).expect_err(text);
            assert!(refusal.starts_with("t.csv") && refusal.contains(says), "{refusal}");
            assert!(table.is_empty());
        }
        let refusal = load_text(&table, "key,value\n1,1\n2,2\n3,3\n", Onto::Merge).expect_err("too many");
        assert!(refusal.contains("line 4") && refusal.contains("full") && refusal.contains("2 rows"), "{refusal}");
        assert!(load(&table, Path::new("/none/such"), Onto::Merge).expect_err("no file").to_string().contains("/none"));
        let latin1 = b"key,value\ntext:\xe4,1\n";
        assert!(load_from(&table, "t.csv", &latin1[..], Onto::Merge).is_ok() || table.len() == 2);
    }
}
