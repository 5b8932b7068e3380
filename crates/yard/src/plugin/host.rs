//! What the yard offers to an instance of a plug-in: its surroundings, and tables.
//!
//! # Invariants
//! A plug-in is given the address of [`Host::shown`], which is that of the `Host`: the first field of a
//! `repr(C)` struct. It lies in an `Arc` that the instance keeps until `close` has returned, which is as
//! long as a plug-in may use it. It is only ever shared, never borrowed mutably, so any number of threads
//! of the plug-in may call. A table's handle is the address of a [`Table`] in an `Arc` of [`Host::opened`], from
//! which nothing is taken before the `Host` goes.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use flowyard_mem::tables::{Lookup, Table};

use super::abi;
use crate::function::Surroundings;

/// Finds a table by its name.
pub(super) type Find = dyn Fn(&str) -> Option<Table> + Send + Sync;

#[repr(C)]
pub(super) struct Host {
    /// First: see above.
    shown: abi::Host,
    find: Arc<Find>,
    opened: Mutex<Vec<Arc<Table>>>,
}

impl Host {
    pub(super) fn new(surroundings: &Surroundings, find: Arc<Find>) -> Arc<Host> {
        let shown = abi::Host {
            abi: abi::ABI,
            size: size_of::<abi::Host>() as u32,
            rings: surroundings.rings.into(),
            annotation_bytes: surroundings.annotation_bytes as u32,
            dispatcher: surroundings.dispatcher as u32,
            dispatchers: surroundings.dispatchers as u32,
            table_open,
            table_get,
        };
        Arc::new(Host { shown, find, opened: Mutex::default() })
    }

    /// The address that the plug-in is given.
    pub(super) fn address(self: &Arc<Host>) -> *const abi::Host {
        Arc::as_ptr(self).cast()
    }

    /// Finds a table and keeps it. Called by one instance a few times: a list will do.
    fn open(&self, name: &str, sizes: (usize, usize)) -> Result<*const abi::Table, String> {
        let Some(table) = (self.find)(name) else {
            return Err(format!("there is no table {name:?}; make it before the function is loaded"));
        };
        let (key_bytes, value_bytes) = (table.shape().key_bytes(), table.shape().value_bytes());
        let fits = |wanted: usize, has: usize| wanted == 0 || wanted == has;
        if !fits(sizes.0, key_bytes) || !fits(sizes.1, value_bytes) {
            let size = |wanted: usize| if wanted == 0 { "any".into() } else { wanted.to_string() };
            let (key, value) = (size(sizes.0), size(sizes.1));
            return Err(format!(
                "table {name:?} is {}, but the plug-in wants key={key}, value={value}; make it so",
                table.shape()
            ));
        }
        let table = Arc::new(table);
        let handle = Arc::as_ptr(&table).cast();
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).push(table);
        Ok(handle)
    }
}

/// Writes `words` to a buffer of the plug-in, as much as fits, ended by 0.
fn say(words: &str, error: *mut c_char, error_bytes: usize) {
    if error.is_null() || error_bytes == 0 {
        return;
    }
    let len = words.len().min(error_bytes - 1);
    // SAFETY: by the header, `error` is good for error_bytes bytes, of which len + 1 are written; `words` has
    // len bytes, and is ours.
    unsafe {
        std::ptr::copy_nonoverlapping(words.as_ptr(), error.cast(), len);
        error.add(len).write(0);
    }
}

unsafe extern "C" fn table_open(
    host: *const abi::Host,
    name: *const c_char,
    key_bytes: usize,
    value_bytes: usize,
    error: *mut c_char,
    error_bytes: usize,
) -> *const abi::Table {
    if host.is_null() || name.is_null() {
        say("host and name are needed", error, error_bytes);
        return std::ptr::null();
    }
    // SAFETY: by the header, `host` is what `open` was given, the address of a Host that is still there (see
    // above), and `name` ends with 0.
    let (host, name) = unsafe { (&*host.cast::<Host>(), CStr::from_ptr(name)) };
    host.open(&name.to_string_lossy(), (key_bytes, value_bytes)).unwrap_or_else(|words| {
        say(&words, error, error_bytes);
        std::ptr::null()
    })
}

unsafe extern "C" fn table_get(
    table: *const abi::Table,
    key: *const c_void,
    key_bytes: usize,
    value: *mut c_void,
    value_bytes: usize,
) -> c_int {
    if table.is_null() || key.is_null() || value.is_null() {
        return abi::lookup::ABSENT;
    }
    // SAFETY: by the header, `table` is what table_open answered, the address of a Table that is still
    // there (see above), and key and value are good for as many bytes.
    let (table, key, value) = unsafe {
        let key = std::slice::from_raw_parts(key.cast::<u8>(), key_bytes);
        (&*table.cast::<Table>(), key, std::slice::from_raw_parts_mut(value.cast::<u8>(), value_bytes))
    };
    answer(table.get(key, value))
}

/// As the header numbers it.
pub(super) fn answer(lookup: Lookup) -> c_int {
    match lookup {
        Lookup::Found => abi::lookup::FOUND,
        Lookup::Absent => abi::lookup::ABSENT,
        Lookup::Busy => abi::lookup::BUSY,
    }
}
