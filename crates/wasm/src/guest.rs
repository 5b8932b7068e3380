//! A running instance of a module, and the calls into it, each held to its time.
//!
//! A call is asked about at the clock's third tick, when it has run for half of its time or more by the clock. From then
//! on the time of the processor counts that its thread gets: a call that was merely kept waiting is not stopped.

use std::time::Duration;

use flowyard::function::{Batch, Surroundings};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{
    Error, Memory, Store, StoreLimits, StoreLimitsBuilder, Trap, TypedFunc, UpdateDeadline, WasmParams, WasmResults,
};
use zerocopy::IntoBytes;

use crate::abi;
use crate::host::{Find, Patience, State};
use crate::module::Compiled;
use crate::window::{PACKET_BYTES, PAGE_BYTES, TEXT_BYTES, Window};
use std::sync::Arc;

/// Ticks after which a call is asked about.
const ASKED_AFTER: u64 = 3;
/// Entries of tables, of functions mostly.
const TABLE_ELEMENTS: usize = 1 << 16;

pub(crate) struct Guest {
    store: Store<State>,
    memory: Memory,
    window: Window,
    steer: TypedFunc<(u32, u32), i32>,
    control: Option<TypedFunc<(u32, u32), i64>>,
    tick: Option<TypedFunc<(), ()>>,
    /// Time of the processor for calls on packets, after they were asked about.
    more: Duration,
}

/// How long this thread has had the processor.
pub(crate) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// In words: why a call did not return.
pub(crate) fn reason(error: &Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => "ran longer than it may".into(),
        Some(trap) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        None => format!("{error:#}"),
    }
}

/// Whether it was stopped because its time was over.
pub(crate) fn is_overrun(error: &Error) -> bool {
    matches!(error.downcast_ref::<Trap>(), Some(Trap::Interrupt))
}

impl Guest {
    /// Makes an instance and opens it.
    pub(crate) fn start(
        compiled: &Compiled,
        surroundings: &Surroundings,
        config: &str,
        find: &Arc<Find>,
    ) -> Result<Guest, String> {
        let bounds = &compiled.bounds;
        let mut store = Store::new(&compiled.engine, State::new(limits(bounds.memory_bytes), find.clone()));
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| Ok(ask(&mut store.data_mut().patience)));
        begin(&mut store, bounds.open_time);
        let instance = compiled.ready.instantiate(&mut store).map_err(|e| format!("cannot start: {}", reason(&e)))?;
        let memory = instance.get_memory(&mut store, "memory").ok_or("exports no `memory`")?;
        store.data_mut().memory = Some(memory);
        let typed = |what: Error| format!("{what:#}");
        let function = |store: &mut Store<State>, name| instance.get_typed_func::<(), u32>(store, name);
        let steer = instance.get_typed_func(&mut store, "steer").map_err(typed)?;
        let control = instance.get_typed_func(&mut store, "control").ok();
        let tick = instance.get_typed_func(&mut store, "tick").ok();
        let mut guest =
            Guest { window: Window::new(0, 0), steer, control, tick, more: bounds.call_time / 2, store, memory };
        let abi = function(&mut guest.store, "abi").map_err(typed)?;
        let version = guest.opening("abi", &abi, (), bounds.open_time)?;
        if version != abi::ABI {
            return Err(format!(
                "is built for version {version} of the interface, and this yard has {}: build it for that",
                abi::ABI
            ));
        }
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut guest.store, "_initialize") {
            guest.opening("_initialize", &initialize, (), bounds.open_time)?;
        }
        let mut wanted = |name, most: u32| match function(&mut guest.store, name) {
            Ok(function) => Ok(guest.opening(name, &function, (), bounds.open_time)?.min(most)),
            Err(_) => Ok::<u32, String>(most),
        };
        let annotation_bytes = wanted("annotation_bytes", surroundings.annotation_bytes as u32)?;
        let packet_bytes = match function(&mut guest.store, "packet_bytes") {
            Ok(function) => guest.opening("packet_bytes", &function, (), bounds.open_time)?,
            Err(_) => PACKET_BYTES,
        };
        guest.place(Window::new(annotation_bytes as usize, packet_bytes), bounds.memory_bytes)?;
        let Ok(open) = instance.get_typed_func::<(u32, u32, u32), i32>(&mut guest.store, "open") else {
            let taken = config.is_empty();
            return taken.then_some(guest).ok_or("takes no configuration, but is given one; leave it out".into());
        };
        let (host, text, len) = guest.describe(surroundings, config)?;
        match guest.opening("open", &open, (host, text, len), bounds.open_time)? {
            0 => Ok(guest),
            number if guest.said().is_empty() => Err(format!("its `open` refuses: {number}")),
            _ => Err(format!("its `open` refuses: {}", guest.said())),
        }
    }

    /// Puts the window behind what the guest has of memory.
    fn place(&mut self, window: Window, memory_bytes: usize) -> Result<(), String> {
        let pages = window.pages();
        let has = self.memory.data_size(&self.store);
        self.store.data_mut().limits = limits(has + pages * PAGE_BYTES);
        let at = self.memory.grow(&mut self.store, pages as u64).map_err(|_| {
            let has = has / PAGE_BYTES;
            format!("its memory of {has} pages cannot grow by {pages}, for packets: let it, or state no maximum")
        })?;
        self.store.data_mut().limits = limits(memory_bytes + pages * PAGE_BYTES);
        let at = u32::try_from(at * PAGE_BYTES as u64).map_err(|_| "its memory is full")?;
        self.window = window.placed(at);
        Ok(())
    }

    /// Writes what `open` is told to the window: answers where, where the configuration is and its length.
    fn describe(&mut self, surroundings: &Surroundings, config: &str) -> Result<(u32, u32, u32), String> {
        let about: [u32; 6] = [
            abi::ABI,
            size_of::<abi::Host>() as u32,
            surroundings.rings.into(),
            surroundings.annotation_bytes as u32,
            surroundings.dispatcher as u32,
            surroundings.dispatchers as u32,
        ];
        let at = self.window.at;
        let text = at + size_of::<abi::Host>() as u32;
        let most = TEXT_BYTES - size_of::<abi::Host>();
        if config.len() > most || !self.write(at, about.as_bytes()) || !self.write(text, config.as_bytes()) {
            return Err(format!("its configuration has {} bytes, and at most {most} are handed over", config.len()));
        }
        Ok((at, text, config.len() as u32))
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> bool {
        self.memory.write(&mut self.store, at as usize, bytes).is_ok()
    }

    /// The last words that were said.
    pub(crate) fn said(&self) -> &str {
        &self.store.data().said
    }

    /// A call while the instance is made.
    fn opening<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        function: &TypedFunc<P, R>,
        params: P,
        time: Duration,
    ) -> Result<R, String> {
        begin(&mut self.store, time);
        function.call(&mut self.store, params).map_err(|error| {
            let said = Some(self.said()).filter(|said| !said.is_empty());
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            format!("its `{name}` was stopped: {}{said}", reason(&error))
        })
    }

    /// Asks about a batch. What the guest said is taken over only if it answers 0.
    #[inline]
    pub(crate) fn steer(&mut self, batch: &mut Batch<'_>) -> Result<bool, Error> {
        let missing = || Error::from(Trap::MemoryOutOfBounds);
        self.window.put(self.memory.data_mut(&mut self.store), batch).ok_or_else(missing)?;
        self.store.data_mut().on_packets = true;
        begin(&mut self.store, self.more);
        let answer = self.steer.call(&mut self.store, (self.window.at, batch.len() as u32))?;
        self.store.data_mut().on_packets = false;
        if answer == 0 {
            self.window.take(self.memory.data(&self.store), batch).ok_or_else(missing)?;
        }
        Ok(answer == 0)
    }

    /// Whether it wants to be called between batches.
    pub(crate) fn has_tick(&self) -> bool {
        self.tick.is_some()
    }

    pub(crate) fn tick(&mut self) -> Result<(), Error> {
        let Some(tick) = self.tick.clone() else { return Ok(()) };
        begin(&mut self.store, self.more);
        tick.call(&mut self.store, ())
    }

    /// Puts a request: the reply, or the guest's words why not.
    pub(crate) fn control(&mut self, request: &[u8]) -> Result<Result<Vec<u8>, String>, Error> {
        let Some(control) = self.control.clone() else { return Ok(Err("this function takes no requests".into())) };
        if request.len() > TEXT_BYTES || !self.write(self.window.at, request) {
            return Ok(Err(format!("a request has at most {TEXT_BYTES} bytes")));
        }
        self.store.data_mut().said.clear();
        begin(&mut self.store, self.more);
        let answer = control.call(&mut self.store, (self.window.at, request.len() as u32))?;
        if answer < 0 {
            let said = self.said();
            return Ok(Err(if said.is_empty() { format!("refused: {answer}") } else { said.to_owned() }));
        }
        let (at, len) = ((answer >> 32) as usize, (answer & 0xffff_ffff) as usize);
        let memory = self.memory.data(&self.store);
        let reply = at.checked_add(len).and_then(|end| memory.get(at..end)).filter(|reply| reply.len() <= TEXT_BYTES);
        reply.map(|reply| Ok(reply.to_vec())).ok_or_else(|| Error::msg("its reply is not in its memory, or too long"))
    }
}

fn limits(memory_bytes: usize) -> StoreLimits {
    let limits = StoreLimitsBuilder::new().memory_size(memory_bytes).table_elements(TABLE_ELEMENTS);
    limits.instances(1).memories(1).tables(8).build()
}

/// Begins to count the time of a call, which may have `more` of the processor after it was asked about.
#[inline]
fn begin(store: &mut Store<State>, more: Duration) {
    store.data_mut().patience = Patience { more, asked: None };
    store.set_epoch_deadline(ASKED_AFTER);
}

/// Whether a call may go on.
#[cold]
fn ask(patience: &mut Patience) -> UpdateDeadline {
    let now = thread_time();
    let since = *patience.asked.get_or_insert(now);
    if now.saturating_sub(since) < patience.more { UpdateDeadline::Continue(1) } else { UpdateDeadline::Interrupt }
}
