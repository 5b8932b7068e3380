//! The way down: one loop over headers, each step reading one of them.
//!
//! A step looks at the bytes where the walk stands, notes what it found, moves on past the header
//! and says which protocol comes next or why to stop. There is no recursion and no allocation; the
//! policy bounds the number of steps and of IP headers.

use crate::dissection::{Dissection, Family, Fragment, Level, Peers, Ports, TunnelKind};
use crate::policy::Fragments;
use crate::quick::quick;
use crate::{Frame, Id, KeyId, Layer, LinkType, Observer, Policy, Stop, hash, wire};

/// What a step says: the next protocol, or why there is none.
pub(crate) type Step = Result<Layer, Stop>;

/// Offsets are 16 bits: bytes beyond are not looked at.
const MAX_LEN: usize = u16::MAX as usize;

/// Where a walk stands. Small and `Copy`, so that it lives in registers: it is handed by value to
/// whatever is not part of the loop.
#[derive(Clone, Copy)]
pub(crate) struct Stand<'a> {
    /// What is left: from the next header to the end of what its carrier says it carries.
    rest: &'a [u8],
    /// Where `rest` begins in the frame.
    at: usize,
    /// The number of the IP header being looked into, counted from 1; 0 before the first.
    number: u8,
    /// How many IP headers may still be entered.
    headers_left: u8,
    /// Inside a packet that an ICMP error quotes.
    quoting: bool,
    virtual_network: u32,
}

/// One dissection under way.
pub(crate) struct Walk<'a, 'w, O> {
    stand: Stand<'a>,
    /// What the packet is known to be so far. The header being looked into is `found.flow`, or
    /// `found.other` while quoting.
    found: &'w mut Dissection,
    pub(crate) policy: &'w Policy,
    observer: &'w mut O,
}

/// Dissects a frame: reads headers from the outside in until the innermost flow is known or there
/// is a reason to stop.
///
/// Never panics, never allocates, reads only `frame.bytes`, and at most
/// [`Policy::max_steps`] headers. `observer` is told what is met; `()` costs nothing.
#[inline]
pub fn dissect<O: Observer>(frame: &Frame<'_>, policy: &Policy, observer: &mut O) -> Dissection {
    let mut found = Dissection::new(frame);
    if !O::QUIET || quick(frame, policy, &mut found).is_none() {
        dissect_into(frame, policy, observer, &mut found);
    }
    found
}

/// As [`dissect`], into a fresh [`Dissection::new`], so that nothing is copied afterwards.
#[inline(never)]
pub(crate) fn dissect_into<O: Observer>(frame: &Frame<'_>, policy: &Policy, observer: &mut O, found: &mut Dissection) {
    let rest = frame.bytes.get(..MAX_LEN).unwrap_or(frame.bytes);
    let headers_left = policy.max_depth;
    let stand = Stand { rest, at: 0, number: 0, headers_left, quoting: false, virtual_network: 0 };
    let mut walk = Walk { stand, found, policy, observer };
    let first = wire::link::first(frame.link);
    let stop = if policy.leave_alone.is_empty() { walk.run::<false>(first) } else { choosy(&mut walk, first) };
    walk.finish(stop);
}

/// The way down with an eye on what is to be left alone.
#[cold]
#[inline(never)]
fn choosy<O: Observer>(walk: &mut Walk<'_, '_, O>, first: Step) -> Stop {
    walk.run::<true>(first)
}

#[inline(never)]
fn aside<'a, O: Observer>(
    layer: Layer,
    stand: Stand<'a>,
    found: &mut Dissection,
    policy: &Policy,
    observer: &mut O,
) -> (Stand<'a>, Step) {
    let mut walk = Walk { stand, found, policy, observer };
    let step = wire::rare(layer, &mut walk);
    (walk.stand, step)
}

impl<'a, O: Observer> Walk<'a, '_, O> {
    #[inline(always)]
    fn run<const CHOOSY: bool>(&mut self, first: Step) -> Stop {
        let mut step = first;
        for _ in 0..self.policy.max_steps {
            match step {
                Ok(layer) if CHOOSY && self.policy.leave_alone.contains(layer) => return Stop::Policy,
                Ok(layer) => step = self.read(layer),
                Err(stop) => return stop,
            }
        }
        step.err().unwrap_or(Stop::Steps)
    }

    /// Reads one header and tells the observer.
    #[inline(always)]
    fn read(&mut self, layer: Layer) -> Step {
        let start = self.stand.at;
        let step = wire::step(layer, self);
        if step != Err(Stop::NotTunnel) {
            self.observer.layer(layer, start, self.stand.at - start);
        }
        step
    }

    /// Reads one header out of line: the stand goes and comes back by value, so that for the loop
    /// it need never be in memory.
    #[inline(always)]
    pub(crate) fn aside(&mut self, layer: Layer) -> Step {
        let (stand, step) = aside(layer, self.stand, self.found, self.policy, self.observer);
        self.stand = stand;
        step
    }

    #[inline(always)]
    fn finish(self, stop: Stop) {
        let found = self.found;
        found.stop = if self.stand.quoting { Stop::Quoted } else { stop };
        found.payload = self.stand.at as u16;
        found.payload_end = (self.stand.at + self.stand.rest.len()) as u16;
        let level = if self.stand.quoting { &found.other } else { &found.flow };
        if level.family != Family::None {
            self.observer.level(*level);
            // A quotation that cannot be read leaves the error its own key.
            found.key_is_other |= self.stand.quoting;
        }
        if found.key().peers != Peers::No {
            found.key_by_addresses(stop);
        }
        if self.policy.key_vlan {
            // Identifier 0 is a priority and no VLAN (IEEE 802.1Q table 9-2), and often on one direction only.
            let vlan = found.vlan.map_or(0, |tci| tci & 0xfff);
            found.extra ^= u64::from(vlan + u16::from(vlan != 0)) << 32;
        }
        if self.policy.key_vni {
            found.extra ^= u64::from(self.stand.virtual_network);
        }
        found.awaits = found.key().fragment == Fragment::Later && self.policy.fragments == Fragments::Follow;
    }

    // ---- what steps ask -------------------------------------------------------------------------

    /// What is left, from the header being read.
    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.stand.rest
    }

    /// Where the header being read starts in the frame.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.stand.at
    }

    /// The first `N` bytes of the header being read.
    #[inline(always)]
    pub(crate) fn header<const N: usize>(&self) -> Result<&'a [u8; N], Stop> {
        self.stand.rest.first_chunk().ok_or(Stop::Truncated)
    }

    /// The link type of the frame.
    pub(crate) fn link(&self) -> LinkType {
        self.found.link
    }

    /// Whether the walk is inside a packet that an ICMP error quotes.
    #[inline(always)]
    pub(crate) fn quoting(&self) -> bool {
        self.stand.quoting
    }

    // ---- what steps do --------------------------------------------------------------------------

    /// Moves on by `len` bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), Stop> {
        self.stand.rest = self.stand.rest.get(len..).ok_or(Stop::Truncated)?;
        self.stand.at += len;
        Ok(())
    }

    /// Forgets what lies beyond `len` bytes from here: padding, trailers.
    #[inline(always)]
    pub(crate) fn clip(&mut self, len: usize) {
        self.stand.rest = self.stand.rest.get(..len).unwrap_or(self.stand.rest);
    }

    /// Tells the observer.
    #[inline(always)]
    pub(crate) fn id(&mut self, id: Id) {
        self.observer.id(id);
    }

    /// Notes the Ethernet addresses here, if they are the outermost.
    #[inline(always)]
    pub(crate) fn mac(&mut self) {
        if !self.found.has_mac {
            self.found.has_mac = true;
            self.found.mac = self.stand.at as u16;
        }
    }

    /// Notes a VLAN tag, if it is the outermost.
    #[inline(always)]
    pub(crate) fn vlan(&mut self, tci: u16) {
        if self.found.vlan.is_none() {
            self.found.vlan = Some(tci);
        }
        self.id(Id::Vlan(tci & 0xfff));
    }

    /// Notes a tunnel.
    #[inline(always)]
    pub(crate) fn tunnel(&mut self, kind: TunnelKind, id: u32) {
        self.found.tunnel = Some((kind, id));
    }

    /// Notes the identifier of a virtual network that both directions share.
    #[inline(always)]
    pub(crate) fn virtual_network(&mut self, id: u32) {
        self.stand.virtual_network = id;
    }

    /// Adds an identifier to the key, if the policy asks for it.
    #[inline(always)]
    pub(crate) fn join(&mut self, id: KeyId, value: u32) {
        if self.policy.key_ids.contains(id) {
            self.found.extra = hash::join(self.found.extra, id, value);
        }
    }

    /// The IP header being looked into.
    #[inline(always)]
    pub(crate) fn level(&mut self) -> &mut Level {
        if self.stand.quoting { &mut self.found.other } else { &mut self.found.flow }
    }

    /// Enters an IP header that starts here, once it is known to be one. Returns where that is.
    #[inline(always)]
    pub(crate) fn enter(&mut self, family: Family, proto: u8) -> Result<usize, Stop> {
        if self.stand.headers_left == 0 {
            return Err(Stop::Depth);
        }
        self.stand.headers_left -= 1;
        if self.stand.number != 0 {
            self.leave()?;
        }
        self.stand.number = self.stand.number.saturating_add(1);
        let l3 = self.stand.at as u16;
        if !self.stand.quoting {
            if self.found.depth == 0 {
                self.found.outer_l3 = l3;
            }
            self.found.depth += 1;
        }
        let quoted = self.stand.quoting;
        *self.level() = Level { l3, family, proto, quoted, ..Level::default() };
        Ok(self.stand.at)
    }

    /// Leaves an IP header for one inside it. The one that makes the key is kept.
    #[inline(always)]
    fn leave(&mut self) -> Result<(), Stop> {
        let level = *self.level();
        if level.family == Family::None {
            return Ok(());
        }
        self.observer.level(level);
        if self.stand.number == self.policy.key.number() && !self.found.key_is_other {
            if self.stand.quoting {
                return Err(Stop::Quoted);
            }
            self.found.other = level;
            if level.peers == Peers::Tunnel {
                self.found.other.peers = Peers::Always;
            }
            self.found.key_is_other = true;
        }
        Ok(())
    }

    /// Notes that the upper layer of this level is `proto` and starts here.
    #[inline(always)]
    pub(crate) fn upper(&mut self, proto: u8) {
        let l4 = self.stand.at as u16;
        let level = self.level();
        level.proto = proto;
        level.l4 = l4;
    }

    /// Notes the ports of this level.
    #[inline(always)]
    pub(crate) fn ports(&mut self, sport: u16, dport: u16) {
        let level = self.level();
        level.sport = sport;
        level.dport = dport;
        level.ports = Ports::Transport;
    }

    /// Notes the identifier of an ICMP query: it stands for both ports.
    #[inline(always)]
    pub(crate) fn icmp_id(&mut self, id: u16) {
        let level = self.level();
        level.sport = id;
        level.dport = id;
        level.ports = Ports::IcmpId;
        self.id(Id::IcmpId(id));
    }

    /// Notes that this level is a fragment, described `frag` bytes into the frame.
    ///
    /// Returns `Err` where dissection ends with it.
    #[inline(always)]
    pub(crate) fn fragment(&mut self, id: u32, frag: usize, later: bool) -> Result<(), Stop> {
        self.id(Id::FragmentId(id));
        let level = self.level();
        level.frag = frag as u16;
        level.fragment = if later { Fragment::Later } else { Fragment::First };
        let l3 = level.l3;
        // Once the key is known, what is deeper no longer matters to it.
        let key_known = self.found.key_is_other && !self.stand.quoting;
        if self.policy.fragments == Fragments::AddressesOnly && !key_known {
            return Err(Stop::Fragment);
        }
        if later {
            return Err(Stop::LaterFragment);
        }
        if !self.stand.quoting {
            let slot = self.found.firsts.get_mut(usize::from(self.found.first_count));
            if let Some(slot) = slot {
                *slot = (l3, frag as u16);
                self.found.first_count += 1;
            }
        }
        Ok(())
    }

    /// Starts on the packet that an ICMP error quotes: it stands in for the level that quotes it.
    /// Returns whether there is need: not when the key is known already.
    pub(crate) fn quote(&mut self) -> bool {
        if self.found.key_is_other {
            return false;
        }
        let level = *self.level();
        self.observer.level(level);
        self.stand.number = self.stand.number.saturating_sub(1);
        self.stand.quoting = true;
        true
    }
}
