//! A shared object that is a plug-in: loaded, and its functions found.
//!
//! # Invariants
//! `functions` was copied from the library, checked, and its addresses are good as long as the library is
//! loaded: as long as this lives. Who calls one keeps an `Arc` of this.
//!
//! The loader knows libraries by path and by inode: for a path it has seen it answers the old library. So each
//! is opened under a path of its own, to a file of its own that no one else can reach, even if an earlier
//! one stays loaded because something in it forbids unloading. The descriptor stays open as long as
//! the library is loaded, for debuggers and backtraces, which read the file by that path.
#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use libloading::os::unix::{Library as Loaded, RTLD_LOCAL, RTLD_NOW};

use super::{abi, file};

/// Bytes of `struct flowyard_plugin` that every plug-in has: up to `steer`.
const LEAST_BYTES: usize = std::mem::offset_of!(abi::Plugin, check);
/// Longest name.
const NAME_BYTES: usize = 63;

pub(super) struct Library {
    functions: abi::Plugin,
    steer: abi::Steer,
    name: String,
    path: PathBuf,
    // In the order in which they go.
    #[allow(dead_code, reason = "keeps it loaded")]
    loaded: Loaded,
    #[allow(dead_code, reason = "keeps it open")]
    copy: OwnedFd,
}

// SAFETY: of what it has only `functions.name` is not both by itself: it points to a constant of the library,
// which nobody changes and which is there as long as this is (see above).
unsafe impl Send for Library {}
// SAFETY: as for Send; there is nothing in it that changes.
unsafe impl Sync for Library {}

impl Library {
    /// Loads a copy of the file at `path`, whose constructors run now.
    pub(super) fn load(path: &Path) -> Result<Library, String> {
        let bytes = file::read(path)?;
        let copy = file::sealed(&path.file_name().unwrap_or_default().to_string_lossy(), &bytes)?;
        drop(bytes);
        let alias = alias(&copy);
        // The source is what the loader itself says.
        let words = |e: libloading::Error| {
            let said = e.source().map_or_else(|| e.to_string(), ToString::to_string);
            said.replace(&alias, &path.display().to_string())
        };
        // SAFETY: runs the library's constructors, code that the caller vouches for (`super::load` says so). The file
        // is whole (file::read) and can be changed by nobody (file::sealed).
        let loaded = unsafe { Loaded::open(Some(&alias), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|e| format!("cannot be loaded: {}; are the libraries that it needs there?", words(e)))?;
        let functions = functions(&loaded).map_err(|e| e.unwrap_or_else(words))?;
        let name = name(&functions)?;
        let steer = functions.steer.ok_or("has no function `steer`, which every plug-in needs")?;
        if functions.adopt.is_some() && functions.open.is_none() {
            return Err("has `adopt` but not `open`: without it there is no state to adopt into".into());
        }
        Ok(Library { functions, steer, name, path: path.into(), loaded, copy })
    }

    pub(super) fn functions(&self) -> &abi::Plugin {
        &self.functions
    }

    pub(super) fn steer(&self) -> abi::Steer {
        self.steer
    }

    /// The name that it gives itself.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where it was loaded from.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// A path to the descriptor under which no library was opened before: the number of libraries opened so
/// far is spelled in steps that go nowhere, `/` for 0 and `/.` for 1.
fn alias(fd: &OwnedFd) -> String {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    let mut number = OPENED.fetch_add(1, Ordering::Relaxed); // any number, as long as it is used once
    let mut path = String::from("/proc/self/fd");
    while number > 0 {
        path.push_str(if number & 1 == 1 { "/." } else { "/" });
        number >>= 1;
    }
    format!("{path}/{}", fd.as_raw_fd())
}

/// Why not: in our words, or in the loader's.
enum NoFunctions {
    Ours(String),
    Loader(libloading::Error),
}

impl NoFunctions {
    fn unwrap_or_else(self, words: impl FnOnce(libloading::Error) -> String) -> String {
        match self {
            NoFunctions::Ours(why) => why,
            NoFunctions::Loader(e) => format!(
                "has no symbol `flowyard_plugin` ({}): is it a plug-in, and is that function exported, as \
                 FLOWYARD_PLUGIN_EXPORT does?",
                words(e)
            ),
        }
    }
}

/// Asks the library for its functions, and copies them: what a smaller struct has not is `None`.
fn functions(loaded: &Loaded) -> Result<abi::Plugin, NoFunctions> {
    type Entry = unsafe extern "C" fn() -> *const abi::Plugin;
    let refuse = |why: String| Err(NoFunctions::Ours(why));
    // SAFETY: the header gives the symbol this type.
    let entry = unsafe { loaded.get::<Entry>("flowyard_plugin") }.map_err(NoFunctions::Loader)?;
    // SAFETY: code that the caller vouches for; it takes nothing.
    let found = unsafe { entry() };
    if found.is_null() || !found.is_aligned() {
        return refuse(format!("its flowyard_plugin() answers {found:p}, where no struct flowyard_plugin can be"));
    }
    // SAFETY: by the header every version of the struct begins with these two numbers.
    let (version, size) = unsafe { ((*found).abi, (*found).size as usize) };
    if version != abi::ABI {
        return refuse(format!(
            "is built for version {version} of the interface, and this yard has {}: build it anew with the header of \
             this yard",
            abi::ABI
        ));
    }
    if size < LEAST_BYTES || !size.is_multiple_of(align_of::<abi::Plugin>()) {
        return refuse(format!(
            "says that its struct flowyard_plugin has {size} bytes, not {LEAST_BYTES} or more: set .size = sizeof(struct \
             flowyard_plugin)"
        ));
    }
    let mut functions = abi::Plugin::EMPTY;
    // SAFETY: by the header `found` is good for `size` bytes; `functions` has as many as are copied. Whole fields only
    // (size is a multiple of their alignment), and each is valid for any bytes but a function for code.
    unsafe {
        let bytes = size.min(size_of::<abi::Plugin>());
        std::ptr::copy_nonoverlapping(found.cast::<u8>(), (&raw mut functions).cast::<u8>(), bytes);
    }
    Ok(functions)
}

fn name(functions: &abi::Plugin) -> Result<String, String> {
    if functions.name.is_null() {
        return Err("gives itself no name: set .name".into());
    }
    // SAFETY: by the header, ended by 0 and there as long as the library is loaded, which it is.
    let name = unsafe { CStr::from_ptr(functions.name) }.to_bytes();
    match std::str::from_utf8(name) {
        Ok(text) if (1..=NAME_BYTES).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic) => Ok(text.into()),
        _ => Err(format!(
            "gives itself the name \"{}\", which must have 1 to {NAME_BYTES} characters of ASCII and no space",
            name.escape_ascii()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_has_a_path_of_its_own_to_its_file() {
        let fd = file::sealed("x", b"found").expect("memory");
        let paths: std::collections::HashSet<String> = (0..100).map(|_| alias(&fd)).collect();
        assert_eq!(paths.len(), 100);
        for path in paths {
            assert_eq!(std::fs::read(&path).expect(&path), b"found");
        }
    }
}
