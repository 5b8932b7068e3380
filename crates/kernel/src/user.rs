//! The user's own programs: judged by the verifier first, then put in place by one write.

use aya::maps::{Map, MapData};
use aya::{Ebpf, EbpfLoader};

use crate::company::{Member, Together};
use crate::maps::Shape;
use crate::program::{again, program, share};
use crate::{KernelError, KernelSteer, UserMap};

/// Where a program has a name for a moment, if it cannot be had by its number.
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

/// A user's program that the verifier has accepted, with its maps: loaded for each interface of the [`Company`], with
/// one set of maps. It runs nowhere until it is installed.
///
/// [`Company`]: crate::Company
#[derive(Debug)]
pub struct Prepared {
    name: String,
    kept: Vec<String>,
    /// At least one.
    each: Vec<Loaded>,
}

/// A user's program, loaded for one interface.
#[derive(Debug)]
struct Loaded {
    /// Whose slots it is for.
    member: u32,
    ebpf: Ebpf,
    program: String,
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
        self.each.first().into_iter().flat_map(Loaded::maps)
    }

    /// A map of its own by name, for the application: another descriptor of the same map.
    ///
    /// # Errors
    /// No such map, or the system's.
    pub fn map(&self, name: &str) -> Result<MapData, KernelError> {
        let found = self.each.first().and_then(|loaded| loaded.map(name));
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

    /// Forgets what was loaded for this member.
    pub(crate) fn leave(&mut self, member: u32) {
        self.each.retain(|loaded| loaded.member != member);
    }
}

impl Loaded {
    fn maps(&self) -> impl Iterator<Item = &str> {
        self.ebpf.maps().map(|(name, _)| name).filter(|name| !SHARED.contains(name))
    }

    fn map(&self, name: &str) -> Option<&MapData> {
        self.ebpf.map(name).and_then(data_of)
    }

    /// Puts it into a slot of its member.
    fn enter(&mut self, slot: UserSlot, members: &mut [Member]) -> Result<(), KernelError> {
        let loaded = program(&mut self.ebpf, &self.program)?;
        let fd = loaded.fd().map_err(|e| KernelError::refused(&self.program, &e))?;
        let Some(member) = members.iter_mut().find(|member| member.number == self.member) else { return Ok(()) };
        let action = || format!("put {:?} into the slot {}", self.program, slot.name());
        member.slots.set(slot.entry(), fd, 0).map_err(|e| KernelError::system(action(), &e))
    }

    /// The maps that the same program has on other interfaces: all but constants, which the kernel has closed.
    fn for_others(&self) -> Result<Vec<(String, MapData)>, KernelError> {
        let variable = |name: &&str| !name.starts_with('.') || [".data", ".bss"].iter().any(|v| name.starts_with(v));
        let each = self.maps().filter(variable).filter_map(|name| Some((name, self.map(name)?)));
        each.map(|(name, map)| Ok((name.to_owned(), again(map)?))).collect()
    }
}

/// The maps that a user's object shares with the program, by the names in flowyard.bpf.h.
pub(crate) const SHARED: [&str; 2] = ["flowyard_slots", "flowyard_counts"];

impl KernelSteer {
    /// Loads a user's program from an object file's bytes: made with `bpf/flowyard.bpf.h`, one
    /// `FLOWYARD_PROGRAM` in it. What stands in the slots stays as it is.
    ///
    /// It is loaded once for each interface of the [`Company`](crate::Company); its maps are the same there, but for
    /// constants and for arrays of programs, sockets and the like.
    ///
    /// # Errors
    /// [`KernelError::Refused`] with the verifier's log, if the verifier will not have it; an object of
    /// another shape.
    pub fn prepare(&self, name: &str, object: &[u8]) -> Result<Prepared, KernelError> {
        let together = self.company().lock();
        let first = load(together.first()?, name, object, &[])?;
        everywhere(&together, first, name, object, Vec::new())
    }

    /// As [`prepare`](KernelSteer::prepare), for `slot`: maps of the same name and shape (kind, lengths of key and
    /// value, entries, flags) as those of the program that stands there are the same maps, with what is in them.
    /// Global variables are not: they begin anew.
    ///
    /// Where there are such maps the object is loaded once more, the first time to see their shapes.
    ///
    /// # Errors
    /// As [`prepare`](KernelSteer::prepare).
    pub fn prepare_for(&self, slot: UserSlot, name: &str, object: &[u8]) -> Result<Prepared, KernelError> {
        let mut together = self.company().lock();
        let fresh = load(together.first()?, name, object, &[])?;
        let mut kept = Vec::new();
        if let Some(before) = together.of(slot).as_ref().and_then(|before| before.each.first()) {
            for name in fresh.maps().filter(|name| !name.starts_with('.')) {
                if let Some((old, new)) = before.map(name).zip(fresh.map(name))
                    && Shape::of(old).is_some_and(|shape| Some(shape) == Shape::of(new))
                {
                    kept.push((name.to_owned(), again(old)?));
                }
            }
        }
        let first = if kept.is_empty() { fresh } else { load(together.first()?, name, object, &kept)? };
        everywhere(&together, first, name, object, kept.into_iter().map(|(name, _)| name).collect())
    }

    /// Puts a program into a slot, in the place of the one there, which is given back. Each packet goes
    /// through exactly one of the two, and none is lost: the slot is overwritten, never emptied.
    ///
    /// Interfaces of one [`Company`](crate::Company) change over one after the other, within microseconds.
    ///
    /// # Errors
    /// A program that was prepared before an interface came, or the system's; the old one stays then, everywhere.
    pub fn install(&self, slot: UserSlot, mut prepared: Prepared) -> Result<Option<Prepared>, KernelError> {
        let mut together = self.company().lock();
        let (members, old) = together.members_and(slot);
        if members.iter().any(|member| prepared.each.iter().all(|loaded| loaded.member != member.number)) {
            return Err(KernelError::Object {
                object: prepared.name,
                why: "was prepared before all interfaces were there".into(),
                remedy: "prepare it again".into(),
            });
        }
        for at in 0..prepared.each.len() {
            if let Err(error) = prepared.each[at].enter(slot, members) {
                for done in &prepared.each[..at] {
                    let before = old.iter_mut().flat_map(|old| &mut old.each).find(|old| old.member == done.member);
                    // What was there a moment ago can be there again.
                    let _ = match before {
                        Some(before) => before.enter(slot, members),
                        None => clear(slot, members.iter_mut().filter(|member| member.number == done.member)),
                    };
                }
                return Err(error);
            }
        }
        Ok(old.replace(prepared))
    }

    /// Takes the program out of a slot: packets go on without one.
    ///
    /// # Errors
    /// The system's; it stays then, where it could not be taken out.
    pub fn take_out(&self, slot: UserSlot) -> Result<Option<Prepared>, KernelError> {
        let mut together = self.company().lock();
        let (members, old) = together.members_and(slot);
        if old.is_some() {
            clear(slot, members.iter_mut())?;
        }
        Ok(old.take())
    }

    /// The name of the program in a slot.
    pub fn installed(&self, slot: UserSlot) -> Option<String> {
        self.company().lock().of(slot).as_ref().map(|prepared| prepared.name.clone())
    }

    /// The maps of the program in a slot: those that can be opened, none if it is empty.
    pub fn user_maps(&self, slot: UserSlot) -> Vec<UserMap> {
        let mut together = self.company().lock();
        let Some(prepared) = together.of(slot) else { return Vec::new() };
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
        match self.company().lock().of(slot) {
            Some(prepared) => prepared.map(name),
            None => Err(KernelError::Object {
                object: slot.name().into(),
                why: "the slot is empty".into(),
                remedy: "install a program first".into(),
            }),
        }
    }
}

/// Empties a slot of these.
fn clear<'a>(slot: UserSlot, members: impl Iterator<Item = &'a mut Member>) -> Result<(), KernelError> {
    let mut all = Ok(());
    for member in members {
        let cleared = member.slots.clear_index(&slot.entry());
        all = all.and(cleared.map_err(|e| KernelError::system(format!("empty the slot {}", slot.name()), &e)));
    }
    all
}

/// Loads a user's object that was loaded for the first member for the others as well, with the maps of that.
fn everywhere(
    together: &Together,
    first: Loaded,
    name: &str,
    object: &[u8],
    kept: Vec<String>,
) -> Result<Prepared, KernelError> {
    let mut each = vec![first];
    if let [first] = &each[..]
        && together.others().next().is_some()
    {
        let maps = first.for_others()?;
        let others = together.others().map(|member| load(member, name, object, &maps));
        let others: Vec<Loaded> = others.collect::<Result<_, _>>()?;
        each.extend(others);
    }
    Ok(Prepared { name: name.to_owned(), kept, each })
}

/// Loads a user's object for one member, with these maps in the place of its own.
fn load(member: &Member, name: &str, object: &[u8], maps: &[(String, MapData)]) -> Result<Loaded, KernelError> {
    let not_ebpf = |why: String| KernelError::Object {
        object: name.to_owned(),
        why,
        remedy: "build it as the sample's makefile does: clang -O2 -g -target bpf".into(),
    };
    // For its alignment.
    let object = object.to_vec();
    let loaded = EbpfLoader::new().btf(None).load(&object);
    let mut ebpf = loaded.map_err(|e| not_ebpf(format!("cannot be used: {e}")))?;
    let shared = SHARED.into_iter().zip(&member.shared);
    shared
        .chain(maps.iter().map(|(name, map)| (name.as_str(), map)))
        .try_for_each(|(name, map)| share(&ebpf, name, map))?;
    let wanted = if member.several_buffers { "_several" } else { "_one" };
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
    Ok(Loaded { member: member.number, ebpf, program: chosen.clone() })
}

pub(crate) fn data_of(map: &Map) -> Option<&MapData> {
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
