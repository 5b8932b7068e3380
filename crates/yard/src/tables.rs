//! Named tables of a yard: what they are called, and how they are asked for in text.
//!
//! ```
//! use flowyard::tables::{TableSpec, Tables};
//!
//! let tables = Tables::default();
//! let spec: TableSpec = "subscribers:hash:key=4,value=8,entries=1000000".parse()?;
//! let subscribers = tables.declare(&spec)?;
//! subscribers.set(&[10, 0, 0, 1], &7u64.to_le_bytes())?;
//! assert_eq!(tables.get("subscribers").map(|table| table.len()), Some(1));
//!
//! let refusal = "subscribers:hsh:key=4".parse::<TableSpec>().unwrap_err().to_string();
//! assert!(refusal.contains("hash, array or lpm"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

pub use flowyard_mem::tables::{Access, Entries, Entry, Kind, Lookup, Shape, Table, TableError, Writer};

/// Longest name of a table.
const NAME_BYTES: usize = 32;

/// Why there is no such table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TablesError {
    /// The specification means nothing.
    #[error("table {spec:?}: {reason}; write NAME:KIND:key=BYTES,value=BYTES,entries=NUMBER")]
    Spec {
        /// The text.
        spec: String,
        /// What is wrong with it, and what it may be.
        reason: String,
    },
    /// There is another table of this name.
    #[error("table {name:?} is there already, as {has}; give this one ({wanted}) another name")]
    Taken {
        /// The name.
        name: String,
        /// What the one that is there is like.
        has: Shape,
        /// What was asked for.
        wanted: Shape,
    },
    /// It could not be made.
    #[error("table {name:?}: {source}")]
    Table {
        /// The name.
        name: String,
        /// Why.
        source: TableError,
    },
}

/// What a table is called, and its shape: `NAME:KIND:key=BYTES,value=BYTES,entries=NUMBER`. An
/// array has no `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    name: String,
    shape: Shape,
}

impl TableSpec {
    /// Checks the name: 1 to 32 letters, digits, `-`, `_` and `.`, a letter first.
    ///
    /// # Errors
    /// [`TablesError::Spec`] says what it may be.
    pub fn new(name: &str, shape: Shape) -> Result<TableSpec, TablesError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let good = name.len() <= NAME_BYTES && name.chars().all(allowed);
        if !good || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let reason = format!(
                "the name {name:?} is not 1 to {NAME_BYTES} letters, digits, '-', '_' and '.', beginning with a letter"
            );
            return Err(TablesError::Spec { spec: format!("{name}:{shape}"), reason });
        }
        Ok(TableSpec { name: name.to_owned(), shape })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind and sizes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl fmt::Display for TableSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.shape)
    }
}

impl FromStr for TableSpec {
    type Err = TablesError;

    fn from_str(spec: &str) -> Result<TableSpec, TablesError> {
        let refuse = |reason: String| TablesError::Spec { spec: spec.to_owned(), reason };
        let mut parts = spec.splitn(3, ':');
        let (Some(name), Some(kind), Some(sizes)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse("it has fewer than three parts between colons".into()));
        };
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.name() == kind) else {
            return Err(refuse(format!("the kind {kind:?} is not hash, array or lpm")));
        };
        let (mut key, mut value, mut entries) = (None, None, None);
        for size in sizes.split(',') {
            let Some((option, number)) = size.split_once('=') else {
                return Err(refuse(format!("{size:?} is not OPTION=NUMBER")));
            };
            let place = match option {
                "key" => &mut key,
                "value" => &mut value,
                "entries" => &mut entries,
                _ => return Err(refuse(format!("the option {option:?} is not key, value or entries"))),
            };
            let Ok(number) = number.parse::<usize>() else {
                return Err(refuse(format!("{option} is {number:?}, not a number")));
            };
            if place.replace(number).is_some() {
                return Err(refuse(format!("{option} is given twice")));
            }
        }
        if kind == Kind::Array {
            key = key.or(Some(4));
        }
        let missing = |what: &str| refuse(format!("{what}= is missing"));
        let key = key.ok_or_else(|| missing("key"))?;
        let value = value.ok_or_else(|| missing("value"))?;
        let entries = entries.ok_or_else(|| missing("entries"))?;
        let shape = Shape::new(kind, key, value, entries).map_err(|e| refuse(e.to_string()))?;
        TableSpec::new(name, shape).map_err(|e| match e {
            TablesError::Spec { reason, .. } => refuse(reason),
            other => other,
        })
    }
}

/// The tables of a yard by name. Cheap to clone: clones are one and the same.
///
/// For set-up and control: looking a name up takes a lock. Who looks keys up on the packet path keeps
/// the [`Table`].
#[derive(Debug, Clone, Default)]
pub struct Tables {
    by_name: Arc<RwLock<BTreeMap<String, Table>>>,
}

impl Tables {
    /// The table of this name and shape: made now, unless it is there already.
    ///
    /// # Errors
    /// [`TablesError::Taken`] if it is there with another shape; [`TablesError::Table`] if its memory
    /// cannot be had.
    pub fn declare(&self, spec: &TableSpec) -> Result<Table, TablesError> {
        let mut tables = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = tables.get(spec.name()) {
            return same(spec, table);
        }
        let table = Table::create(spec.name(), *spec.shape())
            .map_err(|source| TablesError::Table { name: spec.name().to_owned(), source })?;
        tables.insert(spec.name().to_owned(), table.clone());
        Ok(table)
    }

    /// Takes a table in that was made elsewhere.
    ///
    /// # Errors
    /// The name is impossible, or taken.
    pub fn adopt(&self, name: &str, table: Table) -> Result<(), TablesError> {
        let spec = TableSpec::new(name, *table.shape())?;
        let mut tables = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = tables.get(name) {
            return Err(TablesError::Taken { name: name.to_owned(), has: *there.shape(), wanted: *spec.shape() });
        }
        tables.insert(name.to_owned(), table);
        Ok(())
    }

    /// The table of this name.
    pub fn get(&self, name: &str) -> Option<Table> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All tables, by name.
    pub fn all(&self) -> Vec<(String, Table)> {
        let tables = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|(name, table)| (name.clone(), table.clone())).collect()
    }
}

fn same(spec: &TableSpec, table: &Table) -> Result<Table, TablesError> {
    if table.shape() == spec.shape() {
        return Ok(table.clone());
    }
    Err(TablesError::Taken { name: spec.name().to_owned(), has: *table.shape(), wanted: *spec.shape() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_what_it_prints() {
        for text in ["a:hash:key=6,value=1,entries=5", "routes.v4:lpm:key=4,value=256,entries=1000000"] {
            assert_eq!(text.parse::<TableSpec>().expect("good").to_string(), text);
        }
        let array: TableSpec = "per-port:array:entries=8,value=16".parse().expect("good");
        assert_eq!(array.to_string(), "per-port:array:value=16,entries=8");
        assert_eq!(array.to_string().parse::<TableSpec>().expect("good"), array);
    }

    #[test]
    fn refusals_name_what_is_allowed() {
        for (text, says) in [
            ("subscribers", "three parts"),
            ("s:set:key=4", "hash, array or lpm"),
            ("s:hash:key", "OPTION=NUMBER"),
            ("s:hash:keys=4", "key, value or entries"),
            ("s:hash:key=four,value=8,entries=1", "not a number"),
            ("s:hash:key=4,key=4,value=8,entries=1", "twice"),
            ("s:hash:key=4,value=8", "entries= is missing"),
            ("s:hash:key=65,value=8,entries=1", "1 to 64 bytes"),
            ("s:lpm:key=17,value=8,entries=1", "1 to 16 bytes"),
            ("s:array:key=8,value=8,entries=1", "4 bytes"),
            ("s:hash:key=4,value=0,entries=1", "1 to 256"),
            ("s:hash:key=4,value=8,entries=0", "134217728"),
            ("4s:hash:key=4,value=8,entries=1", "beginning with a letter"),
            (":hash:key=4,value=8,entries=1", "beginning with a letter"),
        ] {
            let refusal = text.parse::<TableSpec>().expect_err(text).to_string();
            assert!(refusal.contains(says) && refusal.contains(text), "{refusal}");
        }
    }

    #[test]
    fn a_name_is_one_table() {
        let tables = Tables::default();
        let spec: TableSpec = "s:hash:key=4,value=1,entries=5".parse().expect("good");
        tables.declare(&spec).expect("made").set(&[1; 4], &[7]).expect("fits");
        assert_eq!(tables.clone().declare(&spec).expect("the same").len(), 1);
        let other: TableSpec = "s:hash:key=4,value=2,entries=5".parse().expect("good");
        let refusal = tables.declare(&other).expect_err("another shape").to_string();
        assert!(refusal.contains("value=1") && refusal.contains("value=2"), "{refusal}");
        let table = tables.get("s").expect("there");
        assert!(tables.adopt("s", table.clone()).is_err() && tables.adopt("no good", table.clone()).is_err());
        tables.adopt("t", table).expect("free");
        assert_eq!(tables.all().len(), 2);
    }
}
