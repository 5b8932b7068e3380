//! What a guest may call: words for people, and shared tables. Nothing else of the world is offered.

use std::sync::Arc;
use std::time::Duration;

use flowyard::mem::tables::{KEY_BYTES, Lookup, Table};
use wasmtime::{Caller, Engine, Error, Linker, Memory, Result, StoreLimits, Trap};

use crate::abi;

/// The module that imports are from.
pub(crate) const MODULE: &str = "flowyard";
/// What can be imported.
pub(crate) const OFFERED: [&str; 3] = ["say", "table_open", "table_get"];

/// Finds a table by its name.
pub(crate) type Find = dyn Fn(&str) -> Option<Table> + Send + Sync;

/// Bytes that are kept of a guest's words.
const WORDS_BYTES: usize = 512;
/// Most tables that an instance opens.
const MOST_TABLES: usize = 64;

/// What belongs to an instance on our side.
pub(crate) struct State {
    pub(crate) limits: StoreLimits,
    /// The guest's memory, once it is there.
    pub(crate) memory: Option<Memory>,
    /// The last words that were said, by the guest or of a table that cannot be had.
    pub(crate) said: String,
    /// Whether a batch is being judged: no table is opened meanwhile.
    pub(crate) on_packets: bool,
    pub(crate) patience: Patience,
    find: Arc<Find>,
    tables: Vec<Table>,
}

/// How long the call under way may still run.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Patience {
    /// Time of the processor that it may have after it was first asked about.
    pub(crate) more: Duration,
    /// The thread's time when it was first asked about; `None` before.
    pub(crate) asked: Option<Duration>,
}

impl State {
    pub(crate) fn new(limits: StoreLimits, find: Arc<Find>) -> State {
        State {
            limits,
            memory: None,
            said: String::new(),
            on_packets: false,
            patience: Patience::default(),
            find,
            tables: Vec::new(),
        }
    }

    /// Takes down what is said: one line of what can be printed.
    fn hear(&mut self, words: &[u8]) {
        let words = String::from_utf8_lossy(&words[..words.len().min(WORDS_BYTES)]);
        self.said.clear();
        self.said.extend(words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }));
    }

    /// Finds a table and keeps it, under a number.
    fn open(&mut self, name: &str, sizes: (u32, u32)) -> Result<i32, String> {
        if self.on_packets {
            return Err("tables are opened by `open`, `control` or `tick`, not by `steer`".into());
        }
        if self.tables.len() >= MOST_TABLES {
            return Err(format!("{MOST_TABLES} tables are open already: keep the handles"));
        }
        let table = (self.find)(name);
        let table =
            table.ok_or_else(|| format!("there is no table {name:?}; make it before the function is loaded"))?;
        let shape = table.shape();
        let fits = |wanted: u32, has: usize| wanted == 0 || wanted as usize == has;
        if !fits(sizes.0, shape.key_bytes()) || !fits(sizes.1, shape.value_bytes()) {
            let size = |wanted: u32| if wanted == 0 { "any".into() } else { wanted.to_string() };
            let (key, value) = (size(sizes.0), size(sizes.1));
            return Err(format!(
                "table {name:?} is {shape}, but the module wants key={key}, value={value}; make it so"
            ));
        }
        self.tables.push(table);
        Ok(self.tables.len() as i32 - 1)
    }
}

/// The memory of the guest that calls, and our side of it.
fn sides<'a>(caller: &'a mut Caller<'_, State>) -> Result<(&'a mut [u8], &'a mut State)> {
    let Some(memory) = caller.data().memory else {
        return Err(Error::msg("called the yard from its start function: do so from `open`"));
    };
    Ok(memory.data_and_store_mut(caller))
}

fn at(memory: &mut [u8], at: u32, len: u32) -> Result<&mut [u8]> {
    let end = (at as usize).checked_add(len as usize);
    end.and_then(|end| memory.get_mut(at as usize..end)).ok_or_else(|| Trap::MemoryOutOfBounds.into())
}

fn say(mut caller: Caller<'_, State>, words: u32, len: u32) -> Result<()> {
    let (memory, state) = sides(&mut caller)?;
    state.hear(at(memory, words, len)?);
    Ok(())
}

fn table_open(mut caller: Caller<'_, State>, name: u32, len: u32, key: u32, value: u32) -> Result<i32> {
    let (memory, state) = sides(&mut caller)?;
    let name = String::from_utf8_lossy(at(memory, name, len.min(WORDS_BYTES as u32))?);
    Ok(state.open(&name, (key, value)).unwrap_or_else(|why| {
        state.hear(why.as_bytes());
        -1
    }))
}

fn table_get(
    mut caller: Caller<'_, State>,
    table: u32,
    key: u32,
    key_len: u32,
    value: u32,
    value_len: u32,
) -> Result<i32> {
    let (memory, state) = sides(&mut caller)?;
    let table =
        state.tables.get(table as usize).ok_or_else(|| Error::msg("looks up in a table that it did not open"))?;
    let mut copy = [0; *KEY_BYTES.end()];
    let given = at(memory, key, key_len)?;
    // A longer key is absent, as any of another size than the table's.
    let Some(copy) = copy.get_mut(..given.len()) else { return Ok(abi::lookup::ABSENT) };
    copy.copy_from_slice(given);
    Ok(match table.get(copy, at(memory, value, value_len)?) {
        Lookup::Found => abi::lookup::FOUND,
        Lookup::Absent => abi::lookup::ABSENT,
        Lookup::Busy => abi::lookup::BUSY,
    })
}

/// All that is offered.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(MODULE, OFFERED[0], say)?;
    linker.func_wrap(MODULE, OFFERED[1], table_open)?;
    linker.func_wrap(MODULE, OFFERED[2], table_get)?;
    Ok(linker)
}
