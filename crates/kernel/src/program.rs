//! The programs and their maps: loaded, set up, ready to be attached.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError, ProgramArray, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use flowyard_steer::{Classifier, Table};

use crate::company::{Member, Shared, Terms};
use crate::sys;
use crate::user::data_of;
use crate::{
    BoundProgram, CardCalls, CardFacts, Company, Counts, CountsMap, Fragments, HostFilter, HostPlace, KernelError,
    counts, policy,
};

/// bpf/steer.bpf.c, as bpf/build.sh built it.
static OBJECT: &[u8] = include_bytes_aligned!("../bpf/steer.bpf.o");

/// Entries of `flowyard_slots` that are the program's own.
const SLOT_BEFORE: u32 = 0;
const SLOT_STEER: u32 = 1;
const SLOT_DELIVER: u32 = 3;
const SLOT_HOST: u32 = 4;

/// What happens to a packet for which there is no socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallback {
    /// It goes on to the host's own stack.
    #[default]
    Pass,
    /// It is dropped.
    Drop,
}

/// Which of the sockets of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// That of a ring.
    Ring(u16),
    /// That of what is marked.
    Marked,
}

/// What a card is to be asked.
#[derive(Debug, Clone, Copy)]
pub struct AskCard<'a> {
    /// Number of the interface that the program is for: it is attached to no other.
    pub interface: u32,
    /// What the driver offers, and the kernel has functions for.
    pub facts: CardFacts,
    /// The kernel's functions.
    pub calls: &'a CardCalls,
}

/// What [`KernelSteer::load`] needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// What to steer by: the default policy, the default hash, any table.
    pub classifier: &'a Classifier,
    /// Receive queues that the interface can have.
    pub queues: u32,
    /// Whether frames may span several buffers (`xdp.frags`): for MTUs beyond one, and for the stack.
    pub several_buffers: bool,
    /// Most bytes of a frame that a socket takes, where frames are in one buffer.
    pub longest_bytes: u32,
    /// What happens to packets for which there is no socket.
    pub fallback: Fallback,
    /// What goes to the host's stack, before anything else is done with it.
    pub host: Option<&'a HostFilter>,
    /// Datagrams whose first fragments are remembered.
    pub fragments: u32,
    /// The programs of other interfaces that this one shares its table, its memory of fragments and the user's
    /// programs with; none if there is none.
    pub company: Option<&'a Company>,
    /// What the card is asked, if anything: the program is bound to its device then, and needs Linux 6.16.
    pub card: Option<AskCard<'a>>,
}

impl<'a> Setup<'a> {
    /// One queue, frames in one buffer of any length, what has no socket to the host, 65,536 datagrams.
    pub fn new(classifier: &'a Classifier) -> Setup<'a> {
        Setup {
            classifier,
            queues: 1,
            several_buffers: false,
            longest_bytes: u32::MAX,
            fallback: Fallback::Pass,
            host: None,
            fragments: 65_536,
            company: None,
            card: None,
        }
    }
}

/// The programs in the kernel, their maps, and what users have put into the slots.
///
/// Nothing is on an interface until somebody attaches [`root`](KernelSteer::root). Dropping this detaches it;
/// where its link was taken out and is held elsewhere, the program goes on, but its slots are emptied with the
/// last descriptor of theirs, and it falls back for every packet: whoever holds the link holds this as well.
///
/// One of these is for one interface. Those of a [`Company`] steer as one: table, memory of fragments and the user's
/// programs are changed for all of them, by whichever is asked.
pub struct KernelSteer {
    ebpf: Ebpf,
    bound: Option<Bound>,
    queues: u32,
    rings: u16,
    several_buffers: bool,
    sockets: Mutex<XskMap<MapData>>,
    table: Mutex<Array<MapData, [u16; Table::BUCKETS]>>,
    counts: CountsMap,
    fragments: MapData,
    company: Company,
    /// This one's number in it.
    member: u32,
}

/// The root that asks the card.
struct Bound {
    program: BoundProgram,
    loaded: Xdp,
}

impl KernelSteer {
    /// Loads programs and maps.
    ///
    /// # Errors
    /// A policy or hash that the program does not do; numbers out of range; a company that steers otherwise, or where
    /// a user's program stands already; and what the kernel says, most likely that privileges are missing.
    pub fn load(setup: &Setup<'_>) -> Result<KernelSteer, KernelError> {
        let seed = policy::seed_of(setup.classifier)?;
        let rings = setup.classifier.table.rings();
        let sockets = setup.queues.checked_mul(u32::from(rings) + 1).filter(|&n| n > 0 && n <= 1 << 20);
        let Some(sockets) = sockets else {
            let (what, value) = ("the number of queues", setup.queues.into());
            let allowed = "at least 1, and queues × (rings + 1) at most 1,048,576";
            return Err(KernelError::Number { what, value, allowed });
        };
        if !(64..=1 << 24).contains(&setup.fragments) {
            let (what, value) = ("the number of datagrams remembered", setup.fragments.into());
            return Err(KernelError::Number { what, value, allowed: "from 64 to 16,777,216" });
        }
        let fallback: u32 = match setup.fallback {
            Fallback::Drop => 1,
            Fallback::Pass => 2,
        };
        let terms = Terms { seed, rings, fragments: setup.fragments };
        let company = setup.company.cloned().unwrap_or_default();
        let mut together = company.lock();
        let others = together.join(terms)?;
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("sockets", sockets)
            .map_max_entries("flowyard_counts", setup.queues)
            .map_max_entries("firsts", if others.is_some() { 1 } else { setup.fragments })
            .override_global("seed", &seed, true)
            .override_global("rings", &u32::from(rings), true)
            .override_global("fallback", &fallback, true)
            .override_global("longest_bytes", &setup.longest_bytes, true)
            .override_global("card", &u32::from(setup.card.is_some()), true)
            .override_global("card_tells", &setup.card.map_or(0, |ask| ask.facts.flags()), true)
            .load(OBJECT)
            .map_err(|e| KernelError::system("load the maps of the steering program", &e))?;
        if let Some(Shared { table, fragments, .. }) = others {
            share(&ebpf, "table", table)?;
            share(&ebpf, "firsts", fragments)?;
        }

        let several_buffers = setup.several_buffers;
        let bound = setup.card.map(|ask| {
            let name = variant("root_card", several_buffers);
            BoundProgram::new(OBJECT, &ebpf, &name, ask.calls, ask.interface, several_buffers)
        });
        let bound = bound.transpose()?;

        let Some(Map::ProgramArray(slots)) = ebpf.take_map("flowyard_slots") else { return Err(odd("flowyard_slots")) };
        let Some(Map::PerCpuArray(counted)) = ebpf.take_map("flowyard_counts") else {
            return Err(odd("flowyard_counts"));
        };
        let Some(Map::LruHashMap(fragments)) = ebpf.take_map("firsts") else { return Err(odd("firsts")) };
        let take = |ebpf: &mut Ebpf, name| ebpf.take_map(name).ok_or_else(|| odd(name));
        let use_map = |error: MapError| KernelError::system("use the maps of the steering program", &error);
        let sockets = XskMap::try_from(take(&mut ebpf, "sockets")?).map_err(use_map)?;
        let Some(Map::Array(table)) = ebpf.take_map("table") else { return Err(odd("table")) };
        let common = Shared { terms, table: again(&table)?, fragments: again(&fragments)? };
        let table = Array::try_from(Map::Array(table)).map_err(use_map)?;
        let shared = [again(&slots)?, again(&counted)?];
        let mut slots = ProgramArray::try_from(Map::ProgramArray(slots)).map_err(use_map)?;
        let counts = CountsMap::new(counted)?;

        load_into(&mut ebpf, "steer", several_buffers, SLOT_STEER, &mut slots)?;
        load_into(&mut ebpf, "deliver", several_buffers, SLOT_DELIVER, &mut slots)?;
        if let Some(filter) = setup.host {
            let [slots, counts] = &shared;
            let (own, next, count_offset) = (SLOT_HOST, &[SLOT_BEFORE, SLOT_STEER], counts::TO_HOST as u16 * 8);
            let metadata = setup.card.is_some();
            filter.install(&HostPlace { slots, own, next, counts, count_offset, several_buffers, metadata })?;
        }
        let root = variant("root", several_buffers);
        program(&mut ebpf, &root)?.load().map_err(|e| KernelError::refused(&root, &e))?;
        let bound = match bound {
            Some(program) => Some(Bound { loaded: program.load()?, program }),
            None => None,
        };

        let member = together.admit(common, Member::new(slots, shared, several_buffers));
        drop(together);
        let kernel = KernelSteer {
            ebpf,
            bound,
            queues: setup.queues,
            rings,
            several_buffers,
            sockets: Mutex::new(sockets),
            table: Mutex::new(table),
            counts,
            fragments,
            company,
            member,
        };
        kernel.set_table(&setup.classifier.table)?;
        Ok(kernel)
    }

    /// The program that goes on the interface, loaded: to be attached, by link or netlink.
    ///
    /// # Errors
    /// None that a built object has.
    pub fn root(&mut self) -> Result<&mut Xdp, KernelError> {
        match &mut self.bound {
            Some(bound) => Ok(&mut bound.loaded),
            None => program(&mut self.ebpf, &variant("root", self.several_buffers)),
        }
    }

    /// Loads the program that goes on the interface a second time, another one to the kernel, for whoever holds the link
    /// to put into that.
    ///
    /// # Errors
    /// The system's.
    pub fn renew_root(&mut self) -> Result<(), KernelError> {
        match &mut self.bound {
            Some(bound) => bound.loaded = bound.program.load()?,
            None => {
                let name = variant("root", self.several_buffers);
                let root = program(&mut self.ebpf, &name)?;
                match root.unload() {
                    Ok(()) | Err(ProgramError::NotLoaded) => {} // it could not be loaded the last time
                    Err(e) => return Err(KernelError::refused(&name, &e)),
                }
                root.load().map_err(|e| KernelError::refused(&name, &e))?;
            }
        }
        Ok(())
    }

    pub(crate) fn root_ref(&self) -> Result<&Xdp, KernelError> {
        let name = variant("root", self.several_buffers);
        let program = self.ebpf.program(&name).ok_or_else(|| odd(&name))?;
        program.try_into().map_err(|e| KernelError::refused(&name, &e))
    }

    /// Whether frames may span several buffers.
    pub fn several_buffers(&self) -> bool {
        self.several_buffers
    }

    /// Rings that packets are steered to.
    pub fn rings(&self) -> u16 {
        self.rings
    }

    /// Queues that there is room for.
    pub fn queues(&self) -> u32 {
        self.queues
    }

    /// Where the socket of a place stands in the map of sockets: those of a queue lie together, that for
    /// marked packets behind those of the rings.
    ///
    /// # Errors
    /// A queue or ring that there is not.
    pub fn socket_index(&self, queue: u32, place: Place) -> Result<u32, KernelError> {
        if queue >= self.queues {
            let allowed = "below the number of queues that the program was loaded for";
            return Err(KernelError::Number { what: "a queue", value: queue.into(), allowed });
        }
        let within = match place {
            Place::Ring(ring) if ring < self.rings => ring,
            Place::Ring(ring) => {
                return Err(KernelError::Number {
                    what: "a ring",
                    value: ring.into(),
                    allowed: "below the number of rings",
                });
            }
            Place::Marked => self.rings,
        };
        Ok(queue * (u32::from(self.rings) + 1) + u32::from(within))
    }

    /// Sends packets of `queue` for `place` to `socket` from now on. The socket must be bound to that
    /// queue: the kernel loses packets for any other, and counts them nowhere.
    ///
    /// # Errors
    /// A place that there is not, or the system's.
    pub fn enter(&self, queue: u32, place: Place, socket: impl AsFd) -> Result<(), KernelError> {
        let index = self.socket_index(queue, place)?;
        let set = locked(&self.sockets).set(index, socket.as_fd().as_raw_fd(), 0);
        set.map_err(|e| KernelError::system(format!("enter the socket of queue {queue}, {place:?}"), &e))
    }

    /// Has packets of `queue` for `place` fall back from now on.
    ///
    /// # Errors
    /// A place that there is not.
    pub fn leave(&self, queue: u32, place: Place) -> Result<(), KernelError> {
        let index = self.socket_index(queue, place)?;
        // It fails where the kernel has emptied the entry already, because the socket is gone.
        let _ = locked(&self.sockets).unset(index);
        Ok(())
    }

    /// Steers by another table from now on, as do all of its [`Company`]. A packet that is under way meanwhile goes by
    /// either.
    ///
    /// # Errors
    /// A table for another number of rings: the sockets are laid out for theirs.
    pub fn set_table(&self, table: &Table) -> Result<(), KernelError> {
        let buckets = <&[u16; Table::BUCKETS]>::try_from(table.buckets()).ok();
        let Some(buckets) = buckets.filter(|_| table.rings() == self.rings) else {
            return Err(KernelError::Number {
                what: "the number of rings of a table",
                value: table.rings().into(),
                allowed: "as it was when the program was loaded: load it anew for another",
            });
        };
        locked(&self.table)
            .set(0, *buckets, 0)
            .map_err(|e| KernelError::system("write the table of the steering program", &e))
    }

    /// What the program has counted on a queue; nothing on a queue that there is not.
    ///
    /// # Errors
    /// The system's.
    pub fn counts(&self, queue: u32) -> Result<Counts, KernelError> {
        self.counts.of(queue)
    }

    /// What the program has counted on all queues.
    ///
    /// # Errors
    /// The system's.
    pub fn all_counts(&self) -> Result<Counts, KernelError> {
        self.counts.all()
    }

    /// What the programs of its [`Company`] have counted, on all queues of all interfaces.
    ///
    /// # Errors
    /// The system's.
    pub fn company_counts(&self) -> Result<Counts, KernelError> {
        self.company.lock().counts()
    }

    /// The program's counters as a map, another descriptor: to be pinned for whoever comes after, or for a
    /// [`CountsMap`].
    ///
    /// # Errors
    /// The system's: no more descriptors.
    pub fn counts_map(&self) -> Result<MapData, KernelError> {
        again(self.counts.data())
    }

    /// The program's memory of first fragments, and its [`Company`]'s. Any number of these see the same.
    ///
    /// # Errors
    /// The system's: no more descriptors.
    pub fn fragments(&self) -> Result<Fragments, KernelError> {
        let map = Map::LruHashMap(again(&self.fragments)?);
        let map = HashMap::try_from(map).map_err(|e| KernelError::system("use the memory of fragments", &e))?;
        Ok(Fragments::new(map))
    }

    /// Those that it steers with.
    pub(crate) fn company(&self) -> &Company {
        &self.company
    }
}

impl Drop for KernelSteer {
    fn drop(&mut self) {
        self.company.lock().leave(self.member);
    }
}

impl fmt::Debug for KernelSteer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (queues, rings, several_buffers) = (&self.queues, &self.rings, &self.several_buffers);
        f.debug_struct("KernelSteer")
            .field("queues", queues)
            .field("rings", rings)
            .field("several_buffers", several_buffers)
            .finish_non_exhaustive()
    }
}

/// A program's name among those for frames in one buffer, or in several.
fn variant(name: &str, several_buffers: bool) -> String {
    format!("{name}{}", if several_buffers { "_several" } else { "_one" })
}

/// Another descriptor of a map.
pub(crate) fn again(map: &MapData) -> Result<MapData, KernelError> {
    let fd = map.fd().as_fd().try_clone_to_owned().map_err(|e| KernelError::system("duplicate a descriptor", &e))?;
    MapData::from_fd(fd).map_err(|e| KernelError::system("look at a map", &e))
}

/// Has an object's map of that name, if it has one, be a map that is there already: for the programs of the object that
/// are loaded from now on, and for whoever asks it for the map.
pub(crate) fn share(ebpf: &Ebpf, name: &str, map: &MapData) -> Result<(), KernelError> {
    let own = match ebpf.map(name) {
        Some(Map::ProgramArray(data)) => data,
        Some(other) => match data_of(other) {
            Some(data) => data,
            None => return Ok(()),
        },
        None => return Ok(()),
    };
    sys::stand_for(own, map).map_err(|e| KernelError::system(format!("share the map {name:?}"), &e))
}

pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).ok_or_else(|| odd(name))?;
    program.try_into().map_err(|e| KernelError::refused(name, &e))
}

fn load_into(
    ebpf: &mut Ebpf,
    name: &str,
    several_buffers: bool,
    slot: u32,
    slots: &mut ProgramArray<MapData>,
) -> Result<(), KernelError> {
    let name = variant(name, several_buffers);
    let program = program(ebpf, &name)?;
    program.load().map_err(|e| KernelError::refused(&name, &e))?;
    let fd = program.fd().map_err(|e| KernelError::refused(&name, &e))?;
    slots.set(slot, fd, 0).map_err(|e| KernelError::system(format!("put the program {name:?} into its slot"), &e))
}

fn odd(what: &str) -> KernelError {
    KernelError::Object {
        object: "steer.bpf.o".into(),
        why: format!("has no {what}"),
        remedy: "run bpf/build.sh, and build again".into(),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
