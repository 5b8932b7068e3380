//! The steering programs of one yard, one an interface, and what they share: the two directions of a link may come by
//! two interfaces, and so may the fragments of one datagram and the errors that quote it.
//!
//! ```text
//! interface 0: root, steer, deliver, slots, sockets, counters ┐
//! interface 1: root, steer, deliver, slots, sockets, counters ┴ table, memory of fragments, maps of the user's programs
//! ```
//!
//! Programs, arrays of programs, sockets and counters are an interface's own: one may take frames in one buffer and
//! another in several, and kernels have no array for both kinds. So a user's program is loaded once for each, with the
//! same maps, and put into their slots one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{MapData, ProgramArray};

use crate::program::again;
use crate::{Counts, CountsMap, KernelError, Prepared, UserSlot};

/// The programs that steer as one: [`Setup::company`](crate::Setup::company). Clones are the same company; it is
/// empty until a program is loaded into it, and empty again when all are dropped.
#[derive(Debug, Clone, Default)]
pub struct Company(Arc<Mutex<Together>>);

impl Company {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Together> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all programs of a company were loaded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub seed: u64,
    pub rings: u16,
    pub fragments: u32,
}

/// Maps that all have.
#[derive(Debug)]
pub(crate) struct Shared {
    pub terms: Terms,
    pub table: MapData,
    pub fragments: MapData,
}

/// One interface's slots for programs.
pub(crate) struct Member {
    pub number: u32,
    pub slots: ProgramArray<MapData>,
    /// The maps that a user's object shares with the program, in the order of [`SHARED`](crate::user::SHARED).
    pub shared: [MapData; 2],
    pub several_buffers: bool,
}

impl Member {
    pub(crate) fn new(slots: ProgramArray<MapData>, shared: [MapData; 2], several_buffers: bool) -> Member {
        Member { number: 0, slots, shared, several_buffers }
    }
}

/// Who is in a company, and what stands in their slots.
#[derive(Default)]
pub(crate) struct Together {
    shared: Option<Shared>,
    members: Vec<Member>,
    next: u32,
    before: Option<Prepared>,
    after: Option<Prepared>,
}

impl Together {
    /// The maps that a new program is to have in common with those that are there, if any are.
    pub(crate) fn join(&self, terms: Terms) -> Result<Option<&Shared>, KernelError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let refused = |why: &str, remedy: &str| {
            let object = "the steering program of another interface".into();
            Err(KernelError::Object { object, why: why.into(), remedy: remedy.into() })
        };
        if shared.terms != terms {
            return refused("has another seed, number of rings or memory of fragments", "load all with the same");
        }
        if self.before.is_some() || self.after.is_some() {
            return refused("has a user's program before or after it", "load all before a user's program is installed");
        }
        Ok(Some(shared))
    }

    /// Takes a new one in; answers its number.
    pub(crate) fn admit(&mut self, shared: Shared, member: Member) -> u32 {
        self.shared.get_or_insert(shared);
        let number = self.next;
        self.next += 1;
        self.members.push(Member { number, ..member });
        number
    }

    /// One has gone.
    pub(crate) fn leave(&mut self, number: u32) {
        self.members.retain(|member| member.number != number);
        for prepared in [&mut self.before, &mut self.after].into_iter().flatten() {
            prepared.leave(number);
        }
        if self.members.is_empty() {
            *self = Together { next: self.next, ..Together::default() };
        }
    }

    /// The one whose maps the others have.
    pub(crate) fn first(&self) -> Result<&Member, KernelError> {
        self.members.first().ok_or_else(|| KernelError::Object {
            object: "the company of steering programs".into(),
            why: "is empty".into(),
            remedy: "load one first".into(),
        })
    }

    /// All but the first.
    pub(crate) fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().skip(1)
    }

    /// What stands in a slot.
    pub(crate) fn of(&mut self, slot: UserSlot) -> &mut Option<Prepared> {
        self.members_and(slot).1
    }

    pub(crate) fn members_and(&mut self, slot: UserSlot) -> (&mut [Member], &mut Option<Prepared>) {
        let standing = match slot {
            UserSlot::Before => &mut self.before,
            UserSlot::After => &mut self.after,
        };
        (&mut self.members, standing)
    }

    /// What all have counted.
    pub(crate) fn counts(&self) -> Result<Counts, KernelError> {
        let mut sum = Counts::default();
        for Member { shared: [_, counts], .. } in &self.members {
            CountsMap::new(again(counts)?)?.add_all(&mut sum)?;
        }
        Ok(sum)
    }
}

impl std::fmt::Debug for Together {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Together").field("members", &self.members.len()).finish_non_exhaustive()
    }
}
