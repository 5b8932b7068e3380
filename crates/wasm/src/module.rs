//! A module, in binary or as text: read once, looked at, compiled. All its instances share the code and the clock.

use std::borrow::Cow;
use std::path::Path;
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Engine, ExternType, FuncType, InstancePre, Module, OptLevel};

use crate::Sandbox;
use crate::host::{self, State};

/// Largest file that is compiled.
const MOST_BYTES: u64 = 16 << 20;
/// What every binary module begins with: the magic, and version 1 of the core format.
const MAGIC: &[u8] = b"\0asm";
const CORE: &[u8] = &[1, 0, 0, 0];
/// How often the clock ticks while a call may run as long as [`Sandbox::call_time`].
const TICKS: u32 = 4;
/// The least period of the clock.
const LEAST_PERIOD: Duration = Duration::from_micros(250);

/// Functions that a module must have, by their types.
const NEEDED: [(&str, &str); 2] = [("abi", "() -> (i32)"), ("steer", "(i32, i32) -> (i32)")];
/// Functions that it may have.
const OPTIONAL: [(&str, &str); 6] = [
    ("open", "(i32, i32, i32) -> (i32)"),
    ("control", "(i32, i32) -> (i64)"),
    ("tick", "() -> ()"),
    ("packet_bytes", "() -> (i32)"),
    ("annotation_bytes", "() -> (i32)"),
    ("_initialize", "() -> ()"),
];

/// Code, ready for instances.
pub(crate) struct Compiled {
    pub(crate) engine: Engine,
    pub(crate) ready: InstancePre<State>,
    pub(crate) bounds: Sandbox,
}

impl Compiled {
    pub(crate) fn load(path: &Path, bounds: &Sandbox) -> Result<Compiled, String> {
        let bytes = read(path)?;
        let failed = |what: &str, e: wasmtime::Error| format!("{what}: {e:#}");
        let engine = Engine::new(&config(bounds)).map_err(|e| failed("this machine cannot run WebAssembly", e))?;
        let module = Module::from_binary(&engine, &bytes).map_err(|e| failed("is no valid module", e))?;
        check_imports(&module)?;
        check_exports(&module)?;
        let linker = host::linker(&engine).map_err(|e| failed("cannot be offered tables", e))?;
        let ready = linker.instantiate_pre(&module).map_err(|e| failed("imports what is not so", e))?;
        start_clock(&engine, bounds)?;
        Ok(Compiled { engine, ready, bounds: bounds.clone() })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}; is the path right?"))?;
    if !about.is_file() {
        return Err("is not a file; name the module itself".into());
    }
    if about.len() > MOST_BYTES {
        return Err(format!("has {} bytes, and at most {MOST_BYTES} are compiled", about.len()));
    }
    let bytes = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    match bytes.strip_prefix(MAGIC).map(|rest| rest.get(..CORE.len())) {
        None if is_text(&bytes) => {
            let binary = wat::Parser::new().parse_bytes(Some(path), &bytes).map(Cow::into_owned);
            binary.map_err(|e| format!("is no valid module: {e}"))
        }
        None => {
            let begin = bytes.iter().take(8).map(|b| b.escape_ascii().to_string()).collect::<String>();
            Err(format!("is not a WebAssembly module: it begins with \"{begin}\""))
        }
        Some(Some(CORE)) => Ok(bytes),
        Some(Some(_)) => Err("is no core module (a component?): build it for wasm32-unknown-unknown".into()),
        Some(None) => Err(format!("is cut off after {} bytes", bytes.len())),
    }
}

/// Whether it is a module written as text: that begins with a parenthesis or a comment.
fn is_text(bytes: &[u8]) -> bool {
    let begin = bytes.trim_ascii_start();
    begin.starts_with(b"(") || begin.starts_with(b";;")
}

fn config(bounds: &Sandbox) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(bounds.stack_bytes)
        .cranelift_opt_level(OptLevel::Speed)
        // Nobody looks at them, and a trap is an ordinary event here.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        // What functions have no use for is not there to go wrong.
        .wasm_relaxed_simd(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    config
}

fn check_imports(module: &Module) -> Result<(), String> {
    let unknown = |i: &wasmtime::ImportType<'_>| i.module() != host::MODULE || !host::OFFERED.contains(&i.name());
    let unknown: Vec<String> =
        module.imports().filter(unknown).map(|i| format!("{}.{}", i.module(), i.name())).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let wasi = unknown.iter().any(|name| name.starts_with("wasi"));
    let hint = if wasi { ": build it for wasm32-unknown-unknown, not for WASI" } else { "" };
    let offered = host::OFFERED.map(|name| format!("{}.{name}", host::MODULE)).join(", ");
    Err(format!("imports {}, and there are only {offered}{hint}", unknown.join(", ")))
}

fn check_exports(module: &Module) -> Result<(), String> {
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) if !memory.is_shared() && !memory.is_64() => {}
        Some(_) => return Err("exports a `memory` that is no plain 32-bit one".into()),
        None => return Err("exports no `memory`".into()),
    }
    for (name, wanted) in NEEDED.iter().chain(&OPTIONAL) {
        let needed = NEEDED.iter().any(|(n, _)| n == name);
        match module.get_export(name) {
            Some(ExternType::Func(func)) if type_of(&func) == *wanted => {}
            Some(ExternType::Func(func)) => {
                return Err(format!("exports `{name}` with the type {}, not {wanted}", type_of(&func)));
            }
            Some(_) => return Err(format!("exports a `{name}` that is no function; it has the type {wanted}")),
            None if needed => return Err(format!("exports no function `{name}` with the type {wanted}")),
            None => {}
        }
    }
    Ok(())
}

fn type_of(func: &FuncType) -> String {
    let params: Vec<String> = func.params().map(|t| t.to_string()).collect();
    let results: Vec<String> = func.results().map(|t| t.to_string()).collect();
    format!("({}) -> ({})", params.join(", "), results.join(", "))
}

/// Lets the clock tick by which calls are interrupted: until code and instances are gone.
fn start_clock(engine: &Engine, bounds: &Sandbox) -> Result<(), String> {
    let period = (bounds.call_time / TICKS).max(LEAST_PERIOD);
    let engine = engine.weak();
    let clock = move || {
        loop {
            thread::sleep(period);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
    };
    let thread = thread::Builder::new().name("wasm-clock".into()).spawn(clock);
    thread.map(drop).map_err(|e| format!("cannot be held to its time: no thread for a clock: {e}"))
}
