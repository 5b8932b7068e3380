//! The user's own programs: judged by the verifier first, then put in place by one write.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Map, MapData, ProgramArray};
use aya::{Ebpf, EbpfLoader};

use crate::maps::Shape;
use crate::program::{again, program};
use crate::{KernelError, KernelSteer, UserMap};

/// Where maps can be given a name, so that an object finds them.
pub(crate) const NAMES: &str = "/sys/fs/bpf";

/// Where a user's program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserSlot {
    /// Before steering: it sees the packet, and has no tag yet.
    Before,
    /// Between steering and delivery: it sees packet and tag head.
    After,
}

impl UserSlot {
    /// Its entry of `flowyard_slots`.
    const fn entry(self) -> u32 {
        match self {
            UserSlot::Before => 0,
            UserSlot::After => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            UserSlot::Before => "before",
            UserSlot::After => "after",
        }
    }
}

/// A user's program that the verifier has accepted, with its maps. It runs nowhere until it is installed.
#[derive(Debug)]
pub struct Prepared {
    ebpf: Ebpf,
    name: String,
    program: String,
    kept: Vec<String>,
}

impl Prepared {
    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The maps that it has from the program before it, with what is in them ([`KernelSteer::prepare_for`]).
    pub fn kept(&self) -> &[String] {
        &self.kept
    }

    /// The names of its maps, those that it shares with Flowyard left out.
    pub fn maps(&self) -> impl Iterator<Item = &str> {
        self.ebpf.maps().map(|(name, _)| name).filter(|name| !SHARED.contains(name))
    }

    /// A map of its own by name, for the application: another descriptor of the same map.
    ///
    /// # Errors
    /// No such map, or the system's.
    pub fn map(&self, name: &str) -> Result<MapData, KernelError> {
        let found = self.ebpf.map(name).and_then(data_of);
        let Some(map) = found else {
            let known: Vec<&str> = self.maps().collect();
            return Err(KernelError::Object {
                object: self.name.clone(),
                why: format!("has no map {name:?}"),
                remedy: format!("it has {known:?}"),
            });
        };
        again(map)
    }
}

/// The maps that a user's object shares with the program, by the names in flowyard.bpf.h.
const SHARED: [&str; 2] = ["flowyard_slots", "flowyard_counts"];

/// The array of programs, and who stands in it.
pub(crate) struct Slots {
    array: ProgramArray<MapData>,
    shared: [MapData; SHARED.len()],
    several_buffers: bool,
    before: Option<Prepared>,
    after: Option<Prepared>,
}

impl Slots {
    pub(crate) fn new(array: ProgramArray<MapData>, shared: [MapData; SHARED.len()], several_buffers: bool) -> Slots {
        Slots { array, shared, several_buffers, before: None, after: None }
    }

    fn of(&mut self, slot: UserSlot) -> &mut Option<Prepared> {
        match slot {
            UserSlot::Before => &mut self.before,
            UserSlot::After => &mut self.after,
        }
    }
}

impl KernelSteer {
    /// Loads a user's program from an object file's bytes: made with `bpf/flowyard.bpf.h`, one
    /// `FLOWYARD_PROGRAM` in it. What stands in the slots stays as it is.
    ///
    /// The maps that it shares with Flowyard have a name under /sys/fs/bpf meanwhile.
    ///
    /// # Errors
    /// [`KernelError::Refused`] with the verifier's log, if the verifier will not have it; an object of
    /// another shape; no BPF file system.
    pub fn prepare(&self, name: &str, object: &[u8]) -> Result<Prepared, KernelError> {
        load(&self.slots(), name, object, &[])
    }

    /// As [`prepare`](KernelSteer::prepare), for `slot`: maps of the same name and shape (kind, lengths of key and
    /// value, entries, flags) as those of the program that stands there are the same maps, with what is in them.
    /// Global variables are not: they begin anew.
    ///
    /// Where there are such maps the object is loaded twice, the first time to see their shapes.
    ///
    /// # Errors
    /// As [`prepare`](KernelSteer::prepare).
    pub fn prepare_for(&self, slot: UserSlot, name: &str, object: &[u8]) -> Result<Prepared, KernelError> {
        let mut slots = self.slots();
        let fresh = load(&slots, name, object, &[])?;
        let mut kept = Vec::new();
        if let Some(before) = slots.of(slot) {
            for name in fresh.maps().filter(|name| !name.starts_with('.')) {
                let both = before.ebpf.map(name).and_then(data_of).zip(fresh.ebpf.map(name).and_then(data_of));
                if let Some((old, new)) = both
                    && Shape::of(old).is_some_and(|shape| Some(shape) == Shape::of(new))
                {
                    kept.push((name.to_owned(), again(old)?));
                }
            }
        }
        if kept.is_empty() { Ok(fresh) } else { load(&slots, name, object, &kept) }
    }

    /// Puts a program into a slot, in the place of the one there, which is given back. Each packet goes
    /// through exactly one of the two, and none is lost: the slot is overwritten, never emptied.
    ///
    /// # Errors
    /// The system's; the old one stays then.
    pub fn install(&self, slot: UserSlot, mut prepared: Prepared) -> Result<Option<Prepared>, KernelError> {
        let mut slots = self.slots();
        let loaded = program(&mut prepared.ebpf, &prepared.program)?;
        let fd = loaded.fd().map_err(|e| KernelError::refused(&prepared.program, &e))?;
        let action = || format!("put {:?} into the slot {}", prepared.name, slot.name());
        slots.array.set(slot.entry(), fd, 0).map_err(|e| KernelError::system(action(), &e))?;
        Ok(slots.of(slot).replace(prepared))
    }

    /// Takes the program out of a slot: packets go on without one.
    ///
    /// # Errors
    /// The system's; it stays then.
    pub fn take_out(&self, slot: UserSlot) -> Result<Option<Prepared>, KernelError> {
        let mut slots = self.slots();
        if slots.of(slot).is_some() {
            let cleared = slots.array.clear_index(&slot.entry());
            cleared.map_err(|e| KernelError::system(format!("empty the slot {}", slot.name()), &e))?;
        }
        Ok(slots.of(slot).take())
    }

    /// The name of the program in a slot.
    pub fn installed(&self, slot: UserSlot) -> Option<String> {
        self.slots().of(slot).as_ref().map(|prepared| prepared.name.clone())
    }

    /// The maps of the program in a slot: those that can be opened, none if it is empty.
    pub fn user_maps(&self, slot: UserSlot) -> Vec<UserMap> {
        let mut slots = self.slots();
        let Some(prepared) = slots.of(slot) else { return Vec::new() };
        let open = |name: &str| UserMap::new(name, prepared.map(name).ok()?).ok();
        let mut maps: Vec<UserMap> = prepared.maps().filter_map(open).collect();
        maps.sort_by(|one, other| one.name().cmp(other.name()));
        maps
    }

    /// A map of the program in a slot, by name: as [`Prepared::map`].
    ///
    /// # Errors
    /// An empty slot, no such map, or the system's.
    pub fn user_map(&self, slot: UserSlot, name: &str) -> Result<MapData, KernelError> {
        match self.slots().of(slot) {
            Some(prepared) => prepared.map(name),
            None => Err(KernelError::Object {
                object: slot.name().into(),
                why: "the slot is empty".into(),
                remedy: "install a program first".into(),
            }),
        }
    }
}

/// Loads a user's object, with these maps in the place of its own.
fn load(slots: &Slots, name: &str, object: &[u8], kept: &[(String, MapData)]) -> Result<Prepared, KernelError> {
    let shared = SHARED.into_iter().zip(&slots.shared);
    let kept = kept.iter().map(|(name, map)| (name.as_str(), map));
    let names = Names::give(shared.chain(kept.clone()))?;
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for (name, path) in &names.0 {
        loader.map_pin_path(name, path.as_path());
    }
    let not_ebpf = |why: String| KernelError::Object {
        object: name.to_owned(),
        why,
        remedy: "build it as the sample's makefile does: clang -O2 -g -target bpf".into(),
    };
    // For its alignment.
    let object = object.to_vec();
    let mut ebpf = loader.load(&object).map_err(|e| not_ebpf(format!("cannot be used: {e}")))?;
    let wanted = if slots.several_buffers { "_several" } else { "_one" };
    let all: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    let mut fit = all.iter().filter(|program| program.ends_with(wanted));
    let (Some(chosen), None) = (fit.next(), fit.next()) else {
        return Err(KernelError::Object {
            object: name.to_owned(),
            why: format!("has the programs {all:?}"),
            remedy: "write FLOWYARD_PROGRAM(name) once, as flowyard.bpf.h says".into(),
        });
    };
    program(&mut ebpf, chosen)?.load().map_err(|e| KernelError::refused(chosen, &e))?;
    let chosen = chosen.clone();
    let kept = kept.map(|(name, _)| name.to_owned()).collect();
    Ok(Prepared { ebpf, name: name.to_owned(), program: chosen, kept })
}

/// Names of maps in the BPF file system, as long as this lives.
struct Names(Vec<(String, PathBuf)>);

impl Names {
    fn give<'a>(maps: impl Iterator<Item = (&'a str, &'a MapData)>) -> Result<Names, KernelError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed); // only has to differ
        let mut names = Names(Vec::new());
        for (name, map) in maps {
            let path = Path::new(NAMES).join(format!("{name}-{}-{number}", std::process::id()));
            map.pin(&path).map_err(|e| KernelError::Object {
                object: path.display().to_string(),
                why: format!("cannot name a map so: {e}"),
                remedy: format!("mount the BPF file system: mount -t bpf bpf {NAMES}"),
            })?;
            names.0.push((name.to_owned(), path));
        }
        Ok(names)
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        for (_, path) in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn data_of(map: &Map) -> Option<&MapData> {
    Some(match map {
        Map::Array(data)
        | Map::BloomFilter(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::PerfEventArray(data)
        | Map::Queue(data)
        | Map::RingBuf(data)
        | Map::Stack(data) => data,
        _ => return None,
    })
}
