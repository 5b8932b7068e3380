//! The way down: one loop over headers, each step reading one of them.
//!
//! A step looks at the bytes where the walk stands, notes what it found, moves on past the header
//! and says which protocol comes next or why to stop. There is no recursion and no allocation; the
//! policy bounds the number of steps and of IP headers.

use crate::dissection::{Dissection, Family, Fragment, Level, MAX_FIRSTS, Ports, TunnelKind};
use crate::policy::Fragments;
use crate::{Frame, Id, Layer, LinkType, Observer, Policy, Stop, wire};

/// What a step says: the next protocol, or why there is none.
pub(crate) type Step = Result<Layer, Stop>;

/// Offsets are 16 bits: bytes beyond are not looked at.
const MAX_LEN: usize = u16::MAX as usize;

/// The state of one dissection.
pub(crate) struct Walk<'a, O> {
    /// What is left: from the next header to the end of what its carrier says it carries.
    rest: &'a [u8],
    /// Where `rest` begins in the frame.
    at: usize,
    /// The IP header being looked into.
    pub(crate) level: Level,
    /// Its number, counted from 1; 0 before the first.
    number: u8,
    /// How many IP headers may still be entered.
    headers_left: u8,
    /// What the packet is known to be so far.
    found: Dissection,
    /// Whether the header that makes the key has been left.
    key_known: bool,
    quoting: bool,
    virtual_network: u32,
    pub(crate) policy: &'a Policy,
    observer: &'a mut O,
}

/// Dissects a frame: reads headers from the outside in until the innermost flow is known or there
/// is a reason to stop.
///
/// Never panics, never allocates, reads only `frame.bytes`, and at most
/// [`Policy::max_steps`] headers. `observer` is told what is met; `()` costs nothing.
#[inline]
pub fn dissect<O: Observer>(frame: &Frame<'_>, policy: &Policy, observer: &mut O) -> Dissection {
    let mut walk = Walk::new(frame, policy, observer);
    let stop = walk.run(wire::link::first(frame.link));
    walk.finish(stop)
}

impl<'a, O: Observer> Walk<'a, O> {
    #[inline]
    fn new(frame: &Frame<'a>, policy: &'a Policy, observer: &'a mut O) -> Self {
        let rest = frame.bytes.get(..MAX_LEN).unwrap_or(frame.bytes);
        Walk {
            rest,
            at: 0,
            level: Level::default(),
            number: 0,
            headers_left: policy.max_depth,
            found: Dissection {
                flow: Level::default(),
                key: Level::default(),
                firsts: [(0, 0); MAX_FIRSTS],
                first_count: 0,
                depth: 0,
                stop: Stop::Transport,
                has_mac: false,
                has_quoted: false,
                awaits: false,
                outer_l3: 0,
                mac: 0,
                payload: 0,
                payload_end: 0,
                link: frame.link,
                vlan: frame.stripped_vlan,
                tunnel: None,
                extra: 0,
            },
            key_known: false,
            quoting: false,
            virtual_network: 0,
            policy,
            observer,
        }
    }

    #[inline]
    fn run(&mut self, first: Step) -> Stop {
        let mut layer = match first {
            Ok(layer) => layer,
            Err(stop) => return stop,
        };
        for _ in 0..self.policy.max_steps {
            let start = self.at;
            let step = wire::step(layer, self);
            if step == Err(Stop::NotTunnel) {
                return Stop::NotTunnel;
            }
            self.observer.layer(layer, start, self.at - start);
            match step {
                Ok(next) => layer = next,
                Err(stop) => return stop,
            }
        }
        Stop::Steps
    }

    #[inline]
    fn finish(mut self, stop: Stop) -> Dissection {
        self.leave();
        let found = &mut self.found;
        found.stop = if self.quoting { Stop::Quoted } else { stop };
        found.awaits = found.key.fragment == Fragment::Later && self.policy.fragments == Fragments::Follow;
        found.payload = self.at as u16;
        found.payload_end = (self.at + self.rest.len()) as u16;
        if self.policy.key_vlan {
            found.extra |= u64::from(found.vlan.map_or(0, |tci| (tci & 0xfff) + 1)) << 32;
        }
        if self.policy.key_vni {
            found.extra |= u64::from(self.virtual_network);
        }
        self.found
    }

    /// Ends the level being looked into: it is the flow, or the quoted one, until another comes.
    #[inline]
    fn leave(&mut self) {
        if self.level.family == Family::None {
            return;
        }
        if !self.quoting {
            self.found.flow = self.level;
        }
        if !self.key_known {
            self.found.key = self.level;
            self.found.has_quoted = self.quoting;
            self.key_known = self.number >= self.policy.key.number();
        }
        self.observer.level(self.level);
    }

    // ---- what steps ask -------------------------------------------------------------------------

    /// What is left, from the header being read.
    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Where the header being read starts in the frame.
    #[inline(always)]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The first `N` bytes of the header being read.
    #[inline(always)]
    pub(crate) fn header<const N: usize>(&self) -> Result<&'a [u8; N], Stop> {
        self.rest.first_chunk().ok_or(Stop::Truncated)
    }

    /// The link type of the frame.
    pub(crate) fn link(&self) -> LinkType {
        self.found.link
    }

    /// Whether the walk is inside a packet that an ICMP error quotes.
    #[inline(always)]
    pub(crate) fn quoting(&self) -> bool {
        self.quoting
    }

    // ---- what steps do --------------------------------------------------------------------------

    /// Moves on by `len` bytes.
    #[inline(always)]
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), Stop> {
        self.rest = self.rest.get(len..).ok_or(Stop::Truncated)?;
        self.at += len;
        Ok(())
    }

    /// Forgets what lies beyond `len` bytes from here: padding, trailers.
    #[inline(always)]
    pub(crate) fn clip(&mut self, len: usize) {
        self.rest = self.rest.get(..len).unwrap_or(self.rest);
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
            self.found.mac = self.at as u16;
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
        self.virtual_network = id;
    }

    /// Enters an IP header that starts here, once it is known to be one. Returns where that is.
    #[inline(always)]
    pub(crate) fn enter(&mut self, family: Family, proto: u8) -> Result<usize, Stop> {
        if self.headers_left == 0 {
            return Err(Stop::Depth);
        }
        self.headers_left -= 1;
        self.leave();
        self.number = self.number.saturating_add(1);
        if !self.quoting {
            if self.found.depth == 0 {
                self.found.outer_l3 = self.at as u16;
            }
            self.found.depth += 1;
        }
        self.level = Level { l3: self.at as u16, family, proto, quoted: self.quoting, ..Level::default() };
        Ok(self.at)
    }

    /// Notes that the upper layer of this level is `proto` and starts here.
    #[inline(always)]
    pub(crate) fn upper(&mut self, proto: u8) {
        self.level.proto = proto;
        self.level.l4 = self.at as u16;
    }

    /// Notes the ports of this level.
    #[inline(always)]
    pub(crate) fn ports(&mut self, sport: u16, dport: u16) {
        self.level.sport = sport;
        self.level.dport = dport;
        self.level.ports = Ports::Transport;
    }

    /// Notes the identifier of an ICMP query: it stands for both ports.
    #[inline(always)]
    pub(crate) fn icmp_id(&mut self, id: u16) {
        self.level.sport = id;
        self.level.dport = id;
        self.level.ports = Ports::IcmpId;
        self.id(Id::IcmpId(id));
    }

    /// Notes that this level is a fragment, described `frag` bytes into the frame.
    ///
    /// Returns `Err` where dissection ends with it.
    #[cold]
    pub(crate) fn fragment(&mut self, id: u32, frag: usize, later: bool) -> Result<(), Stop> {
        self.id(Id::FragmentId(id));
        self.level.frag = frag as u16;
        // An IPv6 packet may have two fragment headers: once later, always later.
        self.level.fragment = if later { Fragment::Later } else { Fragment::First };
        if self.policy.fragments == Fragments::AddressesOnly && !self.key_known {
            return Err(Stop::Fragment);
        }
        if later {
            return Err(Stop::LaterFragment);
        }
        if !self.quoting {
            let slot = self.found.firsts.get_mut(usize::from(self.found.first_count));
            if let Some(slot) = slot {
                *slot = (self.level.l3, self.level.frag);
                self.found.first_count += 1;
            }
        }
        Ok(())
    }

    /// Starts on the packet that an ICMP error quotes. It stands in for the level that quotes it.
    #[cold]
    pub(crate) fn quote(&mut self) {
        self.observer.level(self.level);
        self.found.flow = self.level;
        if !self.key_known {
            self.found.key = self.level;
        }
        self.level = Level::default();
        self.number = self.number.saturating_sub(1);
        self.quoting = true;
    }
}
